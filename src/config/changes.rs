//! What differs between two configurations, by key.

use super::limits::TABLE;
use super::{Config, Handler};
use crate::name::TypeName;
use std::collections::{BTreeMap, BTreeSet};

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
        ("database", old.database != new.database),
        ("accounts", old.accounts != new.accounts),
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

impl Handler {
    /// Whether a program that was started with this configuration need not be started again for that one: what differs
    /// concerns only how messages wait for it, how many of it there are, and whether its file is watched.
    pub fn runs_as(&self, other: &Handler) -> bool {
        let Handler { instances, queue, queue_wait, watch, .. } = *other;
        Handler { instances, queue, queue_wait, watch, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
            "accounts": {"passwordMinimum": 9}, "admin": {"info": 1}, "database": {"type": "sqlite", "path": "d"},
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
}
