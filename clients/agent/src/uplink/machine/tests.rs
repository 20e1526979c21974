use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use tendon_protocol::control::{Acknowledge, ThrottleLimit};

const SESSION: SessionId = SessionId::from_u128(5);

fn machine(seen: &[Position]) -> Machine {
    Machine::new(SESSION, Backoff { min: Duration::from_millis(100), max: Duration::from_secs(10) }, seen, 42)
}

fn at(stream: u32, next: u64) -> Position {
    Position { stream: StreamId(stream), next }
}

fn welcome(positions: Vec<Position>) -> Event {
    Event::Received(Message::Welcome(Welcome {
        session: SESSION,
        epoch: 1,
        server_ns: 0,
        payload_bytes_max: 1 << 20,
        positions,
    }))
}

fn acknowledge(positions: Vec<Position>) -> Event {
    Event::Received(Message::Acknowledge(Acknowledge { positions }))
}

fn error(code: ErrorCode, stream: u32, sequence: u64) -> Event {
    Event::Received(Message::Error(ErrorMessage { code, stream: StreamId(stream), sequence, text: "why".into() }))
}

fn goodbye(reason: GoodbyeReason) -> Event {
    Event::Received(Message::Goodbye(Goodbye { reason, text: "bye".into() }))
}

fn refused(status: u16, retry_after: Option<u64>) -> Event {
    let retry_after = retry_after.map(Duration::from_secs);
    Event::Refused(Refusal { status, code: "why".into(), message: "no".into(), retry_after })
}

fn step(machine: &mut Machine, event: Event, now_ms: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    machine.step(event, Duration::from_millis(now_ms), &mut effects);
    effects
}

/// Names of the effects, for short comparisons.
fn names(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| format!("{effect:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned())
        .collect()
}

fn live(seen: &[Position]) -> Machine {
    let mut machine = machine(seen);
    step(&mut machine, Event::Dial, 0);
    step(&mut machine, Event::Opened, 0);
    step(&mut machine, welcome(seen.to_vec()), 0);
    assert_eq!(machine.phase(), Phase::Live);
    machine
}

fn retry_at(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| {
        if let Effect::RetryAt(at) = effect { Some(u64::try_from(at.as_millis()).unwrap()) } else { None }
    })
}

fn failure(effects: &[Effect]) -> Option<&AgentError> {
    effects.iter().find_map(|effect| if let Effect::Fail(error) = effect { Some(error) } else { None })
}

#[derive(Clone, Debug)]
enum Input {
    Dial,
    Opened,
    Refused(u16),
    Unreachable,
    Welcome(Vec<(u32, u64)>),
    Acknowledge(Vec<(u32, u64)>),
    Gap(u32, u64),
    Error(usize),
    Goodbye(usize),
    Throttle,
    Ended,
    Tick,
    Leave,
}

fn input() -> impl Strategy<Value = Input> {
    let positions = || vec((0u32..3, 0u64..30), 0..4);
    prop_oneof![
        4 => Just(Input::Dial),
        4 => Just(Input::Opened),
        1 => prop_oneof![Just(429u16), Just(503), Just(401), Just(404), Just(302)].prop_map(Input::Refused),
        1 => Just(Input::Unreachable),
        4 => positions().prop_map(Input::Welcome),
        8 => positions().prop_map(Input::Acknowledge),
        3 => (0u32..3, 0u64..30).prop_map(|(stream, from)| Input::Gap(stream, from)),
        1 => (0..ErrorCode::ALL.len()).prop_map(Input::Error),
        1 => (0..GoodbyeReason::ALL.len()).prop_map(Input::Goodbye),
        1 => Just(Input::Throttle),
        3 => Just(Input::Ended),
        2 => Just(Input::Tick),
        1 => Just(Input::Leave),
    ]
}

fn event(input: &Input) -> Event {
    let positions = |list: &[(u32, u64)]| list.iter().map(|(stream, next)| at(*stream, *next)).collect();
    match input {
        Input::Dial => Event::Dial,
        Input::Opened => Event::Opened,
        Input::Refused(status) => refused(*status, Some(1)),
        Input::Unreachable => Event::Unreachable("no route".into()),
        Input::Welcome(list) => welcome(positions(list)),
        Input::Acknowledge(list) => acknowledge(positions(list)),
        Input::Gap(stream, from) => error(ErrorCode::SequenceGap, *stream, *from),
        Input::Error(code) => error(ErrorCode::ALL[*code], 1, 0),
        Input::Goodbye(reason) => goodbye(GoodbyeReason::ALL[*reason]),
        Input::Throttle => Event::Received(Message::Throttle(Throttle {
            delay_ms: 5,
            limit: ThrottleLimit::Storage,
            text: String::new(),
        })),
        Input::Ended => Event::Ended("lost".into()),
        Input::Tick => Event::Tick,
        Input::Leave => Event::Leave,
    }
}

proptest! {
    /// Whatever happens: hello never shows less than was acknowledged, nothing is forgotten that was not acknowledged, a
    /// lost connection is followed by exactly one retry or one failure, and after the end nothing happens any more.
    #[test]
    fn no_sequence_of_events_breaks_the_promises(inputs in vec((input(), 0u64..700), 1..120)) {
        let mut machine = machine(&[]);
        let mut seen: BTreeMap<StreamId, u64> = BTreeMap::new();
        let mut now = 0;
        for (input, passed) in inputs {
            now += passed;
            let before = machine.phase();
            let effects = step(&mut machine, event(&input), now);
            if matches!(before, Phase::Failed | Phase::Closed) {
                prop_assert!(effects.is_empty(), "{effects:?} after the end");
            }
            for effect in &effects {
                match effect {
                    Effect::Hello(positions) => {
                        for (stream, next) in &seen {
                            let shown = positions.iter().find(|position| position.stream == *stream).map(|position| position.next);
                            prop_assert_eq!(shown, Some(*next));
                        }
                    }
                    Effect::Resume { positions, .. } | Effect::Forget(positions) => {
                        let resumed = matches!(effect, Effect::Resume { .. });
                        for position in positions {
                            let old = seen.entry(position.stream).or_default();
                            prop_assert!(resumed || position.next > *old);
                            *old = position.next.max(*old);
                        }
                        if resumed {
                            for (stream, next) in &seen {
                                let server = positions.iter().filter(|position| position.stream == *stream).map(|position| position.next).max();
                                prop_assert!(server.unwrap_or(0) >= *next, "resumed on a server that lost stream {stream}");
                            }
                        }
                    }
                    Effect::Rewind { stream, from } => prop_assert!(*from >= seen.get(stream).copied().unwrap_or(0)),
                    Effect::RetryAt(at) => {
                        let pause = at.saturating_sub(Duration::from_millis(now));
                        prop_assert!(pause >= Duration::from_millis(100) && pause <= Duration::from_secs(10), "{pause:?}");
                    }
                    _ => {}
                }
            }
            let connected = matches!(before, Phase::Greeting | Phase::Live);
            if matches!(input, Input::Ended) && connected {
                prop_assert_eq!(usize::from(retry_at(&effects).is_some()) + usize::from(failure(&effects).is_some()), 1);
            }
            prop_assert_eq!(machine.phase() == Phase::Failed, before == Phase::Failed || failure(&effects).is_some());
        }
    }

    /// Pauses grow to the longest and are spread.
    #[test]
    fn pauses_stay_between_the_shortest_and_the_doubled(tries in 1usize..40) {
        let mut machine = machine(&[]);
        let mut now = 0;
        for attempt in 0..tries {
            step(&mut machine, Event::Dial, now);
            let pause = retry_at(&step(&mut machine, Event::Unreachable("x".into()), now)).unwrap() - now;
            let longest = (100u64 << attempt.min(20)).min(10_000);
            prop_assert!((100..=longest).contains(&pause), "{pause} ms in attempt {attempt}");
            now += pause;
        }
    }
}

#[test]
fn a_handshake_is_given_up_when_waiting_cannot_help() {
    for (status, fatal) in [
        (401, true),
        (403, true),
        (404, true),
        (409, true),
        (400, true),
        (302, true),
        (429, false),
        (503, false),
        (500, false),
    ] {
        let mut machine = machine(&[]);
        step(&mut machine, Event::Dial, 0);
        let effects = step(&mut machine, refused(status, None), 0);
        assert_eq!(failure(&effects).is_some(), fatal, "HTTP {status}");
    }
}

#[test]
fn a_server_is_left_alone_for_as_long_as_it_asks_within_reason() {
    let mut machine = machine(&[]);
    step(&mut machine, Event::Dial, 0);
    assert_eq!(retry_at(&step(&mut machine, refused(503, Some(42)), 0)), Some(42_000));
    step(&mut machine, Event::Dial, 42_000);
    assert_eq!(retry_at(&step(&mut machine, refused(429, Some(1 << 40)), 42_000)), Some(42_000 + 300_000));
}

#[test]
fn a_server_behind_what_it_acknowledged_is_fatal_wherever_it_shows() {
    let mut machine = machine(&[at(1, 10)]);
    step(&mut machine, Event::Dial, 0);
    step(&mut machine, Event::Opened, 0);
    let effects = step(&mut machine, welcome(vec![]), 0);
    assert!(
        matches!(failure(&effects), Some(AgentError::AcknowledgedLost { acknowledged: 10, server: 0, .. })),
        "{effects:?}"
    );
    for event in [error(ErrorCode::AcknowledgedLost, 1, 4), error(ErrorCode::SequenceGap, 1, 4)] {
        let effects = step(&mut live(&[at(1, 10)]), event, 0);
        assert!(
            matches!(failure(&effects), Some(AgentError::AcknowledgedLost { acknowledged: 10, server: 4, .. })),
            "{effects:?}"
        );
    }
}

#[test]
fn a_gap_in_flight_is_answered_once_and_again_if_it_stands() {
    let mut machine = live(&[at(1, 3)]);
    let gap = || error(ErrorCode::SequenceGap, 1, 7);
    assert_eq!(names(&step(&mut machine, gap(), 0)), ["Rewind"]);
    for now in [1, 50, 900] {
        assert_eq!(names(&step(&mut machine, gap(), now)), Vec::<String>::new());
    }
    assert_eq!(names(&step(&mut machine, Event::Tick, 950)), Vec::<String>::new());
    assert_eq!(names(&step(&mut machine, Event::Tick, 1000)), ["Rewind"]);
    assert_eq!(names(&step(&mut machine, Event::Tick, 3000)), Vec::<String>::new(), "nobody reported it again");
    step(&mut machine, acknowledge(vec![at(1, 8)]), 3000);
    assert_eq!(
        names(&step(&mut machine, error(ErrorCode::SequenceGap, 1, 8), 3001)),
        ["Rewind"],
        "another gap is another"
    );
}

#[test]
fn a_takeover_and_an_ended_session_are_final_and_a_stopping_server_is_not() {
    assert!(matches!(
        failure(&step(&mut live(&[]), goodbye(GoodbyeReason::Fenced), 0)),
        Some(AgentError::Fenced { .. })
    ));
    assert!(matches!(
        failure(&step(&mut live(&[]), goodbye(GoodbyeReason::SessionEnded), 0)),
        Some(AgentError::SessionEnded { .. })
    ));
    let mut machine = live(&[]);
    assert_eq!(names(&step(&mut machine, goodbye(GoodbyeReason::ServerStops), 0)), ["Hang"]);
    assert!(retry_at(&step(&mut machine, Event::Ended("gone".into()), 0)).is_some());
}

#[test]
fn errors_are_final_for_the_agent_a_stream_or_nobody() {
    for code in [
        ErrorCode::UnknownSession,
        ErrorCode::SessionEnded,
        ErrorCode::SecondProducer,
        ErrorCode::Forbidden,
        ErrorCode::AcknowledgedLost,
    ] {
        assert_eq!(names(&step(&mut live(&[]), error(code, 1, 0), 0)), ["Fail"], "{code:?}");
    }
    for code in [
        ErrorCode::SequenceConflict,
        ErrorCode::DeclarationConflict,
        ErrorCode::WidthMismatch,
        ErrorCode::StreamNotDeclared,
    ] {
        assert_eq!(names(&step(&mut live(&[]), error(code, 1, 0), 0)), ["Refuse"], "{code:?}");
        assert_eq!(names(&step(&mut live(&[]), error(code, 0, 0), 0)), ["Fail"], "{code:?} of the journal");
    }
    for code in [ErrorCode::BadMark, ErrorCode::Storage] {
        assert_eq!(names(&step(&mut live(&[]), error(code, 0, 0), 0)), ["Report"], "{code:?}");
    }
}

#[test]
fn connections_that_end_with_an_error_and_bring_nothing_come_to_an_end() {
    let mut machine = machine(&[]);
    for round in 1.. {
        step(&mut machine, Event::Dial, 0);
        step(&mut machine, Event::Opened, 0);
        step(&mut machine, welcome(vec![]), 0);
        step(&mut machine, error(ErrorCode::BadMessage, 0, 0), 0);
        let effects = step(&mut machine, Event::Ended("closed".into()), 0);
        if let Some(error) = failure(&effects) {
            assert!(matches!(error, AgentError::NoProgress { times: FRUITLESS_MAX, .. }));
            assert_eq!(round, FRUITLESS_MAX);
            return;
        }
    }
}

#[test]
fn progress_forgives_earlier_errors() {
    let mut machine = machine(&[]);
    for round in 1..100 {
        step(&mut machine, Event::Dial, 0);
        step(&mut machine, Event::Opened, 0);
        step(&mut machine, welcome(vec![at(1, round - 1)]), 0);
        step(&mut machine, acknowledge(vec![at(1, round)]), 0);
        step(&mut machine, error(ErrorCode::BadMessage, 0, 0), 0);
        assert!(failure(&step(&mut machine, Event::Ended("closed".into()), 0)).is_none());
    }
}

#[test]
fn a_welcome_for_another_session_is_not_taken() {
    let mut machine = machine(&[]);
    step(&mut machine, Event::Dial, 0);
    step(&mut machine, Event::Opened, 0);
    let session = SessionId::from_u128(6);
    let other = Welcome { session, epoch: 1, server_ns: 0, payload_bytes_max: 0, positions: vec![] };
    assert_eq!(names(&step(&mut machine, Event::Received(Message::Welcome(other)), 0)), ["Hang"]);
}

#[test]
fn leaving_says_goodbye_where_there_is_someone_to_hear_it() {
    let mut machine = live(&[]);
    assert_eq!(names(&step(&mut machine, Event::Leave, 0)), ["Farewell"]);
    assert_eq!(machine.phase(), Phase::Leaving);
    step(&mut machine, Event::Ended("closed".into()), 0);
    assert_eq!(machine.phase(), Phase::Closed);
}
