//! Frames: how one message is told from the next on a stream of bytes. Nothing here touches a socket.
//!
//! ```text
//! length framing   | u32 length, little endian | that many bytes of JSON |
//! line framing     | JSON without line breaks | \n |
//! ```
//!
//! [`Decoder`] eats bytes in any pieces and yields [`Frame`]s. A frame's bytes are shared, never copied again:
//! a [`Slice`] is a range of them, such as the untouched `data` of a message. A [`Packet`] is what is written; it has a file of
//! its own, `packet.rs`.

mod packet;

pub use packet::{Packet, put};

use crate::config::Framing;
use std::fmt;
use triomphe::ThinArc;

/// The bytes of length in front of each frame.
pub const PREFIX_BYTES: usize = 4;

/// Small frames that came together share their memory up to this. Each keeps all of it alive, so it is what a few bytes
/// that stay under way for long can cost.
const SHARED_BYTES_MAX: usize = 4 << 10;

/// A buffer that grew for one large frame is given back when it is empty and larger than this.
const KEPT_BUFFER_BYTES: usize = 64 << 10;

/// The bytes of one frame, without its length; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Slice);

impl Frame {
    /// The bytes, which may be anything: what is in a frame is looked at later.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// The same, to take parts of it.
    pub fn all(&self) -> &Slice {
        &self.0
    }
}

impl From<&[u8]> for Frame {
    fn from(bytes: &[u8]) -> Self {
        Frame(Slice::from(bytes))
    }
}

/// Message data is never printed, not even by accident.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.bytes().len())
    }
}

/// A range of bytes that are shared, such as the untouched `data` in a frame; it keeps all of them alive.
#[derive(Clone)]
pub struct Slice {
    shared: ThinArc<(), u8>,
    start: u32,
    end: u32,
}

impl Slice {
    /// The bytes, exactly as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.shared.slice[self.start as usize..self.end as usize]
    }

    /// A range of this slice; empty if there is no such range.
    pub fn slice(&self, start: usize, end: usize) -> Slice {
        let inside = start <= end && end <= self.len();
        // Both fit: what is shared is at most 1 GiB, the configuration's largest cap, and a length.
        let (start, end) = if inside { (start as u32, end as u32) } else { (0, 0) };
        Slice { shared: self.shared.clone(), start: self.start + start, end: self.start + end }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes it keeps alive.
    pub fn held(&self) -> usize {
        self.shared.slice.len()
    }

    /// Leaves the first bytes out, all of them if there are not so many.
    fn skip(&mut self, bytes: usize) {
        self.start += bytes.min(self.len()) as u32;
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Slice { shared: ThinArc::from_header_and_slice((), bytes), start: 0, end: bytes.len() as u32 }
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Slice {}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.bytes().len())
    }
}

/// A frame is longer than it may be. The border to the next frame is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// What was announced (length framing) or has come so far (lines), in bytes.
    pub frame_bytes: usize,
    /// What is allowed.
    pub frame_bytes_max: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame of {} bytes is more than the {} allowed here", self.frame_bytes, self.frame_bytes_max)
    }
}

impl std::error::Error for TooLarge {}

/// Makes frames of bytes. Memory follows the bytes that came, never the length that was promised.
pub struct Decoder {
    framing: Framing,
    frame_bytes_max: usize,
    /// What came and is not yet a frame begins at `start`; what is before it is done with.
    buffer: Vec<u8>,
    start: usize,
    /// Whole frames with their lengths, already shared; they come before what is in the buffer.
    whole: Option<Slice>,
    /// Up to where the buffer was searched for the end of a line, so that no byte is searched twice.
    searched: usize,
}

impl Decoder {
    /// A decoder that refuses frames longer than `frame_bytes_max`.
    pub fn new(framing: Framing, frame_bytes_max: usize) -> Decoder {
        Decoder { framing, frame_bytes_max, buffer: Vec::new(), start: 0, whole: None, searched: 0 }
    }

    /// Another cap, from the next frame on.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The buffer, with at least `space` bytes of room behind what it holds: the reader appends there, and
    /// changes nothing else.
    pub fn space(&mut self, space: usize) -> &mut Vec<u8> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            self.searched = 0;
            if self.buffer.capacity() > KEPT_BUFFER_BYTES {
                self.buffer = Vec::new();
            }
        } else if self.start > 0 && self.buffer.capacity() - self.buffer.len() < space {
            self.buffer.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        self.buffer.reserve(space);
        &mut self.buffer
    }

    /// Takes bytes that somebody else read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).extend_from_slice(bytes);
    }

    /// Bytes that came and are not yet a frame.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start + self.whole.as_ref().map_or(0, |whole| whole.bytes().len())
    }

    /// What came and is not yet a frame; for quoting text that is no frame.
    pub fn pending_bytes(&self) -> &[u8] {
        self.whole.as_ref().map_or(&self.buffer[self.start..], Slice::bytes)
    }

    /// How long the frame that has begun says it is, once that can be told.
    pub fn announced(&self) -> Option<usize> {
        match self.framing {
            Framing::Length => self.prefix().map(|length| length as usize),
            Framing::Lines => None,
        }
    }

    /// The next whole frame, if all its bytes are there.
    ///
    /// After an error the border is lost: every further call gives the same error.
    pub fn frame(&mut self) -> Result<Option<Frame>, TooLarge> {
        match self.framing {
            Framing::Length => self.length_frame(),
            Framing::Lines => self.line_frame(),
        }
    }

    fn prefix(&self) -> Option<u32> {
        let prefix = self.pending_bytes().first_chunk::<PREFIX_BYTES>()?;
        Some(u32::from_le_bytes(*prefix))
    }

    fn length_frame(&mut self) -> Result<Option<Frame>, TooLarge> {
        let Some(length) = self.prefix() else { return Ok(None) };
        let length = length as usize;
        self.check(length)?;
        let bytes = PREFIX_BYTES + length;
        let mut whole = match self.whole.take() {
            Some(whole) => whole,
            None if self.pending() < bytes => return Ok(None),
            None => self.share_whole_frames(bytes),
        };
        if whole.len() == bytes {
            whole.skip(PREFIX_BYTES);
            return Ok(Some(Frame(whole)));
        }
        let frame = whole.slice(PREFIX_BYTES, bytes);
        whole.skip(bytes);
        self.whole = Some(whole);
        Ok(Some(Frame(frame)))
    }

    /// Takes a frame of so many bytes out of the buffer, and with it those that follow, as far as they are whole and small.
    fn share_whole_frames(&mut self, first: usize) -> Slice {
        let pending = &self.buffer[self.start..];
        let mut end = first;
        while let Some(prefix) = pending[end..].first_chunk::<PREFIX_BYTES>() {
            let next = end.saturating_add(PREFIX_BYTES).saturating_add(u32::from_le_bytes(*prefix) as usize);
            if next > pending.len() || next > SHARED_BYTES_MAX {
                break;
            }
            end = next;
        }
        let whole = Slice::from(&pending[..end]);
        self.start += end;
        whole
    }

    fn line_frame(&mut self) -> Result<Option<Frame>, TooLarge> {
        let from = self.searched.max(self.start);
        let Some(at) = self.buffer[from..].iter().position(|&b| b == b'\n') else {
            self.searched = self.buffer.len();
            self.check(self.pending())?;
            return Ok(None);
        };
        let line = &self.buffer[self.start..from + at];
        self.check(line.len())?;
        let frame = Frame::from(line.strip_suffix(b"\r").unwrap_or(line));
        self.start = from + at + 1;
        self.searched = self.start;
        Ok(Some(frame))
    }

    fn check(&self, frame_bytes: usize) -> Result<(), TooLarge> {
        if frame_bytes > self.frame_bytes_max {
            return Err(TooLarge { frame_bytes, frame_bytes_max: self.frame_bytes_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(framing: Framing, bodies: &[Vec<u8>]) -> Vec<u8> {
        let packets = bodies.iter().map(|body| Packet::new(framing, Slice::from(&body[..])));
        packets.flat_map(|packet| packet.parts().concat()).collect()
    }

    fn decode(decoder: &mut Decoder, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for piece in pieces {
            decoder.feed(piece);
            while let Some(frame) = decoder.frame().expect("every frame is within the cap") {
                frames.push(frame.bytes().to_vec());
            }
        }
        frames
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            lines in any::<bool>(),
        ) {
            let framing = if lines { Framing::Lines } else { Framing::Length };
            let clean = |body: &Vec<u8>| -> Vec<u8> { body.iter().filter(|b| !(lines && matches!(b, b'\r' | b'\n'))).copied().collect() };
            let bodies: Vec<Vec<u8>> = bodies.iter().map(clean).collect();
            let bytes = wire(framing, &bodies);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let mut decoder = Decoder::new(framing, 300);
            prop_assert_eq!(decode(&mut decoder, &pieces), bodies);
            prop_assert_eq!(decoder.pending(), 0);
        }

        #[test]
        fn memory_follows_the_bytes_received(promised in 0u32..=u32::MAX, received in 0usize..5000) {
            let cap = 1 << 30;
            let mut decoder = Decoder::new(Framing::Length, cap);
            decoder.feed(&promised.to_le_bytes());
            let refused = decoder.frame().is_err();
            prop_assert_eq!(refused, promised as usize > cap);
            for _ in 0..received {
                decoder.feed(b" ");
            }
            prop_assert!(decoder.buffer.capacity() <= 2 * (PREFIX_BYTES + received) + 64);
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_on_its_four_bytes() {
        for (length, fine) in [(0u32, true), (16, true), (17, false), (u32::MAX, false)] {
            let mut decoder = Decoder::new(Framing::Length, 16);
            decoder.feed(&length.to_le_bytes());
            assert_eq!(decoder.frame().is_ok(), fine, "{length}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_at_the_cap() {
        let mut decoder = Decoder::new(Framing::Lines, 16);
        decoder.feed(&[b'x'; 16]);
        assert_eq!(decoder.frame(), Ok(None));
        decoder.feed(b"x");
        assert!(decoder.frame().is_err());
    }

    #[test]
    fn a_small_frame_keeps_little_more_than_itself_alive() {
        let mut decoder = Decoder::new(Framing::Length, 1 << 20);
        decoder.feed(&wire(Framing::Length, &vec![vec![b' '; 100]; 500]));
        let mut shared = 0;
        while let Some(frame) = decoder.frame().expect("within the cap") {
            assert!(frame.0.shared.slice.len() <= SHARED_BYTES_MAX);
            shared = shared.max(frame.0.shared.slice.len());
        }
        assert!(shared > 10 * 100, "those that came together share");
    }

    #[test]
    fn the_room_of_a_large_frame_is_given_back() {
        let mut decoder = Decoder::new(Framing::Length, 1 << 20);
        let large = wire(Framing::Length, &[vec![b' '; 1 << 20]]);
        decode(&mut decoder, &[&large]);
        decoder.space(1);
        assert!(decoder.buffer.capacity() <= KEPT_BUFFER_BYTES);
    }

    #[test]
    fn a_range_outside_its_slice_is_empty() {
        let slice = Slice::from(&b"abc"[..]);
        assert_eq!(slice.slice(1, 3).bytes(), b"bc");
        assert_eq!(slice.slice(2, 9).bytes(), b"");
        assert_eq!(slice.slice(1, 3).slice(1, 2).bytes(), b"c");
        assert_eq!(slice.slice(1, 3).slice(1, 3).bytes(), b"");
    }
}
