//! A type gets another configuration while it runs.

use super::{Handle, Roster, held, route_config};
use crate::config::Handler;
use crate::dispatcher::Event;
use crate::name::TypeName;
use crate::transport::Acceptor;
use log::warn;
use std::sync::Arc;

/// A type has another informer than before.
struct Exchanged {
    /// The one from before, if it listens still: not where the path is the same.
    old: Option<Acceptor>,
}

impl Roster {
    /// Gives a type this configuration: all of it, or, if the new program or informer cannot be started, nothing.
    pub(super) fn change(&self, kind: &TypeName, config: &Handler) -> Result<&'static str, String> {
        let turn = self.turn(kind)?;
        let _turn = held(&turn);
        let now = self.lock().types.get(kind).map(|entry| (entry.route, entry.config.clone(), entry.mixed));
        let Some((route, before, mixed)) = now else { return Err(self.no_such_type(kind)) };
        // What concerns the dispatcher alone needs no other start.
        let same_program = before.runs_as(config) && !mixed;
        if !same_program {
            // Before the new program, which may ask at once.
            let exchanged = self.exchange_informer(kind, &before, config)?;
            if let Err(why) = self.replace_all(kind, config) {
                // An old one goes on, and asks where it always did.
                if let Some(exchanged) = exchanged {
                    self.put_informer_back(kind, &before, exchanged);
                }
                return Err(why);
            }
            if let Some(old) = exchanged.and_then(|exchanged| exchanged.old) {
                old.stop();
            }
        }
        // Those that are too many are retired by the dispatcher if they are up, when they have answered.
        self.tell(Event::RouteChanged(route, route_config(kind, config)));
        let over = {
            let mut state = self.lock();
            let Some(entry) = state.types.get_mut(kind) else { return Err("it was removed meanwhile".into()) };
            entry.config = config.clone();
            entry.voice.is_of(config.instances);
            let kept = config.instances.min(entry.instances.len());
            entry.instances.split_off(kept)
        };
        over.iter().for_each(Handle::leave);
        self.grow(kind).map_err(|failed| failed.to_string())?;
        Ok(if same_program { "changed" } else { "replaced" })
    }

    /// Has a type's informer where, and for whom, `config` wants it.
    fn exchange_informer(&self, kind: &TypeName, before: &Handler, config: &Handler) -> Result<Option<Exchanged>, String> {
        let owner = |handler: &Handler| handler.program.as_ref().map(|program| (program.user.clone(), program.group.clone()));
        let moves = before.informer_socket != config.informer_socket;
        if !moves && owner(before) == owner(config) {
            return Ok(None);
        }
        let now = self.lock().types.get_mut(kind).map(|entry| (entry.route, Arc::clone(&entry.voice), entry.informer.take()));
        let Some((route, voice, mut old)) = now else { return Err(self.no_such_type(kind)) };
        if let Some(old) = old.take_if(|_| !moves) {
            old.stop();
        }
        match self.informer(kind, config, route, &voice) {
            Ok(new) => {
                self.has_informer(kind, Some(new));
                Ok(Some(Exchanged { old }))
            }
            Err(failed) => {
                self.put_informer_back(kind, before, Exchanged { old });
                Err(format!("{failed}; nothing was changed"))
            }
        }
    }

    fn put_informer_back(&self, kind: &TypeName, before: &Handler, exchanged: Exchanged) {
        let now = self.lock().types.get_mut(kind).map(|entry| (entry.route, Arc::clone(&entry.voice), entry.informer.take()));
        let Some((route, voice, new)) = now else { return };
        if let Some(new) = new {
            new.stop();
        }
        let again = || self.informer(kind, before, route, &voice).map_err(|failed| warn!("handler {kind} has no informer: {failed}")).ok();
        self.has_informer(kind, exchanged.old.or_else(again));
    }

    fn has_informer(&self, kind: &TypeName, informer: Option<Acceptor>) {
        if let Some(entry) = self.lock().types.get_mut(kind) {
            entry.informer = informer;
        }
    }
}
