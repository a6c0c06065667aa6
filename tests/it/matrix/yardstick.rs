//! How long this machine lets a process wait at its worst: on one that is busy with other things, a bound on how long
//! something takes says nothing without it.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// From a test through the server to a handler and back there are so many turns to wait for.
const TURNS: u32 = 4;

/// A program that does nothing but send back what it gets, asked again and again.
pub struct Yardstick {
    program: Mutex<Child>,
    state: Mutex<State>,
}

struct State {
    asked: Instant,
    longest: Duration,
}

impl Yardstick {
    pub fn new() -> Yardstick {
        let program = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat runs");
        Yardstick { program: Mutex::new(program), state: Mutex::new(State { asked: Instant::now(), longest: Duration::ZERO }) }
    }

    /// Asks once.
    pub fn measures(&self) {
        let mut program = self.program.lock().expect("nobody else");
        self.state.lock().expect("the state").asked = Instant::now();
        program.stdin.as_mut().expect("a pipe").write_all(b"x").expect("it reads");
        program.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it answers");
        let mut state = self.state.lock().expect("the state");
        state.longest = state.longest.max(state.asked.elapsed());
        drop(state);
        std::thread::park_timeout(Duration::from_millis(10));
    }

    /// What is to be allowed beyond what something may take.
    pub fn slack(&self) -> Duration {
        let state = self.state.lock().expect("the state");
        // It may be waiting just now.
        TURNS * state.longest.max(state.asked.elapsed())
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        let program = self.program.get_mut().expect("nobody else");
        let _ = program.kill();
        let _ = program.wait();
    }
}
