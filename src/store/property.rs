//! Random sequences of what can happen to mailboxes, against a model that is as plain as can be.

use super::fake::{hash, name, open, parcel};
use super::mail::{Parcel, Place};
use super::mailbox::{Bounds, Mailboxes, Settled, UpTo};
use super::page::Asked;
use super::{Database, Which};
use proptest::prelude::*;
use std::collections::BTreeMap;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const BOUNDS: Bounds = Bounds { messages: 5, bytes: 20 };
const ATTEMPTS: u32 = 2;

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
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = 0..USERS.len();
    let seq = 0..14_u64;
    let which = prop_oneof![seq.clone().prop_map(Which::One), Just(Which::Aside), Just(Which::All)];
    let step = prop_oneof![
        8 => (0..8_u8, 0..8_usize).prop_map(|(users, bytes)| Step::Keep { users, bytes }),
        4 => (user.clone(), seq.clone(), any::<bool>(), 1..4_usize)
            .prop_map(|(user, up_to, strict, most)| Step::Settle { user, up_to, strict, most }),
        3 => (user.clone(), prop::collection::vec(seq, 0..4)).prop_map(|(user, seqs)| Step::Tried { user, seqs }),
        1 => (0..12_i64, 1..4_usize).prop_map(|(age, letters)| Step::Expire { age, letters }),
        1 => (user.clone(), which.clone()).prop_map(|(user, which)| Step::Retry { user, which }),
        1 => (user.clone(), which).prop_map(|(user, which)| Step::Discard { user, which }),
        1 => user.clone().prop_map(|user| Step::Remove { user }),
        2 => user.prop_map(|user| Step::Add { user }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
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
    clock: i64,
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
                let portion = |rows: super::rows::Rows<'_>| {
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
        }
        Step::Add { user } => {
            let mailbox = model.users.entry(USERS[*user]).or_default();
            assert_eq!(database.add(&name(USERS[*user]), &hash()).is_ok(), !mailbox.account);
            mailbox.account = true;
        }
        Step::Reopen => *database = Database::open(path).unwrap(),
    }
}

fn compare(model: &Model, database: &Database) {
    database.check().unwrap();
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
    fn mailboxes_are_what_the_model_says(steps in steps()) {
        let (_directory, path, mut database) = open(&USERS[..2]);
        database.connection.pragma_update(None, "synchronous", "off").unwrap();
        let mut model = Model::default();
        for user in &USERS[..2] {
            model.users.entry(user).or_default().account = true;
        }
        for step in &steps {
            take(&mut model, &mut database, &path, step);
            compare(&model, &database);
        }
    }
}
