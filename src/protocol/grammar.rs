//! The grammar of JSON. Bytes that are not ASCII can only stand in strings, and are taken for UTF-8; whether some did is
//! remembered, for somebody must look at them then.
//!
//! This is where the time goes when messages are read, so everything is small enough to end up in one function, and
//! an error is no more than a byte.

use super::json::Kind;
use super::nest::Nest;

/// What an error is: what was expected at the place where the cursor is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Value,
    FirstKey,
    Key,
    Colon,
    InObject,
    InArray,
    Closing,
    Quote,
    Escaped,
    Escape,
    HexDigit,
    Digit,
    End,
}

impl Expected {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Expected::Value => "a value",
            Expected::FirstKey => "a key or `}`",
            Expected::Key => "a key",
            Expected::Colon => "`:`",
            Expected::InObject => "`,` or `}`",
            Expected::InArray => "`,` or `]`",
            Expected::Closing => "closing brackets",
            Expected::Quote => "a closing quote",
            Expected::Escaped => "an escape instead of a control character",
            Expected::Escape => "an escape that JSON has",
            Expected::HexDigit => "a hexadecimal digit",
            Expected::Digit => "a digit",
            Expected::End => "the end",
        }
    }
}

/// What a value turned out to be; as in [`super::json::Value`].
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) escaped: bool,
    pub(super) too_deep: bool,
}

/// A place in a text.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    /// The next byte to be looked at; never more than there are.
    at: usize,
    /// No string that it went over had anything but ASCII in it.
    ascii: bool,
}

impl<'a> Cursor<'a> {
    /// At this place.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at: at.min(bytes.len()), ascii: true }
    }

    /// How many bytes are behind it.
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// Whether all strings up to here are ASCII for certain.
    pub(super) fn is_ascii(self) -> bool {
        self.ascii
    }

    /// The next byte, or 0 at the end: a NUL is not allowed anywhere in JSON.
    #[inline(always)]
    pub(super) fn peek(self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Over a byte that was looked at.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        self.at = (self.at + 1).min(self.bytes.len());
    }

    #[inline(always)]
    pub(super) fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// A value, which begins right here.
    #[inline(always)]
    pub(super) fn value(&mut self, depth_max: usize) -> Result<Found, Expected> {
        let found = |kind| Found { kind, escaped: false, too_deep: false };
        match self.peek() {
            b'"' => Ok(Found { escaped: self.string()?, ..found(Kind::String) }),
            b'{' => Ok(Found { too_deep: self.container(depth_max)?, ..found(Kind::Object) }),
            b'[' => Ok(Found { too_deep: self.container(depth_max)?, ..found(Kind::Array) }),
            _ => self.scalar().map(found),
        }
    }

    /// A whole array or object; whether it is nested deeper than allowed.
    fn container(&mut self, depth_max: usize) -> Result<bool, Expected> {
        let mut this = *self;
        let result = this.nested(depth_max);
        *self = this;
        result
    }

    #[inline(always)]
    fn nested(&mut self, depth_max: usize) -> Result<bool, Expected> {
        let mut nest = Nest::default();
        let mut too_deep = false;
        loop {
            // Here a value begins.
            match self.peek() {
                b'"' => {
                    self.string()?;
                }
                b'{' => {
                    self.open(&mut nest, true)?;
                    too_deep |= nest.depth() > depth_max;
                    if self.peek() != b'}' {
                        self.key(true)?;
                        self.colon()?;
                        continue;
                    }
                    self.at += 1;
                    nest.close();
                }
                b'[' => {
                    self.open(&mut nest, false)?;
                    too_deep |= nest.depth() > depth_max;
                    if self.peek() != b']' {
                        continue;
                    }
                    self.at += 1;
                    nest.close();
                }
                _ => {
                    self.scalar()?;
                }
            }
            // Here a value has ended, and with it perhaps the containers that it is the last of.
            loop {
                let Some(object) = nest.object() else {
                    return Ok(too_deep);
                };
                self.space();
                let byte = self.peek();
                if byte == b',' {
                    self.at += 1;
                    self.space();
                    if object {
                        self.key(false)?;
                        self.colon()?;
                    }
                    break;
                }
                if byte != if object { b'}' } else { b']' } {
                    return Err(separator(object));
                }
                self.at += 1;
                nest.close();
            }
        }
    }

    #[inline(always)]
    fn open(&mut self, nest: &mut Nest, object: bool) -> Result<(), Expected> {
        self.at += 1;
        // Each open container needs a byte to close it. Looking now and then is enough to keep the stack's memory
        // below a bit for each byte of the text.
        if nest.is_full() && nest.depth() >= self.bytes.len() - self.at {
            self.at = self.bytes.len();
            return Err(Expected::Closing);
        }
        nest.open(object);
        self.space();
        Ok(())
    }

    /// Between the members of a container: whether another one follows.
    #[inline(always)]
    pub(super) fn another(&mut self, first: bool, close: u8) -> Result<bool, Expected> {
        self.space();
        let byte = self.peek();
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            if byte != b',' {
                return Err(separator(close == b'}'));
            }
            self.at += 1;
            self.space();
        }
        Ok(true)
    }

    /// A key, which begins right here; whether there is an escape in it.
    #[inline(always)]
    pub(super) fn key(&mut self, first: bool) -> Result<bool, Expected> {
        if self.peek() != b'"' {
            return Err(if first { Expected::FirstKey } else { Expected::Key });
        }
        self.string()
    }

    /// As in [`super::json::Scanner::known_key`]; the key begins right here.
    #[inline(always)]
    pub(super) fn known_key(&mut self, known: &[&str], next: usize) -> Option<usize> {
        let rest = self.bytes.get(self.at..)?.strip_prefix(b"\"")?;
        let mut place = next;
        for _ in known {
            place = if place < known.len() { place } else { 0 };
            let key = known[place];
            if rest.get(key.len()) == Some(&b'"') && rest.starts_with(key.as_bytes()) {
                self.at += key.len() + 2;
                return Some(place);
            }
            place += 1;
        }
        None
    }

    /// The colon behind a key, with the space around it.
    #[inline(always)]
    pub(super) fn colon(&mut self) -> Result<(), Expected> {
        self.space();
        if self.peek() != b':' {
            return Err(Expected::Colon);
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// A string, from its opening quote on; whether there is an escape in it.
    #[inline(always)]
    fn string(&mut self) -> Result<bool, Expected> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let (plain, ascii) = plain_bytes(self.bytes.get(self.at..).unwrap_or_default());
            self.at += plain;
            self.ascii &= ascii;
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ if self.at == self.bytes.len() => return Err(Expected::Quote),
                _ => return Err(Expected::Escaped),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Expected> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_ascii_hexdigit() {
                        return Err(Expected::HexDigit);
                    }
                    self.at += 1;
                }
            }
            _ => return Err(Expected::Escape),
        }
        Ok(())
    }

    #[inline(always)]
    fn scalar(&mut self) -> Result<Kind, Expected> {
        match self.peek() {
            b'-' | b'0'..=b'9' => self.number().map(|()| Kind::Number),
            b't' => self.word(b"true").map(|()| Kind::True),
            b'f' => self.word(b"false").map(|()| Kind::False),
            b'n' => self.word(b"null").map(|()| Kind::Null),
            _ => Err(Expected::Value),
        }
    }

    #[inline(always)]
    fn word<const N: usize>(&mut self, word: &[u8; N]) -> Result<(), Expected> {
        let here = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        if here != Some(word) {
            return Err(Expected::Value);
        }
        self.at += N;
        Ok(())
    }

    #[inline(always)]
    fn number(&mut self) -> Result<(), Expected> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            b'I' => {
                // `-Infinity` is to be named as a whole.
                self.at = start;
                return Err(Expected::Value);
            }
            _ => return Err(Expected::Digit),
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), Expected> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(Expected::Digit) } else { Ok(()) }
    }
}

fn separator(object: bool) -> Expected {
    if object { Expected::InObject } else { Expected::InArray }
}

/// How many bytes at the start are neither a quote nor a backslash nor a control character, and whether all of them are
/// ASCII for certain.
///
/// Most strings are short, so it begins with words of eight bytes; what is longer goes on in blocks.
#[inline(always)]
pub(super) fn plain_bytes(bytes: &[u8]) -> (usize, bool) {
    const WORDS_FIRST: usize = 4;
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut index, mut seen) = (0, 0);
    while let Some(word) = words.get(index) {
        let word = u64::from_le_bytes(*word);
        let stops = stops(word);
        seen |= word;
        if stops != 0 {
            return (index * 8 + stops.trailing_zeros() as usize / 8, seen & HIGH == 0);
        }
        index += 1;
        if index == WORDS_FIRST {
            let (plain, ascii) = plain_words(words.get(index..).unwrap_or_default());
            index += plain;
            seen |= if ascii { 0 } else { HIGH };
        }
    }
    let stop = rest.iter().position(|&b| b < b' ' || b == b'"' || b == b'\\');
    (words.len() * 8 + stop.unwrap_or(rest.len()), seen & HIGH == 0 && rest.is_ascii())
}

/// Words at the start without a stop in them, and whether they are ASCII; not all there are, but all up to the block of
/// the first stop.
#[inline(never)]
fn plain_words(words: &[[u8; 8]]) -> (usize, bool) {
    const BLOCK: usize = 8;
    let (blocks, _) = words.as_chunks::<BLOCK>();
    let (mut plain, mut seen) = (0, 0);
    for block in blocks {
        // Without a way out in the middle of a block, the compiler looks at many bytes at once.
        let look = |(stop, seen), &b: &u8| (stop | (b < b' ') | (b == b'"') | (b == b'\\'), seen | b);
        let (stop, bits) = block.as_flattened().iter().fold((false, 0), look);
        if stop {
            break;
        }
        plain += BLOCK;
        seen |= bits;
    }
    (plain, seen < 0x80)
}

/// One in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;
/// What is set in a byte that is not ASCII.
const HIGH: u64 = EACH * 0x80;

/// A mask whose lowest bit is in the first byte of `word` that ends a run of plain bytes. (Higher bits may be wrong:
/// the subtractions borrow, but only from bytes behind a right one.)
#[inline(always)]
fn stops(word: u64) -> u64 {
    let quote = word ^ (EACH * b'"' as u64);
    let backslash = word ^ (EACH * b'\\' as u64);
    let control = word.wrapping_sub(EACH * b' ' as u64) & !word;
    let quote = quote.wrapping_sub(EACH) & !quote;
    let backslash = backslash.wrapping_sub(EACH) & !backslash;
    (control | quote | backslash) & HIGH
}
