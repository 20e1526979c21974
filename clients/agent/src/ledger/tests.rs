use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const CLOCK: ClockId = ClockId::from_u128(1);

fn keep(ledger: &mut Ledger<u64>, stream: u32, count: u32) {
    let plan = ledger.plan(StreamId(stream));
    ledger.commit(StreamId(stream), plan, count, 10, CLOCK, plan.first);
}

fn settled() -> Ledger<u64> {
    let mut ledger = Ledger::new();
    ledger.settle(&[], |_| true, false, |_, _| {});
    ledger
}

/// Stream and first number of everything that may be written now.
fn taken(ledger: &mut Ledger<u64>) -> Vec<(u32, u64)> {
    let mut taken = Vec::new();
    while let Some(it) = ledger.take(Duration::ZERO) {
        taken.push((it.stream.0, it.entry.first));
    }
    taken
}

proptest! {
    /// Whatever is acknowledged in whatever order, exactly what ends at or below the highest is forgotten.
    #[test]
    fn an_acknowledgement_forgets_what_it_covers_and_nothing_else(counts in vec(1u32..20, 1..20), acknowledged in vec(0u64..250, 0..6)) {
        let mut ledger = settled();
        let mut ends = Vec::new();
        for count in &counts {
            keep(&mut ledger, 1, *count);
            ends.push(ledger.next(StreamId(1)));
        }
        taken(&mut ledger);
        let mut forgotten = 0;
        for next in &acknowledged {
            ledger.acknowledge(StreamId(1), *next, |_| forgotten += 1);
        }
        let highest = acknowledged.iter().copied().max().unwrap_or(0).min(*ends.last().unwrap());
        prop_assert_eq!(forgotten, ends.iter().filter(|end| **end <= highest).count());
        let position = ledger.acknowledged().first().map_or(0, |position| position.next);
        prop_assert_eq!(position, highest);
        // What is left is written again after a new connection, in order, from the first number that is not covered.
        ledger.rewind_all(&[]).unwrap();
        let left: Vec<u64> = taken(&mut ledger).into_iter().map(|(_, first)| first).collect();
        let starts: Vec<u64> = std::iter::once(0).chain(ends.iter().copied()).zip(&ends).filter(|(_, end)| **end > highest).map(|(start, _)| start).collect();
        prop_assert_eq!(left, starts);
    }

    /// A rewind sends from the message that holds the number, never from one that was not written yet.
    #[test]
    fn a_rewind_goes_back_and_never_forward(counts in vec(1u32..20, 1..20), written in 0usize..20, from in 0u64..400) {
        let mut ledger = settled();
        counts.iter().for_each(|count| keep(&mut ledger, 1, *count));
        for _ in 0..written {
            ledger.take(Duration::ZERO);
        }
        let unwritten: u64 = counts.iter().take(written).map(|count| u64::from(*count)).sum();
        ledger.rewind(StreamId(1), from);
        if let Some((_, first)) = taken(&mut ledger).first() {
            prop_assert!(*first <= from.max(unwritten));
            prop_assert!(*first <= unwritten);
        }
    }
}

#[test]
fn messages_leave_in_the_order_in_which_they_were_kept() {
    let mut ledger = settled();
    for stream in [2, 1, 0, 2, 1] {
        keep(&mut ledger, stream, 3);
    }
    assert_eq!(taken(&mut ledger), [(2, 0), (1, 0), (0, 0), (2, 3), (1, 3)]);
    assert!(ledger.all_written());
}

#[test]
fn what_lies_behind_a_hole_waits_for_its_declaration_and_nothing_else_does() {
    let mut ledger = settled();
    keep(&mut ledger, 1, 2);
    let (first, last) = ledger.skip(StreamId(1), 4);
    assert_eq!((first, last), (2, 5));
    keep(&mut ledger, 0, 1);
    ledger.hole(StreamId(1), Hole { first, last, declared: 0, reason: LostReason::Other });
    keep(&mut ledger, 1, 2);
    keep(&mut ledger, 2, 1);
    taken(&mut ledger);
    // Only the journal has to go back, as after a gap that the server found in it.
    ledger.rewind(StreamId(1), 6);
    ledger.rewind(StreamId::JOURNAL, 0);
    let order = taken(&mut ledger);
    assert_eq!(order, [(0, 0), (1, 6)]);
    assert_eq!(ledger.gaps(StreamId(1), 0), [], "a declared hole is no gap");
}

#[test]
fn provisional_numbers_move_behind_what_the_server_has_and_one_placeholder() {
    let mut ledger = Ledger::new();
    keep(&mut ledger, 1, 3);
    keep(&mut ledger, 0, 1);
    let positions = [
        Position { stream: StreamId(1), next: 10 },
        Position { stream: StreamId(0), next: 4 },
        Position { stream: StreamId(5), next: 7 },
    ];
    let mut moved = Vec::new();
    let settled = ledger.settle(&positions, |stream| stream == StreamId(1), false, |entry, _| moved.push(entry.first));
    assert_eq!(settled.deltas, Deltas::from([(StreamId(1), 11), (StreamId(0), 5), (StreamId(5), 7)]));
    assert_eq!((settled.placeholders, settled.journal_first), (vec![(StreamId(1), 10)], 4));
    assert_eq!(moved, [5, 11], "the declaration of the placeholder goes in front of the journal's own");
    assert_eq!(ledger.gaps(StreamId(1), 10), [(10, 10)]);
    assert_eq!((ledger.next(StreamId(1)), ledger.next(StreamId(0)), ledger.next(StreamId(5))), (14, 6, 7));
    // The stream that is not declared yet gets its placeholder when it is, once.
    assert!(ledger.take_due(StreamId(5)));
    assert!(!ledger.take_due(StreamId(5)));
    assert!(!ledger.take_due(StreamId(1)));
}

#[test]
fn numbers_that_were_never_given_out_cannot_be_acknowledged() {
    let mut ledger = settled();
    keep(&mut ledger, 1, 3);
    ledger.acknowledge(StreamId(1), 1000, |_| {});
    assert_eq!(ledger.acknowledged(), [Position { stream: StreamId(1), next: 3 }]);
    assert_eq!(
        ledger.rewind_all(&[Position { stream: StreamId(1), next: 4 }]),
        Err(Foreign { stream: StreamId(1), server: 4, next: 3 })
    );
}

#[test]
fn a_message_that_fills_a_hole_in_the_journal_goes_in_front_of_what_follows() {
    let mut ledger = settled();
    for _ in 0..3 {
        keep(&mut ledger, 0, 1);
    }
    let lost = ledger.remove(StreamId::JOURNAL, 1).unwrap();
    assert_eq!(ledger.gaps(StreamId::JOURNAL, 0), [(1, 1)]);
    assert_eq!(ledger.order_at(StreamId::JOURNAL, 1), 2);
    ledger.fill(StreamId::JOURNAL, lost);
    assert_eq!(taken(&mut ledger), [(0, 0), (0, 1), (0, 2)]);
}
