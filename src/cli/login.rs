//! What the commands that talk to a server share: where it is, who we are, and where the password comes from.

use super::{Failure, ask, password_line};
use crate::client::{Address, Client, LoginError, Options as Opted, Trust};
use crate::password::Password;
use getopts::{Matches, Options};
use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::time::Duration;

/// Where a server is unless `-s` says otherwise: the port of the example configuration.
const SERVER: &str = "tcp://127.0.0.1:2223";
/// Names a file whose first line is the password.
const PASSWORD_FILE: &str = "BESTER_PASSWORD_FILE";
/// A longer time means a mistake, and some would not fit into a clock.
const SECONDS_MAX: f64 = 1e8;

/// Who logs in where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) address: Address,
    /// Who may be the server, where TLS can tell.
    pub(super) trust: Trust,
    pub(super) user: String,
    password_file: Option<String>,
}

/// Adds `-s`, `--pin`, `-u` and `--password-file`, and `-h`.
pub(super) fn options() -> Options {
    let mut options = Options::new();
    options
        .optopt("s", "server", "", "ADDRESS")
        .optopt("", "pin", "", "PIN")
        .optopt("u", "user", "", "USER")
        .optopt("", "password-file", "", "FILE")
        .optflag("h", "help", "");
    options
}

impl Login {
    /// What `matches` say, or else the environment.
    ///
    /// # Errors
    /// 64: the address or the pin is wrong, or nobody knows the user.
    pub(super) fn new(matches: &Matches, environment: impl Fn(&str) -> Option<String>) -> Result<Login, Failure> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let address = matches.opt_str("server").unwrap_or_else(|| SERVER.to_owned());
        let address = Address::parse(&address).map_err(|error| Failure::usage(format_args!("-s: {error}")))?;
        let trust = match matches.opt_str("pin") {
            None => Trust::System,
            Some(_) if !matches!(address, Address::Tls(_)) => {
                return Err(Failure::usage("--pin goes only with -s tls://HOST:PORT: without TLS nobody proves anything"));
            }
            Some(pin) => {
                let pin = pin.parse().map_err(|error| Failure::usage(format_args!("--pin: {error}")))?;
                Trust::Pins(vec![pin])
            }
        };
        let user = matches.opt_str("user").or_else(|| set("USER"));
        let user = user.ok_or_else(|| Failure::usage("say who you are, with -u USER"))?;
        let password_file = matches.opt_str("password-file").or_else(|| set(PASSWORD_FILE));
        Ok(Login { address, trust, user, password_file })
    }

    /// The password: from the file, the terminal or, unless something else is to be read there, standard input.
    ///
    /// # Errors
    /// 64: there is nowhere to take it from; 65: there is none, or no good one; 69, 74, 77: it cannot be read.
    pub(super) fn password(&self, input_is_free: bool) -> Result<Password, Failure> {
        if let Some(file) = &self.password_file {
            let opened = File::open(file).map_err(|error| unreadable(file, &error))?;
            return password_line(&mut BufReader::new(opened), file);
        }
        if io::stdin().is_terminal() {
            return ask(&format!("Password of {} at {}: ", self.user, self.address));
        }
        if input_is_free {
            return password_line(&mut io::stdin().lock(), "standard input");
        }
        Err(Failure::usage(format_args!(
            "standard input is the message: name a file with the password, with --password-file or {PASSWORD_FILE}"
        )))
    }

    /// Connects and logs in with these options, both within `timeout`.
    pub(super) fn connect(&self, password: &Password, timeout: Duration, opted: &Opted) -> Result<Client, LoginError> {
        let mut client = Client::connect_trusting(&self.address, timeout, &self.trust)?;
        client.log_in_with(&self.user, password, opted)?;
        Ok(client)
    }
}

fn unreadable(file: &str, error: &io::Error) -> Failure {
    let message = format!("cannot open {file}, which should have the password: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::not_permitted(message),
        _ => Failure::data(message),
    }
}

/// Reads the value of an option that takes seconds: `10`, `0.5`.
///
/// # Errors
/// 64, with the option.
pub(super) fn seconds(matches: &Matches, option: &str) -> Result<Option<Duration>, Failure> {
    let Some(text) = matches.opt_str(option) else { return Ok(None) };
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = text.parse::<f64>().ok().filter(|seconds| plain && *seconds <= SECONDS_MAX);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map(Some).ok_or_else(|| Failure::usage(format_args!("--{option} takes a number of seconds, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::PASSWORD_BYTES_MAX;

    fn matches(args: &[&str]) -> Matches {
        let mut options = options();
        options.optopt("t", "timeout", "", "SECONDS");
        options.parse(args).expect("options that are there")
    }

    fn login(args: &[&str], user: Option<&str>, file: Option<&str>) -> Result<Login, Failure> {
        let environment = |name: &str| match name {
            "USER" => user.map(str::to_owned),
            "BESTER_PASSWORD_FILE" => file.map(str::to_owned),
            other => panic!("{other}"),
        };
        Login::new(&matches(args), environment)
    }

    #[test]
    fn options_come_before_the_environment_and_that_before_defaults() {
        let plain = login(&[], Some("alice"), None).expect("a user");
        assert_eq!((plain.address.to_string().as_str(), plain.user.as_str()), ("tcp://127.0.0.1:2223", "alice"));
        let told = login(&["-s", "unix:s", "-u", "bob", "--password-file", "a"], Some("alice"), Some("b")).expect("all told");
        let (address, trust) = (Address::Unix("s".into()), Trust::System);
        assert_eq!(told, Login { address, trust, user: "bob".to_owned(), password_file: Some("a".to_owned()) });
        assert_eq!(login(&[], Some("alice"), Some("b")).expect("a user").password_file.as_deref(), Some("b"));
        assert_eq!(login(&[], Some("alice"), Some("")).expect("a user").password_file, None);
        assert_eq!(login(&[], Some(""), None).expect_err("no user").code, 64);
        assert_eq!(login(&["-s", "ws://a:1"], Some("alice"), None).expect_err("no such address").code, 64);
    }

    #[test]
    fn a_pin_goes_with_tls_alone() {
        let pin = crate::tls::Pin::of(b"key");
        let text = pin.to_string();
        let told = login(&["-s", "tls://a:1", "--pin", &text], Some("alice"), None).expect("a pin");
        assert_eq!(told.trust, Trust::Pins(vec![pin]));
        assert_eq!(login(&["-s", "tls://a:1"], Some("alice"), None).expect("an address").trust, Trust::System);
        for wrong in [&["--pin", &text][..], &["-s", "unix:a", "--pin", &text], &["-s", "tls://a:1", "--pin", &text[1..]]] {
            assert_eq!(login(wrong, Some("alice"), None).expect_err("refused").code, 64, "{wrong:?}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        let read = |text: &[u8]| {
            std::fs::write(&file, text).expect("written");
            let file = Some(file.to_str().expect("UTF-8"));
            let password = login(&[], Some("alice"), file).expect("a user").password(false);
            password.map(|password| password.as_bytes().to_vec()).map_err(|failure| failure.code)
        };
        for text in [&b"correct horse"[..], b"correct horse\n", b"correct horse\r\nmore\n"] {
            assert_eq!(read(text), Ok(b"correct horse".to_vec()));
        }
        assert_eq!(read(b" x \r"), Ok(b" x \r".to_vec()));
        assert_eq!(read(b"\n"), Ok(Vec::new()));
        assert_eq!(read(&[&[b'x'; PASSWORD_BYTES_MAX][..], b"\r\n"].concat()), Ok(vec![b'x'; PASSWORD_BYTES_MAX]));
        assert_eq!(read(&[b'x'; PASSWORD_BYTES_MAX + 1]), Err(65));
        assert_eq!(read(b"\xff\n"), Err(65));
        assert_eq!(read(b""), Err(65));
        let nowhere = login(&[], Some("alice"), Some("/nowhere/at/all")).expect("a user").password(true);
        assert_eq!(nowhere.map(|_| ()).expect_err("no file").code, 65);
    }

    #[test]
    fn seconds_are_plain_numbers() {
        let read = |text: &str| seconds(&matches(&["-t", text]), "timeout").map_err(|failure| failure.code);
        assert_eq!(read("0.25"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(read("30"), Ok(Some(Duration::from_secs(30))));
        for wrong in ["", "-1", "1e3", "inf", "NaN", "1s", "100000001", ".", "1.2.3"] {
            assert_eq!(read(wrong), Err(64), "{wrong}");
        }
        assert_eq!(seconds(&matches(&[]), "timeout"), Ok(None));
    }
}
