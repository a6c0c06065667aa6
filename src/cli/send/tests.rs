//! What is sent, again if need be, and what the exit code tells of it.

use super::*;
use crate::client::Address;
use crate::client::fake::{Peer, Script, bad, delivery, good, password, server, server_of};

fn order(address: Address) -> Order {
    let args = ["-u", "alice", "-s", &address.to_string()];
    let matches = login::options().parse(args).expect("options that are there");
    let login = Login::new(&matches, |_| None).expect("all told");
    let data = RawValue::from_string(r#"{ "a":1.0}"#.to_owned()).expect("JSON");
    let (opted, kind, id, timeout) = (Options::default(), "echo".to_owned(), ID.to_owned(), Duration::from_secs(20));
    Order { login, opted, kind, data, id, timeout, retry: None, stay: Duration::ZERO, frames: false }
}

/// What is printed, and the failure, when a server answers a message with these frames and then closes.
fn sent(frames: Vec<String>, change: impl FnOnce(&mut Order)) -> (String, Result<(), Failure>) {
    let (address, thread) = server(move |mut peer| {
        peer.lets_in();
        let message = peer.gets().expect("a message");
        assert!(message.contains(r#""id":"send","data":{ "a":1.0}}}"#), "{message}");
        frames.iter().for_each(|frame| peer.sends(frame));
    });
    let mut order = order(address);
    change(&mut order);
    let mut out = Vec::new();
    let result = order.carry_out(&password(), &mut out);
    thread.join().expect("what was expected");
    (String::from_utf8(out).expect("UTF-8"), result)
}

#[test]
fn replies_are_printed_until_the_report_comes() {
    let frames =
        vec![delivery("echo", "{ \"a\":\n1.0}"), good("another", "1"), delivery("chat", "2"), good(ID, "3"), delivery("echo", "4")];
    assert_eq!(sent(frames.clone(), |_| ()), ("{ \"a\": 1.0}\n2\n".to_owned(), Ok(())));
    let stay = |order: &mut Order| order.stay = Duration::from_secs(20);
    assert_eq!(sent(frames.clone(), stay), ("{ \"a\": 1.0}\n2\n4\n".to_owned(), Ok(())));
    let (printed, result) = sent(frames.clone(), |order| order.frames = true);
    assert_eq!(printed, frames[..4].iter().map(|frame| frame.replace('\n', " ") + "\n").collect::<String>());
    assert_eq!(result, Ok(()));
}

#[test]
fn the_answer_to_a_built_in_command_is_printed() {
    let builtin = |order: &mut Order| order.kind = "builtin".to_owned();
    assert_eq!(sent(vec![good(ID, r#"{"user":"alice"}"#)], builtin), ("{\"user\":\"alice\"}\n".to_owned(), Ok(())));
    let refusal = bad("unknownCommand", false, r#"{"message":"no"}"#, r#","id":"send""#);
    let (printed, result) = sent(vec![refusal], builtin);
    assert_eq!((printed.as_str(), result.map_err(|failure| failure.code)), ("", Err(65)));
}

#[test]
fn a_bad_report_is_a_failure_with_or_without_its_id() {
    for id in [r#","id":"send""#, ""] {
        let refusal = bad("undelivered", true, r#"{"message":"all offline"}"#, id);
        let (printed, result) = sent(vec![delivery("echo", "1"), refusal], |order| order.stay = Duration::from_secs(20));
        let failure = result.expect_err("it was not delivered");
        assert_eq!((printed.as_str(), failure.code), ("1\n", 75));
        assert_eq!(failure.message, "all offline (trying again later may help)");
    }
    let others = bad("undelivered", false, "null", r#","id":"another""#);
    assert_eq!(sent(vec![others, good(ID, "null")], |_| ()).1, Ok(()));
}

#[test]
fn without_a_report_nothing_is_good() {
    assert_eq!(sent(vec![delivery("echo", "1")], |_| ()).1.map_err(|failure| failure.code), Err(69));
    assert_eq!(sent(vec!["hello".to_owned()], |_| ()).1.map_err(|failure| failure.code), Err(69));
    let (address, thread) = server(|mut peer| {
        peer.lets_in();
        while peer.gets().is_some() {}
    });
    let mut order = order(address);
    order.timeout = Duration::from_millis(500);
    let failure = order.carry_out(&password(), &mut Vec::new()).expect_err("no report");
    assert_eq!((failure.code, failure.message.as_str()), (75, "no report within 0.5 s"));
    thread.join().expect("no panic");
}

/// One try after the other, each of which must bring the same message; and the failure, if it comes to one.
fn tried(scripts: Vec<fn(&mut Peer)>, retry: Duration) -> Result<(), Failure> {
    let script = |rest: fn(&mut Peer)| -> Script {
        Box::new(move |mut peer: Peer| {
            peer.lets_in_with(r#","options":{"dedupe":true}"#);
            let message = peer.gets().expect("a message");
            assert_eq!(message, r#"{"payload":{"type":"echo","id":"the same","data":{ "a":1.0}}}"#);
            rest(&mut peer);
        })
    };
    let (address, thread) = server_of(scripts.into_iter().map(script).collect());
    let mut order = order(address);
    order.opted.dedupe = Some(true);
    (order.id, order.retry) = ("the same".to_owned(), Some(retry));
    let result = order.carry_out(&password(), &mut Vec::new());
    thread.join().expect("what was expected");
    result
}

#[test]
fn what_has_no_report_is_sent_again_until_it_has_one() {
    const LONG: Duration = Duration::from_secs(20);
    let lost: fn(&mut Peer) = |_| ();
    let stops: fn(&mut Peer) = |peer| peer.sends(&bad("draining", true, "null", r#","id":"the same""#));
    let done: fn(&mut Peer) = |peer| peer.sends(&good("the same", "null"));
    let busy: fn(&mut Peer) = |peer| peer.sends(&bad("busy", true, "null", r#","id":"the same""#));
    assert_eq!(tried(vec![lost, stops, done], LONG), Ok(()));
    assert_eq!(tried(vec![lost, busy], LONG).map_err(|failure| failure.code), Err(75), "that is a report");
    // When nobody listens any longer, it ends with the time.
    let failure = tried(vec![lost], Duration::from_millis(500)).expect_err("no report");
    assert_eq!(failure.code, 69, "{failure}");
}

#[test]
fn a_login_that_is_refused_for_good_is_not_tried_again() {
    let refused = |temporary| -> Script {
        Box::new(move |mut peer: Peer| {
            peer.gets();
            peer.sends(&bad("authentication", temporary, "null", r#","id":"auth_special""#));
        })
    };
    let (address, thread) = server_of(vec![refused(true), refused(false)]);
    let mut order = order(address);
    order.retry = Some(Duration::from_secs(20));
    assert_eq!(order.carry_out(&password(), &mut Vec::new()).map_err(|failure| failure.code), Err(77));
    thread.join().expect("both were asked");
}

#[test]
fn random_ids_differ() {
    let ids = [random_id().expect("an id"), random_id().expect("an id")];
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 32), "{ids:?}");
}

#[test]
fn who_is_not_let_in_sends_nothing() {
    let (address, thread) = server(|mut peer| {
        peer.gets();
        peer.sends(&bad("authentication", false, r#"{"message":"wrong"}"#, r#","id":"auth_special""#));
        assert_eq!(peer.gets(), None);
    });
    let failure = order(address).carry_out(&password(), &mut Vec::new()).expect_err("not let in");
    assert_eq!((failure.code, failure.message.as_str()), (77, "wrong"));
    thread.join().expect("what was expected");
}

#[test]
fn a_reader_that_is_gone_does_not_change_the_exit_code() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (address, thread) = server(|mut peer| {
        peer.lets_in();
        peer.gets();
        peer.sends(&delivery("echo", "1"));
        peer.sends(&bad("loop", false, "null", r#","id":"send""#));
    });
    let result = order(address).carry_out(&password(), &mut Gone);
    assert_eq!(result.map_err(|failure| failure.code), Err(70));
    thread.join().expect("no panic");
}

#[test]
fn data_is_checked_before_anything_is_sent() {
    let data = |source: Source, as_text, input: &[u8]| {
        let data = source.data(as_text, &mut &*input);
        data.map(|data| data.get().to_owned()).map_err(|failure| failure.message)
    };
    let argument = |text: &str| Source::Argument(text.to_owned());
    assert_eq!(data(Source::Nothing, false, b"1").as_deref(), Ok("null"));
    assert_eq!(data(argument(" {\"b\":1e999, \"b\":1.0} "), false, b"").as_deref(), Ok("{\"b\":1e999, \"b\":1.0}"));
    assert_eq!(data(argument("say \"hi\"\n"), true, b"").as_deref(), Ok(r#""say \"hi\"\n""#));
    assert_eq!(data(Source::Input, false, b"[1]\n").as_deref(), Ok("[1]"));
    assert_eq!(data(Source::Input, true, b"a\nb\r\n").as_deref(), Ok(r#""a\nb""#));
    assert_eq!(data(argument("hello"), false, b""), Err("DATA is not JSON: expected value at line 1 column 1".to_owned()));
    assert_eq!(data(Source::Input, false, b"[1\n2]"), Err("standard input is not JSON: expected `,` or `]` at line 2 column 1".to_owned()));
    assert_eq!(data(Source::Input, true, b"ab\xff"), Err("standard input is not UTF-8 at byte 3".to_owned()));
    let long = vec![b'1'; 1 << 20];
    assert!(data(Source::Input, false, &long).is_ok());
    assert!(data(Source::Input, false, &[&long[..], b"1"].concat()).is_err());
}

const LONG_ID: &str = match std::str::from_utf8(&[b'x'; ID_BYTES_MAX + 1]) {
    Ok(id) => id,
    Err(_) => "",
};

#[test]
fn wrong_arguments_are_refused_before_a_password_is_asked_for() {
    for (code, args) in [
        (64, &["-u", "alice", "1"][..]),
        (64, &["-u", "alice", "-t", "x", "1", "2"]),
        (64, &["-u", "alice", "-t", "x", "--timeout", "soon"]),
        (64, &["-u", "alice", "-t", "x", "-s", "ws://a:1"]),
        (64, &["--unknown"]),
        (64, &["-u", "alice", "-t", "x", "--retry", "1"]),
        (64, &["-u", "alice", "-t", "x", "--dedupe", "--retry", "long"]),
        (64, &["-u", "alice", "-t", "x", "--id", LONG_ID]),
        (65, &["-u", "alice", "-t", "x", "{"]),
    ] {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        assert_eq!(run(&args).map_err(|failure| failure.code), Err(code), "{args:?}");
    }
}
