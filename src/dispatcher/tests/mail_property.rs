//! Random events about mailboxes. What is done with them is in `mail_ledger.rs`, what must hold in `mail_books.rs`.

use super::mail_ledger::Ledger;
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
        ack: bool,
        after: After,
    },
    LogOut(usize),
    Leave(usize),
    EndInput(usize),
    /// Of what waits for its socket, so many packets were taken before.
    Disconnect {
        conn: usize,
        took: usize,
    },
    /// Its socket takes nothing but so many packets.
    StopReading {
        conn: usize,
        room: usize,
    },
    ReadOn(usize),
    /// The dispatcher is told whose socket has taken everything, of one.
    Emptied,
    /// The last but so many of what came to this connection.
    Acknowledge {
        conn: usize,
        but: usize,
    },
    AcknowledgeTooMuch(usize),
    Send {
        conn: usize,
        kind: usize,
        id: bool,
        once: bool,
    },
    /// One that is to be handled once only is sent again.
    SendAgain {
        conn: usize,
        nth: usize,
    },
    Answer {
        kind: usize,
        nth: usize,
        said: Said,
    },
    Die(usize),
    Remove(usize),
    Add(usize),
    /// Events are taken in without anything being written in between, or no longer.
    Batch(bool),
    Disk(Disk),
    Pass(u64),
}

/// What a login says of an earlier session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum After {
    Nothing,
    What,
    TooMuch,
}

#[derive(Debug, Clone)]
pub(super) enum Disk {
    Rests(bool),
    Busy(bool),
    Trouble(bool),
    Writes(usize),
    Reads(usize),
    TellsWrites(usize),
    TellsReads(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    /// Commands, and whether those who are away get it later, if the answer says so.
    Commands(Vec<Command>, Option<bool>),
    Refused,
    Wrong,
}

#[derive(Debug, Clone)]
pub(super) enum Command {
    To(Vec<usize>, Size),
    Reply(Size),
}

/// How large its data is: windows are 1,000 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    Small,
    Half,
    Huge,
}

fn said() -> impl Strategy<Value = Said> {
    let size = prop_oneof![8 => Just(Size::Small), 1 => Just(Size::Half), 1 => Just(Size::Huge)];
    let command = prop_oneof![
        4 => (vec(prop_oneof![12 => 0..4usize, 1 => Just(4usize)], 0..4), size.clone()).prop_map(|(names, size)| Command::To(names, size)),
        1 => size.prop_map(Command::Reply),
    ];
    let queue = prop_oneof![3 => Just(Some(true)), 3 => Just(None), 1 => Just(Some(false))];
    prop_oneof![
        20 => (vec(command, 0..4), queue).prop_map(|(commands, queue)| Said::Commands(commands, queue)),
        1 => Just(Said::Refused),
        1 => Just(Said::Wrong),
    ]
}

fn disk() -> impl Strategy<Value = Disk> {
    prop_oneof![
        2 => any::<bool>().prop_map(Disk::Rests),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Disk::Busy),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Disk::Trouble),
        6 => (1..4usize).prop_map(Disk::Writes),
        6 => (1..4usize).prop_map(Disk::Reads),
        4 => (1..4usize).prop_map(Disk::TellsWrites),
        5 => (1..4usize).prop_map(Disk::TellsReads),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let conn = || 0..8usize;
    let after = prop_oneof![6 => Just(After::Nothing), 2 => Just(After::What), 1 => Just(After::TooMuch)];
    let log_in = (conn(), 0..4usize, any::<bool>(), after).prop_map(|(conn, user, ack, after)| Op::LogIn { conn, user, ack, after });
    let send = (conn(), 0..3usize, prop_oneof![1 => Just(false), 5 => Just(true)], any::<bool>());
    let time = prop_oneof![8 => 1..3000u64, 1 => 3000..70_000u64];
    prop_oneof![
        4 => Just(Op::Connect),
        10 => log_in,
        2 => conn().prop_map(Op::LogOut),
        1 => conn().prop_map(Op::Leave),
        1 => conn().prop_map(Op::EndInput),
        5 => (conn(), 0..3usize).prop_map(|(conn, took)| Op::Disconnect { conn, took }),
        5 => (conn(), 0..4usize).prop_map(|(conn, room)| Op::StopReading { conn, room }),
        5 => conn().prop_map(Op::ReadOn),
        6 => Just(Op::Emptied),
        10 => (conn(), 0..3usize).prop_map(|(conn, but)| Op::Acknowledge { conn, but }),
        1 => conn().prop_map(Op::AcknowledgeTooMuch),
        24 => send.prop_map(|(conn, kind, id, once)| Op::Send { conn, kind, id, once }),
        6 => (conn(), 0..4usize).prop_map(|(conn, nth)| Op::SendAgain { conn, nth }),
        28 => (0..3usize, 0..3usize, said()).prop_map(|(kind, nth, said)| Op::Answer { kind, nth, said }),
        1 => (0..3usize).prop_map(Op::Die),
        1 => (0..4usize).prop_map(Op::Remove),
        2 => (0..4usize).prop_map(Op::Add),
        4 => any::<bool>().prop_map(Op::Batch),
        16 => disk().prop_map(Op::Disk),
        4 => time.prop_map(Op::Pass),
    ]
}

/// How many cases; more when somebody looks for trouble.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn whatever_happens_nothing_that_was_kept_is_lost(ops in vec(op(), 1..150), drain in option::weighted(0.15, 0..150usize)) {
        let mut ledger = Ledger::new();
        for (n, op) in ops.into_iter().enumerate() {
            if drain == Some(n) {
                ledger.drains();
            }
            ledger.happens(op);
        }
        ledger.comes_to_its_end();
    }
}
