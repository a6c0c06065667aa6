//! Answers of handlers, good and odd.

use super::*;

const RECIPIENTS_MAX: usize = 3;

fn read(text: impl AsRef<[u8]>) -> Result<Answer, WrongAnswer> {
    parse(&Frame::from(text.as_ref()), 4, RECIPIENTS_MAX)
}

fn utf8(slice: &Slice) -> String {
    String::from_utf8(slice.bytes().to_vec()).expect("the frame is UTF-8")
}

/// An outcome in short: `sendClients alice,bob <- data`, with `; ` between several.
fn short(outcome: &Outcome) -> String {
    let names = |texts: &[Text]| texts.iter().map(Text::as_str).collect::<Vec<_>>().join(",");
    match outcome {
        Outcome::Refused { status, data } => {
            format!("refused {} <- {}", utf8(status), data.as_ref().map_or("-".to_string(), utf8))
        }
        Outcome::Commands(commands) => {
            let each = commands.iter().map(|command| {
                let order = match &command.order {
                    Order::SendClients(users) => format!("sendClients {}", names(users)),
                    Order::SendServers(servers) => format!("sendServers {}", names(servers)),
                    Order::SendHandler(kind) => format!("sendHandler {}", kind.as_str()),
                    Order::Reply => "reply".to_string(),
                    Order::None => "none".to_string(),
                };
                let offline = command.offline.map_or(String::new(), |offline| format!(" ({})", offline.as_str()));
                format!("{order} <- {}{offline}", command.data.as_ref().map_or("-".to_string(), utf8))
            });
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

#[rustfmt::skip]
const GOOD: &[(&str, &str)] = &[
    (r#"{"header":{"status":"0","command":"sendClients","commandData":["alice","bob"]},"payload":{"type":"chat","data":{"a" :1.0}}}"#, r#"sendClients alice,bob <- {"a" :1.0}"#),
    (r#"{"payload":{"data":1},"header":{"commandData":["alice"],"command":"sendClients","status":0}}"#, "sendClients alice <- 1"),
    (r#"{"header":{"status":"good","command":"sendServers","commandData":["b.example","[::1]:2223"]},"payload":{"data":null}}"#, "sendServers b.example,[::1]:2223 <- null"),
    (r#"{"header":{"status":"ok","command":"sendHandler","commandData":"audit"},"payload":{"data":[]}}"#, "sendHandler audit <- []"),
    (r#"{"header":{"status":"o\u006b","command":"repl\u0079"},"payload":{"data":"1e999"}}"#, r#"reply <- "1e999""#),
    (r#"{"header":{"status":"0","command":"reply","commandData":[7]},"payload":{"data":1e999}}"#, "reply <- 1e999"),
    (r#"{"header":{"status":"0","command":"none"}}"#, "none <- -"),
    (r#"{"header":{"status":"0","command":"none","commandData":null},"payload":null}"#, "none <- -"),
    (r#"{"header":{"status":"0","command":"none"},"payload":{"data":1}}"#, "none <- -"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":[]},"payload":{"data":1}}"#, "sendClients  <- 1"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":["al\u0069ce","alice","alice"],"x":{},"id":"i"},"payload":{"data":1,"type":7}}"#, "sendClients alice,alice,alice <- 1"),
    (r#"{"header":{"status":"0","commands":[]}}"#, ""),
    (r#"{"header":{"status":"0","commands":[{"command":"sendClients","commandData":["alice"]},{"command":"sendServers","commandData":["b"],"payload":{"data":2}},{"command":"none"}]},"payload":{"data":1}}"#, "sendClients alice <- 1; sendServers b <- 2; none <- -"),
    (r#"{"header":{"status":"0","commands":[ {"payload":null,"command":"reply"} , {"payload":{"data":[[[[]]]]},"command":"reply"} ]},"payload":{"data":1}}"#, "reply <- 1; reply <- [[[[]]]]"),
    (r#"{"header":{"status":"0","commands":[{"payload":{"data":3},"command":"reply"}]}}"#, "reply <- 3"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":["alice"],"offline":"queue"},"payload":{"data":1}}"#, "sendClients alice <- 1 (queue)"),
    (r#"{"header":{"offline":"dr\u006fp","status":"0","command":"reply"},"payload":{"data":1}}"#, "reply <- 1 (drop)"),
    (r#"{"header":{"status":"0","command":"none","offline":"queue"}}"#, "none <- - (queue)"),
    (r#"{"header":{"status":"0","commands":[],"offline":"queue"}}"#, ""),
    (r#"{"header":{"status":"0","commands":[{"command":"reply"},{"command":"reply","offline":"drop"}],"offline":"queue"},"payload":{"data":1}}"#, "reply <- 1 (queue); reply <- 1 (drop)"),
    (r#"{"header":{"status":"0","commands":[{"command":"reply"},{"command":"none","offline":"queue"}]},"payload":{"data":1}}"#, "reply <- 1; none <- - (queue)"),
    // The first implementation's way.
    (r#"{"header":{"status":"0","command":{"type":"reply"},"offline":"queue"},"data":1}"#, "reply <- 1 (queue)"),
    (r#"{"header":{"status":"good","command":{"type":"sendClients","data":["alice"]}},"data":{"b":1}}"#, r#"sendClients alice <- {"b":1}"#),
    (r#"{"data":1,"header":{"status":"0","command":{"data":"audit","type":"sendHandler"}}}"#, "sendHandler audit <- 1"),
    (r#"{"header":{"status":"0","command":{"type":"reply"}},"data":1,"payload":{"data":2}}"#, "reply <- 1"),
    (r#"{"header":{"status":"0","command":{"type":"reply"}},"payload":{"data":2}}"#, "reply <- 2"),
    (r#"{"header":{"status":"0","command":{"type":"none"}}}"#, "none <- -"),
    // Refusals: nothing but the status and the data counts.
    (r#"{"header":{"status":"1"}}"#, r#"refused "1" <- -"#),
    (r#"{"header":{"status":1},"payload":{"data":"no"}}"#, r#"refused 1 <- "no""#),
    (r#"{"header":{"status":"bad","command":"nonsense","commands":7,"offline":1},"payload":{"data":{}}}"#, r#"refused "bad" <- {}"#),
    (r#"{"header":{"status":null},"data":1}"#, "refused null <- 1"),
    (r#"{"header":{"status":{"code": 7}},"payload":{}}"#, r#"refused {"code": 7} <- -"#),
    (r#"{"header":{"status":"Good"}}"#, r#"refused "Good" <- -"#),
    (r#"{"header":{"status":true}}"#, "refused true <- -"),
    (r#"{"header":{"status":0.0}}"#, "refused 0.0 <- -"),
    (r#"{"header":{"status":-0}}"#, "refused -0 <- -"),
    (r#"{"header":{"status":"\ud800"}}"#, r#"refused "\ud800" <- -"#),
    (r#"{"header":{"status":""}}"#, r#"refused "" <- -"#),
];

#[test]
fn sound_answers_are_read() {
    for (text, expected) in GOOD {
        let answer = read(text).unwrap_or_else(|wrong| panic!("{text}: {}", wrong.message));
        assert_eq!(short(&answer.outcome), *expected, "{text}");
    }
}

#[rustfmt::skip]
const WRONG: &[(&str, &str)] = &[
    ("", "the answer is empty"),
    ("hello", "the answer is not JSON: expected a value at byte 0"),
    ("[]", "the answer is not an object"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":NaN}}"#, "the answer is not JSON: NaN at byte 61; NaN is not JSON, null or a string can stand for it"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":[-Infinity]}}"#, "the answer is not JSON: -Infinity at byte 62; -Infinity is not JSON, null or a string can stand for it"),
    (r#"{"header":{"status":"1"},"payload":{"data":Infinity}}"#, "the answer is not JSON: Infinity at byte 43; Infinity is not JSON, null or a string can stand for it"),
    ("{}", "header.status is missing"),
    (r#"{"header":null}"#, "header is not an object"),
    (r#"{"header":{"Status":"0","command":"none"}}"#, "header.status is missing"),
    (r#"{"header":{"status":"0"}}"#, "header.command is missing"),
    (r#"{"header":{"status":"0","command":7}}"#, "header.command is not a string"),
    (r#"{"header":{"status":"0","command":null}}"#, "header.command is not a string"),
    (r#"{"header":{"status":"0","command":"\ud800"}}"#, "header.command is not valid Unicode"),
    (r#"{"header":{"status":"0","command":"sendclients","commandData":["a"]},"payload":{"data":1}}"#, "unknown command `sendclients`; did you mean `sendClients`?"),
    (r#"{"header":{"status":"0","command":"send_client"},"payload":{"data":1}}"#, "unknown command `send_client`; did you mean `sendClients`?"),
    (r#"{"header":{"status":"0","command":"None"}}"#, "unknown command `None`; did you mean `none`?"),
    (r#"{"header":{"status":"0","command":"explode\n"}}"#, "unknown command `explode\\n`"),
    (r#"{"header":{"status":"0","command":""}}"#, "unknown command ``"),
    (r#"{"header":{"status":"0","command":"sendClients"},"payload":{"data":1}}"#, "header.commandData is missing"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":"alice"},"payload":{"data":1}}"#, "header.commandData is not an array of strings"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":null},"payload":{"data":1}}"#, "header.commandData is not an array of strings"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":["a",7]},"payload":{"data":1}}"#, "header.commandData[1] is not a string"),
    (r#"{"header":{"status":"0","command":"sendServers","commandData":[["a"]]},"payload":{"data":1}}"#, "header.commandData[0] is not a string"),
    (r#"{"header":{"status":"0","command":"sendServers","commandData":["\udc00"]},"payload":{"data":1}}"#, "header.commandData[0] is not valid Unicode"),
    (r#"{"header":{"status":"0","command":"sendClients","commandData":["a","b","c","d","e"]},"payload":{"data":1}}"#, "header.commandData has 5 names, limits.recipients allows 3"),
    (r#"{"header":{"status":"0","command":"sendHandler"},"payload":{"data":1}}"#, "header.commandData is missing"),
    (r#"{"header":{"status":"0","command":"sendHandler","commandData":["audit"]},"payload":{"data":1}}"#, "header.commandData is not a string"),
    (r#"{"header":{"status":"0","command":"reply"}}"#, "payload.data is missing"),
    (r#"{"header":{"status":"0","command":"reply"},"data":1}"#, "payload.data is missing"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":null}"#, "payload.data is missing"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":{"type":"a"}}"#, "payload.data is missing"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":[1]}"#, "payload is not an object"),
    (r#"{"header":{"status":"0","command":"none"},"payload":1}"#, "payload is not an object"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":[[[[[]]]]]}}"#, "payload.data is nested deeper than 4"),
    (r#"{"header":{"status":"0","command":"reply","x":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]},"payload":{"data":1}}"#, "nested deeper than 16 outside of data"),
    (r#"{"header":{"status":"0","status":"1","command":"none"}}"#, "header.status stands twice"),
    (r#"{"header":{"status":"0","command":"none","comm\u0061nd":"none"}}"#, "header.command stands twice"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1,"data":2}}"#, "payload.data stands twice"),
    (r#"{"header":{"status":"0","command":"reply"},"payload":{"data":1},"payload":{}}"#, "payload stands twice"),
    (r#"{"header":{"status":"1"},"header":{"status":"1"}}"#, "header stands twice"),
    (r#"{"header":{"status":"0","command":"none","offline":"keep"}}"#, "header.offline is `keep`, neither `drop` nor `queue`"),
    (r#"{"header":{"status":"0","command":"none","offline":"Queue\n"}}"#, "header.offline is `Queue\\n`, neither `drop` nor `queue`"),
    (r#"{"header":{"status":"0","command":"none","offline":true}}"#, "header.offline is not a string"),
    (r#"{"header":{"status":"0","command":"none","offline":"drop","offline":"drop"}}"#, "header.offline stands twice"),
    (r#"{"header":{"status":"0","command":{"type":"none"},"offline":1}}"#, "header.offline is not a string"),
    (r#"{"header":{"status":"0","commands":[],"offline":null}}"#, "header.offline is not a string"),
    (r#"{"header":{"status":"0","command":"none","inReplyTo":7}}"#, "header.inReplyTo is not a string"),
    // Several commands: one that is wrong spoils them all.
    (r#"{"header":{"status":"0","command":"none","commands":[]}}"#, "header.command and header.commands stand side by side"),
    (r#"{"header":{"status":"0","commands":{}}}"#, "header.commands is not an array"),
    (r#"{"header":{"status":"0","commands":null}}"#, "header.commands is not an array"),
    (r#"{"header":{"status":"0","commands":["reply"]},"payload":{"data":1}}"#, "header.commands[0] is not an object"),
    (r#"{"header":{"status":"0","commands":[{"command":"none"},{}]}}"#, "header.commands[1]: command is missing"),
    (r#"{"header":{"status":"0","commands":[{"command":{"type":"none"}}]}}"#, "header.commands[0]: command is not a string"),
    (r#"{"header":{"status":"0","commands":[{"command":"Reply"}]},"payload":{"data":1}}"#, "header.commands[0]: unknown command `Reply`; did you mean `reply`?"),
    (r#"{"header":{"status":"0","commands":[{"command":"reply"},{"command":"sendClients"}]},"payload":{"data":1}}"#, "header.commands[1]: commandData is missing"),
    (r#"{"header":{"status":"0","commands":[{"command":"reply"}]}}"#, "header.commands[0]: payload.data is missing"),
    (r#"{"header":{"status":"0","commands":[{"command":"reply","payload":{}}]},"payload":{"data":1}}"#, "header.commands[0]: payload.data is missing"),
    (r#"{"header":{"status":"0","commands":[{"command":"reply","payload":7}]},"payload":{"data":1}}"#, "header.commands[0].payload is not an object"),
    (r#"{"header":{"status":"0","commands":[{"command":"reply","payload":{"data":[[[[[]]]]]}}]}}"#, "header.commands[0].payload.data is nested deeper than 4"),
    (r#"{"header":{"status":"0","commands":[{"command":"none","x":[[[[[[[[[[[[[]]]]]]]]]]]]]}]}}"#, "nested deeper than 16 outside of data"),
    (r#"{"header":{"status":"0","commands":[{"command":"none","command":"none"}]}}"#, "header.commands[0].command stands twice"),
    (r#"{"header":{"status":"0","commands":[{"command":"none"},{"command":"none","offline":""}]}}"#, "header.commands[1]: offline is ``, neither `drop` nor `queue`"),
    (r#"{"header":{"status":"0","commands":[{"command":"none","offline":null}]}}"#, "header.commands[0]: offline is not a string"),
    (r#"{"header":{"status":"0","commands":[{"command":"sendClients","commandData":["a","b","c","d"],"payload":{"data":1}}]}}"#, "header.commands[0]: commandData has 4 names, limits.recipients allows 3"),
    // The first implementation's way.
    (r#"{"header":{"status":"0","command":{}},"data":1}"#, "header.command.type is missing"),
    (r#"{"header":{"status":"0","command":{"type":7}},"data":1}"#, "header.command.type is not a string"),
    (r#"{"header":{"status":"0","command":{"type":"sendClients"}},"data":1}"#, "header.command.data is missing"),
    (r#"{"header":{"status":"0","command":{"type":"sendClients","data":[1]}},"data":1}"#, "header.command.data[0] is not a string"),
    (r#"{"header":{"status":"0","command":{"type":"SENDCLIENTS","data":[]}},"data":1}"#, "unknown command `SENDCLIENTS`; did you mean `sendClients`?"),
    (r#"{"header":{"status":"0","command":{"type":"reply"}}}"#, "data is missing"),
    (r#"{"header":{"status":"0","command":{"type":"reply","type":"none"}},"data":1}"#, "header.command.type stands twice"),
    (r#"{"header":{"status":"0","command":{"type":"reply"}},"data":[[[[[]]]]]}"#, "data is nested deeper than 4"),
];

#[test]
fn wrong_answers_are_refused_with_words_for_their_author() {
    assert!(GOOD.len() + WRONG.len() >= 40);
    for (text, expected) in WRONG {
        let wrong = read(text).expect_err(text);
        assert_eq!(wrong.message, *expected, "{text}");
    }
}

#[test]
fn the_message_that_an_answer_is_about_is_known_as_far_as_possible() {
    let about = |text: &str| match read(text) {
        Ok(answer) => (true, answer.in_reply_to),
        Err(wrong) => (false, wrong.in_reply_to),
    };
    let m1 = || Some(Text::from("m-1"));
    assert_eq!(about(r#"{"header":{"status":"0","command":"none","inReplyTo":"m\u002d1"}}"#), (true, m1()));
    assert_eq!(about(r#"{"header":{"status":"0","command":"none"}}"#), (true, None));
    assert_eq!(about(r#"{"header":{"inReplyTo":"m-1","status":"7"}}"#), (true, m1()));
    assert_eq!(about(r#"{"header":{"status":"0","command":"nope","inReplyTo":"m-1"}}"#), (false, m1()));
    assert_eq!(about(r#"{"header":{"status":"0","command":"none","inReplyTo":"m-1"},"payload":NaN}"#), (false, m1()));
    assert_eq!(about(r#"{"payload":{"data":[[[[[[[]]]]]]]},"header":{"inReplyTo":"m-1"}}"#), (false, m1()));
    assert_eq!(about(r#"{"header":{"status":0x,"inReplyTo":"m-1"}}"#), (false, None));
}

#[test]
fn what_is_not_utf8_is_refused() {
    let wrong = read(b"{\"header\":{\"status\":\"0\",\"command\":\"reply\"},\"payload\":{\"data\":\"\xe4\"}}").expect_err("Latin-1");
    assert_eq!(wrong.message, "the answer is not JSON: the bytes from byte 62 on are not UTF-8");
}
