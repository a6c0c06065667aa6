//! All blocks but `handlers`.

use super::*;

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    check(
        r#"{
  "netwrk": {},
  "network": {"tcp4": {"port": 70000, "adress": "127.0.0.1"}, "types": ["tcp4", "tpc6"]},
  "handlers": {"typeMap": {"ü": {"handlerBinary": "/bin/cat", /* ü */ "timeoutSecond": 5, "queue": "many"}}},
  "limits": {"depth": 0, "depth": 5},
  "log": {"all": "loud"}
}"#,
        &[
            "2:3: netwrk: unknown key `netwrk`; did you mean `network`?",
            "3:32: network.tcp4.port: expected a port from 0 to 65535, found 70000",
            "3:39: network.tcp4.adress: unknown key `adress`; did you mean `address`?",
            "3:81: network.types[1]: expected \"tcp4\" or \"tcp6\" or \"unix\" or \"tls\", found \"tpc6\"",
            "4:71: handlers.typeMap.ü.timeoutSecond: unknown key `timeoutSecond`; did you mean `timeoutSeconds`?",
            "4:100: handlers.typeMap.ü.queue: expected a whole number from 1 to 1000000, found text",
            "5:23: limits.depth: 0 does not mean no limit here; expected a whole number from 1 to 1000",
            "5:26: limits.depth: this key is already given on line 5",
            "6:18: log.all: expected \"off\" or \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\", found \"loud\"",
        ],
    );
}

#[test]
fn server_has_a_name_and_a_directory() {
    check_block(
        r#""server": {"name": "a b", "stateDirectory": 5}"#,
        &[
            "2:20: server.name: a server name has 1 to 253 characters of a-z, A-Z, 0-9, '.', '_', '-' and ':', \
             and begins with a letter or digit",
            "2:45: server.stateDirectory: expected text in double quotes, found a number",
        ],
    );
    check_block(r#""server": {"stateDirectory": ""}"#, &["2:30: server.stateDirectory: expected a path, found \"\""]);
    check_block(
        r#""server": {"stateDirectory": "a\u0000b"}"#,
        &["2:30: server.stateDirectory: expected text without \\u0000, found \"a\\0b\""],
    );
    check_block(r#""server": []"#, &["2:11: server: expected a block in braces, found a list"]);
    let config = good(r#"{"network": {"tcp4": {"port": 1}}, "server": {"name": "A:1", "stateDirectory": "./x/../y"}}"#);
    assert_eq!(config.server.name.as_str(), "A:1");
    assert_eq!(config.server.state_directory, Path::new("/etc/bester/x/../y"));
    assert_eq!(config.database, Path::new("/etc/bester/x/../y/bester.db"));
}

#[test]
fn network_has_a_listener_with_a_sound_address() {
    check("{}", &["1:1: network: is missing; expected a block with at least one of tcp4, tcp6, unix and tls"]);
    for (network, expected) in [
        ("{}", "1:13: network: is missing; expected at least one of the blocks tcp4, tcp6, unix and tls"),
        (r#"{"types": []}"#, "1:23: network.types: is missing; expected at least one of \"tcp4\", \"tcp6\", \"unix\" and \"tls\""),
        (r#"{"types": ["unix"], "tcp4": {"port": 1}}"#, "1:24: network.types[0]: has no block in `network`"),
        (r#"{"types": ["tcp4", "tcp4"], "tcp4": {"port": 1}}"#, "1:32: network.types[1]: is named twice"),
        (
            r#"{"types": ["tcp4"], "tcp4": {"port": 1}, "tcp6": {"port": -1}}"#,
            "1:71: network.tcp6.port: expected a port from 0 to 65535, found -1",
        ),
        (r#"{"tcp4": {}}"#, "1:22: network.tcp4.port: is missing; expected a port from 0 to 65535"),
        (r#"{"tcp4": {"port": "+1"}}"#, "1:31: network.tcp4.port: expected a port from 0 to 65535, found \"+1\""),
        (r#"{"tcp4": {"port": ""}}"#, "1:31: network.tcp4.port: expected a port from 0 to 65535, found \"\""),
        (r#"{"tcp4": {"port": 1e2}}"#, "1:31: network.tcp4.port: expected a port from 0 to 65535, found 1e2"),
        (r#"{"tcp4": {"port": true}}"#, "1:31: network.tcp4.port: expected a port from 0 to 65535, found true"),
        (
            r#"{"tcp4": {"port": 1, "address": "::1"}}"#,
            "1:45: network.tcp4.address: expected an IPv4 address such as \"127.0.0.1\" or \"0.0.0.0\", found \"::1\"",
        ),
        (
            r#"{"tcp6": {"port": 1, "address": "localhost"}}"#,
            "1:45: network.tcp6.address: expected an IPv6 address such as \"::1\" or \"::\", found \"localhost\"",
        ),
        (r#"{"unix": {}}"#, "1:22: network.unix.address: is missing; expected the path of the socket"),
        (
            r#"{"unix": {"address": "s", "mode": "0680"}}"#,
            "1:47: network.unix.mode: expected permission bits in octal digits such as \"0660\", found \"0680\"",
        ),
        (
            r#"{"unix": {"address": "s", "mode": "4755"}}"#,
            "1:47: network.unix.mode: expected permission bits in octal digits such as \"0660\", found \"4755\"",
        ),
        (r#"{"unix": {"address": "s", "mode": 660}}"#, "1:47: network.unix.mode: expected text in double quotes, found a number"),
    ] {
        check(&format!("{{\"network\": {network}}}"), &[expected]);
    }
    let config = good(
        r#"{"network": {"types": ["tcp6", "unix"], "tcp4": {"port": 1},
            "tcp6": {"port": "0", "address": "::"}, "unix": {"address": "s", "mode": "660"}}}"#,
    );
    let unix = UnixListen { path: "/etc/bester/s".into(), mode: 0o660 };
    assert_eq!(config.network, Network { tcp4: None, tcp6: Some("[::]:0".parse().unwrap()), unix: Some(unix), tls: None });
}

#[test]
fn socket_paths_fit_their_address() {
    let name = "x".repeat(107 - "/etc/bester/".len());
    good(&format!(r#"{{"network": {{"unix": {{"address": "{name}"}}}}}}"#));
    check(
        &format!(r#"{{"network": {{"unix": {{"address": "{name}x"}}}}}}"#),
        &[&format!("1:34: network.unix.address: /etc/bester/{name}x has 108 bytes; a UNIX socket's path has at most 107")],
    );
    check_handler(
        &format!(r#"{{"unixDomainSocketPath": "{name}x"}}"#),
        &[&format!(
            "3:26: handlers.typeMap.a.unixDomainSocketPath: \
             /etc/bester/{name}x has 108 bytes; a UNIX socket's path has at most 107"
        )],
    );
    // The informer's path is too long although nobody gave it.
    let state = "s".repeat(90);
    check_block(
        &format!(
            r#""server": {{"stateDirectory": "{state}"}}, "handlers": {{"typeMap": {{
"a": {{"handlerBinary": "/bin/cat"}}}}}}"#
        ),
        &[&format!(
            "3:1: handlers.typeMap.a.informerSocketPath: /etc/bester/{state}/informer-a.sock has 118 bytes; \
             a UNIX socket's path has at most 107"
        )],
    );
}

#[test]
fn database_is_sqlite() {
    check_block(
        r#""database": {"type": "postgres", "file": 1}"#,
        &["2:22: database.type: expected \"sqlite\", found \"postgres\"", "2:34: database.file: unknown key `file`"],
    );
    const REDIS: &str = "this server keeps its accounts in SQLite, not in Redis; \
        remove the block `database`, or change its type to \"sqlite\" and remove the rest";
    check_block(r#""database": {"redis": {"x": 1}, "path": 5}"#, &[&format!("2:13: database: {REDIS}")]);
    check_block(r#""database": {"type": "redis", "path": 5}"#, &[&format!("2:22: database.type: {REDIS}")]);
    check_block(r#""database": {"type": "sqlite", "redis": {}}"#, &["2:32: database.redis: unknown key `redis`"]);
    let config = good(r#"{"network": {"tcp4": {"port": 1}}, "database": {"path": "/var/a.db"}}"#);
    assert_eq!(config.database, Path::new("/var/a.db"));
}

#[test]
fn accounts_need_a_token_exactly_if_they_ask_for_one() {
    check_block(
        r#""accounts": {"registration": "token", "passwordMinimum": 1025}"#,
        &[
            "2:30: accounts.token: is missing; \
             expected the path of a file that holds the token, since registration is \"token\"",
            "2:58: accounts.passwordMinimum: expected a whole number from 1 to 1024, found 1025",
        ],
    );
    let clash = "goes only with \"registration\": \"token\"";
    check_block(r#""accounts": {"token": "t"}"#, &[&format!("2:23: accounts.token: {clash}")]);
    check_block(r#""accounts": {"registration": "open", "token": "t"}"#, &[&format!("2:47: accounts.token: {clash}")]);
    check_block(
        r#""accounts": {"registration": "Open", "token": "t"}"#,
        &["2:30: accounts.registration: expected \"closed\" or \"open\" or \"token\", found \"Open\""],
    );
    for (block, registration) in [
        (r#""registration": "open""#, Registration::Open),
        (r#""registration": "closed""#, Registration::Closed),
        (r#""registration": "token", "token": "t""#, Registration::Token("/etc/bester/t".into())),
        ("", Registration::Closed),
    ] {
        let text = format!("{{\"network\": {{\"tcp4\": {{\"port\": 1}}}}, \"accounts\": {{{block}}}}}");
        assert_eq!(good(&text).accounts, Accounts { registration, password_minimum: 8 }, "{block}");
    }
}

#[test]
fn limits_fit_each_other() {
    for (limits, expected) in [
        (r#"{"frameBytes": 1073741825}"#, &["2:26: limits.frameBytes: expected a whole number from 1 to 1073741824, found 1073741825"][..]),
        (r#"{"frameBytes": -1}"#, &["2:26: limits.frameBytes: expected a whole number from 1 to 1073741824, found -1"]),
        (r#"{"frameBytes": "1 MiB"}"#, &["2:26: limits.frameBytes: expected a whole number from 1 to 1073741824, found text"]),
        (
            r#"{"frameBytes": 99999999999999999999}"#,
            &["2:26: limits.frameBytes: expected a whole number from 1 to 1073741824, found 99999999999999999999"],
        ),
        (
            r#"{"frameBytesBeforeLogin": 1048577}"#,
            &["2:37: limits.frameBytesBeforeLogin: expected at most 1048576: it must not be more than `frameBytes`"],
        ),
        (
            r#"{"frameBytes": 16383}"#,
            &["2:26: limits.frameBytes: expected at least 16384: it must not be less than `frameBytesBeforeLogin`"],
        ),
        (
            r#"{"frameBytes": 9, "frameBytesBeforeLogin": 10, "incomingBytesTotal": 8, "outgoingBytesTotal": 4194303}"#,
            &[
                "2:26: limits.frameBytes: expected at most 8: it must not be more than `incomingBytesTotal`",
                "2:54: limits.frameBytesBeforeLogin: expected at most 9: it must not be more than `frameBytes`",
                "2:80: limits.incomingBytesTotal: expected at least 2097152: it must not be less than `frameBytesServer`",
                "2:105: limits.outgoingBytesTotal: expected at least 4194304: \
                 it must not be less than `frameBytesHandler`",
            ],
        ),
        (
            r#"{"mailboxBytes": 4194303}"#,
            &["2:28: limits.mailboxBytes: expected at least 4194304: it must not be less than `frameBytesHandler`"],
        ),
        (
            r#"{"mailboxDays": 3651, "dedupeMinutes": 10081}"#,
            &[
                "2:27: limits.mailboxDays: expected a whole number from 1 to 3650, found 3651",
                "2:50: limits.dedupeMinutes: expected a whole number from 1 to 10080, found 10081",
            ],
        ),
        (
            r#"{"outboxBytes": 2097151, "peerRetrySeconds": 400, "seenHours": 47, "outboxHours": 87601}"#,
            &["2:93: limits.outboxHours: expected a whole number from 1 to 87600, found 87601"],
        ),
        (
            r#"{"outboxBytes": 2097151, "peerRetrySeconds": 400, "seenHours": 47}"#,
            &[
                "2:27: limits.outboxBytes: expected at least 2097152: it must not be less than `frameBytesServer`",
                "2:56: limits.peerRetrySeconds: expected at most 300: it must not be more than `peerRetrySecondsMax`",
                "2:74: limits.seenHours: expected at least 48: it must not be less than `outboxHours`",
            ],
        ),
        (
            r#"{"frameBytes": 9, "maxConnections": 1}"#,
            &["2:29: limits.maxConnections: unknown key `maxConnections`; did you mean `connections`?"],
        ),
    ] {
        check_block(&format!("\"limits\": {limits}"), expected);
    }
    let config = good(
        r#"{"network": {"tcp4": {"port": 1}}, "limits": {"frameBytes": 10, "frameBytesBeforeLogin": 10,
            "incomingBytesTotal": 10, "frameBytesServer": 10, "drainSeconds": 86400, "depth": 1000, "mailboxMessages": 1, "mailboxBytes": 4194304,
            "mailboxDays": 3650, "unacknowledgedMessages": 2, "unacknowledgedBytes": 3, "ackSeconds": 4, "deliveryAttempts": 5,
            "dedupeMinutes": 10080, "dedupeMessages": 6, "storageQueue": 7, "storageBytes": 8}}"#,
    );
    let expected = Limits {
        frame_bytes: 10,
        frame_bytes_before_login: 10,
        incoming_bytes_total: 10,
        frame_bytes_server: 10,
        drain: Duration::from_secs(86_400),
        depth: 1000,
        mailbox_messages: 1,
        mailbox_bytes: 4 << 20,
        mailbox_age: Duration::from_secs(3650 * 24 * 3600),
        unacknowledged_messages: 2,
        unacknowledged_bytes: 3,
        ack: Duration::from_secs(4),
        delivery_attempts: 5,
        dedupe_age: Duration::from_secs(7 * 24 * 3600),
        dedupe_messages: 6,
        storage_queue: 7,
        storage_bytes: 8,
        ..Limits::default()
    };
    assert_eq!(config.limits, expected);
}

#[test]
fn log_has_a_level_for_all_rooms() {
    let config = good(r#"{"network": {"tcp4": {"port": 1}}, "log": {"store": "trace"}}"#);
    let level = |room: &str| config.log.get(room).copied();
    assert_eq!(level("store"), Some(log::LevelFilter::Trace));
    assert_eq!(level("all"), Some(log::LevelFilter::Info));
    assert_eq!(level("server"), None);
    check_block(
        r#""log": {"handlers": "info", "all": 5}"#,
        &[
            "2:9: log.handlers: unknown key `handlers`; did you mean `handler`?",
            "2:36: log.all: expected text in double quotes, found a number",
        ],
    );
}

#[test]
fn tls_has_an_address_of_any_kind_and_both_files_or_none() {
    let listens = |block: &str| good(&format!(r#"{{"network": {{"tls": {block}}}}}"#)).network.tls.expect("a listener");
    assert_eq!(listens(r#"{"port": 1}"#), TlsListen { address: "127.0.0.1:1".parse().unwrap(), files: None });
    let files = TlsFiles { certificate: "/etc/bester/c.pem".into(), key: "/etc/bester/k.pem".into() };
    let whole = listens(r#"{"address": "::", "port": "2", "certificate": "c.pem", "key": "k.pem"}"#);
    assert_eq!(whole, TlsListen { address: "[::]:2".parse().unwrap(), files: Some(files) });
    let file = "a file in PEM: certificate and key are given both, or neither and the server makes its own";
    for (block, mistake) in [
        (r#"{}"#, "1:21: network.tls.port: is missing; expected a port from 0 to 65535".to_owned()),
        (r#"{"port": 1, "key": "k"}"#, format!("1:21: network.tls.certificate: is missing; expected {file}")),
        (r#"{"port": 1, "certificate": "c"}"#, format!("1:21: network.tls.key: is missing; expected {file}")),
        (
            r#"{"port": 1, "address": "a"}"#,
            r#"1:44: network.tls.address: expected an address such as "0.0.0.0", "127.0.0.1" or "::", found "a""#.to_owned(),
        ),
    ] {
        check(&format!(r#"{{"network": {{"tls": {block}}}}}"#), &[&mistake]);
    }
    assert_eq!(good(r#"{"network": {"tcp4": {"port": 1}, "tls": {"port": 2}, "types": ["tcp4"]}}"#).network.tls, None);
}

#[test]
fn other_servers_reach_this_one_where_that_is_said() {
    let read = |more: &str| good(&format!(r#"{{"server": {{"name": "a.example"}}, "network": {{"tcp4": {{"port": 1}}{more}}}"#));
    let peers = FederationMode::Peers;
    let plain = read("}");
    assert_eq!((plain.federation.mode, plain.address_for_peers()), (peers, None));
    let tls = read(r#", "tls": {"port": 2}}"#);
    assert_eq!(tls.address_for_peers().map(|at| at.to_string()).as_deref(), Some("a.example:2"));
    let told = read(r#"}, "federation": {"mode": "open", "address": "[::1]:3"}"#);
    assert_eq!(
        (told.federation.mode, told.address_for_peers().map(|at| at.to_string()).as_deref()),
        (FederationMode::Open, Some("[::1]:3"))
    );
    check_block(
        r#""federation": {"mode": "closed", "address": "b.example", "peers": []}"#,
        &[
            r#"2:24: federation.mode: expected "off" or "peers" or "open", found "closed""#,
            r#"2:45: federation.address: expected HOST:PORT, such as "chat.example.org:2224", found "b.example""#,
            "2:58: federation.peers: unknown key `peers`",
        ],
    );
}
