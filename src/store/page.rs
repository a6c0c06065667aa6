//! Reading a mailbox, a page at a time.

use super::StoreError;
use super::mail::{Letter, Mail, Page, Undelivered};
use super::mailbox::Mailboxes;
use super::rows::{signed, unsigned};
use crate::frame::Slice;
use crate::name::{ConnId, Username};
use crate::protocol::reason::Reason;
use rusqlite::{Row, params};
use std::sync::Arc;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) user: &'a Username,
    /// What has a higher number.
    pub(super) after: u64,
    /// Reports about messages to other servers, too.
    pub(super) reports: bool,
    pub(super) letters_max: usize,
    pub(super) bytes_max: usize,
    /// Only letters of messages whose id begins with this still know who asked.
    pub(super) start_prefix: &'a str,
    /// Letters up to this number may have been delivered before, ...
    pub(super) tried: u64,
    /// ... and so may those with a body up to this number.
    pub(super) suspect: u64,
}

impl Mailboxes<'_> {
    /// What lies next in a mailbox, without what was set aside.
    pub(super) fn page(&self, asked: &Asked<'_>) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let Some((number, _)) = self.find(asked.user)? else {
            return Ok(page);
        };
        let sql = "SELECT m.seq, m.attempts, m.bytes, m.body, b.message_id, b.kind, b.data, b.asker, b.id, b.reason
                   FROM mail m LEFT JOIN bodies b ON b.body = m.body
                   WHERE m.box = ?1 AND m.seq > ?2 AND m.aside = 0 AND (?4 OR b.reason IS NULL) ORDER BY m.seq LIMIT ?3";
        let letters_max = asked.letters_max.max(1);
        let (mut bytes, mut lost) = (0_u64, None);
        self.0.each(sql, params![number, signed(asked.after), signed(letters_max as u64 + 1), asked.reports], |row| {
            bytes = bytes.saturating_add(unsigned(row.get(2)?));
            if page.mail.len() == letters_max || (!page.mail.is_empty() && bytes > asked.bytes_max as u64) {
                page.more = true;
                return Ok(false);
            }
            match read(row, asked)? {
                Some(mail) => page.mail.push(mail),
                // To leave it out would be to lose it without a word.
                None => lost = Some(row.get::<_, i64>(0)?),
            }
            Ok(lost.is_none())
        })?;
        match lost {
            None => Ok(page),
            Some(seq) => Err(StoreError::Lost { path: self.0.path.to_owned(), user: asked.user.clone(), seq: unsigned(seq) }),
        }
    }
}

/// A letter, unless there is no body for it.
fn read(row: &Row<'_>, asked: &Asked<'_>) -> rusqlite::Result<Option<Mail>> {
    let Some(message_id) = row.get::<_, Option<Box<str>>>(4)? else {
        return Ok(None);
    };
    let (seq, attempts, body) = (unsigned(row.get(0)?), row.get::<_, i64>(1)?, unsigned(row.get(3)?));
    let blob = |column| row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from);
    let asker = match (row.get::<_, Option<i64>>(7)?, blob(8)?) {
        (Some(conn), Some(id)) if message_id.starts_with(asked.start_prefix) => Some((ConnId(conn.cast_unsigned()), Slice::from(id))),
        _ => None,
    };
    let data = Slice::from(blob(6)?.unwrap_or_default());
    let report = match row.get_ref(9)?.as_str_or_null().map_err(rusqlite::Error::from)? {
        None => None,
        Some(word) => {
            let reason = if word == Reason::PeerRefused.as_str() { Reason::PeerRefused } else { Reason::Expired };
            Some(Undelivered { reason, id: blob(8)?.map(Slice::from) })
        }
    };
    let letter = Arc::new(Letter { message_id, kind: row.get(5)?, data, asker, report });
    Ok(Some(Mail { seq, redelivered: attempts > 0 || seq <= asked.tried || body <= asked.suspect, letter }))
}
