//! Commands to the server, good and odd.

use super::*;

fn read(text: &str) -> Result<Builtin, (Reason, String)> {
    parse(&Slice::from(text.as_bytes()))
}

#[test]
fn commands_are_read() {
    let t = |text: &str| Text::from(text);
    let alice_with = |options| Builtin::Authenticate { username: t("alice"), password: t("p"), options };
    let alice = || alice_with(Options::default());
    let register = |token: Option<&str>| Builtin::Register { username: t("alice"), password: t("p"), token: token.map(t) };
    #[rustfmt::skip]
    let cases = [
        (r#"{"command":{"type":"authenticate","args":{"username":"alice","password":"p"}}}"#, alice()),
        (r#"{"command":{"args":{"password":"\u0070","username":"alice","x":[]},"type":"login"}}"#, alice()),
        (r#"{"command":{"type":"authenticate","args":{"username":"alice","password":"p","options":{"x":1}}}}"#, alice()),
        (r#"{"command":{"type":"login","args":{"options":{"ack":true,"after":41,"dedupe":false},"username":"alice","password":"p"}}}"#, alice_with(Options { ack: Some(true), after: Some(41), dedupe: Some(false) })),
        (r#"{"command":{"type":"login","args":{"username":"alice","password":"p","options":{"ack":null,"after":null,"dedupe":null}}}}"#, alice()),
        (r#"{"command":{"type":"logout"}}"#, Builtin::Logout),
        (r#"{"command":{"type":"changePassword","args":{"oldPassword":"a","newPassword":"b"}}}"#, Builtin::ChangePassword { old: t("a"), new: t("b") }),
        (r#"{"command":{"type":"register","args":{"username":"alice","password":"p"}}}"#, register(None)),
        (r#"{"command":{"type":"register","args":{"username":"alice","password":"p","token":null}}}"#, register(None)),
        (r#"{"command":{"type":"register","args":{"username":"alice","password":"p","token":"k"}}}"#, register(Some("k"))),
        (r#"{"command":{"type":"whoami","args":null}}"#, Builtin::Whoami),
        (r#"{"command":{"type":"handlers","args":{"x":1}}}"#, Builtin::Handlers),
        (r#" { "x":1, "command" : { "type" : "p\u0069ng" } } "#, Builtin::Ping),
        (r#"{"command":{"type":"close","args":{}}}"#, Builtin::Close),
        (r#"{"command":{"type":"ack","args":{"x":1,"seq":0}}}"#, Builtin::Ack { seq: 0 }),
        (r#"{"command":{"type":"ack","args":{"seq":9223372036854775807}}}"#, Builtin::Ack { seq: (1 << 63) - 1 }),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text), Ok(expected), "{text}");
    }
}

#[test]
fn wrong_commands_are_refused() {
    #[rustfmt::skip]
    let malformed = [
        ("1", "payload.data is not an object"),
        ("null", "payload.data is not an object"),
        ("{}", "payload.data.command is missing"),
        (r#"{"command":"ping"}"#, "payload.data.command is not an object"),
        (r#"{"command":{}}"#, "payload.data.command.type is missing"),
        (r#"{"command":{"type":1}}"#, "payload.data.command.type is not a string"),
        (r#"{"command":{"type":"ping"},"command":{"type":"close"}}"#, "payload.data.command stands twice"),
        (r#"{"command":{"type":"ping","type":"close"}}"#, "payload.data.command.type stands twice"),
        (r#"{"command":{"type":"ping","args":{},"args":{}}}"#, "payload.data.command.args stands twice"),
        (r#"{"command":{"type":"ping","args":[]}}"#, "payload.data.command.args is not an object"),
        (r#"{"command":{"type":"login"}}"#, "payload.data.command.args is missing"),
        (r#"{"command":{"type":"login","args":null}}"#, "payload.data.command.args is not an object"),
        (r#"{"command":{"type":"login","args":{"password":"p"}}}"#, "payload.data.command.args.username is missing"),
        (r#"{"command":{"type":"login","args":{"username":"alice"}}}"#, "payload.data.command.args.password is missing"),
        (r#"{"command":{"type":"login","args":{"username":"alice","password":7}}}"#, "payload.data.command.args.password is not a string"),
        (r#"{"command":{"type":"login","args":{"username":"alice","password":"p","password":"q"}}}"#, "payload.data.command.args.password stands twice"),
        (r#"{"command":{"type":"login","args":{"username":"alice","password":"p","options":{"ack":1}}}}"#, "payload.data.command.args.options.ack is neither true nor false"),
        (r#"{"command":{"type":"login","args":{"username":"alice","password":"p","options":{"after":-1}}}}"#, "payload.data.command.args.options.after is not a whole number from 0 to 9223372036854775807"),
        (r#"{"command":{"type":"ack"}}"#, "payload.data.command.args is missing"),
        (r#"{"command":{"type":"ack","args":{}}}"#, "payload.data.command.args.seq is missing"),
        (r#"{"command":{"type":"ack","args":7}}"#, "payload.data.command.args is not an object"),
        (r#"{"command":{"type":"ack","args":{"seq":1,"seq":2}}}"#, "payload.data.command.args.seq stands twice"),
        (r#"{"command":{"type":"ack","args":{"seq":"1"}}}"#, "payload.data.command.args.seq is not a whole number from 0 to 9223372036854775807"),
        (r#"{"command":{"type":"ack","args":{"seq":null}}}"#, "payload.data.command.args.seq is not a whole number from 0 to 9223372036854775807"),
        (r#"{"command":{"type":"ack","args":{"seq":1.0}}}"#, "payload.data.command.args.seq is not a whole number from 0 to 9223372036854775807"),
        (r#"{"command":{"type":"ack","args":{"seq":9223372036854775808}}}"#, "payload.data.command.args.seq is not a whole number from 0 to 9223372036854775807"),
        (r#"{"command":{"type":"login","args":{"username":"alice","password":"p","options":1}}}"#, "payload.data.command.args.options is not an object"),
        (r#"{"command":{"type":"changePassword","args":{"oldPassword":"a"}}}"#, "payload.data.command.args.newPassword is missing"),
        (r#"{"command":{"type":"changePassword","args":{"newPassword":"\ud800"}}}"#, "payload.data.command.args.newPassword is not valid Unicode"),
        (r#"{"command":{"type":"register","args":{"username":"alice","password":"p","token":1}}}"#, "payload.data.command.args.token is not a string"),
        (r#"{"command":{"type":"ping"}"#, "payload.data is not JSON: expected `,` or `}` at byte 26, where it ends"),
    ];
    for (text, message) in malformed {
        assert_eq!(read(text), Err((Reason::Malformed, message.to_string())), "{text}");
    }
    let unknown = [
        ("reboot", "unknown command `reboot`"),
        ("change_password", "unknown command `change_password`; did you mean `changePassword`?"),
        ("handler", "unknown command `handler`; did you mean `handlers`?"),
        ("", "unknown command ``"),
    ];
    for (kind, message) in unknown {
        let text = format!(r#"{{"command":{{"type":"{kind}","args":7}}}}"#);
        assert_eq!(read(&text), Err((Reason::UnknownCommand, message.to_string())), "{text}");
    }
}

#[test]
fn commands_have_names_and_some_need_no_login() {
    #[rustfmt::skip]
    let cases = [
        ("login", "authenticate", true), ("logout", "logout", false), ("changePassword", "changePassword", false),
        ("register", "register", true), ("whoami", "whoami", false), ("handlers", "handlers", false),
        ("ping", "ping", true), ("ack", "ack", false), ("close", "close", true),
    ];
    let args = r#"{"username":"a","password":"b","oldPassword":"c","newPassword":"d","seq":1}"#;
    for (kind, name, before_login) in cases {
        let builtin = read(&format!(r#"{{"command":{{"type":"{kind}","args":{args}}}}}"#)).expect(kind);
        assert_eq!((builtin.name(), builtin.before_login()), (name, before_login), "{kind}");
    }
}

#[test]
fn servers_have_commands_of_their_own() {
    let read = |text: &str| parse_of_server(&Slice::from(format!(r#"{{"command":{text}}}"#).as_bytes()), 2);
    assert_eq!(read(r#"{"type":"ping","args":null}"#), Ok(ServerCommand::Ping));
    assert_eq!(read(r#"{"type":"dialBack"}"#), Ok(ServerCommand::DialBack));
    let addresses = vec![Text::from("a:1"), Text::from("b:2")];
    assert_eq!(read(r#"{"type":"join","args":{"addresses":["a:1","b:2"]}}"#), Ok(ServerCommand::Join { addresses }));
    let path = "payload.data.command.args.addresses";
    for (text, words) in [
        (r#"{"type":"join"}"#, "payload.data.command.args is missing".to_owned()),
        (r#"{"type":"join","args":{}}"#, format!("{path} is missing")),
        (r#"{"type":"join","args":{"addresses":[]}}"#, format!("{path} is empty")),
        (r#"{"type":"join","args":{"addresses":["a","b","c"]}}"#, format!("{path} has 3 entries, 2 are allowed")),
        (r#"{"type":"join","args":{"addresses":"a:1"}}"#, format!("{path} is not an array of strings")),
        (r#"{"args":{}}"#, "payload.data.command.type is missing".to_owned()),
    ] {
        assert_eq!(read(text), Err((Reason::Malformed, words)), "{text}");
    }
    assert!(matches!(read(r#"{"type":"whoami"}"#), Err((Reason::UnknownCommand, _))));
}
