//! The reports on messages of other servers, by which a repetition is known: of each server the latest, in the order in which
//! they were made.

use super::StoreError;
use super::mail::Digest;
use super::rows::{Rows, signed};
use crate::frame::Slice;
use crate::name::PeerId;
use rusqlite::params;
use std::collections::BTreeMap;

/// What was seen of other servers.
pub(super) struct Seen<'a>(pub(super) Rows<'a>);

impl Seen<'_> {
    /// Remembers a report, of at most `most` of this peer. The same message again is a new one.
    pub(super) fn put(&self, peer: PeerId, digest: &Digest, report: &[u8], now: i64, most: usize) -> Result<(), StoreError> {
        let replaced = self.0.first("DELETE FROM seen WHERE digest = ?1 RETURNING peer", [digest], |row| row.get(0))?;
        if let Some(owner) = replaced {
            self.uncount(owner, 1)?;
        }
        let peer = signed(peer.0);
        self.0.execute("INSERT INTO seen (peer, digest, report, at) VALUES (?1, ?2, ?3, ?4)", params![peer, digest, report, now])?;
        let sql = "UPDATE peers SET seen = seen + 1 WHERE peer = ?1 RETURNING seen";
        // One that was removed meanwhile sends no more.
        let Some(count) = self.0.first(sql, [peer], |row| row.get::<_, i64>(0))? else { return Ok(()) };
        let over = count.saturating_sub(signed(most as u64));
        if over > 0 {
            // Two, so that it comes down to a bound that was lowered.
            let sql = "DELETE FROM seen WHERE n IN (SELECT n FROM seen WHERE peer = ?1 ORDER BY n LIMIT min(?2, 2))";
            let deleted = self.0.execute(sql, [peer, over])?;
            self.uncount(peer, deleted)?;
        }
        Ok(())
    }

    /// The report on a message, if it was made at `since` or later.
    pub(super) fn find(&self, digest: &Digest, since: i64) -> Result<Option<Slice>, StoreError> {
        let sql = "SELECT report FROM seen WHERE digest = ?1 AND at >= ?2";
        self.0.first(sql, params![digest, since], |row| Ok(Slice::from(row.get_ref(0)?.as_blob()?)))
    }

    /// Whether the first that is remembered is from before `limit`, or from after `end`, when the clock was wrong.
    pub(super) fn is_due(&self, limit: i64, end: i64) -> Result<bool, StoreError> {
        let first = self.0.first("SELECT at FROM seen ORDER BY n LIMIT 1", [], |row| row.get::<_, i64>(0))?;
        Ok(first.is_some_and(|at| at < limit || at > end))
    }

    /// Forgets such ones among the first `portion`.
    pub(super) fn forget(&self, limit: i64, end: i64, portion: usize) -> Result<usize, StoreError> {
        let sql = "DELETE FROM seen WHERE n IN (SELECT n FROM seen ORDER BY n LIMIT ?3) AND (at < ?1 OR at > ?2) RETURNING peer";
        let mut of_peers: BTreeMap<i64, usize> = BTreeMap::new();
        self.0.each(sql, params![limit, end, signed(portion as u64)], |row| {
            *of_peers.entry(row.get(0)?).or_default() += 1;
            Ok(true)
        })?;
        of_peers.iter().try_for_each(|(peer, count)| self.uncount(*peer, *count))?;
        Ok(of_peers.values().sum())
    }

    /// So many fewer are a peer's.
    fn uncount(&self, peer: i64, count: usize) -> Result<(), StoreError> {
        self.0.execute("UPDATE peers SET seen = seen - ?2 WHERE peer = ?1", params![peer, signed(count as u64)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
