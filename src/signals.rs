//! SIGTERM, SIGINT and SIGHUP become messages on channels.
//!
//! Spawned by `server.rs`; the thread waits for signals; it ends with [`Signals::stop`].

use crossbeam_channel::Receiver;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{self, Handle};
use std::io;
use std::thread::JoinHandle;

const STACK_BYTES: usize = 64 << 10;
/// The first has the server stop, the second has it hurry; more say nothing new.
const STOPS_MAX: usize = 2;

/// The thread that waits for signals.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// What signals order.
#[derive(Debug)]
pub struct Orders {
    /// SIGTERM or SIGINT: each message is one order to stop.
    pub stop: Receiver<()>,
    /// SIGHUP: to read the configuration again.
    pub reload: Receiver<()>,
}

impl Signals {
    /// For a command in the foreground: it can be told to stop.
    pub fn of_command() -> io::Result<(Signals, Receiver<()>)> {
        let (signals, orders) = Signals::wait_for(&[SIGTERM, SIGINT])?;
        Ok((signals, orders.stop))
    }

    /// For a server, which can be told to read its configuration again as well.
    pub fn of_server() -> io::Result<(Signals, Orders)> {
        Signals::wait_for(&[SIGTERM, SIGINT, SIGHUP])
    }

    fn wait_for(signals: &[i32]) -> io::Result<(Signals, Orders)> {
        let mut signals = iterator::Signals::new(signals)?;
        let handle = signals.handle();
        let (stop, stops) = crossbeam_channel::bounded(STOPS_MAX);
        let (reload, reloads) = crossbeam_channel::bounded(1);
        let body = move || {
            for signal in signals.forever() {
                let orders = if signal == SIGHUP { &reload } else { &stop };
                let _ = orders.try_send(()); // full is the same order already
            }
        };
        let thread = crate::thread::spawn("signals", STACK_BYTES, body)?;
        Ok((Signals { handle, thread }, Orders { stop: stops, reload: reloads }))
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.handle.close();
        let _ = self.thread.join(); // its panic is in the log
    }
}
