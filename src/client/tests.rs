use super::fake::{LOGGED_IN, Peer, bad, delivery, password, server};
use super::*;
use crate::protocol::client as protocol;
use std::os::unix::net::UnixListener;

const SOON: Duration = Duration::from_secs(20);

fn connect(address: &Address) -> Client {
    Client::connect(address, SOON).expect("a server")
}

fn text(frame: Option<Frame>) -> String {
    String::from_utf8(frame.expect("a frame").bytes().to_vec()).expect("UTF-8")
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

#[test]
fn a_login_and_a_message_look_as_the_protocol_says() {
    let (address, thread) = server(|mut peer| {
        let login = peer.gets().expect("a login");
        let expected = r#"{"header":{"scope":"client","authentication":{"username":"a\"b","password":"p\\ä\n"}},"payload":{"type":"dummy","data":null}}"#;
        assert_eq!(login, expected);
        peer.sends(LOGGED_IN);
        assert_eq!(peer.gets().expect("a message"), r#"{"payload":{"type":"chat","id":"c-1","data":{ "a":1.0,"a":1e999}}}"#);
        assert_eq!(peer.gets().expect("a message"), r#"{"payload":{"type":"x\"","data":null}}"#);
        assert_eq!(peer.gets(), None);
    });
    let mut client = connect(&address);
    client.log_in("a\"b", &Password::new("p\\ä\n".to_owned()).expect("short")).expect("let in");
    client.message("chat", &raw(r#"{ "a":1.0,"a":1e999}"#), Some("c-1")).expect("sent");
    client.message("x\"", &raw("null"), None).expect("sent");
    drop(client);
    thread.join().expect("what was expected");
}

#[test]
fn options_and_acknowledgements_look_as_the_protocol_says() {
    let all = Options { ack: Some(true), after: Some(41), dedupe: Some(false) };
    for (options, text) in [
        (all, r#","options":{"ack":true,"after":41,"dedupe":false}"#),
        (Options { dedupe: Some(true), ..Options::default() }, r#","options":{"dedupe":true}"#),
        (Options { after: Some(0), ..Options::default() }, r#","options":{"after":0}"#),
        (Options::default(), ""),
    ] {
        let frame = Frame::from(&login_frame("alice", &password(), &options)[..]);
        let header = protocol::parse(&frame, true, 1).expect("a login").header.expect("a header");
        assert_eq!(header.options, options);
        let (address, thread) = server(move |mut peer| {
            peer.lets_in_with(text);
            assert_eq!(peer.gets_ack(), Some(u64::MAX));
            assert_eq!(peer.gets_ack(), None);
            peer.sends(&delivery("x", "1"));
        });
        let mut client = connect(&address);
        client.log_in_with("alice", &password(), &options).expect("let in");
        client.ack(u64::MAX).expect("sent");
        client.finish(SOON).expect("closed by the server");
        thread.join().expect("what was expected");
    }
}

#[test]
fn the_end_is_waited_for_only_so_long() {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let (address, thread) = server(move |mut peer| {
        assert_eq!(peer.gets(), None);
        let _ = end.recv(); // until the other side has given up
    });
    assert!(matches!(connect(&address).finish(Duration::from_millis(50)), Err(ClientError::TimedOut)));
    drop(ended);
    thread.join().expect("what was expected");
}

#[test]
fn frames_come_whole_however_they_were_sent() {
    let (address, thread) = server(|mut peer| {
        let both = delivery("x", "1");
        let wire = [&(both.len() as u32).to_le_bytes(), both.as_bytes()].concat();
        for byte in &wire {
            peer.sends_bytes(&[*byte]);
        }
        peer.sends_bytes(&[&wire[..], &wire[..], &wire[..5]].concat());
    });
    let mut client = connect(&address);
    for _ in 0..3 {
        assert_eq!(text(client.recv_frame(None).expect("a frame")), delivery("x", "1"));
    }
    assert!(matches!(client.recv_frame(None), Err(ClientError::Closed)), "the last frame was cut short");
    thread.join().expect("no panic");
}

#[test]
fn a_deadline_that_passes_costs_nothing() {
    let (address, thread) = server(|mut peer| {
        peer.sends_bytes(&[2, 0, 0, 0, b'{']);
        assert_eq!(peer.gets().as_deref(), Some("go on"));
        peer.sends_bytes(b"}");
    });
    let mut client = connect(&address);
    let waited = Instant::now();
    let early = client.recv_frame(Some(waited + Duration::from_millis(50)));
    assert!(matches!(early, Err(ClientError::TimedOut)) && waited.elapsed() >= Duration::from_millis(50));
    client.send_frame(b"go on").expect("sent");
    assert_eq!(text(client.recv_frame(Some(Instant::now() + SOON)).expect("a frame")), "{}");
    assert!(client.recv_frame(None).expect("an orderly end").is_none());
    thread.join().expect("what was expected");
}

#[test]
fn a_refused_login_has_the_servers_report() {
    let refusal = bad("authentication", false, r#"{"message":"user name or password is wrong"}"#, r#","id":"auth_special""#);
    let (address, thread) = server(move |mut peer| {
        peer.gets();
        peer.sends(&refusal);
    });
    match connect(&address).log_in("alice", &password()) {
        Err(LoginError::Refused(report)) => assert_eq!(report.reason.as_deref(), Some("authentication")),
        other => panic!("{other:?}"),
    }
    thread.join().expect("no panic");
}

#[test]
fn only_a_report_on_the_login_lets_in() {
    for first in [delivery("x", "1"), LOGGED_IN.replace("auth_special", "c-1"), "hello".to_owned(), String::new()] {
        let answer = first.clone();
        let (address, thread) = server(move |mut peer| {
            peer.gets();
            if !answer.is_empty() {
                peer.sends(&answer);
            }
        });
        assert!(connect(&address).log_in("alice", &password()).is_err(), "{first}");
        thread.join().expect("no panic");
    }
}

#[test]
fn a_silent_server_is_not_waited_for_longer_than_the_timeout() {
    let (address, thread) = server(|mut peer| while peer.gets().is_some() {});
    let mut client = Client::connect(&address, Duration::from_millis(100)).expect("a server");
    assert!(matches!(client.log_in("alice", &password()), Err(LoginError::Client(ClientError::TimedOut))));
    drop(client);
    thread.join().expect("no panic");
}

#[test]
fn a_frame_beyond_the_cap_is_neither_sent_nor_taken() {
    let (address, thread) = server(|mut peer| {
        peer.sends_bytes(&u32::MAX.to_le_bytes());
        assert_eq!(peer.gets(), None, "nothing was sent");
    });
    let mut client = connect(&address);
    assert!(matches!(client.send_frame(&vec![b' '; FRAME_BYTES_MAX + 1]), Err(ClientError::TooLarge(_))));
    assert!(matches!(client.recv_frame(None), Err(ClientError::TooLarge(_))));
    drop(client);
    thread.join().expect("what was expected");
}

#[test]
fn unix_sockets_are_served_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a free path");
    let body = move || Peer::new(listener.accept().expect("a client").0).lets_in();
    let thread = crate::thread::spawn("fake server", 256 << 10, body).expect("a thread");
    let mut client = connect(&Address::Unix(path));
    client.log_in("alice", &password()).expect("let in");
    thread.join().expect("what was expected");
}

#[test]
fn where_nobody_listens_is_told_with_the_address() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = Address::Unix(directory.path().join("nobody"));
    let error = Client::connect(&address, SOON).expect_err("nobody listens");
    assert!(error.to_string().starts_with(&format!("cannot connect to {address}: ")), "{error}");
}
