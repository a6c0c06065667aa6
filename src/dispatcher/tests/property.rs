//! Random events. What must hold whatever happens is in `ledger.rs`.

use super::ledger::{Ledger, NAMES, USERS};
use super::{ENDS, KINDS};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What happens; numbers choose among what is there.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Connect,
    LogIn {
        conn: usize,
        user: usize,
        proof: Proof,
    },
    LogOut(usize),
    ChangePassword(usize),
    Register(usize, usize),
    Send {
        conn: usize,
        kind: usize,
        id: bool,
    },
    Inquire(usize),
    Refuse {
        conn: usize,
        last: bool,
    },
    Leave(usize),
    EndInput(usize),
    Overflow(usize),
    Disconnect(usize),
    Account {
        user: usize,
        change: Change,
    },
    Answer {
        end: usize,
        nth: usize,
        what: Vec<What>,
    },
    Unasked {
        end: usize,
        old: bool,
        what: Vec<What>,
    },
    Unanswered(usize),
    Die(usize),
    /// It dies, and is not started again.
    Break(usize),
    /// A new start, in the place of one that has not died.
    ComeUp(usize),
    /// A start that was replaced and may end does.
    Retire(usize),
    Pass(u64),
    Inform(usize),
    Drain,
}

/// How new the account was when the password was proved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Proof {
    Old,
    Current,
    /// The dispatcher has not been told yet.
    Newer,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    Revised,
    OldNews,
    Disabled,
    Removed,
}

/// One command of an answer, or what is wrong with all of it.
#[derive(Debug, Clone)]
pub(super) enum What {
    To(Vec<usize>),
    Reply,
    PassOn(usize),
    Servers,
    Refused,
    Wrong,
}

/// All but the one that keeps mail: what comes of that comes later, and is drawn elsewhere.
fn kind() -> impl Strategy<Value = usize> + Clone {
    (0..KINDS.len()).prop_filter("it keeps mail", |kind| KINDS[*kind] != "post")
}

fn end() -> impl Strategy<Value = usize> + Clone {
    (0..ENDS.len()).prop_filter("it keeps mail", |end| ENDS[*end].2 != "post")
}

fn what() -> impl Strategy<Value = Vec<What>> {
    let one = prop_oneof![
        4 => vec(0..NAMES.len(), 0..4).prop_map(What::To),
        2 => Just(What::Reply),
        2 => kind().prop_map(What::PassOn),
        1 => Just(What::Servers),
        1 => Just(What::Refused),
        1 => Just(What::Wrong),
    ];
    vec(one, 0..3)
}

fn op() -> impl Strategy<Value = Op> {
    let proof = prop_oneof![1 => Just(Proof::Old), 4 => Just(Proof::Current), 1 => Just(Proof::Newer)];
    let change = prop_oneof![Just(Change::Revised), Just(Change::OldNews), Just(Change::Disabled), Just(Change::Removed)];
    let (conn, kind, end) = (0..8usize, kind(), end());
    prop_oneof![
        4 => Just(Op::Connect),
        8 => (conn.clone(), 0..USERS, proof).prop_map(|(conn, user, proof)| Op::LogIn { conn, user, proof }),
        1 => conn.clone().prop_map(Op::LogOut),
        1 => conn.clone().prop_map(Op::ChangePassword),
        1 => (conn.clone(), 0..USERS).prop_map(|(conn, user)| Op::Register(conn, user)),
        30 => (conn.clone(), kind, any::<bool>()).prop_map(|(conn, kind, id)| Op::Send { conn, kind, id }),
        2 => conn.clone().prop_map(Op::Inquire),
        1 => (conn.clone(), any::<bool>()).prop_map(|(conn, last)| Op::Refuse { conn, last }),
        1 => conn.clone().prop_map(Op::Leave),
        3 => conn.clone().prop_map(Op::EndInput),
        1 => conn.clone().prop_map(Op::Overflow),
        2 => conn.prop_map(Op::Disconnect),
        2 => (0..USERS, change).prop_map(|(user, change)| Op::Account { user, change }),
        24 => (end.clone(), 0..4usize, what()).prop_map(|(end, nth, what)| Op::Answer { end, nth, what }),
        2 => (end.clone(), any::<bool>(), what()).prop_map(|(end, old, what)| Op::Unasked { end, old, what }),
        2 => (0..4usize).prop_map(Op::Unanswered),
        2 => end.clone().prop_map(Op::Die),
        1 => end.clone().prop_map(Op::Break),
        4 => end.clone().prop_map(Op::ComeUp),
        3 => end.prop_map(Op::Retire),
        8 => (1..6000u64).prop_map(Op::Pass),
        1 => (0..4usize).prop_map(Op::Inform),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_happens_each_message_is_accounted_for(ops in vec(op(), 1..120), drain in option::weighted(0.2, 0..120usize)) {
        let mut ledger = Ledger::new();
        for (n, op) in ops.into_iter().enumerate() {
            if drain == Some(n) {
                ledger.happens(Op::Drain);
            }
            ledger.happens(op);
        }
        ledger.comes_to_its_end();
    }
}
