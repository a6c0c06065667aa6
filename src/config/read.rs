//! From the tree to a [`Config`]. Every mistake is noted, none ends the reading; a configuration comes out only if there
//! was none. Nothing here looks at the machine, but for its name, `PATH` and whether a program lies beside the file.

use super::block::{Block, Item, Reader};
use super::handlers;
use super::json::{self, Node, join};
use super::limits;
use super::mistake::{Fault, Mistake, Mistakes};
use super::network::Sockets;
use super::{Accounts, Config, Registration, Server};
use crate::name::ServerName;
use log::LevelFilter;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every key, by its block. What is not here is an unknown key; the reading, the nearest names and the test that the
/// example explains every key come from here. `*` stands for a type.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("", &["server", "network", "handlers", "database", "accounts", "federation", "limits", "admin", "log"]),
    ("server", &["name", "stateDirectory"]),
    ("network", &["tcp4", "tcp6", "unix", "tls", "types"]),
    ("network.tcp4", &["address", "port"]),
    ("network.tcp6", &["address", "port"]),
    ("network.unix", &["address", "mode"]),
    ("network.tls", &["address", "port", "certificate", "key"]),
    ("handlers", &["availableTypes", "typeMap"]),
    (
        "handlers.typeMap.*",
        &[
            "handlerBinary",
            "arguments",
            "environment",
            "workingDirectory",
            "user",
            "group",
            "resources",
            "watch",
            "instances",
            "transport",
            "unixDomainSocketPath",
            "informerSocketPath",
            "connection",
            "framing",
            "envelope",
            "inFlight",
            "timeoutSeconds",
            "stopSeconds",
            "queue",
            "queueSeconds",
            "offline",
            "federated",
            "idempotent",
        ],
    ),
    ("handlers.typeMap.*.resources", &["files", "memory", "processes"]),
    ("database", &["type", "path"]),
    ("accounts", &["registration", "token", "passwordMinimum"]),
    ("federation", &["mode", "address"]),
    ("limits", &limits::KEYS),
    ("admin", &["info"]),
    ("log", &["all", "admin", "connection", "dispatcher", "federation", "handler", "listener", "server", "store"]),
];

/// The keys of one block.
pub(super) fn keys(block: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(name, _)| *name == block).map_or(&[], |(_, keys)| keys)
}

/// The most bytes that may be demanded of a password.
const PASSWORD_MINIMUM_MAX: u64 = 1024;

impl Config {
    /// Reads and checks a file. It looks at the machine only to find programs by their name;
    /// [`problems`](super::problems) does the rest.
    pub fn load(path: &Path) -> Result<Config, Mistakes> {
        match json::read(path) {
            Ok(text) => Config::from_text(&text, path),
            Err(fault) => {
                let mistake = Mistake { at: None, key: String::new(), fault };
                Err(Mistakes { file: path.to_owned(), list: vec![mistake] })
            }
        }
    }

    /// Checks the text of a file, which need not exist: `path` gives messages a name and relative paths a beginning.
    pub fn from_text(text: &str, path: &Path) -> Result<Config, Mistakes> {
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = file.parent().unwrap_or(&file).to_owned();
        let mut reader = Reader { base, mistakes: Vec::new() };
        let config = json::parse(text, &mut reader.mistakes).and_then(|root| reader.config(file, &root));
        let mut list = reader.mistakes;
        match config {
            Some(config) if list.is_empty() => Ok(config),
            _ => {
                // A stable sort: two mistakes at one place stay in the order in which they were found.
                list.sort_by_key(|mistake| mistake.at);
                Err(Mistakes { file: path.to_owned(), list })
            }
        }
    }
}

impl Reader {
    fn config(&mut self, file: PathBuf, root: &Node) -> Option<Config> {
        let root = self.block(Item { path: String::new(), node: root }, keys(""))?;
        let server = self.server(root.item("server"));
        let mut sockets = Sockets::default();
        let network = self.network(&root, &mut sockets);
        let handlers = handlers::read(self, root.item("handlers"), &server.state_directory, &mut sockets);
        Some(Config {
            database: self.database(root.item("database"), &server.state_directory),
            accounts: self.accounts(root.item("accounts")),
            federation: self.federation(root.item("federation")),
            limits: limits::read(self, root.item("limits")),
            admin_info: self.admin_info(root.item("admin")),
            log: self.log(root.item("log")),
            file,
            server,
            network,
            handlers,
        })
    }

    fn server(&mut self, item: Option<Item<'_>>) -> Server {
        let block = item.and_then(|item| self.block(item, keys("server")));
        let given = |key| block.as_ref().and_then(|block| block.item(key));
        let (name, state) = (given("name"), given("stateDirectory"));
        Server {
            name: name.and_then(|item| self.server_name(&item)).unwrap_or_else(host_name),
            state_directory: state.and_then(|item| self.path(&item)).unwrap_or_else(|| self.base.join("bester-state")),
        }
    }

    fn server_name(&mut self, item: &Item<'_>) -> Option<ServerName> {
        match ServerName::new(self.text(item)?) {
            Ok(name) => Some(name),
            Err(bad) => {
                self.fault(item, Fault::Name(bad));
                None
            }
        }
    }

    fn database(&mut self, item: Option<Item<'_>>, state: &Path) -> PathBuf {
        let default = state.join("bester.db");
        let Some(item) = item else { return default };
        let Some(members) = self.open(&item) else {
            return default;
        };
        let whole = Block { at: item.node.at, path: item.path.clone(), members };
        let typed = whole.item("type");
        let is_redis = |item: &Item<'_>| matches!(&item.node.value, json::Value::Text(t) if t == "redis");
        if typed.as_ref().is_some_and(is_redis) || (typed.is_none() && whole.has("redis")) {
            let at = typed.as_ref().map_or(item.node.at, |item| item.node.at);
            self.note(at, typed.map_or(item.path, |item| item.path), Fault::Redis);
            return default;
        }
        let Some(block) = self.block(item, keys("database")) else {
            return default;
        };
        if let Some(item) = typed {
            self.choice(&item, &[("sqlite", ())]);
        }
        block.item("path").and_then(|item| self.path(&item)).unwrap_or(default)
    }

    fn accounts(&mut self, item: Option<Item<'_>>) -> Accounts {
        let default = Accounts { registration: Registration::Closed, password_minimum: 8 };
        let Some(block) = item.and_then(|item| self.block(item, keys("accounts"))) else {
            return default;
        };
        let minimum = block.item("passwordMinimum").and_then(|item| self.count(&item, PASSWORD_MINIMUM_MAX));
        let token = block.item("token").map(|item| (item.clone(), self.path(&item)));
        let choices = [("closed", "closed"), ("open", "open"), ("token", "token")];
        let chosen = block.item("registration").map(|item| (item.node.at, self.choice(&item, &choices)));
        let registration = match (chosen, token) {
            (Some((_, Some("token"))), Some((_, path))) => path.map(Registration::Token),
            (Some((at, Some("token"))), None) => {
                let wanted = "the path of a file that holds the token, since registration is \"token\"";
                self.note(at, join(&block.path, "token"), Fault::Missing(wanted));
                None
            }
            (Some((_, Some(_))) | None, Some((item, _))) => {
                self.fault(&item, Fault::Clash("goes only with \"registration\": \"token\""));
                None
            }
            (Some((_, Some("open"))), None) => Some(Registration::Open),
            _ => None,
        };
        Accounts {
            registration: registration.unwrap_or(default.registration),
            password_minimum: minimum.map_or(default.password_minimum, |minimum| minimum as usize),
        }
    }

    fn admin_info(&mut self, item: Option<Item<'_>>) -> String {
        let block = item.and_then(|item| self.block(item, keys("admin")));
        let info = block.and_then(|block| block.item("info"));
        match info.filter(|item| self.open(item).is_some()) {
            Some(item) => json::compact(item.node),
            None => "{}".to_owned(),
        }
    }

    fn log(&mut self, item: Option<Item<'_>>) -> BTreeMap<String, LevelFilter> {
        let mut levels = BTreeMap::from([("all".to_owned(), LevelFilter::Info)]);
        let Some(block) = item.and_then(|item| self.block(item, keys("log"))) else {
            return levels;
        };
        let choices = [
            ("off", LevelFilter::Off),
            ("error", LevelFilter::Error),
            ("warn", LevelFilter::Warn),
            ("info", LevelFilter::Info),
            ("debug", LevelFilter::Debug),
            ("trace", LevelFilter::Trace),
        ];
        for room in keys("log") {
            let Some(item) = block.item(room) else {
                continue;
            };
            if let Some(level) = self.choice(&item, &choices) {
                levels.insert((*room).to_owned(), level);
            }
        }
        levels
    }
}

/// The host's name, if a server may have it.
fn host_name() -> ServerName {
    let host = rustix::system::uname();
    let name = host.nodename().to_str().ok().and_then(|name| ServerName::new(name).ok());
    name.unwrap_or_else(|| ServerName::new("localhost").expect("letters are a server name")) // whatever the rule is
}
