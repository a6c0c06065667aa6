//! The births and deaths of a handler's program.

use crate::config::{HandlerTransport, Program};
use crate::name::{ServerName, TypeName};
use crate::sys;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

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

/// Starts a handler's program.
pub(super) fn start(
    program: &Program,
    transport: &HandlerTransport,
    kind: &TypeName,
    server: &ServerName,
    informer: &Path,
) -> io::Result<Started> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).current_dir(&program.directory).process_group(0);
    command.env_clear().envs(inherited()).envs(&program.environment);
    command.env("BESTER_TYPE", kind.as_str()).env("BESTER_SERVER", server.as_str()).env("BESTER_INFORMER", informer);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ours = None;
    match transport {
        HandlerTransport::Stdio => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            sys::prepare_child(&mut command, None);
        }
        HandlerTransport::Socket => {
            let (our_end, their_end) = UnixStream::pair()?;
            ours = Some(our_end);
            sys::prepare_child(&mut command, Some(their_end.into()));
        }
        HandlerTransport::Unix { .. } => sys::prepare_child(&mut command, None),
    }
    let mut child = command.spawn()?;
    // Their end of the socketpair belongs to the command; it must close for an end of file to be seen.
    drop(command);
    let pid = Pid::from_child(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    let process = match pidfd {
        Ok(pidfd) => Process { child, pid, pidfd },
        Err(error) => {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            return Err(error.into());
        }
    };
    let channel = match (stdin, stdout, ours) {
        (Some(stdin), Some(stdout), _) => Channel::Pipes { stdin: stdin.into(), stdout: stdout.into() },
        (_, _, Some(ours)) => Channel::Socket(ours),
        _ => Channel::Elsewhere,
    };
    let Some(stderr) = stderr else {
        process.signal(Signal::KILL);
        return Err(io::Error::other("the program has no standard error")); // it was asked for above
    };
    Ok(Started { process, channel, stderr: stderr.into() })
}

fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (*name, value)))
}

impl Process {
    /// Sends a signal to the program and all that it started.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal); // it fails when it is dead, which is what was wanted
    }

    /// How it ended, if it has. What it left behind is ended with it.
    pub(super) fn obituary(&mut self) -> Option<String> {
        let status = match self.child.try_wait() {
            Ok(status) => status?,
            Err(error) => return Some(format!("is gone ({error})")),
        };
        self.signal(Signal::KILL);
        Some(in_words(status))
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

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        // The standard library's words are "signal: 9 (SIGKILL)", and more if there is a core file.
        (None, Some(_)) => format!("was ended by {}", status.to_string().replacen(':', "", 1)),
        (None, None) => format!("ended: {status}"),
    }
}
