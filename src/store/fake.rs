//! What the tests of this room have in common.

use super::mail::{Keep, Letter, Parcel, Place, Read, Recipient, Ticket, Told, Write};
use super::rows::Rows;
use super::{Database, Settings, Store, Threads};
use crate::frame::Slice;
use crate::name::{ConnId, Username};
use crate::password::Hash;
use crossbeam_channel::{Receiver, unbounded};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub(super) fn name(text: &str) -> Username {
    Username::new(text).unwrap()
}

pub(super) fn hash() -> Hash {
    Hash::parse("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4").unwrap()
}

/// A database with these accounts.
pub(super) fn open(users: &[&str]) -> (TempDir, PathBuf, Database) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/bester.db");
    let mut database = Database::open(&path).unwrap();
    for user in users {
        database.add(&name(user), &hash()).unwrap();
    }
    (directory, path, database)
}

pub(super) fn letter(message_id: &str, data: &str) -> Arc<Letter> {
    let asker = Some((ConnId(u64::MAX), Slice::from(&b"\"c-1\""[..])));
    Arc::new(Letter { message_id: message_id.into(), kind: "chat".into(), data: Slice::from(data.as_bytes()), asker, report: None })
}

pub(super) fn parcel(message_id: &str, data: &str, users: &[&str]) -> Parcel {
    let recipients = users.iter().map(|user| Recipient { user: name(user), counts: true, handed: false }).collect();
    Parcel { letter: letter(message_id, data), recipients }
}

pub(super) fn keep(message_id: &str, data: &str, users: &[&str]) -> Keep {
    Keep { parcels: vec![parcel(message_id, data, users)], outgoing: Vec::new(), memo: None }
}

pub(super) fn number(rows: Rows<'_>, sql: &str) -> i64 {
    rows.connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A store and what it tells.
pub(super) struct Office {
    pub(super) store: Store,
    pub(super) threads: Option<Threads>,
    pub(super) told: Receiver<Told>,
}

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Office {
    pub(super) fn open(path: &Path, settings: Settings) -> Self {
        Self::start(Database::open(path).unwrap(), settings)
    }

    pub(super) fn start(database: Database, settings: Settings) -> Self {
        let (tell, told) = unbounded();
        let tell = move |all: Vec<Told>| all.into_iter().for_each(|one| _ = tell.send(one));
        let (store, threads) = Store::start(database, settings, tell).unwrap();
        Self { store, threads: Some(threads), told }
    }

    pub(super) fn hear(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    pub(super) fn keep(&self, keep: Keep) -> Told {
        self.store.write(vec![Write::Keep(Ticket(1), Arc::new(keep))]).unwrap();
        self.hear()
    }

    /// Keeps one letter for one user, whose mailbox must take it; gives its number.
    pub(super) fn queue(&self, user: &str, message_id: &str, data: &str) -> u64 {
        match self.keep(keep(message_id, data, &[user])) {
            Told::Kept(Ticket(1), Ok(places)) => match places[..] {
                [Place::Queued(seq)] => seq,
                _ => panic!("{places:?}"),
            },
            told => panic!("{told:?}"),
        }
    }

    pub(super) fn settle(&self, user: &str, up_to: u64, conn: Option<u64>) {
        self.store.write(vec![Write::Settle { user: name(user), up_to, conn: conn.map(ConnId) }]).unwrap();
    }

    pub(super) fn tried(&self, user: &str, seqs: &[u64]) {
        self.store.write(vec![Write::Tried { user: name(user), seqs: seqs.to_vec() }]).unwrap();
    }

    /// Waits until everything that was ordered is done.
    pub(super) fn settled(&self) {
        let told = self.keep(Keep::default());
        assert_eq!(told, Told::Kept(Ticket(1), Ok(Vec::new())));
    }

    /// The first letters in a mailbox: number, data, and whether they may have come before.
    pub(super) fn page(&self, user: &str, after: u64) -> Vec<(u64, String, bool)> {
        let read = Read::Page { conn: ConnId(1), user: name(user), after, letters_max: 1000, bytes_max: usize::MAX };
        self.store.read(read).unwrap();
        match self.hear() {
            Told::Page(ConnId(1), Ok(page)) => {
                let text = |data: &Slice| String::from_utf8(data.bytes().to_vec()).unwrap();
                page.mail.iter().map(|mail| (mail.seq, text(&mail.letter.data), mail.redelivered)).collect()
            }
            told => panic!("{told:?}"),
        }
    }

    pub(super) fn finish(mut self) {
        if let Some(threads) = self.threads.take() {
            threads.finish();
        }
    }
}
