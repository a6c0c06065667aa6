//! Another server for tests: it does what its script says, for one connection after the other.

use super::Ours;
use crate::config::{Framing, Limits};
use crate::frame::{Decoder, Packet};
use crate::name::{PeerId, ServerName};
use crate::protocol::server::{self, Message};
use crate::store::{Peer, Verify};
use crate::tls::{Identity, server_config};
use crate::transport::{HostPort, Socket, SocketReader, TlsSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn name(text: &str) -> ServerName {
    ServerName::new(text).expect("a name")
}

/// An identity that was just made.
pub(crate) fn identity() -> Arc<Identity> {
    let directory = tempfile::tempdir().expect("a directory");
    Arc::new(Identity::own(directory.path(), &name("b.example")).expect("made"))
}

/// We are a.example, and wait for nothing for long.
pub(crate) fn ours() -> Ours {
    let identity = identity();
    let limits = Limits {
        peer_report: Duration::from_secs(10),
        peer_retry_min: Duration::from_millis(10),
        peer_retry_max: Duration::from_millis(40),
        peer_in_flight: 4,
        ..Limits::default()
    };
    Ours { name: name("a.example"), identity: Arc::new(move || Some(Arc::clone(&identity))), limits, listening: [].into() }
}

/// A place where the other server listens.
pub(crate) struct Place {
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
}

/// One connection to it.
pub(crate) struct Visit {
    socket: Arc<Socket>,
    reader: SocketReader,
    decoder: Decoder,
}

impl Place {
    /// With TLS if there is an identity.
    pub(crate) fn new(identity: Option<Arc<Identity>>) -> Place {
        Place { listener: TcpListener::bind("127.0.0.1:0").expect("a port"), identity }
    }

    pub(crate) fn address(&self) -> HostPort {
        let address = self.listener.local_addr().expect("an address");
        HostPort { host: address.ip().to_string(), port: address.port() }
    }

    /// The peer that is here.
    pub(crate) fn peer(&self) -> Peer {
        let verify = self.identity.as_ref().map_or(Verify::Nothing, |identity| Verify::Pins(vec![identity.pin()]));
        Peer { id: PeerId(7), name: name("b.example"), addresses: vec![self.address()], verify }
    }

    /// The next who connects; the handshake may fail.
    pub(crate) fn accept(&self) -> Option<Visit> {
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&patience)), Ok(1), "nobody connects");
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let socket = match &self.identity {
            None => Socket::Tcp(stream),
            Some(identity) => {
                let config = server_config(identity).expect("good");
                Socket::Tls(Box::new(TlsSocket::accept(stream, &config, Instant::now() + PATIENCE).ok()?))
            }
        };
        let socket = Arc::new(socket);
        let reader = SocketReader::new(Arc::clone(&socket));
        Some(Visit { socket, reader, decoder: Decoder::new(Framing::Length, 1 << 20) })
    }

    /// The next who connects is greeted.
    pub(crate) fn welcome(&self) -> Visit {
        let mut visit = self.accept().expect("a handshake");
        visit.greets("b.example");
        visit
    }

    /// Does something here on a thread. Join it, so that its asserts count.
    pub(crate) fn then(self, script: impl FnOnce(Place) + Send + 'static) -> JoinHandle<()> {
        crate::thread::spawn("other server", 512 << 10, move || script(self)).expect("a thread")
    }
}

impl Visit {
    /// The next message; `None` at the end.
    pub(crate) fn gets(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.decoder.frame().expect("a frame within the cap") {
                return Some(server::parse(&frame, 100).expect("a message of a server"));
            }
            match self.reader.read(self.decoder.space(4096)) {
                Ok(0) => return None,
                Ok(_) => {}
                // Something came that is no data.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("not readable: {error}"),
            }
        }
    }

    /// Takes the greeting, and says that its name is this.
    pub(crate) fn greets(&mut self, server: &str) {
        let hello = self.gets().expect("a greeting");
        assert_eq!(hello.header.server.as_ref().map(|text| text.as_str()), Some("a.example"));
        assert_eq!(hello.payload.data.bytes(), br#"{"command":{"type":"ping","args":null}}"#);
        self.says(&format!(r#"{{"header":{{"status":"good"}},"payload":{{"id":"hello","data":{{"server":"{server}"}}}}}}"#));
    }

    /// The id of the next message.
    pub(crate) fn gets_id(&mut self) -> String {
        let message = self.gets().expect("a message");
        let id = message.header.message_id.expect("an id").as_str().to_owned();
        assert_eq!(message.payload.id.expect("an id").bytes(), format!("{id:?}").as_bytes());
        id
    }

    pub(crate) fn says(&self, text: &str) {
        let packet = Packet::write(|body| body.extend_from_slice(text.as_bytes())).parts().concat();
        match &*self.socket {
            Socket::Tcp(stream) => (&*stream).write_all(&packet),
            Socket::Tls(stream) => stream.write_all(&packet),
            Socket::Unix(stream) => (&*stream).write_all(&packet),
        }
        .expect("somebody who reads");
    }

    /// Reports on a message: `good`, `notNow` or `never`.
    pub(crate) fn reports(&self, id: &str, verdict: &str) {
        let header = match verdict {
            "good" => r#"{"status":"good"}"#,
            "notNow" => r#"{"status":"bad","reason":"busy","temporary":true}"#,
            _ => r#"{"status":"bad","reason":"unknownType","temporary":false}"#,
        };
        self.says(&format!(r#"{{"header":{header},"payload":{{"id":"{id}","data":null}}}}"#));
    }

    /// Ends the connection at once.
    pub(crate) fn leaves(self) {
        self.socket.shutdown(Shutdown::Both);
    }
}
