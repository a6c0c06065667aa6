//! The log: lines on standard error, with a level for each room.
//!
//! What the levels promise: `error` is for the operator to act on, `warn` says that something was refused, dropped or
//! started again, `info` tells of starts, stops and logins, of connections that the server ended and of what handlers
//! print, `debug` has a line for each connection. Passwords and message data are in none of them.
//!
//! Lines are written by a thread of their own: nobody who logs ever waits for whoever reads standard error. Spawned by
//! [`start`]; owns standard error; waits on the channel of lines; ends when [`Log::finish`] says so.

use crossbeam_channel::{Receiver, Sender, TrySendError};
use log::LevelFilter;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines that wait to be written; more are dropped and counted.
const LINES_MAX: usize = 4096;
/// How long the last lines may take.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 128 << 10;

/// What a [`Quota`] lets through.
const LINES_A_SECOND: u32 = 100;

/// The room whose level is that of all others that have none.
pub const ALL: &str = "all";

enum Item {
    Line(Vec<u8>),
    Last,
}

/// The running log.
#[derive(Debug)]
pub struct Log {
    items: Sender<Item>,
    thread: JoinHandle<()>,
}

/// Starts the log. `levels` are by room: the name of a module of this crate.
pub fn start(levels: &BTreeMap<String, LevelFilter>) -> io::Result<Log> {
    let (items, incoming) = crossbeam_channel::bounded(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let thread = crate::thread::spawn("log", STACK_BYTES, move || write(&incoming, &counted))?;
    let mut builder = env_logger::Builder::new();
    builder.filter_level(levels.get(ALL).copied().unwrap_or(LevelFilter::Info));
    for (room, level) in levels.iter().filter(|(room, _)| *room != ALL) {
        builder.filter_module(&format!("bester::{room}"), *level);
    }
    builder.format(|line, record| {
        let target = record.target();
        let room = target.strip_prefix("bester::").unwrap_or(target).split("::").next().unwrap_or(target);
        writeln!(line, "{} {:<5} {room}: {}", line.timestamp_millis(), record.level(), record.args())
    });
    builder.target(env_logger::Target::Pipe(Box::new(Lines { items: items.clone(), dropped })));
    let logger = builder.build();
    let level = logger.filter();
    // There is one already where several servers run in one process, in tests; then that one is used.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    Ok(Log { items, thread })
}

impl Log {
    /// Writes what is there, and waits for it, but not for ever.
    pub fn finish(self) {
        log::logger().flush();
        if self.items.send_timeout(Item::Last, FINISH_WITHIN).is_ok() {
            // Whoever reads standard error may be stuck; then the last lines are lost.
            let (done, finished) = crossbeam_channel::bounded::<()>(0);
            let join = move || {
                let _done = done;
                let _ = self.thread.join();
            };
            if crate::thread::spawn("log end", STACK_BYTES, join).is_ok() {
                let _ = finished.recv_timeout(FINISH_WITHIN);
            }
        }
    }
}

/// For what others can cause as often as they like: so many lines in a second, and the number of those that are left
/// out.
#[derive(Debug, Default)]
pub struct Quota {
    second: Option<Instant>,
    shown: u32,
    left_out: u64,
}

impl Quota {
    /// Gives the line to `log` unless there were too many in this second.
    pub fn line(&mut self, now: Instant, line: impl FnOnce() -> String, log: &mut impl FnMut(&str)) {
        if self.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1)) {
            self.end(&mut *log);
            self.second = Some(now);
            self.shown = 0;
        }
        if self.shown < LINES_A_SECOND {
            self.shown += 1;
            log(&line());
        } else {
            self.left_out += 1;
        }
    }

    /// Tells how many lines were left out, if there are any of which it was not yet told.
    pub fn end(&mut self, mut log: impl FnMut(&str)) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            log(&format!("({left_out} more lines are not shown: more than {LINES_A_SECOND} a second)"));
        }
    }
}

/// Hands over each line; it is written in one piece.
struct Lines {
    items: Sender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.items.try_send(Item::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(items: &Receiver<Item>, dropped: &AtomicU64) {
    let mut out = io::stderr().lock();
    for item in items {
        let Item::Line(line) = item else { return };
        // Nobody is left to be told if this fails.
        let _ = out.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "({lost} lines of the log were dropped: standard error is read too slowly)");
        }
    }
}
