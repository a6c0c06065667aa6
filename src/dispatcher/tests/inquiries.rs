//! What clients and handlers may ask the server itself.

use super::super::Inquiry;
use super::*;
use crate::protocol::informer::Question;

fn ask(person: &mut Person<'_>, inquiry: Inquiry) {
    person.tells(|conn| Event::Asked(conn, inquiry, about("q")));
}

/// A handler asks through its informer; the answer, and whether the connection was closed.
fn informer(world: &mut World, kind: &str, data: Option<&str>) -> (String, bool) {
    let conn = ConnId(99);
    world.connections.insert(conn, Connection::default());
    world.handle(Event::Informed(conn, Asker::Handler, Question { kind: kind.into(), data: data.map(slice) }));
    let mut asking = world.on(conn);
    let (frames, closed) = (asking.frames(), asking.closed());
    assert_eq!((frames.len(), asking.settled()), (1, vec![0]));
    asking.disconnects();
    (frames.concat(), closed == Some(CloseReason::Asked))
}

#[test]
fn whoami_tells_a_connection_who_it_is() {
    let mut world = World::new();
    world.session("bob");
    ask(&mut world.bob(), Inquiry::Whoami);
    world.bob().gets(&[r#"good {"server":"a.example","session":2,"sessions":2,"user":"bob"} #q"#]);
    assert_eq!(world.bob().settled(), [0]);
}

#[test]
fn ping_and_dummy_are_answered_without_any_handler() {
    let mut world = World::new();
    ask(&mut world.alice(), Inquiry::Ping);
    ask(&mut world.alice(), Inquiry::Dummy);
    world.alice().gets(&["good {} #q", "good null #q"]);
    assert!(ENDS.iter().all(|(.., name)| world.handler(name).asked().is_empty()));
}

#[test]
fn handlers_are_listed_with_their_state() {
    let mut world = World::new();
    world.handler("many").dies("was ended");
    ask(&mut world.alice(), Inquiry::Handlers);
    let up = r#"{"chat":{"up":true},"each":{"up":true},"hall":{"up":true},"many":{"up":false},"post":{"up":true},"room":{"up":true},"safe":{"up":true},"team":{"up":true}}"#;
    world.alice().gets(&[&format!("good {up} #q")]);
}

#[test]
fn without_a_user_only_ping_is_answered() {
    let mut world = World::new();
    let conn = world.connects().conn;
    for inquiry in [Inquiry::Ping, Inquiry::Whoami, Inquiry::Handlers, Inquiry::Dummy] {
        ask(&mut world.on(conn), inquiry);
    }
    let no = "bad notAuthenticated #q";
    world.on(conn).gets(&["good {} #q", no, no, no]);
    assert_eq!(world.on(conn).settled(), [0; 4]);
}

#[test]
fn the_informer_knows_who_is_here() {
    let mut world = World::new();
    let second = world.session("bob");
    world.connects();
    let good = |data: &str| (format!(r#"{{"status":"0","data":{data}}}"#), false);
    assert_eq!(informer(&mut world, "listClients", None), good(r#"["alice","bob","eve"]"#));
    assert_eq!(informer(&mut world, "isClient", Some(r#""bob""#)), good("true"));
    world.bob().disconnects();
    assert_eq!(informer(&mut world, "isClient", Some(r#""bob""#)), good("true"));
    world.on(second).disconnects();
    for name in [r#""bob""#, r#""carol""#, r#""ghost""#] {
        assert_eq!(informer(&mut world, "isClient", Some(name)), good("false"));
    }
    let sessions = r#"[{"session":1,"user":"alice"},{"session":3,"user":"eve"}]"#;
    assert_eq!(informer(&mut world, "sessions", None), good(sessions));
    assert_eq!(informer(&mut world, "listClients", None), good(r#"["alice","eve"]"#));
}

#[test]
fn the_informer_knows_the_server() {
    let mut world = World::new();
    world.session("bob");
    let (answer, _) = informer(&mut world, "serverInfo", None);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let expected = serde_json::json!({ "status": "0", "data": {
        "clientCount": "4",
        "adminInfo": { "email": "admin@a.example" },
        "listeners": { "listener0": { "address": "tcp4://127.0.0.1:2223" } },
    }});
    assert_eq!(answer, expected);
}

#[test]
fn the_informer_says_what_it_did_not_understand() {
    let mut world = World::new();
    for (kind, data) in [("listclients", None), ("isClient", None), ("isClient", Some("7")), ("push", Some("{}"))] {
        let (answer, closed) = informer(&mut world, kind, data);
        assert!(answer.starts_with(r#"{"status":"1","data":null,"message":""#) && !closed, "{kind}: {answer}");
    }
}

#[test]
fn the_informer_is_left_with_quit() {
    let mut world = World::new();
    assert_eq!(informer(&mut world, "quit", None), (r#"{"status":"0","data":null}"#.to_owned(), true));
}

#[test]
fn the_operator_sees_whether_the_disk_works() {
    use crate::store::mail::Trouble;
    let mut world = World::new();
    let storage = |world: &mut World| {
        let conn = ConnId(99);
        world.connections.insert(conn, Connection::default());
        world.handle(Event::Informed(conn, Asker::Operator, Question { kind: "status".into(), data: None }));
        let answer = world.on(conn).frames().concat();
        world.on(conn).disconnects();
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["data"]["storage"].to_string()
    };
    let posts = |world: &mut World, trouble| {
        world.disk.trouble = trouble;
        world.eve().asks("post", "0", "p");
        world.handler("post").answers(&to(&["carol"], "1"));
    };
    let good = r#"{"readingFails":null,"waiting":0,"writingFails":null}"#;
    assert_eq!(storage(&mut world), good);
    posts(&mut world, Some(Trouble::Busy));
    assert_eq!(storage(&mut world), good, "nobody asked the disk");
    posts(&mut world, Some(Trouble::Storage));
    world.now += Duration::from_secs(3);
    posts(&mut world, Some(Trouble::Storage));
    world.now += Duration::from_secs(2);
    posts(&mut world, Some(Trouble::Busy));
    assert_eq!(storage(&mut world), r#"{"readingFails":null,"waiting":0,"writingFails":{"last":2.0,"since":5.0}}"#);
    world.disk.rests = true;
    posts(&mut world, None);
    assert_eq!(storage(&mut world), r#"{"readingFails":null,"waiting":1,"writingFails":{"last":2.0,"since":5.0}}"#);
    world.disk.rests = false;
    world.disk.trouble = Some(Trouble::Storage);
    let carol = world.connects().conn;
    world.on(carol).logs_in("carol", 1);
    assert_eq!(storage(&mut world), r#"{"readingFails":{"last":0.0,"since":0.0},"waiting":0,"writingFails":{"last":0.0,"since":5.0}}"#);
    world.disk.trouble = None;
    world.passes(Duration::from_secs(1));
    assert_eq!(storage(&mut world), r#"{"readingFails":null,"waiting":0,"writingFails":{"last":1.0,"since":6.0}}"#);
    world.on(carol).disconnects();
    posts(&mut world, None);
    assert_eq!(storage(&mut world), good);
}
