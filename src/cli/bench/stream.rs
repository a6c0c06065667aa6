//! Sequence numbers as they come: which are there, which are missing, which come late or again. No I/O.

use std::ops::Range;

/// If there are more gaps than these, the oldest are only counted; a number out of one is later taken for one that comes
/// again.
const RANGES_MAX: usize = 1024;

/// What a number that comes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Higher than all before; so many between them and this are missing now.
    InOrder {
        /// How many.
        skipped: u64,
    },
    /// It was missing.
    Late,
    /// It was there.
    Again,
}

/// The numbers from 0 that come from one sender.
#[derive(Debug, Default)]
pub(super) struct Stream {
    next: u64,
    /// There are many streams, and few have gaps.
    missing: Option<Box<Ranges>>,
}

impl Stream {
    /// One more than the highest number so far.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn see(&mut self, seq: u64) -> Seen {
        if seq >= self.next {
            let skipped = seq - self.next;
            self.skip_to(seq);
            self.next = seq + 1;
            return Seen::InOrder { skipped };
        }
        let was_missing = self.missing.as_mut().is_some_and(|missing| missing.remove(seq));
        if was_missing { Seen::Late } else { Seen::Again }
    }

    /// Whatever comes below `next` from now on is late.
    pub(super) fn skip_to(&mut self, next: u64) {
        if next > self.next {
            self.missing.get_or_insert_default().add(self.next..next);
            self.next = next;
        }
    }

    /// Whether this number came.
    pub(super) fn has(&self, seq: u64) -> bool {
        seq < self.next && !self.missing().contains(seq)
    }

    pub(super) fn missing(&self) -> &Ranges {
        static NONE: Ranges = Ranges { ranges: Vec::new(), forgotten: 0 };
        self.missing.as_deref().unwrap_or(&NONE)
    }
}

/// A set of numbers, small where they are neighbours.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// In order; no two touch each other, none is empty.
    ranges: Vec<Range<u64>>,
    /// How many had to go when there was no more room.
    forgotten: u64,
}

impl Ranges {
    /// Adds numbers that are not in it.
    pub(super) fn add(&mut self, new: Range<u64>) {
        let at = self.ranges.partition_point(|range| range.end < new.start);
        // The one that ends where this begins, and the one that begins where this ends.
        let before = self.ranges.get(at).is_some_and(|range| range.end == new.start);
        let after_at = at + usize::from(before);
        let after = self.ranges.get(after_at).is_some_and(|range| range.start == new.end);
        match (before, after) {
            (true, true) => self.ranges[at].end = self.ranges.remove(after_at).end,
            (true, false) => self.ranges[at].end = new.end,
            (false, true) => self.ranges[at].start = new.start,
            (false, false) => self.ranges.insert(at, new),
        }
        if self.ranges.len() > RANGES_MAX {
            let oldest = self.ranges.remove(0);
            self.forgotten += oldest.end - oldest.start;
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.end_from(number) > number
    }

    /// The first number from `start` on that is not in it.
    pub(super) fn end_from(&self, start: u64) -> u64 {
        self.from(start).first().filter(|range| range.start <= start).map_or(start, |range| range.end)
    }

    /// How many numbers from `start` on are in it.
    pub(super) fn count_from(&self, start: u64) -> u64 {
        self.from(start).iter().map(|range| range.end - range.start.max(start)).sum()
    }

    fn from(&self, start: u64) -> &[Range<u64>] {
        &self.ranges[self.ranges.partition_point(|range| range.end <= start)..]
    }

    /// Takes a number out; whether it was in.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.end <= number);
        let Some(range) = self.ranges.get_mut(at).filter(|range| range.start <= number) else { return false };
        let rest = number + 1..range.end;
        range.end = number;
        if range.is_empty() {
            self.ranges.remove(at);
        }
        if !rest.is_empty() {
            self.add(rest);
        }
        true
    }

    /// How many numbers are in it.
    pub(super) fn total(&self) -> u64 {
        self.known() + self.forgotten
    }

    /// How many of them it can still name.
    pub(super) fn known(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// How many numbers are in both; what one of them has forgotten may count as such.
    pub(super) fn overlap(&self, other: &Ranges) -> u64 {
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        let mut both = 0;
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            both += x.end.min(y.end).saturating_sub(x.start.max(y.start));
            if x.end <= y.end {
                a.next()
            } else {
                b.next()
            };
        }
        both + self.forgotten.min(other.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_in_order_late_or_again() {
        let mut stream = Stream::default();
        let seen: Vec<Seen> = [0, 1, 4, 2, 2, 4, 0, 5, 3].into_iter().map(|seq| stream.see(seq)).collect();
        use Seen::{Again, InOrder, Late};
        let on = InOrder { skipped: 0 };
        assert_eq!(seen, [on, on, InOrder { skipped: 2 }, Late, Again, Again, Again, on, Late]);
        assert_eq!((stream.next(), stream.missing().total()), (6, 0));
        stream.skip_to(9);
        stream.skip_to(8);
        assert_eq!((stream.next(), stream.missing().total(), stream.see(7)), (9, 3, Late));
    }

    #[test]
    fn gaps_beyond_the_bound_are_counted() {
        let mut stream = Stream::default();
        for seq in 0..3 * RANGES_MAX as u64 {
            stream.see(2 * seq + 1);
        }
        let missing = stream.missing();
        assert_eq!((missing.total(), missing.known()), (3 * RANGES_MAX as u64, RANGES_MAX as u64));
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((0u64..60, 1u64..8, any::<bool>()), 0..60), others in prop::collection::btree_set(0u64..70, 0..40)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (start, length, add) in steps {
                if add && (start..start + length).all(|number| !set.contains(&number)) {
                    ranges.add(start..start + length);
                    set.extend(start..start + length);
                } else {
                    prop_assert_eq!(ranges.remove(start), set.remove(&start));
                }
                prop_assert_eq!(ranges.total(), set.len() as u64);
                prop_assert_eq!(ranges.count_from(start), set.range(start..).count() as u64);
                prop_assert_eq!(ranges.contains(start), set.contains(&start));
                prop_assert_eq!(ranges.end_from(start), (start..).find(|number| !set.contains(number)).expect("an end"));
                prop_assert!(ranges.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            let mut other = Ranges::default();
            others.iter().for_each(|&number| other.add(number..number + 1));
            prop_assert_eq!(ranges.overlap(&other), set.intersection(&others).count() as u64);
        }
    }
}
