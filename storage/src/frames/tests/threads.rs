use crossbeam::channel::{Sender, bounded};

use super::*;

struct Tell(Sender<Result<u64, String>>, u64);

impl Completion for Tell {
    fn done(self: Box<Self>, outcome: Result<(), Arc<LogError>>) {
        self.0.send(outcome.map(|()| self.1).map_err(|error| error.to_string())).unwrap();
    }
}

fn real(directory: &Path) -> LogConfig {
    LogConfig { segment_bytes: 256 << 10, frames_bytes_max: 64 << 20, ..LogConfig::new(directory.join("log")) }
}

/// Appends, waiting when the queue is full, as the session's actor does.
fn append(log: &FrameLog, mut entry: Entry, mut completion: Box<dyn Completion>) {
    while let Err(refused) = log.append(entry, completion) {
        assert!(refused.is_queue_full(), "{refused}");
        (entry, completion) = refused.into_parts();
        thread::yield_now();
    }
}

#[test]
fn entries_of_several_threads_are_acknowledged_in_order_and_read_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = FrameLog::open(real(folder.path()), Arc::new(RealFiles)).unwrap();
    thread::scope(|scope| {
        for of in 0..4 {
            let log = &log;
            scope.spawn(move || {
                let (told, tells) = bounded(500);
                for first in 0..500 {
                    append(log, entry(of, first, 2000), Box::new(Tell(told.clone(), first)));
                }
                assert_eq!(tells.iter().take(500).collect::<Vec<_>>(), (0..500).map(Ok).collect::<Vec<_>>());
            });
        }
    });
    assert_eq!(log.sessions().len(), 4);
    assert!(log.usage().segments > 10, "{:?}", log.usage());
    let check = |log: &FrameLog| {
        for of in 0..4 {
            let stored = log.read(session(of), StreamId(1), 100, 400).unwrap();
            assert_eq!(stored.iter().map(|stored| stored.first).collect::<Vec<_>>(), (100..400).collect::<Vec<_>>());
            assert!(stored.iter().all(|stored| stored.payload == entry(of, stored.first, 2000).payload));
            assert_eq!(log.positions(session(of)), BTreeMap::from([(StreamId(1), 500)]));
        }
    };
    check(&log);
    log.close();
    let (log, report) = FrameLog::open(real(folder.path()), Arc::new(RealFiles)).unwrap();
    assert_eq!((report.entries, report.damage.len(), report.torn.len()), (2000, 0, 0), "{report}");
    check(&log);
}

#[test]
fn closing_stores_all_that_was_appended() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = FrameLog::open(real(folder.path()), Arc::new(RealFiles)).unwrap();
    let ledger = Ledger::default();
    for first in 0..1000 {
        append(&log, entry(1, first, 500), ledger.line(first));
    }
    log.close();
    assert_eq!(ledger.stored(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_second_log_in_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = FrameLog::open(real(folder.path()), Arc::new(RealFiles)).unwrap();
    let second = FrameLog::open(real(folder.path()), Arc::new(RealFiles)).err().unwrap();
    assert!(matches!(second, LogError::Locked { .. }), "{second}");
    log.close();
    assert!(FrameLog::open(real(folder.path()), Arc::new(RealFiles)).is_ok());
}

#[test]
fn a_full_log_goes_on_by_itself_after_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig { frames_bytes_max: 1 << 20, ..real(folder.path()) };
    let (log, _) = FrameLog::open(config, Arc::new(RealFiles)).unwrap();
    let ledger = Ledger::default();
    let mut refusals = 0;
    for first in 0..2000 {
        let (mut entry, mut completion) = (entry(1, first, 2000), ledger.line(first));
        loop {
            match log.append(entry, completion) {
                Ok(()) => break,
                Err(refused) => {
                    if let AppendError::Full { holders, .. } = &refused {
                        refusals += 1;
                        assert!(holders.iter().all(|holder| holder.session == session(1)));
                        let next = log.positions(session(1)).get(&StreamId(1)).copied().unwrap_or(0);
                        log.release(session(1), &[(StreamId(1), next)]);
                    }
                    (entry, completion) = refused.into_parts();
                    thread::yield_now();
                }
            }
        }
    }
    assert!(refusals > 0);
    assert!(log.usage().bytes <= 1 << 20);
    log.close();
    // What was taken was stored: the log counts room before it takes an entry.
    assert_eq!(ledger.failed(), []);
    assert_eq!(ledger.stored(), (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_fails_leaves_the_log_up_and_it_recovers_with_later_appends() {
    let files = SimFiles::new(1);
    let (log, _) = FrameLog::open(config(16), Arc::new(files.clone())).unwrap();
    let (told, tells) = bounded(16);
    log.append(entry(1, 0, 100), Box::new(Tell(told.clone(), 0))).unwrap();
    assert_eq!(tells.recv().unwrap(), Ok(0));
    files.fail_all_syncs(true);
    log.append(entry(1, 1, 100), Box::new(Tell(told.clone(), 1))).unwrap();
    assert!(tells.recv().unwrap().is_err());
    assert!(log.readiness().unwrap_err().contains("takes nothing"), "{}", log.health());
    files.fail_all_syncs(false);
    log.forgive(session(1));
    let (mut again, mut completion) = (entry(1, 1, 100), Box::new(Tell(told, 1)) as Box<dyn Completion>);
    while let Err(refused) = log.append(again, completion) {
        (again, completion) = refused.into_parts();
        thread::yield_now();
    }
    assert_eq!(tells.recv().unwrap(), Ok(1));
    assert_eq!(log.readiness(), Ok(()));
    assert_eq!(log.read(session(1), StreamId(1), 0, 9).unwrap().len(), 2);
}
