//! The server of a demo: a directory and a process that are there only as long as the values here.

use super::super::{CONFIG_FILE, Failure, init, warn};
use super::{PATIENCE, failed, interrupted};
use crate::client::{Address, Client};
use crate::name::Username;
use crate::password::Password;
use crate::sys;
use crossbeam_channel::Receiver;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether something has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A server takes at most as long to stop; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(35);
/// Of the 107 bytes that the path of a socket may have, what is left for the system's temporary directory.
const TEMPORARY_BYTES_MAX: usize = 64;
const PASSWORD_BYTES: usize = 16;
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

/// The directory of the server. It is removed when this value goes.
pub(super) struct Home(PathBuf);

impl Home {
    pub(super) fn new() -> Result<Home, Failure> {
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() > TEMPORARY_BYTES_MAX {
            parent = PathBuf::from("/tmp");
        }
        let path = parent.join(format!("bester-demo-{}", random(4)?));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure { code: 73, message: format!("cannot make {}: {error}", path.display()) })?;
        Ok(Home(path))
    }

    /// Writes what `bester init` writes, but for the TCP ports, which may be in use; gives the passwords of alice and bob.
    pub(super) fn fill(&self) -> Result<(Password, Password), Failure> {
        let (mut database, _) = init::write_directory(&self.0)?;
        let config = self.config();
        let text = fs::read_to_string(&config).map_err(failed)?;
        let has_port = |line: &str| ["\"tcp4\"", "\"tls\""].iter().any(|kind| line.contains(kind));
        let without_tcp: String = text.split_inclusive('\n').filter(|line| !has_port(line)).collect();
        fs::write(&config, without_tcp).map_err(failed)?;
        let passwords = (password()?, password()?);
        for (name, password) in [("alice", &passwords.0), ("bob", &passwords.1)] {
            database = init::add_user(database, &Username::new(name).map_err(failed)?, password)?;
        }
        Ok(passwords)
    }

    fn config(&self) -> PathBuf {
        self.0.join(CONFIG_FILE)
    }

    fn log_file(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What the server has logged so far.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&Address::Unix(self.0.join("state/bester.sock")), PATIENCE).map_err(failed)
    }

    pub(super) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(format_args!("cannot remove {}: {error}", self.0.display()))),
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
        let program = std::env::current_exe().map_err(|error| failed(format_args!("where is this program? {error}")))?;
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
