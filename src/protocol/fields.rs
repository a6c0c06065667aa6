//! Objects of the protocol in a JSON text: which fields they have, and what is wrong with them.
//!
//! What every message goes through is inlined into its caller, and the rest is kept out of the way: a result that goes
//! through memory costs more here than finding out what it is.
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
pub const ID_BYTES_MAX: usize = 128;

/// The highest number that a database keeps, whose numbers have a sign.
const WHOLE_NUMBER_MAX: u64 = i64::MAX as u64;

/// How many keys that mean nothing an object may have: each is compared with all before it.
const UNKNOWN_KEYS_MAX: usize = 32;

/// Reads objects with a [`Scanner`] and remembers the first thing that is wrong.
pub(super) struct Reader<'a> {
    /// What is read: a frame, or a part of one.
    source: &'a Slice,
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
    /// The known key that comes next if they come in their order; 0 as long as no member has come.
    next: usize,
}

impl Object<'_, '_> {
    /// Whether no member has come so far.
    pub(super) fn is_empty(&self) -> bool {
        self.next == 0
    }
}

impl<'a> Reader<'a> {
    /// Reads a frame, which messages call `name`.
    pub(super) fn of_frame(frame: &'a Frame, name: &'static str) -> Reader<'a> {
        Reader::new(frame.all(), name, OUTSIDE_DEPTH_MAX)
    }

    /// Reads the `data` of a frame whose depth was checked when the frame was read.
    pub(super) fn of_data(data: &'a Slice, name: &'static str) -> Reader<'a> {
        Reader::new(data, name, usize::MAX)
    }

    fn new(source: &'a Slice, name: &'static str, depth_max: usize) -> Reader<'a> {
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
    #[inline(always)]
    pub(super) fn object<'p>(&mut self, path: &'p str, known: &'static [&'static str]) -> Result<Option<Object<'p, 'a>>, Broken> {
        if !self.scanner.next_is(b'{') {
            return self.no_object(path).map(|()| None);
        }
        self.scanner.enter();
        self.depth += 1;
        Ok(Some(Object { path, known, seen: 0, unknown: Vec::new(), next: 0 }))
    }

    #[cold]
    fn no_object(&mut self, path: &str) -> Result<(), Broken> {
        self.value()?;
        let name = if path.is_empty() { self.name } else { path };
        self.problem(|| format!("{name} is not an object"));
        Ok(())
    }

    /// The next member that is known; its value is to be read by the caller. Other members are passed over, and so is
    /// a second one with the same key, which is a problem.
    #[inline(always)]
    pub(super) fn member(&mut self, object: &mut Object<'_, 'a>) -> Result<Option<&'static str>, Broken> {
        loop {
            if !self.scanner.another_key(object.next == 0)? {
                self.depth -= 1;
                return Ok(None);
            }
            let place = match self.scanner.known_key(object.known, object.next) {
                Some(place) => Some(place),
                None => self.other_key(object)?,
            };
            self.scanner.colon()?;
            object.next = 1;
            if let Some(place) = place {
                let bit = 1 << place;
                if object.seen & bit == 0 {
                    object.seen |= bit;
                    object.next = place + 1;
                    return Ok(object.known.get(place).copied());
                }
                self.doubled(object, object.known[place]);
            }
            self.value()?;
        }
    }

    /// The place of a key that is known all the same. One that is not is remembered, for it must not stand twice.
    #[cold]
    fn other_key(&mut self, object: &mut Object<'_, 'a>) -> Result<Option<usize>, Broken> {
        let key = self.scanner.any_key(object.next == 0)?;
        let name = if object.path.is_empty() { self.name } else { object.path };
        let Some(key) = self.scanner.unescaped(key) else {
            self.problem(|| format!("a key in {name} is not valid Unicode"));
            return Ok(None);
        };
        let place = object.known.iter().position(|known| *known == key);
        if place.is_some() {
            return Ok(place);
        }
        if object.unknown.contains(&key) {
            self.doubled(object, &key);
        } else if object.unknown.len() == UNKNOWN_KEYS_MAX {
            self.problem(|| format!("more than {UNKNOWN_KEYS_MAX} unknown keys in {name}"));
        } else {
            object.unknown.push(key);
        }
        Ok(None)
    }

    #[cold]
    fn doubled(&mut self, object: &Object<'_, 'a>, key: &str) {
        let dot = if object.path.is_empty() { "" } else { "." };
        self.problem(|| format!("{}{dot}{} stands twice", object.path, shown(key)));
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

    /// `true` or `false`. Anything else is a problem.
    pub(super) fn truth(&mut self, path: &str) -> Result<Option<bool>, Broken> {
        match self.value()?.kind {
            Kind::True => return Ok(Some(true)),
            Kind::False => return Ok(Some(false)),
            _ => self.problem(|| format!("{path} is neither true nor false")),
        }
        Ok(None)
    }

    /// A number of things, written in digits alone, that the store can keep, too. Anything else is a problem.
    pub(super) fn whole_number(&mut self, path: &str) -> Result<Option<u64>, Broken> {
        let value = self.value()?;
        let number = match value.kind {
            Kind::Number => std::str::from_utf8(self.raw(value)).ok().and_then(|digits| digits.parse().ok()),
            _ => None,
        };
        let number = number.filter(|number| *number <= WHOLE_NUMBER_MAX);
        if number.is_none() {
            self.problem(|| format!("{path} is not a whole number from 0 to {WHOLE_NUMBER_MAX}"));
        }
        Ok(number)
    }

    /// An id: a short string that is only echoed, so it is kept with its quotes, byte for byte. Anything else is a problem.
    pub(super) fn id(&mut self, path: &str) -> Result<Option<Slice>, Broken> {
        let value = self.value()?;
        match self.text_of(value, path) {
            Err(message) => self.problem(|| message),
            Ok(text) if text.bytes().len() > ID_BYTES_MAX => {
                self.problem(|| format!("{path} is longer than {ID_BYTES_MAX} bytes"));
            }
            Ok(_) => return Ok(Some(self.slice(value))),
        }
        Ok(None)
    }

    /// The string that a value is.
    #[inline(always)]
    pub(super) fn text_of(&self, value: Value, path: &str) -> Result<Text, String> {
        if value.kind == Kind::String && !value.escaped && self.scanner.is_ascii() {
            return Ok(Text::shared(self.part(value.inner())));
        }
        self.other_text(value, path)
    }

    /// The same of what is no string, has escapes in it, or may have to be looked at whether it is UTF-8.
    #[cold]
    fn other_text(&self, value: Value, path: &str) -> Result<Text, String> {
        if value.kind != Kind::String {
            return Err(format!("{path} is not a string"));
        }
        match self.scanner.unescaped(value) {
            Some(Cow::Borrowed(_)) => Ok(Text::shared(self.part(value.inner()))),
            Some(Cow::Owned(text)) => Ok(Text::from(&*text)),
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

    fn part(&self, range: Range<usize>) -> Slice {
        self.source.slice(range.start, range.end)
    }

    /// The bytes of a value as they came.
    pub(super) fn slice(&self, value: Value) -> Slice {
        self.part(value.range())
    }

    /// The text of a value as it stands.
    pub(super) fn raw(&self, value: Value) -> &'a [u8] {
        self.scanner.raw(value)
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        self.scanner.end()
    }

    /// What the reading came to. Wrong syntax outweighs everything, for nothing after it is known.
    #[inline(always)]
    pub(super) fn verdict(&mut self, read: Result<(), Broken>) -> Option<(Reason, String)> {
        let good = read.is_ok() && self.problem.is_none() && self.too_deep.is_none();
        if good { None } else { self.fault(read) }
    }

    #[cold]
    fn fault(&mut self, read: Result<(), Broken>) -> Option<(Reason, String)> {
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
