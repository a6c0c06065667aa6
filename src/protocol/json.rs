//! JSON syntax: a scanner that goes over a text once, from left to right, and says where things stand.
//!
//! It accepts exactly the texts of RFC 8259 in UTF-8, builds nothing, and needs the same small call stack for any
//! nesting. What the values mean is for others to say: see `fields.rs`.

use super::grammar::{Cursor, Expected, Found};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// What a value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number of any size.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// Where a value stands in its text. Small enough to be handed around in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    start: u32,
    end: u32,
    /// What it is.
    pub kind: Kind,
    /// A string with at least one escape in it.
    pub escaped: bool,
    /// More containers stand in each other than was allowed.
    pub too_deep: bool,
}

impl Value {
    /// From its first byte up to the one after its last; of a string, both quotes are in it.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The same of a string, without its quotes.
    pub fn inner(self) -> Range<usize> {
        self.start as usize + 1..(self.end as usize).saturating_sub(1)
    }
}

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    at: u32,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Empty,
    NotUtf8,
    /// A word that some programs write for numbers that JSON lacks.
    NoNumber(NoNumber),
    Expected(Expected),
    /// The text ends where this was expected.
    Ends(Expected),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoNumber {
    NaN,
    Infinity,
    MinusInfinity,
}

impl NoNumber {
    const ALL: [NoNumber; 3] = [NoNumber::NaN, NoNumber::Infinity, NoNumber::MinusInfinity];

    fn as_str(self) -> &'static str {
        match self {
            NoNumber::NaN => "NaN",
            NoNumber::Infinity => "Infinity",
            NoNumber::MinusInfinity => "-Infinity",
        }
    }
}

impl Broken {
    /// How many bytes are in front of the place.
    pub fn at(&self) -> usize {
        self.at as usize
    }

    /// Whether there was no byte at all.
    pub fn is_empty(&self) -> bool {
        self.what == What::Empty
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.what {
            What::Empty => write!(f, "it is empty"),
            What::NotUtf8 => write!(f, "the bytes from byte {at} on are not UTF-8"),
            What::NoNumber(word) => {
                let word = word.as_str();
                write!(f, "{word} at byte {at}; {word} is not JSON, null or a string can stand for it")
            }
            What::Expected(what) => write!(f, "expected {} at byte {at}", what.as_str()),
            What::Ends(what) => write!(f, "expected {} at byte {at}, where it ends", what.as_str()),
        }
    }
}

impl std::error::Error for Broken {}

/// Reads a text piece by piece, in the order in which it stands.
#[derive(Clone)]
pub struct Scanner<'a> {
    text: &'a [u8],
    cursor: Cursor<'a>,
}

impl<'a> Scanner<'a> {
    /// Starts in front of the text's only value.
    ///
    /// Bytes that are not UTF-8 are an error where they begin, but that may be found at the [end](Scanner::end) only:
    /// strings that are wanted before must be [unescaped](Scanner::unescaped), unless all is ASCII so far.
    pub fn new(text: &'a [u8]) -> Scanner<'a> {
        Scanner { text, cursor: Cursor::new(text, 0) }
    }

    /// Whether all strings so far are ASCII for certain.
    pub fn is_ascii(&self) -> bool {
        self.cursor.is_ascii()
    }

    /// Another scanner, in front of a value that this one has passed.
    pub fn again(&self, value: Value) -> Scanner<'a> {
        Scanner { cursor: Cursor::new(self.text, value.start as usize), text: self.text }
    }

    /// The bytes of a value as they stand.
    pub fn raw(&self, value: Value) -> &'a [u8] {
        self.text.get(value.range()).unwrap_or_default()
    }

    /// What a string says; nothing if half a surrogate pair stands in it, which is JSON but not Unicode, or if it is not UTF-8.
    pub fn unescaped(&self, string: Value) -> Option<Cow<'a, str>> {
        if string.escaped {
            return serde_json::from_slice(self.raw(string)).ok().map(Cow::Owned);
        }
        std::str::from_utf8(self.text.get(string.inner())?).ok().map(Cow::Borrowed)
    }

    /// Whether the next byte that counts is this one; it is not consumed.
    pub fn next_is(&mut self, byte: u8) -> bool {
        self.cursor.space();
        self.cursor.peek() == byte
    }

    /// Consumes a value with everything in it. `[]` has a depth of 1.
    #[inline]
    pub fn value(&mut self, depth_max: usize) -> Result<Value, Broken> {
        self.read(|cursor| {
            cursor.space();
            let start = place(*cursor);
            let Found { kind, escaped, too_deep } = cursor.value(depth_max)?;
            Ok(Value { kind, start, end: place(*cursor), escaped, too_deep })
        })
    }

    /// Consumes the brace or bracket that [`Scanner::next_is`] has seen.
    pub fn enter(&mut self) {
        self.cursor.step();
    }

    /// Inside an object: whether another key follows; if not, the closing brace is consumed.
    #[inline(always)]
    pub fn another_key(&mut self, first: bool) -> Result<bool, Broken> {
        self.read(|cursor| cursor.another(first, b'}'))
    }

    /// Consumes the key that follows if it is one of `known`, written without escapes: its place among them. The one at
    /// `next` is looked at first.
    #[inline(always)]
    pub fn known_key(&mut self, known: &[&str], next: usize) -> Option<usize> {
        self.cursor.known_key(known, next)
    }

    /// Consumes the key that follows, whatever it is.
    pub fn any_key(&mut self, first: bool) -> Result<Value, Broken> {
        self.read(|cursor| {
            let start = place(*cursor);
            let escaped = cursor.key(first)?;
            Ok(Value { kind: Kind::String, start, end: place(*cursor), escaped, too_deep: false })
        })
    }

    /// Consumes the colon behind a key.
    #[inline(always)]
    pub fn colon(&mut self) -> Result<(), Broken> {
        self.read(Cursor::colon)
    }

    /// Inside an array: whether another element follows; if not, the closing bracket is consumed.
    pub fn element(&mut self, first: bool) -> Result<bool, Broken> {
        self.read(|cursor| cursor.another(first, b']'))
    }

    /// Nothing but white space may follow, and all must be UTF-8.
    pub fn end(&mut self) -> Result<(), Broken> {
        self.cursor.space();
        let good = self.cursor.at() == self.text.len() && (self.is_ascii() || std::str::from_utf8(self.text).is_ok());
        if good { Ok(()) } else { Err(self.broken(Expected::End)) }
    }

    /// Reads on, and says of an error where it is.
    #[inline(always)]
    fn read<T>(&mut self, read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Expected>) -> Result<T, Broken> {
        read(&mut self.cursor).map_err(|expected| self.broken(expected))
    }

    #[cold]
    fn broken(&self, expected: Expected) -> Broken {
        let at = self.cursor.at();
        let utf8_up_to = std::str::from_utf8(self.text).map_or_else(|error| error.valid_up_to(), str::len);
        if at >= utf8_up_to && utf8_up_to < self.text.len() {
            return Broken { at: utf8_up_to as u32, what: What::NotUtf8 };
        }
        let rest = self.text.get(at..).unwrap_or_default();
        let is_here = |word: &NoNumber| expected == Expected::Value && rest.starts_with(word.as_str().as_bytes());
        let what = match NoNumber::ALL.into_iter().find(is_here) {
            Some(word) => What::NoNumber(word),
            None if !rest.is_empty() => What::Expected(expected),
            None if self.text.is_empty() => What::Empty,
            None => What::Ends(expected),
        };
        Broken { at: place(self.cursor), what }
    }
}

/// A frame is at most 1 GiB (the configuration's largest cap), so any place in one fits.
fn place(cursor: Cursor<'_>) -> u32 {
    cursor.at() as u32
}

#[cfg(test)]
mod tests;
