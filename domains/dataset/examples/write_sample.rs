//! Writes a small dataset that uses everything the writer can: two cameras, every element type,
//! scalars, vectors and arrays, several tasks, an episode of one row.
//!
//! `cargo run -p tendon-dataset --example write_sample -- FOLDER [v3.0|v2.1] [EPISODES]`
//!
//! A v3.0 folder that is there already is appended to. What a reader must find is written beside it
//! as `FOLDER.expected.json`, for `tests/python/check_lerobot.py`.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tendon_dataset::episode::{Camera, Column, Episode, FeatureSpec, Picture};
use tendon_dataset::jpeg;
use tendon_dataset::lerobot::spec::DatasetSpec;
use tendon_dataset::lerobot::writer::{Writer, v21};
use tendon_protocol::stream::{Content, Dtype};

const FPS: u32 = 30;
const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: write_sample FOLDER [v3.0|v2.1] [EPISODES]")?;
    let format = arguments.next().unwrap_or("v3.0".into());
    let count: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let folder = Path::new(&folder);
    let spec = DatasetSpec::of(&episode(0)?, Some("so101_follower".into()));
    let total = match format.as_str() {
        "v2.1" => {
            let mut writer = v21::Writer::create(folder, spec)?;
            for number in 0..count {
                writer.append(&episode(number)?)?;
            }
            writer.finish()?
        }
        "v3.0" => {
            let mut writer = match folder.join("meta/info.json").exists() {
                true => Writer::append_to(folder, spec)?,
                false => Writer::create(folder, spec)?,
            };
            let first = usize::try_from(writer.totals().episodes)?;
            for number in first..first + count {
                writer.append(&episode(number)?)?;
            }
            writer.finish()?
        }
        other => return Err(format!("format {other:?}; v3.0 and v2.1 can be written").into()),
    };
    let mut episodes = Vec::new();
    for number in 0..usize::try_from(total.episodes)? {
        episodes.push(expected(&episode(number)?));
    }
    std::fs::write(folder.with_extension("expected.json"), json!({"episodes": episodes}).to_string())?;
    println!("{} episodes, {} rows, {} tasks in {}", total.episodes, total.rows, total.tasks, folder.display());
    Ok(())
}

/// Episode `number`, the same every time.
fn episode(number: usize) -> Result<Episode, jpeg::JpegError> {
    let rows = [45, 30, 1, 120][number % 4];
    let task = match number % 3 {
        0 => "Lift the red cube".to_owned(),
        1 => "Hebe den Würfel 🤖 «schräg»\nzweite Zeile".to_owned(),
        _ => "長い".repeat(10_000),
    };
    let wave = move |row: usize, element: usize| {
        ((number * 31 + row * 7 + element * 3) as f64 * 0.37).sin() * (element + 1) as f64
    };
    let joints =
        ["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos"];
    let columns = vec![
        column("action", Dtype::F32, &[6], &joints, rows, |row, element| {
            ((wave(row, element) + 0.5) as f32).to_le_bytes().to_vec()
        }),
        column("observation.state", Dtype::F32, &[6], &joints, rows, |row, element| {
            (wave(row, element) as f32).to_le_bytes().to_vec()
        }),
        column("observation.force", Dtype::F64, &[3], &["x", "y", "z"], rows, |row, element| {
            (wave(row, element) / 3.0).to_le_bytes().to_vec()
        }),
        column("observation.grid", Dtype::F32, &[2, 3], &[], rows, |row, element| {
            (wave(row, element) as f32).to_le_bytes().to_vec()
        }),
        column("capture_time_ns", Dtype::I64, &[2], &["state", "action"], rows, |row, element| {
            (1_764_000_000_000_000_123 + row as i64 * 33_333_333 + element as i64).to_le_bytes().to_vec()
        }),
        column("sample_flags", Dtype::U8, &[2], &["state", "action"], rows, |row, element| {
            vec![(row * 2 + element) as u8]
        }),
        column("contact", Dtype::Bool, &[2], &["left", "right"], rows, |row, element| {
            vec![u8::from((row + element).is_multiple_of(3))]
        }),
        column("next.reward", Dtype::F32, &[1], &["reward"], rows, |row, _| {
            (row as f32 * 0.125).to_le_bytes().to_vec()
        }),
        column("next.done", Dtype::Bool, &[1], &["done"], rows, move |row, _| vec![u8::from(row + 1 == rows)]),
    ];
    let cameras = vec![
        camera("observation.images.front", number, rows, 1)?,
        camera("observation.images.wrist", number, rows, 3)?,
    ];
    Ok(Episode { fps: FPS, rows, tasks: vec![task], columns, cameras, origin: format!("sample/{number}") })
}

fn column(
    key: &str,
    dtype: Dtype,
    shape: &[u32],
    names: &[&str],
    rows: usize,
    value: impl Fn(usize, usize) -> Vec<u8>,
) -> Column {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let spec = FeatureSpec {
        key: key.into(),
        dtype,
        shape: shape.into(),
        names,
        unit: String::new(),
        content: Content::Values,
    };
    let width = spec.width();
    let values = (0..rows * width).flat_map(|at| value(at / width, at % width)).collect();
    Column { spec, values }
}

/// A square that moves over a gradient, so that each picture is another and a wrong row is seen.
fn camera(key: &str, number: usize, rows: usize, speed: usize) -> Result<Camera, jpeg::JpegError> {
    let names = ["height", "width", "channels"].map(str::to_owned).into();
    let spec = FeatureSpec {
        key: key.into(),
        dtype: Dtype::U8,
        shape: vec![HEIGHT, WIDTH, 3],
        names,
        unit: String::new(),
        content: Content::Jpeg,
    };
    let mut pictures = Vec::new();
    for row in 0..rows {
        let (left, top) = ((row * speed + number * 5) % 48, (row * speed / 2 + number * 11) % 32);
        let mut pixels = Vec::new();
        for y in 0..HEIGHT as usize {
            for x in 0..WIDTH as usize {
                let inside = (left..left + 16).contains(&x) && (top..top + 16).contains(&y);
                let shade = if inside {
                    [250, 60, (row * 2 % 256) as u8]
                } else {
                    [(x * 3) as u8, (y * 4) as u8, (number * 40 % 256) as u8]
                };
                pixels.extend_from_slice(&shade);
            }
        }
        pictures.push(Picture {
            data: jpeg::encode_rgb(WIDTH, HEIGHT, &pixels, 90)?,
            key: true,
            row: u32::try_from(row).unwrap_or(u32::MAX),
        });
    }
    Ok(Camera { spec, config: bytes::Bytes::new(), pictures })
}

fn expected(episode: &Episode) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let cameras: serde_json::Map<String, Value> = episode
        .cameras
        .iter()
        .map(|camera| {
            let sums: Vec<String> = camera.pictures.iter().map(|picture| hex(&Sha256::digest(&picture.data))).collect();
            (camera.spec.key.clone(), json!(sums))
        })
        .collect();
    let values: serde_json::Map<String, Value> =
        episode.columns.iter().map(|column| (column.spec.key.clone(), json!(hex(&column.values)))).collect();
    json!({"task": episode.tasks[0], "rows": episode.rows, "cameras": cameras, "values": values})
}
