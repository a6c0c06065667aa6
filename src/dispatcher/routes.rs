//! From a message's type to its handler: whether it is up, what it was asked, and what waits for it.

use super::event::Effect;
use super::requests::{Request, Waiting};
use crate::config;
use crate::frame::Packet;
use crate::logging::Quota;
use crate::name::{Generation, RequestId, RouteId, TypeName};
use foldhash::HashMap;
use log::warn;
use std::collections::VecDeque;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// What the dispatcher must know of a handler's configuration.
#[derive(Debug, Clone)]
pub struct RouteConfig {
    /// The type.
    pub kind: TypeName,
    /// Requests are told apart by `inReplyTo`, not by their order.
    pub envelope: bool,
    /// Each request has a connection of its own, so an answer can only belong to that.
    pub per_message: bool,
    /// How frames are told apart.
    pub framing: config::Framing,
    /// How many requests may be under way.
    pub in_flight: usize,
    /// How many requests may wait.
    pub queue: usize,
    /// How long a request may wait.
    pub queue_wait: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// The routing map.
#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
    by_kind: HashMap<TypeName, RouteId>,
}

/// One type and its handler.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: RouteConfig,
    /// Which start of the handler can be asked; `None` while it is down.
    pub(super) up: Option<Generation>,
    /// Why it is down, for people.
    pub(super) down_reason: String,
    /// Asked and not yet answered, in the order of asking; a plain handler answers in this order.
    pub(super) under_way: VecDeque<Request>,
    /// Not yet asked, in the order of coming.
    pub(super) waiting: VecDeque<Waiting>,
    /// When it last answered anything.
    pub(super) answered: Option<Instant>,
    /// Of what the log says about its answers.
    quota: Quota,
}

impl Routes {
    pub(super) fn new(configs: Vec<RouteConfig>) -> Routes {
        let ids = (0..).map(RouteId);
        let by_kind = configs.iter().map(|config| config.kind.clone()).zip(ids).collect();
        let route = |config| Route {
            config,
            up: None,
            down_reason: "it has not started yet".into(),
            under_way: VecDeque::new(),
            waiting: VecDeque::new(),
            answered: None,
            quota: Quota::default(),
        };
        Routes { routes: configs.into_iter().map(route).collect(), by_kind }
    }

    pub(super) fn find(&self, kind: &[u8]) -> Option<RouteId> {
        self.by_kind.get(kind).copied()
    }

    /// The route, which exists: ids come from [`Routes::find`] or number the configuration's handlers.
    pub(super) fn get(&mut self, id: RouteId) -> &mut Route {
        &mut self.routes[id.index()]
    }

    /// The type of a route.
    pub(super) fn kind(&self, id: RouteId) -> &str {
        self.routes[id.index()].config.kind.as_str()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RouteId> + use<> {
        (0..self.routes.len() as u32).map(RouteId)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }
}

impl Route {
    /// Whether the handler can be asked one thing more.
    pub(super) fn has_room(&self) -> bool {
        self.up.is_some() && self.under_way.len() < self.config.in_flight
    }

    /// Says in the log what is wrong with an answer.
    pub(super) fn complain(&mut self, now: Instant, words: impl Display) {
        let Route { quota, config, .. } = self;
        quota.line(now, || words.to_string(), &mut |line| warn!("handler {} {line}", config.kind));
    }

    /// Says how much of that was left out.
    pub(super) fn end_complaints(&mut self) {
        let Route { quota, config, .. } = self;
        quota.end(|line| warn!("handler {} {line}", config.kind));
    }

    /// Whether the handler is told what became of its answers, if it asks for that. One that gets plain data would take
    /// it for a message, and one with a connection for each message has none left to be told on.
    pub(super) fn is_told_outcomes(&self) -> bool {
        self.config.envelope && !self.config.per_message
    }

    /// Tells the handler what became of an answer.
    pub(super) fn tell(&self, id: RouteId, report: Packet, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(id, report.framed_as(self.config.framing)));
    }

    /// Takes out a request that was asked, if it is still under way.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Request> {
        // They were numbered in the order of coming, and asked in that order; mostly they are answered in it, too.
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
            let config = RouteConfig {
                kind: TypeName::new("chat").expect("a type"),
                envelope,
                per_message,
                framing: config::Framing::Length,
                in_flight: 1,
                queue: 1,
                queue_wait: Duration::ZERO,
                timeout: Duration::ZERO,
            };
            let mut routes = Routes::new(vec![config]);
            assert_eq!(routes.get(RouteId(0)).is_told_outcomes(), envelope && !per_message, "{envelope} {per_message}");
        }
    }
}
