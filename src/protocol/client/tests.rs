//! Frames of clients, good and odd, with exactly what is made of them.

use super::*;
use proptest::prelude::*;

fn read(text: impl AsRef<[u8]>, read_header: bool) -> Result<Message, Refusal> {
    parse(&Frame::from(text.as_ref()), read_header, 4)
}

const BEFORE_LOGIN: bool = true;
const AFTER_LOGIN: bool = false;

/// A row is: before login?, the frame, the message of the refusal. Each is `malformed`.
#[rustfmt::skip]
const MALFORMED: &[(bool, &str, &str)] = &[
    // No JSON.
    (AFTER_LOGIN, "", "the frame is empty"),
    (AFTER_LOGIN, "  ", "the frame is not JSON: expected a value at byte 2, where it ends"),
    (AFTER_LOGIN, "hello", "the frame is not JSON: expected a value at byte 0"),
    (AFTER_LOGIN, "{", "the frame is not JSON: expected a key or `}` at byte 1, where it ends"),
    (AFTER_LOGIN, "{\"payload\"", "the frame is not JSON: expected `:` at byte 10, where it ends"),
    (AFTER_LOGIN, "{\"payload\":", "the frame is not JSON: expected a value at byte 11, where it ends"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",}}", "the frame is not JSON: expected a key at byte 23"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":01}}", "the frame is not JSON: expected `,` or `}` at byte 31"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":NaN}}", "the frame is not JSON: NaN at byte 30; NaN is not JSON, null or a string can stand for it"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1}}x", "the frame is not JSON: expected the end at byte 33"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1}}{}", "the frame is not JSON: expected the end at byte 33"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\n\",\"data\":1}}", "the frame is not JSON: expected an escape instead of a control character at byte 21"),
    (AFTER_LOGIN, "\u{feff}{}", "the frame is not JSON: expected a value at byte 0"),
    (AFTER_LOGIN, "{'payload':1}", "the frame is not JSON: expected a key or `}` at byte 1"),
    (AFTER_LOGIN, "{\"header\":[1,],\"payload\":{\"type\":\"a\",\"data\":1}}", "the frame is not JSON: expected a value at byte 13"),
    (AFTER_LOGIN, "{\"payload\":nope}", "the frame is not JSON: expected a value at byte 11"),
    // Not an object.
    (AFTER_LOGIN, "[]", "the frame is not an object"),
    (AFTER_LOGIN, "null", "the frame is not an object"),
    (AFTER_LOGIN, "\"payload\"", "the frame is not an object"),
    // The payload.
    (AFTER_LOGIN, "{}", "payload is missing"),
    (AFTER_LOGIN, "{\"Payload\":{\"type\":\"a\",\"data\":1}}", "payload is missing"),
    (AFTER_LOGIN, "{\"payload\":null}", "payload is not an object"),
    (AFTER_LOGIN, "{\"payload\":[]}", "payload is not an object"),
    (AFTER_LOGIN, "{\"payload\":\"a\"}", "payload is not an object"),
    (AFTER_LOGIN, "{\"payload\":{}}", "payload.type is missing"),
    (AFTER_LOGIN, "{\"payload\":{\"data\":1}}", "payload.type is missing"),
    (AFTER_LOGIN, "{\"payload\":{\"id\":\"x\"}}", "payload.type is missing"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\"}}", "payload.data is missing"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"Data\":1}}", "payload.data is missing"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":1,\"data\":1}}", "payload.type is not a string"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":null,\"data\":1}}", "payload.type is not a string"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":[\"a\"],\"data\":1}}", "payload.type is not a string"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"\\ud800\",\"data\":1}}", "payload.type is not valid Unicode"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"id\":7}}", "payload.id is not a string"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"id\":null}}", "payload.id is not a string"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"id\":\"\\udc00\"}}", "payload.id is not valid Unicode"),
    // Doubled keys.
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1},\"payload\":{}}", "payload stands twice"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1},\"pay\\u006coad\":{}}", "payload stands twice"),
    (AFTER_LOGIN, "{\"header\":{},\"header\":{},\"payload\":{\"type\":\"a\",\"data\":1}}", "header stands twice"),
    (AFTER_LOGIN, "{\"x\":1,\"x\":2,\"payload\":{\"type\":\"a\",\"data\":1}}", "x stands twice"),
    (AFTER_LOGIN, "{\"x\":1,\"y\":1,\"\\u0078\":2,\"payload\":{\"type\":\"a\",\"data\":1}}", "x stands twice"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"type\":\"b\",\"data\":1}}", "payload.type stands twice"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"d\\u0061ta\":1}}", "payload.data stands twice"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"id\":\"x\",\"id\":\"x\"}}", "payload.id stands twice"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"\":0,\"\":0}}", "payload. stands twice"),
    (AFTER_LOGIN, "{\"payload\":{\"type\":\"a\",\"data\":1,\"\\ud800\":0}}", "a key in payload is not valid Unicode"),
    (AFTER_LOGIN, "{\"\\ud800\":0,\"payload\":{\"type\":\"a\",\"data\":1}}", "a key in the frame is not valid Unicode"),
    // The header, while it counts.
    (BEFORE_LOGIN, "{\"header\":null,\"payload\":{\"type\":\"a\",\"data\":1}}", "header is not an object"),
    (BEFORE_LOGIN, "{\"header\":[],\"payload\":{\"type\":\"a\",\"data\":1}}", "header is not an object"),
    (BEFORE_LOGIN, "{\"header\":\"client\",\"payload\":{\"type\":\"a\",\"data\":1}}", "header is not an object"),
    (BEFORE_LOGIN, "{\"header\":{\"scope\":\"Client\"},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.scope is neither \"client\" nor \"server\""),
    (BEFORE_LOGIN, "{\"header\":{\"scope\":\"\"},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.scope is neither \"client\" nor \"server\""),
    (BEFORE_LOGIN, "{\"header\":{\"scope\":null},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.scope is not a string"),
    (BEFORE_LOGIN, "{\"header\":{\"scope\":\"client\",\"scope\":\"server\"},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.scope stands twice"),
    (BEFORE_LOGIN, "{\"header\":{\"x\":1,\"x\":1},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.x stands twice"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":null},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.authentication is not an object"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":[\"alice\",\"secret\"]}}", "header.authentication is not an object"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{}}}", "header.authentication.username is missing"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"alice\"}}}", "header.authentication.password is missing"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"password\":\"secret\"}}}", "header.authentication.username is missing"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":1,\"password\":\"secret\"}}}", "header.authentication.username is not a string"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"alice\",\"password\":null}}}", "header.authentication.password is not a string"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"alice\",\"password\":\"\\ud800\"}}}", "header.authentication.password is not valid Unicode"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"alice\",\"password\":\"a\",\"password\":\"b\"}}}", "header.authentication.password stands twice"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"alice\",\"password\":\"a\",\"user\\u006eame\":\"bob\"}}}", "header.authentication.username stands twice"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":null},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options is not an object"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"ack\":1}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.ack is neither true nor false"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"ack\":\"true\"}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.ack is neither true nor false"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"after\":true}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.after is not a whole number from 0 to 9223372036854775807"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"after\":\"41\"}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.after is not a whole number from 0 to 9223372036854775807"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"after\":-1}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.after is not a whole number from 0 to 9223372036854775807"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"after\":1e3}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.after is not a whole number from 0 to 9223372036854775807"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"after\":9223372036854775808}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.after is not a whole number from 0 to 9223372036854775807"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"x\":1,\"dedupe\":\"yes\"}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.dedupe is neither true nor false"),
    (BEFORE_LOGIN, "{\"header\":{\"options\":{\"ack\":false,\"ack\":true}},\"payload\":{\"type\":\"a\",\"data\":1}}", "header.options.ack stands twice"),
    // Only a login may do without a payload.
    (BEFORE_LOGIN, "{}", "payload is missing"),
    (BEFORE_LOGIN, "{\"header\":{\"scope\":\"client\"}}", "payload is missing"),
    (BEFORE_LOGIN, "{\"header\":{\"scope\":\"server\"},\"payload\":{}}", "payload.type is missing"),
    (BEFORE_LOGIN, "{\"payload\":null}", "payload is not an object"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"a\",\"password\":\"b\"}},\"payload\":[]}", "payload is not an object"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"a\",\"password\":\"b\"}},\"payload\":{\"x\":1}}", "payload.type is missing"),
    (BEFORE_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"a\",\"password\":\"b\"}},\"payload\":{\"type\":\"a\"}}", "payload.data is missing"),
    // After the login a header's authentication stands for nothing.
    (AFTER_LOGIN, "{\"header\":{\"authentication\":{\"username\":\"a\",\"password\":\"b\"}}}", "payload is missing"),
];

#[test]
fn malformed_frames_are_refused_with_words_that_name_the_fault() {
    assert!(MALFORMED.len() >= 60);
    for (before_login, text, expected) in MALFORMED {
        let refusal = read(text, *before_login).expect_err(text);
        assert_eq!((refusal.reason, refusal.message.as_str()), (Reason::Malformed, *expected), "{text}");
    }
}

/// What does not count is not a fault. A row is: before login?, the frame, scope `server`?, who logs in, and the
/// payload's type, data and id.
type Good = (bool, &'static str, bool, Option<(&'static str, &'static str)>, Option<[&'static str; 3]>);

#[rustfmt::skip]
const GOOD: &[Good] = &[
    (AFTER_LOGIN, r#"{"payload":{"type":"a","data":null}}"#, false, None, Some(["a", "null", ""])),
    (AFTER_LOGIN, r#"{"header":null,"payload":{"type":"a","data":[1],"id":"x"}}"#, false, None, Some(["a", "[1]", "\"x\""])),
    (AFTER_LOGIN, r#"{"header":{"scope":7,"scope":8,"options":{"ack":true}},"payload":{"id":"","data":{},"type":""}}"#, false, None, Some(["", "{}", "\"\""])),
    (AFTER_LOGIN, "\t{ \"payload\" : { \"data\" :\n1 , \"type\" : \"a\" } , \"x\" : [ ] }\r\n", false, None, Some(["a", "1", ""])),
    (AFTER_LOGIN, r#"{"p\u0061yload":{"t\u0079pe":"\u0061\ud83d\ude00\n","data":"\u0061","id":"\u0061"}}"#, false, None, Some(["a😀\n", r#""\u0061""#, r#""\u0061""#])),
    (AFTER_LOGIN, r#"{"payload":{"type":"a","data":1,"x":0,"X":0}}"#, false, None, Some(["a", "1", ""])),
    (AFTER_LOGIN, r#"{"payload":{"type":"a","data":{"type":"b","type":"c","\ud800":1}}}"#, false, None, Some(["a", r#"{"type":"b","type":"c","\ud800":1}"#, ""])),
    (BEFORE_LOGIN, r#"{"payload":{"type":"a","data":1}}"#, false, None, Some(["a", "1", ""])),
    (BEFORE_LOGIN, r#"{"payload":{"type":"a","data":1},"header":{"scope":"server"}}"#, true, None, Some(["a", "1", ""])),
    (BEFORE_LOGIN, r#"{"header":{"scope":"cl\u0069ent","options":{"ack":false,"other":true}},"payload":{"type":"a","data":1}}"#, false, None, Some(["a", "1", ""])),
    (BEFORE_LOGIN, r#"{"header":{"authentication":{"username":"alice","password":"p\u0061ss ä"},"scope":"client"}}"#, false, Some(("alice", "pass ä")), None),
    (BEFORE_LOGIN, r#"{"payload":null,"header":{"authentication":{"password":"","username":"alice","x":1}}}"#, false, Some(("alice", "")), None),
    (BEFORE_LOGIN, r#"{"header":{"authentication":{"username":"alice","password":"p"}},"payload":{ }}"#, false, Some(("alice", "p")), None),
    (BEFORE_LOGIN, r#"{"header":{"authentication":{"username":"alice","password":"p"}},"payload":{"type":"dummy","data":null,"id":"1"}}"#, false, Some(("alice", "p")), Some(["dummy", "null", "\"1\""])),
];

#[test]
fn sound_messages_are_read() {
    for (before_login, text, server, login, payload) in GOOD {
        let message = read(text, *before_login).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
        let header = message.header.as_ref();
        assert_eq!(header.is_some(), *before_login, "{text}");
        assert_eq!(header.is_some_and(|header| header.scope == Scope::Server), *server, "{text}");
        let credentials = header.and_then(|header| header.authentication.as_ref());
        assert_eq!(credentials.map(|c| (c.username.as_str(), c.password.as_str())), *login, "{text}");
        let utf8 = |slice: &Slice| String::from_utf8(slice.bytes().to_vec()).expect("the frame is UTF-8");
        let read = message
            .payload
            .as_ref()
            .map(|payload| [payload.kind.as_str().to_string(), utf8(&payload.data), payload.id.as_ref().map_or(String::new(), utf8)]);
        assert_eq!(read, payload.map(|texts| texts.map(str::to_string)), "{text}");
    }
}

#[test]
fn options_are_read_before_the_login_alone() {
    let read = |options: &str, before_login| {
        let text = format!(r#"{{"header":{{"options":{options}}},"payload":{{"type":"a","data":1}}}}"#);
        read(&text, before_login).expect(options).header.map(|header| header.options)
    };
    let options = |ack, after, dedupe| Some(Options { ack, after, dedupe });
    assert_eq!(read("{}", BEFORE_LOGIN), options(None, None, None));
    assert_eq!(read(r#"{"ack":null,"after":null,"dedupe":null,"other":[]}"#, BEFORE_LOGIN), options(None, None, None));
    assert_eq!(read(r#"{"ack":true,"after":0,"dedupe":false}"#, BEFORE_LOGIN), options(Some(true), Some(0), Some(false)));
    let highest = options(Some(false), Some((1 << 63) - 1), Some(true));
    assert_eq!(read(r#"{"dedupe":true,"\u0061fter":9223372036854775807,"ack":false}"#, BEFORE_LOGIN), highest);
    assert_eq!(read(r#"{"ack":7,"after":-1}"#, AFTER_LOGIN), None);
}

#[test]
fn data_stays_byte_for_byte() {
    for data in [
        "1e999",
        r#""\ud800""#,
        r#"{"a":1,"a":2}"#,
        "1234567890123456789012345678901234567890",
        r#"{"b":1,"a":2}"#,
        "1.0",
        "{ \"a\"\t:\r\n[ ] }",
        "\"\u{2028}\\/\"",
        "-0",
        "[[[[]]]]",
    ] {
        let text = format!("{{\"payload\":{{\"data\": \t{data}\n ,\"type\":\"a\"}}}}");
        let payload = read(&text, AFTER_LOGIN).expect(data).payload.expect(data);
        assert_eq!(payload.data.bytes(), data.as_bytes());
    }
}

fn nested(levels: usize) -> String {
    ["[".repeat(levels), "]".repeat(levels)].concat()
}

/// The limit for `data` is 4 here.
#[test]
fn each_part_has_its_own_depth() {
    let data = "payload.data is nested deeper than 4";
    let outside = "nested deeper than 16 outside of data";
    let payload = r#""payload":{"type":"a","data":1}"#;
    let cases = [
        (format!(r#"{{"payload":{{"type":"a","data":{}}}}}"#, nested(4)), None),
        (format!(r#"{{"payload":{{"type":"a","data":{}}}}}"#, nested(5)), Some(data)),
        (format!(r#"{{"x":{},{payload}}}"#, nested(15)), None),
        (format!(r#"{{"x":{},{payload}}}"#, nested(16)), Some(outside)),
        (format!(r#"{{"header":{},{payload}}}"#, nested(15)), None),
        (format!(r#"{{"header":{},{payload}}}"#, nested(16)), Some(outside)),
        (format!(r#"{{"payload":{{"type":"a","data":1,"x":{}}}}}"#, nested(14)), None),
        (format!(r#"{{"payload":{{"type":"a","data":1,"x":{}}}}}"#, nested(15)), Some(outside)),
        // The first one counts.
        (format!(r#"{{"x":{},"payload":{{"type":"a","data":{}}}}}"#, nested(16), nested(5)), Some(outside)),
    ];
    for (text, expected) in cases {
        let refusal = read(&text, AFTER_LOGIN).err();
        let found = refusal.as_ref().map(|refusal| (refusal.reason, refusal.message.as_str()));
        assert_eq!(found, expected.map(|message| (Reason::TooDeep, message)), "{text}");
    }
    let header = |levels| format!(r#"{{"header":{{"authentication":{{"username":"a","password":"b","x":{}}}}}}}"#, nested(levels));
    assert!(read(header(13), BEFORE_LOGIN).is_ok());
    assert_eq!(read(header(14), BEFORE_LOGIN).map_err(|refusal| refusal.reason), Err(Reason::TooDeep));
    assert!(parse(&Frame::from(br#"{"payload":{"type":"a","data":[]}}"#.as_slice()), false, 0).is_err());
}

/// A row is: the frame, the reason, and the type and id that the report repeats.
#[test]
fn type_and_id_are_known_whatever_else_is_wrong() {
    let deep = nested(1000);
    let long = "x".repeat(129);
    let cases = [
        (format!(r#"{{"payload":{{"data":{deep},"type":"a","id":"x"}}}}"#), Reason::TooDeep, Some("a"), Some("\"x\"")),
        (format!(r#"{{"x":{deep},"payload":{{"data":1,"type":"a","id":"x"}}}}"#), Reason::TooDeep, Some("a"), Some("\"x\"")),
        // Wrong syntax behind it outweighs the depth.
        (format!(r#"{{"payload":{{"data":{deep},"type":"a","id":"x"}},}}"#), Reason::Malformed, Some("a"), Some("\"x\"")),
        (format!(r#"{{"payload":{{"data":{deep}],"type":"a","id":"x"}}}}"#), Reason::Malformed, None, None),
        (r#"{"payload":{"id":"x","type":"a","data":tru}}"#.to_string(), Reason::Malformed, Some("a"), Some("\"x\"")),
        (r#"{"payload":{"id":"x","type":1,"data":1}}"#.to_string(), Reason::Malformed, None, Some("\"x\"")),
        (r#"{"payload":{"id":1,"type":"a","data":1}}"#.to_string(), Reason::Malformed, Some("a"), None),
        (r#"{"payload":{"id":"x","type":"a"}}"#.to_string(), Reason::Malformed, Some("a"), Some("\"x\"")),
        (r#"{"payload":{"id":"x","id":"y","type":"a","data":1}}"#.to_string(), Reason::Malformed, Some("a"), Some("\"x\"")),
        (r#"{"y":1,"y":1,"payload":{"id":"x","type":"a","data":1}}"#.to_string(), Reason::Malformed, Some("a"), Some("\"x\"")),
        (format!(r#"{{"payload":{{"type":"{long}","id":"x"}}}}"#), Reason::Malformed, None, Some("\"x\"")),
    ];
    for (text, reason, kind, id) in cases {
        let refusal = read(&text, AFTER_LOGIN).expect_err(&text);
        assert_eq!(refusal.reason, reason, "{text}");
        assert_eq!(refusal.kind.as_ref().map(Text::as_str), kind, "{text}");
        assert_eq!(refusal.id.as_ref().map(Slice::bytes), id.map(str::as_bytes), "{text}");
    }
    // Bytes that are not UTF-8 are never given out.
    for text in [
        &b"{\"payload\":{\"type\":\"a\xff\",\"id\":\"x\",\"data\":1}}"[..],
        b"{\"payload\":{\"id\":\"\xff\",\"type\":\"\xff\",\"data\":1}}",
    ] {
        let refusal = read(text, AFTER_LOGIN).expect_err("not UTF-8");
        assert!(refusal.message.ends_with("are not UTF-8"), "{}", refusal.message);
        assert_eq!(refusal.kind, None);
        assert!(refusal.id.is_none_or(|id| id.bytes() == b"\"x\""));
    }
    let read_on = read("{\"payload\":{\"data\":\"ä\",\"type\":\"ö\",\"id\":\"ü\"}}", AFTER_LOGIN).expect("UTF-8");
    assert_eq!(read_on.payload.map(|payload| payload.kind), Some(Text::from("ö")));
    // What stands in front of them is still read.
    let refusal = read(b"{\"payload\":{\"type\":\"a\",\"id\":\"x\",\"data\":\"\xff\"}}", AFTER_LOGIN).expect_err("not UTF-8");
    assert_eq!(refusal.message, "the frame is not JSON: the bytes from byte 40 on are not UTF-8");
    assert_eq!(refusal.kind, Some(Text::from("a")));
}

#[test]
fn ids_are_measured_without_their_escapes() {
    let refused = |id: &str| {
        let text = format!(r#"{{"payload":{{"type":"a","data":1,"id":"{id}"}}}}"#);
        read(&text, AFTER_LOGIN).err().map(|refusal| (refusal.message, refusal.id))
    };
    let too_long = Some(("payload.id is longer than 128 bytes".to_string(), None));
    assert_eq!(refused(&"x".repeat(128)), None);
    assert_eq!(refused(&"x".repeat(129)), too_long);
    assert_eq!(refused(&"\\u0061".repeat(128)), None);
    assert_eq!(refused(&"\\u0061".repeat(129)), too_long);
    assert_eq!(refused(&"ä".repeat(64)), None);
    assert_eq!(refused(&"ä".repeat(65)), too_long);
}

#[test]
fn unknown_keys_are_bounded() {
    let text = |count: usize| {
        let keys: String = (0..count).map(|index| format!("\"k{index}\":0,")).collect();
        format!(r#"{{"payload":{{{keys}"type":"a","data":1}}}}"#)
    };
    assert!(read(text(32), AFTER_LOGIN).is_ok());
    let refusal = read(text(33), AFTER_LOGIN).expect_err("33 are too many");
    assert_eq!(refusal.message, "more than 32 unknown keys in payload");
    assert_eq!(refusal.kind, Some(Text::from("a")));
}

#[test]
fn long_or_odd_keys_are_not_repeated_in_full() {
    let key = format!("\\u001b{}", "x".repeat(100));
    let text = format!(r#"{{"{key}":0,"{key}":0,"payload":{{"type":"a","data":1}}}}"#);
    let refusal = read(&text, AFTER_LOGIN).expect_err("doubled");
    assert_eq!(refusal.message, format!("\\u{{1b}}{}… stands twice", "x".repeat(39)));
}

#[test]
fn passwords_are_not_in_debug() {
    let text = r#"{"header":{"authentication":{"username":"alice","password":"hunter2"}}}"#;
    let debug = format!("{:?}", read(text, BEFORE_LOGIN));
    assert!(!debug.contains("hunter2") && !debug.contains("alice"), "{debug}");
}

/// The same by serde, which knows nothing of depth, of ids that are too long, or of unknown keys that stand twice.
#[derive(serde::Deserialize)]
struct Oracle<'a> {
    #[serde(borrow)]
    payload: OraclePayload<'a>,
    /// Only so that a second one is an error.
    #[serde(default, rename = "header")]
    _header: serde::de::IgnoredAny,
}

#[derive(serde::Deserialize)]
struct OraclePayload<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
    #[serde(default, deserialize_with = "some_string")]
    id: Option<String>,
}

fn some_string<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

/// Pieces of frames; put together at random they are often nearly sound.
fn pieces() -> impl Strategy<Value = String> {
    #[rustfmt::skip]
    let piece = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"payload\":{", "\"header\":", "\"type\":\"a\"", "\"data\":1e999", "\"data\":[{}]",
        "\"id\":\"x\"", "\"id\":7", "\"p\\u0061yload\":{", "\"t\\u0079pe\":\"\\n\"", "null", "\"x\"", " ", "\\", "\"", "ä", "-",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn members() -> impl Strategy<Value = String> {
    #[rustfmt::skip]
    let inner = prop::sample::select(vec![
        "\"type\":\"a\"", "\"t\\u0079pe\":\"\\n\"", "\"type\":1", "\"data\":1e999", "\"data\" : {\"a\":[ ]}", "\"data\":\"\\ud800\"",
        "\"id\":\"x\"", "\"id\":null", "\"x\":[]", "\"y\":\"\\ud800\"", "\"Type\":{}", "\"\":0",
    ]);
    let payload = (prop::collection::vec(inner, 0..5), 0..9).prop_map(|(members, form)| match form {
        0 => "\"payload\":null".to_string(),
        1 => "\"payload\":[]".to_string(),
        2 => format!("\"p\\u0061yload\":{{{}}}", members.join(",")),
        _ => format!("\"payload\":{{{}}}", members.join(" , ")),
    });
    let other = prop::sample::select(vec!["\"header\":{\"scope\":1,\"scope\":2}", "\"he\\u0061der\":null", "\"z\":{}", "\"Payload\":0"]);
    let member = prop_oneof![3 => payload, 1 => other.prop_map(str::to_string)];
    prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_read_is_what_serde_reads(text in prop_oneof![3 => members(), 1 => pieces()]) {
        let ours = parse(&Frame::from(text.as_bytes()), false, 100);
        match (ours, serde_json::from_str::<Oracle<'_>>(&text)) {
            (Ok(message), Ok(oracle)) => {
                let payload = message.payload.expect("after the login there is one");
                prop_assert_eq!(payload.kind.as_str(), oracle.payload.kind);
                prop_assert_eq!(payload.data.bytes(), oracle.payload.data.get().as_bytes());
                let id = payload.id.map(|id| serde_json::from_slice::<String>(id.bytes()).expect("it is a string"));
                prop_assert_eq!(id, oracle.payload.id);
            }
            (Ok(_), Err(e)) => prop_assert!(false, "{} was read, but {}", text, e),
            // Unknown keys are the one thing in these frames that serde is more lenient about.
            (Err(refusal), Ok(_)) => prop_assert!(refusal.message.ends_with("stands twice"), "{} {}", text, refusal.message),
            (Err(refusal), Err(_)) => prop_assert_eq!(refusal.reason, Reason::Malformed),
        }
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..60), text in pieces()) {
        for bytes in [&bytes[..], text.as_bytes(), &[text.as_bytes(), &bytes].concat()] {
            let frame = Frame::from(bytes);
            let _ = parse(&frame, true, 2);
            let _ = super::super::handler::parse(&frame, 2, 2);
            let _ = super::super::informer::parse(&frame, 2);
            let _ = super::super::builtin::parse(&Slice::from(bytes));
        }
    }
}

#[test]
fn a_frame_of_a_server_is_known_by_its_scope_whatever_else_is_in_it() {
    for (text, expected) in [
        (r#"{"header":{"authentication":{"method":"invite","secret":"x"},"scope":"server"},"payload":{"type":1}}"#, true),
        (r#"{"payload":7,"header":{"scope":"server"}}"#, true),
        (r#"{"header":{"scope":"client"},"payload":{}}"#, false),
        (r#"{"header":{"scope":"server"},"header":{"scope":"server"}}"#, false),
        (r#"{"header":{"scope":"server"}"#, false),
        (r#"{"payload":{"header":{"scope":"server"}}}"#, false),
        ("[]", false),
    ] {
        assert_eq!(is_of_server(&Frame::from(text.as_bytes())), expected, "{text}");
    }
}
