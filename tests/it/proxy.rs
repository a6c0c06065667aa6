//! A network between two ends that can be as bad as networks are: slow, narrow, silent in one direction, cut, gone.
//!
//! A thread accepts, and each connection has two, one for each way. They wait on their sockets and for changes of the state;
//! all end with the [`Proxy`].

use rustix::net::sockopt::{set_socket_linger, set_socket_reuseaddr};
use rustix::net::{AddressFamily, Shutdown as How, SocketType, bind, getsockname, listen, shutdown, socket};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So often a write that is stuck looks whether its connection is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes that are under way at most, for each way of a connection; the sockets hold more.
const CHUNK_BYTES: usize = 16 << 10;
/// A throttled way moves so many chunks in a second, so that it flows.
const CHUNKS_PER_SECOND: usize = 50;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who has connected to the target.
    There,
    /// Back.
    Back,
}

/// What meets somebody who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// A connection to the target.
    Open,
    /// A connection that is reset at once.
    Reset,
    /// A connection on which nothing happens until the network heals: nobody accepts it.
    Ignored,
    /// No connection: nobody listens.
    Refused,
}

/// What happens to bytes on one way.
#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    /// How long they take at least. A chunk that comes while another waits may take twice as long.
    delay: Duration,
    held: bool,
    swallowed: bool,
    bytes_per_second: Option<usize>,
}

struct Link {
    client: Arc<TcpStream>,
    target: Arc<TcpStream>,
    /// Ways that have not ended.
    open: usize,
    /// Whether bytes are missing in it, so that nothing good can come of it any more.
    torn: bool,
    /// Whether it has been cut or reset: whoever works on it lets go of it.
    over: bool,
}

struct State {
    target: Option<SocketAddr>,
    door: Door,
    ways: [Manner; 2],
    links: HashMap<u64, Link>,
    /// Connections so far.
    accepted: u64,
    swallowed_bytes: usize,
    ended: bool,
}

struct Shared {
    listener: TcpListener,
    state: Mutex<State>,
    changed: Condvar,
}

/// The network, on an address of its own.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Connections are reset until there is a target.
    pub fn new() -> Proxy {
        let (listener, address) = listener().expect("a port");
        let state = State {
            target: None,
            door: Door::Open,
            ways: [Manner::default(); 2],
            links: HashMap::new(),
            accepted: 0,
            swallowed_bytes: 0,
            ended: false,
        };
        let shared = Arc::new(Shared { listener, state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = spawn(move || accept(&accepting));
        Proxy { address, shared, acceptor: Some(acceptor) }
    }

    /// Where to connect, always the same.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections lead from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.change(|state| state.target = Some(target));
    }

    /// Bytes take at least so long.
    pub fn delay(&self, way: Way, delay: Duration) {
        self.change(|state| state.ways[way as usize].delay = delay);
    }

    /// Bytes wait until the network heals: as when packets get lost and are sent again.
    pub fn hold(&self, way: Way) {
        self.change(|state| state.ways[way as usize].held = true);
    }

    /// So many bytes pass in a second, on each connection.
    pub fn throttle(&self, way: Way, bytes_per_second: usize) {
        self.change(|state| state.ways[way as usize].bytes_per_second = Some(bytes_per_second.max(CHUNKS_PER_SECOND)));
    }

    /// Bytes are taken and come nowhere. A connection that has lost some is reset when the network heals.
    pub fn swallow(&self, way: Way) {
        self.change(|state| state.ways[way as usize].swallowed = true);
    }

    /// How many bytes were swallowed so far.
    pub fn swallowed_bytes(&self) -> usize {
        self.shared.state().swallowed_bytes
    }

    /// How many connections there were so far.
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.shared.state().links.values().filter(|link| !link.over).count()
    }

    /// Ends all connections, as a program does. Others may follow.
    pub fn cut(&self) {
        self.change(|state| state.end_links(false, |_| true));
    }

    /// Ends all connections, as a machine does that knows nothing of them. Others may follow.
    pub fn reset(&self) {
        self.change(|state| state.end_links(true, |_| true));
    }

    /// Resets each new connection.
    pub fn reset_new(&self) {
        self.shared.open_door(Door::Reset);
    }

    /// Leaves each new connection without an answer until the network heals.
    pub fn ignore_new(&self) {
        self.shared.open_door(Door::Ignored);
    }

    /// Listens no more: who connects is told that nobody is there.
    pub fn refuse_new(&self) {
        self.shared.open_door(Door::Refused);
    }

    /// From now on all is well.
    pub fn heal(&self) {
        self.change(|state| {
            state.ways = [Manner::default(); 2];
            state.end_links(true, |link| link.torn);
        });
        self.shared.open_door(Door::Open);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| {
            state.ended = true;
            state.end_links(false, |_| true);
        });
        self.shared.listen_no_more();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    /// Ends those connections; whoever works on one lets go of it, and it is closed. With `reset`, what was not sent yet is
    /// thrown away and the other ends are told so.
    fn end_links(&mut self, reset: bool, which: impl Fn(&Link) -> bool) {
        for link in self.links.values_mut().filter(|link| which(link)) {
            link.over = true;
            for stream in [&link.client, &link.target] {
                // It may have ended by itself.
                if reset {
                    let _ = set_socket_linger(stream, Some(Duration::ZERO));
                    let _ = stream.shutdown(Shutdown::Read); // nothing is sent for it; whoever reads comes back
                } else {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_door(&self, door: Door) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.door, door);
        if door == Door::Refused && before != door {
            self.listen_no_more();
        }
        if door != Door::Refused && before == Door::Refused {
            listen(&self.listener, 128).expect("the port is still ours");
        }
        self.changed.notify_all();
    }

    /// The port stays ours, but nobody listens; `accept` returns.
    fn listen_no_more(&self) {
        let _ = shutdown(&self.listener, How::Read);
    }

    /// Waits while it is so; `None` when this connection is over.
    fn wait(&self, id: u64, mut waits: impl FnMut(&State) -> Option<Duration>) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        loop {
            if state.links.get(&id).is_none_or(|link| link.over) {
                return None;
            }
            let Some(left) = waits(&state) else { return Some(state) };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A socket that listens on a port that stays its own while it does not: one that the system has chosen would be given away, so
/// another socket gets that one, and this one asks for the same.
fn listener() -> std::io::Result<(TcpListener, SocketAddr)> {
    let chosen = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&chosen, true)?;
    bind(&chosen, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = SocketAddr::try_from(getsockname(&chosen)?)?;
    Ok((TcpListener::bind(address)?, address))
}

fn spawn(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name("proxy".to_owned()).spawn(body).expect("a thread")
}

fn accept(shared: &Arc<Shared>) {
    loop {
        let open = |state: &mut State| !state.ended && matches!(state.door, Door::Ignored | Door::Refused);
        let state = shared.changed.wait_while(shared.state(), open).unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return;
        }
        drop(state);
        // An error is a listener that has been shut: the door says what to do.
        let Ok((client, _)) = shared.listener.accept() else { continue };
        // While it was waited for, the door may have become another.
        let open = |state: &mut State| !state.ended && state.door == Door::Ignored;
        let mut state = shared.changed.wait_while(shared.state(), open).unwrap_or_else(PoisonError::into_inner);
        state.accepted += 1;
        let id = state.accepted;
        let target = state.target.filter(|_| state.door == Door::Open && !state.ended);
        drop(state);
        shared.changed.notify_all();
        match target.and_then(|target| TcpStream::connect(target).ok()) {
            Some(target) => begin(shared, id, client, target),
            None => drop(set_socket_linger(&client, Some(Duration::ZERO))),
        }
    }
}

fn begin(shared: &Arc<Shared>, id: u64, client: TcpStream, target: TcpStream) {
    for stream in [&client, &target] {
        stream.set_nodelay(true).expect("a socket");
        stream.set_write_timeout(Some(LOOK)).expect("a socket");
    }
    let (client, target) = (Arc::new(client), Arc::new(target));
    let link = Link { client: Arc::clone(&client), target: Arc::clone(&target), open: 2, torn: false, over: false };
    shared.state().links.insert(id, link);
    for (way, from, to) in [(Way::There, &client, &target), (Way::Back, &target, &client)] {
        let (shared, from, to) = (Arc::clone(shared), Arc::clone(from), Arc::clone(to));
        drop(spawn(move || {
            let ended_well = carry(&shared, id, way, &from, &to);
            let mut state = shared.state();
            if let Some(link) = state.links.get_mut(&id) {
                link.open -= 1;
                if ended_well && !link.over {
                    let _ = to.shutdown(Shutdown::Write);
                } else if !link.over {
                    // One end has failed, so the other must hear of it.
                    state.end_links(true, |link| Arc::ptr_eq(&link.client, &from) || Arc::ptr_eq(&link.client, &to));
                }
            }
            if state.links.get(&id).is_some_and(|link| link.open == 0) {
                state.links.remove(&id);
            }
        }));
    }
}

/// Whether the stream has come to its end, and all of it to the other side.
fn carry(shared: &Shared, id: u64, way: Way, mut from: &TcpStream, mut to: &TcpStream) -> bool {
    let mut buffer = [0; CHUNK_BYTES];
    loop {
        let rate = shared.state().ways[way as usize].bytes_per_second;
        let size = rate.map_or(CHUNK_BYTES, |rate| (rate / CHUNKS_PER_SECOND).clamp(1, CHUNK_BYTES));
        let count = match from.read(&mut buffer[..size]) {
            Ok(0) => 0,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        let began = Instant::now();
        // An end takes as long as bytes do, and is swallowed like them.
        let waits = |state: &State| {
            let manner = &state.ways[way as usize];
            let width = manner.bytes_per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(count as f64 / rate as f64));
            let left = if manner.held { Duration::MAX } else { (manner.delay + width).saturating_sub(began.elapsed()) };
            (!left.is_zero() && !manner.swallowed).then_some(left.min(Duration::from_secs(3600)))
        };
        let Some(mut state) = shared.wait(id, waits) else { return false };
        if state.ways[way as usize].swallowed {
            state.swallowed_bytes += count;
            if let Some(link) = state.links.get_mut(&id) {
                link.torn = true;
            }
            drop(state);
            shared.changed.notify_all();
            if count == 0 {
                // Until the network heals, and the connection with it.
                return shared.wait(id, |_| Some(Duration::from_secs(3600))).is_some();
            }
            continue;
        }
        drop(state);
        if count == 0 {
            return true;
        }
        let mut left = &buffer[..count];
        while !left.is_empty() {
            match to.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                    if shared.wait(id, |_| None).is_none() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }
}

mod tests;
