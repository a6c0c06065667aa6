//! The house is in order: what the sources promise each other, and what the commands and manuals promise users.

use crate::world::Home;
use std::fs;
use std::path::{Path, PathBuf};

/// More lines than this are two files.
const LINES_MAX: usize = 500;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below the directories and files with these names, with their texts.
fn texts(places: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = places.iter().map(|place| top().join(place)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else if !path.components().any(|part| part.as_os_str() == "__pycache__") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push((path, text));
        }
    }
    assert!(!found.is_empty());
    found
}

/// All that is written by people.
fn all_texts() -> Vec<(PathBuf, String)> {
    let mut all = texts(&["src", "tests", "scripts", "handlers", ".ci", "README.md", "bester.conf.example"]);
    all.extend(texts(&["Cargo.toml", "clippy.toml", "rustfmt.toml", ".gitignore", "LICENSE-MIT", "LICENSE-APACHE"]));
    all
}

#[track_caller]
fn no_line_has(texts: &[(PathBuf, String)], why: &str, wrong: impl Fn(&str) -> bool) {
    let mut lines = Vec::new();
    for (path, text) in texts {
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| wrong(line)) {
            lines.push(format!("{}:{number}: {line}", path.display()));
        }
    }
    assert!(lines.is_empty(), "{why}:\n{}", lines.join("\n"));
}

#[test]
fn no_source_file_is_long() {
    let long: Vec<_> = texts(&["src", "tests"]).into_iter().filter(|(_, text)| text.lines().count() >= LINES_MAX).collect();
    assert!(long.is_empty(), "{:?}", long.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_to_be_done() {
    // In pieces, or this file would be the one that has them.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];
    no_line_has(&all_texts(), "do it now", |line| words.iter().any(|word| line.contains(word)));
}

#[test]
fn only_one_file_is_unsafe() {
    let files: Vec<_> = texts(&["src", "tests"]).into_iter().filter(|(path, _)| !path.ends_with("src/sys.rs")).collect();
    let words = [concat!("un", "safe {"), concat!("un", "safe fn"), concat!("un", "safe impl"), concat!("allow(un", "safe_code")];
    no_line_has(&files, "system calls that need it belong into src/sys.rs", |line| words.iter().any(|word| line.contains(word)));
}

#[test]
fn no_path_of_one_machine_is_anywhere() {
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
    no_line_has(&all_texts(), "a path that others do not have", |line| homes.iter().any(|home| line.contains(home)));
}

#[test]
fn every_command_has_help() {
    let home = Home::new("", "", &[]);
    let commands: Vec<&str> = bester::cli::HELP
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split([' ']).next())
        .filter(|word| !word.is_empty())
        .collect();
    assert!(commands.len() >= 9 && commands.contains(&"demo"), "{commands:?}");
    let readme = fs::read_to_string(top().join("README.md")).expect("README.md");
    for command in commands {
        let help = home.bester(&[command, "--help"]).good();
        assert!(help.stdout.starts_with(&format!("Usage: bester {command}")), "{}", help.stdout);
        assert_eq!(help.stderr, "");
        assert!(help.stdout.lines().all(|line| line.len() <= 100), "{command}: longer than a terminal is wide");
        assert!(readme.contains(&format!("`{command}")), "README.md does not name {command}");
    }
    assert_eq!(home.bester(&["--help"]).good().stdout, bester::cli::HELP);
}

#[test]
fn every_reason_is_in_the_manual() {
    let readme = fs::read_to_string(top().join("README.md")).expect("README.md");
    let source = fs::read_to_string(top().join("src/protocol/reason.rs")).expect("the reasons");
    let reasons: Vec<&str> = source.lines().filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\",")).collect();
    assert!(reasons.len() >= 20, "{reasons:?}");
    for reason in reasons {
        assert!(readme.contains(&format!("| `{reason}` |")), "README.md does not explain {reason}");
    }
}

/// That the example names every key there is has a test beside the table of keys.
#[test]
fn the_manual_leads_to_every_key() {
    let home = Home::new("", "", &[]);
    let example = fs::read_to_string(top().join("bester.conf.example")).expect("the example");
    assert_eq!(home.bester(&["config", "default"]).good().stdout, example);
    let readme = fs::read_to_string(top().join("README.md")).expect("README.md");
    assert!(readme.contains("bester config default") && readme.contains("bester.conf.example"));
}
