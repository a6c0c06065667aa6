//! A disk in a few lines: mailboxes and memos as they should be. It works at once, or when the test lets it.

use crate::name::ConnId;
use crate::protocol::report;
use crate::protocol::report::{Id, MessageId};
use crate::store::mail::{Digest, Keep, Letter, Mail, Memo, Page, Place, Read, Report, Told, Trouble, Write};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What fits into a mailbox.
pub(super) const LETTERS_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Disk {
    pub(super) accounts: BTreeSet<String>,
    pub(super) mailboxes: BTreeMap<String, Mailbox>,
    pub(super) memos: Vec<(Digest, crate::frame::Slice)>,
    /// Ordered. One thread writes, another one reads, and neither waits for the other.
    writes: VecDeque<Write>,
    reads: VecDeque<Read>,
    /// Refused at once, written and not yet told, read and not yet told.
    refused: VecDeque<Told>,
    written: VecDeque<Told>,
    read: VecDeque<Told>,
    /// It does nothing for now.
    pub(super) rests: bool,
    /// Nothing more is taken that could be refused.
    pub(super) busy: bool,
    pub(super) trouble: Option<Trouble>,
    /// What became of all that was to be kept, since this was last taken.
    pub(super) log: Vec<(Arc<Keep>, Kept)>,
}

/// What became of something that was to be kept.
pub(super) type Kept = Result<Vec<Place>, Trouble>;

#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) last: u64,
    pub(super) mail: BTreeMap<u64, Mail>,
}

impl Disk {
    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Keep(ticket, keep) if self.busy => {
                self.log.push((Arc::clone(keep), Err(Trouble::Busy)));
                self.refused.push_back(Told::Kept(*ticket, Err(Trouble::Busy)));
            }
            write => self.writes.push_back(write.clone()),
        }
    }

    pub(super) fn read(&mut self, read: &Read) {
        match read {
            Read::Page { conn, .. } if self.busy => self.refused.push_back(Told::Page(*conn, Err(Trouble::Busy))),
            Read::Memo { digest } if self.busy => self.refused.push_back(Told::Memo(*digest, Err(Trouble::Busy))),
            read => self.reads.push_back(read.clone()),
        }
    }

    /// How many letters wait for a user.
    pub(super) fn waiting(&self, user: &str) -> usize {
        self.mailboxes.get(user).map_or(0, |mailbox| mailbox.mail.len())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty() && self.written.is_empty() && self.read.is_empty() && self.refused.is_empty()
    }

    /// Does the next thing, and says what it has to tell. Nothing if there is nothing to do, or it rests.
    pub(super) fn works(&mut self) -> Option<Vec<Told>> {
        if let Some(told) = self.refused.pop_front() {
            return Some(vec![told]);
        }
        if self.rests {
            return None;
        }
        let worked = self.writes_one() || self.reads_one();
        let told: Vec<Told> = self.written.drain(..).chain(self.read.drain(..)).collect();
        (worked || !told.is_empty()).then_some(told)
    }

    /// Writes the first of what is to be written, and does not tell it yet. Whether there was any.
    pub(super) fn writes_one(&mut self) -> bool {
        let Some(write) = self.writes.pop_front() else { return false };
        match write {
            Write::Keep(ticket, keep) => {
                let result = self.keep(&keep);
                self.log.push((keep, result.clone()));
                self.written.push_back(Told::Kept(ticket, result));
            }
            Write::Settle { user, up_to, conn } => {
                let told = self.settle(user.as_str(), up_to, conn);
                self.written.extend(told);
            }
            Write::Sent(..) => {}
            Write::Tried { user, seqs } => {
                let mailbox = self.mailboxes.entry(user.to_string()).or_default();
                mailbox.mail.values_mut().filter(|mail| seqs.contains(&mail.seq)).for_each(|mail| mail.redelivered = true);
            }
        }
        true
    }

    /// Reads the first of what is to be read, and does not tell it yet. Whether there was any.
    pub(super) fn reads_one(&mut self) -> bool {
        let Some(read) = self.reads.pop_front() else { return false };
        let told = match read {
            Read::Page { conn, user, after, letters_max, bytes_max } => {
                Told::Page(conn, self.page(user.as_str(), after, letters_max, bytes_max))
            }
            Read::Memo { digest } => {
                let found = self.memos.iter().find(|(known, _)| *known == digest);
                Told::Memo(digest, self.trouble.map_or(Ok(found.map(|(_, report)| report.clone())), Err))
            }
        };
        self.read.push_back(told);
        true
    }

    /// Tells the first of what was written, or of what was read.
    pub(super) fn tells_one(&mut self, written: bool) -> Option<Told> {
        if written { self.written.pop_front() } else { self.read.pop_front() }
    }

    fn keep(&mut self, keep: &Keep) -> Kept {
        self.trouble.map_or(Ok(()), Err)?;
        let places: Vec<Place> = keep.recipients().map(|(letter, to)| self.place(letter, to.user.as_str())).collect();
        if let Some(Memo { digest, report, .. }) = &keep.memo {
            let text = match report {
                Report::Ready(text) => Some(text.clone()),
                Report::Outcome { kind, id, message_id, counts } => {
                    let mut counts = *counts;
                    counts.add(keep.tally(&places));
                    let id = Id::Client(id.clone());
                    let report = match message_id {
                        Some(message_id) => report::outcome(kind, Some(&id), MessageId::Text(message_id), &counts),
                        None => report::for_server(kind, Some(&id), &counts),
                    };
                    let temporary = message_id.is_some() && counts.failure().is_some_and(|(_, temporary, _)| temporary);
                    (!temporary).then(|| crate::frame::Slice::from(&*report.body()))
                }
            };
            self.memos.extend(text.map(|text| (*digest, text)));
        }
        Ok(places)
    }

    fn place(&mut self, letter: &Arc<Letter>, user: &str) -> Place {
        if !self.accounts.contains(user) {
            return Place::Unknown;
        }
        let mailbox = self.mailboxes.entry(user.to_owned()).or_default();
        if mailbox.mail.len() >= LETTERS_MAX {
            return Place::Refused;
        }
        mailbox.last += 1;
        mailbox.mail.insert(mailbox.last, Mail { seq: mailbox.last, redelivered: false, letter: Arc::clone(letter) });
        Place::Queued(mailbox.last)
    }

    fn settle(&mut self, user: &str, up_to: u64, conn: Option<ConnId>) -> Option<Told> {
        let mailbox = self.mailboxes.entry(user.to_owned()).or_default();
        match conn {
            Some(conn) if up_to > mailbox.last => Some(Told::Beyond { conn, last: mailbox.last }),
            _ => {
                mailbox.mail.retain(|seq, _| *seq > up_to);
                None
            }
        }
    }

    fn page(&self, user: &str, after: u64, letters_max: usize, bytes_max: usize) -> Result<Page, Trouble> {
        self.trouble.map_or(Ok(()), Err)?;
        assert!(letters_max > 0, "a page of nothing is asked for again and again");
        // What waits to be written says of letters that they have been sent.
        let sent = |write: &Write| match write {
            Write::Settle { user: whose, up_to, .. } if whose.as_str() == user => Some(*up_to),
            Write::Tried { user: whose, seqs } if whose.as_str() == user => seqs.iter().copied().max(),
            _ => None,
        };
        let tried = self.writes.iter().filter_map(sent).max().unwrap_or(0);
        let mut page = Page::default();
        let mut bytes = 0;
        for mail in self.mailboxes.get(user).into_iter().flat_map(|mailbox| mailbox.mail.range(after + 1..)).map(|(_, mail)| mail) {
            bytes += mail.letter.bytes();
            if page.mail.len() == letters_max || (bytes > bytes_max && !page.mail.is_empty()) {
                page.more = true;
                break;
            }
            page.mail.push(Mail { redelivered: mail.redelivered || mail.seq <= tried, ..mail.clone() });
        }
        Ok(page)
    }
}
