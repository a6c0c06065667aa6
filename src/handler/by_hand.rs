//! A handler's program without a server around it, for `bester handler run`: it is started, watched and ended in the same
//! way, but by a person.

use super::process::{self, Birth, Process};
use super::stderr::printable;
use crate::config::{self, HandlerTransport};
use crate::name::{ServerName, TypeName};
use crate::transport::unix;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked whether a program listens at its socket by now.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A longer line of a program's standard error is cut into pieces of this many bytes.
const LINE_BYTES_MAX: u64 = 4 << 10;

/// A handler that is running.
pub struct ByHand {
    /// None when somebody else runs the program.
    process: Option<Process>,
    /// How its frames come and go.
    pub ends: Ends,
    /// What it prints.
    pub stderr: Option<OwnedFd>,
    /// The socket that it listens on, if it is its own.
    socket: Option<PathBuf>,
}

/// How the frames of a handler come and go.
pub enum Ends {
    /// On one stream.
    Stream {
        /// Its answers.
        source: OwnedFd,
        /// Its messages.
        sink: OwnedFd,
    },
    /// On a connection for each message, to this socket.
    PerMessage(PathBuf),
}

/// Starts the program as the server would, and waits until it can be asked.
///
/// # Errors
/// It cannot be started, ended before it could be asked, or did not listen at its socket in time; in words that
/// follow the handler's name.
pub fn start(config: &config::Handler, kind: &TypeName, server: &ServerName, informer: &Path) -> Result<ByHand, String> {
    let at_socket = |error: io::Error, path: &Path| format!("cannot use its socket: {}: {error}", path.display());
    let Some(program) = &config.program else {
        let HandlerTransport::Unix { path, persistent } = &config.transport else {
            return Err("has no program".into()); // the configuration sees to that
        };
        let ends = if *persistent {
            let connected = unix::connect(path, config.timeout).and_then(stream);
            connected.map_err(|error| format!("cannot be reached: {}: {error}", path.display()))?
        } else {
            Ends::PerMessage(path.clone())
        };
        return Ok(ByHand { process: None, ends, stderr: None, socket: None });
    };
    let mut socket = None;
    if let HandlerTransport::Unix { path, .. } = &config.transport {
        unix::remove_stale(path).map_err(|error| at_socket(error, path))?;
        socket = Some(path.clone());
    }
    let failed = |error: io::Error| format!("cannot be started: {}: {error}", program.path.display());
    let handler = config::Handler { informer_socket: informer.to_owned(), ..config.clone() };
    let birth = Birth { handler: &handler, kind, server, instance: 0 };
    let started = process::start(&birth).map_err(|error| format!("cannot be started: {error}"))?;
    let mut by_hand =
        ByHand { process: Some(started.process), ends: Ends::PerMessage(PathBuf::new()), stderr: Some(started.stderr), socket };
    by_hand.ends = match started.channel {
        process::Channel::Pipes { stdin, stdout } => Ends::Stream { source: stdout, sink: stdin },
        process::Channel::Socket(socket) => stream(socket).map_err(failed)?,
        process::Channel::Elsewhere => by_hand.reach(config)?,
    };
    Ok(by_hand)
}

fn stream(socket: UnixStream) -> io::Result<Ends> {
    Ok(Ends::Stream { source: socket.try_clone()?.into(), sink: socket.into() })
}

impl ByHand {
    /// Waits until the program listens at its socket.
    fn reach(&mut self, config: &config::Handler) -> Result<Ends, String> {
        let HandlerTransport::Unix { path, persistent } = &config.transport else {
            return Err("has no socket".into()); // only this transport leaves the connecting to us
        };
        let deadline = Instant::now() + config.timeout;
        loop {
            if *persistent && let Ok(ends) = unix::connect(path, LOOK_EVERY).and_then(stream) {
                return Ok(ends);
            }
            if !*persistent && path.exists() {
                return Ok(Ends::PerMessage(path.clone()));
            }
            if let Some(words) = self.wait(LOOK_EVERY) {
                return Err(format!("{words} before it listened at its socket"));
            }
            if Instant::now() >= deadline {
                return Err(format!("did not listen at its socket within {} s: {}", config.timeout.as_secs(), path.display()));
            }
        }
    }

    /// Whether the program is ours, so that it can be ended.
    pub fn is_ours(&self) -> bool {
        self.process.is_some()
    }

    /// A descriptor that becomes readable when the program has ended.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn death(&self) -> io::Result<Option<OwnedFd>> {
        self.process.as_ref().map(|process| process.pidfd().try_clone_to_owned()).transpose()
    }

    /// How the program ended, if it has or does so within this time.
    pub fn wait(&mut self, patience: Duration) -> Option<String> {
        let process = self.process.as_mut()?;
        wait_readable(&process.pidfd(), Some(patience));
        process.obituary().map(|obituary| obituary.words)
    }

    /// Tells the program to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the program, and all that it started.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }
}

/// Nothing is left behind; the process ends with its own value.
impl Drop for ByHand {
    fn drop(&mut self) {
        self.process = None;
        if let Some(path) = &self.socket {
            let _ = unix::remove_stale(path); // somebody else may listen there by now
        }
    }
}

/// Waits until a descriptor is readable; for ever without a time.
pub fn wait_readable(fd: &impl AsFd, patience: Option<Duration>) {
    let until = patience.map(|patience| Instant::now() + patience);
    loop {
        let left: Option<Timespec> = until.and_then(|until| until.saturating_duration_since(Instant::now()).try_into().ok());
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            _ => return, // what it was is seen by looking
        }
    }
}

/// Gives each line of what a program prints to `line`, without anything in it that could move a cursor.
pub fn lines(stderr: OwnedFd, mut line: impl FnMut(&str)) {
    let mut reader = BufReader::new(File::from(stderr));
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) => return,
            Ok(_) => line(&on_one_line(bytes.strip_suffix(b"\n").unwrap_or(&bytes))),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// A text for people that is one line, without anything in it that could move a cursor or turn text around.
pub fn on_one_line(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).collect();
    printable(text.trim_end())
}
