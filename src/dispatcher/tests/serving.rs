//! What other servers say, and those who only say that they are some.

use super::*;
use crate::dispatcher::{Message, Proof, Transit};
use crate::protocol::text::Text;
use crate::store::{Peer, Verify};
use crate::tls::Pin;
use std::net::{IpAddr, Ipv4Addr};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn pin(name: &str) -> Pin {
    Pin::of(name.as_bytes())
}

/// b.example and c.example have keys, which are those of their names; old.example has none, and listens at [`HOME`].
pub(super) fn peers() -> Vec<Peer> {
    let peer = |id, name: &str, at: &str, verify| Peer {
        id: PeerId(id),
        name: ServerName::new(name).expect("a name"),
        addresses: vec![at.parse().expect("an address")],
        verify,
    };
    vec![
        peer(1, "b.example", "b.example:2224", Verify::Pins(vec![pin("b.example"), pin("b's next")])),
        peer(2, "c.example", "c.example:2224", Verify::Pins(vec![pin("c.example")])),
        peer(3, "old.example", "192.0.2.7:2223", Verify::Nothing),
    ]
}

fn with_key(name: &str) -> Proof {
    Proof { key: Some(pin(name)), address: Some(HOME), plain: false }
}

const PLAIN: Proof = Proof { key: None, address: Some(HOME), plain: true };

impl World {
    pub(super) fn open() -> World {
        let mut world = World::new();
        world.dispatcher.peers = super::super::peers::Peers::new(settings().server, FederationMode::Open, OPEN_PER_SECOND);
        world.peers(peers());
        world
    }

    /// A connection on which somebody says to be this server; whether that is accepted.
    fn server(&mut self, proof: Proof, name: Option<&str>) -> (ConnId, bool) {
        let mut person = self.connects();
        person.tells(|conn| Event::Greeted { conn, proof, server: name.map(Text::from), about: about("hello") });
        let verdict = person.verdict().expect("a verdict");
        (person.conn, verdict)
    }

    /// A peer that proved who it is.
    fn b(&mut self) -> ConnId {
        let (conn, accepted) = self.server(with_key("b.example"), Some("b.example"));
        assert!(accepted);
        conn
    }
}

impl Person<'_> {
    fn transits(&mut self, kind: &str, data: &str, message_id: &str, hops: u64, from: Option<&str>) {
        let mut digest = [0; 32];
        digest.iter_mut().zip(message_id.bytes().rev()).for_each(|(place, byte)| *place = byte);
        let transit = Transit { message_id: Some(message_id.into()), hops, from: from.map(Text::from) };
        let message = Message {
            kind: kind.into(),
            data: slice(data),
            id: Some(slice(&format!("\"{message_id}\""))),
            bytes: data.len(),
            digest: Some(Box::new(digest)),
            transit: Some(Box::new(transit)),
        };
        self.tells(|conn| Event::Message(conn, message));
    }
}

#[test]
fn nobody_is_believed_without_proof() {
    let mut world = World::new();
    world.peers(peers());
    for (proof, name) in [
        (PLAIN, Some("b.example")),
        (PLAIN, Some("a.example")),
        (PLAIN, Some("nobody.example")),
        (Proof { address: None, ..PLAIN }, None),
        (Proof { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ..PLAIN }, Some("old.example")),
        // Over TLS, but without a key, or with one that no peer has.
        (Proof { plain: false, ..PLAIN }, Some("old.example")),
        (with_key("d.example"), Some("b.example")),
        (with_key("d.example"), Some("old.example")),
        // With somebody else's key.
        (with_key("c.example"), Some("b.example")),
        (with_key("b.example"), Some("a.example")),
        (with_key("b.example"), Some("B.example")),
        (with_key("b.example"), Some("")),
        (with_key("b.example"), None),
    ] {
        let (conn, accepted) = world.server(proof, name);
        assert!(!accepted, "{proof:?} {name:?}");
        world.on(conn).gets(&["bad forbidden #hello"]);
        assert_eq!(world.on(conn).closed(), Some(CloseReason::Refused));
        world.on(conn).transits("room", "1", "b.example/5f-1", 1, None);
    }
    assert_eq!(world.handler("room").asked(), Vec::<String>::new());
    for (proof, name) in
        [(with_key("b.example"), Some("b.example")), (with_key("b's next"), Some("b.example")), (PLAIN, Some("old.example")), (PLAIN, None)]
    {
        assert!(world.server(proof, name).1, "{proof:?} {name:?}");
    }
}

#[test]
fn with_federation_off_nobody_speaks() {
    let mut world = World::new();
    world.dispatcher.peers = super::super::peers::Peers::new(settings().server, FederationMode::Off, 2);
    world.peers(peers());
    for proof in [with_key("b.example"), PLAIN] {
        let mut person = world.connects();
        person.tells(|conn| Event::Shown(conn, proof));
        assert_eq!(person.verdict(), Some(false));
    }
    assert!(!world.server(with_key("b.example"), Some("b.example")).1);
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&one("sendServers", r#"["b.example"]"#, "1"));
    world.alice().gets(&["bad peerUnknown 0/0/1 #m"]);
}

#[test]
fn what_is_known_before_a_word_is_said_decides_how_much_is_taken() {
    let mut world = World::new();
    world.peers(peers());
    let elsewhere = Proof { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), ..PLAIN };
    for (proof, known) in [
        (with_key("b.example"), true),
        (with_key("d.example"), false),
        (PLAIN, true),
        (elsewhere, false),
        (Proof { plain: false, ..PLAIN }, false),
    ] {
        let mut person = world.connects();
        person.tells(|conn| Event::Shown(conn, proof));
        assert_eq!(person.verdict(), Some(known), "{proof:?}");
    }
}

#[test]
fn a_peer_with_the_name_of_another_is_no_peer() {
    let mut world = World::open();
    for (name, known) in [("b.example", true), ("c.example", false), ("a.example", false)] {
        let (conn, accepted) = world.server(with_key("b.example"), Some(name));
        assert!(accepted, "{name}");
        world.on(conn).tells(|conn| Event::Shown(conn, with_key("b.example")));
        assert_eq!(world.on(conn).verdict(), Some(known), "{name}");
    }
}

#[test]
fn a_peers_message_is_handled_once_however_often_it_comes() {
    let mut world = World::new();
    world.peers(peers());
    let (first, second) = (world.b(), world.b());
    world.on(first).transits("room", "[1.0]", "b.example/5f-1", 2, Some("bob"));
    world.on(second).transits("room", "[1.0]", "b.example/5f-1", 2, Some("bob"));
    let asked = world.handler("room").asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let from = r#""from":{"scope":"server","user":"bob","server":"b.example","verified":true},"hops":2"#;
    assert!(asked[0].contains(from) && asked[0].contains(r#""data":[1.0]"#), "{asked:?}");
    world.handler("room").answers(&to(&["alice"], "1"));
    world.alice().gets(&["room 1"]);
    for conn in [first, second] {
        world.on(conn).gets(&["good null #b.example/5f-1"]);
    }
    world.on(first).transits("room", "[1.0]", "b.example/5f-1", 2, Some("bob"));
    world.on(first).gets(&["good null #b.example/5f-1"]);
    assert_eq!(world.handler("room").asked(), Vec::<String>::new());
    // What is kept and what is remembered go to the disk together.
    world.on(first).transits("post", "1", "b.example/5f-2", 1, None);
    world.disk.log.clear();
    world.handler("post").answers(&to(&["carol"], "1"));
    assert!(
        matches!(&world.disk.log[..], [(keep, _)] if keep.rows() == 1 && keep.memo.as_ref().is_some_and(|memo| memo.peer == Some(PeerId(1))))
    );
    world.on(first).gets(&["good null #b.example/5f-2"]);
}

#[test]
fn messages_of_a_server_are_handed_over_in_order_and_do_not_wait_for_each_other() {
    let mut world = World::new();
    world.peers(peers());
    let b = world.b();
    world.disk.rests = true;
    world.effects.clear();
    for number in 1..4 {
        world.on(b).transits("room", &number.to_string(), &format!("b.example/5f-{number}"), 1, None);
    }
    assert_eq!(world.effects.iter().filter(|effect| matches!(effect, Effect::Read(_))).count(), 3, "all are looked up at once");
    world.disk.rests = false;
    world.passes(Duration::ZERO);
    let asked = world.handler("room").asked();
    assert_eq!(asked.len(), 3);
    for (number, asked) in (1..).zip(asked) {
        assert!(asked.contains(&format!(r#""data":{number}"#)), "{asked}");
    }
}

#[test]
fn what_a_server_may_not_send_reaches_no_handler() {
    let mut world = World::new();
    world.peers(peers());
    let b = world.b();
    for (kind, id, hops, report) in [
        ("hall", "b.example/5f-1", 1, "bad unknownType #b.example/5f-1"),
        ("nothing", "b.example/5f-2", 1, "bad unknownType #b.example/5f-2"),
        ("room", "b.example/5f-3", 9, "bad loop #b.example/5f-3"),
        ("room", "c.example/5f-4", 1, "bad forbidden #c.example/5f-4"),
        ("room", "a.example/5f-5", 1, "bad forbidden #a.example/5f-5"),
        ("room", "b.example.evil/5f-6", 1, "bad forbidden #b.example.evil/5f-6"),
        ("room", "b.example/", 1, "bad forbidden #b.example/"),
        ("room", "5f-7", 1, "bad forbidden #5f-7"),
    ] {
        world.on(b).transits(kind, "1", id, hops, None);
        world.on(b).gets(&[report]);
    }
    for name in ["room", "hall"] {
        assert_eq!(world.handler(name).asked(), Vec::<String>::new());
    }
    world.on(b).transits("room", "1", "b.example/5f-8", 8, None);
    // It may not be passed on once more.
    world.handler("room").answers(&one("sendServers", r#"["c.example"]"#, "1"));
    world.on(b).gets(&["bad loop #b.example/5f-8"]);
    assert!(world.forwarded.is_empty());
}

#[test]
fn an_answer_goes_back_to_the_server_that_asked() {
    let mut world = World::new();
    world.peers(peers());
    let b = world.b();
    world.on(b).transits("room", "1", "b.example/5f-1", 3, Some("bob"));
    world.handler("room").answers(&reply("2"));
    world.on(b).gets(&["good null #b.example/5f-1"]);
    let (peer, _, message) = &world.forwarded[0];
    assert_eq!((peer.0, message.hops, message.author.is_none(), message.data.bytes()), (1, 4, true, &b"2"[..]));
}

#[test]
fn what_cannot_be_done_once_more_has_failed_for_good_and_what_can_is_tried_again() {
    let mut world = World::new();
    world.peers(peers());
    let b = world.b();
    let mut number = 0;
    let mut asks = |world: &mut World, kind: &str, answer: &str, report: &str| {
        number += 1;
        world.on(b).transits(kind, "1", &format!("b.example/5f-{number}"), 1, None);
        world.handler(kind).answers(answer);
        world.on(b).gets(&[&format!("{report} #b.example/5f-{number}")]);
    };
    // Who is away, of a type that keeps nothing, is no failure.
    asks(&mut world, "chat", &to(&["carol"], "1"), "good null");
    asks(&mut world, "chat", &to(&["nobody", "alice"], "1"), "bad undelivered");
    asks(&mut world, "chat", r#"{"header":{"status":"no"}}"#, "bad handlerRefused");
    asks(&mut world, "chat", "{}", "bad handlerProtocol");
    world.disk.trouble = Some(crate::store::mail::Trouble::Storage);
    world.on(b).transits("chat", "1", "b.example/5f-9", 1, None);
    world.on(b).gets(&["bad storage temporary #b.example/5f-9"]);
    world.disk.trouble = None;
    world.on(b).transits("chat", "1", "b.example/5f-9", 1, None);
    world.handler("chat").dies("exited with status 1");
    world.on(b).gets(&["bad handlerCrashed temporary #b.example/5f-9"]);
    world.handler("chat").comes_up();
    world.on(b).transits("chat", "1", "b.example/5f-9", 1, None);
    world.handler("chat").answers(&none());
    world.on(b).gets(&["good null #b.example/5f-9"]);
}

#[test]
fn in_open_mode_strangers_are_heard_a_little_and_never_believed() {
    let mut world = World::open();
    let (conn, accepted) = world.server(with_key("d.example"), Some("b.example"));
    assert!(accepted);
    let say = |world: &mut World| {
        let message = Message { kind: "room".into(), data: slice("1"), id: None, bytes: 1, digest: None, transit: None };
        world.on(conn).tells(|conn| Event::Message(conn, message));
    };
    say(&mut world);
    let asked = world.handler("room").asked();
    assert!(asked[0].contains(r#""from":{"scope":"server","server":"192.0.2.7","verified":false},"hops":1"#), "{asked:?}");
    world.handler("room").answers(&reply("2"));
    world.on(conn).gets(&["bad peerUnknown"]);
    (0..OPEN_PER_SECOND).for_each(|_| say(&mut world));
    world.on(conn).gets(&["bad rate temporary"]);
    world.passes(Duration::from_secs(1));
    say(&mut world);
    world.on(conn).gets(&[]);
    assert!(world.server(with_key("b.example"), Some("b.example")).1, "a peer is one all the same");
}

#[test]
fn a_peer_has_so_many_connections_and_none_once_it_is_removed() {
    let mut world = World::new();
    world.peers(peers());
    let conns: Vec<ConnId> = (0..CONNECTIONS_PER_PEER).map(|_| world.b()).collect();
    let (refused, accepted) = world.server(with_key("b.example"), Some("b.example"));
    assert!(!accepted);
    world.on(refused).gets(&["bad busy temporary #hello"]);
    let (c, _) = world.server(with_key("c.example"), Some("c.example"));
    // One key less is no other peer; another key is.
    let mut now = peers();
    now[0].verify = Verify::Pins(vec![pin("b.example")]);
    now.remove(1);
    world.peers(now);
    for conn in conns {
        assert_eq!(world.on(conn).closed(), Some(CloseReason::NoPeer));
    }
    assert_eq!(world.on(c).closed(), Some(CloseReason::NoPeer));
    assert!(!world.server(with_key("c.example"), Some("c.example")).1);
    assert!(world.server(with_key("b.example"), Some("b.example")).1);
}

#[test]
fn a_server_that_stops_takes_nothing_from_others() {
    let mut world = World::new();
    world.peers(peers());
    let b = world.b();
    world.handle(Event::Drain);
    world.on(b).transits("room", "1", "b.example/5f-1", 1, None);
    world.on(b).gets(&["bad draining temporary #b.example/5f-1"]);
    let (conn, accepted) = world.server(with_key("c.example"), Some("c.example"));
    assert!(!accepted);
    world.on(conn).gets(&["bad draining temporary #hello"]);
}
