use super::*;

/// Appends until the log refuses; what was stored, and the refusal.
fn fill(writer: &mut Writer, of: u128, from: u64) -> (u64, AppendError) {
    let ledger = Ledger::default();
    for first in from.. {
        if let Err(refused) = writer.append(entry(of, first, 1000), ledger.line(first)) {
            writer.commit();
            assert_eq!(ledger.failed(), []);
            assert_eq!(ledger.stored().len() as u64, first - from);
            return (first, refused);
        }
        writer.commit();
        writer.tidy();
    }
    unreachable!()
}

#[test]
fn a_full_log_names_its_holders_and_goes_on_after_a_release() {
    let files = SimFiles::new(1);
    let (mut writer, _) = open(&files, 4);
    store(&mut writer, 7, 0..2, 1000);
    let (next, refused) = fill(&mut writer, 1, 0);
    let AppendError::Full { bytes, bytes_max, holders, .. } = &refused else { panic!("{refused}") };
    assert_eq!((*bytes, *bytes_max), (4 * SEGMENT, 4 * SEGMENT));
    assert_eq!(holders.iter().map(|holder| holder.session).collect::<Vec<_>>(), [session(1), session(7)]);
    assert_eq!(holders[1].bytes, 2 * 1056);
    assert!(refused.to_string().contains(&session(1).to_string()), "{refused}");
    assert!(matches!(writer.health(), Health::Full { .. }), "{}", writer.health());
    let (back, _) = refused.into_parts();
    assert_eq!(back, entry(1, next, 1000));

    writer.release(session(1), &[(StreamId(1), next / 2)]);
    writer.revive();
    writer.tidy();
    assert_eq!(writer.health(), Health::Accepting);
    store(&mut writer, 1, next..next + 4, 1000);
    assert_eq!(firsts(&writer, 7), [0, 1]);
    assert!(firsts(&writer, 1).ends_with(&[next - 1, next, next + 1, next + 2, next + 3]));
    assert_eq!(segment_files(&files).len(), 4);
}

/// The active segment is never free. A full log whose active segment holds the last released entries
/// would stay full for ever.
#[test]
fn a_full_log_gives_up_its_active_segment_when_all_of_it_is_released() {
    let files = SimFiles::new(2);
    let (mut writer, _) = open(&files, 2);
    store(&mut writer, 7, 0..1, 1000);
    let (next, _) = fill(&mut writer, 1, 0);
    writer.release_all(session(1));
    assert!(matches!(fill(&mut writer, 1, next), (again, AppendError::Full { .. }) if again == next));
    writer.revive();
    writer.tidy();
    store(&mut writer, 1, next..next + 3, 1000);
    assert_eq!(firsts(&writer, 7), [0]);
}

#[test]
fn released_segments_are_used_again() {
    let files = SimFiles::new(3);
    let (mut writer, _) = open(&files, 16);
    for round in 0..40 {
        store(&mut writer, 1, round * 10..round * 10 + 10, 1000);
        writer.release(session(1), &[(StreamId(1), round * 10 + 8)]);
        writer.tidy();
    }
    assert!(segment_files(&files).len() <= 5, "{:?}", segment_files(&files));
    assert_eq!(writer.positions(session(1))[&StreamId(1)], 400);
    let usage = writer.usage();
    assert_eq!(usage.bytes, segment_files(&files).len() as u64 * SEGMENT);
    assert!(usage.held_bytes < 10 * 1056, "{usage:?}");
    let (writer, report) = open(&files.crash(Crash::PowerLoss), 16);
    assert!(report.spares > 0 && report.entries < 20, "free segments stay free: {report:?}");
    assert!(firsts(&writer, 1).ends_with(&[398, 399]));
}

/// As long as only the header of the next segment says where a segment ends, that one is not reused.
#[test]
fn a_segment_that_tells_where_another_one_ends_is_kept() {
    let files = SimFiles::new(10);
    let (mut writer, _) = open(&files, 4);
    store(&mut writer, 1, 0..6, 1000);
    store(&mut writer, 2, 0..6, 1000);
    store(&mut writer, 3, 0..1, 1000);
    files.fill_up(true);
    writer.release_all(session(3));
    // Seals the segment of session 3, whose header tells where those of 1 and 2 end.
    writer.revive();
    assert!(!writer.tidy(), "no index file can be written");
    assert_eq!((writer.usage().segments, writer.usage().spares), (3, 0));
    files.fill_up(false);
    assert!(writer.tidy());
    assert_eq!(writer.usage().segments, 2);
    assert_eq!(firsts(&writer, 1), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_session_that_is_released_as_a_whole_leaves_nothing_behind() {
    let (mut writer, _) = open(&SimFiles::new(4), 16);
    for number in 0..100 {
        store(&mut writer, number, 0..1, 1000);
        assert_eq!(writer.sessions(), [session(number)]);
        writer.release_all(session(number));
        writer.tidy();
    }
    assert_eq!(writer.sessions(), []);
    assert_eq!(writer.usage().holders, []);
    let known = (0..100).filter(|number| !writer.positions(session(*number)).is_empty()).count();
    assert!(known <= 6, "{known} sessions are still known; only those of the active segment may be");
}

#[test]
fn a_failed_sync_seals_the_segment_and_its_group_goes_elsewhere() {
    for seed in 0..100 {
        let files = SimFiles::new(seed);
        let (mut writer, _) = open(&files, 16);
        store(&mut writer, 1, 0..2, 1000);
        files.fail_sync_in(Some(0));
        store(&mut writer, 1, 2..3, 1000);
        let mut before = vec![0; SEGMENT as usize];
        let first = files.open(&in_log("segment-00000000.log")).unwrap();
        first.read_at(&mut before, 0).unwrap();
        store(&mut writer, 1, 3..6, 1000);
        let mut after = vec![0; SEGMENT as usize];
        first.read_at(&mut after, 0).unwrap();
        assert!(before == after, "the segment was written again after its sync failed");
        assert_eq!(firsts(&writer, 1), [0, 1, 2, 3, 4, 5]);
        let (writer, report) = open(&files.crash(Crash::PowerLoss), 16);
        assert_eq!(firsts(&writer, 1), [0, 1, 2, 3, 4, 5]);
        assert_eq!((report.damage, report.torn), (vec![], vec![]), "the next segment tells where this one ends");
    }
}

#[test]
fn a_segment_whose_sync_failed_is_removed_and_not_used_again() {
    let files = SimFiles::new(11);
    let (mut writer, _) = open(&files, 16);
    files.fail_sync_in(Some(3));
    // Two syncs make the file and one opens it; the next is that of the first group.
    store(&mut writer, 1, 0..1, 1000);
    assert_eq!(segment_files(&files), ["segment-00000000.log", "segment-00000001.log"]);
    writer.release_all(session(1));
    writer.tidy();
    assert_eq!(segment_files(&files), ["segment-00000001.log"]);
}

#[test]
fn a_second_failure_in_a_row_fails_the_group_and_not_the_log() {
    for seed in 0..20 {
        let files = SimFiles::new(seed);
        let (mut writer, _) = open(&files, 16);
        store(&mut writer, 1, 0..1, 1000);
        let ledger = Ledger::default();
        files.fail_syncs(0, 2);
        writer.append(entry(1, 1, 1000), ledger.line(1)).unwrap();
        writer.commit();
        assert_eq!(ledger.failed().len(), 1);
        writer.revive();
        writer.forgive(session(1));
        store(&mut writer, 1, 1..3, 1000);
        let (writer, _) = open(&files.crash(Crash::PowerLoss), 16);
        assert_eq!(firsts(&writer, 1), [0, 1, 2]);
    }
}

#[test]
fn a_disk_that_fails_every_sync_stops_the_log_until_it_works_again() {
    let files = SimFiles::new(5);
    let (mut writer, _) = open(&files, 16);
    store(&mut writer, 1, 0..2, 1000);
    files.fail_all_syncs(true);
    let ledger = Ledger::default();
    writer.append(entry(1, 2, 1000), ledger.line(2)).unwrap();
    writer.append(entry(2, 0, 1000), ledger.line(0)).unwrap();
    writer.commit();
    assert_eq!(ledger.failed().len(), 2);
    assert!(matches!(writer.health(), Health::NotAccepting { .. }));
    let refused = writer.append(entry(1, 3, 1000), ledger.line(3)).unwrap_err();
    assert!(
        matches!(&refused, AppendError::NotAccepting { reason, .. } if reason.contains("check the disk")),
        "{refused}"
    );
    writer.revive();
    assert!(matches!(writer.health(), Health::NotAccepting { .. }));
    files.fail_all_syncs(false);
    writer.revive();
    assert_eq!(writer.health(), Health::Accepting);
    assert_eq!(writer.positions(session(1))[&StreamId(1)], 2);
    writer.forgive(session(1));
    store(&mut writer, 1, 2..4, 1000);
    assert_eq!(firsts(&writer, 1), [0, 1, 2, 3]);
}

#[test]
fn nothing_of_a_session_is_stored_behind_its_failed_entry() {
    let files = SimFiles::new(6);
    let (mut writer, _) = open(&files, 16);
    let ledger = Ledger::default();
    files.fail_all_syncs(true);
    writer.append(entry(1, 0, 1000), ledger.line(0)).unwrap();
    writer.commit();
    files.fail_all_syncs(false);
    writer.revive();
    writer.append(entry(1, 1, 1000), ledger.line(1)).unwrap();
    store(&mut writer, 2, 0..1, 1000);
    assert_eq!(ledger.stored(), Vec::<u64>::new());
    assert!(ledger.failed()[1].1.contains("was not stored"), "{:?}", ledger.failed());
    writer.forgive(session(1));
    store(&mut writer, 1, 0..2, 1000);
    assert_eq!(firsts(&writer, 1), [0, 1]);
}

#[test]
fn an_old_pardon_does_not_cover_a_later_failure() {
    let files = SimFiles::new(7);
    let (mut writer, _) = open(&files, 16);
    let ledger = Ledger::default();
    writer.forgive(session(1));
    files.fail_all_syncs(true);
    writer.append(entry(1, 0, 1000), ledger.line(0)).unwrap();
    writer.commit();
    files.fail_all_syncs(false);
    writer.revive();
    writer.append(entry(1, 1, 1000), ledger.line(1)).unwrap();
    writer.commit();
    assert_eq!(ledger.failed().len(), 2);
    assert_eq!(firsts(&writer, 1), Vec::<u64>::new());
}

#[test]
fn a_full_disk_stops_the_log_before_anything_fails_and_space_brings_it_back() {
    let files = SimFiles::new(8);
    let (mut writer, _) = open(&files, 64);
    store(&mut writer, 1, 0..2, 1000);
    files.fill_up(true);
    let (next, refused) = fill(&mut writer, 1, 2);
    assert!(
        matches!(&refused, AppendError::NotAccepting { reason, .. } if reason.contains("no space left")),
        "{refused}"
    );
    assert!(matches!(writer.health(), Health::NotAccepting { .. }), "{}", writer.health());
    assert_eq!(firsts(&writer, 1).len() as u64, next, "reads go on");
    files.fill_up(false);
    writer.revive();
    writer.tidy();
    assert_eq!(writer.health(), Health::Accepting);
    store(&mut writer, 1, next..next + 10, 1000);
}

#[test]
fn an_entry_that_can_never_be_stored_comes_back_at_once() {
    let (mut writer, _) = open(&SimFiles::new(9), 8);
    let ledger = Ledger::default();
    let no_samples = Entry { count: 0, ..entry(1, 0, 8) };
    let past_the_end = Entry { first: u64::MAX, ..entry(1, 0, 8) };
    for wrong in [no_samples, past_the_end, entry(1, 0, SEGMENT as usize)] {
        let refused = writer.append(wrong.clone(), ledger.line(0)).unwrap_err();
        assert!(matches!(refused, AppendError::Unstorable { .. }), "{refused}");
        assert_eq!(refused.into_parts().0, wrong);
    }
    let longest = SEGMENT as usize - 8192 - 96;
    store(&mut writer, 1, 0..3, longest);
    assert_eq!(firsts(&writer, 1), [0, 1, 2]);
}

#[test]
fn a_segment_that_is_being_read_is_not_used_again() {
    let files = SimFiles::new(12);
    let (mut writer, _) = open(&files, 4);
    store(&mut writer, 1, 0..7, 1000);
    let reading = writer.catalogue().index().places(session(1), StreamId(1), 0, 1);
    writer.release_all(session(1));
    writer.tidy();
    assert_eq!(writer.usage().spares, 0);
    drop(reading);
    writer.tidy();
    assert_eq!(writer.usage().spares, 1);
}

proptest! {
    /// Entries wait in the queue after they were taken. All that is taken must find room, whatever
    /// is left unused at the ends of segments.
    #[test]
    fn what_a_nearly_full_log_takes_it_can_store(
        lengths in proptest::collection::vec(prop_oneof![0..200usize, 0..5000usize, 0..24_000usize], 1..300),
        commits in proptest::collection::vec(1..40usize, 1..10),
    ) {
        let (mut writer, _) = open(&SimFiles::new(13), 4);
        let ledger = Ledger::default();
        let mut taken = 0;
        let mut lengths = lengths.into_iter();
        for at_once in commits.into_iter().cycle() {
            let mut waiting = Vec::new();
            while let Some(length) = lengths.next().filter(|_| waiting.len() < at_once) {
                match writer.catalogue().admit(entry(1, taken, length), ledger.line(taken)) {
                    Ok(item) => waiting.push(item),
                    Err(AppendError::Full { .. }) => continue,
                    Err(refused) => return Err(TestCaseError::fail(refused.to_string())),
                }
                taken += 1;
            }
            let is_last = waiting.is_empty();
            waiting.into_iter().for_each(|item| writer.push(item));
            writer.commit();
            writer.tidy();
            if is_last {
                break;
            }
        }
        prop_assert_eq!(ledger.failed(), vec![]);
        prop_assert_eq!(ledger.stored(), (0..taken).collect::<Vec<_>>());
    }
}
