//! The block `handlers`.

use super::*;

#[test]
fn sockets_have_paths_of_their_own() {
    let text = |a: &str, b: &str| {
        format!(
            r#"{{"network": {{"unix": {{"address": "s"}}}}, "handlers": {{"typeMap": {{
"a": {{{a}}},
"b": {{{b}}}}}}}}}"#
        )
    };
    check(
        &text(r#""handlerBinary": "/bin/cat", "informerSocketPath": "s""#, r#""unixDomainSocketPath": "s""#),
        &[
            "2:58: handlers.typeMap.a.informerSocketPath: \
             the socket /etc/bester/s is also that of network.unix.address; expected a path of its own",
            "3:31: handlers.typeMap.b.unixDomainSocketPath: \
             the socket /etc/bester/s is also that of network.unix.address; expected a path of its own",
        ],
    );
    let ours = r#""handlerBinary": "/bin/cat", "unixDomainSocketPath": "h""#;
    let foreign = r#""unixDomainSocketPath": "h""#;
    check(
        &text(foreign, ours),
        &["3:60: handlers.typeMap.b.unixDomainSocketPath: \
           the socket /etc/bester/h is also that of handlers.typeMap.a.unixDomainSocketPath; expected a path of its own"],
    );
    assert_eq!(good(&text(foreign, foreign)).handlers.len(), 2);
}

#[test]
fn handlers_are_those_that_are_available() {
    let types = |types: &str| {
        format!(
            r#""handlers": {{{types} "typeMap": {{
"echo": {{"handlerBinary": "/bin/cat"}}, "a:b%": {{"handlerBinary": "/bin/cat"}}}}}}"#
        )
    };
    let names = |block: &str| -> Vec<String> {
        let config = good(&format!("{{\"network\": {{\"tcp4\": {{\"port\": 1}}}}, {block}}}"));
        config.handlers.keys().map(ToString::to_string).collect()
    };
    assert_eq!(names(&types("")), ["a:b%", "echo"]);
    assert_eq!(names(&types(r#""availableTypes": ["echo"],"#)), ["echo"]);
    assert_eq!(names(&types(r#""availableTypes": [],"#)), [""; 0]);
    assert_eq!(names(r#""handlers": {}"#), [""; 0]);
    check_block(
        &types(r#""availableTypes": ["echo", "ehco", "echo", 3, "foreign"],"#),
        &[
            "2:41: handlers.availableTypes[1]: has no block in `handlers.typeMap`; did you mean `echo`?",
            "2:49: handlers.availableTypes[2]: is named twice",
            "2:57: handlers.availableTypes[3]: expected text in double quotes, found a number",
            "2:60: handlers.availableTypes[4]: has no block in `handlers.typeMap`",
        ],
    );
    // Not used, and checked all the same.
    check_block(
        r#""handlers": {"availableTypes": [], "typeMap": {"a b": {"handlerBinary": 1}, "dummy": 1}}"#,
        &[
            "2:48: handlers.typeMap.\"a b\": a type has 1 to 64 bytes without spaces, quotes, slashes or control \
             characters, and is not builtin, internal or dummy",
            "2:73: handlers.typeMap.\"a b\".handlerBinary: expected text in double quotes, found a number",
            "2:77: handlers.typeMap.dummy: a type has 1 to 64 bytes without spaces, quotes, slashes or control \
             characters, and is not builtin, internal or dummy",
            "2:86: handlers.typeMap.dummy: expected a block in braces, found a number",
        ],
    );
}

#[test]
fn handler_has_defaults() {
    let plain = handler(r#"{"handlerBinary": "bin/a"}"#);
    let program = Program {
        path: "/etc/bester/bin/a".into(),
        arguments: vec![],
        environment: BTreeMap::new(),
        directory: "/etc/bester".into(),
        user: None,
        group: None,
        resources: Resources::default(),
    };
    let expected = Handler {
        program: Some(program),
        instances: 1,
        watch: false,
        transport: HandlerTransport::Stdio,
        framing: Framing::Length,
        envelope: false,
        informer_socket: "/etc/bester/bester-state/informer-a.sock".into(),
        informer_directory: None,
        in_flight: 1,
        queue: 256,
        queue_wait: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        stop: Duration::from_secs(5),
        offline: Offline::Drop,
        federated: false,
        idempotent: false,
    };
    assert_eq!(plain, expected);
    assert_eq!(handler(r#"{"handlerBinary": "a", "envelope": true}"#).in_flight, 32);
    assert_eq!(handler(r#"{"handlerBinary": "a", "envelope": true, "inFlight": 2}"#).in_flight, 2);
}

#[test]
fn handler_is_reached_as_its_block_says() {
    let unix = |path: &str, persistent| HandlerTransport::Unix { path: path.into(), persistent };
    for (entry, transport, program) in [
        (r#"{"handlerBinary": "a", "transport": "socket"}"#, HandlerTransport::Socket, true),
        (r#"{"handlerBinary": "a", "unixDomainSocketPath": "s"}"#, unix("/etc/bester/s", false), true),
        (r#"{"transport": "unix", "unixDomainSocketPath": "/s"}"#, unix("/s", false), false),
        (r#"{"handlerBinary": "none", "unixDomainSocketPath": "/s", "connection": "persistent"}"#, unix("/s", true), false),
        (r#"{"unixDomainSocketPath": "/s", "connection": "perMessage", "framing": "lines", "envelope": true}"#, unix("/s", false), false),
    ] {
        let handler = handler(entry);
        assert_eq!((handler.transport, handler.program.is_some()), (transport, program), "{entry}");
    }
    const UNIX: &str = "goes only with \"transport\": \"unix\"";
    const PROGRAM: &str = "goes only with `handlerBinary`, the program to start";
    const NEITHER: &str = "3:1: handlers.typeMap.a.handlerBinary: is missing; \
        expected the program to start, or `unixDomainSocketPath` of one that somebody else runs";
    for (entry, expected) in [
        ("{}", vec![NEITHER.to_owned()]),
        (r#"{"handlerBinary": "none"}"#, vec![NEITHER.to_owned()]),
        (r#"{"transport": "socket"}"#, vec![NEITHER.to_owned()]),
        (
            r#"{"transport": "unix", "handlerBinary": "a"}"#,
            vec![
                "3:15: handlers.typeMap.a.unixDomainSocketPath: is missing; \
                 expected the path of the socket, since transport is \"unix\""
                    .to_owned(),
            ],
        ),
        (
            r#"{"handlerBinary": "a", "transport": "stdio", "unixDomainSocketPath": "s", "connection": "persistent"}"#,
            vec![format!("3:70: handlers.typeMap.a.unixDomainSocketPath: {UNIX}"), format!("3:89: handlers.typeMap.a.connection: {UNIX}")],
        ),
        (
            r#"{"handlerBinary": "a", "transport": "pipe", "connection": "persistent"}"#,
            vec!["3:37: handlers.typeMap.a.transport: expected \"stdio\" or \"socket\" or \"unix\", found \"pipe\"".to_owned()],
        ),
        (
            r#"{"unixDomainSocketPath": "s", "arguments": [], "environment": {}, "workingDirectory": ".",
"user": "nobody", "group": "nogroup", "resources": {}, "watch": false}"#,
            vec![
                format!("3:44: handlers.typeMap.a.arguments: {PROGRAM}"),
                format!("3:63: handlers.typeMap.a.environment: {PROGRAM}"),
                format!("3:87: handlers.typeMap.a.workingDirectory: {PROGRAM}"),
                format!("4:9: handlers.typeMap.a.user: {PROGRAM}"),
                format!("4:28: handlers.typeMap.a.group: {PROGRAM}"),
                format!("4:52: handlers.typeMap.a.resources: {PROGRAM}"),
                format!("4:65: handlers.typeMap.a.watch: {PROGRAM}"),
            ],
        ),
    ] {
        check_handler(entry, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn handler_values_have_bounds() {
    check_handler(
        r#"{"handlerBinary": "a", "arguments": ["x", 1], "environment": {"A=B": "", "C": 12345}, "envelope": "yes",
"inFlight": 4097, "queue": 0, "timeoutSeconds": 86401, "stopSeconds": 1.5, "framing": "line", "connection": 1}"#,
        &[
            "3:43: handlers.typeMap.a.arguments[1]: expected text in double quotes, found a number",
            "3:63: handlers.typeMap.a.environment.\"A=B\": \
             the name of a variable is not empty, and has no '=' and no \\u0000 in it",
            "3:79: handlers.typeMap.a.environment.C: expected text in double quotes, found a number",
            "3:99: handlers.typeMap.a.envelope: expected true or false, found text",
            "4:13: handlers.typeMap.a.inFlight: expected a whole number from 1 to 4096, found 4097",
            "4:28: handlers.typeMap.a.queue: 0 does not mean no limit here; expected a whole number from 1 to 1000000",
            "4:49: handlers.typeMap.a.timeoutSeconds: expected a whole number from 1 to 86400, found 86401",
            "4:71: handlers.typeMap.a.stopSeconds: expected a whole number from 1 to 86400, found 1.5",
            "4:87: handlers.typeMap.a.framing: expected \"length\" or \"lines\", found \"line\"",
            "4:109: handlers.typeMap.a.connection: expected text in double quotes, found a number",
            "4:109: handlers.typeMap.a.connection: goes only with \"transport\": \"unix\"",
        ],
    );
}

#[test]
fn a_type_says_what_is_done_for_users_who_are_away() {
    let with = |more: &str| handler(&format!(r#"{{"handlerBinary": "a", {more}}}"#));
    assert_eq!(with(r#""offline": "queue""#).offline, Offline::Queue);
    assert_eq!(with(r#""offline": "drop", "idempotent": true"#).offline, Offline::Drop);
    assert!(with(r#""idempotent": true"#).idempotent && !with(r#""idempotent": false"#).idempotent);
    check_handler(
        r#"{"handlerBinary": "a", "offline": "keep", "idempotent": 1}"#,
        &[
            "3:35: handlers.typeMap.a.offline: expected \"drop\" or \"queue\", found \"keep\"",
            "3:57: handlers.typeMap.a.idempotent: expected true or false, found a number",
        ],
    );
}

#[test]
fn bare_program_is_beside_the_file_or_in_path() {
    let directory = tempfile::tempdir().unwrap();
    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["both", "far"] {
        std::fs::write(bin.join(name), "").unwrap();
    }
    std::fs::write(directory.path().join("both"), "").unwrap();
    let program = |name: &str| {
        let text = format!(
            r#"{{"network": {{"tcp4": {{"port": 1}}}}, "handlers": {{"typeMap": {{"a":
                {{"handlerBinary": "{name}", "environment": {{"PATH": "relative::{}"}}}}}}}}}}"#,
            bin.display()
        );
        let config = Config::from_text(&text, &directory.path().join("bester.conf")).unwrap();
        config.handlers[&b"a"[..]].program.clone().unwrap().path
    };
    assert_eq!(program("both"), directory.path().join("both"));
    assert_eq!(program("far"), bin.join("far"));
    assert_eq!(program("./far"), directory.path().join("far"));
    assert_eq!(program("nowhere"), directory.path().join("nowhere"));
}

#[test]
fn several_processes_need_channels_of_their_own() {
    assert_eq!(handler(r#"{"handlerBinary": "a", "instances": 64}"#).instances, 64);
    assert_eq!(handler(r#"{"handlerBinary": "a", "transport": "socket", "instances": 2}"#).instances, 2);
    assert_eq!(handler(r#"{"handlerBinary": "a", "unixDomainSocketPath": "s", "instances": 1}"#).instances, 1);
    const ONE: &str = "must be 1 with \"transport\": \"unix\": all of them would listen at one path";
    check_handler(
        r#"{"handlerBinary": "a", "unixDomainSocketPath": "s", "instances": 2}"#,
        &[&format!("3:66: handlers.typeMap.a.instances: {ONE}")],
    );
    check_handler(r#"{"instances": 3, "unixDomainSocketPath": "s"}"#, &[&format!("3:15: handlers.typeMap.a.instances: {ONE}")]);
    check_handler(
        r#"{"handlerBinary": "a", "instances": 65, "watch": "yes"}"#,
        &[
            "3:37: handlers.typeMap.a.instances: expected a whole number from 1 to 64, found 65",
            "3:50: handlers.typeMap.a.watch: expected true or false, found text",
        ],
    );
}

#[test]
fn a_user_has_an_informer_where_it_can_be_reached() {
    let with = |more: &str| handler(&format!(r#"{{"handlerBinary": "a", {more}}}"#));
    let guest = with(r#""user": "nobody", "watch": true"#);
    assert!(guest.watch);
    assert_eq!(guest.informer_socket, Path::new("/etc/bester/bester-state-informers/informer-a.sock"));
    assert_eq!(guest.informer_directory.as_deref(), Some(Path::new("/etc/bester/bester-state-informers")));
    let program = guest.program.expect("a program");
    assert_eq!((program.user.as_deref(), program.group), (Some("nobody"), None));
    let given = with(r#""user": "0", "informerSocketPath": "/run/i""#);
    assert_eq!((given.informer_socket, given.informer_directory), ("/run/i".into(), None));
    let group = with(r#""group": "nogroup""#);
    assert_eq!((group.informer_socket, group.informer_directory), ("/etc/bester/bester-state/informer-a.sock".into(), None));
    assert_eq!(group.program.expect("a program").group.as_deref(), Some("nogroup"));
    for (state, directory) in [("/var/lib/b/", "/var/lib/b-informers"), ("/b", "/b-informers")] {
        let text = format!(
            r#"{{"network": {{"tcp4": {{"port": 1}}}}, "server": {{"stateDirectory": "{state}"}},
                "handlers": {{"typeMap": {{"a": {{"handlerBinary": "a", "user": "nobody"}}}}}}}}"#
        );
        assert_eq!(good(&text).handlers[&b"a"[..]].informer_directory.as_deref(), Some(Path::new(directory)));
    }
    check_block(
        r#""server": {"stateDirectory": "/"}, "handlers": {"typeMap": {"a": {"handlerBinary": "a", "user": "nobody"}}}"#,
        &["2:61: handlers.typeMap.a.informerSocketPath: is missing; expected a path, since the handler has a `user` \
           and no directory can be made beside the state directory"],
    );
    check_handler(
        r#"{"handlerBinary": "a", "user": 65534, "group": ""}"#,
        &[
            "3:32: handlers.typeMap.a.user: expected text in double quotes, found a number",
            "3:48: handlers.typeMap.a.group: expected the name or number of a group, found \"\"",
        ],
    );
}

#[test]
fn resources_have_bounds() {
    let with = |resources: &str| handler(&format!(r#"{{"handlerBinary": "a", "resources": {resources}}}"#)).program.unwrap().resources;
    assert_eq!(with("{}"), Resources::default());
    let all = Resources { files: Some(16), memory: Some(1 << 20), processes: Some(1) };
    assert_eq!(with(r#"{"files": 16, "memory": 1048576, "processes": 1}"#), all);
    check_handler(
        r#"{"handlerBinary": "a", "resources":
{"files": 15, "memory": 1048575, "processes": 0, "cpu": 1}}"#,
        &[
            "4:11: handlers.typeMap.a.resources.files: expected at least 16, without which no program can start, found 15",
            "4:25: handlers.typeMap.a.resources.memory: expected at least 1048576, without which no program can start, found 1048575",
            "4:47: handlers.typeMap.a.resources.processes: \
             0 does not mean no limit here; expected a whole number from 1 to 4194304",
            "4:50: handlers.typeMap.a.resources.cpu: unknown key `cpu`",
        ],
    );
}
