//! Nothing waits for ever: answers that are late, and requests that no handler took in time.

use super::Dispatcher;
use super::asking::queue_failure;
use super::event::Effect;
use crate::name::{HandlerId, RouteId};
use crate::protocol::reason::Reason;
use smallvec::SmallVec;
use std::time::Instant;

impl Dispatcher {
    pub(super) fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.next_deadline = None;
        self.feed_in_time(now, effects);
        for route_id in self.routes.ids() {
            let starts: SmallVec<[HandlerId; 4]> = self.routes.get(route_id).starts().map(|start| start.id).collect();
            starts.into_iter().for_each(|id| self.fail_late(now, id, effects));
            self.fail_waiting(now, route_id, effects);
            let route = self.routes.get(route_id);
            // What is under way is in the order of its deadlines; what waits is not, for what is asked again waits in front.
            let waiting = route.lanes.iter().flat_map(|lane| lane.waiting.iter().map(|waiting| waiting.deadline));
            let under_way = route.starts().filter_map(|start| start.under_way.front().map(|request| request.deadline));
            if let Some(deadline) = waiting.chain(under_way).min() {
                self.wake_at(deadline);
            }
        }
    }

    /// Requests that a start of a handler was asked and did not answer in time.
    fn fail_late(&mut self, now: Instant, id: HandlerId, effects: &mut Vec<Effect>) {
        let mut late = false;
        loop {
            let Some(start) = self.routes.get(id.route).start(id) else { return };
            let Some(request) = start.under_way.pop_front_if(|request| request.deadline <= now) else { break };
            late = true;
            let timeout = start.form.timeout;
            // In envelope form a late answer is told from the next one by its id, so that one late request says
            // nothing of the others, unless nothing at all was answered meanwhile.
            let silent = start.answered.is_none_or(|answered| answered + timeout <= request.deadline);
            let trusted = start.form.envelope && !silent;
            if start.form.per_message {
                effects.push(Effect::Abandon(id.start, request.id));
            }
            let reason = format!("did not answer within {} s", timeout.as_secs());
            let message = format!("handler {} {reason}", self.routes.kind(id.route));
            self.request_lost(now, id, request, Reason::HandlerTimeout, message, effects);
            if !trusted {
                return self.replace(now, id, &reason, effects);
            }
        }
        if late {
            self.answered_one(now, id, effects);
        }
    }

    /// Requests that waited for a handler for too long.
    fn fail_waiting(&mut self, now: Instant, route_id: RouteId, effects: &mut Vec<Effect>) {
        for place in 0..self.routes.get(route_id).lanes.len() {
            loop {
                let route = self.routes.get(route_id);
                let waiting = &mut route.lanes[place].waiting;
                let late = waiting.iter().position(|waiting| waiting.deadline <= now);
                let Some(waiting) = late.and_then(|late| waiting.remove(late)) else { break };
                let words = format!("it had no room for {} s", route.config.queue_wait.as_secs());
                let failure = queue_failure(route, &words);
                self.request_failed(route_id, waiting.message, failure, effects);
            }
        }
    }

    pub(super) fn wake_at(&mut self, deadline: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
    }
}
