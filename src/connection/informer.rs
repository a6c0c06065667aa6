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
use crate::frame::{Decoder, Frame, Packet};
use crate::gate::Gate;
use crate::name::ConnId;
use crate::outlet::{Bounds, Outlet, Total};
use crate::protocol::informer;
use crate::transport::{Sink, Socket, SocketReader};
use log::debug;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The stack of an informer connection's thread.
pub const STACK_BYTES: usize = 128 << 10;
const READ_BYTES: usize = 4 << 10;
/// Questions under way at once.
const IN_FLIGHT: usize = 16;
/// What waits for a handler that does not read its answers; a single answer always fits.
const BOUNDS: Bounds = Bounds { bytes: 1 << 20, frames: 64 };
/// How long an answer may take to be read.
const LINGER: Duration = Duration::from_secs(2);

/// What a question comes to.
#[derive(Debug)]
pub enum Asked {
    /// The dispatcher answers it.
    Dispatcher(Event),
    /// It is answered already.
    Here(Packet),
}

/// Serves one connection, until it ends or `take` finds a frame that is no question. `frame_bytes_max` is the largest
/// frame.
pub fn serve(
    inbound: &Inlet,
    conn: ConnId,
    stream: UnixStream,
    outgoing: &Arc<Total>,
    frame_bytes_max: usize,
    mut take: impl FnMut(&Frame) -> Result<Asked, String>,
) {
    let socket = Arc::new(Socket::Unix(stream));
    let gate = Arc::new(Gate::new(IN_FLIGHT));
    let outlet = Arc::new(Outlet::new(Sink::Socket(Arc::clone(&socket)), BOUNDS, Arc::clone(outgoing)));
    let port = Port { outlet: Arc::clone(&outlet), gate: Arc::clone(&gate), socket: Arc::clone(&socket) };
    if inbound.send(Inbound::Attach(conn, port)).is_err() {
        return; // the server is at its end
    }
    let ask = |frame: &Frame| match take(frame) {
        Ok(Asked::Dispatcher(event)) => {
            // Its answer may wait for the disk, and no other may come before.
            let alone = matches!(event, Event::Pushed { .. });
            // A place is waited for; what cannot be handed over is lost with the server.
            let open = gate.wait_and_enter();
            open && inbound.send(Inbound::One(event)).is_ok() && (!alone || gate.wait_idle())
        }
        Ok(Asked::Here(packet)) => gate.wait_idle() && write(&socket, &packet).is_ok(),
        Err(message) => {
            debug!("informer: {message}");
            gate.wait_idle();
            outlet.send(&[informer::failure(&message)]);
            false
        }
    };
    read_questions(SocketReader::new(Arc::clone(&socket)), frame_bytes_max, ask);
    gate.wait_idle();
    outlet.finish();
    outlet.wait_shut(Instant::now() + LINGER);
    outlet.abort();
    let _ = inbound.send(Inbound::One(Event::Disconnected(conn))); // nobody listens at the end of the server
}

/// Writes all of it; waits for a slow reader, but not for long.
fn write(socket: &Socket, packet: &Packet) -> io::Result<()> {
    let Socket::Unix(stream) = socket else { return Ok(()) };
    let mut stream: &UnixStream = stream;
    stream.set_write_timeout(Some(LINGER))?;
    packet.parts().into_iter().try_for_each(|part| stream.write_all(part))
}

/// Gives each frame to `take` until it says that it was the last, or the input ends.
pub fn read_questions(mut source: SocketReader, frame_bytes_max: usize, mut take: impl FnMut(&Frame) -> bool) {
    let mut decoder = Decoder::new(Framing::Length, frame_bytes_max);
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
