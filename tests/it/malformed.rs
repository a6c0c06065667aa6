//! What is no message gets its report, reaches no handler, and costs the connection only where it must.

use crate::untouched::{RECORDER, recorded};
use crate::world::{Client, Home, Server, frame, login};
use std::time::{Duration, Instant};

/// How soon after its last report a connection is closed.
const PROMPTLY: Duration = Duration::from_millis(100);

/// One thing that somebody may send.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    reason: &'static str,
    kind: &'static str,
    /// The id in the report, as JSON.
    id: Option<&'static str>,
    /// Stands in the words for people.
    words: &'static str,
    closes: bool,
}

const AUTH: &str = r#"{"authentication":{"username":"alice","password":"password"}}"#;
const AUTH_SPECIAL: Option<&str> = Some(r#""auth_special""#);

fn deep(depth: usize) -> String {
    ["[".repeat(depth), "]".repeat(depth)].concat()
}

/// Frames that end a connection that is not logged in: the text, reason, type, and words.
#[rustfmt::skip]
fn before_login() -> Vec<Case> {
    let login_and = |payload: &str| format!(r#"{{"header":{AUTH},"payload":{payload}}}"#);
    let header_and = |header: &str| format!(r#"{{"header":{header},"payload":{{"type":"rec","data":1,"id":"i"}}}}"#);
    let option = |option: &str| header_and(&AUTH.replacen('{', &format!(r#"{{"options":{{{option}}},"#), 1));
    let text = |name, text: String, reason, kind, words| Case {
        name, bytes: frame(text.as_bytes()), reason, kind, id: AUTH_SPECIAL, words, closes: true,
    };
    let bad = |name, t: &str, words| text(name, t.to_owned(), "malformed", "builtin", words);
    let half = |name, t: String, words| text(name, t, "malformed", "rec", words);
    // Another server logs in with its key; the report is on its message.
    let other = |name, t: String| Case { id: Some("\"i\""), ..text(name, t, "forbidden", "rec", "other servers") };
    let dummy = login("alice", "password");
    let mut cases = vec![
        bad("no byte", "", "is empty"),
        bad("a space", " ", "where it ends"),
        bad("an open brace", "{", "not JSON"),
        bad("null", "null", "not an object"),
        bad("an array", "[]", "not an object"),
        bad("a number", "1", "not an object"),
        bad("a string", "\"hello\"", "not an object"),
        bad("nothing in it", "{}", "payload is missing"),
        bad("a comment", "/* hello */{}", "not JSON"),
        bad("single quotes", "{'payload':null}", "not JSON"),
        bad("a header that is null", r#"{"header":null}"#, "header is not an object"),
        bad("a header alone", r#"{"header":{}}"#, "payload is missing"),
        bad("payload null", r#"{"header":{},"payload":null}"#, "payload is not an object"),
        bad("an empty payload", r#"{"header":{},"payload":{}}"#, "payload.type is missing"),
        bad("payload an array", r#"{"header":{},"payload":[]}"#, "payload is not an object"),
        text("a byte order mark", format!("\u{feff}{dummy}"), "malformed", "builtin", "not JSON"),
        text("something behind it", format!("{dummy}x"), "malformed", "dummy", "expected the end"),
        text("two of them", format!("{dummy}{dummy}"), "malformed", "dummy", "expected the end"),
        text("a comma too many", dummy.replace("null}}", "null,}}"), "malformed", "dummy", "not JSON"),
        text("one byte short", dummy[..dummy.len() - 1].to_owned(), "malformed", "dummy", "not JSON"),
        half("a header that is a string", header_and("\"x\""), "header is not an object"),
        half("another scope", header_and(&AUTH.replacen('{', r#"{"scope":"peer","#, 1)), "header.scope"),
        half("a scope that is a number", header_and(&AUTH.replacen('{', r#"{"scope":1,"#, 1)), "header.scope is not a string"),
        half("a scope in capitals", header_and(&AUTH.replacen('{', r#"{"scope":"Client","#, 1)), "header.scope"),
        other("scope server", header_and(r#"{"scope":"server"}"#)),
        other("scope server with a login", header_and(&AUTH.replacen('{', r#"{"scope":"server","#, 1))),
        half("option ack", option(r#""ack":1"#), "header.options.ack is neither true nor false"),
        half("option after", option(r#""after":-41"#), "header.options.after is not a whole number"),
        half("option dedupe", option(r#""dedupe":"true""#), "header.options.dedupe is neither true nor false"),
        half("options that are an array", header_and(&AUTH.replacen('{', r#"{"options":[],"#, 1)), "header.options is not an object"),
        half("authentication null", header_and(r#"{"authentication":null}"#), "header.authentication is not an object"),
        half("authentication a string", header_and(r#"{"authentication":"alice:password"}"#), "header.authentication is not an object"),
        half("no password", header_and(r#"{"authentication":{"username":"alice"}}"#), "password is missing"),
        half("no username", header_and(r#"{"authentication":{"password":"password"}}"#), "username is missing"),
        half("a password that is a number", header_and(r#"{"authentication":{"username":"alice","password":1}}"#), "password is not a string"),
        half("a name that is no Unicode", header_and(r#"{"authentication":{"username":"\ud800","password":"password"}}"#), "not valid Unicode"),
        half("two names", header_and(r#"{"authentication":{"username":"alice","username":"alice","password":"password"}}"#), "stands twice"),
        half("two names, one escaped", header_and(r#"{"authentication":{"username":"alice","user\u006eame":"alice","password":"password"}}"#), "stands twice"),
        half("two authentications", header_and(&AUTH.replacen('{', r#"{"authentication":{"username":"alice","password":"password"},"#, 1)), "stands twice"),
        text("two headers", format!(r#"{{"header":{AUTH},"header":{AUTH},"payload":{{"type":"rec","data":1}}}}"#), "malformed", "rec", "header stands twice"),
        text("two headers, one escaped", format!(r#"{{"header":{AUTH},"head\u0065r":{AUTH},"payload":{{"type":"rec","data":1}}}}"#), "malformed", "rec", "header stands twice"),
        text("two payloads", format!(r#"{{"header":{AUTH},"payload":{{"type":"rec","data":1}},"payload":{{"type":"rec","data":1}}}}"#), "malformed", "rec", "payload stands twice"),
        text("an unknown key twice", format!(r#"{{"x":1,"x":2,"header":{AUTH},"payload":{{"type":"rec","data":1}}}}"#), "malformed", "rec", "x stands twice"),
        text("a login without a type", login_and(r#"{"data":1,"id":"i"}"#), "malformed", "builtin", "payload.type is missing"),
        text("a login with a type that is null", login_and(r#"{"type":null,"data":1}"#), "malformed", "builtin", "payload.type is not a string"),
        half("a login without data", login_and(r#"{"type":"rec","id":"i"}"#), "payload.data is missing"),
        half("a login with an id that is a number", login_and(r#"{"type":"rec","data":1,"id":7}"#), "payload.id is not a string"),
        half("a login with an id of 129 bytes", login_and(&format!(r#"{{"type":"rec","data":1,"id":"{}"}}"#, "i".repeat(129))), "longer than 128"),
        text("a login with data 101 deep", login_and(&format!(r#"{{"type":"rec","data":{}}}"#, deep(101))), "tooDeep", "rec", "deeper than 100"),
        text("a login with a key 17 deep", format!(r#"{{"x":{},"header":{AUTH},"payload":{{"type":"rec","data":1}}}}"#, deep(16)), "tooDeep", "rec", "deeper than 16"),
        text("no login", r#"{"payload":{"type":"rec","data":1,"id":"i"}}"#.to_owned(), "notAuthenticated", "rec", "log in"),
        text("a header without a login", header_and("{}"), "notAuthenticated", "rec", "log in"),
        text("dummy without a login", r#"{"payload":{"type":"dummy","data":null,"id":"i"}}"#.to_owned(), "notAuthenticated", "dummy", "log in"),
        text("a type of 129 bytes", format!(r#"{{"payload":{{"type":"{}","data":1}}}}"#, "t".repeat(129)), "notAuthenticated", "builtin", "log in"),
    ];
    for command in ["whoami", "handlers", "logout", "ack"] {
        let payload = format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"{command}","args":{{"seq":1}}}}}}}}}}"#);
        cases.push(text("a command that needs a login", payload, "notAuthenticated", "builtin", "log in"));
    }
    let builtin = |name, data: &str, reason, words| Case {
        id: Some("\"i\""), ..text(name, format!(r#"{{"payload":{{"type":"internal","data":{data},"id":"i"}}}}"#), reason, "internal", words)
    };
    cases.extend([
        builtin("an unknown command", r#"{"command":{"type":"dance"}}"#, "unknownCommand", "dance"),
        builtin("a command null", r#"{"command":null}"#, "malformed", "payload.data.command"),
        builtin("an authenticate without arguments", r#"{"command":{"type":"authenticate"}}"#, "malformed", "args"),
        builtin("an authenticate with ack", r#"{"command":{"type":"login","args":{"username":"alice","password":"password","options":{"ack":"x"}}}}"#, "malformed", "ack"),
    ]);
    cases.push(Case { bytes: frame(b"{\"a\":\"\xff\"}"), ..bad("bytes that are no text", "", "not UTF-8") });
    cases.push(Case { bytes: frame(b"\xff\xfe{}"), ..bad("bytes that are no text at all", "", "not UTF-8") });
    // Who speaks TLS from the first byte on is told nothing, which has a test of its own.
    cases.extend(lengths("builtin", AUTH_SPECIAL, 16 << 10).into_iter().filter(|case| case.name != "TLS"));
    cases
}

/// Lengths that are lies. The border of the frame is lost, so the connection ends, logged in or not.
fn lengths(kind: &'static str, id: Option<&'static str>, cap: u32) -> Vec<Case> {
    let case = |name, bytes: &[u8]| Case { name, bytes: bytes.to_vec(), reason: "tooLarge", kind, id, words: "bytes", closes: true };
    vec![
        case("a length over the cap", &(cap + 1).to_le_bytes()),
        case("the greatest length", &u32::MAX.to_le_bytes()),
        case("the greatest signed length", &(i32::MAX as u32).to_le_bytes()),
        case("a length in the other order of bytes", &64u32.to_be_bytes()),
        case("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        case("TLS", &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        case("text without a length", b"{\"payload\":null}"),
    ]
}

/// Frames that cost a logged-in connection nothing but a report.
#[rustfmt::skip]
fn after_login() -> Vec<Case> {
    const I: Option<&str> = Some("\"i\"");
    let text = |name, text: String, reason, kind, id, words| Case {
        name, bytes: frame(text.as_bytes()), reason, kind, id, words, closes: false,
    };
    let bad = |name, t: &str, words| text(name, t.to_owned(), "malformed", "builtin", None, words);
    let payload = |name, p: String, kind, id, words| text(name, format!(r#"{{"header":null,"payload":{p}}}"#), "malformed", kind, id, words);
    let rec = |name, p: &str, words| payload(name, p.to_owned(), "rec", I, words);
    let builtin = |name, data: &str, reason, words| {
        text(name, format!(r#"{{"payload":{{"type":"builtin","data":{data},"id":"i"}}}}"#), reason, "builtin", I, words)
    };
    let long = |bytes| "i".repeat(bytes);
    let mut cases = vec![
        bad("no byte", "", "is empty"),
        bad("a line break", "\n", "where it ends"),
        bad("one byte", "{", "not JSON"),
        bad("a NUL", "\0", "not JSON"),
        bad("null", "null", "not an object"),
        bad("true", "true", "not an object"),
        bad("an array", "[{}]", "not an object"),
        bad("NaN", r#"{"payload":NaN}"#, "NaN"),
        bad("Infinity", r#"{"payload":-Infinity}"#, "Infinity"),
        bad("a number with a plus", r#"{"x":+1}"#, "not JSON"),
        bad("a number that begins with 0", r#"{"x":01}"#, "not JSON"),
        bad("a number that ends with a point", r#"{"x":1.}"#, "not JSON"),
        bad("no key", r#"{:1}"#, "not JSON"),
        bad("a key without quotes", r#"{payload:1}"#, "not JSON"),
        bad("an open string", r#"{"payload"#, "closing quote"),
        bad("an unknown escape", r#"{"x":"\x41"}"#, "escape"),
        bad("half an escape", r#"{"x":"\u00"}"#, "hexadecimal"),
        bad("a control character", "{\"x\":\"\t\"}", "escape"),
        bad("the wrong bracket", r#"{"x":[1}"#, "not JSON"),
        bad("a byte order mark", "\u{feff}{}", "not JSON"),
        bad("no payload", r#"{"header":{}}"#, "payload is missing"),
        bad("an old login with nothing else", &format!(r#"{{"header":{AUTH}}}"#), "payload is missing"),
        bad("payload null", r#"{"payload":null}"#, "payload is not an object"),
        bad("payload empty", r#"{"payload":{}}"#, "payload.type is missing"),
        bad("payload a string", r#"{"payload":"rec"}"#, "payload is not an object"),
        payload("no type", r#"{"data":1,"id":"i"}"#.into(), "builtin", I, "payload.type is missing"),
        payload("a type that is a number", r#"{"id":"i","type":7,"data":1}"#.into(), "builtin", I, "payload.type is not a string"),
        payload("a type that is no Unicode", r#"{"id":"i","type":"\ud800","data":1}"#.into(), "builtin", I, "payload.type is not valid Unicode"),
        rec("no data", r#"{"type":"rec","id":"i"}"#, "payload.data is missing"),
        rec("two types", r#"{"type":"rec","type":"rec","data":1,"id":"i"}"#, "payload.type stands twice"),
        rec("two types, one escaped", r#"{"type":"rec","\u0074ype":"rec","data":1,"id":"i"}"#, "payload.type stands twice"),
        rec("two datas", r#"{"type":"rec","data":1,"data":2,"id":"i"}"#, "payload.data stands twice"),
        rec("two datas, both escaped", r#"{"type":"rec","dat\u0061":1,"d\u0061ta":2,"id":"i"}"#, "payload.data stands twice"),
        rec("two ids", r#"{"type":"rec","data":1,"id":"i","id":"j"}"#, "payload.id stands twice"),
        rec("an unknown key twice", r#"{"type":"rec","data":1,"id":"i","x":1,"\u0078":2}"#, "x stands twice"),
        rec("data that breaks off", r#"{"type":"rec","id":"i","data":tru}"#, "not JSON"),
        rec("data NaN", r#"{"type":"rec","id":"i","data":[NaN]}"#, "NaN"),
        rec("a raw line break in data", "{\"type\":\"rec\",\"id\":\"i\",\"data\":\"\n\"}", "escape"),
        payload("an id that is a number", r#"{"type":"rec","data":1,"id":7}"#.into(), "rec", None, "payload.id is not a string"),
        payload("an id that is null", r#"{"type":"rec","data":1,"id":null}"#.into(), "rec", None, "payload.id is not a string"),
        payload("an id that is an object", r#"{"type":"rec","data":1,"id":{}}"#.into(), "rec", None, "payload.id is not a string"),
        payload("an id that is no Unicode", r#"{"type":"rec","data":1,"id":"\udfff"}"#.into(), "rec", None, "payload.id is not valid Unicode"),
        payload("an id of 129 bytes", format!(r#"{{"type":"rec","data":1,"id":"{}"}}"#, long(129)), "rec", None, "longer than 128"),
        payload("an id of 128 letters and 129 bytes", format!(r#"{{"type":"rec","data":1,"id":"{}ä"}}"#, long(127)), "rec", None, "longer than 128"),
        text("two payloads", r#"{"payload":{"type":"rec","data":1,"id":"i"},"payload":{"type":"rec","data":1,"id":"j"}}"#.into(), "malformed", "rec", I, "payload stands twice"),
        text("two headers", r#"{"header":1,"header":2,"payload":{"type":"rec","data":1,"id":"i"}}"#.into(), "malformed", "rec", I, "header stands twice"),
        text("data 101 deep", format!(r#"{{"payload":{{"type":"rec","data":{},"id":"i"}}}}"#, deep(101)), "tooDeep", "rec", I, "deeper than 100"),
        text("a header 17 deep", format!(r#"{{"header":{},"payload":{{"type":"rec","data":1,"id":"i"}}}}"#, deep(16)), "tooDeep", "rec", I, "deeper than 16"),
        text("a key of payload 17 deep", format!(r#"{{"payload":{{"x":{},"type":"rec","data":1,"id":"i"}}}}"#, deep(15)), "tooDeep", "rec", I, "deeper than 16"),
        text("brackets without end", format!(r#"{{"payload":{{"type":"rec","id":"i","data":{}"#, "[".repeat(900_000)), "malformed", "rec", I, "not JSON"),
        text("another type", r#"{"payload":{"type":"other","data":1,"id":"i"}}"#.into(), "unknownType", "other", I, "no handler"),
        text("a type in capitals", r#"{"payload":{"type":"REC","data":1,"id":"i"}}"#.into(), "unknownType", "REC", I, "no handler"),
        builtin("a command null", "null", "malformed", "payload.data is not an object"),
        builtin("a command that is a string", r#"{"command":"ping"}"#, "malformed", "payload.data.command is not an object"),
        builtin("no command", "{}", "malformed", "payload.data.command is missing"),
        builtin("a command without a type", r#"{"command":{}}"#, "malformed", "payload.data.command.type is missing"),
        builtin("a command with a type that is a number", r#"{"command":{"type":1}}"#, "malformed", "not a string"),
        builtin("two commands", r#"{"command":{"type":"ping"},"command":{"type":"ping"}}"#, "malformed", "stands twice"),
        builtin("two types of a command", r#"{"command":{"type":"ping","t\u0079pe":"ping"}}"#, "malformed", "stands twice"),
        builtin("an unknown command", r#"{"command":{"type":"dance"}}"#, "unknownCommand", "dance"),
        builtin("a command in another case", r#"{"command":{"type":"Ping"}}"#, "unknownCommand", "did you mean `ping`"),
        builtin("arguments that are an array", r#"{"command":{"type":"ping","args":[]}}"#, "malformed", "args is not an object"),
        builtin("no arguments", r#"{"command":{"type":"changePassword"}}"#, "malformed", "args is missing"),
        builtin("no new password", r#"{"command":{"type":"changePassword","args":{"oldPassword":"password"}}}"#, "malformed", "newPassword is missing"),
        builtin("a new password that is too short", r#"{"command":{"type":"changePassword","args":{"oldPassword":"password","newPassword":"short"}}}"#, "malformed", "8"),
        builtin("an ack without its number", r#"{"command":{"type":"ack","args":{}}}"#, "malformed", "args.seq is missing"),
        builtin("an ack with half a number", r#"{"command":{"type":"ack","args":{"seq":0.5}}}"#, "malformed", "args.seq is not a whole number"),
    ];
    cases.push(Case { bytes: frame(b"{\"payload\":{\"id\":\"i\",\"type\":\"rec\",\"data\":\"\xc3\"}}"), ..rec("a letter cut in two", "", "not UTF-8") });
    cases.push(Case { bytes: frame(b"{\"payload\":{\"id\":\"i\",\"type\":\"rec\",\"data\":\"\xed\xa0\x80\"}}"), ..rec("a surrogate in bytes", "", "not UTF-8") });
    cases.extend(lengths("builtin", None, 1 << 20));
    cases
}

fn serve() -> Server {
    let home = Home::new(r#""rec": { "handlerBinary": "rec.py" },"#, "", &["alice"]);
    home.program("rec.py", RECORDER);
    home.serve()
}

/// Sends one case; gives how long after the report the connection was closed.
#[track_caller]
fn run(case: &Case, mut client: Client, logged_in: bool) -> Duration {
    let Case { name, reason, kind, id, words, .. } = case;
    if logged_in {
        client.log_in("alice");
    }
    client.tries_to_send(&case.bytes);
    let report = client.gets();
    let reported = Instant::now();
    let json: serde_json::Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{name}: {error}: {report}"));
    let message = &json["payload"]["data"]["message"];
    assert!(message.as_str().is_some_and(|message| message.contains(words)), "{name}: {report}");
    let id = id.map_or(String::new(), |id| format!(r#","id":{id}"#));
    let expected = format!(
        r#"{{"header":{{"status":"bad","messageType":"statusReport","reason":"{reason}","temporary":false}},"payload":{{"data":{{"message":{message}}},"type":"{kind}"{id}}}}}"#
    );
    assert_eq!(report, expected, "{name}");
    if case.closes {
        assert_eq!(client.receives(), None, "{name} should end the connection");
    } else {
        client.got_nothing();
    }
    reported.elapsed()
}

/// The machine may be busy with something else, but not three times.
#[track_caller]
fn check(case: &Case, connect: &dyn Fn() -> Client, logged_in: bool) {
    let mut took = Duration::MAX;
    for _ in 0..3 {
        took = took.min(run(case, connect(), logged_in));
        if took < PROMPTLY || !case.closes {
            return;
        }
    }
    panic!("{}: the connection was closed {took:?} after the report", case.name);
}

fn check_all(cases: &[Case], logged_in: bool) {
    let server = serve();
    for case in cases {
        check(case, &|| server.connect(), logged_in);
    }
    for case in cases.iter().step_by(7) {
        check(case, &|| server.connect_tcp6(), logged_in);
        check(case, &|| server.connect_unix(), logged_in);
    }
    assert_eq!(recorded(server.home.path()), b"", "a handler got something");
    server.stop();
}

#[test]
fn before_login_each_mistake_ends_the_connection() {
    check_all(&before_login(), false);
}

#[test]
fn after_login_only_a_lost_border_ends_the_connection() {
    check_all(&after_login(), true);
}

#[test]
fn the_caps_themselves_are_allowed() {
    let server = serve();
    let mut client = server.connect();
    // The login is the largest that there may be, and so is what comes after it.
    let login = login("alice", "password");
    client.sends(&format!("{login}{}", " ".repeat((16 << 10) - login.len())));
    assert!(client.gets().contains("auth_special"));
    let message = r#"{"payload":{"type":"rec","data":1,"id":"i"}}"#;
    client.sends(&format!("{}{message}", " ".repeat((1 << 20) - message.len())));
    client.gets();
    assert_eq!(client.gets_json()["header"]["status"], "good");

    for (id, data) in [(&*"i".repeat(128), "1"), (&format!("{}\\u00e4", "i".repeat(126)), "1"), ("i", &deep(100)), ("", "1")] {
        client.sends(&format!(r#"{{"header":{},"payload":{{"type":"rec","data":{data},"id":"{id}"}}}}"#, deep(15)));
        assert!(client.gets().contains("receivedMessage"), "{id} {data}");
        let report = client.gets();
        assert!(report.contains(r#""status":"good""#) && report.ends_with(&format!(r#","id":"{id}"}}}}"#)), "{report}");
    }
}

#[test]
fn headers_after_the_login_may_be_anything() {
    let server = serve();
    let mut client = server.log_in("alice");
    for header in [
        "null",
        "7",
        "[]",
        r#""x""#,
        r#"{"scope":"server","options":{"ack":true}}"#,
        r#"{"authentication":{"username":"bob","password":"x"}}"#,
        r#"{"scope":1,"scope":2,"\ud800":3}"#,
    ] {
        client.sends(&format!(r#"{{"header":{header},"payload":{{"type":"rec","data":1}}}}"#));
        assert!(client.gets().contains("receivedMessage"), "{header}");
    }
    client.sends(r#"{"payload":{"type":"rec","data":1}}"#);
    assert!(client.gets().contains("receivedMessage"));
    client.got_nothing();
}

#[test]
fn ten_in_a_row_end_a_connection() {
    let server = serve();
    for bad in ["{", &format!(r#"{{"payload":{{"type":"rec","data":{}}}}}"#, deep(101)), r#"{"payload":{"type":"builtin","data":7}}"#] {
        let mut client = server.log_in("alice");
        for round in 1..=10 {
            client.sends(bad);
            let report = client.gets();
            assert!(report.contains(r#""status":"bad""#), "{round}: {report}");
        }
        client.is_closed();
    }
}

#[test]
fn nine_in_a_row_and_a_good_one_do_not() {
    let server = serve();
    let mut client = server.log_in("alice");
    for _ in 0..3 {
        for _ in 0..9 {
            client.sends("{");
            assert!(client.gets().contains("malformed"));
        }
        client.sends_message("rec", "1", "i");
        client.gets();
        assert_eq!(client.gets_json()["header"]["status"], "good");
    }
    // Others than these do not count.
    for _ in 0..20 {
        client.sends_message("other", "1", "i");
        assert!(client.gets().contains("unknownType"));
    }
    client.got_nothing();
}

#[test]
fn an_end_in_the_middle_of_a_frame_is_quiet() {
    let server = serve();
    let message = frame(br#"{"payload":{"type":"rec","data":1,"id":"i"}}"#);
    let whole_login = frame(login("alice", "password").as_bytes());
    for mut client in [server.connect(), server.connect_tcp6(), server.connect_unix()] {
        for cut in [0, 1, 3, 4, 5, message.len() - 1] {
            let mut other = server.connect();
            other.log_in("alice");
            other.sends_bytes(&message[..cut]);
            other.ends_input();
            other.is_closed();
        }
        client.sends_bytes(&whole_login[..whole_login.len() - 1]);
        client.ends_input();
        client.is_closed();
    }
    assert_eq!(recorded(server.home.path()), b"", "a part of a message reached a handler");
}

#[test]
fn a_length_that_is_too_short_hides_nothing() {
    let server = serve();
    let mut client = server.log_in("alice");
    let message = br#"{"payload":{"type":"rec","data":1,"id":"i"}}"#;
    let mut bytes = frame(message);
    bytes[0] -= 1; // the last brace is the begin of the next frame now
    client.sends_bytes(&bytes);
    assert!(client.gets().contains("malformed"));
    client.ends_input();
    client.is_closed();
    assert_eq!(recorded(server.home.path()), b"", "a part of a message reached a handler");
}

#[test]
fn frames_may_come_in_any_pieces() {
    let server = serve();
    let mut client = server.connect();
    let mut bytes = frame(login("alice", "password").as_bytes());
    bytes.extend(frame(br#"{"payload":{"type":"rec","data":[1],"id":"i"}}"#));
    for byte in bytes {
        client.sends_bytes(&[byte]);
    }
    assert!(client.gets().contains("auth_special"));
    assert!(client.gets().contains(r#""data":[1]"#));
    assert!(client.gets().contains(r#""status":"good""#));
    assert_eq!(recorded(server.home.path()), frame(b"[1]"));
}
