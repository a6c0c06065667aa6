//! What is asked of the system for the process as a whole. Some of it needs `unsafe`, each with the reason why it is
//! sound; no other file may have any.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{FdFlags, dup2, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::set_no_new_privs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// Where a handler finds its channel when it is not its standard input and output.
const CHANNEL_FD: RawFd = 3;

/// Signals are numbered from 1 to this.
const SIGNALS: usize = 64;

/// The limit of open files before it was raised.
static DESCRIPTORS_BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Each connection needs a descriptor: takes as many as the system gives.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    DESCRIPTORS_BEFORE.get_or_init(|| current);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The limit of open files that programs expect, which is the one that this process was started with: there are some that
/// close every descriptor up to it, and some that use `select`, which knows but 1024.
pub(crate) fn usual_descriptor_limit() -> Rlimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = DESCRIPTORS_BEFORE.get().copied().unwrap_or(current);
    let current = match (before, maximum) {
        (Some(before), Some(maximum)) => Some(before.min(maximum)),
        (None, maximum) => maximum,
        (before, None) => before,
    };
    Rlimit { current, maximum }
}

/// Keeps every descriptor but the standard three from children. Whoever launched the server may have left some open;
/// ours are made that way.
///
/// Call it at the start, before there are other threads.
pub(crate) fn keep_descriptors_from_children() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        if number > 2 {
            // SAFETY: the descriptor is only used for this call; if it was closed meanwhile (the directory's own
            // is, at the end), the call fails and nothing happens.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// Whoever started us may ignore the deaths of children, and then nobody could be told how one ended.
///
/// Call it before there are children.
pub(crate) fn hear_of_children() {
    // SAFETY: no function of ours is named, and the default for this signal is that nothing happens.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// The channel that the server gave us, if we are a handler: the other end of what [`prepare_child`] hands over.
pub(crate) fn handler_channel() -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only used for this call; if there is none, the call fails and nothing happens.
    let channel = unsafe { BorrowedFd::borrow_raw(CHANNEL_FD) };
    // What the handler starts must not hold it: the server would wait for the end of that as well.
    fcntl_setfd(channel, FdFlags::CLOEXEC)?;
    Ok(fcntl_dupfd_cloexec(channel, CHANNEL_FD)?)
}

/// Has a child end when the thread that spawns it ends (which must therefore live as long as the server), gives it
/// `channel` as descriptor 3, and lets every signal do to it what signals do by default, whatever is ignored or blocked here.
///
/// The order to end with the thread is lost when a process becomes another user's. The standard library changes the user
/// before it calls what is here, and a test sees to it that this stays so.
pub(crate) fn prepare_child(command: &mut Command, channel: Option<OwnedFd>) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        reset_signals();
        if let Some(channel) = &channel {
            if channel.as_raw_fd() == CHANNEL_FD {
                fcntl_setfd(channel, FdFlags::empty())?;
            } else {
                // SAFETY: in the child nothing else uses descriptor 3 any longer, so it may be replaced, and it must
                // not be closed when this value goes.
                let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) });
                dup2(channel, &mut target)?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: no memory is allocated (such errors need
    // none) and no lock is taken.
    unsafe { command.pre_exec(prepare) };
}

/// Bounds for a child, in this order; and with `locked_in`, whatever it runs has no more rights than it has.
///
/// Call it after [`prepare_child`], whose descriptor 3 could be beyond the bounds.
pub(crate) fn confine_child(command: &mut Command, bounds: Vec<(Resource, Rlimit)>, locked_in: bool) {
    let confine = move || {
        for (resource, bound) in &bounds {
            setrlimit(*resource, Rlimit { current: bound.current, maximum: bound.maximum })?;
        }
        if locked_in {
            set_no_new_privs(true)?;
        }
        Ok(())
    };
    // SAFETY: as above; the list is only read.
    unsafe { command.pre_exec(confine) };
}

/// Only for a child before its program runs.
fn reset_signals() {
    // The system's structure of a signal's action, larger than on any machine: all zero, it says "the default", "no flags"
    // and "no mask". As a set of signals it is the empty one.
    let zero = [0u64; 16];
    let nowhere = std::ptr::null_mut::<u64>();
    for number in 1..=SIGNALS {
        // SAFETY: the system reads less than `zero` has and writes nothing. No handler of ours is missed afterwards, for
        // nothing of ours runs any more. For the two signals that cannot be changed it fails, which changes nothing. The C
        // library's own function would refuse two more, which it ignores in all that it spawns.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, zero.as_ptr(), nowhere, SIGNALS / 8) };
    }
    // SAFETY: the same; what was pending comes now, and does what it does by default.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::c_long::from(libc::SIG_SETMASK), zero.as_ptr(), nowhere, SIGNALS / 8) };
}
