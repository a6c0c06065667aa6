//! What a client's connection has agreed on so far, and what each of its frames means then.
//!
//! Ordinary messages go to the dispatcher, all that came with one read in one send. What needs a password is done
//! here, when all earlier messages have their reports: an answer to one user's message must not come to the next.

use super::client::Shared;
use super::login::Denied;
use super::server::Speaking;
use crate::dispatcher::run::Inbound;
use crate::dispatcher::{About, Event, Inquiry, Message, Proof};
use crate::frame::{Frame, Slice, TooLarge};
use crate::gate::{CloseReason, Gate};
use crate::name::{BUILTIN, ConnId, DUMMY, INTERNAL, Username};
use crate::protocol::builtin::{self, Builtin};
use crate::protocol::client::{self, Credentials, Header, Options, Payload, Refusal, Scope};
use crate::protocol::reason::Reason;
use crate::protocol::report::Id;
use crate::protocol::text::Text;
use crate::store::mail::Digest;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Instant;

/// So many frames in a row that are no messages end a connection.
const MALFORMED_MAX: u32 = 10;
/// What is collected before it is sent to the dispatcher, in bytes; a longer frame goes alone.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    End,
}

/// Whether there is a user.
#[derive(Debug)]
pub(super) enum Stage {
    /// Not yet: headers are read.
    Stranger,
    /// Yes.
    User(Username),
    /// Not any longer.
    LoggedOut,
    /// There is another server.
    Server(Speaking),
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) conn: ConnId,
    pub(super) gate: Arc<Gate>,
    pub(super) stage: Stage,
    /// What is known of the other side, whatever it says.
    pub(super) proof: Proof,
    /// It may be another server, by what is known of it.
    pub(super) may_be_server: bool,
    pub(super) login_deadline: Option<Instant>,
    /// Whether it acknowledges what comes to it.
    ack: bool,
    /// Whether its messages may come again, and are handled once.
    dedupe: bool,
    pub(super) just_begun: bool,
    pub(super) malformed: u32,
    batch: Vec<Event>,
    /// As many as the last batch had; a list that has to grow is copied each time.
    expected: usize,
    batch_bytes: usize,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, conn: ConnId, gate: Arc<Gate>, proof: Proof, accepted: Instant) -> Session {
        Session {
            conn,
            gate,
            stage: Stage::Stranger,
            proof,
            may_be_server: false,
            login_deadline: Some(accepted + shared.limits.login),
            ack: false,
            dedupe: false,
            just_begun: false,
            malformed: 0,
            batch: Vec::new(),
            expected: 0,
            batch_bytes: 0,
            shared,
        }
    }

    pub(super) fn frame_bytes_max(&self) -> usize {
        let limits = &self.shared.limits;
        match &self.stage {
            Stage::User(_) => limits.frame_bytes,
            Stage::Server(speaking) => speaking.frame_bytes_max(limits),
            Stage::Stranger if self.may_be_server => limits.frame_bytes_server,
            Stage::Stranger | Stage::LoggedOut => limits.frame_bytes_before_login,
        }
    }

    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Stranger)
    }

    pub(super) fn login_deadline(&self) -> Option<Instant> {
        self.login_deadline
    }

    /// Whether there was a login since this was last asked.
    pub(super) fn has_just_begun(&mut self) -> bool {
        std::mem::take(&mut self.just_begun)
    }

    pub(super) fn bytes_under_way(&self) -> usize {
        self.gate.bytes()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.gate.is_closing()
    }

    pub(super) fn user_for_log(&self) -> String {
        match &self.stage {
            Stage::User(user) => user.to_string(),
            Stage::Server(speaking) => format!("server {}", speaking.name()),
            Stage::Stranger | Stage::LoggedOut => "no user".to_owned(),
        }
    }

    /// Takes one frame.
    pub(super) fn frame(&mut self, frame: &Frame) -> Flow {
        if matches!(self.stage, Stage::Server(_)) {
            return self.server_frame(frame);
        }
        let stranger = matches!(self.stage, Stage::Stranger);
        match client::parse(frame, stranger, self.shared.limits.depth) {
            Ok(message) => {
                // Whether a command is one is known only when it was read as well.
                if !message.payload.as_ref().is_some_and(|payload| is_builtin(&payload.kind)) {
                    self.malformed = 0;
                }
                match message.header.filter(|_| stranger) {
                    Some(header) => self.first(&header, message.payload, frame),
                    None => self.payload(message.payload, frame),
                }
            }
            // It may say what no client may, an invitation say, and is read again as what it is.
            Err(_) if stranger && client::is_of_server(frame) => self.first_of_server(frame),
            Err(refusal) => self.refuse_frame(refusal),
        }
    }

    /// A frame of a connection that never had a user.
    fn first(&mut self, header: &Header, payload: Option<Payload>, frame: &Frame) -> Flow {
        let about = About { kind: kind_of(payload.as_ref()), id: Some(Id::AuthSpecial) };
        if header.scope == Scope::Server {
            return self.first_of_server(frame);
        }
        if let Some(Credentials { username, password }) = &header.authentication {
            let flow = self.log_in(username, password, header.options, about);
            let dispatched = payload.filter(|payload| payload.kind.bytes() != DUMMY.as_bytes());
            return match dispatched {
                Some(payload) if flow == Flow::Continue => self.payload(Some(payload), frame),
                _ => flow,
            };
        }
        match payload {
            Some(payload) if is_builtin(&payload.kind) => self.builtin(payload),
            _ => self.refuse(about, Reason::NotAuthenticated, "the first message must log in".to_owned(), true),
        }
    }

    fn payload(&mut self, payload: Option<Payload>, frame: &Frame) -> Flow {
        let Some(payload) = payload else { return Flow::Continue };
        if is_builtin(&payload.kind) {
            return self.builtin(payload);
        }
        let Payload { kind, data, id } = payload;
        if kind.bytes() == DUMMY.as_bytes() {
            let about = About { kind, id: id.map(Id::Client) };
            return self.forward(Event::Asked(self.conn, Inquiry::Dummy, about), 0);
        }
        let bytes = frame.bytes().len();
        let digest = match (&self.stage, &id) {
            (Stage::User(user), Some(id)) if self.dedupe => Some(Box::new(digest(user, id, &kind, &data))),
            _ => None,
        };
        self.forward(Event::Message(self.conn, Message { kind, data, id, bytes, digest, transit: None }), bytes)
    }

    fn builtin(&mut self, payload: Payload) -> Flow {
        let about = About { kind: payload.kind, id: payload.id.map(Id::Client) };
        let stranger = matches!(self.stage, Stage::Stranger);
        let command = match builtin::parse(&payload.data) {
            Ok(command) if stranger && !command.before_login() => {
                let about = About { id: Some(Id::AuthSpecial), ..about };
                return self.refuse(about, Reason::NotAuthenticated, "the first message must log in".to_owned(), true);
            }
            Ok(command) => command,
            Err((Reason::Malformed, words)) => return self.refuse_malformed(about, Reason::Malformed, words, stranger),
            Err((reason, words)) => {
                self.malformed = 0;
                return self.refuse(about, reason, words, stranger);
            }
        };
        self.malformed = 0;
        let inquiry = match command {
            Builtin::Whoami => Inquiry::Whoami,
            Builtin::Handlers => Inquiry::Handlers,
            Builtin::Ping => Inquiry::Ping,
            Builtin::Ack { seq } => return self.forward(Event::Acknowledged { conn: self.conn, seq, about }, 0),
            command => return self.change(command, about),
        };
        self.forward(Event::Asked(self.conn, inquiry, about), 0)
    }

    /// What takes effect when all earlier messages have their reports.
    fn change(&mut self, command: Builtin, about: About) -> Flow {
        self.flush();
        if !self.gate.wait_idle() {
            return Flow::End;
        }
        match command {
            Builtin::Authenticate { username, password, options } => self.log_in(&username, &password, options, about),
            Builtin::Logout => self.log_out(about),
            Builtin::ChangePassword { old, new } => self.change_password(&old, &new, about),
            Builtin::Register { username, password, token } => self.register(&username, &password, token.as_ref(), about),
            Builtin::Close => {
                self.gate.linger();
                self.tell(Event::Leaving(self.conn, about));
                Flow::End
            }
            Builtin::Whoami | Builtin::Handlers | Builtin::Ping | Builtin::Ack { .. } => Flow::Continue, // these change nothing
        }
    }

    /// What `options` does not mention stays as it was agreed on this connection.
    fn log_in(&mut self, username: &Text, password: &Text, options: Options, about: About) -> Flow {
        let has_user = matches!(self.stage, Stage::User(_));
        let (user, revision) = match self.shared.login.prove(username, password) {
            Ok(proved) => proved,
            Err(denial) => return self.deny(about, denial, !has_user),
        };
        if !has_user {
            self.gate.linger(); // it ends if the dispatcher has no place for another session
        }
        let ack = options.ack.unwrap_or(self.ack);
        self.tell(Event::LoggedIn { conn: self.conn, user: user.clone(), revision, ack, after: options.after, about });
        if self.gate.wait_verdict() {
            self.ack = ack;
            self.dedupe = options.dedupe.unwrap_or(self.dedupe);
            self.gate.linger_no_longer();
            self.stage = Stage::User(user);
            self.just_begun = true;
            self.login_deadline = None;
            return Flow::Continue;
        }
        if has_user && !self.is_closing() { Flow::Continue } else { Flow::End }
    }

    fn log_out(&mut self, about: About) -> Flow {
        self.tell(Event::LoggedOut(self.conn, about));
        if self.gate.wait_verdict() {
            self.stage = Stage::LoggedOut;
            self.login_deadline = Some(Instant::now() + self.shared.limits.login);
        }
        Flow::Continue
    }

    fn change_password(&mut self, old: &Text, new: &Text, about: About) -> Flow {
        let Stage::User(user) = &self.stage else {
            return self.refuse(about, Reason::NotAuthenticated, "log in first".to_owned(), false);
        };
        let user = user.clone();
        match self.shared.login.change_password(&user, old, new) {
            Ok(revision) => {
                self.tell(Event::PasswordChanged { conn: self.conn, user, revision, about });
                self.gate.wait_verdict();
                Flow::Continue
            }
            Err(denial) => self.deny(about, denial, false),
        }
    }

    fn register(&mut self, username: &Text, password: &Text, token: Option<&Text>, about: About) -> Flow {
        match self.shared.login.register(username, password, token) {
            Ok((user, revision)) => {
                self.tell(Event::Registered { conn: self.conn, user, revision, about });
                self.gate.wait_verdict();
                Flow::Continue
            }
            Err(denial) => {
                let stranger = matches!(self.stage, Stage::Stranger);
                self.deny(about, denial, stranger)
            }
        }
    }

    /// The border to the next frame is lost.
    pub(super) fn too_large(&mut self, error: &TooLarge) {
        let stranger = matches!(self.stage, Stage::Stranger);
        let about = About { kind: Text::from(BUILTIN), id: stranger.then_some(Id::AuthSpecial) };
        self.refuse(about, Reason::TooLarge, error.to_string(), true);
    }

    pub(super) fn login_too_late(&mut self) {
        let words = format!("no login within {} s (limits.loginSeconds)", self.shared.limits.login.as_secs());
        let about = About { kind: Text::from(BUILTIN), id: Some(Id::AuthSpecial) };
        self.refuse(about, Reason::Authentication, words, true);
    }

    /// The client sends nothing more; what was sent still gets its reports.
    pub(super) fn input_ended(&mut self) {
        self.flush();
        self.tell(Event::InputEnded(self.conn));
    }

    pub(super) fn refuse_frame(&mut self, refusal: Refusal) -> Flow {
        let Refusal { reason, message, kind, id } = refusal;
        let stranger = matches!(self.stage, Stage::Stranger);
        let id = if stranger { Some(Id::AuthSpecial) } else { id.map(Id::Client) };
        let about = About { kind: kind.unwrap_or_else(|| Text::from(BUILTIN)), id };
        self.refuse_malformed(about, reason, message, stranger)
    }

    pub(super) fn refuse_malformed(&mut self, about: About, reason: Reason, message: String, last: bool) -> Flow {
        self.malformed += 1;
        self.refuse(about, reason, message, last || self.malformed >= MALFORMED_MAX)
    }

    fn deny(&mut self, about: About, denial: Denied, last: bool) -> Flow {
        self.refuse(about, denial.reason, denial.message, last)
    }

    pub(super) fn refuse(&mut self, about: About, reason: Reason, message: String, last: bool) -> Flow {
        if last {
            // What was sent before is answered before the last word.
            self.flush();
            if !self.gate.wait_idle() {
                return Flow::End;
            }
            self.gate.linger();
        }
        let flow = self.forward(Event::Refused { conn: self.conn, about, reason, message, last }, 0);
        if last {
            self.flush();
            return Flow::End;
        }
        flow
    }

    /// Puts an event with a place at the gate into the batch; waits for a place if there is none.
    pub(super) fn forward(&mut self, event: Event, bytes: usize) -> Flow {
        if self.batch_bytes + bytes > BATCH_BYTES_MAX {
            self.flush();
        }
        while !self.gate.has_room_beside(self.batch.len()) {
            self.flush();
            if !self.gate.wait_for_room() {
                return Flow::End;
            }
        }
        self.batch_bytes += bytes;
        if self.batch.is_empty() {
            self.batch.reserve_exact(self.expected.max(1));
        }
        self.batch.push(event);
        Flow::Continue
    }

    /// Hands over what is in the batch.
    pub(super) fn flush(&mut self) {
        let (messages, bytes) = (self.batch.len(), std::mem::take(&mut self.batch_bytes));
        if messages == 0 {
            return;
        }
        self.expected = messages;
        // Counted until the dispatcher gives them back, one message at a time.
        self.gate.enter(messages, bytes);
        self.shared.incoming.add(bytes);
        let inbound = match messages {
            1 => self.batch.pop().map(Inbound::One),
            _ => Some(Inbound::Many(std::mem::take(&mut self.batch))),
        };
        if let Some(inbound) = inbound {
            self.send(inbound);
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.flush();
        self.send(Inbound::One(event));
    }

    /// Waits while the dispatcher's channel is full, which slows down this client alone.
    fn send(&self, inbound: Inbound) {
        if self.shared.inbound.send(inbound).is_err() {
            // The dispatcher is gone, and nobody else will end this connection.
            self.gate.close(CloseReason::Stopping);
        }
    }
}

/// Two messages with the same one are the same message. The length of each part is in it, so that none can pass for another.
fn digest(user: &Username, id: &Slice, kind: &Text, data: &Slice) -> Digest {
    digest_of([user.as_str().as_bytes(), id.bytes(), kind.bytes(), data.bytes()])
}

pub(super) fn digest_of<const N: usize>(parts: [&[u8]; N]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

pub(super) fn is_builtin(kind: &Text) -> bool {
    [BUILTIN, INTERNAL].iter().any(|builtin| kind.bytes() == builtin.as_bytes())
}

/// The type that a report on a login carries.
fn kind_of(payload: Option<&Payload>) -> Text {
    let kind = payload.map(|payload| payload.kind.clone());
    kind.filter(|kind| kind.as_str().len() <= client::KIND_BYTES_MAX).unwrap_or_else(|| Text::from(BUILTIN))
}
