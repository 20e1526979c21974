//! Wire messages at rest: in the log, and in an episode's objects, where they follow one another.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tendon_dataset::jpeg;
use tendon_dataset::samples::cut::Window;
use tendon_protocol::batch::{BatchView, flag, is_finite};
use tendon_protocol::control::{ErrorCode, ErrorMessage};
use tendon_protocol::envelope::{ENVELOPE_BYTES, Opener};
use tendon_protocol::id::{ClockId, SessionId, StreamId};
use tendon_protocol::message::{Message, View};
use tendon_protocol::stream::{Content, Dtype, StreamDeclaration};
use tendon_storage::frames::{FrameLog, LogError, Stored};
use tendon_storage::records::{ClockRecord, EpisodeKey, EpisodeRecord, EpisodeReport, EpisodeState, RowClock};

use crate::api::{FrameView, FramesPage, Refusal, RefusalCode};
use crate::board::Permits;
use crate::house::{House, blocking};
use crate::session::machine::{JournalEntry, SampleHead, SampleShape};

/// Name of the manifest below an episode's prefix. The episode exists if and only if it does.
pub const MANIFEST: &str = "manifest.json";
/// Sequences read from the log at once for a page of frames.
const LOG_SEQUENCES: u64 = 4096;

/// What an episode's objects are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout of this file and of the objects.
    pub version: u32,
    /// The episode's record when it was written, without report and manifest path.
    pub episode: EpisodeRecord,
    /// The robot's kind.
    pub embodiment: String,
    /// Target rate of rows in 1/s.
    pub fps: u32,
    /// What decides when a row is taken.
    pub row_clock: RowClock,
    /// When the episode was, the stop included.
    pub window: Window,
    /// Each stream's object.
    pub streams: Vec<ManifestStream>,
    /// Object with the journal's lost messages, if there are any.
    pub journal: Option<ManifestObject>,
    /// What is known of the producer's clocks.
    pub clocks: Vec<ClockRecord>,
    /// How well the streams kept their promises.
    pub report: Option<EpisodeReport>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestObject {
    /// Path in object storage.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC32C of the content.
    pub crc32c: u32,
    /// Wire messages in it.
    pub messages: u64,
}

/// One stream of an episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestStream {
    /// What it carries.
    pub declaration: StreamDeclaration,
    /// Its messages; absent if there are none.
    pub object: Option<ManifestObject>,
}

/// Path below which an episode's objects lie.
#[must_use]
pub fn prefix(key: EpisodeKey) -> String {
    format!("episodes/{}/{:06}", key.session, key.number)
}

/// Splits an object into its wire messages. Stops with an error at bytes that are none.
///
/// # Errors
/// Names the offset.
pub fn messages(object: &Bytes) -> Result<Vec<Bytes>, String> {
    let mut messages = Vec::new();
    let mut at = 0;
    while at < object.len() {
        let stated = object.get(at + 12..at + 16).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let end = stated.map(|stored| at + ENVELOPE_BYTES + stored as usize).filter(|end| *end <= object.len());
        let Some(end) = end else {
            return Err(format!(
                "object of {} bytes holds half a message at {at}; it was cut or damaged",
                object.len()
            ));
        };
        messages.push(object.slice(at..end));
        at = end;
    }
    Ok(messages)
}

/// The head of a journal entry that came again.
#[must_use]
pub fn journal_head(sequence: u64) -> SampleHead {
    SampleHead {
        stream: StreamId::JOURNAL,
        first: sequence,
        count: 1,
        shape: SampleShape::Values(Dtype::U8, 0),
        clock: ClockId::default(),
        first_ns: 0,
        last_ns: 0,
    }
}

/// The journal entry in a stored message.
#[must_use]
pub fn journal_entry(message: &[u8]) -> Option<JournalEntry> {
    match Message::decode(message) {
        Ok(Message::Mark(mark)) => Some(JournalEntry::Mark(mark)),
        Ok(Message::Lost(lost)) => Some(JournalEntry::Lost(lost)),
        Ok(_) | Err(_) => None,
    }
}

/// Clock, first and last capture time of the samples in a stored message.
#[must_use]
pub fn times(message: &[u8], opener: &mut Opener) -> Option<(ClockId, i64, i64)> {
    match View::open(opener, message) {
        Ok(View::Batch(batch)) => {
            let (first, last) = (batch.times_ns().min()?, batch.times_ns().max()?);
            Some((batch.clock(), first, last))
        }
        Ok(View::Media(media)) => Some((media.clock(), media.time_ns(), media.time_ns())),
        Ok(_) | Err(_) => None,
    }
}

/// Clock and newest capture time of the samples in a stored message.
#[must_use]
pub fn last_time(message: &[u8]) -> Option<(ClockId, i64)> {
    times(message, &mut Opener::new()).map(|(clock, _, last)| (clock, last))
}

/// Compares samples that came again with what is stored. Gives how many were the same, and a
/// conflict for each message that was not. Blocks.
#[must_use]
pub fn compare_duplicates(
    log: &FrameLog,
    session: SessionId,
    again: Vec<(SampleHead, Bytes, Arc<Permits>)>,
) -> (u64, Vec<ErrorMessage>) {
    let (mut removed, mut errors) = (0, Vec::new());
    for (head, message, _permits) in again {
        let stored = match log.read(session, head.stream, head.first, head.first + u64::from(head.count)) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(%session, "samples that came again cannot be compared: {error}");
                continue;
            }
        };
        match conflict(&head, &message, &stored) {
            None => removed += u64::from(head.count),
            Some(sequence) => {
                let text = format!(
                    "sample {sequence} of stream {} came again with other bytes; what is stored stays, a numbered sample never changes, use new numbers",
                    head.stream
                );
                errors.push(ErrorMessage { code: ErrorCode::SequenceConflict, stream: head.stream, sequence, text });
            }
        }
    }
    (removed, errors)
}

/// The first sequence that differs. What the log has released cannot be compared and counts as equal.
fn conflict(head: &SampleHead, message: &[u8], stored: &[Stored]) -> Option<u64> {
    for entry in stored {
        if entry.first == head.first && entry.count == head.count && entry.payload == message {
            continue;
        }
        let (mut ours, mut theirs) = (Opener::new(), Opener::new());
        let differs = match (View::open(&mut ours, message), View::open(&mut theirs, &entry.payload)) {
            (Ok(View::Batch(again)), Ok(View::Batch(first))) => batch_conflict(&again, &first),
            (Ok(again), Ok(first)) => (again.into_message() != first.into_message()).then_some(head.first),
            (Ok(_), Err(_)) | (Err(_), _) => Some(head.first),
        };
        if differs.is_some() {
            return differs;
        }
    }
    None
}

fn batch_conflict(again: &BatchView<'_>, first: &BatchView<'_>) -> Option<u64> {
    let from = again.first().max(first.first());
    let to = (again.first() + again.count() as u64).min(first.first() + first.count() as u64);
    if from < to && (again.dtype() != first.dtype() || again.width() != first.width() || again.clock() != first.clock())
    {
        return Some(from);
    }
    let sample = |batch: &BatchView<'_>, sequence: u64| {
        let index = usize::try_from(sequence - batch.first()).ok()?;
        let size = batch.sample_bytes();
        Some((
            batch.times_ns().nth(index)?,
            *batch.flags().get(index)?,
            batch.values().get(index * size..(index + 1) * size)?.to_vec(),
        ))
    };
    (from..to).find(|sequence| sample(again, *sequence) != sample(first, *sequence))
}

/// Reads entries of the log, and around those that are damaged: what is whole, and what was wrong. Blocks.
///
/// # Errors
/// When the log cannot be read at all.
pub fn read_whole_entries(
    log: &FrameLog,
    session: SessionId,
    stream: StreamId,
    from: u64,
    to: u64,
) -> Result<(Vec<Stored>, Vec<String>), LogError> {
    match log.read(session, stream, from, to) {
        Ok(entries) => Ok((entries, Vec::new())),
        Err(error @ LogError::Damaged { .. }) if to.saturating_sub(from) <= 1 => {
            Ok((Vec::new(), vec![format!("stream {stream}, sequence {from}: {error}")]))
        }
        Err(LogError::Damaged { .. }) => {
            let middle = from + (to - from) / 2;
            let (mut entries, mut damage) = read_whole_entries(log, session, stream, from, middle)?;
            let (later, more) = read_whole_entries(log, session, stream, middle, to)?;
            let known: Vec<u64> = entries.iter().map(|entry| entry.first).collect();
            entries.extend(later.into_iter().filter(|entry| !known.contains(&entry.first)));
            damage.extend(more);
            Ok((entries, damage))
        }
        Err(error) => Err(error),
    }
}

/// Reads and checks an episode's manifest.
///
/// # Errors
/// When there is none, or it cannot be read.
pub async fn manifest(house: &House, record: &EpisodeRecord) -> Result<Manifest, Refusal> {
    let Some(path) = &record.manifest else {
        let text = format!("episode {} is {}, not stored yet; wait until it is", record.key(), record.state);
        return Err(Refusal::new(RefusalCode::WrongState, text));
    };
    let content =
        house.objects.get(path).await.map_err(|error| Refusal::new(RefusalCode::Storage, error.to_string()))?;
    serde_json::from_slice(&content).map_err(|error| {
        Refusal::new(RefusalCode::Storage, format!("manifest {path} does not parse: {error}; restore it from a backup"))
    })
}

/// Reads an object of an episode and checks its length and sum.
///
/// # Errors
/// When it cannot be read or was damaged.
pub async fn object(house: &House, object: &ManifestObject) -> Result<Vec<Bytes>, Refusal> {
    let storage = |text: String| Refusal::new(RefusalCode::Storage, text);
    let content = house.objects.get(&object.path).await.map_err(|error| storage(error.to_string()))?;
    let found = crc32c(&content);
    if content.len() as u64 != object.bytes || found != object.crc32c {
        return Err(storage(format!(
            "object {} has {} bytes with checksum {found:#010x}, its manifest says {} with {:#010x}; restore it from a backup",
            object.path,
            content.len(),
            object.bytes,
            object.crc32c
        )));
    }
    messages(&content).map_err(|error| storage(format!("object {}: {error}", object.path)))
}

/// CRC32C (Castagnoli) of bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    tendon_protocol::envelope::crc32c(bytes)
}

/// One page of an episode's samples: from its object when it is stored, else from the log.
///
/// # Errors
/// When the episode or feature does not exist, or the store cannot be read.
pub async fn frames(
    house: &Arc<House>,
    session: SessionId,
    number: u32,
    feature: Option<String>,
    from: u64,
    limit: usize,
) -> Result<FramesPage, Refusal> {
    let key = EpisodeKey { session, number };
    let shared = Arc::clone(house);
    let found =
        blocking(move || Ok::<_, Refusal>((shared.meta.episodes.get(key)?, shared.meta.sessions.get(session)?)))
            .await?;
    let (Some(record), Some(owner)) = found else {
        return Err(Refusal::new(
            RefusalCode::NotFound,
            format!("episode {key} does not exist; list the session's episodes"),
        ));
    };
    let features: Vec<&str> = owner.streams.iter().map(|stream| stream.feature.as_str()).collect();
    let wanted = feature.as_deref().or_else(|| features.first().copied()).unwrap_or_default();
    let Some(declaration) = owner.streams.iter().find(|stream| stream.feature == wanted).cloned() else {
        return Err(Refusal::new(
            RefusalCode::NotFound,
            format!("session {session} has no feature {wanted:?}; it has {}", features.join(", ")),
        ));
    };
    let mut pager = Pager { record, from, limit, frames: BTreeMap::new(), opener: Opener::new() };
    if pager.record.manifest.is_some() {
        let manifest = manifest(house, &pager.record).await?;
        let stream = manifest.streams.into_iter().find(|stream| stream.declaration.stream == declaration.stream);
        if let Some(place) = stream.and_then(|stream| stream.object) {
            for message in object(house, &place).await? {
                pager.add(&message);
            }
        }
    } else {
        let (log, stream) = (Arc::clone(&house.log), declaration.stream);
        let read = blocking(move || from_log(&log, stream, &mut pager).map(|()| pager)).await;
        pager = read.map_err(|error| Refusal::new(RefusalCode::Storage, error.to_string()))?;
    }
    Ok(pager.page(declaration.feature))
}

/// Reads on until the page is full: the log may hold a long time before the episode.
fn from_log(log: &FrameLog, stream: StreamId, pager: &mut Pager) -> Result<(), LogError> {
    let session = pager.record.session;
    let end = log.positions(session).get(&stream).copied().unwrap_or(0);
    let mut from = pager.from;
    while from < end && !pager.is_full() {
        let to = end.min(from.saturating_add(LOG_SEQUENCES));
        for entry in log.read(session, stream, from, to)? {
            pager.add(&entry.payload);
        }
        from = to;
    }
    Ok(())
}

/// Gathers one page of an episode's samples.
struct Pager {
    record: EpisodeRecord,
    from: u64,
    limit: usize,
    frames: BTreeMap<u64, FrameView>,
    opener: Opener,
}

impl Pager {
    /// One sample more than the page shows: the next one's sequence is known then.
    fn is_full(&self) -> bool {
        self.frames.len() > self.limit
    }

    fn add(&mut self, message: &[u8]) {
        if self.is_full() {
            return;
        }
        let Self { record, from, frames, opener, .. } = self;
        let is_shown =
            |sequence: u64, clock: ClockId, time_ns: i64| sequence >= *from && is_inside(record, clock, time_ns);
        match View::open(opener, message) {
            Ok(View::Batch(batch)) => {
                let samples =
                    batch.values().chunks_exact(batch.sample_bytes()).zip(batch.times_ns()).zip(batch.flags());
                for (index, ((sample, time_ns), flags)) in samples.enumerate() {
                    let sequence = batch.first() + index as u64;
                    if is_shown(sequence, batch.clock(), time_ns) {
                        let flags = if is_finite(batch.dtype(), sample) { *flags } else { *flags | flag::NOT_FINITE };
                        let values = Some(numbers(batch.dtype(), sample));
                        frames.entry(sequence).or_insert(FrameView { sequence, time_ns, flags, values, bytes: None });
                    }
                }
            }
            Ok(View::Media(media)) if is_shown(media.sequence(), media.clock(), media.time_ns()) => {
                let is_bad = media.content() == Content::Jpeg && jpeg::probe(media.data()).is_err();
                let flags = if is_bad { media.flags() | flag::UNDECODABLE } else { media.flags() };
                let (sequence, time_ns) = (media.sequence(), media.time_ns());
                let view = FrameView { sequence, time_ns, flags, values: None, bytes: Some(media.data().len()) };
                frames.entry(sequence).or_insert(view);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn page(self, feature: String) -> FramesPage {
        let next = self.frames.keys().nth(self.limit).copied();
        FramesPage { feature, frames: self.frames.into_values().take(self.limit).collect(), next }
    }
}

/// Whether a sample belongs to an episode. Times on another clock cannot be told here and count as inside.
fn is_inside(record: &EpisodeRecord, clock: ClockId, time_ns: i64) -> bool {
    if clock != record.clock {
        return true;
    }
    let is_paused = record.pauses.iter().any(|(from, to)| (*from..*to).contains(&time_ns));
    let is_held = record.paused_since_ns.is_some_and(|since| time_ns >= since);
    (record.start_ns..=record.stop_ns.unwrap_or(i64::MAX)).contains(&time_ns) && !is_paused && !is_held
}

/// A sample's numbers as JSON; what is not finite has no JSON form and becomes null.
fn numbers(dtype: Dtype, sample: &[u8]) -> serde_json::Value {
    fn each<const N: usize>(sample: &[u8], read: impl Fn([u8; N]) -> serde_json::Value) -> serde_json::Value {
        sample.as_chunks::<N>().0.iter().map(|element| read(*element)).collect()
    }
    match dtype {
        Dtype::F32 => each(sample, |bytes| f32::from_le_bytes(bytes).into()),
        Dtype::F64 => each(sample, |bytes| f64::from_le_bytes(bytes).into()),
        Dtype::I64 => each(sample, |bytes| i64::from_le_bytes(bytes).into()),
        Dtype::Bool => each(sample, |[byte]: [u8; 1]| (byte == 1).into()),
        Dtype::U8 => each(sample, |[byte]: [u8; 1]| byte.into()),
    }
}

/// Whether an episode in this state can be part of a dataset.
#[must_use]
pub fn is_exportable(state: EpisodeState) -> bool {
    matches!(state, EpisodeState::Stored | EpisodeState::Incomplete)
}

/// Whether samples of this content are coded so that one depends on others.
#[must_use]
pub fn is_coded(content: Content) -> bool {
    matches!(content, Content::H264 | Content::Av1)
}
