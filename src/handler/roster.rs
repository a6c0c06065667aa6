//! All handlers: which types there are, and the keepers of their instances. Here they are started, replaced without
//! losing a message, changed with the configuration, and ended.
//!
//! Nothing here has a thread of its own: whoever asks (a command's connection, the watcher, the server's end) waits.

mod change;

use super::informer::{self, Voice};
use super::keeper::{Spec, Trial, keep};
use super::orders::Handle;
use super::record::Record;
use super::watch;
use crate::config::{Handler, Limits};
use crate::connection::allowance::Allowance;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::Inbound;
use crate::dispatcher::{Event, RouteConfig};
use crate::name::{ConnIds, RouteId, ServerName, StartIds, TypeName};
use crate::outlet::Total;
use crate::transport::Acceptor;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{info, warn};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two starts of an instance by order of somebody.
const STARTS_APART: Duration = super::supervisor::STARTS_APART;
/// A keeper says how the first start goes within the time that its program may take to become reachable, and this.
const TRIAL_SLACK: Duration = Duration::from_secs(15);

/// Why there is no other start.
const STOPPING: &str = "the server is stopping";

/// What all handlers share.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The server's name.
    pub server: ServerName,
    /// All bounds.
    pub limits: Limits,
    /// To the dispatcher.
    pub inbound: Inlet,
    /// Numbers for connections.
    pub conns: ConnIds,
    /// Bytes that wait to go out.
    pub outgoing: Arc<Total>,
}

/// The handlers of a server.
#[derive(Debug)]
pub struct Roster {
    surroundings: Surroundings,
    starts: StartIds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    types: BTreeMap<TypeName, Entry>,
    /// All types that there ever were.
    places: BTreeMap<TypeName, Place>,
    /// All keepers, also those that are about to end, so that none is left behind.
    keepers: Vec<(Handle, JoinHandle<()>)>,
    stopping: bool,
}

/// What a type keeps when it is removed and comes back.
#[derive(Debug, Clone)]
struct Place {
    route: RouteId,
    /// Held by whoever adds, changes, replaces or removes its instances, over all the steps of it; the next one waits, for
    /// the files may have changed since. Never taken with the state locked.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Entry {
    route: RouteId,
    config: Handler,
    voice: Arc<Voice>,
    instances: Vec<Handle>,
    informer: Option<Acceptor>,
    /// Not all instances are of this configuration: some were replaced with ones of another, and the next one failed.
    mixed: bool,
}

/// What could not be started, and why.
#[derive(Debug)]
pub struct Failed {
    /// What it was for.
    pub what: String,
    /// The reason.
    pub error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl Failed {
    fn to(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failed {
        let what = what.into();
        move |error| Failed { what, error }
    }
}

/// What the dispatcher must know of a type.
pub fn route_config(kind: &TypeName, handler: &Handler) -> RouteConfig {
    RouteConfig {
        kind: kind.clone(),
        instances: handler.instances,
        queue: handler.queue,
        queue_wait: handler.queue_wait,
        offline: handler.offline,
        federated: handler.federated,
        idempotent: handler.idempotent,
    }
}

/// Waits for a turn.
fn held(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    /// Starts all handlers. The dispatcher knows them already: each has the place in the routing map that it has here.
    ///
    /// # Errors
    /// An informer's socket cannot be made, or a thread.
    pub fn start(handlers: &BTreeMap<TypeName, Handler>, surroundings: Surroundings) -> Result<Arc<Roster>, Failed> {
        let roster = Roster { surroundings, starts: StartIds::default(), state: Mutex::default() };
        for (kind, config) in handlers {
            let result = roster.add(kind, config, false);
            if result.is_err() {
                roster.stop_all(Handle::stop_now);
            }
            result?;
        }
        Ok(Arc::new(roster))
    }

    /// Replaces all instances of a type, one after the other: a new start takes the place of each when it has started up,
    /// and the old one ends when it has answered what it was asked. Returns when the last one is up.
    ///
    /// # Errors
    /// There is no such type; or a new start failed, and then the old one goes on. In words.
    pub fn restart(&self, kind: &str) -> Result<(), String> {
        let kind = TypeName::new(kind).map_err(|bad| bad.to_string())?;
        self.replace(&kind)
    }

    /// Has the handlers that the configuration has now: new types are started, those that are gone end, those that
    /// changed are replaced, those that were given up are started again. Gives for each that changed what was done, or what could not be done, in words.
    pub fn apply(&self, handlers: &BTreeMap<TypeName, Handler>) -> Vec<(TypeName, Result<&'static str, String>)> {
        let before = self.configured();
        let mut done = Vec::new();
        for kind in before.keys().filter(|kind| !handlers.contains_key(*kind)) {
            self.remove(kind);
            done.push((kind.clone(), Ok("removed")));
        }
        for (kind, config) in handlers {
            match before.get(kind) {
                None => done.push((kind.clone(), self.add(kind, config, true).map(|()| "added").map_err(|failed| failed.to_string()))),
                Some(before) if before == config && self.is_not_whole(kind) => {
                    done.push((kind.clone(), self.replace(kind).map(|()| "started again")));
                }
                Some(before) if before == config => {}
                Some(_) => done.push((kind.clone(), self.change(kind, config))),
            }
        }
        done
    }

    /// The handlers that there are, as they are configured.
    pub fn configured(&self) -> BTreeMap<TypeName, Handler> {
        self.lock().types.iter().map(|(kind, entry)| (kind.clone(), entry.config.clone())).collect()
    }

    /// Whether an instance of a type is not started again by itself, or is not of the configuration that it should be of.
    fn is_not_whole(&self, kind: &TypeName) -> bool {
        let failed = |entry: &Entry| entry.instances.iter().any(|handle| handle.record().has_failed());
        self.lock().types.get(kind).is_some_and(|entry| entry.mixed || failed(entry))
    }

    /// The place of a type, which has one from now on.
    fn place(&self, kind: &TypeName) -> Place {
        let mut state = self.lock();
        let next = RouteId(state.places.len() as u32);
        state.places.entry(kind.clone()).or_insert_with(|| Place { route: next, turn: Arc::default() }).clone()
    }

    /// The turn of a type that there is, or was.
    fn turn(&self, kind: &TypeName) -> Result<Arc<Mutex<()>>, String> {
        let turn = self.lock().places.get(kind).map(|place| Arc::clone(&place.turn));
        turn.ok_or_else(|| self.no_such_type(kind))
    }

    /// What is to be watched: for each type with `watch`, the files of its program.
    pub(super) fn watched(&self) -> Vec<(TypeName, Vec<PathBuf>)> {
        let state = self.lock();
        let files = |config: &Handler| config.program.as_ref().filter(|_| config.watch).map(watch::files);
        state.types.iter().filter_map(|(kind, entry)| Some((kind.clone(), files(&entry.config)?))).collect()
    }

    /// How all instances fare, as JSON for the operator.
    pub fn told(&self) -> Value {
        let state = self.lock();
        let instances = |entry: &Entry| Value::Array(entry.instances.iter().map(|handle| handle.record().told()).collect());
        Value::Object(state.types.iter().map(|(kind, entry)| (kind.to_string(), instances(entry))).collect::<Map<_, _>>())
    }

    /// Ends all handlers: asks them to, and has those killed that have not ended when there is no time left, or when
    /// somebody says to hurry.
    pub fn stop(&self, deadline: Instant, hurry: &Receiver<()>) {
        self.stop_all(Handle::stop);
        let threads: Vec<JoinHandle<()>> = {
            let mut state = self.lock();
            state.stopping = true;
            // The handles stay: those that are slow are killed.
            let (handles, threads): (Vec<Handle>, Vec<JoinHandle<()>>) = state.keepers.drain(..).unzip();
            state.types.values_mut().for_each(|entry| entry.instances.clear());
            drop(state);
            let (done, ended) = crossbeam_channel::bounded::<()>(0);
            let join = move || {
                let _done = done;
                threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count(); // panics are in the log
            };
            match crate::thread::spawn("end handlers", 64 << 10, join) {
                Ok(joining) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    crossbeam_channel::select! {
                        recv(ended) -> _ => {}
                        recv(hurry) -> _ => handles.iter().for_each(Handle::stop_now),
                        default(left) => handles.iter().for_each(Handle::stop_now),
                    }
                    vec![joining]
                }
                Err(_) => {
                    handles.iter().for_each(Handle::stop_now);
                    Vec::new()
                }
            }
        };
        threads.into_iter().for_each(|thread| _ = thread.join());
        let informers: Vec<Acceptor> = self.lock().types.values_mut().filter_map(|entry| entry.informer.take()).collect();
        informers.into_iter().for_each(Acceptor::stop);
    }

    fn stop_all(&self, order: impl Fn(&Handle)) {
        let mut state = self.lock();
        state.stopping = true;
        state.keepers.iter().for_each(|(handle, _)| order(handle));
    }

    fn add(&self, kind: &TypeName, config: &Handler, tell: bool) -> Result<(), Failed> {
        let Place { route, turn } = self.place(kind);
        let _turn = held(&turn);
        let limits = &self.surroundings.limits;
        let voice = Arc::new(Voice::new(Allowance::new(limits.pushes_per_second, limits.push_burst), config.instances));
        let informer = self.informer(kind, config, route, &voice)?;
        if tell {
            self.tell(Event::RouteChanged(route, route_config(kind, config)));
        }
        let mut entry = Entry { route, config: config.clone(), voice, instances: Vec::new(), informer: Some(informer), mixed: false };
        let mut state = self.lock();
        if state.stopping {
            drop(state);
            // Whoever stops the server has seen to all others.
            entry.informer.take().into_iter().for_each(Acceptor::stop);
            return Err(Failed { what: format!("handler {kind}"), error: io::Error::other(STOPPING) });
        }
        state.types.insert(kind.clone(), entry);
        drop(state);
        self.grow(kind)
    }

    /// Starts the instances that there are not yet.
    fn grow(&self, kind: &TypeName) -> Result<(), Failed> {
        loop {
            let Some(spec) = self.spec(kind, None) else { return Ok(()) };
            if spec.instance >= spec.config.instances {
                return Ok(());
            }
            let handle = self.keep(spec, Instant::now(), Record::default(), None).map_err(Failed::to(format!("handler {kind}")))?;
            if let Some(entry) = self.lock().types.get_mut(kind) {
                entry.instances.push(handle);
            }
        }
    }

    fn remove(&self, kind: &TypeName) {
        let Place { turn, .. } = self.place(kind);
        let _turn = held(&turn);
        let Some(mut entry) = self.lock().types.remove(kind) else { return };
        info!("handler {kind} is no longer configured");
        // The dispatcher retires those that are up, when they have answered.
        self.tell(Event::RouteRemoved(entry.route));
        entry.instances.iter().for_each(Handle::leave);
        if let Some(informer) = entry.informer.take() {
            informer.stop();
        }
    }

    /// Replaces all instances with ones of the configuration that they have when it is their turn.
    fn replace(&self, kind: &TypeName) -> Result<(), String> {
        let turn = self.turn(kind)?;
        let _turn = held(&turn);
        let now = self.lock().types.get(kind).map(|entry| entry.config.clone());
        let Some(config) = now else { return Err(self.no_such_type(kind)) };
        self.replace_all(kind, &config)
    }

    /// Replaces all instances with ones of this configuration. It is the caller's turn.
    fn replace_all(&self, kind: &TypeName, config: &Handler) -> Result<(), String> {
        let instances = {
            let state = self.lock();
            if state.stopping {
                return Err(STOPPING.into());
            }
            state.types.get(kind).map_or(0, |entry| entry.instances.len()).min(config.instances)
        };
        for instance in 0..instances {
            let Some(spec) = self.spec(kind, Some((instance, config))) else { return Err(self.no_such_type(kind)) };
            if let Err(why) = self.replace_one(spec) {
                let so_far = if instance == 0 {
                    "nothing was changed".to_owned()
                } else {
                    if let Some(entry) = self.lock().types.get_mut(kind) {
                        entry.mixed |= entry.config != *config;
                    }
                    format!("{instance} of {instances} instances are replaced, the others go on as they were")
                };
                warn!("handler {kind} is not replaced: the new one {why}; {so_far}");
                return Err(format!("the new one {why}; {so_far}"));
            }
        }
        if let Some(entry) = self.lock().types.get_mut(kind) {
            entry.mixed = false;
        }
        info!("handler {kind} is replaced");
        Ok(())
    }

    fn replace_one(&self, spec: Spec) -> Result<(), String> {
        let (kind, instance) = (spec.kind.clone(), spec.instance);
        let old = self.lock().types.get(&kind).and_then(|entry| entry.instances.get(instance).cloned());
        let Some(old) = old else { return Err("has no place any longer".into()) };
        let since = old.record().last_start().and_then(|started| started.elapsed().ok());
        let wait = since.map_or(Duration::ZERO, |since| STARTS_APART.saturating_sub(since));
        let patience = wait + spec.config.timeout + TRIAL_SLACK;
        let (trial, outcome) = crossbeam_channel::bounded(1);
        old.hold();
        let new = match self.keep(spec, Instant::now() + wait, old.record().successor(), Some(trial)) {
            Ok(new) => new,
            Err(error) => {
                old.resume();
                return Err(format!("has no thread: {error}"));
            }
        };
        let why = match outcome.recv_timeout(patience) {
            Ok(Trial::Up) => {
                match self.lock().types.get_mut(&kind).and_then(|entry| entry.instances.get_mut(instance)) {
                    Some(place) => *place = new,
                    None => new.stop(), // the type was removed meanwhile
                }
                old.leave();
                return Ok(());
            }
            Ok(Trial::Failed(why)) => why,
            Err(RecvTimeoutError::Timeout) => "did not become ready in time".into(),
            Err(RecvTimeoutError::Disconnected) => "was told to end".into(),
        };
        new.stop();
        old.resume();
        Err(why)
    }

    /// What the keeper of an instance must know: of the next one, unless it is said which, and with which configuration.
    fn spec(&self, kind: &TypeName, which: Option<(usize, &Handler)>) -> Option<Spec> {
        let state = self.lock();
        let entry = state.types.get(kind)?;
        let (instance, config) = which.unwrap_or((entry.instances.len(), &entry.config));
        Some(Spec {
            route: entry.route,
            instance,
            kind: kind.clone(),
            config: config.clone(),
            server: self.surroundings.server.clone(),
            inbound: self.surroundings.inbound.clone(),
            limits: self.surroundings.limits.clone(),
            starts: self.starts.clone(),
            pushes: Arc::clone(&entry.voice.pushes),
        })
    }

    fn keep(&self, spec: Spec, first: Instant, record: Record, trial: Option<crossbeam_channel::Sender<Trial>>) -> io::Result<Handle> {
        let mut state = self.lock();
        if state.stopping {
            return Err(io::Error::other(STOPPING));
        }
        // Each that has ended would keep a descriptor.
        state.keepers.retain(|(_, thread)| !thread.is_finished());
        let (handle, thread) = keep(spec, first, record, trial)?;
        state.keepers.push((handle.clone(), thread));
        Ok(handle)
    }

    fn informer(&self, kind: &TypeName, config: &Handler, route: RouteId, voice: &Arc<Voice>) -> Result<Acceptor, Failed> {
        let Surroundings { inbound, conns, outgoing, limits, .. } = &self.surroundings;
        let shared = informer::Shared {
            route,
            voice: Arc::clone(voice),
            inbound: inbound.clone(),
            conns: conns.clone(),
            outgoing: Arc::clone(outgoing),
            frame_bytes_max: limits.frame_bytes_handler,
            depth_max: limits.depth,
            recipients_max: limits.recipients,
        };
        let path = &config.informer_socket;
        informer::start(kind, config, shared).map_err(Failed::to(path.display().to_string()))
    }

    fn tell(&self, event: Event) {
        let _ = self.surroundings.inbound.send(Inbound::One(event)); // nobody listens at the end of the server
    }

    fn no_such_type(&self, kind: &TypeName) -> String {
        let names: Vec<String> = self.lock().types.keys().map(ToString::to_string).collect();
        format!("there is no handler {kind}; there are: {}", names.join(", "))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
