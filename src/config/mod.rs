//! The configuration: read once, checked completely, and from then on a value that the rest can trust.
//!
//! Start reading at [`Config`]. `json.rs` turns text into a tree with positions; `read.rs` turns the tree into a
//! [`Config`], with `network.rs`, `handlers.rs`, `federation.rs` and `limits.rs` for the large blocks, and `block.rs` for single values;
//! `mistake.rs` has what can be wrong with a file. `check.rs` compares a [`Config`] with the machine (programs, paths)
//! and finds what is in `problem.rs`, with `identity.rs` for users and groups; `plan.rs` tells in words what a server would do with it.
//!
//! This room must not know what the values are for: nothing is opened, started or made here.

mod block;
mod changes;
mod check;
mod federation;
mod handlers;
mod identity;
mod json;
mod limits;
mod mistake;
mod network;
mod plan;
mod problem;
mod read;
#[cfg(test)]
mod tests;

pub use changes::{fixed_changes, handler_changes, keep_state_directory};
pub use check::problems;
pub use identity::{Account, Identity, NoIdentity};
pub use mistake::{Fault, Mistake, Mistakes, Position};
pub use plan::{Warning, plan, warnings};
pub use problem::{Flaw, Problem, exit_code};

pub use crate::protocol::handler::Offline;

use crate::name::{ServerName, TypeName};
use crate::transport::HostPort;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The commented example, which is also the reference of all keys.
pub const EXAMPLE: &str = include_str!("../../bester.conf.example");

/// A whole configuration, every value checked, relative paths made absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Who we are and where our state lies.
    pub server: Server,
    /// Where clients connect.
    pub network: Network,
    /// The handlers, by their type, in the order of their names.
    pub handlers: BTreeMap<TypeName, Handler>,
    /// Where accounts are kept.
    pub database: PathBuf,
    /// Who may have an account.
    pub accounts: Accounts,
    /// Which other servers may speak, and are spoken to.
    pub federation: Federation,
    /// All bounds.
    pub limits: Limits,
    /// What the informer's `serverInfo` tells of the operator: the JSON text of `admin.info`.
    pub admin_info: String,
    /// Log levels by room (`dispatcher`, `handler`, ...); the room `all` is the default of the others, and always there.
    pub log: BTreeMap<String, log::LevelFilter>,
}

impl Config {
    /// Where other servers reach this one: what is configured, or else the server's name and the port for TLS, if there is one.
    pub fn address_for_peers(&self) -> Option<HostPort> {
        let given = self.federation.address.clone();
        let port = self.network.tls.as_ref().map(|tls| tls.address.port());
        given.or_else(|| format!("{}:{}", self.server.name, port?).parse().ok())
    }
}

/// The block `server`.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// `server.name`; the host's name unless it is given.
    pub name: ServerName,
    /// `server.stateDirectory`; `bester-state` beside the file unless it is given.
    pub state_directory: PathBuf,
}

/// The block `network`: only the listeners that `types` names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Network {
    /// `network.tcp4`.
    pub tcp4: Option<SocketAddr>,
    /// `network.tcp6`.
    pub tcp6: Option<SocketAddr>,
    /// `network.unix`.
    pub unix: Option<UnixListen>,
    /// `network.tls`.
    pub tls: Option<TlsListen>,
}

/// The block `network.tls`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsListen {
    /// Where clients and other servers connect.
    pub address: SocketAddr,
    /// A certificate (or a chain of them) and its key, in PEM; those in the state directory unless they are given.
    pub files: Option<TlsFiles>,
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `certificate`.
    pub certificate: PathBuf,
    /// `key`.
    pub key: PathBuf,
}

/// The block `federation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Federation {
    /// Which other servers may speak, and are spoken to.
    pub mode: FederationMode,
    /// Where other servers reach this one; the server's name and the port of `network.tls` unless it is given.
    pub address: Option<HostPort>,
}

/// Which other servers may speak, and are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FederationMode {
    /// None.
    Off,
    /// Those that were made known with `bester peer`.
    Peers,
    /// Those, and anybody else about whom nothing is known.
    Open,
}

/// The block `network.unix`.
#[derive(Debug, Clone, PartialEq)]
pub struct UnixListen {
    /// Where the socket lies.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// The block of one handler in `handlers.typeMap`.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    /// The program, its arguments, environment and directory; none when somebody else runs it.
    pub program: Option<Program>,
    /// How many processes run it at once. The messages of one connection stay with one of them.
    pub instances: usize,
    /// Whether it is replaced when its program's file changes.
    pub watch: bool,
    /// How the server talks to it.
    pub transport: HandlerTransport,
    /// How frames are told apart.
    pub framing: Framing,
    /// Whether it is told who speaks.
    pub envelope: bool,
    /// Where its informer listens; in the state directory unless it is given or the program has a `user`.
    pub informer_socket: PathBuf,
    /// The directory for that socket, if it is one that the server makes beside its state directory, which is closed to the
    /// program's `user`.
    pub informer_directory: Option<PathBuf>,
    /// How many requests it may have under way at once.
    pub in_flight: usize,
    /// How many requests may wait for it.
    pub queue: usize,
    /// How long a request may wait.
    pub queue_wait: Duration,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How long it may take to end once its input is closed.
    pub stop: Duration,
    /// What is done for users who are away, unless an answer says otherwise.
    pub offline: Offline,
    /// Whether other servers reach it.
    pub federated: bool,
    /// Whether it may get a message a second time, when it ended or was late with it.
    pub idempotent: bool,
}

/// How a handler's program is started.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// `handlerBinary`, as an absolute path.
    pub path: PathBuf,
    /// `arguments`.
    pub arguments: Vec<String>,
    /// `environment`: set for the program beside what every handler gets.
    pub environment: BTreeMap<String, String>,
    /// `workingDirectory`; the configuration's own directory unless it is given.
    pub directory: PathBuf,
    /// `user`: a name or a number; the server's own unless it is given.
    pub user: Option<String>,
    /// `group`: a name or a number; that of `user` unless it is given.
    pub group: Option<String>,
    /// `resources`.
    pub resources: Resources,
}

/// Bounds that the system keeps for a handler's program; what is not given stays as it was when the server started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Open files of each of its processes.
    pub files: Option<u64>,
    /// Bytes of address space of each of its processes.
    pub memory: Option<u64>,
    /// Processes and threads of its user.
    pub processes: Option<u64>,
}

/// How the server talks to a handler.
#[derive(Debug, Clone, PartialEq)]
pub enum HandlerTransport {
    /// Its standard input and output.
    Stdio,
    /// A socketpair on descriptor 3.
    Socket,
    /// A UNIX socket that it listens on.
    Unix {
        /// `unixDomainSocketPath`.
        path: PathBuf,
        /// Whether one connection stays open for all messages, or each message gets one.
        persistent: bool,
    },
}

/// How frames are told apart on a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Four bytes of length, little endian, before each.
    Length,
    /// One JSON text a line.
    Lines,
}

/// The block `accounts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Accounts {
    /// Who may make an account through the protocol.
    pub registration: Registration,
    /// The least bytes of a new password.
    pub password_minimum: usize,
}

impl Accounts {
    /// The least bytes of a new password, unless the configuration says otherwise.
    pub const PASSWORD_MINIMUM: usize = 8;
}

/// Who may make an account through the protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Registration {
    /// Nobody: accounts are made with `bester user add`.
    Closed,
    /// Anybody.
    Open,
    /// Whoever knows the text in this file.
    Token(PathBuf),
}

/// The block `limits`. There is no "no limit": every value is at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Client connections at once.
    pub connections: usize,
    /// Client connections at once from one address (IPv6: one /64); this machine itself is not counted.
    pub connections_per_source: usize,
    /// Sessions of one user at once.
    pub connections_per_user: usize,
    /// Connections of one other server at once.
    pub connections_per_peer: usize,
    /// From the connection to a good login, also after `logout`.
    pub login: Duration,
    /// From the connection to the end of the TLS handshake.
    pub tls: Duration,
    /// A client's frame after login, in bytes.
    pub frame_bytes: usize,
    /// A client's frame before login, in bytes.
    pub frame_bytes_before_login: usize,
    /// Another server's frame, in bytes.
    pub frame_bytes_server: usize,
    /// A handler's frame, in bytes.
    pub frame_bytes_handler: usize,
    /// A frame must be complete within this time of its first byte, or ...
    pub frame: Duration,
    /// ... within its length divided by this many bytes a second, whichever is longer.
    pub frame_bytes_per_second: usize,
    /// Nesting inside `data`.
    pub depth: usize,
    /// Messages of one connection under way at once; what comes after them is not read yet.
    pub in_flight: usize,
    /// Names in one `sendClients`.
    pub recipients: usize,
    /// Bytes that wait for one session.
    pub outgoing_bytes: usize,
    /// Frames that wait for one session.
    pub outgoing_frames: usize,
    /// Bytes that wait for all sessions together.
    pub outgoing_bytes_total: usize,
    /// Bytes that came in and are not yet dealt with, of all connections together.
    pub incoming_bytes_total: usize,
    /// Messages in one mailbox, ...
    pub mailbox_messages: usize,
    /// ... the bytes of their data, ...
    pub mailbox_bytes: usize,
    /// ... and how long each of them is kept.
    pub mailbox_age: Duration,
    /// Deliveries of one session that it has not acknowledged, ...
    pub unacknowledged_messages: usize,
    /// ... and their bytes, of which one delivery may have more.
    pub unacknowledged_bytes: usize,
    /// How long a session may have such deliveries without acknowledging any.
    pub ack: Duration,
    /// In how many sessions a message is delivered without being acknowledged before it is set aside.
    pub delivery_attempts: u32,
    /// How long a message with `dedupe` is remembered.
    pub dedupe_age: Duration,
    /// How many of them are remembered.
    pub dedupe_messages: usize,
    /// Messages that wait for the disk, one for each recipient, ...
    pub storage_queue: usize,
    /// ... and their bytes.
    pub storage_bytes: usize,
    /// What a handler may send in a second without being asked, ...
    pub pushes_per_second: usize,
    /// ... and at once, if it has been silent before.
    pub push_burst: usize,
    /// Other servers that may be known.
    pub peers: usize,
    /// Messages to another server that it has not reported on, on one link.
    pub peer_in_flight: usize,
    /// How long another server may be silent while it owes a report; also how long connecting may take.
    pub peer_report: Duration,
    /// How long to wait before another server is tried again: at first, ...
    pub peer_retry_min: Duration,
    /// ... and, doubling, at most.
    pub peer_retry_max: Duration,
    /// What another server may send in a second, ...
    pub peer_messages_per_second: usize,
    /// ... and at once, if it has been silent before.
    pub peer_message_burst: usize,
    /// What one address may send in a second that is no peer, with `federation.mode` `open`.
    pub open_messages_per_second: usize,
    /// Messages that wait for one other server, ...
    pub outbox_messages: usize,
    /// ... the bytes of their data, ...
    pub outbox_bytes: usize,
    /// ... and how long each of them waits before it is given up.
    pub outbox_age: Duration,
    /// How long a message of another server is remembered, ...
    pub seen_age: Duration,
    /// ... and how many of each.
    pub seen_messages: usize,
    /// How long an invitation is good.
    pub invite_age: Duration,
    /// From the order to stop until the process ends at the latest.
    pub drain: Duration,
    /// Passwords that are hashed at once.
    pub hashing_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            connections: 4096,
            connections_per_source: 64,
            connections_per_user: 10,
            connections_per_peer: 4,
            login: Duration::from_secs(10),
            tls: Duration::from_secs(5),
            frame_bytes: 1 << 20,
            frame_bytes_before_login: 16 << 10,
            frame_bytes_server: 2 << 20,
            frame_bytes_handler: 4 << 20,
            frame: Duration::from_secs(30),
            frame_bytes_per_second: 4 << 10,
            depth: 100,
            in_flight: 64,
            recipients: 10_000,
            outgoing_bytes: 1 << 20,
            outgoing_frames: 256,
            outgoing_bytes_total: 256 << 20,
            incoming_bytes_total: 128 << 20,
            mailbox_messages: 1000,
            mailbox_bytes: 8 << 20,
            mailbox_age: Duration::from_secs(30 * 86_400),
            unacknowledged_messages: 64,
            unacknowledged_bytes: 1 << 20,
            ack: Duration::from_secs(60),
            delivery_attempts: 20,
            dedupe_age: Duration::from_secs(10 * 60),
            dedupe_messages: 1_000_000,
            storage_queue: 16_384,
            storage_bytes: 64 << 20,
            pushes_per_second: 1000,
            push_burst: 2000,
            peers: 256,
            peer_in_flight: 32,
            peer_report: Duration::from_secs(30),
            peer_retry_min: Duration::from_secs(5),
            peer_retry_max: Duration::from_secs(300),
            peer_messages_per_second: 10_000,
            peer_message_burst: 20_000,
            open_messages_per_second: 5,
            outbox_messages: 10_000,
            outbox_bytes: 128 << 20,
            outbox_age: Duration::from_secs(48 * 3600),
            seen_age: Duration::from_secs(72 * 3600),
            seen_messages: 1_000_000,
            invite_age: Duration::from_secs(24 * 3600),
            drain: Duration::from_secs(30),
            hashing_at_once: cores.saturating_sub(1).max(1),
        }
    }
}
