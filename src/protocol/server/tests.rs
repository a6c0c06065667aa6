use super::*;

const DEPTH: usize = 5;

fn frame(text: &str) -> Frame {
    Frame::from(text.as_bytes())
}

fn text(packet: &Packet) -> String {
    String::from_utf8(packet.body().into_owned()).expect("UTF-8")
}

/// What a message is read as, or what is wrong with it.
fn read(text: &str) -> String {
    match parse(&frame(text), DEPTH) {
        Ok(Message { header: Header { server, message_id, hops, from, secret }, payload }) => {
            let [server, message_id, from, secret] =
                [server, message_id, from, secret].map(|text| text.map_or("-".to_owned(), |text| text.as_str().to_owned()));
            let id = payload.id.map_or("-".into(), |id| String::from_utf8_lossy(id.bytes()).into_owned());
            let data = String::from_utf8_lossy(payload.data.bytes()).into_owned();
            format!("{server} {message_id} {hops} {from} {secret} | {} {id} {data}", payload.kind.as_str())
        }
        Err(Refusal { reason, message, .. }) => format!("{reason}: {message}"),
    }
}

#[test]
fn what_is_written_can_be_read() {
    let data = Slice::from(&b"{\"a\":1.0}"[..]);
    let packet = message("a.example", "a.example/5f-1", 2, Some("alice"), "chat", &data);
    let expected = r#"{"header":{"scope":"server","server":"a.example","messageId":"a.example/5f-1","hops":2,"from":"alice"},"payload":{"type":"chat","id":"a.example/5f-1","data":{"a":1.0}}}"#;
    assert_eq!(text(&packet), expected);
    assert_eq!(read(expected), r#"a.example a.example/5f-1 2 alice - | chat "a.example/5f-1" {"a":1.0}"#);
    let packet = message("a.example", "a.example/5f-1", 1, None, "chat", &data);
    assert_eq!(read(&text(&packet)), r#"a.example a.example/5f-1 1 - - | chat "a.example/5f-1" {"a":1.0}"#);
    let join = command("b.example", "join", "join", r#"{"addresses":["b:1"]}"#, Some("s3"));
    assert_eq!(read(&text(&join)), r#"b.example - 1 - s3 | builtin "join" {"command":{"type":"join","args":{"addresses":["b:1"]}}}"#);
    let ping = command("b.example", "hello", "ping", "null", None);
    assert_eq!(read(&text(&ping)), r#"b.example - 1 - - | builtin "hello" {"command":{"type":"ping","args":null}}"#);
}

#[test]
fn what_the_founding_text_says_is_enough() {
    assert_eq!(read(r#"{"header":{"scope":"server"},"payload":{"type":"chat","data":1}}"#), "- - 1 - - | chat - 1");
}

#[test]
fn what_is_wrong_is_named() {
    for (text, wrong) in [
        (r#"{"payload":{"type":"chat","data":1}}"#, "malformed: header.scope is not \"server\" on a connection of a server"),
        (
            r#"{"header":{"scope":"client"},"payload":{"type":"c","data":1}}"#,
            "malformed: header.scope is not \"server\" on a connection of a server",
        ),
        (r#"{"header":{"scope":"server"}}"#, "malformed: payload.type is missing"),
        (r#"{"header":{"scope":"server"},"payload":{"type":"c"}}"#, "malformed: payload.data is missing"),
        (r#"{"header":{"scope":"server","scope":"server"},"payload":{"type":"c","data":1}}"#, "malformed: header.scope stands twice"),
        (
            r#"{"header":{"scope":"server","server":"a","server":"b"},"payload":{"type":"c","data":1}}"#,
            "malformed: header.server stands twice",
        ),
        (
            r#"{"header":{"scope":"server","messageId":"a","\u006dessageId":"b"},"payload":{"type":"c","data":1}}"#,
            "malformed: header.messageId stands twice",
        ),
        (
            r#"{"header":{"scope":"server","hops":-1},"payload":{"type":"c","data":1}}"#,
            "malformed: header.hops is not a whole number from 0 to 9223372036854775807",
        ),
        (r#"{"header":{"scope":"server","server":7},"payload":{"type":"c","data":1}}"#, "malformed: header.server is not a string"),
        (
            r#"{"header":{"scope":"server","authentication":{"method":"x"}},"payload":{"type":"c","data":1}}"#,
            "malformed: header.authentication.method is not \"invite\"",
        ),
        (r#"{"header":{"scope":"server"},"payload":{"type":"c","data":[[[[[[1]]]]]]}}"#, "tooDeep: payload.data is nested deeper than 5"),
    ] {
        assert_eq!(read(text), wrong, "{text}");
    }
    let long = "x".repeat(MESSAGE_ID_BYTES_MAX + 1);
    let with =
        |header: &str, id: &str| read(&format!(r#"{{"header":{{"scope":"server"{header}}},"payload":{{"type":"c","data":1{id}}}}}"#));
    assert!(with(&format!(r#","messageId":"{long}""#), "").contains("longer than"));
    assert!(with("", &format!(r#","id":"{long}""#)).contains("longer than"));
}

#[test]
fn reports_are_read_whoever_wrote_them() {
    let read = |text: &str| report(&frame(text), 3);
    let good = read(r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"type":"chat","id":"a/1","data":null}}"#);
    assert!(matches!(&good, Ok(Report { good: true, id: Some(id), .. }) if id.as_str() == "a/1"), "{good:?}");
    let bad = read(
        r#"{"header":{"status":"bad","reason":"busy","temporary":true},"payload":{"id":"a/1","data":{"x":[1],"message":"try again"}}}"#,
    );
    let bad = bad.expect("a report");
    assert!(!bad.good && bad.temporary);
    assert_eq!(bad.reason.as_ref().map(Text::as_str), Some("busy"));
    assert_eq!(bad.message.as_ref().map(Text::as_str), Some("try again"));
    let bare = read(r#"{"header":{"status":"bad"}}"#).expect("a report");
    assert_eq!(bare, Report::default());
    for wrong in ["", "[]", "{", r#"{"header":{"status":7}}"#, r#"{"header":{"status":"good","status":"bad"}}"#] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
