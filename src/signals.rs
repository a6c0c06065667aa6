//! SIGTERM and SIGINT become messages on a channel.
//!
//! Spawned by `server.rs`; the thread waits for signals; it ends with [`Signals::stop`].

use crossbeam_channel::Receiver;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{self, Handle};
use std::io;
use std::thread::JoinHandle;

const STACK_BYTES: usize = 64 << 10;
/// The first has the server stop, the second has it hurry; more say nothing new.
const ORDERS_MAX: usize = 2;

/// The thread that waits for signals.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Signals {
    /// Starts to wait. Each message on the channel is one order to stop.
    pub fn start() -> io::Result<(Signals, Receiver<()>)> {
        let mut signals = iterator::Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        let (orders, incoming) = crossbeam_channel::bounded(ORDERS_MAX);
        let body = move || {
            for _ in signals.forever() {
                let _ = orders.try_send(()); // full is two orders already
            }
        };
        let thread = crate::thread::spawn("signals", STACK_BYTES, body)?;
        Ok((Signals { handle, thread }, incoming))
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.handle.close();
        let _ = self.thread.join(); // its panic is in the log
    }
}
