//! `bester init`: makes a directory with all that a server needs.

use super::{CONFIG_FILE, Failure, read_new_password, warn};
use crate::config::Config;
use crate::name::Username;
use crate::password;
use crate::store::Database;
use crate::tls::{Identity, Pin};
use getopts::Options;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What `bester init --help` prints.
pub const HELP: &str = "\
Usage: bester init DIR [--user NAME]

Makes a directory with all that a server needs: a configuration (DIR/bester.conf), the database of
accounts and mailboxes (DIR/state/bester.db), a key and a certificate for TLS (DIR/state/server.key
and server.crt) and sample handlers (DIR/handlers). Nothing that is there already is changed. The
pin of the key is printed: clients and other servers know this server by it.

Options:
  -u, --user NAME   make a first account; asks for its password, or takes the first line of
                    standard input where that is no terminal
  -h, --help        print this

Exit codes: 0 done, 64 called wrongly, 65 a bad name or password, 73 something is in the way,
77 not permitted.
";

/// The configuration: short, for `bester config default` explains every key.
const CONFIG: &str = include_str!("init.conf");

/// The sample handlers: where they go, whether they are programs, and what is in them.
const FILES: &[(&str, bool, &str)] = &[
    (CONFIG_FILE, false, CONFIG),
    ("handlers/README.md", false, include_str!("../../handlers/README.md")),
    ("handlers/python/README.md", false, include_str!("../../handlers/python/README.md")),
    ("handlers/python/bester.py", false, include_str!("../../handlers/python/bester.py")),
    ("handlers/echo/README.md", false, include_str!("../../handlers/echo/README.md")),
    ("handlers/echo/echo.py", true, include_str!("../../handlers/echo/echo.py")),
    ("handlers/chat/README.md", false, include_str!("../../handlers/chat/README.md")),
    ("handlers/chat/chat.py", true, include_str!("../../handlers/chat/chat.py")),
    ("handlers/mail/README.md", false, include_str!("../../handlers/mail/README.md")),
    ("handlers/mail/mail.py", true, include_str!("../../handlers/mail/mail.py")),
    ("handlers/presence/README.md", false, include_str!("../../handlers/presence/README.md")),
    ("handlers/presence/presence.py", true, include_str!("../../handlers/presence/presence.py")),
    ("handlers/count/README.md", false, include_str!("../../handlers/count/README.md")),
    ("handlers/count/count.sh", true, include_str!("../../handlers/count/count.sh")),
];

/// Carries out `bester init` with the arguments that follow it.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt("u", "user", "", "NAME").optflag("h", "help", "");
    let matches = super::parse("init", &options, args)?;
    if matches.opt_present("help") {
        return super::print(HELP);
    }
    let [directory] = &matches.free[..] else {
        return Err(Failure::usage("name the directory to write: bester init DIR"));
    };
    let name = matches.opt_str("user").map(|name| Username::new(&name)).transpose().map_err(Failure::data)?;
    let password = name.as_ref().map(|name| read_new_password(name.as_str())).transpose()?;
    if let Some(password) = &password {
        // Before anything is written, which would be in the way of another try.
        password.check_new(crate::config::Accounts::PASSWORD_MINIMUM).map_err(Failure::data)?;
    }
    let directory = Path::new(directory);
    let (database, pin) = write_directory(directory)?;
    let config_file = directory.join(CONFIG_FILE);
    let config_file = config_file.display();
    if let (Some(name), Some(password)) = (&name, password) {
        add_user(database, name, &password)?;
    }
    warn(format_args!("{} is ready", directory.display()));
    match name {
        Some(name) => warn(format_args!("{name} can log in")),
        None => warn(format_args!("nobody can log in yet; this makes an account: bester user add NAME -c {config_file}")),
    }
    warn(format_args!("clients with TLS know this server by its pin: --pin {pin}"));
    warn(format_args!("this runs the server: bester serve -c {config_file}"));
    Ok(())
}

/// Writes everything; gives the new database, open, and the pin of the new key.
pub(super) fn write_directory(directory: &Path) -> Result<(Database, Pin), Failure> {
    if let Some((taken, ..)) = FILES.iter().find(|(file, ..)| directory.join(file).symlink_metadata().is_ok()) {
        let taken = directory.join(taken);
        return Err(Failure { code: 73, message: format!("{} is there already; nothing was changed", taken.display()) });
    }
    for (file, program, text) in FILES {
        let path = directory.join(file);
        write_file(&path, *program, text).map_err(|error| cannot_write(&path, &error))?;
    }
    let config = Config::load(&directory.join(CONFIG_FILE)).map_err(Failure::configuration)?;
    let database = Database::open(&config.database)?;
    let identity = Identity::own(&config.server.state_directory, &config.server.name);
    let identity = identity.map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })?;
    Ok((database, identity.pin()))
}

/// Makes an account in a database that `bester init` or `bester demo` has just made.
pub(super) fn add_user(mut database: Database, name: &Username, password: &password::Password) -> Result<Database, Failure> {
    let minimum = crate::config::Accounts::PASSWORD_MINIMUM;
    password.check_new(minimum).map_err(Failure::data)?;
    let hash = password::hash(password).map_err(Failure::unavailable)?;
    database.add(name, &hash)?;
    Ok(database)
}

fn write_file(path: &Path, program: bool, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mode = if program { 0o755 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::PermissionDenied { 77 } else { 73 };
    Failure { code, message: format!("cannot write {}: {error}", path.display()) }
}
