use super::*;
use crate::password::Permits;
use std::time::Instant;
use tempfile::TempDir;

const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

fn name(text: &str) -> Username {
    Username::new(text).unwrap()
}

fn open() -> (TempDir, Database) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("state/bester.db")).unwrap();
    (directory, database)
}

fn line(name: &str) -> String {
    format!("{{\"name\":\"{name}\",\"password\":\"{HASH}\"}}\n")
}

type Import = Result<(Imports, Vec<Username>), Failure>;

/// Imports `text`; gives the result and the complaints.
fn import_text(database: &mut Database, text: &str) -> (Import, Vec<String>) {
    let mut complaints = Vec::new();
    let mut complain = |c| complaints.push(c);
    let imported = import(database, "a.json", &mut text.as_bytes(), &mut complain);
    (imported, complaints)
}

fn listed(database: &Database, json: bool) -> String {
    let mut out = Vec::new();
    list(database, json, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn exported(database: &Database) -> String {
    let mut out = Vec::new();
    export(database, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn typed(text: &str) -> impl FnOnce(&Username) -> Result<Password, Failure> {
    let password = Password::new(text.to_owned()).unwrap();
    move |_| Ok(password)
}

fn not_asked(_: &Username) -> Result<Password, Failure> {
    panic!("asked for a password");
}

fn knows(database: &Database, who: &str, password: &str) -> bool {
    let account = database.account(&name(who)).unwrap().unwrap();
    let mut permit = Permits::new(1).acquire(Instant::now()).unwrap();
    let password = Password::new(password.to_owned()).unwrap();
    permit.verify(&password, &account.password).unwrap()
}

#[test]
fn arguments_are_an_action_and_what_it_needs() {
    let parse = |words: &[&str], json| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Action::parse(&words, json)
    };
    let alice = || name("alice");
    assert_eq!(parse(&["add", "alice"], false), Ok(Action::Add(alice())));
    assert_eq!(parse(&["password", "alice"], false), Ok(Action::Password(alice())));
    assert_eq!(parse(&["remove", "alice"], false), Ok(Action::Remove(alice())));
    assert_eq!(parse(&["disable", "alice"], false), Ok(Action::SetDisabled(alice(), true)));
    assert_eq!(parse(&["enable", "alice"], false), Ok(Action::SetDisabled(alice(), false)));
    assert_eq!(parse(&["list"], true), Ok(Action::List { json: true }));
    assert_eq!(parse(&["import", "-"], false), Ok(Action::Import("-".into())));
    assert_eq!(parse(&["export"], false), Ok(Action::Export));
    for (words, json, code) in [
        (&[][..], false, 64),
        (&["frobnicate"], false, 64),
        (&["add"], false, 64),
        (&["add", "alice", "secret"], false, 64),
        (&["list", "alice"], false, 64),
        (&["export"], true, 64),
        (&["import"], false, 64),
        (&["add", "Alice"], false, 65),
        (&["remove", ""], false, 65),
    ] {
        let failure = parse(words, json).unwrap_err();
        assert_eq!(failure.code, code, "{words:?}: {failure}");
    }
    let failure = parse(&["add", "Alice"], false).unwrap_err();
    assert!(failure.message.contains(Username::RULE), "{failure}");
    assert!(HELP.contains(Username::RULE));
}

#[test]
fn an_account_gets_the_password_that_was_typed() {
    let (_directory, mut database) = open();
    assert_eq!(add(&mut database, name("alice"), typed("first one")), Ok(vec![name("alice")]));
    assert!(knows(&database, "alice", "first one"));
    set_password(&mut database, name("alice"), typed("second one")).unwrap();
    assert!(knows(&database, "alice", "second one"));
    assert!(!knows(&database, "alice", "first one"));
}

#[test]
fn nobody_is_asked_for_a_password_in_vain() {
    let (_directory, mut database) = open();
    let unknown = set_password(&mut database, name("alice"), not_asked).unwrap_err();
    assert_eq!(unknown.code, 67);
    import_text(&mut database, &line("alice")).0.unwrap();
    let taken = add(&mut database, name("alice"), not_asked).unwrap_err();
    assert_eq!(taken.code, 65);
}

#[test]
fn a_list_marks_who_is_disabled() {
    let (_directory, mut database) = open();
    import_text(&mut database, &(line("bob") + &line("alice"))).0.unwrap();
    database.set_disabled(&name("bob"), true).unwrap();
    assert_eq!(listed(&database, false), "alice\nbob\tdisabled\n");
    let json = listed(&database, true);
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[1]["name"], "bob");
    assert_eq!(lines[1]["disabled"], true);
    assert!(lines[0]["created"].as_i64().unwrap() > 1_600_000_000);
    assert_eq!(lines.len(), 2);
}

#[test]
fn an_export_can_be_imported() {
    let (_directory, mut database) = open();
    import_text(&mut database, &(line("alice") + &line("bob"))).0.unwrap();
    database.set_disabled(&name("bob"), true).unwrap();
    let text = exported(&database);
    assert!(text.starts_with(&line("alice")));

    let (_directory, mut other) = open();
    let (imported, complaints) = import_text(&mut other, &text);
    let names = vec![name("alice"), name("bob")];
    let imports = Imports { added: 2, replaced: 0 };
    assert_eq!((imported, complaints), (Ok((imports, names)), Vec::new()));
    assert_eq!(exported(&other), text);
    assert_eq!(import_text(&mut other, &text).0.unwrap().0.replaced, 2);
}

#[test]
fn every_bad_line_is_named_and_nothing_is_imported() {
    let (_directory, mut database) = open();
    let long = format!("{{\"name\":\"{}\"}}\n", "x".repeat(5000));
    let text = [
        line("alice"),
        "\n".into(),
        "{\"name\":\"bob\"}\n".into(),
        line("Carol"),
        "{\"name\":\"dave\",\"password\":\"plain text\"}\n".into(),
        long,
        line("alice"),
        "{\"name\":\"erin\",\"passwort\":\"x\"}\n".into(),
        "no json\n".into(),
        line("frank").trim_end().into(),
    ]
    .concat();
    let (imported, complaints) = import_text(&mut database, &text);
    let expected = [
        ("line 3:", "missing field `password`"),
        ("line 4:", Username::RULE),
        ("line 5:", "is no PHC string"),
        ("line 6:", "more than 4096 bytes"),
        ("line 7:", "alice is in line 1 already"),
        ("line 8:", "`passwort`"),
        ("line 9:", "column"),
    ];
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, (line, what)) in complaints.iter().zip(expected) {
        assert!(complaint.contains("a.json, ") && complaint.contains(line), "{complaint}");
        assert!(complaint.contains(what), "{complaint}");
        assert!(!complaint.contains("plain text") && !complaint.contains("line 1 column"));
    }
    let failure = imported.unwrap_err();
    assert_eq!(failure.code, 65);
    assert!(failure.message.starts_with("7 lines are wrong"), "{failure}");
    assert_eq!(listed(&database, false), "");
}

#[test]
fn a_line_without_an_end_and_one_of_the_greatest_length_are_read() {
    let (_directory, mut database) = open();
    let pad = |total: usize, end: &str| {
        let text = line("alice");
        let text = text.trim_end();
        format!("{text}{}{end}", " ".repeat(total - text.len() - end.len()))
    };
    for text in [line("alice").trim_end().to_owned(), pad(4096, "\n")] {
        assert!(import_text(&mut database, &text).0.is_ok(), "{}", text.len());
    }
    assert!(import_text(&mut database, &pad(4097, "\n")).0.is_err());
}
