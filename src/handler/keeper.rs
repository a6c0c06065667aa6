//! The thread that keeps one instance of a handler running.
//!
//! Spawned by the roster for each instance, and again for each replacement; owns the process, its standard error and the
//! thread that reads its answers; waits with mio for the process's death, for what it prints, and for orders; ends when
//! the handler has ended for good. The process dies with this thread, so the thread lives as long as the process.

use super::dialer::{Dialer, Dialing, UnderWay};
use super::not_started::is_shortage;
use super::orders::{Handle, Minding, Order};
use super::process::{self, Birth, Channel, LOOK_EVERY, Process};
use super::record::{Death, Record};
use super::running::{Ends, Running, Stopper};
use super::stderr::Lines;
use super::supervisor::{Action, DEATHS_MAX, DEATHS_WITHIN, Input, Next, Supervisor};
use crate::config::{self, HandlerTransport};
use crate::connection::allowance::Allowance;
use crate::connection::handler::{self, Complaint, End, Reading};
use crate::dispatcher::inlet::Inlet;
use crate::dispatcher::run::{Inbound, Link};
use crate::dispatcher::{Event, Form};
use crate::name::{HandlerId, RouteId, ServerName, StartId, StartIds, TypeName};
use crate::outlet::{Bounds, Outlet, Total};
use crate::transport::{Sink, Source, pipe_ends, unix};
use crossbeam_channel::{Receiver, Sender};
use log::{error, info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ORDERS: Token = Token(0);
const DEATH: Token = Token(1);
const STDERR: Token = Token(2);
const STACK_BYTES: usize = 256 << 10;
/// Orders that wait; there are at most three for each start, and a few for its end.
const ORDERS_MAX: usize = 64;
/// The exit code by which a program says that starting it again would change nothing, as with s6.
const DO_NOT_RESTART: i32 = 125;

/// What a keeper must know.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    /// The handler's place in the routing map.
    pub(super) route: RouteId,
    /// Which of the type's instances it is.
    pub(super) instance: usize,
    /// The type.
    pub(super) kind: TypeName,
    /// Its block in the configuration.
    pub(super) config: config::Handler,
    /// The server's name.
    pub(super) server: ServerName,
    /// To the dispatcher.
    pub(super) inbound: Inlet,
    /// All bounds.
    pub(super) limits: config::Limits,
    /// Numbers for starts.
    pub(super) starts: StartIds,
    /// What the handler may say without being asked, all its instances together.
    pub(super) pushes: Arc<Allowance>,
}

/// What becomes of a start that is to take another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trial {
    /// It can be asked, and the dispatcher knows.
    Up,
    /// It cannot be started, or died before it could be asked: why, in the words for its operator.
    Failed(String),
}

/// Starts the keeper of an instance; it starts the program at `first`. Where it is to take the place of another, `trial`
/// is told how its first start goes, and `record` goes on from the other's.
pub(super) fn keep(spec: Spec, first: Instant, record: Record, trial: Option<Sender<Trial>>) -> io::Result<(Handle, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), ORDERS)?);
    let (orders, incoming) = crossbeam_channel::bounded(ORDERS_MAX);
    let handle = Handle { orders, waker, record };
    let name = format!("{} keeper", spec.kind);
    let mut keeper = Keeper {
        supervisor: Supervisor::new(first, spec.config.stop, spec.config.program.is_some()),
        handle: handle.clone(),
        spec,
        poll,
        orders: incoming,
        start: StartId(0),
        trial,
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
    /// The current start.
    start: StartId,
    /// Who waits to learn how the first start goes.
    trial: Option<Sender<Trial>>,
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
            self.look_whether_reachable(&mut inputs);
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
                self.handle.record.is(self.supervisor.state());
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
                Order::Replace(start, reason) if start == self.start => inputs.push_back(Input::Replace(reason.into())),
                Order::Closed(start) if start == self.start => inputs.push_back(Input::Closed("closed its input".into())),
                Order::ReaderEnded(start, end) if start == self.start => {
                    inputs.push_back(match end {
                        End::Stray(complaint) => Input::Replace(complaint),
                        End::Amid(complaint) if self.has_process() => Input::Closed(complaint),
                        End::Amid(complaint) => Input::Died { why: complaint, not_again: false },
                        End::Input if self.has_process() => Input::Closed("closed its output".into()),
                        End::Input => died("closed its connection"),
                    });
                }
                Order::Replace(..) | Order::Closed(..) | Order::ReaderEnded(..) => {} // of a start that is over
                Order::Hold => inputs.push_back(Input::Hold),
                Order::Resume => inputs.push_back(Input::Resume),
                Order::Leave => inputs.push_back(Input::Leave),
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

    /// A program that is to listen somewhere can be asked once it does; one that is to take another's place, once it
    /// has started up.
    fn look_whether_reachable(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(running) = &mut self.running else { return };
        let Some(until) = running.reachable_until else { return };
        let now = Instant::now();
        let late = now >= until;
        if running.channel.is_some() {
            // It may have much to load: meanwhile the other one answers. How long it may take is for it to say; it is
            // asked in the end, whatever it does.
            if late || running.process.as_mut().is_none_or(|process| process.rests(now)) {
                running.reachable_until = None;
                inputs.push_back(Input::Reachable);
            }
            return;
        }
        let HandlerTransport::Unix { path, persistent } = &self.spec.config.transport else { return };
        let ours = self.spec.config.program.is_some();
        if let Ok((listening, ends)) = Ends::find(path, *persistent, ours, LOOK_EVERY) {
            running.reachable_until = None;
            running.listening = listening;
            running.channel = Some(ends);
            inputs.push_back(Input::Reachable);
        } else if late {
            running.reachable_until = None;
            let what = if ours { "listen at" } else { "accept a connection to" };
            let words = format!("did not {what} its socket within {} s", self.spec.config.timeout.as_secs());
            inputs.push_back(Input::Replace(Complaint::with(words, path.display())));
        }
    }

    fn look_for_death(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(running) = &mut self.running else { return };
        let Some(obituary) = running.process.as_mut().and_then(Process::obituary) else { return };
        running.process = None;
        // First what it said before: an answer that was written counts, and speaks for it.
        let stray = running.end_reading();
        let why = with_stray(obituary.words.into(), stray);
        inputs.push_back(Input::Died { why, not_again: obituary.code == Some(DO_NOT_RESTART) });
    }

    fn carry_out(&mut self, action: Action, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Start => match self.start() {
                Ok(true) => inputs.push_back(Input::Reachable),
                Ok(false) => {}
                Err(failure) => {
                    self.running = None;
                    inputs.push_back(failure);
                }
            },
            Action::TellUp => match self.attach() {
                Ok(()) => self.trial_ends(Trial::Up),
                Err(error) => inputs.push_back(Input::Replace(Complaint::with("could not be attached", error))),
            },
            Action::TellDown(why, next) => self.tell_down(why, &next),
            Action::CloseInput => self.close_input(inputs),
            Action::Terminate if self.has_process() => self.signal(Signal::TERM),
            Action::Kill if self.has_process() => self.signal(Signal::KILL),
            // Somebody else's program is only left alone.
            Action::Terminate | Action::Kill => inputs.push_back(died("was left")),
            Action::Finish => {
                self.end_running();
                self.finished = true;
            }
        }
    }

    /// Starts the program; whether it can be asked at once.
    fn start(&mut self) -> Result<bool, Input> {
        let failed = |told: &str, detail: String, error: io::Error| Input::StartFailed {
            why: Complaint::with(told, format_args!("{detail}{error}")),
            shortage: is_shortage(&error),
        };
        self.end_running();
        self.start = self.spec.starts.next();
        let (config, kind) = (&self.spec.config, &self.spec.kind);
        let mut running = Running::default();
        let Some(program) = &config.program else {
            running.channel = self.ends_elsewhere()?;
            let reachable = running.channel.is_some();
            running.reachable_until = (!reachable).then(|| Instant::now() + config.timeout);
            self.running = Some(running);
            return Ok(reachable);
        };
        if let HandlerTransport::Unix { path, .. } = &config.transport {
            // The one whose place this is to take listens there still, and is reached all the same.
            let made_free = if self.trial.is_some() { unix::remove(path) } else { unix::remove_stale(path) };
            made_free.map_err(|error| failed("cannot use its socket", format!("{}: ", path.display()), error))?;
        }
        let birth = Birth { handler: config, kind, server: &self.spec.server, instance: self.spec.instance };
        let started = process::start(&birth)
            .map_err(|error| Input::StartFailed { shortage: error.is_shortage(), why: Complaint::with("cannot be started", error) })?;
        self.watch(&started.process, &started.stderr).map_err(|error| failed("cannot be watched", String::new(), error))?;
        running.channel = match started.channel {
            Channel::Pipes { stdin, stdout } => {
                let ends = pipe_ends(stdin, stdout).map_err(|error| failed("cannot be talked to", String::new(), error))?;
                Some(Ends::Stream(Source::Pipe(ends.0), Sink::Pipe(ends.1), Stopper::Pipe(ends.2)))
            }
            Channel::Socket(stream) => Some(Ends::of(stream)),
            Channel::Elsewhere => None,
        };
        let reachable = running.channel.is_some() && self.trial.is_none();
        if !reachable {
            running.reachable_until = Some(Instant::now() + config.timeout);
        }
        info!("handler {kind} started: {}", program.path.display());
        self.handle.record.started(started.process.pid());
        running.stderr = Some((File::from(started.stderr), Lines::default()));
        running.process = Some(started.process);
        self.running = Some(running);
        Ok(reachable)
    }

    /// The connection to a program that somebody else runs; none while that one accepts nothing. It is looked at again and
    /// again, and not waited for: orders are heard meanwhile.
    fn ends_elsewhere(&self) -> Result<Option<Ends>, Input> {
        let HandlerTransport::Unix { path, persistent: true } = &self.spec.config.transport else {
            return Ok(Some(Ends::PerMessage(None)));
        };
        match unix::connect(path, LOOK_EVERY) {
            Ok(stream) => Ok(Some(Ends::of(stream))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => {
                let why = Complaint::with("cannot be reached", format_args!("{}: {error}", path.display()));
                Err(Input::StartFailed { why, shortage: false })
            }
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
        let config = &self.spec.config;
        let id = HandlerId { route: self.spec.route, instance: self.spec.instance as u32, start: self.start };
        let Some(running) = &mut self.running else { return Ok(()) };
        let Some(ends) = running.channel.take() else { return Ok(()) };
        let form = Form {
            envelope: config.envelope,
            per_message: matches!(ends, Ends::PerMessage(_)),
            framing: config.framing,
            in_flight: config.in_flight,
            timeout: config.timeout,
        };
        let (calm, hurry) = crossbeam_channel::bounded(0);
        let asked = Arc::new(AtomicUsize::new(0));
        let reading = Reading {
            id,
            framing: config.framing,
            asked: (!form.envelope).then(|| Arc::clone(&asked)),
            pushes: form.envelope.then(|| Arc::clone(&self.spec.pushes)),
            hurry,
            frame_bytes_max: self.spec.limits.frame_bytes_handler,
            depth_max: self.spec.limits.depth,
            recipients_max: self.spec.limits.recipients,
            inbound: self.spec.inbound.clone(),
            answered: Arc::clone(&running.answered),
        };
        running.calm = Some(calm);
        self.handle.record.answers(Arc::clone(&running.answered));
        let tell = |link| {
            let minder = Box::new(Minding { handle: self.handle.clone(), start: id.start });
            let told = self.spec.inbound.send(Inbound::AttachHandler(id.start, link, minder));
            told.and_then(|()| self.spec.inbound.send(Inbound::One(Event::HandlerUp(id, form))))
                .map_err(|_| io::Error::other("the server is at its end"))
        };
        match ends {
            Ends::Stream(source, sink, stopper) => {
                // Requests under way, and as many outcomes; of what it says unasked, as many as may come at once.
                let outcomes = if form.envelope { self.spec.limits.push_burst } else { 0 };
                let bounds = Bounds { bytes: usize::MAX, frames: 2 * form.in_flight + outcomes };
                let outlet = Arc::new(Outlet::new(sink, bounds, Total::new(usize::MAX)));
                running.outlet = Some(Arc::clone(&outlet));
                running.stopper = stopper;
                tell(Link::Stream(outlet, asked))?;
                let handle = self.handle.clone();
                let body = move || {
                    let end = handler::read_answers(&reading, source);
                    handle.order(Order::ReaderEnded(id.start, end.clone()));
                    end
                };
                running.reader = Some(crate::thread::spawn(format!("{} reader", self.spec.kind), handler::STACK_BYTES, body)?);
            }
            Ends::PerMessage(listening) => {
                let HandlerTransport::Unix { path, .. } = &self.spec.config.transport else { return Ok(()) };
                let dialing = Arc::new(Dialing {
                    kind: self.spec.kind.to_string(),
                    path: path.clone(),
                    listening,
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

    fn tell_down(&mut self, why: Complaint, next: &Next) {
        let kind = &self.spec.kind;
        // First what it said before: an answer that was written counts.
        let stray = self.running.as_mut().and_then(Running::end_reading);
        let Complaint { told, logged } = with_stray(why, stray);
        let last_words = self.running.as_mut().map(|running| running.last_words(kind)).unwrap_or_default();
        let printed = last_words.last().map(|line| format!(" (it printed last: {line})")).unwrap_or_default();
        if *next != Next::Ends {
            self.handle.record.died(Death::now(logged.clone(), last_words));
        }
        if self.trial.is_some() {
            // The dispatcher has not heard of it, and the one whose place it should have taken still counts.
            warn!("handler {kind} {logged}{printed}; it was to take the place of another");
            return self.trial_ends(Trial::Failed(format!("{logged}{printed}")));
        }
        let (times, within) = (DEATHS_MAX, DEATHS_WITHIN.as_secs());
        let for_good = match next {
            Next::StartsIn(_) | Next::Held | Next::Ends => None,
            Next::AskedNotTo => Some(format!("it {told}, which says not to start it again until its operator does")),
            Next::Broken => Some(format!("it is broken until its operator starts it again (it died {times} times, and {told} last)")),
        };
        let id = HandlerId { route: self.spec.route, instance: self.spec.instance as u32, start: self.start };
        // Nobody listens at the end of the server. Before it stands in the log: whoever reads that it is down finds it so.
        let _ = self.spec.inbound.send(Inbound::One(Event::HandlerDown { id, reason: told, for_good }));
        let again = format!("bester handler restart {kind}");
        match next {
            Next::Ends => info!("handler {kind} has ended: {logged}"),
            Next::Held => warn!("handler {kind} {logged}{printed}"),
            Next::StartsIn(delay) => warn!("handler {kind} {logged}{printed}; it will be started again in {} s", delay.as_secs()),
            Next::AskedNotTo => error!("handler {kind} {logged}{printed}; that says not to start it again; this does: {again}"),
            Next::Broken => error!(
                "handler {kind} {logged}{printed}; it is broken, for it died {times} times within {within} s without a good answer: \
                 its messages are refused until: {again}"
            ),
        }
    }

    fn trial_ends(&mut self, how: Trial) {
        if let Some(trial) = self.trial.take() {
            let _ = trial.try_send(how); // whoever waited may have gone
        }
    }

    fn close_input(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(running) = &mut self.running else { return };
        if let Some(outlet) = &running.outlet {
            outlet.finish();
        }
        if running.process.is_none() {
            inputs.push_back(died("was left"));
        } else if matches!(self.spec.config.transport, HandlerTransport::Unix { .. }) {
            // Whoever listens on a socket of his own does not learn from it that nothing more comes.
            self.signal(Signal::TERM);
        }
    }

    fn end_running(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.end_reading();
        running.log_stderr(&self.spec.kind, true);
        if let (Some(_), HandlerTransport::Unix { path, .. }) = (&self.spec.config.program, &self.spec.config.transport) {
            // Whoever has taken its place may listen there by now, and may not bear a connection that asks nothing.
            match running.listening {
                Some(listening) => listening.remove(path),
                None => _ = unix::remove_stale(path),
            }
        }
    }
}

fn died(words: &str) -> Input {
    Input::Died { why: words.into(), not_again: false }
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
