//! The assembly: what is opened and started, in which order, and how it all ends. Nothing else knows all parts.

use crate::admin::control::{self, Control};
use crate::admin::reload::Reload;
use crate::config::{self, Config, FederationMode, Limits};
use crate::connection::allowance::Allowances;
use crate::connection::client::Shared;
use crate::connection::login::Login;
use crate::dispatcher::inlet::{self, Inlet};
use crate::dispatcher::run::{Inbound, Runner};
use crate::dispatcher::{Dispatcher, Event, Settings, Window, Windows};
use crate::federation::introduction::Introducer;
use crate::federation::{Ours, links};
use crate::gate::Incoming;
use crate::handler::roster::{Failed, Roster, Surroundings, route_config};
use crate::handler::watch::Watcher;
use crate::listener::admission::Admission;
use crate::listener::{Accepting, ListenError, Listener, Listening};
use crate::name::ConnIds;
use crate::outlet::Total;
use crate::outlet::flusher::Flusher;
use crate::signals::Signals;
use crate::store::mail::Told;
use crate::store::{self, Database, Store, StoreError};
use crate::sys;
use crate::tls::{self, Identity, IdentityError, Paths, TlsError};
use crate::transport::Acceptor;
use crossbeam_channel::Receiver;
use log::{info, warn};
use rustix::fs::{FlockOperation, flock};
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Items on the dispatcher's channel: each is one event, or all of one read.
const INBOUND_MAX: usize = 1024;
const STACK_BYTES: usize = 1 << 20;
/// How long requests under way may take, once the server is to stop, ...
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// ... and how long clients may take to read what is left for them.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked meanwhile whether there was a second order to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why the server does not start.
#[derive(Debug)]
pub enum StartError {
    /// The machine is not as the configuration needs it.
    Problems(Vec<config::Problem>),
    /// The database cannot be used.
    Store(StoreError),
    /// An address cannot be listened on.
    Listen(ListenError),
    /// There is no certificate with its key for `network.tls`.
    Identity(IdentityError),
    /// The same, and `rustls` does not take it.
    Tls(TlsError),
    /// Another server uses the state directory.
    Running(PathBuf),
    /// Something else, with what it was for.
    Io(String, io::Error),
}

impl StartError {
    /// The exit code, after `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Problems(problems) => config::exit_code(problems).unwrap_or(78),
            StartError::Store(error) => error.exit_code(),
            StartError::Listen(ListenError { source, .. }) | StartError::Io(_, source)
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                77
            }
            StartError::Identity(error) => error.exit_code(),
            StartError::Tls(_) => 78,
            StartError::Listen(_) | StartError::Running(_) | StartError::Io(..) => 69,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Problems(problems) => {
                for (number, problem) in problems.iter().enumerate() {
                    write!(f, "{}{problem}", if number > 0 { "\n" } else { "" })?;
                }
                Ok(())
            }
            StartError::Store(error) => f.write_str(&error.with_causes()),
            StartError::Listen(error) => fmt::Display::fmt(error, f),
            StartError::Identity(error) => write!(f, "network.tls: {error}"),
            StartError::Tls(error) => write!(f, "network.tls: {error}"),
            StartError::Running(directory) => {
                write!(f, "another server uses {}: stop it, or give this one a server.stateDirectory of its own", directory.display())
            }
            StartError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |error| StartError::Io(what, error)
}

/// Runs a server until it is told to stop by SIGTERM or SIGINT; a second one has it hurry. SIGHUP has it read its
/// configuration again.
pub fn serve(config: &Config) -> Result<(), StartError> {
    let (signals, orders) = Signals::of_server().map_err(io_error("signals"))?;
    let server = Server::start(config)?;
    loop {
        crossbeam_channel::select! {
            // Without a signal thread there is nobody to stop us, and it never ends before us.
            recv(orders.stop) -> _ => break,
            recv(orders.reload) -> order => {
                if order.is_err() {
                    break;
                }
                let (reload, roster) = (Arc::clone(&server.reload), Arc::clone(&server.roster));
                // On a thread of its own, so that an order to stop is heard meanwhile. What came of it is in the log.
                let body = move || _ = reload.reload(&roster);
                if let Err(error) = crate::thread::spawn("reload", STACK_BYTES, body) {
                    warn!("the configuration is not reloaded: {error}");
                }
            }
        }
    }
    info!("stopping");
    server.stop(&orders.stop);
    signals.stop();
    info!("stopped");
    Ok(())
}

/// Everything that runs.
struct Server {
    drain: Duration,
    inbound: Inlet,
    drained: Receiver<()>,
    admission: Arc<Admission>,
    listeners: Vec<Listener>,
    control: Acceptor,
    roster: Arc<Roster>,
    reload: Arc<Reload>,
    watcher: Watcher,
    /// The links to other servers, unless there may be none.
    linked: Option<(Arc<links::Links>, links::Listening)>,
    /// To be joined in this order, once nobody speaks to them any longer.
    dispatcher: JoinHandle<()>,
    flusher: JoinHandle<()>,
    storage: store::Threads,
    /// Held as long as the state directory is ours.
    _lock: File,
}

impl Server {
    fn start(config: &Config) -> Result<Server, StartError> {
        sys::hear_of_children();
        sys::keep_descriptors_from_children().map_err(io_error("descriptors"))?;
        if let Err(error) = sys::raise_descriptor_limit() {
            warn!("the limit of open files stays as it is: {error}");
        }
        for warning in config::warnings(config) {
            warn!("{warning}");
        }
        let problems = config::problems(config);
        if !problems.is_empty() {
            return Err(StartError::Problems(problems));
        }
        let lock = lock_state_directory(&config.server.state_directory)?;
        let database = Database::open(&config.database).map_err(StartError::Store)?;
        database.check().map_err(StartError::Store)?;
        let identity = identity(config)?;
        let listening = listen(&config.network, identity.as_ref())?;
        let settings = settings(config, &listening)?;

        let (inbound, inbox) = inlet::channel(INBOUND_MAX);
        // At the end of the server, when nobody listens any longer, nobody waits for these either.
        let to_dispatcher = inbound.clone();
        let tell = move |told: Vec<Told>| _ = to_dispatcher.send(Inbound::Many(told.into_iter().map(Event::Stored).collect()));
        let kept = store_settings(&config.limits, settings.message_id_prefix());
        let (store, storage) = Store::start(database, kept, tell).map_err(io_error("storage threads"))?;
        let to_dispatcher = inbound.clone();
        let empty = move |conn| _ = to_dispatcher.send(Inbound::One(Event::Emptied(conn)));
        let (flusher, flushing) = Flusher::start(config.limits.connections + 1024, empty).map_err(io_error("flusher thread"))?;
        let (told_drained, drained) = crossbeam_channel::bounded(1);
        let mut dispatcher = Dispatcher::new(settings);
        let accounts = store.standings(None).map_err(StartError::Store)?;
        info!("{} accounts in {}", accounts.len(), config.database.display());
        dispatcher.handle(Instant::now(), Event::AccountsChanged(accounts), &mut Vec::new());

        let incoming = Incoming::new(config.limits.incoming_bytes_total);
        let outgoing = Total::new(config.limits.outgoing_bytes_total);
        let conns = ConnIds::default();
        let (link_peers, met) = links::met();
        let runner =
            Runner { dispatcher, inbox, flusher, incoming: incoming.clone(), store: store.clone(), drained: told_drained, link_peers };
        let dispatching = crate::thread::spawn("dispatcher", STACK_BYTES, move || runner.run()).map_err(io_error("dispatcher thread"))?;
        let surroundings = Surroundings {
            server: config.server.name.clone(),
            limits: config.limits.clone(),
            inbound: inbound.clone(),
            conns: conns.clone(),
            outgoing: Arc::clone(&outgoing),
        };
        let roster = Roster::start(&config.handlers, surroundings).map_err(|Failed { what, error }| StartError::Io(what, error))?;
        let watched = identity.clone();
        let look = move || watched.iter().for_each(|identity| identity.look());
        let watcher = Watcher::start(Arc::clone(&roster), look).map_err(io_error("watcher thread"))?;
        let plain_peers: Arc<AtomicBool> = Arc::default();
        let about = links::Surroundings {
            ours: ours(config, identity.clone(), &listening),
            store: store.clone(),
            inbound: inbound.clone(),
            open: config.federation.mode == FederationMode::Open,
            plain_peers: Arc::clone(&plain_peers),
        };
        if about.open {
            warn!("federation.mode is open: servers of which nothing is known may send messages to types that are federated");
        }
        let linked = match config.federation.mode {
            FederationMode::Off => None,
            FederationMode::Peers | FederationMode::Open => {
                Some(links::Links::start(about, met).map_err(io_error("links to other servers"))?)
            }
        };
        let reload = Arc::new(Reload::new(config.clone(), identity));
        let control = Control {
            store: store.clone(),
            inbound: inbound.clone(),
            conns: conns.clone(),
            outgoing: Arc::clone(&outgoing),
            roster: Arc::clone(&roster),
            reload: Arc::clone(&reload),
            links: linked.as_ref().map(|(links, _)| Arc::clone(links)),
        };
        let control = control::start(&config.server.state_directory, control)
            .map_err(io_error(config.server.state_directory.join(control::SOCKET).display().to_string()))?;

        let introduction = Introducer {
            own: config.server.name.clone(),
            store: store.clone(),
            links: linked.as_ref().map(|(links, _)| Arc::clone(links)),
        };
        let login = Login::new(store, config.limits.hashing_at_once, config.accounts.clone());
        let limits = config.limits.clone();
        let server_allowances = Allowances::new(limits.peer_messages_per_second, limits.peer_message_burst);
        let introduction = Arc::new(introduction);
        let refusals = Mutex::default();
        let clients =
            Shared { inbound: inbound.clone(), limits, login, incoming, outgoing, server_allowances, plain_peers, introduction, refusals };
        let admission = Admission::new(config.limits.connections, config.limits.connections_per_source);
        let accepting = Accepting { clients: clients.into(), admission: admission.clone(), conns };
        let mut listeners = Vec::new();
        for socket in listening {
            info!("listening on {socket}");
            let address = socket.to_string();
            listeners.push(Listener::start(socket, accepting.clone()).map_err(io_error(address))?);
        }
        info!("{} is ready", config.server.name);
        Ok(Server {
            drain: config.limits.drain,
            inbound,
            drained,
            admission,
            listeners,
            control,
            roster,
            reload,
            watcher,
            linked,
            dispatcher: dispatching,
            flusher: flushing,
            storage,
            _lock: lock,
        })
    }

    /// Stops accepting, lets requests under way finish, lets clients read what is left for them, ends the handlers.
    fn stop(self, hurry: &Receiver<()>) {
        let mut deadline = Instant::now() + self.drain;
        self.listeners.into_iter().for_each(Listener::stop);
        self.control.stop();
        // A send fails only if the dispatcher is gone, and then there is nothing to wait for either.
        let _ = self.inbound.send(Inbound::One(Event::Drain));
        let finish_within = FINISH_WITHIN.min(self.drain);
        crossbeam_channel::select! {
            recv(self.drained) -> _ => {}
            recv(hurry) -> _ => deadline = Instant::now(),
            default(finish_within) => warn!("requests are still under way after {} s", finish_within.as_secs()),
        }
        let _ = self.inbound.send(Inbound::One(Event::Stop));
        if wait_for_clients(&self.admission, deadline.min(Instant::now() + FLUSH_WITHIN), hurry) {
            deadline = Instant::now();
        }
        let (links, listening) = self.linked.unzip();
        // What they did not send lies in the outboxes.
        links.iter().for_each(|links| links.stop(deadline));
        self.roster.stop(deadline, hurry);
        // It may have been replacing a handler, which is over by now.
        self.watcher.stop();
        let _ = self.inbound.send(Inbound::Quit);
        drop(self.inbound);
        // Their panics are in the log.
        let _ = self.dispatcher.join();
        // It has heard the last of new peers.
        listening.into_iter().for_each(links::Listening::join);
        let _ = self.flusher.join();
        self.storage.finish();
    }
}

/// Waits, at most until `deadline`, until the clients are gone. Whether there was an order to hurry instead.
fn wait_for_clients(admission: &Admission, deadline: Instant, hurry: &Receiver<()>) -> bool {
    while admission.open() > 0 && Instant::now() < deadline {
        if hurry.try_recv().is_ok() {
            return true;
        }
        admission.wait_until_empty(deadline.min(Instant::now() + LOOK_EVERY));
    }
    false
}

/// Who we are to other servers.
fn ours(config: &Config, identity: Option<Arc<tls::Shared>>, listening: &[Listening]) -> Ours {
    let state = config.server.state_directory.clone();
    // Without a listener for TLS, there is a key as soon as a command that needs one has made it.
    let current = move || match &identity {
        Some(identity) => Some(identity.identity()),
        None => Identity::look_for_own(&state).and_then(Result::ok).map(Arc::new),
    };
    Ours {
        name: config.server.name.clone(),
        identity: Arc::new(current),
        limits: config.limits.clone(),
        listening: listening.iter().filter_map(Listening::address).collect(),
    }
}

/// Who we are on `network.tls`, if we listen there.
fn identity(config: &Config) -> Result<Option<Arc<tls::Shared>>, StartError> {
    let Some(listen) = &config.network.tls else { return Ok(None) };
    let state = &config.server.state_directory;
    let (identity, paths) = match &listen.files {
        Some(files) => {
            let paths = Paths { certificate: files.certificate.clone(), key: files.key.clone() };
            (Identity::load(&paths).map_err(StartError::Identity)?, paths)
        }
        None => (Identity::own(state, &config.server.name).map_err(StartError::Identity)?, Paths::own(state)),
    };
    info!("the key in {} has the pin {}", paths.key.display(), identity.pin());
    let shared = tls::Shared::new(identity, paths).map_err(StartError::Tls)?;
    Ok(Some(Arc::new(shared)))
}

fn listen(network: &config::Network, identity: Option<&Arc<tls::Shared>>) -> Result<Vec<Listening>, StartError> {
    let tcp = [network.tcp4, network.tcp6].into_iter().flatten().map(Listening::tcp);
    let tls = network.tls.iter().zip(identity).map(|(listen, identity)| Listening::tls(listen.address, Arc::clone(identity)));
    let unix = network.unix.iter().map(Listening::unix);
    tcp.chain(tls).chain(unix).collect::<Result<_, _>>().map_err(StartError::Listen)
}

fn settings(config: &Config, listening: &[Listening]) -> Result<Settings, StartError> {
    let mut start = [0; 16];
    getrandom::fill(&mut start).map_err(|error| StartError::Io("random numbers".into(), io::Error::other(error)))?;
    Ok(Settings {
        server: config.server.name.clone(),
        start: u128::from_le_bytes(start),
        routes: config.handlers.iter().map(|(kind, handler)| route_config(kind, handler)).collect(),
        sessions_per_user: config.limits.connections_per_user,
        windows: windows(&config.limits),
        acknowledge_within: config.limits.ack,
        federation: config.federation.mode,
        connections_per_peer: config.limits.connections_per_peer,
        frame_bytes_server: config.limits.frame_bytes_server,
        open_messages_per_second: config.limits.open_messages_per_second,
        admin_info: config.admin_info.clone(),
        listeners: listening.iter().map(ToString::to_string).collect(),
    })
}

/// What comes from mailboxes takes no more than half of an outlet: the other half is for reports and what is not kept.
fn windows(limits: &Limits) -> Windows {
    Windows {
        unacknowledged: Window { letters: limits.unacknowledged_messages, bytes: limits.unacknowledged_bytes },
        unflushed: Window { letters: limits.outgoing_frames.div_ceil(2), bytes: limits.outgoing_bytes.div_ceil(2) },
    }
}

fn store_settings(limits: &Limits, start_prefix: String) -> store::Settings {
    store::Settings {
        queue: limits.storage_queue,
        queue_bytes: limits.storage_bytes,
        mailbox_messages: limits.mailbox_messages,
        mailbox_bytes: limits.mailbox_bytes,
        mailbox_age: limits.mailbox_age,
        attempts: limits.delivery_attempts,
        memo_age: limits.dedupe_age,
        memos: limits.dedupe_messages,
        peers: limits.peers,
        outbox_messages: limits.outbox_messages,
        outbox_bytes: limits.outbox_bytes,
        outbox_age: limits.outbox_age,
        seen_age: limits.seen_age,
        seen: limits.seen_messages,
        start_prefix,
    }
}

/// Makes the state directory if it is missing and claims it; the claim ends with the process, however it ends.
fn lock_state_directory(directory: &Path) -> Result<File, StartError> {
    let failed = || io_error(directory.display().to_string());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed())?;
    let lock = File::open(directory).map_err(failed())?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Running(directory.to_owned())),
        Err(error) => Err(failed()(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_order_to_stop_does_not_wait_for_slow_clients() {
        let (orders, hurry) = crossbeam_channel::bounded(1);
        let admission = Admission::new(1, 1);
        let far = Instant::now() + Duration::from_secs(600);
        assert!(!wait_for_clients(&admission, far, &hurry), "nobody is there");
        let _place = admission.admit(None).expect("the first");
        assert!(!wait_for_clients(&admission, Instant::now() + LOOK_EVERY, &hurry), "time is over");
        orders.send(()).expect("a receiver");
        assert!(wait_for_clients(&admission, far, &hurry), "an order came");
    }
}
