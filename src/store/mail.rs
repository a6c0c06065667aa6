//! What is kept on the disk for users, in the words that the dispatcher and the storage threads speak with each other.

use super::Peer;
use crate::frame::Slice;
use crate::name::{ConnId, PeerId, Username};
use crate::protocol::reason::Reason;
use crate::protocol::report::Counts;
use crate::transport::HostPort;
use std::collections::HashMap;
use std::sync::Arc;

/// A message as it is kept: once, however many mailboxes it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// `header.messageId`, without quotes.
    pub message_id: Box<str>,
    /// `payload.type`, the type as it is configured.
    pub kind: Box<str>,
    /// `payload.data`, byte for byte.
    pub data: Slice,
    /// The connection that asked and the `payload.id` (JSON with its quotes) that deliveries to that one carry. Known only
    /// as long as the server runs that kept it.
    pub asker: Option<(ConnId, Slice)>,
    /// It is no delivery, but tells that a message to another server came to nothing.
    pub report: Option<Undelivered>,
}

/// What a report says beside its data about a message to another server that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// [`Reason::Expired`] or [`Reason::PeerRefused`].
    pub reason: Reason,
    /// The `payload.id` of the message, JSON with its quotes.
    pub id: Option<Slice>,
}

impl Letter {
    /// What it counts against the bytes of a mailbox.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }
}

/// A letter and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The letter.
    pub letter: Arc<Letter>,
    /// Each user stands here once.
    pub recipients: Vec<Recipient>,
}

/// One of those whom a letter is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Whose mailbox.
    pub user: Username,
    /// Whether he is counted here; if not, another parcel of the same [`Keep`] or what was handed over already counts him.
    pub counts: bool,
    /// Whether a session without acknowledgements was handed it already.
    pub handed: bool,
}

/// A message to another server, as it is kept until that one has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Which server.
    pub to: Destination,
    /// `header.messageId`, without quotes. Each has one of its own, by which the other server knows it again.
    pub message_id: Box<str>,
    /// `payload.type`.
    pub kind: Box<str>,
    /// `payload.data`, byte for byte.
    pub data: Slice,
    /// `header.hops`: from 1.
    pub hops: u8,
    /// Whose message led to it, if it was that of a user of this server.
    pub author: Option<Author>,
}

/// Where a message to another server goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A server that is known.
    Peer(PeerId),
    /// A server of which nothing is known but where it listens (`federation.mode` `open`). It becomes known by that, as
    /// [`Verify::Open`](super::Verify::Open) and under that name, an IPv6 number without its brackets. A peer that has that name
    /// already is that one.
    Address(HostPort),
}

/// The user whose message led to one for another server, and who is told if that comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub user: Username,
    /// The `payload.id` of the user's message, JSON with its quotes.
    pub id: Option<Slice>,
    /// The `messageId` that the user was told. Empty in what is read from an outbox when the account is gone: nobody is told then.
    pub message_id: Box<str>,
}

/// What must be on the disk before a message gets its report. All of it is, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keep {
    /// For mailboxes.
    pub parcels: Vec<Parcel>,
    /// For other servers.
    pub outgoing: Vec<Arc<Outgoing>>,
    /// What is remembered of the message.
    pub memo: Option<Memo>,
}

/// Where a letter is for one recipient, or a message for one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In his mailbox, or in its outbox, under this number.
    Queued(u64),
    /// Nowhere: that is full, or there are as many servers as there may be.
    Refused,
    /// Nowhere: he has no account any longer, or it is no peer any longer.
    Unknown,
}

impl Keep {
    /// How many letters it would put into mailboxes.
    pub fn rows(&self) -> usize {
        self.parcels.iter().map(|parcel| parcel.recipients.len()).sum()
    }

    /// The messages for other servers with their places among `places`, which follow those of all recipients.
    pub fn sent<'a>(&'a self, places: &'a [Place]) -> impl Iterator<Item = (&'a Arc<Outgoing>, Place)> {
        self.outgoing.iter().zip(places.iter().skip(self.rows()).copied())
    }

    /// What `places` add to the counts of the message. A user for whom it has several letters counts once, by the worst that
    /// became of them, and so does a server.
    pub fn tally(&self, places: &[Place]) -> Counts {
        let mut counts = self.tally_users(places);
        let mut servers: HashMap<&Destination, Place> = HashMap::new();
        for (outgoing, place) in self.sent(places) {
            let worst = servers.entry(&outgoing.to).or_insert(place);
            if matches!(worst, Place::Queued(_)) {
                *worst = place;
            }
        }
        for place in servers.values() {
            match place {
                Place::Queued(_) => counts.queued += 1,
                Place::Refused => counts.refused_servers += 1,
                Place::Unknown => counts.unknown_servers += 1,
            }
        }
        counts
    }

    fn tally_users(&self, places: &[Place]) -> Counts {
        let fates = self.recipients().zip(places).map(|((_, recipient), place)| (recipient, Fate::of(recipient, *place)));
        let mut counts = Counts::default();
        if self.parcels.len() <= 1 {
            fates.filter(|(recipient, _)| recipient.counts).for_each(|(_, fate)| fate.count(&mut counts));
            return counts;
        }
        let mut users: HashMap<&Username, (bool, Fate)> = HashMap::new();
        for (recipient, fate) in fates {
            let user = users.entry(&recipient.user).or_insert((false, fate));
            *user = (user.0 || recipient.counts, user.1.max(fate));
        }
        users.values().filter(|(counts, _)| *counts).for_each(|(_, fate)| fate.count(&mut counts));
        counts
    }

    /// Each recipient with his letter, in the order in which their places are told.
    pub fn recipients(&self) -> impl Iterator<Item = (&Arc<Letter>, &Recipient)> {
        self.parcels.iter().flat_map(|parcel| parcel.recipients.iter().map(|recipient| (&parcel.letter, recipient)))
    }
}

/// What became of a recipient; the later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Delivered,
    Queued,
    Unknown,
    Refused,
}

impl Fate {
    fn of(recipient: &Recipient, place: Place) -> Fate {
        match place {
            Place::Queued(_) => Fate::Queued,
            // There was no need of his mailbox.
            Place::Refused | Place::Unknown if recipient.handed => Fate::Delivered,
            Place::Refused => Fate::Refused,
            Place::Unknown => Fate::Unknown,
        }
    }

    fn count(self, counts: &mut Counts) {
        match self {
            Fate::Delivered => counts.delivered += 1,
            Fate::Queued => counts.queued += 1,
            Fate::Unknown => counts.unknown_users += 1,
            Fate::Refused => counts.refused += 1,
        }
    }
}

/// A SHA-256 over the user, the id, the type and the data of a message: what makes it the same message when it comes again.
pub type Digest = [u8; 32];

/// What is remembered of a message, so that its sender may send it again and gets the same report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memo {
    /// Which message.
    pub digest: Digest,
    /// The other server that sent it; none for a client's. Those of a server are remembered for longer, and counted for each.
    pub peer: Option<PeerId>,
    /// Its report.
    pub report: Report,
}

/// A report that is remembered. One that is temporary is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The frame's text.
    Ready(Slice),
    /// What [`outcome`](crate::protocol::report::outcome) makes of these counts and of those of the [`Keep`] that it stands in.
    Outcome {
        /// `payload.type` of the message.
        kind: Box<str>,
        /// `payload.id` of the message, JSON with its quotes.
        id: Slice,
        /// `messageId` of the message; none for a message of another server, whose report is
        /// [`for_server`](crate::protocol::report::for_server)'s.
        message_id: Option<Box<str>>,
        /// What was counted without the [`Keep`].
        counts: Counts,
    },
}

/// By which the dispatcher knows a [`Keep`] again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A change that the dispatcher orders. They are carried out in the order in which they were ordered, each as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Keep this; answered with [`Told::Kept`].
    Keep(Ticket, Arc<Keep>),
    /// The user has everything up to this number.
    Settle {
        /// Whose mailbox.
        user: Username,
        /// The number.
        up_to: u64,
        /// Whether that includes reports about messages to other servers ([`Letter::report`]). They are for sessions that
        /// acknowledge alone, and wait for one.
        reports: bool,
        /// Answered with [`Told::Beyond`], for this connection, when there never was such a number.
        conn: Option<ConnId>,
    },
    /// These were sent in a session that ended without acknowledging them.
    Tried {
        /// Whose mailbox.
        user: Username,
        /// Which.
        seqs: Vec<u64>,
    },
    /// What has become of messages to another server; [`Told::Reported`] follows where an author got a report. A disk that fails
    /// is no reason to order it again: that something was taken or refused is kept in mind until it can be written down.
    Sent(PeerId, Receipt),
}

/// What has become of messages in an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The other server has these: they are deleted.
    Taken(Vec<u64>),
    /// The other server did not take these now: they were sent once more in vain, and stay.
    Deferred(Vec<u64>),
    /// The other server never takes this one: it is deleted, and its author gets a report in the mailbox.
    Refused(u64),
    /// The other server could not be reached: each of its messages has one attempt more.
    Unreached,
}

/// A question of the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// What lies next in a mailbox; answered with [`Told::Page`].
    Page {
        /// For this connection.
        conn: ConnId,
        /// Whose mailbox.
        user: Username,
        /// What has a higher number.
        after: u64,
        /// Reports about messages to other servers, too.
        reports: bool,
        /// At most so many letters.
        letters_max: usize,
        /// At most so many bytes, but always one letter if there is one.
        bytes_max: usize,
    },
    /// The report on a message that may have come before; answered with [`Told::Memo`].
    Memo {
        /// Which message.
        digest: Digest,
    },
}

/// What the storage threads tell the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What became of a [`Write::Keep`]: the place of each recipient, in the order of [`Keep::recipients`], and after those the
    /// place of each message for another server. It is on the disk.
    Kept(Ticket, Result<Vec<Place>, Trouble>),
    /// There never was the number that this connection acknowledged; `last` is the highest that there was.
    Beyond {
        /// Which connection.
        conn: ConnId,
        /// The highest number.
        last: u64,
    },
    /// The answer to [`Read::Page`]. It may show a letter before [`Told::Kept`] comes for it.
    Page(ConnId, Result<Page, Trouble>),
    /// The answer to [`Read::Memo`]: the text of the report's frame, if the message came before.
    Memo(Digest, Result<Option<Slice>, Trouble>),
    /// There are peers that were not there before, by [`Destination::Address`]: these are all. Told before the [`Told::Kept`]
    /// that they came with.
    Met(Vec<Peer>),
    /// A report lies at the end of each of these mailboxes: a message to another server came to nothing.
    Reported(Vec<Username>),
}

/// Some of what lies in an outbox, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboxPage {
    /// The messages with their numbers.
    pub messages: Vec<(u64, Arc<Outgoing>)>,
    /// Whether there was more when it was read.
    pub more: bool,
}

/// Some of what lies in a mailbox, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The letters.
    pub mail: Vec<Mail>,
    /// Whether there was more when it was read.
    pub more: bool,
}

/// A letter in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its number.
    pub seq: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The letter.
    pub letter: Arc<Letter>,
}

/// Why something was not kept, or not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Too much waits for the disk.
    Busy,
    /// The disk does not take or give it at the moment.
    Storage,
}
