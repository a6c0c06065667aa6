//! The thread that accepts on a UNIX socket which is for the owner of the server alone: an informer, the control socket.
//!
//! Spawned by [`Acceptor::start`]; owns nothing but a look at the listening socket; waits in `accept`; ends when the
//! socket is shut down.

use super::unix;
use log::error;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const MODE: u32 = 0o600;
/// After an accept that failed for want of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is told to stop.
#[derive(Debug)]
pub struct Acceptor {
    listener: Arc<UnixListener>,
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Acceptor {
    /// Listens at `path`, on a thread called `name` with a stack of `stack_bytes`, and gives each connection to `serve`.
    ///
    /// # Errors
    /// As of [`unix::listen`]; or the system has no thread left.
    pub fn start(name: String, stack_bytes: usize, path: &Path, serve: impl FnMut(UnixStream) + Send + 'static) -> io::Result<Acceptor> {
        Acceptor::on(unix::listen(path, MODE)?, name, stack_bytes, path, serve)
    }

    /// The same with a socket that listens already, at `path`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn on(
        listener: UnixListener,
        name: String,
        stack_bytes: usize,
        path: &Path,
        mut serve: impl FnMut(UnixStream) + Send + 'static,
    ) -> io::Result<Acceptor> {
        let listener = Arc::new(listener);
        let (theirs, own_name) = (Arc::clone(&listener), name.clone());
        let thread = crate::thread::spawn(name, stack_bytes, move || accept(&own_name, &theirs, &mut serve))?;
        Ok(Acceptor { listener, path: path.to_owned(), thread })
    }

    /// Ends the thread and removes the socket.
    pub fn stop(self) {
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
        let _ = self.thread.join(); // its panic is in the log
    }
}

fn accept(name: &str, listener: &UnixListener, serve: &mut impl FnMut(UnixStream)) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => serve(stream),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return, // shut down
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                error!("the socket of {name} cannot accept: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn it_accepts_until_it_is_stopped_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let serve = |mut stream: UnixStream| stream.write_all(b"hello").expect("a reader");
        let acceptor = Acceptor::start("greeter".to_owned(), 64 << 10, &path, serve).expect("a free path");
        for _ in 0..2 {
            let mut said = String::new();
            UnixStream::connect(&path).expect("a listener").read_to_string(&mut said).expect("text");
            assert_eq!(said, "hello");
        }
        acceptor.stop();
        assert!(!path.exists());
    }
}
