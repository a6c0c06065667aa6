//! A random run about mailboxes: what clients, handlers and the disk do. `mail_books.rs` checks what comes of it.

use super::super::Message;
use super::mail_books::{Books, Heard, Letter};
use super::mail_property::{After, Command, Disk, Op, Said, Size};
use super::*;
use crate::store::mail::{Digest, Trouble};

pub(super) const NAMES: [&str; 5] = ["alice", "bob", "eve", "carol", "ghost"];
/// The last one never has an account.
pub(super) const USERS: usize = 4;
/// One that keeps what it sends, one with one request at a time, and one that answers in any order.
const KINDS: [&str; 3] = ["post", "chat", "room"];

/// A connection, as its own thread knows it.
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) user: Option<usize>,
    pub(super) ack: bool,
    pub(super) input_ended: bool,
    pub(super) closed: Option<CloseReason>,
    pub(super) gone: bool,
    /// The number of each message that took a place and has not given it back.
    pub(super) places: Vec<usize>,
    /// Logins that its report has not come back for, as the client reads.
    pub(super) logins: VecDeque<(usize, bool)>,
    pub(super) heard: Heard,
}

impl Client {
    fn new(conn: ConnId) -> Client {
        let (places, logins, heard) = (Vec::new(), VecDeque::new(), Heard::default());
        Client { conn, user: None, ack: false, input_ended: false, closed: None, gone: false, places, logins, heard }
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed.is_none() && !self.gone
    }
}

/// A message as its client sent it.
pub(super) struct Sent {
    pub(super) user: usize,
    pub(super) kind: usize,
    pub(super) id: bool,
    pub(super) once: bool,
}

pub(super) struct Ledger {
    pub(super) world: World,
    pub(super) clients: Vec<Client>,
    pub(super) messages: Vec<Sent>,
    pub(super) books: Books,
    /// The revision of each account, and whether it is there.
    accounts: [(u64, bool); USERS],
    draining: bool,
    /// Whose sockets have taken everything, and the dispatcher is not told.
    emptied: VecDeque<ConnId>,
}

/// What a message counts is more than this by its number.
pub(super) const BYTES: usize = 1000;

impl Ledger {
    pub(super) fn new() -> Ledger {
        let mut world = World::new();
        world.effects.clear();
        let mut clients = Vec::new();
        for user in 0..3 {
            let conn = ConnId(user as u64 + 1);
            world.on(conn).frames();
            let heard = Heard { user: Some(user), ..Heard::default() };
            clients.push(Client { user: Some(user), heard, ..Client::new(conn) });
        }
        Ledger {
            world,
            clients,
            messages: Vec::new(),
            books: Books::default(),
            accounts: [(1, true); USERS],
            draining: false,
            emptied: VecDeque::new(),
        }
    }

    pub(super) fn drains(&mut self) {
        self.draining = true;
        self.world.handle(Event::Drain);
        self.check();
    }

    pub(super) fn happens(&mut self, op: Op) {
        match op {
            Op::Connect => {
                let conn = self.world.connects().conn;
                self.clients.push(Client::new(conn));
            }
            Op::Answer { kind, nth, said } => self.answer(kind, nth, &said),
            Op::Die(kind) => self.die(kind),
            Op::Remove(user) => {
                self.world.account(NAMES[user], Standing::Removed);
                self.accounts[user].1 = false;
                self.books.removed(user);
            }
            Op::Add(user) if !self.accounts[user].1 => {
                let revision = self.accounts[user].0 + 1;
                self.accounts[user] = (revision, true);
                self.world.account(NAMES[user], Standing::Active { revision });
            }
            Op::Add(_) => {}
            Op::Emptied => {
                if let Some(conn) = self.emptied.pop_front() {
                    self.world.is_emptied(conn);
                }
            }
            Op::Batch(batching) => {
                self.world.batching = batching;
                if !batching {
                    self.world.settles();
                }
            }
            Op::Disk(does) => self.disk(does),
            Op::Pass(millis) => self.passes(Duration::from_millis(millis)),
            op => self.client_does(op),
        }
        self.check();
        // Whoever was given up is started again.
        for (kind, name) in KINDS.iter().enumerate() {
            if !self.world.handler(name).replaced().is_empty() {
                self.die(kind);
                self.check();
            }
        }
    }

    /// As [`World::passes`], with a look at the books at each moment at which something happens.
    fn passes(&mut self, time: Duration) {
        let end = self.world.now + time;
        while let Some(deadline) = self.world.dispatcher.next_deadline().filter(|deadline| *deadline <= end) {
            self.world.now = self.world.now.max(deadline);
            self.world.handle(Event::Tick);
            self.check();
        }
        self.world.now = end;
        self.world.handle(Event::Tick);
    }

    fn die(&mut self, kind: usize) {
        let mut handler = self.world.handler(KINDS[kind]);
        handler.dies("was killed");
        handler.comes_up();
        let end = &mut self.world.handlers[ENDS.iter().position(|(.., name)| *name == KINDS[kind]).expect("an end")];
        let start = end.start;
        end.asked.retain(|(asked, ..)| asked.0 == start);
    }

    fn disk(&mut self, does: Disk) {
        match does {
            Disk::Rests(rests) => self.world.disk.rests = rests,
            Disk::Busy(busy) => self.world.disk.busy = busy,
            Disk::Trouble(trouble) => {
                self.world.disk.trouble = trouble.then_some(Trouble::Storage);
            }
            Disk::Writes(n) => (0..n).for_each(|_| _ = self.world.disk.writes_one()),
            Disk::Reads(n) => (0..n).for_each(|_| _ = self.world.disk.reads_one()),
            Disk::TellsWrites(n) | Disk::TellsReads(n) => {
                for _ in 0..n {
                    if let Some(told) = self.world.disk.tells_one(matches!(does, Disk::TellsWrites(_))) {
                        self.world.handle(Event::Stored(told));
                    }
                }
            }
        }
        if !self.world.batching {
            self.world.settles();
        }
    }

    /// What the thread of a connection lets its client do: nothing after the end of its input, and nothing that changes
    /// the user while anything is under way.
    fn client_does(&mut self, op: Op) {
        let n = match op {
            Op::LogIn { conn, .. } | Op::Disconnect { conn, .. } | Op::StopReading { conn, .. } => conn,
            Op::Acknowledge { conn, .. } | Op::Send { conn, .. } | Op::SendAgain { conn, .. } => conn,
            Op::LogOut(conn) | Op::Leave(conn) | Op::EndInput(conn) | Op::ReadOn(conn) | Op::AcknowledgeTooMuch(conn) => conn,
            _ => return,
        } % self.clients.len();
        let Client { conn, user, ack, input_ended, gone, .. } = self.clients[n];
        match op {
            _ if gone => {}
            Op::Disconnect { took, .. } => self.disconnect(n, took),
            Op::StopReading { room, .. } => {
                let connection = self.world.connection(conn);
                if !connection.waits {
                    (connection.stuck, connection.room) = (true, room);
                }
            }
            // Of one that was ended without ceremony nothing is written any more.
            Op::ReadOn(_) if self.clients[n].closed.is_none_or(CloseReason::is_polite) => {
                let connection = self.world.connection(conn);
                (connection.stuck, connection.room, connection.waiting) = (false, 0, 0);
                if std::mem::take(&mut connection.waits) {
                    self.emptied.push_back(conn);
                }
            }
            _ if input_ended || !self.clients[n].is_open() => {}
            Op::EndInput(_) => {
                self.clients[n].input_ended = true;
                self.world.handle(Event::InputEnded(conn));
            }
            Op::Send { kind, id, once, .. } => {
                let Some(user) = user else { return };
                self.messages.push(Sent { user, kind, id: id || once, once });
                self.send(n, self.messages.len() - 1);
            }
            Op::SendAgain { nth, .. } => {
                let repeatable = |sent: &Sent| sent.once && Some(sent.user) == user;
                let those: Vec<usize> = (0..self.messages.len()).rev().filter(|number| repeatable(&self.messages[*number])).collect();
                if !those.is_empty() {
                    self.send(n, those[nth % those.len()]);
                }
            }
            Op::Acknowledge { but, .. } if ack && user.is_some() && self.clients[n].heard.user == user && self.clients[n].heard.ack => {
                let seqs = &self.clients[n].heard.seqs;
                if let Some(seq) = seqs.len().checked_sub(but + 1).map(|place| seqs[place]) {
                    if self.clients[n].is_open() {
                        let those = self.clients.iter().filter(|other| other.user == user && other.is_open());
                        let those: Vec<ConnId> = those.map(|client| client.conn).collect();
                        self.books.acknowledged(&those, seq, self.world.now);
                    }
                    self.world.on(conn).acknowledges(seq);
                }
            }
            Op::AcknowledgeTooMuch(_) if user.is_some() => {
                let was_open = self.clients[n].is_open();
                self.world.on(conn).acknowledges(2_000_000);
                assert!(!was_open || self.world.connections[&conn].closed == Some(CloseReason::Refused));
            }
            _ if !self.clients[n].places.is_empty() => {}
            Op::Leave(_) => self.world.handle(Event::Leaving(conn, about("leave"))),
            Op::LogOut(_) => {
                // The report on what came before is written by now.
                self.world.flush(conn);
                self.check();
                self.world.handle(Event::LoggedOut(conn, about("logout")));
            }
            Op::LogIn { user, ack, after, .. } => self.log_in(n, user, ack, after),
            _ => {}
        }
    }

    fn disconnect(&mut self, n: usize, took: usize) {
        let conn = self.clients[n].conn;
        let connection = self.world.connection(conn);
        connection.waiting -= took.min(connection.waiting);
        self.check();
        self.clients[n].gone = true;
        self.world.handle(Event::Disconnected(conn));
    }

    fn send(&mut self, n: usize, number: usize) {
        let Sent { kind, id, once, .. } = self.messages[number];
        self.clients[n].places.push(number);
        let data = slice(&number.to_string());
        let digest = once.then(|| self.digest(number));
        let id = id.then(|| slice(&format!("\"{number}\"")));
        let message = Message { kind: KINDS[kind].into(), data, id, bytes: BYTES + number, digest: digest.map(Box::new), transit: None };
        self.world.handle(Event::Message(self.clients[n].conn, message));
    }

    pub(super) fn digest(&self, number: usize) -> Digest {
        let mut digest = [self.messages[number].user as u8; 32];
        digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
        digest
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    fn log_in(&mut self, n: usize, user: usize, ack: bool, after: After) {
        let conn = self.clients[n].conn;
        self.world.flush(conn);
        self.check();
        if !self.clients[n].is_open() {
            return;
        }
        let after = match after {
            After::Nothing => None,
            After::What => Some(self.books.had(user)),
            After::TooMuch => Some(1_000_000),
        };
        self.world.connection(conn).verdicts.clear();
        let was = (self.clients[n].user, self.clients[n].ack);
        self.books.logging_in = Some((user, ack, after));
        self.world.on(conn).logs_in_with(NAMES[user], self.accounts[user].0, ack, after);
        self.check();
        self.books.logging_in = None;
        let verdict = self.world.connections[&conn].verdicts.last().copied().expect("a login is decided");
        assert!(!verdict || (self.accounts[user].1 && !self.draining));
        assert!(verdict || self.clients[n].closed.is_some() || was == (self.clients[n].user, self.clients[n].ack));
    }

    fn answer(&mut self, kind: usize, nth: usize, said: &Said) {
        let place = ENDS.iter().position(|(.., name)| *name == KINDS[kind]).expect("an end");
        let asked = &self.world.handlers[place].asked;
        let nth = if KINDS[kind] == "room" { nth % asked.len().max(1) } else { 0 };
        let Some((_, request, packet)) = asked.get(nth) else { return };
        let asked_for = |start: &crate::dispatcher::lane::Start| start.under_way.iter().any(|under_way| under_way.id == *request);
        // One that came too late is nobody's.
        if !self.world.dispatcher.routes.all().flat_map(|route| route.starts()).any(asked_for) {
            return;
        }
        let asked: Value = serde_json::from_slice(&packet.body()).expect("JSON");
        let number = if asked.is_object() { &asked["payload"]["data"] } else { &asked };
        let number = number.as_u64().expect("the number of a message") as usize;
        let first = self.books.letters.len();
        let text = match said {
            Said::Wrong => r#"{"header":{"status":"0"}}"#.to_owned(),
            Said::Refused => r#"{"header":{"status":"1"}}"#.to_owned(),
            Said::Commands(commands, queue) => {
                let keeps = queue.unwrap_or(KINDS[kind] == "post");
                let mut entries = Vec::new();
                for command in commands {
                    entries.push(self.command(number, command, keeps));
                }
                let mut header = serde_json::json!({"status": "0", "commands": entries});
                if let Some(queue) = queue {
                    header["offline"] = if *queue { "queue" } else { "drop" }.into();
                }
                serde_json::json!({"header": header}).to_string()
            }
        };
        self.books.answering(number, first..self.books.letters.len());
        self.world.handler(KINDS[kind]).answers_nth(nth, &text);
    }

    fn command(&mut self, message: usize, command: &Command, keeps: bool) -> Value {
        let letter = self.books.letters.len();
        let (size, to) = match command {
            Command::To(names, size) => (size, names.clone()),
            Command::Reply(size) => (size, vec![self.messages[message].user]),
        };
        let pad = match size {
            Size::Small => 0,
            Size::Half => 480,
            Size::Huge => 1200,
        };
        let data = serde_json::json!([letter, "x".repeat(pad)]);
        let reply = matches!(command, Command::Reply(_));
        self.books.letters.push(Letter { message, to: to.iter().copied().collect(), keeps, reply, bytes: data.to_string().len() });
        let payload = serde_json::json!({"data": data});
        if reply {
            return serde_json::json!({"command": "reply", "payload": payload});
        }
        let names: Vec<&str> = to.iter().map(|name| NAMES[*name]).collect();
        serde_json::json!({"command": "sendClients", "commandData": names, "payload": payload})
    }

    /// Everybody reads on, the disk works, and all handlers answer; who has an account comes for his mail.
    pub(super) fn comes_to_its_end(mut self) {
        self.disk(Disk::Busy(false));
        self.disk(Disk::Trouble(false));
        self.disk(Disk::Rests(false));
        self.happens(Op::Batch(false));
        for n in 0..self.clients.len() {
            self.happens(Op::ReadOn(n));
        }
        while !self.emptied.is_empty() {
            self.happens(Op::Emptied);
        }
        for _ in 0..4 {
            self.happens(Op::Pass(20_000));
        }
        for n in 0..self.clients.len() {
            assert!(self.clients[n].places.is_empty(), "{} has messages that nobody dealt with", self.clients[n].conn);
            self.happens(Op::Disconnect { conn: n, took: 0 });
        }
        if !self.draining {
            for user in 0..USERS {
                self.happens(Op::Add(user));
                self.comes_for_mail(user);
            }
            self.books.check_the_end();
        }
        self.happens(Op::Pass(70_000));
        let left = self.world.left();
        assert!(left.iter().all(|(_, count)| *count == 0), "left at the end: {left:?}");
        assert!(self.world.disk.is_idle());
        assert_eq!(self.world.dispatcher.next_deadline(), None, "there is nothing to wake up for");
        assert_eq!(self.world.drained, usize::from(self.draining));
    }

    fn comes_for_mail(&mut self, user: usize) {
        let n = self.clients.len();
        self.happens(Op::Connect);
        self.happens(Op::LogIn { conn: n, user, ack: true, after: After::Nothing });
        let mut acknowledged = 0;
        while self.clients[n].heard.seqs.len() > acknowledged {
            acknowledged = self.clients[n].heard.seqs.len();
            self.happens(Op::Acknowledge { conn: n, but: 0 });
        }
        assert_eq!(self.world.disk.waiting(NAMES[user]), 0, "{} got and acknowledged everything", NAMES[user]);
        self.happens(Op::Disconnect { conn: n, took: 0 });
    }
}
