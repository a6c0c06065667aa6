//! What is asked of the system for the process as a whole. Some of it needs `unsafe`, each with the reason why it is
//! sound; no other file may have any.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{FdFlags, dup2, fcntl_setfd};
use rustix::process::{Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where a handler finds its channel when it is not its standard input and output.
const CHANNEL_FD: RawFd = 3;

/// Each connection needs a descriptor: takes as many as the system gives.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
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

/// Has a child end when the thread that spawns it ends (which must therefore live as long as the server), and gives
/// it `channel` as descriptor 3.
pub(crate) fn prepare_child(command: &mut Command, channel: Option<OwnedFd>) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
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
