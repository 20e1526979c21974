//! A simulated producer whose true time is known, asked over a link that is slow one way.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::control::ClockKind;
use crate::id::ClockId;

const MS: f64 = 1e6;
const SECOND: i64 = 1_000_000_000;
/// Unix time of the server at the simulation's zero.
const EPOCH: i64 = 1_760_000_000 * SECOND;

/// A clock that runs evenly: `begin` nanoseconds at true time `zero_s`.
#[derive(Clone, Copy, Debug)]
struct Crystal {
    zero_s: f64,
    begin: i64,
    /// Parts per million that it runs fast.
    fast_ppm: f64,
}

impl Crystal {
    fn at(&self, true_s: f64) -> i64 {
        self.begin + ((true_s - self.zero_s) * (1.0 + self.fast_ppm * 1e-6) * 1e9).round() as i64
    }
}

fn server_at(true_s: f64) -> i64 {
    EPOCH + (true_s * 1e9).round() as i64
}

/// The way between server and producer. Delays in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Link {
    there_ms: f64,
    back_ms: f64,
    jitter_ms: f64,
}

impl Link {
    /// Mostly a little late, now and then very late, as on a busy radio link.
    fn late(self, rng: &mut TestRng) -> f64 {
        let uniform = |rng: &mut TestRng| (f64::from(rng.next_u32()) + 1.0) / (f64::from(u32::MAX) + 2.0);
        let late = -uniform(rng).ln() * self.jitter_ms;
        if uniform(rng) < 0.1 { late + uniform(rng) * 400.0 } else { late }
    }

    fn probe(self, clock: Crystal, asked_s: f64, rng: &mut TestRng) -> ProbeSample {
        let received_s = asked_s + (self.there_ms + self.late(rng)) * 1e-3;
        let replied_s = received_s + 0.000_2;
        let returned_s = replied_s + (self.back_ms + self.late(rng)) * 1e-3;
        ProbeSample::from_times(server_at(asked_s), clock.at(received_s), clock.at(replied_s), server_at(returned_s))
            .expect("a probe of the simulation is sane")
    }

    /// Asks every two seconds from `from_s` to `to_s`.
    fn probes(self, clock: Crystal, from_s: f64, to_s: f64, rng: &mut TestRng) -> Vec<ProbeSample> {
        let count = ((to_s - from_s) / 2.0).ceil() as usize;
        (0..count).map(|index| self.probe(clock, from_s + index as f64 * 2.0, rng)).collect()
    }
}

fn half_of_quickest(probes: &[ProbeSample]) -> f64 {
    probes.iter().map(|probe| probe.round_trip_ns).min().expect("there are probes") as f64 / 2.0
}

fn anchors(clock: Crystal, wall: Crystal, from_s: f64, to_s: f64) -> Vec<(i64, i64)> {
    let count = ((to_s - from_s) / 60.0).floor() as usize + 1;
    (0..count).map(|index| from_s + index as f64 * 60.0).map(|at| (clock.at(at), wall.at(at))).collect()
}

fn links() -> impl Strategy<Value = Link> {
    let ways = prop_oneof![Just((5.0, 20.0)), Just((20.0, 5.0)), Just((0.2, 0.2)), Just((40.0, 40.0))];
    (ways, 0.05f64..2.0).prop_map(|((there_ms, back_ms), jitter_ms)| Link {
        there_ms,
        back_ms,
        jitter_ms: jitter_ms * (there_ms + back_ms) / 25.0,
    })
}

fn rng(seed: [u8; 32]) -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}

/// The crystals of one machine: its monotonic clock hours away from the server's time.
fn crystals() -> impl Strategy<Value = Crystal> {
    (-12.0f64..12.0, -100.0f64..=100.0).prop_map(|(hours, fast_ppm)| Crystal {
        zero_s: 0.0,
        begin: (hours * 3600.0 * 1e9) as i64,
        fast_ppm,
    })
}

fn boot(clock: u128, probes: Vec<ProbeSample>, anchors: Vec<(i64, i64)>) -> ClockFacts {
    ClockFacts { clock: ClockId::from_u128(clock), kind: ClockKind::Boot, probes, anchors }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Drift of 100 ppm, hours of offset, unequal ways, jitter and spikes: between the first and the last probe the
    /// error stays within half of the best round trip, and everywhere within the uncertainty that is stated.
    #[test]
    fn the_error_stays_within_half_the_round_trip(link in links(), clock in crystals(), minutes in 1.0f64..180.0, seed: [u8; 32]) {
        let mut rng = rng(seed);
        let last_s = minutes * 60.0;
        let probes = link.probes(clock, 0.0, last_s, &mut rng);
        let curve = ClockEstimator::from_probes(probes.iter().copied()).curve().expect("there are probes");
        let bound = half_of_quickest(&probes);
        for step in -20..=120 {
            let true_s = last_s * f64::from(step) / 100.0;
            let mapped = curve.to_server(clock.at(true_s));
            let error = (mapped.server_ns - server_at(true_s)).abs();
            prop_assert!(error <= mapped.uncertainty_ns, "error {error} ns, stated {mapped:?} at {true_s} s");
            // The windows at either end hold fewer probes, so a little of the jitter is left in the best of them.
            if (5..=95).contains(&step) {
                prop_assert!(error as f64 <= bound * 1.02 + 1e5, "error {error} ns, half the round trip {bound} ns at {true_s} s");
            }
            prop_assert!(mapped.uncertainty_ns as f64 >= bound, "{mapped:?} claims more than the best probe {bound}");
        }
    }

    /// A crystal that warms up and cools down, by 3 ppm within half an hour, is followed.
    #[test]
    fn a_wandering_crystal_is_followed(link in links(), minutes in 10.0f64..180.0, period_s in 1_800.0f64..7_200.0, seed: [u8; 32]) {
        let mut rng = rng(seed);
        let last_s = minutes * 60.0;
        // Seconds that the clock is ahead: the integral of 3 ppm x sin.
        let ahead = |true_s: f64| 3e-6 * period_s / std::f64::consts::TAU * (1.0 - (std::f64::consts::TAU * true_s / period_s).cos());
        let clock = Crystal { zero_s: 0.0, begin: 0, fast_ppm: 20.0 };
        let at = |true_s: f64| clock.at(true_s) + (ahead(true_s) * 1e9).round() as i64;
        let probes: Vec<ProbeSample> = link.probes(clock, 0.0, last_s, &mut rng).into_iter()
            .map(|probe| ProbeSample { clock_ns: probe.clock_ns + (ahead((probe.server_ns - EPOCH) as f64 / 1e9) * 1e9).round() as i64, ..probe })
            .collect();
        let bound = half_of_quickest(&probes) * 1.02 + 1e5;
        let curve = ClockEstimator::from_probes(probes).curve().expect("there are probes");
        for step in 5..=95 {
            let true_s = last_s * f64::from(step) / 100.0;
            let mapped = curve.to_server(at(true_s));
            let error = (mapped.server_ns - server_at(true_s)).abs();
            prop_assert!(error as f64 <= bound, "error {error} ns, half the round trip {bound} ns at {true_s} s");
            prop_assert!(error <= mapped.uncertainty_ns, "error {error} ns, stated {mapped:?}");
        }
    }

    /// Two visits of half a minute with hours in between: samples in between are as good as those at the ends.
    #[test]
    fn hours_between_two_visits_do_no_harm(link in links(), clock in crystals(), hours in 0.05f64..8.0, seed: [u8; 32]) {
        let mut rng = rng(seed);
        let mut probes = link.probes(clock, 0.0, 40.0, &mut rng);
        probes.extend(link.probes(clock, hours * 3600.0 + 40.0, hours * 3600.0 + 80.0, &mut rng));
        let bound = half_of_quickest(&probes) + link.jitter_ms * MS / 2.0;
        let curve = ClockEstimator::from_probes(probes).curve().expect("there are probes");
        for step in 0..=50 {
            let true_s = 20.0 + hours * 3600.0 * f64::from(step) / 50.0;
            let mapped = curve.to_server(clock.at(true_s));
            let error = (mapped.server_ns - server_at(true_s)).abs();
            prop_assert!(error as f64 <= bound, "error {error} ns, half the round trip {bound} ns at {true_s} s");
            prop_assert!(error <= mapped.uncertainty_ns);
        }
    }

    /// A machine records through a boot that the server could ask at its start or not at all, is off for a while, starts
    /// again and replays its spool. The old clock is reached over the wall clock: one that is steered, or, where the
    /// old clock had probes, one that runs as badly as the crystal.
    #[test]
    fn a_spool_replayed_after_a_reboot_is_placed(
        link in links(), clock in crystals(), asked in prop::bool::ANY, wall_is_steered in prop::bool::ANY,
        hours in 0.05f64..6.0, off_s in 20.0f64..7200.0, present_s in 70.0f64..600.0, seed: [u8; 32],
    ) {
        let mut rng = rng(seed);
        let end_s = hours * 3600.0;
        let start_s = end_s + off_s;
        let wall_ppm = if wall_is_steered || !asked { 0.0 } else { clock.fast_ppm };
        let wall = Crystal { zero_s: 0.0, begin: EPOCH + 3_600 * SECOND, fast_ppm: wall_ppm };
        let present = Crystal { zero_s: start_s, begin: 0, fast_ppm: clock.fast_ppm };
        let old_probes = if asked { link.probes(clock, 0.0, 60.0, &mut rng) } else { Vec::new() };
        let present_probes = link.probes(present, start_s + 20.0, start_s + 20.0 + present_s, &mut rng);
        let all: Vec<ProbeSample> = old_probes.iter().chain(&present_probes).copied().collect();
        let bound = half_of_quickest(&all) + link.jitter_ms * MS / 2.0 + 1e5;
        let map = ClockMap::new(&[
            boot(1, old_probes, anchors(clock, wall, 0.0, end_s)),
            boot(2, present_probes, anchors(present, wall, start_s + 20.0, start_s + 20.0 + present_s)),
        ]);
        for step in 0..=50 {
            let true_s = 30.0 + (end_s - 30.0) * f64::from(step) / 50.0;
            let mapped = map.to_server(ClockId::from_u128(1), clock.at(true_s)).expect("the wall clock joins them");
            let error = (mapped.server_ns - server_at(true_s)).abs();
            prop_assert!(error as f64 <= bound, "error {error} ns, half the round trip {bound} ns at {true_s} s of {end_s}");
            prop_assert!(error <= mapped.uncertainty_ns, "error {error}, stated {mapped:?}");
            let moved = map.translate(ClockId::from_u128(1), ClockId::from_u128(2), clock.at(true_s)).expect("both are known");
            let error = (moved.clock_ns - present.at(true_s)).abs();
            prop_assert!(error <= moved.uncertainty_ns, "error {error}, stated {moved:?}");
        }
    }

    /// A wall clock that runs 100 ppm wrong and an old clock that was never asked: nothing can tell, so the
    /// uncertainty must.
    #[test]
    fn a_bad_wall_clock_is_inside_the_uncertainty(link in links(), clock in crystals(), off_s in 20.0f64..7200.0, seed: [u8; 32]) {
        let mut rng = rng(seed);
        let start_s = 600.0 + off_s;
        let wall = Crystal { zero_s: 0.0, begin: EPOCH, fast_ppm: clock.fast_ppm };
        let present = Crystal { zero_s: start_s, begin: 0, fast_ppm: clock.fast_ppm };
        let map = ClockMap::new(&[
            boot(1, Vec::new(), anchors(clock, wall, 0.0, 600.0)),
            boot(2, link.probes(present, start_s, start_s + 30.0, &mut rng), anchors(present, wall, start_s, start_s + 30.0)),
        ]);
        for true_s in [0.0, 300.0, 600.0] {
            let mapped = map.to_server(ClockId::from_u128(1), clock.at(true_s)).expect("the wall clock joins them");
            let error = (mapped.server_ns - server_at(true_s)).abs();
            prop_assert!(error <= mapped.uncertainty_ns, "error {error}, stated {mapped:?}");
        }
    }

    /// Any probes and anchors at all: bounded, no panic, no overflow.
    #[test]
    fn any_facts_are_taken(
        probes in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>()), 0..40),
        near in prop::collection::vec((-5i64..5, -5i64..5, -1i64..3), 0..40),
        anchors in prop::collection::vec((any::<i64>(), any::<i64>()), 0..8),
        at in any::<i64>(),
    ) {
        let probes: Vec<ProbeSample> = probes.into_iter().chain(near)
            .map(|(server_ns, clock_ns, round_trip_ns)| ProbeSample { server_ns, clock_ns, round_trip_ns: round_trip_ns % ROUND_TRIP_NS_MAX })
            .collect();
        let map = ClockMap::new(&[boot(1, probes.clone(), anchors.clone()), boot(2, Vec::new(), anchors), boot(3, probes, Vec::new())]);
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3)] {
            let (from, to) = (ClockId::from_u128(from), ClockId::from_u128(to));
            for at in [at, i64::MIN, 0, i64::MAX] {
                let _ = map.to_server(from, at);
                if let Some(moved) = map.translate(from, to, at) {
                    prop_assert!(moved.uncertainty_ns >= 0);
                }
            }
        }
    }

    /// Going to server time and back loses nothing, near or far from the probes.
    #[test]
    fn the_way_back_ends_where_it_began(link in links(), clock in crystals(), seed: [u8; 32], at_s in -20_000.0f64..20_000.0) {
        let probes = link.probes(clock, 0.0, 300.0, &mut rng(seed));
        let curve = ClockEstimator::from_probes(probes).curve().expect("there are probes");
        let there = curve.to_server(clock.at(at_s));
        let (back, _) = curve.to_clock(there.server_ns);
        prop_assert!((back - clock.at(at_s)).abs() <= 2, "{back} is not {}", clock.at(at_s));
    }

    /// Later moments stay later: a stream's order survives the mapping.
    #[test]
    fn the_mapping_keeps_the_order(link in links(), clock in crystals(), seed: [u8; 32], times in prop::collection::vec(-400.0f64..800.0, 2..40)) {
        let probes = link.probes(clock, 0.0, 300.0, &mut rng(seed));
        let curve = ClockEstimator::from_probes(probes).curve().expect("there are probes");
        let mut times: Vec<i64> = times.into_iter().map(|at| clock.at(at)).collect();
        times.sort_unstable();
        let mapped: Vec<i64> = times.iter().map(|at| curve.to_server(*at).server_ns).collect();
        prop_assert!(mapped.is_sorted(), "{mapped:?}");
    }
}

#[test]
fn at_most_512_probes_are_kept_and_they_span_all_hours() {
    let clock = Crystal { zero_s: 0.0, begin: 7, fast_ppm: 100.0 };
    let link = Link { there_ms: 5.0, back_ms: 20.0, jitter_ms: 1.0 };
    let probes = link.probes(clock, 0.0, 6.0 * 3600.0, &mut rng([7; 32]));
    let estimator = ClockEstimator::from_probes(probes.iter().copied());
    let kept: Vec<&ProbeSample> = estimator.probes().collect();
    assert!(kept.len() <= PROBES_KEPT_MAX && kept.len() > PROBES_KEPT_MAX / 4, "{} kept", kept.len());
    assert!(kept[kept.len() - 1].server_ns - kept[0].server_ns > 21_000 * SECOND);
    assert!(
        kept.iter().any(|probe| probe.round_trip_ns as f64 / 2.0 <= half_of_quickest(&probes)),
        "the quickest is gone"
    );
    let drift = estimator.curve().expect("there are probes").drift_ppm();
    assert!((drift + 100.0).abs() < 2.0, "a clock 100 ppm fast shows a drift of {drift} ppm");
    let again = ClockEstimator::from_probes(estimator.probes().copied());
    assert_eq!(again.to_server(5), estimator.to_server(5), "an estimator comes back from what it keeps");
}

/// A page that is loaded again and again makes a clock each time; all of them together must stay cheap.
#[test]
fn hundreds_of_page_loads_are_still_joined() {
    let mut rng = rng([8; 32]);
    let link = Link { there_ms: 5.0, back_ms: 5.0, jitter_ms: 0.5 };
    let wall = Crystal { zero_s: 0.0, begin: EPOCH, fast_ppm: 0.0 };
    let load = |number: u128, rng: &mut TestRng| {
        let from_s = number as f64 * 700.0;
        let clock = Crystal { zero_s: from_s, begin: 0, fast_ppm: 50.0 };
        ClockFacts {
            kind: ClockKind::Page,
            ..boot(
                number,
                link.probes(clock, from_s, from_s + 600.0, rng),
                anchors(clock, wall, from_s, from_s + 600.0),
            )
        }
    };
    let facts: Vec<ClockFacts> = (1..=300).map(|number| load(number, &mut rng)).collect();
    let map = ClockMap::new(&facts);
    let moved = map.translate(ClockId::from_u128(7), ClockId::from_u128(200), 0).expect("both were asked");
    assert!((moved.clock_ns + 193 * 700 * SECOND).abs() < 20 * SECOND, "{moved:?}");
}

#[test]
fn a_probe_in_which_time_ran_backwards_is_refused() {
    assert_eq!(ProbeSample::from_times(10, 5, 4, 20), None);
    assert_eq!(ProbeSample::from_times(10, 5, 6, 9), None);
    assert_eq!(ProbeSample::from_times(i64::MIN, 5, 6, i64::MAX), None);
    assert_eq!(ProbeSample::from_times(0, i64::MIN, i64::MAX, 9), None);
    let probe = ProbeSample::from_times(100, 1_000, 1_010, 140).expect("sane");
    assert_eq!(probe, ProbeSample { server_ns: 120, clock_ns: 1_005, round_trip_ns: 30 });
}

#[test]
fn a_replay_has_no_place_in_server_time() {
    let probe = ProbeSample { server_ns: 5, clock_ns: 9, round_trip_ns: 1 };
    let facts = ClockFacts { kind: ClockKind::Replay, ..boot(1, vec![probe], vec![(9, 5)]) };
    let map = ClockMap::new(&[facts, boot(2, vec![probe], Vec::new())]);
    assert_eq!(map.to_server(ClockId::from_u128(1), 9), None);
    assert_eq!(map.translate(ClockId::from_u128(1), ClockId::from_u128(2), 9), None);
    let same = map.translate(ClockId::from_u128(1), ClockId::from_u128(1), 9);
    assert_eq!(same, Some(Moved { clock_ns: 9, uncertainty_ns: 0 }), "its own times need no mapping");
}

/// A board without a battery starts at a wall time of months ago and is set once it finds the network.
#[test]
fn anchors_from_before_the_wall_clock_was_set_do_not_count() {
    let mut rng = rng([3; 32]);
    let link = Link { there_ms: 1.0, back_ms: 1.0, jitter_ms: 0.1 };
    let old = Crystal { zero_s: 0.0, begin: 0, fast_ppm: 30.0 };
    let present = Crystal { zero_s: 2_000.0, begin: 0, fast_ppm: 30.0 };
    let wall = Crystal { zero_s: 0.0, begin: EPOCH, fast_ppm: 0.0 };
    let unset = Crystal { zero_s: 0.0, begin: 1_000, fast_ppm: 0.0 };
    let mut old_anchors = anchors(old, unset, 0.0, 240.0);
    old_anchors.extend(anchors(old, wall, 300.0, 900.0));
    let probes = link.probes(present, 2_010.0, 2_100.0, &mut rng);
    let bound = half_of_quickest(&probes) + 0.3 * MS;
    let map =
        ClockMap::new(&[boot(1, Vec::new(), old_anchors), boot(2, probes, anchors(present, wall, 2_010.0, 2_100.0))]);
    for true_s in [10.0, 200.0, 500.0, 900.0] {
        let mapped = map.to_server(ClockId::from_u128(1), old.at(true_s)).expect("the wall clock joins them");
        let error = (mapped.server_ns - server_at(true_s)).abs();
        assert!(error as f64 <= bound, "error {error} ns at {true_s} s, half the round trip {bound} ns");
    }
}

#[test]
fn a_wall_clock_that_was_wrong_by_hours_does_not_bend_a_clock_that_was_asked() {
    let mut rng = rng([4; 32]);
    let link = Link { there_ms: 1.0, back_ms: 1.0, jitter_ms: 0.1 };
    let old = Crystal { zero_s: 0.0, begin: 0, fast_ppm: 30.0 };
    let present = Crystal { zero_s: 2_000.0, begin: 0, fast_ppm: 30.0 };
    let right = Crystal { zero_s: 0.0, begin: EPOCH, fast_ppm: 0.0 };
    let wrong = Crystal { zero_s: 0.0, begin: EPOCH - 7_200 * SECOND, fast_ppm: 0.0 };
    let map = ClockMap::new(&[
        boot(1, link.probes(old, 0.0, 120.0, &mut rng), anchors(old, wrong, 0.0, 900.0)),
        boot(2, link.probes(present, 2_010.0, 2_100.0, &mut rng), anchors(present, right, 2_010.0, 2_100.0)),
    ]);
    let mapped = map.to_server(ClockId::from_u128(1), old.at(900.0)).expect("it was asked");
    let error = (mapped.server_ns - server_at(900.0)).abs();
    assert!(error <= mapped.uncertainty_ns && error < 5 * SECOND / 1000, "error {error} ns, stated {mapped:?}");
}

/// For ten minutes a download fills the link, one way only: all probes of that time are slow and lean to one side.
#[test]
fn a_busy_spell_does_not_bend_the_curve() {
    let mut rng = rng([5; 32]);
    let clock = Crystal { zero_s: 0.0, begin: 0, fast_ppm: 40.0 };
    let quiet = Link { there_ms: 5.0, back_ms: 5.0, jitter_ms: 0.2 };
    let busy = Link { there_ms: 5.0, back_ms: 30.0, jitter_ms: 1.0 };
    let mut probes = quiet.probes(clock, 0.0, 600.0, &mut rng);
    probes.extend(busy.probes(clock, 600.0, 1_200.0, &mut rng));
    probes.extend(quiet.probes(clock, 1_200.0, 1_800.0, &mut rng));
    let bound = half_of_quickest(&probes);
    let curve = ClockEstimator::from_probes(probes).curve().expect("there are probes");
    for true_s in [590.0, 610.0, 750.0, 900.0, 1_100.0, 1_210.0] {
        let mapped = curve.to_server(clock.at(true_s));
        let error = (mapped.server_ns - server_at(true_s)).abs();
        assert!(error as f64 <= bound, "error {error} ns at {true_s} s, half the round trip {bound} ns");
    }
}

/// One anchor does not tell how fast the wall clock runs against a crystal that is 100 ppm off: the drift that the
/// probes show is the crystal's and must not be taken for the wall clock's.
#[test]
fn one_anchor_does_not_lend_the_crystals_drift_to_the_wall_clock() {
    let mut rng = rng([6; 32]);
    let link = Link { there_ms: 5.0, back_ms: 20.0, jitter_ms: 0.5 };
    let old = Crystal { zero_s: 0.0, begin: 0, fast_ppm: 100.0 };
    let present = Crystal { zero_s: 7_000.0, begin: 0, fast_ppm: 100.0 };
    let wall = Crystal { zero_s: 0.0, begin: EPOCH, fast_ppm: 0.0 };
    let probes = link.probes(present, 7_010.0, 8_200.0, &mut rng);
    let bound = half_of_quickest(&probes);
    let hello = vec![(present.at(7_010.0), wall.at(7_010.0))];
    let map = ClockMap::new(&[boot(1, Vec::new(), anchors(old, wall, 0.0, 3_600.0)), boot(2, probes, hello)]);
    for true_s in [0.0, 1_800.0, 3_600.0] {
        let mapped = map.to_server(ClockId::from_u128(1), old.at(true_s)).expect("the wall clock joins them");
        let error = (mapped.server_ns - server_at(true_s)).abs();
        assert!(error as f64 <= bound, "error {error} ns at {true_s} s, half the round trip {bound} ns");
        assert!(error <= mapped.uncertainty_ns, "error {error}, stated {mapped:?}");
    }
}

#[test]
fn a_suspended_clock_says_that_it_does_not_know() {
    let probe = |server_s: i64, clock_s: i64| ProbeSample {
        server_ns: server_s * SECOND,
        clock_ns: clock_s * SECOND,
        round_trip_ns: 1_000_000,
    };
    // The machine slept for an hour between two probes; its clock shows 100 seconds.
    let curve = ClockEstimator::from_probes([probe(0, 0), probe(60, 60), probe(3_760, 160), probe(3_820, 220)])
        .curve()
        .expect("probes");
    assert!(curve.to_server(110 * SECOND).uncertainty_ns > 3_000 * SECOND);
    assert!(curve.to_server(30 * SECOND).uncertainty_ns < SECOND / 100);
}
