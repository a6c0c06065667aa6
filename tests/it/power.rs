//! The power fails: what was answered good is there afterwards. The long form of it is `scripts/ledger`.

use crate::disk::SOURCES;
use crate::world::BESTER;
use std::process::Command;

#[track_caller]
fn runs(words: &[&str]) {
    let mut command = Command::new("python3");
    command.arg("-B").args(words);
    // The system's own Python, where there is one, starts ten times as fast as a wrapper that looks for another.
    command.env("PATH", format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default()));
    let output = command.output().expect("python3 runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {told}");
}

#[test]
fn the_disk_of_the_tests_loses_what_was_not_synced_and_nothing_else() {
    runs(&[&format!("{SOURCES}/test_disk.py")]);
}

#[test]
fn nothing_that_was_answered_good_is_lost_with_the_power() {
    // How soon a server that was not built for release is back is another matter, with all tests beside it.
    let ledger = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ledger.py");
    runs(&[ledger, "--power", "--restart-seconds", "20", "5", BESTER]);
}
