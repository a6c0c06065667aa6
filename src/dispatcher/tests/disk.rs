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
    orders: VecDeque<Order>,
    /// It does nothing for now.
    pub(super) rests: bool,
    pub(super) trouble: Option<Trouble>,
}

#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) last: u64,
    pub(super) mail: BTreeMap<u64, Mail>,
}

enum Order {
    Write(Write),
    Read(Read),
}

impl Disk {
    pub(super) fn write(&mut self, write: &Write) {
        self.orders.push_back(Order::Write(write.clone()));
    }

    pub(super) fn read(&mut self, read: &Read) {
        self.orders.push_back(Order::Read(read.clone()));
    }

    /// How many letters wait for a user.
    pub(super) fn waiting(&self, user: &str) -> usize {
        self.mailboxes.get(user).map_or(0, |mailbox| mailbox.mail.len())
    }

    /// Carries out the first order that waits. Nothing if there is none, or it rests.
    pub(super) fn works(&mut self) -> Option<Vec<Told>> {
        let order = if self.rests { None } else { self.orders.pop_front() };
        order.map(|order| match order {
            Order::Write(Write::Keep(ticket, keep)) => vec![Told::Kept(ticket, self.keep(&keep))],
            Order::Write(Write::Settle { user, up_to, conn }) => self.settle(user.as_str(), up_to, conn).into_iter().collect(),
            Order::Write(Write::Tried { user, seqs }) => {
                let mailbox = self.mailboxes.entry(user.to_string()).or_default();
                mailbox.mail.values_mut().filter(|mail| seqs.contains(&mail.seq)).for_each(|mail| mail.redelivered = true);
                Vec::new()
            }
            Order::Read(Read::Page { conn, user, after, letters_max, bytes_max }) => {
                vec![Told::Page(conn, self.page(user.as_str(), after, letters_max, bytes_max))]
            }
            Order::Read(Read::Memo { digest }) => {
                let found = self.memos.iter().find(|(known, _)| *known == digest);
                vec![Told::Memo(digest, self.trouble.map_or(Ok(found.map(|(_, report)| report.clone())), Err))]
            }
        })
    }

    fn keep(&mut self, keep: &Keep) -> Result<Vec<Place>, Trouble> {
        self.trouble.map_or(Ok(()), Err)?;
        let places: Vec<Place> = keep.recipients().map(|(letter, to)| self.place(letter, to.user.as_str())).collect();
        if let Some(Memo { digest, report }) = &keep.memo {
            let text = match report {
                Report::Ready(text) => Some(text.clone()),
                Report::Outcome { kind, id, message_id, counts } => {
                    let mut counts = *counts;
                    counts.add(keep.tally(&places));
                    let report = report::outcome(kind, Some(&Id::Client(id.clone())), MessageId::Text(message_id), &counts);
                    let temporary = counts.failure().is_some_and(|(_, temporary, _)| temporary);
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
        let mut page = Page::default();
        let mut bytes = 0;
        for mail in self.mailboxes.get(user).into_iter().flat_map(|mailbox| mailbox.mail.range(after + 1..)).map(|(_, mail)| mail) {
            bytes += mail.letter.bytes();
            if page.mail.len() == letters_max || (bytes > bytes_max && !page.mail.is_empty()) {
                page.more = true;
                break;
            }
            page.mail.push(mail.clone());
        }
        Ok(page)
    }
}
