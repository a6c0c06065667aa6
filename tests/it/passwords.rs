//! Who knows which password, and who may have one: what is told, how soon, and what it ends.

use crate::sessions::{builtin, expect_bad, good, post, serve, serve_with, who_am_i};
use crate::world::{Home, login};
use std::fs;
use std::time::{Duration, Instant};

/// A login that fails takes at least so long.
const FAILURE_TAKES: Duration = Duration::from_millis(250);

#[test]
fn a_new_password_ends_the_other_sessions() {
    let server = serve();
    let mut here = server.log_in("alice");
    let mut others = [server.log_in("alice"), server.connect_unix()];
    others[1].log_in("alice");
    let mut bob = server.log_in("bob");
    here.sends(&builtin("changePassword", r#"{"oldPassword":"wrong","newPassword":"another one"}"#, "no"));
    expect_bad(&mut here, "authentication", "builtin", Some("no"));
    here.sends(&builtin("changePassword", r#"{"oldPassword":"password","newPassword":"seven.."}"#, "no"));
    expect_bad(&mut here, "malformed", "builtin", Some("no"));
    others[0].got_nothing();
    here.sends(&builtin("changePassword", r#"{"oldPassword":"password","newPassword":"another one"}"#, "yes"));
    assert_eq!(here.gets(), good("builtin", "yes", "{}"));
    let changed = Instant::now();
    for other in &mut others {
        other.is_closed();
    }
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
    assert_eq!(who_am_i(&mut here)["sessions"], 1);
    assert_eq!(post(&mut bob, &["alice"], "1")["header"]["status"], "good");
    assert!(here.gets().contains("receivedMessage"));
    let mut client = server.connect();
    client.sends(&login("alice", "password"));
    expect_bad(&mut client, "authentication", "dummy", Some("auth_special"));
    client.is_closed();
    let mut client = server.connect();
    client.sends(&login("alice", "another one"));
    assert!(client.gets().contains("good"));
}

#[test]
fn registration_is_closed_unless_it_is_opened() {
    let register = |name: &str, password: &str, more: &str| {
        builtin("register", &format!(r#"{{"username":"{name}","password":"{password}"{more}}}"#), "r")
    };
    let closed = serve();
    let mut client = closed.connect();
    client.sends(&register("dave", "password", ""));
    expect_bad(&mut client, "forbidden", "builtin", Some("r"));
    client.is_closed();

    let open = serve_with(r#""accounts": { "registration": "open" },"#);
    for (name, password, reason) in [
        ("alice", "password", "forbidden"),
        ("Dave", "password", "malformed"),
        ("", "password", "malformed"),
        (".dave", "password", "malformed"),
        ("dave", "short", "malformed"),
        ("dave", &*"x".repeat(1025), "malformed"),
    ] {
        let mut client = open.connect();
        client.sends(&register(name, password, ""));
        expect_bad(&mut client, reason, "builtin", Some("r"));
        client.is_closed();
    }
    let mut alice = open.log_in("alice");
    assert_eq!(post(&mut alice, &["dave"], "1")["payload"]["data"]["unknown"], 1);
    let mut client = open.connect();
    client.sends(&register("dave", "password of dave", r#","token":null"#));
    assert_eq!(client.gets(), good("builtin", "r", "{}"));
    // He exists, and is not logged in by that.
    assert_eq!(post(&mut alice, &["dave"], "1")["payload"]["data"]["offline"], 1);
    client.sends(&login("dave", "password of dave"));
    assert_eq!(client.gets(), good("dummy", "auth_special", "null"));
    assert_eq!(who_am_i(&mut client)["user"], "dave");
    assert_eq!(post(&mut alice, &["dave"], "1")["header"]["status"], "good");
}

#[test]
fn registration_may_need_a_token() {
    let home = Home::new("", r#""accounts": { "registration": "token", "token": "token" },"#, &["alice"]);
    let token = home.write("token", "open sesame\n");
    fs::set_permissions(token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    let server = home.serve();
    let register = |token: &str| builtin("register", &format!(r#"{{"username":"dave","password":"password"{token}}}"#), "r");
    for wrong in ["", r#","token":null"#, r#","token":"""#, r#","token":"open""#, r#","token":"open sesame\n""#] {
        let mut client = server.connect();
        let began = Instant::now();
        client.sends(&register(wrong));
        expect_bad(&mut client, "forbidden", "builtin", Some("r"));
        assert!(began.elapsed() >= FAILURE_TAKES, "{:?}", began.elapsed());
        client.is_closed();
    }
    // The token is read each time that it is needed.
    server.home.write("token", "another");
    let mut client = server.log_in("alice");
    client.sends(&register(r#","token":"open sesame""#));
    expect_bad(&mut client, "forbidden", "builtin", Some("r"));
    client.sends(&register(r#","token":"another""#));
    assert_eq!(client.gets(), good("builtin", "r", "{}"));
    assert_eq!(who_am_i(&mut client)["user"], "alice");
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_told_apart_by_nothing() {
    let server = serve();
    assert_eq!(server.home.bester(&["user", "disable", "carol"]).code, Some(0));
    let mut answers = Vec::new();
    for (user, password) in
        [("alice", "wrong"), ("nobody", "password"), ("Alice", "password"), ("", ""), ("carol", "password"), ("alice", &*"x".repeat(5000))]
    {
        let mut client = server.connect();
        let began = Instant::now();
        client.sends(&login(user, password));
        answers.push(client.gets());
        let took = began.elapsed();
        assert!(took >= FAILURE_TAKES, "{user}: {took:?}");
        client.is_closed();
    }
    assert!(answers[0].contains(r#""reason":"authentication""#), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}
