//! Episodes for our own writer.

use bytes::Bytes;
use tendon_dataset::episode::{Camera, Column, Episode, FeatureSpec, Picture};
use tendon_dataset::jpeg;
use tendon_protocol::stream::{Content, Dtype};

fn spec(key: &str, dtype: Dtype, shape: &[u32], names: &[&str], content: Content) -> FeatureSpec {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    FeatureSpec { key: key.into(), dtype, shape: shape.to_vec(), names, unit: String::new(), content }
}

/// Every element type and a camera, different for every `salt`.
pub fn episode(rows: usize, salt: usize) -> Episode {
    let wave = |at: usize| ((at * 7 + salt) as f64 * 0.3).sin();
    let all = |width: usize, bytes: &dyn Fn(usize) -> Vec<u8>| (0..rows * width).flat_map(bytes).collect::<Vec<u8>>();
    let column = |key, dtype, width: u32, names: &[&str], values| Column {
        spec: spec(key, dtype, &[width], names, Content::Values),
        values,
    };
    let pictures = (0..rows).map(|row| {
        let pixels: Vec<u8> = (0..16 * 8 * 3).map(|at| (at * 5 + row * 9 + salt) as u8).collect();
        Picture { data: jpeg::encode_rgb(16, 8, &pixels, 80).unwrap(), key: true, row: row as u32 }
    });
    let camera =
        spec("observation.images.front", Dtype::U8, &[8, 16, 3], &["height", "width", "channels"], Content::Jpeg);
    Episode {
        fps: 30,
        rows,
        tasks: vec![format!("task {}", salt % 3)],
        columns: vec![
            column("action", Dtype::F32, 2, &["a", "b"], all(2, &|at| (wave(at) as f32).to_le_bytes().to_vec())),
            column("observation.state", Dtype::F64, 2, &["a", "b"], all(2, &|at| wave(at + 1).to_le_bytes().to_vec())),
            column(
                "observation.timestamp_ns",
                Dtype::I64,
                1,
                &[],
                all(1, &|at| (1_700_000_000_000_000_000_i64 + at as i64 * 33_333_333).to_le_bytes().to_vec()),
            ),
            column("next.done", Dtype::Bool, 1, &[], all(1, &|at| vec![u8::from(at + 1 == rows)])),
            column("mode", Dtype::U8, 1, &[], all(1, &|at| vec![(at % 3) as u8])),
        ],
        cameras: vec![Camera { spec: camera, config: Bytes::new(), pictures: pictures.collect() }],
        origin: format!("session/{salt}"),
    }
}
