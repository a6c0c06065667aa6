//! Whether all of a database can be read, and whether what is in it belongs together.

use super::rows::Rows;
use super::{Database, StoreError};

/// What must not be there, each with a query that gives a name for the first that is.
const WRONG: [(&str, &str); 8] = [
    (
        "the counts of a mailbox are not those of what lies in it",
        "WITH lying AS (SELECT box, count(*) AS messages, sum(bytes) AS bytes, max(seq) AS last FROM mail GROUP BY box)
         SELECT user FROM mailboxes m LEFT JOIN lying l ON l.box = m.box
         WHERE m.messages <> coalesce(l.messages, 0) OR m.bytes <> coalesce(l.bytes, 0) OR m.last < coalesce(l.last, 0) LIMIT 1",
    ),
    (
        "a letter lies in no mailbox",
        "SELECT box || ' ' || seq FROM mail WHERE NOT EXISTS (SELECT 1 FROM mailboxes m WHERE m.box = mail.box) LIMIT 1",
    ),
    (
        "a letter has no text, or another one",
        "SELECT box || ' ' || seq FROM mail m LEFT JOIN bodies b ON b.body = m.body
         WHERE b.body IS NULL OR length(b.data) <> m.bytes LIMIT 1",
    ),
    (
        "the text of letters is not counted right",
        "WITH lying AS (SELECT body, count(*) AS waiting FROM mail GROUP BY body)
         SELECT b.body FROM bodies b LEFT JOIN lying l ON l.body = b.body WHERE b.waiting <> coalesce(l.waiting, 0) LIMIT 1",
    ),
    (
        "the counts of an outbox are not those of what lies in it",
        "WITH lying AS (SELECT peer, count(*) AS messages, sum(bytes) AS bytes, max(seq) AS last FROM outbox GROUP BY peer)
         SELECT name FROM peers p LEFT JOIN lying l ON l.peer = p.peer
         WHERE p.messages <> coalesce(l.messages, 0) OR p.bytes <> coalesce(l.bytes, 0) OR p.last < coalesce(l.last, 0) LIMIT 1",
    ),
    (
        "a message lies in the outbox of no peer",
        "SELECT peer || ' ' || seq FROM outbox WHERE NOT EXISTS (SELECT 1 FROM peers p WHERE p.peer = outbox.peer) LIMIT 1",
    ),
    ("a message in an outbox has another text", "SELECT peer || ' ' || seq FROM outbox WHERE length(data) <> bytes LIMIT 1"),
    (
        "what was seen of a peer is not counted right",
        "WITH lying AS (SELECT peer, count(*) AS seen FROM seen GROUP BY peer)
         SELECT name FROM peers p LEFT JOIN lying l ON l.peer = p.peer WHERE p.seen <> coalesce(l.seen, 0) LIMIT 1",
    ),
];

impl Database {
    /// Looks whether all of it can be read and belongs together. Takes time in proportion to what is in it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn check(&self) -> Result<(), StoreError> {
        // One state of it, whoever else writes meanwhile.
        let reading = self.connection.unchecked_transaction().map_err(|e| self.rows().fail(e))?;
        let rows = Rows { connection: &reading, path: &self.path };
        let found = reading.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        let found = found.map_err(|e| rows.fail(e))?;
        if found != "ok" {
            return Err(self.damaged(found));
        }
        WRONG.iter().try_for_each(|(what, sql)| self.none(rows, what, sql))
    }

    fn none(&self, rows: Rows<'_>, what: &str, sql: &str) -> Result<(), StoreError> {
        match rows.first(sql, [], |row| row.get::<_, rusqlite::types::Value>(0))? {
            None => Ok(()),
            Some(rusqlite::types::Value::Text(which)) => Err(self.damaged(format!("{what}: {which}"))),
            Some(rusqlite::types::Value::Integer(which)) => Err(self.damaged(format!("{what}: {which}"))),
            Some(_) => Err(self.damaged(what.to_owned())),
        }
    }

    fn damaged(&self, detail: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), detail }
    }
}

#[cfg(test)]
mod tests;
