//! Logs the users in, several at once: the server takes its time for each password, on purpose.

use super::plan::Plan;
use crate::cli::Failure;
use crate::client::{Client, LoginError};
use crate::password::Password;
use crossbeam_channel::{RecvTimeoutError, Sender};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// More at once would only wait in the server, which checks about as many as it has processors.
const AT_ONCE: usize = 8;
const STACK_BYTES: usize = 256 << 10;
/// How long connecting and logging in may take together, for one user.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A server that is busy is asked again, so often and after so long.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

/// The sessions, in the order of the plan's names; `progress` hears each second how many there are.
///
/// # Errors
/// As of a login in other commands: the first failure ends it all.
pub(super) fn log_in(plan: &Arc<Plan>, password: Password, mut progress: impl FnMut(usize)) -> Result<Vec<Client>, Failure> {
    let (results, incoming) = crossbeam_channel::bounded(AT_ONCE);
    let worker = Arc::new(Worker { plan: Arc::clone(plan), password, next: AtomicUsize::new(0) });
    let mut threads = Vec::new();
    for _ in 0..AT_ONCE.min(plan.names.len()) {
        let (worker, results) = (Arc::clone(&worker), results.clone());
        let thread = crate::thread::spawn("login", STACK_BYTES, move || worker.work(&results));
        threads.push(thread.map_err(|error| no_thread(&error))?);
    }
    drop(results);
    let mut clients: Vec<Option<Client>> = plan.names.iter().map(|_| None).collect();
    let (mut count, mut told) = (0, Instant::now());
    let mut failure = None;
    loop {
        match incoming.recv_timeout(SECOND) {
            Ok((index, Ok(client))) => {
                clients[index] = Some(client);
                count += 1;
            }
            Ok((_, Err(failed))) => {
                worker.next.store(plan.names.len(), Ordering::Relaxed);
                failure = failure.or(Some(failed));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if told.elapsed() >= SECOND {
            told = Instant::now();
            progress(count);
        }
    }
    for thread in threads {
        let _ = thread.join(); // its panic is in the log, and its sessions are missing below
    }
    let clients: Option<Vec<Client>> = clients.into_iter().collect();
    match (failure, clients) {
        (None, Some(clients)) => Ok(clients),
        (failure, _) => Err(failure.unwrap_or_else(|| Failure::software("a thread that logs in came to a bad end"))),
    }
}

pub(super) fn no_thread(error: &io::Error) -> Failure {
    Failure::unavailable(format_args!("the system gives no thread: {error}"))
}

struct Worker {
    plan: Arc<Plan>,
    password: Password,
    next: AtomicUsize,
}

impl Worker {
    fn work(&self, results: &Sender<(usize, Result<Client, Failure>)>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = self.plan.names.get(index) else { return };
            if results.send((index, self.log_in(name))).is_err() {
                return;
            }
        }
    }

    fn log_in(&self, name: &str) -> Result<Client, Failure> {
        let mut tries = 1;
        loop {
            let mut client = Client::connect_trusting(&self.plan.address, TIMEOUT, &self.plan.trust)?;
            match client.log_in(name, &self.password) {
                Ok(()) => return Ok(client),
                Err(LoginError::Refused(report)) if report.reason.as_deref() == Some("busy") && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    return Err(Failure { message: format!("{name}: {}", failure.message), ..failure });
                }
            }
        }
    }
}
