//! The names and numbers that things are known by. Each is a type of its own, so that a user cannot be passed
//! where a message type belongs.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    /// What kind of name it should have been.
    pub what: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} {}", self.what, self.rule)
    }
}

impl std::error::Error for BadName {}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The rule for these names, in words that follow "a name".
            pub const RULE: &'static str = $rule;

            /// Takes `text` as it is: nothing is trimmed or folded.
            pub fn new(text: &str) -> Result<Self, BadName> {
                if $check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { what: $what, rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Tables are asked with the bytes of a name, whatever they are.
        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.as_bytes().hash(state);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// The name of an account: what a client logs in with, and what a handler sends to.
    Username,
    "user name",
    "has 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit",
    is_username
);

name!(
    /// A type of message: the key from a message to its handler.
    TypeName,
    "type",
    "has 1 to 64 bytes without spaces, quotes, slashes or control characters, and is not builtin, internal or dummy",
    is_type_name
);

name!(
    /// The name that this server gives itself, the first part of each `messageId`.
    ServerName,
    "server name",
    "has 1 to 253 characters of a-z, A-Z, 0-9, '.', '_', '-' and ':', and begins with a letter or digit",
    is_server_name
);

/// A built-in command is a message of this type.
pub const BUILTIN: &str = "builtin";
/// The other name of [`BUILTIN`].
pub const INTERNAL: &str = "internal";
/// A message that only logs in, or only asks for a report.
pub const DUMMY: &str = "dummy";

fn is_username(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed) && text.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_type_name(text: &str) -> bool {
    let banned = |c: char| c.is_control() || c.is_whitespace() || "\"'\\/".contains(c);
    (1..=64).contains(&text.len()) && !text.chars().any(banned) && ![BUILTIN, INTERNAL, DUMMY].contains(&text)
}

fn is_server_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:".contains(&b);
    (1..=253).contains(&text.len()) && text.bytes().all(allowed) && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// One connection, in the order of their coming; never used again while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// Where connections get their numbers.
#[derive(Debug, Clone, Default)]
pub struct ConnIds(Arc<AtomicU64>);

impl ConnIds {
    /// A number that no connection had before.
    pub fn next(&self) -> ConnId {
        ConnId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// One request to a handler; also the counter at the end of its `messageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One of the configured types, by its place in the routing map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

impl RouteId {
    /// Its place in tables that are kept by route.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One start of a handler's program, or one connection to it; never used again while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartId(pub u64);

/// Where starts of handlers get their numbers.
#[derive(Debug, Clone, Default)]
pub struct StartIds(Arc<AtomicU64>);

impl StartIds {
    /// A number that no start had before.
    pub fn next(&self) -> StartId {
        StartId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Another server, by its number in the database; one that was removed never gets its number back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// A start of a handler, and where it stands: the type, and which of the type's instances it is (from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandlerId {
    /// The type.
    pub route: RouteId,
    /// `BESTER_INSTANCE`.
    pub instance: u32,
    /// Which start of that instance.
    pub start: StartId,
}

impl HandlerId {
    /// The instance's place in tables that are kept by instance.
    pub fn place(self) -> usize {
        self.instance as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_are_taken_as_they_are_or_refused() {
        for good in ["alice", "a", "0", "a.b_c-d", &"x".repeat(64)] {
            assert_eq!(Username::new(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "Alice", " alice", "alice ", ".a", "-a", "_a", "a b", "a@b", "#", "+", "ä", "a\0", &"x".repeat(65)] {
            assert!(Username::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reserved_types_cannot_be_configured() {
        for bad in ["builtin", "internal", "dummy", "", "a b", "a/b", "a\nb", "a\"b"] {
            assert!(TypeName::new(bad).is_err(), "{bad:?}");
        }
        assert!(TypeName::new("chat").is_ok() && TypeName::new("type1").is_ok());
    }
}
