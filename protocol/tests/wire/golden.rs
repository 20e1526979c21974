//! The bytes of one message of each kind lie in `tests/golden`. A change of the format fails here.
//!
//! `TENDON_WRITE_GOLDEN=1 cargo test -p tendon-protocol --test wire` writes them anew; only a new
//! protocol version or schema id may do that to a file that was released.

use std::fs;
use std::path::PathBuf;

use tendon_protocol::envelope::{Envelope, Kind, Sealer};
use tendon_protocol::message::Message;

use crate::samples::{long_batch, one_of_each};

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(format!("{name}.bin"))
}

/// The golden bytes of a name; `made` is written first when asked for.
pub fn golden(name: &str, made: &[u8]) -> Vec<u8> {
    let path = path(name);
    if std::env::var_os("TENDON_WRITE_GOLDEN").is_some() {
        fs::write(&path, made).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
    fs::read(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}; write it with TENDON_WRITE_GOLDEN=1", path.display()))
}

#[test]
fn each_kind_is_encoded_to_its_golden_bytes_and_read_back_from_them() {
    let all = one_of_each();
    assert_eq!(all.iter().map(|(_, message)| message.kind()).collect::<Vec<_>>(), Kind::ALL);
    for (name, message) in all {
        let made = message.encode();
        let golden = golden(name, &made);
        assert_eq!(
            made, golden,
            "{name}: the bytes of a released layout never change; a new layout takes a new schema id"
        );
        assert_eq!(Message::decode(&golden).as_ref(), Ok(&message), "{name}");
    }
}

/// What a compressor makes may change with its version; what is read from it may not.
#[test]
fn a_compressed_batch_is_read_back_from_its_golden_bytes() {
    let message = Message::Batch(long_batch());
    let made = message.encode_with(&mut Sealer::new());
    let golden = golden("batch_zstd", &made);
    for bytes in [&made, &golden] {
        let (envelope, stored) = Envelope::read(bytes).unwrap();
        assert!(envelope.compressed && stored.len() < envelope.original_bytes as usize);
        assert_eq!(Message::decode(bytes).as_ref(), Ok(&message));
    }
}

#[test]
fn no_golden_file_is_left_without_a_test() {
    let mut expected: Vec<String> = one_of_each().iter().map(|(name, _)| format!("{name}.bin")).collect();
    expected.push("batch_zstd.bin".into());
    expected.sort();
    let mut found: Vec<String> = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected);
}
