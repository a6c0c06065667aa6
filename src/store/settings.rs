//! What the storage threads are told when they start.

use std::time::Duration;

/// Bounds of what is kept, and of what waits for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Changes that wait for the disk at most; a [`Keep`](super::mail::Keep) counts once for each recipient. Questions that
    /// wait are bounded by the same number.
    pub queue: usize,
    /// Bytes of messages that wait for the disk at most.
    pub queue_bytes: usize,
    /// Letters in one mailbox, those that were set aside included.
    pub mailbox_messages: usize,
    /// Bytes of data in one mailbox. A letter that is larger is always refused.
    pub mailbox_bytes: usize,
    /// How long a letter is kept.
    pub mailbox_age: Duration,
    /// How often a letter is sent without being acknowledged before it is set aside; at least once.
    pub attempts: u32,
    /// How long a report is remembered.
    pub memo_age: Duration,
    /// Reports that are remembered at most; the oldest is forgotten first.
    pub memos: usize,
    /// Other servers that may be known, those included of which nothing is known but the address.
    pub peers: usize,
    /// Messages that wait for one other server.
    pub outbox_messages: usize,
    /// Bytes of their data.
    pub outbox_bytes: usize,
    /// How long such a message is kept.
    pub outbox_age: Duration,
    /// How long a message of another server is remembered.
    pub seen_age: Duration,
    /// How many of each other server; the oldest is forgotten first.
    pub seen: usize,
    /// What the ids of all messages of this run of the server begin with. Connections get their numbers anew in each run, so
    /// only letters of this one still know who had asked.
    pub start_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue: 16_384,
            queue_bytes: 64 << 20,
            mailbox_messages: 1000,
            mailbox_bytes: 8 << 20,
            mailbox_age: Duration::from_secs(30 * 24 * 60 * 60),
            attempts: 20,
            memo_age: Duration::from_secs(10 * 60),
            memos: 1_000_000,
            peers: 256,
            outbox_messages: 10_000,
            outbox_bytes: 128 << 20,
            outbox_age: Duration::from_secs(48 * 60 * 60),
            seen_age: Duration::from_secs(72 * 60 * 60),
            seen: 1_000_000,
            start_prefix: String::new(),
        }
    }
}
