//! What can be wrong with a configuration file, and where: all of it is told at once.

use crate::name::BadName;
use std::fmt;
use std::path::PathBuf;

/// A place in the file, as editors count: both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// Everything that is wrong with one file, in the order of the file. Never empty.
#[derive(Debug)]
pub struct Mistakes {
    /// The file, as the caller named it.
    pub file: PathBuf,
    /// Its mistakes.
    pub list: Vec<Mistake>,
}

/// One thing to put right.
#[derive(Debug)]
pub struct Mistake {
    /// Where; none when it is about the file as a whole.
    pub at: Option<Position>,
    /// The key with the blocks around it (`network.tcp4.port`); empty at the top level or when the text is no JSON.
    pub key: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong at one place.
#[derive(Debug)]
pub enum Fault {
    /// The file cannot be read.
    Unreadable(std::io::Error),
    /// The file has more than this many bytes.
    TooLarge(u64),
    /// The file is not UTF-8.
    NotText,
    /// The text is not JSON with comments.
    Syntax(String),
    /// A key stands twice in one block.
    Duplicate {
        /// The line of the first.
        first: usize,
    },
    /// A key that nothing reads.
    UnknownKey {
        /// The key alone.
        key: String,
        /// The known key that looks most like it.
        near: Option<&'static str>,
    },
    /// A key that must be there.
    Missing(&'static str),
    /// A value of the wrong kind or out of range.
    Expected {
        /// What belongs here.
        wanted: String,
        /// What stands here.
        found: String,
    },
    /// A 0 that was perhaps meant as "no limit".
    Zero {
        /// The largest value.
        most: u64,
    },
    /// A text that breaks the rule for its kind of name.
    Name(BadName),
    /// A path that does not fit the address of a UNIX socket.
    SocketPathTooLong {
        /// The path, made absolute.
        path: PathBuf,
        /// The most bytes that fit.
        most: usize,
    },
    /// Two keys that do not go together, in words.
    Clash(&'static str),
    /// A limit that another limit forbids.
    Order {
        /// Whether it is too small (or else too large).
        small: bool,
        /// The other limit.
        other: &'static str,
        /// Its value.
        value: u64,
    },
    /// A name in a list that stands there already.
    Twice,
    /// A name in a list that has no block.
    NoBlock {
        /// Where the block should be.
        within: &'static str,
        /// The name there that looks most like it.
        near: Option<String>,
    },
    /// A socket path that something else in the file uses too.
    SharedSocket {
        /// The path.
        path: PathBuf,
        /// The key of the other.
        other: String,
    },
    /// A database of the kind that `besterd` used.
    Redis,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(Position { line, column }) = mistake.at {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreadable(reason) => {
                write!(f, "cannot be read: {reason} (`bester init DIR` writes a configuration)")
            }
            Fault::TooLarge(most) => write!(f, "has more than {most} bytes, which no configuration needs"),
            Fault::NotText => f.write_str("is not UTF-8 text"),
            Fault::Syntax(what) => f.write_str(what),
            Fault::Duplicate { first } => write!(f, "this key is already given on line {first}"),
            Fault::UnknownKey { key, near: None } => write!(f, "unknown key `{key}`"),
            Fault::UnknownKey { key, near: Some(near) } => {
                write!(f, "unknown key `{key}`; did you mean `{near}`?")
            }
            Fault::Missing(wanted) => write!(f, "is missing; expected {wanted}"),
            Fault::Expected { wanted, found } => write!(f, "expected {wanted}, found {found}"),
            Fault::Zero { most } => {
                write!(f, "0 does not mean no limit here; expected a whole number from 1 to {most}")
            }
            Fault::Name(bad) => bad.fmt(f),
            Fault::SocketPathTooLong { path, most } => {
                let length = path.as_os_str().len();
                write!(f, "{} has {length} bytes; a UNIX socket's path has at most {most}", path.display())
            }
            Fault::Clash(what) => f.write_str(what),
            Fault::Order { small, other, value } => {
                let (rule, than) = if *small { ("least", "less") } else { ("most", "more") };
                write!(f, "expected at {rule} {value}: it must not be {than} than `{other}`")
            }
            Fault::Twice => f.write_str("is named twice"),
            Fault::NoBlock { within, near } => {
                write!(f, "has no block in `{within}`")?;
                near.as_ref().map_or(Ok(()), |near| write!(f, "; did you mean `{near}`?"))
            }
            Fault::SharedSocket { path, other } => {
                write!(f, "the socket {} is also that of {other}; expected a path of its own", path.display())
            }
            Fault::Redis => f.write_str(
                "this server keeps its accounts in SQLite, not in Redis; \
                 remove the block `database`, or change its type to \"sqlite\" and remove the rest",
            ),
        }
    }
}

/// The candidate that `wrong` was perhaps meant to be: the fewest letters changed, and few enough.
pub(super) fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let length = wrong.chars().count();
    if length > 64 {
        return None;
    }
    let most = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wrong, &candidate.to_lowercase()), candidate))
        .filter(|(changes, candidate)| *changes <= most && *changes < candidate.chars().count())
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // `cost[i][j]` is the distance of the first `i` letters of `a` from the first `j` of `b`.
    let mut cost = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                cost[i][j] = i + j;
                continue;
            }
            let changed = cost[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(cost[i - 1][j] + 1).min(cost[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(cost[i - 2][j - 2] + 1);
            }
            cost[i][j] = least;
        }
    }
    cost[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_close_or_none() {
        let names = ["address", "port", "timeoutSeconds", "unix", "tcp4", "tcp6"];
        for (wrong, right) in [
            ("timeoutSecond", Some("timeoutSeconds")),
            ("TIMEOUTSECONDS", Some("timeoutSeconds")),
            ("adress", Some("address")),
            ("ports", Some("port")),
            ("prot", Some("port")),
            ("tcp", Some("tcp4")),
            ("unx", Some("unix")),
            ("host", None),
            ("x", None),
            ("", None),
            (&"x".repeat(100), None),
        ] {
            assert_eq!(nearest(wrong, names), right, "{wrong}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("abcd", "badc"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
