//! Handlers that are written with this module, and a server that the test plays.

use super::*;
use crate::frame::{Decoder, Packet};
use crate::handler::program;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

/// The server's end.
struct Server {
    stream: UnixStream,
    framing: Framing,
    decoder: Decoder,
}

impl Server {
    fn new(stream: UnixStream, framing: Framing) -> Server {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Server { stream, framing, decoder: Decoder::new(framing, 1 << 24) }
    }

    fn sends(&mut self, text: &str) {
        let packet = Packet::write_as(self.framing, |body| body.extend_from_slice(text.as_bytes()));
        self.stream.write_all(&packet.parts().concat()).expect("a handler that reads");
    }

    #[track_caller]
    fn gets(&mut self) -> String {
        self.receives().expect("the handler has gone")
    }

    #[track_caller]
    fn receives(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.decoder.frame().expect("a short frame") {
                return Some(String::from_utf8(frame.bytes().to_vec()).expect("UTF-8"));
            }
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer).expect("an answer in time") {
                0 => return None,
                bytes => self.decoder.feed(&buffer[..bytes]),
            }
        }
    }

    fn ends(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    }

    /// A message of this user.
    fn says(&mut self, user: &str, number: u64, data: &str) {
        self.sends(&format!(
            concat!(
                r#"{{"header":{{"messageId":"a.example/5f-{}","from":{{"scope":"client","user":"{}","server":"a.example","#,
                r#""verified":true,"session":7}},"hops":0}},"payload":{{"type":"x","data":{},"id":"c-{}"}}}}"#
            ),
            number, user, data, number
        ));
    }
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    crate::thread::spawn("handler", 256 << 10, body).expect("a thread")
}

/// A handler on a thread of its own.
fn served(handler: Handler, mut handle: impl FnMut(Message) -> Answer + Send + 'static) -> (Server, JoinHandle<io::Result<()>>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let framing = handler.framing;
    let body = move || {
        let (messages, _outbox) = handler.over(theirs.try_clone()?, theirs);
        stream::serve(messages, handler.batched, false, &mut handle)
    };
    (Server::new(ours, framing), spawn(body))
}

#[test]
fn data_comes_and_goes_byte_for_byte() {
    for handler in [Handler::plain(), Handler::plain().lines(), Handler::plain().batched(), Handler::plain().lines().batched()] {
        let (mut server, handler) = served(handler, |message| {
            assert_eq!((message.from(), message.user(), message.message_id()), (None, None, None));
            Answer::reply(message.raw())
        });
        for data in ["null", r#"{"b":1.0, "a":1e999,"a":"\u00e4"}"#, "[]"] {
            server.sends(data);
            server.sends("1");
            assert_eq!(server.gets(), format!(r#"{{"header":{{"status":"0","command":"reply"}},"payload":{{"data":{data}}}}}"#));
            assert!(server.gets().ends_with(r#""payload":{"data":1}}"#));
        }
        server.ends();
        handler.join().expect("no panic").expect("the end of the input is a good end");
        assert_eq!(server.receives(), None);
    }
}

#[test]
fn an_answer_does_not_wait_for_the_next_message_that_came_with_it() {
    let (go, wait) = crossbeam_channel::bounded::<()>(0);
    let (mut server, handler) = served(Handler::plain(), move |message| {
        if message.data::<String>().is_ok() {
            wait.recv().expect("a test that goes on");
        }
        Answer::reply(message.raw())
    });
    let two = [Packet::framed(crate::frame::Slice::from(&b"1"[..])), Packet::framed(crate::frame::Slice::from(&b"\"wait\""[..]))];
    let bytes: Vec<u8> = two.iter().flat_map(|packet| packet.parts().concat()).collect();
    server.stream.write_all(&bytes).expect("a handler that reads");
    assert!(server.gets().contains(r#"{"data":1}"#), "it is there although the second is not done");
    go.send(()).expect("a handler");
    assert!(server.gets().contains("wait"));
    drop(server);
    handler.join().expect("no panic").expect("a good end");
}

#[test]
fn a_server_that_is_gone_is_the_end_and_no_mistake() {
    let (go, wait) = crossbeam_channel::bounded::<()>(0);
    let (mut server, handler) = served(Handler::plain(), move |message| {
        wait.recv().expect("a test that goes on");
        Answer::reply(message.raw())
    });
    server.sends("1");
    drop(server);
    go.send(()).expect("a handler");
    handler.join().expect("no panic").expect("a good end");
}

#[test]
fn a_panic_costs_its_own_message() {
    let mut count = 0;
    let (mut server, handler) = served(Handler::envelope(), move |message| {
        count += 1;
        assert!(message.user() != Some("eve"), "a mistake in the handler");
        Answer::reply(count)
    });
    server.says("alice", 1, "1");
    assert!(server.gets().contains(r#""inReplyTo":"a.example/5f-1"},"payload":{"data":1}"#));
    server.says("eve", 2, "1");
    assert_eq!(server.gets(), r#"{"header":{"status":"internal","inReplyTo":"a.example/5f-2"}}"#);
    server.says("alice", 3, "1");
    assert!(server.gets().contains(r#""inReplyTo":"a.example/5f-3"},"payload":{"data":3}"#));
    drop(server);
    handler.join().expect("no panic outside").expect("a good end");
}

#[test]
fn an_envelope_says_who_speaks_and_answers_come_in_any_order() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut server = Server::new(ours, Framing::Lines);
    let (mut messages, outbox) = Handler::envelope().lines().over(theirs.try_clone().expect("a copy"), theirs);
    let mut next = || match messages.next() {
        Some(Ok(Incoming::Message(message))) => message,
        other => panic!("no message: {other:?}"),
    };
    server.says("alice", 1, r#"{"n":1.0}"#);
    server.sends(concat!(
        r#"{"header":{"messageId":"m2","from":{"scope":"handler","type":"clock","server":"a.example","verified":true},"#,
        r#""hops":1},"payload":{"type":"x","data":2}}"#
    ));
    server.sends(concat!(
        r#"{"header":{"messageId":"m3","from":{"scope":"server","user":"alice","server":"b.example","verified":true},"#,
        r#""hops":2},"payload":{"type":"x","data":3}}"#
    ));
    server.sends(r#"{"header":{"messageId":"m4","from":{"scope":"client","user":"mallory","server":"a","verified":false,"session":1}},"payload":{"type":"x","data":4}}"#);
    server.sends(concat!(
        r#"{"header":{"messageId":"m5","from":{"scope":"server","user":"alice","server":"192.0.2.1:2224","verified":false},"#,
        r#""hops":1},"payload":{"type":"x","data":5}}"#
    ));
    let first = next();
    assert_eq!(first.peer(), None, "a user of this server is of no other one");
    assert_eq!(first.from(), Some(Speaker::User { name: "alice", server: "a.example", session: 7, verified: true }));
    assert_eq!((first.user(), first.kind(), first.id(), first.hops()), (Some("alice"), Some("x"), Some("c-1"), 0));
    assert_eq!(first.raw().bytes(), br#"{"n":1.0}"#);
    let second = next();
    assert_eq!(second.from(), Some(Speaker::Handler { kind: "clock", server: "a.example" }));
    assert_eq!((second.user(), second.hops()), (None, 1));
    let third = next();
    assert_eq!(third.from(), Some(Speaker::Server { name: "b.example", user: Some("alice"), verified: true }));
    assert_eq!(third.user(), None, "the alice of another server is not ours");
    assert_eq!((third.peer(), third.hops()), (Some("b.example"), 2));
    let fourth = next();
    assert_eq!((fourth.user(), fourth.peer()), (None, None), "what is not verified is nobody");
    let fifth = next();
    assert_eq!(fifth.from(), Some(Speaker::Server { name: "192.0.2.1:2224", user: Some("alice"), verified: false }));
    assert_eq!((fifth.user(), fifth.peer()), (None, None), "a server that is not known is not believed");
    let about = third.message_id().expect("an id").to_owned();
    let other = outbox.clone();
    spawn(move || other.answer(&about, &Answer::none())).join().expect("no panic").expect("a server");
    assert_eq!(server.gets(), r#"{"header":{"status":"0","command":"none","inReplyTo":"m3"}}"#);
    spawn(move || first.answer(Answer::reply("late"))).join().expect("no panic").expect("a server");
    assert!(server.gets().contains(r#""inReplyTo":"a.example/5f-1""#));
    second.answer(Answer::reply(2)).expect("a server");
    assert!(server.gets().contains(r#""inReplyTo":"m2""#));
    outbox.push(&Answer::send(["bob"], "news").with_id("p-1")).expect("a server");
    let pushed = r#"{"header":{"status":"0","command":"sendClients","commandData":["bob"],"id":"p-1"},"payload":{"data":"news"}}"#;
    assert_eq!(server.gets(), pushed);
}

#[test]
fn what_became_of_a_push_comes_back() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut server = Server::new(ours, Framing::Length);
    let (messages, _outbox) = Handler::envelope().over(theirs.try_clone().expect("a copy"), theirs);
    server.sends(concat!(
        r#"{"header":{"status":"bad","messageType":"statusReport","reason":"undelivered","temporary":true},"payload":{"data":"#,
        r#"{"message":"1 recipient is offline","messageId":"a.example/5f-9","delivered":0,"queued":0,"offline":1,"unknown":0,"refused":0,"#,
        r#""names":{"offline":["bob"],"unknown":[],"refused":[]}},"type":"x","id":"p-1"}}"#
    ));
    server.sends(concat!(
        r#"{"header":{"status":"bad","messageType":"statusReport","reason":"handlerProtocol","temporary":false},"#,
        r#""payload":{"data":{"message":"no"},"type":"x","id":"p-2"}}"#
    ));
    server.sends(r#"{"header":{"status":"good","messageType":"statusReport"},"payload":{"data":{"messageId":"m","delivered":2,"offline":0,"unknown":0},"type":"x","id":"p-3"}}"#);
    server.ends();
    let reports: Vec<Report> = messages
        .map(|incoming| match incoming {
            Ok(Incoming::Report(report)) => report,
            other => panic!("no report: {other:?}"),
        })
        .collect();
    let [offline, wrong, good] = &reports[..] else { panic!("{reports:?}") };
    let failure = offline.failure.as_ref().expect("a failure");
    assert_eq!((&*offline.id, &*failure.reason, failure.temporary), ("p-1", "undelivered", true));
    assert_eq!(offline.counts.as_ref().expect("counts").names.offline, ["bob"]);
    assert_eq!((&*wrong.id, &wrong.counts), ("p-2", &None));
    assert_eq!((&good.failure, good.counts.as_ref().expect("counts").delivered), (&None, 2));
}

#[test]
fn a_configuration_that_differs_is_told() {
    for (bytes, words) in [
        (&b"\x02\0\0\0[]"[..], "no envelope came: the frame is not an object; is it \"envelope\": true?"),
        (b"\x02\0\0", "the input ends inside a frame"),
        (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
    ] {
        let (mut server, handler) = served(Handler::envelope(), |_| Answer::none());
        server.stream.write_all(bytes).expect("a handler that reads");
        server.ends();
        let error = handler.join().expect("no panic").expect_err("a mistake");
        assert!(error.to_string().contains(words), "{error}");
    }
    let (_ours, theirs) = UnixStream::pair().expect("a pair");
    let (_, outbox) = Handler::plain().over(theirs.try_clone().expect("a copy"), theirs);
    assert_eq!(outbox.push(&Answer::none()).expect_err("a plain handler").kind(), ErrorKind::Unsupported);
}

#[test]
fn a_handler_may_listen() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let (messages, outbox) = listen::start(&Handler::envelope(), &path).expect("a socket");
    assert_eq!(outbox.push(&Answer::none()).expect_err("nobody").kind(), ErrorKind::NotConnected);
    let connect = || Server::new(UnixStream::connect(&path).expect("a listener"), Framing::Length);
    let (mut first, mut second) = (connect(), connect());
    spawn(move || stream::serve(messages, true, true, &mut |message| Answer::reply(message.raw())));
    second.says("alice", 2, "2"); // while the first says nothing
    assert!(second.gets().contains(r#"5f-2"},"payload":{"data":2}"#));
    second.says("alice", 3, "3");
    assert!(second.gets().contains(r#"5f-3"},"payload":{"data":3}"#), "a connection may stay");
    outbox.push(&Answer::send(["bob"], 1)).expect("a connection");
    assert!(second.gets().contains("sendClients"));
    drop(second);
    first.says("alice", 1, "1");
    assert!(first.gets().contains(r#"5f-1"},"payload":{"data":1}"#));
    let mut wrong = connect();
    wrong.sends("[]");
    assert_eq!(wrong.receives(), None, "that connection alone ends");
    first.says("alice", 4, "4");
    assert!(first.gets().contains("5f-4"));
}

/// An informer that expects these questions and gives these answers.
fn informer(path: &Path, script: &'static [(&str, &[&str])]) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a socket");
    spawn(move || {
        let mut server = Server::new(listener.accept().expect("a handler").0, Framing::Length);
        for (question, answers) in script {
            assert_eq!(server.gets(), *question);
            answers.iter().for_each(|answer| server.sends(answer));
        }
    })
}

#[test]
fn an_informer_is_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("informer");
    let script: &[(&str, &[&str])] = &[
        (r#"{"command":{"type":"listClients"}}"#, &[r#"{"status":"0","data":["alice"]}"#]),
        (r#"{"command":{"data":"a\"b","type":"isClient"}}"#, &[r#"{"status":"0","data":false}"#]),
        (r#"{"command":{"type":"sessions"}}"#, &[r#"{"status":"0","data":[{"user":"alice","session":17}]}"#]),
        (r#"{"command":{"type":"serverInfo"}}"#, &[r#"{"status":"0","data":{"clientCount":"1","adminInfo":{"m":1},"listeners":{}}}"#]),
        (
            r#"{"command":{"type":"push","data":{"header":{"status":"0","command":"sendClients","commandData":["bob"]},"payload":{"data":1}}}}"#,
            &[
                r#"{"status":"0","data":{"messageId":"m","delivered":0,"queued":0,"offline":1,"unknown":0,"refused":0,"names":{"offline":["bob"],"unknown":[],"refused":[]}}}"#,
            ],
        ),
        (
            r#"{"command":{"type":"push","data":{"header":{"status":"0","command":"none"}}}}"#,
            &[r#"{"status":"1","data":null,"message":"no such question"}"#],
        ),
        (
            r#"{"command":{"type":"watchClients"}}"#,
            &[
                r#"{"status":"0","data":["alice"]}"#,
                r#"{"event":{"type":"online","user":"bob"}}"#,
                r#"{"event":{"type":"else"}}"#,
                r#"{"event":{"type":"offline","user":"alice"}}"#,
            ],
        ),
    ];
    let server = informer(&path, script);
    let mut informer = program::Informer::connect(&path).expect("an informer");
    assert_eq!(informer.list_clients().expect("names"), ["alice"]);
    assert!(!informer.is_client("a\"b").expect("whether"));
    assert_eq!(informer.sessions().expect("sessions")[0].session, 17);
    assert_eq!(informer.server_info().expect("something").client_count, "1");
    let counts = informer.push(&Answer::send(["bob"], 1)).expect("counts");
    assert_eq!((counts.offline, &counts.names.offline[..]), (1, &["bob".to_owned()][..]));
    let refused = informer.push(&Answer::none()).expect_err("a refusal");
    assert_eq!(refused.to_string(), "the informer refuses: no such question");
    let (names, changes) = informer.watch_clients().expect("names");
    assert_eq!(names, ["alice"]);
    let changes: Vec<Change> = changes.map(|change| change.expect("a change")).collect();
    assert_eq!(changes, [Change::Online("bob".to_owned()), Change::Offline("alice".to_owned())]);
    server.join().expect("all questions as expected");
}
