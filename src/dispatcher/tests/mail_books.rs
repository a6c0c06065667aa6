//! The books of a random run about mailboxes: what must hold for each letter and each whom it is for, whatever happens.

use super::mail_ledger::{BYTES, Client, Ledger, NAMES, USERS};
use super::*;
use crate::frame::Slice;
use crate::name::Username;
use crate::store::mail::{Digest, Place, Write};
use std::collections::BTreeSet;
use std::ops::Range;

/// What a handler sent; its data is its number, which rises with the order of the answers.
pub(super) struct Letter {
    pub(super) message: usize,
    pub(super) to: BTreeSet<usize>,
    /// It is kept for those who are away.
    pub(super) keeps: bool,
    pub(super) reply: bool,
    pub(super) bytes: usize,
}

/// What has come to a client since it logged in, as it reads.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) user: Option<usize>,
    pub(super) ack: bool,
    pub(super) seqs: Vec<u64>,
    /// The last letter that is kept for those who are away.
    pub(super) last: Option<usize>,
}

/// What was sent to a session that acknowledges, and not acknowledged.
#[derive(Default)]
struct Outstanding {
    letters: Vec<(u64, usize)>,
    since: Option<Instant>,
    last: u64,
    /// The step in which the session began.
    begun: u64,
}

#[derive(Default)]
pub(super) struct Books {
    pub(super) letters: Vec<Letter>,
    pub(super) logging_in: Option<(usize, bool, Option<u64>)>,
    /// What became of the last answer to each message.
    answers: BTreeMap<usize, Range<usize>>,
    /// What each number of each mailbox stands for.
    mail: BTreeMap<(usize, u64), usize>,
    /// Those of them that nobody has had.
    owed: BTreeSet<(usize, u64)>,
    queued: BTreeSet<(usize, usize)>,
    handed: BTreeSet<(usize, usize)>,
    handed_on: BTreeSet<(usize, usize, ConnId)>,
    received: BTreeSet<(usize, usize)>,
    /// Handed to a connection that ended before it was read, found no place in the mailbox, or had its user removed.
    excused: BTreeSet<(usize, usize)>,
    /// Those that a sender was told of that they are delivered or queued.
    promised: BTreeSet<(usize, usize)>,
    sessions: BTreeMap<ConnId, Outstanding>,
    /// The highest number of which the disk was told that it was sent.
    told_sent: [u64; USERS],
    /// What was outstanding at the end of a session, and in which step that was.
    ended: BTreeMap<(usize, u64), u64>,
    /// The messages whose memo did not find its way to the disk, and those all of whose letters did.
    forgotten: BTreeSet<Digest>,
    kept_whole: BTreeSet<usize>,
    step: u64,
}

impl Books {
    pub(super) fn answering(&mut self, message: usize, letters: Range<usize>) {
        self.kept_whole.remove(&message);
        self.answers.insert(message, letters);
    }

    /// Up to which number a user can say that he has everything.
    pub(super) fn had(&self, user: usize) -> u64 {
        let owed = self.owed.range((user, 0)..=(user, u64::MAX)).next().map_or(u64::MAX, |(_, seq)| seq - 1);
        let had = self.mail.range((user, 0)..=(user, u64::MAX)).rev().map(|((_, seq), _)| *seq).find(|seq| *seq <= owed);
        had.unwrap_or(0)
    }

    /// A user is removed, and his mail with him.
    pub(super) fn removed(&mut self, user: usize) {
        self.owed.retain(|(whose, _)| *whose != user);
        let all = self.queued.iter().chain(&self.handed).filter(|(whose, _)| *whose == user);
        let all: Vec<(usize, usize)> = all.copied().collect();
        self.excused.extend(all);
    }

    pub(super) fn acknowledged(&mut self, sessions: &[ConnId], seq: u64, now: Instant) {
        for conn in sessions {
            let Some(session) = self.sessions.get_mut(conn) else { continue };
            let before = session.letters.len();
            session.letters.retain(|(sent, _)| *sent > seq);
            if session.letters.is_empty() {
                session.since = None;
            } else if session.letters.len() < before {
                session.since = Some(now);
            }
        }
    }

    /// What is no longer sent to this connection comes again in another session.
    fn session_ends(&mut self, conn: ConnId, user: Option<usize>) {
        let session = self.sessions.remove(&conn);
        if let (Some(session), Some(user)) = (session, user) {
            self.ended.extend(session.letters.iter().map(|(seq, _)| ((user, *seq), self.step)));
        }
    }

    fn kept(&mut self, keep: &crate::store::mail::Keep, result: &Result<Vec<Place>, crate::store::mail::Trouble>) {
        if let (Err(_), Some(memo)) = (result, &keep.memo) {
            self.forgotten.insert(memo.digest);
        }
        let mut whole = BTreeMap::new();
        for (n, (letter, recipient)) in keep.recipients().enumerate() {
            let (letter, user) = (number(&letter.data), place(recipient.user.as_str()));
            let place = result.as_ref().map(|places| places[n]);
            *whole.entry(self.letters[letter].message).or_insert(true) &= matches!(place, Ok(Place::Queued(_)));
            match place {
                Ok(Place::Queued(seq)) => {
                    assert_eq!(self.mail.insert((user, seq), letter), None);
                    self.queued.insert((user, letter));
                    // A reply that its connection was handed, and did not take, is kept for that one alone.
                    let own = self.letters[letter].reply && self.handed.contains(&(user, letter));
                    if !own && !self.received.contains(&(user, letter)) {
                        self.owed.insert((user, seq));
                    }
                }
                _ if recipient.handed && !recipient.counts => _ = self.excused.insert((user, letter)),
                _ => {}
            }
        }
        if keep.recipients().any(|(_, recipient)| recipient.counts) {
            self.kept_whole.extend(whole.into_iter().filter(|(_, whole)| *whole).map(|(message, _)| message));
        }
    }

    /// A client reads a letter.
    fn reads(&mut self, client: &mut Client, frame: &Value) {
        let letter = frame["payload"]["data"][0].as_u64().expect("a letter") as usize;
        let user = client.heard.user.expect("who is not logged in gets no letters");
        let Letter { to, keeps, .. } = &self.letters[letter];
        assert!(to.contains(&user), "{} got letter {letter}, which is not for him", NAMES[user]);
        let first = self.received.insert((user, letter));
        let Books { owed, mail, .. } = self;
        owed.retain(|key| key.0 != user || mail[key] != letter);
        if *keeps && first {
            let rises = client.heard.last.is_none_or(|last| last < letter);
            // What another session was handed and did not take comes to the mailbox when that is known.
            let mut handed = self.handed_on.range((user, letter, ConnId(0))..(user, letter + 1, ConnId(0)));
            let late = handed.any(|(.., conn)| *conn != client.conn);
            assert!(rises || late, "{} got letter {letter} to {} after {:?}", client.conn, NAMES[user], client.heard.last);
            client.heard.last = client.heard.last.max(Some(letter));
        }
        if let Some(seq) = frame["header"]["seq"].as_u64() {
            assert!(client.heard.ack);
            client.heard.seqs.push(seq);
        }
    }

    /// A session is sent a letter.
    fn delivers(&mut self, client: &Client, frame: &Value, now: Instant) {
        let letter = frame["payload"]["data"][0].as_u64().expect("a letter") as usize;
        let Letter { to, keeps, bytes, reply, message } = &self.letters[letter];
        let user = client.user.expect("who is not logged in gets no letters");
        assert!(to.contains(&user), "{} got letter {letter}, which is not for him", NAMES[user]);
        assert!(!reply || *message < usize::MAX);
        let header = &frame["header"];
        let Some(seq) = header["seq"].as_u64() else {
            assert!(!client.ack || !keeps || client.input_ended, "{} got letter {letter} without a number", client.conn);
            self.handed.insert((user, letter));
            self.handed_on.insert((user, letter, client.conn));
            if client.input_ended {
                // What its own messages cause is written to it, and not kept if it is gone.
                self.excused.insert((user, letter));
            }
            return;
        };
        assert!(client.ack);
        assert_eq!(self.mail.get(&(user, seq)), Some(&letter), "a number always stands for the same letter");
        let same = self.mail.iter().filter(|((whose, _), other)| (*whose, **other) == (user, letter));
        // What a session was handed, and its socket did not take, may be kept for others already.
        let twice = self.handed.contains(&(user, letter));
        assert!(twice || same.count() == 1, "letter {letter} is in the mailbox of {} twice", NAMES[user]);
        let again = header["redelivered"] == true;
        assert!(!again || seq <= self.told_sent[user], "{seq} was never sent to {}", NAMES[user]);
        let session = self.sessions.get_mut(&client.conn).expect("a session");
        assert!(seq > session.last, "numbers rise");
        session.last = seq;
        let before = self.ended.get(&(user, seq)).is_some_and(|step| *step < session.begun);
        assert!(!before || again, "{seq} comes to {} again and does not say so", NAMES[user]);
        let sum: usize = session.letters.iter().map(|(_, bytes)| bytes).sum();
        // A page is asked for when half of the window is free, and brings one letter at least.
        let fits = session.letters.is_empty() || (session.letters.len() < 4 && (sum <= 500 || sum + bytes <= 1000));
        assert!(fits, "{} has more to acknowledge than it may", client.conn);
        session.since.get_or_insert(now);
        session.letters.push((seq, *bytes));
    }

    pub(super) fn check_the_end(&self) {
        assert!(self.owed.is_empty(), "in mailboxes and never received: {:?}", self.owed);
        let own = |key: &(usize, usize)| self.letters[key.1].reply && self.handed.contains(key);
        let missing = self.promised.iter().filter(|key| !own(key));
        let missing: Vec<_> = missing.filter(|key| !self.received.contains(key) && !self.excused.contains(key)).collect();
        assert!(missing.is_empty(), "promised and never received: {missing:?}");
    }
}

impl Ledger {
    /// What must hold after each step.
    pub(super) fn check(&mut self) {
        for (keep, result) in std::mem::take(&mut self.world.disk.log) {
            self.books.kept(&keep, &result);
        }
        let mut report = None;
        for effect in std::mem::take(&mut self.world.effects) {
            self.books.step += 1;
            match &effect {
                Effect::Send(conn, packet) | Effect::Hand(conn, packet, ..) => {
                    let frame: Value = serde_json::from_slice(&packet.body()).expect("JSON");
                    match frame["header"]["messageType"].as_str() {
                        Some("statusReport") => report = Some((*conn, frame)),
                        Some("receivedMessage") => {
                            let n = self.place(*conn);
                            if let Effect::Hand(_, _, handed) = &effect {
                                assert_eq!(self.clients[n].user, Some(place(handed.user.as_str())));
                                assert!(!self.clients[n].ack, "who acknowledges is sent everything with a number");
                            }
                            self.books.delivers(&self.clients[n], &frame, self.world.now);
                        }
                        _ => assert!(self.is_draining()),
                    }
                }
                Effect::Verdict(conn, true) => {
                    let n = self.place(*conn);
                    self.books.session_ends(*conn, self.clients[n].user);
                    self.clients[n].user = None;
                    if let Some((user, ack, after)) = self.books.logging_in.take() {
                        (self.clients[n].user, self.clients[n].ack) = (Some(user), ack);
                        self.clients[n].logins.push_back((user, ack));
                        let last = after.unwrap_or(0);
                        self.books.sessions.insert(*conn, Outstanding { last, begun: self.books.step, ..Outstanding::default() });
                    }
                    report = None;
                }
                Effect::Settle(conn, bytes) => self.settled(*conn, *bytes, report.take()),
                Effect::Close(conn, reason) => {
                    report = None;
                    let n = self.place(*conn);
                    if *reason == CloseReason::Unacknowledged {
                        let since = self.books.sessions[conn].since.expect("it has something to acknowledge");
                        assert!(self.world.now >= since + ACKNOWLEDGE_WITHIN, "it had time left");
                    }
                    self.books.session_ends(*conn, self.clients[n].user.take());
                    self.clients[n].closed = Some(*reason);
                }
                Effect::Forget(conn) => {
                    let n = self.place(*conn);
                    self.books.session_ends(*conn, self.clients[n].user.take());
                }
                Effect::Write(Write::Settle { user, up_to, .. }) => self.told_sent(user, *up_to),
                Effect::Write(Write::Tried { user, seqs }) => self.told_sent(user, seqs.iter().copied().max().unwrap_or(0)),
                Effect::Ask(_, _, packet) => self.asked(packet),
                _ => {}
            }
        }
        for n in 0..self.clients.len() {
            self.read(n);
        }
        for (user, seq) in &self.books.owed {
            let kept = self.world.disk.mailboxes.get(NAMES[*user]).is_some_and(|mailbox| mailbox.mail.contains_key(seq));
            assert!(kept, "{seq} of {} is out of the mailbox, and he never had it", NAMES[*user]);
        }
        for client in self.clients.iter().filter(|client| client.is_open()) {
            let since = self.books.sessions.get(&client.conn).and_then(|session| session.since);
            let late = client.ack && since.is_some_and(|since| self.world.now > since + ACKNOWLEDGE_WITHIN);
            assert!(!late, "{} acknowledges nothing and is still open", client.conn);
        }
    }

    fn told_sent(&mut self, user: &Username, up_to: u64) {
        let told = &mut self.books.told_sent[place(user.as_str())];
        *told = up_to.max(*told);
    }

    /// A handler is asked.
    fn asked(&mut self, packet: &Packet) {
        let asked: Value = serde_json::from_slice(&packet.body()).expect("JSON");
        let asked = if asked.is_object() { &asked["payload"]["data"] } else { &asked };
        let message = asked.as_u64().expect("a number") as usize;
        if self.messages[message].once {
            assert!(!self.is_remembered(message), "message {message} is handled, and its report is remembered");
        }
    }

    fn is_remembered(&self, message: usize) -> bool {
        let digest = self.digest(message);
        self.world.disk.memos.iter().any(|(known, _)| *known == digest)
    }

    /// A place at the gate is given back, with this report if any.
    fn settled(&mut self, conn: ConnId, bytes: usize, report: Option<(ConnId, Value)>) {
        let n = self.place(conn);
        let Some(number) = bytes.checked_sub(BYTES) else { return };
        let place = self.clients[n].places.iter().position(|place| *place == number);
        self.clients[n].places.swap_remove(place.expect("a place that was taken and not given back"));
        let (id, once) = (self.messages[number].id, self.messages[number].once);
        let Some((to, report)) = report else {
            assert!(!self.clients[n].is_open() || !id, "a message with an id gets its report");
            let lasting = once && self.books.kept_whole.contains(&number) && !self.books.forgotten.contains(&self.digest(number));
            return assert!(!lasting || self.is_remembered(number), "what became of message {number} is not remembered");
        };
        assert_eq!(to, conn, "a report comes right before what it settles");
        let good = report["header"]["status"] == "good";
        assert!(id || !good, "without an id there are only bad reports");
        assert_eq!(report["payload"]["id"].as_str().map(str::to_owned), id.then(|| number.to_string()));
        if once {
            let temporary = report["header"]["temporary"] == true;
            let lasting = !temporary && !self.books.forgotten.contains(&self.digest(number));
            let refused_here = ["unknownType", "notAuthenticated"].iter().any(|reason| report["header"]["reason"] == **reason);
            assert!(!lasting || refused_here || self.is_remembered(number), "a report that lasts is remembered: {report}");
            let temporary = temporary && report["header"]["reason"] == "undelivered";
            assert!(!temporary || !self.is_remembered(number), "a report that is temporary is not remembered: {report}");
        }
        self.counts(number, &report, good);
    }

    /// What a report says of the recipients.
    fn counts(&mut self, number: usize, report: &Value, good: bool) {
        let data = &report["payload"]["data"];
        let count = |name: &str| data[name].as_u64().map(|count| count as usize);
        let (Some(delivered), Some(queued)) = (count("delivered"), count("queued")) else { return };
        let others = ["offline", "unknown", "refused"].iter().filter_map(|name| count(name)).sum::<usize>();
        let letters = self.books.answers.get(&number).cloned().expect("an answer");
        let of = |letter: usize| self.books.letters[letter].to.iter().map(move |user| (*user, letter));
        let all: BTreeSet<usize> = letters.clone().flat_map(of).map(|(user, _)| user).collect();
        assert_eq!(delivered + queued + others, all.len(), "each recipient counts once: {report}");
        let among = |keys: &BTreeSet<(usize, usize)>| -> BTreeSet<usize> {
            letters.clone().flat_map(of).filter(|key| keys.contains(key)).map(|(user, _)| user).collect()
        };
        let (in_mailbox, handed) = (among(&self.books.queued), among(&self.books.handed));
        assert!(queued <= in_mailbox.len(), "{report} says more than {in_mailbox:?} are queued");
        assert!(delivered <= handed.len(), "{report} says more than {handed:?} are delivered");
        assert!(delivered + queued <= in_mailbox.union(&handed).count());
        if good {
            let keeps = letters.clone().filter(|letter| self.books.letters[*letter].keeps);
            for key in keeps.flat_map(of) {
                let there = self.books.queued.contains(&key) || self.books.handed.contains(&key);
                assert!(there, "{report}, and {key:?} is nowhere");
                self.books.promised.insert(key);
            }
        }
    }

    /// A client reads what its socket took. What was not taken at its end it never gets.
    fn read(&mut self, n: usize) {
        let client = &mut self.clients[n];
        let connection = self.world.connections.get_mut(&client.conn).expect("a connection that was there");
        let ended = connection.forgotten || client.closed.is_some_and(|reason| !reason.is_polite());
        let waiting = connection.inbox.split_off(connection.inbox.len() - connection.waiting);
        let frame = |packet: &Packet| -> Value { serde_json::from_slice(&packet.body()).expect("JSON") };
        for frame in std::mem::take(&mut connection.inbox).iter().map(frame) {
            let id = frame["payload"]["id"].as_str();
            match (frame["header"]["messageType"].as_str(), frame["header"]["status"] == "good") {
                (Some("receivedMessage"), _) => self.books.reads(client, &frame),
                (Some("statusReport"), true) if id == Some("auth_special") => {
                    let (user, ack) = client.logins.pop_front().expect("a login");
                    client.heard = Heard { user: Some(user), ack, ..Heard::default() };
                }
                (Some("statusReport"), true) if id == Some("logout") => client.heard = Heard::default(),
                _ => {}
            }
        }
        if !ended {
            connection.inbox = waiting;
            return;
        }
        connection.waiting = 0;
        let mut user = client.heard.user;
        for frame in waiting.iter().map(frame) {
            if let (Some(letter), Some(user)) = (frame["payload"]["data"][0].as_u64(), user) {
                self.books.excused.insert((user, letter as usize));
            }
            if frame["payload"]["id"] == "auth_special" && frame["header"]["status"] == "good" {
                user = client.logins.pop_front().map(|(user, _)| user);
            }
        }
    }

    pub(super) fn place(&self, conn: ConnId) -> usize {
        self.clients.iter().position(|client| client.conn == conn).expect("a connection that is known")
    }
}

fn place(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a name that is known")
}

/// The number of a letter.
fn number(data: &Slice) -> usize {
    let data: Value = serde_json::from_slice(data.bytes()).expect("JSON");
    data[0].as_u64().expect("a letter's number") as usize
}
