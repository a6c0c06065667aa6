use super::*;
use crate::federation::fake::{Place as There, Visit, identity};
use crate::federation::invitation::Secret;
use crate::frame::Slice;
use crate::store::mail::{Destination, Keep, Outgoing, Place, Ticket, Told, Write as Order};
use crate::store::{Peer, Settings, Store, Verify};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const PIN: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The configuration of a.example, in a directory of its own.
fn home() -> (TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), r#""federation": { "address": "a.example:2224" }"#);
    (directory, config)
}

fn config(directory: &Path, rest: &str) -> Config {
    let file = directory.join("bester.conf");
    let network = r#""network": { "tcp4": { "port": 0 }, "tls": { "port": 2224 } }"#;
    let handlers = r#""handlers": { "typeMap": { "x": { "handlerBinary": "cat" } } }"#;
    fs::write(&file, format!(r#"{{ "server": {{ "name": "a.example" }}, {network}, {handlers}, {rest} }}"#)).unwrap();
    Config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn peers(config: &Config) -> Vec<Peer> {
    Database::open(&config.database).unwrap().peers().unwrap()
}

fn card_of(pin: &str, address: &str) -> Card {
    format!("bester-peer/1/b.example/{address}/{pin}").parse().unwrap()
}

#[test]
fn arguments_are_an_action_and_what_it_needs() {
    let with = |addresses: &[&str], verify: Option<&str>, replace, json| Given {
        addresses: words(addresses),
        verify: verify.map(str::to_owned),
        replace,
        json,
    };
    let parse = |text: &[&str], given: &Given| Action::parse(&words(text), given);
    let plain = Given::default();
    let card = card_of(PIN, "b.example:2224");
    let b = || ServerName::new("b.example").unwrap();
    let invitation = format!("bester-join/1/b.example/b.example:2224/{PIN}/00112233445566778899aabbccddeeff/1790000000");
    assert_eq!(parse(&["invite"], &plain), Ok(Action::Invite));
    assert_eq!(parse(&["join", &invitation], &plain), Ok(Action::Join(Source::Argument(Box::new(invitation.parse().unwrap())))));
    assert_eq!(parse(&["join", "-"], &plain), Ok(Action::Join(Source::StandardInput)));
    assert_eq!(parse(&["show"], &plain), Ok(Action::Show));
    assert_eq!(parse(&["add", &card.to_string()], &with(&[], None, true, false)), Ok(Action::AddCard(card, true)));
    let addresses = vec!["10.0.0.4:2223".parse().unwrap()];
    let added = Action::AddInsecure { name: b(), addresses, replace: false };
    assert_eq!(parse(&["add", "b.example"], &with(&["10.0.0.4:2223"], Some("none"), false, false)), Ok(added));
    assert_eq!(parse(&["list"], &with(&[], None, false, true)), Ok(Action::List { json: true }));
    assert_eq!(parse(&["remove", "b.example"], &plain), Ok(Action::Remove(b())));
    assert_eq!(parse(&["check", "b.example"], &plain), Ok(Action::Check { name: b(), json: false }));
    for (text, given, code) in [
        (&[][..], plain, 64),
        (&["frobnicate"], Given::default(), 64),
        (&["invite", "x"], Given::default(), 64),
        (&["join"], Given::default(), 64),
        (&["join", "x"], Given::default(), 65),
        (&["join", "bester-peer/1/x"], Given::default(), 65),
        (&["show", "x"], Given::default(), 64),
        (&["add"], Given::default(), 64),
        (&["add", "b.example"], Given::default(), 65),
        (&["add", &invitation], Given::default(), 65),
        (&["add", "b.example"], with(&["a:1"], None, false, false), 64),
        (&["add", "b.example"], with(&[], Some("none"), false, false), 64),
        (&["add", "b.example"], with(&["a:1"], Some("ca"), false, false), 64),
        (&["add", "b.example"], with(&["a"], Some("none"), false, false), 65),
        (&["add", "b example"], with(&["a:1"], Some("none"), false, false), 65),
        (&["list"], with(&[], None, true, false), 64),
        (&["remove", "b.example"], with(&[], None, false, true), 64),
        (&["check"], Given::default(), 64),
    ] {
        let failure = parse(text, &given).unwrap_err();
        assert_eq!(failure.code, code, "{text:?} {given:?}: {failure}");
        assert!(code != 64 || failure.message.contains("bester peer --help"), "{failure}");
        assert!(!failure.message.contains("0011"), "{failure}");
    }
}

#[test]
fn a_card_is_one_line_and_needs_to_say_where_the_server_is() {
    let (directory, configured) = home();
    let card = card(&configured).unwrap();
    assert_eq!(card.to_string().parse(), Ok(card.clone()));
    assert_eq!((card.address.to_string().as_str(), card.pin), ("a.example:2224", identity_pin(&configured)));
    let failure = super::card(&config(directory.path(), r#""federation": { "mode": "off" }"#)).unwrap_err();
    assert!(failure.code == 78 && failure.message.contains("federation.mode is off"), "{failure}");
    let plain = Config { network: crate::config::Network::default(), ..configured };
    let failure = super::card(&plain).unwrap_err();
    assert!(failure.code == 78 && failure.message.contains("no network.tls"), "{failure}");
}

fn identity_pin(config: &Config) -> crate::tls::Pin {
    super::identity(config).unwrap().pin()
}

#[test]
fn a_peer_may_have_two_keys_and_then_one_again() {
    let (_directory, config) = home();
    let (one, two, three) = (PIN.to_owned(), PIN.replace('2', "3"), PIN.replace('2', "4"));
    let pins = |pins: &[&String]| Verify::Pins(pins.iter().map(|pin| pin.parse().unwrap()).collect());
    assert_eq!(add::card(&config, &card_of(&one, "b:1"), false).unwrap(), "b.example is known now");
    assert_eq!(add::card(&config, &card_of(&one, "b:1"), false).unwrap(), "b.example is known as that already");
    assert_eq!(add::card(&config, &card_of(&two, "b:2"), false).unwrap(), "b.example is known by that, too");
    let peer = peers(&config).pop().unwrap();
    assert_eq!(peer.verify, pins(&[&one, &two]));
    assert_eq!(peer.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b:2", "b:1"]);
    let failure = add::card(&config, &card_of(&three, "b:3"), false).unwrap_err();
    assert!(failure.code == 65 && failure.message.contains("--replace"), "{failure}");
    assert_eq!(peers(&config), [peer], "nothing is half done");
    add::card(&config, &card_of(&three, "b:3"), true).unwrap();
    let peer = peers(&config).pop().unwrap();
    assert_eq!((peer.verify, peer.addresses.len()), (pins(&[&three]), 1));
}

#[test]
fn a_peer_that_proves_its_key_is_not_believed_without_it_by_mistake() {
    let (_directory, config) = home();
    let name = ServerName::new("b.example").unwrap();
    let addresses = ["10.0.0.4:2223".parse().unwrap()];
    add::card(&config, &card_of(PIN, "b:1"), false).unwrap();
    let failure = add::insecure(&config, &name, &addresses, false).unwrap_err();
    assert!(failure.code == 65 && failure.message.contains("--replace"), "{failure}");
    assert_ne!(peers(&config)[0].verify, Verify::Nothing);
    add::insecure(&config, &name, &addresses, true).unwrap();
    assert_eq!(peers(&config)[0].verify, Verify::Nothing);
    let ourselves = ServerName::new("a.example").unwrap();
    assert_eq!(add::insecure(&config, &ourselves, &addresses, false).unwrap_err().code, 65);
}

#[test]
fn a_server_that_is_removed_takes_what_waits_for_it_along() {
    let (_directory, config) = home();
    add::card(&config, &card_of(PIN, "b:1"), false).unwrap();
    fill(&config, 2);
    let name = ServerName::new("b.example").unwrap();
    assert_eq!(remove(&config, &name).unwrap(), "b.example is forgotten, and 2 messages for it given up");
    assert!(peers(&config).is_empty());
    assert_eq!(remove(&config, &name).unwrap_err().code, 67);
}

/// Puts messages for the one peer into its outbox, as a server does.
fn fill(config: &Config, messages: u64) {
    let (tell, told) = crossbeam_channel::unbounded();
    let tell = move |all: Vec<Told>| all.into_iter().for_each(|one| tell.send(one).unwrap());
    let (store, threads) = Store::start(Database::open(&config.database).unwrap(), Settings::default(), tell).unwrap();
    let to = Destination::Peer(peers(config)[0].id);
    for number in 0..messages {
        let message_id = format!("a.example/5f-{number}").into();
        let outgoing = Outgoing { to: to.clone(), message_id, kind: "x".into(), data: Slice::from(&b"1"[..]), hops: 1, author: None };
        let keep = Keep { outgoing: vec![Arc::new(outgoing)], ..Keep::default() };
        store.write(vec![Order::Keep(Ticket(number), Arc::new(keep))]).unwrap();
        let kept = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(&kept, Told::Kept(_, Ok(places)) if matches!(places[..], [Place::Queued(_)])), "{kept:?}");
    }
    threads.finish();
}

/// An invitation of the server that is at this place.
fn invitation(place: &There, until: u64) -> Invitation {
    let peer = place.peer();
    let Verify::Pins(pins) = peer.verify else { panic!("it proves nothing") };
    let card = Card { server: peer.name, address: peer.addresses[0].clone(), pin: pins[0] };
    Invitation { card, secret: Secret::random().unwrap(), until }
}

const LATE: u64 = 1 << 40;

/// Takes the word that a server wants to join with this invitation; answers with this.
fn is_asked(visit: &mut Visit, invitation: &Invitation, answer: &str) {
    let message = visit.gets().expect("a command");
    assert_eq!(message.header.server.unwrap().as_str(), "a.example");
    assert_eq!(message.header.secret.unwrap().as_str(), invitation.secret.as_str());
    assert_eq!(message.payload.data.bytes(), br#"{"command":{"type":"join","args":{"addresses":["a.example:2224"]}}}"#);
    visit.says(answer);
}

const GOOD: &str = r#"{"header":{"status":"good"},"payload":{"id":"join","data":null}}"#;
const NO: &str = r#"{"header":{"status":"bad","reason":"forbidden"},"payload":{"id":"join","data":{"message":"used"}}}"#;

#[test]
fn an_invitation_is_taken_up_and_that_can_be_done_again() {
    let (_directory, config) = home();
    let place = There::new(Some(identity()));
    let invitation = invitation(&place, LATE);
    let theirs = invitation.clone();
    let server = place.then(move |place| {
        let mut visit = place.accept().expect("a handshake");
        // The answer is lost.
        visit.gets().expect("a command");
        visit.leaves();
        // It is asked first whether it knows us, and does not.
        let mut visit = place.accept().expect("a handshake");
        visit.gets().expect("a greeting");
        visit.leaves();
        is_asked(&mut place.accept().expect("a handshake"), &theirs, GOOD);
        // Now it does.
        place.welcome();
    });
    let failure = join::join(&config, &invitation).unwrap_err();
    assert!(failure.code == 75 && failure.message.contains("do the same again"), "{failure}");
    assert_eq!(peers(&config).len(), 1, "it may have taken us for a peer");
    assert_eq!(join::join(&config, &invitation).unwrap(), "b.example and this server know each other now");
    let peer = peers(&config).pop().unwrap();
    assert_eq!((peer.name, peer.verify), (invitation.card.server.clone(), Verify::Pins(vec![invitation.card.pin])));
    assert_eq!(join::join(&config, &invitation).unwrap(), "b.example and this server know each other already");
    server.join().expect("no panic");
}

#[test]
fn whoever_is_refused_forgets_the_server_again_unless_it_was_known() {
    let (_directory, config) = home();
    let place = There::new(Some(identity()));
    let invitation = invitation(&place, LATE);
    let theirs = invitation.clone();
    let server = place.then(move |place| {
        is_asked(&mut place.accept().expect("a handshake"), &theirs, NO);
        let mut visit = place.accept().expect("a handshake");
        visit.gets().expect("a greeting");
        visit.leaves();
        is_asked(&mut place.accept().expect("a handshake"), &theirs, NO);
    });
    let failure = join::join(&config, &invitation).unwrap_err();
    assert!(failure.code == 65 && failure.message.contains("forbidden (used)"), "{failure}");
    assert!(peers(&config).is_empty());
    add::card(&config, &invitation.card, false).unwrap();
    let known = peers(&config);
    assert_eq!(join::join(&config, &invitation).unwrap_err().code, 65);
    assert_eq!(peers(&config), known);
    server.join().expect("no panic");
}

#[test]
fn an_invitation_that_cannot_be_good_is_not_shown_to_anybody() {
    let (_directory, config) = home();
    let place = There::new(Some(identity()));
    let late = join::join(&config, &invitation(&place, 1)).unwrap_err();
    assert!(late.code == 65 && late.message.contains("ask for another"), "{late}");
    let mut own = invitation(&place, LATE);
    own.card.server = ServerName::new("a.example").unwrap();
    let same_name = join::join(&config, &own).unwrap_err();
    assert!(same_name.code == 65 && same_name.message.contains("give one of them another server.name"), "{same_name}");
    own.card.pin = identity_pin(&config);
    let same_server = join::join(&config, &own).unwrap_err();
    assert!(same_server.code == 65 && same_server.message.contains("of this server itself"), "{same_server}");
    let mut wrong = invitation(&place, LATE);
    wrong.card.pin = PIN.parse().unwrap();
    let server = place.then(|place| assert!(place.accept().is_none_or(|mut visit| visit.gets().is_none()), "the secret was shown"));
    let failure = join::join(&config, &wrong).unwrap_err();
    assert!(failure.code == 69 && failure.message.contains("another key") && failure.message.contains("does it run"), "{failure}");
    assert!(peers(&config).is_empty());
    server.join().expect("no panic");
}

#[test]
fn whoever_invites_is_told_when_nobody_could_come() {
    let (_directory, mut config) = home();
    let mut told = |listens: &str, address: &str| {
        config.network.tls.as_mut().unwrap().address = listens.parse().unwrap();
        join::unreachable(&config, &address.parse().unwrap()).is_some()
    };
    assert!(told("127.0.0.1:2224", "a.example:2224") && told("[::1]:2224", "192.0.2.4:2224"));
    assert!(!told("0.0.0.0:2224", "a.example:2224") && !told("192.0.2.4:2224", "a.example:2224"));
    assert!(!told("127.0.0.1:2224", "127.0.0.1:2224") && !told("127.0.0.1:2224", "localhost:2224"));
}

#[test]
fn an_invitation_of_ours_says_who_we_are_and_is_kept_as_a_digest() {
    let (_directory, config) = home();
    let invitation: Invitation = join::invite(&config).unwrap().parse().unwrap();
    assert_eq!(invitation.card, card(&config).unwrap());
    let files = fs::read(&config.database).unwrap();
    let secret = invitation.secret.as_str().as_bytes();
    assert!(!files.windows(secret.len()).any(|window| window == secret));
}

#[test]
fn a_check_says_which_step_fails_and_what_to_do() {
    let (_directory, config) = home();
    let place = There::new(Some(identity()));
    let invitation = invitation(&place, LATE);
    let steps = |peer: &Peer| check::check(peer, &ours(&config).unwrap(), true);
    let peer = place.peer();
    let back = r#"{"steps":[{"step":"resolve","ok":true,"words":"x"},{"step":"connect","ok":false,"words":"no\u001b"}]}"#;
    let server = place.then(move |place| {
        let mut visit = place.welcome();
        visit.gets().expect("a round trip");
        visit.says(r#"{"header":{"status":"good"},"payload":{"id":"check","data":{"server":"b.example"}}}"#);
        let asked = visit.gets().expect("the way back");
        assert_eq!(asked.payload.data.bytes(), br#"{"command":{"type":"dialBack","args":null}}"#);
        visit.says(&format!(r#"{{"header":{{"status":"good"}},"payload":{{"id":"check","data":{back}}}}}"#));
        assert!(visit.gets().is_none());
        place.accept();
    });
    let done = steps(&peer);
    let told: Vec<(&str, bool)> = done.iter().map(|step| (step.step.as_str(), step.ok)).collect();
    let all = ["resolve", "connect", "TLS", "pin", "name", "round trip", "back: resolve"].map(|step| (step, true));
    assert_eq!(told, [&all[..], &[("back: connect", false)]].concat());
    assert_eq!(done[7].words, "no\\u{1b}");
    let mut out = Vec::new();
    show(&done[6..], false, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "back: resolve     OK      x\nback: connect     FAILED  no\\u{1b}\n");
    let other = Peer { verify: Verify::Pins(vec![PIN.parse().unwrap()]), ..peer.clone() };
    let done = steps(&other);
    let last = done.last().unwrap();
    assert!(last.step == "pin" && !last.ok && last.words.contains(&invitation.card.pin.to_string()), "{last:?}");
    server.join().expect("no panic");
    let last = steps(&peer).pop().unwrap();
    assert!(last.step == "connect" && !last.ok && last.words.contains("does the other server run"), "{last:?}");
}
