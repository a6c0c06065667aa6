//! The thread that reads what one start of a handler writes, on a stream that serves all its requests.
//!
//! Spawned by the handler's supervisor for each start; owns the reading half and the decoder; waits in `read`; ends
//! at the end of the input, or when what comes is no frame or one too many: then nobody can tell any longer which answer is
//! whose.

use super::allowance::Allowance;
use crate::config::Framing;
use crate::dispatcher::Event;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::Inbound;
use crate::frame::{Decoder, Frame, TooLarge};
use crate::gate::Gate;
use crate::name::{HandlerId, RequestId};
use crate::protocol::handler;
use crate::transport::Source;
use crossbeam_channel::Receiver;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// The stack of a handler's reader.
pub const STACK_BYTES: usize = 256 << 10;

/// How much is read at once; answers come in batches.
const READ_BYTES: usize = 64 << 10;
/// So many reads' worth of answers may be on their way to the dispatcher: one that it deals with, and the next. A
/// handler that writes without end is slowed down by that, and nobody else.
const BATCHES_MAX: usize = 2;
/// How much stray text is quoted.
const QUOTE_BYTES_MAX: usize = 64;

/// What the reader of a handler must know.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Whose answers they are.
    pub id: HandlerId,
    /// How frames are told apart.
    pub framing: Framing,
    /// How many requests it was ever given, where the order alone tells which answer is whose.
    pub asked: Option<Arc<AtomicUsize>>,
    /// How much it may say without being asked, if it may.
    pub pushes: Option<Arc<Allowance>>,
    /// Disconnected when there is no time to wait for anything any longer.
    pub hurry: Receiver<()>,
    /// The largest frame, in bytes (`limits.frameBytesHandler`).
    pub frame_bytes_max: usize,
    /// The deepest nesting of `data` (`limits.depth`).
    pub depth_max: usize,
    /// The most names in one command (`limits.recipients`).
    pub recipients_max: usize,
    /// To the dispatcher.
    pub inbound: Inlet,
    /// Set by a good answer: this start of the handler went well.
    pub answered: Arc<AtomicBool>,
}

/// How the reading ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The handler closed its side, or the server is at its end.
    Input,
    /// The same, in the middle of a frame.
    Amid(Complaint),
    /// What came is no frame, or an answer to nothing.
    Stray(Complaint),
}

/// What a handler did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// In words for everybody.
    pub told: String,
    /// In words for the log, which may quote it and name paths: that is nothing for clients.
    pub logged: String,
}

impl Complaint {
    /// The same, with more for the log.
    pub fn with(told: impl Into<String>, detail: impl fmt::Display) -> Complaint {
        let told = told.into();
        Complaint { logged: format!("{told}: {detail}"), told }
    }
}

/// The same words for everybody.
impl<T: Into<String>> From<T> for Complaint {
    fn from(words: T) -> Complaint {
        let told = words.into();
        Complaint { logged: told.clone(), told }
    }
}

/// Reads answers until the end.
pub fn read_answers(reading: &Reading, mut source: Source) -> End {
    let mut decoder = Decoder::new(reading.framing, reading.frame_bytes_max);
    let gate = Arc::new(Gate::new(BATCHES_MAX));
    // So many answers as the last read brought; a list that has to grow is copied each time.
    let mut expected = 0;
    let mut given = 0;
    loop {
        let growing = decoder.pending().min(READ_BYTES * 4);
        match source.read(decoder.space(READ_BYTES.max(growing))) {
            Ok(0) | Err(_) => return end_of_input(&decoder),
            Ok(_) => {}
        }
        // What came was written before anything that it is asked from now on. One answer more than it was asked for is
        // seen here for sure; the dispatcher may have asked the next thing by the time that it looks, and would take it
        // for the answer to that.
        let asked = reading.asked.as_ref().map_or(usize::MAX, |asked| asked.load(Ordering::SeqCst));
        let mut events = Vec::with_capacity(expected);
        let stray = loop {
            match next_frame(reading, &mut decoder) {
                Ok(Some(_)) if given == asked => break Some(UNASKED.into()),
                Ok(Some(frame)) => {
                    given += 1;
                    events.push(answered(reading, &frame, None));
                }
                Ok(None) => break None,
                Err(stray) => break Some(stray),
            }
        };
        expected = events.len();
        let pause = reading.pushes.as_ref().map(|pushes| pushes.take(Instant::now(), events.iter().filter(|event| is_push(event)).count()));
        if !events.is_empty() {
            let Some(entry) = gate.entry() else { return End::Input };
            if reading.inbound.send(Inbound::Answers(events, entry)).is_err() {
                return End::Input;
            }
        }
        if let Some(stray) = stray {
            return End::Stray(stray);
        }
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            // Its answers wait as well: whoever says too much is heard more slowly.
            let _ = reading.hurry.recv_timeout(pause);
        }
    }
}

/// What a handler did that answers more than it was asked.
const UNASKED: &str = "gave an answer that nobody had asked for";

/// Whether this is nobody's answer, in envelope form.
fn is_push(event: &Event) -> bool {
    let in_reply_to = match event {
        Event::Answered { answer: Ok(answer), .. } => &answer.in_reply_to,
        Event::Answered { answer: Err(wrong), .. } => &wrong.in_reply_to,
        _ => return false,
    };
    in_reply_to.is_none()
}

/// The event that a handler's frame makes; `request` where it has a connection of its own.
pub fn answered(reading: &Reading, frame: &Frame, request: Option<RequestId>) -> Event {
    let answer = handler::parse(frame, reading.depth_max, reading.recipients_max);
    if answer.is_ok() && !reading.answered.load(Ordering::Relaxed) {
        reading.answered.store(true, Ordering::Relaxed);
    }
    Event::Answered { id: reading.id, request, answer }
}

/// The next frame, or what is wrong with what stands in its place.
pub fn next_frame(reading: &Reading, decoder: &mut Decoder) -> Result<Option<Frame>, Complaint> {
    frame_or_stray(reading.framing, decoder)
}

/// The same, with no more than it needs.
pub fn frame_or_stray(framing: Framing, decoder: &mut Decoder) -> Result<Option<Frame>, Complaint> {
    match decoder.frame() {
        Ok(Some(frame)) if framing == Framing::Lines && !begins_like_an_answer(frame.bytes()) => {
            Err(stray(frame.bytes(), "a line of JSON"))
        }
        Ok(frame) => Ok(frame),
        Err(error) => Err(too_large(framing, decoder, error)),
    }
}

/// A line that is not even an object was never meant as an answer.
fn begins_like_an_answer(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{")
}

fn too_large(framing: Framing, decoder: &Decoder, error: TooLarge) -> Complaint {
    let bytes = decoder.pending_bytes();
    let text = bytes.iter().take(4).all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    if text && framing == Framing::Length {
        return stray(bytes, "a frame");
    }
    format!("{NO_FRAME}: {error} (limits.frameBytesHandler)").into()
}

const NO_FRAME: &str = "wrote what is no frame";

fn stray(bytes: &[u8], expected: &str) -> Complaint {
    let quoted = bytes[..bytes.len().min(QUOTE_BYTES_MAX)].escape_ascii();
    let logged = format!("wrote '{quoted}' where {expected} should start; is something printing to stdout?");
    Complaint { told: NO_FRAME.into(), logged }
}

/// What the end of the input means.
pub fn end_of_input(decoder: &Decoder) -> End {
    match decoder.pending() {
        0 => End::Input,
        bytes => End::Amid(format!("closed its output {bytes} bytes into a frame").into()),
    }
}
