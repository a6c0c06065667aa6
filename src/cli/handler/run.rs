//! `bester handler run`: a handler's program, without a server.
//!
//! Here is who asks, `run/judge.rs` is who judges; `run/threads.rs` has what waits for the handler, `run/informer.rs` the stand-in for its
//! informer, `run/words.rs` what a server would do.

mod informer;
mod judge;
mod threads;
mod words;

use crate::cli::{Failure, OutputEnd, output};
use crate::config::{self, Config, HandlerTransport};
use crate::frame::{Frame, Packet, Slice};
use crate::handler::by_hand::{self, ByHand, Ends, on_one_line};
use crate::name::{TypeName, Username};
use crate::protocol::handler::{self, Enveloped, Outcome, Speaker, WrongAnswer};
use crate::protocol::json::{Broken, Scanner};
use crate::protocol::report::MessageId;
use crate::signals::Signals;
use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use informer::{Knows, StandIn};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};
use threads::{Call, Line};

/// The number of the only session that there is.
const SESSION: u64 = 1;
/// Events that wait; whoever has the next one waits.
const EVENTS_MAX: usize = 64;
/// From the end of a program's connections to its own.
const DEATH_WITHIN: Duration = Duration::from_millis(500);
/// For what was written, or printed, before the end.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// What happens to a run.
enum Event {
    /// The handler wrote a frame.
    Frame(Frame, Instant),
    /// The handler wrote what is no frame.
    Stray(String),
    /// The handler closed its output.
    OutputEnd,
    /// What came for this message on its own connection.
    Answered(u64, Result<Frame, String>, Instant),
    /// The handler spoke through the informer.
    Pushed(Frame, Result<Outcome, WrongAnswer>),
    /// The program has ended.
    Died,
}

/// Carries out `bester handler run`.
pub(super) fn run(config: &Config, kind: &str, user: &Username, frames: bool) -> Result<(), Failure> {
    let Some((kind, handler)) = config.handlers.get_key_value(kind.as_bytes()) else {
        let types: Vec<&str> = config.handlers.keys().map(TypeName::as_str).collect();
        let types = if types.is_empty() { "no type has one".to_owned() } else { format!("these types have one: {}", types.join(", ")) };
        return Err(Failure::usage(format_args!("no handler is configured for the type {kind:?}; {types}")));
    };
    let (events, happened) = bounded(EVENTS_MAX);
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::unavailable(format_args!("{what}: {error}"));
    let knows = Knows {
        user: user.clone(),
        admin_info: config.admin_info.clone(),
        frame_bytes_max: config.limits.frame_bytes_handler,
        depth_max: config.limits.depth,
        recipients_max: config.limits.recipients,
        offline: handler.offline,
        events: events.clone(),
        pushes: Default::default(),
    };
    let stand_in = StandIn::start(knows).map_err(|error| failed("the stand-in for the informer", &error))?;
    let program = by_hand::start(handler, kind, &config.server.name, &stand_in.path());
    let mut program = program.map_err(|words| Failure::unavailable(format_args!("handler {kind} {words}")))?;
    let printed = program.stderr.take().map(|stderr| threads::stderr(kind.as_str(), stderr)).transpose();
    let printed = printed.map_err(|error| failed("no thread", &error))?;
    // Told to stop, it ends the handler as well as at the end of its input.
    let (_signals, stop) = Signals::of_command().map_err(|error| failed("signals", &error))?;
    let mut run = Run {
        config,
        handler,
        kind,
        user,
        frames,
        prefix: format!("{}/run-", config.server.name),
        program,
        events,
        stop,
        to_handler: None,
        number: 0,
        under_way: VecDeque::new(),
        late: BTreeMap::new(),
        times: Vec::new(),
        wrong: 0,
        no_json: 0,
        obituary: None,
        died: None,
        output_ended: false,
        closed: false,
        over: None,
    };
    let ended = output(|out| {
        let lines = run.start().map_err(|error| failed("the handler cannot be talked to", &error))?;
        run.ask(out, &lines, &happened)?;
        run.end(out, &happened)?;
        run.summary(out)
    });
    if let Some(printed) = printed {
        let _ = printed.recv_timeout(REST_WITHIN); // it closes when all is printed
    }
    ended?;
    run.verdict()
}

struct Run<'c> {
    config: &'c Config,
    handler: &'c config::Handler,
    kind: &'c TypeName,
    user: &'c Username,
    frames: bool,
    /// What all message ids begin with.
    prefix: String,
    program: ByHand,
    events: Sender<Event>,
    /// Whoever runs it wants it to end.
    stop: Receiver<()>,
    /// To the thread that writes; none where each message has a connection of its own, or when nothing more comes.
    to_handler: Option<Sender<Packet>>,
    /// Of the last message.
    number: u64,
    /// The oldest first.
    under_way: VecDeque<Asked>,
    /// When those were sent that were not answered in time.
    late: BTreeMap<u64, Instant>,
    /// What good answers took.
    times: Vec<Duration>,
    wrong: u64,
    /// Lines of the input that are no data.
    no_json: u64,
    /// How the program ended.
    obituary: Option<String>,
    /// When that was seen.
    died: Option<Instant>,
    output_ended: bool,
    /// The handler has been told to end.
    closed: bool,
    /// Why nothing more can be asked.
    over: Option<Over>,
}

/// Why nothing more can be asked.
#[derive(Clone)]
enum Over {
    /// The program has ended on its own; how.
    Died(String),
    /// A server would have ended the handler; why.
    Ended(String),
}

struct Asked {
    number: u64,
    sent: Instant,
}

type Shown = Result<(), OutputEnd>;

impl Run<'_> {
    /// Starts the threads; what comes on the input.
    fn start(&mut self) -> std::io::Result<Receiver<Line>> {
        let limits = &self.config.limits;
        if let Some(death) = self.program.death()? {
            threads::death(death, self.events.clone())?;
        }
        let ends = std::mem::replace(&mut self.program.ends, Ends::PerMessage(Default::default()));
        match ends {
            Ends::Stream { source, sink } => {
                // Messages under way, and as many reports on answers.
                let (packets, incoming) = bounded(2 * self.handler.in_flight);
                threads::answers(source, self.handler.framing, limits.frame_bytes_handler, self.events.clone())?;
                threads::writer(sink, incoming)?;
                self.to_handler = Some(packets);
            }
            per_message @ Ends::PerMessage(_) => self.program.ends = per_message,
        }
        let (lines, incoming) = bounded(1);
        threads::input(lines, limits.frame_bytes)?;
        Ok(incoming)
    }

    /// Asks, until there is nothing more to ask and all is answered, or it is over, or is to stop.
    fn ask(&mut self, out: &mut dyn Write, lines: &Receiver<Line>, happened: &Receiver<Event>) -> Shown {
        let none = never();
        let mut more = true;
        while self.over.is_none() && (more || !self.under_way.is_empty()) {
            let room = more && self.under_way.len() < self.handler.in_flight;
            let due = self.under_way.front().map(|asked| asked.sent + self.handler.timeout);
            let due = due.into_iter().chain(self.died.map(|died| died + REST_WITHIN)).min();
            let patience = due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()));
            select! {
                recv(if room { lines } else { &none }) -> line => match line {
                    Ok(Line::Text(number, bytes)) => self.request(out, number, &bytes)?,
                    Ok(Line::TooLong(most)) => {
                        let words = format_args!("a line of the input is longer than {most} bytes (limits.frameBytes)");
                        return Err(Failure::data(words).into());
                    }
                    Ok(Line::Failed(error)) => {
                        return Err(Failure::input_output(format_args!("cannot read standard input: {error}")).into());
                    }
                    Err(_) => more = false,
                },
                recv(self.stop) -> _ => return Ok(()),
                recv(happened) -> event => if let Ok(event) = event { self.take(out, event)? },
                default(patience) => {}
            }
            self.look_at_the_clock(out)?;
            out.flush()?;
        }
        Ok(())
    }

    fn request(&mut self, out: &mut dyn Write, line: u64, text: &[u8]) -> Shown {
        if let Err(words) = check(text, self.config.limits.depth) {
            self.no_json += 1;
            return Ok(writeln!(out, "line {line} of the input is not sent: {words}")?);
        }
        self.number += 1;
        let number = self.number;
        show(out, number, "request", &on_one_line(text))?;
        let mut body = Vec::new();
        if self.handler.envelope {
            let from = Speaker::Client { user: self.user.as_str(), server: self.config.server.name.as_str(), session: SESSION };
            let message_id = MessageId::Own { prefix: &self.prefix, number };
            handler::envelope(&mut body, &Enveloped { message_id, from, hops: 0, kind: self.kind.as_str(), id: None }, text);
        } else {
            body.extend_from_slice(text);
        }
        if self.frames {
            show(out, number, "frame", &on_one_line(&body))?;
        }
        let packet = Packet::new(self.handler.framing, Slice::from(&body[..]));
        self.under_way.push_back(Asked { number, sent: Instant::now() });
        match (&self.to_handler, &self.program.ends) {
            // There is room for all that may be under way.
            (Some(to_handler), _) => drop(to_handler.try_send(packet)),
            (None, Ends::PerMessage(path)) => {
                let (framing, frame_bytes_max) = (self.handler.framing, self.config.limits.frame_bytes_handler);
                let call = Call { number, path: path.clone(), packet, framing, frame_bytes_max, timeout: self.handler.timeout };
                let started = call.start(self.events.clone());
                started.map_err(|error| Failure::unavailable(format_args!("no thread: {error}")))?;
            }
            (None, Ends::Stream { .. }) => {}
        }
        Ok(())
    }

    fn take(&mut self, out: &mut dyn Write, event: Event) -> Shown {
        match event {
            Event::Frame(frame, at) => self.frame(out, &frame, at),
            Event::Answered(number, answer, at) => {
                let place = self.under_way.iter().position(|asked| asked.number == number);
                match (answer, place.and_then(|place| self.under_way.remove(place))) {
                    (Ok(frame), Some(asked)) => self.answer(out, &frame, &asked, at),
                    (Ok(frame), None) => self.late_is_told(out, number, &frame, "came too late; a server does not wait for it"),
                    (Err(words), Some(asked)) => {
                        self.is_wrong(out, asked.number, &format!("the handler {words}"))?;
                        self.look_for_death();
                        Ok(())
                    }
                    (Err(_), None) => Ok(()),
                }
            }
            Event::Pushed(frame, read) => {
                writeln!(out, "[push] asks    {}", on_one_line(frame.bytes()))?;
                self.push(out, &read.map_err(|wrong| wrong.message), "")
            }
            Event::Stray(words) => {
                self.wrong += u64::from(self.under_way.is_empty());
                self.output_ended = true;
                self.over = Some(Over::Ended(words));
                Ok(())
            }
            Event::OutputEnd => {
                self.output_ended = true;
                if self.over.is_none() && !self.closed {
                    // If it has ended, how it did so says more.
                    self.obituary = self.obituary.take().or_else(|| self.program.wait(REST_WITHIN));
                    let closed = || Over::Ended("closed its output".into());
                    self.over = Some(self.obituary.clone().map_or_else(closed, Over::Died));
                }
                Ok(())
            }
            Event::Died => {
                self.obituary = self.obituary.take().or_else(|| self.program.wait(REST_WITHIN));
                self.died = Some(Instant::now());
                // What it wrote on a stream before comes first, and then the end of that.
                if self.to_handler.is_none() && !self.closed {
                    self.over = self.obituary.clone().map(Over::Died);
                }
                Ok(())
            }
        }
    }

    /// A connection that breaks may be the first sign of the program's end.
    fn look_for_death(&mut self) {
        if self.obituary.is_none() {
            self.obituary = self.program.wait(DEATH_WITHIN);
        }
        if self.over.is_none() {
            self.over = self.obituary.clone().map(Over::Died);
        }
    }

    /// Gives up what was not answered in time.
    fn look_at_the_clock(&mut self, out: &mut dyn Write) -> Shown {
        // Somebody whom it left behind may hold its output for ever.
        if self.over.is_none() && self.died.is_some_and(|died| died.elapsed() >= REST_WITHIN) {
            self.over = self.obituary.clone().map(Over::Died);
        }
        let timeout = self.handler.timeout;
        while self.under_way.front().is_some_and(|asked| asked.sent.elapsed() >= timeout) && self.over.is_none() {
            let Some(asked) = self.under_way.pop_front() else { break };
            let words = format!("no answer within {} s (handlerTimeout)", timeout.as_secs());
            if self.handler.envelope {
                self.is_wrong(out, asked.number, &words)?;
                self.late.insert(asked.number, asked.sent);
            } else {
                self.is_wrong(out, asked.number, &format!("{words}; a server ends the handler here and starts it again"))?;
                self.over = Some(Over::Ended("was too late".into()));
            }
        }
        Ok(())
    }

    /// Has the program end, and shows how it does.
    fn end(&mut self, out: &mut dyn Write, happened: &Receiver<Event>) -> Shown {
        if let Some(Over::Died(words) | Over::Ended(words)) = self.over.clone() {
            writeln!(out, "over         the handler {}", on_one_line(words.as_bytes()))?;
            while let Some(asked) = self.under_way.pop_front() {
                self.is_wrong(out, asked.number, "no answer (handlerCrashed)")?;
            }
        }
        let stopped = self.over.is_some();
        let streaming = self.to_handler.take().is_some();
        self.closed = true;
        if matches!(self.handler.transport, HandlerTransport::Unix { .. }) {
            // Whoever listens on a socket of his own does not learn from it that nothing more comes.
            self.program.terminate();
        }
        if stopped {
            self.program.kill();
        }
        let mut orders = [(self.handler.stop, "SIGTERM"), (self.handler.stop, "SIGKILL"), (REST_WITHIN, "")].into_iter();
        while self.obituary.is_none() && self.program.is_ours() {
            let Some((patience, next)) = orders.next() else { break };
            let deadline = Instant::now() + patience;
            while self.obituary.is_none() {
                select! {
                    recv(happened) -> event => if let Ok(event) = event { self.take(out, event)? },
                    recv(self.stop) -> _ => self.program.kill(),
                    default(deadline.saturating_duration_since(Instant::now())) => break,
                }
                out.flush()?;
            }
            match next {
                _ if self.obituary.is_some() => break,
                "SIGTERM" => self.program.terminate(),
                _ => self.program.kill(),
            }
            let seconds = patience.as_secs();
            writeln!(out, "             the handler has not ended within {seconds} s, and gets {next} now")?;
            out.flush()?;
        }
        // What it wrote at last.
        let deadline = Instant::now() + REST_WITHIN;
        while streaming && !stopped && !self.output_ended {
            match happened.recv_deadline(deadline) {
                Ok(Event::OutputEnd) | Err(_) => break,
                Ok(event) => self.take(out, event)?,
            }
        }
        let words = self.obituary.as_deref().unwrap_or("was left");
        Ok(writeln!(out, "ended        {words}")?)
    }

    fn summary(&mut self, out: &mut dyn Write) -> Shown {
        let (good, number) = (self.times.len(), self.number);
        let requests = if number == 1 { "request" } else { "requests" };
        write!(out, "{number} {requests}: {good} answered well, {} not", number - good as u64)?;
        self.times.sort_unstable();
        if let (Some(half), Some(slowest)) = (self.times.get(good.saturating_sub(1) / 2), self.times.last()) {
            write!(out, "; half of the answers within {}, the slowest after {}", took(*half), took(*slowest))?;
        }
        Ok(writeln!(out)?)
    }

    fn verdict(&self) -> Result<(), Failure> {
        let kind = self.kind;
        match &self.over {
            Some(Over::Died(words)) => Err(Failure::unavailable(format_args!("handler {kind} {words} although its input was open"))),
            Some(Over::Ended(words)) => Err(Failure::data(format_args!("handler {kind} {words}"))),
            None if self.wrong > 0 => Err(Failure::data(format_args!("handler {kind} made {}", counted(self.wrong, "mistake")))),
            None if self.no_json > 0 => {
                Err(Failure::data(format_args!("{} of the input could not be sent", counted(self.no_json, "line"))))
            }
            None => Ok(()),
        }
    }
}

/// Whether a line is what a client may send as data.
fn check(text: &[u8], depth_max: usize) -> Result<(), String> {
    let mut scanner = Scanner::new(text);
    let read = scanner.value(depth_max).and_then(|value| scanner.end().map(|()| value));
    let value = read.map_err(|broken: Broken| format!("it is not JSON: {broken}"))?;
    if value.too_deep { Err(format!("it is nested deeper than {depth_max} (limits.depth)")) } else { Ok(()) }
}

fn show(out: &mut dyn Write, number: u64, what: &str, text: &str) -> Shown {
    Ok(writeln!(out, "[{number}] {what:<8} {text}")?)
}

fn took(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
