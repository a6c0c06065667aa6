//! The control socket: how commands on this machine ask the running server something, and have it do something.
//!
//! It has an [`Acceptor`] in the state directory, which `server.rs` starts and stops; whoever connects gets a thread, for
//! a replacement may take its time. It speaks in frames as an informer does.

use super::reload::Reload;
use crate::connection::informer::{self, Asked};
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::Inbound;
use crate::dispatcher::{Asker, Event};
use crate::federation::links::Links;
use crate::frame::Frame;
use crate::handler::roster::Roster;
use crate::name::{ConnId, ConnIds, ServerName, Username};
use crate::outlet::Total;
use crate::protocol;
use crate::protocol::informer::Question;
use crate::store::Store;
use crate::transport::Acceptor;
use log::{debug, error, info};
use serde_json::Value;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";
/// Names in one message at most. Whoever has changed more accounts has all of them looked at, by naming none.
pub const NAMES_MAX: usize = 1000;

const STACK_BYTES: usize = 256 << 10;
/// A command is short, apart from a list of names.
const FRAME_BYTES_MAX: usize = 128 << 10;
const DEPTH_MAX: usize = 16;
/// Commands at once.
const CONNECTIONS_MAX: usize = 16;

/// What commands have to do with.
#[derive(Debug, Clone)]
pub struct Control {
    /// The accounts.
    pub store: Store,
    /// To the dispatcher.
    pub inbound: Inlet,
    /// Numbers for connections.
    pub conns: ConnIds,
    /// Bytes that wait to go out.
    pub outgoing: Arc<Total>,
    /// The handlers.
    pub roster: Arc<Roster>,
    /// The configuration.
    pub reload: Arc<Reload>,
    /// The links to other servers, unless there may be none.
    pub links: Option<Arc<Links>>,
}

/// Listens in the state directory.
pub fn start(state_directory: &Path, control: Control) -> io::Result<Acceptor> {
    let open = Arc::new(AtomicUsize::new(0));
    let serve = move |stream| serve(&control, stream, &open);
    Acceptor::start("control".to_owned(), STACK_BYTES, &state_directory.join(SOCKET), serve)
}

fn serve(control: &Control, mut stream: UnixStream, open: &Arc<AtomicUsize>) {
    if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::Relaxed);
        debug!("{CONNECTIONS_MAX} commands are on the control socket already; one more is refused");
        let refusal =
            protocol::informer::failure(&format!("the server has {CONNECTIONS_MAX} commands under way; try again when one is done"));
        // There is room for it in a new connection; whoever has gone already does not hear it.
        let _ = stream.write_all(&refusal.parts().concat());
        return;
    }
    let (conn, control, counted) = (control.conns.next(), control.clone(), Arc::clone(open));
    let body = move || {
        let take = |frame: &Frame| control.take(conn, frame);
        informer::serve(&control.inbound, conn, stream, &control.outgoing, FRAME_BYTES_MAX, take);
        counted.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = crate::thread::spawn(format!("control {}", conn.0), STACK_BYTES, body) {
        open.fetch_sub(1, Ordering::Relaxed);
        error!("no thread for a command on the control socket: {error}");
    }
}

impl Control {
    fn take(&self, conn: ConnId, frame: &Frame) -> Result<Asked, String> {
        let question = protocol::informer::parse(frame, DEPTH_MAX)?;
        let answer = match question.kind.as_str() {
            "status" => return Ok(Asked::Dispatcher(Event::Informed(conn, Asker::Operator, question))),
            "handlers" => Ok(self.roster.told()),
            "accountsChanged" => self.accounts_changed(&question).map(|()| Value::Null),
            "mailboxChanged" => self.mailbox_changed(&question).map(|()| Value::Null),
            "restartHandler" => self.restart_handler(&question).map(|()| Value::Null),
            "peers" => Ok(self.links.as_ref().map_or_else(|| Value::Array(Vec::new()), |links| links.status())),
            "peersChanged" => self.peers_changed().map(|()| Value::Null),
            "retryPeer" => self.retry_peer(&question).map(|()| Value::Null),
            "reload" => self.reload.reload(&self.roster),
            "reloadDryRun" => self.reload.dry_run(&self.roster),
            _ => Err("there is no such command; there are status, handlers, peers, accountsChanged, mailboxChanged, peersChanged, \
                      retryPeer, restartHandler, reload and reloadDryRun"
                .into()),
        };
        Ok(Asked::Here(match answer {
            Ok(data) => protocol::informer::success(data.to_string().as_bytes()),
            Err(message) => protocol::informer::failure(&message),
        }))
    }

    /// Has the dispatcher look at the accounts that were changed, or at all of them.
    fn accounts_changed(&self, question: &Question) -> Result<(), String> {
        let names = match question.data.as_ref().filter(|data| data.bytes() != b"null") {
            None => None,
            Some(data) => {
                let texts = protocol::informer::texts(data, NAMES_MAX)?;
                let names: Result<Vec<Username>, _> = texts.iter().map(|text| Username::new(text.as_str())).collect();
                Some(names.map_err(|error| error.to_string())?)
            }
        };
        let all = names.is_none();
        let standings = self.store.standings(names).map_err(|error| error.with_causes())?;
        info!("accounts changed: {} looked at", standings.len());
        let event = if all { Event::AccountsReloaded(standings) } else { Event::AccountsChanged(standings) };
        self.inbound.send(Inbound::One(event)).map_err(|_| "the server is stopping".to_owned())
    }

    /// Has the dispatcher send what was put into a mailbox to those who are there.
    fn mailbox_changed(&self, question: &Question) -> Result<(), String> {
        let data = question.data.as_ref().ok_or("command.data is missing: mailboxChanged takes a user name")?;
        let user = Username::new(protocol::informer::text(data)?.as_str()).map_err(|error| error.to_string())?;
        info!("the mailbox of {user} has changed");
        self.inbound.send(Inbound::One(Event::MailboxChanged(user))).map_err(|_| "the server is stopping".to_owned())
    }

    /// Has links to other servers started and ended as the database says now.
    fn peers_changed(&self) -> Result<(), String> {
        info!("peers changed: looked at");
        self.links.as_ref().map_or(Ok(()), |links| links.refresh())
    }

    /// Has what waits for another server tried now.
    fn retry_peer(&self, question: &Question) -> Result<(), String> {
        let data = question.data.as_ref().ok_or("command.data is missing: retryPeer takes the name of a server")?;
        let name = ServerName::new(protocol::informer::text(data)?.as_str()).map_err(|error| error.to_string())?;
        let links = self.links.as_ref().ok_or("there are no links to other servers (federation.mode is off)")?;
        links.retry(&name)
    }

    fn restart_handler(&self, question: &Question) -> Result<(), String> {
        let data = question.data.as_ref().ok_or("command.data is missing: restartHandler takes a type")?;
        self.roster.restart(protocol::informer::text(data)?.as_str())
    }
}
