//! The births and deaths of a handler's program.

use super::not_started::NotStarted;
use crate::config::{self, HandlerTransport, Identity, Program, Resources};
use crate::name::{ServerName, TypeName};
use crate::sys;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a program gets of the server's own environment: where things are and how people write, and nothing that
/// could be a secret.
const INHERITED: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"];

/// A running program. It has a process group of its own, so that what it started ends with it, and an interrupt
/// typed at the server's terminal leaves its end to the server.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    /// How many processes it was, and how long they had worked, when that was last looked at; and how often that had not
    /// changed since the time before.
    worked: Option<(usize, u64)>,
    slept: u32,
    looked: Option<Instant>,
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Obituary {
    pub(super) words: String,
    pub(super) code: Option<i32>,
}

/// A program that was just started, and our ends of what connects us.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) channel: Channel,
    pub(super) stderr: OwnedFd,
}

/// How its frames come and go.
#[derive(Debug)]
pub(super) enum Channel {
    /// Over its standard input and output.
    Pipes { stdin: OwnedFd, stdout: OwnedFd },
    /// Over descriptor 3.
    Socket(UnixStream),
    /// Over a socket that it listens on.
    Elsewhere,
}

/// What a start of a handler's program depends on.
#[derive(Debug)]
pub(super) struct Birth<'a> {
    /// Its block in the configuration.
    pub(super) handler: &'a config::Handler,
    /// Its type.
    pub(super) kind: &'a TypeName,
    /// The server's name.
    pub(super) server: &'a ServerName,
    /// Which of the type's processes it is, from 0.
    pub(super) instance: usize,
}

/// Starts a handler's program.
pub(super) fn start(birth: &Birth<'_>) -> Result<Started, NotStarted> {
    let Some(program) = &birth.handler.program else { return Err(NotStarted::nothing()) };
    // At each start, for users may have changed.
    let identity = Identity::of(program).map_err(|error| NotStarted::nobody(program, error))?;
    spawn(birth, program, identity.as_ref()).map_err(|error| NotStarted::because(program, identity.as_ref(), error))
}

fn spawn(birth: &Birth<'_>, program: &Program, identity: Option<&Identity>) -> io::Result<Started> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).current_dir(&program.directory).process_group(0);
    set_environment(&mut command, birth, program, identity);
    if let Some(identity) = identity {
        // As root this also leaves all other groups. Before the directory is entered, so that it must be one that the
        // program may be in.
        command.uid(identity.uid).gid(identity.gid);
    }
    let (stderr, theirs) = pipe(identity)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(theirs);
    let mut channel = Channel::Elsewhere;
    let mut third = None;
    match birth.handler.transport {
        HandlerTransport::Stdio => {
            let ((reader, stdin), (stdout, writer)) = (pipe(identity)?, pipe(identity)?);
            command.stdin(reader).stdout(writer);
            channel = Channel::Pipes { stdin, stdout };
        }
        HandlerTransport::Socket => {
            let (ours, theirs) = UnixStream::pair()?;
            channel = Channel::Socket(ours);
            third = Some(theirs.into());
        }
        HandlerTransport::Unix { .. } => {}
    }
    sys::prepare_child(&mut command, third);
    // What a program run by the handler could do as root through a set-user-ID bit is what its own user is there to prevent.
    sys::confine_child(&mut command, bounds(&program.resources), program.user.is_some());
    let mut child = command.spawn()?;
    // Their ends belong to the command; they must close for an end of file to be seen.
    drop(command);
    let pid = Pid::from_child(&child);
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Started { process: Process { child, pid, pidfd, worked: None, slept: 0, looked: None }, channel, stderr }),
        Err(error) => {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            Err(error.into())
        }
    }
}

/// The later of two values counts: what is configured goes before what is inherited, and what we promise before both.
fn set_environment(command: &mut Command, birth: &Birth<'_>, program: &Program, identity: Option<&Identity>) {
    command.env_clear();
    command.envs(INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    if let Some(account) = identity.and_then(|identity| identity.account.as_ref()) {
        command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
    }
    command.envs(&program.environment);
    command.env("BESTER_TYPE", birth.kind.as_str()).env("BESTER_SERVER", birth.server.as_str());
    command.env("BESTER_INSTANCE", birth.instance.to_string()).env("BESTER_INFORMER", &birth.handler.informer_socket);
    if birth.handler.envelope {
        // A handler that takes plain data for envelopes would let clients write envelopes of their own.
        command.env("BESTER_ENVELOPE", "1");
    }
}

/// Its end for reading, and its end for writing. A program may open its descriptors once more by their names in `/dev` if
/// they are its user's.
fn pipe(identity: Option<&Identity>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    if let Some(identity) = identity {
        fchown(&reader, Some(identity.uid), Some(identity.gid))?; // both ends are one file
    }
    Ok((reader.into(), writer.into()))
}

fn bounds(resources: &Resources) -> Vec<(Resource, Rlimit)> {
    let both = |bound| Rlimit { current: Some(bound), maximum: Some(bound) };
    let files = resources.files.map_or_else(sys::usual_descriptor_limit, both);
    // Core files would have messages in them.
    let mut bounds = vec![(Resource::Core, both(0)), (Resource::Nofile, files)];
    bounds.extend(resources.memory.map(|bytes| (Resource::As, both(bytes))));
    bounds.extend(resources.processes.map(|count| (Resource::Nproc, both(count))));
    bounds
}

impl Process {
    /// Sends a signal to the program and all that it started.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal); // it fails when it is dead, which is what was wanted
    }

    /// How it ended, if it has. What it left behind is ended with it.
    pub(super) fn obituary(&mut self) -> Option<Obituary> {
        let status = match self.child.try_wait() {
            Ok(status) => status?,
            Err(error) => return Some(Obituary { words: format!("is gone ({error})"), code: None }),
        };
        self.signal(Signal::KILL);
        Some(Obituary { words: in_words(status), code: status.code() })
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has started up, as far as can be seen from outside: it and all that it started have slept for
    /// [`RESTED`] looks, none sooner than [`LOOK_EVERY`] after the one before. A program that starts sleeps too, when it
    /// reads a file, but not for so long.
    pub(super) fn rests(&mut self, now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        let worked = family(self.child.id());
        let slept = worked.is_some() && worked == self.worked;
        self.worked = worked;
        self.slept = if slept { self.slept + 1 } else { 0 };
        self.slept >= RESTED
    }

    /// Readable once it is dead.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// A program is never left behind, whatever happened.
impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// How often it is looked whether a program can be asked by now.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After so many looks without any work it has started up.
const RESTED: u32 = 3;
/// So many processes of a handler are looked at.
const FAMILY_MAX: usize = 64;

/// How many processes it is, with those that it started (a wrapper may wait for the program proper), and how many
/// nanoseconds they have worked, if all are asleep.
fn family(pid: u32) -> Option<(usize, u64)> {
    let mut pids = vec![pid];
    let mut worked = 0;
    let mut seen = 0;
    while let Some(pid) = pids.pop() {
        seen += 1;
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        // The name, in parentheses, may have anything in it.
        let stat = file("stat")?;
        if !stat.rsplit_once(") ")?.1.starts_with('S') {
            return None;
        }
        worked += file("schedstat")?.split(' ').next()?.parse::<u64>().ok()?;
        // Not every kernel tells whom it started; then the wrapper must do.
        let children = file(&format!("task/{pid}/children")).unwrap_or_default();
        pids.extend(
            children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()).take(FAMILY_MAX - pids.len().min(FAMILY_MAX)),
        );
        if seen >= FAMILY_MAX {
            break;
        }
    }
    Some((seen, worked))
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        // The standard library's words are "signal: 9 (SIGKILL)", and more if there is a core file.
        (None, Some(_)) => format!("was ended by {}", status.to_string().replacen(':', "", 1)),
        (None, None) => format!("ended: {status}"),
    }
}

#[cfg(test)]
mod tests;
