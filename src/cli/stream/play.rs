//! What is sent of an episode, and in which order.

use std::time::Duration;

use indicatif::ProgressBar;
use tendon_agent::Agent;
use tendon_dataset::lerobot::reader::{SourceCamera, SourceEpisode};
use tendon_protocol::batch::flag;
use tendon_protocol::control::MarkAction;
use tendon_protocol::id::StreamId;
use tendon_protocol::stream::Content;
use tokio::time::Instant;

use super::plan::Plan;
use super::times::{Timeline, nanoseconds};
use super::{Speed, agent_failed};
use crate::cli::error::CliError;

/// Plays episodes one behind the other.
pub(super) struct Player<'a> {
    agent: &'a Agent,
    plan: &'a Plan,
    timeline: Timeline,
    speed: Speed,
    bar: ProgressBar,
}

/// Numbers of one stream in one episode.
struct Numbers<'a> {
    stream: StreamId,
    values: &'a [u8],
    sample_bytes: usize,
}

/// Pictures of one stream in one episode.
struct Pictures<'a> {
    stream: StreamId,
    camera: &'a SourceCamera,
    /// For each row, how many units must be sent to show it.
    upto: Vec<usize>,
    sent: usize,
}

impl<'a> Player<'a> {
    pub(super) fn new(agent: &'a Agent, plan: &'a Plan, timeline: Timeline, speed: Speed, bar: ProgressBar) -> Self {
        Self { agent, plan, timeline, speed, bar }
    }

    /// Sends one episode with its marks. Gives what is odd.
    pub(super) async fn play(&mut self, mark: u64, episode: &SourceEpisode) -> Result<Vec<String>, CliError> {
        let fail = |what: &dyn std::fmt::Display| CliError::failed(format!("episode {}: {what}", episode.index));
        let own = nanoseconds(&episode.timestamps, episode.rows, self.plan.fps_exact).map_err(|error| fail(&error))?;
        let times = self.timeline.place(&own).map_err(|error| fail(&error))?;
        let (Some(first), Some(last)) = (times.iter().min().copied(), times.iter().max().copied()) else {
            return Err(fail(&"it has no rows; leave it out with --episodes"));
        };
        let odd = odd(episode, &times);
        let task = episode.tasks.first().map_or("", String::as_str);
        self.mark(MarkAction::Start, mark, first, task).await?;
        let numbers = self.numbers(episode);
        let mut pictures = self.pictures(episode);
        for pictures in &pictures {
            self.configure(pictures, first).await?;
        }
        let begin = Instant::now();
        for (row, time) in times.iter().enumerate() {
            self.wait(begin, time - first).await;
            for numbers in &numbers {
                let sample = &numbers.values[row * numbers.sample_bytes..(row + 1) * numbers.sample_bytes];
                self.agent.send(numbers.stream, *time, sample, 0).await.map_err(|error| agent_failed(&error))?;
            }
            for pictures in &mut pictures {
                let upto = pictures.upto[row];
                self.send_pictures(pictures, upto, &times).await?;
            }
            self.bar.inc(1);
        }
        for pictures in &mut pictures {
            let all = pictures.camera.units.len();
            self.send_pictures(pictures, all, &times).await?;
        }
        self.mark(MarkAction::StopSuccess, mark, last, "").await?;
        Ok(odd)
    }

    async fn mark(&self, action: MarkAction, mark: u64, time_ns: i64, task: &str) -> Result<(), CliError> {
        self.agent.mark(action, mark, time_ns, task).await.map_err(|error| agent_failed(&error))
    }

    fn numbers<'e>(&self, episode: &'e SourceEpisode) -> Vec<Numbers<'e>> {
        let of = |key: &str| episode.columns.iter().find(|column| column.spec.key == key);
        let streams = self.plan.streams.iter().filter(|stream| stream.content == Content::Values);
        streams
            .filter_map(|stream| {
                let column = of(&stream.feature)?;
                let sample_bytes = column.spec.width() * stream.dtype.size_bytes();
                Some(Numbers { stream: stream.stream, values: &column.values, sample_bytes })
            })
            .collect()
    }

    fn pictures<'e>(&self, episode: &'e SourceEpisode) -> Vec<Pictures<'e>> {
        let of = |key: &str| episode.cameras.iter().find(|camera| camera.spec.key == key);
        let streams = self.plan.streams.iter().filter(|stream| stream.content.is_camera());
        streams
            .filter_map(|stream| {
                let camera = of(&stream.feature)?;
                Some(Pictures { stream: stream.stream, camera, upto: upto(camera, episode.rows), sent: 0 })
            })
            .collect()
    }

    /// A decoder's configuration goes ahead of an episode's first unit, so that the episode stands by itself.
    async fn configure(&self, pictures: &Pictures<'_>, first_ns: i64) -> Result<(), CliError> {
        if pictures.camera.config.is_empty() {
            return Ok(());
        }
        let sent = self.agent.send_media(pictures.stream, first_ns, &pictures.camera.config, flag::CONFIG).await;
        sent.map_err(|error| agent_failed(&error))
    }

    async fn send_pictures(&self, pictures: &mut Pictures<'_>, upto: usize, times: &[i64]) -> Result<(), CliError> {
        while let Some(unit) = pictures.camera.units.get(pictures.sent).filter(|_| pictures.sent < upto) {
            let time_ns = match unit.row.and_then(|row| times.get(row as usize)) {
                Some(time_ns) => *time_ns,
                None => unseen_ns(unit.pts, times),
            };
            let flags = if unit.key { flag::KEY } else { 0 };
            let sent = self.agent.send_media(pictures.stream, time_ns, &unit.data, flags).await;
            sent.map_err(|error| agent_failed(&error))?;
            pictures.sent += 1;
        }
        Ok(())
    }

    /// Waits until a row is due.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "a pause needs no nanoseconds"
    )]
    async fn wait(&self, begin: Instant, after_ns: i64) {
        if let Speed::Times(factor) = self.speed {
            let pause = Duration::from_nanos((after_ns.max(0) as f64 / factor) as u64);
            tokio::time::sleep_until(begin + pause).await;
        }
    }
}

/// For each row, how many units must be sent to show it: units come in decoding order, a row may need a later one.
fn upto(camera: &SourceCamera, rows: usize) -> Vec<usize> {
    let mut needed = vec![0; rows];
    for (place, unit) in camera.units.iter().enumerate() {
        if let Some(row) = unit.row.and_then(|row| needed.get_mut(row as usize)) {
            *row = (*row).max(place + 1);
        }
    }
    let mut most = 0;
    for row in &mut needed {
        most = most.max(*row);
        *row = most;
    }
    needed
}

/// Time of a unit that no row shows, inside the episode.
#[expect(clippy::cast_possible_truncation, reason = "a conversion of floats saturates")]
fn unseen_ns(pts: f64, times: &[i64]) -> i64 {
    let (first, last) = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
    first.saturating_add((pts * 1e9).round() as i64).clamp(first, last)
}

/// What about an episode's times and pictures will show in a recording of it.
fn odd(episode: &SourceEpisode, times: &[i64]) -> Vec<String> {
    let mut odd = Vec::new();
    let backwards = times.windows(2).filter(|pair| pair[1] < pair[0]).count();
    if backwards > 0 {
        odd.push(format!("time runs backwards {backwards} times; rows stay in their order"));
    }
    let same = times.windows(2).filter(|pair| pair[1] == pair[0]).count();
    if same > 0 {
        odd.push(format!("{same} rows have the time of the row before"));
    }
    for camera in &episode.cameras {
        let shown = camera.units.iter().filter(|unit| unit.row.is_some()).count();
        if shown != episode.rows || shown != camera.units.len() {
            let key = &camera.spec.key;
            odd.push(format!(
                "{key}: {} units, {shown} of them for {} rows; an export encodes it anew",
                camera.units.len(),
                episode.rows
            ));
        }
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tendon_dataset::episode::FeatureSpec;
    use tendon_dataset::lerobot::reader::Unit;
    use tendon_protocol::stream::Dtype;

    fn camera(rows: &[Option<u32>]) -> SourceCamera {
        let unit = |row: &Option<u32>| Unit { data: Bytes::from_static(b"u"), pts: 0.5, key: true, row: *row };
        SourceCamera {
            spec: FeatureSpec {
                key: "observation.images.a".to_owned(),
                dtype: Dtype::U8,
                shape: vec![2, 2, 3],
                names: Vec::new(),
                unit: String::new(),
                content: Content::H264,
            },
            config: Bytes::new(),
            units: rows.iter().map(unit).collect(),
            starts_at_key: true,
        }
    }

    #[test]
    fn a_row_is_shown_once_all_units_that_decode_before_it_are_sent() {
        // Decoding order of a B-frame video: rows 0, 3, 1, 2.
        let units = camera(&[Some(0), Some(3), Some(1), Some(2)]);
        assert_eq!(upto(&units, 4), [1, 3, 4, 4]);
        // A unit without a row is sent with the next one that has one; a row without a unit needs none.
        assert_eq!(upto(&camera(&[Some(0), None, Some(2)]), 4), [1, 1, 3, 3]);
    }

    #[test]
    fn a_unit_that_no_row_shows_stays_inside_the_episode() {
        let times = [1_000_000_000, 1_100_000_000];
        assert_eq!(unseen_ns(0.05, &times), 1_050_000_000);
        assert_eq!(unseen_ns(9.0, &times), 1_100_000_000);
        assert_eq!(unseen_ns(-1.0, &times), 1_000_000_000);
        assert_eq!(unseen_ns(f64::NAN, &times), 1_000_000_000);
    }
}
