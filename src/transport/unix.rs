//! UNIX sockets in the file system: ours are made with the mode they are to have, and one that a dead server left
//! behind is no obstacle, while a live one is.

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fstat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Whoever accepts nothing for so long listens all the same.
const LOOK_WITHIN: Duration = Duration::from_millis(100);

/// Listens at `path` with the permission bits `mode`.
///
/// Errors: `AddrInUse` if somebody listens there; `AlreadyExists` if there is something that is no socket.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    remove_stale(path)?;
    // Until the mode is set, only the owner may connect: the directory's mode and the umask see to that.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    // The standard library's backlog is short of a burst of clients; the kernel caps this at somaxconn.
    rustix::net::listen(&listener, 4096)?;
    Ok(listener)
}

/// Gives the socket at `path` to somebody else.
///
/// Where others can write, something else may be there by now. It is looked at before it is given away, and it is that
/// which was looked at.
pub fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let socket = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "somebody has put something else there"));
    }
    Ok(chownat(&socket, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?)
}

/// Makes a directory for sockets of several users, if it is not there: they go through it, and only we change it.
pub fn make_passage(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // A link or another's directory would let others choose what is in it.
    let directory = open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if fstat(&directory)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(fchmod(&directory, Mode::from_raw_mode(0o711))?) // whatever the umask is
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
        return Err(not_a_socket());
    }
    let taken = || Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there"));
    match connect(path, LOOK_WITHIN) {
        Ok(_) => taken(),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => taken(),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Removes a socket, also one that somebody listens on; whoever does is reached through [`Listening`] only from then on.
///
/// Errors: `AlreadyExists` if there is something that is no socket.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(not_a_socket()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn not_a_socket() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "there is a file which is not a socket")
}

/// A socket in the file system that stays reachable when its name is gone or another's.
#[derive(Debug)]
pub struct Listening(OwnedFd);

impl Listening {
    /// The socket that is at `path` now.
    ///
    /// Errors: `NotFound`; `AlreadyExists` if there is something that is no socket.
    pub fn find(path: &Path) -> io::Result<Listening> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Socket => Ok(Listening(fd)),
            _ => Err(not_a_socket()),
        }
    }

    /// As [`connect`].
    pub fn connect(&self, timeout: Duration) -> io::Result<UnixStream> {
        connect(Path::new(&format!("/proc/self/fd/{}", self.0.as_raw_fd())), timeout)
    }

    /// Removes it from `path`, unless it is there no longer. Whoever listens there now hears nothing of it, while
    /// [`remove_stale`] connects.
    pub fn remove(&self, path: &Path) {
        let own = rustix::fs::fstat(&self.0).map(|own| (own.st_dev, own.st_ino));
        let there = rustix::fs::lstat(path).map(|there| (there.st_dev, there.st_ino));
        // As long as we have it, no other file can have its number.
        if own.is_ok() && own == there {
            let _ = fs::remove_file(path); // gone is gone
        }
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
        assert_eq!(remove_stale(&path).expect_err("somebody is there").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_socket_is_reached_without_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        assert_eq!(Listening::find(&path).expect_err("nothing").kind(), io::ErrorKind::NotFound);
        let first = listen(&path, 0o600).expect("a free path");
        let found = Listening::find(&path).expect("the first");
        remove(&path).expect("a socket");
        let second = listen(&path, 0o600).expect("a free path");
        found.remove(&path);
        assert!(path.exists(), "it is another's");
        Listening::find(&path).expect("the second").remove(&path);
        assert!(!path.exists());
        let within = Duration::from_millis(50);
        let _stream = found.connect(within).expect("the first");
        second.set_nonblocking(true).expect("a socket");
        assert_eq!(second.accept().expect_err("nobody came to the second").kind(), io::ErrorKind::WouldBlock);
        first.accept().expect("the stream");
        drop(first);
        assert_eq!(found.connect(within).expect_err("it is gone").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_passage_is_ours_and_only_a_socket_is_given_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let passage = place("passage");
        fs::create_dir(place("elsewhere")).expect("a directory");
        std::os::unix::fs::symlink("elsewhere", &passage).expect("a link");
        make_passage(&passage).expect_err("a link");
        fs::remove_file(&passage).expect("a link");
        for _ in 0..2 {
            make_passage(&passage).expect("nothing is in the way");
            assert_eq!(fs::metadata(&passage).expect("the directory").permissions().mode() & 0o7777, 0o711);
            fs::set_permissions(&passage, Permissions::from_mode(0o777)).expect("permissions");
        }
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let ours = |name: &str| give(&place(name), uid.as_raw(), gid.as_raw());
        let _listener = listen(&place("socket"), 0o600).expect("a free path");
        ours("socket").expect("a socket");
        std::os::unix::fs::symlink("socket", place("link")).expect("a link");
        for name in ["link", "passage"] {
            assert_eq!(ours(name).expect_err(name).kind(), io::ErrorKind::AlreadyExists);
        }
        if uid.is_root() {
            std::os::unix::fs::chown(&passage, Some(4001), None).expect("root may");
            assert_eq!(make_passage(&passage).expect_err("another's").kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn a_file_is_never_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        fs::write(&path, "x").expect("a file");
        assert_eq!(listen(&path, 0o600).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(remove(&path).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Listening::find(&path).expect_err("a file").kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }
}
