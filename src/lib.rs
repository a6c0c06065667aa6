//! `bester`: a server for the Bester protocol, by which users and the operator's own programs exchange messages.
//!
//! For every type of message the operator names a program, the handler. The server gives it what users send, does what it
//! answers (deliver this to those) and reports to the sender. `README.md` tells how it is used and what goes over the
//! wire. This page is the map of the sources; each module tells where to start reading in it.
//!
//! # Floors
//!
//! A module uses what stands below it, never what stands above or on the same line; only those on the ground are for
//! everybody, also for each other, without going in circles.
//!
//! ```text
//! cli                               the commands; main.rs only picks one
//! server   client                   the assembly; a small client, for the commands and for programs in Rust
//! listener   handler   federation   where connections come from and go to: clients, programs, other servers, and
//! admin                             commands on this machine
//! connection                        the threads that read, one for each connection
//! dispatcher::run                   the dispatcher's thread, which writes
//! dispatcher                        all state, as a machine without I/O: events in, effects out
//! protocol  transport  frame  outlet  gate  store  password  config  name  thread  tls  signals  logging  sys
//! ```
//!
//! `listener` and `handler` make something to read from and write to, and hand it to `connection`. `federation` sends to other
//! servers and reads their reports on threads of its own; what those send comes in through `listener`. `dispatcher` sees ids,
//! never sockets, files or clocks; only `dispatcher::run`, the thread around it, knows what is behind an id. `protocol`
//! knows bytes and nothing else. Where something below must set something above in motion (have a handler replaced, say),
//! `server` has handed in a channel or a function for it. `handler::program` is at the other end of it all: handlers in Rust
//! are written with it, and the server does without it. A connection's thread
//! sends events to the dispatcher's; that one writes to the connection through its outlet, and tells its thread through its gate.
//!
//! # The way of a message
//!
//! ```text
//! client's socket
//!   | transport             with TLS on it, it is decrypted on the way, by the same thread
//!   | connection::client    a thread reads; frame::Decoder makes frames; protocol::client says what each means
//!   v
//! Event::Message            all that came with one read, in one send, on the dispatcher's bounded channel
//!   | dispatcher            routes: which handler; requests: whose message, and until when
//!   v
//! Effect::Ask               dispatcher::run writes it to the handler's outlet
//!   |                       ... the handler's program thinks ...
//! handler's output
//!   | connection::handler   a thread reads; protocol::handler says what the answer orders
//!   v
//! Event::Answered
//!   | dispatcher            requests: who had asked; users: who is where; protocol::report writes each delivery once
//!   v
//! Effect::Send x n          dispatcher::run writes to each outlet once; outlet::flusher finishes the slow ones
//! ```
//!
//! What an answer has for mailboxes takes one turn more, before the sender hears of it:
//!
//! ```text
//! Effect::Write             to the storage thread, which takes all that waits into one transaction and syncs it
//!   | store                 then it tells the dispatcher, and only then
//!   v
//! Event::Stored             keeping: the report may go out, and sessions that acknowledge are sent what is kept
//!   | feeding               others are fed from their mailbox, a page at a time: Effect::Read, to the reading thread
//!   v
//! Effect::Send              a connection that does not take what it is handed has the rest put into the mailbox
//! ```
//!
//! What an answer has for other servers takes the same way: into an outbox, and from there to the link of that server.
//!
//! ```text
//! Effect::Write             the outbox of the peer, in the same transaction as everything else of the answer
//!   | store
//! Effect::Forward           to the peer's link, if it is quick; otherwise the link reads the outbox
//!   | federation            courier: what is on its way; link: TLS, and the peer's reports
//!   v
//! Write::Sent               the peer has it: it is deleted; or it is tried again, or its author is told
//! ```
//!
//! What another server sends takes the way of a client's message, from a connection of its own to the handler, with three
//! differences:
//!
//! ```text
//! connection::server        a header in each frame: protocol::server; what it may send: allowance
//!   v
//! Event::Greeted            once: dispatcher::peers judges the key that TLS proved and the name that it says, serving does the rest
//! Event::Message
//!   | dispatcher            repeats: had it before? only then to the handler; the report is kept with what the answer does
//!   v
//! Effect::Send              the report: the other server's link reads it, and deletes the message there
//! ```
//!
//! The data of a message is a range of the frame that it came in, all the way: it is never decoded, and copied only
//! into what goes out.
//!
//! # Habits
//!
//! The dispatcher never waits. Every queue has a bound, and what happens when it is full is decided: a connection's
//! thread waits (so the client feels it), a message is reported as `busy`, what a client reads too slowly goes to its user's
//! mailbox, and where there is none for it, the client is closed.
//! What is slow (passwords, the disk) is done by the connection's own thread and by the two storage threads in [`store`].
//! Threads are started by [`thread::spawn`] alone. `sys.rs` is the only file that may be `unsafe`.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod connection;
pub mod dispatcher;
pub mod federation;
pub mod frame;
pub mod gate;
pub mod handler;
pub mod listener;
pub mod logging;
pub mod name;
pub mod outlet;
pub mod password;
pub mod protocol;
pub mod server;
pub mod signals;
pub mod store;
mod sys;
pub mod thread;
pub mod tls;
pub mod transport;
