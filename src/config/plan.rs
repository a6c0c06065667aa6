//! What a server would do with a [`Config`], in words, and whether the machine is large enough for its limits.

use super::limits::{Limit, TABLE};
use super::{
    Config, FederationMode, Framing, Handler, HandlerTransport, Identity, Limits, Offline, Program, Registration, Resources, TlsFiles,
};
use crate::tls;
use rustix::process::{Resource, geteuid, getrlimit};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a server would open and start, and every limit. It ends in a line break.
pub fn plan(config: &Config) -> String {
    let mut text = String::new();
    write_plan(config, &mut text).unwrap_or(()); // writing to a `String` never fails
    text
}

fn write_plan(config: &Config, out: &mut String) -> fmt::Result {
    writeln!(out, "configuration    {}", config.file.display())?;
    writeln!(out, "server name      {}", config.server.name)?;
    writeln!(out, "state directory  {}", config.server.state_directory.display())?;
    writeln!(out, "database         {} (SQLite)", config.database.display())?;
    let minimum = config.accounts.password_minimum;
    match &config.accounts.registration {
        Registration::Closed => write!(out, "new accounts     made with `bester user add` only")?,
        Registration::Open => write!(out, "new accounts     for anybody who asks")?,
        Registration::Token(path) => {
            write!(out, "new accounts     for whoever knows the token in {}", path.display())?;
        }
    }
    writeln!(out, "; a new password has at least {minimum} bytes")?;
    let levels: Vec<_> = config.log.iter().map(|(room, level)| format!("{room} {level}").to_lowercase()).collect();
    writeln!(out, "log              {}", levels.join(", "))?;
    listeners(config, out)?;
    federation(config, out)?;
    writeln!(out, "\nhandlers{}", if config.handlers.is_empty() { ": none" } else { "" })?;
    for (name, handler) in &config.handlers {
        writeln!(out, "  {name}")?;
        one_handler(handler, out)?;
    }
    writeln!(out, "\nlimits")?;
    let default = Limits::default();
    for limit in &TABLE {
        let (value, usual) = (limit.value(&config.limits), limit.value(&default));
        write!(out, "  {:<22} {}", limit.key, amount(limit, value))?;
        if value != usual {
            write!(out, "; the default is {}", amount(limit, usual))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn listeners(config: &Config, out: &mut String) -> fmt::Result {
    writeln!(out, "\nlisteners")?;
    let tcp = [("tcp4", config.network.tcp4), ("tcp6", config.network.tcp6)];
    for (name, address) in tcp {
        let Some(address) = address else { continue };
        writeln!(out, "  {name}  {}", reach(address))?;
    }
    if let Some(unix) = &config.network.unix {
        writeln!(out, "  unix  {}, mode {:04o}", unix.path.display(), unix.mode)?;
    }
    if let Some(tls) = &config.network.tls {
        writeln!(out, "  tls   {}", reach(tls.address))?;
        match &tls.files {
            Some(files) => writeln!(out, "        certificate {}, key {}", files.certificate.display(), files.key.display())?,
            None => writeln!(out, "        its own certificate and key, in the state directory")?,
        }
        // What is wrong with them is a problem, and told as such.
        if let Some(Ok(identity)) = identity_on_tls(config) {
            writeln!(out, "        its pin is {}", identity.pin())?;
        }
    }
    Ok(())
}

/// Who the server is on `network.tls`; `None` if that is still to be made.
pub(super) fn identity_on_tls(config: &Config) -> Option<Result<tls::Identity, tls::IdentityError>> {
    match &config.network.tls.as_ref()?.files {
        Some(TlsFiles { certificate, key }) => {
            Some(tls::Identity::load(&tls::Paths { certificate: certificate.clone(), key: key.clone() }))
        }
        None => tls::Identity::look_for_own(&config.server.state_directory),
    }
}

fn federation(config: &Config, out: &mut String) -> fmt::Result {
    let who = match config.federation.mode {
        FederationMode::Off => "none",
        FederationMode::Peers => "those that bester peer list shows",
        FederationMode::Open => "those that bester peer list shows and, unverified, anybody else",
    };
    writeln!(out, "\nother servers\n  {who}")?;
    match config.address_for_peers() {
        Some(address) if config.federation.mode != FederationMode::Off => writeln!(out, "  reach this one at {address}"),
        _ => Ok(()),
    }
}

fn reach(address: SocketAddr) -> String {
    let who = if address.ip().is_loopback() {
        ", for this machine only"
    } else if address.ip().is_unspecified() {
        ", on every address of this machine"
    } else {
        ""
    };
    let port = if address.port() == 0 { "; the system chooses the port" } else { "" };
    format!("{address}{who}{port}")
}

fn one_handler(handler: &Handler, out: &mut String) -> fmt::Result {
    match &handler.program {
        Some(program) => {
            write!(out, "    starts    {}", program.path.display())?;
            for argument in &program.arguments {
                write!(out, " {argument:?}")?;
            }
            writeln!(out, "\n    in        {}", program.directory.display())?;
            if !program.environment.is_empty() {
                // The names alone: values may be secrets, and plans are pasted into reports.
                let names: Vec<_> = program.environment.keys().map(String::as_str).collect();
                writeln!(out, "    with      {}", names.join(", "))?;
            }
            identity(program, out)?;
        }
        None => writeln!(out, "    starts    nothing; somebody else runs it")?,
    }
    if handler.instances > 1 {
        writeln!(out, "    times     {}; messages of one connection stay with one of them", handler.instances)?;
    }
    if handler.watch {
        writeln!(out, "    watched   replaced when the program's file changes")?;
    }
    let framing = match handler.framing {
        Framing::Length => "length and bytes",
        Framing::Lines => "one JSON text a line",
    };
    match &handler.transport {
        HandlerTransport::Stdio => write!(out, "    talks     over its standard input and output")?,
        HandlerTransport::Socket => write!(out, "    talks     over a socket on descriptor 3")?,
        HandlerTransport::Unix { path, persistent } => {
            let connections = if *persistent { "one connection" } else { "one connection a message" };
            write!(out, "    talks     at {}, {connections}", path.display())?;
        }
    }
    writeln!(out, "; {framing}{}", if handler.envelope { "; envelopes" } else { "" })?;
    if handler.offline == Offline::Queue {
        writeln!(out, "    offline   what it sends to users who are away waits in their mailboxes")?;
    }
    if handler.federated {
        writeln!(out, "    federated other servers reach it")?;
    }
    if handler.idempotent {
        writeln!(out, "    repeated  a message with which it ended or was late is handed to it once more")?;
    }
    writeln!(out, "    informer  {}", handler.informer_socket.display())?;
    let (timeout, stop) = (handler.timeout.as_secs(), handler.stop.as_secs());
    let (flight, queue, wait) = (handler.in_flight, handler.queue, handler.queue_wait.as_secs());
    writeln!(out, "    limits    {flight} under way, {queue} waiting for {wait} s, {timeout} s to answer, {stop} s to stop")
}

/// Whom a program runs as, and what it may use.
fn identity(program: &Program, out: &mut String) -> fmt::Result {
    match (&program.user, &program.group) {
        (Some(user), Some(group)) => writeln!(out, "    as        user {user:?}, group {group:?}, and no other groups")?,
        (Some(user), None) => writeln!(out, "    as        user {user:?} with the user's own group alone")?,
        (None, Some(group)) => writeln!(out, "    as        the server's user, group {group:?} and no other groups")?,
        (None, None) => {}
    }
    let Resources { files, memory, processes } = program.resources;
    let bytes = |memory| format!("{} of memory", with_round(format!("{memory} bytes"), memory));
    let bounds = [files.map(|n| format!("{n} open files")), memory.map(bytes), processes.map(|n| format!("{n} processes"))];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if bounds.is_empty() { Ok(()) } else { writeln!(out, "    bounds    {}", bounds.join(", ")) }
}

/// A limit's value with its unit; round sizes also in the unit that people say.
fn amount(limit: &Limit, value: u64) -> String {
    let plain = if limit.unit.is_empty() { value.to_string() } else { format!("{value} {}", limit.unit) };
    if limit.unit.starts_with("bytes") { with_round(plain, value) } else { plain }
}

fn with_round(plain: String, value: u64) -> String {
    let large = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match large.iter().find(|(_, size)| value.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{plain} ({} {unit})", value / size),
        None => plain,
    }
}

/// Something that the machine has too little of for the configured limits. The server starts, and may run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Memory maps: each thread costs four, and each connection has a thread.
    Maps {
        /// How many `limits.connections` may need.
        needed: u64,
        /// `/proc/sys/vm/max_map_count`.
        limit: u64,
    },
    /// Descriptors: each connection costs one.
    Descriptors {
        /// How many `limits.connections` and the handlers may need.
        needed: u64,
        /// The hard limit, to which the server raises its own.
        limit: u64,
    },
    /// A certificate is valid only later or no longer.
    OutOfDate {
        /// Its file.
        path: PathBuf,
    },
    /// Processes are bounded for the server's own user.
    Processes {
        /// The key.
        key: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Maps { needed, limit } => write!(
                f,
                "limits.connections: this many may need {needed} memory maps, and the system allows {limit}; \
                 lower it, or run: sysctl vm.max_map_count={needed}"
            ),
            Warning::Descriptors { needed, limit } => write!(
                f,
                "limits.connections: this many may need {needed} descriptors, and the hard limit is {limit}; \
                 lower it, or raise the limit (ulimit -Hn, LimitNOFILE=)"
            ),
            Warning::OutOfDate { path } => write!(
                f,
                "network.tls.certificate: {} is out of date (or the clock of this machine is wrong); who goes by authorities \
                 does not connect, and who goes by the pin of its key does",
                path.display()
            ),
            Warning::Processes { key } => write!(
                f,
                "{key}: all that runs as the handler's user counts, the threads of the server too as it is the same user, and \
                 root is not bound; give the handler a `user` of its own"
            ),
        }
    }
}

/// What the limits may need and this machine would not give.
pub fn warnings(config: &Config) -> Vec<Warning> {
    let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    let maps = maps.and_then(|text| text.trim().parse().ok());
    let mut warnings = too_large(config, maps, getrlimit(Resource::Nofile).maximum);
    // What the server makes for itself is good for longer than anybody cares.
    if let Some(files) = config.network.tls.as_ref().and_then(|tls| tls.files.as_ref())
        && let Some(Ok(identity)) = identity_on_tls(config)
        && identity.is_out_of_date()
    {
        warnings.push(Warning::OutOfDate { path: files.certificate.clone() });
    }
    for (name, handler) in &config.handlers {
        let Some(program) = handler.program.as_ref().filter(|program| program.resources.processes.is_some()) else { continue };
        let uid = Identity::of(program).map(|identity| identity.map(|identity| identity.uid));
        // Who is unknown is a problem, and told as such.
        if uid.is_ok_and(|uid| uid.is_none_or(|uid| uid == geteuid().as_raw())) {
            let key = super::json::join("handlers.typeMap", name.as_str());
            warnings.push(Warning::Processes { key: format!("{key}.resources.processes") });
        }
    }
    warnings
}

/// `None` stands for a limit that is not there or not known.
fn too_large(config: &Config, maps: Option<u64>, descriptors: Option<u64>) -> Vec<Warning> {
    let connections = config.limits.connections as u64;
    // Each process of a handler has a thread or two and its pipes, unless each message gets a connection and with it a thread.
    let handler = |handler: &Handler| match handler.transport {
        HandlerTransport::Unix { persistent: false, .. } => 4 + handler.in_flight as u64,
        _ => 4 * handler.instances as u64,
    };
    let handlers: u64 = config.handlers.values().map(handler).sum();
    let maps_needed = 4 * (connections + handlers) + 512; // the program itself, its libraries and its heap
    let descriptors_needed = connections + 2 * handlers + 64; // listeners, database, control socket, standard three
    let mut warnings = Vec::new();
    if let Some(limit) = maps.filter(|limit| maps_needed > *limit) {
        warnings.push(Warning::Maps { needed: maps_needed, limit });
    }
    if let Some(limit) = descriptors.filter(|limit| descriptors_needed > *limit) {
        warnings.push(Warning::Descriptors { needed: descriptors_needed, limit });
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> Config {
        Config::from_text(text, Path::new("/etc/bester/bester.conf")).unwrap()
    }

    #[test]
    fn connections_beyond_the_machine_are_warned_of() {
        let small = config(r#"{"network": {"tcp4": {"port": 0}}, "limits": {"connections": 100}}"#);
        assert_eq!(too_large(&small, Some(912), Some(164)), []);
        let maps = Warning::Maps { needed: 912, limit: 911 };
        let descriptors = Warning::Descriptors { needed: 164, limit: 163 };
        assert_eq!(too_large(&small, Some(911), Some(163)), [maps, descriptors]);
        assert_eq!(too_large(&small, None, None), []);
        let many = config(
            r#"{"network": {"tcp4": {"port": 0}}, "limits": {"connections": 1000000},
                "handlers": {"typeMap": {"a": {"unixDomainSocketPath": "a", "inFlight": 100}}}}"#,
        );
        let needed = 4 * (1_000_000 + 104) + 512;
        assert_eq!(too_large(&many, Some(65_530), None), [Warning::Maps { needed, limit: 65_530 }]);
    }

    #[test]
    fn processes_of_the_servers_own_user_are_warned_of() {
        let with = |more: &str| {
            let entry = format!(r#"{{"handlerBinary": "/bin/cat", "resources": {{"processes": 9}}{more}}}"#);
            let text = format!(
                r#"{{"network": {{"tcp4": {{"port": 0}}}}, "limits": {{"connections": 1}}, "handlers": {{"typeMap": {{"a": {entry}}}}}}}"#
            );
            warnings(&config(&text))
        };
        let warning = Warning::Processes { key: "handlers.typeMap.a.resources.processes".to_owned() };
        let ours = format!(r#", "user": "{0}", "group": "{0}""#, geteuid().as_raw());
        assert!(with("").contains(&warning) && with(&ours).contains(&warning));
        let other = geteuid().as_raw() + 1;
        assert!(!with(&format!(r#", "user": "{other}", "group": "{other}""#)).contains(&warning));
    }

    #[test]
    fn plan_tells_what_happens_and_which_limits_are_not_the_default() {
        let plan = plan(&config(
            r#"{
                "server": {"name": "a.example"},
                "network": {"tcp4": {"address": "0.0.0.0", "port": 0}, "tcp6": {"port": 2223}, "unix": {"address": "s"}},
                "handlers": {"typeMap": {
                    "echo": {"handlerBinary": "/bin/echo", "arguments": ["a b"], "environment": {"KEY": "secret"},
                        "user": "anna", "resources": {"files": 100, "memory": 1048576, "processes": 7}},
                    "group": {"handlerBinary": "/bin/echo", "group": "staff", "instances": 3, "watch": true,
                        "offline": "queue", "idempotent": true},
                    "far": {"unixDomainSocketPath": "/run/far", "connection": "persistent", "envelope": true}
                }},
                "limits": {"connections": 10, "frameBytes": 3000000, "loginSeconds": 10}
            }"#,
        ));
        for line in [
            "server name      a.example",
            "database         /etc/bester/bester-state/bester.db (SQLite)",
            "  tcp4  0.0.0.0:0, on every address of this machine; the system chooses the port",
            "  tcp6  [::1]:2223, for this machine only",
            "  unix  /etc/bester/s, mode 0600",
            "    starts    /bin/echo \"a b\"",
            "    in        /etc/bester",
            "    with      KEY",
            "    as        user \"anna\" with the user's own group alone",
            "    bounds    100 open files, 1048576 bytes (1 MiB) of memory, 7 processes",
            "    informer  /etc/bester/bester-state-informers/informer-echo.sock",
            "    as        the server's user, group \"staff\" and no other groups",
            "    times     3; messages of one connection stay with one of them",
            "    offline   what it sends to users who are away waits in their mailboxes",
            "    repeated  a message with which it ended or was late is handed to it once more",
            "  mailboxDays            30 days",
            "  unacknowledgedMessages 64",
            "    watched   replaced when the program's file changes",
            "    starts    nothing; somebody else runs it",
            "    talks     at /run/far, one connection; length and bytes; envelopes",
            "    limits    32 under way, 256 waiting for 5 s, 10 s to answer, 5 s to stop",
            "  connections            10; the default is 4096",
            "  frameBytes             3000000 bytes; the default is 1048576 bytes (1 MiB)",
            "  loginSeconds           10 s",
        ] {
            assert!(plan.lines().any(|found| found == line), "{line}\n{plan}");
        }
        assert!(!plan.contains("secret"), "{plan}");
        assert_eq!((plan.matches("    offline ").count(), plan.matches("    repeated ").count()), (1, 1), "{plan}");
        for limit in &TABLE {
            assert!(plan.contains(&format!("\n  {} ", limit.key)), "{}", limit.key);
        }
    }
}
