//! What one server has on its disk, as it should be: mailboxes, an outbox, and what is remembered of messages.

use crate::frame::Slice;
use crate::protocol::report::{self, Id};
use crate::store::mail::{Digest, Keep, Letter, Mail, OutboxPage, Outgoing, Page, Place, Read, Receipt, Report, Told, Write};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Disk {
    /// Of bob: what lies there, and the last number.
    mail: BTreeMap<u64, Arc<Letter>>,
    last_mail: u64,
    outbox: BTreeMap<u64, Arc<Outgoing>>,
    last_out: u64,
    memos: HashMap<Digest, Slice>,
    /// Every letter that there ever was.
    pub(super) letters: Vec<Arc<Letter>>,
}

impl Disk {
    pub(super) fn write(&mut self, write: &Write) -> Option<Told> {
        match write {
            Write::Keep(ticket, keep) => Some(Told::Kept(*ticket, Ok(self.keep(keep)))),
            Write::Settle { up_to, .. } => {
                self.mail.retain(|seq, _| seq > up_to);
                None
            }
            Write::Tried { .. } => None,
            Write::Sent(_, Receipt::Taken(seqs)) => {
                self.outbox.retain(|seq, _| !seqs.contains(seq));
                None
            }
            Write::Sent(_, Receipt::Refused(seq)) => panic!("message {seq} was refused, and nothing here refuses any for good"),
            Write::Sent(_, Receipt::Deferred(_) | Receipt::Unreached) => None,
        }
    }

    fn keep(&mut self, keep: &Keep) -> Vec<Place> {
        let mut places = Vec::new();
        for (letter, _) in keep.recipients() {
            self.last_mail += 1;
            self.mail.insert(self.last_mail, Arc::clone(letter));
            self.letters.push(Arc::clone(letter));
            places.push(Place::Queued(self.last_mail));
        }
        for outgoing in &keep.outgoing {
            self.last_out += 1;
            self.outbox.insert(self.last_out, Arc::clone(outgoing));
            places.push(Place::Queued(self.last_out));
        }
        if let Some(memo) = &keep.memo {
            let text = match &memo.report {
                Report::Ready(text) => text.clone(),
                Report::Outcome { kind, id, counts, .. } => {
                    let mut counts = *counts;
                    counts.add(keep.tally(&places));
                    Slice::from(&*report::for_server(kind, Some(&Id::Client(id.clone())), &counts).body())
                }
            };
            self.memos.insert(memo.digest, text);
        }
        places
    }

    pub(super) fn read(&self, read: &Read) -> Told {
        match read {
            Read::Memo { digest } => Told::Memo(*digest, Ok(self.memos.get(digest).cloned())),
            Read::Page { conn, after, letters_max, .. } => {
                let mut lying = self.mail.range(after + 1..);
                let mail = lying.by_ref().take(*letters_max);
                let mail = mail.map(|(seq, letter)| Mail { seq: *seq, redelivered: true, letter: Arc::clone(letter) }).collect();
                Told::Page(*conn, Ok(Page { mail, more: lying.next().is_some() }))
            }
        }
    }

    pub(super) fn outbox(&self, after: u64, messages_max: usize) -> OutboxPage {
        let mut lying = self.outbox.range(after + 1..);
        let messages = lying.by_ref().take(messages_max).map(|(seq, message)| (*seq, Arc::clone(message))).collect();
        OutboxPage { messages, more: lying.next().is_some() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mail.is_empty() && self.outbox.is_empty()
    }

    pub(super) fn left(&self) -> String {
        format!("{} letters, {} for the other server", self.mail.len(), self.outbox.len())
    }
}
