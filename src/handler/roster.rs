//! All handlers: which types there are, and the keepers of their instances. Here they are started, replaced without
//! losing a message, changed with the configuration, and ended.
//!
//! Nothing here has a thread of its own: whoever asks (a command's connection, the watcher, the server's end) waits.

use super::informer;
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
/// Keepers that have ended are joined when there are so many more than before.
const KEEPERS_KEPT: usize = 64;

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
    /// The places of all types that there ever were.
    routes: BTreeMap<TypeName, RouteId>,
    /// All keepers, also those that are about to end, so that none is left behind.
    keepers: Vec<(Handle, JoinHandle<()>)>,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    route: RouteId,
    config: Handler,
    pushes: Arc<Allowance>,
    instances: Vec<Handle>,
    informer: Option<Acceptor>,
    /// Held by whoever replaces its instances; the next one waits, for the files may have changed since.
    turn: Arc<Mutex<()>>,
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
    RouteConfig { kind: kind.clone(), instances: handler.instances, queue: handler.queue, queue_wait: handler.queue_wait }
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
        self.replace(&kind, None)
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
                Some(before) if before == config && self.has_failed(kind) => {
                    done.push((kind.clone(), self.replace(kind, None).map(|()| "started again")));
                }
                Some(before) if before == config => {}
                Some(before) => done.push((kind.clone(), self.change(kind, before, config))),
            }
        }
        done
    }

    /// The handlers that there are, as they are configured.
    pub fn configured(&self) -> BTreeMap<TypeName, Handler> {
        self.lock().types.iter().map(|(kind, entry)| (kind.clone(), entry.config.clone())).collect()
    }

    /// Whether an instance of a type is not started again by itself.
    fn has_failed(&self, kind: &TypeName) -> bool {
        self.lock().types.get(kind).is_some_and(|entry| entry.instances.iter().any(|handle| handle.record().has_failed()))
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
        let route = {
            let mut state = self.lock();
            let next = RouteId(state.routes.len() as u32);
            *state.routes.entry(kind.clone()).or_insert(next)
        };
        let limits = &self.surroundings.limits;
        let pushes = Arc::new(Allowance::new(limits.pushes_per_second, limits.push_burst));
        let informer = self.informer(kind, config, route, &pushes)?;
        if tell {
            self.tell(Event::RouteChanged(route, route_config(kind, config)));
        }
        let entry = Entry { route, config: config.clone(), pushes, instances: Vec::new(), informer: Some(informer), turn: Arc::default() };
        self.lock().types.insert(kind.clone(), entry);
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
        let Some(mut entry) = self.lock().types.remove(kind) else { return };
        info!("handler {kind} is no longer configured");
        // The dispatcher retires those that are up, when they have answered.
        self.tell(Event::RouteRemoved(entry.route));
        entry.instances.iter().for_each(Handle::leave);
        if let Some(informer) = entry.informer.take() {
            informer.stop();
        }
    }

    fn change(&self, kind: &TypeName, before: &Handler, config: &Handler) -> Result<&'static str, String> {
        // What concerns the dispatcher alone needs no other start.
        let same_program = before.runs_as(config);
        let Some((route, pushes)) = self.lock().types.get(kind).map(|entry| (entry.route, Arc::clone(&entry.pushes))) else {
            return Err("it was removed meanwhile".into());
        };
        if before.informer_socket != config.informer_socket {
            let old = self.lock().types.get_mut(kind).and_then(|entry| entry.informer.take());
            if let Some(old) = old {
                old.stop();
            }
            let informer = self.informer(kind, config, route, &pushes).map_err(|failed| failed.to_string())?;
            if let Some(entry) = self.lock().types.get_mut(kind) {
                entry.informer = Some(informer);
            }
        }
        if !same_program {
            self.replace(kind, Some(config))?;
        }
        // Those that are too many are retired by the dispatcher if they are up, when they have answered.
        self.tell(Event::RouteChanged(route, route_config(kind, config)));
        let over = {
            let mut state = self.lock();
            let Some(entry) = state.types.get_mut(kind) else { return Err("it was removed meanwhile".into()) };
            entry.config = config.clone();
            let kept = config.instances.min(entry.instances.len());
            entry.instances.split_off(kept)
        };
        over.iter().for_each(Handle::leave);
        self.grow(kind).map_err(|failed| failed.to_string())?;
        Ok(if same_program { "changed" } else { "replaced" })
    }

    /// Replaces all instances with ones of this configuration, or of the one that they have when it is their turn.
    fn replace(&self, kind: &TypeName, config: Option<&Handler>) -> Result<(), String> {
        let turn = self.lock().types.get(kind).map(|entry| Arc::clone(&entry.turn));
        let Some(turn) = turn else { return Err(self.no_such_type(kind)) };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.lock().types.get(kind).map(|entry| (entry.instances.len(), entry.config.clone()));
        let Some((instances, current)) = now else { return Err(self.no_such_type(kind)) };
        let config = config.unwrap_or(&current);
        for instance in 0..instances.min(config.instances) {
            let Some(spec) = self.spec(kind, Some((instance, config))) else { return Err(self.no_such_type(kind)) };
            self.replace_one(spec).map_err(|why| {
                warn!("handler {kind} is not replaced: the new one {why}");
                format!("the new one {why}; nothing was changed")
            })?;
        }
        if let Some(entry) = self.lock().types.get_mut(kind) {
            entry.config = config.clone();
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
            pushes: Arc::clone(&entry.pushes),
        })
    }

    fn keep(&self, spec: Spec, first: Instant, record: Record, trial: Option<crossbeam_channel::Sender<Trial>>) -> io::Result<Handle> {
        let mut state = self.lock();
        if state.stopping {
            return Err(io::Error::other("the server is stopping"));
        }
        if state.keepers.len() >= KEEPERS_KEPT {
            state.keepers.retain(|(_, thread)| !thread.is_finished());
        }
        let (handle, thread) = keep(spec, first, record, trial)?;
        state.keepers.push((handle.clone(), thread));
        Ok(handle)
    }

    fn informer(&self, kind: &TypeName, config: &Handler, route: RouteId, pushes: &Arc<Allowance>) -> Result<Acceptor, Failed> {
        let Surroundings { inbound, conns, outgoing, limits, .. } = &self.surroundings;
        let shared = informer::Shared {
            route,
            pushes: Arc::clone(pushes),
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
