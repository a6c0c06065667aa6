//! The outboxes: what happens to messages for other servers, in whatever transaction it happens.
//!
//! The row of a peer counts what lies in its outbox. A message leaves it when the peer has it, or when it is given up: then
//! its author is told, by a report in the mailbox, which finds room there however full that is. There are never more of those
//! than there was room for in outboxes.

use super::mail::{Author, Destination, Letter, OutboxPage, Outgoing, Parcel, Place, Receipt, Recipient, Undelivered};
use super::mailbox::{Bounds, Mailboxes};
use super::peers::{Peers, name_of};
use super::rows::{Rows, signed, unsigned};
use super::{Settings, StoreError};
use crate::frame::Slice;
use crate::name::{PeerId, Username};
use crate::protocol::reason::Reason;
use rusqlite::{Row, params};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A report finds room in any mailbox.
const NO_BOUNDS: Bounds = Bounds { messages: u64::MAX, bytes: u64::MAX };

/// The outboxes of a database.
pub(super) struct Outboxes<'a> {
    pub(super) rows: Rows<'a>,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Hears of the number of each new body before anybody can be sent it.
    pub(super) written: &'a dyn Fn(u64),
}

/// Numbers of messages that go together, by peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) seqs: Vec<(PeerId, Vec<u64>)>,
    /// After which peer to go on, unless this was the last.
    pub(super) next: Option<i64>,
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) messages: usize,
    /// Of data; one message always fits.
    pub(super) bytes: u64,
}

impl Outboxes<'_> {
    /// Puts a message into the outbox of the server that it is for. Says also whether that one was not known before.
    pub(super) fn keep(&self, outgoing: &Outgoing, settings: &Settings) -> Result<(Place, bool), StoreError> {
        let (peer, is_new) = match &outgoing.to {
            Destination::Peer(peer) => (*peer, false),
            Destination::Address(address) => {
                let Some(name) = name_of(address) else { return Ok((Place::Unknown, false)) };
                match Peers(self.rows).meet(&name, address, settings.peers, self.now)? {
                    Some(met) => met,
                    None => return Ok((Place::Refused, false)),
                }
            }
        };
        let bytes = outgoing.data.len() as u64;
        let sql = "SELECT last, messages, bytes, tries FROM peers WHERE peer = ?1";
        let read = |row: &Row<'_>| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?), unsigned(row.get(2)?), row.get::<_, i64>(3)?));
        let Some((last, messages, lying, tries)) = self.rows.first(sql, [signed(peer.0)], read)? else {
            return Ok((Place::Unknown, is_new));
        };
        if messages >= settings.outbox_messages as u64 || lying.saturating_add(bytes) > settings.outbox_bytes as u64 {
            return Ok((Place::Refused, is_new));
        }
        let seq = last + 1;
        let sql = "UPDATE peers SET last = ?2, messages = messages + 1, bytes = bytes + ?3 WHERE peer = ?1";
        self.rows.execute(sql, params![signed(peer.0), signed(seq), signed(bytes)])?;
        let author = outgoing.author.as_ref();
        // Whoever gets the name of an author who has no account any longer is somebody else, and is not told.
        let sql = "INSERT INTO outbox
                   (peer, seq, message_id, kind, bytes, hops, kept, attempts, tries, author, author_id, author_message_id, data)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, (SELECT ?11 FROM accounts WHERE name = ?9), ?12)";
        let params = params![
            signed(peer.0),
            signed(seq),
            &*outgoing.message_id,
            &*outgoing.kind,
            signed(bytes),
            outgoing.hops,
            self.now,
            tries,
            author.map(|author| author.user.as_str()),
            author.and_then(|author| author.id.as_ref()).map(Slice::bytes),
            author.map(|author| &*author.message_id),
            outgoing.data.bytes(),
        ];
        self.rows.execute(sql, params)?;
        Ok((Place::Queued(seq), is_new))
    }

    /// Writes down what has become of messages; gives who has a report in the mailbox now.
    pub(super) fn sent(&self, peer: PeerId, receipt: &Receipt) -> Result<BTreeSet<Username>, StoreError> {
        let number = signed(peer.0);
        match receipt {
            Receipt::Taken(seqs) => {
                let mut gone = Gone::default();
                for seq in seqs {
                    let sql = "DELETE FROM outbox WHERE peer = ?1 AND seq = ?2 RETURNING bytes";
                    let bytes = self.rows.first(sql, params![number, signed(*seq)], |row| row.get(0))?;
                    bytes.into_iter().for_each(|bytes| gone.count(bytes));
                }
                self.uncount(peer, gone)?;
            }
            Receipt::Deferred(seqs) => {
                for seq in seqs {
                    let sql = "UPDATE outbox SET attempts = attempts + 1 WHERE peer = ?1 AND seq = ?2";
                    self.rows.execute(sql, params![number, signed(*seq)])?;
                }
            }
            Receipt::Refused(seq) => return self.give_up(peer, &[*seq], Reason::PeerRefused),
            Receipt::Unreached => _ = self.rows.execute("UPDATE peers SET tries = tries + 1 WHERE peer = ?1", [number])?,
        }
        Ok(BTreeSet::new())
    }

    /// Deletes messages that are never sent again, for [`Reason::Expired`] or [`Reason::PeerRefused`], and tells their authors;
    /// gives those who have a report in the mailbox now.
    pub(super) fn give_up(&self, peer: PeerId, seqs: &[u64], reason: Reason) -> Result<BTreeSet<Username>, StoreError> {
        let mut told = BTreeSet::new();
        let sql = "SELECT name, tries FROM peers WHERE peer = ?1";
        let found = self.rows.first(sql, [signed(peer.0)], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        let Some((server, tries)) = found else { return Ok(told) };
        let mut gone = Gone::default();
        for seq in seqs {
            let sql = "DELETE FROM outbox WHERE peer = ?1 AND seq = ?2
                       RETURNING bytes, message_id, kind, attempts - tries, author, author_id, author_message_id";
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?, author(row, 4)?));
            let Some((bytes, message_id, kind, attempts, author)) = self.rows.first(sql, params![signed(peer.0), signed(*seq)], read)?
            else {
                continue;
            };
            gone.count(bytes);
            let Some(author) = author.filter(|author| !author.message_id.is_empty()) else { continue };
            // That it was refused took an attempt, too.
            let attempts = attempts.saturating_add(tries).saturating_add(i64::from(reason == Reason::PeerRefused));
            let data = serde_json::json!({ "messageId": author.message_id, "server": server, "attempts": unsigned(attempts) }).to_string();
            let report = Some(Undelivered { reason, id: author.id });
            let letter = Letter { message_id, kind, data: Slice::from(data.as_bytes()), asker: None, report };
            let recipient = Recipient { user: author.user.clone(), counts: false, handed: false };
            let parcel = Parcel { letter: Arc::new(letter), recipients: vec![recipient] };
            // Nothing comes of it if there is no account any longer.
            if let Some(body) = Mailboxes(self.rows).keep(&parcel, NO_BOUNDS, self.now, &mut Vec::new())? {
                (self.written)(body);
                told.insert(author.user);
            }
        }
        self.uncount(peer, gone)?;
        Ok(told)
    }

    /// The messages of one peer from the number `first` to `last`, a portion of them, and whether there may be more.
    pub(super) fn some(&self, peer: PeerId, first: u64, last: u64, portion: Portion) -> Result<(Vec<u64>, bool), StoreError> {
        let (mut seqs, mut more) = (Vec::new(), false);
        let mut left = Left::of(portion);
        let sql = "SELECT seq, bytes FROM outbox WHERE peer = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq";
        self.rows.each(sql, params![signed(peer.0), signed(first), signed(last)], |row| {
            more = !left.take(unsigned(row.get(1)?));
            if !more {
                seqs.push(unsigned(row.get(0)?));
            }
            Ok(!more)
        })?;
        Ok((seqs, more))
    }

    /// What was kept before `limit` at the beginning of outboxes: of at most so many peers with a higher number than `after`, a
    /// portion. What seems to be kept later than now is passed over: the clock was wrong.
    pub(super) fn expired(&self, after: i64, limit: i64, peers: usize, portion: Portion) -> Result<Due, StoreError> {
        let mut numbers: Vec<i64> = Vec::new();
        let sql = "SELECT peer FROM peers WHERE peer > ?1 AND messages > 0 ORDER BY peer LIMIT ?2";
        self.rows.each(sql, params![after, signed(peers as u64)], |row| {
            numbers.push(row.get(0)?);
            Ok(true)
        })?;
        let mut due = Due { seqs: Vec::new(), next: numbers.last().copied().filter(|_| numbers.len() == peers) };
        let mut left = Left::of(portion);
        for number in numbers {
            let (mut seqs, mut full) = (Vec::new(), false);
            self.rows.each("SELECT seq, bytes, kept FROM outbox WHERE peer = ?1 ORDER BY seq", [number], |row| {
                let kept: i64 = row.get(2)?;
                if kept < limit {
                    full = !left.take(unsigned(row.get(1)?));
                    if !full {
                        seqs.push(unsigned(row.get(0)?));
                    }
                }
                Ok(!full && (kept < limit || kept > self.now))
            })?;
            if !seqs.is_empty() {
                due.seqs.push((PeerId(unsigned(number)), seqs));
            }
            if full {
                // Of this one there is more.
                due.next = Some(number - 1);
                break;
            }
        }
        Ok(due)
    }

    fn uncount(&self, peer: PeerId, gone: Gone) -> Result<(), StoreError> {
        let sql = "UPDATE peers SET messages = messages - ?2, bytes = bytes - ?3 WHERE peer = ?1";
        self.rows.execute(sql, params![signed(peer.0), gone.messages, gone.bytes])?;
        Ok(())
    }
}

/// What has left an outbox.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    messages: i64,
    bytes: i64,
}

impl Gone {
    fn count(&mut self, bytes: i64) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What is left of a portion.
struct Left {
    portion: Portion,
    is_whole: bool,
}

impl Left {
    fn of(portion: Portion) -> Self {
        Self { portion, is_whole: true }
    }

    /// Takes a message out of it, if it fits.
    fn take(&mut self, bytes: u64) -> bool {
        let whole = std::mem::replace(&mut self.is_whole, false);
        if !whole && (self.portion.messages == 0 || bytes > self.portion.bytes) {
            return false;
        }
        self.portion.messages = self.portion.messages.saturating_sub(1);
        self.portion.bytes = self.portion.bytes.saturating_sub(bytes);
        true
    }
}

/// Nobody is told any longer what becomes of the messages of a user: whoever has that name later is somebody else. That he was
/// their author stays known, or they would seem to be this server's own.
pub(super) fn forget_author(rows: Rows<'_>, user: &Username) -> Result<(), StoreError> {
    let sql = "UPDATE outbox SET author_message_id = NULL WHERE author = ?1 AND author_message_id IS NOT NULL";
    rows.execute(sql, [user.as_str()])?;
    Ok(())
}

/// What waits for a peer with a higher number than `after`, as [`Store::outbox`](super::Store::outbox).
pub(super) fn page(rows: Rows<'_>, peer: PeerId, after: u64, messages_max: usize, bytes_max: usize) -> Result<OutboxPage, StoreError> {
    let mut page = OutboxPage::default();
    let mut left = Left::of(Portion { messages: messages_max, bytes: bytes_max as u64 });
    let sql = "SELECT seq, bytes, message_id, kind, data, hops, author, author_id, author_message_id
               FROM outbox WHERE peer = ?1 AND seq > ?2 ORDER BY seq";
    rows.each(sql, params![signed(peer.0), signed(after)], |row| {
        page.more = !left.take(unsigned(row.get(1)?));
        if !page.more {
            let outgoing = Outgoing {
                to: Destination::Peer(peer),
                message_id: row.get(2)?,
                kind: row.get(3)?,
                data: Slice::from(row.get_ref(4)?.as_blob()?),
                hops: u8::try_from(row.get::<_, i64>(5)?).unwrap_or(u8::MAX),
                author: author(row, 6)?,
            };
            page.messages.push((unsigned(row.get(0)?), Arc::new(outgoing)));
        }
        Ok(!page.more)
    })?;
    Ok(page)
}

/// The author in three columns from this one on; his `messageId` is empty if he is told nothing any longer.
fn author(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Author>> {
    let user = row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    let Some(user) = user.and_then(|user| Username::new(user).ok()) else { return Ok(None) };
    let id = row.get_ref(column + 1)?.as_blob_or_null().map_err(rusqlite::Error::from)?.map(Slice::from);
    let message_id = row.get::<_, Option<Box<str>>>(column + 2)?.unwrap_or_default();
    Ok(Some(Author { user, id, message_id }))
}

#[cfg(test)]
mod tests;
