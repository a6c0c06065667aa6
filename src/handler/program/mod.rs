//! For those who write a handler in Rust: a program of theirs, not a part of the server.
//!
//! Start reading at [`Handler`]; `message.rs` has what comes, `answer.rs` what goes, `stream.rs` what connects the two,
//! `listen.rs` the same for a handler with a socket of its own, and `informer.rs` a handler's own questions.

mod answer;
mod informer;
mod listen;
mod message;
mod stream;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Data, Raw};
pub use informer::{Change, Changes, Informer, InformerError, ServerInfo, Session};
pub use message::{Counts, Failure, Incoming, Message, Missed, Report, Speaker};
pub use stream::{Messages, Outbox};

pub use crate::protocol::handler::Offline;

use crate::config::Framing;
use crate::sys;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// So that the example there is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../handlers/rust/README.md")]
struct Manual;

/// A handler that exits with this code is not started again: it has found that it cannot work.
pub const DO_NOT_RESTART: u8 = 125;

/// Serves a plain handler over standard input and output: [`Handler::plain`] and [`Handler::serve`].
///
/// # Errors
/// As of [`Handler::serve`].
pub fn serve(handle: impl FnMut(Message) -> Answer) -> io::Result<()> {
    Handler::plain().serve(handle)
}

/// How a handler talks to the server. It must be what the handler's block in the configuration says, for neither side can tell
/// by looking: the data of a message may look like anything, like an envelope too.
///
/// With envelopes a handler learns who is speaking, may answer in any order, and may speak without being asked:
///
/// ```no_run
/// use bester::handler::{Answer, Handler, Incoming};
///
/// fn main() -> std::io::Result<()> {
///     let (messages, outbox) = Handler::envelope().open()?;
///     outbox.push(&Answer::send(["alice"], "the handler is there"))?;
///     for incoming in messages {
///         let Incoming::Message(message) = incoming? else { continue };
///         let user = message.user().unwrap_or("somebody").to_owned();
///         message.answer(Answer::reply(format!("hello, {user}")))?; // or hand the message to another thread
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Handler {
    form: Form,
    framing: Framing,
    channel: Channel,
    batched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Envelope,
}

#[derive(Debug, Clone)]
enum Channel {
    Stdio,
    Socket,
    Listen(PathBuf),
}

impl Handler {
    /// Gets the data of each message alone (`"envelope": false`, the default).
    pub fn plain() -> Handler {
        Handler::new(Form::Plain)
    }

    /// Gets envelopes, which say who is speaking (`"envelope": true`).
    pub fn envelope() -> Handler {
        Handler::new(Form::Envelope)
    }

    fn new(form: Form) -> Handler {
        Handler { form, framing: Framing::Length, channel: Channel::Stdio, batched: false }
    }

    /// One JSON text a line in both directions (`"framing": "lines"`), and not a length in front of each.
    pub fn lines(mut self) -> Handler {
        self.framing = Framing::Lines;
        self
    }

    /// Over descriptor 3 (`"transport": "socket"`), and not over standard input and output.
    pub fn socket(mut self) -> Handler {
        self.channel = Channel::Socket;
        self
    }

    /// Over a UNIX socket (`"transport": "unix"`), at the `unixDomainSocketPath` of the configuration. Whether the server
    /// makes a connection for each message or keeps one (`connection`) makes no difference here.
    pub fn listen(mut self, path: impl Into<PathBuf>) -> Handler {
        self.channel = Channel::Listen(path.into());
        self
    }

    /// Writes the answers to all messages that came together at once. That is faster for a handler that never waits for
    /// anything; any other would keep back the first answer while it works on the last. For [`Handler::serve`].
    pub fn batched(mut self) -> Handler {
        self.batched = true;
        self
    }

    /// Answers each message with what `handle` makes of it, until the server wants the handler to end.
    ///
    /// A panic in `handle` costs that message, which is refused with the status `internal`, and nothing else. What the
    /// function had half done by then is how the next message finds it.
    ///
    /// What is printed goes to the server's log, with standard output too (see [`Handler::open`]).
    ///
    /// # Errors
    /// As of [`Handler::open`] and [`Messages`]. A server that is gone is the end and no error.
    pub fn serve(self, mut handle: impl FnMut(Message) -> Answer) -> io::Result<()> {
        let batched = self.batched;
        let listening = matches!(self.channel, Channel::Listen(_));
        let (messages, _outbox) = self.open()?;
        stream::serve(messages, batched, listening, &mut handle)
    }

    /// The messages, and where answers and pushes go: for a handler that answers from several threads, or speaks without
    /// being asked.
    ///
    /// From here on standard output is the same as standard error, which the server puts into its log, so that a
    /// `println!` cannot be mistaken for an answer. Standard input is empty: what it brings are messages, and nothing that
    /// the handler starts may take one away.
    ///
    /// # Errors
    /// The server sends data alone and this handler takes envelopes (the server says `BESTER_ENVELOPE=1` to those that it
    /// sends envelopes): clients could write envelopes of their own. There is no standard input, output or error; there is
    /// no descriptor 3; it cannot be listened at the path.
    pub fn open(self) -> io::Result<(Messages, Outbox)> {
        let (started, told) =
            (std::env::var_os("BESTER_TYPE").is_some(), std::env::var_os("BESTER_ENVELOPE").is_some_and(|told| told == "1"));
        if self.form == Form::Envelope && started && !told {
            let words = "this handler takes envelopes: give it \"envelope\": true in the configuration";
            return Err(io::Error::new(ErrorKind::InvalidInput, words));
        }
        let stdio = take_stdio()?;
        match &self.channel {
            Channel::Stdio => Ok(self.over(stdio.0, stdio.1)),
            Channel::Socket => {
                let told = |error: io::Error| {
                    io::Error::new(error.kind(), format!("no channel on descriptor 3: {error}; is it \"transport\": \"socket\"?"))
                };
                let channel = sys::handler_channel().map_err(told)?;
                Ok(self.over(channel.try_clone()?, channel))
            }
            Channel::Listen(path) => listen::start(&self, path),
        }
    }

    /// Like [`Handler::open`], over descriptors of your choice and without looking at the transport: both ends of a
    /// `UnixStream::pair()`, say, to test a handler without a server.
    pub fn over(&self, input: impl Into<OwnedFd>, output: impl Into<OwnedFd>) -> (Messages, Outbox) {
        let line = stream::Line::new(self.form, self.framing, File::from(output.into()));
        stream::open(input.into(), line)
    }
}

/// Our own descriptors of standard input and output, which lead elsewhere from now on.
fn take_stdio() -> io::Result<(OwnedFd, OwnedFd)> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok((input, output))
}

/// Calls the function; its panic is an answer.
fn call(handle: &mut dyn FnMut(Message) -> Answer, message: Message) -> Answer {
    catch_unwind(AssertUnwindSafe(|| handle(message))).unwrap_or_else(|_| {
        say(format_args!("the message is refused, for the handler panicked over it"));
        Answer::internal()
    })
}

/// Whether an error only says that the server has left.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// To standard error, and so to the server's log. eprintln! would panic where that is closed.
fn say(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{words}");
}
