//! `bester frame`: lines to frames and back, so that `nc` and a shell are enough to talk to a server.
//!
//! Nothing waits for more input than it needs: what can be written is written before the next read.

use super::{Failure, OutputEnd, no_free_arguments, output, parse, print};
use crate::config::Framing;
use crate::frame::{Decoder, Frame, Packet};
use getopts::Options;
use serde::de::IgnoredAny;
use std::io::{self, ErrorKind, Read, Write};

/// What `bester frame --help` prints.
pub const HELP: &str = "\
Usage: bester frame [-d] [--raw] [--max-bytes N] < INPUT > OUTPUT

Puts four bytes of length, little endian, in front of each line of JSON, which makes it the
frame that servers and handlers expect; with -d, prints each frame as a line of JSON.

Try a server by hand, here with the messages in the file conversation:

  bester frame < conversation | nc -N 127.0.0.1 2223 | bester frame -d

Each line goes out at once, so this works as well with lines that are typed one by one.

Options:
  -d, --decode      frames in, lines out; a line break inside a frame becomes a space
  -r, --raw         make a frame of each line, whatever is in it: for trying out what a
                    server says to a malformed message
      --max-bytes N the longest line or frame that is taken (16777216)
  -h, --help        print this

A line is checked to be JSON but goes out as it came, byte for byte. Empty lines are left out;
with --raw they make empty frames.

Exit codes: 0 done, 64 called wrongly, 65 a line that is not JSON or too long, or a frame that
is too long or cut short, 74 input or output failed.
";

/// The longest line or frame unless another length is asked for.
const MAX_BYTES: usize = 16 << 20;
/// A longer frame than this is not supported: a range of one is kept in 32 bits, with room to spare.
const MAX_BYTES_MAX: usize = 1 << 30;
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

/// Carries out `bester frame` with the arguments that follow it.
///
/// # Errors
/// As in [`HELP`]. What came before the mistake has been written.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optflag("d", "decode", "").optflag("r", "raw", "").optopt("", "max-bytes", "", "N").optflag("h", "help", "");
    let matches = parse("frame", &options, args)?;
    if matches.opt_present("help") {
        return print(HELP);
    }
    let wrong = |what: &str| Failure::usage(format_args!("{what} (see bester frame --help)"));
    let (decode, raw) = (matches.opt_present("decode"), matches.opt_present("raw"));
    no_free_arguments("frame", &matches)?;
    if decode && raw {
        return Err(wrong("--raw is for making frames, not for -d"));
    }
    let max_bytes = match matches.opt_str("max-bytes").map(|text| text.parse::<usize>()) {
        None => MAX_BYTES,
        Some(Ok(bytes)) if (1..=MAX_BYTES_MAX).contains(&bytes) => bytes,
        Some(_) => return Err(wrong(&format!("--max-bytes takes a number from 1 to {MAX_BYTES_MAX}"))),
    };
    let mut input = io::stdin().lock();
    output(|out| match decode {
        true => to_lines(&mut input, out, max_bytes),
        false => to_frames(&mut input, out, max_bytes, raw),
    })
}

fn to_frames(input: &mut dyn Read, out: &mut dyn Write, max_bytes: usize, raw: bool) -> Result<(), OutputEnd> {
    let mut decoder = Decoder::new(Framing::Lines, max_bytes);
    let mut number = 0_u64;
    let mut put = |line: &Frame, out: &mut dyn Write| -> Result<(), OutputEnd> {
        number += 1;
        let bytes = line.bytes();
        if !raw {
            if bytes.trim_ascii().is_empty() {
                return Ok(());
            }
            check(bytes).map_err(|what| Failure::data(format_args!("line {number}: {what}")))?;
        }
        write(&Packet::framed(line.all().slice(0, bytes.len())), out)
    };
    loop {
        while let Some(line) = decoder.frame().map_err(|_| too_long(max_bytes))? {
            put(&line, out)?;
        }
        out.flush()?;
        if read(input, &mut decoder)? == 0 {
            break;
        }
    }
    // The last line may lack its end.
    if decoder.pending() > 0 {
        put(&Frame::from(decoder.pending_bytes()), out)?;
    }
    Ok(())
}

fn too_long(max_bytes: usize) -> Failure {
    Failure::data(format_args!("a line is longer than {max_bytes} bytes (--max-bytes)"))
}

fn to_lines(input: &mut dyn Read, out: &mut dyn Write, max_bytes: usize) -> Result<(), OutputEnd> {
    let mut decoder = Decoder::new(Framing::Length, max_bytes);
    loop {
        while let Some(frame) = decoder.frame().map_err(|error| Failure::data(format_args!("{error} (--max-bytes)")))? {
            write(&Packet::line(frame.all()), out)?;
        }
        out.flush()?;
        if read(input, &mut decoder)? == 0 {
            break;
        }
    }
    match (decoder.pending(), decoder.announced()) {
        (0, _) => Ok(()),
        (came, Some(length)) => {
            let whole = length + crate::frame::PREFIX_BYTES;
            Err(cut_short(whole - came, &format!("the frame's {length} bytes")).into())
        }
        (came, None) => Err(cut_short(crate::frame::PREFIX_BYTES - came, "the four bytes of length").into()),
    }
}

fn cut_short(missing: usize, of: &str) -> Failure {
    let are = if missing == 1 { "is" } else { "are" };
    Failure::data(format_args!("the input ends inside a frame: {missing} of {of} {are} missing"))
}

fn write(packet: &Packet, out: &mut dyn Write) -> Result<(), OutputEnd> {
    for part in packet.parts() {
        out.write_all(part)?;
    }
    Ok(())
}

fn read(input: &mut dyn Read, decoder: &mut Decoder) -> Result<usize, Failure> {
    let mut buffer = [0; READ_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(bytes) => {
                decoder.feed(&buffer[..bytes]);
                return Ok(bytes);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::input_output(format_args!("cannot read standard input: {error}"))),
        }
    }
}

/// Whether this is one JSON text; of any depth, for refusing that is the server's business.
fn check(line: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))?;
    let parsed = serde_json::from_str::<IgnoredAny>(text);
    parsed.map(|_| ()).map_err(|error| {
        // It would say "line 1", which is not the line that people look for.
        let words = error.to_string();
        let what = words.split(" at line ").next().unwrap_or_default();
        format!("not JSON: {what} at byte {}", error.column())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// Gives its pieces one read at a time.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    fn frames(input: &[u8], raw: bool) -> (Vec<u8>, Option<Failure>) {
        let mut out = Vec::new();
        let end = to_frames(&mut &*input, &mut out, 100, raw);
        (out, failure(end))
    }

    fn lines(input: &[u8]) -> (String, Option<Failure>) {
        let mut out = Vec::new();
        let end = to_lines(&mut &*input, &mut out, 100);
        (String::from_utf8(out).expect("UTF-8"), failure(end))
    }

    fn failure(end: Result<(), OutputEnd>) -> Option<Failure> {
        end.err().map(|end| match end {
            OutputEnd::Failure(failure) => failure,
            OutputEnd::Write(error) => panic!("{error}"),
        })
    }

    proptest! {
        #[test]
        fn lines_come_back_through_frames_however_they_are_split(
            numbers in prop::collection::vec(any::<u64>(), 0..20),
            size in 1usize..30,
        ) {
            let text: String = numbers.iter().map(|n| format!("{{\"n\": {n}}}\n")).collect();
            let split = |bytes: &[u8]| Pieces(bytes.chunks(size).map(<[u8]>::to_vec).collect());
            let (mut framed, mut back) = (Vec::new(), Vec::new());
            prop_assert!(to_frames(&mut split(text.as_bytes()), &mut framed, 100, false).is_ok());
            prop_assert_eq!(framed.len(), text.len() + 3 * numbers.len());
            prop_assert!(to_lines(&mut split(&framed), &mut back, 100).is_ok());
            prop_assert_eq!(String::from_utf8(back).expect("UTF-8"), text);
        }
    }

    #[test]
    fn lines_go_out_as_they_came() {
        assert_eq!(
            frames(b"{ \"a\":1.0,\"a\":1e999}\n\n  \n[]\r\n1", false),
            (b"\x14\0\0\0{ \"a\":1.0,\"a\":1e999}\x02\0\0\0[]\x01\0\0\x001".to_vec(), None)
        );
        assert_eq!(frames(b"{\n\nx\xff\n", true), (b"\x01\0\0\0{\0\0\0\0\x02\0\0\0x\xff".to_vec(), None));
    }

    #[test]
    fn a_line_that_is_not_json_is_refused_with_its_number() {
        for (line, what) in [
            (&b"[1,}"[..], "expected value at byte 4"),
            (b"{\"a\":1", "EOF while parsing an object at byte 6"),
            (b"1 2", "trailing characters at byte 3"),
            (b"\"\xff\"", "not UTF-8 at byte 2"),
        ] {
            let (out, failure) = frames(&[b"1\n\n", line, b"\n2\n"].concat(), false);
            let failure = failure.unwrap_or_else(|| panic!("{what}"));
            assert_eq!((failure.code, out), (65, b"\x01\0\0\x001".to_vec()));
            assert!(failure.message.starts_with("line 3: not ") && failure.message.contains(what), "{failure}");
        }
    }

    #[test]
    fn too_long_a_line_or_frame_is_refused() {
        for raw in [true, false] {
            assert_eq!(frames(&[b'1'; 101], raw).1.map(|failure| failure.code), Some(65));
            assert_eq!(frames(&[b'1'; 100], raw).1, None);
        }
        let (_, failure) = lines(b"\x65\0\0\0");
        assert!(failure.is_some_and(|failure| failure.code == 65 && failure.message.contains("101 bytes")));
    }

    #[test]
    fn a_frame_that_is_cut_short_is_told_with_what_is_missing() {
        for (input, missing) in [
            (&b"\x01\0\0\x001\x05\0\0\0{"[..], "4 of the frame's 5 bytes are missing"),
            (b"\x01\0\0\x001\x01\0\0\0", "1 of the frame's 1 bytes is missing"),
            (b"\x01\0\0\x001\x05\0\0", "1 of the four bytes of length is missing"),
        ] {
            let (out, failure) = lines(input);
            let failure = failure.expect("it is cut short");
            assert_eq!((out.as_str(), failure.code), ("1\n", 65));
            assert!(failure.message.ends_with(missing), "{failure}");
        }
        assert_eq!(lines(b""), (String::new(), None));
    }

    #[test]
    fn line_breaks_in_a_frame_become_spaces() {
        assert_eq!(lines(b"\x07\0\0\0[1,\r\n2]\0\0\0\0"), ("[1,  2]\n\n".to_owned(), None));
    }

    /// Notes, at each read, how much was written and flushed by then.
    struct Watch<'a> {
        pieces: Vec<&'a [u8]>,
        flushed: &'a Cell<usize>,
        seen: Vec<usize>,
    }

    impl Read for Watch<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.seen.push(self.flushed.get());
            let piece = if self.pieces.is_empty() { &[][..] } else { self.pieces.remove(0) };
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    struct Counting<'a> {
        written: usize,
        flushed: &'a Cell<usize>,
    }

    impl Write for Counting<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushed.set(self.written);
            Ok(())
        }
    }

    #[test]
    fn what_is_there_is_written_before_more_is_read() {
        let flushed = Cell::new(0);
        let mut input = Watch { pieces: vec![b"1\n2", b"2\n", b"3"], flushed: &flushed, seen: Vec::new() };
        assert!(to_frames(&mut input, &mut Counting { written: 0, flushed: &flushed }, 100, false).is_ok());
        assert_eq!(input.seen, [0, 5, 11, 11]);
        let flushed = Cell::new(0);
        let mut input = Watch { pieces: vec![b"\x01\0\0\x001\x01", b"\0\0\x002"], flushed: &flushed, seen: Vec::new() };
        assert!(to_lines(&mut input, &mut Counting { written: 0, flushed: &flushed }, 100).is_ok());
        assert_eq!(input.seen, [0, 2, 4]);
    }
}
