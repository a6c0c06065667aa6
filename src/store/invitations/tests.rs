use super::super::fake::{number, open, pin, server};
use super::*;

const NOW: i64 = 1000;

fn guest(text: &str, key: &str, addresses: &[&str]) -> Guest {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Guest { name: server(text), addresses, pin: pin(key) }
}

fn invite(database: &mut Database, secret: u8, until: i64) {
    database.transact(|rows| Invitations(rows).put(&[secret; 32], until, NOW)).unwrap();
}

fn accept(database: &mut Database, secret: u8, guest: &Guest, now: i64) -> Result<PeerId, StoreError> {
    database.transact(|rows| Invitations(rows).accept(&[secret; 32], guest, 2, now))
}

#[test]
fn an_invitation_makes_one_server_a_peer() {
    let (_directory, _, mut database) = open(&[]);
    invite(&mut database, 1, NOW + 10);
    let b = guest("b.example", "b", &["b.example:1"]);
    assert!(matches!(accept(&mut database, 2, &b, NOW), Err(StoreError::NoInvitation)));
    assert!(matches!(accept(&mut database, 1, &b, NOW + 11), Err(StoreError::NoInvitation)), "it is too old");
    assert!(database.peers().unwrap().is_empty());
    let id = accept(&mut database, 1, &b, NOW + 10).unwrap();
    let peers = database.peers().unwrap();
    assert_eq!((peers[0].id, &peers[0].addresses, &peers[0].verify), (id, &b.addresses, &Verify::Pins(vec![pin("b")])));
    for other in [guest("b.example", "c", &[]), guest("c.example", "b", &[]), guest("c.example", "c", &[])] {
        assert!(matches!(accept(&mut database, 1, &other, NOW), Err(StoreError::NoInvitation)), "{other:?}");
    }
    assert_eq!(database.peers().unwrap(), peers);
    // It did not hear the answer.
    let again = guest("b.example", "b", &["elsewhere.example:2"]);
    assert_eq!(accept(&mut database, 1, &again, NOW).unwrap(), id);
    assert_eq!(database.peers().unwrap()[0].addresses, again.addresses);
}

#[test]
fn an_invitation_is_not_used_up_by_whom_it_is_not_for() {
    let (_directory, _, mut database) = open(&[]);
    invite(&mut database, 1, NOW + 10);
    invite(&mut database, 2, NOW + 10);
    accept(&mut database, 1, &guest("b.example", "b", &[]), NOW).unwrap();
    for taken in [guest("b.example", "other", &[]), guest("c.example", "b", &[])] {
        assert!(matches!(accept(&mut database, 2, &taken, NOW), Err(StoreError::PeerTaken(_))), "{taken:?}");
    }
    accept(&mut database, 2, &guest("c.example", "c", &[]), NOW).unwrap();
    invite(&mut database, 3, NOW + 10);
    assert!(matches!(accept(&mut database, 3, &guest("d.example", "d", &[]), NOW), Err(StoreError::PeersFull { most: 2 })));
    // A peer may use one more, and keeps its second key.
    let both = Verify::Pins(vec![pin("b"), pin("next")]);
    database.change_peer(&server("b.example"), |peer| peer.verify = both.clone()).unwrap();
    accept(&mut database, 3, &guest("b.example", "next", &["new.example:1"]), NOW).unwrap();
    let b = database.peers().unwrap().remove(0);
    assert_eq!((b.verify, b.addresses.len()), (both, 1));
}

#[test]
fn a_peer_that_was_removed_does_not_come_back_with_an_old_invitation() {
    let (_directory, _, mut database) = open(&[]);
    invite(&mut database, 1, NOW + 10);
    let b = guest("b.example", "b", &[]);
    accept(&mut database, 1, &b, NOW).unwrap();
    database.remove_peer(&b.name).unwrap();
    assert!(matches!(accept(&mut database, 1, &b, NOW), Err(StoreError::NoInvitation)));
}

#[test]
fn invitations_are_bounded_and_forgotten() {
    let (_directory, _, mut database) = open(&[]);
    let left = |database: &Database| number(database.rows(), "SELECT count(*) FROM invitations").unsigned_abs();
    database
        .transact(|rows| {
            for i in 0..MOST + 5 {
                let mut secret = [0; 32];
                secret[..8].copy_from_slice(&i.to_le_bytes());
                Invitations(rows).put(&secret, NOW + i as i64, NOW)?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(left(&database), MOST);
    assert_eq!(number(database.rows(), "SELECT min(until) FROM invitations"), NOW + 5, "those that end first went");
    database.transact(|rows| Invitations(rows).put(&[1; 32], i64::MAX, NOW + 100)).unwrap();
    assert_eq!(left(&database), MOST + 5 - 100 + 1);
    database.invite(&[2; 32], i64::MAX).unwrap();
    assert_eq!(left(&database), 2, "by the clock, the others are too old");
}

#[test]
fn a_guest_does_not_fill_the_database_with_addresses() {
    let (_directory, _, mut database) = open(&[]);
    invite(&mut database, 1, NOW + 10);
    let long = format!("{}:1", "b".repeat(HOST_BYTES_MAX + 1));
    let many: Vec<String> = (1..99).map(|port| format!("b.example:{port}")).collect();
    let addresses: Vec<&str> = std::iter::once(&long).chain(&many).map(String::as_str).collect();
    accept(&mut database, 1, &guest("b.example", "b", &addresses), NOW).unwrap();
    let kept: Vec<String> = database.peers().unwrap()[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(kept, many[..ADDRESSES_MAX]);
}
