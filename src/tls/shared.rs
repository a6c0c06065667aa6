//! The identity of a running server, which may change: new connections get the newest, those that are there keep theirs.

use super::{Identity, IdentityError, Paths, TlsError, server_config};
use log::{error, info};
use rustls::ServerConfig;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// What a look at the files came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// They are as they were.
    Same,
    /// They are others, and were read.
    Changed,
}

/// The certificate and key in force.
pub struct Shared {
    paths: Paths,
    /// Held to take a copy or to put a new one there, never while a file is read.
    current: RwLock<Current>,
    /// What was seen of the files. Held while they are read, which only one does at a time.
    seen: Mutex<Seen>,
}

#[derive(Clone)]
struct Current {
    identity: Arc<Identity>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Seen {
    /// When they were read, or could not be.
    read: Stamps,
    /// The last time.
    last: Stamps,
}

/// Of the certificate and of the key: which file it is, who may do what with it, how long it is, and when it was last changed.
/// `None` if there is none.
type Stamps = [Option<(u64, u32, u64, i64, i64)>; 2];

impl Shared {
    /// With this identity, which was read from `paths`.
    ///
    /// # Errors
    /// The identity is of no use.
    pub fn new(identity: Identity, paths: Paths) -> Result<Shared, TlsError> {
        let config = server_config(&identity)?;
        let stamps = stamps(&paths);
        let current = RwLock::new(Current { identity: Arc::new(identity), config });
        Ok(Shared { paths, current, seen: Mutex::new(Seen { read: stamps, last: stamps }) })
    }

    /// Who we are, for connections that we begin.
    pub fn identity(&self) -> Arc<Identity> {
        self.current().identity
    }

    /// How handshakes are answered.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.current().config
    }

    /// Whether a reload would find other files than those that were read.
    pub fn has_changed(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).read != stamps(&self.paths)
    }

    /// Reads the files again if they are others than those that were read.
    ///
    /// # Errors
    /// They are of no use: what was in force stays so.
    pub fn reload(&self) -> Result<Turn, IdentityError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.paths);
        seen.last = now;
        if seen.read == now {
            return Ok(Turn::Same);
        }
        // Also if they turn out to be of no use: that is told once.
        seen.read = now;
        let identity = Identity::load(&self.paths)?;
        let unusable = |error: TlsError| {
            let flaw = super::IdentityFlaw::Unusable(error.to_string());
            IdentityError { path: self.paths.certificate.clone(), flaw }
        };
        let config = server_config(&identity).map_err(unusable)?;
        info!("certificate and key are read again from {}; the pin is {}", self.paths.certificate.display(), identity.pin());
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { identity: Arc::new(identity), config };
        Ok(Turn::Changed)
    }

    /// Looks at the files, and reads them again if they have changed and nobody is writing them any longer: they are as they
    /// were at the last look, and both are there. To be called every now and then.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.paths);
        let settled = std::mem::replace(&mut seen.last, now) == now && now.iter().all(Option::is_some);
        if seen.read == now || !settled {
            return;
        }
        drop(seen);
        if let Err(why) = self.reload() {
            error!("certificate and key stay as they are, until the files change again: {why}");
        }
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?})", self.current().identity)
    }
}

fn stamps(paths: &Paths) -> Stamps {
    [stamp(&paths.certificate), stamp(&paths.key)]
}

fn stamp(file: &Path) -> Option<(u64, u32, u64, i64, i64)> {
    let known = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    Some((known.ino(), known.mode(), known.len(), known.mtime(), known.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServerName;
    use std::fs;

    fn name() -> ServerName {
        ServerName::new("a.example").expect("a name")
    }

    #[test]
    fn files_that_changed_are_read_once_they_are_whole_and_good() {
        let (home, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let shared = Shared::new(Identity::own(home.path(), &name()).expect("made"), Paths::own(home.path())).expect("good");
        let (before, new) = (shared.identity().pin(), Identity::own(other.path(), &name()).expect("made").pin());
        assert_eq!(shared.reload().expect("nothing to read"), Turn::Same);
        let (mine, theirs) = (Paths::own(home.path()), Paths::own(other.path()));
        let replace = |from: &Path, to: &Path| {
            fs::copy(from, to.with_extension("new")).expect("copied");
            fs::rename(to.with_extension("new"), to).expect("renamed");
        };
        replace(&theirs.certificate, &mine.certificate);
        shared.look();
        assert_eq!(shared.identity().pin(), before, "somebody may still be writing");
        shared.look();
        assert_eq!(shared.identity().pin(), before, "the key does not belong to it");
        assert_eq!(shared.reload().expect("told once"), Turn::Same);
        fs::remove_file(&mine.key).expect("the key");
        shared.look();
        shared.look();
        assert_eq!(shared.identity().pin(), before, "there is no key");
        replace(&theirs.key, &mine.key);
        shared.look();
        assert_eq!(shared.identity().pin(), before);
        shared.look();
        assert_eq!(shared.identity().pin(), new);
        assert_eq!(shared.reload().expect("nothing more"), Turn::Same);
    }

    #[test]
    fn a_reload_waits_for_nothing_and_keeps_what_is_in_force_if_it_must() {
        let home = tempfile::tempdir().expect("a directory");
        let paths = Paths::own(home.path());
        let shared = Shared::new(Identity::own(home.path(), &name()).expect("made"), paths.clone()).expect("good");
        let before = shared.identity().pin();
        fs::write(&paths.certificate, "nothing").expect("written");
        assert!(shared.has_changed() && shared.reload().is_err() && !shared.has_changed());
        assert_eq!(shared.identity().pin(), before);
        fs::remove_file(&paths.certificate).expect("the file");
        Identity::own(home.path(), &name()).expect("made for the same key");
        assert_eq!(shared.reload().expect("good"), Turn::Changed);
        assert_eq!(shared.identity().pin(), before, "the key is the same");
    }
}
