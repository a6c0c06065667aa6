//! Handlers in Rust, written with the crate's own module, under a real server.

use crate::fault::{delivery, good};
use crate::world::{BESTER, Home, Server};
use bester::handler::{Answer, Change, Informer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// One of the crate's examples. Cargo builds them with all tests, but not when one test program alone is asked for.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let profile = Path::new(BESTER).parent().expect("a directory");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--offline", "--examples", "--target-dir"]);
        cargo.arg(profile.parent().expect("a directory")).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success());
        profile.join("examples")
    });
    directory.join(name)
}

/// The handler of the tests with these words as type `x`, and three users.
fn serve(words: &[&str], more: &str) -> Server {
    let program = example("handler-of-tests");
    let entry = format!(r#""x": {{ "handlerBinary": {}, "arguments": {}, {more} }},"#, json!(program), json!(words));
    Home::new(&entry, "", &["alice", "bob", "carol"]).serve()
}

#[test]
fn the_sample_sends_everything_back() {
    let entry = format!(r#""echo": {{ "handlerBinary": {} }},"#, json!(example("handler-echo")));
    let server = Home::new(&entry, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    alice.sends_message("echo", r#"{"b" : 1.0, "a":1e999}"#, "m");
    assert!(alice.gets().contains(r#""payload":{"data":{"b" : 1.0, "a":1e999},"#));
    good(&mut alice, "m");
    server.stop();
}

#[test]
fn every_transport_framing_and_form_works() {
    let kept = r#""transport": "unix", "unixDomainSocketPath": "u", "connection": "persistent""#;
    let each = r#""transport": "unix", "unixDomainSocketPath": "u", "inFlight": 4"#;
    for (words, more) in [
        (&[][..], ""),
        (&["lines"], r#""framing": "lines""#),
        (&["batched"], r#""inFlight": 8"#),
        (&["socket"], r#""transport": "socket""#),
        (&["socket", "lines", "envelope"], r#""transport": "socket", "framing": "lines", "envelope": true"#),
        (&["envelope"], r#""envelope": true"#),
        (&["listen=u"], each),
        (&["listen=u", "batched"], each),
        (&["listen=u", "lines"], &format!(r#"{each}, "framing": "lines""#)),
        (&["listen=u", "envelope"], &format!(r#"{kept}, "envelope": true"#)),
    ] {
        let server = serve(words, more);
        let (mut alice, mut bob) = (server.log_in("alice"), server.log_in("bob"));
        for n in 0..3 {
            alice.sends_message("x", &format!(r#"{{"n" :{n}.0}}"#), "m");
            assert!(alice.gets().contains(&format!(r#""data":{{"n" :{n}.0}},"#)), "{words:?}");
            good(&mut alice, "m");
        }
        alice.sends_message("x", r#"["send",["bob"]]"#, "m");
        assert_eq!(delivery(&mut bob), json!(["send", ["bob"]]));
        assert_eq!(delivery(&mut alice), "sent");
        good(&mut alice, "m");
        alice.sends_message("x", r#"["panic",[]]"#, "m");
        let report = alice.gets_json();
        assert_eq!(report["header"]["reason"], "handlerRefused", "{words:?}: {report}");
        assert_eq!(report["payload"]["data"]["status"], "internal");
        server.wait_for("as it was told to");
        alice.sends_message("x", r#"["online",["alice","carol"]]"#, "m");
        assert_eq!(delivery(&mut alice), json!([true, false]));
        good(&mut alice, "m");
        // Messages are nothing that a child of it could read.
        alice.sends_message("x", r#"["child",[]]"#, "m");
        assert_eq!(delivery(&mut alice), 0);
        good(&mut alice, "m");
        // What it prints is in the log, and harms nothing.
        server.wait_for("handler x: somebody speaks: ");
        let user = if words.contains(&"envelope") { json!("alice") } else { Value::Null };
        alice.sends_message("x", r#"["refuse",[]]"#, "m");
        let report = alice.gets_json();
        assert_eq!(report["payload"]["data"]["data"], user, "{words:?}: {report}");
        let log = server.log();
        assert_eq!(log.matches("handler x started").count(), 1, "{log}");
        // It ends when it is asked to, and is not killed.
        server.stop();
    }
}

#[test]
fn threads_answer_in_any_order_and_learn_what_became_of_it() {
    let server = serve(&["envelope", "threads"], r#""envelope": true"#);
    let (mut alice, mut bob) = (server.log_in("alice"), server.log_in("bob"));
    alice.sends_message("x", "1", "first");
    alice.sends_message("x", "2", "second");
    assert_eq!(delivery(&mut alice), "later one");
    good(&mut alice, "second");
    assert_eq!(delivery(&mut bob), "earlier one");
    assert_eq!(good(&mut alice, "first")["offline"], 1);
    server.wait_for("handler x: a-1 reached 1");
}

#[test]
fn a_form_that_differs_from_the_configuration_is_told() {
    let server = serve(&["envelope"], "");
    server.wait_for(r#"handler x: it failed: this handler takes envelopes: give it "envelope": true in the configuration"#);
}

/// The names and counts of a push, told by the informer and in an envelope handler's own way.
#[test]
fn a_handler_speaks_without_being_asked() {
    let server = serve(&["envelope", "push"], r#""envelope": true"#);
    let mut bob = server.log_in("bob");
    let mut informer = Informer::connect(server.home.path().join("state/informer-x.sock")).expect("an informer");
    let (there, mut changes) = {
        let watching = Informer::connect(server.home.path().join("state/informer-x.sock")).expect("an informer");
        watching.watch_clients().expect("names")
    };
    assert_eq!(there, ["bob"]);
    let counts = informer.push(&Answer::send(["bob", "carol", "nobody"], "from the informer")).expect("counts");
    assert_eq!(delivery(&mut bob), "from the informer");
    assert_eq!((counts.delivered, counts.offline, counts.unknown), (1, 1, 1));
    assert_eq!((&counts.names.offline[..], &counts.names.unknown[..]), (&["carol".to_owned()][..], &["nobody".to_owned()][..]));
    // Its first words are for alice, who was not there yet: it hears of that, and says them again when she asks.
    server.wait_for("handler x: p-1 reached 0");
    let mut alice = server.log_in("alice");
    assert_eq!(changes.next().expect("a change").expect("news"), Change::Online("alice".to_owned()));
    alice.sends_message("x", "1", "m");
    assert_eq!(delivery(&mut alice), "pushed");
    drop(alice);
    assert_eq!(changes.next().expect("a change").expect("news"), Change::Offline("alice".to_owned()));
}
