use super::*;

/// What two sessions are told, and what comes of it in the end. Each sends to itself and to the other.
struct Pair {
    books: Vec<Book>,
    faults: Faults,
}

impl Pair {
    fn new(ids: bool, messages: u64) -> Pair {
        let ring = Ring { clients: 2, fan_out: 2 };
        let mut books: Vec<Book> = (0..2).map(|me| Book::new(ring, me, ids)).collect();
        for book in &mut books {
            (0..messages).for_each(|_| book.send());
        }
        Pair { books, faults: Faults::default() }
    }

    fn gets(&mut self, me: usize, from: usize, seqs: &[u64]) {
        for &seq in seqs {
            self.books[me].deliver(from, seq, &mut self.faults);
        }
    }

    fn good(&mut self, me: usize, seqs: &[u64]) {
        for &seq in seqs {
            self.books[me].report(Some(seq), Verdict::Good(Some(2)), &mut self.faults);
        }
    }

    fn settle(mut self) -> (Total, Faults) {
        let total = settle(self.books, &mut self.faults);
        (total, self.faults)
    }
}

/// Three messages each, with everything right but what `change` does instead of the deliveries from 0 to 1.
fn faults(change: impl FnOnce(&mut Pair)) -> Faults {
    let mut pair = Pair::new(true, 3);
    for (me, from) in [(0, 0), (0, 1), (1, 1)] {
        pair.gets(me, from, &[0, 1, 2]);
    }
    change(&mut pair);
    for me in [0, 1] {
        pair.good(me, &[0, 1, 2]);
    }
    pair.settle().1
}

#[test]
fn a_good_run_has_no_faults() {
    let mut pair = Pair::new(true, 3);
    for (me, from) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert_eq!(pair.books[me].under_way(), 3);
        pair.gets(me, from, &[0, 1, 2]);
    }
    pair.good(0, &[0, 1]);
    pair.good(1, &[0, 1, 2]);
    assert_eq!((pair.books[0].under_way(), pair.books[1].under_way()), (1, 0));
    pair.good(0, &[2]);
    assert_eq!(pair.settle(), (Total { sent: 6, failed: 0 }, Faults::default()));
}

#[test]
fn each_fault_of_a_delivery_is_named() {
    assert_eq!(faults(|pair| pair.gets(1, 0, &[0, 1, 2])), Faults::default());
    assert_eq!(faults(|pair| pair.gets(1, 0, &[0, 2])), Faults { lost: 1, ..Faults::default() });
    assert_eq!(faults(|pair| pair.gets(1, 0, &[0])), Faults { lost: 2, ..Faults::default() });
    assert_eq!(faults(|_| ()), Faults { lost: 3, ..Faults::default() });
    assert_eq!(faults(|pair| pair.gets(1, 0, &[0, 1, 1, 2, 0])), Faults { doubled: 2, ..Faults::default() });
    assert_eq!(faults(|pair| pair.gets(1, 0, &[1, 0, 2])), Faults { out_of_order: 1, ..Faults::default() });
    assert_eq!(faults(|pair| pair.gets(1, 0, &[2, 1, 0, 0])), Faults { out_of_order: 2, doubled: 1, ..Faults::default() });
    assert_eq!(faults(|pair| pair.gets(1, 0, &[0, 1, 2, 3])), Faults { unexpected: 1, ..Faults::default() });
    assert_eq!(faults(|pair| pair.gets(1, 0, &[0, 1, 3])), Faults { lost: 1, unexpected: 1, ..Faults::default() });
    let strangers = |pair: &mut Pair| {
        pair.gets(1, 0, &[0, 1, 2]);
        pair.gets(1, 7, &[0]);
        pair.gets(1, 1, &[3]);
    };
    assert_eq!(faults(strangers), Faults { unexpected: 2, ..Faults::default() });
}

#[test]
fn each_fault_of_a_report_is_named() {
    let reports = |seqs: &[u64], delivered| {
        let ring = Ring { clients: 1, fan_out: 1 };
        let (mut book, mut faults) = (Book::new(ring, 0, true), Faults::default());
        for seq in 0..3 {
            book.send();
            book.deliver(0, seq, &mut faults);
        }
        for &seq in seqs {
            book.report(Some(seq), Verdict::Good(delivered), &mut faults);
        }
        settle(vec![book], &mut faults);
        faults
    };
    assert_eq!(reports(&[0, 1, 2], Some(1)), Faults::default());
    assert_eq!(reports(&[0, 2], Some(1)), Faults { reports_lost: 1, ..Faults::default() });
    assert_eq!(reports(&[0, 1, 1, 2], Some(1)), Faults { reports_doubled: 1, ..Faults::default() });
    assert_eq!(reports(&[1, 0, 2], Some(1)), Faults { reports_out_of_order: 1, ..Faults::default() });
    assert_eq!(reports(&[0, 1, 2, 3], Some(1)), Faults { unexpected: 1, ..Faults::default() });
    assert_eq!(reports(&[0, 1, 2], Some(0)), Faults { reports_wrong: 3, ..Faults::default() });
    assert_eq!(reports(&[0, 1, 2], None), Faults { reports_wrong: 3, ..Faults::default() });
}

#[test]
fn a_delivery_after_its_report_is_out_of_order() {
    let ring = Ring { clients: 1, fan_out: 1 };
    let (mut book, mut faults) = (Book::new(ring, 0, true), Faults::default());
    book.send();
    assert!(book.report(Some(0), Verdict::Good(Some(1)), &mut faults));
    assert!(book.deliver(0, 0, &mut faults));
    settle(vec![book], &mut faults);
    assert_eq!(faults, Faults { out_of_order: 1, ..Faults::default() });
}

#[test]
fn what_failed_is_not_lost_and_must_not_come() {
    let run = |comes: &[u64]| {
        let mut pair = Pair::new(true, 3);
        for (me, from) in [(0, 0), (0, 1), (1, 1)] {
            pair.gets(me, from, if from == 0 { &[0, 2] } else { &[0, 1, 2] });
        }
        pair.gets(1, 0, comes);
        pair.good(0, &[0]);
        pair.books[0].report(Some(1), Verdict::Bad("busy"), &mut pair.faults);
        pair.good(0, &[2]);
        pair.good(1, &[0, 1, 2]);
        pair.settle()
    };
    let bad = BTreeMap::from([("busy".to_owned(), 1)]);
    assert_eq!(run(&[0, 2]), (Total { sent: 6, failed: 1 }, Faults { bad: bad.clone(), ..Faults::default() }));
    assert_eq!(run(&[0, 1, 2]).1, Faults { bad: bad.clone(), unexpected: 1, ..Faults::default() });
    assert_eq!(run(&[0]).1, Faults { bad, lost: 1, ..Faults::default() });
}

#[test]
fn refusals_may_overtake_other_reports() {
    let ring = Ring { clients: 1, fan_out: 1 };
    let (mut book, mut faults) = (Book::new(ring, 0, true), Faults::default());
    (0..5).for_each(|_| book.send());
    for seq in [2, 4] {
        assert!(book.report(Some(seq), Verdict::Bad("busy"), &mut faults));
    }
    assert_eq!((book.under_way(), book.reported()), (3, 0));
    for seq in [0, 1, 3] {
        assert!(book.deliver(0, seq, &mut faults) && book.report(Some(seq), Verdict::Good(Some(1)), &mut faults));
    }
    assert_eq!((book.under_way(), book.reported()), (0, 5));
    assert_eq!(settle(vec![book], &mut faults), Total { sent: 5, failed: 2 });
    assert_eq!(faults, Faults { bad: BTreeMap::from([("busy".to_owned(), 2)]), ..Faults::default() });
}

#[test]
fn a_message_has_one_verdict() {
    let ring = Ring { clients: 1, fan_out: 1 };
    for verdicts in [["good", "bad"], ["bad", "good"], ["bad", "bad"], ["good", "good"]] {
        let (mut book, mut faults) = (Book::new(ring, 0, true), Faults::default());
        book.send();
        book.deliver(0, 0, &mut faults);
        let new = verdicts.map(|verdict| {
            let verdict = if verdict == "good" { Verdict::Good(Some(1)) } else { Verdict::Bad("loop") };
            book.report(Some(0), verdict, &mut faults)
        });
        assert_eq!((new, faults.reports_doubled), ([true, false], 1), "{verdicts:?}");
    }
}

#[test]
fn without_ids_what_came_back_is_no_longer_under_way() {
    let mut pair = Pair::new(false, 4);
    pair.gets(0, 0, &[0]);
    assert_eq!(pair.books[0].under_way(), 3);
    assert!(!pair.books[0].report(None, Verdict::Bad("busy"), &mut pair.faults));
    assert_eq!(pair.books[0].under_way(), 2);
    pair.gets(0, 0, &[2]);
    assert_eq!(pair.books[0].under_way(), 1);
    pair.gets(0, 0, &[3]);
    assert_eq!(pair.books[0].under_way(), 0);
    pair.gets(1, 0, &[0, 2, 3]);
    pair.gets(0, 1, &[0, 1, 2, 3]);
    pair.gets(1, 1, &[0, 1, 3]);
    let bad = BTreeMap::from([("busy".to_owned(), 1)]);
    assert_eq!(pair.settle(), (Total { sent: 8, failed: 1 }, Faults { bad, lost: 1, ..Faults::default() }));
}

#[test]
fn a_report_that_nobody_asked_for_is_unexpected() {
    let mut pair = Pair::new(false, 0);
    pair.books[0].report(None, Verdict::Good(Some(2)), &mut pair.faults);
    assert_eq!(pair.settle().1, Faults { unexpected: 1, ..Faults::default() });
}

#[test]
fn reasons_are_counted_within_a_bound() {
    let mut faults = Faults::default();
    (0..100).for_each(|number| faults.add_bad(&number.to_string(), 1));
    let mut sum = Faults::default();
    sum.add(faults.clone());
    sum.add(faults);
    assert_eq!((sum.bad.len(), sum.bad["3"], sum.bad["others"]), (REASONS_MAX + 1, 2, 120));
}

#[test]
fn the_ring_goes_round() {
    let ring = Ring { clients: 5, fan_out: 3 };
    assert_eq!(ring.recipients(3).collect::<Vec<_>>(), [3, 4, 0]);
    assert_eq!((ring.place(3, 0), ring.place(3, 3), ring.place(3, 1), ring.place(9, 1)), (Some(2), Some(0), None, None));
}
