use super::super::fake::{PATIENCE, Place, Visit, identity, name, ours};
use super::*;
use crate::frame::Slice;
use crate::name::{PeerId, Username};
use crate::store::mail::Receipt;
use crate::store::mail::{Author, Destination};
use std::collections::BTreeMap;
use std::sync::Condvar;
use std::thread::JoinHandle;

/// An outbox in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<(Mutex<Lying>, Condvar)>);

#[derive(Debug, Default)]
struct Lying {
    messages: BTreeMap<u64, Arc<Outgoing>>,
    last: u64,
    receipts: Vec<Receipt>,
    /// So many of the next receipts have no room.
    full: usize,
}

impl Outbox for Memory {
    fn page(&self, after: u64, messages_max: usize, _: usize) -> Result<OutboxPage, StoreError> {
        let lying = self.0.0.lock().unwrap();
        let all: Vec<_> = lying.messages.range(after + 1..).map(|(seq, message)| (*seq, Arc::clone(message))).collect();
        let more = all.len() > messages_max;
        Ok(OutboxPage { messages: all.into_iter().take(messages_max).collect(), more })
    }

    fn settle(&self, receipts: Vec<Receipt>) -> Vec<Receipt> {
        let mut lying = self.0.0.lock().unwrap();
        if lying.full > 0 {
            lying.full -= 1;
            return receipts;
        }
        for receipt in &receipts {
            match receipt {
                Receipt::Taken(seqs) => seqs.iter().for_each(|seq| _ = lying.messages.remove(seq)),
                Receipt::Refused(seq) => _ = lying.messages.remove(seq),
                Receipt::Deferred(_) | Receipt::Unreached => {}
            }
        }
        lying.receipts.extend(receipts);
        self.0.1.notify_all();
        Vec::new()
    }
}

impl Memory {
    fn put(&self, data: &str) -> (u64, Arc<Outgoing>) {
        let mut lying = self.0.0.lock().unwrap();
        lying.last += 1;
        let seq = lying.last;
        let author = Author { user: Username::new("alice").unwrap(), id: None, message_id: "a.example/5f-1".into() };
        let message = Arc::new(Outgoing {
            to: Destination::Peer(PeerId(7)),
            message_id: format!("a.example/5f-{seq}").into(),
            kind: "chat".into(),
            data: Slice::from(data.as_bytes()),
            hops: 1,
            author: Some(author),
        });
        lying.messages.insert(seq, Arc::clone(&message));
        (seq, message)
    }

    /// Waits until it is so.
    fn wait(&self, what: impl Fn(&Lying) -> bool) {
        let lying = self.0.0.lock().unwrap();
        let (lying, waited) = self.0.1.wait_timeout_while(lying, PATIENCE, |lying| !what(lying)).unwrap();
        assert!(!waited.timed_out(), "{:?}", lying.receipts);
    }
}

/// A link that runs.
struct World {
    outbox: Memory,
    post: Post,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    fn new(peer: Peer, outbox: Memory) -> World {
        let shared = Arc::new(Shared::new().unwrap());
        let (post, messages) = post(&shared);
        let link = Link { peer, ours: ours(), outbox: Box::new(outbox.clone()), shared: Arc::clone(&shared), messages };
        let thread = crate::thread::spawn("link", STACK_BYTES, move || link.run()).unwrap();
        World { outbox, post, shared, thread: Some(thread) }
    }

    fn put(&self, data: &str) {
        let (seq, message) = self.outbox.put(data);
        self.post.carry(seq, message);
    }

    fn trouble(&self) -> String {
        self.shared.status().trouble.map(|(words, _)| words).unwrap_or_default()
    }

    fn wait_for_trouble(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.trouble().contains(words) {
            assert!(Instant::now() < deadline, "{:?} instead of {words:?}", self.trouble());
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let before = Instant::now();
        self.shared.bell.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))));
            assert!(before.elapsed() < PATIENCE, "it does not stop");
        }
    }
}

fn done(visit: &mut Visit, id: &str) {
    assert_eq!(visit.gets_id(), id);
    visit.reports(id, "good");
}

#[test]
fn what_lay_there_and_what_comes_is_sent_and_settled() {
    let place = Place::new(Some(identity()));
    let peer = place.peer();
    let server = place.then(|place| {
        let mut visit = place.welcome();
        let first = visit.gets().expect("a message");
        assert_eq!(first.header.from.expect("alice").as_str(), "alice");
        assert_eq!((first.header.hops, first.payload.kind.as_str(), first.payload.data.bytes()), (1, "chat", &b"{\"n\":1.0}"[..]));
        visit.reports("a.example/5f-1", "good");
        (2..6).for_each(|n| done(&mut visit, &format!("a.example/5f-{n}")));
        assert!(visit.gets().is_none(), "it ends when it is stopped");
    });
    let outbox = Memory::default();
    outbox.put("{\"n\":1.0}");
    let world = World::new(peer, outbox);
    world.outbox.wait(|lying| lying.messages.is_empty());
    (2..6).for_each(|n| world.put(&n.to_string()));
    world.outbox.wait(|lying| lying.messages.is_empty());
    let status = world.shared.status();
    assert_eq!((status.state, status.trouble), (State::Up, None));
    drop(world);
    server.join().expect("no panic");
}

#[test]
fn a_message_is_sent_again_after_a_broken_connection_and_after_a_report_that_says_so() {
    let place = Place::new(Some(identity()));
    let peer = place.peer();
    let server = place.then(|place| {
        let mut visit = place.welcome();
        assert_eq!(visit.gets_id(), "a.example/5f-1");
        visit.leaves();
        let mut visit = place.welcome();
        assert_eq!(visit.gets_id(), "a.example/5f-1");
        visit.reports("a.example/5f-1", "notNow");
        assert_eq!(visit.gets_id(), "a.example/5f-1");
        visit.reports("a.example/5f-1", "never");
        assert!(visit.gets().is_none());
    });
    let world = World::new(peer, Memory::default());
    world.outbox.0.0.lock().unwrap().full = 1;
    world.put("1");
    world.outbox.wait(|lying| lying.messages.is_empty());
    let receipts = world.outbox.0.0.lock().unwrap().receipts.clone();
    assert_eq!(receipts, [Receipt::Deferred(vec![1]), Receipt::Deferred(vec![1]), Receipt::Refused(1)]);
    assert!(!world.trouble().is_empty());
    drop(world);
    server.join().expect("no panic");
}

#[test]
fn a_post_says_what_it_has_no_room_for_and_wakes_only_whoever_waits() {
    let shared = Arc::new(Shared::new().unwrap());
    let (post, messages) = post(&shared);
    let outbox = Memory::default();
    let carry = |bytes: usize| {
        let (seq, message) = outbox.put(&"1".repeat(bytes));
        post.carry(seq, message);
        shared.missed.swap(false, Ordering::SeqCst)
    };
    assert!(carry(1) && messages.is_empty(), "nothing is taken while there is no connection");
    shared.open.store(true, Ordering::SeqCst);
    (0..POST_MESSAGES).for_each(|_| assert!(!carry(1)));
    assert!(carry(1), "it is full");
    assert_eq!((messages.try_iter().count(), shared.bytes.swap(0, Ordering::SeqCst)), (POST_MESSAGES, POST_MESSAGES));
    assert!(!carry(POST_BYTES + 1), "one message always has room");
    assert!(carry(1), "but it takes all of it");
    let rung = || {
        let before = Instant::now();
        shared.bell.wait(None, Some(before + Duration::from_millis(50))).unwrap();
        before.elapsed() < Duration::from_millis(50)
    };
    assert!(!rung());
    shared.wants.store(true, Ordering::SeqCst);
    carry(1);
    assert!(rung() && !shared.wants.load(Ordering::SeqCst));
}

#[test]
fn more_than_the_post_holds_is_read_from_the_outbox() {
    let place = Place::new(Some(identity()));
    let peer = place.peer();
    let world = World::new(peer, Memory::default());
    (0..300).for_each(|_| world.put("1"));
    let server = place.then(|place| {
        let mut visit = place.welcome();
        (1..301).for_each(|n| done(&mut visit, &format!("a.example/5f-{n}")));
        assert!(visit.gets().is_none());
    });
    world.outbox.wait(|lying| lying.messages.is_empty());
    drop(world);
    server.join().expect("no panic");
}

#[test]
fn nothing_is_said_to_a_server_with_another_key_or_another_name() {
    let place = Place::new(Some(identity()));
    let peer = Peer { verify: Verify::Pins(vec![identity().pin()]), ..place.peer() };
    let server = place.then(|place| assert!(place.accept().is_none_or(|mut visit| visit.gets().is_none())));
    let world = World::new(peer, Memory::default());
    world.put("1");
    world.wait_for_trouble("another key");
    drop(world);
    server.join().expect("no panic");

    let place = Place::new(Some(identity()));
    let peer = place.peer();
    let server = place.then(|place| {
        let mut visit = place.accept().expect("a handshake");
        visit.greets("c.example");
        assert!(visit.gets().is_none(), "a message for another server");
    });
    let world = World::new(peer, Memory::default());
    world.put("1");
    world.wait_for_trouble("its name is c.example, and not b.example");
    drop(world);
    server.join().expect("no panic");
}

#[test]
fn a_server_that_refuses_is_quoted() {
    let place = Place::new(Some(identity()));
    let peer = place.peer();
    let server = place.then(|place| {
        let mut visit = place.accept().expect("a handshake");
        visit.gets().expect("a greeting");
        visit.says(r#"{"header":{"status":"bad","reason":"forbidden"},"payload":{"data":{"message":"a.example\u001b is no peer"}}}"#);
        visit.leaves();
    });
    let world = World::new(peer, Memory::default());
    world.wait_for_trouble(r"it refuses: forbidden (a.example\u{1b} is no peer)");
    server.join().expect("no panic");
}

#[test]
fn it_stops_at_once_while_it_connects_and_while_it_waits() {
    // Nobody accepts: the handshake is not answered.
    let place = Place::new(Some(identity()));
    let world = World::new(place.peer(), Memory::default());
    let deadline = Instant::now() + PATIENCE;
    while world.shared.status().state != State::Connecting {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    drop(world);
    let gone = Peer { addresses: Vec::new(), ..place.peer() };
    let world = World::new(gone, Memory::default());
    world.wait_for_trouble("no address");
    world.outbox.wait(|lying| lying.receipts.contains(&Receipt::Unreached));
}

#[test]
fn a_peer_that_proves_nothing_is_connected_to_for_each_message() {
    let place = Place::new(None);
    let peer = place.peer();
    let server = place.then(|place| {
        let mut first = place.accept().expect("a connection");
        assert_eq!(first.gets_id(), "a.example/5f-1");
        // It ends without a word.
        first.leaves();
        for n in 1..3 {
            let mut visit = place.accept().expect("a connection");
            assert_eq!(visit.gets_id(), format!("a.example/5f-{n}"));
            // Its report has an id of its own, or none.
            visit.says(r#"{"header":{"status":"good"},"payload":{"type":"chat","data":null}}"#);
            assert!(visit.gets().is_none(), "one message only");
        }
    });
    let world = World::new(peer, Memory::default());
    world.put("1");
    world.put("2");
    world.outbox.wait(|lying| lying.messages.is_empty());
    drop(world);
    server.join().expect("no panic");
}

#[test]
fn no_server_of_which_nothing_is_known_is_sought_on_this_machine() {
    let place = Place::new(None);
    let peer = Peer { verify: Verify::Open, name: name("127.0.0.1:1"), ..place.peer() };
    let world = World::new(peer, Memory::default());
    world.put("1");
    world.outbox.wait(|lying| lying.receipts == [Receipt::Refused(1)]);
    assert!(world.trouble().contains("an address of this machine"), "{}", world.trouble());
}
