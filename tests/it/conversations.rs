//! The conversations of `scripts/conversations`, held with netcat.

use crate::world::{BESTER, Home, sample};
use std::process::Command;

#[test]
fn netcat_gets_what_is_written_down() {
    let home = Home::new(&["echo", "chat", "count", "mail", "presence"].map(sample).concat(), "", &[]);
    home.bester_with_input(&["user", "add", "alice"], "correct horse").good();
    home.bester_with_input(&["user", "add", "bob"], "battery staple").good();
    let server = home.serve();
    // A conversation may ask whether they are up.
    for handler in ["echo", "chat", "count", "mail", "presence"] {
        server.wait_for(&format!("handler {handler} is up"));
    }
    let address = server.tcp4.expect("an address");
    let output = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/conversations/run"))
        .env("BESTER", BESTER)
        .env("HOST", address.ip().to_string())
        .env("PORT", address.port().to_string())
        .env("SOCKET", server.home.path().join("state/bester.sock"))
        .output()
        .expect("sh runs");
    let (told, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complaints}\n{told}");
    let names: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("ok ")).map(str::trim).collect();
    assert!(names.len() >= 20 && names.contains(&"10-pipelined"), "{told}");
    server.stop();
}
