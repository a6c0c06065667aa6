//! What a handler prints to its standard error, made into lines of the log: bounded in length and number, and
//! without control characters, so that one event stays one line.

use crate::logging::Quota;
use std::collections::VecDeque;
use std::time::Instant;

/// A longer line is cut into pieces of this many bytes.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Of the last lines so many are kept, and so much of each, to be told with the program's death.
const LAST_MAX: usize = 5;
const LAST_BYTES_MAX: usize = 200;

/// The lines of one handler.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    quota: Quota,
    /// The last lines that are not empty.
    last: VecDeque<String>,
}

impl Lines {
    /// Takes what was printed; gives each line that is to be logged to `log`.
    pub(super) fn take(&mut self, now: Instant, bytes: &[u8], mut log: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(LINE_BYTES_MAX) {
                if self.partial.len() + part.len() > LINE_BYTES_MAX {
                    self.line(now, &mut log);
                }
                self.partial.extend_from_slice(part);
            }
            if whole {
                self.line(now, &mut log);
            }
        }
    }

    /// There will be nothing more: what is there is the last line.
    pub(super) fn end(&mut self, now: Instant, mut log: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.line(now, &mut log);
        }
        self.quota.end(log);
    }

    fn line(&mut self, now: Instant, log: &mut impl FnMut(&str)) {
        let line = std::mem::take(&mut self.partial);
        let beginning = &line[..line.len().min(LAST_BYTES_MAX)];
        if !beginning.trim_ascii().is_empty() {
            if self.last.len() == LAST_MAX {
                self.last.pop_front();
            }
            self.last.push_back(printable(&String::from_utf8_lossy(beginning)));
        }
        self.quota.line(now, || printable(&String::from_utf8_lossy(&line)), log);
    }

    /// The last lines that are not empty; also what is not yet a whole one. Long ones are cut.
    pub(super) fn last(&self) -> Vec<String> {
        let partial = self.partial[..self.partial.len().min(LAST_BYTES_MAX)].trim_ascii();
        let partial = (!partial.is_empty()).then(|| printable(&String::from_utf8_lossy(partial)));
        self.last.iter().cloned().chain(partial).collect()
    }
}

/// The text without anything that could move a cursor, begin a line or turn text around.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end_matches('\r').chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c == '\t' {
            out.push(' ');
        } else if c.is_control() || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let now = Instant::now();
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in pieces {
            lines.take(now, piece, |line| out.push(line.to_owned()));
        }
        lines.end(now, |line| out.push(line.to_owned()));
        out
    }

    #[test]
    fn pieces_become_lines() {
        assert_eq!(lines(&[b"a", b"b\nc\r\n\n", b"d"]), ["ab", "c", "", "d"]);
    }

    #[test]
    fn nothing_can_forge_a_line_of_the_log() {
        assert_eq!(lines(&["a\u{1b}[2J\u{202e}b\rc\n".as_bytes()]), [r"a\u{1b}[2J\u{202e}b\rc"]);
    }

    #[test]
    fn long_lines_are_cut_and_memory_stays_small() {
        let line = vec![b'x'; 3 * LINE_BYTES_MAX + 1];
        let lengths: Vec<usize> = lines(&[&line]).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
    }

    #[test]
    fn the_last_words_are_kept_and_no_more() {
        let mut lines = Lines::default();
        let text = format!("1\n2\n3\n\n4\n5\n \r\n{}\n7", "x".repeat(300));
        lines.take(Instant::now(), text.as_bytes(), |_| {});
        assert_eq!(lines.last(), ["2", "3", "4", "5", &"x".repeat(LAST_BYTES_MAX), "7"]);
    }

    #[test]
    fn a_flood_is_counted_and_not_shown() {
        let out = lines(&[b"x\n".repeat(250).as_slice()]);
        assert_eq!(out.len(), 101);
        assert_eq!(out[100], "(150 more lines are not shown: more than 100 a second)");
    }
}
