//! The scanner against serde_json, which is an oracle for everything but depth, and a recursive one for that.

use super::super::grammar::plain_bytes;
use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

fn scan(bytes: &[u8], depth_max: usize) -> Result<Value, Broken> {
    let mut scanner = Scanner::new(bytes);
    let value = scanner.value(depth_max)?;
    scanner.end()?;
    Ok(value)
}

/// Goes over the same text with the calls for members and elements, two containers deep.
fn walk(bytes: &[u8]) -> Result<(), Broken> {
    fn inside(scanner: &mut Scanner<'_>, levels: usize) -> Result<(), Broken> {
        let mut first = true;
        if levels > 0 && scanner.next_is(b'{') {
            scanner.enter();
            while scanner.another_key(first)? {
                let key = scanner.any_key(first)?;
                assert!(matches!(scanner.raw(key), [b'"', .., b'"']));
                scanner.colon()?;
                first = false;
                inside(scanner, levels - 1)?;
            }
        } else if levels > 0 && scanner.next_is(b'[') {
            scanner.enter();
            while scanner.element(first)? {
                first = false;
                inside(scanner, levels - 1)?;
            }
        } else {
            scanner.value(usize::MAX)?;
        }
        Ok(())
    }
    let mut scanner = Scanner::new(bytes);
    inside(&mut scanner, 2)?;
    scanner.end()
}

fn check_like_serde(bytes: &[u8]) -> Result<(), TestCaseError> {
    let expected = serde_json::from_slice::<&RawValue>(bytes).map(|raw| raw.get().to_string());
    let shown = String::from_utf8_lossy(bytes);
    match (scan(bytes, usize::MAX), &expected) {
        (Ok(value), Ok(raw)) => prop_assert_eq!(Scanner::new(bytes).raw(value), raw.as_bytes()),
        (Err(_), Err(_)) => {}
        (ours, _) => prop_assert!(false, "{:?} for {}, serde_json says {:?}", ours, shown, expected),
    }
    prop_assert_eq!(walk(bytes).is_ok(), expected.is_ok(), "{}", shown);
    Ok(())
}

/// Sound JSON texts with odd parts.
fn json() -> impl Strategy<Value = String> {
    let string = prop::collection::vec(
        prop::sample::select(vec![
            "a",
            "ä",
            "😀",
            " ",
            "\\\"",
            "\\\\",
            "\\/",
            "\\b",
            "\\n",
            "\\u00e4",
            "\\ud83d\\ude00",
            "\\ud800",
            "\\uDFFF",
            "\u{7f}",
            "\u{2028}",
            "[",
            "}",
            "plain text of some length",
        ]),
        0..6,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = prop::sample::select(vec![
        "0",
        "-0",
        "1",
        "-12",
        "1.0",
        "0.10",
        "1e5",
        "1E+5",
        "1.5e-300",
        "1e999",
        "-0.0e0",
        "1234567890123456789012345678901234567890",
    ]);
    let word = prop::sample::select(vec!["null", "true", "false"]);
    let leaf = prop_oneof![string.clone(), number.prop_map(str::to_string), word.prop_map(str::to_string)];
    let space = || prop::sample::select(vec!["", "", "", " ", "\n", "\t\r "]);
    leaf.prop_recursive(6, 60, 5, move |inner| {
        let array = (prop::collection::vec((space(), inner.clone(), space()), 0..5), space()).prop_map(|(items, pad)| {
            let items: Vec<String> = items.iter().map(|(a, item, b)| format!("{a}{item}{b}")).collect();
            format!("[{pad}{}]", items.join(","))
        });
        let member = (string.clone(), space(), space(), inner);
        let object = (prop::collection::vec(member, 0..5), space()).prop_map(|(members, pad)| {
            let members: Vec<String> = members.iter().map(|(k, a, b, v)| format!("{a}{k}{b}:{a}{v}{b}")).collect();
            format!("{{{pad}{}}}", members.join(","))
        });
        prop_oneof![array, object]
    })
}

/// How deep the value at the start of sound JSON is, found by recursion over serde's own tree.
fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Containers only: what the depth depends on.
fn nested() -> impl Strategy<Value = String> {
    Just("0".to_string()).prop_recursive(12, 80, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let members: Vec<String> = items.iter().enumerate().map(|(index, item)| format!("\"{index}]\":{item}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sound_json_is_accepted(text in json()) {
        prop_assert!(scan(text.as_bytes(), usize::MAX).is_ok(), "{}", text);
        check_like_serde(text.as_bytes())?;
    }

    #[test]
    fn changed_json_is_judged_as_by_serde(
        text in json(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>(), 0usize..40), 1..4),
    ) {
        let alphabet = b"{}[]:,\"\\ \n\t0123456789-+.eEtrufalsn/bdD\x00\x1f\x7f\x80\xc3\xbf\xef\xed";
        let mut bytes = text.into_bytes();
        for (place, how, any, choice) in changes {
            let at = place.index(bytes.len() + 1);
            let byte = alphabet.get(choice).copied().unwrap_or(any);
            match how {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                2 if at < bytes.len() => { bytes.remove(at); }
                3 => bytes.truncate(at),
                _ => bytes.push(byte),
            }
        }
        check_like_serde(&bytes)?;
    }

    #[test]
    fn random_bytes_are_judged_as_by_serde(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
        check_like_serde(&bytes)?;
        let quoted = [b"\"", &bytes[..], b"\""].concat();
        check_like_serde(&quoted)?;
    }

    #[test]
    fn depth_is_counted_in_containers(text in nested(), depth_max in 0usize..14) {
        let tree: serde_json::Value = serde_json::from_str(&text).expect("the strategy makes sound JSON");
        let value = scan(text.as_bytes(), depth_max).expect("as above");
        prop_assert_eq!(value.too_deep, depth(&tree) > depth_max, "{} {}", text, depth_max);
    }

    #[test]
    fn a_stop_is_found_wherever_it_is(
        pattern in prop::collection::vec(prop_oneof![Just(b' '), Just(b'!'), Just(b'#'), Just(b'['), Just(b']'), 0x7fu8..], 1..12),
        length in 0usize..300,
        stop in prop_oneof![0u8..0x20, Just(b'"'), Just(b'\\')],
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let plain: Vec<u8> = pattern.into_iter().cycle().take(length).collect();
        let stopped = [&plain[..], &[stop], &behind].concat();
        for bytes in [&plain, &stopped] {
            let (length, ascii) = plain_bytes(bytes);
            prop_assert_eq!(length, plain.len());
            prop_assert!(plain.is_ascii() || !ascii);
            prop_assert!(!bytes.is_ascii() || ascii);
        }
    }
}

#[test]
fn what_rfc_8259_and_serde_say_about_known_oddities() {
    let good: &[&[u8]] = &[
        b"0",
        b"-0",
        b"1e999",
        b"\"\\ud800\"",
        b"{\"a\":1,\"a\":2}",
        b" \t\r\n[ ] ",
        b"\"\x7f\"",
        b"{\"\":[]}",
        "\"\u{2028}\"".as_bytes(),
        b"1234567890123456789012345678901234567890.5E-7",
    ];
    for text in good {
        assert!(scan(text, 100).is_ok() && serde_json::from_slice::<&RawValue>(text).is_ok(), "{text:?}");
    }
    let bad: &[&[u8]] = &[
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        b"01",
        b"-01",
        b"1.",
        b".5",
        b"+1",
        b"-",
        b"1e",
        b"1e+",
        b"0x10",
        b"NaN",
        b"-Infinity",
        b"nul",
        b"truex",
        b"\"\\x\"",
        b"\"\\u12g4\"",
        b"\"\\u12\"",
        b"\"\n\"",
        b"\"\x00\"",
        b"\"",
        b"\"\\\"",
        b"[1,]",
        b"[,1]",
        b"{\"a\":1,}",
        b"{a:1}",
        b"{\"a\" 1}",
        b"{\"a\":}",
        b"[1 2]",
        b"[1}",
        b"{\"a\":1]",
        b"{} {}",
        b"{}\0",
        b"\"\x80\"",
        b"\"\xed\xa0\x80\"",
        b"\xc2\xa0[]",
        b"\x0c[]",
        b"'a'",
        b"// a\n1",
        b"[1",
        b"{\"a\":1",
        b"]",
    ];
    for text in bad {
        assert!(scan(text, 100).is_err() && serde_json::from_slice::<&RawValue>(text).is_err(), "{text:?}");
    }
}

#[test]
fn errors_say_where_and_what() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "it is empty"),
        (b" ", "expected a value at byte 1, where it ends"),
        (b"[1 2]", "expected `,` or `]` at byte 3"),
        (b"[1,]", "expected a value at byte 3"),
        (b"{\"a\":1 \"b\"}", "expected `,` or `}` at byte 7"),
        (b"{1}", "expected a key or `}` at byte 1"),
        (b"{\"a\":1,}", "expected a key at byte 7"),
        (b"{\"a\"}", "expected `:` at byte 4"),
        (b"\"\t\"", "expected an escape instead of a control character at byte 1"),
        (b"\"a", "expected a closing quote at byte 2, where it ends"),
        (b"\"\\q\"", "expected an escape that JSON has at byte 2"),
        (b"\"\\u00g\"", "expected a hexadecimal digit at byte 5"),
        (b"-a", "expected a digit at byte 1"),
        (b"[01]", "expected `,` or `]` at byte 2"),
        (b"{} x", "expected the end at byte 3"),
        (b"[NaN]", "NaN at byte 1; NaN is not JSON, null or a string can stand for it"),
        (b"[-Infinity]", "-Infinity at byte 1; -Infinity is not JSON, null or a string can stand for it"),
        (b"[\"a\xff\"]", "the bytes from byte 3 on are not UTF-8"),
        (b"[1 \xff]", "the bytes from byte 3 on are not UTF-8"),
        (b"[1}\xff", "expected `,` or `]` at byte 2"),
        (b"{}\xff", "the bytes from byte 2 on are not UTF-8"),
    ];
    for (text, expected) in cases {
        let broken = scan(text, 100).expect_err("all of them are broken");
        assert_eq!(broken.to_string(), *expected, "{text:?}");
        let walked = walk(text).expect_err("all of them are broken");
        assert_eq!(walked.to_string(), *expected, "{text:?}");
    }
}

#[test]
fn keys_and_strings_are_unescaped() {
    let text = br#"{"a\u0062" : 1, "\ud83d\ude00":2, "\ud800":3}"#;
    let mut scanner = Scanner::new(text);
    assert!(scanner.next_is(b'{'));
    scanner.enter();
    let mut keys = Vec::new();
    while scanner.another_key(keys.is_empty()).expect("it is JSON") {
        assert_eq!(scanner.known_key(&["ab"], 0), None, "it is written with an escape");
        let key = scanner.any_key(keys.is_empty()).expect("it is JSON");
        scanner.colon().expect("it is JSON");
        keys.push(scanner.unescaped(key).map(Cow::into_owned));
        scanner.value(0).expect("it is JSON");
    }
    assert_eq!(keys, [Some("ab".to_string()), Some("😀".to_string()), None]);
}

#[test]
fn known_keys_are_told_from_those_that_begin_or_end_like_them() {
    let text = br#"{"typ":0,"type":1,"types":2,"data" : 3,"atype":4,"":5,"type\"":6,"type":7}"#;
    let mut scanner = Scanner::new(text);
    assert!(scanner.next_is(b'{'));
    scanner.enter();
    let mut found = Vec::new();
    for number in 0.. {
        if !scanner.another_key(number == 0).expect("it is JSON") {
            break;
        }
        // Wherever it begins to look.
        match scanner.known_key(&["data", "type"], (number + 1) % 3) {
            Some(place) => found.push((number, place)),
            None => drop(scanner.any_key(number == 0).expect("it is JSON")),
        }
        scanner.colon().expect("it is JSON");
        let value = scanner.value(0).expect("it is JSON");
        assert_eq!(scanner.raw(value), number.to_string().as_bytes());
    }
    assert_eq!(found, [(1, 1), (3, 0), (7, 1)]);
    assert_eq!(Scanner::new(br#""type"#).known_key(&["type"], 0), None);
}

/// A thread's stack that a recursive reader would overflow after some hundred levels.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(run).expect("a thread can be had");
    thread.join().expect("the stack is enough");
}

#[test]
fn a_million_containers_need_no_stack() {
    on_a_small_stack(|| {
        let levels = 1_000_000;
        let arrays = ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(scan(arrays.as_bytes(), levels).is_ok_and(|value| !value.too_deep));
        assert!(scan(arrays.as_bytes(), levels - 1).is_ok_and(|value| value.too_deep));
        let objects = ["[{\"a\":".repeat(levels), "0".to_string(), "}]".repeat(levels)].concat();
        assert!(scan(objects.as_bytes(), 100).is_ok_and(|value| value.too_deep));
        let crossed = ["[{\"a\":".repeat(levels), "0".to_string(), "]}".repeat(levels)].concat();
        assert!(scan(crossed.as_bytes(), 100).is_err());
    });
}

#[test]
fn what_can_never_be_closed_is_given_up_early() {
    let opened = "[".repeat(1_000_000);
    let broken = scan(opened.as_bytes(), 100).expect_err("nothing is closed");
    assert_eq!(broken.to_string(), "expected closing brackets at byte 1000000, where it ends");
    for levels in [127, 128, 129, 255, 256, 257, 1000] {
        let sound = ["[".repeat(levels), "]".repeat(levels)].concat();
        assert!(scan(sound.as_bytes(), levels).is_ok(), "{levels}");
        assert!(scan(&sound.as_bytes()[..2 * levels - 1], levels).is_err(), "{levels}");
    }
}
