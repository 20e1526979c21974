//! What the tests record: streams, samples, marks, and what becomes of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tendon_dataset::lerobot::reader::{Dataset, SourceEpisode};
use tendon_protocol::batch::{Batch, Media};
use tendon_protocol::control::{Lost, LostReason, Mark, MarkAction};
use tendon_protocol::id::{ClockId, SessionId, StreamId};
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};

use super::server::{Server, tendon, until, until_or};
use super::wire::Wire;

/// Capture time at which episodes begin, in nanoseconds.
pub const START: i64 = 100_000_000_000;
pub const MS: i64 = 1_000_000;
/// Time between two samples: the sessions of these tests have 10 rows a second.
pub const PERIOD: i64 = 100 * MS;

pub const STATE: StreamId = StreamId(1);
pub const ACTION: StreamId = StreamId(2);
pub const CAMERA: StreamId = StreamId(3);
/// The clock of all samples, unless a test says otherwise.
pub const CLOCK: ClockId = ClockId::from_u128(7);

fn values(stream: StreamId, feature: &str, role: Role) -> StreamDeclaration {
    StreamDeclaration {
        stream,
        feature: feature.to_owned(),
        names: vec!["shoulder".to_owned(), "elbow".to_owned()],
        unit: "rad".to_owned(),
        dtype: Dtype::F32,
        shape: vec![2],
        rate_mhz: 10_000,
        required: true,
        role,
        content: Content::Values,
    }
}

pub fn state() -> StreamDeclaration {
    values(STATE, "observation.state", Role::Measured)
}

pub fn action() -> StreamDeclaration {
    values(ACTION, "action", Role::Commanded)
}

pub fn camera() -> StreamDeclaration {
    StreamDeclaration {
        names: Vec::new(),
        unit: String::new(),
        dtype: Dtype::U8,
        shape: vec![48, 64, 3],
        required: false,
        content: Content::Jpeg,
        ..values(CAMERA, "observation.images.front", Role::Measured)
    }
}

/// The values of one sample.
pub fn sample(stream: StreamId, sequence: u64) -> [f32; 2] {
    [stream.0 as f32 + sequence as f32 / 128.0, -(sequence as f32) / 3.0]
}

/// The capture time of one sample.
pub fn time_of(sequence: u64) -> i64 {
    START + sequence as i64 * PERIOD
}

pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Samples `from` to `to`, the last one not included, one period apart.
pub fn batch(stream: StreamId, from: u64, to: u64) -> Batch {
    Batch {
        stream,
        first: from,
        clock: CLOCK,
        dtype: Dtype::F32,
        width: 2,
        times_ns: (from..to).map(time_of).collect(),
        flags: vec![0; (to - from) as usize],
        values: (from..to).flat_map(|sequence| bytes_of(&sample(stream, sequence))).collect(),
    }
}

/// The same as a message.
pub fn samples(stream: StreamId, from: u64, to: u64) -> Message {
    Message::Batch(batch(stream, from, to))
}

/// A picture of this size that differs for each sequence.
pub fn jpeg(sequence: u64, width: u16, height: u16) -> Vec<u8> {
    let pixels: Vec<u8> = (0..usize::from(width) * usize::from(height))
        .flat_map(|at| {
            [(at as u64 * 7 + sequence * 31) as u8, (at / usize::from(width)) as u8 * 5, sequence as u8 * 11]
        })
        .collect();
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 80).encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

pub fn picture(sequence: u64, data: Vec<u8>) -> Message {
    Message::Media(Media {
        stream: CAMERA,
        sequence,
        clock: CLOCK,
        time_ns: time_of(sequence),
        content: Content::Jpeg,
        flags: 0,
        data,
    })
}

/// A mark of the producer's episode 1.
pub fn mark(sequence: u64, action: MarkAction, time_ns: i64) -> Message {
    mark_of(1, sequence, action, time_ns, if action == MarkAction::Start { "pick up the cube" } else { "" })
}

pub fn mark_of(episode: u64, sequence: u64, action: MarkAction, time_ns: i64, instruction: &str) -> Message {
    Message::Mark(Mark {
        sequence,
        episode,
        action,
        request: false,
        clock: CLOCK,
        time_ns,
        instruction: instruction.to_owned(),
    })
}

pub fn lost(sequence: u64, stream: StreamId, first: u64, last: u64) -> Message {
    Message::Lost(Lost { sequence, stream, first, last, reason: LostReason::Other })
}

pub fn new_session(dataset: &str) -> Value {
    json!({ "operator": "ada", "robot": "arm-1", "embodiment": "so101", "type": "leader_arm", "fps": 10, "dataset": dataset })
}

pub fn id_of(session: &Value) -> SessionId {
    session["id"].as_str().unwrap().parse().unwrap()
}

impl Server {
    /// Makes a session of the dataset `kitchen`.
    pub async fn session(&self) -> SessionId {
        id_of(&self.post("/sessions", new_session("kitchen")).await.ok())
    }

    pub async fn session_record(&self, session: SessionId) -> Value {
        self.get(&format!("/sessions/{session}")).await.ok()
    }

    pub async fn episodes(&self, session: SessionId) -> Vec<Value> {
        self.get(&format!("/sessions/{session}/episodes")).await.ok()["episodes"].as_array().unwrap().clone()
    }

    /// Waits until an episode is in this state.
    pub async fn episode_in(&self, session: SessionId, number: u32, state: &str) -> Value {
        let path = format!("/sessions/{session}/episodes/{number}");
        let mut last = Value::Null;
        let what = format!("episode {number} {state}");
        let found = until_or(&what, async || {
            last = self.get(&path).await.body;
            (last["state"] == state).then(|| last.clone())
        });
        found.await.unwrap_or_else(|vain| panic!("{vain}; it is {last}"))
    }

    /// All frames of one feature of an episode, page by page.
    pub async fn frames(&self, session: SessionId, number: u32, feature: &str) -> Vec<Value> {
        let (mut frames, mut from) = (Vec::new(), 0);
        loop {
            let path = format!("/sessions/{session}/episodes/{number}/frames?feature={feature}&limit=7&from={from}");
            let page = self.get(&path).await.ok();
            frames.extend(page["frames"].as_array().unwrap().iter().cloned());
            match page["next"].as_u64() {
                Some(next) => from = next,
                None => return frames,
            }
        }
    }

    /// Runs an export to its end, whichever it is.
    pub async fn export(&self, wanted: Value) -> Value {
        let id = self.post("/exports", wanted).await.ok()["id"].as_str().unwrap().to_owned();
        until("export ends", async || {
            let record = self.get(&format!("/exports/{id}")).await.ok();
            matches!(record["state"].as_str(), Some("done" | "failed")).then_some(record)
        })
        .await
    }

    /// Fetches the files of an export that went well.
    pub async fn fetch(&self, export: &Value, into: &Path) {
        assert_eq!(export["state"], "done", "{export}");
        let id = export["id"].as_str().unwrap();
        let listed = self.get(&format!("/exports/{id}/files")).await.ok();
        let files = listed["files"].as_array().unwrap();
        assert!(!files.is_empty());
        for file in files {
            let path = file["path"].as_str().unwrap();
            let bytes = self.download(&format!("/exports/{id}/files/{path}")).await;
            assert_eq!(bytes.len() as u64, file["bytes"].as_u64().unwrap(), "{path}");
            let target = into.join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, bytes).unwrap();
        }
    }

    /// Exports a session, fetches it, checks it with `tendon verify` and opens it.
    pub async fn exported(&self, session: SessionId, format: &str) -> Exported {
        let record = self.export(json!({ "session": session, "format": format })).await;
        Exported::of(self, record, true).await
    }
}

/// A dataset that was exported and fetched.
pub struct Exported {
    _folder: tempfile::TempDir,
    pub record: Value,
    pub findings: Value,
    pub dataset: Dataset,
}

impl Exported {
    pub async fn of(server: &Server, record: Value, must_be_clean: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("dataset");
        server.fetch(&record, &root).await;
        let output = tendon(&["verify", "--json", root.to_str().unwrap()]).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        if must_be_clean {
            assert_eq!(report["findings"], json!([]), "exit {:?}", output.status.code());
            assert_eq!(output.status.code(), Some(0));
        }
        let dataset = Dataset::open(&root).unwrap();
        Self { _folder: folder, record, findings: report["findings"].clone(), dataset }
    }

    pub fn episode(&self, position: usize) -> SourceEpisode {
        self.dataset.read_episode(position).unwrap()
    }

    pub fn warnings(&self) -> String {
        self.record["warnings"].to_string()
    }
}

/// The bytes of a column.
pub fn column<'a>(episode: &'a SourceEpisode, key: &str) -> &'a [u8] {
    &episode.columns.iter().find(|column| column.spec.key == key).unwrap_or_else(|| panic!("no column {key}")).values
}

/// The report of one stream of an episode.
pub fn stream_report<'a>(episode: &'a Value, feature: &str) -> &'a Value {
    let streams = episode["report"]["streams"].as_array().unwrap_or_else(|| panic!("no report: {episode}"));
    streams.iter().find(|stream| stream["feature"] == feature).unwrap()
}

/// Asserts that frames are exactly these samples, as they were sent.
#[track_caller]
pub fn assert_frames(frames: &[Value], stream: StreamId, sequences: impl IntoIterator<Item = u64>) {
    // The parser of the test may be off by the last bit of an f64; no value of these tests needs more than an f32.
    let got: BTreeMap<u64, (i64, Vec<f32>)> = frames
        .iter()
        .map(|frame| {
            let values =
                frame["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
            (frame["sequence"].as_u64().unwrap(), (frame["time_ns"].as_i64().unwrap(), values))
        })
        .collect();
    assert_eq!(got.len(), frames.len(), "a sequence came twice");
    let sent: BTreeMap<u64, (i64, Vec<f32>)> = sequences
        .into_iter()
        .map(|sequence| (sequence, (time_of(sequence), sample(stream, sequence).to_vec())))
        .collect();
    assert_eq!(got, sent);
}

/// Declares state and action.
pub async fn declare(wire: &mut Wire) {
    wire.send(&Message::Declare(state())).await;
    wire.send(&Message::Declare(action())).await;
}

/// Records an episode of `count` samples of state and action that begins and ends with a sample.
/// `journal` is the sequence of its start mark.
pub async fn record(wire: &mut Wire, episode: u64, journal: u64, first: u64, count: u64) {
    wire.send(&mark_of(episode, journal, MarkAction::Start, time_of(first), "pick up the cube")).await;
    let mut from = first;
    while from < first + count {
        let to = (from + 16).min(first + count);
        wire.send(&samples(STATE, from, to)).await;
        wire.send(&samples(ACTION, from, to)).await;
        from = to;
    }
    wire.send(&mark_of(episode, journal + 1, MarkAction::StopSuccess, time_of(first + count - 1), "")).await;
    wire.wait_for(STATE, first + count).await;
    wire.wait_for(ACTION, first + count).await;
    wire.wait_for(StreamId::JOURNAL, journal + 2).await;
}
