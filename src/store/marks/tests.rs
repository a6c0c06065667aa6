use super::super::fake::name;
use super::*;
use std::slice::from_ref;

fn settle(user: &str, up_to: u64) -> Write {
    Write::Settle { user: name(user), up_to, reports: true, conn: None }
}

fn tried(user: &str, seqs: &[u64]) -> Write {
    Write::Tried { user: name(user), seqs: seqs.to_vec() }
}

fn marks() -> Marks {
    Marks::new(Run { suspect: 3, highest: 10 }, 2)
}

#[test]
fn what_waits_is_known_until_it_is_on_the_disk() {
    let marks = marks();
    let orders = [settle("alice", 5), tried("alice", &[7, 6]), settle("bob", 1)];
    orders.iter().for_each(|order| marks.ordered(order));
    assert_eq!(marks.sent(&name("alice")), (7, 3));
    marks.done(&orders[1]);
    assert_eq!(marks.sent(&name("alice")), (7, 3), "one is left, and nobody counts which");
    marks.done(&orders[0]);
    assert_eq!((marks.sent(&name("alice")), marks.sent(&name("bob"))), ((0, 3), (1, 3)));
    assert_eq!(marks.suspect_at_end(), 3);
}

#[test]
fn attempts_that_are_not_counted_make_all_letters_doubtful() {
    let marks = marks();
    let order = tried("alice", &[7]);
    marks.ordered(&order);
    marks.written(12);
    marks.written(11);
    marks.not_done(&order);
    assert_eq!(marks.sent(&name("alice")), (0, 12));
    marks.written(13);
    assert_eq!((marks.sent(&name("bob")).1, marks.suspect_at_end()), (12, 12), "but not those that come later");
}

#[test]
fn late_acknowledgements_are_merged_and_bounded() {
    let marks = marks();
    for order in [settle("alice", 5), settle("alice", 9), settle("alice", 7), settle("bob", 1)] {
        marks.ordered(&order);
        marks.not_done(&order);
    }
    let mut late = marks.late();
    late.sort();
    assert_eq!(late, [(name("alice"), 9), (name("bob"), 1)]);
    assert_eq!(marks.sent(&name("alice")), (9, 3), "nothing is in doubt but what they were about");
    assert_eq!(marks.suspect_at_end(), 10, "unless they are never written down");
    for order in from_ref(&settle("carol", 4)) {
        marks.ordered(order);
        marks.not_done(order);
    }
    assert_eq!((marks.late().len(), marks.sent(&name("carol"))), (2, (0, 10)), "there is no room");
    marks.settle_later(&name("bob"), 2);
    marks.caught_up(&name("bob"), 1);
    assert!(marks.late().contains(&(name("bob"), 2)), "it was not that one");
    marks.caught_up(&name("bob"), 2);
    marks.caught_up(&name("alice"), 9);
    assert!(!marks.is_late());
}
