//! Whoever says to be a server: a connection with a key, or without one, on which every word is the test's own.

use super::Place;
use crate::fault::until;
use crate::wire::{Wire, write_all};
use crate::world::PATIENCE;
use bester::name::ServerName;
use bester::tls::{Identity, Paths, Pin, TlsError, Trust, client_config, server_config};
use bester::transport::{Socket, TlsSocket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

/// A key, and its certificate.
pub(super) struct Key {
    directory: TempDir,
    pub(super) identity: Identity,
}

impl Key {
    pub(super) fn new(name: &str) -> Key {
        let directory = tempfile::tempdir().expect("a directory");
        let identity = Identity::own(directory.path(), &ServerName::new(name).expect("a name")).expect("made");
        Key { directory, identity }
    }

    /// The key of a server itself.
    pub(super) fn of(place: &Place) -> Key {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["server.key", "server.crt"] {
            let from = place.home().path().join("state").join(name);
            fs::copy(from, directory.path().join(name)).expect("copied");
        }
        let identity = Identity::load(&Paths::own(directory.path())).expect("a key");
        Key { directory, identity }
    }

    pub(super) fn pin(&self) -> Pin {
        self.identity.pin()
    }

    /// The card of a server that has it.
    pub(super) fn card(&self, name: &str, address: SocketAddr) -> String {
        format!("bester-peer/1/{name}/{address}/{}", self.pin())
    }

    /// Puts it where a server has its own.
    pub(super) fn replaces_that_of(&self, place: &Place) {
        let state = place.home().path().join("state");
        for name in ["server.key", "server.crt"] {
            fs::copy(self.directory.path().join(name), state.join("new")).expect("copied");
            fs::rename(state.join("new"), state.join(name)).expect("renamed");
        }
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(name)).expect("a file")
    }
}

/// Shows this certificate whoever asks, and signs with a key that is not the one in it.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Thief {
    fn resolve(&self, _client_hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl rustls::client::ResolvesClientCert for Thief {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Thief {
    /// Whoever has copied the certificate of `victim`, and has a key of his own.
    fn of(victim: &Key) -> Arc<Thief> {
        let chain = CertificateDer::pem_slice_iter(&victim.read("server.crt")).collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(&Key::new("thief").read("server.key")).expect("PEM");
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key");
        Arc::new(Thief(Arc::new(CertifiedKey::new(chain, key))))
    }
}

/// How he connects to a server.
pub(super) fn copied_by_client(victim: &Key, server: Pin) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&client_config(&Trust::Pins(vec![server]), None).expect("good"));
    config.client_auth_cert_resolver = Thief::of(victim);
    Arc::new(config)
}

/// How he answers those who connect to him.
pub(super) fn copied_by_server(victim: &Key) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(&server_config(&victim.identity).expect("good"));
    config.cert_resolver = Thief::of(victim);
    Arc::new(config)
}

/// The connection.
pub(super) struct Stranger(Wire);

/// The pin of a server that runs.
pub(super) fn pin(place: &Place) -> Pin {
    // The last that it told of.
    let log = place.server().log();
    let (_, rest) = log.rsplit_once("the pin").expect("its pin");
    rest.trim_start_matches(" is").trim_start().get(..64).and_then(|pin| pin.parse().ok()).expect("a pin")
}

impl Stranger {
    /// To the port with TLS, with a key or without.
    pub(super) fn secure(to: &Place, key: Option<&Key>) -> Stranger {
        let config = client_config(&Trust::Pins(vec![pin(to)]), key.map(|key| &key.identity)).expect("good");
        Stranger::secure_as(to, &config).expect("a handshake")
    }

    pub(super) fn secure_as(to: &Place, config: &Arc<ClientConfig>) -> Result<Stranger, TlsError> {
        let stream = TcpStream::connect(to.server().tls.expect("an address")).expect("a connection");
        let tls = TlsSocket::connect(stream, config, "localhost", Instant::now() + PATIENCE)?;
        Ok(Stranger::on(tls.into()))
    }

    /// To the port without.
    pub(super) fn plain(to: &Place) -> Stranger {
        Stranger::on(Socket::Tcp(TcpStream::connect(to.plain_address()).expect("a connection")))
    }

    pub(super) fn on(socket: Socket) -> Stranger {
        Stranger(Wire::on(socket))
    }

    /// What it is sent through, for another thread.
    pub(super) fn socket(&self) -> Arc<Socket> {
        self.0.socket()
    }

    pub(super) fn sends(&self, text: &str) {
        self.0.sends(text);
    }

    pub(super) fn sends_json(&self, message: &Value) {
        self.sends(&message.to_string());
    }

    /// The same when the server may have closed already.
    pub(super) fn tries_to_send(&self, message: &Value) {
        let _ = self.0.try_to_send(&message.to_string());
    }

    /// The next frame; nothing at the end, however the connection ends.
    #[track_caller]
    pub(super) fn receives(&mut self) -> Option<String> {
        self.0.receives().unwrap_or_default()
    }

    /// The next frame.
    #[track_caller]
    pub(super) fn gets(&mut self) -> Value {
        serde_json::from_str(&self.receives().expect("a frame")).expect("JSON")
    }

    /// The next frame is a bad report for this reason.
    #[track_caller]
    pub(super) fn is_told(&mut self, reason: &str) -> Value {
        let report = self.gets();
        let header = &report["header"];
        assert!(header["messageType"] == "statusReport" && header["status"] == "bad" && header["reason"] == reason, "{reason}: {report}");
        report
    }

    /// The next frame is a good report.
    #[track_caller]
    pub(super) fn is_taken(&mut self) -> Value {
        let report = self.gets();
        assert!(report["header"]["messageType"] == "statusReport" && report["header"]["status"] == "good", "{report}");
        report
    }

    #[track_caller]
    pub(super) fn is_closed(&mut self) {
        assert_eq!(self.receives(), None, "the connection should be closed");
    }

    /// Greets as a peer, which is accepted.
    #[track_caller]
    pub(super) fn greets(mut self, name: &str) -> Stranger {
        self.sends_json(&ping(name));
        self.is_taken();
        self
    }
}

/// Writes all of it.
#[track_caller]
pub(super) fn send(socket: &Socket, bytes: &[u8]) {
    write_all(socket, bytes).expect("the server reads");
}

/// A greeting.
pub(super) fn ping(name: &str) -> Value {
    json!({
        "header": { "scope": "server", "server": name },
        "payload": { "type": "builtin", "id": "hello", "data": { "command": { "type": "ping" } } },
    })
}

/// A message of a server for bob.
pub(super) fn message(server: &str, id: &str) -> Value {
    json!({
        "header": { "scope": "server", "server": server, "messageId": id, "hops": 1, "from": "eve" },
        "payload": { "type": "chat", "id": id, "data": { "users": ["bob"] } },
    })
}

/// A server that was invited and wants to join.
pub(super) fn join(name: &str, secret: &str) -> Value {
    json!({
        "header": { "scope": "server", "server": name, "authentication": { "method": "invite", "secret": secret } },
        "payload": { "type": "builtin", "id": "join", "data": { "command": { "type": "join", "args": { "addresses": ["127.0.0.1:1"] } } } },
    })
}

/// The one line of the log that says so after those that were there `before`.
#[track_caller]
pub(super) fn one_line(place: &Place, before: usize, words: &str) -> String {
    let log = until(words, || Some(place.server().log()).filter(|log| log[before..].contains(words)));
    let lines: Vec<&str> = log[before..].lines().filter(|line| line.contains(words)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].to_owned()
}
