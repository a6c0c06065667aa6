//! The servers of a demo: directories and processes that are there only as long as the values here.

use super::super::{CONFIG_FILE, Failure, init, warn};
use super::{PATIENCE, failed, interrupted};
use crate::client::{Address, Client};
use crate::name::Username;
use crate::password::Password;
use crate::sys;
use crossbeam_channel::Receiver;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether something has come.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A server takes at most as long to stop; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(35);
/// Of the 107 bytes that the path of a socket may have, what is left for the system's temporary directory: the rest may be
/// `/bester-demo-12345678/a/state/informer-presence.sock`.
const TEMPORARY_BYTES_MAX: usize = 107 - 52;
const PASSWORD_BYTES: usize = 16;
/// Where free ports are looked for: below those that Linux gives to connections.
const PORT_MIN: u16 = 16_384;
const PORT_END: u16 = 32_768;
const PORTS_TRIED: usize = 1_000;
/// What the log says once everything works.
const READY: [&str; 4] = [" is ready", "handler echo is up", "handler chat is up", "handler count is up"];
/// Succeeds if Python is new enough for the sample handlers.
const PYTHON_CHECK: &str = "import sys; sys.exit(sys.version_info < (3, 8))";

/// Says clearly what is missing, before anything is made.
pub(super) fn check_python() -> Result<(), Failure> {
    let missing = |what: &str| {
        Failure::unavailable(format_args!(
            "{what}, which most of the sample handlers need; on Debian this installs it: apt-get install python3"
        ))
    };
    let python =
        Command::new("python3").args(["-c", PYTHON_CHECK]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    match python.and_then(|mut python| wait(&mut python, PATIENCE)) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(_) => Err(missing("python3 does not work or is older than 3.8")),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing("there is no python3")),
        Err(error) => Err(missing(&format!("python3 cannot be run ({error})"))),
    }
}

/// The directory of a server, or of several. It is removed when this value goes.
pub(super) struct Home {
    path: PathBuf,
    /// Whose it is.
    owner: &'static str,
}

/// What makes a server one of several that are to know each other.
pub(super) struct Place {
    pub(super) name: &'static str,
    /// Where it listens, on 127.0.0.1.
    pub(super) port: u16,
}

impl Home {
    pub(super) fn new() -> Result<Home, Failure> {
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() > TEMPORARY_BYTES_MAX {
            parent = PathBuf::from("/tmp");
        }
        Home::make(parent.join(format!("bester-demo-{}", random(4)?)), "the server")
    }

    /// One in this one.
    pub(super) fn within(&self, directory: &str, owner: &'static str) -> Result<Home, Failure> {
        Home::make(self.path.join(directory), owner)
    }

    fn make(path: PathBuf, owner: &'static str) -> Result<Home, Failure> {
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure { code: 73, message: format!("cannot make {}: {error}", path.display()) })?;
        Ok(Home { path, owner })
    }

    /// Writes what `bester init` writes, but for the TCP ports, which may be in use; gives the passwords of these users.
    pub(super) fn fill<const N: usize>(&self, users: [&str; N], place: Option<&Place>) -> Result<[Password; N], Failure> {
        let (mut database, _) = init::write_directory(&self.path)?;
        let config = self.config();
        let text = fs::read_to_string(&config).map_err(failed)?;
        fs::write(&config, configured(&text, place)?).map_err(failed)?;
        let mut passwords = Vec::with_capacity(N);
        for name in users {
            let password = password()?;
            database = init::add_user(database, &Username::new(name).map_err(failed)?, &password)?;
            passwords.push(password);
        }
        passwords.try_into().map_err(|_| failed("each user should have a password"))
    }

    /// Carries out a command on this server, in a process of its own that reads `input`. Gives what it prints, first what it
    /// tells people.
    pub(super) fn bester(&self, args: &[&str], input: &str) -> Result<String, Failure> {
        let mut command = Command::new(program()?);
        command.args(args).arg("-c").arg(self.config());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::prepare_child(&mut command, None);
        let shown = args.join(" ");
        let wrong = |what: &dyn std::fmt::Display| failed(format_args!("bester {shown}: {what}"));
        let mut child = command.spawn().map_err(|error| wrong(&error))?;
        // What it reads and prints is far less than a pipe holds, so neither side waits for the other.
        if let Some(mut stdin) = child.stdin.take() {
            // If it reads nothing, that shows in what it prints.
            let _ = stdin.write_all(input.as_bytes());
        }
        let status = wait(&mut child, PATIENCE).map_err(|error| wrong(&error))?;
        let printed = child.wait_with_output().map_err(|error| wrong(&error))?;
        let text = [printed.stderr, printed.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        match status {
            Some(status) if status.success() => Ok(text),
            Some(status) => Err(wrong(&format_args!("{status}\n{}", text.trim_end()))),
            None => Err(wrong(&format_args!("it was not done within {} s", PATIENCE.as_secs()))),
        }
    }

    pub(super) fn owner(&self) -> &'static str {
        self.owner
    }

    fn config(&self) -> PathBuf {
        self.path.join(CONFIG_FILE)
    }

    fn log_file(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What the server has logged so far.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&Address::Unix(self.path.join("state/bester.sock")), PATIENCE).map_err(failed)
    }

    pub(super) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed(format_args!("cannot remove {}: {error}", self.path.display())))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(failure) = self.remove() {
            warn(failure);
        }
    }
}

/// The configuration of a demo, made of the one that `bester init` writes.
fn configured(text: &str, place: Option<&Place>) -> Result<String, Failure> {
    let is_open = |line: &str| line.contains("\"tcp4\"") || (place.is_none() && line.contains("\"tls\""));
    let mut text: String = text.split_inclusive('\n').filter(|line| !is_open(line)).collect();
    if let Some(Place { name, port }) = place {
        // A server that is away is tried again when that is asked for, hardly ever before: everybody sees the same.
        let others = format!(
            "\"federation\": {{ \"address\": \"127.0.0.1:{port}\" }},\n    \
             \"limits\": {{ \"peerRetrySeconds\": 60, \"peerRetrySecondsMax\": 60 }},\n    \"network\": {{"
        );
        for (from, to) in [
            ("\"stateDirectory\": \"state\"", format!("\"name\": \"{name}\",\n        \"stateDirectory\": \"state\"")),
            ("\"network\": {", others),
            ("\"port\": 2224", format!("\"port\": {port}")),
        ] {
            if text.matches(from).count() != 1 {
                return Err(failed(format_args!("the configuration should have {from} once")));
            }
            text = text.replace(from, &to);
        }
    }
    Ok(text)
}

/// Two ports of 127.0.0.1 at which nobody listens. The system gives none of these to connections, so a server that is
/// started again finds its own still free.
pub(super) fn free_ports() -> Result<[u16; 2], Failure> {
    let mut found: Vec<(u16, TcpListener)> = Vec::new();
    for _ in 0..PORTS_TRIED {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(|error| Failure::unavailable(format_args!("random numbers: {error}")))?;
        let port = PORT_MIN + u16::from_le_bytes(bytes) % (PORT_END - PORT_MIN);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            found.push((port, listener));
        }
        if let [(one, _), (other, _)] = &found[..] {
            return Ok([*one, *other]);
        }
    }
    Err(Failure::unavailable("no port of 127.0.0.1 can be listened at"))
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| failed(format_args!("where is this program? {error}")))
}

fn password() -> Result<Password, Failure> {
    Password::new(random(PASSWORD_BYTES)?).map_err(failed)
}

/// So many random bytes, in hexadecimal.
fn random(bytes: usize) -> Result<String, Failure> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| Failure::unavailable(format_args!("random numbers: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `bester serve` in a process of its own. It ends when this value goes, or when this process dies.
pub(super) struct Server(Child);

impl Server {
    pub(super) fn start(home: &Home) -> Result<Server, Failure> {
        let program = program()?;
        let start = |log: &Path| {
            let mut command = Command::new(&program);
            command.args(["serve", "-c"]).arg(home.config()).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(File::create(log)?);
            sys::prepare_child(&mut command, None);
            command.spawn()
        };
        let started = start(&home.log_file());
        started.map(Server).map_err(|error| failed(format_args!("cannot start {}: {error}", program.display())))
    }

    pub(super) fn wait_until_ready(&mut self, home: &Home, orders: &Receiver<()>) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = home.log();
            if READY.iter().all(|words| log.contains(words)) {
                return Ok(());
            }
            if let Some(status) = self.0.try_wait().map_err(failed)? {
                return Err(failed(format_args!("the server did not start: {status}")));
            }
            if Instant::now() > deadline {
                return Err(failed(format_args!("the server was not ready within {} s", PATIENCE.as_secs())));
            }
            if orders.recv_timeout(LOOK_EVERY).is_ok() {
                return Err(interrupted());
            }
        }
    }

    /// Tells it to stop, and waits until it has.
    pub(super) fn stop(&mut self) -> Result<ExitStatus, Failure> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).map_err(failed)?;
        let ended = wait(&mut self.0, STOP_WITHIN).map_err(failed)?;
        ended.ok_or_else(|| failed(format_args!("the server did not stop within {} s", STOP_WITHIN.as_secs())))
    }

    /// Stops it, and it must end well.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let status = self.stop()?;
        if status.success() { Ok(()) } else { Err(failed(format_args!("the server should have ended well: {status}"))) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // What fails here was reported before, or is nothing that anybody could do something about.
        if self.stop().is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Waits for a process to end; kills it when it has not in time.
fn wait(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
