//! The TLS handshake of a connection that was accepted, on the connection's own thread; and what the log says of those that
//! fail, which everybody can cause.

use crate::logging::Quota;
use crate::tls::{self, TlsError};
use crate::transport::{Socket, TlsSocket};
use log::{debug, info};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a client is told that cannot be served, and did not shake hands yet: a fatal alert, "internal error".
pub(super) const NOT_NOW: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Lets in who shakes hands in time.
#[derive(Debug)]
pub(super) struct Doorman {
    shared: Arc<tls::Shared>,
    within: Duration,
    /// Held to write a line.
    quota: Mutex<Quota>,
}

impl Doorman {
    pub(super) fn new(shared: Arc<tls::Shared>, within: Duration) -> Doorman {
        Doorman { shared, within, quota: Mutex::default() }
    }

    /// A connection that came at `accepted` from `from`, once the handshake is done.
    pub(super) fn let_in(&self, socket: Socket, accepted: Instant, from: &str) -> Option<Socket> {
        let Socket::Tcp(stream) = socket else { return Some(socket) }; // nothing else is listened on with TLS
        match TlsSocket::accept(stream, &self.shared.server_config(), accepted + self.within) {
            Ok(socket) => Some(socket.into()),
            // Also what monitors and scanners do.
            Err(error @ (TlsError::Closed | TlsError::Io(_))) => {
                debug!("{from}: {error}");
                None
            }
            Err(error) => {
                let words = match error {
                    TlsError::NotTls => {
                        "speaks no TLS on the port of network.tls: use tls:// there, or the port of network.tcp4".to_owned()
                    }
                    TlsError::TimedOut => format!("no TLS handshake within {} s (limits.tlsSeconds)", self.within.as_secs()),
                    error => error.to_string(),
                };
                let mut quota = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
                quota.line(Instant::now(), || format!("{from} closed: {words}"), &mut |line| info!("{line}"));
                None
            }
        }
    }
}
