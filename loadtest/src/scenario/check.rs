//! Reads back what a server stored of the sessions of `kills`, and compares it with what must be there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use tendon_protocol::envelope::{ENVELOPE_BYTES, Opener};
use tendon_protocol::id::{ClockId, SessionId, StreamId};
use tendon_protocol::message::View;

use super::produce::{ACTION, ACTION_WIDTH, CAMERA, PICTURE_BYTES, STATE, STATE_WIDTH};
use crate::values::{picture, sample};

/// What a check found. All but what counts samples, episodes and replays must be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Samples that clients saw acknowledged, marks left out.
    pub acknowledged: u64,
    /// Samples that are stored.
    pub stored: u64,
    /// Episodes.
    pub episodes: u64,
    /// Samples that were acknowledged and are not stored.
    pub acknowledged_lost: u64,
    /// Samples that are stored more than once.
    pub duplicates: u64,
    /// Samples with other values than were sent.
    pub wrong_values: u64,
    /// Samples that are not younger than the one before them.
    pub times_backwards: u64,
    /// Samples that the producer declared lost.
    pub declared_lost: u64,
    /// Samples that came again after a kill and were left out by the server. Not a fault: the proof that clients replay.
    pub duplicates_removed: u64,
}

impl Found {
    /// Adds what was found in another session.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.stored += other.stored;
        self.episodes += other.episodes;
        self.acknowledged_lost += other.acknowledged_lost;
        self.duplicates += other.duplicates;
        self.wrong_values += other.wrong_values;
        self.times_backwards += other.times_backwards;
        self.declared_lost += other.declared_lost;
        self.duplicates_removed += other.duplicates_removed;
    }

    /// Whether all is as it must be.
    pub fn is_clean(&self) -> bool {
        let bad =
            self.acknowledged_lost + self.duplicates + self.wrong_values + self.times_backwards + self.declared_lost;
        bad == 0 && self.stored > 0
    }
}

/// When an episode was.
struct Window {
    clock: ClockId,
    start_ns: i64,
    /// The first moment that is not in it.
    stop_ns: i64,
}

/// Samples of one stream: how often each is there, and its time.
type Seen = BTreeMap<u64, (u64, i64)>;

/// What one session must hold.
pub struct Checker {
    seed: u128,
    seen: BTreeMap<StreamId, Seen>,
    opener: Opener,
    found: Found,
}

impl Checker {
    /// For one session.
    pub fn new(session: SessionId) -> Self {
        Self {
            seed: u128::from_be_bytes(session.0),
            seen: BTreeMap::new(),
            opener: Opener::new(),
            found: Found::default(),
        }
    }

    /// Takes an episode: its manifest and the objects that it names, below `objects`.
    pub fn episode(&mut self, objects: &Path, manifest: &str) -> Result<()> {
        let path = objects.join(manifest);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let window = window(&manifest).with_context(|| format!("{} has no window", path.display()))?;
        for stream in manifest["streams"].as_array().context("a manifest without streams")? {
            if let Some(object) = stream["object"]["path"].as_str() {
                let bytes = fs::read(objects.join(object)).with_context(|| format!("cannot read object {object}"))?;
                self.object(&bytes, &window).with_context(|| format!("object {object}"))?;
            }
        }
        self.found.episodes += 1;
        Ok(())
    }

    /// Messages lie one behind the other; samples outside of the window belong to a neighbour.
    fn object(&mut self, mut bytes: &[u8], window: &Window) -> Result<()> {
        while !bytes.is_empty() {
            let stored = bytes
                .get(12..16)
                .and_then(|length| length.try_into().ok())
                .map(u32::from_le_bytes)
                .context("half an envelope")?;
            let (message, rest) = bytes.split_at_checked(ENVELOPE_BYTES + stored as usize).context("half a message")?;
            bytes = rest;
            self.message(message, window)?;
        }
        Ok(())
    }

    fn message(&mut self, message: &[u8], window: &Window) -> Result<()> {
        let is_inside = |clock: ClockId, time_ns: i64| {
            clock != window.clock || (window.start_ns..window.stop_ns).contains(&time_ns)
        };
        let mut samples = Vec::new();
        let stream = match View::open(&mut self.opener, message)? {
            View::Batch(batch) => {
                let width = if batch.stream() == STATE { STATE_WIDTH } else { ACTION_WIDTH };
                let values = batch.values().chunks_exact(batch.sample_bytes());
                for ((sequence, time_ns), values) in (batch.first()..).zip(batch.times_ns()).zip(values) {
                    if is_inside(batch.clock(), time_ns) {
                        samples.push((
                            sequence,
                            time_ns,
                            values == sample(self.seed, batch.stream().0, sequence, width),
                        ));
                    }
                }
                batch.stream()
            }
            View::Media(media) => {
                if is_inside(media.clock(), media.time_ns()) {
                    let expected = picture(self.seed, CAMERA.0, media.sequence(), PICTURE_BYTES);
                    samples.push((media.sequence(), media.time_ns(), media.data() == expected));
                }
                media.stream()
            }
            _ => bail!("a message that is no sample"),
        };
        if ![STATE, ACTION, CAMERA].contains(&stream) {
            bail!("a sample of stream {stream}, which nobody sends");
        }
        let seen = self.seen.entry(stream).or_default();
        for (sequence, time_ns, is_right) in samples {
            self.found.wrong_values += u64::from(!is_right);
            seen.entry(sequence).or_insert((0, time_ns)).0 += 1;
        }
        Ok(())
    }

    /// Notes what the session's record says: samples declared lost, and samples that came again.
    pub fn record(&mut self, record: &Value) {
        let lost = record["lost"].as_object().into_iter().flatten();
        self.found.declared_lost = lost.filter_map(|(_, count)| count.as_u64()).sum();
        self.found.duplicates_removed = record["duplicates_removed"].as_u64().unwrap_or(0);
    }

    /// Compares all episodes with what the client saw acknowledged.
    pub fn finish(mut self, acknowledged: &BTreeMap<StreamId, u64>) -> Found {
        for (stream, next) in acknowledged.iter().filter(|(stream, _)| **stream != StreamId::JOURNAL) {
            let has = self.seen.get(stream).map_or(0, |seen| seen.range(..next).count() as u64);
            self.found.acknowledged += next;
            self.found.acknowledged_lost += next - has;
        }
        for seen in self.seen.values() {
            self.found.stored += seen.len() as u64;
            self.found.duplicates += seen.values().map(|(count, _)| count - 1).sum::<u64>();
            let times: Vec<i64> = seen.values().map(|(_, time_ns)| *time_ns).collect();
            self.found.times_backwards += times.windows(2).filter(|pair| pair[1] <= pair[0]).count() as u64;
        }
        self.found
    }
}

fn window(manifest: &Value) -> Option<Window> {
    let window = &manifest["window"];
    Some(Window {
        clock: window["clock"].as_str()?.parse().ok()?,
        start_ns: window["start_ns"].as_i64()?,
        stop_ns: window["stop_ns"].as_i64()?,
    })
}

/// The highest positions in a client's notes. The last line may be cut.
pub fn acknowledged(notes: &str) -> BTreeMap<StreamId, u64> {
    let mut highest = BTreeMap::new();
    for line in notes.lines().filter_map(|line| line.strip_suffix('.')) {
        let parsed =
            line.split_once(' ').and_then(|(stream, next)| Some((stream.parse().ok()?, next.parse::<u64>().ok()?)));
        if let Some((stream, next)) = parsed {
            let position = highest.entry(StreamId(stream)).or_default();
            *position = next.max(*position);
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;
    use tendon_protocol::batch::{Batch, Media};
    use tendon_protocol::message::Message;
    use tendon_protocol::stream::{Content, Dtype};

    const SESSION: SessionId = SessionId::from_u128(42);
    const CLOCK: ClockId = ClockId::from_u128(9);

    fn batch(first: u64, count: u64) -> Vec<u8> {
        let seed = u128::from_be_bytes(SESSION.0);
        Message::Batch(Batch {
            stream: STATE,
            first,
            clock: CLOCK,
            dtype: Dtype::F32,
            width: STATE_WIDTH,
            times_ns: (first..first + count).map(|sequence| sequence as i64 * 10).collect(),
            flags: vec![0; count as usize],
            values: (first..first + count).flat_map(|sequence| sample(seed, STATE.0, sequence, STATE_WIDTH)).collect(),
        })
        .encode()
    }

    fn check(messages: &[Vec<u8>], next: u64) -> Found {
        let mut checker = Checker::new(SESSION);
        let window = Window { clock: CLOCK, start_ns: 0, stop_ns: 1000 };
        checker.object(&messages.concat(), &window).unwrap();
        checker.finish(&BTreeMap::from([(STATE, next), (StreamId::JOURNAL, 5)]))
    }

    #[test]
    fn what_is_whole_is_clean() {
        let found = check(&[batch(0, 8), batch(8, 8)], 16);
        assert_eq!(found, Found { acknowledged: 16, stored: 16, ..Found::default() });
        assert!(found.is_clean());
    }

    #[test]
    fn a_hole_below_the_acknowledged_position_is_a_loss_and_one_above_is_not() {
        assert_eq!(check(&[batch(0, 8)], 8).acknowledged_lost, 0);
        assert_eq!(check(&[batch(0, 8), batch(9, 7)], 16).acknowledged_lost, 1);
        assert_eq!(check(&[batch(0, 8)], 16).acknowledged_lost, 8);
    }

    #[test]
    fn a_sample_that_is_there_twice_is_counted_unless_it_lies_outside_of_the_window() {
        assert_eq!(check(&[batch(0, 8), batch(4, 8)], 12).duplicates, 4);
        let mut checker = Checker::new(SESSION);
        for (start_ns, stop_ns) in [(0, 45), (45, 1000)] {
            checker.object(&batch(0, 8), &Window { clock: CLOCK, start_ns, stop_ns }).unwrap();
        }
        let found = checker.finish(&BTreeMap::from([(STATE, 8)]));
        assert_eq!((found.stored, found.duplicates, found.acknowledged_lost), (8, 0, 0));
    }

    #[test]
    fn a_changed_value_and_a_changed_picture_are_found() {
        let Ok(Message::Batch(mut changed)) = Message::decode(&batch(0, 8)) else { panic!("a batch") };
        changed.values[5] ^= 1;
        assert_eq!(check(&[Message::Batch(changed).encode()], 8).wrong_values, 1);
        let media = |data| {
            Message::Media(Media {
                stream: CAMERA,
                sequence: 3,
                clock: CLOCK,
                time_ns: 5,
                content: Content::Jpeg,
                flags: 0,
                data,
            })
        };
        let right = picture(u128::from_be_bytes(SESSION.0), CAMERA.0, 3, PICTURE_BYTES);
        assert_eq!(check(&[media(right.clone()).encode()], 0).wrong_values, 0);
        assert_eq!(check(&[media(right[1..].to_vec()).encode()], 0).wrong_values, 1);
    }

    #[test]
    fn half_a_message_is_an_error() {
        let mut checker = Checker::new(SESSION);
        let bytes = batch(0, 8);
        let window = Window { clock: CLOCK, start_ns: 0, stop_ns: 1000 };
        assert!(checker.object(&bytes[..bytes.len() - 1], &window).is_err());
        assert!(checker.object(&bytes[..10], &window).is_err());
    }

    #[test]
    fn notes_are_read_up_to_a_line_that_was_cut() {
        let found = acknowledged("1 8.\n2 3.\n1 16.\n0 2.\n1 240");
        assert_eq!(found, BTreeMap::from([(StreamId(0), 2), (StreamId(1), 16), (StreamId(2), 3)]));
    }
}
