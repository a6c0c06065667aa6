//! The turns of the dispatcher's thread, one at a time, on socketpairs.

use super::*;
use crate::config::FederationMode;
use crate::dispatcher::inlet::{self, Inlet};
use crate::dispatcher::{About, Inquiry, Settings, Window, Windows};
use crate::frame::Decoder;
use crate::name::{ServerName, Username};
use crate::outlet::{Bounds, Total};
use crate::store::{self, Database, Standing, Threads};
use crate::transport::Sink;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tempfile::TempDir;

/// A runner with nothing in its tables, the way to it, and the store that it has to have.
fn runner() -> (Runner, Inlet, (Threads, TempDir)) {
    let settings = Settings {
        server: ServerName::new("a.example").expect("a name"),
        start: 1,
        routes: Vec::new(),
        sessions_per_user: usize::MAX,
        windows: Windows { unacknowledged: Window { letters: 4, bytes: 1000 }, unflushed: Window { letters: 4, bytes: 1000 } },
        acknowledge_within: Duration::from_secs(60),
        federation: FederationMode::Peers,
        connections_per_peer: 2,
        frame_bytes_server: 1 << 20,
        open_messages_per_second: 2,
        admin_info: "{}".into(),
        listeners: Vec::new(),
    };
    let (inlet, inbox) = inlet::channel(1024);
    let (flusher, _thread) = Flusher::start(1024, |_| {}).expect("a thread");
    let (drained, _) = crossbeam_channel::bounded(1);
    let incoming = Incoming::new(usize::MAX);
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open(&directory.path().join("state").join("bester.db")).expect("a database");
    let (store, threads) = Store::start(database, store::Settings::default(), |_| {}).expect("threads");
    let (link_peers, _) = crossbeam_channel::bounded(1);
    let dispatcher = Dispatcher::new(settings);
    (Runner { dispatcher, inbox, flusher, incoming, store, drained, link_peers }, inlet, (threads, directory))
}

/// So many connections of one user: what makes them known, and their other ends, which have the numbers of their places.
fn connections(count: u64) -> (Vec<Inbound>, Vec<Socket>) {
    let user = Username::new("alice").expect("a name");
    let mut inbound = vec![Inbound::One(Event::AccountsChanged(vec![(user.clone(), Standing::Active { revision: 1 })]))];
    let mut clients = Vec::new();
    for conn in (0..count).map(ConnId) {
        let (ours, theirs) = UnixStream::pair().expect("a socketpair");
        let socket = Arc::new(Socket::Unix(ours));
        let bounds = Bounds { bytes: 1 << 20, frames: 1000 };
        let outlet = Arc::new(Outlet::new(Sink::Socket(Arc::clone(&socket)), bounds, Total::new(1 << 30)));
        let login = Event::LoggedIn { conn, user: user.clone(), revision: 1, ack: false, after: None, about: about("dummy") };
        inbound.push(Inbound::Attach(conn, Port { outlet, gate: Arc::new(Gate::new(64)), socket }));
        inbound.push(Inbound::Many(vec![Event::Connected(conn), login]));
        clients.push(Socket::Unix(theirs));
    }
    (inbound, clients)
}

fn ping(conn: u64) -> Event {
    Event::Asked(ConnId(conn), Inquiry::Ping, about("builtin"))
}

fn about(kind: &str) -> About {
    About { kind: kind.into(), id: None }
}

/// How many frames have come.
fn frames(client: &Socket) -> usize {
    let mut decoder = Decoder::new(crate::config::Framing::Length, 1 << 20);
    while client.try_read(decoder.space(4096)).is_ok_and(|bytes| bytes > 0) {}
    std::iter::from_fn(|| decoder.frame().expect("small frames")).count()
}

#[test]
fn what_comes_while_many_are_written_to_is_taken_in_between() {
    const COUNT: usize = 3 * PORTS_MAX;
    let (mut runner, inlet, _store) = runner();
    let (mut tables, mut effects) = (Tables::default(), Vec::new());
    let (known, clients) = connections(COUNT as u64);
    for inbound in known {
        tables.take(&mut runner.dispatcher, Instant::now(), inbound, &mut effects);
    }
    let mut turn = || {
        runner.take_in(&mut tables, &mut effects);
        runner.write_to_clients(&mut tables, &mut effects);
        tables.collected
    };
    inlet.send(Inbound::Many((0..COUNT as u64).map(ping).collect())).expect("it runs");
    // Each has a report on its login and one on its ping, and is counted itself.
    assert_eq!(turn(), 3 * (COUNT - PORTS_MAX));
    inlet.send(Inbound::Many(vec![ping(0), ping(COUNT as u64 - 1)])).expect("it runs");
    assert_eq!(turn(), 3 * (COUNT - 2 * PORTS_MAX) + 3, "one that is written to once more, and one with a packet more");
    assert_eq!(frames(&clients[0]), 2, "those who wait come first");
    while turn() > 0 {}
    assert_eq!(frames(&clients[0]), 1);
    let others: Vec<usize> = clients[1..].iter().map(frames).collect();
    assert_eq!(others, [&[2; COUNT - 2][..], &[3]].concat());
}

#[test]
fn all_that_was_collected_is_written_before_the_end() {
    const COUNT: usize = 3 * PORTS_MAX;
    let (runner, inlet, _store) = runner();
    let (known, clients) = connections(COUNT as u64);
    let pings = Inbound::Many((0..COUNT as u64).map(ping).collect());
    known.into_iter().chain([pings, Inbound::Quit]).for_each(|inbound| inlet.send(inbound).expect("it runs"));
    runner.run();
    assert_eq!(clients.iter().map(frames).collect::<Vec<_>>(), [2; COUNT]);
}

#[test]
fn a_connection_is_empty_when_nothing_waits_and_nothing_is_collected_for_it() {
    let (ours, _theirs) = UnixStream::pair().expect("a socketpair");
    let socket = Arc::new(Socket::Unix(ours));
    let bounds = Bounds { bytes: 1 << 30, frames: 1000 };
    let outlet = Arc::new(Outlet::new(Sink::Socket(Arc::clone(&socket)), bounds, Total::new(1 << 30)));
    let port = Port { outlet: Arc::clone(&outlet), gate: Arc::new(Gate::new(64)), socket };
    let mut tables = Tables::default();
    assert!(!tables.is_empty(ConnId(1)), "it is gone");
    tables.ports.insert(ConnId(1), Attached::new(port));
    assert!(tables.is_empty(ConnId(1)));
    let packet = Packet::framed(crate::frame::Slice::from(&vec![b' '; 4 << 20][..]));
    tables.touch(ConnId(1), |attached| attached.packets.push(packet.clone()));
    assert!(!tables.is_empty(ConnId(1)) && tables.ports[&ConnId(1)].watched, "it is said when what is collected is written");
    tables.ports.get_mut(&ConnId(1)).expect("it is there").packets.clear();
    outlet.send(&[packet]);
    assert!(!tables.is_empty(ConnId(1)), "the socket has not taken all of it");
}
