//! The table of the block `limits`: what is read from the file and what a plan shows come from the same lines.

use super::Limits;
use super::block::{Item, Reader};
use super::json::Member;
use super::mistake::Fault;
use std::time::Duration;

/// One day.
pub(super) const SECONDS_MAX: u64 = 86_400;
const FRAME_BYTES_MAX: u64 = 1 << 30;
const TOTAL_BYTES_MAX: u64 = if (isize::MAX as u64) < 1 << 40 { isize::MAX as u64 } else { 1 << 40 };
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Ten years.
const DAYS_MAX: u64 = 3650;
/// The same in hours.
const HOURS_MAX: u64 = 24 * DAYS_MAX;
/// One week.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// One key: its largest value, and its field. Each `most` fits a `usize`, and the field.
pub(super) struct Limit {
    pub(super) key: &'static str,
    pub(super) unit: &'static str,
    most: u64,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

macro_rules! limit {
    ($key:literal, count $field:ident, $unit:literal, $most:expr) => {
        Limit {
            key: $key,
            unit: $unit,
            most: $most,
            get: |limits| limits.$field as u64,
            set: |limits, value| limits.$field = value as _,
        }
    };
    ($key:literal, time $field:ident) => {
        limit!($key, time $field, "s", 1, SECONDS_MAX)
    };
    ($key:literal, time $field:ident, $unit:literal, $seconds:literal, $most:expr) => {
        Limit {
            key: $key,
            unit: $unit,
            most: $most,
            get: |limits| limits.$field.as_secs() / $seconds,
            set: |limits, value| limits.$field = Duration::from_secs(value * $seconds),
        }
    };
}

/// Every key of the block.
pub(super) const TABLE: [Limit; 48] = [
    limit!("connections", count connections, "", CONNECTIONS_MAX),
    limit!("connectionsPerSource", count connections_per_source, "", CONNECTIONS_MAX),
    limit!("connectionsPerUser", count connections_per_user, "", CONNECTIONS_MAX),
    limit!("connectionsPerPeer", count connections_per_peer, "", CONNECTIONS_MAX),
    limit!("loginSeconds", time login),
    limit!("tlsSeconds", time tls),
    limit!("frameBytes", count frame_bytes, "bytes", FRAME_BYTES_MAX),
    limit!("frameBytesBeforeLogin", count frame_bytes_before_login, "bytes", FRAME_BYTES_MAX),
    limit!("frameBytesServer", count frame_bytes_server, "bytes", FRAME_BYTES_MAX),
    limit!("frameBytesHandler", count frame_bytes_handler, "bytes", FRAME_BYTES_MAX),
    limit!("frameSeconds", time frame),
    limit!("frameBytesPerSecond", count frame_bytes_per_second, "bytes/s", FRAME_BYTES_MAX),
    // Whoever walks through `data` descends once for each.
    limit!("depth", count depth, "", 1000),
    limit!("inFlight", count in_flight, "", 65_536),
    limit!("recipients", count recipients, "", 1_000_000),
    limit!("outgoingBytes", count outgoing_bytes, "bytes", FRAME_BYTES_MAX),
    limit!("outgoingFrames", count outgoing_frames, "", 1_000_000),
    limit!("outgoingBytesTotal", count outgoing_bytes_total, "bytes", TOTAL_BYTES_MAX),
    limit!("incomingBytesTotal", count incoming_bytes_total, "bytes", TOTAL_BYTES_MAX),
    limit!("mailboxMessages", count mailbox_messages, "", 1_000_000),
    limit!("mailboxBytes", count mailbox_bytes, "bytes", FRAME_BYTES_MAX),
    limit!("mailboxDays", time mailbox_age, "days", 86_400, DAYS_MAX),
    limit!("unacknowledgedMessages", count unacknowledged_messages, "", 65_536),
    limit!("unacknowledgedBytes", count unacknowledged_bytes, "bytes", FRAME_BYTES_MAX),
    limit!("ackSeconds", time ack),
    limit!("deliveryAttempts", count delivery_attempts, "", 1_000_000),
    limit!("dedupeMinutes", time dedupe_age, "minutes", 60, MINUTES_MAX),
    limit!("dedupeMessages", count dedupe_messages, "", 100_000_000),
    limit!("storageQueue", count storage_queue, "", 1_000_000),
    limit!("storageBytes", count storage_bytes, "bytes", FRAME_BYTES_MAX),
    limit!("pushesPerSecond", count pushes_per_second, "", 1_000_000),
    limit!("pushBurst", count push_burst, "", 1_000_000),
    // Each has a thread.
    limit!("peers", count peers, "", 10_000),
    limit!("peerInFlight", count peer_in_flight, "", 65_536),
    limit!("peerReportSeconds", time peer_report),
    limit!("peerRetrySeconds", time peer_retry_min),
    limit!("peerRetrySecondsMax", time peer_retry_max),
    limit!("peerMessagesPerSecond", count peer_messages_per_second, "", 1_000_000),
    limit!("peerMessageBurst", count peer_message_burst, "", 1_000_000),
    limit!("openMessagesPerSecond", count open_messages_per_second, "", 1_000_000),
    limit!("outboxMessages", count outbox_messages, "", 1_000_000),
    limit!("outboxBytes", count outbox_bytes, "bytes", TOTAL_BYTES_MAX),
    limit!("outboxHours", time outbox_age, "hours", 3600, HOURS_MAX),
    limit!("seenHours", time seen_age, "hours", 3600, HOURS_MAX),
    limit!("seenMessages", count seen_messages, "", 100_000_000),
    limit!("inviteHours", time invite_age, "hours", 3600, HOURS_MAX),
    limit!("drainSeconds", time drain),
    // Each takes 19 MiB and a processor.
    limit!("hashingAtOnce", count hashing_at_once, "", 1024),
];

/// The keys alone.
pub(super) const KEYS: [&str; TABLE.len()] = {
    let mut keys = [""; TABLE.len()];
    let mut i = 0;
    while i < keys.len() {
        keys[i] = TABLE[i].key;
        i += 1;
    }
    keys
};

/// A limit that must not be less than another; with frames smaller or totals larger it could never be kept.
const ORDER: [(&str, &str); 8] = [
    ("frameBytes", "frameBytesBeforeLogin"),
    ("outgoingBytesTotal", "frameBytesHandler"),
    ("incomingBytesTotal", "frameBytes"),
    // A delivery that no mailbox has room for would be refused with the word that trying again may help.
    ("mailboxBytes", "frameBytesHandler"),
    ("incomingBytesTotal", "frameBytesServer"),
    ("outboxBytes", "frameBytesServer"),
    ("peerRetrySecondsMax", "peerRetrySeconds"),
    // A message that is sent for longer than it is remembered could be handled twice.
    ("seenHours", "outboxHours"),
];

impl Limit {
    /// Its value in `limits`, in its unit.
    pub(super) fn value(&self, limits: &Limits) -> u64 {
        (self.get)(limits)
    }
}

/// The limits: the defaults, and over them what the file gives.
pub(super) fn read(reader: &mut Reader, block: Option<Item<'_>>) -> Limits {
    let mut limits = Limits::default();
    let before = reader.mistakes.len();
    let Some(block) = block.and_then(|item| reader.block(item, &KEYS)) else {
        return limits;
    };
    for limit in &TABLE {
        let Some(item) = block.item(limit.key) else {
            continue;
        };
        if let Some(value) = reader.count(&item, limit.most) {
            (limit.set)(&mut limits, value);
        }
    }
    // A bad value or key has been noted; its default would only be blamed for what it is not.
    if reader.mistakes.len() == before {
        in_order(reader, block.members, &limits);
    }
    limits
}

/// Notes each pair that is in the wrong order, at whichever of the two the file gives: the defaults are in order.
fn in_order(reader: &mut Reader, members: &[Member], limits: &Limits) {
    let value = |key| TABLE.iter().find(|limit| limit.key == key).map_or(0, |limit| limit.value(limits));
    for (large, small) in ORDER {
        if value(small) <= value(large) {
            continue;
        }
        let given = |key: &str| members.iter().find(|member| member.key == key);
        let (member, fault) = match given(small) {
            Some(member) => (member, Fault::Order { small: false, other: large, value: value(large) }),
            None => match given(large) {
                Some(member) => (member, Fault::Order { small: true, other: small, value: value(small) }),
                None => continue,
            },
        };
        reader.note(member.value.at, format!("limits.{}", member.key), fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_field_of_its_own_and_a_default_within_its_bounds() {
        let mut all = Limits::default();
        for (i, limit) in (0u64..).zip(&TABLE) {
            let default = limit.value(&Limits::default());
            assert!((1..=limit.most).contains(&default), "{}", limit.key);
            assert!(usize::try_from(limit.most).is_ok(), "{}", limit.key);
            (limit.set)(&mut all, 500 + i);
        }
        for (i, limit) in (0u64..).zip(&TABLE) {
            assert_eq!(limit.value(&all), 500 + i, "{}", limit.key);
        }
    }
}
