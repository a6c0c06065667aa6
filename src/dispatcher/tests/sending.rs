//! What handlers have sent to other servers.

use super::disk::OUTGOING_MAX;
use super::serving::peers;
use super::*;
use crate::store::mail::{Author, Destination};

fn world() -> World {
    let mut world = World::new();
    world.peers(peers());
    world
}

fn servers(names: &[&str], data: &str) -> String {
    one("sendServers", &serde_json::json!(names).to_string(), data)
}

impl World {
    pub(super) fn peers(&mut self, peers: Vec<crate::store::Peer>) {
        self.disk.peers = peers.clone();
        self.handle(Event::PeersChanged(peers));
    }

    /// What was given to links since this was last taken: `PEER SEQ DATA`.
    fn links(&mut self) -> Vec<String> {
        let text = |data: &crate::frame::Slice| String::from_utf8_lossy(data.bytes()).into_owned();
        let one = |(peer, seq, message): &(PeerId, u64, Arc<Outgoing>)| format!("{} {seq} {}", peer.0, text(&message.data));
        let links = self.forwarded.iter().map(one).collect();
        self.forwarded.clear();
        links
    }
}

#[test]
fn what_is_for_servers_is_on_the_disk_before_it_is_reported_or_sent() {
    let mut world = world();
    world.disk.rests = true;
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&servers(&["b.example", "c.example:2224", "b.example:2224", "b.example"], "[1.0]"));
    world.alice().gets(&[]);
    assert_eq!(world.links(), Vec::<String>::new());
    world.disk.rests = false;
    world.passes(Duration::ZERO);
    world.alice().gets(&["good 0/0/0 queued:2 #m"]);
    let outgoing = world.forwarded[0].2.clone();
    assert_eq!(world.links(), ["1 1 [1.0]", "2 1 [1.0]"]);
    assert_eq!((&*outgoing.kind, outgoing.hops, &outgoing.to), ("chat", 1, &Destination::Peer(PeerId(1))));
    let author = outgoing.author.as_ref().expect("alice");
    let Author { user, id, message_id } = author;
    assert_eq!(
        (user.as_str(), id.as_ref().map(|id| id.bytes()), &**message_id),
        ("alice", Some(&b"\"m\""[..]), "a.example/0000000000000000000000000000005f-1")
    );
    assert!(outgoing.message_id.starts_with("a.example/0000000000000000000000000000005f-") && outgoing.message_id != *message_id);
}

#[test]
fn several_messages_to_one_server_are_no_repetitions_of_each_other() {
    let mut world = world();
    world.alice().asks("chat", "0", "m");
    let to_b = r#"["b.example"]"#;
    world.handler("chat").answers(&several(&[("sendServers", to_b), ("sendServers", to_b), ("sendClients", r#"["bob"]"#)], "1"));
    world.alice().gets(&["good 1/0/0 queued:1 #m"]);
    world.bob().gets(&["chat 1"]);
    let ids: std::collections::BTreeSet<_> = world.forwarded.iter().map(|(.., message)| message.message_id.clone()).collect();
    assert_eq!((ids.len(), world.links().len()), (2, 2));
}

#[test]
fn who_is_no_peer_is_unknown_and_what_is_full_refuses() {
    let mut world = world();
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&servers(&["d.example", "127.0.0.1:1", "a.example", "b.example:1"], "1"));
    world.alice().gets(&["bad peerUnknown 0/0/4 #m"]);
    for _ in 0..OUTGOING_MAX {
        world.alice().sends("chat", "0");
        world.handler("chat").answers(&servers(&["b.example"], "1"));
    }
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&servers(&["b.example", "c.example"], "1"));
    world.alice().gets(&["bad undelivered temporary 0/0/0 queued:1 refused:1 #m"]);
    world.alice().asks("chat", "0", "large");
    let large = format!("\"{}\"", "x".repeat(FRAME_BYTES_SERVER));
    world.handler("chat").answers(&servers(&["c.example"], &large));
    world.alice().gets(&["bad undelivered temporary 0/0/0 refused:1 #large"]);
    // A peer that was removed while the order was on its way.
    world.disk.rests = true;
    world.alice().asks("chat", "0", "gone");
    world.handler("chat").answers(&servers(&["c.example"], "1"));
    world.disk.peers.clear();
    world.disk.rests = false;
    world.passes(Duration::ZERO);
    world.alice().gets(&["bad peerUnknown 0/0/1 #gone"]);
}

#[test]
fn a_handler_is_told_which_servers_it_did_not_reach() {
    let mut world = world();
    for _ in 0..OUTGOING_MAX {
        world.handler("room").pushes(&servers(&["b.example"], "1"));
    }
    world.handler("room").told();
    let push = servers(&["b.example", "nowhere"], "1").replacen(r#""status""#, r#""id":"p","status""#, 1);
    world.handler("room").pushes(&push);
    let told = world.handler("room").told();
    assert!(told[0].contains(r#""names":{"offline":[],"refused":["b.example"],"unknown":["nowhere"]}"#), "{told:?}");
    // Nobody's message led to it.
    assert!(world.forwarded.iter().all(|(.., message)| message.author.is_none()));
}

#[test]
fn with_open_mode_any_address_is_met() {
    let mut world = World::open();
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&servers(&["d.example:2223", "d.example", "a.example"], "1"));
    world.alice().gets(&["bad peerUnknown 0/0/2 queued:1 #m"]);
    assert_eq!((world.link_peers, world.links()), (1, vec!["103 1 1".to_owned()]));
    world.alice().asks("chat", "0", "again");
    world.handler("chat").answers(&servers(&["d.example:2223"], "2"));
    world.alice().gets(&["good 0/0/0 queued:1 #again"]);
    assert_eq!((world.link_peers, world.links()), (1, vec!["103 2 2".to_owned()]));
    // An IPv6 number has brackets here, and none in a name.
    for (data, met) in [("3", 2), ("4", 2)] {
        world.alice().asks("chat", "0", "six");
        world.handler("chat").answers(&servers(&["[2001:db8::1]:25"], data));
        world.alice().gets(&["good 0/0/0 queued:1 #six"]);
        assert_eq!(world.link_peers, met);
    }
    assert_eq!(world.links(), ["104 1 3", "104 2 4"]);
}

#[test]
fn a_failing_disk_leaves_nothing_half_sent() {
    let mut world = world();
    world.disk.trouble = Some(crate::store::mail::Trouble::Storage);
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&several(&[("sendServers", r#"["b.example"]"#), ("sendClients", r#"["carol"]"#)], "1"));
    world.alice().gets(&["bad storage temporary #m"]);
    assert_eq!(world.links(), Vec::<String>::new());
}

#[test]
fn what_came_to_nothing_is_told_to_sessions_that_acknowledge_alone() {
    let mut world = world();
    world.alice().asks("chat", "0", "m");
    world.handler("chat").answers(&servers(&["b.example"], "1"));
    world.alice().gets(&["good 0/0/0 queued:1 #m"]);
    world.disk.gives_up(PeerId(1), 1);
    world.passes(Duration::ZERO);
    // A session that does not acknowledge neither sees it nor takes it out of the mailbox.
    assert_eq!(world.disk.waiting("alice"), 1);
    let conn = world.connects().conn;
    world.on(conn).logs_in_with("alice", 1, true, None);
    let frames = world.on(conn).frames();
    let expected = concat!(
        r#"{"header":{"status":"bad","messageType":"deliveryReport","reason":"expired","temporary":false,"#,
        r#""messageId":"a.example/0000000000000000000000000000005f-3","seq":1,"redelivered":false},"#,
        r#""payload":{"data":{"messageId":"a.example/0000000000000000000000000000005f-1"},"type":"chat","id":"m"}}"#
    );
    assert_eq!(frames[1..], [expected]);
    world.on(conn).acknowledges(1);
    assert_eq!(world.disk.waiting("alice"), 0);
    // One that comes while it is there.
    world.alice().sends("chat", "0");
    world.handler("chat").answers(&servers(&["b.example"], "1"));
    world.disk.gives_up(PeerId(1), 2);
    world.passes(Duration::ZERO);
    let frames = world.on(conn).frames();
    assert!(matches!(&frames[..], [report] if report.contains("deliveryReport") && report.contains(r#""seq":2"#)), "{frames:?}");
}
