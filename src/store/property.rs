//! Random sequences of what can happen to mailboxes and outboxes, against a model that is as plain as can be.

use super::fake::{hash, name, newcomer, open, outgoing, parcel, server};
use super::mail::{Parcel, Place, Receipt};
use super::mailbox::{Bounds, Mailboxes, Settled, UpTo};
use super::outbox::{self, Outboxes, Portion};
use super::page::Asked;
use super::rows::Rows;
use super::{Database, GivenUp, Settings, Which};
use crate::name::PeerId;
use crate::protocol::reason::Reason;
use proptest::prelude::*;
use std::collections::BTreeMap;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const BOUNDS: Bounds = Bounds { messages: 5, bytes: 20 };
const ATTEMPTS: u32 = 2;
const PEERS: [&str; 2] = ["a.example", "b.example"];
/// What commands write has the time of the true clock, which is always later than the model's.
const TODAY: i64 = i64::MAX;
const OUTBOX: Bounds = Bounds { messages: 4, bytes: 16 };

#[derive(Debug, Clone)]
enum Step {
    Keep { users: u8, bytes: usize },
    Settle { user: usize, up_to: u64, strict: bool, most: usize },
    Tried { user: usize, seqs: Vec<u64> },
    Expire { age: i64, letters: usize },
    Retry { user: usize, which: Which },
    Discard { user: usize, which: Which },
    Remove { user: usize },
    Add { user: usize },
    Send { peer: usize, bytes: usize, author: Option<usize> },
    Sent { peer: usize, receipt: Receipt },
    GiveUp { age: i64, messages: usize },
    Drop { peer: usize, which: Which },
    RemovePeer { peer: usize },
    AddPeer { peer: usize },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = 0..USERS.len();
    let seq = 0..14_u64;
    let which_of_all = prop_oneof![seq.clone().prop_map(Which::One), Just(Which::All)];
    let which = prop_oneof![seq.clone().prop_map(Which::One), Just(Which::Aside), Just(Which::All)];
    let peer = 0..PEERS.len();
    let receipt = prop_oneof![
        prop::collection::vec(seq.clone(), 0..3).prop_map(Receipt::Taken),
        prop::collection::vec(seq.clone(), 0..3).prop_map(Receipt::Deferred),
        seq.clone().prop_map(Receipt::Refused),
        Just(Receipt::Unreached),
    ];
    let step = prop_oneof![
        8 => (0..8_u8, 0..8_usize).prop_map(|(users, bytes)| Step::Keep { users, bytes }),
        4 => (user.clone(), seq.clone(), any::<bool>(), 1..4_usize)
            .prop_map(|(user, up_to, strict, most)| Step::Settle { user, up_to, strict, most }),
        3 => (user.clone(), prop::collection::vec(seq, 0..4)).prop_map(|(user, seqs)| Step::Tried { user, seqs }),
        1 => (0..12_i64, 1..4_usize).prop_map(|(age, letters)| Step::Expire { age, letters }),
        1 => (user.clone(), which.clone()).prop_map(|(user, which)| Step::Retry { user, which }),
        1 => (user.clone(), which).prop_map(|(user, which)| Step::Discard { user, which }),
        1 => user.clone().prop_map(|user| Step::Remove { user }),
        2 => user.clone().prop_map(|user| Step::Add { user }),
        8 => (peer.clone(), 0..8_usize, prop::option::of(user)).prop_map(|(peer, bytes, author)| Step::Send { peer, bytes, author }),
        4 => (peer.clone(), receipt).prop_map(|(peer, receipt)| Step::Sent { peer, receipt }),
        1 => (0..12_i64, 1..4_usize).prop_map(|(age, messages)| Step::GiveUp { age, messages }),
        1 => (peer.clone(), which_of_all).prop_map(|(peer, which)| Step::Drop { peer, which }),
        1 => peer.clone().prop_map(|peer| Step::RemovePeer { peer }),
        2 => peer.prop_map(|peer| Step::AddPeer { peer }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter {
    data: String,
    kept: i64,
    attempts: u32,
    aside: bool,
}

#[derive(Debug, Default)]
struct Model {
    users: BTreeMap<&'static str, Mailbox>,
    /// With the number that it has now.
    peers: BTreeMap<&'static str, (PeerId, Outbox)>,
    clock: i64,
}

#[derive(Debug, Default)]
struct Outbox {
    last: u64,
    tries: u64,
    messages: BTreeMap<u64, Message>,
}

#[derive(Debug, Clone)]
struct Message {
    data: String,
    kept: i64,
    attempts: u64,
    tries_before: u64,
    author: Option<&'static str>,
    /// Whether whoever has the author's name is the author.
    known: bool,
}

impl Outbox {
    fn keep(&mut self, data: &str, author: Option<&'static str>, known: bool, now: i64) -> Place {
        let bytes: usize = self.messages.values().map(|message| message.data.len()).sum();
        if self.messages.len() as u64 >= OUTBOX.messages || (bytes + data.len()) as u64 > OUTBOX.bytes {
            return Place::Refused;
        }
        self.last += 1;
        let message = Message { data: data.to_owned(), kept: now, attempts: 0, tries_before: self.tries, author, known };
        self.messages.insert(self.last, message);
        Place::Queued(self.last)
    }
}

impl Model {
    /// Deletes messages; gives how many there were, and who is told.
    fn give_up(&mut self, peer: &str, wanted: impl Fn(u64, &Message) -> bool, more: u64, now: i64) -> GivenUp {
        let mut given_up = GivenUp::default();
        let Some((_, outbox)) = self.peers.get_mut(peer) else { return given_up };
        let seqs: Vec<u64> = outbox.messages.iter().filter(|(seq, message)| wanted(**seq, message)).map(|(seq, _)| *seq).collect();
        for seq in seqs {
            let message = outbox.messages.remove(&seq).unwrap();
            given_up.messages += 1;
            let Some(author) = message.author.filter(|_| message.known) else { continue };
            let attempts = message.attempts + outbox.tries - message.tries_before + more;
            let data = format!(r#"{{"attempts":{attempts},"messageId":"s/1-1","server":"{peer}"}}"#);
            let mailbox = self.users.entry(author).or_default();
            if mailbox.account {
                mailbox.last += 1;
                mailbox.letters.insert(mailbox.last, Letter { data, kept: now, attempts: 0, aside: false });
                given_up.told.insert(name(author));
            }
        }
        given_up
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    account: bool,
    last: u64,
    letters: BTreeMap<u64, Letter>,
}

impl Mailbox {
    fn keep(&mut self, data: &str, now: i64) -> Place {
        let bytes: usize = self.letters.values().map(|letter| letter.data.len()).sum();
        if !self.account {
            return Place::Unknown;
        }
        if self.letters.len() as u64 >= BOUNDS.messages || (bytes + data.len()) as u64 > BOUNDS.bytes {
            return Place::Refused;
        }
        self.last += 1;
        self.letters.insert(self.last, Letter { data: data.to_owned(), kept: now, attempts: 0, aside: false });
        Place::Queued(self.last)
    }

    fn settle(&mut self, up_to: u64, strict: bool, most: usize) -> Settled {
        if strict && up_to > self.last {
            return Settled::Beyond(self.last);
        }
        let due = self.letters.iter().filter(|(seq, letter)| **seq <= up_to && !letter.aside);
        let due: Vec<u64> = due.map(|(seq, _)| *seq).take(most).collect();
        due.iter().for_each(|seq| _ = self.letters.remove(seq));
        if due.len() == most { Settled::Some } else { Settled::All }
    }

    fn tried(&mut self, seqs: &[u64]) {
        for seq in seqs {
            if let Some(letter) = self.letters.get_mut(seq).filter(|letter| !letter.aside) {
                letter.attempts += 1;
                letter.aside = letter.attempts >= ATTEMPTS;
            }
        }
    }

    fn matching(&self, which: Which, aside_only: bool) -> Vec<u64> {
        let wanted = |(seq, letter): &(&u64, &Letter)| match which {
            Which::One(one) => **seq == one && (letter.aside || !aside_only),
            Which::Aside => letter.aside,
            Which::All => letter.aside || !aside_only,
        };
        self.letters.iter().filter(wanted).map(|(seq, _)| *seq).collect()
    }
}

fn take(model: &mut Model, database: &mut Database, path: &std::path::Path, step: &Step) {
    model.clock += 1;
    let now = model.clock;
    match step {
        Step::Keep { users, bytes } => {
            let users: Vec<&'static str> = (0..USERS.len()).filter(|bit| users & (1 << bit) != 0).map(|bit| USERS[bit]).collect();
            let data = format!("{now:x>0$}", bytes);
            let data = &data[..*bytes.min(&data.len())];
            let parcel: Parcel = parcel("s/1-1", data, &users);
            let mut places = Vec::new();
            database.transact(|rows| Mailboxes(rows).keep(&parcel, BOUNDS, now, &mut places)).unwrap();
            let expected: Vec<Place> = users.iter().map(|user| model.users.entry(user).or_default().keep(data, now)).collect();
            assert_eq!(places, expected);
        }
        Step::Settle { user, up_to, strict, most } => {
            let user = USERS[*user];
            let (settled, _) = database
                .transact(|rows| Mailboxes(rows).settle(&name(user), UpTo { seq: *up_to, reports: true, strict: *strict }, *most))
                .unwrap();
            assert_eq!(settled, model.users.entry(user).or_default().settle(*up_to, *strict, *most));
        }
        Step::Tried { user, seqs } => {
            let user = USERS[*user];
            database.transact(|rows| Mailboxes(rows).tried(&name(user), seqs, ATTEMPTS, &mut Vec::new())).unwrap();
            model.users.entry(user).or_default().tried(seqs);
        }
        Step::Expire { age, letters } => {
            // As many portions as it takes.
            let mut after = Some(0);
            while let Some(from) = after {
                let portion = |rows: Rows<'_>| {
                    let expired = Mailboxes(rows).expired(from, now - age, now, 2, *letters)?;
                    expired.rows.iter().try_for_each(|(number, lying)| Mailboxes(rows).delete(*number, lying))?;
                    Ok(expired.next)
                };
                after = database.transact(portion).unwrap();
            }
            model.users.values_mut().for_each(|mailbox| mailbox.letters.retain(|_, letter| letter.kept >= now - age));
        }
        Step::Retry { user, which } => {
            let mailbox = model.users.entry(USERS[*user]).or_default();
            let seqs = mailbox.matching(*which, true);
            for seq in &seqs {
                let letter = mailbox.letters.remove(seq).unwrap();
                mailbox.last += 1;
                mailbox.letters.insert(mailbox.last, Letter { kept: now, attempts: 1, aside: false, ..letter });
            }
            assert_eq!(database.retry_at(&name(USERS[*user]), *which, now).unwrap_or(0), seqs.len() as u64);
        }
        Step::Discard { user, which } => {
            let mailbox = model.users.entry(USERS[*user]).or_default();
            let seqs = mailbox.matching(*which, false);
            seqs.iter().for_each(|seq| _ = mailbox.letters.remove(seq));
            assert_eq!(database.discard(&name(USERS[*user]), *which).unwrap_or(0), seqs.len() as u64);
        }
        Step::Remove { user } => {
            let mailbox = model.users.entry(USERS[*user]).or_default();
            assert_eq!(database.remove(&name(USERS[*user])).is_ok(), mailbox.account);
            if mailbox.account {
                mailbox.letters.clear();
            }
            mailbox.account = false;
            let messages = model.peers.values_mut().flat_map(|(_, outbox)| outbox.messages.values_mut());
            messages.filter(|message| message.author == Some(USERS[*user])).for_each(|message| message.known = false);
        }
        Step::Add { user } => {
            let mailbox = model.users.entry(USERS[*user]).or_default();
            assert_eq!(database.add(&name(USERS[*user]), &hash()).is_ok(), !mailbox.account);
            mailbox.account = true;
        }
        Step::Send { peer, bytes, author } => {
            let data = "x".repeat(*bytes);
            let author = author.map(|author| USERS[author]);
            let known = author.is_some_and(|author| model.users.get(author).is_some_and(|mailbox| mailbox.account));
            let found = model.peers.get_mut(PEERS[*peer]);
            let id = found.as_ref().map_or(PeerId(0), |(id, _)| *id);
            let settings = Settings { outbox_messages: 4, outbox_bytes: 16, ..Settings::default() };
            let keep = |rows: Rows<'_>| outboxes(rows, now).keep(&outgoing(id, "s/1-2", &data, author), &settings);
            let (place, _) = database.transact(keep).unwrap();
            assert_eq!(place, found.map_or(Place::Unknown, |(_, outbox)| outbox.keep(&data, author, known, now)));
        }
        Step::Sent { peer, receipt } => {
            let peer = PEERS[*peer];
            let Some((id, outbox)) = model.peers.get_mut(peer) else { return };
            let id = *id;
            let told = database.transact(|rows| outboxes(rows, now).sent(id, receipt)).unwrap();
            match receipt {
                Receipt::Taken(seqs) => seqs.iter().for_each(|seq| _ = outbox.messages.remove(seq)),
                Receipt::Deferred(seqs) => {
                    for seq in seqs {
                        outbox.messages.entry(*seq).and_modify(|message| message.attempts += 1);
                    }
                }
                Receipt::Unreached => outbox.tries += 1,
                Receipt::Refused(refused) => assert_eq!(told, model.give_up(peer, |seq, _| seq == *refused, 1, now).told),
            }
        }
        Step::GiveUp { age, messages } => {
            let mut after = Some(0);
            while let Some(from) = after {
                let portion = |rows: Rows<'_>| {
                    let outboxes = outboxes(rows, now);
                    let due = outboxes.expired(from, now - age, 1, Portion { messages: *messages, bytes: 8 })?;
                    due.seqs.iter().try_for_each(|(peer, seqs)| outboxes.give_up(*peer, seqs, Reason::Expired).map(drop))?;
                    Ok(due.next)
                };
                after = database.transact(portion).unwrap();
            }
            // In the order of their numbers.
            let mut peers: Vec<_> = model.peers.iter().map(|(peer, (id, _))| (*id, *peer)).collect();
            peers.sort();
            peers.iter().for_each(|(_, peer)| _ = model.give_up(peer, |_, message| message.kept < now - age, 0, now));
        }
        Step::Drop { peer, which } => {
            let peer = PEERS[*peer];
            let expected = model.give_up(peer, |seq, _| *which == Which::All || *which == Which::One(seq), 0, TODAY);
            assert_eq!(database.drop_outgoing(&server(peer), *which).unwrap_or_default(), expected);
        }
        Step::RemovePeer { peer } => {
            let peer = PEERS[*peer];
            let expected = model.give_up(peer, |_, _| true, 0, TODAY);
            let removed = model.peers.remove(peer).map(|_| expected);
            assert_eq!(database.remove_peer(&server(peer)).ok(), removed);
        }
        Step::AddPeer { peer } => {
            let peer = PEERS[*peer];
            let added = database.add_peer(&newcomer(peer), 9);
            assert_eq!(added.is_ok(), !model.peers.contains_key(peer));
            added.into_iter().for_each(|id| _ = model.peers.insert(peer, (id, Outbox::default())));
        }
        Step::Reopen => *database = Database::open(path).unwrap(),
    }
}

fn outboxes(rows: Rows<'_>, now: i64) -> Outboxes<'_> {
    Outboxes { rows, now, written: &|_| {} }
}

fn compare(model: &Model, database: &Database) {
    database.check().unwrap();
    for (peer, (id, outbox)) in &model.peers {
        let mut seen = Vec::new();
        let mut after = 0;
        loop {
            let page = outbox::page(database.rows(), *id, after, 2, 9).unwrap();
            seen.extend(page.messages.iter().map(|(seq, message)| (*seq, message.data.bytes().to_vec())));
            match page.messages.last() {
                Some((seq, _)) if page.more => after = *seq,
                _ => break,
            }
        }
        let expected: Vec<_> = outbox.messages.iter().map(|(seq, message)| (*seq, message.data.clone().into_bytes())).collect();
        assert_eq!(seen, expected, "{peer}");
    }
    for (user, mailbox) in &model.users {
        let user = name(user);
        let mut seen = Vec::new();
        let mut after = 0;
        loop {
            let asked = Asked { user: &user, after, reports: true, letters_max: 2, bytes_max: 9, start_prefix: "", tried: 0, suspect: 0 };
            let page = Mailboxes(database.rows()).page(&asked).unwrap();
            assert!(page.mail.len() <= 2);
            seen.extend(page.mail.iter().map(|mail| (mail.seq, mail.letter.data.bytes().to_vec(), mail.redelivered)));
            match page.mail.last() {
                Some(mail) if page.more => after = mail.seq,
                _ => break,
            }
        }
        let sendable = mailbox.letters.iter().filter(|(_, letter)| !letter.aside);
        let expected: Vec<_> = sendable.map(|(seq, letter)| (*seq, letter.data.clone().into_bytes(), letter.attempts > 0)).collect();
        assert_eq!(seen, expected, "{user}");
    }
    let letters: usize = model.users.values().map(|mailbox| mailbox.letters.len()).sum();
    let aside = model.users.values().flat_map(|mailbox| mailbox.letters.values()).filter(|letter| letter.aside).count();
    let totals = database.totals().unwrap();
    assert_eq!((totals.letters, totals.aside), (letters as u64, aside as u64));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mailboxes_and_outboxes_are_what_the_model_says(steps in steps()) {
        let (_directory, path, mut database) = open(&USERS[..2]);
        database.connection.pragma_update(None, "synchronous", "off").unwrap();
        let mut model = Model::default();
        for user in &USERS[..2] {
            model.users.entry(user).or_default().account = true;
        }
        let id = database.add_peer(&newcomer(PEERS[0]), 9).unwrap();
        model.peers.insert(PEERS[0], (id, Outbox::default()));
        for step in &steps {
            take(&mut model, &mut database, &path, step);
            compare(&model, &database);
        }
    }
}
