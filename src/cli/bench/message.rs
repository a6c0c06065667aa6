//! The form of a message's data, which the load and the handler must agree on. No I/O.
//!
//! ```text
//! "RRRRRRRR FFFFFF SSSSSSSSSSSS TTTTTTTTTTTT CCCCCCCCCCCCCCCC fill..."      what is delivered: a JSON string
//! {"to":["bench1","bench2"],"data":"..."}                                  what is sent, unless it goes to its sender
//! ```
//!
//! All numbers are hexadecimal: the run, the sender, the sequence number, the time in nanoseconds and a checksum over
//! everything else. That they stand at fixed places makes it cheap to write and to read them, and any other byte wrong.

use std::hash::{DefaultHasher, Hasher};

const RUN: (usize, usize) = (1, 8);
const FROM: (usize, usize) = (10, 6);
const SEQ: (usize, usize) = (17, 12);
const AT: (usize, usize) = (30, 12);
const SUM: (usize, usize) = (43, 16);
const FILL: usize = 60;

/// The shortest data: everything but the fill, and the closing quote.
pub(super) const DATA_BYTES_MIN: usize = FILL + 1;
/// The most senders that there is a number for.
pub(super) const SENDERS_MAX: usize = 1 << (4 * FROM.1);

const TO: &[u8] = br#"{"to":["#;
const DATA: &[u8] = br#"],"data":"#;
/// What the fill is cut from, starting at another place each time, so that fills of neighbours differ.
const PATTERN: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What tells one message from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which run of `bester bench`: somebody else may be at work with the same users.
    pub(super) run: u32,
    /// Which of the sessions of the run.
    pub(super) from: u32,
    /// Which of its messages, from 0.
    pub(super) seq: u64,
    /// When it was to be sent, in nanoseconds since the run began.
    pub(super) at: u64,
}

impl Stamp {
    /// Appends data of `size` bytes, not fewer than [`DATA_BYTES_MIN`].
    pub(super) fn write(&self, size: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'"');
        for (number, (_, digits)) in [(u64::from(self.run), RUN), (u64::from(self.from), FROM), (self.seq, SEQ), (self.at, AT), (0, SUM)] {
            put_hex(out, number, digits);
            out.push(b' ');
        }
        let mut left = size - DATA_BYTES_MIN;
        let mut from = (self.seq % 64) as usize;
        while left > 0 {
            let piece = &PATTERN[from..];
            let piece = &piece[..piece.len().min(left)];
            out.extend_from_slice(piece);
            left -= piece.len();
            from = 0;
        }
        out.push(b'"');
        let sum = checksum(&out[start..]);
        let at = start + SUM.0;
        write_hex(&mut out[at..at + SUM.1], sum);
    }

    /// Reads data that should have been written like this. `None`: not a byte of it can be relied on.
    pub(super) fn read(data: &[u8], size: usize) -> Option<Stamp> {
        if data.len() != size || size < DATA_BYTES_MIN {
            return None;
        }
        let stamp = Stamp {
            run: u32::try_from(hex(data, RUN)?).ok()?,
            from: u32::try_from(hex(data, FROM)?).ok()?,
            seq: hex(data, SEQ)?,
            at: hex(data, AT)?,
        };
        (hex(data, SUM)? == checksum(data)).then_some(stamp)
    }
}

/// Not against malice: only against mistakes. Covers everything but its own place.
fn checksum(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&data[..SUM.0]);
    hasher.write(&data[SUM.0 + SUM.1..]);
    hasher.finish()
}

fn put_hex(out: &mut Vec<u8>, number: u64, digits: usize) {
    let at = out.len();
    out.resize(at + digits, b'0');
    write_hex(&mut out[at..], number);
}

fn write_hex(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn hex(data: &[u8], (start, digits): (usize, usize)) -> Option<u64> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(u64::from(b - b'0')),
        b'a'..=b'f' => Some(u64::from(b - b'a' + 10)),
        _ => None,
    };
    data[start..start + digits].iter().try_fold(0, |number, &b| Some(number << 4 | digit(b)?))
}

/// Appends what comes before data that goes to `names`; [`END`] comes after it.
pub(super) fn address<'a>(names: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.extend_from_slice(TO);
    for (index, name) in names.enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(DATA);
}

/// What comes after data with an address.
pub(super) const END: &[u8] = b"}";

/// Takes data with an address apart: the inside of the list of names, and the data. `None`: it has no address.
pub(super) fn addressed(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = data.strip_prefix(TO)?.strip_suffix(END)?;
    // There is no such bracket in a user's name.
    let end = rest.iter().position(|&b| b == b']')?;
    Some((&rest[..end], rest[end..].strip_prefix(DATA)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 0xfeed_beef, from: 70_000, seq: 0x1234_5678_9abc, at: 3_600_000_000_000 };

    fn data(size: usize) -> Vec<u8> {
        let mut data = Vec::new();
        STAMP.write(size, &mut data);
        data
    }

    #[test]
    fn what_is_written_is_read_and_is_json() {
        for size in [DATA_BYTES_MIN, 62, 128, 124, 125, 1000] {
            let data = data(size);
            assert_eq!(data.len(), size);
            assert_eq!(Stamp::read(&data, size), Some(STAMP));
            assert!(serde_json::from_slice::<String>(&data).is_ok());
        }
    }

    #[test]
    fn every_changed_byte_and_every_other_length_is_seen() {
        let good = data(100);
        for at in 0..good.len() {
            for change in [1, 2, 0x20] {
                let mut bad = good.clone();
                bad[at] ^= change;
                assert_eq!(Stamp::read(&bad, 100), None, "byte {at}");
            }
        }
        assert_eq!(Stamp::read(&good[..99], 100), None);
        assert_eq!(Stamp::read(&good, 101), None);
        assert_eq!(Stamp::read(b"", 0), None);
        assert_eq!(Stamp::read(b"null", 4), None);
    }

    #[test]
    fn an_address_is_written_and_read() {
        let mut sent = Vec::new();
        address(["a", "b.c-1"].into_iter(), &mut sent);
        sent.extend_from_slice(&data(80));
        sent.extend_from_slice(END);
        assert!(serde_json::from_slice::<serde_json::Value>(&sent).is_ok());
        assert_eq!(addressed(&sent), Some((&br#""a","b.c-1""#[..], &data(80)[..])));
        for other in [&b""[..], b"null", b"{}", br#"{"to":[]}"#, br#"{"to":["a"],"date":1}"#, &data(80)] {
            assert_eq!(addressed(other), None);
        }
    }
}
