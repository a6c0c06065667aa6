//! Reading the configuration again while the server runs: all of it is right, or nothing of it is applied.

use crate::config::{self, Config};
use crate::handler::roster::Roster;
use crate::tls::{self, Turn};
use log::{info, warn};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// What the server was started with. The handlers have changed since; the roster knows what is in force.
#[derive(Debug)]
pub struct Reload {
    started: Mutex<Config>,
    /// Who we are on `network.tls`.
    identity: Option<Arc<tls::Shared>>,
}

impl Reload {
    /// For a server that was started with this, and with `identity` on `network.tls`.
    pub fn new(config: Config, identity: Option<Arc<tls::Shared>>) -> Reload {
        Reload { started: Mutex::new(config), identity }
    }

    /// Reads the file again and applies what changed. Gives each key that changed, in the order of the file's blocks,
    /// and what was done about it.
    ///
    /// # Errors
    /// The file, or what it names (certificate and key too), has mistakes: all of them, and nothing is changed.
    pub fn reload(&self, roster: &Roster) -> Result<Value, String> {
        // One at a time, also while handlers are replaced.
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let next = read(&started).inspect_err(|mistakes| warn!("the configuration is not reloaded: {mistakes}"))?;
        // Before anything is applied, for it may be of no use.
        let turn = self.identity.as_ref().map_or(Ok(Turn::Same), |identity| identity.reload());
        let turn = turn.map_err(|why| why.to_string()).inspect_err(|why| warn!("the configuration is not reloaded: {why}"))?;
        let mut changes: Vec<Value> = Vec::new();
        if turn == Turn::Changed {
            changes.push(change("network.tls", "certificate and key read again"));
        }
        for key in config::fixed_changes(&started, &next) {
            changes.push(change(&key, "needs a restart of the server"));
        }
        for (kind, done) in roster.apply(&next.handlers) {
            let done = done.map_or_else(|why| format!("failed: {why}"), str::to_owned);
            changes.push(change(&format!("handlers.typeMap.{kind}"), &done));
        }
        for change in &changes {
            info!("reloaded: {}: {}", change["key"].as_str().unwrap_or(""), change["done"].as_str().unwrap_or(""));
        }
        info!("the configuration is reloaded; {} changes", changes.len());
        Ok(Value::Array(changes))
    }

    /// Reads the file and gives what a reload would do.
    ///
    /// # Errors
    /// As of [`Reload::reload`].
    pub fn dry_run(&self, roster: &Roster) -> Result<Value, String> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let next = read(&started)?;
        let fixed = config::fixed_changes(&started, &next);
        let fixed = fixed.iter().map(|key| change(key, "would need a restart of the server"));
        let identity = self.identity.iter().filter(|identity| identity.has_changed());
        let identity = identity.map(|_| change("network.tls", "certificate and key would be read again"));
        let handlers = config::handler_changes(&roster.configured(), &next.handlers);
        let handlers = handlers.iter().map(|(kind, done)| change(&format!("handlers.typeMap.{kind}"), done));
        Ok(identity.chain(fixed).chain(handlers).collect())
    }
}

fn change(key: &str, done: &str) -> Value {
    json!({ "key": key, "done": done })
}

fn read(started: &Config) -> Result<Config, String> {
    let mut next = Config::load(&started.file).map_err(|mistakes| mistakes.to_string())?;
    let problems = config::problems(&next);
    if problems.is_empty() {
        config::keep_state_directory(started, &mut next);
        return Ok(next);
    }
    Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
