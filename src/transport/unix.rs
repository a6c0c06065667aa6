//! UNIX sockets in the file system: ours are made with the mode they are to have, and one that a dead server left
//! behind is no obstacle, while a live one is.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Listens at `path` with the permission bits `mode`.
///
/// Errors: `AddrInUse` if somebody listens there; `AlreadyExists` if there is something that is no socket.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    remove_stale(path)?;
    // Until the mode is set, only the owner may connect: the directory's mode and the umask see to that.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    // The standard library's backlog is short of a burst of clients; the kernel caps this at somaxconn.
    rustix::net::listen(&listener, 4096)?;
    Ok(listener)
}

/// Removes a socket that nobody listens on any longer.
///
/// Errors: `AddrInUse` if somebody does; `AlreadyExists` if there is something that is no socket.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file which is not a socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Connects to `path`. A listener that accepts nothing is waited for no longer than `timeout`.
///
/// Errors: `TimedOut` after that; `NotFound` or `ConnectionRefused` if nobody listens there.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // On these sockets, the timeout of writes is that of connecting as well.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout.max(Duration::from_millis(1))))?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // The system's words for it, "resource temporarily unavailable", would tell nobody what happened.
        Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        connected => Ok(connected.map(|()| socket.into())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_no_obstacle_and_a_live_one_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let first = listen(&path, 0o600).expect("a free path");
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path, 0o600).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(&path, 0o660).expect("the first one is dead");
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o660);
    }

    #[test]
    fn who_accepts_nobody_is_not_waited_for_long() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let within = Duration::from_millis(50);
        assert_eq!(connect(&path, within).expect_err("nobody").kind(), io::ErrorKind::NotFound);
        let listener = listen(&path, 0o600).expect("a free path");
        rustix::net::listen(&listener, 0).expect("a listener");
        let _waiting = connect(&path, within).expect("there is one place");
        assert_eq!(connect(&path, within).expect_err("no place").kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_file_is_never_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        fs::write(&path, "x").expect("a file");
        assert_eq!(listen(&path, 0o600).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }
}
