//! A connection on which another server speaks: what each of its frames means.
//!
//! That it may is for the dispatcher to say, which knows the peers. From then on each frame has a header of its own, which must
//! say the same name again.

use super::allowance::Allowance;
use super::session::{Flow, Session, Stage, digest_of, is_builtin};
use crate::config::Limits;
use crate::dispatcher::{About, Event, Inquiry, Message, Transit};
use crate::frame::{Frame, Slice};
use crate::name::{BUILTIN, ServerName};
use crate::protocol::builtin::{self, ServerCommand};
use crate::protocol::reason::Reason;
use crate::protocol::report::{Id, put_string};
use crate::protocol::server::{self, Header};
use crate::protocol::text::Text;
use crate::store::mail::Digest;
use crate::tls::Pin;
use crate::transport::HostPort;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest frame of a server of which nothing is known.
const OPEN_FRAME_BYTES_MAX: usize = 64 << 10;
/// Where a server may say that it listens: more are of no use.
const ADDRESSES_MAX: usize = 8;
/// It is looked now and then, while reading pauses, whether the connection is to end.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What connections of other servers need from those who make links. Both may take their time.
pub trait Introduction: fmt::Debug + Send + Sync {
    /// Has a server that was invited become a peer; gives the JSON text that it is told.
    ///
    /// # Errors
    /// The reason and the words of the report.
    fn join(&self, secret: Digest, name: ServerName, addresses: Vec<HostPort>, key: Pin) -> Result<String, (Reason, String)>;

    /// Looks whether a peer can be reached from here; gives the JSON text that it is told.
    ///
    /// # Errors
    /// The reason and the words of the report.
    fn dial_back(&self, name: &str) -> Result<String, (Reason, String)>;
}

/// Another server that may speak.
#[derive(Debug)]
pub(super) struct Speaking {
    /// The name that it says to have.
    name: Option<Text>,
    /// It is known; otherwise less is taken from it.
    known: bool,
    /// What it may send.
    allowance: Option<Arc<Allowance>>,
}

impl Speaking {
    pub(super) fn frame_bytes_max(&self, limits: &Limits) -> usize {
        if self.known { limits.frame_bytes_server } else { limits.frame_bytes_server.min(OPEN_FRAME_BYTES_MAX) }
    }

    /// For the log: a name is shown only if it may be one.
    pub(super) fn name(&self) -> String {
        let name = self.name.as_ref().and_then(|name| ServerName::new(name.as_str()).ok());
        name.map_or("without a name".to_owned(), |name| name.to_string())
    }
}

impl Session {
    /// Asks whether the other side may be another server, where something is known of it: then its first frame may be larger.
    pub(super) fn show_proof(&mut self) {
        let proof = self.proof;
        if proof.key.is_some() || (proof.plain && proof.address.is_some() && self.shared.has_plain_peers()) {
            self.may_be_server = self.is_peer();
        }
    }

    /// Asks whether the other side is a peer, or, before it has said so, whether it may be one.
    fn is_peer(&mut self) -> bool {
        self.tell(Event::Shown(self.conn, self.proof));
        self.gate.wait_verdict()
    }

    /// The first frame of a connection, which says that it is another server's.
    pub(super) fn first_of_server(&mut self, frame: &Frame) -> Flow {
        let server::Message { header, payload } = match server::parse(frame, self.shared.limits.depth) {
            Ok(message) => message,
            Err(refusal) => return self.refuse_frame(refusal),
        };
        if is_builtin(&payload.kind) && header.secret.is_some() {
            return self.join(&header, payload.id, &payload.data);
        }
        let kind = if is_builtin(&payload.kind) { Text::from(BUILTIN) } else { payload.kind.clone() };
        let about = About { kind, id: payload.id.clone().map(Id::Client) };
        self.gate.linger(); // it ends if the dispatcher does not accept it
        self.tell(Event::Greeted { conn: self.conn, proof: self.proof, server: header.server.clone(), about });
        if !self.gate.wait_verdict() {
            return Flow::End;
        }
        self.gate.linger_no_longer();
        // Whoever may be a peer by what he has shown may have said the name of another, and is a stranger then: nothing that
        // goes by that name is for him.
        let known = self.may_be_server && self.is_peer();
        let allowance = header.server.as_ref().filter(|_| known).map(|name| self.shared.server_allowances.of(name.as_str()));
        self.stage = Stage::Server(Speaking { name: header.server.clone(), known, allowance });
        self.just_begun = true;
        self.login_deadline = None;
        self.server_message(header, payload, frame)
    }

    /// A frame of another server.
    pub(super) fn server_frame(&mut self, frame: &Frame) -> Flow {
        match server::parse(frame, self.shared.limits.depth) {
            Ok(server::Message { header, payload }) => self.server_message(header, payload, frame),
            Err(refusal) => self.refuse_frame(refusal),
        }
    }

    fn server_message(&mut self, header: Header, payload: crate::protocol::client::Payload, frame: &Frame) -> Flow {
        let Stage::Server(speaking) = &self.stage else { return Flow::End };
        let Speaking { name, known, allowance } = speaking;
        let (known, allowance) = (*known, allowance.clone());
        let id = payload.id.or_else(|| header.message_id.as_ref().map(quoted));
        if *name != header.server {
            self.shared.log_refusal(|| {
                format!("{}: server {} is refused: it says another name on the same connection", self.conn, speaking.name())
            });
            let about = About { kind: payload.kind, id: id.map(Id::Client) };
            return self.refuse(about, Reason::Forbidden, "header.server is not what it was before on this connection".to_owned(), true);
        }
        if is_builtin(&payload.kind) {
            return self.server_builtin(id, &payload.data);
        }
        self.malformed = 0;
        let digest = match (&header.server, &header.message_id) {
            (Some(name), Some(id)) if known => Some(Box::new(digest_of([b"server", name.bytes(), id.bytes()]))),
            _ => None,
        };
        let bytes = frame.bytes().len();
        let transit = Some(Box::new(Transit { message_id: header.message_id, hops: header.hops, from: header.from }));
        let message = Message { kind: payload.kind, data: payload.data, id, bytes, digest, transit };
        let flow = self.forward(Event::Message(self.conn, message), bytes);
        if let Some(pause) = allowance.map(|allowance| allowance.take(Instant::now(), 1)).filter(|pause| !pause.is_zero()) {
            self.pause(pause);
        }
        flow
    }

    /// Reads nothing for a while; whoever sends too much is heard more slowly.
    fn pause(&mut self, pause: Duration) {
        self.flush();
        let until = Instant::now() + pause;
        while !self.is_closing() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PAUSE_MAX));
        }
    }

    fn server_builtin(&mut self, id: Option<Slice>, data: &Slice) -> Flow {
        let about = About { kind: Text::from(BUILTIN), id: id.map(Id::Client) };
        match builtin::parse_of_server(data, ADDRESSES_MAX) {
            Ok(ServerCommand::Ping) => self.forward(Event::Asked(self.conn, Inquiry::Ping, about), 0),
            Ok(ServerCommand::DialBack) => {
                let Stage::Server(Speaking { name: Some(name), known: true, .. }) = &self.stage else {
                    return self.refuse(about, Reason::Forbidden, "this is for peers".to_owned(), false);
                };
                let reply = self.shared.introduction.dial_back(name.as_str());
                self.reply(about, reply)
            }
            Ok(ServerCommand::Join { .. }) => {
                let words = "header.authentication.secret is missing, or you are a peer already";
                self.refuse(about, Reason::Forbidden, words.to_owned(), false)
            }
            Err((Reason::Malformed, words)) => self.refuse_malformed(about, Reason::Malformed, words, false),
            Err((reason, words)) => self.refuse(about, reason, words, false),
        }
    }

    fn reply(&mut self, about: About, reply: Result<String, (Reason, String)>) -> Flow {
        match reply {
            Ok(data) => self.forward(Event::Done { conn: self.conn, about, data }, 0),
            Err((reason, words)) => self.refuse(about, reason, words, false),
        }
    }

    /// A server that was invited becomes a peer. It may speak as one on its next connection.
    fn join(&mut self, header: &Header, id: Option<Slice>, data: &Slice) -> Flow {
        let about = About { kind: Text::from(BUILTIN), id: id.map(Id::Client) };
        match self.joined(header, data) {
            Ok(data) => {
                self.forward(Event::Done { conn: self.conn, about, data }, 0);
                Flow::Continue
            }
            Err((reason, words)) => {
                self.shared.log_refusal(|| format!("{}: an invitation is not accepted: {words}", self.conn));
                self.refuse(about, reason, words, true)
            }
        }
    }

    fn joined(&self, header: &Header, data: &Slice) -> Result<String, (Reason, String)> {
        let malformed = |words: String| (Reason::Malformed, words);
        let ServerCommand::Join { addresses } = builtin::parse_of_server(data, ADDRESSES_MAX)? else {
            return Err(malformed("only join goes with an invitation".to_owned()));
        };
        let key = self.proof.key.ok_or((Reason::Forbidden, "an invitation is accepted over TLS, with a certificate".to_owned()))?;
        let name = header.server.as_ref().map_or("", Text::as_str);
        let name = ServerName::new(name).map_err(|error| malformed(format!("header.server: {error}")))?;
        let parsed = addresses.iter().map(|address| address.as_str().parse::<HostPort>());
        let addresses = parsed.collect::<Result<_, _>>().map_err(|error| malformed(error.to_string()))?;
        let secret = header.secret.as_ref().map_or(&[][..], Text::bytes);
        self.shared.introduction.join(crate::tls::digest(secret), name, addresses, key)
    }
}

/// A text as a JSON string.
fn quoted(text: &Text) -> Slice {
    let mut quoted = Vec::new();
    put_string(&mut quoted, text.as_str());
    Slice::from(&quoted[..])
}
