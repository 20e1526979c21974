//! From an episode's samples to its rows.
//!
//! One row is one tick of the row clock: of a grid of 1/fps seconds, or of one stream, one row per
//! sample of it. A measured stream gives each row its newest sample at or before the tick; a
//! commanded stream the first command at or after the tick and before the next one: an observation
//! is paired with the command that answered it. What is too old is shown all the same, flagged and
//! counted. Read [`RowsInput`], then `pair`, which holds the rules of pairing.
//!
//! Besides the recorded features an episode gets two columns with one element per feature, in the
//! order of the features: [`CAPTURE_TIME`], the capture time in nanoseconds on the clock of the
//! episode's start mark, and [`SAMPLE_FLAGS`], the flags of the sample that is shown, with
//! [`FILLED`] and [`HELD`].

mod cameras;
mod features;
mod pair;
#[cfg(test)]
mod tests;
mod ticks;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tendon_protocol::batch::flag;
use tendon_protocol::id::StreamId;
use tendon_protocol::stream::Role;
use thiserror::Error;

pub use features::{compare_features, feature_spec};

use crate::episode::{Column, Episode, FeatureSpec};
use crate::jpeg::JpegError;
use crate::samples::cut::{Cut, CutStream, WindowError};
use features::ordered;
use pair::{Pick, Sorted};
use ticks::Ticks;

/// Bit of [`SAMPLE_FLAGS`]: there was no usable sample for this tick. A camera shows the last good
/// picture again, or black before there was one; a column of numbers holds the first later sample,
/// or zeros when the episode has none. Shares its place with the wire's CONFIG, which no row shows.
pub const FILLED: u8 = 64;
/// Bit of [`SAMPLE_FLAGS`]: the sample is older than the tolerance, or the last command was held.
pub const HELD: u8 = 128;
/// Column of capture times, int64, in nanoseconds; 0 where [`FILLED`] and no sample is shown.
pub const CAPTURE_TIME: &str = "capture_time_ns";
/// Column of flags, uint8: the bits of [`flag`] that are below 64, [`FILLED`] and [`HELD`].
pub const SAMPLE_FLAGS: &str = "sample_flags";
/// Age in ticks up to which a sample is not held: one late sample of a sensor that runs at fps is no fault.
pub const TOLERANCE_TICKS: f64 = 1.5;
/// Most rows a second. A grid finer than a millisecond would only repeat samples.
pub const FPS_MAX: u32 = 1000;
/// Most rows of an episode: 37 hours at 30 rows a second. More comes from one wrong capture time.
pub const ROWS_MAX: usize = 4_000_000;
/// Most bytes of the columns of an episode, which is held whole.
pub const COLUMN_BYTES_MAX: usize = 4 << 30;

/// What decides when a row is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowClock<'a> {
    /// Every 1/fps from the moment when every required stream has a sample.
    Grid,
    /// One row per sample of the stream with this feature name.
    Stream(&'a str),
}

/// What to do with NaN and infinities in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFinite {
    /// Refuse the episode and say where they are.
    Refuse,
    /// Keep them; they are flagged and counted.
    Keep,
}

/// What to make rows of.
#[derive(Clone, Debug)]
pub struct RowsInput<'a> {
    /// The episode's samples.
    pub cut: &'a Cut,
    /// What decides when a row is taken.
    pub row_clock: RowClock<'a>,
    /// Rows per second of the dataset, 1 to [`FPS_MAX`].
    pub fps: u32,
    /// Language instructions; the first is the task of every row.
    pub tasks: Vec<String>,
    /// Age in ticks up to which a sample is not held, usually [`TOLERANCE_TICKS`].
    pub tolerance_ticks: f64,
    /// What to do with NaN and infinities.
    pub not_finite: NotFinite,
    /// Where the episode comes from.
    pub origin: String,
}

/// Why no rows can be made.
#[derive(Debug, Error)]
pub enum RowsError {
    /// No rate, or one that is too high.
    #[error("fps is {got}; choose 1 to {FPS_MAX}")]
    Fps {
        /// The rate.
        got: u32,
    },
    /// A tolerance that says nothing.
    #[error("tolerance of {got} ticks; choose a number of 0 or more, {TOLERANCE_TICKS} is usual")]
    Tolerance {
        /// The tolerance.
        got: f64,
    },
    /// The window runs backwards.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// Two streams of one name.
    #[error("streams {first} and {second} are both named {feature:?}; rename one of them")]
    RepeatedFeature {
        /// The name.
        feature: String,
        /// One stream.
        first: StreamId,
        /// The other.
        second: StreamId,
    },
    /// Required streams that were never there.
    #[error("required streams without a sample in the episode: {}; check their drivers, or declare them as not required", features.join(", "))]
    MissingRequired {
        /// Their features.
        features: Vec<String>,
    },
    /// The row clock is no stream of the session.
    #[error("no stream is named {feature:?}, which is to give the row clock; streams are: {}", streams.join(", "))]
    NoRowClock {
        /// The name that was asked for.
        feature: String,
        /// The names that there are.
        streams: Vec<String>,
    },
    /// Nothing to show.
    #[error("episode of {duration_ns} ns has no rows: {why}; discard it or record a longer one")]
    NoRows {
        /// Length without pauses in nanoseconds.
        duration_ns: i64,
        /// What was missing.
        why: String,
    },
    /// Far more than an episode holds.
    #[error(
        "episode would have {rows} rows ({bytes} bytes of numbers); at most {ROWS_MAX} and {COLUMN_BYTES_MAX}: look for a wrong capture time or cut the episode"
    )]
    TooManyRows {
        /// Rows there would be.
        rows: u128,
        /// Bytes of all columns.
        bytes: u128,
    },
    /// NaN or infinite values that were to be refused.
    #[error(
        "{rows} rows of {feature:?} hold NaN or infinite values, first in sequence {sequence} (row {row}); leave the episode out, or keep such values on purpose"
    )]
    NotFinite {
        /// The feature.
        feature: String,
        /// How many rows.
        rows: usize,
        /// The first of them.
        row: usize,
        /// Sequence of its sample.
        sequence: u64,
    },
    /// All pictures have another size than declared.
    #[error(
        "camera {feature:?} is declared as {declared:?} (width, height), but none of its {pictures} pictures has that size, the first one has {got:?}; correct the declaration"
    )]
    CameraSize {
        /// The feature.
        feature: String,
        /// Width and height declared.
        declared: (u32, u32),
        /// Width and height of the first picture.
        got: (u32, u32),
        /// How many pictures there are.
        pictures: usize,
    },
    /// Coded units without their configuration.
    #[error(
        "camera {feature:?} sent {units} units but no configuration record before them; send avcC or av1C flagged as CONFIG first"
    )]
    NoConfig {
        /// The feature.
        feature: String,
        /// How many units there are.
        units: usize,
    },
    /// No black picture could be made.
    #[error("no picture to fill {feature:?} with: {why}")]
    Black {
        /// The feature.
        feature: String,
        /// Why.
        #[source]
        why: JpegError,
    },
}

/// How one feature came into the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRows {
    /// The feature.
    pub feature: String,
    /// Samples inside the episode.
    pub samples: usize,
    /// Samples that no row shows.
    pub unused: usize,
    /// Rows that show a sample older than the tolerance, or the last command again.
    pub held: usize,
    /// Rows without a usable sample, see [`FILLED`].
    pub filled: usize,
    /// Rows that hold NaN or an infinity.
    pub not_finite: usize,
    /// Pictures that do not decode.
    pub undecodable: usize,
    /// Sequence of the first of them.
    pub first_undecodable: Option<u64>,
    /// Pictures of another size than declared.
    pub resized: usize,
    /// Sequence of the first of them.
    pub first_resized: Option<u64>,
}

/// A coded camera whose units do not fit the rows one to one. Its entry in [`Episode::cameras`] has no
/// pictures yet: decode `units`, encode what `rows` shows, and put the outcome there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reencode {
    /// Place of the camera in [`Episode::cameras`].
    pub camera: usize,
    /// Why the units cannot stay as they are.
    pub why: String,
    /// Configuration records; units name theirs.
    pub configs: Vec<Bytes>,
    /// All units that are needed, in decoding order.
    pub units: Vec<SourceUnit>,
    /// Which of `units` each row shows; `None` is a black picture.
    pub rows: Vec<Option<u32>>,
}

/// One unit to decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUnit {
    /// The unit: NAL units behind 4-byte lengths, or an AV1 temporal unit.
    pub data: Bytes,
    /// Whether decoding can start here.
    pub key: bool,
    /// Which of the configuration records applies.
    pub config: u32,
    /// Capture time in nanoseconds on its own clock: pictures leave the decoder in this order.
    pub capture_ns: i64,
}

/// What happened on the way from samples to rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsReport {
    /// One entry per feature, in the order of the features.
    pub features: Vec<FeatureRows>,
    /// Coded cameras that are not done yet; while there is one the episode is not whole.
    pub reencode: Vec<Reencode>,
}

/// Makes the rows of an episode.
///
/// # Errors
/// When the input contradicts itself, a required stream is missing, or nothing is left to show.
pub fn make_rows(input: RowsInput<'_>) -> Result<(Episode, RowsReport), RowsError> {
    check(&input)?;
    let streams = ordered(&input.cut.streams)?;
    let ticks = Ticks::of(&input, &streams)?;
    let rows = ticks.len();
    let mut extra = Extra::default();
    let mut report = RowsReport::default();
    let (mut columns, mut cameras) = (Vec::new(), Vec::new());
    for stream in &streams {
        let sorted = Sorted::of(&stream.times_ns);
        let picks = picks(&input, &ticks, stream, &sorted);
        let spec = feature_spec(&stream.samples.declaration);
        let mut counted =
            FeatureRows { feature: spec.key.clone(), samples: stream.samples.count(), ..FeatureRows::default() };
        let (times, flags) = if stream.samples.declaration.content.is_camera() {
            let (camera, shown, reencode) = cameras::camera(stream, spec, &sorted, &picks, &mut counted)?;
            report.reencode.extend(reencode.map(|reencode| Reencode { camera: cameras.len(), ..reencode }));
            cameras.push(camera);
            shown
        } else {
            let (column, shown) = column(stream, spec, &picks, &mut counted, input.not_finite)?;
            columns.push(column);
            shown
        };
        extra.add(times, flags);
        report.features.push(counted);
    }
    let names: Vec<String> = report.features.iter().map(|feature| feature.feature.clone()).collect();
    columns.extend(extra.columns(&names, rows));
    let episode = Episode { fps: input.fps, rows, tasks: input.tasks, columns, cameras, origin: input.origin };
    Ok((episode, report))
}

fn check(input: &RowsInput<'_>) -> Result<(), RowsError> {
    if input.fps == 0 || input.fps > FPS_MAX {
        return Err(RowsError::Fps { got: input.fps });
    }
    if !input.tolerance_ticks.is_finite() || input.tolerance_ticks < 0.0 {
        return Err(RowsError::Tolerance { got: input.tolerance_ticks });
    }
    let is_missing = |stream: &&CutStream| stream.samples.declaration.required && stream.samples.count() == 0;
    let missing = input.cut.streams.iter().filter(is_missing).map(|stream| stream.samples.declaration.feature.clone());
    let features: Vec<String> = missing.collect();
    if !features.is_empty() {
        return Err(RowsError::MissingRequired { features });
    }
    Ok(())
}

/// Which sample each row shows.
fn picks(input: &RowsInput<'_>, ticks: &Ticks, stream: &CutStream, sorted: &Sorted) -> Vec<Option<Pick>> {
    if ticks.is_of(stream) {
        return sorted.own_rows(stream.samples.is_coded());
    }
    match stream.samples.declaration.role {
        Role::Commanded if !stream.samples.declaration.content.is_camera() => pair::commands(ticks, sorted),
        // A camera is never sent to a robot; whatever its role says, it is looked at.
        Role::Commanded | Role::Measured => {
            pair::observations(ticks, sorted, ticks.tolerance_ns(input.tolerance_ticks))
        }
    }
}

/// Capture time and flags of each row of one feature.
type Shown = (Vec<i64>, Vec<u8>);

/// A column of numbers.
fn column(
    stream: &CutStream,
    spec: FeatureSpec,
    picks: &[Option<Pick>],
    counted: &mut FeatureRows,
    not_finite: NotFinite,
) -> Result<(Column, Shown), RowsError> {
    let samples = &stream.samples;
    let bytes = samples.sample_bytes();
    let mut values = Vec::with_capacity(picks.len() * bytes);
    let (mut times, mut flags) = (Vec::with_capacity(picks.len()), Vec::with_capacity(picks.len()));
    let mut used = vec![false; samples.count()];
    let mut first_not_finite = None;
    for (row, pick) in picks.iter().enumerate() {
        let Some(pick) = pick else {
            values.resize(values.len() + bytes, 0);
            times.push(0);
            flags.push(FILLED);
            counted.filled += 1;
            continue;
        };
        let index = pick.sample();
        used[index] = true;
        values.extend_from_slice(&samples.values[index * bytes..(index + 1) * bytes]);
        times.push(stream.times_ns[index]);
        flags.push(samples.flags[index] & !(FILLED | HELD) | pick.flag());
        counted.held += usize::from(matches!(pick, Pick::Held(_)));
        counted.filled += usize::from(matches!(pick, Pick::Later(_)));
        if samples.flags[index] & flag::NOT_FINITE != 0 {
            counted.not_finite += 1;
            first_not_finite = first_not_finite.or(Some((row, samples.sequences[index])));
        }
    }
    if let (Some((row, sequence)), NotFinite::Refuse) = (first_not_finite, not_finite) {
        return Err(RowsError::NotFinite { feature: spec.key, rows: counted.not_finite, row, sequence });
    }
    counted.unused = used.iter().filter(|used| !**used).count();
    Ok((Column { spec, values }, (times, flags)))
}

/// The two columns with one element per feature.
#[derive(Default)]
struct Extra {
    times: Vec<Vec<i64>>,
    flags: Vec<Vec<u8>>,
}

impl Extra {
    fn add(&mut self, times: Vec<i64>, flags: Vec<u8>) {
        self.times.push(times);
        self.flags.push(flags);
    }

    fn columns(&self, names: &[String], rows: usize) -> [Column; 2] {
        let (mut times, mut flags) =
            (Vec::with_capacity(rows * names.len() * 8), Vec::with_capacity(rows * names.len()));
        for row in 0..rows {
            self.times.iter().for_each(|feature| times.extend_from_slice(&feature[row].to_le_bytes()));
            self.flags.iter().for_each(|feature| flags.push(feature[row]));
        }
        let [time, flag] = features::extra_specs(names);
        [Column { spec: time, values: times }, Column { spec: flag, values: flags }]
    }
}
