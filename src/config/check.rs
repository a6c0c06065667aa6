//! Compares a [`Config`] with the machine, and changes nothing on it: `bester check` shows what is found, `bester serve`
//! refuses to start. What is right here may be wrong a moment later, so whoever opens or starts something still
//! looks at the result; this is for telling everything at once, and early.

use super::block::find_program;
use super::problem::{Flaw, Problem};
use super::{Config, HandlerTransport, Program, Registration};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Everything that keeps a server with this configuration from starting.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut check = Check { state: &config.server.state_directory, found: Vec::new() };
    check.listeners(config);
    check.state_directory();
    check.database(&config.database);
    if let Registration::Token(path) = &config.accounts.registration {
        check.token(path);
    }
    for (name, handler) in &config.handlers {
        let key = |key| format!("{}.{key}", super::json::join("handlers.typeMap", name.as_str()));
        if let Some(program) = &handler.program {
            check.program(&key("handlerBinary"), program);
            check.directory(&key("workingDirectory"), &program.directory, Access::EXEC_OK);
        }
        match &handler.transport {
            // Without a program of ours the socket and its directory are another's to make, perhaps later.
            HandlerTransport::Unix { path, .. } if handler.program.is_some() => {
                check.socket(&key("unixDomainSocketPath"), path);
            }
            _ => {}
        }
        check.socket(&key("informerSocketPath"), &handler.informer_socket);
    }
    check.found
}

struct Check<'c> {
    /// The one directory that the server makes itself.
    state: &'c Path,
    found: Vec<Problem>,
}

impl Check<'_> {
    fn add(&mut self, key: &str, subject: &Path, flaw: Flaw, remedy: impl Into<String>) {
        let (key, subject) = (key.to_owned(), subject.display().to_string());
        self.found.push(Problem { key, subject, flaw, remedy: remedy.into() });
    }

    fn listeners(&mut self, config: &Config) {
        let tcp = [("network.tcp4", config.network.tcp4), ("network.tcp6", config.network.tcp6)];
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
                let above = self.state.ancestors().skip(1).find(|path| !matches!(look(path), Err(Flaw::Missing)));
                let above = above.unwrap_or(Path::new("/"));
                self.directory(KEY, above, Access::WRITE_OK | Access::EXEC_OK);
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
        let (owner, ours) = (known.uid(), rustix::process::geteuid().as_raw());
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

/// The interpreter in the first line of a script, if it is not there. The system's own message for that would name the
/// script, which is there.
fn missing_interpreter(program: &Program) -> Option<String> {
    let mut head = Vec::new();
    File::open(&program.path).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
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
