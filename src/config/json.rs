//! From the file to a tree in which every key and value knows its place.
//!
//! JSON with comments and trailing commas, and nothing looser: a file that we accept today must not change its meaning
//! when somebody else's parser reads it. The parser is a crate; here are the bounds and the two rules that it does not
//! have (no bare control characters in text, no white space but JSON's), and messages for people.

use super::mistake::{Fault, Mistake, Position};
use jsonc_parser::ast::{Object, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::{ParseError, ParseErrorKind as Kind};
use jsonc_parser::tokens::Token;
use jsonc_parser::{ParseOptions, ParseStringErrorKind as Text, Scanner, ScannerOptions};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The most bytes of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most blocks and lists within each other. Reading descends once for each, so the stack depends on it.
const DEPTH_MAX: usize = 64;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// Any JSON value; numbers stay the text that they were.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// One key of a block, and where it begins. No key stands twice in a block.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) at: Position,
    pub(super) key: String,
    pub(super) value: Node,
}

/// Reads the file unless it is too large.
pub(super) fn read(path: &Path) -> Result<String, Fault> {
    let file = File::open(path).map_err(Fault::Unreadable)?;
    let known = file.metadata().map_err(Fault::Unreadable)?;
    // A pipe has no length to look at before; hence the bound on the reading as well.
    if known.is_file() && known.len() > FILE_BYTES_MAX {
        return Err(Fault::TooLarge(FILE_BYTES_MAX));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::TooLarge(FILE_BYTES_MAX));
    }
    String::from_utf8(bytes).map_err(|_| Fault::NotText)
}

/// The tree of `text`. Keys that stand twice are added to `mistakes` (the first counts); anything else ends it.
pub(super) fn parse(text: &str, mistakes: &mut Vec<Mistake>) -> Option<Node> {
    let mut build = Build { places: Places::new(text), mistakes };
    let found = look_over(text).and_then(|()| {
        let options = ParseOptions {
            allow_comments: true,
            allow_loose_object_property_names: false,
            allow_trailing_commas: true,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let parsed = jsonc_parser::parse_to_ast(text, &Default::default(), &options).map_err(Syntax::from)?;
        parsed.value.ok_or(Syntax { start: 0, what: "the file is empty; expected a block in braces".into() })
    });
    match found {
        Ok(root) => Some(build.node(&root, "")),
        Err(Syntax { start, what }) => {
            let at = Some(build.places.of(start));
            build.mistakes.push(Mistake { at, key: String::new(), fault: Fault::Syntax(what) });
            None
        }
    }
}

/// The value as JSON on one line, without comments.
pub(super) fn compact(node: &Node) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(digits) => digits.clone(),
        Value::Text(text) => quoted(text),
        Value::List(list) => format!("[{}]", list.iter().map(compact).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let member = |m: &Member| format!("{}:{}", quoted(&m.key), compact(&m.value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
    }
}

/// A key below a path, as messages write it.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
    let key = if plain { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// Why the text is not what we read, and at which byte.
struct Syntax {
    start: usize,
    what: String,
}

/// What must be known before the parser may see the text: the nesting is bounded, and it breaks no rule that the parser
/// would let pass.
fn look_over(text: &str) -> Result<(), Syntax> {
    if text.starts_with('\u{feff}') {
        let what = "the file begins with a byte order mark; save it as UTF-8 without one".to_owned();
        return Err(Syntax { start: 0, what });
    }
    let options = ScannerOptions {
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let mut scanner = Scanner::new(text, &options);
    let mut depth = 0usize;
    let mut end = 0;
    while let Some(token) = scanner.scan().map_err(Syntax::from)? {
        let start = scanner.token_start();
        blank(text, end, start)?;
        end = scanner.token_end();
        match token {
            Token::OpenBrace | Token::OpenBracket => depth += 1,
            Token::CloseBrace | Token::CloseBracket => depth = depth.saturating_sub(1),
            Token::String(_) => quoted(text, start, end)?,
            _ => {}
        }
        if depth > DEPTH_MAX {
            let what = format!("more than {DEPTH_MAX} blocks and lists within each other");
            return Err(Syntax { start, what });
        }
    }
    blank(text, end, text.len())
}

fn blank(text: &str, start: usize, end: usize) -> Result<(), Syntax> {
    match text[start..end].char_indices().find(|(_, c)| !" \t\r\n".contains(*c)) {
        None => Ok(()),
        Some((offset, c)) => {
            let what = format!("the character U+{:04X} is no white space in JSON", u32::from(c));
            Err(Syntax { start: start + offset, what })
        }
    }
}

fn quoted(text: &str, start: usize, end: usize) -> Result<(), Syntax> {
    match text[start..end].char_indices().find(|(_, c)| *c < ' ') {
        None => Ok(()),
        Some((_, '\n' | '\r')) => Err(Syntax { start, what: "the closing double quote is missing on this line".to_owned() }),
        Some((offset, c)) => {
            let what = format!("a control character within quotes is written as \\u{:04x}", u32::from(c));
            Err(Syntax { start: start + offset, what })
        }
    }
}

impl From<ParseError> for Syntax {
    fn from(error: ParseError) -> Self {
        let what = match error.kind() {
            Kind::ExpectedComma => "a comma is missing here",
            Kind::ExpectedColonAfterObjectKey => "expected a colon between a key and its value",
            Kind::ExpectedObjectValue => "expected a value after the colon",
            Kind::ExpectedStringObjectProperty => "expected a key in double quotes",
            Kind::UnexpectedTokenInObject => "expected a key in double quotes or a closing brace",
            Kind::SingleQuotedStringsNotAllowed => "expected double quotes, not single ones",
            Kind::HexadecimalNumbersNotAllowed => "expected a decimal number, not a hexadecimal one",
            Kind::MultipleRootJsonValues => "expected nothing after the closing brace of the whole file",
            Kind::UnexpectedWord | Kind::UnexpectedToken => "this is no JSON; text needs double quotes around it",
            Kind::UnexpectedCloseBrace => "this closing brace has no opening one",
            Kind::UnexpectedCloseBracket => "this closing bracket has no opening one",
            Kind::UnexpectedComma => "expected a value before this comma",
            Kind::UnexpectedColon => "expected a value, not a colon",
            Kind::UnterminatedObject => "this brace is never closed",
            Kind::UnterminatedArray => "this bracket is never closed",
            Kind::UnterminatedCommentBlock => "this comment is never closed",
            Kind::String(Text::UnterminatedStringLiteral) => "the closing double quote is missing",
            Kind::String(_) => "not an escape that JSON has (a backslash within quotes is written \\\\)",
            Kind::UnaryPlusNumbersNotAllowed
            | Kind::BareDecimalPointNumbersNotAllowed
            | Kind::NonFiniteNumbersNotAllowed
            | Kind::ExpectedDigit
            | Kind::ExpectedDigitFollowingNegativeSign
            | Kind::ExpectedPlusMinusOrDigitInNumberLiteral => "not a number as JSON writes it",
            _ => "this is no JSON",
        };
        Syntax { start: error.range().start, what: what.to_owned() }
    }
}

/// Byte offsets to lines and columns. The offsets must come in rising order, so that a file of one long line is not
/// counted from its beginning again for each of its keys.
struct Places<'t> {
    text: &'t str,
    offset: usize,
    at: Position,
}

impl<'t> Places<'t> {
    fn new(text: &'t str) -> Self {
        Places { text, offset: 0, at: Position { line: 1, column: 1 } }
    }

    fn of(&mut self, offset: usize) -> Position {
        for c in self.text[self.offset..offset].chars() {
            if c == '\n' {
                self.at = Position { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.offset = offset;
        self.at
    }
}

/// The walk that copies the parser's tree into ours, in the order of the file.
struct Build<'t, 'm> {
    places: Places<'t>,
    mistakes: &'m mut Vec<Mistake>,
}

impl Build<'_, '_> {
    fn node(&mut self, ast: &Ast<'_>, path: &str) -> Node {
        let at = self.places.of(ast.start());
        let value = match ast {
            Ast::NullKeyword(_) => Value::Null,
            Ast::BooleanLit(literal) => Value::Bool(literal.value),
            Ast::NumberLit(literal) => Value::Number(literal.value.to_owned()),
            Ast::StringLit(literal) => Value::Text(literal.value.clone().into_owned()),
            Ast::Array(list) => {
                let element = |(i, element)| self.node(element, &format!("{path}[{i}]"));
                Value::List(list.elements.iter().enumerate().map(element).collect())
            }
            Ast::Object(object) => Value::Object(self.members(object, path)),
        };
        Node { at, value }
    }

    fn members(&mut self, object: &Object<'_>, path: &str) -> Vec<Member> {
        let mut first = HashMap::new();
        let mut members = Vec::with_capacity(object.properties.len());
        for property in &object.properties {
            let key = property.name.as_str();
            let at = self.places.of(property.start());
            let path = join(path, key);
            let value = self.node(&property.value, &path);
            if let Some(line) = first.get(key) {
                let fault = Fault::Duplicate { first: *line };
                self.mistakes.push(Mistake { at: Some(at), key: path, fault });
            } else {
                first.insert(key, at.line);
                members.push(Member { at, key: key.to_owned(), value });
            }
        }
        members
    }
}
