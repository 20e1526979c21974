use super::*;

#[test]
fn a_start_finds_what_was_stored_and_goes_on_in_the_same_segment() {
    let files = SimFiles::new(1);
    let (mut writer, report) = open(&files, 8);
    assert_eq!(report, RecoveryReport::default());
    store(&mut writer, 1, 0..3, 1000);
    let files = files.crash(Crash::PowerLoss);
    let (mut writer, report) = open(&files, 8);
    assert_eq!((report.segments, report.entries, report.bytes), (1, 3, 3000));
    assert!(report.torn.is_empty() && report.damage.is_empty(), "{report}");
    assert_eq!(writer.positions(session(1)), BTreeMap::from([(StreamId(1), 3)]));
    store(&mut writer, 1, 3..5, 1000);
    assert_eq!(firsts(&writer, 1), [0, 1, 2, 3, 4]);
    assert_eq!(writer.usage().segments, 1);
}

/// Found in a segment without a word about where its tail is: everything before the garbage counts.
#[test]
fn recovery_stops_at_garbage_and_says_where() {
    let files = SimFiles::new(2);
    let (mut writer, _) = open(&files, 8);
    store(&mut writer, 1, 0..2, 1000);
    let ledger = Ledger::default();
    for first in 2..5 {
        writer.append(entry(1, first, 1000), ledger.line(first)).unwrap();
    }
    writer.commit();
    drop(writer);
    // In the payload of the second record of the third group.
    let offset = 8192 + 2 * 4096;
    let second = offset + 32 + 1056;
    files.overwrite(&in_log("segment-00000000.log"), second + 60, b"garbage").unwrap();
    let (mut writer, report) = open(&files, 8);
    assert_eq!(report.torn, [TornTail { segment: 0, offset: second as u64, bytes: 2 * 1056 }]);
    assert_eq!(report.damage, []);
    assert_eq!(firsts(&writer, 1), [0, 1, 2]);
    // The fourth entry is whole on the disk. It must not come back behind the cut.
    store(&mut writer, 1, 3..4, 100);
    drop(writer);
    let (writer, report) = open(&files, 8);
    assert_eq!(report.entries, 4);
    assert_eq!(firsts(&writer, 1), [0, 1, 2, 3]);
}

#[test]
fn records_of_an_older_generation_behind_a_torn_tail_are_refused() {
    let files = SimFiles::new(3);
    let (mut writer, _) = open(&files, 8);
    // Two segments, one group a block, so that groups of two generations start at the same places.
    store(&mut writer, 1, 0..8, 1000);
    writer.release_all(session(1));
    writer.tidy();
    assert_eq!(segment_files(&files).len(), 2, "{:?}", segment_files(&files));
    store(&mut writer, 2, 0..6, 1000);
    assert_eq!(segment_files(&files).len(), 2, "the free segment is used again");
    drop(writer);
    let mut block = [0; 4];
    let reused = files.open(&in_log("segment-00000000.log")).unwrap();
    reused.read_at(&mut block, 8192 + 5 * 4096).unwrap();
    assert_eq!(&block, b"TGRP", "a group of the first use lies behind the new ones");
    let (writer, report) = open(&files, 8);
    assert_eq!(firsts(&writer, 2), [0, 1, 2, 3, 4, 5]);
    assert_eq!(firsts(&writer, 1), [6, 7], "what shares a segment with session 2");
    assert_eq!(report.entries, 8);
}

/// Batches of one size lie at the same places in every use of a segment. When the power goes while a
/// group is written, its first block may be new and the others those of the use before.
#[test]
fn a_group_of_which_only_the_first_block_is_new_ends_with_that_block() {
    let files = SimFiles::new(9);
    let (mut writer, _) = open(&files, 8);
    let group = |writer: &mut Writer, of: u128| {
        let ledger = Ledger::default();
        for first in 0..20 {
            writer.append(entry(of, first, 960), ledger.line(first)).unwrap();
        }
        writer.commit();
        assert_eq!(ledger.stored().len(), 20);
    };
    // Four records and the group's header are one block: the next block starts with a record.
    group(&mut writer, 1);
    let name = in_log("segment-00000000.log");
    let mut old = vec![0; SEGMENT as usize];
    files.open(&name).unwrap().read_at(&mut old, 0).unwrap();
    writer.release_all(session(1));
    // Seals the active segment, since all of it is released.
    writer.revive();
    writer.tidy();
    group(&mut writer, 2);
    drop(writer);
    assert_eq!(segment_files(&files).len(), 1);
    files.overwrite(&name, 8192 + 4096, &old[8192 + 4096..]).unwrap();
    let (writer, report) = open(&files, 8);
    assert_eq!(firsts(&writer, 2), [0, 1, 2, 3]);
    assert_eq!(writer.sessions(), [session(2)]);
    assert_eq!(report.torn, [TornTail { segment: 0, offset: 8192 + 4096, bytes: 16 * 1016 }]);
}

#[test]
fn damage_in_a_sealed_segment_is_told_and_the_rest_is_read() {
    let files = SimFiles::new(4);
    let (mut writer, _) = open(&files, 8);
    store(&mut writer, 1, 0..20, 1000);
    // No index file was written: the segments are read as a whole at the next start.
    drop(writer);
    files.overwrite(&in_log("segment-00000001.log"), 8192 + 4096 + 100, b"rot").unwrap();
    let (writer, report) = open(&files, 8);
    assert_eq!(report.torn, []);
    assert_eq!(report.damage.len(), 1, "{report}");
    assert_eq!((report.damage[0].segment, report.damage[0].offset), (1, 8192 + 4096 + 32));
    assert_eq!(firsts(&writer, 1), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    assert_eq!(writer.positions(session(1))[&StreamId(1)], 20, "the hole is not taken for the end");
}

#[test]
fn a_read_of_damaged_bytes_names_segment_and_offset() {
    let files = SimFiles::new(5);
    let (mut writer, _) = open(&files, 8);
    store(&mut writer, 1, 0..20, 1000);
    writer.tidy();
    files.overwrite(&in_log("segment-00000001.log"), 8192 + 4096 + 100, b"rot").unwrap();
    assert_eq!(writer.read(session(1), StreamId(1), 8, 20).unwrap().len(), 12);
    let error = writer.read(session(1), StreamId(1), 0, 20).unwrap_err();
    assert!(matches!(error, LogError::Damaged { segment: 1, offset: 12320, .. }), "{error}");
}

#[test]
fn an_index_file_that_is_gone_or_bad_is_made_again() {
    let files = SimFiles::new(6);
    let (mut writer, _) = open(&files, 8);
    store(&mut writer, 1, 0..20, 1000);
    writer.tidy();
    let indexes = |files: &SimFiles| {
        let mut names = files.list(Path::new("log")).unwrap();
        names.retain(|name| name.ends_with(".idx"));
        names.sort();
        names
    };
    let names = indexes(&files);
    assert_eq!(names.len(), 3);
    let whole = (0..20).collect::<Vec<_>>();
    files.remove(&in_log(&names[0])).unwrap();
    files.overwrite(&in_log(&names[1]), 60, b"bad").unwrap();
    assert_eq!(firsts(&writer, 1), whole, "while the log is open");
    drop(writer);
    let (writer, report) = open(&files, 8);
    assert_eq!(report.indexes_rebuilt, 2);
    assert_eq!(firsts(&writer, 1), whole);
    writer.tidy();
    assert_eq!(indexes(&files), names);
    let (writer, report) = open(&files, 8);
    assert_eq!(report.indexes_rebuilt, 0);
    assert_eq!(firsts(&writer, 1), whole);
}

#[test]
fn a_segment_whose_headers_are_gone_is_told_and_left_alone() {
    let files = SimFiles::new(7);
    let (mut writer, _) = open(&files, 8);
    store(&mut writer, 1, 0..20, 1000);
    writer.tidy();
    drop(writer);
    let name = in_log("segment-00000001.log");
    for slot in [0, 4096] {
        files.overwrite(&name, slot, &[0xff; 64]).unwrap();
    }
    let (mut writer, report) = open(&files, 8);
    assert_eq!(report.damage.len(), 1, "{report}");
    assert_eq!(report.damage[0].segment, 1);
    store(&mut writer, 1, 20..30, 1000);
    assert!(files.open(&name).is_ok());
}

#[test]
fn a_segment_that_became_zeros_is_told_and_not_taken_for_an_unfinished_one() {
    let files = SimFiles::new(10);
    let (mut writer, _) = open(&files, 8);
    store(&mut writer, 1, 0..20, 1000);
    writer.tidy();
    drop(writer);
    let name = in_log("segment-00000001.log");
    files.overwrite(&name, 0, &[0; SEGMENT as usize]).unwrap();
    let (_, report) = open(&files, 8);
    assert_eq!(report.damage.len(), 1, "{report}");
    assert!(files.open(&name).is_ok());
}

/// A killed process leaves what was written and not synced in the system's cache. A start that takes
/// it for durable would tell a producer to forget it.
#[test]
fn what_a_start_finds_survives_a_power_loss_right_after() {
    for seed in 0..50 {
        let files = SimFiles::new(seed);
        let (mut writer, _) = open(&files, 8);
        store(&mut writer, 1, 0..2, 1000);
        writer.append(entry(1, 2, 1000), Ledger::default().line(2)).unwrap();
        // Power goes between the write and its sync.
        files.power_off_after(Some(1));
        writer.commit();
        drop(writer);
        let files = files.crash(Crash::Kill);
        let (writer, _) = open(&files, 8);
        let found = firsts(&writer, 1);
        let files = files.crash(Crash::PowerLoss);
        let (writer, _) = open(&files, 8);
        assert!(firsts(&writer, 1).starts_with(&found), "seed {seed}: {found:?} were there");
    }
}

#[test]
fn many_starts_share_segments() {
    let mut files = SimFiles::new(8);
    for start in 0..200 {
        let (mut writer, report) = open(&files, 64);
        assert_eq!(report.entries, start);
        store(&mut writer, 1, start..start + 1, 100);
        files = files.crash(Crash::PowerLoss);
    }
    assert_eq!(
        segment_files(&files).len(),
        40,
        "200 groups of a block; a segment with one block left takes no new run"
    );
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |change: fn(&mut LogConfig)| {
        let mut config = config(8);
        change(&mut config);
        match Writer::open(config, Arc::new(SimFiles::new(1))) {
            Err(LogError::Config(text)) => text,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    };
    assert!(refused(|config| config.segment_bytes = 4096).contains("log.segment_bytes"));
    assert!(refused(|config| config.segment_bytes = 2 << 30).contains("log.segment_bytes"));
    assert!(refused(|config| config.frames_bytes_max = SEGMENT).contains("log.frames_bytes_max"));
    assert!(refused(|config| config.queue_entries = 0).contains("log.queue_entries"));
}
