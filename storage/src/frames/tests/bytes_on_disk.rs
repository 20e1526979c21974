use super::super::format::{Header, Run, Seal, push_record, read_record};
use super::super::sidecar::{IndexEntry, SegmentIndex, Subject};
use super::*;
use proptest::collection::vec;
use proptest::sample::Index;

fn any_entry() -> impl Strategy<Value = Entry> {
    let ids = (any::<u128>(), any::<u32>());
    (ids, any::<u64>(), any::<u32>(), any::<u64>(), vec(any::<u8>(), 0..300)).prop_map(
        |((session, stream), first, count, epoch, payload)| Entry {
            session: SessionId::from_u128(session),
            stream: StreamId(stream),
            first,
            count,
            epoch,
            payload: payload.into(),
        },
    )
}

fn any_header() -> impl Strategy<Value = Header> {
    let seals = vec((any::<u64>(), any::<u64>()).prop_map(|(birth, end)| Seal { birth, end }), 0..8);
    (any::<u64>(), any::<u64>(), vec(any::<(u64, u64)>(), 0..8), seals).prop_map(|(stamp, number, runs, seals)| {
        let last = runs.len().saturating_sub(1);
        let place = |at: usize| ((at as u32 + 2) * 4096, if at == last { 0 } else { (at as u32 + 2) * 4096 + 96 });
        let runs = runs.into_iter().enumerate().map(|(at, (generation, salt))| {
            let (start, end) = place(at);
            Run { generation, salt, start, end }
        });
        Header { stamp, number, length: 1 << 20, runs: runs.collect(), seals }
    })
}

proptest! {
    /// A record comes back; cut, changed anywhere, or under another generation it is refused.
    #[test]
    fn a_record_comes_back_whole_or_not_at_all(entry in any_entry(), seed in any::<u32>(), at in any::<Index>(), bit in 0..8u8) {
        let mut bytes = Vec::new();
        push_record(&mut bytes, &entry, seed);
        let end = 56 + entry.payload.len();
        let head = read_record(&bytes, seed).unwrap();
        prop_assert_eq!((head.session, head.stream, head.first), (entry.session, entry.stream, entry.first));
        prop_assert_eq!((head.count, head.epoch, head.payload as usize), (entry.count, entry.epoch, entry.payload.len()));
        prop_assert_eq!(&bytes[56..end], &entry.payload[..]);
        prop_assert!(read_record(&bytes, seed.wrapping_add(1)).is_err());
        prop_assert!(read_record(&bytes[..at.index(end)], seed).is_err());
        bytes[at.index(end)] ^= 1 << bit;
        prop_assert!(read_record(&bytes, seed).is_err());
    }

    #[test]
    fn a_header_comes_back_whole_or_not_at_all(header in any_header(), at in any::<Index>(), bit in 0..8u8) {
        let mut block = header.encode();
        prop_assert_eq!(Header::decode(&block), Some(header));
        let at = at.index(block.len());
        block[at] ^= 1 << bit;
        // The two spare bytes after the version are under the checksum as well.
        prop_assert_eq!(Header::decode(&block), None);
    }

    #[test]
    fn an_index_file_comes_back_whole_or_not_at_all(
        streams in proptest::collection::btree_map((any::<u128>(), any::<u32>()), vec(any::<(u64, u64, u32, u32, u32)>(), 1..5), 0..5),
        at in any::<Index>(),
        bit in 0..8u8,
    ) {
        let subject = Subject { number: 3, birth: 4, end: 8192 };
        let index = SegmentIndex::new(streams.into_iter().map(|((session, stream), entries)| {
            let entries = entries.into_iter().map(|(first, epoch, offset, payload, count)| IndexEntry { first, epoch, offset, payload, count });
            ((SessionId::from_u128(session), StreamId(stream)), entries.collect())
        }).collect());
        let mut bytes = index.encode(subject);
        prop_assert_eq!(SegmentIndex::decode(&bytes, subject), Some(index));
        prop_assert_eq!(SegmentIndex::decode(&bytes, Subject { birth: 5, ..subject }), None);
        prop_assert_eq!(SegmentIndex::decode(&bytes[..at.index(bytes.len())], subject), None);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(SegmentIndex::decode(&bytes, subject), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_in_the_folder_make_the_log_panic(bytes in vec(any::<u8>(), 0..20_000), zeros in 0..3usize) {
        let mut file = vec![0; zeros * 4096];
        file.extend_from_slice(&bytes);
        fuzz_segment(&file);
    }
}

#[test]
fn a_header_that_breaks_its_own_rules_is_refused() {
    let run = |start, end| Run { generation: 1, salt: 2, start, end };
    let header = |runs| Header { stamp: 1, number: 1, length: 1 << 20, runs, seals: Vec::new() };
    for runs in [
        vec![run(4096, 0)],
        vec![run(8192, 0), run(12288, 0)],
        vec![run(8192, 20000)],
        vec![run(8192, 8000), run(12288, 0)],
        vec![run(8192, 20000), run(12288, 0)],
        vec![run(8193, 0)],
        vec![run(2 << 20, 0)],
    ] {
        assert_eq!(Header::decode(&header(runs.clone()).encode()), None, "{runs:?}");
    }
    assert!(Header::decode(&header(vec![run(8192, 12000), run(12288, 0)]).encode()).is_some());
}
