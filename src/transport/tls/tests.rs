use super::*;
use crate::name::ServerName as Name;
use crate::tls::{Identity, Trust, client_config, server_config};
use crate::transport::{Sink, Socket, SocketReader};
use rustix::net::sockopt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::TcpListener;
use std::path::Path;
use std::thread::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
const STACK_BYTES: usize = 1 << 20;

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn identity(home: &Path) -> Identity {
    Identity::own(home, &Name::new("a.example").expect("a name")).expect("made")
}

fn new_identity() -> Identity {
    identity(tempfile::tempdir().expect("a directory").path())
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
    (ours, listener.accept().expect("a connection").0)
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    crate::thread::spawn("other side", STACK_BYTES, body).expect("a thread")
}

type Outcome = Result<TlsSocket, TlsError>;

/// What client and server say of a handshake.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (Outcome, Outcome) {
    let (ours, theirs) = tcp();
    let server = Arc::clone(server);
    let accepting = spawn(move || TlsSocket::accept(theirs, &server, soon()));
    let connected = TlsSocket::connect(ours, client, "a.example", soon());
    (connected, accepting.join().expect("no panic"))
}

/// Both ends of a connection, after the stream of each was changed.
fn pair_of(change: impl Fn(&TcpStream)) -> (Arc<Socket>, Arc<Socket>) {
    let identity = new_identity();
    let client = client_config(&Trust::Pins(vec![identity.pin()]), None).expect("good");
    let (connected, accepted) = shake(&client, &server_config(&identity).expect("good"));
    let both = [connected, accepted].map(|socket| {
        let socket = socket.expect("a handshake");
        change(socket.stream());
        Arc::new(Socket::from(socket))
    });
    let [client, server] = both;
    (client, server)
}

fn pair() -> (Arc<Socket>, Arc<Socket>) {
    pair_of(|_| {})
}

/// Buffers that are soon full.
fn small(stream: &TcpStream) {
    sockopt::set_socket_send_buffer_size(stream, 1).expect("a size");
    // Less, and the kernel would wait for its timers.
    sockopt::set_socket_recv_buffer_size(stream, 32 << 10).expect("a size");
}

/// Bytes of which each shows when it stands in the wrong place.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| ((n >> 16) ^ (n >> 8) ^ n ^ (n / 251)) as u8).collect()
}

fn reader(socket: &Arc<Socket>) -> SocketReader {
    let mut reader = SocketReader::new(Arc::clone(socket));
    reader.set_timeout(Some(PATIENCE)).expect("a socket");
    reader
}

/// Reads until there are so many bytes, or the end.
fn read_all(reader: &mut SocketReader, count: usize) -> Vec<u8> {
    let (mut all, deadline) = (Vec::new(), soon());
    while all.len() < count {
        let mut buffer = Vec::with_capacity(5000);
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => all.extend_from_slice(&buffer),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    }
    all
}

#[test]
fn what_is_written_comes_byte_for_byte_with_each_version() {
    let identity = new_identity();
    let server = server_config(&identity).expect("good");
    let client = client_config(&Trust::Pins(vec![identity.pin()]), None).expect("good");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(identity.chain()[0].clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).expect("a version");
        let old = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let (connected, accepted) = shake(&old, &server);
        let (connected, accepted) = (connected.expect("the name is in the certificate"), accepted.expect("a client"));
        assert_eq!(connected.lock().connection.protocol_version(), Some(version.version));
        assert_eq!((connected.peer_pin(), accepted.peer_pin()), (Some(identity.pin()), None));
        let (sent, accepted) = (bytes(300_000), Arc::new(Socket::from(accepted)));
        let expected = sent.clone();
        let reading = spawn(move || read_all(&mut reader(&accepted), 300_000) == expected);
        connected.write_all(&sent).expect("a reader");
        assert!(reading.join().expect("no panic"));
    }
    assert!(shake(&client, &server).0.is_ok());
}

#[test]
fn another_key_is_refused_and_told() {
    let (right, wrong) = (new_identity(), new_identity());
    let client = client_config(&Trust::Pins(vec![right.pin()]), None).expect("good");
    let (connected, accepted) = shake(&client, &server_config(&wrong).expect("good"));
    match connected {
        Err(TlsError::WrongPin(seen)) => assert_eq!(seen, wrong.pin()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(accepted, Err(TlsError::Refused(_) | TlsError::Closed)), "{accepted:?}");
    // One of several is enough.
    let client = client_config(&Trust::Pins(vec![right.pin(), wrong.pin()]), None).expect("good");
    assert!(shake(&client, &server_config(&wrong).expect("good")).0.is_ok());
}

#[test]
fn a_client_without_a_pin_trusts_authorities_alone() {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(new_identity().chain()[0].clone()).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let client = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let (connected, _) = shake(&client, &server_config(&new_identity()).expect("good"));
    let error = connected.expect_err("another's");
    assert!(matches!(error, TlsError::Certificate(_)), "{error:?}");
}

/// Shows somebody else's certificate, with a key of its own.
#[derive(Debug)]
struct Copied(Arc<rustls::sign::CertifiedKey>);

impl Copied {
    fn new(of: &Identity) -> Arc<Copied> {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a good key");
        Arc::new(Copied(Arc::new(rustls::sign::CertifiedKey::new(of.chain(), key))))
    }
}

impl rustls::server::ResolvesServerCert for Copied {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl rustls::client::ResolvesClientCert for Copied {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn a_copied_certificate_proves_nothing() {
    let (home, provider) = (tempfile::tempdir().expect("a directory"), Arc::new(rustls::crypto::ring::default_provider()));
    let owner = identity(home.path());
    let good_client = client_config(&Trust::Pins(vec![owner.pin()]), None).expect("good");
    let good_server = server_config(&owner).expect("good");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]).expect("a version");
        let server = Arc::new(builder.with_no_client_auth().with_cert_resolver(Copied::new(&owner)));
        let error = shake(&good_client, &server).0.expect_err("no proof");
        assert!(matches!(error, TlsError::Certificate(rustls::CertificateError::BadSignature)), "{version:?}: {error:?}");

        let mut roots = rustls::RootCertStore::empty();
        roots.add(owner.chain()[0].clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]).expect("a version");
        let client = Arc::new(builder.with_root_certificates(roots).with_client_cert_resolver(Copied::new(&owner)));
        let error = shake(&client, &good_server).1.expect_err("no proof");
        assert!(matches!(error, TlsError::Certificate(rustls::CertificateError::BadSignature)), "{version:?}: {error:?}");
    }
}

#[test]
fn a_server_knows_the_proven_key_of_who_has_one() {
    let (server, client) = (new_identity(), new_identity());
    let config = client_config(&Trust::Pins(vec![server.pin()]), Some(&client)).expect("good");
    let accepted = shake(&config, &server_config(&server).expect("good")).1.expect("a client");
    assert_eq!(accepted.peer_pin(), Some(client.pin()));
    assert_eq!(Socket::from(accepted).peer_pin(), Some(client.pin()));
    assert_eq!(Socket::Tcp(tcp().0).peer_pin(), None);
}

#[test]
fn sessions_are_never_taken_up_again() {
    let identity = new_identity();
    let (client, server) =
        (client_config(&Trust::Pins(vec![identity.pin()]), None).expect("good"), server_config(&identity).expect("good"));
    for _ in 0..2 {
        let (connected, accepted) = shake(&client, &server);
        let (connected, _accepted) = (connected.expect("a server"), accepted.expect("a client"));
        let kind = connected.lock().connection.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn what_is_no_tls_and_what_does_not_come_is_told() {
    let server = server_config(&new_identity()).expect("good");
    for plain in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x40\0\0\0{\"header\":{}}", b"{\"header\":{}}"] {
        let (mut ours, theirs) = tcp();
        ours.write_all(plain).expect("room");
        assert!(matches!(TlsSocket::accept(theirs, &server, soon()), Err(TlsError::NotTls)), "{plain:?}");
        let (mut theirs, ours) = tcp();
        theirs.write_all(plain).expect("room");
        let client = client_config(&Trust::Pins(Vec::new()), None).expect("good");
        assert!(matches!(TlsSocket::connect(ours, &client, "a.example", soon()), Err(TlsError::NotTls)), "{plain:?}");
    }
    let (mut ours, theirs) = tcp();
    // The beginning of a handshake, and nothing more.
    ours.write_all(b"\x16\x03\x01\x02\0\x01").expect("room");
    let (began, within) = (Instant::now(), Duration::from_millis(50));
    assert!(matches!(TlsSocket::accept(theirs, &server, began + within), Err(TlsError::TimedOut)));
    assert!(began.elapsed() >= within && began.elapsed() < PATIENCE);
    let (ours, theirs) = tcp();
    drop(ours);
    assert!(matches!(TlsSocket::accept(theirs, &server, soon()), Err(TlsError::Closed)));
    let client = client_config(&Trust::Pins(Vec::new()), None).expect("good");
    assert!(matches!(TlsSocket::connect(tcp().0, &client, "a b", soon()), Err(TlsError::Name(_))));
}

/// Writes with a bounded number of bytes at once, as an outlet does: until nothing more is taken, and then when the socket can
/// be written to again.
fn write_like_an_outlet(sink: &Sink, all: &[u8], at_once: usize) -> usize {
    let (mut written, mut blocked) = (0, 0);
    while written < all.len() {
        let parts: Vec<IoSlice<'_>> = all[written..].chunks(7000).take(at_once).map(IoSlice::new).collect();
        match sink.try_write(&parts) {
            Ok(bytes) => {
                assert!(bytes > 0, "nothing taken is not told so");
                written += bytes;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                blocked += 1;
                let timeout = PATIENCE.try_into().expect("short");
                let ready = sink.with_fd(|fd| poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&timeout)));
                assert_eq!(ready, Some(Ok(1)), "it takes more again");
            }
        }
    }
    blocked
}

#[test]
fn every_byte_arrives_in_order_through_a_small_buffer_and_nothing_is_left_behind() {
    for at_once in [1, 3, 50] {
        let (client, server) = pair_of(small);
        let sent = bytes(1 << 20);
        let (expected, count) = (sent.clone(), sent.len());
        let writing = spawn(move || {
            let sink = Sink::Socket(Arc::clone(&server));
            // Until nothing more is taken: nobody reads.
            let mut told = 0;
            while let Ok(bytes) = sink.try_write(&[IoSlice::new(&sent[told..])]) {
                told += bytes;
            }
            let Socket::Tls(tls) = &*server else { panic!("it is") };
            let owed_before = tls.lock().owes;
            let blocked = write_like_an_outlet(&sink, &sent[told..], at_once);
            // All is told as written, so all is on its way: nobody will come to write again.
            let state = tls.lock();
            (owed_before, blocked, state.owes || state.connection.wants_write())
        });
        assert!(read_all(&mut reader(&client), count) == expected, "{at_once}");
        let (owed_before, blocked, left_behind) = writing.join().expect("no panic");
        assert!(owed_before && blocked > 0, "the buffers are too large for this test");
        assert!(!left_behind, "{at_once}");
    }
}

#[test]
fn a_push_does_not_wait_for_a_reader_that_is_idle() {
    let (client, server) = pair();
    let mut idle = reader(&server);
    let waiting = spawn(move || idle.read(&mut Vec::with_capacity(100)));
    let mut answers = reader(&client);
    for _ in 0..1000 {
        let began = Instant::now();
        let sink = Sink::Socket(Arc::clone(&server));
        assert_eq!(sink.try_write(&[IoSlice::new(b"push")]).expect("room"), 4);
        assert_eq!(read_all(&mut answers, 4), b"push");
        assert!(began.elapsed() < PATIENCE / 2);
    }
    server.shutdown(Shutdown::Both);
    assert_eq!(waiting.join().expect("no panic").expect("the end"), 0);
}

#[test]
fn a_timeout_ends_a_read_and_so_does_half_a_record() {
    let (client, server) = pair();
    let mut reader = SocketReader::new(Arc::clone(&server));
    let timeout = Duration::from_millis(20);
    reader.set_timeout(Some(timeout)).expect("a socket");
    let began = Instant::now();
    let mut buffer = Vec::with_capacity(100);
    assert_eq!(reader.read(&mut buffer).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    assert!(began.elapsed() >= timeout);
    reader.set_timeout(None).expect("a socket");
    let Socket::Tls(tls) = &*client else { panic!("it is") };
    tls.stream().write_all_raw(b"\x17\x03\x03\x00\x20abc");
    assert_eq!(reader.read(&mut buffer).expect_err("half of it").kind(), ErrorKind::WouldBlock);
    assert_eq!(server.try_read(&mut buffer).expect_err("nothing").kind(), ErrorKind::WouldBlock);
    // What is no record of this connection ends it.
    tls.stream().write_all_raw(&[0; 100]);
    assert_eq!(reader.read(&mut buffer).expect_err("forged").kind(), ErrorKind::InvalidData);
    assert_eq!(server.try_read(&mut buffer).expect("the end"), 0);
    assert!(buffer.is_empty());
}

trait Raw {
    fn write_all_raw(&self, bytes: &[u8]);
}

impl Raw for TcpStream {
    fn write_all_raw(&self, bytes: &[u8]) {
        let mut stream = self;
        stream.write_all(bytes).expect("room");
    }
}

#[test]
fn an_end_is_an_end_with_or_without_a_word() {
    for polite in [true, false] {
        let (client, server) = pair();
        let Socket::Tls(tls) = &*client else { panic!("it is") };
        tls.write_all(b"last").expect("room");
        if polite {
            client.shutdown(Shutdown::Write);
        } else {
            tls.stream().shutdown(Shutdown::Write).expect("open");
        }
        let mut ends = reader(&server);
        assert_eq!(read_all(&mut ends, 100), b"last");
        assert_eq!(ends.read(&mut Vec::with_capacity(10)).expect("the end"), 0);
        assert_eq!(server.try_read(&mut Vec::with_capacity(10)).expect("the end"), 0);
        // The other direction goes on.
        assert_eq!(Sink::Socket(Arc::clone(&server)).try_write(&[IoSlice::new(b"more")]).expect("room"), 4);
        assert_eq!(read_all(&mut reader(&client), 4), b"more");
        Sink::Socket(server).end();
        let mut ends = reader(&client);
        assert_eq!(ends.read(&mut Vec::with_capacity(10)).expect("the end"), 0);
        let Socket::Tls(tls) = &*client else { panic!("it is") };
        assert!(tls.lock().ended, "the server said so");
    }
}

#[test]
fn a_try_takes_all_that_is_there_however_little_room_there_is() {
    let (client, server) = pair();
    let sent = bytes(100_000);
    let Socket::Tls(tls) = &*client else { panic!("it is") };
    tls.write_all(&sent).expect("room in the kernel");
    client.shutdown(Shutdown::Write);
    for room in [1, 1000, 70_000] {
        let mut all = Vec::new();
        let deadline = soon();
        while all.len() < 30_000 && Instant::now() < deadline {
            let mut buffer = Vec::with_capacity(room);
            match server.try_read(&mut buffer) {
                Ok(bytes) => {
                    assert_eq!(bytes, buffer.len());
                    assert!(bytes <= buffer.capacity());
                    all.extend_from_slice(&buffer);
                    if bytes == 0 {
                        break;
                    }
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        let before = match room {
            1 => 0,
            1000 => 30_000,
            _ => 60_000,
        };
        assert!(all == sent[before..before + all.len()], "{room}");
        assert!(all.len() >= 30_000, "{room}: {}", all.len());
    }
    assert_eq!(server.try_read(&mut Vec::with_capacity(10)).expect("the end"), 0);
}

#[test]
fn keys_are_changed_while_nobody_writes() {
    let (client, server) = pair();
    let Socket::Tls(tls) = &*client else { panic!("it is") };
    for round in 0..3 {
        tls.lock().connection.refresh_traffic_keys().expect("TLS 1.3");
        tls.write_all(b"ping").expect("room");
        assert_eq!(read_all(&mut reader(&server), 4), b"ping", "{round}");
        assert_eq!(Sink::Socket(Arc::clone(&server)).try_write(&[IoSlice::new(b"pong")]).expect("room"), 4);
        assert_eq!(read_all(&mut reader(&client), 4), b"pong", "{round}");
    }
}

#[test]
fn certificates_of_several_parts_are_shown_whole() {
    let (home, other) = (tempfile::tempdir().expect("a directory"), new_identity());
    let mine = identity(home.path());
    let paths = crate::tls::Paths::own(home.path());
    let mut chain = std::fs::read_to_string(&paths.certificate).expect("PEM");
    let more = rcgen::CertificateParams::new(vec!["more.example".to_owned()]).expect("a name");
    chain.push_str(&more.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").pem());
    assert_eq!(CertificateDer::pem_slice_iter(chain.as_bytes()).count(), 2);
    std::fs::write(&paths.certificate, chain).expect("written");
    let both = Identity::load(&paths).expect("good");
    assert_eq!((both.pin(), both.chain().len()), (mine.pin(), 2));
    assert_ne!(both.pin(), other.pin());
}
