//! Files and JSON: what is not read, and where.

use super::*;
use proptest::prelude::*;

#[test]
fn text_that_is_not_json_is_refused_at_its_place() {
    for (text, expected) in [
        ("", "1:1: the file is empty; expected a block in braces"),
        ("// nothing", "1:1: the file is empty; expected a block in braces"),
        ("\u{feff}{}", "1:1: the file begins with a byte order mark; save it as UTF-8 without one"),
        ("{", "1:1: this brace is never closed"),
        ("{\n  \"a\": [1,\n", "2:8: this bracket is never closed"),
        ("{} {}", "1:4: expected nothing after the closing brace of the whole file"),
        ("{\"a\": 1\n \"b\": 2}", "1:8: a comma is missing here"),
        ("{\"a\": [1 2]}", "1:9: a comma is missing here"),
        ("{\"a\" 1}", "1:6: expected a colon between a key and its value"),
        ("{a: 1}", "1:2: expected a key in double quotes"),
        ("{1: 1}", "1:2: expected a key in double quotes"),
        ("{true: 1}", "1:2: expected a key in double quotes"),
        ("{[]: 1}", "1:2: expected a key in double quotes or a closing brace"),
        ("{\"a\": yes}", "1:7: this is no JSON; text needs double quotes around it"),
        ("{\"a\": 'b'}", "1:7: expected double quotes, not single ones"),
        ("{\"a\": 0x1F}", "1:7: expected a decimal number, not a hexadecimal one"),
        ("{\"a\": +1}", "1:7: not a number as JSON writes it"),
        ("{\"a\": 1.}", "1:7: not a number as JSON writes it"),
        ("{\"a\": -}", "1:8: not a number as JSON writes it"),
        ("{\"a\": -Infinity}", "1:7: not a number as JSON writes it"),
        ("{\"a\": NaN}", "1:7: this is no JSON; text needs double quotes around it"),
        ("{\"a\": 01}", "1:8: a comma is missing here"),
        ("{\"a\": ,}", "1:7: expected a value before this comma"),
        ("{,}", "1:2: expected a key in double quotes or a closing brace"),
        ("{\"ä\": \"\\x41\"}", "1:8: not an escape that JSON has (a backslash within quotes is written \\\\)"),
        ("{\"a\": \"\\ud800\"}", "1:8: not an escape that JSON has (a backslash within quotes is written \\\\)"),
        ("{\n\"a\": \"b,\n\"c\": 1}", "2:6: the closing double quote is missing on this line"),
        ("{\"a\": \"b}", "1:7: the closing double quote is missing"),
        ("{\"a\": \"\t\"}", "1:8: a control character within quotes is written as \\u0009"),
        ("{\u{a0}}", "1:2: the character U+00A0 is no white space in JSON"),
        ("{\u{b}}", "1:2: the character U+000B is no white space in JSON"),
        ("{ /* }", "1:3: this comment is never closed"),
        ("}", "1:1: this closing brace has no opening one"),
        (&format!("{}1", "[".repeat(65)), "1:65: more than 64 blocks and lists within each other"),
        (&format!("{}1", "[".repeat(500_000)), "1:65: more than 64 blocks and lists within each other"),
    ] {
        check(text, &[expected]);
    }
    check("[]", &["1:1: expected a block in braces, found a list"]);
}

#[test]
fn comments_and_trailing_commas_are_allowed() {
    let config = good("// one\n{/* two */\"network\": {\"types\": [\"tcp4\",], \"tcp4\": {\"port\": 7,},},\r\n}\n// three");
    assert_eq!(config.network.tcp4, Some("127.0.0.1:7".parse().unwrap()));
}

#[test]
fn admin_info_is_kept_without_its_comments() {
    let config = good(
        "{\"network\": {\"tcp4\": {\"port\": 1}}, \"admin\": {\"info\": {\"a\\n\": [1.50, -2e3, null, // x\n true,],\n\
         \"b\": {\"ü\": \"\\u00fc\\\"\"}, /* y */ \"c\": {}}}}",
    );
    assert_eq!(config.admin_info, r#"{"a\n":[1.50,-2e3,null,true],"b":{"ü":"ü\""},"c":{}}"#);
    serde_json::from_str::<serde_json::Value>(&config.admin_info).unwrap();
    check_block(r#""admin": {"info": "x"}"#, &["2:19: admin.info: expected a block in braces, found text"]);
    check_block(r#""admin": {"info": {"a": {"b c": 1, "b c": 2}}}"#, &["2:36: admin.info.a.\"b c\": this key is already given on line 2"]);
}

#[test]
fn file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bester.conf");
    let message = || Config::load(&file).unwrap_err().to_string();
    assert_eq!(
        message(),
        format!("{}: cannot be read: No such file or directory (os error 2) (`bester init DIR` writes a configuration)", file.display())
    );
    let sound = r#"{"network": {"tcp4": {"port": 1}}}"#;
    let with_spaces = |length: usize| format!("{sound}{}", " ".repeat(length - sound.len()));
    std::fs::write(&file, with_spaces(1 << 20)).unwrap();
    assert_eq!(Config::load(&file).unwrap().file, file);
    std::fs::write(&file, with_spaces((1 << 20) + 1)).unwrap();
    let large = format!("{}: has more than 1048576 bytes, which no configuration needs", file.display());
    assert_eq!(message(), large);
    std::fs::write(&file, b"\xff").unwrap();
    assert_eq!(message(), format!("{}: is not UTF-8 text", file.display()));
}

#[test]
fn large_file_on_one_line_is_read_in_reasonable_time() {
    let start = std::time::Instant::now();
    let members: Vec<_> = (0..60_000).map(|i| format!("\"k{i}\":{i}")).collect();
    let text = format!(r#"{{"network":{{"tcp4":{{"port":1}}}},"admin":{{"info":{{{}}}}}}}"#, members.join(","));
    assert_eq!(good(&text).admin_info.len(), members.join(",").len() + 2);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

proptest! {
    /// Whatever an editor leaves behind is answered with mistakes that lie in the file.
    #[test]
    fn no_text_makes_the_reading_panic(parts in proptest::collection::vec(
        prop_oneof![
            Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\""), Just("\\"), Just("\\u"),
            Just("\"a\""), Just("network"), Just("\"network\""), Just("\"limits\""), Just("1"), Just("-"), Just("0x"),
            Just("."), Just("//"), Just("/*"), Just("*/"), Just("\n"), Just("\r"), Just("'"), Just("ü"), Just("\u{2028}"),
            Just("true"), Just("nul"), Just("\0"), Just("d800"), Just("💥"), Just("\u{feff}"), Just(" "),
        ], 0..24)) {
        let text = parts.concat();
        if let Err(mistakes) = load(&text) {
            prop_assert!(!mistakes.list.is_empty());
            for at in mistakes.list.iter().filter_map(|m| m.at) {
                let line = text.split('\n').nth(at.line - 1);
                prop_assert!(line.is_some_and(|line| at.column <= line.chars().count() + 1), "{:?} {}", at, mistakes);
            }
        }
    }
}
