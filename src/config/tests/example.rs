//! All keys: the table, the example, and the file of another server.

use super::super::json;
use super::super::read::{KEYS, keys};
use super::*;

/// A table without its use would let a mistyped key pass in silence.
#[test]
fn every_known_key_is_read() {
    for (block, names) in KEYS {
        for name in *names {
            let path = if block.is_empty() { (*name).to_owned() } else { format!("{block}.{name}") };
            let mut text = "null".to_owned();
            for part in path.rsplit('.') {
                text = format!("{{\"{}\": {text}}}", if part == "*" { "a" } else { part });
            }
            let mistakes = load(&text).unwrap_err();
            let path = path.replace('*', "a");
            let read = |m: &&Mistake| m.key == path && matches!(m.fault, Fault::Expected { .. });
            assert!(mistakes.list.iter().any(|m| read(&m)), "{path}\n{mistakes}");
        }
    }
}

#[test]
fn example_shows_every_key_and_its_default() {
    let shown = load(EXAMPLE).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let least = good(
        r#"{
            "network": {
                "tcp4": {"port": 2223}, "tcp6": {"port": 2223}, "unix": {"address": "bester-state/bester.sock"},
                "tls": {"port": 2224}
            },
            "handlers": {"typeMap": {
                "echo": {"handlerBinary": "handlers/echo/echo.py"},
                "chat": {"handlerBinary": "handlers/chat/chat.py", "envelope": true, "federated": true},
                "mail": {"handlerBinary": "handlers/mail/mail.py", "envelope": true, "offline": "queue"},
                "presence": {"handlerBinary": "handlers/presence/presence.py", "envelope": true, "federated": true},
                "count": {"handlerBinary": "handlers/count/count.sh", "framing": "lines"}
            }}
        }"#,
    );
    assert_eq!(shown, least);
    // With what stands behind comments too; only the token asks for another value beside it.
    let text = uncommented().replace("\"registration\": \"closed\"", "\"registration\": \"token\"");
    let all = load(&text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    assert_eq!(all.server.name.as_str(), "chat.example.org");
    assert_eq!(all.accounts.registration, Registration::Token("/etc/bester/registration-token".into()));
    assert_eq!(all.handlers, least.handlers);
    let tree = serde_json::from_str(&config_as_json(&text)).unwrap();
    for (block, names) in KEYS {
        for name in keys(block) {
            assert!(has(&tree, block, name), "`{block}` in bester.conf.example does not explain `{name}`");
        }
        assert!(!names.is_empty(), "{block}");
    }
}

/// The example with the lines that are keys, or the end of a block, behind comment signs.
fn uncommented() -> String {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let kept = line.trim_start().strip_prefix("// ").filter(|rest| {
            let rest = rest.trim_start();
            rest.starts_with("},") || (rest.starts_with('"') && rest.contains("\": "))
        });
        text.push_str(kept.unwrap_or(line));
        text.push('\n');
    }
    text
}

fn config_as_json(text: &str) -> String {
    json::compact(&json::parse(text, &mut Vec::new()).unwrap())
}

/// Whether `block`, or any entry where it says `*`, has the key.
fn has(tree: &serde_json::Value, block: &str, key: &str) -> bool {
    let mut blocks = vec![tree];
    for part in block.split('.').filter(|part| !part.is_empty()) {
        blocks = if part == "*" {
            blocks.iter().flat_map(|b| b.as_object().unwrap().values()).collect()
        } else {
            blocks.iter().filter_map(|b| b.get(part)).collect()
        };
    }
    blocks.iter().any(|b| b.get(key).is_some())
}

#[test]
fn file_of_besterd_has_one_mistake() {
    let text = r#"{
    "network" : {
        "types" : ["unix", "tcp4", "tcp6"],
        "unix" : {"address" : "besterUnix"},
        "tcp4" : {"port" : "2223", "address" : "0.0.0.0"},
        "tcp6" : {"port" : "2224", "address" : "::"}
    },
    "handlers" : {
        "availableTypes" : ["type1", "type2"],
        "typeMap" : {
            "type1" : {"handlerBinary" : "./testing/one.py", "unixDomainSocketPath" : "aSock"},
            "type2" : {"handlerBinary" : "none", "unixDomainSocketPath" : "bSock"}
        }
    },
    "database" : {"type" : "redis", "redis" : {"address" : "127.0.0.1", "port" : "6379"}},
    "admin" : {"info" : {}}
}"#;
    check(
        text,
        &["15:28: database.type: this server keeps its accounts in SQLite, not in Redis; \
           remove the block `database`, or change its type to \"sqlite\" and remove the rest"],
    );
    let without: Vec<_> = text.lines().filter(|line| !line.contains("redis")).collect();
    let config = good(&without.join("\n"));
    assert_eq!(config.network.tcp4, Some("0.0.0.0:2223".parse().unwrap()));
    assert_eq!(config.network.tcp6, Some("[::]:2224".parse().unwrap()));
    assert_eq!(config.handlers[&b"type1"[..]].program.as_ref().unwrap().path, Path::new("/etc/bester/testing/one.py"));
    assert_eq!(config.handlers[&b"type2"[..]].program, None);
    let transport = HandlerTransport::Unix { path: "/etc/bester/bSock".into(), persistent: false };
    assert_eq!(config.handlers[&b"type2"[..]].transport, transport);
    assert_eq!(config.server.state_directory, Path::new("/etc/bester/bester-state"));
}
