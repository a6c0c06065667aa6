//! The ledger of a random run: what must hold for each message, connection and account whatever happens.

use super::super::{Inquiry, Message};
use super::property::{Change, Op, Proof, What};
use super::*;
use crate::protocol::informer::Question;
use crate::protocol::reason::Reason;
use serde_json::json;

pub(super) const NAMES: [&str; 5] = ["alice", "bob", "eve", "carol", "ghost"];
/// The last one never has an account.
pub(super) const USERS: usize = 4;

/// A connection, as its own thread knows it.
struct Client {
    conn: ConnId,
    user: Option<usize>,
    input_ended: bool,
    closed: bool,
    gone: bool,
    /// The bytes of each message that took a place and has not given it back.
    places: Vec<usize>,
}

impl Client {
    fn new(conn: ConnId) -> Client {
        Client { conn, user: None, input_ended: false, closed: false, gone: false, places: Vec::new() }
    }
}

/// What the dispatcher was told of an account.
#[derive(Clone, Copy)]
struct Account {
    revision: u64,
    disabled: bool,
    removed: bool,
}

/// An answer: which message it is about, if a client's, and how many deliveries each client gets if it is carried out.
struct Answering {
    message: Option<usize>,
    expected: Vec<usize>,
}

pub(super) struct Ledger {
    world: World,
    clients: Vec<Client>,
    accounts: [Account; USERS],
    /// Each message's connection (its place in `clients`) and whether it has an id; it counts `BYTES` plus its number.
    messages: Vec<(usize, bool)>,
    step: u64,
    draining: bool,
}

const BYTES: usize = 1000;

impl Ledger {
    pub(super) fn new() -> Ledger {
        let mut world = World::new();
        world.effects.clear();
        let client = |n: usize| Client { user: Some(n), ..Client::new(ConnId(n as u64 + 1)) };
        let accounts = [Account { revision: 1, disabled: false, removed: false }; USERS];
        Ledger { world, clients: (0..3).map(client).collect(), accounts, messages: Vec::new(), step: 0, draining: false }
    }

    pub(super) fn happens(&mut self, op: Op) {
        self.step += 1;
        let mut answering = None;
        match op {
            Op::Connect => {
                let conn = self.world.connects().conn;
                self.clients.push(Client::new(conn));
            }
            Op::Pass(millis) => self.world.passes(Duration::from_millis(millis)),
            Op::Drain => {
                self.draining = true;
                self.world.handle(Event::Drain);
            }
            Op::Inform(n) => self.inform(n),
            Op::Die(end) => self.world.handler(ENDS[end].2).dies("was killed"),
            Op::Break(end) => self.world.handler(ENDS[end].2).breaks("it is broken"),
            Op::ComeUp(end) => self.world.handler(ENDS[end].2).comes_up(),
            Op::Retire(end) => _ = self.world.handler(ENDS[end].2).retires(),
            Op::Account { user, change } => self.account(user, change),
            Op::Answer { end, nth, what } => answering = self.answer(end, nth, &what),
            Op::Unasked { end, old, what } => {
                let handler = &self.world.handlers[end];
                let start = StartId(if old { handler.before } else { handler.start });
                // What a plain handler says while it is asked something is an answer.
                if handler.asked.iter().all(|(asked, ..)| *asked != start) || !is_plain(end) {
                    if is_envelope(end) {
                        let expected = (0..self.clients.len()).map(|n| self.expected(n, None, &what)).collect();
                        answering = Some(Answering { message: None, expected });
                    }
                    self.world.handler(ENDS[end].2).says(start, None, &text(&what, "0"));
                }
            }
            Op::Unanswered(nth) => {
                let asked = &mut self.world.handlers[EACH].asked;
                if let Some((start, request, _)) = asked.remove(nth % asked.len().max(1)) {
                    let (reason, message) = (Reason::HandlerCrashed, "it hung up".to_owned());
                    let id = HandlerId { start, ..self.world.handler("each").id() };
                    self.world.handle(Event::Unanswered { id, request, reason, message });
                }
            }
            op => self.client_does(op),
        }
        self.check(answering.as_ref());
    }

    /// What the thread of a connection lets its client do: nothing after the end of its input, and nothing that changes
    /// the user while anything is under way.
    fn client_does(&mut self, op: Op) {
        let n = match op {
            Op::LogIn { conn, .. } | Op::Register(conn, _) | Op::Send { conn, .. } | Op::Refuse { conn, .. } => conn,
            Op::LogOut(conn) | Op::ChangePassword(conn) | Op::Inquire(conn) | Op::Leave(conn) => conn,
            Op::EndInput(conn) | Op::Overflow(conn) | Op::Disconnect(conn) => conn,
            _ => return,
        } % self.clients.len();
        let Client { conn, user, input_ended, gone, .. } = self.clients[n];
        let idle = self.clients[n].places.is_empty();
        match op {
            _ if gone => {}
            Op::Overflow(_) => self.world.handle(Event::Overflowed(conn)),
            Op::Disconnect(_) => {
                self.world.handle(Event::Disconnected(conn));
                self.clients[n].gone = true;
            }
            _ if input_ended => {}
            Op::EndInput(_) => {
                self.clients[n].input_ended = true;
                self.world.handle(Event::InputEnded(conn));
            }
            Op::Send { kind, id, .. } => {
                let number = self.messages.len();
                self.messages.push((n, id));
                self.clients[n].places.push(BYTES + number);
                let id = id.then(|| slice(&format!("\"{number}\"")));
                let message = Message {
                    kind: KINDS[kind].into(),
                    data: slice(&format!("[{number},0]")),
                    id,
                    bytes: BYTES + number,
                    digest: None,
                    transit: None,
                };
                self.world.handle(Event::Message(conn, message));
            }
            Op::Inquire(_) => {
                self.clients[n].places.push(0);
                self.world.handle(Event::Asked(conn, Inquiry::Ping, about("inquiry")));
            }
            Op::Refuse { last, .. } if !last || idle => {
                self.clients[n].places.push(0);
                let (reason, message) = (Reason::Malformed, "no".to_owned());
                self.world.handle(Event::Refused { conn, about: about("refused"), reason, message, last });
            }
            _ if !idle => {}
            Op::Leave(_) => self.world.handle(Event::Leaving(conn, about("leave"))),
            Op::LogOut(_) => {
                self.world.handle(Event::LoggedOut(conn, about("logout")));
                self.clients[n].user = None;
            }
            Op::LogIn { user, proof, .. } => self.log_in(n, user, proof),
            Op::Register(_, user) => {
                let revision = self.newer(user);
                self.told(user, Standing::Active { revision });
                self.world.handle(Event::Registered { conn, user: username(NAMES[user]), revision, about: about("register") });
            }
            Op::ChangePassword(_) => {
                let Some(user) = user else { return };
                let revision = self.newer(user);
                let event = Event::PasswordChanged { conn, user: username(NAMES[user]), revision, about: about("password") };
                self.world.handle(event);
                if self.accounts[user].disabled || self.accounts[user].removed {
                    return;
                }
                self.told(user, Standing::Active { revision });
                let others = |(other, client): (usize, &Client)| other != n && client.user == Some(user) && !self.is_closed(client);
                assert!(!self.clients.iter().enumerate().any(others), "only the session that changed the password stays");
            }
            _ => {}
        }
    }

    /// A revision that nobody had before.
    fn newer(&self, user: usize) -> u64 {
        self.accounts[user].revision + 1
    }

    fn told(&mut self, user: usize, standing: Standing) {
        let account = &mut self.accounts[user];
        match standing {
            Standing::Active { revision } => *account = Account { revision, disabled: false, removed: false },
            Standing::Disabled => (account.disabled, account.removed) = (true, false),
            Standing::Removed => (account.disabled, account.removed) = (false, true),
        }
    }

    fn account(&mut self, user: usize, change: Change) {
        let standing = match change {
            Change::Revised => Standing::Active { revision: self.newer(user) },
            Change::OldNews => Standing::Active { revision: self.accounts[user].revision.saturating_sub(1) },
            Change::Disabled => Standing::Disabled,
            Change::Removed => Standing::Removed,
        };
        if change == Change::OldNews && self.accounts[user].removed {
            return; // nobody remembers the revisions of who was removed
        }
        self.world.account(NAMES[user], standing);
        if change == Change::OldNews {
            assert_eq!(self.world.effects, [], "old news ends nothing");
            return;
        }
        self.told(user, standing);
        let live = |client: &Client| client.user == Some(user) && !self.is_closed(client);
        assert!(!self.clients.iter().any(live), "{} has a session after {change:?}", NAMES[user]);
    }

    fn log_in(&mut self, n: usize, user: usize, proof: Proof) {
        let Account { revision: known, disabled, removed } = self.accounts[user];
        let revision = match proof {
            Proof::Old => known - 1,
            Proof::Current => known,
            Proof::Newer => known + 1,
        };
        let conn = self.clients[n].conn;
        self.world.connection(conn).verdicts.clear();
        self.world.on(conn).logs_in(NAMES[user], revision);
        let Some(verdict) = self.world.on(conn).verdict() else {
            assert!(self.clients[n].closed, "a login is decided");
            return;
        };
        if verdict {
            assert!(revision >= known, "a proof from before a change is void");
            // One that is removed may have been added again.
            let back = removed && proof == Proof::Newer;
            assert!(!disabled && (!removed || back), "who is disabled or removed does not log in");
            assert!(!self.draining, "nobody logs in while the server drains");
            self.clients[n].user = Some(user);
            self.told(user, Standing::Active { revision });
        }
    }

    fn answer(&mut self, end: usize, nth: usize, what: &[What]) -> Option<Answering> {
        let asked = &self.world.handlers[end].asked;
        let nth = if is_plain(end) { 0 } else { nth % asked.len().max(1) };
        let (.., packet) = asked.get(nth)?;
        let asked: Value = serde_json::from_slice(&packet.body()).expect("JSON");
        let data = if asked["payload"].is_object() { &asked["payload"]["data"] } else { &asked };
        // What a handler passes on that nobody asked has no number.
        let message = data[0].as_u64().map(|number| number as usize);
        let expected = (0..self.clients.len()).map(|n| self.expected(n, message, what)).collect();
        let data = message.map_or("0".to_owned(), |message| format!("[{message},{}]", self.step));
        self.world.handler(ENDS[end].2).answers_nth(nth, &text(what, &data));
        Some(Answering { message, expected })
    }

    /// How many deliveries a client gets by an answer, or by what a handler says that nobody asked.
    fn expected(&self, n: usize, message: Option<usize>, what: &[What]) -> usize {
        let client = &self.clients[n];
        let asker = message.is_some_and(|message| self.messages[message].0 == n);
        let reached = |what: &&What| match what {
            What::To(names) => (asker || !client.input_ended) && client.user.is_some_and(|user| names.contains(&user)),
            What::Reply => asker,
            _ => false,
        };
        if self.is_closed(client) { 0 } else { what.iter().filter(reached).count() }
    }

    /// What must hold after each step.
    fn check(&mut self, answering: Option<&Answering>) {
        let mut report = None;
        let mut got = vec![0; self.clients.len()];
        for effect in std::mem::take(&mut self.world.effects) {
            match effect {
                Effect::Send(conn, packet) => {
                    assert_eq!(report, None, "a report comes right before what it settles");
                    let frame: Value = serde_json::from_slice(&packet.body()).expect("JSON");
                    let (header, payload) = (&frame["header"], &frame["payload"]);
                    let id = payload["id"].as_str().map(str::to_owned);
                    if header["messageType"] == "statusReport" {
                        report = Some((conn, id, header["status"] == "good"));
                        continue;
                    }
                    let n = self.place(conn);
                    let Answering { message, .. } = answering.expect("deliveries come of answers only");
                    got[n] += 1;
                    let Some(message) = *message else {
                        assert_eq!((&payload["data"], id), (&json!(0), None), "each delivery is of what was said just now");
                        continue;
                    };
                    let (asker, with_id) = self.messages[message];
                    assert_eq!(payload["data"], json!([message, self.step]), "each delivery is of the answer that came just now");
                    assert_eq!(id, (n == asker && with_id).then(|| message.to_string()), "ids are for the connection that asked");
                }
                Effect::Settle(conn, bytes) => self.settled(conn, bytes, report.take()),
                Effect::Verdict(conn, verdict) => {
                    let told = report.take().is_some_and(|(to, _, good)| to == conn && good == verdict);
                    assert!(told, "a verdict comes with its report");
                }
                Effect::Close(conn, reason) => {
                    assert!(report.take().is_none() || reason == CloseReason::Asked);
                    let n = self.place(conn);
                    self.clients[n].closed = true;
                }
                _ => {}
            }
        }
        assert_eq!(report, None, "a report comes right before what it settles");
        if let Some(Answering { expected, .. }) = answering.filter(|_| got.iter().any(|count| *count > 0)) {
            assert_eq!(&got, expected, "all get it whom the answer names, and nobody else");
        }
        self.check_tables();
    }

    /// A place at the gate is given back, with this report if any.
    fn settled(&mut self, conn: ConnId, bytes: usize, report: Option<(ConnId, Option<String>, bool)>) {
        let n = self.place(conn);
        let Client { closed, gone, places, .. } = &mut self.clients[n];
        let ended = *closed || *gone;
        let place = places.iter().position(|place| *place == bytes).expect("a place that was taken and not given back");
        places.swap_remove(place);
        assert!(report.as_ref().is_none_or(|(to, ..)| *to == conn));
        let Some(message) = bytes.checked_sub(BYTES) else {
            return assert_eq!(report.is_none(), ended, "built-in commands get one report each");
        };
        let (_, with_id) = self.messages[message];
        match report {
            Some((_, id, good)) => {
                assert_eq!(id, with_id.then(|| message.to_string()), "the report carries the message's own id");
                assert!(with_id || !good, "without an id there are only bad reports");
            }
            None => assert!(ended || !with_id, "a message with an id gets its report"),
        }
    }

    fn check_tables(&mut self) {
        for (user, name) in NAMES.iter().enumerate() {
            let sessions = self.world.dispatcher.users.sessions(name.as_bytes()).unwrap_or_default();
            let mut known: Vec<ConnId> = sessions.iter().map(|session| session.conn).collect();
            known.sort_unstable();
            let live = self.clients.iter().filter(|client| client.user == Some(user) && !client.closed && !client.gone);
            assert_eq!(known, live.map(|client| client.conn).collect::<Vec<_>>(), "the sessions of {name}");
            assert!(known.len() <= SESSIONS_PER_USER);
        }
        for client in self.clients.iter().filter(|client| client.input_ended && client.places.is_empty()) {
            assert!(client.closed || client.gone, "{} waits for nothing and is still open", client.conn);
        }
    }

    fn place(&self, conn: ConnId) -> usize {
        self.clients.iter().position(|client| client.conn == conn).expect("a connection that is known")
    }

    fn inform(&mut self, n: usize) {
        let conn = ConnId(9000 + self.step);
        self.world.connections.insert(conn, Connection::default());
        let kind = ["listClients", "sessions", "serverInfo", "quit"][n % 4].into();
        self.world.handle(Event::Informed(conn, Asker::Handler, Question { kind, data: None }));
        let expected = 2 + usize::from(n % 4 == 3);
        assert_eq!(std::mem::take(&mut self.world.effects).len(), expected, "an answer, its place, and after quit the end");
        self.world.handle(Event::Disconnected(conn));
        self.world.effects.clear();
    }

    fn is_closed(&self, client: &Client) -> bool {
        client.gone || self.world.connections[&client.conn].closed.is_some()
    }

    pub(super) fn comes_to_its_end(mut self) {
        self.happens(Op::Pass(60_000));
        for client in &self.clients {
            assert!(client.places.is_empty(), "{} has messages that nobody dealt with", client.conn);
        }
        for n in 0..self.clients.len() {
            self.happens(Op::Disconnect(n));
        }
        self.happens(Op::Pass(60_000));
        let left = self.world.left();
        assert!(left.iter().all(|(_, count)| *count == 0), "left at the end: {left:?}");
        assert_eq!(self.world.dispatcher.next_deadline(), None, "there is nothing to wake up for");
        assert_eq!(self.world.drained, usize::from(self.draining));
    }
}

fn is_envelope(end: usize) -> bool {
    matches!(ENDS[end].2, "room" | "hall")
}

fn is_plain(end: usize) -> bool {
    !is_envelope(end) && end != EACH
}

fn text(what: &[What], data: &str) -> String {
    let command = |what: &What| match what {
        What::To(names) => ("sendClients", json!(names.iter().map(|name| NAMES[*name]).collect::<Vec<_>>()).to_string()),
        What::Reply => ("reply", "null".to_owned()),
        What::PassOn(kind) => ("sendHandler", format!("\"{}\"", KINDS[*kind])),
        What::Servers => ("sendServers", r#"["b.example"]"#.to_owned()),
        What::Refused | What::Wrong => ("none", "null".to_owned()),
    };
    if what.iter().any(|what| matches!(what, What::Wrong)) {
        return r#"{"header":{"status":"0"}}"#.to_owned();
    }
    if what.iter().any(|what| matches!(what, What::Refused)) {
        return r#"{"header":{"status":"1"}}"#.to_owned();
    }
    let commands: Vec<(&str, String)> = what.iter().map(command).collect();
    let commands: Vec<(&str, &str)> = commands.iter().map(|(command, names)| (*command, names.as_str())).collect();
    several(&commands, data)
}
