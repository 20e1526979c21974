//! Holds the tables of `docs/wire.md` to the golden files, so that whoever writes the format by
//! hand in another language can trust them byte by byte.

use std::collections::BTreeMap;
use std::fs;

use tendon_protocol::envelope::{ENVELOPE_BYTES, Envelope, FLAG_ZSTD, Kind, MAGIC, PROTOCOL_VERSION};
use tendon_protocol::message::{Message, View};

use crate::samples::{CLOCK, PRODUCER, SESSION, batch, declaration, one_of_each};

/// One row of a table: offset in the root (or envelope), length.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    bytes: usize,
}

/// The tables of the page: heading to field to place. A row is `| 8..16 | field | ...`.
fn tables() -> BTreeMap<String, BTreeMap<String, Place>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md");
    let page = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let mut tables: BTreeMap<String, BTreeMap<String, Place>> = BTreeMap::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            heading = title.split(' ').next().unwrap_or_default().to_lowercase();
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some((range, field)) = cells.get(1).zip(cells.get(2)) else {
            continue;
        };
        let Some((from, to)) = range.split_once("..") else {
            continue;
        };
        let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) else {
            continue;
        };
        assert!(from < to, "{heading}: {line}");
        let place = Place { at: from, bytes: to - from };
        let before = tables.entry(heading.clone()).or_default().insert(field.trim_matches('`').to_owned(), place);
        assert!(before.is_none(), "{heading}: {field} is there twice");
    }
    tables
}

fn is_without_hole(table: &BTreeMap<String, Place>) -> usize {
    let mut places: Vec<Place> = table.values().copied().collect();
    places.sort_by_key(|place| place.at);
    places.iter().fold(0, |end, place| {
        assert_eq!(place.at, end, "a hole or an overlap in {table:?}");
        end + place.bytes
    })
}

type Fields = Vec<(&'static str, Vec<u8>)>;

fn id(bytes: [u8; 16]) -> Vec<u8> {
    bytes.to_vec()
}

/// What each field of a root holds, `vector` left out, and the bytes of the vector.
fn fields(message: &Message) -> (Fields, &'static str, Vec<u8>) {
    let positions = |all: &[tendon_protocol::control::Position]| {
        all.iter().flat_map(|p| [&p.next.to_le_bytes()[..], &p.stream.0.to_le_bytes()].concat()).collect::<Vec<u8>>()
    };
    match message {
        Message::Hello(it) => (
            vec![
                ("session", id(SESSION.0)),
                ("producer", id(PRODUCER.0)),
                ("clock", id(CLOCK.0)),
                ("time_ns", it.time_ns.to_le_bytes().into()),
                ("wall_ns", it.wall_ns.to_le_bytes().into()),
                ("clock_kind", vec![2]),
            ],
            "positions",
            positions(&it.positions),
        ),
        Message::Welcome(it) => (
            vec![
                ("session", id(SESSION.0)),
                ("epoch", it.epoch.to_le_bytes().into()),
                ("server_ns", it.server_ns.to_le_bytes().into()),
                ("payload_bytes_max", it.payload_bytes_max.to_le_bytes().into()),
            ],
            "positions",
            positions(&it.positions),
        ),
        Message::Declare(_) | Message::Batch(_) | Message::Media(_) => sample_fields(message),
        _ => other_fields(message, positions),
    }
}

fn sample_fields(message: &Message) -> (Fields, &'static str, Vec<u8>) {
    match message {
        Message::Declare(it) => {
            let shape = [2u32, 0, 0, 0].iter().flat_map(|side| side.to_le_bytes()).collect();
            let text = [&it.feature, &it.unit, &it.names[0], &it.names[1]].map(|line| format!("{line}\n")).concat();
            (
                vec![
                    ("stream", declaration().stream.0.to_le_bytes().into()),
                    ("rate_mhz", it.rate_mhz.to_le_bytes().into()),
                    ("shape", shape),
                    ("dimensions", vec![1]),
                    ("dtype", vec![1]),
                    ("role", vec![1]),
                    ("content", vec![0]),
                    ("required", vec![1]),
                ],
                "text",
                text.into_bytes(),
            )
        }
        Message::Batch(it) => {
            let mut body: Vec<u8> = it.times_ns.iter().flat_map(|time| time.to_le_bytes()).collect();
            body.extend_from_slice(&it.flags);
            body.extend_from_slice(&it.values);
            (
                vec![
                    ("first", batch().first.to_le_bytes().into()),
                    ("clock", id(CLOCK.0)),
                    ("stream", it.stream.0.to_le_bytes().into()),
                    ("width", it.width.to_le_bytes().into()),
                    ("count", 3u16.to_le_bytes().into()),
                    ("dtype", vec![1]),
                    ("zero", vec![0]),
                ],
                "body",
                body,
            )
        }
        Message::Media(it) => (
            vec![
                ("sequence", it.sequence.to_le_bytes().into()),
                ("time_ns", it.time_ns.to_le_bytes().into()),
                ("clock", id(CLOCK.0)),
                ("stream", it.stream.0.to_le_bytes().into()),
                ("content", vec![1]),
                ("flags", vec![16]),
                ("zero", vec![0, 0]),
            ],
            "data",
            it.data.clone(),
        ),
        other => panic!("{:?} is no sample and no declaration", other.kind()),
    }
}

fn other_fields(
    message: &Message,
    positions: impl Fn(&[tendon_protocol::control::Position]) -> Vec<u8>,
) -> (Fields, &'static str, Vec<u8>) {
    match message {
        Message::Acknowledge(it) => (vec![], "positions", positions(&it.positions)),
        Message::Throttle(it) => (
            vec![("delay_ms", it.delay_ms.to_le_bytes().into()), ("limit", vec![4])],
            "text",
            it.text.clone().into_bytes(),
        ),
        Message::Mark(it) => (
            vec![
                ("sequence", it.sequence.to_le_bytes().into()),
                ("episode", it.episode.to_le_bytes().into()),
                ("time_ns", it.time_ns.to_le_bytes().into()),
                ("clock", id(CLOCK.0)),
                ("action", vec![1]),
                ("request", vec![0]),
            ],
            "instruction",
            it.instruction.clone().into_bytes(),
        ),
        Message::Lost(it) => (
            vec![
                ("sequence", it.sequence.to_le_bytes().into()),
                ("first", it.first.to_le_bytes().into()),
                ("last", it.last.to_le_bytes().into()),
                ("stream", it.stream.0.to_le_bytes().into()),
                ("reason", vec![2]),
            ],
            "",
            Vec::new(),
        ),
        Message::Probe(it) => (
            vec![
                ("id", it.id.to_le_bytes().into()),
                ("sent_ns", it.sent_ns.to_le_bytes().into()),
                ("received_ns", it.received_ns.to_le_bytes().into()),
                ("replied_ns", it.replied_ns.to_le_bytes().into()),
                ("wall_ns", it.wall_ns.to_le_bytes().into()),
                ("clock", id(CLOCK.0)),
                ("role", vec![2]),
            ],
            "",
            Vec::new(),
        ),
        Message::Goodbye(it) => (vec![("reason", vec![2])], "text", it.text.clone().into_bytes()),
        Message::Error(it) => (
            vec![
                ("sequence", it.sequence.to_le_bytes().into()),
                ("stream", it.stream.0.to_le_bytes().into()),
                ("code", vec![9]),
            ],
            "text",
            it.text.clone().into_bytes(),
        ),
        Message::Hello(_) | Message::Welcome(_) | Message::Declare(_) | Message::Batch(_) | Message::Media(_) => {
            unreachable!("in `fields`")
        }
    }
}

#[test]
fn the_page_tells_every_byte_of_every_payload() {
    let tables = tables();
    for (name, message) in one_of_each() {
        let table = tables.get(name).unwrap_or_else(|| panic!("docs/wire.md has no section {name}"));
        let golden = crate::golden::golden(name, &message.encode());
        let payload = &golden[ENVELOPE_BYTES..];
        let root_bytes = is_without_hole(table);
        let (fields, vector, vector_bytes) = fields(&message);
        assert_eq!(payload.len(), vector_bytes.len() + root_bytes, "{name}: vector first, then the root, nothing else");
        let (front, root) = payload.split_at(vector_bytes.len());
        assert_eq!(front, vector_bytes, "{name}: the vector's elements lie at the start");
        let mut told = fields.len();
        for (field, expected) in fields {
            let place = table.get(field).unwrap_or_else(|| panic!("docs/wire.md: {name} has no field {field}"));
            assert_eq!(&root[place.at..place.at + place.bytes], expected, "{name}: {field}");
        }
        if !vector.is_empty() {
            let elements = if vector == "positions" { vector_bytes.len() / 12 } else { vector_bytes.len() };
            let (pointer, length) = (table[&format!("{vector}.pointer")], table[&format!("{vector}.length")]);
            let expected = -i32::try_from(vector_bytes.len() + pointer.at).unwrap();
            assert_eq!(
                &root[pointer.at..][..4],
                expected.to_le_bytes(),
                "{name}: the pointer counts from its own position"
            );
            assert_eq!(
                &root[length.at..][..4],
                u32::try_from(elements).unwrap().to_le_bytes(),
                "{name}: elements, not bytes"
            );
            told += 2;
        }
        assert_eq!(told, table.len(), "{name}: docs/wire.md tells fields that the payload does not have");
    }
}

#[test]
fn the_page_tells_every_byte_of_the_envelope() {
    let table = &tables()["envelope"];
    assert_eq!(is_without_hole(table), ENVELOPE_BYTES);
    let mut names: Vec<(String, Message)> =
        one_of_each().into_iter().map(|(name, message)| (name.to_owned(), message)).collect();
    names.push(("batch_zstd".into(), Message::Batch(crate::samples::long_batch())));
    for (name, message) in names {
        let bytes = crate::golden::golden(&name, &message.encode_with(&mut tendon_protocol::envelope::Sealer::new()));
        let field = |field: &str| &bytes[table[field].at..][..table[field].bytes];
        let is_compressed = name == "batch_zstd";
        assert_eq!(field("magic"), MAGIC);
        assert_eq!(field("version"), [PROTOCOL_VERSION]);
        assert_eq!(field("kind"), [message.kind().code()]);
        assert_eq!(field("flags"), u16::to_le_bytes(if is_compressed { FLAG_ZSTD } else { 0 }));
        assert_eq!(field("schema"), message.kind().schema().to_le_bytes());
        assert_eq!(field("zero"), [0; 2]);
        assert_eq!(field("stored_bytes"), u32::try_from(bytes.len() - ENVELOPE_BYTES).unwrap().to_le_bytes());
        assert_eq!(field("original_bytes"), u32::try_from(message.to_payload().len()).unwrap().to_le_bytes());
        assert_eq!(field("reserved"), [0; 8]);
        let sum = [&bytes[..20], &bytes[24..]].concat();
        assert_eq!(field("checksum"), tendon_protocol::envelope::crc32c(&sum).to_le_bytes());
        assert!(Envelope::read(&bytes).is_ok());
    }
}

/// An empty vector points to where its elements would be: the start of the payload.
#[test]
fn an_empty_vector_points_to_the_start_of_the_payload() {
    let message = Message::Acknowledge(tendon_protocol::control::Acknowledge { positions: Vec::new() });
    assert_eq!(&message.to_payload()[..], [0, 0, 0, 0, 0, 0, 0, 0]);
    let message = Message::Goodbye(tendon_protocol::control::Goodbye {
        reason: tendon_protocol::control::GoodbyeReason::Done,
        text: String::new(),
    });
    assert_eq!(&message.to_payload()[..], [&[1][..], &(-1i32).to_le_bytes(), &[0; 4]].concat());
}

/// One content has one payload: the position of an empty vector is fixed too.
#[test]
fn an_empty_vector_that_points_elsewhere_is_refused() {
    let taken = |pointer: i32| {
        let payload = [&[1][..], &pointer.to_le_bytes(), &[0; 4]].concat();
        View::from_payload(Kind::Goodbye, &payload).is_ok()
    };
    let pointers: Vec<i32> = (-20..20).filter(|pointer| taken(*pointer)).collect();
    assert_eq!(pointers, [-1]);
}
