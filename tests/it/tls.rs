//! Clients that come with TLS are served as those that come without, and nobody is who cannot prove it.

use crate::wire::Wire;
use crate::world::{BESTER, Home, PATIENCE, Server, frame, login, login_with, sample};
use bester::tls::{Pin, Trust, client_config};
use bester::transport::TlsSocket;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TLS: &str = r#""tls": { "address": "127.0.0.1", "port": 0 }, "unix": {"#;

fn home_with(tls: &str, handlers: &str, more: &str, users: &[&str]) -> Home {
    let home = Home::new(handlers, more, users);
    let config = fs::read_to_string(home.path().join("bester.conf")).expect("a configuration");
    home.write("bester.conf", &config.replacen(r#""unix": {"#, tls, 1));
    home
}

fn home(handlers: &str, more: &str, users: &[&str]) -> Home {
    home_with(TLS, handlers, more, users)
}

fn address(server: &Server) -> SocketAddr {
    let log = server.log();
    let (_, rest) = log.split_once("listening on tls://").expect("it listens with TLS");
    rest.lines().next().and_then(|line| line.parse().ok()).expect("an address")
}

fn pin(server: &Server) -> Pin {
    let log = server.log();
    let (_, rest) = log.rsplit_once("has the pin ").expect("its pin");
    rest.get(..64).and_then(|pin| pin.parse().ok()).expect("a pin")
}

/// A client that speaks raw frames over TLS.
struct Secure(Wire);

impl Secure {
    fn connect(server: &Server) -> Secure {
        let config = client_config(&Trust::Pins(vec![pin(server)]), None).expect("good");
        let stream = TcpStream::connect(address(server)).expect("a connection");
        let deadline = Instant::now() + PATIENCE;
        let tls = TlsSocket::connect(stream, &config, "a.example", deadline).expect("the right key");
        Secure(Wire::on(tls.into()))
    }

    fn log_in(server: &Server, user: &str) -> Secure {
        let mut client = Secure::connect(server);
        client.sends(&login(user, "password"));
        let report = client.gets().expect("a report");
        assert!(report.contains(r#""status":"good""#), "{report}");
        client
    }

    fn sends(&self, text: &str) {
        self.0.sends(text);
    }

    /// The next frame; `None` at the end.
    fn gets(&mut self) -> Option<String> {
        self.0.receives().expect("an orderly end")
    }
}

#[test]
fn what_is_sent_comes_back_byte_for_byte_over_tls() {
    let server = home(&sample("echo"), "", &["alice"]).serve();
    assert_eq!(fs::metadata(server.home.path().join("state/server.key")).expect("a key").permissions().mode() & 0o777, 0o600);
    let mut alice = Secure::log_in(&server, "alice");
    for data in [r#"{ "b":1.0, "a":[1e400, "\u00e4ä"],"a":0 }"#.to_owned(), format!("\"{}\"", "x".repeat(900_000))] {
        alice.sends(&format!(r#"{{"payload":{{"type":"echo","data":{data},"id":"i"}}}}"#));
        let (delivery, report) = (alice.gets().expect("an echo"), alice.gets().expect("a report"));
        assert!(delivery.contains(&format!(r#""data":{data}"#)), "{} bytes", delivery.len());
        assert!(report.contains(r#""delivered":1"#), "{report}");
    }
    // It says that it sends nothing more, and gets what it is owed, then the end.
    alice.sends(r#"{"payload":{"type":"echo","data":1,"id":"last"}}"#);
    alice.0.socket().shutdown(std::net::Shutdown::Write);
    assert!(alice.gets().is_some() && alice.gets().expect("a report").contains("last"));
    assert_eq!(alice.gets(), None);
    server.stop();
}

#[test]
fn commands_go_by_the_pin_and_by_nothing_less() {
    let server = home(&sample("echo"), "", &["alice"]).serve();
    let (to, pin) = (format!("tls://{}", address(&server)), pin(&server).to_string());
    let send = |more: &[&str]| {
        let args = [&["send", "-s", &to, "-u", "alice", "-t", "echo"], more, &[r#"{"x":1.0}"#]].concat();
        server.home.bester_with_input(&args, "password\n")
    };
    assert_eq!(send(&["--pin", &pin]).good().stdout, "{\"x\":1.0}\n");
    let wrong = send(&["--pin", &"0".repeat(64)]);
    assert!(wrong.code == Some(77) && wrong.stderr.contains(&pin), "the pin that was seen is told: {wrong:?}");
    let nobody = send(&[]);
    assert_eq!(nobody.code, Some(77), "no authority has signed it: {nobody:?}");
    assert!(!nobody.stderr.contains("password"));
    assert_eq!(server.home.bester_with_input(&["send", "--pin", &pin, "-u", "alice", "-t", "echo"], "password\n").code, Some(64));
    let plain = format!("tls://{}", server.tcp4.expect("an address"));
    let plain = server.home.bester_with_input(&["listen", "-s", &plain, "--pin", &pin, "-u", "alice"], "password\n");
    assert!(plain.code == Some(69) && plain.stderr.contains("TLS handshake"), "{plain:?}");
    server.stop();
}

#[test]
fn who_speaks_the_wrong_way_is_told_apart_in_the_log_and_closed() {
    let server = home("", r#""limits": { "tlsSeconds": 1 },"#, &["alice"]).serve();
    // Plain frames where TLS is spoken: no report, which would be as strange there as they are.
    let mut plain = TcpStream::connect(address(&server)).expect("a connection");
    plain.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    plain.write_all(&frame(login("alice", "password").as_bytes())).expect("room");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said); // it may be reset
    assert!(!String::from_utf8_lossy(&said).contains("header"), "{said:?}");
    server.wait_for("speaks no TLS on the port of network.tls");
    // TLS where plain frames are spoken.
    let mut lost = TcpStream::connect(server.tcp4.expect("an address")).expect("a connection");
    lost.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    lost.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("room");
    let mut said = Vec::new();
    let _ = lost.read_to_end(&mut said);
    assert_eq!(said, b"");
    server.wait_for("it speaks TLS on a port without it");
    // Nothing at all.
    let began = Instant::now();
    let mut mute = TcpStream::connect(address(&server)).expect("a connection");
    mute.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    mute.write_all(&[0x16, 3, 1, 2, 0]).expect("room");
    assert_eq!(mute.read(&mut [0; 10]).expect("the end"), 0);
    assert!(began.elapsed() >= Duration::from_millis(900));
    server.wait_for("no TLS handshake within 1 s (limits.tlsSeconds)");
    // All others are served as before.
    Secure::log_in(&server, "alice").sends("{}");
    server.log_in("alice");
    server.stop();
}

#[test]
fn a_client_that_knows_nothing_but_the_certificate_and_tls_1_2_is_served() {
    let server = home(&sample("echo"), "", &["alice"]).serve();
    let pem = fs::read(server.home.path().join("state/server.crt")).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a certificate");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).expect("a version");
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    for name in ["a.example", "localhost", "127.0.0.1"] {
        let name = ServerName::try_from(name).expect("a name").to_owned();
        let connection = rustls::ClientConnection::new(Arc::clone(&config), name).expect("good");
        let stream = TcpStream::connect(address(&server)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut stream = rustls::StreamOwned::new(connection, stream);
        stream.write_all(&frame(login("alice", "password").as_bytes())).expect("room");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a report");
        let mut report = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut report).expect("a report");
        assert!(String::from_utf8(report).expect("UTF-8").contains("good"));
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let mut end = Vec::new();
        stream.read_to_end(&mut end).expect("the server says that this is the end");
        assert!(end.is_empty());
    }
    server.stop();
}

#[test]
fn a_certificate_is_replaced_while_sessions_stay() {
    let server = home(&sample("echo"), "", &["alice", "bob"]).serve();
    let mut alice = Secure::log_in(&server, "alice");
    let before = pin(&server);
    let other = tempfile::tempdir().expect("a directory");
    let new = bester::tls::Identity::own(other.path(), &bester::name::ServerName::new("b").expect("a name")).expect("made").pin();
    let state = server.home.path().join("state");
    let put = |name: &str| {
        fs::copy(other.path().join(name), state.join("new")).expect("copied");
        fs::rename(state.join("new"), state.join(name)).expect("renamed");
    };
    // A half of it is of no use, is told, and changes nothing.
    put("server.crt");
    let refused = server.home.bester(&["reload"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("is not the key of the certificate"), "{refused:?}");
    let config = client_config(&Trust::Pins(vec![before]), None).expect("good");
    let connect = |config: &Arc<rustls::ClientConfig>| {
        let stream = TcpStream::connect(address(&server)).expect("a connection");
        TlsSocket::connect(stream, config, "a.example", Instant::now() + PATIENCE)
    };
    connect(&config).expect("still the old one");
    put("server.key");
    // By itself, after a second or two, or by an order: who is first does not matter.
    server.home.bester(&["reload"]).good();
    server.wait_for("certificate and key are read again");
    assert!(matches!(connect(&config), Err(bester::tls::TlsError::WrongPin(seen)) if seen == new));
    connect(&client_config(&Trust::Pins(vec![new]), None).expect("good")).expect("the new one");
    alice.sends(r#"{"payload":{"type":"echo","data":1}}"#);
    assert!(alice.gets().expect("an echo").contains(r#""data":1"#));
    // And by itself.
    fs::write(state.join("server.key"), "nothing").expect("written");
    server.wait_for("certificate and key stay as they are, until the files change again");
    connect(&client_config(&Trust::Pins(vec![new]), None).expect("good")).expect("the last good one");
    server.stop();
}

#[test]
fn an_exposed_key_keeps_the_server_from_starting() {
    let home = home("", "", &[]);
    let state = home.path().join("state");
    bester::tls::Identity::own(&state, &bester::name::ServerName::new("a").expect("a name")).expect("made");
    home.bester(&["check"]).good();
    fs::set_permissions(state.join("server.key"), fs::Permissions::from_mode(0o644)).expect("permissions");
    for command in ["check", "serve"] {
        let refused = home.bester(&[command]);
        assert!(refused.code == Some(77) && refused.stderr.contains("chmod 0600"), "{refused:?}");
    }
}

#[test]
fn what_init_writes_is_served_with_tls_under_the_pin_that_it_tells() {
    let home = Home::empty();
    let made = home.bester_with_input(&["init", "srv", "-u", "alice"], "correct horse\n").good();
    let (_, rest) = made.stderr.split_once("--pin ").expect("a pin");
    let pin: Pin = rest.get(..64).and_then(|pin| pin.parse().ok()).expect("a pin");
    let text = fs::read_to_string(home.path().join("srv/bester.conf")).expect("a configuration");
    assert!(text.contains(r#""tls": { "address": "127.0.0.1", "port": 2224 }"#), "{text}");
    let checked = home.bester(&["check", "-c", "srv/bester.conf"]).good();
    assert!(checked.stdout.contains(&pin.to_string()), "{checked:?}");
}

/// The mean time until a push is there, of many.
fn pushes(mut gets: impl FnMut(), mut sends: impl FnMut()) -> Duration {
    const ROUNDS: u32 = 300;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        sends();
        gets();
    }
    began.elapsed() / ROUNDS
}

#[test]
fn a_delivery_to_an_idle_client_waits_for_nothing() {
    let handler = format!(r#""bench": {{ "handlerBinary": "{BESTER}", "arguments": ["bench-handler"] }},"#);
    let server = home(&handler, "", &["alice", "bob", "carol"]).serve();
    let (mut bob, mut carol) = (Secure::log_in(&server, "bob"), server.log_in("carol"));
    let alice = std::cell::RefCell::new(server.log_in("alice"));
    let to = |user: &str| {
        let message = format!(r#"{{"payload":{{"type":"bench","data":{{"to":["{user}"],"data":"x"}}}}}}"#);
        alice.borrow_mut().sends(&message);
    };
    to("carol");
    assert!(carol.gets().contains("bench"));
    let plain = pushes(|| _ = carol.gets(), || to("carol"));
    let tls = pushes(|| _ = bob.gets().expect("a delivery"), || to("bob"));
    // A lock that is held while something waits would cost until the next byte comes from bob: for ever.
    assert!(tls < 5 * plain + Duration::from_millis(5), "{tls:?} against {plain:?}");
    server.stop();
}

#[test]
fn a_slow_reader_over_tls_is_closed_and_what_is_kept_comes_again() {
    let limits = r#""limits": { "outgoingBytes": 300000, "outgoingFrames": 16, "unacknowledgedMessages": 65536, "unacknowledgedBytes": 100000000 },"#;
    let handler = format!(
        r#""drop": {{ "handlerBinary": "{BESTER}", "arguments": ["bench-handler"] }},
           "queue": {{ "handlerBinary": "{BESTER}", "arguments": ["bench-handler"], "offline": "queue" }},"#
    );
    let server = home(&handler, limits, &["alice", "bob", "carol"]).serve();
    let mut alice = server.log_in("alice");
    let text = "x".repeat(200_000);
    let mut floods = |kind: &str, user: &str, count: usize| {
        for _ in 0..count {
            alice.sends_message(kind, &format!(r#"{{"to":["{user}"],"data":"{text}"}}"#), "i");
            alice.gets();
        }
    };
    let bob = Secure::log_in(&server, "bob");
    floods("drop", "bob", 80);
    server.wait_for("it read too slowly");
    drop(bob);
    let mut carol = Secure::connect(&server);
    carol.sends(&login_with("carol", r#"{"ack":true}"#));
    assert!(carol.gets().expect("a report").contains("good"));
    const LETTERS: usize = 40;
    floods("queue", "carol", LETTERS);
    // She reads at last: everything is there, once, in order, and whole.
    for seq in 1..=LETTERS {
        let letter = carol.gets().expect("a letter");
        assert!(letter.contains(&format!(r#""seq":{seq},"#)) && letter.contains(&text), "{seq}");
        carol.sends(&format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"ack","args":{{"seq":{seq}}}}}}}}}}}"#));
    }
    server.stop();
}

#[test]
fn bench_accounts_for_every_message_over_tls() {
    let handler =
        format!(r#""bench": {{ "handlerBinary": "{BESTER}", "arguments": ["bench-handler"], "inFlight": 1024, "queue": 100000 }},"#);
    let limits = r#""limits": { "outgoingFrames": 100000, "outgoingBytes": 100000000 },"#;
    let server = home(&handler, limits, &["bench0", "bench1", "bench2"]).serve();
    let (to, pin) = (format!("tls://{}", address(&server)), pin(&server).to_string());
    for options in
        ["--clients 3 --in-flight 16 --threads 2", "--clients 3 --fan-out 3 --size 70000 --in-flight 4", "--clients 2 --rate 200 --no-id"]
    {
        let mut args = vec!["bench", "-s", &to, "--pin", &pin, "--warm", "0", "--duration", "0.3"];
        args.extend(options.split_whitespace());
        let told = server.home.bester_with_input(&args, "password\n").good();
        assert!(told.stdout.contains("every message is accounted for"), "{told:?}");
    }
    server.stop();
}

#[test]
fn who_finds_no_place_hears_it_at_once() {
    let server = home("", r#""limits": { "connections": 1 },"#, &["alice"]).serve();
    let _alice = Secure::log_in(&server, "alice");
    let config = client_config(&Trust::Pins(vec![pin(&server)]), None).expect("good");
    let stream = TcpStream::connect(address(&server)).expect("a connection");
    let refused = TlsSocket::connect(stream, &config, "a.example", Instant::now() + PATIENCE);
    assert!(matches!(refused, Err(bester::tls::TlsError::Refused(_))), "{refused:?}");
    server.wait_for("a connection is refused: this server has as many connections as it may");
    server.stop();
}
