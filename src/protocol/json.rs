//! JSON syntax: a scanner that goes over a text once, from left to right, and says where things stand.
//!
//! It accepts exactly the texts of RFC 8259 in UTF-8, builds nothing, and needs the same small call stack for any
//! nesting. What the values mean is for others to say: see `fields.rs`.

use super::nest::Nest;
use std::borrow::Cow;
use std::fmt;

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

/// Where a value stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Its first byte; of a string, the opening quote.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// A string with at least one escape in it.
    pub escaped: bool,
    /// More containers stand in each other than was allowed.
    pub too_deep: bool,
}

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// How many bytes are in front of the place.
    pub at: usize,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Empty,
    NotUtf8,
    /// A word such as `NaN` that some programs write for numbers that JSON lacks.
    NoNumber(&'static str),
    Expected(&'static str),
    /// The text ends where this was expected.
    Ends(&'static str),
}

impl Broken {
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
                write!(f, "{word} at byte {at}; {word} is not JSON, null or a string can stand for it")
            }
            What::Expected(what) => write!(f, "expected {what} at byte {at}"),
            What::Ends(what) => write!(f, "expected {what} at byte {at}, where it ends"),
        }
    }
}

impl std::error::Error for Broken {}

/// Reads a text piece by piece, in the order in which it stands.
#[derive(Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    /// The next byte to be looked at; never more than the text's length.
    at: usize,
    /// The bytes behind `text` are not UTF-8.
    not_utf8: bool,
}

impl<'a> Scanner<'a> {
    /// Starts in front of the text's only value. Bytes that are not UTF-8 are an error where they begin.
    pub fn new(bytes: &'a [u8]) -> Scanner<'a> {
        let (text, not_utf8) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, false),
            Err(e) => {
                let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
                (std::str::from_utf8(good).unwrap_or_default(), true)
            }
        };
        Scanner { text, at: 0, not_utf8 }
    }

    /// Another scanner, in front of a value that this one has passed.
    pub fn again(&self, value: Value) -> Scanner<'a> {
        Scanner { at: value.start.min(self.text.len()), ..self.clone() }
    }

    /// The bytes of a value as they stand.
    pub fn raw(&self, value: Value) -> &'a str {
        self.text.get(value.start..value.end).unwrap_or_default()
    }

    /// What a string says; nothing if half a surrogate pair stands in it, which is JSON but not Unicode.
    pub fn unescaped(&self, string: Value) -> Option<Cow<'a, str>> {
        let raw = self.raw(string);
        if string.escaped {
            return serde_json::from_str(raw).ok().map(Cow::Owned);
        }
        raw.get(1..raw.len().saturating_sub(1)).map(Cow::Borrowed)
    }

    /// Whether the next byte that counts is this one; it is not consumed.
    pub fn next_is(&mut self, byte: u8) -> bool {
        self.space();
        self.peek() == byte
    }

    /// Consumes a value with everything in it. `[]` has a depth of 1.
    pub fn value(&mut self, depth_max: usize) -> Result<Value, Broken> {
        self.space();
        let start = self.at;
        let (mut escaped, mut too_deep) = (false, false);
        let kind = match self.peek() {
            b'"' => {
                escaped = self.string()?;
                Kind::String
            }
            b'{' => {
                too_deep = self.container(depth_max)?;
                Kind::Object
            }
            b'[' => {
                too_deep = self.container(depth_max)?;
                Kind::Array
            }
            _ => self.scalar()?,
        };
        Ok(Value { kind, start, end: self.at, escaped, too_deep })
    }

    /// Consumes the brace or bracket that [`Scanner::next_is`] has seen.
    pub fn enter(&mut self) {
        self.at = (self.at + 1).min(self.text.len());
    }

    /// Inside an object: consumes the next key and its colon, or the closing brace.
    pub fn key(&mut self, first: bool) -> Result<Option<Value>, Broken> {
        if !self.another(first, b'}', "`,` or `}`")? {
            return Ok(None);
        }
        self.key_and_colon(if first { "a key or `}`" } else { "a key" }).map(Some)
    }

    /// Inside an array: whether another element follows; if not, the closing bracket is consumed.
    pub fn element(&mut self, first: bool) -> Result<bool, Broken> {
        self.another(first, b']', "`,` or `]`")
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), Broken> {
        self.space();
        if self.at < self.text.len() || self.not_utf8 {
            return Err(self.broken("the end"));
        }
        Ok(())
    }
}

/// The grammar.
impl Scanner<'_> {
    /// The next byte, or 0 at the end: a NUL is not allowed anywhere in JSON.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// A whole array or object; whether it is nested deeper than allowed.
    fn container(&mut self, depth_max: usize) -> Result<bool, Broken> {
        let mut nest = Nest::default();
        let mut too_deep = false;
        loop {
            // Here a value begins.
            let first = self.peek();
            match first {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    self.open(&mut nest, first == b'{')?;
                    too_deep |= nest.depth() > depth_max;
                    self.space();
                    match self.peek() {
                        b'}' if first == b'{' => {
                            self.at += 1;
                            nest.close();
                        }
                        b']' if first == b'[' => {
                            self.at += 1;
                            nest.close();
                        }
                        _ => {
                            if first == b'{' {
                                self.key_and_colon("a key or `}`")?;
                                self.space();
                            }
                            continue;
                        }
                    }
                }
                _ => {
                    self.scalar()?;
                }
            }
            // Here a value has ended, and with it perhaps the containers that it is the last of.
            loop {
                let Some(object) = nest.object() else { return Ok(too_deep) };
                self.space();
                match (self.peek(), object) {
                    (b',', _) => {
                        self.at += 1;
                        self.space();
                        if object {
                            self.key_and_colon("a key")?;
                            self.space();
                        }
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        nest.close();
                    }
                    (_, true) => return Err(self.broken("`,` or `}`")),
                    (_, false) => return Err(self.broken("`,` or `]`")),
                }
            }
        }
    }

    fn open(&mut self, nest: &mut Nest, object: bool) -> Result<(), Broken> {
        self.at += 1;
        // Each open container needs a byte to close it. Looking now and then is enough to keep the stack's memory
        // below a bit for each byte of the text.
        if nest.depth() % 128 == 127 && nest.depth() >= self.rest().len() {
            self.at = self.text.len();
            return Err(self.broken("closing brackets"));
        }
        nest.open(object);
        Ok(())
    }

    /// Between the members of a container: whether another one follows.
    fn another(&mut self, first: bool, close: u8, expected: &'static str) -> Result<bool, Broken> {
        self.space();
        let byte = self.peek();
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            if byte != b',' {
                return Err(self.broken(expected));
            }
            self.at += 1;
            self.space();
        }
        Ok(true)
    }

    fn key_and_colon(&mut self, expected: &'static str) -> Result<Value, Broken> {
        if self.peek() != b'"' {
            return Err(self.broken(expected));
        }
        let start = self.at;
        let escaped = self.string()?;
        let key = Value { kind: Kind::String, start, end: self.at, escaped, too_deep: false };
        self.space();
        if self.peek() != b':' {
            return Err(self.broken("`:`"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string, from its opening quote on; whether there is an escape in it.
    fn string(&mut self) -> Result<bool, Broken> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain_bytes(self.rest());
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ if self.at == self.text.len() => return Err(self.broken("a closing quote")),
                _ => return Err(self.broken("an escape instead of a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_ascii_hexdigit() {
                        return Err(self.broken("a hexadecimal digit"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.broken("an escape that JSON has")),
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<Kind, Broken> {
        let words = [("true", Kind::True), ("false", Kind::False), ("null", Kind::Null)];
        match self.peek() {
            b'-' | b'0'..=b'9' => {
                self.number()?;
                return Ok(Kind::Number);
            }
            b't' | b'f' | b'n' => {
                for (word, kind) in words {
                    if self.rest().starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return Ok(kind);
                    }
                }
            }
            _ => {}
        }
        Err(self.broken("a value"))
    }

    fn number(&mut self) -> Result<(), Broken> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            b'I' => {
                self.at = start;
                return Err(self.broken("a value"));
            }
            _ => return Err(self.broken("a digit")),
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

    fn digits(&mut self) -> Result<(), Broken> {
        if !self.peek().is_ascii_digit() {
            return Err(self.broken("a digit"));
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    #[cold]
    fn broken(&self, expected: &'static str) -> Broken {
        let words = ["NaN", "Infinity", "-Infinity"];
        let word = words.into_iter().find(|word| expected == "a value" && self.rest().starts_with(word.as_bytes()));
        let what = match word {
            Some(word) => What::NoNumber(word),
            None if self.at < self.text.len() => What::Expected(expected),
            None if self.not_utf8 => What::NotUtf8,
            None if self.text.is_empty() => What::Empty,
            None => What::Ends(expected),
        };
        Broken { at: self.at, what }
    }
}

/// How many bytes at the start are neither a quote nor a backslash nor a control character; eight at a time.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return index * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let stop = rest.iter().position(|&b| b < b' ' || b == b'"' || b == b'\\');
    words.len() * 8 + stop.unwrap_or(rest.len())
}

/// A mask whose lowest bit is in the first byte of `word` that ends a run of plain bytes. (Higher bits may be wrong:
/// the subtractions borrow, but only from bytes behind a right one.)
fn stops(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let quote = word ^ (EACH * b'"' as u64);
    let backslash = word ^ (EACH * b'\\' as u64);
    let control = word.wrapping_sub(EACH * b' ' as u64) & !word;
    let quote = quote.wrapping_sub(EACH) & !quote;
    let backslash = backslash.wrapping_sub(EACH) & !backslash;
    (control | quote | backslash) & (EACH * 0x80)
}

#[cfg(test)]
#[path = "json_test.rs"]
mod tests;
