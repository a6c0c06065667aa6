//! What differs between two configurations, by key.

use super::handlers::informers_beside;
use super::limits::TABLE;
use super::{Config, Handler};
use crate::name::TypeName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The keys that differ and only take effect when the server is started again: all but the handlers.
pub fn fixed_changes(old: &Config, new: &Config) -> Vec<String> {
    let limits = TABLE.iter().filter(|limit| limit.value(&old.limits) != limit.value(&new.limits));
    let limits = limits.map(|limit| format!("limits.{}", limit.key));
    let rooms: BTreeSet<&String> = old.log.keys().chain(new.log.keys()).collect();
    let rooms = rooms.into_iter().filter(|room| old.log.get(*room) != new.log.get(*room)).map(|room| format!("log.{room}"));
    let others = [
        ("server.name", old.server.name != new.server.name),
        ("server.stateDirectory", old.server.state_directory != new.server.state_directory),
        ("network.tcp4", old.network.tcp4 != new.network.tcp4),
        ("network.tcp6", old.network.tcp6 != new.network.tcp6),
        ("network.unix", old.network.unix != new.network.unix),
        ("network.tls", old.network.tls != new.network.tls),
        ("database", old.database != new.database),
        ("accounts", old.accounts != new.accounts),
        ("federation", old.federation != new.federation),
        ("admin.info", old.admin_info != new.admin_info),
    ];
    let others = others.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned());
    others.chain(limits).chain(rooms).collect()
}

/// The types whose handlers differ, and what a reload would do about each.
pub fn handler_changes(old: &BTreeMap<TypeName, Handler>, new: &BTreeMap<TypeName, Handler>) -> Vec<(TypeName, &'static str)> {
    let kinds: BTreeSet<&TypeName> = old.keys().chain(new.keys()).collect();
    let change = |kind: &TypeName| match (old.get(kind), new.get(kind)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) if old.runs_as(new) => Some("would be changed"),
        (Some(_), Some(_)) => Some("would be replaced"),
        (Some(_), None) => Some("would be removed"),
        (None, _) => Some("would be added"),
    };
    kinds.into_iter().filter_map(|kind| Some((kind.clone(), change(kind)?))).collect()
}

/// Has the informers of `new` stay where those of `old` are, in or beside the state directory: a running server keeps the one
/// that it was started with, whatever the file says by now.
pub fn keep_state_directory(old: &Config, new: &mut Config) {
    let (to, from) = (&old.server.state_directory, &new.server.state_directory);
    for handler in new.handlers.values_mut() {
        let (from, to) = match &handler.informer_directory {
            Some(beside) => (beside.clone(), informers_beside(to)),
            None => (from.clone(), Some(to.clone())),
        };
        let name = handler.informer_socket.strip_prefix(&from).map(Path::to_owned);
        if let (Ok(name), Some(to)) = (name, to) {
            handler.informer_socket = to.join(name);
            handler.informer_directory = handler.informer_directory.as_ref().map(|_| to);
        }
    }
}

impl Handler {
    /// Whether a program that was started with this configuration need not be started again for that one: what differs
    /// concerns only how messages wait for it, how many of it there are, whether its file is watched, and what is done with
    /// its answers or without them.
    pub fn runs_as(&self, other: &Handler) -> bool {
        let Handler { instances, queue, queue_wait, watch, offline, federated, idempotent, .. } = *other;
        Handler { instances, queue, queue_wait, watch, offline, federated, idempotent, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_text(text, Path::new("/etc/bester/bester.conf")).expect("a good configuration")
    }

    #[test]
    fn each_key_that_differs_is_named() {
        let old = config(
            r#"{"network": {"tcp4": {"port": 0}}, "handlers": {"typeMap": {
            "a": {"handlerBinary": "/bin/a"}, "b": {"handlerBinary": "/bin/b"}, "c": {"handlerBinary": "/bin/c"}}}}"#,
        );
        assert!(fixed_changes(&old, &old).is_empty() && handler_changes(&old.handlers, &old.handlers).is_empty());
        let new = config(
            r#"{"server": {"name": "x"}, "network": {"tcp6": {"port": 0}}, "limits": {"depth": 7}, "log": {"store": "warn"},
            "accounts": {"passwordMinimum": 9}, "admin": {"info": {"x": 1}}, "database": {"type": "sqlite", "path": "d"},
            "handlers": {"typeMap": {
                "a": {"handlerBinary": "/bin/a", "queue": 9}, "b": {"handlerBinary": "/bin/b", "inFlight": 2}, "d": {"handlerBinary": "/bin/d"}}}}"#,
        );
        let changes = fixed_changes(&old, &new);
        let expected = ["server.name", "network.tcp4", "network.tcp6", "database", "accounts", "admin.info", "limits.depth", "log.store"];
        assert_eq!(changes, expected);
        let changes: Vec<_> =
            handler_changes(&old.handlers, &new.handlers).into_iter().map(|(kind, done)| format!("{kind} {done}")).collect();
        assert_eq!(changes, ["a would be changed", "b would be replaced", "c would be removed", "d would be added"]);
    }

    #[test]
    fn what_is_done_with_answers_needs_no_other_program() {
        let handlers = |more: &str| {
            let text = format!(
                r#"{{"network": {{"tcp4": {{"port": 0}}}}, "handlers": {{"typeMap": {{"a": {{"handlerBinary": "/bin/a"{more}}}}}}}}}"#
            );
            config(&text).handlers
        };
        for more in [r#", "offline": "queue""#, r#", "idempotent": true"#, r#", "watch": true"#] {
            let changes = handler_changes(&handlers(""), &handlers(more));
            assert_eq!(changes.iter().map(|(_, done)| *done).collect::<Vec<_>>(), ["would be changed"], "{more}");
        }
    }

    #[test]
    fn another_state_directory_moves_no_informer_of_a_running_server() {
        let at = |state: &str| {
            config(&format!(
                r#"{{"server": {{"stateDirectory": "{state}"}}, "network": {{"tcp4": {{"port": 0}}}}, "handlers": {{"typeMap": {{
                "a": {{"handlerBinary": "/bin/a"}}, "b": {{"handlerBinary": "/bin/b", "user": "nobody"}},
                "c": {{"handlerBinary": "/bin/c", "informerSocketPath": "/run/c"}}}}}}}}"#
            ))
        };
        let (old, mut new) = (at("one"), at("two"));
        assert_ne!(old.handlers, new.handlers);
        keep_state_directory(&old, &mut new);
        assert_eq!(old.handlers, new.handlers);
        assert_eq!(fixed_changes(&old, &new), ["server.stateDirectory", "database"], "that it is another is still told");
    }
}
