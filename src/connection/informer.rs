//! The thread of a handler's connection to its informer, where it asks what it likes to know. The server's own control socket
//! speaks the same way and gives its questions to somebody else (`admin/control.rs`).
//!
//! Spawned by the informer's listener; owns the socket and the decoder; waits in `read`, for as long as it takes: a
//! handler may keep its connection, and has only so many. Ends when the handler goes, or with the first frame that is no
//! question.

use crate::config::Framing;
use crate::dispatcher::Event;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::{Inbound, Port};
use crate::frame::{Decoder, Frame};
use crate::gate::Gate;
use crate::name::ConnId;
use crate::outlet::{Bounds, Outlet, Total};
use crate::protocol::informer;
use crate::transport::{Sink, Socket, SocketReader};
use log::debug;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The stack of an informer connection's thread.
pub const STACK_BYTES: usize = 128 << 10;
/// A question is short.
const FRAME_BYTES_MAX: usize = 128 << 10;
const READ_BYTES: usize = 4 << 10;
/// Nesting of a question's argument.
const DEPTH_MAX: usize = 16;
/// Questions under way at once.
const IN_FLIGHT: usize = 16;
/// What waits for a handler that does not read its answers; a single answer always fits.
const BOUNDS: Bounds = Bounds { bytes: 1 << 20, frames: 64 };
/// How long the last answer may take to be read.
const LINGER: Duration = Duration::from_secs(2);

/// Serves one connection of a handler's informer.
pub fn serve(inbound: &Inlet, conn: ConnId, stream: UnixStream, outgoing: &Arc<Total>) {
    let socket = Arc::new(Socket::Unix(stream));
    let gate = Arc::new(Gate::new(IN_FLIGHT));
    let outlet = Arc::new(Outlet::new(Sink::Socket(Arc::clone(&socket)), BOUNDS, Arc::clone(outgoing)));
    let port = Port { outlet: Arc::clone(&outlet), gate: Arc::clone(&gate), socket: Arc::clone(&socket) };
    if inbound.send(Inbound::Attach(conn, port)).is_err() {
        return; // the server is at its end
    }
    let ask = |frame: &Frame| match informer::parse(frame, DEPTH_MAX) {
        Ok(question) => {
            // A place is waited for; what cannot be handed over is lost with the server.
            let open = gate.wait_and_enter();
            open && inbound.send(Inbound::One(Event::Informed(conn, question))).is_ok()
        }
        Err(message) => {
            debug!("informer: {message}");
            gate.wait_idle();
            outlet.send(&[informer::failure(&message)]);
            false
        }
    };
    read_questions(SocketReader::new(Arc::clone(&socket)), ask);
    gate.wait_idle();
    outlet.finish();
    outlet.wait_shut(Instant::now() + LINGER);
    outlet.abort();
    let _ = inbound.send(Inbound::One(Event::Disconnected(conn))); // nobody listens at the end of the server
}

/// Gives each frame to `take` until it says that it was the last, or the input ends.
pub fn read_questions(mut source: SocketReader, mut take: impl FnMut(&Frame) -> bool) {
    let mut decoder = Decoder::new(Framing::Length, FRAME_BYTES_MAX);
    while matches!(source.read(decoder.space(READ_BYTES)), Ok(bytes) if bytes > 0) {
        loop {
            match decoder.frame() {
                Ok(Some(frame)) if take(&frame) => {}
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}
