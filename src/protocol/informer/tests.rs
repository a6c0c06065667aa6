//! Questions of handlers, good and odd.

use super::*;

fn read(text: &str) -> Result<(String, Option<String>), String> {
    let question = parse(&Frame::from(text.as_bytes()), 3)?;
    let data = question.data.map(|data| String::from_utf8(data.bytes().to_vec()).expect("the frame is UTF-8"));
    Ok((question.kind.as_str().to_string(), data))
}

#[test]
fn questions_are_read() {
    let cases = [
        (r#"{"command":{"type":"listClients"}}"#, "listClients", None),
        (r#"{"command":{"data":"alice" ,"type":"isClient"}}"#, "isClient", Some("\"alice\"")),
        (r#"{"x":1,"command":{"type":"push","data":{"a":[ 1.0,[]]}}}"#, "push", Some(r#"{"a":[ 1.0,[]]}"#)),
        (r#"{"command":{"type":"quit","data":null}}"#, "quit", Some("null")),
    ];
    for (text, kind, data) in cases {
        assert_eq!(read(text), Ok((kind.to_string(), data.map(str::to_string))), "{text}");
    }
}

#[test]
fn wrong_questions_are_refused() {
    let cases = [
        ("", "the frame is empty"),
        ("quit", "the frame is not JSON: expected a value at byte 0"),
        ("[]", "the frame is not an object"),
        ("{}", "command is missing"),
        (r#"{"command":"quit"}"#, "command is not an object"),
        (r#"{"command":{}}"#, "command.type is missing"),
        (r#"{"command":{"type":null}}"#, "command.type is not a string"),
        (r#"{"command":{"type":"a","type":"a"}}"#, "command.type stands twice"),
        (r#"{"command":{"type":"push","data":[[[[]]]]}}"#, "command.data is nested deeper than 3"),
        (r#"{"command":{"type":"quit"}} x"#, "the frame is not JSON: expected the end at byte 28"),
    ];
    for (text, message) in cases {
        assert_eq!(read(text), Err(message.to_string()), "{text}");
    }
}

#[test]
fn answers_are_written() {
    assert_eq!(success(br#"["alice"]"#).body()[..], br#"{"status":"0","data":["alice"]}"#[..]);
    assert_eq!(failure("no \"x\"").body()[..], br#"{"status":"1","data":null,"message":"no \"x\""}"#[..]);
    assert_eq!(success(b"1").parts().concat()[..4], [23, 0, 0, 0]);
}

#[test]
fn arguments_are_strings_or_lists_of_them() {
    let slice = |data: &str| Slice::from(data.as_bytes());
    assert_eq!(text(&slice(r#""ali\u0063e""#)), Ok(Text::from("alice")));
    assert_eq!(text(&slice(" \"\" ")), Ok(Text::from("")));
    for (data, message) in [
        ("1", "command.data is not a string"),
        (r#""\ud800""#, "command.data is not valid Unicode"),
        (r#""a" 1"#, "command.data is not JSON: expected the end at byte 4"),
        ("", "command.data is not JSON: it is empty"),
    ] {
        assert_eq!(text(&slice(data)), Err(message.to_string()), "{data}");
    }
    assert_eq!(texts(&slice(r#" [ "a" , "\u0062" ] "#), 2), Ok(vec![Text::from("a"), Text::from("b")]));
    assert_eq!(texts(&slice("[]"), 0), Ok(vec![]));
    for (data, message) in [
        (r#""a""#, "command.data is not an array of strings"),
        (r#"["a",1]"#, "command.data[1] is not a string"),
        (r#"["\ud800"]"#, "command.data[0] is not valid Unicode"),
        (r#"["a","b","c",4]"#, "command.data has 4 names, 2 are allowed"),
        (r#"["a"]]"#, "command.data is not JSON: expected the end at byte 5"),
    ] {
        assert_eq!(texts(&slice(data), 2), Err(message.to_string()), "{data}");
    }
}
