//! `bester handler run`: a handler is tried without a server, and told what a server would say.

use crate::fault::{PROGRAM, entry};
use crate::handler_program::example;
use crate::world::{BESTER, Finished, Home, PATIENCE};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

/// Runs the handler `x` with these lines.
fn run(home: &Home, more: &[&str], lines: &[&str]) -> Finished {
    let args = [&["handler", "run", "x", "-c", "bester.conf"], more].concat();
    home.bester_with_input(&args, &lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn home(arguments: &str, more: &str) -> Home {
    Home::new(&entry("x", arguments, more), "", &[])
}

/// A request by which the handler says this text.
fn says(text: &str) -> String {
    json!([["say", text]]).to_string()
}

#[track_caller]
fn shows(finished: &Finished, code: i32, lines: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    for line in lines {
        assert!(finished.stdout.lines().any(|shown| shown.starts_with(line)), "{line:?} is not in {finished:?}");
    }
}

#[test]
fn each_answer_is_shown_with_what_a_server_would_do() {
    let deliver = r#"{"header":{"status":"0","command":"sendClients","commandData":["alice","bob"]},"payload":{"data":1}}"#;
    let both = concat!(
        r#"{"header":{"status":"0","commands":[{"command":"reply"},{"command":"sendHandler","commandData":"x"},"#,
        r#"{"command":"sendServers","commandData":["b.example"]},{"command":"none"}]},"payload":{"data":1}}"#
    );
    let requests = [
        r#"{"n" : 1.0}"#,
        &says(deliver),
        &says(both),
        &says(r#"{"header":{"status":"notMember"},"payload":{"data":"no"}}"#),
        r#"[["print","a word\n"],["reply",2]]"#,
    ];
    let home = home("", "");
    let finished = run(&home, &["--frames"], &[&requests[1..], &["", "  "]].concat());
    let lines = [
        &format!("[1] request  {}", requests[1]),
        &format!("[1] frame    {}", requests[1]),
        &format!("[1] answer   {deliver}"),
        "[1] server   delivers to alice, bob; after ",
        "[2] server   replies; hands it on to the handler of x; sends to the servers b.example (peerUnknown: this one knows none); does nothing; after ",
        r#"[3] server   refuses: status "notMember", data "no"; after "#,
        "[4] server   replies; after ",
        "ended        exited with status 0",
        "4 requests: 4 answered well, 0 not; half of the answers within ",
    ];
    shows(&finished, 0, &lines);
    assert_eq!(finished.stderr, "x: a word\n");
    assert!(!finished.stdout.contains("[5]"), "empty lines are left out");
    // It is not sent a second time for being shown.
    let finished = run(&home, &[], &[requests[4]]);
    assert!(!finished.stdout.contains("frame  "), "{finished:?}");
}

#[test]
fn mistakes_are_told_as_a_server_would() {
    let home = home("", r#""inFlight": 4"#);
    for (text, words) in [
        (r#"{"header":{"status":"0","command":"sendclients"}}"#, "unknown command `sendclients`; did you mean `sendClients`?"),
        (
            r#"{"header":{"status":"0","command":"sendHandler","commandData":"y"},"payload":{"data":1}}"#,
            "sendHandler names a type that is not configured",
        ),
        ("", "the answer is empty"),
    ] {
        let finished = run(&home, &[], &[&says(text), r#"[["reply",1]]"#]);
        let line = format!("[1] server   the answer is not carried out: {words} (handlerProtocol); after ");
        shows(&finished, 65, &[&line, "[2] server   replies; after ", "2 requests: 1 answered well, 1 not;"]);
        assert_eq!(finished.stderr, "bester: handler x made 1 mistake\n");
    }
    // What a terminal would obey is not shown as it is.
    let finished = run(&home, &[], &[r#"[["say","\u001b[2J"]]"#]);
    shows(&finished, 65, &[r"[1] answer   \u{1b}[2J"]);
}

#[test]
fn what_is_no_frame_and_what_nobody_asked_for_end_the_run() {
    for (arguments, more) in [("", ""), (r#""lines""#, r#""framing": "lines""#)] {
        let finished = run(&home(arguments, more), &[], &[r#"[["raw","hello\n"]]"#, r#"[["reply",1]]"#]);
        let shown = "over         the handler wrote 'hello";
        shows(&finished, 65, &[shown, "[1] server   no answer (handlerCrashed)", "1 request: 0 answered well, 1 not"]);
        assert!(finished.stdout.contains("should start; is something printing to stdout?"), "{finished:?}");
    }
    let finished = run(&home("", ""), &[], &[r#"[["reply",1],["reply",2]]"#]);
    shows(&finished, 65, &["[1] server   replies; after ", "[-] server   nobody has asked;"]);
    assert!(finished.stderr.contains("gave an answer that nobody had asked for"), "{finished:?}");
}

#[test]
fn a_death_is_told_with_how_it_came() {
    for (arguments, more) in [
        ("", ""),
        (r#""socket""#, r#""transport": "socket""#),
        (r#""unix=u""#, r#""unixDomainSocketPath": "u""#),
        (r#""unix=u""#, r#""unixDomainSocketPath": "u", "connection": "persistent""#),
    ] {
        let finished = run(&home(arguments, more), &[], &[r#"[["reply",1]]"#, r#"[["exit",3]]"#, r#"[["reply",2]]"#]);
        shows(
            &finished,
            69,
            &["[1] server   replies; after ", "over         the handler exited with status 3", "ended        exited with status 3"],
        );
        assert!(finished.stderr.ends_with("handler x exited with status 3 although its input was open\n"), "{finished:?}");
    }
    // What it wrote before counts, however long that takes to be read.
    let answers = "{\"header\":{\"status\":\"0\",\"command\":\"none\"}}\n".repeat(300);
    let last = json!([["raw", answers], ["exit", 3]]).to_string();
    let requests: Vec<&str> = std::iter::repeat_n(r#"[["skip",""]]"#, 299).chain([&*last]).collect();
    let finished = run(&home(r#""lines""#, r#""framing": "lines", "inFlight": 300"#), &[], &requests);
    assert!(finished.stdout.contains("\n300 requests: 300 answered well, 0 not"), "{finished:?}");
    // Whatever it leaves behind, which holds its output, is not waited for.
    let began = Instant::now();
    let finished = run(&home("", ""), &[], &[r#"[["reply",1]]"#, r#"[["fork"],["exit",4]]"#]);
    shows(&finished, 69, &["ended        exited with status 4"]);
    assert!(began.elapsed() < PATIENCE);
    // Not even what has left its group, and lives longer than an answer may take.
    let left = Home::new(r#""x": { "handlerBinary": "leave", "timeoutSeconds": 5 },"#, "", &[]);
    left.program("leave", "#!/bin/sh\nsetsid sh -c 'echo >gone; exec sleep 30' &\nuntil [ -e gone ]; do :; done\nexit 3\n");
    shows(&run(&left, &[], &["1"]), 69, &["over         the handler exited with status 3"]);
}

#[test]
fn a_program_that_cannot_be_started_or_does_not_listen_is_told() {
    let missing = Home::new(r#""x": { "handlerBinary": "/nowhere/x" },"#, "", &[]);
    let finished = run(&missing, &[], &[]);
    assert_eq!((finished.code, &*finished.stdout), (Some(69), ""));
    assert!(finished.stderr.contains("handler x cannot be started: /nowhere/x: there is no such program"), "{finished:?}");
    let finished = run(&home(r#""begin=[[\"exit\",5]]""#, r#""unixDomainSocketPath": "u""#), &[], &[]);
    assert!(finished.code == Some(69) && finished.stderr.contains("exited with status 5 before it listened at its socket"), "{finished:?}");
    let home = home(r#""begin=[[\"pause\"]]""#, r#""unixDomainSocketPath": "u", "timeoutSeconds": 1"#);
    let finished = run(&home, &[], &[]);
    assert!(finished.code == Some(69) && finished.stderr.contains("did not listen at its socket within 1 s"), "{finished:?}");
    for (args, words) in [
        (&["handler"][..], "an action is missing"),
        (&["handler", "dance"], "there is no action \"dance\""),
        (&["handler", "run"], "run takes one type"),
        (&["handler", "run", "y"], "no handler is configured for the type \"y\"; these types have one: x"),
        (&["handler", "run", "x", "-u", "Alice"], "a user name has 1 to 64"),
    ] {
        let finished = home.bester(args);
        assert!(finished.code == Some(64) && finished.stderr.contains(words), "{finished:?}");
    }
    home.write("bester.conf", "{");
    assert_eq!(run(&home, &[], &[]).code, Some(78));
}

#[test]
fn lines_that_are_no_data_are_not_sent() {
    let limits = r#""limits": { "frameBytes": 20000, "depth": 3 },"#;
    let home = Home::new(&entry("x", "", ""), limits, &[]);
    let finished = run(&home, &[], &["nonsense", "[[[[]]]]", r#"[["reply",1]]"#]);
    let lines = [
        "line 1 of the input is not sent: it is not JSON: expected a value at byte 0",
        "line 2 of the input is not sent: it is nested deeper than 3 (limits.depth)",
        "[1] server   replies; after ",
        "1 request: 1 answered well, 0 not;",
    ];
    shows(&finished, 65, &lines);
    let finished = run(&home, &[], &[&"x".repeat(20_001)]);
    assert!(finished.code == Some(65) && finished.stderr.contains("longer than 20000 bytes (limits.frameBytes)"), "{finished:?}");
}

#[test]
fn an_envelope_is_what_a_server_would_send() {
    let home = home(r#""socket""#, r#""envelope": true, "transport": "socket""#);
    let finished = run(&home, &["-u", "alice", "--frames"], &[r#"[["keep"]]"#, r#"[["reply",2],["release","kept"]]"#]);
    let frame = concat!(
        r#"[1] frame    {"header":{"messageId":"a.example/run-1","from":{"scope":"client","user":"alice","server":"a.example","#,
        r#""verified":true,"session":1},"hops":0},"payload":{"type":"x","data":[["keep"]]}}"#
    );
    shows(&finished, 0, &[frame, "[2] server   replies; after ", "[1] server   replies; after ", "2 requests: 2 answered well, 0 not;"]);
    // Neither answers to nothing nor pushes are taken for answers.
    let push = r#"{"header":{"status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1}}"#;
    let nothing = r#"{"header":{"status":"0","command":"none","inReplyTo":"a.example/run-7"}}"#;
    let finished = run(&home, &[], &[&json!([["say", push], ["say", nothing], ["reply", 1]]).to_string()]);
    let lines = [
        &*format!("[push] says    {push}"),
        "[push] server  delivers to bob (header.inReplyTo is missing",
        "[-] server   header.inReplyTo names no message that is under way",
        "[1] server   replies; after ",
    ];
    shows(&finished, 65, &lines);
}

#[test]
fn an_answer_with_an_id_gets_its_report() {
    let words = r#""envelope", "threads""#;
    let program = json!(example("handler-of-tests"));
    let home = Home::new(&format!(r#""x": {{ "handlerBinary": {program}, "arguments": [{words}], "envelope": true }},"#), "", &[]);
    let finished = run(&home, &["-u", "bob"], &["1", "2"]);
    shows(&finished, 0, &["[1] server   delivers to bob, carol; after ", "[2] server   replies; after "]);
    assert_eq!(finished.stderr, "x: a-1 reached 1\n");
}

#[test]
fn a_program_that_listens_is_ended_by_a_signal_at_once() {
    for connection in ["perMessage", "persistent"] {
        let home = home(r#""unix=u""#, &format!(r#""unixDomainSocketPath": "u", "connection": "{connection}", "stopSeconds": 60"#));
        let finished = run(&home, &[], &[r#"[["reply",1]]"#]);
        shows(&finished, 0, &["[1] server   replies; after ", "ended        was ended by signal 15 (SIGTERM)"]);
        assert!(!finished.stdout.contains("has not ended"), "{finished:?}");
        assert!(!home.path().join("u").exists(), "its socket is not left behind");
    }
}

/// A run whose input stays open.
struct Typed {
    child: Child,
    shown: Receiver<String>,
}

impl Typed {
    fn new(home: &Home) -> Typed {
        let mut command = Command::new(BESTER);
        command.args(["handler", "run", "x"]).current_dir(home.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("bester runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (show, shown) = mpsc::channel();
        let body = move || lines.map_while(Result::ok).try_for_each(|line| show.send(line));
        std::thread::Builder::new().spawn(body).expect("a thread");
        Typed { child, shown }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().expect("a pipe"), "{line}").expect("a run that reads");
    }

    /// Waits for a line that begins like that.
    #[track_caller]
    fn shows(&mut self, beginning: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.shown.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("{beginning:?} does not come after {before:#?}"),
            }
        }
    }

    fn ends(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().expect("its end").code()
    }
}

/// Whatever the test did, the run does not survive it.
impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_typed_is_answered_at_once_and_what_is_late_is_told() {
    let house = home("", r#""envelope": true, "timeoutSeconds": 2"#);
    let mut typed = Typed::new(&house);
    typed.types(r#"[["reply",1]]"#);
    typed.shows("[1] server   replies");
    typed.types(r#"[["keep"]]"#);
    typed.shows("[2] server   no answer within 2 s (handlerTimeout)");
    typed.types(r#"[["release","late"],["reply",2]]"#);
    typed.shows("[2] server   came too late, after ");
    typed.shows("[3] server   replies");
    assert_eq!(typed.ends(), Some(65));
    // A plain handler would be ended there.
    let house = home("", r#""timeoutSeconds": 2"#);
    let mut typed = Typed::new(&house);
    typed.types(r#"[["keep"]]"#);
    let line = typed.shows("[1] server   no answer within 2 s (handlerTimeout)");
    assert!(line.contains("a server ends the handler here and starts it again"), "{line}");
    typed.shows("ended        was ended by signal 9 (SIGKILL)");
    assert_eq!(typed.ends(), Some(65));
}

#[test]
fn it_can_be_told_to_stop() {
    let house = home("", "");
    let mut typed = Typed::new(&house);
    typed.types(r#"[["reply",1]]"#);
    typed.shows("[1] server   replies");
    let told = Command::new("kill").args(["-INT", &typed.child.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
    typed.shows("ended        exited with status 0");
    typed.shows("1 request: 1 answered well, 0 not");
    assert_eq!(typed.ends(), Some(0));
}

#[test]
fn no_more_are_under_way_than_the_configuration_allows() {
    let place = |finished: &Finished, line: &str| {
        let place = finished.stdout.lines().position(|shown| shown.starts_with(line));
        place.unwrap_or_else(|| panic!("{line:?} is not in {finished:?}"))
    };
    let finished = run(&home("", ""), &[], &[r#"[["reply",1]]"#; 3]);
    shows(&finished, 0, &["3 requests: 3 answered well, 0 not"]);
    assert!(place(&finished, "[2] request") > place(&finished, "[1] server"), "{finished:?}");
    let home = home("", r#""envelope": true, "inFlight": 2, "timeoutSeconds": 1"#);
    let finished = run(&home, &[], &[r#"[["keep"]]"#, r#"[["keep"]]"#, r#"[["release","a","b"],["reply",1]]"#]);
    let late = place(&finished, "[1] server   no answer");
    assert!(place(&finished, "[2] request") < late && late < place(&finished, "[3] request"), "{finished:?}");
}

#[test]
fn the_program_is_started_as_a_server_would() {
    let script = "#!/usr/bin/env python3\nimport json, os, struct, sys\n\
        while len(n := sys.stdin.buffer.read(4)) == 4:\n    \
            sys.stdin.buffer.read(struct.unpack('<I', n)[0])\n    \
            data = {'args': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}\n    \
            text = json.dumps({'header': {'status': '0', 'command': 'reply'}, 'payload': {'data': data}}).encode()\n    \
            sys.stdout.buffer.write(struct.pack('<I', len(text)) + text)\n    sys.stdout.buffer.flush()\n";
    let home = Home::new(r#""x": { "handlerBinary": "look", "arguments": ["a", "b"], "environment": {"MINE": "1"} },"#, "", &[]);
    home.program("look", script);
    let finished = run(&home, &[], &["1"]);
    shows(&finished, 0, &["[1] server   replies; after "]);
    let answer = finished.stdout.lines().find_map(|line| line.strip_prefix("[1] answer   ")).expect("an answer");
    let answer: Value = serde_json::from_str(answer).expect("JSON");
    let data = &answer["payload"]["data"];
    assert_eq!(data["args"], json!(["a", "b"]));
    assert_eq!(data["cwd"], json!(home.path().canonicalize().expect("a directory")));
    let env = |name: &str| data["env"][name].clone();
    let found = ["BESTER_TYPE", "BESTER_SERVER", "BESTER_INSTANCE", "MINE", "CARGO_MANIFEST_DIR"].map(env);
    assert_eq!(json!(found), json!(["x", "a.example", "0", "1", null]));
    let informer = env("BESTER_INFORMER");
    let directory = std::path::Path::new(informer.as_str().expect("a path")).parent().expect("a directory");
    assert!(!directory.exists(), "the stand-in is gone with the run");
}

#[test]
fn the_stand_in_for_the_informer_knows_one_user() {
    let entry = |words: Value| {
        format!(r#""x": {{ "handlerBinary": {}, "arguments": {words}, "envelope": true }},"#, json!(example("handler-of-tests")))
    };
    let home = Home::new(&entry(json!(["envelope"])), "", &[]);
    let finished = run(&home, &["-u", "carol"], &[r#"["online",["carol","bob"]]"#, r#"["panic",[]]"#]);
    assert!(finished.stdout.contains(r#""payload":{"data":[true,false]}"#), "{finished:?}");
    shows(&finished, 0, &[r#"[2] server   refuses: status "internal"; after "#]);
    assert!(finished.stderr.contains("x: as it was told to"), "what it prints is passed on: {finished:?}");
    // Pushes are shown, and their sender hears of them.
    let home = Home::new(&entry(json!(["envelope", "push"])), "", &[]);
    for (user, reached) in [("alice", 1), ("carol", 0)] {
        let finished = run(&home, &["-u", user], &["1"]);
        shows(&finished, 0, &["[push] server  delivers to alice (header.inReplyTo is missing", "[1] server   does nothing; after "]);
        assert!(finished.stderr.contains(&format!("x: p-1 reached {reached}")), "{finished:?}");
    }
    let home = Home::new(&entry(json!(["envelope", "informer"])), "", &[]);
    let finished = run(&home, &["-u", "alice"], &["1"]);
    shows(&finished, 0, &["[push] asks    {", "[push] server  delivers to alice, bob", "[1] server   replies; after "]);
    assert!(finished.stdout.contains(r#""payload":{"data":[1,["bob"]]}"#), "{finished:?}");
}

#[test]
fn a_program_that_somebody_else_runs_is_asked_where_it_listens() {
    for connection in ["perMessage", "persistent"] {
        let home = Home::new(&format!(r#""x": {{ "unixDomainSocketPath": "u", "connection": "{connection}" }},"#), "", &[]);
        let mut program = Command::new(PROGRAM).arg("unix=u").current_dir(home.path()).spawn().expect("python3");
        crate::fault::until("it listens", || home.path().join("u").exists().then_some(()));
        let finished = run(&home, &[], &[r#"[["reply",1]]"#, r#"[["reply",2]]"#]);
        let still_there = program.try_wait().expect("its status").is_none();
        let _ = program.kill();
        let _ = program.wait();
        shows(&finished, 0, &["[2] server   replies; after ", "ended        was left"]);
        assert!(still_there, "it is not ours to end");
    }
}
