//! One instance of a handler as the dispatcher sees it: the start that can be asked, and what waits for it.

use super::requests::{Request, Waiting};
use crate::config::Framing;
use crate::name::{HandlerId, RequestId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How one start of a handler is talked to. It stays as it was when the program was started, also when the
/// configuration changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Requests are told apart by `inReplyTo`, not by their order.
    pub envelope: bool,
    /// Each request has a connection of its own, so an answer can only belong to that.
    pub per_message: bool,
    /// How frames are told apart.
    pub framing: Framing,
    /// How many requests may be under way.
    pub in_flight: usize,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Form {
    /// Whether nothing but their order tells which request an answer belongs to.
    pub(super) fn tells_by_order(&self) -> bool {
        !self.envelope && !self.per_message
    }

    /// Whether the handler is told what became of its answers, if it asks for that. One that gets plain data would take
    /// it for a message, and one with a connection for each message has none left to be told on.
    pub(super) fn is_told_outcomes(&self) -> bool {
        self.envelope && !self.per_message
    }
}

/// One instance.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The start that can be asked; `None` while it is down.
    pub(super) up: Option<Start>,
    pub(super) down: Down,
    /// Not yet asked, in the order of coming.
    pub(super) waiting: VecDeque<Waiting>,
    /// How many connections have their messages here.
    pub(super) connections: usize,
}

/// Why an instance is down.
#[derive(Debug)]
pub(super) struct Down {
    /// In words for people.
    pub(super) reason: String,
    /// It is not started again unless somebody says so.
    pub(super) for_good: bool,
}

impl Default for Down {
    fn default() -> Down {
        Down { reason: "it has not started yet".into(), for_good: false }
    }
}

/// One start of it.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) id: HandlerId,
    pub(super) form: Form,
    /// Asked and not yet answered, in the order of asking.
    pub(super) under_way: VecDeque<Request>,
    /// When it last answered anything.
    pub(super) answered: Option<Instant>,
}

impl Lane {
    /// How much there is to do.
    pub(super) fn load(&self) -> usize {
        self.waiting.len() + self.up.as_ref().map_or(0, |start| start.under_way.len())
    }

    /// Puts a request that has waited elsewhere behind those that wait here for as long: the queue stays in the order of
    /// its deadlines.
    pub(super) fn wait_in_order(&mut self, waiting: Waiting) {
        let place = self.waiting.partition_point(|other| other.deadline <= waiting.deadline);
        self.waiting.insert(place, waiting);
    }
}

impl Start {
    pub(super) fn new(id: HandlerId, form: Form) -> Start {
        Start { id, form, under_way: VecDeque::new(), answered: None }
    }

    /// Whether it can be asked one thing more.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < self.form.in_flight
    }

    /// Takes out a request, if it is still under way.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Request> {
        // They are numbered in the order of asking; mostly they are answered in it, too.
        if self.under_way.front()?.id == id {
            return self.under_way.pop_front();
        }
        let index = self.under_way.binary_search_by_key(&id, |request| request.id).ok()?;
        self.under_way.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_handler_that_can_tell_it_from_a_message_is_told_of_its_answers() {
        for (envelope, per_message) in [(true, false), (true, true), (false, false), (false, true)] {
            let form = Form { envelope, per_message, framing: Framing::Length, in_flight: 1, timeout: Duration::ZERO };
            assert_eq!(form.is_told_outcomes(), envelope && !per_message, "{envelope} {per_message}");
            assert_eq!(form.tells_by_order(), !envelope && !per_message, "{envelope} {per_message}");
        }
    }
}
