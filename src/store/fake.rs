//! What the tests of this room have in common.

use super::mail::{Author, Destination, Keep, Letter, Mail, Outgoing, Parcel, Place, Read, Recipient, Ticket, Told, Write};
use super::mailbox::Mailboxes;
use super::page::Asked;
use super::rows::Rows;
use super::{Database, Newcomer, Settings, Store, Threads, Verify};
use crate::frame::Slice;
use crate::name::{ConnId, PeerId, ServerName, Username};
use crate::password::Hash;
use crate::protocol::reason::Reason;
use crate::tls::Pin;
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

pub(super) fn server(text: &str) -> ServerName {
    ServerName::new(text).unwrap()
}

pub(super) fn pin(text: &str) -> Pin {
    Pin::of(text.as_bytes())
}

/// A server that proves who it is with the key of its name.
pub(super) fn newcomer(text: &str) -> Newcomer {
    let addresses = vec![format!("{text}:2225").parse().unwrap()];
    Newcomer { name: server(text), addresses, verify: Verify::Pins(vec![pin(text)]) }
}

/// Makes servers peers; gives their numbers.
pub(super) fn befriend<const N: usize>(database: &mut Database, names: [&str; N]) -> [PeerId; N] {
    names.map(|name| database.add_peer(&newcomer(name), 99).unwrap())
}

/// A message for another server; its author, if there is one, was told that its own id is `s/1-1`.
pub(super) fn outgoing(to: PeerId, message_id: &str, data: &str, author: Option<&str>) -> Outgoing {
    let id = Some(Slice::from(&b"\"c-1\""[..]));
    let author = author.map(|user| Author { user: name(user), id, message_id: "s/1-1".into() });
    let data = Slice::from(data.as_bytes());
    Outgoing { to: Destination::Peer(to), message_id: message_id.into(), kind: "chat".into(), data, hops: 1, author }
}

/// The reports in a mailbox that messages came to nothing: number, reason, id, `messageId`, and data.
pub(super) fn reports(database: &Database, user: &str) -> Vec<(u64, Reason, String, String, String)> {
    let user = name(user);
    let asked =
        Asked { user: &user, after: 0, reports: true, letters_max: 1000, bytes_max: usize::MAX, start_prefix: "", tried: 0, suspect: 0 };
    let text = |slice: &Slice| String::from_utf8(slice.bytes().to_vec()).unwrap();
    let mail = Mailboxes(database.rows()).page(&asked).unwrap().mail;
    let of = |mail: &Mail| {
        let report = mail.letter.report.as_ref()?;
        assert_eq!((&*mail.letter.kind, &mail.letter.asker), ("chat", &None));
        let id = report.id.as_ref().map_or(String::new(), text);
        Some((mail.seq, report.reason, id, mail.letter.message_id.to_string(), text(&mail.letter.data)))
    };
    mail.iter().filter_map(of).collect()
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
        self.store.write(vec![Write::Settle { user: name(user), up_to, reports: true, conn: conn.map(ConnId) }]).unwrap();
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
        let read = Read::Page { conn: ConnId(1), user: name(user), after, reports: true, letters_max: 1000, bytes_max: usize::MAX };
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
