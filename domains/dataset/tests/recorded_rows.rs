//! Real recordings on the way that a live stream takes: messages, gathering, cutting, rows. What
//! comes out must be what was recorded, bit for bit.

use std::path::{Path, PathBuf};

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tendon_dataset::episode::{Column, Episode};
use tendon_dataset::rows::{
    CAPTURE_TIME, NotFinite, RowClock, RowsInput, RowsReport, SAMPLE_FLAGS, TOLERANCE_TICKS, make_rows,
};
use tendon_dataset::samples::Gatherer;
use tendon_dataset::samples::cut::{Window, cut};
use tendon_protocol::batch::Batch;
use tendon_protocol::clock::ClockMap;
use tendon_protocol::envelope::Sealer;
use tendon_protocol::id::{ClockId, StreamId};
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};

const CLOCK: ClockId = ClockId::from_u128(9);
const FEATURES: [(&str, Role); 2] = [("observation.state", Role::Measured), ("action", Role::Commanded)];

struct Recorded {
    times_ns: Vec<i64>,
    /// Dtype, width and little-endian values of each of `FEATURES`.
    columns: Vec<(Dtype, u32, Vec<u8>)>,
}

fn shared() -> PathBuf {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    assert!(path.is_dir(), "{} is missing; put the shared folder beside the checkout", path.display());
    path.to_path_buf()
}

/// The elements of a list column as bytes.
fn flat(column: &ArrayRef) -> (Dtype, Vec<u8>) {
    let elements: ArrayRef = match column.as_fixed_size_list_opt() {
        Some(list) => list.values().clone(),
        None => column.as_list::<i32>().values().clone(),
    };
    if let Some(values) = elements.as_primitive_opt::<Float64Type>() {
        return (Dtype::F64, values.values().iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let values = elements.as_primitive::<Float32Type>();
    (Dtype::F32, values.values().iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Stamps of either width in nanoseconds.
fn stamps(column: &ArrayRef) -> Vec<i64> {
    let to_ns = |second: f64| (second * 1e9).round() as i64;
    match column.as_primitive_opt::<Float64Type>() {
        Some(values) => values.values().iter().map(|second| to_ns(*second)).collect(),
        None => column.as_primitive::<Float32Type>().values().iter().map(|second| to_ns(f64::from(*second))).collect(),
    }
}

fn read(path: &Path) -> Recorded {
    let file = std::fs::File::open(path).expect("the episode is there");
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(file).expect("it is parquet").build().expect("it can be read");
    let mut recorded = Recorded { times_ns: Vec::new(), columns: Vec::new() };
    for batch in reader {
        let batch = batch.expect("the rows are whole");
        recorded.times_ns.extend(stamps(batch.column_by_name("timestamp").expect("rows have times")));
        for (place, (feature, _)) in FEATURES.iter().enumerate() {
            let (dtype, values) = flat(batch.column_by_name(feature).expect("the feature is there"));
            let width = u32::try_from(values.len() / dtype.size_bytes() / batch.num_rows()).expect("a small width");
            match recorded.columns.get_mut(place) {
                Some(column) => column.2.extend(values),
                None => recorded.columns.push((dtype, width, values)),
            }
        }
    }
    recorded
}

fn declaration(place: usize, (dtype, width, _): &(Dtype, u32, Vec<u8>)) -> StreamDeclaration {
    StreamDeclaration {
        stream: StreamId(place as u32 + 1),
        feature: FEATURES[place].0.into(),
        names: Vec::new(),
        unit: String::new(),
        dtype: *dtype,
        shape: vec![*width],
        rate_mhz: 0,
        required: true,
        role: FEATURES[place].1,
        content: Content::Values,
    }
}

/// The stored messages of one feature, in batches of 16 samples.
fn messages(place: usize, recorded: &Recorded) -> Vec<Bytes> {
    let (dtype, width, values) = &recorded.columns[place];
    let sample = *width as usize * dtype.size_bytes();
    let mut sealer = Sealer::new();
    let batches = recorded.times_ns.chunks(16).zip(values.chunks(16 * sample)).enumerate();
    let encode = |(number, (times, values)): (usize, (&[i64], &[u8]))| {
        let batch = Batch {
            stream: StreamId(place as u32 + 1),
            first: number as u64 * 16,
            clock: CLOCK,
            dtype: *dtype,
            width: *width,
            times_ns: times.to_vec(),
            flags: vec![0; times.len()],
            values: values.to_vec(),
        };
        Bytes::from(Message::Batch(batch).encode_with(&mut sealer))
    };
    batches.map(encode).collect()
}

fn replay(recorded: &Recorded, fps: u32) -> (Episode, RowsReport) {
    let declarations = recorded.columns.iter().enumerate().map(|(place, column)| declaration(place, column));
    let mut gatherer = Gatherer::new(declarations).expect("two streams");
    for place in (0..FEATURES.len()).rev() {
        let messages = messages(place, recorded);
        // The last messages come first, and the first half once more, as after a cut connection.
        for message in messages.iter().rev().chain(&messages[..messages.len() / 2]) {
            gatherer.add(message).expect("a stored message");
        }
    }
    let window = Window {
        clock: CLOCK,
        start_ns: *recorded.times_ns.iter().min().expect("there are rows"),
        stop_ns: *recorded.times_ns.iter().max().expect("there are rows") + 1,
        pauses: Vec::new(),
    };
    let cut = cut(gatherer.finish(), window, &ClockMap::default()).expect("the window is sane");
    make_rows(RowsInput {
        cut: &cut,
        row_clock: RowClock::Stream("observation.state"),
        fps,
        tasks: vec!["as recorded".into()],
        tolerance_ticks: TOLERANCE_TICKS,
        not_finite: NotFinite::Refuse,
        origin: "recorded".into(),
    })
    .expect("rows can be made")
}

fn column<'a>(episode: &'a Episode, key: &str) -> &'a Column {
    episode.columns.iter().find(|column| column.spec.key == key).expect("the column is there")
}

/// Rows and episodes that came back.
fn comes_back(dataset: &str, fps: u32) -> (usize, usize) {
    let folder = shared().join(dataset).join("data/chunk-000");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the recording is there")
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    let (mut rows, episodes) = (0, paths.len());
    for path in paths {
        let recorded = read(&path);
        let (episode, report) = replay(&recorded, fps);
        assert_eq!(episode.rows, recorded.times_ns.len(), "{}", path.display());
        for (place, (feature, _)) in FEATURES.iter().enumerate() {
            let back = column(&episode, feature);
            assert_eq!(back.spec.dtype, recorded.columns[place].0);
            assert!(back.values == recorded.columns[place].2, "{feature} of {} came back changed", path.display());
        }
        let times: Vec<u8> = recorded.times_ns.iter().flat_map(|time| [*time; 2]).flat_map(i64::to_le_bytes).collect();
        assert!(column(&episode, CAPTURE_TIME).values == times, "capture times of {}", path.display());
        assert!(
            column(&episode, SAMPLE_FLAGS).values.iter().all(|flags| *flags == 0),
            "something was held in {}",
            path.display()
        );
        assert!(report.features.iter().all(|feature| feature.held == 0 && feature.filled == 0 && feature.unused == 0));
        rows += episode.rows;
    }
    (episodes, rows)
}

#[test]
fn a_recording_with_real_gaps_comes_back_bit_for_bit() {
    assert_eq!(comes_back("dobot-cr5-v2", 10), (81, 18_039));
}

#[test]
fn a_recording_in_float64_comes_back_bit_for_bit() {
    assert_eq!(comes_back("gr1-picknplace-v2", 20), (5, 2_096));
}

#[test]
fn a_recording_of_26_joints_comes_back_bit_for_bit() {
    assert_eq!(comes_back("unitree-g1-v2", 30), (100, 35_965));
}
