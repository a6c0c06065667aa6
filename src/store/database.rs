//! Opening the database: making it, refusing what is not ours or not safe, and bringing its tables up to date.

use super::StoreError;
use super::accounts::Accounts;
use super::rows::Rows;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Marks our files in SQLite's header: "best".
const APPLICATION_ID: u32 = 0x6265_7374;

/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to pause where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Statements that are kept prepared: more than there are.
const STATEMENTS: usize = 128;

/// What makes version n + 1 of the tables from version n. Never change one that was released: append another.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE counters (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counters VALUES ('revision', 0);

    CREATE TABLE accounts (
        name TEXT PRIMARY KEY CHECK (
            length(name) BETWEEN 1 AND 64
            AND name NOT GLOB '*[^a-z0-9._-]*'
            AND name GLOB '[a-z0-9]*'
        ),
        password TEXT NOT NULL,                                   -- a PHC string
        disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
        revision INTEGER NOT NULL CHECK (revision > 0),           -- of the last change
        created INTEGER NOT NULL                                  -- seconds since 1970
    ) STRICT, WITHOUT ROWID;
",
    "
    INSERT INTO counters VALUES
        ('ended', 1),                                             -- whether the last run of the server did as it should
        ('suspect', 0),                                           -- bodies up to this one may have been delivered before
        ('proofs', 0);                                            -- how often it was tried whether the disk works again

    CREATE TABLE mailboxes (
        box INTEGER PRIMARY KEY,
        user TEXT NOT NULL UNIQUE,                                -- stays when the account is removed
        last INTEGER NOT NULL,                                    -- the highest seq that a letter had; never comes again
        messages INTEGER NOT NULL,                                -- rows of mail
        bytes INTEGER NOT NULL                                    -- their sum
    ) STRICT;

    CREATE TABLE bodies (
        body INTEGER PRIMARY KEY AUTOINCREMENT,
        message_id TEXT NOT NULL,
        kind TEXT NOT NULL,                                       -- payload.type
        data BLOB NOT NULL,                                       -- payload.data
        asker INTEGER,                                            -- the connection that asked, in the run of message_id
        id BLOB,                                                  -- its payload.id
        waiting INTEGER NOT NULL                                  -- rows of mail that refer to it; goes with the last
    ) STRICT;

    CREATE TABLE mail (
        box INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        body INTEGER NOT NULL,
        bytes INTEGER NOT NULL,                                   -- of the body's data
        kept INTEGER NOT NULL,                                    -- seconds since 1970
        attempts INTEGER NOT NULL,                                -- sent without being acknowledged
        aside INTEGER NOT NULL,                                   -- 1: not sent any more
        PRIMARY KEY (box, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX mail_aside ON mail (box, seq) WHERE aside = 1;

    CREATE TABLE memos (
        n INTEGER PRIMARY KEY,                                    -- rises with time
        digest BLOB NOT NULL UNIQUE,
        report BLOB NOT NULL,                                     -- the text of its frame
        at INTEGER NOT NULL                                       -- seconds since 1970
    ) STRICT;
",
    "
    CREATE TABLE peers (
        peer INTEGER PRIMARY KEY AUTOINCREMENT,                   -- never comes again
        name TEXT NOT NULL UNIQUE,
        addresses TEXT NOT NULL,                                  -- a JSON list of HOST:PORT
        pins TEXT NOT NULL,                                       -- a JSON list of 64 hexadecimal digits each
        verify TEXT NOT NULL CHECK (verify IN ('pins', 'nothing', 'open')),
        added INTEGER NOT NULL,                                   -- seconds since 1970
        last INTEGER NOT NULL,                                    -- the highest seq that a message had; never comes again
        messages INTEGER NOT NULL,                                -- rows of outbox
        bytes INTEGER NOT NULL,                                   -- their sum
        tries INTEGER NOT NULL,                                   -- how often it could not be reached
        seen INTEGER NOT NULL                                     -- rows of seen
    ) STRICT;

    CREATE TABLE outbox (
        peer INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        kind TEXT NOT NULL,                                       -- payload.type
        bytes INTEGER NOT NULL,                                   -- of data
        hops INTEGER NOT NULL,
        kept INTEGER NOT NULL,                                    -- seconds since 1970
        attempts INTEGER NOT NULL,                                -- sent, and answered that it cannot be taken now
        tries INTEGER NOT NULL,                                   -- of the peer, when it was kept
        author TEXT,                                              -- the user whose message led to it
        author_id BLOB,                                           -- payload.id of that message, with its quotes
        author_message_id TEXT,                                   -- messageId of that message; none: nobody is told
        data BLOB NOT NULL,                                       -- payload.data
        UNIQUE (peer, seq)
    ) STRICT;
    CREATE INDEX outbox_author ON outbox (author) WHERE author_message_id IS NOT NULL;

    CREATE TABLE seen (
        n INTEGER PRIMARY KEY,                                    -- rises with time
        peer INTEGER NOT NULL,                                    -- may be gone
        digest BLOB NOT NULL UNIQUE,
        report BLOB NOT NULL,                                     -- the text of its frame
        at INTEGER NOT NULL                                       -- seconds since 1970
    ) STRICT;
    CREATE INDEX seen_peer ON seen (peer, n);

    CREATE TABLE invitations (
        digest BLOB PRIMARY KEY,                                  -- of the secret
        until INTEGER NOT NULL,                                   -- seconds since 1970
        used_by TEXT,                                             -- the name of the peer
        used_pin TEXT                                             -- and its key
    ) STRICT, WITHOUT ROWID;

    -- What the report says that a body is; none is a delivery. Then id is that of the user's own message.
    ALTER TABLE bodies ADD COLUMN reason TEXT CHECK (reason IN ('expired', 'peerRefused'));
",
];

/// An open database. Each change is on the disk when its method returns.
///
/// Several processes may have the same file open; one changes it at a time and others wait up to 5 s for it.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl Database {
    /// Opens the database at `path`. Makes the file (mode 0600) and its directory (0700) where they are missing.
    ///
    /// # Errors
    /// * [`StoreError::Foreign`], [`StoreError::Exposed`]: the file, its directory or one of SQLite's files beside it
    ///   belongs to somebody else, or may be used by its group or by others.
    /// * [`StoreError::NotOurs`], [`StoreError::Newer`], [`StoreError::Damaged`]: about what is in the file.
    /// * [`StoreError::Io`], [`StoreError::Sqlite`], [`StoreError::Busy`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_prepared(prepare(path)?, MIGRATIONS)
    }

    /// Opens the database at `path` once more, which was opened before: nothing is made and nothing is brought up to date.
    pub(super) fn reopen(path: &Path) -> Result<Self, StoreError> {
        let database = Self::connect(path.to_owned())?;
        if database.version(MIGRATIONS)? != newest(MIGRATIONS) {
            return Err(StoreError::Damaged { path: database.path, detail: "its tables are gone".into() });
        }
        database.set_up()?;
        Ok(database)
    }

    /// Writes all of SQLite's log into the database and empties it.
    ///
    /// After a sync that failed, the log may hold what is in the memory of the system alone, and no later sync writes that. It
    /// would be read as if it were on the disk, and after a loss of power everything behind it in the log would be gone. Written
    /// anew, it is synced anew.
    ///
    /// # Errors
    /// [`StoreError::Busy`]: another process is reading.
    pub(super) fn empty_log(&self) -> Result<(), StoreError> {
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        match emptied.map_err(|e| self.fail(e))? {
            0 => Ok(()),
            _ => Err(StoreError::Busy),
        }
    }

    fn open_prepared(path: PathBuf, migrations: &[&str]) -> Result<Self, StoreError> {
        let database = Self::connect(path)?;
        let version = database.version(migrations)?;
        database.set_up()?;
        if version < newest(migrations) {
            database.migrate(migrations)?;
        }
        Ok(database)
    }

    fn connect(path: PathBuf) -> Result<Self, StoreError> {
        // Without CREATE, as a file that SQLite makes would have the permissions of the umask, and without URI, as
        // a path is not to be taken apart.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let opened = Connection::open_with_flags(&path, flags);
        let connection = opened.map_err(|e| StoreError::of(&path, e))?;
        // All that there are.
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self { connection, path })
    }

    /// All tables, outside any transaction: for reading.
    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { connection: &self.connection, path: &self.path }
    }

    /// Does `body` in a transaction of its own, which is undone when it fails.
    pub(super) fn transact<T>(&mut self, body: impl FnOnce(Rows<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (transaction, path) = self.begin()?;
        let value = body(Rows { connection: &transaction, path })?;
        transaction.commit().map_err(|e| StoreError::of(path, e))?;
        Ok(value)
    }

    /// The accounts, outside any transaction: for reading.
    pub(super) fn accounts(&self) -> Accounts<'_> {
        Accounts::new(&self.connection, &self.path)
    }

    /// Does `body` in a transaction of its own, which is undone when it fails.
    pub(super) fn write<T>(&mut self, body: impl FnOnce(&Accounts<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.transact(|rows| body(&Accounts::new(rows.connection, rows.path)))
    }

    /// Begins a transaction that may write. It is undone unless it is committed.
    pub(super) fn begin(&mut self) -> Result<(Transaction<'_>, &Path), StoreError> {
        // A transaction that only later finds out that it writes can fail as busy without waiting.
        let immediate = TransactionBehavior::Immediate;
        let begun = self.connection.transaction_with_behavior(immediate);
        let transaction = begun.map_err(|e| StoreError::of(&self.path, e))?;
        Ok((transaction, &self.path))
    }

    fn fail(&self, error: rusqlite::Error) -> StoreError {
        StoreError::of(&self.path, error)
    }

    /// The version of the tables, 0 in an empty file. Writes nothing: the file may be somebody else's.
    fn version(&self, migrations: &[&str]) -> Result<u32, StoreError> {
        let sql = "SELECT (SELECT application_id FROM pragma_application_id),
                          (SELECT user_version FROM pragma_user_version),
                          (SELECT count(*) FROM sqlite_schema)";
        let timeout = self.connection.busy_timeout(BUSY_TIMEOUT);
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found = timeout.and_then(|()| self.connection.query_row(sql, [], read));
        let (application, version, tables): (i64, i64, i64) = found.map_err(|e| self.fail(e))?;
        let path = self.path.clone();
        match (application, u32::try_from(version)) {
            (0, Ok(0)) if tables == 0 => Ok(0),
            (application, Ok(found)) if application == i64::from(APPLICATION_ID) => {
                let known = newest(migrations);
                if found > known {
                    return Err(StoreError::Newer { path, found, known });
                }
                Ok(found)
            }
            _ => Err(StoreError::NotOurs { path }),
        }
    }

    fn set_up(&self) -> Result<(), StoreError> {
        let set = |name: &str, value: &str| {
            let updated = self.connection.pragma_update(None, name, value);
            updated.map_err(|e| self.fail(e))
        };
        // With a write-ahead log readers and a writer do not wait for each other. It takes the file for itself to
        // switch to that, once, and does not wait if others have just opened it, for which several processes that
        // make a new one together must wait here.
        let until = Instant::now() + BUSY_TIMEOUT;
        loop {
            match set("journal_mode", "wal") {
                Err(StoreError::Busy) if Instant::now() < until => std::thread::sleep(BUSY_PAUSE),
                result => break result?,
            }
        }
        // A commit is on the disk when it returns, also if the power fails in the next moment.
        set("synchronous", "full")?;
        set("foreign_keys", "on")?;
        // A removed password hash is not left behind in an unused part of the file.
        set("secure_delete", "on")?;
        // A statement is not planned anew for each value that is bound to it.
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(|e| self.fail(e))?;
        // KiB: mailboxes that are written to lie far apart.
        set("cache_size", "-8192")?;
        // Find damage where it is, and run no code that a schema written by others may carry.
        set("cell_size_check", "on")?;
        set("trusted_schema", "off")
    }

    fn migrate(&self, migrations: &[&str]) -> Result<(), StoreError> {
        let immediate = TransactionBehavior::Immediate;
        let begun = Transaction::new_unchecked(&self.connection, immediate);
        let transaction = begun.map_err(|e| self.fail(e))?;
        // Again, now that nobody else can write: another process may have done it in between.
        let version = self.version(migrations)?;
        for step in migrations.iter().skip(version as usize) {
            let done = transaction.execute_batch(step);
            done.map_err(|e| self.fail(e))?;
        }
        let marked = transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .and_then(|()| transaction.pragma_update(None, "user_version", newest(migrations)))
            .and_then(|()| transaction.commit());
        marked.map_err(|e| self.fail(e))
    }
}

fn newest(migrations: &[&str]) -> u32 {
    migrations.len() as u32
}

/// Makes what is missing, checks who may touch it, and gives the path without symbolic links: SQLite's own files lie
/// beside the real one.
fn prepare(path: &Path) -> Result<PathBuf, StoreError> {
    let directory = directory_of(path);
    if !directory.exists() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(directory);
        made.map_err(|e| StoreError::io(directory, e))?;
        sync(directory_of(directory))?;
    }
    guard(directory)?;

    // Only ever opened where it is new. Closing any other descriptor of a database drops the locks that SQLite holds
    // on it in this process.
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => sync(directory)?,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(StoreError::io(path, e)),
    }
    let real = fs::canonicalize(path).map_err(|e| StoreError::io(path, e))?;
    guard(directory_of(&real))?;
    guard(&real)?;
    for ending in ["-wal", "-shm"] {
        let mut beside = real.clone().into_os_string();
        beside.push(ending);
        match guard(Path::new(&beside)) {
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(real)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Refuses what somebody else owns or may use. Hashes of passwords are in there.
fn guard(path: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(path).map_err(|e| StoreError::io(path, e))?;
    let us = rustix::process::geteuid().as_raw();
    judge(path, metadata.uid(), metadata.mode() & 0o7777, us)
}

fn judge(path: &Path, owner: u32, mode: u32, us: u32) -> Result<(), StoreError> {
    let path = path.to_owned();
    if owner != us {
        return Err(StoreError::Foreign { path, owner, us });
    }
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path, mode });
    }
    Ok(())
}

/// Makes a directory's new entries outlive a loss of power.
fn sync(directory: &Path) -> Result<(), StoreError> {
    let synced = File::open(directory).and_then(|d| d.sync_all());
    synced.map_err(|e| StoreError::io(directory, e))
}

#[cfg(test)]
mod tests;
