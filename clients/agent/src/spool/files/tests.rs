use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use tendon_protocol::envelope::{Kind, seal};

const LIMITS: Limits = Limits { segment_bytes: 2000, file_bytes_max: 20_000, fsync: false };

fn head(order: u64, stream: u32) -> Head {
    Head {
        order,
        first: order * 3,
        stream: StreamId(stream),
        count: 3,
        provisional: order.is_multiple_of(2),
        clock: ClockId::from_u128(u128::from(order)),
    }
}

fn message(length: usize, byte: u8) -> Vec<u8> {
    seal(Kind::Lost, &vec![byte; length])
}

fn open(folder: &Path) -> (SpoolFiles, Vec<Found>) {
    SpoolFiles::open(folder, LIMITS).unwrap()
}

fn segment_files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    paths.sort();
    paths
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Forget(usize),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![6 => (0usize..700).prop_map(Op::Append), 3 => any::<usize>().prop_map(Op::Forget), 1 => Just(Op::Reopen)]
}

proptest! {
    /// What was kept and not forgotten is there, byte for byte, however often the folder is opened, and the limit holds.
    #[test]
    fn kept_messages_come_back_and_the_limit_holds(ops in vec(op(), 1..80)) {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, found) = open(folder.path());
        prop_assert!(found.is_empty());
        let mut kept: Vec<(Head, Vec<u8>, Place)> = Vec::new();
        let mut forgotten = std::collections::BTreeSet::new();
        for (order, op) in ops.into_iter().enumerate() {
            match op {
                Op::Append(length) => {
                    let (head, message) = (head(order as u64, 1), message(length, order as u8));
                    match files.append(head, &message) {
                        Ok(place) => kept.push((head, message, place)),
                        Err(error) => {
                            prop_assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                            prop_assert!(files.bytes() + (message.len() + HEAD_BYTES) as u64 > LIMITS.file_bytes_max);
                        }
                    }
                }
                Op::Forget(which) if !kept.is_empty() => {
                    let (head, _, place) = kept.remove(which % kept.len());
                    forgotten.insert(head.order);
                    files.forget(place);
                }
                Op::Forget(_) => {}
                Op::Reopen => {
                    drop(files);
                    let (again, found) = open(folder.path());
                    files = again;
                    prop_assert_eq!(files.cut_bytes, 0);
                    // A forgotten record may come back while its segment holds others: it is only sent again.
                    let mut places: BTreeMap<u64, Found> = found.into_iter().map(|found| (found.head.order, found)).collect();
                    for (head, _, place) in &mut kept {
                        let found = places.remove(&head.order).expect("kept records are found");
                        prop_assert_eq!(&found.head, head);
                        *place = found.place;
                    }
                    for (order, found) in places {
                        prop_assert!(forgotten.contains(&order), "record {order} was never kept");
                        files.forget(found.place);
                    }
                }
            }
            prop_assert!(files.bytes() <= LIMITS.file_bytes_max);
            let on_disk: u64 = segment_files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
            prop_assert_eq!(on_disk, files.bytes());
            for (_, message, place) in &kept {
                prop_assert_eq!(&files.reading(*place).unwrap().read().unwrap(), message);
            }
        }
        kept.drain(..).for_each(|(_, _, place)| files.forget(place));
        files.tidy();
        prop_assert_eq!(files.bytes(), 0);
        prop_assert!(segment_files(folder.path()).is_empty());
    }

    /// Wherever the last segment is cut or damaged, the records in front come back, and it can be written on.
    #[test]
    fn a_torn_tail_is_cut_and_nothing_else(lengths in vec(0usize..200, 1..8), cut in any::<proptest::sample::Index>(), damage in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = open(folder.path());
        let mut ends = Vec::new();
        for (order, length) in lengths.iter().enumerate() {
            files.append(head(order as u64, 0), &message(*length, order as u8)).unwrap();
            ends.push(files.bytes());
        }
        prop_assume!(segment_files(folder.path()).len() == 1);
        drop(files);
        let path = segment_files(folder.path()).remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = cut.index(bytes.len());
        if damage { bytes[at] ^= 0x10 } else { bytes.truncate(at) }
        std::fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().take_while(|end| **end <= at as u64).count();
        let (mut files, found) = open(folder.path());
        prop_assert_eq!(found.iter().map(|found| found.head.order).collect::<Vec<_>>(), (0..whole as u64).collect::<Vec<_>>());
        prop_assert_eq!(files.cut_bytes, bytes.len() as u64 - ends[..whole].last().copied().unwrap_or(0));
        let place = files.append(head(99, 1), &message(10, 1)).unwrap();
        prop_assert_eq!(files.reading(place).unwrap().read().unwrap(), message(10, 1));
        drop(files);
        prop_assert_eq!(open(folder.path()).1.len(), whole + 1);
    }

    #[test]
    fn any_bytes_are_opened_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("0000000000000007.spool"), &bytes).unwrap();
        let (files, found) = open(folder.path());
        prop_assert!(found.is_empty());
        prop_assert_eq!(files.cut_bytes, bytes.len() as u64);
    }
}

#[test]
fn a_message_over_the_limit_of_the_wire_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, _) = SpoolFiles::open(folder.path(), Limits { file_bytes_max: 1 << 30, ..LIMITS }).unwrap();
    let error = files.append(head(0, 1), &vec![0; MESSAGE_BYTES_MAX + 1]).unwrap_err();
    assert!(error.to_string().contains("over"));
    assert_eq!(files.bytes(), 0);
}

#[test]
fn the_message_of_a_journal_record_comes_back_with_it_and_others_stay_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut files, _) = open(folder.path());
    files.append(head(0, 0), &message(20, 7)).unwrap();
    files.append(head(1, 1), &message(20, 8)).unwrap();
    drop(files);
    let (_, found) = open(folder.path());
    assert_eq!(found[0].journal, Some(message(20, 7)));
    assert_eq!(found[1].journal, None);
}
