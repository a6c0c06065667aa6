//! From the tree to values: each way to read a value says what it expected, and notes a mistake instead of ending.

use super::json::{Member, Node, Value, join};
use super::mistake::{Fault, Mistake, Position, nearest};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The most bytes of a UNIX socket's path: the address has 108, the last of which is 0.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Reads values and gathers the mistakes.
pub(super) struct Reader {
    /// What relative paths are relative to.
    pub(super) base: PathBuf,
    pub(super) mistakes: Vec<Mistake>,
}

/// A block whose keys are all known.
pub(super) struct Block<'n> {
    pub(super) at: Position,
    pub(super) path: String,
    pub(super) members: &'n [Member],
}

/// A value and the key that leads to it.
#[derive(Clone)]
pub(super) struct Item<'n> {
    pub(super) path: String,
    pub(super) node: &'n Node,
}

impl<'n> Block<'n> {
    /// The value of `key`, if it is given.
    pub(super) fn item(&self, key: &str) -> Option<Item<'n>> {
        let member = self.members.iter().find(|m| m.key == key)?;
        Some(Item { path: join(&self.path, key), node: &member.value })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.members.iter().any(|m| m.key == key)
    }
}

impl Reader {
    pub(super) fn note(&mut self, at: Position, key: String, fault: Fault) {
        self.mistakes.push(Mistake { at: Some(at), key, fault });
    }

    pub(super) fn fault(&mut self, item: &Item<'_>, fault: Fault) {
        self.note(item.node.at, item.path.clone(), fault);
    }

    /// A value of the right kind that does not do; it is quoted.
    pub(super) fn refuse<T>(&mut self, item: &Item<'_>, wanted: impl Into<String>) -> Option<T> {
        let found = match &item.node.value {
            Value::Text(text) => {
                let short: String = text.chars().take(40).collect();
                let rest = if short.len() < text.len() { "…" } else { "" };
                format!("{short:?}{rest}")
            }
            Value::Number(digits) => digits.chars().take(40).collect(),
            _ => kind(item.node).to_owned(),
        };
        self.fault(item, Fault::Expected { wanted: wanted.into(), found });
        None
    }

    /// A value of the wrong kind; it is not quoted, for it may be anything, a password too.
    fn wrong_kind<T>(&mut self, item: &Item<'_>, wanted: &str) -> Option<T> {
        let found = kind(item.node).to_owned();
        self.fault(item, Fault::Expected { wanted: wanted.to_owned(), found });
        None
    }

    /// A block that may have only the keys `known`.
    pub(super) fn block<'n>(&mut self, item: Item<'n>, known: &[&'static str]) -> Option<Block<'n>> {
        let members = self.open(&item)?;
        for member in members {
            if !known.contains(&member.key.as_str()) {
                let near = nearest(&member.key, known.iter().copied());
                let key = member.key.escape_debug().to_string();
                self.note(member.at, join(&item.path, &member.key), Fault::UnknownKey { key, near });
            }
        }
        Some(Block { at: item.node.at, path: item.path, members })
    }

    /// A block with any keys.
    pub(super) fn open<'n>(&mut self, item: &Item<'n>) -> Option<&'n [Member]> {
        match &item.node.value {
            Value::Object(members) => Some(members),
            _ => self.wrong_kind(item, "a block in braces"),
        }
    }

    pub(super) fn list<'n>(&mut self, item: &Item<'n>) -> Option<Vec<Item<'n>>> {
        let Value::List(nodes) = &item.node.value else {
            return self.wrong_kind(item, "a list in brackets");
        };
        let element = |(i, node)| Item { path: format!("{}[{i}]", item.path), node };
        Some(nodes.iter().enumerate().map(element).collect())
    }

    pub(super) fn text<'n>(&mut self, item: &Item<'n>) -> Option<&'n str> {
        match &item.node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong_kind(item, "text in double quotes"),
        }
    }

    /// Text for another program, which cannot be given a 0 byte.
    pub(super) fn word<'n>(&mut self, item: &Item<'n>) -> Option<&'n str> {
        let text = self.text(item)?;
        if text.contains('\0') { self.refuse(item, "text without \\u0000") } else { Some(text) }
    }

    pub(super) fn flag(&mut self, item: &Item<'_>) -> Option<bool> {
        match item.node.value {
            Value::Bool(flag) => Some(flag),
            _ => self.wrong_kind(item, "true or false"),
        }
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&mut self, item: &Item<'_>, most: u64) -> Option<u64> {
        let Value::Number(digits) = &item.node.value else {
            return self.wrong_kind(item, &format!("a whole number from 1 to {most}"));
        };
        match digits.parse() {
            Ok(0) => {
                self.fault(item, Fault::Zero { most });
                None
            }
            Ok(count) if count <= most => Some(count),
            _ => self.refuse(item, format!("a whole number from 1 to {most}")),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, item: &Item<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(item)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Some(*choice),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
                self.refuse(item, words.join(" or "))
            }
        }
    }

    /// A path, made absolute.
    pub(super) fn path(&mut self, item: &Item<'_>) -> Option<PathBuf> {
        let text = self.word(item)?;
        if text.is_empty() { self.refuse(item, "a path") } else { Some(absolute(&self.base, text)) }
    }

    /// A path that fits the address of a UNIX socket.
    pub(super) fn socket(&mut self, item: &Item<'_>) -> Option<PathBuf> {
        let path = self.path(item)?;
        if socket_path_fits(&path) {
            return Some(path);
        }
        self.fault(item, Fault::SocketPathTooLong { path, most: SOCKET_PATH_BYTES_MAX });
        None
    }

    /// A program: a path, or a bare name, which is a file beside the configuration or else looked up in `PATH`.
    pub(super) fn program(&mut self, item: &Item<'_>, search: Option<&OsStr>) -> Option<PathBuf> {
        let path = self.path(item)?;
        let text = self.text(item)?;
        if text.contains('/') || path.is_file() {
            return Some(path);
        }
        // An absolute path when it is nowhere either, so that whoever misses the program can say where it was expected.
        Some(find_program(text, search).unwrap_or(path))
    }
}

/// The file of that name in the directories of `search`, a list as in `PATH`.
pub(super) fn find_program(name: &str, search: Option<&OsStr>) -> Option<PathBuf> {
    let directories = std::env::split_paths(search?);
    // An empty entry would mean the directory that the server happens to be started in.
    directories.filter(|d| d.is_absolute()).map(|d| d.join(name)).find(|path| path.is_file())
}

pub(super) fn socket_path_fits(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX
}

/// `text` as a path from `base`, without `.` in it; `..` stays, for it may follow a symbolic link.
fn absolute(base: &Path, text: &str) -> PathBuf {
    let joined = base.join(text);
    std::path::absolute(&joined).unwrap_or(joined)
}

fn kind(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "null",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Object(_) => "a block",
    }
}
