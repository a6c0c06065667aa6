//! A disk in a few lines: mailboxes and memos as they should be. It works at once, or when the test lets it.

use crate::frame::Slice;
use crate::name::{ConnId, PeerId, ServerName};
use crate::protocol::reason::Reason;
use crate::protocol::report;
use crate::protocol::report::{Id, MessageId};
use crate::store::mail::{
    Author, Destination, Digest, Keep, Letter, Mail, Memo, Outgoing, Page, Place, Read, Report, Told, Trouble, Undelivered, Write,
};
use crate::store::{Peer, Verify};
use crate::transport::HostPort;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What fits into a mailbox, ...
pub(super) const LETTERS_MAX: usize = 8;
/// ... and into an outbox.
pub(super) const OUTGOING_MAX: usize = 3;

#[derive(Default)]
pub(super) struct Disk {
    pub(super) accounts: BTreeSet<String>,
    pub(super) mailboxes: BTreeMap<String, Mailbox>,
    /// The peers, as the dispatcher was told of them.
    pub(super) peers: Vec<Peer>,
    pub(super) outboxes: BTreeMap<PeerId, Outbox>,
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

#[derive(Default)]
pub(super) struct Outbox {
    pub(super) last: u64,
    pub(super) messages: BTreeMap<u64, Arc<Outgoing>>,
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
                let known = self.peers.len();
                let result = self.keep(&keep);
                if self.peers.len() > known {
                    self.written.push_back(Told::Met(self.peers.clone()));
                }
                self.log.push((keep, result.clone()));
                self.written.push_back(Told::Kept(ticket, result));
            }
            Write::Settle { user, up_to, reports, conn } => {
                let told = self.settle(user.as_str(), up_to, reports, conn);
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
            Read::Page { conn, user, after, reports, letters_max, bytes_max } => {
                Told::Page(conn, self.page(user.as_str(), (after, reports), letters_max, bytes_max))
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
        let mut places: Vec<Place> = keep.recipients().map(|(letter, to)| self.place(letter, to.user.as_str())).collect();
        places.extend(keep.outgoing.iter().map(|outgoing| self.send(outgoing)));
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

    /// A message to another server has come to nothing: its author is told.
    pub(super) fn gives_up(&mut self, peer: PeerId, seq: u64) {
        let outgoing = self.outboxes.get_mut(&peer).and_then(|outbox| outbox.messages.remove(&seq)).expect("it lies there");
        let Some(Author { user, id, message_id }) = &outgoing.author else { return };
        let data = format!(r#"{{"messageId":"{message_id}"}}"#);
        let report = Some(Undelivered { reason: Reason::Expired, id: id.clone() });
        let (message_id, kind, data) = (outgoing.message_id.clone(), outgoing.kind.clone(), Slice::from(data.as_bytes()));
        let letter = Arc::new(Letter { message_id, kind, data, asker: None, report });
        let mailbox = self.mailboxes.entry(user.to_string()).or_default();
        mailbox.last += 1;
        mailbox.mail.insert(mailbox.last, Mail { seq: mailbox.last, redelivered: false, letter });
        self.written.push_back(Told::Reported(vec![user.clone()]));
    }

    fn send(&mut self, outgoing: &Arc<Outgoing>) -> Place {
        let peer = match &outgoing.to {
            Destination::Peer(id) => self.peers.iter().find(|peer| peer.id == *id).map(|peer| peer.id),
            Destination::Address(address) => Some(self.meet(address)),
        };
        let Some(peer) = peer else { return Place::Unknown };
        let outbox = self.outboxes.entry(peer).or_default();
        if outbox.messages.len() >= OUTGOING_MAX {
            return Place::Refused;
        }
        outbox.last += 1;
        outbox.messages.insert(outbox.last, Arc::clone(outgoing));
        Place::Queued(outbox.last)
    }

    fn meet(&mut self, address: &HostPort) -> PeerId {
        let name = ServerName::new(&address.without_brackets()).expect("a name");
        if let Some(known) = self.peers.iter().find(|peer| peer.name == name) {
            return known.id;
        }
        let id = PeerId(100 + self.peers.len() as u64);
        self.peers.push(Peer { id, name, addresses: vec![address.clone()], verify: Verify::Open });
        id
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

    fn settle(&mut self, user: &str, up_to: u64, reports: bool, conn: Option<ConnId>) -> Option<Told> {
        let mailbox = self.mailboxes.entry(user.to_owned()).or_default();
        match conn {
            Some(conn) if up_to > mailbox.last => Some(Told::Beyond { conn, last: mailbox.last }),
            _ => {
                mailbox.mail.retain(|seq, mail| *seq > up_to || (mail.letter.report.is_some() && !reports));
                None
            }
        }
    }

    fn page(&self, user: &str, (after, reports): (u64, bool), letters_max: usize, bytes_max: usize) -> Result<Page, Trouble> {
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
        let lying = self.mailboxes.get(user).into_iter().flat_map(|mailbox| mailbox.mail.range(after + 1..)).map(|(_, mail)| mail);
        for mail in lying.filter(|mail| reports || mail.letter.report.is_none()) {
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
