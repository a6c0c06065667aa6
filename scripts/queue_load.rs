//! The load of scripts/measure-queue: messages for users who are away, mailboxes that are filled and emptied, and one
//! message for a thousand readers of whom some have stopped. Each prints one line of JSON.
//!
//! ```text
//! queue-load queued SOCKET TYPE SECONDS RATE SENDERS AWAY   RATE messages a second, whatever the server does, from sender0...
//!                                                           to away0...; the latencies of the reports
//! queue-load fill SOCKET TYPE USER COUNT                    COUNT messages of 128 bytes to a user who is away
//! queue-load drain SOCKET USER COUNT ack|plain              reads so many deliveries
//! queue-load fan-out SOCKET TYPE SECONDS RATE READERS STOPPED
//!                                                           RATE messages a second from sender0 to all of reader0...,
//!                                                           the first STOPPED of whom read nothing; the latencies of the
//!                                                           deliveries to the others
//! ```
//!
//! The type's handler is `bester bench-handler`; the password of all users is "password". It looks for a few words in what
//! comes instead of reading the JSON, so that the server is measured and not this.

use bester::client::LOGIN_ID;
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Of each message, what is delivered.
const DATA_BYTES: usize = 128;
/// Messages that each connection keeps under way where it is not said when to send: what a server allows.
const UNDER_WAY: usize = 64;
/// So long may nothing come.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let told = match words[..] {
        ["queued", socket, kind, seconds, rate, senders, away] => {
            queued(socket, kind, seconds.parse()?, rate.parse()?, senders.parse()?, away.parse()?)?
        }
        ["fill", socket, kind, user, count] => fill(socket, kind, user, count.parse()?)?,
        ["drain", socket, user, count, how] => drain(socket, user, count.parse()?, how == "ack")?,
        ["fan-out", socket, kind, seconds, rate, readers, stopped] => {
            fan_out(socket, kind, seconds.parse()?, rate.parse()?, readers.parse()?, stopped.parse()?)?
        }
        _ => return Err("see the top of scripts/queue_load.rs".into()),
    };
    println!("{told}");
    Ok(())
}

/// A connection, with what came on it and is not a whole frame yet.
struct Line {
    stream: UnixStream,
    input: Vec<u8>,
    /// Where the first byte is that was not looked at.
    seen: usize,
    /// What the socket did not take.
    output: Vec<u8>,
}

impl Line {
    fn log_in(socket: &str, user: &str, options: &str) -> Outcome<Line> {
        let stream = UnixStream::connect(socket)?;
        let mut line = Line { stream, input: Vec::new(), seen: 0, output: Vec::new() };
        let header = format!(r#""authentication":{{"username":"{user}","password":"password"}},"options":{{{options}}}"#);
        line.stream.write_all(&frame(&format!(r#"{{"header":{{{header}}},"payload":{{"type":"dummy","data":null}}}}"#)))?;
        line.stream.set_read_timeout(Some(PATIENCE))?;
        while !line.has_frame() {
            line.read()?;
        }
        let report = line.next().map(|frame| String::from_utf8_lossy(frame).into_owned()).unwrap_or_default();
        match report.contains(LOGIN_ID) && report.contains(r#""status":"good""#) {
            true => Ok(line),
            false => Err(format!("{user} cannot log in: {report}").into()),
        }
    }

    /// Reads what there is, once.
    fn read(&mut self) -> io::Result<()> {
        self.input.drain(..self.seen);
        self.seen = 0;
        let end = self.input.len();
        self.input.resize(end + (256 << 10), 0);
        let read = self.stream.read(&mut self.input[end..]);
        self.input.truncate(end + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            _ => Ok(()),
        }
    }

    fn has_frame(&self) -> bool {
        let left = &self.input[self.seen..];
        left.first_chunk().is_some_and(|length| left.len() - 4 >= u32::from_le_bytes(*length) as usize)
    }

    /// The next whole frame that was read.
    fn next(&mut self) -> Option<&[u8]> {
        if !self.has_frame() {
            return None;
        }
        let left = &self.input[self.seen..];
        let length = left.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        self.seen += 4 + length;
        Some(&self.input[self.seen - length..self.seen])
    }

    /// Sends this, or as much as the socket takes; the rest goes with the next call.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Many connections that are read as they become readable.
struct Lines {
    lines: Vec<Line>,
    poll: Poll,
    events: Events,
}

impl Lines {
    fn new(lines: Vec<Line>) -> Outcome<Lines> {
        let poll = Poll::new()?;
        for (index, line) in lines.iter().enumerate() {
            line.stream.set_nonblocking(true)?;
            poll.registry().register(&mut SourceFd(&line.stream.as_raw_fd()), Token(index), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(Lines { lines, poll, events: Events::with_capacity(1024) })
    }

    /// Waits so long at most; gives each frame that came, with the number of its connection.
    fn wait(&mut self, time: Duration, mut each: impl FnMut(usize, &[u8])) -> Outcome<()> {
        match self.poll.poll(&mut self.events, Some(time)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let index = event.token().0;
            let line = &mut self.lines[index];
            line.send(b"")?;
            // Readiness is told once: read until there is nothing.
            loop {
                match line.read() {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
                while let Some(frame) = line.next() {
                    each(index, frame);
                }
            }
        }
        Ok(())
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A message to these users (names in quotes, with commas between). Its id is a number, and so is the beginning of its data.
fn message(kind: &str, names: &str, number: u64, at: Duration) -> Vec<u8> {
    let mut data = format!("{number:012x} {:012x} ", at.as_nanos());
    data.extend(std::iter::repeat_n('x', DATA_BYTES - 2 - data.len()));
    frame(&format!(r#"{{"payload":{{"type":"{kind}","data":{{"to":[{names}],"data":"{data}"}},"id":"{number:012x}"}}}}"#))
}

/// What stands after `key` in a frame, up to `end`.
fn after<'a>(frame: &'a [u8], key: &[u8], end: u8) -> Option<&'a [u8]> {
    let start = frame.windows(key.len()).position(|bytes| bytes == key)? + key.len();
    let length = frame[start..].iter().position(|byte| *byte == end)?;
    Some(&frame[start..start + length])
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What became of the messages that were sent.
#[derive(Default)]
struct Reports {
    good: u64,
    bad: BTreeMap<String, u64>,
    /// One, for people.
    example: Option<String>,
}

impl Reports {
    /// The number of the message that this frame reports on.
    fn take(&mut self, frame: &[u8]) -> Option<u64> {
        let number = after(frame, br#""id":""#, b'"').and_then(hex)?;
        if frame.windows(15).any(|bytes| bytes == br#""status":"good""#) {
            self.good += 1;
        } else {
            let reason = after(frame, br#""reason":""#, b'"').map_or("none".into(), |reason| String::from_utf8_lossy(reason).into_owned());
            *self.bad.entry(reason).or_default() += 1;
            self.example.get_or_insert_with(|| String::from_utf8_lossy(frame).into_owned());
        }
        Some(number)
    }

    fn count(&self) -> u64 {
        self.good + self.bad.values().sum::<u64>()
    }

    fn json(&self) -> Value {
        json!({ "good": self.good, "bad": self.bad, "example": self.example })
    }
}

fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1000, 600_000_000_000, 3)?)
}

fn milliseconds(times: &Histogram<u64>) -> Value {
    let of = |nanos: u64| nanos as f64 / 1e6;
    let at = |quantile| of(times.value_at_quantile(quantile));
    json!({ "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": of(times.max()) })
}

/// Open loop: each message has its time, and its latency counts from then, however late it could be written.
fn queued(socket: &str, kind: &str, seconds: f64, rate: f64, senders: usize, away: usize) -> Outcome<Value> {
    let lines = (0..senders).map(|index| Line::log_in(socket, &format!("sender{index}"), "")).collect::<Outcome<Vec<_>>>()?;
    let mut lines = Lines::new(lines)?;
    let total = (seconds * rate) as u64;
    let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
    let (mut reports, mut times, mut late) = (Reports::default(), histogram()?, histogram()?);
    let began = Instant::now();
    let mut sent = 0;
    let mut last = began;
    while reports.count() < total {
        while sent < total && due(sent) <= began.elapsed() {
            let to = format!("\"away{}\"", sent as usize % away);
            late.saturating_record((began.elapsed() - due(sent)).as_nanos() as u64);
            lines.lines[sent as usize % senders].send(&message(kind, &to, sent, due(sent)))?;
            sent += 1;
        }
        let wait = if sent < total { due(sent).saturating_sub(began.elapsed()).min(Duration::from_millis(1)) } else { PATIENCE };
        lines.wait(wait, |_, frame| {
            if let Some(number) = reports.take(frame) {
                last = Instant::now();
                times.saturating_record(last.duration_since(began).saturating_sub(due(number)).as_nanos() as u64);
            }
        })?;
        if last.elapsed() > PATIENCE && began.elapsed() > PATIENCE {
            return Err(format!("no report for {PATIENCE:?}: {} of {sent}", reports.count()).into());
        }
    }
    let took = last.duration_since(began).as_secs_f64();
    Ok(json!({
        "sent": sent, "seconds": took, "rate": reports.good as f64 / took, "reports": reports.json(),
        "milliseconds": milliseconds(&times), "sentLate": milliseconds(&late),
    }))
}

/// Closed loop, from four senders.
fn fill(socket: &str, kind: &str, user: &str, count: u64) -> Outcome<Value> {
    let lines = (0..4).map(|index| Line::log_in(socket, &format!("sender{index}"), "")).collect::<Outcome<Vec<_>>>()?;
    let mut lines = Lines::new(lines)?;
    let to = format!("\"{user}\"");
    let began = Instant::now();
    let mut reports = Reports::default();
    let mut under_way = [0; 4];
    let mut sent = 0;
    while reports.count() < count {
        for (index, under_way) in under_way.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            while sent < count && *under_way < UNDER_WAY {
                bytes.extend(message(kind, &to, sent, Duration::ZERO));
                sent += 1;
                *under_way += 1;
            }
            lines.lines[index].send(&bytes)?;
        }
        let before = reports.count();
        lines.wait(PATIENCE, |index, frame| {
            if reports.take(frame).is_some() {
                under_way[index] -= 1;
            }
        })?;
        if reports.count() == before && began.elapsed() > PATIENCE {
            return Err(format!("no report for {PATIENCE:?}: {before} of {sent}").into());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "rate": reports.good as f64 / seconds, "reports": reports.json() }))
}

/// As a good client does it: whatever came with one read is acknowledged at once.
fn drain(socket: &str, user: &str, count: u64, ack: bool) -> Outcome<Value> {
    let began = Instant::now();
    let mut line = Line::log_in(socket, user, if ack { r#""ack":true"# } else { "" })?;
    let (mut came, mut last, mut disorder, mut acks) = (0, 0, 0, 0);
    let mut number = 0;
    let mut numbers_wrong = 0;
    while came < count {
        let before = last;
        while let Some(frame) = line.next() {
            if ack {
                let seq = after(frame, br#""seq":"#, b',').and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
                let seq: u64 = seq.ok_or_else(|| format!("without seq: {}", String::from_utf8_lossy(frame)))?;
                disorder += u64::from(seq <= last);
                last = seq;
            }
            // From several senders, each in order: nearly rising, so only what is no message at all is seen here.
            match after(frame, br#""data":""#, b' ').and_then(hex) {
                Some(found) => number = found,
                None => numbers_wrong += 1,
            }
            came += 1;
        }
        if last > before {
            acks += 1;
            let ack = format!(r#"{{"payload":{{"type":"builtin","data":{{"command":{{"type":"ack","args":{{"seq":{last}}}}}}}}}}}"#);
            line.stream.write_all(&frame(&ack))?;
        }
        if came < count {
            line.read().map_err(|error| format!("after {came} messages: {error}"))?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    // What was acknowledged last has been read by the server when it says goodbye.
    line.stream.write_all(&frame(r#"{"payload":{"type":"builtin","data":{"command":{"type":"close"}},"id":"bye"}}"#))?;
    let mut extra = 0;
    while line.has_frame() || line.read().is_ok() {
        while let Some(frame) = line.next() {
            extra += u64::from(!frame.windows(5).any(|bytes| bytes == br#""bye""#));
        }
    }
    Ok(json!({
        "count": came, "seconds": seconds, "rate": came as f64 / seconds, "acks": acks, "outOfOrder": disorder,
        "noMessage": numbers_wrong, "lastNumber": number, "more": extra,
    }))
}

/// Each message carries when it was sent.
fn fan_out(socket: &str, kind: &str, seconds: f64, rate: f64, readers: usize, stopped: usize) -> Outcome<Value> {
    let mut idle = Vec::new();
    let mut lines = vec![Line::log_in(socket, "sender0", "")?];
    for index in 0..readers {
        let line = Line::log_in(socket, &format!("reader{index}"), "")?;
        if index < stopped { idle.push(line) } else { lines.push(line) }
    }
    let healthy = lines.len() as u64 - 1;
    let mut lines = Lines::new(lines)?;
    let names = (0..readers).map(|index| format!("\"reader{index}\"")).collect::<Vec<_>>().join(",");
    let total = (seconds * rate) as u64;
    let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
    let (mut reports, mut times) = (Reports::default(), histogram()?);
    let began = Instant::now();
    let (mut sent, mut deliveries) = (0, 0);
    let mut last = began;
    while (reports.count() < total || deliveries < total * healthy) && last.elapsed() < PATIENCE {
        while sent < total && due(sent) <= began.elapsed() {
            lines.lines[0].send(&message(kind, &names, sent, due(sent)))?;
            sent += 1;
        }
        let wait = if sent < total { due(sent).saturating_sub(began.elapsed()) } else { Duration::from_secs(1) };
        lines.wait(wait, |index, frame| {
            last = Instant::now();
            if index == 0 {
                reports.take(frame);
            } else if let Some(data) = after(frame, br#""data":""#, b'"') {
                deliveries += 1;
                let at = data.get(13..25).and_then(hex).unwrap_or(0);
                times.saturating_record((last.duration_since(began).as_nanos() as u64).saturating_sub(at));
            }
        })?;
    }
    drop(idle);
    Ok(json!({
        "sent": sent, "healthy": healthy, "deliveries": deliveries, "missing": total * healthy - deliveries, "reports": reports.json(),
        "milliseconds": milliseconds(&times),
    }))
}
