//! How far one session has been fed from its user's mailbox. A table of what was sent; it orders nothing.

use crate::name::{ConnId, Username};
use foldhash::HashMap;
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

/// How much there may be of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Letters.
    pub letters: usize,
    /// Bytes of their data; a single letter always fits an empty window.
    pub bytes: usize,
}

impl Window {
    /// What is left of it beside what is `taken`.
    fn beside(self, taken: Window) -> Window {
        Window { letters: self.letters.saturating_sub(taken.letters), bytes: self.bytes.saturating_sub(taken.bytes) }
    }

    /// Whether a letter fits beside what is `taken`.
    fn has_room(self, bytes: usize, taken: Window) -> bool {
        taken.letters == 0 || (taken.letters < self.letters && taken.bytes + bytes <= self.bytes)
    }

    /// Whether so much is left beside what is `taken` that a page is worth it: half of it. Pages of one letter would cost as much
    /// as large ones.
    fn is_wide(self, taken: Window) -> bool {
        let left = self.beside(taken);
        taken.letters == 0 || (left.letters * 2 >= self.letters && left.bytes * 2 >= self.bytes)
    }

    fn add(&mut self, bytes: usize) {
        self.letters += 1;
        self.bytes += bytes;
    }
}

/// What bounds all that sessions are sent from mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Sent to a session that acknowledges, and not acknowledged.
    pub unacknowledged: Window,
    /// Sent to any session, and perhaps not yet gone to its socket.
    pub unflushed: Window,
}

/// A session's place in the mailbox of its user.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) user: Username,
    /// Whether it acknowledges what it has taken care of.
    pub(super) ack: bool,
    /// It was sent, or handed in another way, all that has this number or a lower one.
    cursor: u64,
    /// As far as this, what it was sent has left for its socket.
    flushed: u64,
    /// The highest number that came to it from the mailbox.
    fed: u64,
    /// As far as this, the mailbox was told that it has it.
    settled: u64,
    /// It was handed these in another way, though not everything before them: the numbers rise.
    had: VecDeque<u64>,
    hunger: Hunger,
    /// What lies next in the mailbox needs all the room that there is.
    is_large: bool,
    /// Sent, and perhaps not yet gone to the socket.
    unflushed: Window,
    /// Sent with a number, and not acknowledged: the numbers rise.
    unacknowledged: VecDeque<(u64, usize)>,
    unacknowledged_bytes: usize,
}

/// What a feed waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hunger {
    /// There may be more in the mailbox, and nobody is asked for it.
    Hungry,
    /// The next page is on its way; `more` came into the mailbox since it was asked for.
    Asked { more: bool },
    /// It has all that was in the mailbox.
    Sated,
}

/// What to do with a letter that has just come into the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    /// Send it.
    Send,
    /// It will be read from the mailbox in its time.
    Later,
}

impl Feed {
    /// Of a session that has had everything up to `after`.
    pub(super) fn new(user: Username, ack: bool, after: u64) -> Feed {
        Feed {
            user,
            ack,
            cursor: after,
            flushed: after,
            fed: after,
            settled: after,
            had: VecDeque::new(),
            hunger: Hunger::Hungry,
            is_large: false,
            unflushed: Window::default(),
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
        }
    }

    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Asks for a page, if one is wanted and there is room for it: the number after which it begins, and its size.
    pub(super) fn ask(&mut self, windows: &Windows) -> Option<(u64, Window)> {
        let waiting = self.waiting();
        let wide = match self.is_large {
            true => self.unflushed.letters + waiting.letters == 0,
            false => windows.unflushed.is_wide(self.unflushed) && windows.unacknowledged.is_wide(waiting),
        };
        if self.hunger != Hunger::Hungry || !wide {
            return None;
        }
        self.is_large = false;
        self.hunger = Hunger::Asked { more: false };
        let (unflushed, unacknowledged) = (windows.unflushed.beside(self.unflushed), windows.unacknowledged.beside(waiting));
        if !self.ack {
            return Some((self.cursor, unflushed));
        }
        let letters = unflushed.letters.min(unacknowledged.letters);
        Some((self.cursor, Window { letters, bytes: unflushed.bytes.min(unacknowledged.bytes) }))
    }

    /// What waits to be acknowledged.
    fn waiting(&self) -> Window {
        Window { letters: self.unacknowledged.len(), bytes: self.unacknowledged_bytes }
    }

    /// Whether a page is on its way.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.hunger, Hunger::Asked { .. })
    }

    /// The rest of a page cannot be sent: its next letter waits until there is all the room for it.
    pub(super) fn cut_page(&mut self) {
        self.is_large = true;
        self.look_again();
    }

    /// Whether a letter may be sent now.
    pub(super) fn fits(&self, bytes: usize, windows: &Windows) -> bool {
        let unacknowledged = !self.ack || windows.unacknowledged.has_room(bytes, self.waiting());
        unacknowledged && windows.unflushed.has_room(bytes, self.unflushed)
    }

    /// The page has come: all of it is sent next. `more` says whether there was more when it was read.
    pub(super) fn page_came(&mut self, more: bool) {
        let since = self.hunger == Hunger::Asked { more: true };
        self.hunger = if more || since { Hunger::Hungry } else { Hunger::Sated };
    }

    /// The page could not be read.
    pub(super) fn page_failed(&mut self) {
        self.hunger = Hunger::Hungry;
    }

    /// There may be letters in the mailbox that nobody told of.
    pub(super) fn look_again(&mut self) {
        self.hunger = match self.hunger {
            Hunger::Sated | Hunger::Hungry => Hunger::Hungry,
            Hunger::Asked { .. } => Hunger::Asked { more: true },
        };
    }

    /// A letter has just come into the mailbox. `open` says whether the session can be sent anything now.
    pub(super) fn fresh(&mut self, bytes: usize, windows: &Windows, open: bool) -> Fresh {
        if self.is_sated() && open && self.fits(bytes, windows) {
            return Fresh::Send;
        }
        self.look_again();
        Fresh::Later
    }

    /// A letter is sent to the session. Whether it is the first that is not acknowledged.
    pub(super) fn send(&mut self, seq: u64, bytes: usize) -> bool {
        self.cursor = self.cursor.max(seq);
        self.fed = self.fed.max(seq);
        self.unflushed.add(bytes);
        if !self.ack {
            return false;
        }
        self.unacknowledged.push_back((seq, bytes));
        self.unacknowledged_bytes += bytes;
        self.unacknowledged.len() == 1
    }

    /// It has this letter already.
    pub(super) fn pass_over(&mut self, seq: u64) {
        self.cursor = self.cursor.max(seq);
    }

    /// It has this letter already, but perhaps not all that lies before it: that comes first.
    pub(super) fn has(&mut self, seq: u64) {
        self.had.push_back(seq);
        self.look_again();
    }

    /// A page shows this letter. Whether the session has it already.
    pub(super) fn take_had(&mut self, seq: u64) -> bool {
        while self.had.pop_front_if(|had| *had < seq).is_some() {}
        self.had.pop_front_if(|had| *had == seq).is_some()
    }

    /// Everything it was sent has left for its socket.
    pub(super) fn flush(&mut self) {
        self.flushed = self.cursor;
        self.unflushed = Window::default();
    }

    /// How much of what came to it from the mailbox can be taken out there, with `up_to` as the most; said once.
    pub(super) fn settle(&mut self, up_to: u64) -> Option<u64> {
        let up_to = up_to.min(self.flushed).min(self.fed);
        let news = up_to > self.settled;
        self.settled = self.settled.max(up_to);
        news.then_some(up_to)
    }

    /// The session says that its user has everything up to `seq`. Whether it says so for the first time: the disk is asked once
    /// only, and what a login said is looked at there.
    pub(super) fn settles(&mut self, seq: u64) -> bool {
        let news = seq > self.settled;
        self.settled = self.settled.max(seq);
        news
    }

    /// Its user has everything up to `seq`. Whether anything changed.
    pub(super) fn acknowledge(&mut self, seq: u64) -> bool {
        let before = self.unacknowledged.len();
        while let Some((_, bytes)) = self.unacknowledged.pop_front_if(|(sent, _)| *sent <= seq) {
            self.unacknowledged_bytes -= bytes;
        }
        self.unacknowledged.len() < before
    }

    /// Whether it waits for acknowledgements.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unacknowledged.is_empty()
    }

    /// What was sent and not acknowledged, at the end of the session.
    pub(super) fn unacknowledged(&self) -> Vec<u64> {
        self.unacknowledged.iter().map(|(seq, _)| *seq).collect()
    }

    /// Whether it has all that was in the mailbox.
    pub(super) fn is_sated(&self) -> bool {
        self.hunger == Hunger::Sated
    }

    /// Whether it has all that was in the mailbox, and all of it has left for the socket.
    pub(super) fn is_even(&self) -> bool {
        self.is_sated() && self.flushed == self.cursor
    }
}

/// Until when sessions must acknowledge something.
#[derive(Debug, Default)]
pub(super) struct Patience {
    by_time: BTreeSet<(Instant, ConnId)>,
    by_conn: HashMap<ConnId, Instant>,
}

impl Patience {
    /// A session has something to acknowledge, and made no progress yet.
    pub(super) fn expect(&mut self, conn: ConnId, until: Instant) {
        self.forget(conn);
        self.by_time.insert((until, conn));
        self.by_conn.insert(conn, until);
    }

    /// A session has nothing to acknowledge.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if let Some(until) = self.by_conn.remove(&conn) {
            self.by_time.remove(&(until, conn));
        }
    }

    /// Takes out a session that is late.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<ConnId> {
        let (_, conn) = *self.by_time.first().filter(|(until, _)| *until <= now)?;
        self.forget(conn);
        Some(conn)
    }

    /// When the next would be late.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { letters: 4, bytes: 100 };
    const WINDOWS: Windows = Windows { unacknowledged: WINDOW, unflushed: Window { letters: 8, bytes: 200 } };

    fn feed(ack: bool) -> Feed {
        Feed::new(Username::new("bob").expect("a name"), ack, 0)
    }

    /// A feed that has read all of an empty mailbox.
    fn sated(ack: bool) -> Feed {
        let mut feed = feed(ack);
        assert!(feed.ask(&WINDOWS).is_some());
        feed.page_came(false);
        feed
    }

    #[test]
    fn a_page_is_asked_for_once_and_again_when_something_came_meanwhile() {
        let mut feed = feed(true);
        assert_eq!(feed.ask(&WINDOWS), Some((0, WINDOW)));
        assert_eq!(feed.ask(&WINDOWS), None);
        assert_eq!(feed.fresh(1, &WINDOWS, true), Fresh::Later, "the page may have it or not");
        feed.page_came(false);
        assert!(feed.ask(&WINDOWS).is_some());
        feed.page_failed();
        assert!(feed.ask(&WINDOWS).is_some());
        feed.page_came(false);
        assert!(feed.ask(&WINDOWS).is_none());
        assert!(feed.is_even());
    }

    #[test]
    fn the_window_bounds_what_is_not_acknowledged() {
        let mut feed = sated(true);
        for seq in 1..=4 {
            assert_eq!(feed.fresh(10, &WINDOWS, true), Fresh::Send);
            assert_eq!(feed.send(seq, 10), seq == 1);
        }
        assert_eq!(feed.fresh(10, &WINDOWS, true), Fresh::Later);
        feed.flush();
        assert!(feed.acknowledge(1) && !feed.acknowledge(1));
        assert!(feed.settles(1) && !feed.settles(1) && !feed.settles(0));
        assert_eq!(feed.ask(&WINDOWS), None, "a small page is not worth it");
        assert!(feed.acknowledge(2));
        assert_eq!(feed.ask(&WINDOWS), Some((4, Window { letters: 2, bytes: 80 })));
        assert_eq!(feed.unacknowledged(), [3, 4]);
    }

    #[test]
    fn bytes_bound_it_too_but_one_letter_always_fits() {
        let mut feed = sated(true);
        assert_eq!(feed.fresh(1000, &WINDOWS, true), Fresh::Send);
        feed.send(1, 1000);
        assert_eq!(feed.fresh(1, &WINDOWS, true), Fresh::Later);
        feed.flush();
        assert_eq!(feed.ask(&WINDOWS), None);
        feed.acknowledge(1);
        assert_eq!(feed.ask(&WINDOWS), Some((1, WINDOW)));
    }

    #[test]
    fn a_letter_that_does_not_fit_waits_for_all_the_room() {
        let mut feed = sated(true);
        feed.send(1, 10);
        feed.look_again();
        assert_eq!(feed.ask(&WINDOWS), Some((1, Window { letters: 3, bytes: 90 })));
        feed.page_came(false);
        assert!(!feed.fits(95, &WINDOWS));
        feed.cut_page();
        feed.flush();
        assert_eq!(feed.ask(&WINDOWS), None, "it would be the same page again");
        feed.acknowledge(1);
        assert!(feed.fits(95, &WINDOWS));
        assert_eq!(feed.ask(&WINDOWS), Some((1, WINDOW)));
    }

    #[test]
    fn what_has_not_left_for_the_socket_is_bounded_too() {
        let mut feed = sated(false);
        for seq in 1..=8 {
            assert_eq!(feed.fresh(10, &WINDOWS, true), Fresh::Send);
            feed.send(seq, 10);
        }
        assert_eq!(feed.fresh(10, &WINDOWS, true), Fresh::Later);
        assert_eq!(feed.ask(&WINDOWS), None);
        feed.flush();
        assert_eq!(feed.ask(&WINDOWS), Some((8, WINDOWS.unflushed)));
    }

    #[test]
    fn without_acknowledgements_all_counts_when_it_has_left() {
        let mut feed = sated(false);
        assert_eq!(feed.fresh(10, &WINDOWS, false), Fresh::Later);
        assert!(!feed.is_even());
        assert!(feed.ask(&WINDOWS).is_some());
        feed.page_came(false);
        assert!(!feed.send(7, 10) && !feed.is_waiting());
        assert!(!feed.is_even());
        assert_eq!(feed.settle(u64::MAX), None, "nothing has left");
        feed.flush();
        assert!(feed.is_even());
        assert_eq!((feed.settle(6), feed.settle(u64::MAX), feed.settle(u64::MAX)), (Some(6), Some(7), None));
        feed.pass_over(9);
        feed.flush();
        assert_eq!(feed.settle(u64::MAX), None, "what it was handed it did not get from the mailbox");
    }

    #[test]
    fn who_is_late_is_found_in_the_order_of_time() {
        let mut patience = Patience::default();
        let now = Instant::now();
        let at = |seconds| now + std::time::Duration::from_secs(seconds);
        patience.expect(ConnId(1), at(3));
        patience.expect(ConnId(2), at(2));
        patience.expect(ConnId(1), at(1));
        assert_eq!((patience.take_late(now), patience.next()), (None, Some(at(1))));
        patience.expect(ConnId(3), at(2));
        patience.forget(ConnId(3));
        assert_eq!(
            (patience.take_late(at(2)), patience.take_late(at(2)), patience.take_late(at(9))),
            (Some(ConnId(1)), Some(ConnId(2)), None)
        );
        assert_eq!(patience.next(), None);
    }
}
