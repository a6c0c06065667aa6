//! Handlers come and go: starts that can be asked, that take the place of others, that die; types that the
//! configuration adds, changes and removes.

use super::Dispatcher;
use super::asking::not_running;
use super::event::Effect;
use super::lane::{Down, Form, Start};
use super::requests::{Failure, Waiting};
use super::routes::{Route, RouteConfig};
use crate::name::{HandlerId, RouteId};
use crate::protocol::reason::Reason;
use log::info;
use std::time::Instant;

impl Dispatcher {
    pub(super) fn handler_up(&mut self, now: Instant, id: HandlerId, form: Form, effects: &mut Vec<Effect>) {
        if !self.routes.knows(id.route) {
            return effects.push(Effect::Retire(id.start));
        }
        let is_wanted = self.routes.is_named(id.route);
        let route = self.routes.get(id.route);
        if !is_wanted || id.place() >= route.lanes.len() {
            // The configuration has changed while it was being started.
            route.leaving.push(Start::new(id, form));
            return effects.push(Effect::Retire(id.start));
        }
        info!("{} is up", name(route, id.instance));
        // Whoever starts handlers says when one has ended: one that is still here is being replaced.
        retire(route.leaves(id.place()), effects);
        route.lanes[id.place()].up = Some(Start::new(id, form));
        self.pump_all(now, id.route, effects);
    }

    pub(super) fn handler_down(&mut self, now: Instant, id: HandlerId, reason: &str, for_good: Option<&str>, effects: &mut Vec<Effect>) {
        if !self.routes.knows(id.route) {
            return;
        }
        let route = self.routes.get(id.route);
        let was_leaving = route.leaving.iter().any(|start| start.id == id);
        let start = route.take_start(id);
        if let Some(lane) = route.lanes.get_mut(id.place()).filter(|lane| lane.up.is_none() && !was_leaving) {
            lane.down = Down { reason: for_good.unwrap_or(reason).to_owned(), for_good: for_good.is_some() };
        }
        if let Some(start) = start {
            route.end_complaints();
            let message = format!("handler {} {reason}", route.config.kind);
            effects.push(Effect::Detach(id.start));
            for request in start.under_way {
                self.request_lost(now, id, request, Reason::HandlerCrashed, message.clone(), effects);
            }
        }
        self.pump_all(now, id.route, effects);
    }

    /// A start of a handler that can no longer be trusted with answers: what it was asked comes to nothing.
    pub(super) fn replace(&mut self, now: Instant, id: HandlerId, reason: &str, effects: &mut Vec<Effect>) {
        effects.push(Effect::Replace(id.start, reason.to_owned()));
        self.handler_down(now, id, reason, None, effects);
    }

    pub(super) fn route_changed(&mut self, now: Instant, id: RouteId, config: RouteConfig, effects: &mut Vec<Effect>) {
        if !self.routes.knows(id) {
            return self.routes.add(id, config);
        }
        let is_back = !self.routes.is_named(id);
        self.routes.name(id, config.kind.clone());
        let route = self.routes.get(id);
        if is_back {
            route.lanes.iter_mut().for_each(|lane| lane.down = Down::default());
        }
        for place in config.instances..route.lanes.len() {
            retire(route.leaves(place), effects);
        }
        let over = route.resize(config.instances);
        route.config = config;
        for waiting in over {
            let conn = self.messages.conn(waiting.message).filter(|conn| self.sessions.contains_key(conn));
            let route = self.routes.get(id);
            let place = route.lane_for(conn);
            route.lanes[place].wait_in_order(waiting);
        }
        self.pump_all(now, id, effects);
    }

    pub(super) fn route_removed(&mut self, id: RouteId, effects: &mut Vec<Effect>) {
        if !self.routes.knows(id) {
            return;
        }
        self.routes.unname(id);
        let route = self.routes.get(id);
        for place in 0..route.lanes.len() {
            retire(route.leaves(place), effects);
            route.lanes[place].down = Down { reason: "it is no longer configured".into(), for_good: true };
        }
        self.fail_all_waiting(id, effects);
    }

    /// The server does not wait for any handler any longer: what is under way gets its report.
    pub(super) fn give_up_all(&mut self, effects: &mut Vec<Effect>) {
        for route_id in self.routes.ids() {
            let route = self.routes.get(route_id);
            let message = format!("this server stopped before handler {} had answered", route.config.kind);
            let up = route.lanes.iter_mut().filter_map(|lane| lane.up.as_mut());
            let asked = up.chain(&mut route.leaving).flat_map(|start| std::mem::take(&mut start.under_way)).map(|request| request.message);
            let mut open: Vec<_> = asked.collect();
            let waiting = route.lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.waiting));
            open.extend(waiting.map(|waiting| waiting.message));
            for key in open {
                self.request_failed(route_id, key, Failure::Reason(Reason::Draining, message.clone()), effects);
            }
        }
    }

    /// Hands over all that can be: what waits goes to those that are up, and comes to nothing if there will be none.
    fn pump_all(&mut self, now: Instant, id: RouteId, effects: &mut Vec<Effect>) {
        let Dispatcher { routes, messages, sessions, .. } = self;
        let route = routes.get(id);
        // One that is gone gets no place: it would keep it for ever.
        route.spread(|waiting: &Waiting| messages.conn(waiting.message).filter(|conn| sessions.contains_key(conn)));
        if route.is_broken() {
            return self.fail_all_waiting(id, effects);
        }
        for place in 0..route.lanes.len() {
            self.pump(now, id, place, effects);
        }
    }

    fn fail_all_waiting(&mut self, id: RouteId, effects: &mut Vec<Effect>) {
        let route = self.routes.get(id);
        let failure = not_running(route);
        let waiting: Vec<Waiting> = route.lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.waiting)).collect();
        for waiting in waiting {
            self.request_failed(id, waiting.message, failure.clone(), effects);
        }
    }
}

/// Of a start that leaves, and whether it has answered everything already.
fn retire(left: Option<(HandlerId, bool)>, effects: &mut Vec<Effect>) {
    if let Some((id, true)) = left {
        effects.push(Effect::Retire(id.start));
    }
}

/// How the log calls an instance.
fn name(route: &Route, instance: u32) -> String {
    match route.lanes.len() {
        1 => format!("handler {}", route.config.kind),
        _ => format!("handler {} (instance {instance})", route.config.kind),
    }
}
