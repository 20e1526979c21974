//! The rules of pairing against a slow model that states them one by one, then each rule by its story.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tendon_protocol::id::ClockId;
use tendon_protocol::stream::{Content, Dtype, StreamDeclaration};

use super::*;
use crate::samples::cut::Window;
use crate::samples::{MediaSample, StreamSamples};

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;

fn declared(stream: u32, feature: &str, role: Role, content: Content) -> StreamDeclaration {
    let is_camera = content.is_camera();
    StreamDeclaration {
        stream: StreamId(stream),
        feature: feature.into(),
        names: Vec::new(),
        unit: String::new(),
        dtype: if is_camera { Dtype::U8 } else { Dtype::I64 },
        shape: if is_camera { vec![16, 24, 3] } else { vec![1] },
        rate_mhz: 0,
        required: true,
        role,
        content,
    }
}

/// A stream whose sample `i` has the value and the sequence `i`.
fn numbers(stream: u32, feature: &str, role: Role, times: &[i64]) -> CutStream {
    let mut samples = StreamSamples::empty(declared(stream, feature, role, Content::Values));
    samples.clocks = vec![ClockId::from_u128(1)];
    samples.sequences = (0..times.len() as u64).collect();
    samples.capture_ns = times.to_vec();
    samples.clock = vec![0; times.len()];
    samples.flags = vec![0; times.len()];
    samples.values = (0..times.len() as i64).flat_map(i64::to_le_bytes).collect();
    cut_of(samples)
}

fn cut_of(samples: StreamSamples) -> CutStream {
    CutStream { times_ns: samples.capture_ns.clone(), samples, support: Vec::new(), unplaced: 0, uncertainty_ns: 0 }
}

fn state(times: &[i64]) -> CutStream {
    numbers(1, "observation.state", Role::Measured, times)
}

fn action(times: &[i64]) -> CutStream {
    numbers(2, "action", Role::Commanded, times)
}

/// A camera of (time, data, flags) with the size that the data shows.
fn camera(content: Content, units: &[(i64, Bytes, u8)]) -> CutStream {
    let mut samples = StreamSamples::empty(declared(3, "observation.images.front", Role::Measured, content));
    samples.clocks = vec![ClockId::from_u128(1)];
    for (sequence, (time, data, flags)) in units.iter().enumerate() {
        let size = crate::jpeg::probe(data).ok();
        let flags = if content == Content::Jpeg && size.is_none() { flags | flag::UNDECODABLE } else { *flags };
        samples.sequences.push(sequence as u64);
        samples.capture_ns.push(*time);
        samples.clock.push(0);
        samples.flags.push(flags);
        samples.media.push(MediaSample {
            sequence: sequence as u64,
            capture_ns: *time,
            data: data.clone(),
            flags,
            size,
        });
    }
    cut_of(samples)
}

/// A picture of its own grey.
fn jpeg(grey: u8) -> Bytes {
    crate::jpeg::encode_rgb(24, 16, &[grey; 24 * 16 * 3], 80).expect("a small picture")
}

fn cut_from(streams: Vec<CutStream>, start_ns: i64, stop_ns: i64) -> Cut {
    Cut { window: Window { clock: ClockId::from_u128(1), start_ns, stop_ns, pauses: Vec::new() }, streams }
}

fn input<'a>(cut: &'a Cut, row_clock: RowClock<'a>, fps: u32) -> RowsInput<'a> {
    RowsInput {
        cut,
        row_clock,
        fps,
        tasks: vec!["put the cube away".into()],
        tolerance_ticks: TOLERANCE_TICKS,
        not_finite: NotFinite::Refuse,
        origin: "test/0".into(),
    }
}

fn rows_of(cut: &Cut, row_clock: RowClock<'_>, fps: u32) -> (Episode, RowsReport) {
    make_rows(input(cut, row_clock, fps)).expect("rows can be made")
}

fn column_of<'a>(episode: &'a Episode, key: &str) -> &'a Column {
    episode.columns.iter().find(|column| column.spec.key == key).expect("the column is there")
}

fn integers(episode: &Episode, key: &str) -> Vec<i64> {
    column_of(episode, key).values.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Flags of one feature, row by row.
fn flags_of(episode: &Episode, feature: &str) -> Vec<u8> {
    let column = column_of(episode, SAMPLE_FLAGS);
    let place = column.spec.names.iter().position(|name| name == feature).expect("the feature has flags");
    column.values.chunks_exact(column.spec.names.len()).map(|row| row[place]).collect()
}

fn times_of(episode: &Episode, feature: &str) -> Vec<i64> {
    let column = column_of(episode, CAPTURE_TIME);
    let place = column.spec.names.iter().position(|name| name == feature).expect("the feature has times");
    integers(episode, CAPTURE_TIME).chunks_exact(column.spec.names.len()).map(|row| row[place]).collect()
}

/// A tick of the model.
struct Tick {
    at: i64,
    next: i64,
    /// Rows of the same time before this one.
    nth: usize,
    /// Whether it is the last row of its time.
    is_last: bool,
}

/// The rules, said one by one over all samples; returns (sample, flag) or nothing.
fn model(role: Role, tick: &Tick, slack: i64, tolerance: i64, samples: &[i64]) -> Option<(usize, u8)> {
    let Tick { at: tick, next, nth, is_last } = *tick;
    let mut by_time: Vec<(i64, usize)> = samples.iter().copied().zip(0..).collect();
    by_time.sort_unstable();
    let at: Vec<usize> = by_time.iter().filter(|it| (it.0 - tick).abs() <= slack).map(|it| it.1).collect();
    let newest = by_time.iter().rfind(|it| it.0 <= tick + slack).copied();
    match role {
        Role::Measured => match newest {
            // Equal stamps stay paired one by one; the last row of a time sees the newest of that time.
            Some(_) if !is_last && nth < at.len() => Some((at[nth], 0)),
            Some((time, sample)) => Some((sample, if tick - time > tolerance { HELD } else { 0 })),
            None => by_time.first().map(|it| (it.1, FILLED)),
        },
        Role::Commanded => {
            if let Some(sample) = at.get(nth) {
                return Some((*sample, 0));
            }
            let answer = by_time.iter().find(|it| it.0 > tick + slack && it.0 < next - slack);
            match (answer, newest) {
                (Some(answer), _) if is_last => Some((answer.1, 0)),
                (_, Some((_, sample))) => Some((sample, HELD)),
                (_, None) => by_time.first().map(|it| (it.1, FILLED)),
            }
        }
    }
}

/// Times in few enough places that stamps repeat, run backwards and meet the ticks.
fn stamps() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        vec((0i64..40).prop_map(|place| place * 10 * MS), 1..30),
        vec(0i64..400 * MS, 1..30),
        vec((0i64..12).prop_map(|place| place * SECOND / 30), 1..30),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// One row per sample of the stream that gives the clock, in its order, none dropped, none held.
    #[test]
    fn rows_of_a_stream_follow_the_rules(clock in stamps(), observed in stamps(), commanded in stamps(), fps in 1u32..60) {
        let cut = cut_from(vec![
            numbers(1, "observation.clock", Role::Measured, &clock),
            numbers(2, "observation.state", Role::Measured, &observed),
            numbers(3, "action", Role::Commanded, &commanded),
        ], 0, SECOND);
        let (episode, report) = rows_of(&cut, RowClock::Stream("observation.clock"), fps);
        let expected: Vec<i64> = (0..clock.len() as i64).collect();
        prop_assert_eq!(integers(&episode, "observation.clock"), expected);
        prop_assert!(flags_of(&episode, "observation.clock").iter().all(|flags| *flags == 0));
        prop_assert_eq!(times_of(&episode, "observation.clock"), clock.clone());
        let tolerance = (1.5e9 / f64::from(fps)).round() as i64;
        for (feature, role, samples) in [("observation.state", Role::Measured, &observed), ("action", Role::Commanded, &commanded)] {
            let (values, flags, times) = (integers(&episode, feature), flags_of(&episode, feature), times_of(&episode, feature));
            for (row, tick) in clock.iter().copied().enumerate() {
                let nth = clock[..row].iter().filter(|other| **other == tick).count();
                let is_last = !clock[row + 1..].contains(&tick);
                let next = clock.iter().copied().filter(|other| *other > tick).min().unwrap_or(tick + tolerance);
                let (sample, flag) = model(role, &Tick { at: tick, next, nth, is_last }, 0, tolerance, samples).expect("there are samples");
                prop_assert_eq!((values[row], flags[row]), (sample as i64, flag), "{} row {} tick {}", feature, row, tick);
                prop_assert_eq!(times[row], samples[sample]);
            }
            let counted = report.features.iter().find(|it| it.feature == feature).expect("it is reported");
            prop_assert_eq!(counted.held, flags.iter().filter(|flags| **flags & HELD != 0).count());
            prop_assert_eq!(counted.filled, flags.iter().filter(|flags| **flags & FILLED != 0).count());
            prop_assert_eq!(counted.unused, (0..samples.len() as i64).filter(|sample| !values.contains(sample)).count());
        }
    }

    /// A row every 1/fps from the moment when every required stream has a sample, up to the last sample.
    #[test]
    fn rows_of_a_grid_follow_the_rules(observed in stamps(), commanded in stamps(), fps in 1u32..120, start in -50i64..300, length in 0i64..500) {
        let (start, stop) = (start * MS, (start + length) * MS);
        let inside = |times: &[i64]| times.iter().copied().filter(|time| (start..stop).contains(time)).collect::<Vec<i64>>();
        let (observed, commanded) = (inside(&observed), inside(&commanded));
        let cut = cut_from(vec![state(&observed), action(&commanded)], start, stop);
        let made = make_rows(input(&cut, RowClock::Grid, fps));
        if observed.is_empty() || commanded.is_empty() {
            prop_assert!(matches!(made, Err(RowsError::MissingRequired { .. })), "a required stream is missing");
            return Ok(());
        }
        let (episode, _) = made.expect("both streams have samples");
        let begin = observed.iter().min().max(commanded.iter().min()).copied().unwrap();
        let end = observed.iter().max().max(commanded.iter().max()).copied().unwrap();
        let ticks: Vec<i64> = (0..).map(|k: i64| begin + k * SECOND / i64::from(fps)).take_while(|tick| *tick <= end + 1_000 && *tick < stop).collect();
        prop_assert_eq!(episode.rows, ticks.len());
        let tolerance = (1.5e9 / f64::from(fps)).round() as i64;
        for (feature, role, samples) in [("observation.state", Role::Measured, &observed), ("action", Role::Commanded, &commanded)] {
            let (values, flags) = (integers(&episode, feature), flags_of(&episode, feature));
            for (row, tick) in ticks.iter().copied().enumerate() {
                let next = begin + (row as i64 + 1) * SECOND / i64::from(fps);
                let (sample, flag) = model(role, &Tick { at: tick, next, nth: 0, is_last: true }, 1_000, tolerance, samples).expect("there are samples");
                prop_assert_eq!((values[row], flags[row]), (sample as i64, flag), "{} row {} tick {}", feature, row, tick);
            }
        }
    }

    /// A camera of any rate, good, broken and foreign pictures in any order: one picture per row, never a bad one.
    #[test]
    fn every_row_has_exactly_one_good_picture(pictures in vec((0i64..400, 0usize..4), 1..30), fps in 1u32..60) {
        let (good, other) = (jpeg(200), crate::jpeg::black(8, 8).unwrap());
        let kinds = [good.clone(), good.clone(), other, Bytes::from_static(b"no picture")];
        let units: Vec<(i64, Bytes, u8)> = pictures.iter().map(|(time, kind)| (time * MS, kinds[*kind].clone(), 0)).collect();
        let mut front = camera(Content::Jpeg, &units);
        front.samples.declaration.required = false;
        let cut = cut_from(vec![state(&[0, 200 * MS, 399 * MS]), front], 0, 400 * MS);
        let made = make_rows(input(&cut, RowClock::Grid, fps));
        if pictures.iter().all(|it| it.1 > 1) && pictures.iter().any(|it| it.1 == 2) {
            prop_assert!(matches!(made, Err(RowsError::CameraSize { .. })), "no picture has the declared size");
            return Ok(());
        }
        let (episode, report) = made.expect("rows can be made");
        let black = crate::jpeg::black(24, 16).unwrap();
        let shown = &episode.cameras[0].pictures;
        prop_assert_eq!(shown.iter().map(|picture| picture.row as usize).collect::<Vec<_>>(), (0..episode.rows).collect::<Vec<_>>());
        prop_assert!(shown.iter().all(|picture| picture.key && (picture.data == good || picture.data == black)));
        let counted = &report.features[1];
        let filled = flags_of(&episode, "observation.images.front").iter().filter(|flags| **flags & FILLED != 0).count();
        prop_assert_eq!(counted.filled, filled);
        prop_assert_eq!(counted.undecodable, pictures.iter().filter(|it| it.1 == 3).count());
        prop_assert_eq!(counted.resized, pictures.iter().filter(|it| it.1 == 2).count());
    }
}

/// The leader is moved at 100 ms; the command of that moment is 5 ms later, the follower has moved 60 ms later.
/// The row that still sees the follower at rest must carry the command that moves it.
#[test]
fn a_step_command_precedes_its_state_step() {
    let times: Vec<i64> = (0..10).map(|k| k * 33 * MS).collect();
    let sent: Vec<i64> = times.iter().map(|time| time + 5 * MS).collect();
    let (mut state, mut action) = (state(&times), action(&sent));
    let step = |from: usize| (0..10).flat_map(|k| i64::from(k >= from).to_le_bytes()).collect::<Vec<u8>>();
    state.samples.values = step(5);
    action.samples.values = step(3);
    let cut = cut_from(vec![state, action], 0, SECOND);
    for row_clock in [RowClock::Stream("observation.state"), RowClock::Grid] {
        let (episode, _) = rows_of(&cut, row_clock, 30);
        let (states, actions) = (integers(&episode, "observation.state"), integers(&episode, "action"));
        let first = |values: &[i64]| values.iter().position(|value| *value == 1).expect("the step is there");
        assert!(first(&actions) < first(&states), "actions {actions:?}, states {states:?} by {row_clock:?}");
    }
    let (episode, _) = rows_of(&cut, RowClock::Stream("observation.state"), 30);
    assert_eq!(
        integers(&episode, "action"),
        [0, 0, 0, 1, 1, 1, 1, 1, 1, 1],
        "the command right behind the observation answers it"
    );
}

#[test]
fn equal_stamps_stay_paired_even_when_they_repeat_or_run_backwards() {
    let times = [0, 100 * MS, 100 * MS, 100 * MS, 200 * MS, 150 * MS, 300 * MS];
    let cut = cut_from(vec![state(&times), action(&times)], 0, SECOND);
    let (episode, report) = rows_of(&cut, RowClock::Stream("observation.state"), 10);
    assert_eq!(integers(&episode, "observation.state"), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(integers(&episode, "action"), [0, 1, 2, 3, 4, 5, 6]);
    assert!(report.features.iter().all(|it| it.held == 0 && it.filled == 0 && it.unused == 0));
}

#[test]
fn a_grid_meets_samples_of_its_own_rate_whichever_way_they_were_rounded() {
    for round in [f64::floor, f64::round, f64::ceil] {
        let times: Vec<i64> = (0..300).map(|k| round(f64::from(k) * 1e9 / 30.0) as i64).collect();
        let cut = cut_from(vec![state(&times), action(&times)], 0, 10 * SECOND);
        let (episode, report) = rows_of(&cut, RowClock::Grid, 30);
        let expected: Vec<i64> = (0..300).collect();
        assert_eq!(integers(&episode, "observation.state"), expected);
        assert_eq!(integers(&episode, "action"), expected);
        assert!(report.features.iter().all(|it| it.held == 0));
    }
}

#[test]
fn a_sensor_that_falls_silent_is_held_flagged_and_counted() {
    let cut = cut_from(
        vec![state(&[0, 100 * MS, 700 * MS]), action(&(0..8).map(|k| k * 100 * MS).collect::<Vec<_>>())],
        0,
        800 * MS,
    );
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    assert_eq!(integers(&episode, "observation.state"), [0, 1, 1, 1, 1, 1, 1, 2]);
    assert_eq!(
        flags_of(&episode, "observation.state"),
        [0, 0, 0, HELD, HELD, HELD, HELD, 0],
        "100 ms old is within 1.5 ticks, 200 ms is not"
    );
    assert_eq!(report.features[1].held, 4);
    assert_eq!(times_of(&episode, "observation.state")[6], 100 * MS, "the time of the sample that is shown");
}

#[test]
fn columns_come_in_the_order_of_lerobot_and_the_extra_ones_name_every_feature() {
    let mut gripper = numbers(9, "observation.gripper", Role::Measured, &[0]);
    gripper.samples.declaration.required = false;
    gripper.samples.flags[0] = flag::STALE;
    let front = camera(Content::Jpeg, &[(0, jpeg(9), flag::KEY)]);
    let cut = cut_from(vec![front, gripper, state(&[0]), action(&[0])], 0, SECOND);
    let (episode, _) = rows_of(&cut, RowClock::Grid, 30);
    let keys: Vec<&str> = episode.columns.iter().map(|column| column.spec.key.as_str()).collect();
    assert_eq!(keys, ["action", "observation.state", "observation.gripper", CAPTURE_TIME, SAMPLE_FLAGS]);
    let names = ["action", "observation.state", "observation.gripper", "observation.images.front"];
    let (times, flags) = (column_of(&episode, CAPTURE_TIME), column_of(&episode, SAMPLE_FLAGS));
    assert_eq!(
        (&times.spec.names[..], &times.spec.shape[..], times.spec.dtype),
        (&names.map(String::from)[..], &[4][..], Dtype::I64)
    );
    assert_eq!(
        (&flags.spec.names[..], &flags.spec.shape[..], flags.spec.dtype),
        (&names.map(String::from)[..], &[4][..], Dtype::U8)
    );
    assert_eq!(flags.values, [0, 0, flag::STALE, flag::KEY]);
    assert_eq!(column_of(&episode, "action").spec.names, ["action_0"]);
    assert_eq!(column_of(&episode, "observation.state").spec.names, ["state_0"]);
    assert_eq!((episode.rows, episode.tasks.len()), (1, 1), "one row is an episode");
}

#[test]
fn a_camera_slower_or_faster_than_the_grid_gives_one_picture_per_row() {
    let pictures =
        |every: i64, count: i64| (0..count).map(|k| (k * every * MS, jpeg(k as u8 * 8), 0)).collect::<Vec<_>>();
    let times: Vec<i64> = (0..10).map(|k| k * 100 * MS).collect();
    let grey = |episode: &Episode, row: usize| {
        crate::jpeg::decode_rgb(&episode.cameras[0].pictures[row].data).unwrap().pixels[0] / 8
    };
    // 20 pictures a second for 10 rows: every other one.
    let cut = cut_from(vec![state(&times), camera(Content::Jpeg, &pictures(50, 20))], 0, SECOND);
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    assert_eq!((0..10).map(|row| grey(&episode, row)).collect::<Vec<_>>(), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
    assert_eq!((report.features[1].filled, report.features[1].unused), (0, 10));
    // 4 a second: a picture of 150 ms is still fresh, one of 200 ms is filled in.
    let cut = cut_from(vec![state(&times), camera(Content::Jpeg, &pictures(250, 4))], 0, SECOND);
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    assert_eq!((0..10).map(|row| grey(&episode, row)).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]);
    assert_eq!(flags_of(&episode, "observation.images.front"), [0, 0, FILLED, 0, 0, 0, 0, FILLED, 0, 0]);
    assert_eq!((report.features[1].filled, report.features[1].unused), (2, 0));
}

#[test]
fn bad_pictures_are_replaced_by_the_last_good_one_and_named() {
    let other = crate::jpeg::black(48, 32).unwrap();
    let cut_short = jpeg(90).slice(0..40);
    let mut front = camera(
        Content::Jpeg,
        &[(100, jpeg(80), 0), (200, cut_short, 0), (300, other, 0), (400, jpeg(160), 0)]
            .map(|(at, data, flags)| (at * MS, data, flags)),
    );
    front.samples.declaration.required = false;
    let cut = cut_from(vec![state(&[0, 100 * MS, 200 * MS, 300 * MS, 400 * MS]), front], 0, SECOND);
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    let black = crate::jpeg::black(24, 16).unwrap();
    let data: Vec<&Bytes> = episode.cameras[0].pictures.iter().map(|picture| &picture.data).collect();
    assert_eq!(data, [&black, &jpeg(80), &jpeg(80), &jpeg(80), &jpeg(160)]);
    assert_eq!(flags_of(&episode, "observation.images.front"), [FILLED, 0, FILLED | flag::UNDECODABLE, FILLED, 0]);
    assert_eq!(times_of(&episode, "observation.images.front"), [0, 100 * MS, 100 * MS, 100 * MS, 400 * MS]);
    let counted = &report.features[1];
    assert_eq!((counted.undecodable, counted.first_undecodable), (1, Some(1)));
    assert_eq!((counted.resized, counted.first_resized), (1, Some(2)));
    assert_eq!(counted.filled, 3);
}

#[test]
fn each_bad_input_is_refused_by_name() {
    let good = cut_from(vec![state(&[0]), action(&[0])], 0, SECOND);
    let says = |cut: &Cut, row_clock: RowClock<'_>, fps: u32| {
        make_rows(input(cut, row_clock, fps)).expect_err("refused").to_string()
    };
    assert!(says(&good, RowClock::Grid, 0).contains("fps is 0"));
    assert!(says(&good, RowClock::Grid, 1_001).contains("fps is 1001"));
    assert!(says(&good, RowClock::Stream("observation.force"), 30).contains("observation.force"));
    let missing = cut_from(vec![state(&[]), action(&[0])], 0, SECOND);
    assert!(says(&missing, RowClock::Grid, 30).contains("observation.state"));
    let twice = cut_from(vec![state(&[0]), numbers(7, "observation.state", Role::Measured, &[0])], 0, SECOND);
    let text = says(&twice, RowClock::Grid, 30);
    assert!(text.contains("streams 1 and 7") && text.contains("observation.state"), "{text}");
    let mut optional = numbers(1, "observation.state", Role::Measured, &[]);
    optional.samples.declaration.required = false;
    let empty = cut_from(vec![optional], 0, 0);
    assert!(says(&empty, RowClock::Grid, 30).contains("no rows"));
    assert!(says(&empty, RowClock::Stream("observation.state"), 30).contains("no rows"));
    let far = cut_from(vec![state(&[0, i64::MAX - 1])], 0, i64::MAX);
    assert!(matches!(make_rows(input(&far, RowClock::Grid, 1_000)), Err(RowsError::TooManyRows { .. })));
    let backwards = cut_from(vec![state(&[0])], 5, 4);
    assert!(matches!(make_rows(input(&backwards, RowClock::Grid, 30)), Err(RowsError::Window(_))));
    let tolerance = RowsInput { tolerance_ticks: f64::NAN, ..input(&good, RowClock::Grid, 30) };
    assert!(matches!(make_rows(tolerance), Err(RowsError::Tolerance { .. })));
    let all_small = cut_from(vec![camera(Content::Jpeg, &[(0, crate::jpeg::black(8, 8).unwrap(), 0)])], 0, SECOND);
    let text = says(&all_small, RowClock::Grid, 30);
    assert!(text.contains("(24, 16)") && text.contains("(8, 8)"), "{text}");
}

#[test]
fn values_that_are_not_finite_are_refused_by_place_or_kept_on_purpose() {
    let mut state = state(&[0, 100 * MS, 200 * MS]);
    state.samples.flags[1] = flag::NOT_FINITE;
    let cut = cut_from(vec![state], 0, SECOND);
    let text = make_rows(input(&cut, RowClock::Grid, 10)).expect_err("refused").to_string();
    assert!(text.contains("observation.state") && text.contains("sequence 1") && text.contains("row 1"), "{text}");
    let (episode, report) =
        make_rows(RowsInput { not_finite: NotFinite::Keep, ..input(&cut, RowClock::Grid, 10) }).expect("kept");
    assert_eq!(flags_of(&episode, "observation.state"), [0, flag::NOT_FINITE, 0]);
    assert_eq!(report.features[0].not_finite, 1);
}

#[test]
fn an_optional_stream_without_samples_keeps_its_columns() {
    let mut force = numbers(5, "observation.force", Role::Measured, &[]);
    let mut front = camera(Content::Jpeg, &[]);
    force.samples.declaration.required = false;
    front.samples.declaration.required = false;
    let cut = cut_from(vec![state(&[0, 100 * MS]), force, front], 0, SECOND);
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    assert_eq!(integers(&episode, "observation.force"), [0, 0]);
    assert_eq!(flags_of(&episode, "observation.force"), [FILLED, FILLED]);
    assert_eq!(episode.cameras[0].pictures.len(), 2);
    assert_eq!(report.features.iter().map(|it| it.filled).collect::<Vec<_>>(), [0, 2, 2]);
}

#[test]
fn no_row_is_taken_in_a_pause_and_rows_go_on_behind_it() {
    let times: Vec<i64> = (0..5).chain(20..25).map(|k| k * 100 * MS).collect();
    let mut cut = cut_from(vec![state(&times), action(&times)], 0, 3 * SECOND);
    cut.window.pauses = vec![(450 * MS, 1_950 * MS)];
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    assert_eq!(times_of(&episode, "observation.state"), times);
    assert!(report.features.iter().all(|it| it.held == 0 && it.filled == 0));
}

#[test]
fn a_required_stream_that_dies_in_a_pause_is_held_behind_it() {
    let times: Vec<i64> = (0..5).chain(20..25).map(|k| k * 100 * MS).collect();
    let mut cut = cut_from(vec![state(&times), action(&times[..5])], 0, 3 * SECOND);
    cut.window.pauses = vec![(450 * MS, 1_950 * MS)];
    let (episode, report) = rows_of(&cut, RowClock::Grid, 10);
    assert_eq!(episode.rows, 10, "five rows before, five behind");
    assert_eq!(flags_of(&episode, "action")[5..], [HELD; 5]);
    assert_eq!(report.features[0].held, 5);
}

/// Units of a coded camera in decoding order, `shown` being the place of each in time.
fn coded(shown: &[i64]) -> CutStream {
    let units: Vec<(i64, Bytes, u8)> = shown
        .iter()
        .enumerate()
        .map(|(k, at)| (at * 100 * MS, Bytes::from(vec![k as u8; 5]), if k == 0 { flag::KEY } else { 0 }))
        .collect();
    let mut stream = camera(Content::H264, &units);
    stream.samples.sequences.iter_mut().for_each(|sequence| *sequence += 1);
    stream.samples.media.iter_mut().for_each(|unit| unit.sequence += 1);
    stream.samples.configs = vec![MediaSample {
        sequence: 0,
        capture_ns: 0,
        data: Bytes::from_static(b"avcC"),
        flags: flag::CONFIG,
        size: None,
    }];
    stream
}

#[test]
fn coded_units_that_fit_the_rows_stay_as_they_are_in_decoding_order() {
    let times: Vec<i64> = (0..4).map(|k| k * 100 * MS).collect();
    // The fourth picture is decoded second: the two before it are drawn from both sides.
    let cut = cut_from(vec![state(&times), coded(&[0, 3, 1, 2])], 0, SECOND);
    for row_clock in
        [RowClock::Stream("observation.state"), RowClock::Stream("observation.images.front"), RowClock::Grid]
    {
        let (episode, report) = rows_of(&cut, row_clock, 10);
        assert!(report.reencode.is_empty(), "{:?}", report.reencode);
        let front = &episode.cameras[0];
        assert_eq!(&front.config[..], b"avcC");
        assert_eq!(
            front.pictures.iter().map(|unit| (unit.data[0], unit.row)).collect::<Vec<_>>(),
            [(0, 0), (1, 3), (2, 1), (3, 2)]
        );
        assert_eq!(front.pictures.iter().map(|unit| unit.key).collect::<Vec<_>>(), [true, false, false, false]);
        assert_eq!(times_of(&episode, "observation.images.front"), times);
        assert_eq!(integers(&episode, "observation.state"), [0, 1, 2, 3]);
    }
}

#[test]
fn coded_units_that_do_not_fit_are_left_to_an_encoder_with_all_that_it_needs() {
    let times: Vec<i64> = (0..4).map(|k| k * 100 * MS).collect();
    let rows = |stream: CutStream| {
        let cut = cut_from(vec![state(&times), stream], 0, SECOND);
        let (episode, mut report) = rows_of(&cut, RowClock::Grid, 10);
        assert_eq!((episode.cameras[0].pictures.len(), report.reencode.len()), (0, 1), "no pictures until it is done");
        report.reencode.remove(0)
    };
    // A unit is missing: its row shows the one before.
    let mut gap = coded(&[0, 1, 2, 3]);
    gap.samples = gap.samples.only(&[0, 1, 3]);
    gap.times_ns.remove(2);
    gap.samples.holes = vec![(3, 3)];
    let reencode = rows(gap);
    assert_eq!(reencode.rows, [Some(0), Some(1), Some(1), Some(2)]);
    // The window begins inside a group of pictures.
    let mut inside = coded(&[-2, 0, 1, 2, 3]);
    inside.support = vec![inside.samples.media[0].clone()];
    inside.samples = inside.samples.only(&[1, 2, 3, 4]);
    inside.times_ns.remove(0);
    let reencode = rows(inside);
    assert!(reencode.why.contains("unit 1"), "{}", reencode.why);
    assert_eq!(
        reencode.units.iter().map(|unit| (unit.data[0], unit.key)).collect::<Vec<_>>(),
        [(0, true), (1, false), (2, false), (3, false), (4, false)]
    );
    assert_eq!(reencode.rows, [Some(1), Some(2), Some(3), Some(4)]);
    // Twice as many units as rows.
    let mut fast = coded(&[0, 1, 2, 3, 4, 5, 6, 7]);
    fast.times_ns.iter_mut().for_each(|time| *time /= 2);
    let reencode = rows(fast);
    assert_eq!(reencode.rows, [Some(0), Some(2), Some(4), Some(6)]);
    assert!(reencode.why.contains("8 units for 4 rows"), "{}", reencode.why);
    // Without a configuration nothing can decode it.
    let mut bare = coded(&[0, 1, 2, 3]);
    bare.samples.configs.clear();
    let cut = cut_from(vec![state(&times), bare], 0, SECOND);
    assert!(matches!(make_rows(input(&cut, RowClock::Grid, 10)), Err(RowsError::NoConfig { units: 4, .. })));
}

/// A picture whose header and end are sound, and whose scan names a Huffman table that is not there.
fn broken_scan() -> Bytes {
    let mut bytes = jpeg(90).to_vec();
    let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    // Marker, length (2), number of components, the first one's name, then its tables.
    bytes[scan + 6] = 0x33;
    assert!(crate::jpeg::probe(&bytes).is_ok(), "a look at the header does not tell");
    assert!(crate::jpeg::decode_rgb(&bytes).is_err(), "it does not decode");
    bytes.into()
}

/// Rows of pictures every 100 ms at `fps`: the pictures shown, the flags and what was counted.
fn shown(pictures: &[Bytes], fps: u32) -> (Vec<Bytes>, Vec<u8>, FeatureRows) {
    let times: Vec<i64> = (0..pictures.len() as i64).map(|k| k * 100 * MS).collect();
    let units: Vec<(i64, Bytes, u8)> =
        times.iter().zip(pictures).map(|(time, data)| (*time, data.clone(), 0)).collect();
    let cut = cut_from(vec![state(&times), camera(Content::Jpeg, &units)], 0, SECOND);
    let (episode, report) = rows_of(&cut, RowClock::Grid, fps);
    let data = episode.cameras[0].pictures.iter().map(|picture| picture.data.clone()).collect();
    (data, flags_of(&episode, "observation.images.front"), report.features[1].clone())
}

#[test]
fn a_picture_whose_scan_does_not_decode_is_filled_and_counted_wherever_it_is() {
    const BAD: u8 = FILLED | flag::UNDECODABLE;
    let (first, second, third, bad) = (jpeg(10), jpeg(20), jpeg(30), broken_scan());
    let black = crate::jpeg::black(24, 16).unwrap();
    let (data, flags, counted) = shown(&[bad.clone(), second.clone(), third.clone()], 10);
    assert_eq!((data, flags), (vec![black.clone(), second.clone(), third.clone()], vec![BAD, 0, 0]));
    assert_eq!((counted.undecodable, counted.first_undecodable, counted.filled, counted.unused), (1, Some(0), 1, 1));
    // In the middle, two in a row, behind one that even the header gives away.
    let cut_off = first.slice(..40);
    let pictures = [first.clone(), cut_off, bad.clone(), bad.clone(), third.clone()];
    let (data, flags, counted) = shown(&pictures, 10);
    assert_eq!(data, [first.clone(), first.clone(), first.clone(), first.clone(), third.clone()]);
    assert_eq!(flags, [0, BAD, BAD, BAD, 0]);
    assert_eq!((counted.undecodable, counted.first_undecodable, counted.filled), (3, Some(1), 3));
    // Nothing decodes at all.
    let (data, flags, counted) = shown(&[bad.clone(), bad.clone()], 10);
    assert_eq!((data, flags), (vec![black.clone(), black], vec![BAD, BAD]));
    assert_eq!((counted.undecodable, counted.first_undecodable), (2, Some(0)));
}

/// Rows show every other picture; the one that stands in for a broken one must have been decoded as well.
#[test]
fn a_broken_picture_is_not_filled_with_another_broken_one_that_no_row_shows() {
    let (first, third, bad) = (jpeg(10), jpeg(30), broken_scan());
    let (data, flags, counted) = shown(&[first.clone(), bad.clone(), bad.clone(), third.clone(), third.clone()], 5);
    assert_eq!(data, [first.clone(), first.clone(), third.clone()]);
    assert_eq!(flags, [0, FILLED | flag::UNDECODABLE, 0]);
    assert_eq!((counted.undecodable, counted.first_undecodable), (2, Some(1)));
    // While all that is shown decodes, the others are left alone.
    let (data, _, counted) = shown(&[first.clone(), bad, third.clone()], 5);
    assert_eq!((data, counted.undecodable), (vec![first, third], 0));
}

/// Stated so that a decoder that grows stricter is noticed: it would fill more rows.
#[test]
fn a_scan_that_ends_early_counts_as_a_picture() {
    let whole = jpeg(90);
    let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    let early: Bytes = [&whole[..scan + 14], &[0xff, 0xd9][..]].concat().into();
    let (data, flags, counted) = shown(&[whole.clone(), early.clone()], 10);
    assert_eq!((data, flags, counted.undecodable), (vec![whole, early], vec![0, 0], 0));
}

#[test]
fn each_real_difference_of_two_feature_sets_is_named() {
    let spec = |key: &str, names: &[&str]| FeatureSpec {
        key: key.into(),
        dtype: Dtype::F32,
        shape: vec![names.len() as u32],
        names: names.iter().map(|name| (*name).into()).collect(),
        unit: "rad".into(),
        content: Content::Values,
    };
    let (state, action) = (spec("observation.state", &["a", "b"]), spec("action", &["a", "b"]));
    assert!(compare_features(&[state.clone(), action.clone()], &[action.clone(), state.clone()]).is_empty());
    let cases: [(FeatureSpec, &str); 5] = [
        (spec("action", &["b", "a"]), "another order"),
        (spec("action", &["a", "c"]), "other names"),
        (spec("action", &["a", "b", "c"]), "shapes are [2] and [3]"),
        (FeatureSpec { dtype: Dtype::F64, ..action.clone() }, "F32 and F64"),
        (FeatureSpec { unit: "deg".into(), ..action.clone() }, "\"rad\" and \"deg\""),
    ];
    for (other, words) in cases {
        let found = compare_features(&[state.clone(), action.clone()], &[state.clone(), other]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("action") && found[0].contains(words), "{found:?}");
    }
    let found = compare_features(&[state.clone(), spec("left", &["a"])], &[state, spec("right", &["a"])]);
    assert_eq!(found, ["left is in the first only", "right is in the second only"]);
}

/// Two sessions may number their streams differently.
#[test]
fn the_order_of_features_does_not_hang_on_the_numbers_of_streams() {
    let specs = |numbers: [u32; 3]| {
        let names = ["observation.left", "observation.right", "observation.state"];
        let streams = numbers.iter().zip(names).map(|(number, name)| numbers_of_one(*number, name)).collect();
        let (episode, _) = rows_of(&cut_from(streams, 0, SECOND), RowClock::Grid, 10);
        episode.columns.into_iter().map(|column| column.spec).collect::<Vec<_>>()
    };
    let (one, other) = (specs([1, 2, 3]), specs([3, 2, 1]));
    assert!(compare_features(&one, &other).is_empty(), "{:?}", compare_features(&one, &other));
    let (episode, _) = rows_of(&cut_from(vec![numbers_of_one(3, "observation.state")], 0, SECOND), RowClock::Grid, 10);
    let fewer: Vec<FeatureSpec> = episode.columns.into_iter().map(|column| column.spec).collect();
    let found = compare_features(&one, &fewer);
    assert_eq!(
        found,
        ["observation.left is in the first only", "observation.right is in the first only"],
        "each difference is named once"
    );
}

fn numbers_of_one(stream: u32, feature: &str) -> CutStream {
    numbers(stream, feature, Role::Measured, &[0])
}
