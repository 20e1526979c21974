//! Samples that come twice, late, in any order or never.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tendon_protocol::batch::{Batch, Media};
use tendon_protocol::clock::{ClockFacts, ClockMap, ProbeSample};
use tendon_protocol::control::{ClockKind, LostReason};
use tendon_protocol::envelope::Sealer;
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Dtype, Role};

use super::cut::{Window, WindowError, cut};
use super::*;

const FIRST: ClockId = ClockId::from_u128(1);
const SECOND: ClockId = ClockId::from_u128(2);

fn declared(stream: u32, content: Content) -> StreamDeclaration {
    let is_camera = content.is_camera();
    StreamDeclaration {
        stream: StreamId(stream),
        feature: if is_camera { "observation.images.front".into() } else { "observation.state".into() },
        names: Vec::new(),
        unit: String::new(),
        dtype: if is_camera { Dtype::U8 } else { Dtype::F32 },
        shape: if is_camera { vec![16, 24, 3] } else { vec![2] },
        rate_mhz: 30_000,
        required: true,
        role: Role::Measured,
        content,
    }
}

/// Samples `range` of a stream that is a function of the sequence number.
fn batch(range: std::ops::Range<u64>) -> Batch {
    let values =
        range.clone().flat_map(|sequence| [sequence as f32, -(sequence as f32)]).flat_map(f32::to_le_bytes).collect();
    Batch {
        stream: StreamId(1),
        first: range.start,
        clock: if range.start < 1_000 { FIRST } else { SECOND },
        dtype: Dtype::F32,
        width: 2,
        times_ns: range.clone().map(|sequence| sequence as i64 * 10).collect(),
        flags: range.map(|sequence| (sequence % 3) as u8).collect(),
        values,
    }
}

fn stored(message: &Message) -> Bytes {
    Bytes::from(message.encode_with(&mut Sealer::new()))
}

fn gathered(messages: &[Bytes]) -> StreamSamples {
    let mut gatherer = Gatherer::new([declared(1, Content::Values)]).unwrap();
    for message in messages {
        gatherer.add(message).unwrap();
    }
    gatherer.finish().remove(0)
}

fn unit(sequence: u64, time_ns: i64, flags: u8, data: &[u8], content: Content) -> Bytes {
    let data = data.to_vec();
    stored(&Message::Media(Media { stream: StreamId(1), sequence, clock: FIRST, time_ns, content, flags, data }))
}

fn lost(sequence: u64, first: u64, last: u64) -> Bytes {
    stored(&Message::Lost(Lost { sequence, stream: StreamId(1), first, last, reason: LostReason::SpoolFull }))
}

proptest! {
    /// A stream cut into batches in several ways, each sent once or more, in any order: each sample once.
    #[test]
    fn a_stream_comes_back_whole_from_any_replay(count in 1u64..200, replays in vec((any::<Index>(), 1u64..40), 0..12), order in any::<u64>()) {
        let mut ranges: Vec<std::ops::Range<u64>> = (0..count).step_by(16).map(|first| first..(first + 16).min(count)).collect();
        ranges.extend(replays.iter().map(|(first, length)| {
            let first = first.index(count as usize) as u64;
            first..(first + length).min(count)
        }));
        // An order that the seed decides.
        ranges.sort_by_key(|range| (range.start + 7 * range.end).wrapping_mul(order | 1));
        let sent: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let messages: Vec<Bytes> = ranges.into_iter().map(|range| stored(&Message::Batch(batch(range)))).collect();
        let samples = gathered(&messages);
        let whole = batch(0..count);
        prop_assert_eq!(&samples.sequences, &(0..count).collect::<Vec<_>>());
        prop_assert_eq!(&samples.capture_ns, &whole.times_ns);
        prop_assert_eq!(&samples.flags, &whole.flags);
        prop_assert_eq!(&samples.values, &whole.values);
        prop_assert_eq!((samples.duplicates, samples.conflicts.len(), samples.holes.len()), (sent - count, 0, 0));
    }

    /// What a window leaves is what a look at each sample's time leaves.
    #[test]
    fn a_cut_leaves_exactly_what_was_captured_inside(times in vec(-100i64..100, 0..60), start in -120i64..120, length in 0i64..150, pauses in vec((0i64..20, 0i64..20), 0..4)) {
        let mut begin = start;
        let pauses: Vec<(i64, i64)> = pauses.into_iter().map(|(wait, length)| {
            let from = begin + wait;
            begin = from + length;
            (from, begin)
        }).collect();
        let stop = start + length;
        let mut messages = Vec::new();
        for (sequence, time) in times.iter().enumerate() {
            let mut one = batch(sequence as u64..sequence as u64 + 1);
            one.times_ns = vec![*time];
            messages.push(stored(&Message::Batch(one)));
        }
        let window = Window { clock: FIRST, start_ns: start, stop_ns: stop, pauses: pauses.clone() };
        let cut = cut(vec![gathered(&messages)], window, &ClockMap::default()).unwrap();
        let is_inside = |time: i64| (start..stop).contains(&time) && !pauses.iter().any(|pause| (pause.0..pause.1).contains(&time));
        let expected: Vec<u64> = (0..times.len() as u64).filter(|sequence| is_inside(times[*sequence as usize])).collect();
        prop_assert_eq!(&cut.streams[0].samples.sequences, &expected);
        let expected: Vec<i64> = expected.iter().map(|sequence| times[*sequence as usize]).collect();
        prop_assert_eq!(&cut.streams[0].times_ns, &expected);
        let backwards = expected.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        prop_assert_eq!(cut.streams[0].samples.time_backwards, backwards);
    }

    /// Any bytes are an error or nothing, never a panic.
    #[test]
    fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        let mut gatherer = Gatherer::new([declared(1, Content::Values)]).unwrap();
        prop_assert!(gatherer.add(&Bytes::from(bytes)).is_err());
    }
}

#[test]
fn other_bytes_for_a_sequence_are_a_conflict_and_the_first_stays() {
    let mut other = batch(3..6);
    other.values[4..8].copy_from_slice(&7.5f32.to_le_bytes());
    let mut late = batch(5..6);
    late.times_ns[0] += 1;
    let samples = gathered(&[batch(0..8), other, late].map(|batch| stored(&Message::Batch(batch))));
    assert_eq!(samples.conflicts, [3, 5]);
    assert_eq!(samples.duplicates, 2);
    assert_eq!(samples.values, batch(0..8).values);
}

#[test]
fn what_never_came_is_declared_or_a_hole() {
    let batches = [0..4, 8..10, 15..16, 20..21].map(|range| stored(&Message::Batch(batch(range))));
    let mut messages = batches.to_vec();
    messages.extend([lost(0, 4, 7), lost(1, 11, 12), lost(1, 11, 12)]);
    let samples = gathered(&messages);
    assert_eq!(
        samples.lost.iter().map(|lost| (lost.first, lost.last)).collect::<Vec<_>>(),
        [(4, 7), (11, 12)],
        "a replayed loss counts once"
    );
    assert_eq!(samples.holes, [(10, 10), (13, 14), (16, 19)]);
    // Sequence 8 is captured at 80: the loss before it may have been inside, the one of 11 to 12 certainly not.
    let window = Window { clock: FIRST, start_ns: 20, stop_ns: 90, pauses: Vec::new() };
    let cut = cut(vec![samples], window, &ClockMap::default()).unwrap().streams.remove(0);
    assert_eq!(cut.samples.sequences, [2, 3, 8]);
    assert_eq!(cut.samples.lost.len(), 1);
    assert!(cut.samples.holes.is_empty(), "{:?}", cut.samples.holes);
}

#[test]
fn values_that_are_not_finite_and_pictures_that_do_not_decode_are_flagged() {
    let mut bad = batch(0..3);
    bad.values[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(gathered(&[stored(&Message::Batch(bad))]).flags, [0, 1 | flag::NOT_FINITE, 2]);
    let good = jpeg::black(24, 16).unwrap();
    let mut gatherer = Gatherer::new([declared(1, Content::Jpeg)]).unwrap();
    let message = unit(0, 5, 0, &good, Content::Jpeg);
    gatherer.add(&message).unwrap();
    gatherer.add(&unit(1, 6, 0, &good[..good.len() / 2], Content::Jpeg)).unwrap();
    let samples = gatherer.finish().remove(0);
    assert_eq!(samples.flags, [0, flag::UNDECODABLE]);
    assert_eq!((samples.media[0].size, samples.media[1].size), (Some((24, 16)), None));
    assert_eq!(samples.media[0].data, good);
    assert!(message.as_ptr_range().contains(&samples.media[0].data.as_ptr()), "pictures are not copied");
}

#[test]
fn what_does_not_fit_its_declaration_is_refused_by_name() {
    let mut gatherer = Gatherer::new([declared(1, Content::Values)]).unwrap();
    let undeclared = Batch { stream: StreamId(9), ..batch(0..1) };
    assert_eq!(
        gatherer.add(&stored(&Message::Batch(undeclared))),
        Err(GatherError::NotDeclared { stream: StreamId(9) })
    );
    let wide = Batch { width: 1, values: vec![0; 4], ..batch(0..1) };
    let text = gatherer.add(&stored(&Message::Batch(wide))).unwrap_err().to_string();
    assert!(text.contains("1 x F32") && text.contains("2 x F32") && text.contains("observation.state"), "{text}");
    assert!(matches!(gatherer.add(&unit(0, 0, 0, b"x", Content::Jpeg)), Err(GatherError::OtherShape { .. })));
    let declare = stored(&Message::Declare(declared(1, Content::Values)));
    assert_eq!(gatherer.add(&declare), Err(GatherError::NotASample { kind: Kind::Declare }));
    assert!(Gatherer::new([declared(1, Content::Values), declared(1, Content::Jpeg)]).is_err());
}

/// The machine was started again within the episode: samples of both boots are placed on the first one's clock.
#[test]
fn samples_of_another_clock_are_placed_on_the_windows_clock() {
    let probe = |clock_ns: i64, server_ns: i64| ProbeSample { server_ns, clock_ns, round_trip_ns: 10 };
    let facts = |clock, probes| ClockFacts { clock, kind: ClockKind::Boot, probes, anchors: Vec::new() };
    let minute = 60_000_000_000;
    let clocks = ClockMap::new(&[
        facts(FIRST, vec![probe(0, 1_000_000), probe(minute, 1_000_000 + minute)]),
        facts(SECOND, vec![probe(0, 500_000), probe(minute, 500_000 + minute)]),
    ]);
    let messages = [batch(0..3), batch(1_000..1_003)].map(|batch| stored(&Message::Batch(batch)));
    // Sequence 1000 is stamped 10,000 on the second clock: 510,000 of the server, 490,000 before the first clock's zero.
    let window = Window { clock: FIRST, start_ns: -490_000, stop_ns: 20, pauses: Vec::new() };
    let placed = cut(vec![gathered(&messages)], window.clone(), &clocks).unwrap().streams.remove(0);
    assert_eq!(placed.samples.sequences, [0, 1, 1_000, 1_001, 1_002]);
    assert_eq!(placed.times_ns, [0, 10, -490_000, -489_990, -489_980]);
    assert!(placed.uncertainty_ns >= 10, "the probes are that exact and no better: {}", placed.uncertainty_ns);
    // With nothing known about the second clock its samples are counted, not guessed.
    let unplaced = cut(vec![gathered(&messages)], window, &ClockMap::default()).unwrap().streams.remove(0);
    assert_eq!((unplaced.samples.sequences, unplaced.unplaced), (vec![0, 1], 3));
}

#[test]
fn coded_units_before_the_window_are_kept_as_far_as_they_are_needed() {
    let mut gatherer = Gatherer::new([declared(1, Content::H264)]).unwrap();
    gatherer.add(&unit(0, 0, flag::CONFIG, b"avcC", Content::H264)).unwrap();
    for sequence in 1..9u64 {
        let flags = if sequence % 4 == 1 { flag::KEY } else { 0 };
        gatherer.add(&unit(sequence, sequence as i64 * 10, flags, &[sequence as u8], Content::H264)).unwrap();
    }
    let samples = gatherer.finish();
    assert_eq!(samples[0].configs.len(), 1, "a configuration is no sample");
    assert!(samples[0].holes.is_empty());
    let window = Window { clock: FIRST, start_ns: 30, stop_ns: 75, pauses: vec![(50, 60)] };
    let cut = cut(samples, window, &ClockMap::default()).unwrap().streams.remove(0);
    assert_eq!(cut.samples.sequences, [3, 4, 6, 7]);
    assert_eq!(cut.support.iter().map(|unit| unit.sequence).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(cut.samples.configs.len(), 1);
}

#[test]
fn a_window_or_pause_that_runs_backwards_is_refused() {
    let window =
        |start_ns, stop_ns, pauses: &[(i64, i64)]| Window { clock: FIRST, start_ns, stop_ns, pauses: pauses.to_vec() };
    assert!(matches!(window(5, 4, &[]).parts(), Err(WindowError::Backwards { .. })));
    assert!(matches!(window(0, 9, &[(4, 3)]).parts(), Err(WindowError::Pause { number: 1, .. })));
    assert!(matches!(window(0, 9, &[(4, 6), (5, 7)]).parts(), Err(WindowError::Pause { number: 2, .. })));
    assert_eq!(window(0, 9, &[(0, 2), (4, 6), (8, 12)]).parts(), Ok(vec![(2, 4), (6, 8)]));
    assert_eq!(window(3, 3, &[]).parts(), Ok(vec![]));
}
