//! What can be wrong with the database, or with what is asked of it.

use crate::name::{ServerName, Username};
use rusqlite::ErrorCode;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong. Clones, because one failed commit is the answer to everyone in its group.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// A file or directory cannot be made or looked at.
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A file or directory belongs to another user of this machine.
    Foreign {
        /// Which one.
        path: PathBuf,
        /// The user id that it belongs to.
        owner: u32,
        /// The user id of this process.
        us: u32,
    },
    /// A file or directory may be used by others than its owner.
    Exposed {
        /// Which one.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no SQLite database, or one of another program.
    NotOurs {
        /// Which one.
        path: PathBuf,
    },
    /// A newer version of this program has written the file.
    Newer {
        /// Which one.
        path: PathBuf,
        /// The version of its tables.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The file is damaged.
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What SQLite says about it.
        detail: String,
    },
    /// An account was written by hand and cannot be used.
    BadAccount {
        /// The database.
        path: PathBuf,
        /// What stands where the account's name should be.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A letter lies in a mailbox, and its text is gone.
    Lost {
        /// The database.
        path: PathBuf,
        /// Whose mailbox.
        user: Username,
        /// Its number there.
        seq: u64,
    },
    /// Anything else that SQLite reports: the disk is full, or fails.
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<rusqlite::Error>,
    },
    /// Too much waits for the database, or another process holds it for too long. Trying again later may help.
    Busy,
    /// The storage threads have been told to end.
    Stopped,
    /// There is no such account.
    Unknown(Username),
    /// There is such an account already.
    Taken(Username),
    /// The account is no longer at the expected revision.
    Changed(Username),
    /// A peer was written by hand and cannot be used.
    BadPeer {
        /// The database.
        path: PathBuf,
        /// What stands where the peer's name should be.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no such peer.
    NoPeer(ServerName),
    /// There is a peer of that name already, or one that has this key.
    PeerTaken(ServerName),
    /// The peer has as many keys as it may have.
    PinsFull(ServerName),
    /// There are as many peers as there may be.
    PeersFull {
        /// `limits.peers`.
        most: usize,
    },
    /// There never was such an invitation, or it is too old, or another server has used it.
    NoInvitation,
}

impl StoreError {
    /// Sorts what SQLite said about the database at `path`.
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::NotADatabase) => Self::NotOurs { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, detail: source.to_string() },
            _ => Self::Sqlite { path, source: Arc::new(source) },
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source: Arc::new(source) }
    }

    /// What a command exits with, after `sysexits.h`: 65 a taken name, 67 no such account, 69 the database does not work,
    /// 75 trying again may help, 77 something is not permitted, 78 the file is not one that this program can use.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Taken(_) | Self::PeerTaken(_) | Self::PinsFull(_) | Self::PeersFull { .. } | Self::NoInvitation => 65,
            Self::Unknown(_) | Self::NoPeer(_) => 67,
            Self::Busy | Self::Changed(_) => 75,
            Self::Foreign { .. } | Self::Exposed { .. } => 77,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::NotOurs { .. } | Self::Newer { .. } => 78,
            Self::Io { .. } | Self::Damaged { .. } | Self::Sqlite { .. } | Self::Stopped => 69,
            Self::BadAccount { .. } | Self::Lost { .. } | Self::BadPeer { .. } => 69,
        }
    }

    /// The message with its causes, on one line.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(e) = cause {
            text.push_str(": ");
            text.push_str(&e.to_string());
            cause = e.source();
        }
        text
    }

    /// How far it reaches.
    pub(super) fn reach(&self) -> Reach {
        let source = match self {
            Self::Unknown(_) | Self::Taken(_) | Self::Changed(_) | Self::BadAccount { .. } | Self::Lost { .. } | Self::Stopped => {
                return Reach::One;
            }
            Self::BadPeer { .. } | Self::NoPeer(_) | Self::PeerTaken(_) | Self::PinsFull(_) => return Reach::One,
            Self::PeersFull { .. } | Self::NoInvitation => return Reach::One,
            Self::Busy => return Reach::Group,
            Self::Sqlite { source, .. } => source,
            _ => return Reach::Database,
        };
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Reach::Group,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport,
            ) => Reach::Database,
            _ => Reach::One,
        }
    }
}

/// How far something reaches that went wrong in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What was asked for, alone.
    One,
    /// All of the transaction, but not the next one: another process was writing, or the disk is full.
    Group,
    /// What the disk holds now is not known, and a later sync that succeeds would say nothing about what the failed one
    /// should have written. The database must be opened and looked at again.
    Database,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, .. } => write!(f, "cannot use {}", path.display()),
            Self::Foreign { path, owner, us } => write!(
                f,
                "{} belongs to user id {owner}, and this process runs as user id {us}: \
                 run it as the owner (sudo -u '#{owner}')",
                path.display()
            ),
            Self::Exposed { path, mode } => write!(f, "{0} may be used by others (mode {mode:04o}): run chmod go= '{0}'", path.display()),
            Self::NotOurs { path } => write!(f, "{} is not a database of bester: move it away, or configure another path", path.display()),
            Self::Newer { path, found, known } => write!(
                f,
                "{} was written by a newer bester (version {found} of its tables, this one knows {known}): \
                 use that one, or a backup from before the update",
                path.display()
            ),
            Self::Damaged { path, detail } => {
                write!(
                    f,
                    "{0} is damaged ({detail}): use a backup, or save what can be read with sqlite3 '{0}' .recover | sqlite3 NEW.db",
                    path.display()
                )
            }
            Self::BadAccount { path, name, detail } => {
                write!(f, "the account {name:?} in {} cannot be used ({detail}): remove it, or give it a new password", path.display())
            }
            Self::Lost { path, user, seq } => {
                write!(
                    f,
                    "message {seq} for {user} in {} has lost its text: use a backup, or run bester queue drop {user} {seq}",
                    path.display()
                )
            }
            Self::Sqlite { path, .. } => write!(f, "cannot use the database {}", path.display()),
            Self::Busy => f.write_str("the database is busy: try again"),
            Self::Stopped => f.write_str("the server is stopping"),
            Self::Unknown(name) => write!(f, "there is no user {name}"),
            Self::Taken(name) => write!(f, "there is a user {name} already"),
            Self::Changed(name) => write!(f, "the user {name} was changed meanwhile"),
            Self::BadPeer { path, name, detail } => {
                write!(
                    f,
                    "the peer {name:?} in {} cannot be used ({detail}): bester peer remove removes it, and it can be added again",
                    path.display()
                )
            }
            Self::NoPeer(name) => write!(f, "there is no peer {name}"),
            Self::PeerTaken(name) => {
                write!(
                    f,
                    "there is a peer {name} already, or one with the same key: bester peer list shows them, bester peer remove removes one"
                )
            }
            Self::PinsFull(name) => write!(f, "the peer {name} has two keys already, which is as many as there may be: replace them"),
            Self::PeersFull { most } => write!(f, "there are {most} peers already, which is as many as there may be (limits.peers)"),
            Self::NoInvitation => {
                f.write_str("there is no such invitation, or it is too old, or another server has used it: ask for another")
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Sqlite { source, .. } => Some(source),
            _ => None,
        }
    }
}
