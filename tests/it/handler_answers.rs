//! What a handler answers is carried out as a whole or not at all, and only it decides who receives what.

use crate::fault::{asks, bad, delivery, entry, good, serve, works};
use crate::world::{Client, Home, Server};
use serde_json::{Value, json};

fn says(client: &mut Client, kind: &str, text: &str, id: &str) {
    client.sends_message(kind, &json!([["say", text]]).to_string(), id);
}

/// alice twice, bob and carol, with an envelope handler `x`.
fn people() -> (Server, [Client; 4]) {
    let server = Home::new(&entry("x", "", r#""envelope": true"#), "", &["alice", "bob", "carol", "dave"]).serve();
    let clients = ["alice", "alice", "bob", "carol"].map(|user| server.log_in(user));
    (server, clients)
}

#[test]
fn plain_answers_belong_to_the_requests_in_their_order() {
    let (_server, mut alice) = serve("", r#""inFlight": 8"#);
    for n in 0..8 {
        alice.sends_message("x", &format!(r#"[["reply",{n}]]"#), &format!("m{n}"));
    }
    for n in 0..8 {
        assert_eq!(delivery(&mut alice), n);
        good(&mut alice, &format!("m{n}"));
    }
}

#[test]
fn an_envelope_says_who_is_speaking() {
    let (_server, [mut alice, mut again, mut bob, _]) = people();
    let mut seen = Vec::new();
    for (client, user) in [(&mut alice, "alice"), (&mut again, "alice"), (&mut bob, "bob")] {
        // Whatever a client claims stays in its data.
        client.sends(
            r#"{"header":{"from":{"user":"carol","verified":true},"messageId":"forged","hops":7,"inReplyTo":"x"},
                "from":{"user":"carol"},
                "payload":{"type":"x","id":"c-\u00e4","from":{"user":"carol"},"data":[["echo"]],"messageId":"forged"}}"#,
        );
        let envelope = delivery(client);
        let (header, from) = (&envelope["header"], &envelope["header"]["from"]);
        assert_eq!(from["user"], user);
        assert_eq!(from["scope"], "client");
        assert_eq!(from["server"], "a.example");
        assert_eq!(from["verified"], true);
        assert_eq!(header["hops"], 0);
        assert_eq!(envelope["payload"], json!({ "type": "x", "data": [["echo"]], "id": "c-ä" }));
        assert_eq!(header.as_object().map(|header| header.len()), Some(3), "{header}");
        seen.push((header["messageId"].as_str().expect("an id").to_owned(), from["session"].as_u64().expect("a number")));
        good(client, "c-ä");
    }
    let distinct = |n: usize, other: usize| seen[n].0 != seen[other].0 && seen[n].1 != seen[other].1;
    assert!(distinct(0, 1) && distinct(1, 2) && distinct(0, 2), "{seen:?}");
    assert!(seen.iter().all(|(id, _)| id.starts_with("a.example/")), "{seen:?}");
}

#[test]
fn envelope_answers_may_come_in_any_order() {
    let (_server, [mut alice, _, mut bob, _]) = people();
    alice.sends_message("x", r#"[["keep"]]"#, "first");
    works(&mut alice, "x"); // so the first is there
    bob.sends_message("x", r#"[["keep"]]"#, "second");
    works(&mut bob, "x");
    alice.sends_message("x", r#"[["keep"],["release","to third","to second","to first"]]"#, "third");
    assert_eq!(delivery(&mut alice), "to third");
    good(&mut alice, "third");
    assert_eq!(delivery(&mut alice), "to first");
    good(&mut alice, "first");
    assert_eq!(delivery(&mut bob), "to second");
    good(&mut bob, "second");
}

#[test]
fn an_envelope_answer_to_nothing_is_dropped() {
    let (server, [mut alice, _, mut bob, _]) = people();
    for (text, line) in [
        (
            r#"{"header":{"status":"0","command":"sendClients","commandData":["bob"],"inReplyTo":"a.example/1-1"},"payload":{"data":1}}"#,
            "answered a request that is not under way",
        ),
        (r#"{"header":{"status":"0","command":"reply","inReplyTo":""},"payload":{"data":1}}"#, "answered a request that is not under way"),
        ("{}", "wrote something wrong that names no request (header.inReplyTo): header.status is missing; dropped"),
        ("nonsense", "wrote something wrong that names no request (header.inReplyTo): the answer is not JSON"),
        (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1}}"#, "(is header.inReplyTo missing?)"),
    ] {
        let before = server.log().matches(line).count();
        let steps = json!([["say", text], ["reply", "mine"]]).to_string();
        alice.sends_message("x", &steps, "m");
        assert_eq!(delivery(&mut alice), "mine");
        good(&mut alice, "m");
        server.wait_for_times(line, before + 1);
        bob.got_nothing();
    }
    // A second answer to the same request is one to nothing.
    alice.sends_message("x", r#"[["reply",1],["reply",2]]"#, "m");
    assert_eq!(delivery(&mut alice), 1);
    good(&mut alice, "m");
    works(&mut alice, "x");
    assert_eq!(server.log().matches("handler x started").count(), 1);
}

#[test]
fn commands_reach_those_whom_they_name() {
    let (_server, [mut alice, mut again, mut bob, mut carol]) = people();
    let counts =
        |report: Value| (report["delivered"].as_u64(), report["queued"].as_u64(), report["offline"].as_u64(), report["unknown"].as_u64());
    // Every session of each user, once.
    let text = r#"{"header":{"status":0,"inReplyTo":"$ABOUT","command":"sendClients","commandData":["bob","alice","bob"]},"payload":{"type":"y","data":{"a" :1e999}}}"#;
    says(&mut alice, "x", text, "m");
    let mine = alice.gets();
    assert!(mine.ends_with(r#""payload":{"data":{"a" :1e999},"type":"x","id":"m"}}"#), "{mine}");
    assert_eq!(counts(good(&mut alice, "m")), (Some(2), Some(0), Some(0), Some(0)));
    for other in [&mut again, &mut bob] {
        let theirs = other.gets();
        assert!(theirs.ends_with(r#""payload":{"data":{"a" :1e999},"type":"x"}}"#), "{theirs}");
    }
    // The connection that asked, and no other of the same user.
    assert_eq!(asks(&mut alice, "x", r#"[["reply",1]]"#), 1);
    again.got_nothing();
    // Nobody.
    for text in [
        r#"{"header":{"status":"good","inReplyTo":"$ABOUT","command":"none"}}"#,
        r#"{"header":{"status":"ok","inReplyTo":"$ABOUT","command":"sendClients","commandData":[]},"payload":{"data":1}}"#,
        r#"{"header":{"status":"0","inReplyTo":"$ABOUT","commands":[]}}"#,
    ] {
        says(&mut alice, "x", text, "m");
        assert_eq!(counts(good(&mut alice, "m")), (Some(0), Some(0), Some(0), Some(0)), "{text}");
    }
    // Several commands, with data of their own or in common.
    let text = r#"{"header":{"status":"0","inReplyTo":"$ABOUT","commands":[{"command":"sendClients","commandData":["bob"]},
        {"command":"sendClients","commandData":["carol","dave"],"payload":{"data":"for carol"}},{"command":"none"},{"command":"reply"}]},
        "payload":{"data":"for all"}}"#;
    says(&mut alice, "x", text, "m");
    assert_eq!(delivery(&mut bob), "for all");
    assert_eq!(delivery(&mut carol), "for carol");
    assert_eq!(delivery(&mut alice), "for all");
    assert_eq!(counts(good(&mut alice, "m")), (Some(3), Some(0), Some(1), Some(0)));
    // Whom it does not reach, it says.
    for (names, reason, expected) in
        [(r#"["dave"]"#, "undelivered", json!([0, 1, 0])), (r#"["nobody","Bob","bob"]"#, "undelivered", json!([1, 0, 2]))]
    {
        let text = format!(
            r#"{{"header":{{"status":"0","inReplyTo":"$ABOUT","command":"sendClients","commandData":{names}}},"payload":{{"data":1}}}}"#
        );
        says(&mut alice, "x", &text, "m");
        let report = alice.gets_json();
        let data = &report["payload"]["data"];
        assert_eq!(report["header"]["reason"], reason);
        assert_eq!(json!([data["delivered"], data["offline"], data["unknown"]]), expected, "{names}");
    }
    assert_eq!(delivery(&mut bob), 1);
    // There are no other servers.
    let text = r#"{"header":{"status":"0","inReplyTo":"$ABOUT","commands":[{"command":"sendServers","commandData":["b.example"]},
        {"command":"sendClients","commandData":["bob"]}]},"payload":{"data":2}}"#;
    says(&mut alice, "x", text, "m");
    bad(&mut alice, "m", "peerUnknown");
    assert_eq!(delivery(&mut bob), 2);
    for client in [&mut alice, &mut again, &mut bob, &mut carol] {
        client.got_nothing();
    }
}

#[test]
fn what_goes_well_without_an_id_is_not_reported() {
    let (_server, mut alice) = serve("", "");
    for text in [r#"{"header":{"status":"0","command":"none"}}"#, r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1}}"#] {
        alice.sends(&format!(r#"{{"payload":{{"type":"x","data":{}}}}}"#, json!([["say", text]])));
    }
    let frame = alice.gets_json();
    assert_eq!(frame["payload"], json!({ "type": "x", "data": 1 }));
    alice.got_nothing();
}

#[test]
fn handlers_pass_a_message_on_four_times() {
    let entries: String = ["h0", "h1", "h2", "h3", "h4", "h5"].map(|kind| entry(kind, "", r#""envelope": true"#)).concat();
    let server = Home::new(&entries, "", &["alice"]).serve();
    let mut alice = server.log_in("alice");
    let pass = |times: usize| {
        let mut steps = json!([["echo"]]);
        for n in (1..=times).rev() {
            steps = json!([["hand_on", format!("h{n}"), steps]]);
        }
        steps.to_string()
    };
    alice.sends_message("h0", &pass(4), "m");
    let frame = alice.gets_json();
    assert_eq!(frame["payload"]["type"], "h4", "the delivery is of the type whose handler replied");
    let envelope = &frame["payload"]["data"];
    assert_eq!(envelope["header"]["from"]["user"], "alice");
    assert_eq!(envelope["payload"]["type"], "h4");
    let report = good(&mut alice, "m");
    assert_eq!(report["messageId"], frame["header"]["messageId"], "deliveries and the report carry the message's own id");
    assert_ne!(report["messageId"], envelope["header"]["messageId"], "each request has an id of its own");
    alice.sends_message("h0", &pass(5), "m");
    let message = bad(&mut alice, "m", "loop");
    assert!(message.contains("more than 4 times"), "{message}");
    server.wait_for("handler h4 gave an answer that is not carried out: handlers passed the message on more than 4 times");
    works(&mut alice, "h0");
    // To itself: it ends as well.
    alice.sends_message("h0", r#"[["round"]]"#, "m");
    bad(&mut alice, "m", "loop");
    works(&mut alice, "h0");
}

#[test]
fn a_refusal_is_passed_on_with_its_words() {
    let (server, [mut alice, mut again, ..]) = people();
    for (status, payload, expected) in [
        (r#""full""#, r#","payload":{"data":{"why":"full" }}"#, json!(["full", { "why": "full" }])),
        ("1", "", json!([1, null])),
        ("null", r#","payload":{"data":[]}"#, json!([null, []])),
        (r#"{"code":7}"#, r#","data":"outer""#, json!([{ "code": 7 }, "outer"])),
        (r#""GOOD""#, r#","payload":{"data":1}"#, json!(["GOOD", 1])),
    ] {
        let text =
            format!(r#"{{"header":{{"inReplyTo":"$ABOUT","status":{status},"command":"sendClients","commandData":["alice"]}}{payload}}}"#);
        says(&mut alice, "x", &text, "m");
        let report = alice.gets_json();
        assert_eq!(report["header"]["reason"], "handlerRefused", "{text}");
        assert_eq!(report["header"]["temporary"], false);
        let data = &report["payload"]["data"];
        assert_eq!(json!([data["status"], data["data"]]), expected, "{text}");
    }
    again.got_nothing();
    works(&mut alice, "x");
    assert!(!server.log().contains("WARN"), "a refusal is nobody's mistake");
}

/// What follows `{"header":{"inReplyTo":…,` in an envelope answer, and what the log and the sender are told.
#[rustfmt::skip]
const WRONG: &[(&str, &str)] = &[
    (r#""status":"0","command":"explode"},"payload":{"data":1}}"#, "unknown command `explode`"),
    (r#""status":"0","command":"sendclients","commandData":["bob"]},"payload":{"data":1}}"#, "did you mean `sendClients`?"),
    (r#""status":"0","command":"Reply"},"payload":{"data":1}}"#, "did you mean `reply`?"),
    (r#""status":"0","command":""},"payload":{"data":1}}"#, "unknown command ``"),
    (r#""status":"0","command":"x\u001b[2J\n"},"payload":{"data":1}}"#, "unknown command `x\\u{1b}[2J\\n`"),
    (r#""status":"0"},"payload":{"data":1}}"#, "header.command is missing"),
    (r#""command":"sendClients","commandData":["bob"]},"payload":{"data":1}}"#, "header.status is missing"),
    (r#""Status":"0","command":"none"}}"#, "header.status is missing"),
    (r#""status":"0","command":7},"payload":{"data":1}}"#, "header.command is not a string"),
    (r#""status":"0","command":null},"payload":{"data":1}}"#, "header.command is not a string"),
    (r#""status":"0","command":["reply"]},"payload":{"data":1}}"#, "header.command is not a string"),
    (r#""status":"0","command":"sendClients"},"payload":{"data":1}}"#, "header.commandData is missing"),
    (r#""status":"0","command":"sendClients","commandData":"bob"},"payload":{"data":1}}"#, "header.commandData is not an array of strings"),
    (r#""status":"0","command":"sendClients","commandData":{"bob":1}},"payload":{"data":1}}"#, "header.commandData is not an array of strings"),
    (r#""status":"0","command":"sendClients","commandData":["bob",7]},"payload":{"data":1}}"#, "header.commandData[1] is not a string"),
    (r#""status":"0","command":"sendClients","commandData":["bob",null]},"payload":{"data":1}}"#, "header.commandData[1] is not a string"),
    (r#""status":"0","command":"sendClients","commandData":["bob","\ud800"]},"payload":{"data":1}}"#, "header.commandData[1] is not valid Unicode"),
    (r#""status":"0","command":"sendClients","commandData":["bob","b","c","d","e"]},"payload":{"data":1}}"#, "header.commandData has 5 names, limits.recipients allows 4"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]}}"#, "payload.data is missing"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"type":"x"}}"#, "payload.data is missing"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":[1]}"#, "payload is not an object"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"data":1}"#, "payload.data is missing"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":NaN}}"#, "NaN is not JSON"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":-Infinity}}"#, "-Infinity is not JSON"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":01}}"#, "the answer is not JSON"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":'x'}}"#, "the answer is not JSON"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1}"#, "the answer is not JSON"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1}} {}"#, "the answer is not JSON"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1,"d\u0061ta":2}}"#, "payload.data stands twice"),
    (r#""status":"0","status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1}}"#, "header.status stands twice"),
    (r#""status":"0","command":"sendClients","commandData":["bob"],"commandData":["bob"]},"payload":{"data":1}}"#, "header.commandData stands twice"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1},"payload":{"data":1}}"#, "payload stands twice"),
    (r#""status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":[[[[[[[[[[[]]]]]]]]]]]}}"#, "payload.data is nested deeper than 10"),
    (r#""status":"0","command":"sendHandler"},"payload":{"data":1}}"#, "header.commandData is missing"),
    (r#""status":"0","command":"sendHandler","commandData":["x"]},"payload":{"data":1}}"#, "header.commandData is not a string"),
    (r#""status":"0","command":"sendHandler","commandData":"y"},"payload":{"data":1}}"#, "sendHandler names a type that is not configured"),
    (r#""status":"0","command":"sendHandler","commandData":"builtin"},"payload":{"data":1}}"#, "sendHandler names a type that is not configured"),
    (r#""status":"0","command":"sendClients","commandData":["bob"],"offline":"keep"},"payload":{"data":1}}"#, "header.offline is `keep`, neither `drop` nor `queue`"),
    (r#""status":"0","command":"reply","commands":[]},"payload":{"data":1}}"#, "header.command and header.commands stand side by side"),
    (r#""status":"0","commands":{"command":"reply"}},"payload":{"data":1}}"#, "header.commands is not an array"),
    (r#""status":"0","commands":[{"command":"sendClients","commandData":["bob"]},{"command":"nothing"}]},"payload":{"data":1}}"#, "header.commands[1]: unknown command `nothing`"),
    (r#""status":"0","commands":[{"command":"sendClients","commandData":["bob"]},{"command":"sendHandler","commandData":"y"}]},"payload":{"data":1}}"#, "sendHandler names a type that is not configured"),
    (r#""status":"0","commands":[{"command":"sendClients","commandData":["bob"]},"reply"]},"payload":{"data":1}}"#, "header.commands[1] is not an object"),
    (r#""status":"0","commands":[{"command":"sendClients","commandData":["bob"],"offline":null}]},"payload":{"data":1}}"#, "header.commands[0]: offline is not a string"),
    (r#""status":"0","command":{"type":"sendClients"}},"data":1}"#, "header.command.data is missing"),
    (r#""status":"0","command":{"data":["bob"]}},"data":1}"#, "header.command.type is missing"),
];

#[test]
fn a_wrong_answer_costs_its_own_request_and_reaches_nobody() {
    assert!(WRONG.len() >= 30);
    let limits = r#""limits": { "recipients": 4, "depth": 10 },"#;
    let entries = entry("plain", "", "") + &entry("x", "", r#""envelope": true"#);
    let server = Home::new(&entries, limits, &["alice", "bob"]).serve();
    let (mut alice, mut bob) = (server.log_in("alice"), server.log_in("bob"));
    let mut count = 0;
    let mut wrong = |kind: &str, text: &str, words: &str| {
        says(&mut alice, kind, text, "m");
        let message = bad(&mut alice, "m", "handlerProtocol");
        assert!(message.starts_with(&format!("handler {kind}: ")) && message.contains(words), "{text}: {message}");
        count += 1;
        server.wait_for_times("gave an answer that is not carried out: ", count);
        let line = format!("WARN  dispatcher: handler {kind} gave an answer that is not carried out: {}", &message[kind.len() + 10..]);
        let log = server.log();
        assert!(log.lines().last().is_some_and(|last| last.ends_with(&line)), "{text}: {log}");
        works(&mut alice, kind);
        bob.got_nothing();
    };
    for (rest, words) in WRONG {
        wrong("plain", &format!(r#"{{"header":{{{rest}"#), words);
        wrong("x", &format!(r#"{{"header":{{"inReplyTo":"$ABOUT",{rest}"#), words);
    }
    for (text, words) in [
        ("", "the answer is empty"),
        ("[]", "the answer is not an object"),
        ("null", "the answer is not an object"),
        ("\"reply\"", "the answer is not an object"),
        ("{}", "header.status is missing"),
        (r#"{"header":null}"#, "header is not an object"),
        (r#"{"header":{"status":"0","command":"none"},"header":{}}"#, "header stands twice"),
    ] {
        wrong("plain", text, words);
    }
    drop(alice);
    for kind in ["plain", "x"] {
        assert_eq!(server.log().matches(&format!("handler {kind} started")).count(), 1);
    }
}
