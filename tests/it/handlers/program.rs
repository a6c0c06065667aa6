//! A handler that is written with `bester::handler`, in each way in which that can be: its arguments say which.

use bester::handler::{Answer, DO_NOT_RESTART, Handler, Incoming, Informer, Message};
use std::io;
use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    let mut handler = if has("envelope") { Handler::envelope() } else { Handler::plain() };
    if has("lines") {
        handler = handler.lines();
    }
    if has("batched") {
        handler = handler.batched();
    }
    if has("socket") {
        handler = handler.socket();
    }
    if let Some(path) = words.iter().find_map(|word| word.strip_prefix("listen=")) {
        handler = handler.listen(path);
    }
    let ended = match () {
        () if has("threads") => threads(handler),
        () if has("push") => push(handler),
        () => handler.serve(answer),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("it failed: {error}");
            ExitCode::from(DO_NOT_RESTART)
        }
    }
}

fn answer(message: Message) -> Answer {
    println!("somebody speaks: {:?}", message.from());
    match message.data::<(String, Vec<String>)>() {
        Ok((word, _)) if word == "panic" => panic!("as it was told to"),
        Ok((word, _)) if word == "child" => {
            let child = Command::new("cat").stdin(Stdio::inherit()).output().expect("cat runs");
            Answer::reply(child.stdout.len())
        }
        Ok((word, names)) if word == "send" => Answer::send(names, message.raw()).and(Answer::reply("sent")),
        Ok((word, names)) if word == "online" => {
            let mut informer = Informer::from_environment().expect("an informer");
            Answer::reply(names.iter().map(|name| informer.is_client(name).expect("an answer")).collect::<Vec<_>>())
        }
        _ if std::env::args().any(|word| word == "informer") => {
            let mut informer = Informer::from_environment().expect("an informer");
            let counts = informer.push(&Answer::send(["alice", "bob"], "pushed")).expect("counts");
            Answer::reply((counts.delivered, counts.names.offline))
        }
        Ok((word, _)) if word == "refuse" => Answer::refuse("no", message.user()),
        _ => Answer::reply(message.raw()),
    }
}

/// Keeps each message until the next one is there; tells the sender of the last what became of that answer.
fn threads(handler: Handler) -> io::Result<()> {
    let (messages, outbox) = handler.open()?;
    let mut kept: Option<Message> = None;
    for incoming in messages {
        match incoming? {
            Incoming::Message(message) => {
                if let Some(before) = kept.replace(message) {
                    let latest = kept.as_ref().and_then(Message::message_id).expect("an envelope").to_owned();
                    let outbox = outbox.clone();
                    let both = move || {
                        outbox.answer(&latest, &Answer::reply("later one"))?;
                        before.answer(Answer::send(["bob", "carol"], "earlier one").with_id("a-1"))
                    };
                    std::thread::Builder::new().spawn(both)?.join().expect("no panic")?;
                    kept = None;
                }
            }
            Incoming::Report(report) => {
                println!("{} reached {}", report.id, report.counts.expect("counts").delivered);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Speaks once without being asked, and again at each message.
fn push(handler: Handler) -> io::Result<()> {
    let (messages, outbox) = handler.open()?;
    let words = Answer::send(["alice"], "pushed").with_id("p-1");
    outbox.push(&words)?;
    for incoming in messages {
        match incoming? {
            Incoming::Message(message) => {
                outbox.push(&words)?;
                message.answer(Answer::none())?;
            }
            Incoming::Report(report) => println!("{} reached {}", report.id, report.counts.expect("counts").delivered),
            _ => {}
        }
    }
    Ok(())
}
