//! Why a handler's program could not be started, in words for the operator. The system tells no more than a number, and the
//! same one for a program that is not there, its interpreter and its directory; so we look.

use crate::config::{Identity, NoIdentity, Program};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The system reads no more of a script's first line.
const FIRST_LINE_BYTES_MAX: u64 = 256;

/// What was to be started, as whom, and why it was not.
#[derive(Debug)]
pub(super) struct NotStarted {
    program: PathBuf,
    user: Option<String>,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// Somebody else runs it.
    Nothing,
    Nobody(NoIdentity),
    NoDirectory(PathBuf),
    NotADirectory(PathBuf),
    NoProgram,
    NotAFile,
    NotExecutable,
    /// A script with this first line.
    NoInterpreter(String),
    /// No script.
    NoLoader,
    NotAProgram,
    /// A directory or a file, closed to whom the program is to run as.
    Closed(PathBuf),
    /// The server cannot start anything as that user, or lower a bound that is above its own.
    NotPermitted(io::Error),
    /// As many processes as are allowed.
    NoRoom(io::Error),
    System(io::Error),
}

impl NotStarted {
    /// There is no program to start.
    pub(super) fn nothing() -> NotStarted {
        NotStarted { program: PathBuf::new(), user: None, reason: Reason::Nothing }
    }

    /// Nobody is called so.
    pub(super) fn nobody(program: &Program, error: NoIdentity) -> NotStarted {
        NotStarted { program: program.path.clone(), user: None, reason: Reason::Nobody(error) }
    }

    /// The system refused.
    pub(super) fn because(program: &Program, identity: Option<&Identity>, error: io::Error) -> NotStarted {
        let user = identity.map(Identity::name);
        NotStarted { program: program.path.clone(), user, reason: reason(program, identity, error) }
    }

    /// As [`is_shortage`].
    pub(super) fn is_shortage(&self) -> bool {
        matches!(&self.reason, Reason::NoRoom(error) | Reason::System(error) if is_shortage(error))
    }
}

/// Whether something was short that others will give back: processes, memory, descriptors.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}

fn reason(program: &Program, identity: Option<&Identity>, error: io::Error) -> Reason {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => missing(program).unwrap_or(Reason::System(error)),
        Some(Errno::ACCESS) => forbidden(program, identity).unwrap_or(Reason::System(error)),
        Some(Errno::PERM) => Reason::NotPermitted(error),
        Some(Errno::NOEXEC) => Reason::NotAProgram,
        Some(Errno::AGAIN) => Reason::NoRoom(error),
        _ => Reason::System(error),
    }
}

fn missing(program: &Program) -> Option<Reason> {
    match program.directory.metadata() {
        Err(_) => return Some(Reason::NoDirectory(program.directory.clone())),
        Ok(known) if !known.is_dir() => return Some(Reason::NotADirectory(program.directory.clone())),
        Ok(_) => {}
    }
    if program.path.metadata().is_err() {
        return Some(Reason::NoProgram);
    }
    let mut head = Vec::new();
    File::open(&program.path).ok()?.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut head).ok()?;
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    Some(if line.starts_with(b"#!") { Reason::NoInterpreter(String::from_utf8_lossy(line).into_owned()) } else { Reason::NoLoader })
}

fn forbidden(program: &Program, identity: Option<&Identity>) -> Option<Reason> {
    let closed = |path: &Path| match identity {
        Some(identity) => identity.barrier(path).or_else(|| {
            let known = path.metadata().ok()?;
            (!identity.may(path, &known, 1)).then(|| path.to_owned())
        }),
        None => accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_err().then(|| path.to_owned()),
    };
    if let Some(closed) = closed(&program.directory) {
        return Some(Reason::Closed(closed));
    }
    match program.path.metadata() {
        Ok(known) if !known.is_file() => Some(Reason::NotAFile),
        Ok(known) if known.permissions().mode() & 0o111 == 0 => Some(Reason::NotExecutable),
        _ => closed(&program.path).map(Reason::Closed),
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        if let Some(user) = &self.user {
            write!(f, " as user {user}")?;
        }
        f.write_str(": ")?;
        match &self.reason {
            Reason::Nothing => f.write_str("there is no program to start"),
            Reason::Nobody(error) => error.fmt(f),
            Reason::NoDirectory(path) => write!(f, "its working directory {} does not exist", path.display()),
            Reason::NotADirectory(path) => write!(f, "its working directory {} is not a directory", path.display()),
            Reason::NoProgram => f.write_str("there is no such program"),
            Reason::NotAFile => f.write_str("it is not a file"),
            Reason::NotExecutable => write!(f, "it is not executable; run: chmod +x {}", self.program.display()),
            // Quoted, for it may end in a carriage return.
            Reason::NoInterpreter(line) => write!(f, "its interpreter (first line: {line:?}) is missing"),
            Reason::NoLoader => f.write_str("its loader is missing: it was made for a system with another C library or processor"),
            Reason::NotAProgram => f.write_str("it is no program of this machine, and no script either, which begins with #!"),
            Reason::Closed(path) if *path == self.program => write!(f, "{} may not run it", self.who()),
            Reason::Closed(path) => write!(f, "{} is closed to {}", path.display(), self.who()),
            Reason::NotPermitted(error) => {
                write!(
                    f,
                    "the server may not start it so ({error}): `user` and `group` need root, `resources` no more than the server's own"
                )
            }
            Reason::NoRoom(error) => write!(f, "there are as many processes already as its user or the system may have ({error})"),
            Reason::System(error) => error.fmt(f),
        }
    }
}

impl NotStarted {
    fn who(&self) -> String {
        self.user.as_ref().map_or_else(|| "the server".to_owned(), |user| format!("user {user}"))
    }
}
