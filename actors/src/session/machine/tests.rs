use std::collections::BTreeMap;

use proptest::prelude::*;
use tendon_protocol::control::{ClockKind, ErrorCode, Hello, Lost, LostReason, Mark, MarkAction, Position};
use tendon_protocol::id::{ClockId, ProducerId, SessionId, StreamId};
use tendon_protocol::stream::{Content, Dtype, Role, StreamDeclaration};
use tendon_storage::records::{EpisodeRecord, EpisodeState, RowClock, SessionRecord, SessionState, SessionType};

use super::*;

const CLOCK: ClockId = ClockId::from_u128(7);
const STATE: StreamId = StreamId(1);
const ACTION: StreamId = StreamId(2);
const SECOND: i64 = 1_000_000_000;

fn record() -> SessionRecord {
    SessionRecord {
        id: SessionId::from_u128(1),
        operator: "ada".into(),
        robot: "arm".into(),
        embodiment: "so101".into(),
        kind: SessionType::LeaderArm,
        fps: 30,
        row_clock: RowClock::Grid,
        dataset: "pick".parse().expect("is a name"),
        state: SessionState::Created,
        created_ns: 0,
        ended_ns: None,
        failure: None,
        producer: None,
        epoch: 0,
        streams: Vec::new(),
        positions: BTreeMap::new(),
        released: BTreeMap::new(),
        journal_applied: 0,
        lost: BTreeMap::new(),
        duplicates_removed: 0,
        episodes: 0,
        metadata: serde_json::Map::new(),
    }
}

fn declaration(stream: StreamId, feature: &str, required: bool) -> StreamDeclaration {
    StreamDeclaration {
        stream,
        feature: feature.into(),
        names: vec![],
        unit: "deg".into(),
        dtype: Dtype::F32,
        shape: vec![2],
        rate_mhz: 10_000,
        required,
        role: Role::Measured,
        content: Content::Values,
    }
}

fn fresh() -> Machine {
    let recovered = Recovered {
        record: record(),
        episodes: vec![],
        positions: BTreeMap::new(),
        latest: BTreeMap::new(),
        journal: vec![],
    };
    let (mut machine, effects) = Machine::recover(recovered, MachineSettings::default(), 0);
    assert_eq!(effects, vec![]);
    machine.declare(declaration(STATE, "observation.state", true));
    machine.declare(declaration(ACTION, "action", true));
    machine
}

fn hello(producer: u128, positions: Vec<Position>) -> Hello {
    Hello {
        session: SessionId::from_u128(1),
        producer: ProducerId::from_u128(producer),
        clock: CLOCK,
        clock_kind: ClockKind::Boot,
        time_ns: 0,
        wall_ns: 0,
        positions,
    }
}

fn head(stream: StreamId, first: u64, time_ns: i64) -> SampleHead {
    SampleHead {
        stream,
        first,
        count: 1,
        shape: SampleShape::Values(Dtype::F32, 2),
        clock: CLOCK,
        first_ns: time_ns,
        last_ns: time_ns,
    }
}

fn mark(sequence: u64, action: MarkAction, episode: u64, time_ns: i64) -> JournalEntry {
    JournalEntry::Mark(Mark {
        sequence,
        episode,
        action,
        request: false,
        clock: CLOCK,
        time_ns,
        instruction: "pick".into(),
    })
}

fn durable(pairs: &[(StreamId, u64)]) -> BTreeMap<StreamId, u64> {
    pairs.iter().copied().collect()
}

fn flushes(effects: &[Effect]) -> Vec<&FlushOrder> {
    effects.iter().filter_map(|effect| if let Effect::Flush(order) = effect { Some(&**order) } else { None }).collect()
}

fn saved(effects: &[Effect]) -> Vec<&EpisodeRecord> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::SaveEpisode(record) = effect { Some(&**record) } else { None })
        .collect()
}

/// Both streams get one sample each tenth of a second, `count` of them from sequence 0.
fn feed(machine: &mut Machine, count: u64) {
    for sequence in 0..count {
        let time_ns = i64::try_from(sequence).expect("small") * SECOND / 10;
        assert_eq!(machine.samples(&head(STATE, sequence, time_ns)), Verdict::Keep);
        assert_eq!(machine.samples(&head(ACTION, sequence, time_ns)), Verdict::Keep);
    }
}

#[test]
fn a_mark_takes_effect_when_it_is_durable_and_not_before() {
    let mut machine = fresh();
    assert_eq!(machine.journal(mark(0, MarkAction::Start, 1, 0)), Verdict::Keep);
    assert_eq!(machine.current(), None);
    assert!(machine.wants_durable());
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 1)]), 5);
    assert_eq!(machine.current(), Some(0));
    assert_eq!(saved(&effects)[0].state, EpisodeState::Recording);
    assert_eq!(effects.last(), Some(&Effect::SaveSession));
}

#[test]
fn a_flush_waits_until_every_required_stream_is_durable_past_the_stop_mark() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    feed(&mut machine, 10);
    machine.journal(mark(1, MarkAction::StopSuccess, 1, SECOND));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 10), (ACTION, 10)]), 0);
    assert!(flushes(&effects).is_empty(), "both streams end at 0.9 s, the mark is at 1 s");
    machine.samples(&head(STATE, 10, SECOND));
    machine.samples(&head(ACTION, 10, SECOND));
    assert!(flushes(&machine.durable(&durable(&[(STATE, 11), (ACTION, 10)]), 0)).is_empty());
    let effects = machine.durable(&durable(&[(STATE, 11), (ACTION, 11)]), 0);
    let orders = flushes(&effects);
    assert_eq!(orders.len(), 1);
    assert!(orders[0].missing.is_empty());
    assert_eq!(orders[0].record.state, EpisodeState::Flushing);
}

#[test]
fn after_the_longest_wait_the_episode_is_incomplete_and_later_samples_complete_it() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    feed(&mut machine, 10);
    machine.journal(mark(1, MarkAction::StopSuccess, 1, SECOND));
    machine.samples(&head(STATE, 10, SECOND));
    machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 11), (ACTION, 10)]), 0);
    assert!(flushes(&machine.tick(9 * SECOND)).is_empty());
    let effects = machine.tick(10 * SECOND);
    let order = flushes(&effects)[0].clone();
    assert_eq!(order.missing, ["action"]);
    let incomplete = EpisodeRecord { state: EpisodeState::Incomplete, ..order.record.clone() };
    assert!(flushes(&machine.flushed(incomplete, 11 * SECOND)).is_empty());
    assert!(flushes(&machine.tick(100 * SECOND)).is_empty(), "nothing new, nothing to flush");
    machine.samples(&head(ACTION, 10, SECOND));
    let effects = machine.durable(&durable(&[(ACTION, 11)]), 101 * SECOND);
    assert!(flushes(&effects)[0].missing.is_empty());
}

#[test]
fn a_flush_that_failed_for_a_while_does_not_make_the_episode_incomplete() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    feed(&mut machine, 11);
    machine.journal(mark(1, MarkAction::StopSuccess, 1, SECOND));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 11), (ACTION, 11)]), 0);
    assert_eq!(flushes(&effects).len(), 1);
    machine.flush_again(0, 2 * SECOND);
    assert!(flushes(&machine.tick(SECOND)).is_empty());
    let effects = machine.tick(2 * SECOND);
    assert!(flushes(&effects)[0].missing.is_empty());
}

#[test]
fn a_take_that_nobody_stopped_does_not_swallow_the_next_one() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    machine.journal(mark(1, MarkAction::Start, 2, SECOND));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 2)]), 0);
    let states: Vec<(u32, EpisodeState)> = saved(&effects).iter().map(|record| (record.number, record.state)).collect();
    assert_eq!(states, [(0, EpisodeState::Recording), (0, EpisodeState::Stopped), (1, EpisodeState::Recording)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Refuse(error) if error.code == ErrorCode::BadMark)));
}

#[test]
fn marks_without_an_episode_and_of_another_one_have_no_effect_and_say_so() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::StopSuccess, 1, 0));
    machine.journal(mark(1, MarkAction::Start, 1, 0));
    machine.journal(mark(2, MarkAction::Pause, 9, SECOND));
    machine.journal(mark(3, MarkAction::StopSuccess, 1, -SECOND));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 4)]), 0);
    let refused = effects.iter().filter(|effect| matches!(effect, Effect::Refuse(_))).count();
    assert_eq!(refused, 3);
    assert_eq!(machine.current(), Some(0));
}

#[test]
fn a_pause_is_kept_with_its_times_and_a_stop_ends_it() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    machine.journal(mark(1, MarkAction::Pause, 1, SECOND));
    machine.journal(mark(2, MarkAction::Resume, 1, 2 * SECOND));
    machine.journal(mark(3, MarkAction::Pause, 1, 3 * SECOND));
    machine.journal(mark(4, MarkAction::StopFailure, 1, 4 * SECOND));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 5)]), 0);
    let last = saved(&effects).last().expect("saved").pauses.clone();
    assert_eq!(last, [(SECOND, 2 * SECOND), (3 * SECOND, 4 * SECOND)]);
    assert_eq!(machine.record().state, SessionState::Recording);
}

#[test]
fn a_gap_names_where_to_resume_and_a_declared_loss_mends_it() {
    let mut machine = fresh();
    feed(&mut machine, 3);
    let Verdict::Refuse(error) = machine.samples(&head(STATE, 7, SECOND)) else { panic!("a gap was taken") };
    assert_eq!((error.code, error.sequence), (ErrorCode::SequenceGap, 3));
    let lost = |first, last| {
        JournalEntry::Lost(Lost { sequence: 0, stream: STATE, first, last, reason: LostReason::SpoolFull })
    };
    assert!(matches!(machine.journal(lost(4, 6)), Verdict::Refuse(_)), "it does not begin at the hole");
    assert_eq!(machine.journal(lost(3, 6)), Verdict::Keep);
    assert_eq!(machine.samples(&head(STATE, 7, SECOND)), Verdict::Keep);
    machine.durable(&durable(&[(StreamId::JOURNAL, 1), (STATE, 3)]), 0);
    let position = machine.positions(1).into_iter().find(|position| position.stream == STATE);
    assert_eq!(position.map(|position| position.next), Some(7), "the hole is durable, the sample behind it not yet");
    assert_eq!(machine.record().lost.get(&STATE), Some(&4));
}

#[test]
fn what_was_accepted_is_a_duplicate_and_what_reaches_over_the_edge_is_refused() {
    let mut machine = fresh();
    feed(&mut machine, 5);
    assert_eq!(machine.samples(&head(STATE, 2, 0)), Verdict::Duplicate);
    let across = SampleHead { count: 4, ..head(STATE, 3, 0) };
    assert!(matches!(machine.samples(&across), Verdict::Refuse(error) if error.sequence == 5));
    let wide = SampleHead { shape: SampleShape::Values(Dtype::F32, 3), ..head(STATE, 5, 0) };
    assert!(matches!(machine.samples(&wide), Verdict::Refuse(error) if error.code == ErrorCode::WidthMismatch));
    assert!(
        matches!(machine.samples(&head(StreamId(9), 0, 0)), Verdict::Refuse(error) if error.code == ErrorCode::StreamNotDeclared)
    );
}

#[test]
fn a_second_producer_is_refused_and_the_same_one_raises_the_epoch() {
    let mut machine = fresh();
    assert_eq!(machine.hello(&hello(1, vec![]), &BTreeMap::new()), Ok(1));
    assert_eq!(machine.hello(&hello(1, vec![]), &BTreeMap::new()), Ok(2));
    let error = machine.hello(&hello(2, vec![]), &BTreeMap::new()).expect_err("a second producer came in");
    assert_eq!(error.code, ErrorCode::SecondProducer);
}

#[test]
fn a_server_behind_what_it_acknowledged_says_so_loudly() {
    let mut machine = fresh();
    feed(&mut machine, 5);
    let seen = vec![Position { stream: STATE, next: 9 }];
    assert!(machine.hello(&hello(1, seen.clone()), &durable(&[(STATE, 9)])).is_ok(), "the log has it");
    let error = machine.hello(&hello(1, seen), &durable(&[(STATE, 5)])).expect_err("a loss went unsaid");
    assert_eq!((error.code, error.stream, error.sequence), (ErrorCode::AcknowledgedLost, STATE, 5));
}

#[test]
fn a_stream_never_changes_what_it_carries() {
    let mut machine = fresh();
    assert_eq!(machine.declare(declaration(STATE, "observation.state", true)), vec![]);
    let other = StreamDeclaration { shape: vec![3], ..declaration(STATE, "observation.state", true) };
    assert!(
        matches!(&machine.declare(other)[..], [Effect::Refuse(error)] if error.code == ErrorCode::DeclarationConflict)
    );
    let twice = declaration(StreamId(3), "action", false);
    assert!(
        matches!(&machine.declare(twice)[..], [Effect::Refuse(error)] if error.code == ErrorCode::DeclarationConflict)
    );
}

#[test]
fn the_log_keeps_what_an_episode_needs_and_lets_the_rest_go() {
    let mut machine = fresh();
    // 60 s of samples; the episode starts at 50 s.
    feed(&mut machine, 600);
    machine.journal(mark(0, MarkAction::Start, 1, 50 * SECOND));
    machine.durable(&durable(&[(StreamId::JOURNAL, 1), (STATE, 600), (ACTION, 600)]), 0);
    let effects = machine.tick(60 * SECOND);
    let Some(Effect::Release(below)) = effects.last() else { panic!("nothing released: {effects:?}") };
    assert_eq!(effects[0], Effect::SaveSession, "positions are saved before the log forgets");
    let state = below.iter().find(|(stream, _)| *stream == STATE).expect("has the stream").1;
    assert!((470..=500).contains(&state), "{state}");
    assert_eq!(machine.record().positions[&STATE], 600);
}

#[test]
fn a_session_completes_only_without_an_open_episode_and_then_needs_nothing() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    machine.durable(&durable(&[(StreamId::JOURNAL, 1)]), 0);
    assert!(machine.end(&End::Completed, 0).is_err());
    machine.journal(mark(1, MarkAction::Discard, 1, SECOND));
    machine.durable(&durable(&[(StreamId::JOURNAL, 2)]), 0);
    let effects = machine.end(&End::Completed, 0).expect("ends");
    assert!(effects.contains(&Effect::ReleaseAll) && effects.contains(&Effect::CloseEnded), "{effects:?}");
    assert!(
        matches!(machine.samples(&head(STATE, 0, 0)), Verdict::Refuse(error) if error.code == ErrorCode::SessionEnded)
    );
}

#[test]
fn a_failed_session_flushes_its_open_episode_with_what_is_there() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    feed(&mut machine, 10);
    machine.durable(&durable(&[(StreamId::JOURNAL, 1), (STATE, 10), (ACTION, 10)]), 0);
    let effects = machine.end(&End::Failed("arm on fire".into()), SECOND).expect("ends");
    let order = flushes(&effects)[0].clone();
    assert_eq!(order.record.stop_ns, Some(9 * SECOND / 10));
    assert!(!effects.contains(&Effect::ReleaseAll), "the log is still needed");
    let stored = EpisodeRecord { state: EpisodeState::Stored, ..order.record };
    assert!(machine.flushed(stored, SECOND).contains(&Effect::ReleaseAll));
}

#[test]
fn after_a_failed_write_the_machine_goes_back_to_what_is_durable() {
    let mut machine = fresh();
    feed(&mut machine, 10);
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    machine.rewind(&durable(&[(STATE, 4)]));
    assert_eq!(machine.samples(&head(STATE, 4, SECOND)), Verdict::Keep);
    assert_eq!(machine.journal(mark(0, MarkAction::Start, 1, 0)), Verdict::Keep);
}

/// A robot rebooted in the middle of an episode. Its samples came on another clock, the stop mark
/// too, and the episode was stored with nothing but its start.
#[test]
fn an_episode_cut_by_a_reboot_ends_with_the_last_sample_of_its_own_clock() {
    let rebooted = ClockId::from_u128(8);
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    machine.durable(&durable(&[(StreamId::JOURNAL, 1)]), 0);
    feed(&mut machine, 10);
    for stream in [STATE, ACTION] {
        assert_eq!(machine.samples(&SampleHead { clock: rebooted, ..head(stream, 10, 5) }), Verdict::Keep);
    }
    let JournalEntry::Mark(stop) = mark(1, MarkAction::StopSuccess, 1, 7) else { panic!("is a mark") };
    machine.hello(&Hello { clock: rebooted, ..hello(1, vec![]) }, &BTreeMap::new()).expect("comes in");
    machine.journal(JournalEntry::Mark(Mark { clock: rebooted, ..stop }));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 11), (ACTION, 11)]), 0);
    let order = flushes(&effects)[0];
    assert_eq!(order.record.stop_ns, Some(9 * SECOND / 10));
    assert_eq!((order.from[&STATE], order.to[&STATE]), (0, 11));
}

#[test]
fn an_optional_stream_that_died_does_not_keep_an_episode_from_being_completed() {
    let mut machine = fresh();
    let force = StreamId(3);
    machine.declare(declaration(force, "observation.force", false));
    machine.samples(&head(force, 0, 0));
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    feed(&mut machine, 10);
    machine.journal(mark(1, MarkAction::StopSuccess, 1, SECOND));
    machine.samples(&head(STATE, 10, SECOND));
    machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 11), (ACTION, 10), (force, 1)]), 0);
    let effects = machine.tick(10 * SECOND);
    let incomplete = EpisodeRecord { state: EpisodeState::Incomplete, ..flushes(&effects)[0].record.clone() };
    machine.flushed(incomplete, 11 * SECOND);
    machine.samples(&head(ACTION, 10, SECOND));
    let effects = machine.durable(&durable(&[(ACTION, 11)]), 12 * SECOND);
    assert!(flushes(&effects)[0].missing.is_empty());
}

/// One dead camera pinned every stream's segments until the log was full for all sessions.
#[test]
fn an_incomplete_episode_holds_the_log_for_a_while_and_not_for_ever() {
    for make_room in [false, true] {
        let mut machine = fresh();
        machine.journal(mark(0, MarkAction::Start, 1, 0));
        feed(&mut machine, 600);
        machine.journal(mark(1, MarkAction::StopSuccess, 1, 60 * SECOND));
        machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 600), (ACTION, 600)]), 0);
        let effects = machine.tick(10 * SECOND);
        let incomplete = EpisodeRecord { state: EpisodeState::Incomplete, ..flushes(&effects)[0].record.clone() };
        machine.flushed(incomplete, 11 * SECOND);
        let holds = |effects: &[Effect]| {
            let below =
                effects.iter().find_map(|effect| if let Effect::Release(below) = effect { Some(below) } else { None });
            below.is_none_or(|below| !below.iter().any(|(stream, next)| *stream == STATE && *next > 0))
        };
        assert!(holds(&machine.tick(300 * SECOND)), "it waits for samples that complete it");
        let effects = if make_room { machine.make_room(301 * SECOND) } else { machine.tick(700 * SECOND) };
        assert!(!holds(&effects), "{effects:?}");
    }
}

#[test]
fn a_session_does_not_complete_while_a_mark_is_on_its_way() {
    let mut machine = fresh();
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    let refusal = machine.end(&End::Completed, 0).expect_err("it completed under a start mark");
    assert_eq!(refusal.code, RefusalCode::Busy);
    machine.end(&End::Failed("power".into()), 0).expect("fails");
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 1)]), 0);
    assert_eq!((machine.record().state, machine.current()), (SessionState::Failed, None));
    assert!(matches!(&effects[..], [Effect::Refuse(_), ..]), "{effects:?}");
}

#[test]
fn one_wild_time_does_not_make_every_later_stop_mark_pass() {
    let mut machine = fresh();
    machine.samples(&head(STATE, 0, 86_400 * SECOND));
    machine.samples(&head(STATE, 1, SECOND / 10));
    machine.samples(&head(ACTION, 0, SECOND / 10));
    machine.journal(mark(0, MarkAction::Start, 1, 0));
    machine.journal(mark(1, MarkAction::StopSuccess, 1, SECOND));
    let effects = machine.durable(&durable(&[(StreamId::JOURNAL, 2), (STATE, 2), (ACTION, 1)]), 0);
    assert!(flushes(&effects).is_empty(), "both streams are still behind the mark");
}

#[test]
fn a_long_mark_lag_is_kept() {
    let recovered = Recovered {
        record: record(),
        episodes: vec![],
        positions: BTreeMap::new(),
        latest: BTreeMap::new(),
        journal: vec![],
    };
    let settings = MachineSettings { mark_lag_ns: 300 * SECOND, ..MachineSettings::default() };
    let (mut machine, _) = Machine::recover(recovered, settings, 0);
    machine.declare(declaration(STATE, "observation.state", true));
    for sequence in 0..6000 {
        machine.samples(&head(STATE, sequence, i64::try_from(sequence).expect("small") * SECOND / 10));
    }
    machine.durable(&durable(&[(STATE, 6000)]), 0);
    machine.tick(60 * SECOND);
    let released = machine.record().released[&STATE];
    assert!((2900..=3000).contains(&released), "300 s of 600 s stay: {released}");
}

proptest! {
    /// Whatever is cut off and told again: a restart that knows only the store and the log comes to
    /// the same episodes as a machine that never stopped.
    #[test]
    fn a_restart_at_any_line_comes_to_the_same_episodes(
        actions in proptest::collection::vec(0usize..6, 1..24),
        restart_after in 0usize..24,
        unsaved in 0usize..3,
    ) {
        let entries: Vec<JournalEntry> = actions
            .iter()
            .enumerate()
            .map(|(index, action)| {
                let sequence = index as u64;
                let time_ns = i64::try_from(index).expect("small") * SECOND;
                // Three marks in a row speak of the same episode, so that some fit and some do not.
                mark(sequence, MarkAction::ALL[*action], sequence / 3, time_ns)
            })
            .collect();
        let (mut whole, mut cut) = (fresh(), fresh());
        let (mut whole_store, mut cut_store) = (BTreeMap::new(), BTreeMap::new());
        let mut saved_session = cut.record().clone();
        let keep = |store: &mut BTreeMap<u32, EpisodeRecord>, effects: &[Effect]| {
            for record in saved(effects) {
                store.insert(record.number, record.clone());
            }
        };
        for (index, entry) in entries.iter().enumerate() {
            let next = index as u64 + 1;
            whole.journal(entry.clone());
            keep(&mut whole_store, &whole.durable(&durable(&[(StreamId::JOURNAL, next)]), 0));
            cut.journal(entry.clone());
            let effects = cut.durable(&durable(&[(StreamId::JOURNAL, next)]), 0);
            keep(&mut cut_store, &effects);
            let is_late = index + 1 == restart_after;
            // The last few savings of the session's record may not have reached the disk.
            if index + unsaved + 1 < restart_after || index >= restart_after {
                saved_session = cut.record().clone();
            }
            if is_late {
                let recovered = Recovered {
                    record: SessionRecord { streams: cut.record().streams.clone(), ..saved_session.clone() },
                    episodes: cut_store.values().cloned().collect(),
                    positions: durable(&[(StreamId::JOURNAL, next)]),
                    latest: BTreeMap::new(),
                    journal: entries[..=index].to_vec(),
                };
                let (machine, effects) = Machine::recover(recovered, MachineSettings::default(), 0);
                cut = machine;
                keep(&mut cut_store, &effects);
            }
        }
        let view = |store: &BTreeMap<u32, EpisodeRecord>| -> Vec<_> {
            store.values().map(|record| (record.number, record.mark, record.state, record.start_ns, record.stop_ns, record.pauses.clone(), record.outcome)).collect()
        };
        prop_assert_eq!(view(&whole_store), view(&cut_store));
        prop_assert_eq!(whole.record().episodes, cut.record().episodes);
    }
}
