//! What all TCP connections of a server have in common, whoever made them.

use rustix::net::sockopt;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// A silent connection is probed after this, ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// ... so often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// ... and given up after so many probes without an answer: two minutes in all.
const KEEPALIVE_PROBES: u32 = 4;
/// What was sent and is not acknowledged by the other machine for so long ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Sends at once, and finds out when the other machine is gone.
pub fn set_options(stream: &TcpStream) -> io::Result<()> {
    // A batch is written in one piece; nothing that comes later could be worth waiting for.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED.as_millis() as u32)?;
    Ok(())
}
