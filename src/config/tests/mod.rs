//! Texts and what is wrong with them.

mod blocks;
mod check;
mod example;
mod handlers;
mod json;

use super::*;
use std::path::Path;

const FILE: &str = "/etc/bester/bester.conf";

fn load(text: &str) -> Result<Config, Mistakes> {
    Config::from_text(text, Path::new(FILE))
}

fn good(text: &str) -> Config {
    load(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

/// The mistakes in `text`, a line each, without the name of the file.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = match load(text) {
        Ok(_) => String::new(),
        Err(mistakes) => mistakes.to_string(),
    };
    let found: Vec<_> = found.lines().map(|line| line.strip_prefix(FILE).and_then(|l| l.strip_prefix(':')).unwrap_or(line)).collect();
    assert_eq!(found, expected, "\n{text}");
}

/// A mistake in one block of an otherwise sound file, which stands on line 2.
#[track_caller]
fn check_block(block: &str, expected: &[&str]) {
    check(&format!("{{\"network\": {{\"tcp4\": {{\"port\": 1}}}},\n{block}}}"), expected);
}

#[track_caller]
fn check_handler(entry: &str, expected: &[&str]) {
    check_block(&format!("\"handlers\": {{\"typeMap\": {{\"a\":\n{entry}\n}}}}"), expected);
}

fn handler(entry: &str) -> Handler {
    let text = format!("{{\"network\": {{\"tcp4\": {{\"port\": 1}}}}, \"handlers\": {{\"typeMap\": {{\"a\": {entry}}}}}}}");
    good(&text).handlers[&b"a"[..]].clone()
}
