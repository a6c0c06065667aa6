//! `bester bench-handler`: the handler that `bester bench` talks to. It is as fast as a handler can be that is a program
//! of its own: it reads all there is, answers all of it and writes once, and looks at no more than the beginning of
//! each message.

use super::message::addressed;
use crate::cli::{Failure, no_free_arguments, parse, print};
use crate::config::Framing;
use crate::frame::{Decoder, PREFIX_BYTES};
use crate::transport::unix;
use getopts::Options;
use rustix::buffer::spare_capacity;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// What `bester bench-handler --help` prints.
pub const HELP: &str = "\
Usage: bester bench-handler [--listen PATH]

The handler that bester bench needs. It is no command for people, but for the configuration
of the server that is measured:

  \"bench\": { \"handlerBinary\": \"/path/to/bester\", \"arguments\": [\"bench-handler\"],
             \"inFlight\": 1024, \"queue\": 100000 }

It sends the data that it gets back to whoever sent it. Data that begins with {\"to\":[...],
as bester bench --fan-out sends it, goes to the users in the list.

With --listen it does not use its standard input and output, but listens:

  \"bench\": { \"unixDomainSocketPath\": \"/run/bench.sock\", \"connection\": \"persistent\",
             \"inFlight\": 1024, \"queue\": 100000 }

Options:
      --listen PATH         listen at PATH, and serve one connection after the other
  -h, --help                print this

The type's framing must be \"length\" and its envelope false, as they are by default.

Exit codes: 0 its input has ended, 64 called wrongly, 69 it cannot listen at PATH, 74 reading or
writing failed.
";

/// Room for what is read at once: more than a pipe or a socket usually holds.
const READ_BYTES: usize = 256 << 10;
/// The longest frame that is taken. The server has its own limit, and it is lower.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Carries out `bester bench-handler` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`].
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt("", "listen", "", "PATH").optflag("h", "help", "");
    let matches = parse("bench-handler", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    no_free_arguments("bench-handler", &matches)?;
    match matches.opt_str("listen") {
        Some(path) => listen(Path::new(&path)),
        None => on_stdio().map_err(|error| Failure::input_output(format_args!("the server cannot be talked to: {error}"))),
    }
}

fn on_stdio() -> io::Result<()> {
    // Not as standard output, which would be flushed wherever there is a line's end in the data.
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    serve(&io::stdin(), &mut output)
}

fn listen(path: &Path) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::unavailable(format_args!("cannot listen at {}: {error}", path.display()));
    let listener = unix::listen(path, 0o600).map_err(cannot)?;
    loop {
        let (stream, _) = listener.accept().map_err(cannot)?;
        // The server may leave at any time, and come again.
        let _ = serve(&stream, &mut &stream);
    }
}

/// Answers everything until the input ends.
fn serve(input: &impl AsFd, output: &mut dyn Write) -> io::Result<()> {
    let mut decoder = Decoder::new(Framing::Length, FRAME_BYTES_MAX);
    let mut answers = Vec::new();
    loop {
        match rustix::io::read(input, spare_capacity(decoder.space(READ_BYTES))) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => return Ok(()),
            read => read?,
        };
        answers.clear();
        while let Some(frame) = decoder.frame().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
            answer(frame.bytes(), &mut answers);
        }
        output.write_all(&answers)?;
    }
}

/// Appends the frame that answers a message with this data.
fn answer(data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    let data = match addressed(data) {
        None => {
            out.extend_from_slice(br#"{"header":{"status":"0","command":"reply"},"payload":{"data":"#);
            data
        }
        Some((names, data)) => {
            out.extend_from_slice(br#"{"header":{"status":"0","command":"sendClients","commandData":["#);
            out.extend_from_slice(names);
            out.extend_from_slice(br#"]},"payload":{"data":"#);
            data
        }
    };
    out.extend_from_slice(data);
    out.extend_from_slice(b"}}");
    // A few bytes more than a frame of at most 1 GiB.
    let length = (out.len() - start - PREFIX_BYTES) as u32;
    out[start..start + PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn everything_is_answered_however_it_is_cut() {
        let (server, handler) = UnixStream::pair().expect("a pair");
        let body = move || serve(&handler, &mut &handler).map(|()| drop(handler));
        let thread = crate::thread::spawn("handler", 64 << 10, body).expect("a thread");
        let mut wire = Vec::new();
        for data in ["1.0", r#"{"to":["a","b"],"data":{"x" :1}}"#, "\"long\""] {
            wire.extend_from_slice(&(data.len() as u32).to_le_bytes());
            wire.extend_from_slice(data.as_bytes());
        }
        for piece in wire.chunks(7) {
            (&server).write_all(piece).expect("a handler that reads");
        }
        server.shutdown(std::net::Shutdown::Write).expect("an open connection");
        let mut decoder = Decoder::new(Framing::Length, 1 << 20);
        io::copy(&mut &server, &mut Fed(&mut decoder)).expect("answers");
        let mut next = || decoder.frame().expect("a short frame").map(|frame| String::from_utf8_lossy(frame.bytes()).into_owned());
        assert_eq!(next().as_deref(), Some(r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1.0}}"#));
        let sent = r#"{"header":{"status":"0","command":"sendClients","commandData":["a","b"]},"payload":{"data":{"x" :1}}}"#;
        assert_eq!(next().as_deref(), Some(sent));
        assert_eq!(next().as_deref(), Some(r#"{"header":{"status":"0","command":"reply"},"payload":{"data":"long"}}"#));
        assert_eq!(next(), None);
        thread.join().expect("no panic").expect("a good end");
    }

    struct Fed<'a>(&'a mut Decoder);

    impl Write for Fed<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.feed(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
