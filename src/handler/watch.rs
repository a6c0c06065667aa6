//! The thread that replaces handlers with `"watch": true` when a file of their program changes, and calls others who look
//! at files of theirs.
//!
//! Spawned by `server.rs`; owns what it saw of the files the last time; looks at them every second; ends with
//! [`Watcher::stop`].

use super::roster::Roster;
use crate::config::Program;
use crate::name::TypeName;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::{info, warn};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const STACK_BYTES: usize = 256 << 10;
/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The running watcher.
#[derive(Debug)]
pub struct Watcher {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watcher {
    /// Begins to watch; `look` is called every second, and must not wait.
    pub fn start(roster: Arc<Roster>, look: impl Fn() + Send + 'static) -> io::Result<Watcher> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let thread = crate::thread::spawn("watcher", STACK_BYTES, move || watch(&roster, &look, &stopped))?;
        Ok(Watcher { stop, thread })
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join(); // its panic is in the log
    }
}

fn watch(roster: &Roster, look: &dyn Fn(), stopped: &Receiver<()>) {
    let mut seen = BTreeMap::new();
    while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        look();
        let watched = roster.watched();
        seen.retain(|kind, _| watched.iter().any(|(watched, _)| watched == kind));
        for (kind, files) in watched {
            if changed(&mut seen, &kind, &files) {
                info!("a file of handler {kind} has changed");
                if let Err(why) = roster.restart(kind.as_str()) {
                    warn!("handler {kind} stays as it is, until its file changes again: {why}");
                }
            }
        }
    }
}

/// The files that a program is made of: itself, and its arguments, of which some may be files, such as a script.
pub(super) fn files(program: &Program) -> Vec<PathBuf> {
    let arguments = program.arguments.iter().map(|argument| program.directory.join(argument));
    std::iter::once(program.path.clone()).chain(arguments).collect()
}

/// What can be seen of a type's files.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Which files they are.
    files: Vec<PathBuf>,
    /// When the handler was last (re)started.
    running: Vec<Stamp>,
    /// The last time.
    last: Vec<Stamp>,
}

/// Of a file: which it is, who may do what with it, how long it is, and when it was last changed. `None` if there is none.
type Stamp = Option<(u64, u32, u64, i64, i64)>;

/// Whether the files are others than those that run, and nobody is writing them any longer.
fn changed(seen: &mut BTreeMap<TypeName, Seen>, kind: &TypeName, files: &[PathBuf]) -> bool {
    let now: Vec<Stamp> = files.iter().map(|file| stamp(file)).collect();
    let Some(seen) = seen.get_mut(kind).filter(|seen| seen.files == files) else {
        seen.insert(kind.clone(), Seen { files: files.to_vec(), running: now.clone(), last: now });
        return false;
    };
    // Who writes a file anew may have removed it first.
    let is_missing = |(now, running): (&Stamp, &Stamp)| now.is_none() && running.is_some();
    let settled = seen.last == now && !now.iter().zip(&seen.running).any(is_missing);
    if settled && seen.running != now {
        seen.running = now;
        return true;
    }
    seen.last = now;
    false
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    Some((metadata.ino(), metadata.mode(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_script_that_is_removed_and_written_anew_is_a_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = ["-u", "script", "."].map(String::from).to_vec();
        let program = Program {
            path: "/bin/sh".into(),
            arguments,
            environment: BTreeMap::new(),
            directory: directory.path().to_owned(),
            user: None,
            group: None,
            resources: crate::config::Resources::default(),
        };
        let script = directory.path().join("script");
        let kind = TypeName::new("x").expect("a type");
        let mut seen = BTreeMap::new();
        let mut look = || changed(&mut seen, &kind, &files(&program));
        fs::write(&script, "1").expect("a file");
        assert!(!look() && !look());
        fs::remove_file(&script).expect("the file");
        assert!(!look() && !look() && !look(), "there is nothing to start");
        fs::write(&script, "12").expect("a file");
        assert!(!look() && look() && !look());
        fs::write(directory.path().join("data"), "").expect("a file");
        assert!(!look() && !look(), "what is in a directory is not the program");
    }

    #[test]
    fn another_program_is_no_change_of_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let kind = TypeName::new("x").expect("a type");
        let mut seen = BTreeMap::new();
        for name in ["one", "two"] {
            let file = directory.path().join(name);
            fs::write(&file, name).expect("a file");
            assert!((0..3).all(|_| !changed(&mut seen, &kind, std::slice::from_ref(&file))), "a reload has started it already");
        }
    }

    #[test]
    fn a_file_that_was_changed_is_told_once_and_when_it_is_complete() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("handler");
        let files = [file.clone()];
        let kind = TypeName::new("x").expect("a type");
        let mut seen = BTreeMap::new();
        fs::write(&file, "1").expect("a file");
        assert!(!changed(&mut seen, &kind, &files), "what there is at first is what runs");
        assert!(!changed(&mut seen, &kind, &files));
        fs::write(&file, "12").expect("a file");
        assert!(!changed(&mut seen, &kind, &files), "it may be half written");
        fs::write(&file, "123").expect("a file");
        assert!(!changed(&mut seen, &kind, &files), "it was");
        assert!(changed(&mut seen, &kind, &files));
        assert!(!changed(&mut seen, &kind, &files));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).expect("permissions");
        assert!(!changed(&mut seen, &kind, &files) && changed(&mut seen, &kind, &files), "what could not be started may be now");
        fs::remove_file(&file).expect("the file");
        assert!(!changed(&mut seen, &kind, &files) && !changed(&mut seen, &kind, &files), "there is nothing to start");
        fs::write(&file, "12345").expect("a file");
        assert!(!changed(&mut seen, &kind, &files));
        assert!(changed(&mut seen, &kind, &files));
    }
}
