//! Compares a [`Config`] with the machine, and changes nothing on it: `bester check` shows what is found, `bester serve`
//! refuses to start. What is right here may be wrong a moment later, so whoever opens or starts something still
//! looks at the result; this is for telling everything at once, and early.

use super::block::find_program;
use super::problem::{Flaw, Problem};
use super::{Config, Handler, HandlerTransport, Identity, NoIdentity, Program, Registration, Resources};
use crate::tls::IdentityFlaw;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Resource, getegid, geteuid, getrlimit};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Everything that keeps a server with this configuration from starting.
pub fn problems(config: &Config) -> Vec<Problem> {
    problems_for(config, (geteuid().as_raw(), getegid().as_raw()))
}

/// The same for a server that runs as this user and group, as far as it depends on who that is and not on what the system
/// permits.
pub(super) fn problems_for(config: &Config, ours: (u32, u32)) -> Vec<Problem> {
    let mut check = Check { state: &config.server.state_directory, ours, found: Vec::new() };
    check.listeners(config);
    check.state_directory();
    check.database(&config.database);
    check.identity_on_tls(config);
    if let Registration::Token(path) = &config.accounts.registration {
        check.token(path);
    }
    for (name, handler) in &config.handlers {
        let key = |key| format!("{}.{key}", super::json::join("handlers.typeMap", name.as_str()));
        if let Some(program) = &handler.program {
            check.program(&key("handlerBinary"), program);
            check.directory(&key("workingDirectory"), &program.directory, Access::EXEC_OK);
            check.resources(&key("resources"), &program.resources);
            check.identity(&key, handler, program);
        }
        match &handler.transport {
            // Without a program of ours the socket and its directory are another's to make, perhaps later.
            HandlerTransport::Unix { path, .. } if handler.program.is_some() => {
                check.socket(&key("unixDomainSocketPath"), path);
            }
            _ => {}
        }
        match &handler.informer_directory {
            Some(directory) => check.informers(&key("informerSocketPath"), directory),
            None => check.socket(&key("informerSocketPath"), &handler.informer_socket),
        }
    }
    check.found
}

struct Check<'c> {
    /// The one directory that the server makes itself.
    state: &'c Path,
    /// The server's user and group.
    ours: (u32, u32),
    found: Vec<Problem>,
}

impl Check<'_> {
    fn add(&mut self, key: &str, subject: &Path, flaw: Flaw, remedy: impl Into<String>) {
        let (key, subject) = (key.to_owned(), subject.display().to_string());
        self.found.push(Problem { key, subject, flaw, remedy: remedy.into() });
    }

    fn listeners(&mut self, config: &Config) {
        let tls = config.network.tls.as_ref().map(|tls| tls.address);
        let tcp = [("network.tcp4", config.network.tcp4), ("network.tcp6", config.network.tcp6), ("network.tls", tls)];
        for (key, address) in tcp.into_iter().filter_map(|(key, address)| Some((key, address?))) {
            if !is_ours(address.ip()) {
                let remedy = format!("correct it, or leave {} out of network.types", &key["network.".len()..]);
                self.add(&format!("{key}.address"), Path::new(&address.ip().to_string()), Flaw::NoAddress, remedy);
            }
        }
        if let Some(unix) = &config.network.unix {
            self.socket("network.unix.address", &unix.path);
        }
    }

    fn state_directory(&mut self) {
        const KEY: &str = "server.stateDirectory";
        match look(self.state) {
            Err(Flaw::Missing) => {
                // The server makes it, and what is missing above it.
                self.above(KEY, self.state);
            }
            Err(flaw) => self.add(KEY, self.state, flaw, "correct the path"),
            Ok(known) if !known.is_dir() => {
                self.add(KEY, self.state, Flaw::NotA("a directory"), "correct the path");
            }
            Ok(known) => {
                self.private(KEY, self.state, &known, 0o077, "0700");
                if !may(self.state, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
                    self.add(KEY, self.state, Flaw::NotWritable, chmod("0700", self.state));
                }
            }
        }
    }

    fn database(&mut self, path: &Path) {
        const KEY: &str = "database.path";
        match look(path) {
            Err(Flaw::Missing) => self.parent(KEY, path),
            Err(flaw) => self.add(KEY, path, flaw, "correct the path"),
            Ok(known) if !known.is_file() => {
                self.add(KEY, path, Flaw::NotA("an ordinary file"), "correct the path");
            }
            Ok(known) => {
                self.private(KEY, path, &known, 0o077, "0600");
                if !may(path, Access::READ_OK | Access::WRITE_OK) {
                    self.add(KEY, path, Flaw::NotWritable, chmod("0600", path));
                }
            }
        }
    }

    /// A certificate and its key, if they are there: the server makes what it has of its own.
    fn identity_on_tls(&mut self, config: &Config) {
        let Some(listen) = &config.network.tls else { return };
        let Some(Err(error)) = super::plan::identity_on_tls(config) else { return };
        let is_certificate = listen.files.as_ref().is_some_and(|files| files.certificate == error.path);
        let key = match &listen.files {
            None => "network.tls",
            Some(_) if is_certificate => "network.tls.certificate",
            Some(_) => "network.tls.key",
        };
        let remedy = error.remedy().unwrap_or_else(|| "correct it, or leave both out of network.tls: the server makes its own".to_owned());
        let flaw = match error.flaw {
            IdentityFlaw::Io(why) => match why.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Flaw::Missing,
                ErrorKind::PermissionDenied => Flaw::NotReadable,
                kind => Flaw::Unreachable(kind),
            },
            IdentityFlaw::Foreign { owner, us } => Flaw::Owner { owner, ours: us },
            IdentityFlaw::Exposed(mode) => Flaw::OpenToOthers(mode),
            other => Flaw::Unusable(other.to_string()),
        };
        self.add(key, &error.path, flaw, remedy);
    }

    fn token(&mut self, path: &Path) {
        const KEY: &str = "accounts.token";
        match look(path) {
            Err(flaw) => self.add(KEY, path, flaw, "write the token into that file, or correct the path"),
            Ok(known) if !known.is_file() => {
                self.add(KEY, path, Flaw::NotA("an ordinary file"), "correct the path");
            }
            Ok(known) => {
                // A group that may read it is how root gives a secret to the server's user, so that is allowed.
                let mode = known.mode() & 0o777;
                if mode & 0o027 != 0 {
                    self.add(KEY, path, Flaw::OpenToOthers(mode), chmod("0640", path));
                }
                if !may(path, Access::READ_OK) {
                    self.add(KEY, path, Flaw::NotReadable, "give it to the user that the server runs as");
                } else if known.len() == 0 {
                    self.add(KEY, path, Flaw::Empty, "write the token into it");
                }
            }
        }
    }

    fn program(&mut self, key: &str, program: &Program) {
        let path = &program.path;
        match look(path) {
            Err(flaw) => self.add(key, path, flaw, "install the program, or correct the path"),
            Ok(known) if !known.is_file() => self.add(key, path, Flaw::NotA("a program"), "correct the path"),
            Ok(_) if !may(path, Access::EXEC_OK) => {
                self.add(key, path, Flaw::NotExecutable, chmod("+x", path));
            }
            Ok(_) => {
                if let Some(name) = missing_interpreter(program) {
                    let remedy = "install it, or correct the first line of the script";
                    self.add(key, path, Flaw::NoInterpreter(name), remedy);
                }
            }
        }
    }

    /// A place where a socket has to be made; an old socket there is replaced.
    fn socket(&mut self, key: &str, path: &Path) {
        // Not what a symbolic link points to: the link itself would be in the way.
        match path.symlink_metadata() {
            Ok(known) if !known.file_type().is_socket() => {
                self.add(key, path, Flaw::InTheWay, "move it away, or correct the path");
            }
            _ => self.parent(key, path),
        }
    }

    /// The directory in which something has to be made.
    fn parent(&mut self, key: &str, path: &Path) {
        match path.parent() {
            // It has been looked at, or will be made.
            Some(parent) if parent == self.state => {}
            Some(parent) => self.directory(key, parent, Access::WRITE_OK | Access::EXEC_OK),
            None => self.add(key, path, Flaw::NotA("a file in a directory"), "correct the path"),
        }
    }

    /// The directory in which something has to be made, with all that is missing above it.
    fn above(&mut self, key: &str, path: &Path) {
        let above = path.ancestors().skip(1).find(|path| !matches!(look(path), Err(Flaw::Missing)));
        self.directory(key, above.unwrap_or(Path::new("/")), Access::WRITE_OK | Access::EXEC_OK);
    }

    /// The directory for informers of those who do not get into the state directory, which the server makes.
    fn informers(&mut self, key: &str, path: &Path) {
        match path.symlink_metadata() {
            Err(_) => self.above(key, path),
            Ok(known) if !known.is_dir() => self.add(key, path, Flaw::NotA("a directory"), "move it away, or give the path"),
            // Whoever owns it could put a socket of his own there.
            Ok(known) => self.private(key, path, &known, 0o022, "0711"),
        }
    }

    /// Bounds can only be lowered by a program's own process, which may no longer be root's.
    fn resources(&mut self, key: &str, resources: &Resources) {
        for (name, wanted, resource) in [
            ("files", resources.files, Resource::Nofile),
            ("memory", resources.memory, Resource::As),
            ("processes", resources.processes, Resource::Nproc),
        ] {
            if let (Some(wanted), Some(limit)) = (wanted, getrlimit(resource).maximum)
                && wanted > limit
            {
                let remedy = "lower it, or raise that limit where the server is started";
                self.add(&format!("{key}.{name}"), Path::new(&wanted.to_string()), Flaw::Beyond(limit), remedy);
            }
        }
    }

    /// Whether the server can start the program as this user, and whether the user then gets at all that is needed.
    fn identity(&mut self, key: &dyn Fn(&'static str) -> String, handler: &Handler, program: &Program) {
        let identity = match Identity::of(program) {
            Ok(None) => return,
            Ok(Some(identity)) => identity,
            Err(NoIdentity::User(name)) => {
                let remedy = "correct it, or give the number of a user that is known elsewhere, and `group` too";
                return self.add(&key("user"), Path::new(&name), Flaw::Unknown("/etc/passwd"), remedy);
            }
            Err(NoIdentity::Group(name)) => {
                let remedy = "correct it, or give the number of a group that is known elsewhere";
                return self.add(&key("group"), Path::new(&name), Flaw::Unknown("/etc/group"), remedy);
            }
            Err(NoIdentity::NoGroup(number)) => {
                return self.add(&key("user"), Path::new(&number), Flaw::NoGroup, "give `group` too");
            }
            Err(NoIdentity::Unreadable(file, error)) => {
                let given = if program.user.is_some() { "user" } else { "group" };
                return self.add(&key(given), Path::new(file), Flaw::Unreachable(error.kind()), "let the server read it");
            }
        };
        let our_user = self.ours.0;
        if our_user != 0 && (identity.uid, identity.gid) != self.ours {
            let (given, name) = match (&program.user, &program.group) {
                (Some(user), None) => ("user", user.clone()),
                (Some(user), _) if identity.uid != our_user => ("user", user.clone()),
                (_, group) => ("group", group.clone().unwrap_or_default()), // without either there is no identity
            };
            let remedy = "run the server as root, or leave `user` and `group` out";
            return self.add(&key(given), Path::new(&name), Flaw::NotRoot(our_user), remedy);
        }
        if identity.uid == our_user {
            return; // what is permitted to us is looked at without this
        }
        let enter = "move it to where the user can go, or open that directory to the user";
        // A script is opened once more, by its interpreter.
        let bits = if first_line(&program.path).is_some_and(|line| line.starts_with(b"#!")) { 5 } else { 1 };
        self.reach(&key("handlerBinary"), &identity, &program.path, bits, enter);
        self.reach(&key("workingDirectory"), &identity, &program.directory, 1, enter);
        if let HandlerTransport::Unix { path, .. } = &handler.transport
            && let Some(parent) = path.parent()
        {
            self.reach(&key("unixDomainSocketPath"), &identity, parent, 3, "put the socket into a directory that the user can write");
        }
        let informer = "set informerSocketPath to a place that the user can reach, or open that directory to the user";
        self.reach(&key("informerSocketPath"), &identity, &handler.informer_socket, 2, informer);
        if let Some(directory) = &handler.informer_directory
            && let Some(missing) = directory.ancestors().skip(1).find(|above| matches!(look(above), Err(Flaw::Missing)))
        {
            // The server would make it on the way to its state directory, and for itself alone.
            let remedy = "make that directory, open to the user, or set informerSocketPath to a place that the user can reach";
            self.add(&key("informerSocketPath"), missing, Flaw::Missing, remedy);
        }
    }

    /// Whether somebody else gets to `path`, and may do `bits` there if it is there by now. (A socket is not.)
    fn reach(&mut self, key: &str, identity: &Identity, path: &Path, bits: u32, remedy: &str) {
        let user = identity.name();
        if let Some(closed) = identity.barrier(path) {
            return self.add(key, &closed, Flaw::ClosedTo { user, wanted: Some(path.to_owned()) }, remedy);
        }
        match path.metadata() {
            Ok(known) if !known.file_type().is_socket() && !identity.may(path, &known, bits) => {
                self.add(key, path, Flaw::ClosedTo { user, wanted: None }, remedy);
            }
            _ => {} // what is not there has been told
        }
    }

    fn directory(&mut self, key: &str, path: &Path, access: Access) {
        match look(path) {
            Err(flaw) => self.add(key, path, flaw, "make that directory, or correct the path"),
            Ok(known) if !known.is_dir() => {
                self.add(key, path, Flaw::NotA("a directory"), "correct the path");
            }
            Ok(_) if !may(path, access) => {
                let flaw = if access.contains(Access::WRITE_OK) { Flaw::NotWritable } else { Flaw::NotReadable };
                self.add(key, path, flaw, "permit it to the user that the server runs as, or correct the path");
            }
            Ok(_) => {}
        }
    }

    /// Ours, and nobody else may come near.
    fn private(&mut self, key: &str, path: &Path, known: &Metadata, forbidden: u32, proper: &str) {
        let (owner, ours) = (known.uid(), geteuid().as_raw());
        if owner != ours {
            let remedy = "run the server as that user, or give it to the server's user with chown";
            self.add(key, path, Flaw::Owner { owner, ours }, remedy);
        }
        let mode = known.mode() & 0o777;
        if mode & forbidden != 0 {
            self.add(key, path, Flaw::OpenToOthers(mode), chmod(proper, path));
        }
    }
}

fn chmod(mode: &str, path: &Path) -> String {
    format!("run: chmod {mode} {}", path.display())
}

fn look(path: &Path) -> Result<Metadata, Flaw> {
    path.metadata().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Flaw::Missing,
        kind => Flaw::Unreachable(kind),
    })
}

/// Whether the user that we act as may; for root this is almost always so.
fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

/// Whether the machine would let us listen there. The datagram socket on a port of the system's choice is gone at once,
/// and disturbs nobody who already listens.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

fn first_line(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    head.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec)
}

/// The interpreter in the first line of a script, if it is not there. The system's own message for that would name the
/// script, which is there.
fn missing_interpreter(program: &Program) -> Option<String> {
    let line = first_line(&program.path)?;
    let line = std::str::from_utf8(line.strip_prefix(b"#!")?).ok()?;
    let mut words = line.split_ascii_whitespace();
    let interpreter = words.next()?;
    let exists = |name: &str| program.directory.join(name).exists();
    if !exists(interpreter) {
        return Some(interpreter.to_owned());
    }
    if Path::new(interpreter).file_name() != Some(OsStr::new("env")) {
        return None;
    }
    let name = words.find(|word| *word != "-S")?;
    if name.starts_with('-') || name.contains('=') || (name.contains('/') && exists(name)) {
        return None;
    }
    let search = program.environment.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    find_program(name, search.as_deref()).is_none().then(|| name.to_owned())
}
