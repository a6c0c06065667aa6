//! The block `handlers`: who answers which type.

use super::block::{Block, Item, Reader, SOCKET_PATH_BYTES_MAX, socket_path_fits};
use super::json::join;
use super::limits::SECONDS_MAX;
use super::mistake::{Fault, Position, nearest};
use super::network::Sockets;
use super::read::keys;
use super::{Framing, Handler, HandlerTransport, Offline, Program, Resources};
use crate::name::TypeName;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most requests that a handler may have under way: on a socket with one connection a message each takes a thread.
const IN_FLIGHT_MAX: u64 = 4096;
/// The most requests that may wait for a handler.
const QUEUE_MAX: u64 = 1_000_000;
/// The most processes for one type: each has a few threads of ours.
const INSTANCES_MAX: u64 = 64;
/// The least that a program can begin with, and more than any can use: of open files, ...
const FILES: (u64, u64) = (16, 1 << 30);
/// ... bytes of memory, ...
const MEMORY: (u64, u64) = (1 << 20, 1 << 60);
/// ... and processes.
const PROCESSES: (u64, u64) = (1, 1 << 22);
const WITH_PROGRAM: &str = "goes only with `handlerBinary`, the program to start";

/// `transport`, as it is written.
#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Stdio,
    Socket,
    Unix,
}

/// Reads the whole block. Types that `availableTypes` leaves out are checked, and then left out.
pub(super) fn read(reader: &mut Reader, item: Option<Item<'_>>, state: &Path, sockets: &mut Sockets) -> BTreeMap<TypeName, Handler> {
    let mut handlers = BTreeMap::new();
    let Some(block) = item.and_then(|item| reader.block(item, keys("handlers"))) else {
        return handlers;
    };
    let map = block.item("typeMap");
    let members = map.as_ref().and_then(|map| reader.open(map)).unwrap_or(&[]);
    let available = block.item("availableTypes").and_then(|item| available(reader, &item, members));
    for member in members {
        let path = join("handlers.typeMap", &member.key);
        let name = TypeName::new(&member.key);
        if let Err(bad) = &name {
            reader.note(member.at, path.clone(), Fault::Name(bad.clone()));
        }
        let used = available.as_ref().is_none_or(|types| types.contains(&member.key.as_str()));
        let mut unused = Sockets::default();
        let sockets = if used { &mut *sockets } else { &mut unused };
        let one = One { name: &member.key, at: member.at, state };
        let handler = one.read(reader, Item { path, node: &member.value }, sockets);
        if let (Ok(name), Some(handler), true) = (name, handler, used) {
            handlers.insert(name, handler);
        }
    }
    handlers
}

/// The names in `availableTypes`.
fn available<'n>(reader: &mut Reader, item: &Item<'n>, members: &[super::json::Member]) -> Option<Vec<&'n str>> {
    let mut names = Vec::new();
    for item in reader.list(item)? {
        let Some(name) = reader.text(&item) else {
            continue;
        };
        if names.contains(&name) {
            reader.fault(&item, Fault::Twice);
        } else if !members.iter().any(|member| member.key == name) {
            let near = nearest(name, members.iter().map(|member| member.key.as_str())).map(str::to_owned);
            reader.fault(&item, Fault::NoBlock { within: "handlers.typeMap", near });
        }
        names.push(name);
    }
    Some(names)
}

/// One entry of `typeMap`.
struct One<'a> {
    name: &'a str,
    at: Position,
    state: &'a Path,
}

impl One<'_> {
    fn read(&self, reader: &mut Reader, item: Item<'_>, sockets: &mut Sockets) -> Option<Handler> {
        let block = reader.block(item, keys("handlers.typeMap.*"))?;
        let program = program(reader, &block);
        let transport = transport(reader, &block, sockets);
        let framing = [("length", Framing::Length), ("lines", Framing::Lines)];
        let framing = block.item("framing").and_then(|item| reader.choice(&item, &framing));
        let envelope = block.item("envelope").and_then(|item| reader.flag(&item)).unwrap_or(false);
        let mut count = |key, most, default| block.item(key).and_then(|item| reader.count(&item, most)).unwrap_or(default);
        let in_flight = count("inFlight", IN_FLIGHT_MAX, if envelope { 32 } else { 1 });
        let queue = count("queue", QUEUE_MAX, 256);
        let timeout = count("timeoutSeconds", SECONDS_MAX, 10);
        let queue_wait = count("queueSeconds", SECONDS_MAX, 5);
        let stop = count("stopSeconds", SECONDS_MAX, 5);
        let instances = count("instances", INSTANCES_MAX, 1);
        if let (Some(item), Some(HandlerTransport::Unix { .. }), 2..) = (block.item("instances"), &transport, instances) {
            reader.fault(&item, Fault::Clash("must be 1 with \"transport\": \"unix\": all of them would listen at one path"));
        }
        let watch = block.item("watch").and_then(|item| reader.flag(&item)).unwrap_or(false);
        let offline = [Offline::Drop, Offline::Queue].map(|offline| (offline.as_str(), offline));
        let offline = block.item("offline").and_then(|item| reader.choice(&item, &offline)).unwrap_or_default();
        let federated = block.item("federated").and_then(|item| reader.flag(&item)).unwrap_or(false);
        let idempotent = block.item("idempotent").and_then(|item| reader.flag(&item)).unwrap_or(false);
        let informer = self.informer(reader, &block, sockets);
        let (informer_socket, informer_directory) = informer?;
        Some(Handler {
            program,
            instances: instances as usize,
            watch,
            transport: transport?,
            framing: framing.unwrap_or(Framing::Length),
            envelope,
            informer_socket,
            informer_directory,
            in_flight: in_flight as usize,
            queue: queue as usize,
            queue_wait: Duration::from_secs(queue_wait),
            timeout: Duration::from_secs(timeout),
            stop: Duration::from_secs(stop),
            offline,
            federated,
            idempotent,
        })
    }

    /// The informer's socket; and its directory, if that is for the server to make.
    fn informer(&self, reader: &mut Reader, block: &Block<'_>, sockets: &mut Sockets) -> Option<(PathBuf, Option<PathBuf>)> {
        let key = join(&block.path, "informerSocketPath");
        let (path, own, at) = match block.item("informerSocketPath") {
            Some(item) => (reader.socket(&item)?, None, item.node.at),
            None => {
                // Nobody but the server's user gets into the state directory.
                let own = if block.has("user") { Some(self.beside_state(reader, &key)?) } else { None };
                let name = format!("informer-{}.sock", file_name(self.name));
                (own.as_deref().unwrap_or(self.state).join(name), own, self.at)
            }
        };
        if socket_path_fits(&path) {
            sockets.own(reader, &path, at, &key);
            return Some((path, own));
        }
        reader.note(at, key, Fault::SocketPathTooLong { path, most: SOCKET_PATH_BYTES_MAX });
        None
    }

    /// The directory for informers of handlers that run as another user.
    fn beside_state(&self, reader: &mut Reader, key: &str) -> Option<PathBuf> {
        let beside = informers_beside(self.state);
        if beside.is_none() {
            let wanted = "a path, since the handler has a `user` and no directory can be made beside the state directory";
            reader.note(self.at, key.to_owned(), Fault::Missing(wanted));
        }
        beside
    }
}

/// The directory for informers that is made beside this state directory.
pub(super) fn informers_beside(state: &Path) -> Option<PathBuf> {
    let mut name = state.file_name()?.to_owned();
    name.push("-informers");
    Some(state.with_file_name(name))
}

/// `handlerBinary` and what goes with it.
fn program(reader: &mut Reader, block: &Block<'_>) -> Option<Program> {
    let binary = binary(block);
    let arguments = block.item("arguments").and_then(|item| reader.list(&item)).unwrap_or_default();
    let arguments = arguments.iter().filter_map(|item| reader.word(item)).map(str::to_owned).collect();
    let environment = block.item("environment").map(|item| environment(reader, &item)).unwrap_or_default();
    let directory = block.item("workingDirectory").and_then(|item| reader.path(&item));
    let user = block.item("user").and_then(|item| account(reader, &item, "the name or number of a user"));
    let group = block.item("group").and_then(|item| account(reader, &item, "the name or number of a group"));
    let resources = block.item("resources").and_then(|item| resources(reader, item)).unwrap_or_default();
    let Some(binary) = binary else {
        for key in ["arguments", "environment", "workingDirectory", "user", "group", "resources", "watch"] {
            if let Some(item) = block.item(key) {
                reader.fault(&item, Fault::Clash(WITH_PROGRAM));
            }
        }
        return None;
    };
    let search = environment.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let path = reader.program(&binary, search.as_deref())?;
    let directory = directory.unwrap_or_else(|| reader.base.clone());
    Some(Program { path, arguments, environment, directory, user, group, resources })
}

fn account(reader: &mut Reader, item: &Item<'_>, wanted: &str) -> Option<String> {
    let text = reader.text(item)?;
    let sound = !text.is_empty() && !text.contains(|c: char| c.is_control() || c == ':');
    if sound { Some(text.to_owned()) } else { reader.refuse(item, wanted) }
}

fn resources(reader: &mut Reader, item: Item<'_>) -> Option<Resources> {
    let block = reader.block(item, keys("handlers.typeMap.*.resources"))?;
    let mut bound = |key, (least, most)| {
        let item = block.item(key)?;
        let value = reader.count(&item, most)?;
        if value < least { reader.refuse(&item, format!("at least {least}, without which no program can start")) } else { Some(value) }
    };
    Some(Resources { files: bound("files", FILES), memory: bound("memory", MEMORY), processes: bound("processes", PROCESSES) })
}

/// `handlerBinary`. Files of `besterd` say "none" where somebody else runs the program.
fn binary<'n>(block: &Block<'n>) -> Option<Item<'n>> {
    let none = |item: &Item<'_>| matches!(&item.node.value, super::json::Value::Text(text) if text == "none");
    block.item("handlerBinary").filter(|item| !none(item))
}

fn environment(reader: &mut Reader, item: &Item<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for member in reader.open(item).unwrap_or(&[]) {
        let path = join(&item.path, &member.key);
        if member.key.is_empty() || member.key.contains(['=', '\0']) {
            let fault = Fault::Clash("the name of a variable is not empty, and has no '=' and no \\u0000 in it");
            reader.note(member.at, path.clone(), fault);
        }
        if let Some(value) = reader.word(&Item { path, node: &member.value }) {
            environment.insert(member.key.clone(), value.to_owned());
        }
    }
    environment
}

/// `transport` with its path, `connection`, and the rules between them and `handlerBinary`.
fn transport(reader: &mut Reader, block: &Block<'_>, sockets: &mut Sockets) -> Option<HandlerTransport> {
    let choices = [("stdio", Transport::Stdio), ("socket", Transport::Socket), ("unix", Transport::Unix)];
    let given = block.item("transport");
    let chosen = given.as_ref().map(|item| reader.choice(item, &choices));
    let socket = block.item("unixDomainSocketPath");
    let path = socket.as_ref().map(|item| reader.socket(item));
    let connection = block.item("connection");
    let choices = [("perMessage", false), ("persistent", true)];
    let persistent = connection.as_ref().map(|item| reader.choice(item, &choices));
    let transport = match chosen {
        // A bad word has been noted; the rules would only repeat it in other words.
        Some(None) => return None,
        Some(Some(transport)) => transport,
        None if socket.is_some() => Transport::Unix,
        None => Transport::Stdio,
    };
    let has_program = binary(block).is_some();
    if transport == Transport::Unix {
        let (Some(socket), Some(path)) = (socket, path) else {
            let at = given.map_or(block.at, |item| item.node.at);
            let wanted = "the path of the socket, since transport is \"unix\"";
            reader.note(at, join(&block.path, "unixDomainSocketPath"), Fault::Missing(wanted));
            return None;
        };
        let path = path?;
        sockets.add(reader, &path, socket.node.at, &socket.path, has_program);
        return Some(HandlerTransport::Unix { path, persistent: persistent.flatten().unwrap_or(false) });
    }
    if let Some(item) = socket {
        reader.fault(&item, Fault::Clash("goes only with \"transport\": \"unix\""));
    }
    if let Some(item) = connection {
        reader.fault(&item, Fault::Clash("goes only with \"transport\": \"unix\""));
    }
    if !has_program {
        let wanted = "the program to start, or `unixDomainSocketPath` of one that somebody else runs";
        reader.note(block.at, join(&block.path, "handlerBinary"), Fault::Missing(wanted));
    }
    Some(if transport == Transport::Stdio { HandlerTransport::Stdio } else { HandlerTransport::Socket })
}

/// The type as a part of a file's name: letters, digits, `.`, `_` and `-` stay, every other byte becomes `%` and its
/// two hexadecimal digits, so that two types never share a file.
fn file_name(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn file_names_are_plain_and_differ() {
        for (name, escaped) in [("chat", "chat"), ("a.b_c-1", "a.b_c-1"), ("a:b", "a%3Ab"), ("%", "%25"), ("%3A", "%253A"), ("ä", "%C3%A4")]
        {
            assert_eq!(file_name(name), escaped);
        }
    }
}
