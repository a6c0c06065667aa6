//! What a keeper may be told: by the roster, which has its [`Handle`], and by the dispatcher, about one start.

use super::record::Record;
use crate::connection::handler::End;
use crate::dispatcher::run::Minder;
use crate::name::StartId;
use crossbeam_channel::Sender;
use mio::Waker;
use std::sync::Arc;

/// What a keeper may be told.
#[derive(Debug)]
pub(super) enum Order {
    Replace(StartId, String),
    Closed(StartId),
    ReaderEnded(StartId, End),
    Hold,
    Resume,
    Leave,
    Stop,
    StopNow,
}

/// Orders for a keeper, and what it tells of itself. None of it blocks.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) orders: Sender<Order>,
    pub(super) waker: Arc<Waker>,
    pub(super) record: Record,
}

impl Handle {
    /// Start it no more until [`Handle::resume`]: another keeper tries to take its place.
    pub(super) fn hold(&self) {
        self.order(Order::Hold);
    }

    /// That other one has failed.
    pub(super) fn resume(&self) {
        self.order(Order::Resume);
    }

    /// That other one is up: this one ends when it has answered what it was asked.
    pub(super) fn leave(&self) {
        self.order(Order::Leave);
    }

    /// End the handler for good: ask it, then tell it, then kill it.
    pub(super) fn stop(&self) {
        self.order(Order::Stop);
    }

    /// End the handler for good, at once.
    pub(super) fn stop_now(&self) {
        self.order(Order::StopNow);
    }

    /// How it fares.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn order(&self, order: Order) {
        // Were the list ever full, the keeper would be stuck, and nothing more could be asked of it anyway.
        let _ = self.orders.try_send(order);
        let _ = self.waker.wake(); // it fails only if there is no keeper any longer
    }
}

/// One start of a keeper's handler, for the dispatcher.
#[derive(Debug)]
pub(super) struct Minding {
    pub(super) handle: Handle,
    pub(super) start: StartId,
}

impl Minder for Minding {
    fn replace(&self, reason: String) {
        self.handle.order(Order::Replace(self.start, reason));
    }

    fn closed(&self) {
        self.handle.order(Order::Closed(self.start));
    }

    fn retire(&self) {
        self.handle.stop();
    }
}
