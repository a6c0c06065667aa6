//! One start of a handler: its process, its channel, the thread that reads its answers, and what it prints.

use super::dialer::Dialing;
use super::process::Process;
use super::stderr::Lines;
use crate::connection::handler::{Complaint, End};
use crate::name::TypeName;
use crate::outlet::Outlet;
use crate::transport::unix::{self, Listening};
use crate::transport::{PipeStop, Sink, Socket, SocketReader, Source};
use crossbeam_channel::Sender;
use log::info;
use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Of what a program prints, so much is taken before anything else gets its turn.
const STDERR_BYTES_A_TURN: usize = 256 << 10;

/// One start of the handler.
#[derive(Default)]
pub(super) struct Running {
    /// None when somebody else runs the program.
    pub(super) process: Option<Process>,
    pub(super) stderr: Option<(File, Lines)>,
    pub(super) stderr_ready: bool,
    /// Not yet asked for anything.
    pub(super) channel: Option<Ends>,
    /// It must be reachable until then.
    pub(super) reachable_until: Option<Instant>,
    pub(super) answered: Arc<AtomicBool>,
    /// As long as it is here, the reader lets a handler wait that says too much unasked.
    pub(super) calm: Option<Sender<()>>,
    pub(super) reader: Option<JoinHandle<End>>,
    pub(super) outlet: Option<Arc<Outlet>>,
    pub(super) stopper: Stopper,
    /// The socket that our own program listens on, once it does.
    pub(super) listening: Option<Arc<Listening>>,
}

pub(super) enum Ends {
    Stream(Source, Sink, Stopper),
    /// With the socket on which our own program listens.
    PerMessage(Option<Arc<Listening>>),
}

/// What ends the reading of answers, after those that are already there.
#[derive(Default)]
pub(super) enum Stopper {
    #[default]
    None,
    Socket(Arc<Socket>),
    Pipe(Arc<PipeStop>),
    Dialing(Arc<Dialing>),
}

impl Ends {
    /// Those of a program that is to listen at `path`, once it does. What is `ours` is reached also when its name is another's.
    pub(super) fn find(path: &Path, persistent: bool, ours: bool, within: Duration) -> io::Result<(Option<Arc<Listening>>, Ends)> {
        if !ours {
            return Ok((None, Ends::of(unix::connect(path, within)?)));
        }
        let listening = Arc::new(Listening::find(path)?);
        let ends = if persistent {
            Ends::of(listening.connect(within).or_else(|_| unix::connect(path, within))?)
        } else {
            Ends::PerMessage(Some(Arc::clone(&listening)))
        };
        Ok((Some(listening), ends))
    }

    pub(super) fn of(stream: UnixStream) -> Ends {
        let socket = Arc::new(Socket::Unix(stream));
        Ends::Stream(Source::Socket(SocketReader::new(Arc::clone(&socket))), Sink::Socket(Arc::clone(&socket)), Stopper::Socket(socket))
    }
}

impl Running {
    /// Lets the reader take what is there, then ends it. What it found that was no frame, if anything.
    pub(super) fn end_reading(&mut self) -> Option<Complaint> {
        self.calm = None;
        match &self.stopper {
            Stopper::None => {}
            Stopper::Socket(socket) => socket.shutdown(Shutdown::Both),
            Stopper::Pipe(stop) => stop.order(),
            Stopper::Dialing(dialing) => dialing.under_way.abandon_all(),
        }
        let end = self.reader.take().and_then(|reader| reader.join().ok());
        if let Some(outlet) = &self.outlet {
            outlet.abort();
        }
        match end {
            Some(End::Stray(stray) | End::Amid(stray)) => Some(stray),
            Some(End::Input) | None => None,
        }
    }

    /// What it printed last.
    pub(super) fn last_words(&mut self, kind: &TypeName) -> Vec<String> {
        self.stderr_ready = true;
        self.log_stderr(kind, false);
        self.stderr.as_ref().map(|(_, lines)| lines.last()).unwrap_or_default()
    }

    /// Takes what the program printed, a bounded amount unless it is the `last` of it.
    pub(super) fn log_stderr(&mut self, kind: &TypeName, last: bool) {
        let Some((stderr, lines)) = &mut self.stderr else { return };
        let now = Instant::now();
        let log = |line: &str| info!("handler {kind}: {line}");
        let mut buffer = [0; 8 << 10];
        let mut taken = 0;
        while (self.stderr_ready || last) && taken < STDERR_BYTES_A_TURN {
            match stderr.read(&mut buffer) {
                Ok(bytes) if bytes > 0 => {
                    taken += bytes;
                    lines.take(now, &buffer[..bytes], log);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.stderr_ready = false;
                    break;
                }
            }
        }
        if last {
            lines.end(now, log);
        }
    }
}
