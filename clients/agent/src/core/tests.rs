//! A core against a model of the server, message by message, with everything that can go wrong in between.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use tendon_protocol::control::{
    Acknowledge, ClockKind, ErrorCode, ErrorMessage, Hello, Position, Probe, ProbeRole, Welcome,
};
use tendon_protocol::id::ClockId;
use tendon_protocol::message::Message;
use tendon_protocol::stream::{Content, Dtype, Role};

use super::keep::Pushed;
use super::shelf::{Pressure, Source as Bytes_};
use super::*;
use crate::config::{AgentConfig, MEMORY_BYTES_MIN, SpoolMode, WhenFull};
use crate::uplink::machine::Event;

const SESSION: SessionId = SessionId::from_u128(11);
const PRODUCER: ProducerId = ProducerId::from_u128(22);

fn config(folder: Option<&Path>, mode: SpoolMode, clock: u128) -> AgentConfig {
    let mut config = AgentConfig::new("ws://h:1", "t", SESSION, PRODUCER, Clock::bent(ClockId::from_u128(clock), 0, 0));
    config.spool.folder = folder.map(Path::to_owned);
    config.spool.mode = mode;
    config.spool.memory_bytes_max = MEMORY_BYTES_MIN;
    config.spool.segment_bytes = MEMORY_BYTES_MIN as u64;
    config.spool.file_bytes_max = 4 * MEMORY_BYTES_MIN as u64;
    config.batch_samples = 5;
    config
}

fn declaration(stream: u32, width: u32) -> StreamDeclaration {
    StreamDeclaration {
        stream: StreamId(stream),
        feature: format!("feature_{stream}"),
        names: vec![],
        unit: String::new(),
        dtype: Dtype::I64,
        shape: vec![width],
        rate_mhz: 0,
        required: true,
        role: Role::Measured,
        content: Content::Values,
    }
}

fn open(config: &AgentConfig) -> Core {
    let mut core = Core::open(config).unwrap().0;
    for stream in 1..=2 {
        core.declare(declaration(stream, 1)).unwrap();
    }
    core
}

/// What the server holds at one number of a stream.
#[derive(Clone, Debug, PartialEq)]
enum Slot {
    Sample(i64),
    Mark(u64),
    Declared,
    Lost,
}

/// A server that keeps a log in the order of arrival, of which a prefix is durable.
#[derive(Default)]
struct Server {
    log: Vec<Message>,
    durable: usize,
    declared: Vec<StreamId>,
    anchors: Vec<Probe>,
    /// Whether a declared loss moves the position of its stream, or only what follows it.
    loss_moves: bool,
    /// Messages to throw away, as a bug in the server would.
    swallow: usize,
    gaps: usize,
}

impl Server {
    fn slots(log: &[Message]) -> BTreeMap<StreamId, BTreeMap<u64, Slot>> {
        let mut slots: BTreeMap<StreamId, BTreeMap<u64, Slot>> = BTreeMap::new();
        let mut put = |stream: StreamId, sequence: u64, slot: Slot| {
            let before = slots.entry(stream).or_default().insert(sequence, slot.clone());
            assert!(
                before.is_none_or(|before| before == slot),
                "stream {stream} sequence {sequence} came with other content"
            );
        };
        for message in log {
            match message {
                Message::Batch(batch) => {
                    for (at, value) in batch.values.chunks_exact(8 * batch.width as usize).enumerate() {
                        put(
                            batch.stream,
                            batch.first + at as u64,
                            Slot::Sample(i64::from_le_bytes(value[..8].try_into().unwrap())),
                        );
                    }
                }
                Message::Mark(mark) => put(StreamId::JOURNAL, mark.sequence, Slot::Mark(mark.episode)),
                Message::Lost(lost) if lost.stream == StreamId::JOURNAL => {
                    put(lost.stream, lost.sequence, Slot::Declared)
                }
                Message::Lost(lost) => {
                    put(StreamId::JOURNAL, lost.sequence, Slot::Declared);
                    (lost.first..=lost.last).for_each(|sequence| put(lost.stream, sequence, Slot::Lost));
                }
                other => panic!("{other:?} is not kept"),
            }
        }
        slots
    }

    /// First missing number of every stream, in the log up to `length`.
    fn positions(&self, length: usize) -> Vec<Position> {
        let slots = Self::slots(&self.log[..length]);
        slots
            .into_iter()
            .map(|(stream, slots)| {
                let mut next = (0..).find(|sequence| !slots.contains_key(sequence)).unwrap();
                while !self.loss_moves && next > 0 && slots[&(next - 1)] == Slot::Lost {
                    next -= 1;
                }
                Position { stream, next }
            })
            .collect()
    }

    fn expects(log: &[Message], stream: StreamId) -> u64 {
        let slots = Self::slots(log).remove(&stream).unwrap_or_default();
        (0..).find(|sequence| !slots.contains_key(sequence)).unwrap()
    }

    /// Takes one message; gives the answer, if there is one.
    fn take(&mut self, message: Message) -> Option<Message> {
        let (stream, first) = match &message {
            Message::Declare(declaration) => {
                self.declared.push(declaration.stream);
                return None;
            }
            Message::Probe(probe) => {
                self.anchors.push(*probe);
                return None;
            }
            Message::Goodbye(_) => return None,
            Message::Batch(batch) => (batch.stream, batch.first),
            Message::Mark(mark) => (StreamId::JOURNAL, mark.sequence),
            Message::Lost(lost) => (StreamId::JOURNAL, lost.sequence),
            other => panic!("unexpected {other:?}"),
        };
        assert!(
            stream == StreamId::JOURNAL || self.declared.contains(&stream),
            "stream {stream} was not declared on this connection"
        );
        if self.swallow > 0 {
            self.swallow -= 1;
            return None;
        }
        let mut gap = |stream, sequence| {
            self.gaps += 1;
            Some(Message::Error(ErrorMessage {
                code: ErrorCode::SequenceGap,
                stream,
                sequence,
                text: String::from("gap"),
            }))
        };
        let expected = Self::expects(&self.log, stream);
        if first > expected {
            return gap(stream, expected);
        }
        if let Message::Lost(lost) = &message
            && first == expected
            && (lost.stream, lost.first) != (StreamId::JOURNAL, lost.sequence)
        {
            // Losses are declared in the order of the stream's numbers, and only what is missing.
            let expected = Self::expects(&self.log, lost.stream);
            if lost.first != expected {
                return gap(lost.stream, expected);
            }
        }
        self.log.push(message);
        None
    }

    fn hello(&mut self, hello: &Hello) -> Message {
        // What an earlier connection brought is made durable first: a welcome must not be overtaken by it.
        self.durable = self.log.len();
        let positions = self.positions(self.durable);
        for seen in &hello.positions {
            let has =
                positions.iter().find(|position| position.stream == seen.stream).map_or(0, |position| position.next);
            assert!(has >= seen.next, "the client saw {seen:?}, the server has {has}");
        }
        self.declared.clear();
        Message::Welcome(Welcome {
            session: hello.session,
            epoch: 1,
            server_ns: 0,
            payload_bytes_max: 1 << 20,
            positions,
        })
    }
}

/// One client and its server.
struct World {
    core: Core,
    server: Server,
    /// Bytes on the way to the server.
    wire: std::collections::VecDeque<Vec<u8>>,
}

impl World {
    fn new(config: &AgentConfig) -> Self {
        Self { core: open(config), server: Server { loss_moves: true, ..Server::default() }, wire: [].into() }
    }

    fn connected(&self) -> bool {
        self.core.machine.phase() == Phase::Live
    }

    fn collect(&mut self) {
        let (mut control, mut out) = (Vec::new(), Vec::new());
        self.core.collect(0, &mut control, &mut out);
        for control in control {
            match control {
                Control::Message(bytes) => self.wire.push_back(bytes.to_vec()),
                Control::Reply { .. } | Control::Pong(_) | Control::Ping | Control::Close => {}
            }
        }
        for outgoing in out {
            self.wire.push_back(match outgoing.source {
                Bytes_::Memory(bytes) => bytes.to_vec(),
                Bytes_::File { reading, shift } => {
                    let bytes = reading.read().unwrap();
                    shift.map_or(bytes.clone(), |deltas| renumber::renumber(&bytes, &deltas).unwrap())
                }
            });
        }
    }

    fn connect(&mut self) {
        if self.connected() {
            return;
        }
        self.core.step(Event::Dial);
        self.core.step(Event::Opened);
        self.wire.clear();
        self.collect();
        let Ok(Message::Hello(hello)) = Message::decode(&self.wire.pop_front().expect("hello is sent")) else {
            panic!("hello comes first")
        };
        let welcome = self.server.hello(&hello);
        self.core.step(Event::Received(welcome));
        assert!(self.core.failed.is_none(), "{:?}", self.core.failed);
    }

    fn disconnect(&mut self) {
        self.wire.clear();
        self.core.step(Event::Ended("test".into()));
    }

    fn deliver(&mut self, most: usize) {
        if !self.connected() {
            return;
        }
        self.collect();
        for _ in 0..most {
            let Some(bytes) = self.wire.pop_front() else { break };
            if let Some(answer) = self.server.take(Message::decode(&bytes).unwrap()) {
                self.core.step(Event::Received(answer));
            }
        }
    }

    fn acknowledge(&mut self) {
        self.server.durable = self.server.log.len();
        if self.connected() {
            let positions = self.server.positions(self.server.durable);
            self.core.step(Event::Received(Message::Acknowledge(Acknowledge { positions })));
        }
    }

    fn crash_server(&mut self, keep: usize) {
        let unsure = self.server.log.len() - self.server.durable;
        self.server.log.truncate(self.server.durable + keep % (unsure + 1));
        self.server.durable = self.server.log.len();
        self.disconnect();
    }

    /// Moves time on without waiting.
    fn pass(&mut self, time: Duration) {
        self.core.started =
            self.core.started.checked_sub(time).expect("the machine is up for longer than a test's time");
        self.core.step(Event::Tick);
    }

    /// Connects and delivers until nothing waits.
    fn settle(&mut self) {
        self.core.seal_all(Pressure::Forced).unwrap();
        self.server.swallow = 0;
        for round in 0.. {
            self.connect();
            self.deliver(usize::MAX);
            self.acknowledge();
            if self.core.ledger.is_empty() {
                return;
            }
            match round % 10 {
                // A message that was swallowed is noticed by what follows it, or by the next welcome.
                5 => self.pass(Duration::from_millis(1100)),
                9 => self.disconnect(),
                _ => {}
            }
            assert!(round < 500, "nothing moves any more: {:?}", self.core.ledger);
        }
    }

    fn samples(&self, stream: u32) -> Vec<i64> {
        let slots = Server::slots(&self.server.log).remove(&StreamId(stream)).unwrap_or_default();
        let numbers: Vec<u64> = slots.keys().copied().collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "stream {stream} has a silent hole");
        slots.into_values().filter_map(|slot| if let Slot::Sample(value) = slot { Some(value) } else { None }).collect()
    }

    fn lost(&self, stream: u32) -> usize {
        let slots = Server::slots(&self.server.log).remove(&StreamId(stream)).unwrap_or_default();
        slots.values().filter(|slot| **slot == Slot::Lost).count()
    }
}

fn send(core: &mut Core, stream: u32, value: i64) -> Pushed {
    core.push(StreamId(stream), value, 0, 8, |values| values.extend_from_slice(&value.to_le_bytes())).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Send(u32, u8),
    Mark,
    Lose(u32, u8),
    Seal,
    Connect,
    Deliver(usize),
    Acknowledge,
    Disconnect,
    CrashServer(usize),
    Restart,
    Swallow,
    Pass,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u32..=2, 1u8..12).prop_map(|(stream, count)| Op::Send(stream, count)),
        2 => Just(Op::Mark),
        1 => (1u32..=2, 1u8..4).prop_map(|(stream, count)| Op::Lose(stream, count)),
        2 => Just(Op::Seal),
        4 => Just(Op::Connect),
        6 => (1usize..6).prop_map(Op::Deliver),
        3 => Just(Op::Acknowledge),
        2 => Just(Op::Disconnect),
        2 => any::<usize>().prop_map(Op::CrashServer),
        2 => Just(Op::Restart),
        1 => Just(Op::Swallow),
        1 => Just(Op::Pass),
    ]
}

/// Plays the steps, then drains. Gives the world, and per stream what was sent and not given up with a filling batch.
fn play(config: &AgentConfig, ops: &[Op], loss_moves: bool) -> (World, [Vec<i64>; 3], [usize; 3]) {
    let mut world = World::new(config);
    world.server.loss_moves = loss_moves;
    let (mut sent, mut given_up) = ([vec![], vec![], vec![]], [0; 3]);
    let mut value = 0;
    for op in ops {
        match op {
            Op::Send(stream, count) => {
                for _ in 0..*count {
                    value += 1;
                    assert_ne!(send(&mut world.core, *stream, value), Pushed::Full);
                    sent[*stream as usize].push(value);
                }
            }
            Op::Mark => {
                value += 1;
                world.core.mark(MarkAction::Start, value as u64, 0, "x", Pressure::Bounded).unwrap();
                sent[0].push(value);
            }
            Op::Lose(stream, count) => {
                world.core.declare_lost(StreamId(*stream), u64::from(*count), LostReason::Other).unwrap();
                given_up[*stream as usize] += usize::from(*count);
            }
            Op::Seal => world.core.seal_all(Pressure::Bounded).unwrap(),
            Op::Connect => world.connect(),
            Op::Deliver(most) => world.deliver(*most),
            Op::Acknowledge => world.acknowledge(),
            Op::Disconnect => world.disconnect(),
            Op::CrashServer(keep) => world.crash_server(*keep),
            Op::Restart => {
                for stream in 1..=2 {
                    let open = world.core.sources[&StreamId(stream)].open.count() as usize;
                    let length = sent[stream as usize].len();
                    sent[stream as usize].truncate(length - open);
                }
                // As a kill would: nothing is written any more.
                world.core.shelf.files = None;
                world.core = open(config);
                world.wire.clear();
            }
            Op::Swallow => world.server.swallow += usize::from(world.connected()),
            Op::Pass => world.pass(Duration::from_secs(2)),
        }
    }
    world.settle();
    (world, sent, given_up)
}

fn marks(world: &World) -> Vec<i64> {
    let slots = Server::slots(&world.server.log).remove(&StreamId::JOURNAL).unwrap_or_default();
    slots
        .into_values()
        .filter_map(|slot| if let Slot::Mark(episode) = slot { Some(episode as i64) } else { None })
        .collect()
}

fn is_subsequence(part: &[i64], whole: &[i64]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|value| whole.any(|other| other == value))
}

proptest! {
    /// Written through, everything that was sealed arrives once, in order, with its bytes, and nothing else is called lost.
    #[test]
    fn a_spool_that_is_written_through_loses_nothing_whatever_is_killed(ops in vec(op(), 1..60), loss_moves in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (world, sent, given_up) = play(&config(Some(folder.path()), SpoolMode::WriteThrough, 1), &ops, loss_moves);
        for stream in 1..=2 {
            prop_assert_eq!(&world.samples(stream), &sent[stream as usize]);
            prop_assert_eq!(world.lost(stream), given_up[stream as usize]);
        }
        prop_assert_eq!(&marks(&world), &sent[0]);
    }

    /// In memory, and while the process lives, likewise.
    #[test]
    fn memory_alone_loses_nothing_while_the_process_lives(ops in vec(op(), 1..60), loss_moves in any::<bool>()) {
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Restart)).collect();
        let (world, sent, given_up) = play(&config(None, SpoolMode::Overflow, 1), &ops, loss_moves);
        for stream in 1..=2 {
            prop_assert_eq!(&world.samples(stream), &sent[stream as usize]);
            prop_assert_eq!(world.lost(stream), given_up[stream as usize]);
        }
        prop_assert_eq!(&marks(&world), &sent[0]);
        prop_assert_eq!(world.core.shelf.memory_bytes, 0);
    }

    /// Without a spool a restart loses samples, but numbers stay whole: what is there is in order, once, and holes are declared.
    /// (A process without memory of its losses needs a server whose positions move over them.)
    #[test]
    fn a_restart_without_a_spool_leaves_no_silent_hole(ops in vec(op(), 1..60), folder in any::<bool>()) {
        // A server that throws messages away and a client that forgets them are more than anyone can mend.
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Swallow)).collect();
        let spool = tempfile::tempdir().unwrap();
        let (world, sent, _) = play(&config(folder.then(|| spool.path()), SpoolMode::Overflow, 1), &ops, true);
        for stream in 1..=2 {
            let there = world.samples(stream);
            prop_assert!(is_subsequence(&there, &sent[stream as usize]), "{there:?} is not in the order of {:?}", sent[stream as usize]);
        }
    }
}

#[test]
fn a_restart_without_a_spool_declares_exactly_one_placeholder_for_each_stream_with_data() {
    let config = config(None, SpoolMode::Overflow, 1);
    let mut world = World::new(&config);
    (0..10).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.settle();
    // Streams are declared before the welcome in one restart, and behind it in the other.
    world.core = open(&config);
    world.settle();
    assert_eq!((world.lost(1), world.lost(2)), (1, 0));
    world.core = Core::open(&config).unwrap().0;
    world.connect();
    world.core.declare(declaration(1, 1)).unwrap();
    world.core.declare(declaration(2, 1)).unwrap();
    send(&mut world.core, 1, 99);
    world.settle();
    assert_eq!((world.lost(1), world.lost(2)), (2, 0));
    assert_eq!(world.samples(1), (0..10).chain([99]).collect::<Vec<_>>());
    assert_eq!(world.server.gaps, 0);
}

#[test]
fn what_was_recorded_offline_is_numbered_behind_what_the_server_has() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(Some(folder.path()), SpoolMode::WriteThrough, 1);
    let mut world = World::new(&config);
    (0..10).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.settle();
    // The spool is gone: the robot was reinstalled. It records offline, is killed, records on, and only then connects.
    world.core.shelf.files = None;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    world.core = open(&config);
    (10..15).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.core.mark(MarkAction::Start, 7, 0, "x", Pressure::Bounded).unwrap();
    world.core.declare_lost(StreamId(1), 3, LostReason::Other).unwrap();
    world.core.shelf.files = None;
    world.core = open(&config);
    (15..20).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.connect();
    // Killed again between the welcome and the first sample: the moved numbers must be the same ever after.
    world.deliver(usize::MAX);
    world.core.shelf.files = None;
    world.core = open(&config);
    world.settle();
    assert_eq!(world.samples(1), (0..20).collect::<Vec<_>>());
    assert_eq!(world.lost(1), 4, "one placeholder and three that were given up");
    assert_eq!(marks(&world), [7]);
    assert_eq!(world.server.gaps, 0);
}

#[test]
fn a_full_spool_drops_the_newest_and_declares_each_hole_once() {
    let mut config = config(None, SpoolMode::Overflow, 1);
    config.when_full = WhenFull::DeclareLost;
    let mut world = World::new(&config);
    world.core.declare(declaration(3, 4096)).unwrap();
    let wide = |core: &mut Core, value: i64| {
        let fill = |values: &mut Vec<u8>| (0..4096).for_each(|_| values.extend_from_slice(&value.to_le_bytes()));
        core.push(StreamId(3), 0, 0, 4096 * 8, fill).unwrap()
    };
    // Incompressible content would be needed to fill the spool, were it compressed.
    world.core.settings.compress = false;
    let dropped = (0..200).filter(|value| wide(&mut world.core, *value) == Pushed::Dropped).count();
    assert!(dropped > 50, "{dropped}");
    assert!(world.core.stats().spool_memory_bytes <= MEMORY_BYTES_MIN as u64);
    assert_eq!(world.core.stats().samples_lost, dropped as u64);
    world.connect();
    world.deliver(usize::MAX);
    world.acknowledge();
    assert_ne!(wide(&mut world.core, 1000), Pushed::Dropped);
    world.settle();
    assert_eq!(world.lost(3), dropped);
    assert_eq!(world.server.log.iter().filter(|message| matches!(message, Message::Lost(_))).count(), 1);
    assert_eq!(world.core.shelf.memory_bytes + world.core.open_bytes, 0);
}

#[test]
fn waiting_for_room_leaves_the_sample_with_the_application() {
    let mut world = World::new(&config(None, SpoolMode::Overflow, 1));
    world.core.declare(declaration(3, 4096)).unwrap();
    world.core.settings.compress = false;
    let wide = |core: &mut Core| {
        core.push(StreamId(3), 0, 0, 4096 * 8, |values| values.resize(values.len() + 4096 * 8, 0)).unwrap()
    };
    let taken = (0..200).filter(|_| wide(&mut world.core) != Pushed::Full).count();
    assert!(taken < 100);
    assert_eq!(world.core.stats().samples_sent, taken as u64);
    world.settle();
    assert_eq!(world.core.stats().samples_acknowledged, taken as u64);
    assert_eq!(wide(&mut world.core), Pushed::Open { first: true });
}

#[test]
fn the_clock_of_an_earlier_boot_is_anchored_while_its_samples_wait() {
    let folder = tempfile::tempdir().unwrap();
    let old = config(Some(folder.path()), SpoolMode::WriteThrough, 1);
    let mut core = open(&old);
    (0..5).for_each(|value| assert_ne!(send(&mut core, 1, value), Pushed::Full));
    core.write_state_now().unwrap();
    core.shelf.files = None;
    let mut world = World::new(&config(Some(folder.path()), SpoolMode::WriteThrough, 2));
    world.settle();
    assert!(!world.server.anchors.is_empty());
    for anchor in &world.server.anchors {
        assert_eq!((anchor.role, anchor.clock), (ProbeRole::Anchor, ClockId::from_u128(1)));
        assert!(anchor.wall_ns > 0 && anchor.received_ns > 0);
    }
    world.disconnect();
    world.server.anchors.clear();
    world.settle();
    assert_eq!(world.server.anchors, [], "its samples are acknowledged, nobody asks any more");
    assert_eq!(world.core.clock.kind(), ClockKind::Boot);
}

#[test]
fn samples_that_the_disk_no_longer_gives_back_are_declared_lost() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(Some(folder.path()), SpoolMode::WriteThrough, 1);
    let mut world = World::new(&config);
    (0..15).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.core.damaged(StreamId(1), 5, "bad sector");
    world.settle();
    assert_eq!(world.samples(1), (0..5).chain(10..15).collect::<Vec<_>>());
    assert_eq!((world.lost(1), world.server.gaps), (5, 0));
}

#[test]
fn a_server_that_forgot_what_it_acknowledged_is_caught_by_the_client_too() {
    let config = config(None, SpoolMode::Overflow, 1);
    let mut world = World::new(&config);
    (0..10).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.settle();
    world.disconnect();
    world.core.step(Event::Dial);
    world.core.step(Event::Opened);
    let positions = vec![Position { stream: StreamId(1), next: 5 }];
    let welcome = Welcome { session: SESSION, epoch: 2, server_ns: 0, payload_bytes_max: 1 << 20, positions };
    let verdict = world.core.step(Event::Received(Message::Welcome(welcome)));
    assert!(verdict.hang.is_some());
    assert!(
        matches!(world.core.failed, Some(AgentError::AcknowledgedLost { acknowledged: 10, server: 5, .. })),
        "{:?}",
        world.core.failed
    );
    assert!(world.core.push(StreamId(1), 0, 0, 8, |_| {}).is_err());
}

#[test]
fn a_server_with_samples_that_nobody_here_made_is_caught() {
    let mut world = World::new(&config(None, SpoolMode::Overflow, 1));
    send(&mut world.core, 1, 1);
    world.settle();
    world.disconnect();
    world.core.step(Event::Dial);
    world.core.step(Event::Opened);
    let positions = vec![Position { stream: StreamId(1), next: 50 }];
    let welcome = Welcome { session: SESSION, epoch: 2, server_ns: 0, payload_bytes_max: 1 << 20, positions };
    world.core.step(Event::Received(Message::Welcome(welcome)));
    assert!(
        matches!(world.core.failed, Some(AgentError::Foreign { server: 50, next: 1, .. })),
        "{:?}",
        world.core.failed
    );
}

#[test]
fn a_refused_stream_stops_alone() {
    let mut world = World::new(&config(None, SpoolMode::Overflow, 1));
    for value in 0..7 {
        send(&mut world.core, 1, value);
        send(&mut world.core, 2, value);
    }
    world.connect();
    let text = String::from("other bytes");
    let conflict = ErrorMessage { code: ErrorCode::SequenceConflict, stream: StreamId(1), sequence: 0, text };
    world.core.step(Event::Received(Message::Error(conflict)));
    assert!(matches!(world.core.push(StreamId(1), 0, 0, 8, |_| {}), Err(AgentError::StreamRefused { .. })));
    world.settle();
    assert_eq!(world.samples(2), (0..7).collect::<Vec<_>>());
    assert_eq!(world.samples(1), Vec::<i64>::new());
    let stats = world.core.stats();
    assert_eq!((stats.samples_refused, stats.samples_waiting, stats.spool_memory_bytes), (7, 0, 0));
}

#[test]
fn a_folder_of_another_session_is_refused_and_one_in_use_too() {
    let folder = tempfile::tempdir().unwrap();
    let mine = config(Some(folder.path()), SpoolMode::WriteThrough, 1);
    let mut core = open(&mine);
    assert!(Core::open(&mine).unwrap_err().to_string().contains("another agent uses it"));
    core.shut().unwrap();
    let mut other = mine.clone();
    other.session = SessionId::from_u128(99);
    assert!(Core::open(&other).unwrap_err().to_string().contains("belongs to session"));
}

#[test]
fn an_agent_that_stops_in_order_leaves_everything_on_disk_and_nothing_to_declare() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(Some(folder.path()), SpoolMode::Overflow, 1);
    let mut world = World::new(&config);
    (0..7).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.core.shut().unwrap();
    world.core = open(&config);
    send(&mut world.core, 1, 7);
    world.settle();
    assert_eq!(world.samples(1), (0..8).collect::<Vec<_>>());
    assert_eq!(world.lost(1), 0);
}

#[test]
fn a_request_becomes_a_mark_of_the_running_episode_when_marks_are_automatic() {
    let mut config = config(None, SpoolMode::Overflow, 1);
    config.auto_marks = true;
    let mut world = World::new(&config);
    world.connect();
    let request = |action| {
        let clock = ClockId::default();
        let mark = tendon_protocol::control::Mark {
            sequence: 0,
            episode: 0,
            action,
            request: true,
            clock,
            time_ns: 0,
            instruction: "go".into(),
        };
        Event::Received(Message::Mark(mark))
    };
    for action in [MarkAction::Start, MarkAction::StopSuccess, MarkAction::Start, MarkAction::Discard] {
        world.core.step(request(action));
    }
    world.settle();
    let made = marks(&world);
    assert_eq!((made[0], made[2]), (made[1], made[3]));
    assert!(made[2] > made[0]);
}

#[test]
fn samples_that_are_not_what_was_declared_are_refused_by_name() {
    let mut core = open(&config(None, SpoolMode::Overflow, 1));
    let refused = |core: &mut Core, stream, flags, bytes| {
        core.push(StreamId(stream), 0, flags, bytes, |_| {}).unwrap_err().to_string()
    };
    assert!(refused(&mut core, 9, 0, 8).contains("not declared"));
    assert!(refused(&mut core, 1, 0, 4).contains("4 bytes, its declaration asks for 8"));
    assert!(refused(&mut core, 1, 8, 8).contains("flags"));
    assert!(core.check_values(StreamId(1), Some(Dtype::F32), &[]).is_err());
    let mut other = declaration(1, 1);
    other.unit = "rad".into();
    assert!(matches!(core.declare(other), Err(AgentError::DeclarationChanged { .. })));
    assert!(core.mark(MarkAction::Start, 0, 0, &"x".repeat(65 << 10), Pressure::Bounded).is_err());
}

#[test]
fn a_declaration_that_came_too_early_is_sent_again_behind_what_was_missing() {
    let mut world = World::new(&config(None, SpoolMode::Overflow, 1));
    world.connect();
    world.deliver(usize::MAX);
    (0..5).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.core.declare_lost(StreamId(1), 2, LostReason::Other).unwrap();
    world.server.swallow = 1;
    world.deliver(usize::MAX);
    assert_eq!(world.server.gaps, 1, "the declaration does not follow what the server has");
    world.deliver(usize::MAX);
    // On the same connection, and although nothing came behind the declaration that could have told of it.
    assert_eq!((world.samples(1), world.lost(1)), ((0..5).collect(), 2));
}

#[test]
fn what_was_lost_in_memory_is_declared_in_front_of_what_was_given_up_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(Some(folder.path()), SpoolMode::Overflow, 1);
    let mut world = World::new(&config);
    world.connect();
    (0..5).for_each(|value| assert_ne!(send(&mut world.core, 1, value), Pushed::Full));
    world.core.declare_lost(StreamId(1), 3, LostReason::SpoolFull).unwrap();
    // Killed twice before anything is delivered: the journal on disk was written anew in between.
    for _ in 0..2 {
        world.core.shelf.files = None;
        world.core = open(&config);
        world.wire.clear();
        world.connect();
    }
    send(&mut world.core, 1, 99);
    world.settle();
    assert_eq!(world.samples(1), [99]);
    assert_eq!((world.lost(1), world.server.gaps), (5 + 3 + 1 + 1, 0), "two restarts, one placeholder each");
    let losses =
        world.server.log.iter().filter_map(|message| {
            if let Message::Lost(lost) = message { Some((lost.first, lost.reason)) } else { None }
        });
    let expected =
        [(0, LostReason::Restart), (5, LostReason::SpoolFull), (8, LostReason::Restart), (9, LostReason::Restart)];
    assert_eq!(losses.collect::<Vec<_>>(), expected);
}
