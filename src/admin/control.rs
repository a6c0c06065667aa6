//! The control socket: how commands on this machine tell the running server that they changed something.
//!
//! Spawned by `server.rs`; owns the listening socket in the state directory, which is for the owner alone; waits in
//! `accept` and then for one short conversation at a time, in frames as an informer speaks them; ends when the socket
//! is shut down.

use crate::connection::informer::read_questions;
use crate::dispatcher::Event;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::Inbound;
use crate::frame::{Frame, Packet};
use crate::name::Username;
use crate::protocol::informer::{self, Question};
use crate::store::Store;
use crate::transport::{Socket, Source, unix};
use log::{debug, error, info};
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";

const MODE: u32 = 0o600;
const STACK_BYTES: usize = 256 << 10;
/// How long a command may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Names in one message; for more than these, all accounts are looked at.
const NAMES_MAX: usize = 1000;
const DEPTH_MAX: usize = 16;

/// The control socket of a running server.
#[derive(Debug)]
pub struct Control {
    listener: Arc<UnixListener>,
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Control {
    /// Listens in the state directory.
    pub fn start(state_directory: &Path, store: Store, inbound: Inlet) -> io::Result<Control> {
        let path = state_directory.join(SOCKET);
        let listener = Arc::new(unix::listen(&path, MODE)?);
        let accepting = Arc::clone(&listener);
        let thread = crate::thread::spawn("control", STACK_BYTES, move || accept(&accepting, &store, &inbound))?;
        Ok(Control { listener, path, thread })
    }

    /// Ends the thread and removes the socket.
    pub fn stop(self) {
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
        let _ = self.thread.join(); // its panic is in the log
    }
}

fn accept(listener: &UnixListener, store: &Store, inbound: &Inlet) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = converse(stream, store, inbound) {
                    debug!("a command on the control socket: {error}");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return, // shut down
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                error!("the control socket cannot accept: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn converse(stream: UnixStream, store: &Store, inbound: &Inlet) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let answers = stream.try_clone()?;
    let socket = Arc::new(Socket::Unix(stream));
    socket.set_read_timeout(Some(PATIENCE))?;
    read_questions(Source::Socket(socket), |frame| {
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
