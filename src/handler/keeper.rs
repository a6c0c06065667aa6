//! The thread that keeps one handler running.
//!
//! Spawned by `server.rs` for each handler; owns the process, its standard error and the thread that reads its
//! answers; waits with mio for the process's death, for what it prints, and for orders; ends when the handler has
//! ended for good. The process dies with this thread, so the thread lives as long as the server.

use super::dialer::{Dialer, Dialing, UnderWay};
use super::process::{self, Channel, Process};
use super::running::{Ends, Running, Stopper};
use super::stderr::Lines;
use super::supervisor::{Action, Input, Supervisor};
use crate::config::{self, HandlerTransport};
use crate::connection::handler::{self, Complaint, End, Reading};
use crate::dispatcher::Event;
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::{Inbound, Link};
use crate::name::{Generation, RouteId, ServerName, TypeName};
use crate::outlet::{Bounds, Outlet, Total};
use crate::transport::{Sink, Source, pipe_ends, unix};
use crossbeam_channel::{Receiver, Sender};
use log::{info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ORDERS: Token = Token(0);
const DEATH: Token = Token(1);
const STDERR: Token = Token(2);
const STACK_BYTES: usize = 256 << 10;
/// Orders that wait; there are at most three for each start.
const ORDERS_MAX: usize = 64;
/// How often it is looked whether a program listens at its socket by now.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a keeper must know.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The handler's place in the routing map.
    pub route: RouteId,
    /// The type.
    pub kind: TypeName,
    /// Its block in the configuration.
    pub config: config::Handler,
    /// The server's name.
    pub server: ServerName,
    /// To the dispatcher.
    pub inbound: Inlet,
    /// All bounds.
    pub limits: config::Limits,
}

/// What a keeper may be told.
#[derive(Debug)]
enum Order {
    Replace(Generation, String),
    Closed(Generation),
    ReaderEnded(Generation, End),
    Stop,
    StopNow,
}

/// Orders for a keeper. None of its methods blocks.
#[derive(Debug, Clone)]
pub struct Handle {
    orders: Sender<Order>,
    waker: Arc<Waker>,
}

impl Handle {
    /// End this start of the handler, for it cannot be trusted any longer, and start it again.
    pub fn replace(&self, generation: Generation, reason: String) {
        self.order(Order::Replace(generation, reason));
    }

    /// This start of the handler takes no more requests: probably it is about to exit.
    pub fn closed(&self, generation: Generation) {
        self.order(Order::Closed(generation));
    }

    /// End the handler for good: ask it, then tell it, then kill it.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// End the handler for good, at once.
    pub fn stop_now(&self) {
        self.order(Order::StopNow);
    }

    fn order(&self, order: Order) {
        // It fails when the keeper is gone, and with it everything that could be ordered.
        let _ = self.orders.try_send(order);
        let _ = self.waker.wake();
    }
}

/// Starts the keeper of a handler, and so the handler.
pub fn keep(spec: Spec) -> io::Result<(Handle, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), ORDERS)?);
    let (orders, incoming) = crossbeam_channel::bounded(ORDERS_MAX);
    let handle = Handle { orders, waker };
    let name = format!("{} keeper", spec.kind);
    let mut keeper = Keeper {
        supervisor: Supervisor::new(Instant::now(), spec.config.stop),
        handle: handle.clone(),
        spec,
        poll,
        orders: incoming,
        generation: Generation(0),
        running: None,
        finished: false,
    };
    let thread = crate::thread::spawn(name, STACK_BYTES, move || keeper.run())?;
    Ok((handle, thread))
}

struct Keeper {
    spec: Spec,
    supervisor: Supervisor,
    handle: Handle,
    poll: Poll,
    orders: Receiver<Order>,
    generation: Generation,
    running: Option<Running>,
    finished: bool,
}

impl Keeper {
    fn run(&mut self) {
        let mut events = Events::with_capacity(4);
        let mut inputs = VecDeque::new();
        while !self.finished {
            let polled = self.poll.poll(&mut events, self.timeout());
            if let Some(error) = polled.err().filter(|error| error.kind() != io::ErrorKind::Interrupted) {
                warn!("handler {}: waiting: {error}", self.spec.kind);
            }
            if let Some(running) = &mut self.running {
                running.stderr_ready |= events.iter().any(|event| event.token() == STDERR);
                running.log_stderr(&self.spec.kind, false);
            }
            self.look_for_socket(&mut inputs);
            // Before the orders: how it died says more than what the dispatcher thought of it.
            self.look_for_death(&mut inputs);
            self.take_orders(&mut inputs);
            if self.running.as_ref().is_some_and(|running| running.answered.swap(false, Ordering::Relaxed)) {
                inputs.push_front(Input::Answered);
            }
            inputs.push_back(Input::Due);
            while let Some(input) = inputs.pop_front() {
                for action in self.supervisor.take(Instant::now(), input) {
                    self.carry_out(action, &mut inputs);
                }
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let due = self.supervisor.due().map(|due| due.saturating_duration_since(Instant::now()));
        let running = self.running.as_ref();
        let looking = running.filter(|running| running.reachable_until.is_some()).map(|_| LOOK_EVERY);
        let printing = running.filter(|running| running.stderr_ready).map(|_| Duration::ZERO);
        // mio rounds down to milliseconds, which would make the last one a busy wait.
        let due = due.map(|due| due + Duration::from_micros(999));
        [due, looking, printing].into_iter().flatten().min()
    }

    fn take_orders(&mut self, inputs: &mut VecDeque<Input>) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Replace(generation, reason) if generation == self.generation => inputs.push_back(Input::Replace(reason.into())),
                Order::Closed(generation) if generation == self.generation => inputs.push_back(Input::Closed("closed its input".into())),
                Order::ReaderEnded(generation, end) if generation == self.generation => {
                    inputs.push_back(match end {
                        End::Stray(complaint) => Input::Replace(complaint),
                        End::Input if self.has_process() => Input::Closed("closed its output".into()),
                        End::Input => Input::Died("closed its connection".into()),
                    });
                }
                Order::Replace(..) | Order::Closed(..) | Order::ReaderEnded(..) => {} // of a start that is over
                Order::Stop => inputs.push_back(Input::Stop),
                Order::StopNow => {
                    inputs.push_back(Input::Stop);
                    self.signal(Signal::KILL);
                }
            }
        }
    }

    fn has_process(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.process.is_some())
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.running.as_ref().and_then(|running| running.process.as_ref()) {
            process.signal(signal);
        }
    }

    /// A program that is to listen somewhere can be asked once it does.
    fn look_for_socket(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(running) = &mut self.running else { return };
        let Some(until) = running.reachable_until else { return };
        let HandlerTransport::Unix { path, persistent } = &self.spec.config.transport else { return };
        let ends = if *persistent { unix::connect(path, LOOK_EVERY).ok().map(Ends::of) } else { path.exists().then_some(Ends::PerMessage) };
        if let Some(ends) = ends {
            running.reachable_until = None;
            running.channel = Some(ends);
            inputs.push_back(Input::Reachable);
        } else if Instant::now() >= until {
            running.reachable_until = None;
            let words = format!("did not listen at its socket within {} s", self.spec.config.timeout.as_secs());
            inputs.push_back(Input::Replace(Complaint::with(words, path.display())));
        }
    }

    fn look_for_death(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(running) = &mut self.running else { return };
        let Some(words) = running.process.as_mut().and_then(Process::obituary) else { return };
        running.process = None;
        // First what it said before: an answer that was written counts, and speaks for it.
        let stray = running.end_reading();
        inputs.push_back(Input::Died(with_stray(words.into(), stray)));
    }

    fn carry_out(&mut self, action: Action, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Start => match self.start() {
                Ok(true) => inputs.push_back(Input::Reachable),
                Ok(false) => {}
                Err(complaint) => {
                    self.running = None;
                    inputs.push_back(Input::StartFailed(complaint));
                }
            },
            Action::TellUp => {
                if let Err(error) = self.attach() {
                    inputs.push_back(Input::Replace(Complaint::with("could not be attached", error)));
                }
            }
            Action::TellDown(words) => self.tell_down(words),
            Action::CloseInput => self.close_input(inputs),
            Action::Terminate if self.has_process() => self.signal(Signal::TERM),
            Action::Kill if self.has_process() => self.signal(Signal::KILL),
            // Somebody else's program is only left alone.
            Action::Terminate | Action::Kill => inputs.push_back(Input::Died("was left".into())),
            Action::Finish => {
                self.end_running();
                self.finished = true;
            }
        }
    }

    /// Starts the program; whether it can be asked at once.
    fn start(&mut self) -> Result<bool, Complaint> {
        self.end_running();
        self.generation = Generation(self.generation.0 + 1);
        let (config, kind) = (&self.spec.config, &self.spec.kind);
        let mut running = Running::default();
        let Some(program) = &config.program else {
            running.channel = Some(self.ends_elsewhere()?);
            self.running = Some(running);
            return Ok(true);
        };
        if let HandlerTransport::Unix { path, .. } = &config.transport {
            unix::remove_stale(path)
                .map_err(|error| Complaint::with("cannot use its socket", format_args!("{}: {error}", path.display())))?;
        }
        let started = process::start(program, &config.transport, kind, &self.spec.server, &config.informer_socket);
        let started = started.map_err(|error| Complaint::with("cannot be started", format_args!("{}: {error}", program.path.display())))?;
        self.watch(&started.process, &started.stderr).map_err(|error| Complaint::with("cannot be watched", error))?;
        running.channel = match started.channel {
            Channel::Pipes { stdin, stdout } => {
                let ends = pipe_ends(stdin, stdout).map_err(|error| Complaint::with("cannot be talked to", error))?;
                Some(Ends::Stream(Source::Pipe(ends.0), Sink::Pipe(ends.1), Stopper::Pipe(ends.2)))
            }
            Channel::Socket(stream) => Some(Ends::of(stream)),
            Channel::Elsewhere => {
                running.reachable_until = Some(Instant::now() + config.timeout);
                None
            }
        };
        info!("handler {kind} started: {}", program.path.display());
        running.stderr = Some((File::from(started.stderr), Lines::default()));
        running.process = Some(started.process);
        let reachable = running.channel.is_some();
        self.running = Some(running);
        Ok(reachable)
    }

    /// The connection to a program that somebody else runs.
    fn ends_elsewhere(&self) -> Result<Ends, Complaint> {
        match &self.spec.config.transport {
            HandlerTransport::Unix { path, persistent: true } => match unix::connect(path, self.spec.config.timeout) {
                Ok(stream) => Ok(Ends::of(stream)),
                Err(error) => Err(Complaint::with("cannot be reached", format_args!("{}: {error}", path.display()))),
            },
            _ => Ok(Ends::PerMessage),
        }
    }

    fn watch(&self, process: &Process, stderr: &OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(stderr, true)?;
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&process.pidfd().as_raw_fd()), DEATH, Interest::READABLE)?;
        registry.register(&mut SourceFd(&stderr.as_raw_fd()), STDERR, Interest::READABLE)
    }

    /// Makes this start known to the dispatcher; only then are answers read.
    fn attach(&mut self) -> io::Result<()> {
        let (route, generation) = (self.spec.route, self.generation);
        let Some(running) = &mut self.running else { return Ok(()) };
        let Some(ends) = running.channel.take() else { return Ok(()) };
        let reading = Reading {
            route,
            generation,
            framing: self.spec.config.framing,
            frame_bytes_max: self.spec.limits.frame_bytes_handler,
            depth_max: self.spec.limits.depth,
            recipients_max: self.spec.limits.recipients,
            inbound: self.spec.inbound.clone(),
            answered: Arc::clone(&running.answered),
        };
        let tell = |link| {
            let told = self.spec.inbound.send(Inbound::AttachHandler(route, generation, link));
            told.and_then(|()| self.spec.inbound.send(Inbound::One(Event::HandlerUp(route, generation))))
                .map_err(|_| io::Error::other("the server is at its end"))
        };
        match ends {
            Ends::Stream(source, sink, stopper) => {
                // Requests under way, and as many outcomes.
                let bounds = Bounds { bytes: usize::MAX, frames: 2 * self.spec.config.in_flight };
                let outlet = Arc::new(Outlet::new(sink, bounds, Total::new(usize::MAX)));
                running.outlet = Some(Arc::clone(&outlet));
                running.stopper = stopper;
                tell(Link::Stream(outlet))?;
                let handle = self.handle.clone();
                let body = move || {
                    let end = handler::read_answers(&reading, source);
                    handle.order(Order::ReaderEnded(generation, end.clone()));
                    end
                };
                running.reader = Some(crate::thread::spawn(format!("{} reader", self.spec.kind), handler::STACK_BYTES, body)?);
            }
            Ends::PerMessage => {
                let HandlerTransport::Unix { path, .. } = &self.spec.config.transport else { return Ok(()) };
                let dialing = Arc::new(Dialing {
                    kind: self.spec.kind.to_string(),
                    path: path.clone(),
                    reading,
                    timeout: self.spec.config.timeout,
                    threads_max: self.spec.config.in_flight,
                    under_way: UnderWay::default(),
                });
                let dialer = Dialer::start(Arc::clone(&dialing))?;
                running.stopper = Stopper::Dialing(dialing);
                tell(Link::PerMessage(Box::new(dialer)))?;
            }
        }
        Ok(())
    }

    fn tell_down(&mut self, complaint: Complaint) {
        // First what it said before: an answer that was written counts.
        let stray = self.running.as_mut().and_then(Running::end_reading);
        let Complaint { told, logged } = with_stray(complaint, stray);
        let down = Event::HandlerDown { route: self.spec.route, generation: self.generation, reason: told };
        let _ = self.spec.inbound.send(Inbound::One(down)); // nobody listens at the end of the server
        let next = if self.supervisor.is_stopping() { "" } else { "; it will be started again" };
        warn!("handler {} {logged}{next}", self.spec.kind);
    }

    fn close_input(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(running) = &mut self.running else { return };
        if let Some(outlet) = &running.outlet {
            outlet.finish();
        }
        if running.process.is_none() {
            inputs.push_back(Input::Died("was left".into()));
        } else if matches!(self.spec.config.transport, HandlerTransport::Unix { .. }) {
            // Whoever listens on a socket of his own does not learn from it that nothing more comes.
            self.signal(Signal::TERM);
        }
    }

    fn end_running(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.end_reading();
        running.log_stderr(&self.spec.kind, true);
        let (ours, transport) = (self.spec.config.program.is_some(), &self.spec.config.transport);
        if let (true, HandlerTransport::Unix { path, .. }) = (ours, transport) {
            // The program may have removed it, and somebody else may listen there by now.
            let _ = unix::remove_stale(path);
        }
    }
}

/// Why it is down, with what it wrote that was no frame, if that is not said already.
fn with_stray(complaint: Complaint, stray: Option<Complaint>) -> Complaint {
    match stray {
        Some(stray) if !complaint.told.contains(&stray.told) => {
            Complaint { told: format!("{} ({})", complaint.told, stray.told), logged: format!("{} ({})", complaint.logged, stray.logged) }
        }
        _ => complaint,
    }
}
