//! The control socket: how commands on this machine tell the running server that they changed something.
//!
//! It has an [`Acceptor`] in the state directory, which `server.rs` starts and stops, and whose thread has one short
//! conversation at a time, in frames as an informer speaks them.

use crate::connection::informer::read_questions;
use crate::dispatcher::Event;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::Inbound;
use crate::frame::{Frame, Packet};
use crate::name::Username;
use crate::protocol::informer::{self, Question};
use crate::store::Store;
use crate::transport::{Acceptor, Socket, SocketReader};
use log::{debug, info};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";

const STACK_BYTES: usize = 256 << 10;
/// How long a command may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names in one message at most. Whoever has changed more accounts has all of them looked at, by naming none.
pub const NAMES_MAX: usize = 1000;
const DEPTH_MAX: usize = 16;

/// Listens in the state directory.
pub fn start(state_directory: &Path, store: Store, inbound: Inlet) -> io::Result<Acceptor> {
    Acceptor::start("control".to_owned(), STACK_BYTES, &state_directory.join(SOCKET), move |stream| {
        if let Err(error) = converse(stream, &store, &inbound) {
            debug!("a command on the control socket: {error}");
        }
    })
}

fn converse(stream: UnixStream, store: &Store, inbound: &Inlet) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let answers = stream.try_clone()?;
    let mut reader = SocketReader::new(Arc::new(Socket::Unix(stream)));
    reader.set_timeout(Some(PATIENCE))?;
    read_questions(reader, |frame| {
        let packet = match answer(frame, store, inbound) {
            Ok(()) => informer::success(b"null"),
            Err(message) => informer::failure(&message),
        };
        write(&answers, &packet).is_ok()
    });
    Ok(())
}

fn write(mut stream: &UnixStream, packet: &Packet) -> io::Result<()> {
    packet.parts().into_iter().try_for_each(|part| stream.write_all(part))
}

fn answer(frame: &Frame, store: &Store, inbound: &Inlet) -> Result<(), String> {
    let question = informer::parse(frame, DEPTH_MAX)?;
    match question.kind.as_str() {
        "accountsChanged" => accounts_changed(&question, store, inbound),
        _ => Err("there is no such command; there is accountsChanged".into()),
    }
}

/// Has the dispatcher look at the accounts that were changed, or at all of them.
fn accounts_changed(question: &Question, store: &Store, inbound: &Inlet) -> Result<(), String> {
    let names = match question.data.as_ref().filter(|data| data.bytes() != b"null") {
        None => None,
        Some(data) => {
            let texts = informer::texts(data, NAMES_MAX)?;
            let names: Result<Vec<Username>, _> = texts.iter().map(|text| Username::new(text.as_str())).collect();
            Some(names.map_err(|error| error.to_string())?)
        }
    };
    let all = names.is_none();
    let standings = store.standings(names).map_err(|error| error.with_causes())?;
    info!("accounts changed: {} looked at", standings.len());
    let event = if all { Event::AccountsReloaded(standings) } else { Event::AccountsChanged(standings) };
    inbound.send(Inbound::One(event)).map_err(|_| "the server is stopping".to_owned())
}
