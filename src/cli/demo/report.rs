//! What the demo counts, and on whose word: stored is what the server says, sent what the robot
//! knows, and each episode is held against what was captured between its marks.

use serde::Serialize;
use tendon_dataset::verify::Finding;
use tendon_protocol::control::Position;
use tendon_protocol::id::StreamId;
use tendon_storage::records::{EpisodeRecord, EpisodeState, SessionRecord, StreamReport};

use super::robot::Sent;
use crate::cli::output::Output;
use crate::cli::table::{Side, Table};

/// What `demo --json FILE` writes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Samples that the robot took and sent.
    pub samples_sent: u64,
    /// Samples that the server holds.
    pub samples_stored: u64,
    /// Samples that were sent again after the connection or the server had gone.
    pub samples_replayed: u64,
    /// Of those, samples that the server had already and left out.
    pub duplicates_removed: u64,
    /// Samples that were acknowledged and are not there: always 0, or the promise is broken.
    pub acknowledged_lost: u64,
    /// Times that the plug was pulled.
    pub connections_cut: u32,
    /// Times that the server was killed.
    pub server_kills: u32,
    /// From a message's first write to its acknowledgement, in milliseconds.
    pub ack_ms: AckMs,
    /// Each stream as the server measured it.
    pub streams: Vec<StreamLine>,
    /// Episodes in the dataset.
    pub episodes: u32,
    /// Folder of the dataset.
    pub dataset: String,
    /// What `tendon verify` found in it.
    pub findings: Vec<Finding>,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AckMs {
    /// Half of the messages were faster.
    pub p50: f64,
    /// 99 of 100 were.
    pub p99: f64,
}

/// One stream over all episodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamLine {
    /// Feature name.
    pub name: String,
    /// Rate that was declared, in hertz.
    pub declared_hz: f64,
    /// Rate that was measured, in hertz.
    pub measured_hz: f64,
    /// Longest time between two samples of an episode, in milliseconds.
    pub longest_gap_ms: f64,
}

/// What is known when everything has been sent.
pub struct Facts<'a> {
    /// The session as the server shows it at the end.
    pub session: &'a SessionRecord,
    /// Its episodes.
    pub episodes: &'a [EpisodeRecord],
    /// Capture times of what was sent.
    pub sent: &'a Sent,
    /// What the agent saw acknowledged.
    pub acknowledged: &'a [Position],
}

impl Facts<'_> {
    /// Samples that the server holds: what is durable, less what was declared lost.
    #[must_use]
    pub fn stored(&self) -> u64 {
        let durable = self.session.positions.iter().filter(|(stream, _)| **stream != StreamId::JOURNAL);
        durable.map(|(stream, next)| next.saturating_sub(self.session.lost.get(stream).copied().unwrap_or(0))).sum()
    }

    /// Samples that were acknowledged and are missing: at the ends of the streams, or in an episode's middle.
    #[must_use]
    pub fn acknowledged_lost(&self) -> u64 {
        let next = |stream: StreamId| self.session.positions.get(&stream).copied().unwrap_or(0);
        let behind: u64 = self.acknowledged.iter().map(|seen| seen.next.saturating_sub(next(seen.stream))).sum();
        let holes: u64 = self.episodes.iter().map(|episode| self.missing_in(episode)).sum();
        behind.max(holes)
    }

    /// Samples captured between an episode's marks, less those that the server stored for it.
    fn missing_in(&self, episode: &EpisodeRecord) -> u64 {
        let (from, to) = (episode.start_ns, episode.stop_ns.unwrap_or(episode.start_ns));
        let stored = |stream: u32| {
            let reports = episode.report.iter().flat_map(|report| &report.streams);
            reports.filter(|report| report.stream.0 == stream).map(|report| report.samples + report.lost).sum::<u64>()
        };
        let mut missing = 0;
        for (stream, times) in (1u32..).zip(self.sent) {
            let captured = times.iter().filter(|time| (from..=to).contains(*time)).count() as u64;
            missing += captured.saturating_sub(stored(stream));
        }
        missing
    }

    /// Each stream over all episodes, in the order in which they were declared.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamLine> {
        let line = |declaration: &tendon_protocol::stream::StreamDeclaration| {
            let reports =
                self.episodes.iter().flat_map(|episode| episode.report.iter().flat_map(|report| &report.streams));
            let own: Vec<&StreamReport> = reports.filter(|report| report.stream == declaration.stream).collect();
            StreamLine {
                name: declaration.feature.clone(),
                declared_hz: declaration.rate_hz().unwrap_or(0.0),
                measured_hz: mean_rate(&own),
                longest_gap_ms: own.iter().map(|report| report.longest_gap_ms).fold(0.0, f64::max),
            }
        };
        self.session.streams.iter().map(line).collect()
    }

    /// Episodes that are stored whole.
    #[must_use]
    pub fn stored_episodes(&self) -> u32 {
        let stored = self.episodes.iter().filter(|episode| episode.state == EpisodeState::Stored).count();
        u32::try_from(stored).unwrap_or(u32::MAX)
    }
}

/// Intervals over the time that they took, all episodes together.
fn mean_rate(reports: &[&StreamReport]) -> f64 {
    let (mut intervals, mut seconds) = (0.0, 0.0);
    for report in reports.iter().filter(|report| report.samples > 1 && report.measured_hz > 0.0) {
        let own = (report.samples - 1) as f64;
        intervals += own;
        seconds += own / report.measured_hz;
    }
    if seconds > 0.0 { intervals / seconds } else { 0.0 }
}

impl Report {
    /// Whether nothing was lost and nothing found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.acknowledged_lost == 0 && self.samples_stored == self.samples_sent && self.findings.is_empty()
    }

    /// Prints everything as tables.
    pub fn tell(&self, output: &Output) {
        let mut streams = Table::new(&[
            ("stream", Side::Left),
            ("declared Hz", Side::Right),
            ("measured Hz", Side::Right),
            ("longest gap ms", Side::Right),
        ]);
        for line in &self.streams {
            streams.row([
                line.name.clone(),
                format!("{:.1}", line.declared_hz),
                format!("{:.2}", line.measured_hz),
                format!("{:.1}", line.longest_gap_ms),
            ]);
        }
        let mut counts = Table::new(&[("what", Side::Left), ("number", Side::Right)]);
        for (what, number) in [
            ("samples sent", self.samples_sent),
            ("samples stored", self.samples_stored),
            ("samples sent again", self.samples_replayed),
            ("duplicates removed", self.duplicates_removed),
            ("acknowledged and lost", self.acknowledged_lost),
            ("connections cut", self.connections_cut.into()),
            ("server killed", self.server_kills.into()),
            ("episodes in the dataset", self.episodes.into()),
            ("findings of verify", self.findings.len() as u64),
        ] {
            counts.row([what.to_owned(), number.to_string()]);
        }
        for lines in [streams.lines(), counts.lines()] {
            output.line("");
            lines.iter().for_each(|line| output.line(line));
        }
        output.line("");
        output.line(format!(
            "acknowledged after {:.1} ms (half of all messages), {:.1} ms (99 of 100)",
            self.ack_ms.p50, self.ack_ms.p99
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tendon_storage::records::EpisodeReport;

    fn session(positions: &[(u32, u64)], lost: &[(u32, u64)]) -> SessionRecord {
        let by_stream = |pairs: &[(u32, u64)]| {
            pairs.iter().map(|(stream, number)| (StreamId(*stream), *number)).collect::<BTreeMap<_, _>>()
        };
        let text = r#"{"id":"0197f3a0-0000-7000-8000-000000000001","operator":"a","robot":"b","embodiment":"c","type":"leader_arm",
            "fps":30,"dataset":"d","state":"completed","created_ns":0}"#;
        let mut record: SessionRecord = serde_json::from_str(text).unwrap();
        record.positions = by_stream(positions);
        record.lost = by_stream(lost);
        record.streams = super::super::robot::declarations();
        record
    }

    fn episode(samples: u64, hz: f64, gap: f64) -> EpisodeRecord {
        let text = r#"{"session":"0197f3a0-0000-7000-8000-000000000001","number":0,"mark":0,"state":"stored","dataset":"d",
            "clock":"00000000-0000-0000-0000-000000000001","start_ns":10,"stop_ns":20,"operator":"a","robot":"b","created_ns":0}"#;
        let mut record: EpisodeRecord = serde_json::from_str(text).unwrap();
        let stream = StreamReport {
            stream: StreamId(1),
            feature: "action".to_owned(),
            samples,
            measured_hz: hz,
            longest_gap_ms: gap,
            ..StreamReport::default()
        };
        record.report = Some(EpisodeReport { duration_s: 1.0, streams: vec![stream] });
        record
    }

    fn facts<'a>(
        session: &'a SessionRecord,
        episodes: &'a [EpisodeRecord],
        sent: &'a Sent,
        acknowledged: &'a [Position],
    ) -> Facts<'a> {
        Facts { session, episodes, sent, acknowledged }
    }

    #[test]
    fn stored_is_what_is_durable_less_what_was_declared_lost_without_the_journal() {
        let session = session(&[(0, 6), (1, 100), (2, 50)], &[(2, 5)]);
        assert_eq!(facts(&session, &[], &Sent::default(), &[]).stored(), 145);
    }

    #[test]
    fn a_server_behind_its_acknowledgements_is_caught() {
        let session = session(&[(1, 90)], &[]);
        let seen = [Position { stream: StreamId(1), next: 100 }];
        assert_eq!(facts(&session, &[], &Sent::default(), &seen).acknowledged_lost(), 10);
    }

    #[test]
    fn a_hole_in_an_episode_is_caught_even_when_the_positions_look_right() {
        let session = session(&[(1, 5)], &[]);
        let sent: Sent = [vec![9, 10, 15, 20, 21], vec![], vec![], vec![]];
        let seen = [Position { stream: StreamId(1), next: 5 }];
        assert_eq!(facts(&session, &[episode(3, 50.0, 1.0)], &sent, &seen).acknowledged_lost(), 0);
        assert_eq!(facts(&session, &[episode(2, 50.0, 1.0)], &sent, &seen).acknowledged_lost(), 1);
    }

    #[test]
    fn rates_of_episodes_are_weighed_by_their_length() {
        let session = session(&[], &[]);
        let episodes = [episode(101, 50.0, 21.0), episode(51, 25.0, 44.0), episode(1, 0.0, 0.0)];
        let lines = facts(&session, &episodes, &Sent::default(), &[]).streams();
        assert_eq!(
            lines[0],
            StreamLine { name: "action".to_owned(), declared_hz: 50.0, measured_hz: 37.5, longest_gap_ms: 44.0 }
        );
        assert_eq!((lines[1].measured_hz, lines[1].longest_gap_ms), (0.0, 0.0));
    }
}
