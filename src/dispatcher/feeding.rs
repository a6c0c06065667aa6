//! From mailboxes to sessions: what waits for a user comes to each session of his, in order, before anything new.
//!
//! A session with acknowledgements gets everything of queueing types through the mailbox, and no more at once than its window
//! has room for. A session without is handed what comes as long as its socket takes it (it is *live*); until it has had what was
//! in the mailbox, and again when its socket is full, it is fed from the mailbox, a page whenever the last one has left.

use super::Dispatcher;
use super::event::{About, Effect, Unwritten};
use super::feed::{Feed, Fresh, Window};
use super::keeping::Conns;
use super::users::UserSession;
use crate::gate::CloseReason;
use crate::name::{ConnId, Username};
use crate::protocol::reason::Reason;
use crate::protocol::report::{self, Mark, MessageId};
use crate::store::mail::{Letter, Page, Read, Trouble, Undelivered, Write};
use smallvec::SmallVec;
use std::time::{Duration, Instant};

/// How long to wait before a mailbox that could not be read is read again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// A session begins to be fed; its user has everything up to `after`, where he says so.
    pub(super) fn begin_feed(&mut self, conn: ConnId, user: &Username, ack: bool, after: Option<u64>, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return };
        session.feed = Some(Feed::new(user.clone(), ack, after.unwrap_or(0)));
        if let Some(up_to) = after {
            effects.push(Effect::Write(Write::Settle { user: user.clone(), up_to, reports: ack, conn: Some(conn) }));
        }
        self.feed(conn, effects);
    }

    /// A session is fed no longer. What it did not acknowledge comes again in another.
    pub(super) fn end_feed(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some(feed) = session.feed.take() else { return };
        session.stale_page |= feed.is_asked();
        self.acknowledge_by.forget(conn);
        let seqs = feed.unacknowledged();
        if !seqs.is_empty() {
            effects.push(Effect::Write(Write::Tried { user: feed.user, seqs }));
        }
    }

    /// Asks for the next page of the mailbox, if the session can be sent one.
    fn feed(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let windows = self.settings.windows;
        // Two pages on their way could not be told from each other.
        let Some(session) = self.open_session(conn).filter(|session| session.can_be_fed() && !session.stale_page) else { return };
        let Some(feed) = &mut session.feed else { return };
        if let Some((after, Window { letters, bytes })) = feed.ask(&windows) {
            let (user, reports) = (feed.user.clone(), feed.ack);
            effects.push(Effect::Read(Box::new(Read::Page { conn, user, after, reports, letters_max: letters, bytes_max: bytes })));
        }
    }

    pub(super) fn page_came(&mut self, now: Instant, conn: ConnId, page: Result<Page, Trouble>, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return };
        if std::mem::take(&mut session.stale_page) {
            return self.feed(conn, effects);
        }
        let ending = session.is_ending();
        let Some(feed) = &mut session.feed else { return };
        match page {
            // It gets only what its own messages cause.
            _ if ending => feed.page_failed(),
            Err(_) => {
                feed.page_failed();
                self.read_again.push_back((now + READ_AGAIN_AFTER, conn));
                self.wake_at(now + READ_AGAIN_AFTER);
            }
            Ok(Page { mail, more }) => {
                feed.page_came(more);
                let had: Vec<bool> = mail.iter().map(|mail| feed.take_had(mail.seq)).collect();
                let on_its_way = self.had_on_its_way(conn, &mail);
                for ((mail, had), on_its_way) in mail.iter().zip(had).zip(on_its_way) {
                    if had || on_its_way {
                        self.has_mail(conn, mail.seq, &mail.letter, effects);
                    } else if self.is_room_for(conn, &mail.letter) {
                        self.send_mail(now, conn, mail.seq, &mail.letter, mail.redelivered, effects);
                    } else {
                        break;
                    }
                }
                if mail.is_empty() {
                    self.catch_up(conn, effects);
                }
                self.feed(conn, effects);
            }
        }
    }

    /// Whether a session may be sent this letter now. A page has one at least, however large it is: it waits for room of its own.
    fn is_room_for(&mut self, conn: ConnId, letter: &Letter) -> bool {
        let windows = self.settings.windows;
        let Some(feed) = self.sessions.get_mut(&conn).and_then(|session| session.feed.as_mut()) else { return false };
        let fits = feed.fits(letter.bytes(), &windows);
        if !fits {
            feed.cut_page();
        }
        fits
    }

    /// A letter is in a user's mailbox from now on. The sessions in `had` have it already.
    pub(super) fn arrived(&mut self, now: Instant, user: &Username, seq: u64, letter: &Letter, had: &Conns, effects: &mut Vec<Effect>) {
        let Some(account) = self.users.account(user) else { return };
        // Where a number was left out, somebody else has put a letter before this one, or it was kept though the disk said no.
        // Nobody told of it, and whoever goes past it would take it out of the mailbox with the next acknowledgement.
        let next = account.told_of(seq);
        if !next {
            account.feed_all();
        }
        let sessions: SmallVec<[UserSession; 1]> = account.sessions.iter().copied().collect();
        for UserSession { conn, live, .. } in sessions {
            let windows = self.settings.windows;
            let Some(session) = self.open_session(conn) else { continue };
            let open = session.can_be_fed();
            let Some(feed) = &mut session.feed else { continue };
            // A page may have shown it before.
            if seq <= feed.cursor() {
                continue;
            }
            if !next {
                feed.look_again();
            }
            if had.contains(&conn) {
                match feed.is_sated() {
                    true if live => feed.pass_over(seq),
                    true => self.has_mail(conn, seq, letter, effects),
                    false => {
                        feed.has(seq);
                        self.feed(conn, effects);
                    }
                }
                continue;
            }
            match feed.fresh(letter.bytes(), &windows, open) {
                Fresh::Send => self.send_mail(now, conn, seq, letter, false, effects),
                Fresh::Later => self.feed(conn, effects),
            }
        }
    }

    fn send_mail(&mut self, now: Instant, conn: ConnId, seq: u64, letter: &Letter, redelivered: bool, effects: &mut Vec<Effect>) {
        let acknowledge_by = now + self.settings.acknowledge_within;
        let Some(feed) = self.sessions.get_mut(&conn).and_then(|session| session.feed.as_mut()) else { return };
        let mark = feed.ack.then_some(Mark { seq, redelivered });
        if feed.send(seq, letter.bytes()) {
            self.acknowledge_by.expect(conn, acknowledge_by);
            self.wake_at(acknowledge_by);
        }
        let message_id = MessageId::Text(&letter.message_id);
        let packet = match (&letter.report, mark) {
            (Some(Undelivered { reason, id }), Some(mark)) => {
                report::undelivered(&letter.kind, message_id, letter.data.bytes(), *reason, id.as_ref(), mark)
            }
            _ => {
                let id = letter.asker.as_ref().filter(|(asker, _)| *asker == conn).map(|(_, id)| id);
                report::delivery(&letter.kind, message_id, &letter.data, id, mark)
            }
        };
        effects.push(Effect::Send(conn, packet));
        effects.push(Effect::Watch(conn));
    }

    /// A session that is no longer live was handed a letter, and the rest of it leaves for its socket before anything else.
    fn has_mail(&mut self, conn: ConnId, seq: u64, letter: &Letter, effects: &mut Vec<Effect>) {
        let Some(feed) = self.sessions.get_mut(&conn).and_then(|session| session.feed.as_mut()) else { return };
        if feed.ack {
            // It was given it without a number, and cannot acknowledge what it does not know.
            return feed.pass_over(seq);
        }
        feed.send(seq, letter.bytes());
        effects.push(Effect::Watch(conn));
    }

    /// Somebody else has put letters into a user's mailbox: they are at its end.
    pub(super) fn mailbox_changed(&mut self, user: &Username, effects: &mut Vec<Effect>) {
        let Some(account) = self.users.account(user) else { return };
        account.feed_all();
        let conns: Conns = account.sessions.iter().map(|session| session.conn).collect();
        for conn in conns {
            if let Some(feed) = self.sessions.get_mut(&conn).and_then(|session| session.feed.as_mut()) {
                feed.look_again();
                self.feed(conn, effects);
            }
        }
    }

    /// A client has taken care of everything up to `seq`.
    pub(super) fn acknowledged(&mut self, now: Instant, conn: ConnId, seq: u64, about: &About, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn) else { return effects.push(Effect::Settle(conn, 0)) };
        let Some(feed) = session.feed.as_mut().filter(|feed| feed.ack && seq <= feed.cursor()) else {
            return self.refused(conn, about, Reason::Malformed, "nothing with this number was sent to this session", true, effects);
        };
        let news = feed.settles(seq).then(|| feed.user.clone());
        effects.push(Effect::Settle(conn, 0));
        if let Some(user) = news {
            self.settled(now, &user, seq, effects);
        }
    }

    /// A user has everything up to `seq`, whichever session of his says so.
    fn settled(&mut self, now: Instant, user: &Username, seq: u64, effects: &mut Vec<Effect>) {
        let acknowledge_by = now + self.settings.acknowledge_within;
        effects.push(Effect::Write(Write::Settle { user: user.clone(), up_to: seq, reports: true, conn: None }));
        let sessions = self.users.account(user).map(|account| &account.sessions[..]).unwrap_or_default();
        let conns: Conns = sessions.iter().map(|session| session.conn).collect();
        for conn in conns {
            let Some(feed) = self.sessions.get_mut(&conn).and_then(|session| session.feed.as_mut()) else { continue };
            if feed.acknowledge(seq) {
                self.acknowledge_by.forget(conn);
                if feed.is_waiting() {
                    self.acknowledge_by.expect(conn, acknowledge_by);
                    self.wake_at(acknowledge_by);
                }
                self.feed(conn, effects);
            }
        }
    }

    /// A login said that it has more than was ever sent.
    pub(super) fn beyond(&mut self, conn: ConnId, last: u64, effects: &mut Vec<Effect>) {
        if self.open_session(conn).is_some() {
            let words = format!("options.after is more than was ever sent to this user; the last number is {last}");
            effects.push(Effect::Send(conn, report::bad(crate::name::BUILTIN, None, Reason::Malformed, &words)));
            self.close(conn, CloseReason::Refused, effects);
        }
    }

    /// The socket of a connection does not take everything. `letters` is what it was handed, and did not take.
    pub(super) fn backlogged(&mut self, conn: ConnId, letters: Vec<Unwritten>, effects: &mut Vec<Effect>) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.backlogged = true;
            if let Some(feed) = &session.feed
                && let Some(session) = self.users.session(&feed.user, conn)
            {
                session.backlogged = true;
                session.live = false;
            }
        }
        self.keep_unwritten(conn, letters, effects);
    }

    /// Everything that a connection was sent has left for its socket.
    pub(super) fn emptied(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.backlogged = false;
        let Some(feed) = &mut session.feed else { return };
        feed.flush();
        if let Some(session) = self.users.session(&feed.user, conn) {
            session.backlogged = false;
        }
        if !feed.ack {
            let user = feed.user.clone();
            self.settle_flushed(conn, user, effects);
            self.catch_up(conn, effects);
        }
        self.feed(conn, effects);
    }

    /// What has left for the socket of a session without acknowledgements is out of the mailbox, once all such sessions of the
    /// user have it. While there is one that acknowledges, only that one's word counts.
    fn settle_flushed(&mut self, conn: ConnId, user: Username, effects: &mut Vec<Effect>) {
        let sessions = self.users.account(&user).map(|account| &account.sessions[..]).unwrap_or_default();
        let mut up_to = u64::MAX;
        for session in sessions.iter().filter(|session| !session.ending && !session.live) {
            let feed = self.sessions.get(&session.conn).and_then(|session| session.feed.as_ref());
            match feed {
                Some(feed) if !feed.ack => up_to = up_to.min(feed.flushed()),
                _ => return,
            }
        }
        let feed = self.sessions.get_mut(&conn).and_then(|session| session.feed.as_mut());
        if let Some(up_to) = feed.and_then(|feed| feed.settle(up_to)) {
            effects.push(Effect::Write(Write::Settle { user, up_to, reports: false, conn: None }));
        }
    }

    /// A session without acknowledgements that has had all that was in the mailbox is handed what comes from now on.
    pub(super) fn catch_up(&mut self, conn: ConnId, effects: &mut Vec<Effect>) {
        let Some(session) = self.open_session(conn).filter(|session| session.can_be_fed()) else { return };
        let Some(feed) = session.feed.as_ref().filter(|feed| !feed.ack) else { return };
        let (user, even) = (feed.user.clone(), feed.is_even());
        // What is on its way into the mailbox comes before what is new.
        let on_its_way = self.users.account(&user).is_none_or(|account| account.keeping > 0);
        match self.users.session(&user, conn) {
            Some(session) if even && !on_its_way => session.live = true,
            _ => self.feed(conn, effects),
        }
    }

    /// Sessions that acknowledge nothing end; mailboxes that could not be read are read again.
    pub(super) fn feed_in_time(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(conn) = self.acknowledge_by.take_late(now) {
            self.close(conn, CloseReason::Unacknowledged, effects);
        }
        while let Some((_, conn)) = self.read_again.pop_front_if(|(at, _)| *at <= now) {
            self.feed(conn, effects);
        }
        let again = self.read_again.front().map(|(at, _)| *at);
        if let Some(next) = self.acknowledge_by.next().into_iter().chain(again).min() {
            self.wake_at(next);
        }
    }
}
