use super::super::fake::{befriend, newcomer, open, outgoing, pin, server};
use super::super::mail::Place;
use super::super::outbox::Outboxes;
use super::super::{Settings, Which};
use super::*;

fn address(text: &str) -> HostPort {
    text.parse().unwrap()
}

fn names(database: &Database) -> Vec<String> {
    database.check().unwrap();
    database.peers().unwrap().iter().map(|peer| peer.name.to_string()).collect()
}

fn meet(database: &mut Database, text: &str, most: usize) -> Option<(PeerId, bool)> {
    let address = address(text);
    let name = name_of(&address).unwrap();
    database.transact(|rows| Peers(rows).meet(&name, &address, most, 5)).unwrap()
}

/// Has something wait for it.
fn fill(database: &mut Database, peer: PeerId) {
    let keep =
        |rows: Rows<'_>| Outboxes { rows, now: 5, written: &|_| {} }.keep(&outgoing(peer, "s/1-1", "hi", None), &Settings::default());
    assert_eq!(database.transact(keep).unwrap(), (Place::Queued(1), false));
}

#[test]
fn a_peer_is_read_as_it_was_written() {
    let (_directory, path, mut database) = open(&[]);
    let addresses = vec![address("[2001:db8::1]:2225"), address("b.example:1")];
    let verify = Verify::Pins(vec![pin("old"), pin("new")]);
    let pinned = Newcomer { name: server("b.example"), addresses: addresses.clone(), verify: verify.clone() };
    let plain = Newcomer { name: server("a.example"), addresses: Vec::new(), verify: Verify::Nothing };
    let ids = [database.add_peer(&pinned, 9).unwrap(), database.add_peer(&plain, 9).unwrap()];
    let peers = Database::open(&path).unwrap().peers().unwrap();
    let expected = [
        Peer { id: ids[1], name: plain.name, addresses: Vec::new(), verify: Verify::Nothing },
        Peer { id: ids[0], name: pinned.name, addresses, verify },
    ];
    assert_eq!(peers, expected, "ordered by name");
}

#[test]
fn a_name_and_a_key_are_one_peers_alone() {
    let (_directory, _, mut database) = open(&[]);
    befriend(&mut database, ["b.example"]);
    assert!(matches!(database.add_peer(&newcomer("b.example"), 9), Err(StoreError::PeerTaken(_))));
    let thief = Newcomer { name: server("c.example"), verify: Verify::Pins(vec![pin("c"), pin("b.example")]), ..newcomer("b.example") };
    assert!(matches!(database.add_peer(&thief, 9), Err(StoreError::PeerTaken(name)) if name == server("c.example")));
    let many = Newcomer { verify: Verify::Pins(vec![pin("1"), pin("2"), pin("3")]), ..newcomer("d.example") };
    assert!(matches!(database.add_peer(&many, 9), Err(StoreError::PinsFull(_))));
    assert_eq!(names(&database), ["b.example"]);
}

#[test]
fn a_peer_that_was_removed_never_gets_its_number_back() {
    let (_directory, _, mut database) = open(&[]);
    let [first] = befriend(&mut database, ["b.example"]);
    database.remove_peer(&server("b.example")).unwrap();
    let [second] = befriend(&mut database, ["b.example"]);
    assert!(second > first);
    assert!(matches!(database.remove_peer(&server("x.example")), Err(StoreError::NoPeer(_))));
}

#[test]
fn keys_and_addresses_can_be_replaced() {
    let (_directory, _, mut database) = open(&[]);
    let [b, _] = befriend(&mut database, ["b.example", "c.example"]);
    let name = server("b.example");
    let changed = database.change_peer(&name, |peer| {
        peer.addresses = vec![address("elsewhere.example:7")];
        peer.verify = Verify::Pins(vec![pin("b.example"), pin("next")]);
        peer.name = server("other.example");
        peer.id = PeerId(99);
    });
    let expected = Peer {
        id: b,
        name: name.clone(),
        addresses: vec![address("elsewhere.example:7")],
        verify: Verify::Pins(vec![pin("b.example"), pin("next")]),
    };
    assert_eq!(changed.unwrap(), expected, "name and number stay");
    assert_eq!(database.peers().unwrap()[0], expected);
    let verify = |pins: &[&str]| Verify::Pins(pins.iter().map(|text| pin(text)).collect());
    let stolen = database.change_peer(&name, |peer| peer.verify = verify(&["next", "c.example"]));
    assert!(matches!(stolen, Err(StoreError::PeerTaken(_))));
    let many = database.change_peer(&name, |peer| peer.verify = verify(&["1", "2", "3"]));
    assert!(matches!(many, Err(StoreError::PinsFull(_))));
    assert_eq!(database.peers().unwrap()[0], expected);
    assert!(matches!(database.change_peer(&server("x.example"), |_| {}), Err(StoreError::NoPeer(_))));
}

#[test]
fn servers_known_by_their_address_make_room_when_nothing_waits_for_them() {
    let (_directory, _, mut database) = open(&[]);
    befriend(&mut database, ["b.example"]);
    let (first, new) = meet(&mut database, "192.0.2.1:25", 3).unwrap();
    assert!(new);
    assert_eq!(meet(&mut database, "192.0.2.1:25", 3), Some((first, false)));
    let (second, _) = meet(&mut database, "[2001:db8::1]:25", 3).unwrap();
    assert_eq!(names(&database), ["192.0.2.1:25", "2001:db8::1:25", "b.example"]);
    assert_eq!(database.peers().unwrap()[1].addresses, [address("[2001:db8::1]:25")]);
    fill(&mut database, first);
    let (third, new) = meet(&mut database, "192.0.2.3:25", 3).unwrap();
    assert!(new && third > second);
    assert_eq!(names(&database), ["192.0.2.1:25", "192.0.2.3:25", "b.example"], "something waits for the first");
    fill(&mut database, third);
    assert_eq!(meet(&mut database, "192.0.2.4:25", 3), None);
    assert!(matches!(database.add_peer(&newcomer("c.example"), 3), Err(StoreError::PeersFull { most: 3 })));
    assert_eq!(meet(&mut database, "b.example:2225", 4).map(|(_, new)| new), Some(true), "that is another name");
    assert!(database.add_peer(&newcomer("c.example"), 4).is_ok(), "one made room");
    assert_eq!(names(&database), ["192.0.2.1:25", "192.0.2.3:25", "b.example", "c.example"]);
}

#[test]
fn a_server_known_by_its_address_may_become_a_peer() {
    let (_directory, _, mut database) = open(&[]);
    let (id, _) = meet(&mut database, "b.example:25", 9).unwrap();
    fill(&mut database, id);
    let named = Newcomer { name: server("b.example:25"), ..newcomer("b.example") };
    assert_eq!(database.add_peer(&named, 1).unwrap(), id, "it needs no more room");
    assert_eq!(database.peers().unwrap()[0].verify, named.verify);
    assert_eq!(meet(&mut database, "b.example:25", 9), Some((id, false)), "what is for that address is for it");
    assert_eq!(database.drop_outgoing(&server("b.example:25"), Which::All).unwrap().messages, 1);
}

#[test]
fn not_every_address_is_a_name() {
    assert_eq!(name_of(&address("b.example:25")), Some(server("b.example:25")));
    for text in ["[::1]:25", "*:25", "ä:25", &format!("{}:25", "b".repeat(251))] {
        assert_eq!(name_of(&address(text)), None, "{text}");
    }
}

#[test]
fn a_peer_that_was_written_by_hand_is_named() {
    for (change, what) in [
        ("addresses = '[\"x\"]'", "HOST:PORT"),
        ("addresses = 'x'", "expected value"),
        ("pins = '[\"x\"]'", "64 hexadecimal digits"),
        ("name = '?'", "server name"),
    ] {
        let (_directory, _, mut database) = open(&[]);
        befriend(&mut database, ["b.example"]);
        database.connection.execute(&format!("UPDATE peers SET {change}"), []).unwrap();
        let error = database.peers().unwrap_err();
        assert!(matches!(&error, StoreError::BadPeer { .. }) && error.to_string().contains(what), "{change}: {error}");
        if !change.starts_with("name") {
            assert!(error.to_string().contains("b.example"));
            database.remove_peer(&server("b.example")).unwrap();
            assert_eq!(names(&database), [""; 0]);
        }
    }
}
