//! What goes out: one frame, or one line, in as few pieces of memory as that takes.

use super::{KEPT_BUFFER_BYTES, PREFIX_BYTES, Slice};
use crate::config::Framing;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// What is written to one destination in one piece.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    length: Length,
    body: Slice,
    rest: Option<Arc<Rest>>,
}

/// What follows the body of a packet that is not in one piece.
#[derive(PartialEq, Eq)]
struct Rest {
    /// Large, and where it was before.
    data: Slice,
    end: Slice,
}

/// Where the length of a packet stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// Before the body, which has no room for it.
    Apart([u8; PREFIX_BYTES]),
    /// In the first bytes of the body.
    Inside,
    /// Nowhere: the body is a line.
    Nowhere,
}

thread_local! {
    /// Where packets are written before their size is known; used again and again.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends a frame with the text that `write` appends, in the way that the other side tells frames apart.
#[inline]
pub fn put(framing: Framing, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    match framing {
        Framing::Length => {
            out.extend_from_slice(&[0; PREFIX_BYTES]);
            write(out);
            // At most 1 GiB, as above.
            let length = ((out.len() - start - PREFIX_BYTES) as u32).to_le_bytes();
            out[start..start + PREFIX_BYTES].copy_from_slice(&length);
        }
        Framing::Lines => {
            write(out);
            out[start..].iter_mut().for_each(|byte| *byte = in_a_line(*byte));
            out.push(b'\n');
        }
    }
}

/// Line breaks in a JSON text stand between tokens only, where a space means the same.
fn in_a_line(byte: u8) -> u8 {
    if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }
}

impl Packet {
    /// `body` with its length in front of it.
    pub fn framed(body: Slice) -> Packet {
        // At most 1 GiB, as above.
        let length = (body.bytes().len() as u32).to_le_bytes();
        Packet { length: Length::Apart(length), body, rest: None }
    }

    /// A frame with the text that `write` appends. It must not make another packet meanwhile.
    pub fn write(write: impl FnOnce(&mut Vec<u8>)) -> Packet {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            put(Framing::Length, scratch, write);
            let body = Slice::from(&scratch[..]);
            if scratch.capacity() > KEPT_BUFFER_BYTES {
                *scratch = Vec::new();
            }
            Packet { length: Length::Inside, body, rest: None }
        })
    }

    /// A frame with `data` between two texts. The data is not copied, so what it is a part of is kept alive.
    pub fn around(before: impl FnOnce(&mut Vec<u8>), data: Slice, after: impl FnOnce(&mut Vec<u8>)) -> Packet {
        let mut text = vec![0; PREFIX_BYTES];
        before(&mut text);
        let middle = text.len();
        after(&mut text);
        let length = ((text.len() - PREFIX_BYTES + data.len()) as u32).to_le_bytes();
        text[..PREFIX_BYTES].copy_from_slice(&length);
        let text = Slice::from(&text[..]);
        let rest = Rest { data, end: text.slice(middle, text.len()) };
        Packet { length: Length::Inside, body: text.slice(0, middle), rest: Some(Arc::new(rest)) }
    }

    /// Like [`Packet::write`], in the way that the other side tells frames apart.
    pub fn write_as(framing: Framing, write: impl FnOnce(&mut Vec<u8>)) -> Packet {
        match framing {
            Framing::Length => Packet::write(write),
            Framing::Lines => {
                let mut body = Vec::new();
                write(&mut body);
                Packet::line(&Slice::from(&body[..]))
            }
        }
    }

    /// `body` as one line.
    pub fn line(body: &Slice) -> Packet {
        let mut line: Vec<u8> = body.bytes().iter().map(|&byte| in_a_line(byte)).collect();
        line.push(b'\n');
        Packet { length: Length::Nowhere, body: Slice::from(&line[..]), rest: None }
    }

    /// `body` in the way that the other side tells frames apart.
    pub fn new(framing: Framing, body: Slice) -> Packet {
        match framing {
            Framing::Length => Packet::framed(body),
            Framing::Lines => Packet::line(&body),
        }
    }

    /// The same text, in the way that the other side tells frames apart.
    pub fn framed_as(self, framing: Framing) -> Packet {
        match framing {
            Framing::Length => self,
            Framing::Lines => Packet::line(&Slice::from(&*self.body())),
        }
    }

    /// Its bytes, in parts that go one after the other; all but the second are often empty.
    pub fn parts(&self) -> [&[u8]; 4] {
        let before: &[u8] = if let Length::Apart(length) = &self.length { length } else { &[] };
        let (data, end) = self.rest.as_ref().map_or((&[][..], &[][..]), |rest| (rest.data.bytes(), rest.end.bytes()));
        [before, self.body.bytes(), data, end]
    }

    /// How many bytes it takes on the wire.
    pub fn wire_bytes(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// The frame's text, without what frames it.
    pub fn body(&self) -> Cow<'_, [u8]> {
        let body = match self.length {
            Length::Inside => &self.body.bytes()[PREFIX_BYTES..],
            Length::Apart(_) | Length::Nowhere => self.body.bytes(),
        };
        match &self.rest {
            None => Cow::Borrowed(body),
            Some(rest) => Cow::Owned([body, rest.data.bytes(), rest.end.bytes()].concat()),
        }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet({} bytes)", self.wire_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        let packet = Packet::new(Framing::Lines, Slice::from(&b"{\"a\":\r\n1}"[..]));
        assert_eq!(packet.parts().concat(), b"{\"a\":  1}\n");
        let mut out = b"1\n".to_vec();
        put(Framing::Lines, &mut out, |body| body.extend_from_slice(b"{\"a\":\r\n1}"));
        assert_eq!(out, b"1\n{\"a\":  1}\n");
    }
}
