//! What can keep a server from starting on this machine.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Something on this machine with which a server cannot start.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The key of the configuration that leads there, also when its value is the default.
    pub key: String,
    /// The path or address in question.
    pub subject: String,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// What to do about it.
    pub remedy: String,
}

/// What can be wrong with a path or address.
#[derive(Debug, Clone, PartialEq)]
pub enum Flaw {
    /// There is no such file.
    Missing,
    /// It is not what it should be: an ordinary file, a directory.
    NotA(&'static str),
    /// Something that is no socket is where a socket has to be made.
    InTheWay,
    /// It may not be run.
    NotExecutable,
    /// It is a script, and there is no such interpreter.
    NoInterpreter(String),
    /// It cannot be looked at.
    Unreachable(ErrorKind),
    /// Its owner is not the user that the server runs as.
    Owner {
        /// The owner's number.
        owner: u32,
        /// Ours.
        ours: u32,
    },
    /// Other users may use it; these are its permission bits.
    OpenToOthers(u32),
    /// We may not write there.
    NotWritable,
    /// We may not read it.
    NotReadable,
    /// It has nothing in it.
    Empty,
    /// What is in it is of no use, in these words.
    Unusable(String),
    /// The machine has no such address.
    NoAddress,
    /// There is no such user or group in this file.
    Unknown(&'static str),
    /// A user who is known by number only, so that it has no group.
    NoGroup,
    /// Somebody else than the server, which is not root: this is the server's user.
    NotRoot(u32),
    /// A user cannot go through or use it.
    ClosedTo {
        /// The user.
        user: String,
        /// What lies behind it, which the user has to get at.
        wanted: Option<PathBuf>,
    },
    /// A bound that is above what the server itself may have at most.
    Beyond(u64),
}

impl Problem {
    /// What the server exits with, after `sysexits.h`: 69 something it needs is not there, 77 something is not permitted,
    /// 78 the configuration is wrong.
    pub fn exit_code(&self) -> u8 {
        match self.flaw {
            Flaw::Missing | Flaw::NoInterpreter(_) | Flaw::NoAddress => 69,
            Flaw::NotExecutable
            | Flaw::Owner { .. }
            | Flaw::OpenToOthers(_)
            | Flaw::NotWritable
            | Flaw::NotReadable
            | Flaw::NotRoot(_)
            | Flaw::ClosedTo { .. }
            | Flaw::Beyond(_)
            | Flaw::Unreachable(ErrorKind::PermissionDenied) => 77,
            Flaw::Unreachable(_) => 69,
            Flaw::NotA(_) | Flaw::InTheWay | Flaw::Empty | Flaw::Unusable(_) | Flaw::Unknown(_) | Flaw::NoGroup => 78,
        }
    }
}

/// One exit code for several problems: what the operator has to edit comes before what has to be permitted, and that
/// before what may come by itself. None if there is no problem.
pub fn exit_code(problems: &[Problem]) -> Option<u8> {
    problems.iter().map(Problem::exit_code).max()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}; {}", self.key, self.subject, self.flaw, self.remedy)
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Missing => f.write_str("does not exist"),
            Flaw::NotA(what) => write!(f, "is not {what}"),
            Flaw::InTheWay => f.write_str("exists and is not a socket"),
            Flaw::NotExecutable => f.write_str("may not be run"),
            Flaw::NoInterpreter(name) => {
                write!(f, "is a script for {name}, which is not installed")
            }
            Flaw::Unreachable(reason) => write!(f, "cannot be looked at: {reason}"),
            Flaw::Owner { owner, ours } => write!(f, "belongs to user {owner}, and the server runs as user {ours}"),
            Flaw::OpenToOthers(mode) => write!(f, "is open to other users (mode {mode:04o})"),
            Flaw::NotWritable => f.write_str("may not be written"),
            Flaw::NotReadable => f.write_str("may not be read"),
            Flaw::Empty => f.write_str("is empty"),
            Flaw::Unusable(words) => f.write_str(words),
            Flaw::NoAddress => f.write_str("is not an address of this machine"),
            Flaw::Unknown(file) => write!(f, "is not in {file}"),
            Flaw::NoGroup => f.write_str("is not in /etc/passwd, so that nothing says which group goes with it"),
            Flaw::NotRoot(ours) => {
                write!(f, "is not whom the server runs as (user {ours}), and only root can start programs as somebody else")
            }
            Flaw::ClosedTo { user, wanted: None } => write!(f, "is closed to user {user}"),
            Flaw::ClosedTo { user, wanted: Some(wanted) } => {
                write!(f, "is closed to user {user}, who cannot reach {}", wanted.display())
            }
            Flaw::Beyond(limit) => write!(f, "is above the hard limit of the server itself, {limit}"),
        }
    }
}
