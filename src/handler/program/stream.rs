//! What connects a handler with the server: messages come on one stream of frames, answers go on another.

use super::answer::{Answer, Raw};
use super::message::{Incoming, Message, Report};
use super::{Form, call, is_gone, say};
use crate::config::Framing;
use crate::frame::{Decoder, Frame, PREFIX_BYTES, put};
use crate::protocol::request;
use crossbeam_channel::Receiver;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room for what is read at once: more than a pipe or a socket usually holds.
const READ_BYTES: usize = 256 << 10;
/// The longest frame that is taken, or written. The server has its own limit, and it is lower.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// Answers that are kept to be written together go out when they are this many bytes; so much room is kept for later.
const BATCH_BYTES: usize = 256 << 10;

/// The way to the server.
pub(super) struct Line {
    form: Form,
    framing: Framing,
    /// Held while an answer is written: until the server has read enough of it.
    out: Mutex<Out>,
}

struct Out {
    file: File,
    /// Whole frames, not yet written.
    waiting: Vec<u8>,
    /// A frame may have been written in part: nothing after it would be understood.
    broken: bool,
}

impl Line {
    pub(super) fn new(form: Form, framing: Framing, file: File) -> Arc<Line> {
        Arc::new(Line { form, framing, out: Mutex::new(Out { file, waiting: Vec::new(), broken: false }) })
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an answer about the message with this id. `later`: it need not go out before [`Line::flush`].
    pub(super) fn send(&self, about: Option<&str>, answer: &Answer, later: bool) -> io::Result<()> {
        let mut out = self.lock();
        let start = out.waiting.len();
        put(self.framing, &mut out.waiting, |body| answer.put(about, body));
        if out.waiting.len() - start > FRAME_BYTES_MAX + PREFIX_BYTES {
            out.waiting.truncate(start);
            say(format_args!("an answer of more than {FRAME_BYTES_MAX} bytes is not sent"));
            put(self.framing, &mut out.waiting, |body| Answer::internal().put(about, body));
        }
        if later && out.waiting.len() < BATCH_BYTES { Ok(()) } else { out.write() }
    }

    fn flush(&self) -> io::Result<()> {
        self.lock().write()
    }
}

impl Out {
    fn write(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = self.file.write_all(&self.waiting);
        self.broken = written.is_err();
        self.waiting.clear();
        if self.waiting.capacity() > 2 * BATCH_BYTES {
            self.waiting = Vec::new();
        }
        written
    }
}

/// The messages, as they come. It waits for the next one, and ends when the server wants the handler to end.
///
/// # Errors
/// What came is no frame, or no envelope where one should be: the configuration and [`Handler`](super::Handler) differ. Or
/// reading has failed. Nothing comes after an error.
pub struct Messages(From);

enum From {
    Stream(Stream),
    /// From the connections to a handler's own socket.
    Listener(Receiver<Incoming>),
}

/// One stream of frames from the server.
pub(super) struct Stream {
    input: OwnedFd,
    decoder: Decoder,
    line: Arc<Line>,
    ended: bool,
}

/// Where answers and pushes go; to be cloned for each thread that has any.
#[derive(Clone)]
pub struct Outbox(To);

#[derive(Clone)]
enum To {
    Line(Arc<Line>),
    /// That of the last connection.
    Latest(Latest),
}

/// The last connection to a handler's own socket.
pub(super) type Latest = Arc<Mutex<Option<Arc<Line>>>>;

pub(super) fn open(input: OwnedFd, line: Arc<Line>) -> (Messages, Outbox) {
    let stream = Stream::new(input, Arc::clone(&line));
    (Messages(From::Stream(stream)), Outbox(To::Line(line)))
}

pub(super) fn listening(incoming: Receiver<Incoming>, latest: Latest) -> (Messages, Outbox) {
    (Messages(From::Listener(incoming)), Outbox(To::Latest(latest)))
}

/// What [`Handler::serve`](super::Handler::serve) does.
pub(super) fn serve(messages: Messages, batched: bool, listening: bool, handle: &mut dyn FnMut(Message) -> Answer) -> io::Result<()> {
    // Nobody reads on from a listener's connection after its answer, so nothing would flush it.
    let later = batched && !listening;
    for incoming in messages {
        let message = match incoming {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Report(_)) => continue,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let ticket = message.ticket();
        let answer = call(handle, message);
        match ticket.answer(&answer, later) {
            // The server may leave a handler's socket at any time, and come again.
            Err(_) if listening => {}
            Err(error) if is_gone(&error) => return Ok(()),
            answered => answered?,
        }
    }
    Ok(())
}

impl Iterator for Messages {
    type Item = io::Result<Incoming>;

    fn next(&mut self) -> Option<io::Result<Incoming>> {
        match &mut self.0 {
            From::Stream(stream) => stream.next(),
            From::Listener(incoming) => incoming.recv().ok().map(Ok),
        }
    }
}

impl Stream {
    pub(super) fn new(input: OwnedFd, line: Arc<Line>) -> Stream {
        Stream { input, decoder: Decoder::new(line.framing, FRAME_BYTES_MAX), line, ended: false }
    }

    fn read(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(frame) = self.decoder.frame().map_err(|error| wrong(&error))? {
                return self.incoming(&frame).map(Some);
            }
            self.line.flush()?;
            match rustix::io::read(&self.input, spare_capacity(self.decoder.space(READ_BYTES))) {
                Err(Errno::INTR) => {}
                Ok(0) if self.decoder.pending() == 0 => return Ok(None),
                Ok(0) => return Err(wrong(&"the input ends inside a frame")),
                read => drop(read?),
            }
        }
    }

    fn incoming(&self, frame: &Frame) -> io::Result<Incoming> {
        let line = Arc::clone(&self.line);
        if self.line.form == Form::Plain {
            return Ok(Incoming::Message(Message::new(Raw::checked(frame.all().clone()), None, line)));
        }
        let no_envelope = |words: &dyn std::fmt::Display| wrong(&format_args!("no envelope came: {words}; is it \"envelope\": true?"));
        match request::parse(frame).map_err(|words| no_envelope(&words))? {
            Some(request) => {
                let data = Raw::checked(request.data.clone());
                Ok(Incoming::Message(Message::new(data, Some(Box::new(request)), line)))
            }
            None => Report::parse(frame.bytes()).map(Incoming::Report).map_err(|error| no_envelope(&error)),
        }
    }
}

impl Iterator for Stream {
    type Item = io::Result<Incoming>;

    fn next(&mut self) -> Option<io::Result<Incoming>> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

fn wrong(words: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, words.to_string())
}

impl Outbox {
    /// Answers the message with this [`message_id`](Message::message_id), in any order. Two answers to one message are one too
    /// many: the server drops the second.
    ///
    /// # Errors
    /// The server is gone; or the handler is a plain one, whose messages have no ids.
    pub fn answer(&self, message_id: &str, answer: &Answer) -> io::Result<()> {
        self.line()?.send(Some(message_id), answer, false)
    }

    /// Says something without having been asked. With an id ([`Answer::with_id`]) what becomes of it comes back as a
    /// [`Report`].
    ///
    /// # Errors
    /// The server is gone, or has no connection to the handler's socket at the moment; or the handler is a plain one, which can
    /// only speak through [`Informer::push`](super::Informer::push).
    pub fn push(&self, answer: &Answer) -> io::Result<()> {
        self.line()?.send(None, answer, false)
    }

    fn line(&self) -> io::Result<Arc<Line>> {
        let line = match &self.0 {
            To::Line(line) => Some(Arc::clone(line)),
            To::Latest(latest) => latest.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        match line {
            None => Err(io::Error::new(ErrorKind::NotConnected, "the server has no connection to this handler now")),
            Some(line) if line.form == Form::Plain => {
                Err(io::Error::new(ErrorKind::Unsupported, "a plain handler answers its messages, and pushes through its informer"))
            }
            Some(line) => Ok(line),
        }
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Messages")
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbox")
    }
}
