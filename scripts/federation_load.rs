//! The load of scripts/measure-federation, and the handler that goes with it: it sends what a user sends to the servers that the
//! message names, and gives what comes from a server, or what names none, to its readers.
//!
//! ```text
//! federation-load handler
//! federation-load trips SENDERS-SOCKET READERS-SOCKET SERVER COUNT   one message after the other, each when the one before has
//!                                                                    come; SERVER is "" for readers on the same server
//! federation-load flow SENDERS-SOCKET READERS-SOCKET SERVER SECONDS RATE
//!                                                                    RATE messages a second, whatever the servers do
//! ```
//!
//! The last two print one line of JSON. The password of all users (sender, reader0 to reader3) is "password".

use bester::client::{Address, Client, Incoming, Options};
use bester::handler::{Answer, Handler};
use bester::password::Password;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::error::Error;
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const READERS: usize = 4;
/// Messages that are not counted, while everything warms up.
const FIRST: usize = 50;
/// A reader acknowledges so many at once.
const ACKNOWLEDGED: u64 = 16;
/// So long may nothing come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often messages are sent, as many as are due.
const PACE: Duration = Duration::from_millis(2);

/// The data of a message.
#[derive(Serialize, Deserialize)]
struct Letter {
    servers: Vec<String>,
    readers: Vec<String>,
    /// When it was sent, in nanoseconds since 1970.
    at: u64,
    text: String,
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let told = match words[..] {
        ["handler"] => return Ok(Handler::envelope().batched().serve(|message| pass_on(&message))?),
        ["trips", from, to, server, count] => trips(from, to, server, count.parse()?)?,
        ["flow", from, to, server, seconds, rate] => flow(from, to, server, seconds.parse()?, rate.parse()?)?,
        _ => return Err("see the top of scripts/federation_load.rs".into()),
    };
    println!("{told}");
    Ok(())
}

fn pass_on(message: &bester::handler::Message) -> Answer {
    let Ok(letter) = message.data::<Letter>() else { return Answer::refuse("letter", "this is no letter") };
    match message.peer() {
        None if !letter.servers.is_empty() => Answer::send_servers(letter.servers, message.raw()),
        _ => Answer::send(letter.readers, message.raw()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn log_in(socket: &str, user: &str, ack: bool) -> Outcome<Client> {
    let mut client = Client::connect(&Address::parse(&format!("unix:{socket}"))?, PATIENCE)?;
    let options = Options { ack: ack.then_some(true), ..Options::default() };
    client.log_in_with(user, &Password::new("password".to_owned())?, &options)?;
    Ok(client)
}

fn letter(server: &str, reader: usize) -> Outcome<Box<RawValue>> {
    let servers = if server.is_empty() { Vec::new() } else { vec![server.to_owned()] };
    let letter = Letter { servers, readers: vec![format!("reader{reader}")], at: now(), text: "x".repeat(64) };
    Ok(serde_json::value::to_raw_value(&letter)?)
}

/// The next delivery: its number and how long it took, in nanoseconds.
fn next(client: &mut Client) -> Outcome<Option<(u64, u64)>> {
    loop {
        let Some(frame) = client.recv_frame(Some(Instant::now() + PATIENCE))? else { return Ok(None) };
        let incoming = Incoming::parse(&frame)?;
        if let Some(seq) = incoming.seq {
            let letter: Letter = serde_json::from_str(incoming.data.get())?;
            return Ok(Some((seq, now().saturating_sub(letter.at))));
        }
    }
}

fn latencies(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    json!({ "p50": at(0.5), "p99": at(0.99), "max": histogram.max() as f64 / 1000.0 })
}

fn trips(from: &str, to: &str, server: &str, count: usize) -> Outcome<Value> {
    let (mut sender, mut reader) = (log_in(from, "sender", false)?, log_in(to, "reader0", true)?);
    let mut histogram = Histogram::<u64>::new(3)?;
    for number in 0..FIRST + count {
        sender.message("letter", &letter(server, 0)?, None)?;
        let (seq, took) = next(&mut reader)?.ok_or("the server closed the connection")?;
        reader.ack(seq)?;
        if number >= FIRST {
            histogram.record(took)?;
        }
    }
    Ok(json!({ "trips": count, "microseconds": latencies(&histogram) }))
}

fn flow(from: &str, to: &str, server: &str, seconds: f64, rate: f64) -> Outcome<Value> {
    let total = (seconds * rate) as usize;
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let expected = total / READERS + usize::from(reader < total % READERS);
        let mut client = log_in(to, &format!("reader{reader}"), true)?;
        let read = move || -> Outcome<(Histogram<u64>, Instant)> {
            let mut histogram = Histogram::new(3)?;
            for number in 1..=expected {
                let (seq, took) = next(&mut client)?.ok_or("the server closed the connection")?;
                histogram.record(took)?;
                if (number as u64).is_multiple_of(ACKNOWLEDGED) || number == expected {
                    client.ack(seq)?;
                }
            }
            Ok((histogram, Instant::now()))
        };
        readers.push(Builder::new().name("reader".to_owned()).spawn(read)?);
    }
    let mut sender = log_in(from, "sender", false)?;
    let began = Instant::now();
    let mut sent = 0;
    while sent < total {
        let due = ((began.elapsed().as_secs_f64() * rate) as usize).min(total);
        for number in sent..due {
            sender.message("letter", &letter(server, number % READERS)?, None)?;
        }
        sent = sent.max(due);
        std::thread::sleep(PACE);
    }
    let sending = began.elapsed();
    let mut all = Histogram::<u64>::new(3)?;
    let mut last = began;
    for reader in readers {
        let (histogram, ended) = reader.join().map_err(|_| "a reader panicked")??;
        all.add(histogram)?;
        last = last.max(ended);
    }
    let took = last.duration_since(began).as_secs_f64();
    Ok(json!({
        "sent": sent, "came": all.len(), "seconds": took, "perSecond": all.len() as f64 / took,
        "sending": sending.as_secs_f64(), "microseconds": latencies(&all),
    }))
}
