//! `bester bench` finds nothing wrong with a server that is right, over every transport, and everything with a handler that
//! is not.

use crate::world::{BESTER, Finished, Home, Server};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

const USERS: [&str; 5] = ["bench0", "bench1", "bench2", "bench3", "bench4"];
const LIAR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handlers/liar.py");
/// So many clients may send each other more than is usual, and a slow machine reads late.
const LIMITS: &str = r#""limits": { "outgoingFrames": 100000, "outgoingBytes": 100000000 },"#;

fn honest() -> String {
    format!(r#""bench": {{ "handlerBinary": "{BESTER}", "arguments": ["bench-handler"], "inFlight": 1024, "queue": 100000 }},"#)
}

fn liar(how: &str) -> String {
    format!(r#""bench": {{ "handlerBinary": "{LIAR}", "arguments": ["{how}"], "inFlight": 8, "timeoutSeconds": 1 }},"#)
}

fn serve(handler: &str) -> Server {
    Home::new(handler, LIMITS, &USERS).serve()
}

/// A short run with these options; what it did, and its figures.
fn run(server: &Server, over: &str, options: &str) -> (Finished, Value) {
    let address = if over == "tcp" { server.tcp4.expect("an address").to_string() } else { "unix:state/bester.sock".to_owned() };
    let mut args = vec!["bench", "-s", &address, "--json"];
    for (option, value) in [("--warm", "0.1"), ("--duration", "0.5")] {
        if !options.contains(option) {
            args.extend([option, value]);
        }
    }
    args.extend(options.split_whitespace());
    let finished = server.home.bester_with_input(&args, "password\n");
    let figures = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    (finished, figures)
}

fn number(figures: &Value, path: &str) -> f64 {
    figures.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {figures}"))
}

#[test]
fn an_honest_server_accounts_for_every_message() {
    let server = serve(&honest());
    for over in ["tcp", "unix"] {
        for options in [
            "",
            "--clients 5 --in-flight 16 --threads 2",
            "--clients 5 --in-flight 16 --no-id",
            "--clients 5 --in-flight 4 --fan-out 3 --threads 3",
            "--clients 5 --in-flight 2 --fan-out 5 --no-id --size 2000",
            "--clients 5 --rate 300 --fan-out 2",
            "--clients 2 --rate 200 --no-id --size 70000",
        ] {
            let (finished, figures) = run(&server, over, &format!("{options} --warm 0 --duration 0.25"));
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{over} {options}: {figures}");
            assert_eq!((&figures["accountedFor"], &figures["lostConnection"]), (&true.into(), &Value::Null));
            assert!(number(&figures, "/sent") > 0.0, "{over} {options}: {figures}");
            let (p50, max) = (number(&figures, "/microseconds/delivery/p50"), number(&figures, "/microseconds/delivery/max"));
            assert!(p50 > 1.0 && max >= p50, "{figures}");
        }
    }
    server.stop();
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = serve(&honest());
    let (finished, figures) = run(&server, "tcp", "--clients 5 --rate 400 --fan-out 5");
    // 100 ms and 500 ms at 400 messages a second.
    assert_eq!((finished.code, number(&figures, "/sent"), number(&figures, "/unsent")), (Some(0), 240.0, 0.0), "{figures}");
    server.stop();
}

#[test]
fn the_handler_can_listen() {
    let home = Home::new(r#""bench": { "unixDomainSocketPath": "h.sock", "connection": "persistent", "inFlight": 64 }"#, LIMITS, &USERS);
    let mut handler = Command::new(BESTER);
    handler.args(["bench-handler", "--listen", "h.sock"]).current_dir(home.path()).stdin(Stdio::null());
    let mut handler = handler.spawn().expect("bester runs");
    let server = home.serve();
    server.wait_for("handler bench is up");
    let (finished, figures) = run(&server, "unix", "--clients 3 --fan-out 2 --in-flight 4");
    handler.kill().expect("it is ours");
    handler.wait().expect("its end");
    assert_eq!(finished.code, Some(0), "{figures}");
    server.stop();
}

#[test]
fn every_lie_is_found() {
    for (how, clients, expected) in [
        ("drop", 1, json!({ "lost": 1, "reportsWrong": 1 })),
        // One answer, with two deliveries to one user: he counts once.
        ("double", 1, json!({ "doubled": 1 })),
        ("swap", 1, json!({ "outOfOrder": 1 })),
        ("change", 1, json!({ "wrong": 1, "lost": 1 })),
        ("misdirect", 2, json!({ "unexpected": 1, "lost": 1 })),
        ("refuse", 1, json!({ "failed": { "handlerRefused": 1 } })),
    ] {
        let server = serve(&liar(how));
        let (finished, figures) = run(&server, "unix", &format!("--clients {clients} --in-flight 4 --drain 1"));
        assert_eq!(finished.code, Some(70), "{how}: {finished:?}");
        assert!(finished.stderr.starts_with("bester: not every message is accounted for: "), "{how}: {finished:?}");
        let mut faults = figures["faults"].clone();
        faults.as_object_mut().expect("faults").retain(|_, count| *count != json!(0) && *count != json!({}));
        assert_eq!(faults, expected, "{how}");
        server.stop();
    }
}

#[test]
fn a_handler_that_does_not_answer_is_found() {
    let server = serve(&liar("mute"));
    let (finished, figures) = run(&server, "tcp", "--in-flight 1 --duration 1.5 --no-id");
    assert_eq!(finished.code, Some(70), "{finished:?}");
    assert_eq!(number(&figures, "/faults/failed/handlerTimeout"), 1.0, "{figures}");
    assert_eq!((number(&figures, "/faults/lost"), number(&figures, "/faults/unexpected")), (0.0, 0.0), "{figures}");
    server.stop();
}

#[test]
fn a_stall_is_not_hidden_in_an_open_loop() {
    let server = serve(&liar("stall"));
    let (finished, figures) = run(&server, "unix", "--rate 200 --warm 0");
    assert_eq!(finished.code, Some(0), "{figures}");
    // 60 of 100 messages should have been sent meanwhile, 40 of them more than 100 ms before its end.
    assert!(number(&figures, "/microseconds/delivery/max") > 290_000.0, "{figures}");
    assert!(number(&figures, "/microseconds/delivery/p90") > 100_000.0, "{figures}");
    server.stop();
}

#[test]
fn a_lost_connection_is_told() {
    let mut server = serve(&honest());
    let mut bench = Command::new(BESTER);
    bench.args(["bench", "-s", "unix:state/bester.sock", "--clients", "2", "--duration", "60", "--password-file", "password"]);
    server.home.write("password", "password\n");
    let bench = bench.current_dir(server.home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let bench = bench.expect("bester runs");
    for user in ["bench0", "bench1"] {
        server.wait_for(&format!("{user} logged in"));
    }
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let output = bench.wait_with_output().expect("its end");
    let (told, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(69), "{told}{complaints}");
    assert!(told.contains("is lost: ") && complaints.contains("is lost: "), "{told}{complaints}");
}

#[test]
fn who_cannot_log_in_sends_nothing() {
    let server = serve(&honest());
    let run = |args: &[&str], password: &str| {
        let address = "unix:state/bester.sock";
        server.home.bester_with_input(&[&["bench", "-s", address], args].concat(), password)
    };
    let wrong = run(&["--clients", "2"], "drowssap\n");
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(77), ""), "{wrong:?}");
    let nobody = run(&["-u", "nobody"], "password\n");
    assert_eq!(nobody.code, Some(77), "{nobody:?}");
    assert!(nobody.stderr.contains("nobody0: "), "{nobody:?}");
    server.home.write("users", "bench3\nbench1\n");
    let named = run(&["--users", "users", "--duration", "0.1", "--warm", "0"], "password\n").good();
    assert!(named.stdout.contains("2 clients") && named.stdout.contains("every message is accounted for"), "{named:?}");
    let home = server.stop();
    assert_eq!(home.bester_with_input(&["bench", "-s", "unix:state/bester.sock"], "password\n").code, Some(69));
}
