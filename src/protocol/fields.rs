//! Objects of the protocol in a JSON text: which fields they have, and what is wrong with them.
//!
//! Broken syntax ends the reading. Everything else that is wrong (a doubled key, a wrong type, too many containers in
//! each other) is only remembered, so that fields further on are still known when it is reported.

use super::json::{Broken, Kind, Scanner, Value};
use super::reason::Reason;
use super::text::Text;
use crate::frame::{Frame, Slice};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::ops::Range;

/// How deep containers may stand in each other outside `data`, counted from the frame's own object.
const OUTSIDE_DEPTH_MAX: usize = 16;

/// How long an id may be, in bytes without quotes and escapes.
pub(super) const ID_BYTES_MAX: usize = 128;

/// How many keys that mean nothing an object may have: each is compared with all before it.
const UNKNOWN_KEYS_MAX: usize = 32;

/// What is read: a frame, or a part of one.
#[derive(Clone, Copy)]
enum Source<'a> {
    Frame(&'a Frame),
    Slice(&'a Slice),
}

impl<'a> Source<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Source::Frame(frame) => frame.bytes(),
            Source::Slice(slice) => slice.bytes(),
        }
    }

    fn slice(self, range: Range<usize>) -> Slice {
        match self {
            Source::Frame(frame) => frame.slice(range.start, range.end),
            Source::Slice(slice) => slice.slice(range.start, range.end),
        }
    }
}

/// Reads objects with a [`Scanner`] and remembers the first thing that is wrong.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    scanner: Scanner<'a>,
    /// What the text as a whole is called in messages.
    name: &'static str,
    /// How many containers are open around the next value.
    depth: usize,
    /// How many there may be, outside of `data`.
    depth_max: usize,
    problem: Option<String>,
    too_deep: Option<String>,
}

/// An object that is being read.
pub(super) struct Object<'p, 'a> {
    /// Where it stands, for messages; empty for the outermost.
    path: &'p str,
    known: &'static [&'static str],
    /// One bit for each known key that has come.
    seen: u32,
    unknown: Vec<Cow<'a, str>>,
    first: bool,
}

impl Object<'_, '_> {
    /// Whether no member has come so far.
    pub(super) fn is_empty(&self) -> bool {
        self.first
    }
}

impl<'a> Reader<'a> {
    /// Reads a frame, which messages call `name`.
    pub(super) fn of_frame(frame: &'a Frame, name: &'static str) -> Reader<'a> {
        Reader::new(Source::Frame(frame), name, OUTSIDE_DEPTH_MAX)
    }

    /// Reads the `data` of a frame whose depth was checked when the frame was read.
    pub(super) fn of_data(data: &'a Slice, name: &'static str) -> Reader<'a> {
        Reader::new(Source::Slice(data), name, usize::MAX)
    }

    fn new(source: Source<'a>, name: &'static str, depth_max: usize) -> Reader<'a> {
        let scanner = Scanner::new(source.bytes());
        Reader { source, scanner, name, depth: 0, depth_max, problem: None, too_deep: None }
    }

    /// Another reader, in front of a value that this one has passed at a depth of `depth`.
    pub(super) fn again(&self, value: Value, depth: usize) -> Reader<'a> {
        let scanner = self.scanner.again(value);
        Reader { scanner, depth, problem: None, too_deep: None, ..*self }
    }

    /// Remembers that a rule is broken.
    pub(super) fn problem(&mut self, message: impl FnOnce() -> String) {
        if self.problem.is_none() {
            self.problem = Some(message());
        }
    }

    /// Enters the object that stands next. Anything else is passed over, and is a problem.
    pub(super) fn object<'p>(&mut self, path: &'p str, known: &'static [&'static str]) -> Result<Option<Object<'p, 'a>>, Broken> {
        if !self.scanner.next_is(b'{') {
            self.value()?;
            let name = if path.is_empty() { self.name } else { path };
            self.problem(|| format!("{name} is not an object"));
            return Ok(None);
        }
        self.scanner.enter();
        self.depth += 1;
        Ok(Some(Object { path, known, seen: 0, unknown: Vec::new(), first: true }))
    }

    /// The next member that is known; its value is to be read by the caller. Other members are passed over, and so is
    /// a second one with the same key, which is a problem.
    pub(super) fn member(&mut self, object: &mut Object<'_, 'a>) -> Result<Option<&'static str>, Broken> {
        loop {
            let Some(key) = self.scanner.key(object.first)? else {
                self.depth -= 1;
                return Ok(None);
            };
            object.first = false;
            if let Some(known) = self.recognise(object, key) {
                return Ok(Some(known));
            }
            self.note(object, key);
            self.value()?;
        }
    }

    #[inline(always)]
    fn recognise(&mut self, object: &mut Object<'_, 'a>, key: Value) -> Option<&'static str> {
        let place = if key.escaped {
            let key = self.scanner.unescaped(key)?;
            object.known.iter().position(|known| *known == key)
        } else {
            let key = self.scanner.inner(key);
            object.known.iter().position(|known| known.as_bytes() == key)
        }?;
        let bit = 1 << place;
        let again = object.seen & bit != 0;
        object.seen |= bit;
        if again { None } else { object.known.get(place).copied() }
    }

    /// A key that is not known, or stands there again.
    #[cold]
    fn note(&mut self, object: &mut Object<'_, 'a>, key: Value) {
        let place = if object.path.is_empty() { self.name } else { object.path };
        let Some(key) = self.scanner.unescaped(key) else {
            return self.problem(|| format!("a key in {place} is not valid Unicode"));
        };
        if object.known.contains(&&*key) || object.unknown.contains(&key) {
            let dot = if object.path.is_empty() { "" } else { "." };
            self.problem(|| format!("{}{dot}{} stands twice", object.path, shown(&key)));
        } else if object.unknown.len() == UNKNOWN_KEYS_MAX {
            self.problem(|| format!("more than {UNKNOWN_KEYS_MAX} unknown keys in {place}"));
        } else {
            object.unknown.push(key);
        }
    }

    /// Enters the array that stands next. Anything else is passed over, and is a problem.
    pub(super) fn array(&mut self, path: &str) -> Result<bool, Broken> {
        if !self.scanner.next_is(b'[') {
            self.value()?;
            self.problem(|| format!("{path} is not an array"));
            return Ok(false);
        }
        self.scanner.enter();
        self.depth += 1;
        Ok(true)
    }

    /// Whether another element follows in the array that was entered.
    pub(super) fn element(&mut self, first: bool) -> Result<bool, Broken> {
        let more = self.scanner.element(first)?;
        self.depth -= usize::from(!more);
        Ok(more)
    }

    /// Consumes `null`, if that stands next.
    pub(super) fn null(&mut self) -> Result<bool, Broken> {
        if !self.scanner.next_is(b'n') {
            return Ok(false);
        }
        self.value().map(|value| value.kind == Kind::Null)
    }

    /// Any value outside `data`.
    pub(super) fn value(&mut self) -> Result<Value, Broken> {
        let value = self.scanner.value(self.depth_max.saturating_sub(self.depth))?;
        if value.too_deep && self.too_deep.is_none() {
            self.too_deep = Some(format!("nested deeper than {} outside of data", self.depth_max));
        }
        Ok(value)
    }

    /// A value that counts its depth from its own outermost container.
    pub(super) fn data(&mut self, path: &str, depth_max: usize) -> Result<Value, Broken> {
        let value = self.scanner.value(depth_max)?;
        if value.too_deep && self.too_deep.is_none() {
            self.too_deep = Some(format!("{path} is nested deeper than {depth_max}"));
        }
        Ok(value)
    }

    /// A value that is only passed over, to be read again later: any depth.
    pub(super) fn later(&mut self) -> Result<Value, Broken> {
        self.scanner.value(usize::MAX)
    }

    /// A string. Anything else is a problem.
    pub(super) fn text(&mut self, path: &str) -> Result<Option<Text>, Broken> {
        let value = self.value()?;
        match self.text_of(value, path) {
            Ok(text) => Ok(Some(text)),
            Err(message) => {
                self.problem(|| message);
                Ok(None)
            }
        }
    }

    /// An id: a short string that is only echoed, so it is kept with its quotes, byte for byte. Anything else is a problem.
    pub(super) fn id(&mut self, path: &str) -> Result<Option<Slice>, Broken> {
        let value = self.value()?;
        match self.text_of(value, path) {
            Err(message) => self.problem(|| message),
            Ok(text) if text.as_str().len() > ID_BYTES_MAX => {
                self.problem(|| format!("{path} is longer than {ID_BYTES_MAX} bytes"));
            }
            Ok(_) => return Ok(Some(self.slice(value))),
        }
        Ok(None)
    }

    /// The string that a value is.
    pub(super) fn text_of(&self, value: Value, path: &str) -> Result<Text, String> {
        if value.kind != Kind::String {
            return Err(format!("{path} is not a string"));
        }
        if !value.escaped {
            return Ok(Text::shared(self.source.slice(value.inner())));
        }
        match self.scanner.unescaped(value) {
            Some(text) => Ok(Text::from(text.into_owned())),
            None => Err(format!("{path} is not valid Unicode")),
        }
    }

    /// The strings of the array that a value is, at most `max` of them, and how many there are.
    pub(super) fn texts_of(&self, value: Value, path: &str, max: usize) -> Result<(SmallVec<[Text; 1]>, usize), String> {
        if value.kind != Kind::Array {
            return Err(format!("{path} is not an array of strings"));
        }
        let mut reader = self.again(value, 0);
        let (mut texts, mut count) = (SmallVec::new(), 0);
        let read = reader.array(path).and_then(|_| {
            while reader.element(count == 0)? {
                let element = reader.value()?;
                if count < max {
                    match reader.text_of(element, path) {
                        Ok(text) => texts.push(text),
                        Err(_) if element.kind == Kind::String => {
                            reader.problem(|| format!("{path}[{count}] is not valid Unicode"));
                        }
                        Err(_) => reader.problem(|| format!("{path}[{count}] is not a string")),
                    }
                }
                count += 1;
            }
            Ok(())
        });
        match reader.verdict(read) {
            Some((_, message)) => Err(message),
            None => Ok((texts, count)),
        }
    }

    /// The bytes of a value as they came.
    pub(super) fn slice(&self, value: Value) -> Slice {
        self.source.slice(value.range())
    }

    /// The text of a value as it stands.
    pub(super) fn raw(&self, value: Value) -> &'a str {
        self.scanner.raw(value)
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        self.scanner.end()
    }

    /// What the reading came to. Wrong syntax outweighs everything, for nothing after it is known.
    pub(super) fn verdict(&mut self, read: Result<(), Broken>) -> Option<(Reason, String)> {
        let name = self.name;
        if let Err(broken) = read {
            let empty = broken.is_empty();
            let message = if empty { format!("{name} is empty") } else { format!("{name} is not JSON: {broken}") };
            return Some((Reason::Malformed, message));
        }
        if let Some(problem) = self.problem.take() {
            return Some((Reason::Malformed, problem));
        }
        self.too_deep.take().map(|message| (Reason::TooDeep, message))
    }
}

/// Somebody else's text for a message: without control characters, and not too long.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut shown: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The nearest of `known` to what was probably a slip: another case, other separators, one `s` too many or too few.
pub(super) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| {
        let letters = text.chars().filter(|c| c.is_ascii_alphanumeric());
        let lower: String = letters.map(|c| c.to_ascii_lowercase()).collect();
        lower.trim_end_matches('s').to_string()
    };
    let wanted = plain(text);
    known.iter().copied().find(|known| plain(known) == wanted)
}

/// "unknown command `x`", with the nearest known one.
pub(super) fn unknown_command(text: &str, known: &[&str]) -> String {
    let hint = nearest(text, known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    format!("unknown command `{}`{hint}", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_is_that_of_the_open_containers() {
        let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
        for (levels, fine) in [(15, true), (16, false)] {
            let text = format!("{{\"object\":{{}},\"array\":[0,1],\"value\":{}}}", deep(levels));
            let frame = Frame::from(text.as_bytes());
            let mut reader = Reader::of_frame(&frame, "the frame");
            let mut root = reader.object("", &["object", "array", "value"]).expect("it is JSON").expect("an object");
            while let Some(key) = reader.member(&mut root).expect("it is JSON") {
                match key {
                    "object" => {
                        let mut inner = reader.object(key, &[]).expect("it is JSON").expect("an object");
                        assert_eq!(reader.member(&mut inner), Ok(None));
                        assert!(inner.is_empty());
                    }
                    "array" => {
                        assert_eq!(reader.array(key), Ok(true));
                        let mut count = 0;
                        while reader.element(count == 0).expect("it is JSON") {
                            reader.value().expect("it is JSON");
                            count += 1;
                        }
                        assert_eq!(count, 2);
                    }
                    _ => assert!(reader.value().is_ok()),
                }
            }
            let read = reader.end();
            assert_eq!(reader.verdict(read).is_none(), fine, "{levels}");
        }
    }

    #[test]
    fn slips_lead_to_the_nearest_name() {
        let known = ["sendClients", "none"];
        for slip in ["sendclients", "SendClient", "send_clients", "send-clients", "sendClientss"] {
            assert_eq!(nearest(slip, &known), Some("sendClients"), "{slip}");
        }
        for other in ["send", "", "s", "clients", "no"] {
            assert_eq!(nearest(other, &known), None, "{other}");
        }
    }
}
