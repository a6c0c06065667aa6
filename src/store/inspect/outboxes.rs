//! The same for outboxes.

use super::{PAGE, Which};
use crate::name::{PeerId, ServerName, Username};
use crate::protocol::reason::Reason;
use crate::store::invitations::Invitations;
use crate::store::outbox::{Outboxes, Portion};
use crate::store::peers::Peers;
use crate::store::rows::{Rows, signed, unsigned};
use crate::store::{Database, StoreError, calendar};
use rusqlite::params;
use std::collections::BTreeSet;

/// An outbox in which something lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    /// For whom.
    pub peer: ServerName,
    /// Messages in it.
    pub messages: u64,
    /// Bytes of their data.
    pub bytes: u64,
    /// When the first of them was kept, in seconds since 1970.
    pub oldest: i64,
}

/// A message in an outbox as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Its number in the outbox.
    pub seq: u64,
    /// `payload.type`.
    pub kind: String,
    /// `header.messageId`.
    pub message_id: String,
    /// Bytes of its data.
    pub bytes: u64,
    /// When it was kept, in seconds since 1970.
    pub kept: i64,
    /// How often it was sent, or was to be sent, in vain.
    pub attempts: u64,
    /// The user whose message led to it.
    pub author: Option<String>,
    /// `payload.data`, if that was asked for.
    pub data: Option<Vec<u8>>,
}

/// What lies in all outboxes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxTotals {
    /// Outboxes in which something lies.
    pub outboxes: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of their data.
    pub bytes: u64,
}

/// Messages that are never sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenUp {
    /// How many.
    pub messages: u64,
    /// Those of their authors who have a report in the mailbox now, which a running server does not know of.
    pub told: BTreeSet<Username>,
}

/// What is given up in one transaction, so that a running server need not wait for long.
const PORTION: Portion = Portion { messages: 512, bytes: 8 << 20 };

impl Database {
    /// Every outbox in which something lies, ordered by name.
    ///
    /// # Errors
    /// [`StoreError::BadPeer`].
    pub fn outboxes(&self) -> Result<Vec<Outbox>, StoreError> {
        let sql = "SELECT name, messages, bytes, (SELECT kept FROM outbox WHERE peer = p.peer ORDER BY seq LIMIT 1)
                   FROM peers p WHERE messages > 0 ORDER BY name";
        let (mut all, mut bad) = (Vec::new(), None);
        self.rows().each(sql, [], |row| {
            let name: String = row.get(0)?;
            let oldest = row.get::<_, Option<i64>>(3)?.unwrap_or(0);
            match ServerName::new(&name) {
                Ok(peer) => all.push(Outbox { peer, messages: unsigned(row.get(1)?), bytes: unsigned(row.get(2)?), oldest }),
                Err(error) => bad = Some((name, error.to_string())),
            }
            Ok(bad.is_none())
        })?;
        match bad {
            None => Ok(all),
            Some((name, detail)) => Err(StoreError::BadPeer { path: self.path.clone(), name, detail }),
        }
    }

    /// Shows every message for a peer to `each`, in order, with its data if `data` says so. Nothing is locked meanwhile, so
    /// `each` may take its time; messages that go meanwhile may be left out.
    ///
    /// # Errors
    /// [`StoreError::NoPeer`]; the first error of `each` ends it.
    pub fn outgoing<E: From<StoreError>>(
        &self,
        peer: &ServerName,
        data: bool,
        mut each: impl FnMut(Unsent) -> Result<(), E>,
    ) -> Result<(), E> {
        let number = signed(known(self.rows(), peer)?.0);
        let sql = "SELECT seq, kind, message_id, o.bytes, kept, attempts + p.tries - o.tries, author
                   FROM outbox o JOIN peers p USING (peer) WHERE o.peer = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
        let mut last = 0_i64;
        loop {
            let mut page = Vec::new();
            let after = last;
            self.rows().each(sql, params![number, after, PAGE], |row| {
                last = row.get(0)?;
                page.push(Unsent {
                    seq: unsigned(last),
                    kind: row.get(1)?,
                    message_id: row.get(2)?,
                    bytes: unsigned(row.get(3)?),
                    kept: row.get(4)?,
                    attempts: unsigned(row.get(5)?),
                    author: row.get(6)?,
                    data: None,
                });
                Ok(true)
            })?;
            if page.is_empty() {
                return Ok(());
            }
            for mut unsent in page {
                if data {
                    // One at a time, as each may be large.
                    let sql = "SELECT data FROM outbox WHERE peer = ?1 AND seq = ?2";
                    let found = self.rows().first(sql, params![number, signed(unsent.seq)], |row| row.get(0))?;
                    let Some(found) = found else { continue };
                    unsent.data = Some(found);
                }
                each(unsent)?;
            }
        }
    }

    /// Gives up messages for a peer, and tells their authors. In outboxes none is ever [`Which::Aside`].
    ///
    /// # Errors
    /// [`StoreError::NoPeer`]; what was done before another error stays done.
    pub fn drop_outgoing(&mut self, peer: &ServerName, which: Which) -> Result<GivenUp, StoreError> {
        let id = known(self.rows(), peer)?;
        let (first, last) = match which {
            Which::One(seq) => (seq, seq),
            Which::Aside => return Ok(GivenUp::default()),
            Which::All => (0, u64::MAX),
        };
        let mut all = GivenUp::default();
        while self.transact(|rows| give_up_some(rows, id, first, last, &mut all))? {}
        Ok(all)
    }

    /// Removes a peer; gives up what waits for it, and tells the authors. What was seen of it is forgotten in its time, as it would
    /// have been without this; an invitation that it has used is worth nothing any longer.
    ///
    /// # Errors
    /// [`StoreError::NoPeer`]; what was given up before another error stays so, and the peer stays.
    pub fn remove_peer(&mut self, name: &ServerName) -> Result<GivenUp, StoreError> {
        let id = known(self.rows(), name)?;
        let mut all = GivenUp::default();
        let some = |rows: Rows<'_>, all: &mut GivenUp| {
            let more = give_up_some(rows, id, 0, u64::MAX, all)?;
            if !more {
                Invitations(rows).forget(name)?;
                rows.execute("DELETE FROM peers WHERE peer = ?1", [signed(id.0)])?;
            }
            Ok(more)
        };
        while self.transact(|rows| some(rows, &mut all))? {}
        Ok(all)
    }

    /// What lies in all outboxes together. Takes time in proportion to the number of peers, not of messages.
    ///
    /// # Errors
    /// The database's own trouble.
    pub fn outbox_totals(&self) -> Result<OutboxTotals, StoreError> {
        let sql = "SELECT count(*), coalesce(sum(messages), 0), coalesce(sum(bytes), 0) FROM peers WHERE messages > 0";
        let read = |row: &rusqlite::Row<'_>| {
            let number = |column| row.get(column).map(unsigned);
            Ok(OutboxTotals { outboxes: number(0)?, messages: number(1)?, bytes: number(2)? })
        };
        Ok(self.rows().first(sql, [], read)?.unwrap_or_default())
    }
}

fn known(rows: Rows<'_>, name: &ServerName) -> Result<PeerId, StoreError> {
    Peers(rows).find(name)?.ok_or_else(|| StoreError::NoPeer(name.clone()))
}

/// Gives up a portion; says whether there may be more.
fn give_up_some(rows: Rows<'_>, peer: PeerId, first: u64, last: u64, all: &mut GivenUp) -> Result<bool, StoreError> {
    let outboxes = Outboxes { rows, now: calendar::now(), written: &|_| {} };
    let (seqs, more) = outboxes.some(peer, first, last, PORTION)?;
    all.told.append(&mut outboxes.give_up(peer, &seqs, Reason::Expired)?);
    all.messages += seqs.len() as u64;
    Ok(more)
}

#[cfg(test)]
mod tests;
