//! Configurations against a directory of their own.

use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;

/// A directory and the keys of a configuration in it.
struct World {
    directory: tempfile::TempDir,
    blocks: BTreeMap<&'static str, &'static str>,
}

impl World {
    /// A sound configuration: an empty directory, one listener, one handler.
    fn new() -> World {
        let blocks = [
            ("network", r#"{"tcp4": {"port": 1}, "unix": {"address": "bester-state/s"}}"#),
            ("handlers", r#"{"typeMap": {"a": {"handlerBinary": "/bin/cat"}}}"#),
        ];
        World { directory: tempfile::tempdir().unwrap(), blocks: BTreeMap::from(blocks) }
    }

    fn with(mut self, block: &'static str, value: &'static str) -> World {
        self.blocks.insert(block, value);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn directory(self, name: &str, mode: u32) -> World {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        self
    }

    fn file(self, name: &str, mode: u32, content: &str) -> World {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        self
    }

    fn problems(&self) -> Vec<Problem> {
        problems(&self.config())
    }

    /// What is wrong for a server that runs as this user and group.
    fn problems_for(&self, uid: u32, gid: u32) -> Vec<String> {
        super::super::check::problems_for(&self.config(), (uid, gid)).iter().map(|p| format!("{} {p}", p.exit_code())).collect()
    }

    fn config(&self) -> Config {
        let blocks: Vec<_> = self.blocks.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        let text = format!("{{{}}}", blocks.join(", "));
        let config = Config::from_text(&text, &self.path("bester.conf")).unwrap_or_else(|m| panic!("{m}"));
        assert_eq!(config.limits, Limits::default());
        config
    }

    /// The one problem is this, about `subject` in the directory.
    #[track_caller]
    fn has(&self, key: &str, subject: &str, flaw: Flaw, code: u8) {
        let found = self.problems();
        let subject = self.path(subject).display().to_string();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].key, &found[0].subject, &found[0].flaw), (key, &subject, &flaw));
        assert_eq!(exit_code(&found), Some(code));
        assert!(!found[0].remedy.is_empty());
    }

    #[track_caller]
    fn is_sound(&self) {
        assert_eq!(self.problems(), []);
    }
}

const BINARY: &str = "handlers.typeMap.a.handlerBinary";
const STATE: &str = "server.stateDirectory";

#[test]
fn sound_configuration_has_no_problems_and_nothing_is_made() {
    let world = World::new();
    world.is_sound();
    assert_eq!(fs::read_dir(world.directory.path()).unwrap().count(), 0);
    assert_eq!(exit_code(&[]), None);
}

#[test]
fn handler_program_must_be_there_and_run() {
    let world = || World::new().with("handlers", r#"{"typeMap": {"a": {"handlerBinary": "./prog"}}}"#);
    world().has(BINARY, "prog", Flaw::Missing, 69);
    world().directory("prog", 0o755).has(BINARY, "prog", Flaw::NotA("a program"), 78);
    world().file("prog", 0o644, "").has(BINARY, "prog", Flaw::NotExecutable, 77);
    world().file("prog", 0o755, "").is_sound();
    for (head, missing) in [
        ("#!/bin/sh", None),
        ("#!/bin/sh -e\n", None),
        ("#! /nowhere/python -u\nx", Some("/nowhere/python")),
        ("#!/usr/bin/env sh\n", None),
        ("#!/usr/bin/env -S sh -e\n", None),
        ("#!/usr/bin/env no-such-interpreter\n", Some("no-such-interpreter")),
        ("#!/usr/bin/env A=b no-such-interpreter\n", None), // not understood, so not judged
        ("#!\n", None),
        ("no script", None),
    ] {
        let world = world().file("prog", 0o755, head);
        match missing {
            None => world.is_sound(),
            Some(name) => world.has(BINARY, "prog", Flaw::NoInterpreter(name.to_owned()), 69),
        }
    }
}

#[test]
fn working_directory_must_be_there() {
    const KEY: &str = "handlers.typeMap.a.workingDirectory";
    let block = r#"{"typeMap": {"a": {"handlerBinary": "/bin/cat", "workingDirectory": "work"}}}"#;
    let world = || World::new().with("handlers", block);
    world().has(KEY, "work", Flaw::Missing, 69);
    world().file("work", 0o644, "").has(KEY, "work", Flaw::NotA("a directory"), 78);
    world().directory("work", 0o755).is_sound();
}

#[test]
fn state_directory_is_private_or_can_be_made() {
    World::new().directory("bester-state", 0o700).is_sound();
    World::new().directory("bester-state", 0o750).has(STATE, "bester-state", Flaw::OpenToOthers(0o750), 77);
    World::new().directory("bester-state", 0o701).has(STATE, "bester-state", Flaw::OpenToOthers(0o701), 77);
    let state = |path| World::new().with("server", path).with("network", r#"{"tcp4": {"port": 1}}"#);
    state(r#"{"stateDirectory": "a/b/c"}"#).is_sound();
    let world = state(r#"{"stateDirectory": "file"}"#).file("file", 0o600, "");
    world.has(STATE, "file", Flaw::NotA("a directory"), 78);
    let world = state(r#"{"stateDirectory": "file/state"}"#).file("file", 0o600, "");
    world.has(STATE, "file", Flaw::NotA("a directory"), 78);
}

#[test]
fn database_is_private_and_a_file() {
    const KEY: &str = "database.path";
    let world = || World::new().with("database", r#"{"path": "db/accounts.db"}"#);
    world().has(KEY, "db", Flaw::Missing, 69);
    let world = || World::new().with("database", r#"{"path": "db/accounts.db"}"#).directory("db", 0o755);
    world().is_sound();
    world().file("db/accounts.db", 0o600, "").is_sound();
    world().file("db/accounts.db", 0o640, "").has(KEY, "db/accounts.db", Flaw::OpenToOthers(0o640), 77);
    world().directory("db/accounts.db", 0o700).has(KEY, "db/accounts.db", Flaw::NotA("an ordinary file"), 78);
}

#[test]
fn what_belongs_to_others_is_refused() {
    let ours = rustix::process::geteuid().as_raw();
    if ours == 0 {
        let world = World::new().directory("bester-state", 0o700).file("bester-state/bester.db", 0o600, "");
        chown(world.path("bester-state"), Some(12345), None).unwrap();
        world.has(STATE, "bester-state", Flaw::Owner { owner: 12345, ours }, 77);
        chown(world.path("bester-state"), Some(0), None).unwrap();
        chown(world.path("bester-state/bester.db"), Some(12345), None).unwrap();
        world.has("database.path", "bester-state/bester.db", Flaw::Owner { owner: 12345, ours }, 77);
    } else {
        let found = World::new().with("database", r#"{"path": "/etc/passwd"}"#).problems();
        assert!(found.iter().any(|p| p.flaw == Flaw::Owner { owner: 0, ours }), "{found:?}");
        // Root may write anywhere, so only others can see this.
        let found = World::new().directory(".", 0o500).problems();
        assert!(found.iter().any(|p| p.key == STATE && p.flaw == Flaw::NotWritable), "{found:?}");
    }
}

#[test]
fn token_is_a_secret() {
    const KEY: &str = "accounts.token";
    let world = || World::new().with("accounts", r#"{"registration": "token", "token": "token"}"#);
    world().has(KEY, "token", Flaw::Missing, 69);
    world().file("token", 0o600, "t").is_sound();
    world().file("token", 0o640, "t").is_sound();
    world().file("token", 0o644, "t").has(KEY, "token", Flaw::OpenToOthers(0o644), 77);
    world().file("token", 0o660, "t").has(KEY, "token", Flaw::OpenToOthers(0o660), 77);
    world().file("token", 0o600, "").has(KEY, "token", Flaw::Empty, 78);
    world().directory("token", 0o700).has(KEY, "token", Flaw::NotA("an ordinary file"), 78);
}

#[test]
fn sockets_have_a_place() {
    const KEY: &str = "network.unix.address";
    let world = || World::new().with("network", r#"{"unix": {"address": "run/s"}}"#);
    world().has(KEY, "run", Flaw::Missing, 69);
    world().file("run", 0o600, "").has(KEY, "run", Flaw::NotA("a directory"), 78);
    let world = || World::new().with("network", r#"{"unix": {"address": "run/s"}}"#).directory("run", 0o755);
    world().is_sound();
    world().file("run/s", 0o600, "").has(KEY, "run/s", Flaw::InTheWay, 78);
    let stale = world();
    UnixListener::bind(stale.path("run/s")).unwrap();
    stale.is_sound();
    let link = world();
    symlink("nowhere", link.path("run/s")).unwrap();
    link.has(KEY, "run/s", Flaw::InTheWay, 78);

    let handler = |entry| World::new().with("handlers", entry);
    let world = handler(r#"{"typeMap": {"a": {"handlerBinary": "/bin/cat", "unixDomainSocketPath": "run/s"}}}"#);
    world.has("handlers.typeMap.a.unixDomainSocketPath", "run", Flaw::Missing, 69);
    handler(r#"{"typeMap": {"a": {"unixDomainSocketPath": "run/s"}}}"#).is_sound();
    let world = handler(r#"{"typeMap": {"a": {"handlerBinary": "/bin/cat", "informerSocketPath": "run/s"}}}"#);
    world.has("handlers.typeMap.a.informerSocketPath", "run", Flaw::Missing, 69);
}

#[test]
fn addresses_are_of_this_machine() {
    // An address that is set aside for examples.
    let world = World::new().with("network", r#"{"tcp4": {"address": "192.0.2.1", "port": 1}}"#);
    let found = world.problems();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        found[0].to_string(),
        "network.tcp4.address: 192.0.2.1 is not an address of this machine; \
         correct it, or leave tcp4 out of network.types"
    );
    assert_eq!(exit_code(&found), Some(69));
}

#[test]
fn several_problems_have_one_exit_code() {
    let world = World::new().with("handlers", r#"{"typeMap": {"a": {"handlerBinary": "/no/program"}}}"#).directory("bester-state", 0o755);
    let codes: Vec<_> = world.problems().iter().map(Problem::exit_code).collect();
    assert_eq!(codes, [77, 69]);
    assert_eq!(exit_code(&world.problems()), Some(77));
}

#[test]
fn only_root_can_start_programs_as_somebody_else() {
    let handler = |entry| World::new().with("handlers", entry);
    let other = handler(r#"{"typeMap": {"a": {"handlerBinary": "/bin/cat", "user": "4001", "group": "4002"}}}"#);
    const SO: &str = "and only root can start programs as somebody else; run the server as root, or leave `user` and `group` out";
    let user = format!("77 handlers.typeMap.a.user: 4001 is not whom the server runs as (user 4003), {SO}");
    assert_eq!(other.problems_for(4003, 4002), [user]);
    let group = format!("77 handlers.typeMap.a.group: 4002 is not whom the server runs as (user 4001), {SO}");
    assert_eq!(other.problems_for(4001, 4003), [group]);
    assert_eq!(other.problems_for(4001, 4002), [""; 0], "it is itself");
    // Without a group it is the group of that user that would be somebody else's.
    let root = handler(r#"{"typeMap": {"a": {"handlerBinary": "/bin/cat", "user": "root"}}}"#);
    let words = format!("77 handlers.typeMap.a.user: root is not whom the server runs as (user 4001), {SO}");
    assert_eq!(root.problems_for(4001, 4001), [words]);
    assert_eq!(root.problems_for(0, 0), [""; 0]);
}

#[test]
fn users_and_groups_are_known() {
    for (keys, words) in [
        (
            r#""user": "no such user""#,
            "78 handlers.typeMap.a.user: no such user is not in /etc/passwd; \
             correct it, or give the number of a user that is known elsewhere, and `group` too",
        ),
        (
            r#""group": "no such group""#,
            "78 handlers.typeMap.a.group: no such group is not in /etc/group; \
             correct it, or give the number of a group that is known elsewhere",
        ),
        (
            r#""user": "3999999999""#,
            "78 handlers.typeMap.a.user: 3999999999 is not in /etc/passwd, so that nothing says which group goes with it; \
             give `group` too",
        ),
    ] {
        let entry = format!(r#"{{"typeMap": {{"a": {{"handlerBinary": "/bin/cat", {keys}}}}}}}"#);
        assert_eq!(World::new().with("handlers", entry.leak()).problems_for(0, 0), [words]);
    }
}

#[test]
fn a_user_can_reach_what_it_needs() {
    const INFORMER: &str = "handlers.typeMap.a.informerSocketPath";
    let world = |more: &str| {
        let entry = format!(r#"{{"typeMap": {{"a": {{"handlerBinary": "prog/p", "user": "4001", "group": "4001", {more}}}}}}}"#);
        let world = World::new().with("handlers", entry.leak()).directory(".", 0o755).directory("prog", 0o755);
        world.file("prog/p", 0o755, "")
    };
    // The server is thought to be root, for whom the system permits everything.
    let closed = |world: &World, key: &str, subject: &str, wanted: Option<&str>| {
        let path = |name: &str| world.path(name).components().collect::<PathBuf>().display().to_string();
        let wanted = wanted.map(|wanted| format!(", who cannot reach {}", path(wanted))).unwrap_or_default();
        let start = format!("77 {key}: {} is closed to user 4001{wanted}; ", path(subject));
        let found = world.problems_for(0, 0);
        assert!(found.iter().any(|problem| problem.starts_with(&start)), "{start}\n{found:#?}");
    };
    assert_eq!(world("").problems_for(0, 0), [""; 0]);
    closed(&world("").directory("prog", 0o700), BINARY, "prog", Some("prog/p"));
    closed(&world("").file("prog/p", 0o750, ""), BINARY, "prog/p", None);
    assert_eq!(world("").file("prog/p", 0o751, "").problems_for(0, 0), [""; 0]);
    closed(&world("").file("prog/p", 0o751, "#!/bin/sh"), BINARY, "prog/p", None);
    let work = world(r#""workingDirectory": "work""#).directory("work", 0o700);
    closed(&work, "handlers.typeMap.a.workingDirectory", "work", None);
    let unix = world(r#""unixDomainSocketPath": "run/s""#).directory("run", 0o755);
    closed(&unix, "handlers.typeMap.a.unixDomainSocketPath", "run", None);
    assert_eq!(unix.directory("run", 0o777).problems_for(0, 0), [""; 0]);
    // The informer lies beside the state directory, and so do all places here.
    let home = world("").directory(".", 0o700);
    closed(&home, INFORMER, ".", Some("bester-state-informers/informer-a.sock"));
    let given = world(r#""informerSocketPath": "run/i""#).directory("run", 0o700);
    closed(&given, INFORMER, "run", Some("run/i"));
    assert_eq!(given.directory("run", 0o711).problems_for(0, 0), [""; 0]);
    // A directory on the way that is made with the state directory is closed.
    let deep = world("").with("server", r#"{"stateDirectory": "new/state"}"#).with("network", r#"{"tcp4": {"port": 1}}"#);
    let found = deep.problems_for(0, 0);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with(&format!("69 {INFORMER}: {} does not exist; make that directory", deep.path("new").display())),
        "{found:?}"
    );
    // What is there in its place.
    assert_eq!(world("").directory("bester-state-informers", 0o711).problems_for(0, 0), [""; 0]);
    let open = world("").directory("bester-state-informers", 0o777);
    assert!(open.problems_for(0, 0)[0].contains("is open to other users (mode 0777)"), "{:?}", open.problems_for(0, 0));
    let link = world("").directory("elsewhere", 0o755);
    symlink("elsewhere", link.path("bester-state-informers")).unwrap();
    assert!(link.problems_for(0, 0)[0].contains("bester-state-informers is not a directory"), "{:?}", link.problems_for(0, 0));
}

#[test]
fn resources_are_within_what_the_server_has() {
    let Some(hard) = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum else {
        panic!("no system has endless descriptors");
    };
    let with = |files| {
        let entry = format!(r#"{{"typeMap": {{"a": {{"handlerBinary": "/bin/cat", "resources": {{"files": {files}}}}}}}}}"#);
        World::new().with("handlers", entry.leak())
    };
    with(hard).is_sound();
    let found: Vec<_> = with(hard + 1).problems().iter().map(ToString::to_string).collect();
    let words = format!(
        "handlers.typeMap.a.resources.files: {} is above the hard limit of the server itself, {hard}; \
         lower it, or raise that limit where the server is started",
        hard + 1
    );
    assert_eq!(found, [words]);
}

#[test]
fn a_certificate_and_its_key_are_looked_at() {
    use crate::tls::{Identity, IdentityFlaw, Paths};
    const KEY: &str = "network.tls.key";
    const CERTIFICATE: &str = "network.tls.certificate";
    let world = || World::new().with("network", r#"{"tls": {"port": 1, "certificate": "one/server.crt", "key": "one/server.key"}}"#);
    world().has(CERTIFICATE, "one/server.crt", Flaw::Missing, 69);
    let made = || {
        let world = world();
        for directory in ["one", "two"] {
            Identity::own(&world.path(directory), &crate::name::ServerName::new("a").unwrap()).unwrap();
        }
        world
    };
    let chmod = |world: World, name: &str, mode| {
        fs::set_permissions(world.path(name), Permissions::from_mode(mode)).unwrap();
        world
    };
    made().is_sound();
    assert!(!warnings(&made().config()).iter().any(|warning| matches!(warning, Warning::OutOfDate { .. })));
    chmod(made(), "one/server.key", 0o644).has(KEY, "one/server.key", Flaw::OpenToOthers(0o644), 77);
    let mixed = made();
    fs::copy(mixed.path("two/server.key"), mixed.path("one/server.key")).unwrap();
    let words = IdentityFlaw::Mismatch(mixed.path("one/server.crt")).to_string();
    mixed.has(KEY, "one/server.key", Flaw::Unusable(words), 78);
    made().file("one/server.crt", 0o644, "x").has(CERTIFICATE, "one/server.crt", Flaw::Unusable("has no certificate in PEM".into()), 78);

    // Its own it makes, and only misses what it would not make.
    let own = || World::new().with("network", r#"{"tls": {"port": 1}}"#).directory("bester-state", 0o700);
    own().is_sound();
    let own_made = || {
        let world = own();
        Identity::own(&world.path("bester-state"), &crate::name::ServerName::new("a").unwrap()).unwrap();
        world
    };
    own_made().is_sound();
    let pin = Identity::load(&Paths::own(&own_made().path("bester-state"))).unwrap().pin();
    assert_ne!(plan(&own_made().config()).matches("its pin is").count(), 0, "{pin}");
    let keyless = own_made();
    fs::remove_file(keyless.path("bester-state/server.key")).unwrap();
    let found = keyless.problems();
    assert!(found.len() == 1 && found[0].to_string().contains("is gone"), "{found:?}");
    let without = own_made();
    fs::remove_file(without.path("bester-state/server.crt")).unwrap();
    without.is_sound();
}

#[test]
fn a_certificate_that_is_out_of_date_is_warned_of() {
    let world = World::new().with("network", r#"{"tls": {"port": 1, "certificate": "crt", "key": "key"}}"#);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["b.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let world = world.file("crt", 0o644, &params.self_signed(&key).unwrap().pem()).file("key", 0o600, &key.serialize_pem());
    world.is_sound();
    let warning = Warning::OutOfDate { path: world.path("crt") };
    assert!(warnings(&world.config()).contains(&warning));
    assert!(warning.to_string().contains("out of date"));
}
