//! All links: started and ended as peers come and go.
//!
//! Spawned by `server.rs`, the thread `peers` waits for the word that the dispatcher has met a new peer; it owns nothing, and ends
//! with the other end of its channel. The links' threads belong to [`Links`], which commands and connections reach, too.

use super::check::{self, Step};
use super::courier::State;
use super::link::{self, Kept, Link, STACK_BYTES, Shared, post};
use super::wire::Ours;
use crate::dispatcher::Event;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::Inbound;
use crate::name::{PeerId, ServerName};
use crate::store::{Peer, Store, Verify};
use crossbeam_channel::{Receiver, Sender};
use log::{error, info, warn};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often it is looked whether a thread has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What links have to do with.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Who we are.
    pub ours: Ours,
    /// The peers and the outboxes.
    pub store: Store,
    /// To the dispatcher.
    pub inbound: Inlet,
    /// Whether servers are sent to of which nothing is known (`federation.mode` `open`).
    pub open: bool,
    /// Set if there are peers that are known by their address alone.
    pub plain_peers: Arc<AtomicBool>,
}

/// All links. With `federation.mode` `off` there is none of this.
#[derive(Debug)]
pub struct Links {
    surroundings: Surroundings,
    /// Held while peers are read and threads are started, and never while anything waits for a peer.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    running: BTreeMap<PeerId, Running>,
    /// Threads that were told to end, and may still be connecting.
    ending: Vec<JoinHandle<()>>,
    stopped: bool,
}

#[derive(Debug)]
struct Running {
    peer: Peer,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// The thread that hears of new peers. It ends when the dispatcher does.
#[derive(Debug)]
pub struct Listening(JoinHandle<()>);

impl Listening {
    /// Waits for its end.
    pub fn join(self) {
        let _ = self.0.join(); // its panic is in the log
    }
}

impl Links {
    /// Starts the links of all peers, and listens to `met` for the word that there are more.
    ///
    /// # Errors
    /// The peers cannot be read, or the system has no thread left.
    pub fn start(surroundings: Surroundings, met: Receiver<()>) -> io::Result<(Arc<Links>, Listening)> {
        let links = Arc::new(Links { surroundings, table: Mutex::default() });
        links.refresh().map_err(io::Error::other)?;
        let listening = Arc::clone(&links);
        let body = move || {
            for () in met {
                if let Err(words) = listening.refresh() {
                    error!("new peers are not linked: {words}");
                }
            }
        };
        let thread = crate::thread::spawn("peers", STACK_BYTES, body)?;
        Ok((links, Listening(thread)))
    }

    /// Reads which peers there are now: starts the links of new ones, ends those of others, and tells the dispatcher.
    ///
    /// # Errors
    /// In words: the peers cannot be read, and nothing has changed.
    pub fn refresh(&self) -> Result<(), String> {
        let mut table = self.lock();
        if table.stopped {
            return Err("the server is stopping".to_owned());
        }
        let mut peers = self.surroundings.store.peers().map_err(|error| error.with_causes())?;
        peers.retain(|peer| self.surroundings.open || peer.verify != Verify::Open);
        let gone: Vec<PeerId> = table.running.iter().filter(|(_, old)| !peers.contains(&old.peer)).map(|(id, _)| *id).collect();
        let mut before: BTreeMap<PeerId, JoinHandle<()>> = BTreeMap::new();
        for id in gone {
            let Some(old) = table.running.remove(&id) else { continue };
            old.shared.bell.stop();
            self.tell(Inbound::DetachPeer(id));
            if peers.iter().any(|peer| peer.id == id) {
                before.insert(id, old.thread);
            } else {
                info!("the peer {} is gone", old.peer.name);
                table.ending.push(old.thread);
            }
        }
        table.ending.retain(|thread| !thread.is_finished());
        for peer in &peers {
            if let Entry::Vacant(place) = table.running.entry(peer.id) {
                match self.start_one(peer, before.remove(&peer.id)) {
                    Ok(running) => _ = place.insert(running),
                    Err(error) => error!("no link to {}: {error}", peer.name),
                }
            }
        }
        let plain = peers.iter().any(|peer| peer.verify == Verify::Nothing);
        self.surroundings.plain_peers.store(plain, Ordering::Relaxed);
        self.tell(Inbound::One(Event::PeersChanged(peers)));
        Ok(())
    }

    /// `before` is the thread of the same peer that was told to end: two at once would send everything twice.
    fn start_one(&self, peer: &Peer, before: Option<JoinHandle<()>>) -> io::Result<Running> {
        let Surroundings { ours, store, .. } = &self.surroundings;
        let shared = Arc::new(Shared::new()?);
        let (post, messages) = post(&shared);
        let outbox = Box::new(Kept { store: store.clone(), peer: peer.id });
        let link = Link { peer: peer.clone(), ours: ours.clone(), outbox, shared: Arc::clone(&shared), messages };
        let body = move || {
            let _ = before.map(JoinHandle::join); // its panic is in the log
            link.run();
        };
        let thread = crate::thread::spawn(format!("peer {}", peer.name), STACK_BYTES, body)?;
        self.tell(Inbound::AttachPeer(peer.id, Box::new(post)));
        if peer.verify == Verify::Nothing {
            warn!("the peer {} proves nothing: whoever connects from its addresses is believed, and nothing is encrypted", peer.name);
        }
        Ok(Running { peer: peer.clone(), shared, thread })
    }

    fn tell(&self, inbound: Inbound) {
        let _ = self.surroundings.inbound.send(inbound); // nobody listens at the end of the server
    }

    /// Has the link of a peer try everything now.
    ///
    /// # Errors
    /// In words: there is no such peer.
    pub fn retry(&self, name: &ServerName) -> Result<(), String> {
        let table = self.lock();
        let running = table.running.values().find(|running| running.peer.name == *name);
        running.map(|running| running.shared.retry()).ok_or_else(|| format!("there is no peer {name}"))
    }

    /// How each link is: a JSON list of `{"name","state","since","unanswered","nextAttempt","trouble","troubleAt"}`, where times are
    /// seconds since 1970, `nextAttempt` is in seconds from now, and what there is not is null.
    pub fn status(&self) -> Value {
        let (now, clock) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        let at = |then: Instant| clock - now.saturating_duration_since(then).as_secs_f64();
        let one = |running: &Running| {
            let link::Status { state, since, unanswered, trouble } = running.shared.status();
            let single = !matches!(running.peer.verify, Verify::Pins(_));
            let (word, next) = match state {
                State::Up if single => ("ready", None),
                State::Up => ("up", None),
                State::Connecting => ("connecting", None),
                State::Waiting(until) => ("waiting", Some(until.saturating_duration_since(now).as_secs_f64().round())),
            };
            let (trouble, trouble_at) = trouble.map_or((None, None), |(words, then)| (Some(words), Some(at(then))));
            json!({
                "name": running.peer.name.as_str(), "state": word, "since": at(since), "unanswered": unanswered,
                "nextAttempt": next, "trouble": trouble, "troubleAt": trouble_at,
            })
        };
        self.lock().running.values().map(one).collect()
    }

    /// Tries the way back to a peer that asks for it, for the built-in command `dialBack`: `{"steps":[{"step","ok","words"}...]}`.
    pub fn dial_back(&self, name: &ServerName) -> Value {
        let peer = self.lock().running.values().map(|running| &running.peer).find(|peer| peer.name == *name).cloned();
        let steps = match peer {
            Some(peer) => check::check(&peer, &self.surroundings.ours, false),
            None => vec![Step { step: "peer".to_owned(), ok: false, words: format!("{name} is no peer here") }],
        };
        check::in_json(&steps)
    }

    /// Ends all links, and waits until they have ended, at most until `deadline`.
    pub fn stop(&self, deadline: Instant) {
        let mut table = self.lock();
        table.stopped = true;
        let Table { running, ending, .. } = &mut *table;
        running.values().for_each(|running| running.shared.bell.stop());
        let threads: Vec<JoinHandle<()>> =
            std::mem::take(running).into_values().map(|running| running.thread).chain(ending.drain(..)).collect();
        drop(table);
        for thread in threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY.min(deadline.saturating_duration_since(Instant::now())));
            }
            // One that still looks up a name ends with the process.
            if thread.is_finished() {
                let _ = thread.join(); // its panic is in the log
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Whoever panicked with it left links that run, or lost some.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel for the word that there are new peers.
pub fn met() -> (Sender<()>, Receiver<()>) {
    crossbeam_channel::bounded(1)
}
