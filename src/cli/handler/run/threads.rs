//! The threads around a run, each of which waits for one thing and tells of it in an [`Event`]: the lines of the input, what
//! the handler writes, what it prints, its death; one writes to it, and one for each message asks where that takes a
//! connection of its own. They end with what they wait for, or with this process, whose end waits for none of them: a
//! grandchild may hold the handler's output for ever.

use super::Event;
use crate::config::Framing;
use crate::connection::handler::{End, end_of_input, frame_or_stray};
use crate::frame::{Decoder, Frame, Packet};
use crate::handler::by_hand;
use crate::transport::unix;
use crossbeam_channel::{Receiver, Sender};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STACK_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;

/// What comes in on a line of the input.
pub(super) enum Line {
    /// Its number and its bytes.
    Text(u64, Vec<u8>),
    /// It is longer than this; nothing after it is looked at.
    TooLong(usize),
    /// It cannot be read on.
    Failed(io::Error),
}

/// Reads the lines of standard input that are not empty. The channel closes at the end.
pub(super) fn input(lines: Sender<Line>, line_bytes_max: usize) -> io::Result<JoinHandle<()>> {
    let body = move || {
        let mut decoder = Decoder::new(Framing::Lines, line_bytes_max);
        let mut number = 0;
        let mut give = |bytes: &[u8]| {
            number += 1;
            bytes.trim_ascii().is_empty() || lines.send(Line::Text(number, bytes.to_vec())).is_ok()
        };
        loop {
            match decoder.frame() {
                Ok(Some(line)) if give(line.bytes()) => continue,
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) => return drop(lines.send(Line::TooLong(error.frame_bytes_max))),
            }
            match read(&io::stdin(), &mut decoder) {
                // The last line may lack its end.
                Ok(0) => {
                    let _ = give(decoder.pending_bytes()); // nobody listens any longer when it is over
                    return;
                }
                Ok(_) => {}
                Err(error) => return drop(lines.send(Line::Failed(error))),
            }
        }
    };
    crate::thread::spawn("input", STACK_BYTES, body)
}

fn read(source: &impl AsFd, decoder: &mut Decoder) -> io::Result<usize> {
    loop {
        match rustix::io::read(source, spare_capacity(decoder.space(READ_BYTES))) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Reads what the handler writes on a stream.
pub(super) fn answers(source: OwnedFd, framing: Framing, frame_bytes_max: usize, events: Sender<Event>) -> io::Result<JoinHandle<()>> {
    let body = move || {
        let mut decoder = Decoder::new(framing, frame_bytes_max);
        loop {
            let event = match frame_or_stray(framing, &mut decoder) {
                Ok(Some(frame)) => Event::Frame(frame, Instant::now()),
                Ok(None) => match read(&source, &mut decoder) {
                    Ok(bytes) if bytes > 0 => continue,
                    _ => match end_of_input(&decoder) {
                        End::Input => Event::OutputEnd,
                        End::Stray(complaint) | End::Amid(complaint) => Event::Stray(complaint.logged),
                    },
                },
                Err(complaint) => Event::Stray(complaint.logged),
            };
            let last = !matches!(event, Event::Frame(..));
            if events.send(event).is_err() || last {
                return;
            }
        }
    };
    crate::thread::spawn("answers", STACK_BYTES, body)
}

/// Writes to the handler until the channel closes, then tells it that nothing more comes.
pub(super) fn writer(sink: OwnedFd, packets: Receiver<Packet>) -> io::Result<JoinHandle<()>> {
    let body = move || {
        let mut sink = File::from(sink);
        for packet in packets {
            // It fails when the handler has closed its input: what it does then is seen elsewhere.
            let _ = packet.parts().iter().try_for_each(|part| sink.write_all(part));
        }
        // The handler's answers come over another copy of a socket, which closing this one would not end.
        let _ = rustix::net::shutdown(&sink, rustix::net::Shutdown::Write);
    };
    crate::thread::spawn("writer", STACK_BYTES, body)
}

/// Gives what the handler prints to standard error, behind its type. The channel closes at the end.
pub(super) fn stderr(kind: &str, stderr: OwnedFd) -> io::Result<Receiver<()>> {
    let (ended, end) = crossbeam_channel::bounded(0);
    let kind = kind.to_owned();
    let body = move || {
        let _ended: Sender<()> = ended;
        by_hand::lines(stderr, |line| drop(writeln!(io::stderr(), "{kind}: {line}")));
    };
    crate::thread::spawn("stderr", STACK_BYTES, body)?;
    Ok(end)
}

/// Waits for the handler's death.
pub(super) fn death(death: OwnedFd, events: Sender<Event>) -> io::Result<JoinHandle<()>> {
    let body = move || {
        by_hand::wait_readable(&death, None);
        let _ = events.send(Event::Died);
    };
    crate::thread::spawn("death", STACK_BYTES, body)
}

/// One message on a connection of its own.
pub(super) struct Call {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) packet: Packet,
    pub(super) framing: Framing,
    pub(super) frame_bytes_max: usize,
    pub(super) timeout: Duration,
}

impl Call {
    pub(super) fn start(self, events: Sender<Event>) -> io::Result<JoinHandle<()>> {
        let body = move || {
            let answer = self.ask();
            let _ = events.send(Event::Answered(self.number, answer, Instant::now()));
        };
        crate::thread::spawn("call", STACK_BYTES, body)
    }

    fn ask(&self) -> Result<Frame, String> {
        let stream = unix::connect(&self.path, self.timeout);
        let mut stream = stream.map_err(|error| format!("cannot be reached (handlerUnavailable): {}: {error}", self.path.display()))?;
        let broken = |error: io::Error| format!("broke the connection (handlerCrashed): {error}");
        for part in self.packet.parts() {
            stream.write_all(part).map_err(broken)?;
        }
        let mut decoder = Decoder::new(self.framing, self.frame_bytes_max);
        loop {
            if let Some(frame) =
                frame_or_stray(self.framing, &mut decoder).map_err(|complaint| format!("{} (handlerCrashed)", complaint.logged))?
            {
                return Ok(frame);
            }
            if read(&stream, &mut decoder).map_err(broken)? == 0 {
                return Err("closed the connection without an answer (handlerCrashed)".into());
            }
        }
    }
}
