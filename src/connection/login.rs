//! The slow half of everything that needs a password: looking the account up, and hashing. Whoever asks waits here
//! with the thread of the connection, so whoever guesses passwords slows down himself, and permits bound how much of the
//! machine all guessers together may use.

use crate::config::{self, Registration};
use crate::name::Username;
use crate::password::{Password, PasswordError, Permit, Permits};
use crate::protocol::reason::Reason;
use crate::protocol::text::Text;
use crate::store::{Account, Store, StoreError};
use log::{error, warn};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// From the moment that hashing begins to the answer, at least, when a login fails: the time is to tell nothing.
const FAILURE_TAKES: Duration = Duration::from_millis(250);
/// Much more than a connection's stack: the C library keeps the stacks of threads that ended for new ones of about the
/// same size, and would give this one, touched all over, to a connection.
const HASHING_STACK_BYTES: usize = 2 << 20;
/// How long a permit to hash is waited for; then the server is busy.
const PERMIT_WITHIN: Duration = Duration::from_secs(5);
/// A registration token longer than this is none.
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// Why it was not done, as the report says it.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    /// The report's reason.
    pub reason: Reason,
    /// Words for people.
    pub message: String,
}

fn denied(reason: Reason, message: impl Into<String>) -> Denied {
    Denied { reason, message: message.into() }
}

fn wrong() -> Denied {
    denied(Reason::Authentication, "user name or password is wrong")
}

/// Proves who somebody is, and changes accounts as the protocol allows.
#[derive(Debug)]
pub struct Login {
    store: Store,
    permits: Permits,
    rules: config::Accounts,
}

impl Login {
    /// At most `hashing_at_once` passwords are hashed at once.
    pub fn new(store: Store, hashing_at_once: usize, rules: config::Accounts) -> Login {
        Login { store, permits: Permits::new(hashing_at_once), rules }
    }

    /// Whether this is the user's password: his name, and the revision of the account that the proof is for.
    ///
    /// A wrong password and an unknown user give the same words after the same time.
    pub fn prove(&self, username: &Text, password: &Text) -> Result<(Username, u64), Denied> {
        let permit = self.permit()?;
        let began = Instant::now();
        let proved = self.verify(permit, Username::new(username.as_str()).ok(), password).map(|(_, proved)| proved);
        proved.inspect_err(|_| wait_until(began + FAILURE_TAKES))
    }

    /// Changes a user's own password; gives the account's new revision.
    pub fn change_password(&self, user: &Username, old: &Text, new: &Text) -> Result<u64, Denied> {
        let minimum = self.rules.password_minimum;
        let new = new_password(new, minimum)?;
        let permit = self.permit()?;
        let began = Instant::now();
        let proved = self.verify(permit, Some(user.clone()), old);
        let (permit, (_, revision)) = proved.inspect_err(|_| wait_until(began + FAILURE_TAKES))?;
        let (_, hash) = aside(permit, move |permit| permit.hash(&new))?;
        match self.store.change_password(user.clone(), hash, revision) {
            Err(StoreError::Changed { .. } | StoreError::Unknown { .. }) => Err(wrong()),
            done => done.map_err(storage_failed),
        }
    }

    /// Makes an account; gives its name and revision.
    pub fn register(&self, username: &Text, password: &Text, token: Option<&Text>) -> Result<(Username, u64), Denied> {
        self.may_register(token)?;
        let name = Username::new(username.as_str()).map_err(|error| denied(Reason::Malformed, error.to_string()))?;
        let password = new_password(password, self.rules.password_minimum)?;
        let (_, hash) = aside(self.permit()?, move |permit| permit.hash(&password))?;
        match self.store.register(name.clone(), hash) {
            Err(StoreError::Taken { .. }) => Err(denied(Reason::Forbidden, format!("the name {name} is taken"))),
            done => done.map(|revision| (name, revision)).map_err(storage_failed),
        }
    }

    fn may_register(&self, token: Option<&Text>) -> Result<(), Denied> {
        let began = Instant::now();
        match &self.rules.registration {
            Registration::Open => Ok(()),
            Registration::Closed => Err(denied(Reason::Forbidden, "accounts are made by the operator of this server")),
            Registration::Token(file) => {
                let expected = read_token(file).map_err(|error| {
                    error!("accounts.token: {}: {error}", file.display());
                    denied(Reason::Storage, "the registration token cannot be read")
                })?;
                let given = token.map(Text::as_str).unwrap_or_default();
                if same(given.as_bytes(), expected.as_bytes()) && !expected.is_empty() {
                    return Ok(());
                }
                wait_until(began + FAILURE_TAKES);
                Err(denied(Reason::Forbidden, "registration needs the operator's token"))
            }
        }
    }

    fn permit(&self) -> Result<Permit, Denied> {
        let permit = self.permits.acquire(Instant::now() + PERMIT_WITHIN);
        permit.ok_or_else(|| denied(Reason::Busy, "too many logins at once (limits.hashingAtOnce); try again"))
    }

    /// Hashes exactly once, whether there is such an account or not. The permit comes back only with a proof.
    fn verify(&self, permit: Permit, name: Option<Username>, password: &Text) -> Result<(Permit, (Username, u64)), Denied> {
        // What is too long is nobody's password, so a short one is hashed in its place.
        let (password, possible) = match Password::new(password.as_str().to_owned()) {
            Ok(password) => (password, true),
            Err(_) => (Password::new(String::new()).map_err(hashing_failed)?, false),
        };
        let account = match &name {
            Some(name) => self.store.account(name).map_err(storage_failed)?,
            None => None,
        };
        match (name, account) {
            (Some(name), Some(Account { password: hash, disabled, revision, .. })) => {
                let (permit, right) = aside(permit, move |permit| permit.verify(&password, &hash))?;
                if right && possible && !disabled { Ok((permit, (name, revision))) } else { Err(wrong()) }
            }
            _ => {
                aside(permit, move |permit| permit.verify_unknown(&password))?;
                Err(wrong())
            }
        }
    }
}

/// Hashes on a thread that ends with it. Its stack is deep, and what was touched of a stack stays resident: on the
/// connection's own thread it would be kept for each idle connection (8 KiB of 28).
fn aside<T, F>(mut permit: Permit, work: F) -> Result<(Permit, T), Denied>
where
    T: Send + 'static,
    F: FnOnce(&mut Permit) -> Result<T, PasswordError> + Send + 'static,
{
    let body = move || {
        let result = work(&mut permit);
        (permit, result)
    };
    let busy = |what: &str| denied(Reason::Busy, format!("the server has no {what} left to check passwords; try again"));
    let thread = crate::thread::spawn("hash", HASHING_STACK_BYTES, body).map_err(|_| busy("thread"))?;
    let (permit, result) = thread.join().map_err(|_| denied(Reason::Internal, "the password could not be checked"))?;
    Ok((permit, result.map_err(hashing_failed)?))
}

fn new_password(text: &Text, minimum: usize) -> Result<Password, Denied> {
    let password = Password::new(text.as_str().to_owned());
    let checked = password.and_then(|password| password.check_new(minimum).map(|()| password));
    checked.map_err(|error| denied(Reason::Malformed, error.to_string()))
}

fn hashing_failed(error: PasswordError) -> Denied {
    warn!("a password could not be hashed: {error}");
    denied(Reason::Busy, "the server has no memory left to check passwords; try again")
}

fn storage_failed(error: StoreError) -> Denied {
    match error {
        StoreError::Busy => denied(Reason::Busy, "the accounts are busy; try again"),
        StoreError::Stopped => denied(Reason::Draining, "this server is stopping"),
        error => {
            error!("accounts: {}", error.with_causes());
            denied(Reason::Storage, "the accounts cannot be used at the moment")
        }
    }
}

fn read_token(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Compares without telling by its time how much is the same; the lengths may be told.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b))) == 0
}

fn wait_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}
