//! Faults of a handler's start. It stays failed until somebody heals it; its messages are refused meanwhile.

use super::{World, all, serve};
use crate::fault::{PROGRAM, until};
use crate::ways::{Sender, WAYS, Way, are_in_order};
use crate::world::Server;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What is wrong with its starts while it is sick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ExitsAtOnce,
    /// It does nothing at all.
    ReadsNothing,
    NoInterpreter,
    NotExecutable,
}

const FAULTS: [Fault; 4] = [Fault::ExitsAtOnce, Fault::ReadsNothing, Fault::NoInterpreter, Fault::NotExecutable];
/// More than a pipe or a socket takes of what nobody reads.
const BALLAST_BYTES: usize = 600 << 10;

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::ExitsAtOnce => "exits-at-once",
            Fault::ReadsNothing => "reads-nothing",
            Fault::NoInterpreter => "no-interpreter",
            Fault::NotExecutable => "not-executable",
        }
    }

    fn arguments(self, kind: &str) -> Vec<String> {
        let steps = match self {
            Fault::ExitsAtOnce => r#"["exit",4]"#,
            Fault::ReadsNothing => r#"["pause"]"#,
            Fault::NoInterpreter | Fault::NotExecutable => return Vec::new(),
        };
        vec![format!(r#"begin=[["if_there","sick-{kind}",[{steps}]]]"#)]
    }

    fn falls_ill(self, home: &Path, kind: &str) {
        match self {
            Fault::ExitsAtOnce | Fault::ReadsNothing => fs::write(home.join(format!("sick-{kind}")), ""),
            Fault::NoInterpreter => fs::remove_file(interpreter(home, kind)),
            Fault::NotExecutable => set_mode(home, kind, 0o644),
        }
        .expect("files");
    }

    fn is_healed(self, home: &Path, kind: &str) {
        match self {
            Fault::ExitsAtOnce | Fault::ReadsNothing => fs::remove_file(home.join(format!("sick-{kind}"))),
            Fault::NoInterpreter => symlink("/bin/sh", interpreter(home, kind)),
            Fault::NotExecutable => set_mode(home, kind, 0o755),
        }
        .expect("files");
    }

    /// The reason and words for senders, and those in the log.
    fn outcome(self, way: Way) -> (&'static str, &'static str, &'static str) {
        let unavailable = "handlerUnavailable";
        match self {
            Fault::ExitsAtOnce => (
                unavailable,
                "$H is not running: exited with status 4",
                "WARN  handler: $H exited with status 4; it will be started again in",
            ),
            Fault::ReadsNothing if way.is_unix() => (
                unavailable,
                "$H is not running: did not listen at its socket within 1 s",
                "WARN  handler: $H did not listen at its socket within 1 s: /",
            ),
            Fault::ReadsNothing => (
                "handlerTimeout",
                "$H did not answer within 1 s",
                "WARN  handler: $H did not answer within 1 s; it will be started again in",
            ),
            Fault::NoInterpreter => (
                unavailable,
                "$H is not running: cannot be started",
                "WARN  handler: $H cannot be started: $P: its interpreter (first line: \"#!$I\") is missing; it will be started again in",
            ),
            Fault::NotExecutable => (
                unavailable,
                "$H is not running: cannot be started",
                "WARN  handler: $H cannot be started: $P: it is not executable; run: chmod +x $P; it will be started again in",
            ),
        }
    }
}

fn interpreter(home: &Path, kind: &str) -> std::path::PathBuf {
    home.join(format!("interpreter-{kind}"))
}

fn set_mode(home: &Path, kind: &str, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(home.join(format!("run-{kind}")), fs::Permissions::from_mode(mode))
}

#[test]
fn a_start_that_fails_stays_failed_until_it_is_healed() {
    let cases: Vec<(Way, Fault)> = FAULTS.into_iter().flat_map(|fault| WAYS.map(|way| (way, fault))).collect();
    let home = tempfile::tempdir().expect("a directory");
    let one = |(way, fault): &(Way, Fault)| {
        let kind = way.kind(fault.name());
        symlink("/bin/sh", interpreter(home.path(), &kind)).expect("a link");
        let program = home.path().join(format!("run-{kind}"));
        let text = format!("#!{}\nexec {PROGRAM} \"$@\"\n", interpreter(home.path(), &kind).display());
        fs::write(&program, text).expect("a program");
        set_mode(home.path(), &kind, 0o755).expect("permissions");
        let arguments = fault.arguments(&kind);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let keys = r#""queueSeconds": 1, "timeoutSeconds": 1"#;
        way.entry(&kind, program.to_str(), &arguments, keys)
    };
    let server = serve(&cases.iter().map(one).collect::<Vec<_>>());
    let run = |world: &World<'_>, (way, fault): &(Way, Fault)| runs(world.server, home.path(), *way, *fault);
    all(&server, cases, run, |(way, fault)| way.kind(fault.name()));
}

fn runs(server: &Server, programs: &Path, way: Way, fault: Fault) {
    let kind = &way.kind(fault.name());
    let mut sender = Sender::new(server.log_in("alice"), kind);
    let works = |sender: &mut Sender| {
        // As whoever is told `temporary` does.
        until(&format!("{kind} works"), || {
            sender.asks(kind);
            sender.gets().bad.is_none().then_some(())
        });
    };
    works(&mut sender);
    let (reason, told, logged) = fault.outcome(way);
    let program = programs.join(format!("run-{kind}"));
    let named = |text: &str| {
        let text = text.replace("$H", &format!("handler {kind}")).replace("$P", &program.display().to_string());
        text.replace("$I", &interpreter(programs, kind).display().to_string())
    };
    // Where all start at once, one may be late without being ill.
    let log = server.log();
    let (before, started) = (log.matches(&named(logged)).count(), log.matches(&named("$H started")).count());
    let place = if fault.arguments(kind).is_empty() { programs } else { server.home.path() };
    fault.falls_ill(place, kind);
    sender.sends(kind, r#"[["exit",0]]"#);
    assert_eq!(sender.gets().bad.expect("a failure").reason, "handlerCrashed");
    let idle = reason == "handlerTimeout"; // it fails only when it is asked
    if idle {
        server.wait_for_times(&named("$H started"), started + 1);
    } else {
        server.wait_for_times(&named(logged), before + 1);
    }
    sender.sends(kind, &format!(r#"[["skip","{}"]]"#, "y".repeat(BALLAST_BYTES)));
    for _ in 0..5 {
        sender.asks(kind);
    }
    let reports = sender.gets_all();
    are_in_order(&reports);
    for (place, report) in reports.iter().enumerate() {
        let bad = report.bad.as_ref().unwrap_or_else(|| panic!("{report:?}"));
        assert!(bad.temporary, "{report:?}");
        if idle && place > 0 {
            // Their time in the queue is over when the first one's is.
            assert!(matches!(bad.reason.as_str(), "handlerUnavailable" | "busy"), "{report:?}");
        } else {
            assert_eq!((bad.reason.as_str(), bad.message.as_str()), (reason, named(told).as_str()), "no path is told to clients");
        }
    }
    server.wait_for_times(&named(logged), before + 1);
    fault.is_healed(place, kind);
    works(&mut sender);
    sender.got_nothing();
}
