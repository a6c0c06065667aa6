//! From a message's type to its handler. A type has one or several instances of its handler; each has a lane here: which
//! start of it can be asked, and what waits for it. The messages of a connection stay in one lane, so that they are
//! handled in order.

use super::lane::{Lane, Start};
use super::requests::{MessageKey, Waiting};
use crate::logging::Quota;
use crate::name::{ConnId, HandlerId, RouteId, TypeName};
use crate::protocol::handler::Offline;
use foldhash::{HashMap, HashSet};
use log::warn;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// What the dispatcher must know of a type, whichever start of its handler answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// The type.
    pub kind: TypeName,
    /// How many instances of its handler there are; at least one.
    pub instances: usize,
    /// How many requests may wait.
    pub queue: usize,
    /// How long a request may wait.
    pub queue_wait: Duration,
    /// Whether what it sends to users who are away waits for them, unless an answer says otherwise.
    pub offline: Offline,
    /// Whether messages of other servers reach it.
    pub federated: bool,
    /// Whether a request that got no answer may be asked once more.
    pub idempotent: bool,
}

/// The routing map.
#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: Vec<Route>,
    by_kind: HashMap<TypeName, RouteId>,
}

/// One type and its handler.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: RouteConfig,
    pub(super) lanes: Vec<Lane>,
    /// Starts that another has taken the place of: they get nothing more, and end once they have answered.
    pub(super) leaving: Vec<Start>,
    /// Which lane the messages of a connection take, where there are several.
    lane_of: HashMap<ConnId, usize>,
    /// Messages that its handler was asked, and those that it did not answer well.
    pub(super) asked: u64,
    pub(super) failed: u64,
    /// Of what the log says about its answers.
    quota: Quota,
}

impl Routes {
    pub(super) fn new(configs: Vec<RouteConfig>) -> Routes {
        let mut routes = Routes::default();
        for (config, id) in configs.into_iter().zip((0..).map(RouteId)) {
            routes.add(id, config);
        }
        routes
    }

    /// A new type. Its id is the next one.
    pub(super) fn add(&mut self, id: RouteId, config: RouteConfig) {
        debug_assert_eq!(id.index(), self.routes.len());
        self.by_kind.insert(config.kind.clone(), id);
        self.routes.push(Route::new(config));
    }

    /// A type that is there (again) has this configuration.
    pub(super) fn name(&mut self, id: RouteId, kind: TypeName) {
        self.by_kind.insert(kind, id);
    }

    /// Nobody finds this type from now on.
    pub(super) fn unname(&mut self, id: RouteId) {
        self.by_kind.retain(|_, named| *named != id);
    }

    pub(super) fn find(&self, kind: &[u8]) -> Option<RouteId> {
        self.by_kind.get(kind).copied()
    }

    /// The route, which exists: ids come from [`Routes::find`] or number the configuration's handlers.
    pub(super) fn get(&mut self, id: RouteId) -> &mut Route {
        &mut self.routes[id.index()]
    }

    /// Whether there is, or was, such a type.
    pub(super) fn knows(&self, id: RouteId) -> bool {
        id.index() < self.routes.len()
    }

    /// Whether there is such a type now.
    pub(super) fn is_named(&self, id: RouteId) -> bool {
        self.find(self.kind(id).as_bytes()) == Some(id)
    }

    /// The type of a route.
    pub(super) fn kind(&self, id: RouteId) -> &str {
        self.routes[id.index()].config.kind.as_str()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RouteId> + use<> {
        (0..self.routes.len() as u32).map(RouteId)
    }

    /// The types that there are now.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.by_kind.values().map(|id| &self.routes[id.index()])
    }

    /// All that there are or were.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.routes.iter_mut().filter(|route| !route.lane_of.is_empty()).for_each(|route| route.leave_lane(conn));
    }
}

impl Route {
    fn new(config: RouteConfig) -> Route {
        Route {
            lanes: (0..config.instances).map(|_| Lane::default()).collect(),
            config,
            leaving: Vec::new(),
            lane_of: HashMap::default(),
            asked: 0,
            failed: 0,
            quota: Quota::default(),
        }
    }

    /// The lane for the next message of this connection: the one that its earlier messages took, or else the one in
    /// which the least is under way. One whose handler is down is for those only who find no other.
    pub(super) fn lane_for(&mut self, conn: Option<ConnId>) -> usize {
        if self.lanes.len() == 1 {
            return 0;
        }
        let some_up = self.is_up();
        let usable = |lane: &Lane| lane.up.is_some() || !some_up;
        if let Some(own) = conn.and_then(|conn| self.lane_of.get(&conn).copied()).filter(|own| usable(&self.lanes[*own])) {
            return own;
        }
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| usable(lane));
        let least = lanes.min_by_key(|(_, lane)| (lane.load(), lane.connections)).map_or(0, |(place, _)| place);
        if let Some(conn) = conn {
            self.leave_lane(conn);
            self.lane_of.insert(conn, least);
            self.lanes[least].connections += 1;
        }
        least
    }

    fn leave_lane(&mut self, conn: ConnId) {
        if let Some(lane) = self.lane_of.remove(&conn).and_then(|lane| self.lanes.get_mut(lane)) {
            lane.connections -= 1;
        }
    }

    /// Whether any instance can be asked.
    pub(super) fn is_up(&self) -> bool {
        self.lanes.iter().any(|lane| lane.up.is_some())
    }

    /// Whether no instance can be asked, nor will be by itself.
    pub(super) fn is_broken(&self) -> bool {
        self.lanes.iter().all(|lane| lane.up.is_none() && lane.down.for_good)
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Why it is down, of the first instance that is.
    pub(super) fn down_reason(&self) -> &str {
        self.lanes.iter().find(|lane| lane.up.is_none()).map_or("", |lane| &lane.down.reason)
    }

    /// Whether this instance can be asked the next thing at once: it has room, and takes the place of nobody.
    pub(super) fn is_free(&self, place: usize) -> bool {
        let up = self.lanes.get(place).and_then(|lane| lane.up.as_ref());
        up.is_some_and(Start::has_room) && self.leaving.is_empty()
    }

    /// Which of the requests that wait for this instance is to be handed over next, if it can be asked. While the start
    /// before still answers, its connections wait: otherwise a message could overtake the one before it. `conn_of` tells
    /// whose message it is.
    pub(super) fn next(&self, place: usize, conn_of: impl Fn(MessageKey) -> Option<ConnId>) -> Option<usize> {
        let lane = self.lanes.get(place)?;
        if !lane.up.as_ref()?.has_room() || lane.waiting.is_empty() {
            return None;
        }
        let before = self.leaving.iter().filter(|start| start.id.place() == place);
        let busy: HashSet<ConnId> = before.flat_map(|start| &start.under_way).filter_map(|request| conn_of(request.message)).collect();
        let waits = |waiting: &Waiting| !busy.is_empty() && conn_of(waiting.message).is_some_and(|conn| busy.contains(&conn));
        lane.waiting.iter().position(|waiting| !waits(waiting))
    }

    /// A start that can be asked, or that still answers.
    pub(super) fn start(&mut self, id: HandlerId) -> Option<&mut Start> {
        let up = self.lanes.get_mut(id.place()).and_then(|lane| lane.up.as_mut());
        match up {
            Some(start) if start.id == id => Some(start),
            _ => self.leaving.iter_mut().find(|start| start.id == id),
        }
    }

    /// The same, and it is gone.
    pub(super) fn take_start(&mut self, id: HandlerId) -> Option<Start> {
        let up = self.lanes.get_mut(id.place()).and_then(|lane| lane.up.take_if(|start| start.id == id));
        up.or_else(|| self.leaving.iter().position(|start| start.id == id).map(|place| self.leaving.swap_remove(place)))
    }

    /// All starts that can be asked or still answer.
    pub(super) fn starts(&self) -> impl Iterator<Item = &Start> {
        self.lanes.iter().filter_map(|lane| lane.up.as_ref()).chain(&self.leaving)
    }

    /// The start in this lane leaves, if there is one. Whether it can end at once.
    pub(super) fn leaves(&mut self, place: usize) -> Option<(HandlerId, bool)> {
        let start = self.lanes.get_mut(place)?.up.take()?;
        let (id, idle) = (start.id, start.under_way.is_empty());
        self.leaving.push(start);
        Some((id, idle))
    }

    /// What waits for an instance that is down goes to those that are up, if there are any. `conn_of` tells whose it is.
    pub(super) fn spread(&mut self, conn_of: impl Fn(&Waiting) -> Option<ConnId>) {
        if self.lanes.len() == 1 || !self.is_up() {
            return;
        }
        for place in 0..self.lanes.len() {
            if self.lanes[place].up.is_some() {
                continue;
            }
            for waiting in std::mem::take(&mut self.lanes[place].waiting) {
                let lane = self.lane_for(conn_of(&waiting));
                self.lanes[lane].wait_in_order(waiting);
            }
        }
    }

    /// There are so many lanes from now on. Gives what waits in those that are no longer there; their starts have left.
    pub(super) fn resize(&mut self, lanes: usize) -> Vec<Waiting> {
        let gone = self.lanes.split_off(lanes.min(self.lanes.len()));
        self.lane_of.retain(|_, lane| *lane < lanes);
        self.lanes.resize_with(lanes, Lane::default);
        gone.into_iter().flat_map(|lane| lane.waiting).collect()
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
}
