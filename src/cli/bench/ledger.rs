//! The account of every message: what was sent, what must come of it, what came. No I/O and no clock.
//!
//! Each session has a [`Book`]. It knows which messages the session sent, and watches a [`Stream`] of sequence numbers for
//! each sender whose messages must reach it, and one for its reports. [`settle`] brings all books together in the
//! end. What is remembered grows with the faults alone, and not beyond a bound.

use super::stream::{Ranges, Seen, Stream};
use std::collections::BTreeMap;

/// More different reasons than these are counted as one.
const REASONS_MAX: usize = 40;

/// Who sends to whom: each session to itself and to those that come after it, in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring {
    /// How many sessions there are.
    pub(super) clients: usize,
    /// How many of them each message goes to.
    pub(super) fan_out: usize,
}

impl Ring {
    /// The sessions that the messages of `from` go to.
    pub(super) fn recipients(self, from: usize) -> impl Iterator<Item = usize> {
        (from..from + self.fan_out).map(move |index| index % self.clients)
    }

    /// The sender's place in the streams of `to`.
    fn place(self, from: usize, to: usize) -> Option<usize> {
        let distance = (to + self.clients).checked_sub(from)? % self.clients;
        (from < self.clients && distance < self.fan_out).then_some(distance)
    }
}

/// Everything that is not as it should be, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Deliveries that never came.
    pub(super) lost: u64,
    /// Deliveries that came again.
    pub(super) doubled: u64,
    /// Deliveries that came after a later one of the same sender, or after the report.
    pub(super) out_of_order: u64,
    /// Deliveries with data that nobody sent.
    pub(super) wrong: u64,
    /// What nobody should have got: deliveries for somebody else, of another run or of a message that failed; reports
    /// that nobody had asked for; frames that are neither.
    pub(super) unexpected: u64,
    /// Reports that never came.
    pub(super) reports_lost: u64,
    /// Reports that came again.
    pub(super) reports_doubled: u64,
    /// Good reports that came after a later one.
    pub(super) reports_out_of_order: u64,
    /// Good reports with other counts than they should have.
    pub(super) reports_wrong: u64,
    /// Bad reports, by reason.
    pub(super) bad: BTreeMap<String, u64>,
}

impl Faults {
    pub(super) fn is_empty(&self) -> bool {
        *self == Faults::default()
    }

    /// Each kind with its name for programs and for people, but for the bad reports.
    pub(super) fn kinds(&self) -> [(&'static str, &'static str, u64); 9] {
        [
            ("lost", "lost", self.lost),
            ("doubled", "doubled", self.doubled),
            ("outOfOrder", "out of order", self.out_of_order),
            ("wrong", "with wrong content", self.wrong),
            ("unexpected", "unexpected", self.unexpected),
            ("reportsLost", "reports lost", self.reports_lost),
            ("reportsDoubled", "reports doubled", self.reports_doubled),
            ("reportsOutOfOrder", "reports out of order", self.reports_out_of_order),
            ("reportsWrong", "reports with wrong counts", self.reports_wrong),
        ]
    }

    pub(super) fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.wrong += other.wrong;
        self.unexpected += other.unexpected;
        self.reports_lost += other.reports_lost;
        self.reports_doubled += other.reports_doubled;
        self.reports_out_of_order += other.reports_out_of_order;
        self.reports_wrong += other.reports_wrong;
        for (reason, count) in other.bad {
            self.add_bad(&reason, count);
        }
    }

    fn add_bad(&mut self, reason: &str, count: u64) {
        let reason = if self.bad.contains_key(reason) || self.bad.len() < REASONS_MAX { reason } else { "others" };
        *self.bad.entry(reason.to_owned()).or_default() += count;
    }
}

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// All is well, and so many users got it.
    Good(Option<u64>),
    /// It failed, for this reason.
    Bad(&'a str),
}

/// The account of one session.
#[derive(Debug)]
pub(super) struct Book {
    ring: Ring,
    me: usize,
    /// Whether messages have ids, so that each has a report.
    ids: bool,
    sent: u64,
    reports: Stream,
    /// From each sender, by its distance in the ring; the first are our own.
    deliveries: Vec<Stream>,
    /// Our messages that were reported as failed; those without an id are only counted.
    failed: Ranges,
    failed_unnamed: u64,
    /// Of those without an id, how many still stand between what was sent and what came back.
    failed_pending: u64,
}

impl Book {
    pub(super) fn new(ring: Ring, me: usize, ids: bool) -> Book {
        Book {
            ring,
            me,
            ids,
            sent: 0,
            reports: Stream::default(),
            deliveries: (0..ring.fan_out).map(|_| Stream::default()).collect(),
            failed: Ranges::default(),
            failed_unnamed: 0,
            failed_pending: 0,
        }
    }

    /// How many messages were sent; the sequence number of the next.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The next message is sent.
    pub(super) fn send(&mut self) {
        self.sent += 1;
    }

    /// How many messages are under way: without their report or, without ids, not back at their sender.
    pub(super) fn under_way(&self) -> u64 {
        let back = match self.ids {
            true => self.reports.next() + self.failed.count_from(self.reports.next()),
            false => self.deliveries[0].next() + self.failed_pending,
        };
        self.sent.saturating_sub(back)
    }

    /// Up to which message all good reports came or will be late.
    pub(super) fn reported(&self) -> u64 {
        self.reports.next()
    }

    /// A message came from the session `from`. Whether it is one that was missing until now.
    pub(super) fn deliver(&mut self, from: usize, seq: u64, faults: &mut Faults) -> bool {
        let place = self.ring.place(from, self.me).filter(|place| *place > 0 || seq < self.sent);
        let Some(place) = place else {
            faults.unexpected += 1;
            return false;
        };
        match self.deliveries[place].see(seq) {
            Seen::InOrder { skipped } => {
                if place == 0 {
                    self.failed_pending -= skipped.min(self.failed_pending);
                }
                true
            }
            Seen::Late => {
                faults.out_of_order += 1;
                true
            }
            Seen::Again => {
                faults.doubled += 1;
                false
            }
        }
    }

    /// A report came. Whether it is one that was missing until now.
    pub(super) fn report(&mut self, seq: Option<u64>, verdict: Verdict<'_>, faults: &mut Faults) -> bool {
        if let Verdict::Bad(reason) = verdict {
            faults.add_bad(reason, 1);
        }
        let Some(seq) = seq.filter(|seq| self.ids && *seq < self.sent) else {
            match verdict {
                // Without ids, only failures are reported.
                Verdict::Bad(_) if !self.ids && seq.is_none() => {
                    self.failed_unnamed += 1;
                    self.failed_pending += 1;
                }
                // What it is about cannot be told; it is counted as what it is, and the message as lost.
                Verdict::Bad(_) => {}
                Verdict::Good(_) => faults.unexpected += 1,
            }
            return false;
        };
        if self.failed.contains(seq) {
            faults.reports_doubled += 1;
            return false;
        }
        match verdict {
            // Refusals may overtake other reports.
            Verdict::Bad(_) if self.reports.has(seq) => {
                faults.reports_doubled += 1;
                return false;
            }
            Verdict::Bad(_) => self.failed.add(seq..seq + 1),
            Verdict::Good(delivered) => {
                match self.reports.see(seq) {
                    Seen::InOrder { .. } => {}
                    Seen::Late => faults.reports_out_of_order += 1,
                    Seen::Again => {
                        faults.reports_doubled += 1;
                        return false;
                    }
                }
                if delivered != Some(self.ring.fan_out as u64) {
                    faults.reports_wrong += 1;
                }
                // Whatever goes to its own sender comes before the report; if it comes yet, it is late.
                self.deliveries[0].skip_to(seq + 1);
            }
        }
        self.reports.skip_to(self.failed.end_from(self.reports.next()));
        true
    }
}

/// What all sessions together sent and got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    /// Messages sent.
    pub(super) sent: u64,
    /// Messages reported as failed.
    pub(super) failed: u64,
}

/// Closes all books, in the order of their sessions: what has not come until now is lost.
pub(super) fn settle(mut books: Vec<Book>, faults: &mut Faults) -> Total {
    let mut total = Total::default();
    for index in 0..books.len() {
        let Book { ring, sent, ids, .. } = books[index];
        let failed = std::mem::take(&mut books[index].failed);
        let unnamed = books[index].failed_unnamed;
        total.sent += sent;
        total.failed += failed.total() + unnamed;
        if ids {
            let reports = &mut books[index].reports;
            reports.skip_to(sent);
            faults.reports_lost += reports.missing().total().saturating_sub(reports.missing().overlap(&failed));
        }
        for recipient in ring.recipients(index) {
            let Some(place) = ring.place(index, recipient) else { continue };
            let stream = &mut books[recipient].deliveries[place];
            faults.unexpected += stream.next().saturating_sub(sent);
            stream.skip_to(sent);
            let missing = stream.missing();
            let explained = missing.overlap(&failed);
            faults.lost += missing.total().saturating_sub(explained + unnamed);
            faults.unexpected += failed.known().saturating_sub(explained);
        }
    }
    total
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
