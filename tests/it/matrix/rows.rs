//! The faults, and what each leads to.

use crate::ways::Way;

/// A fault, and what becomes of whoever asked for it.
pub struct Row {
    pub name: &'static str,
    /// What the handler is told to do; `$NONCE` is what its sender would have as an answer.
    pub steps: &'static str,
    /// Further arguments of the handler, and keys of its configuration.
    pub arguments: &'static [&'static str],
    pub keys: &'static str,
    /// Where all requests share a stream.
    stream: Outcome,
    /// Where each has a connection of its own.
    single: Outcome,
    /// Nobody could tell the fault from an answer to the next request, which the plain form leaves without a name: it is
    /// tried only while there is none.
    pub alone: bool,
}

/// What becomes of a faulty request.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// `None` when it is answered well.
    pub reason: Option<&'static str>,
    /// What the handler did, for its sender and for the log.
    words: &'static str,
    /// The same for the log, where that says more.
    logged: Option<&'static str>,
    /// Its sender may be told no more than that his connection to it ended, if that is seen before its death.
    silent: bool,
    /// Whether another start follows.
    pub replaced: bool,
    /// How many requests beside the faulty one fall with it at most.
    pub others: usize,
}

impl Row {
    pub fn outcome(&self, way: Way) -> Outcome {
        if way == Way::Single { self.single } else { self.stream }
    }
}

impl Outcome {
    /// Whether these words are for the sender.
    pub fn is_told(&self, kind: &str, message: &str) -> bool {
        let colon = if self.reason == Some(WRONG) { ":" } else { "" };
        message.starts_with(&format!("handler {kind}{colon} {}", self.words))
            || self.silent && message == format!("handler {kind} closed the connection without an answer")
    }

    /// What a line of the log begins with, if there is one.
    pub fn line(&self, kind: &str) -> Option<String> {
        match (self.logged, self.reason) {
            (Some(logged), _) => Some(format!("handler: handler {kind}{logged}")),
            (None, Some(WRONG)) => Some(format!("WARN  dispatcher: handler {kind} gave an answer that is not carried out: {}", self.words)),
            _ => self.replaced.then(|| format!("WARN  handler: handler {kind} {}", self.words)),
        }
    }
}

const CRASHED: &str = "handlerCrashed";
const WRONG: &str = "handlerProtocol";

/// It fails for this reason.
const fn bad(reason: &'static str, words: &'static str) -> Outcome {
    Outcome { reason: Some(reason), words, logged: None, silent: false, replaced: true, others: 0 }
}

/// It dies with the request, and so does its connection. One request may have connected to it before, and the next one tries
/// to by the time that this is known.
const fn died(words: &'static str) -> Outcome {
    Outcome { silent: true, others: 2, ..bad(CRASHED, words) }
}

/// It is answered well.
const fn good() -> Outcome {
    Outcome { reason: None, words: "", logged: None, silent: false, replaced: false, others: 0 }
}

/// It is answered well, and what the handler does then is its end.
const fn good_and(words: &'static str) -> Outcome {
    Outcome { words, replaced: true, others: 1, ..good() }
}

const fn row(name: &'static str, steps: &'static str, stream: Outcome, single: Outcome) -> Row {
    Row { name, steps, arguments: &[], keys: "", stream, single, alone: false }
}

const fn dies(name: &'static str, steps: &'static str, words: &'static str) -> Row {
    row(name, steps, bad(CRASHED, words), died(words))
}

/// What it writes is no frame. Of no use any longer is the stream; that is, of a single request no more than its own.
const fn strays(name: &'static str, steps: &'static str, words: &'static str, logged: &'static str) -> Row {
    let stream = Outcome { logged: Some(logged), ..bad(CRASHED, words) };
    row(name, steps, stream, Outcome { replaced: false, ..stream })
}

/// It does not answer in time, nor does it end when it is told to.
const fn late(name: &'static str, steps: &'static str) -> Row {
    let outcome = bad("handlerTimeout", "did not answer within 1 s");
    Row { arguments: &["stubborn"], keys: r#""timeoutSeconds": 1"#, ..row(name, steps, outcome, outcome) }
}

const fn wrong(name: &'static str, steps: &'static str, words: &'static str) -> Row {
    let outcome = Outcome { replaced: false, ..bad(WRONG, words) };
    row(name, steps, outcome, outcome)
}

const NOBODY: &str = "gave an answer that nobody had asked for";

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    dies("exit", r#"[["exit",3]]"#, "exited with status 3"),
    dies("killed", r#"[["kill",9]]"#, "was ended by signal 9 (SIGKILL)"),
    row(
        "exit-amid",
        r#"[["raw","\u0063\u0000\u0000\u0000{\"header\""],["exit",0]]"#,
        bad(CRASHED, "exited with status 0 (closed its output 13 bytes into a frame)"),
        died("exited with status 0"),
    ),
    // What was written counts.
    row(
        "exit-after",
        r#"[["reply","$NONCE"],["exit",0]]"#,
        good_and("exited with status 0"),
        Outcome { others: 2, ..good_and("exited with status 0") },
    ),
    late("hangs", r#"[["pause"]]"#),
    late("stopped", r#"[["stop"]]"#),
    late("late", r#"[["late","$NONCE"],["pause"]]"#),
    strays(
        "prints",
        r#"[["raw","hello\n"],["pause"]]"#,
        "wrote what is no frame",
        " wrote 'hello\\n' where a frame should start; is something printing to stdout?",
    ),
    strays(
        "long",
        r#"[["raw","\u0001\u0000\u0000\u007f"],["pause"]]"#,
        "wrote what is no frame: a frame of 2130706433 bytes is more than the 4194304 allowed here (limits.frameBytesHandler)",
        " wrote what is no frame: a frame of 2130706433 bytes is more than the 4194304 allowed here (limits.frameBytesHandler)",
    ),
    wrong("half-json", r#"[["say","{\"header\":"]]"#, "the answer is not JSON: expected a value at byte 10, where it ends"),
    wrong(
        "nan",
        r#"[["say","{\"header\":{\"status\":\"0\",\"command\":\"reply\"},\"payload\":{\"data\":NaN}}"]]"#,
        "the answer is not JSON: NaN at byte 61; NaN is not JSON, null or a string can stand for it",
    ),
    wrong(
        "unknown-command",
        r#"[["say","{\"header\":{\"status\":\"0\",\"command\":\"shout\"},\"payload\":{\"data\":1}}"]]"#,
        "unknown command `shout`",
    ),
    wrong(
        "wrong-type",
        r#"[["say","{\"header\":{\"status\":\"0\",\"command\":\"sendClients\",\"commandData\":\"alice\"},\"payload\":{\"data\":1}}"]]"#,
        "header.commandData is not an array of strings",
    ),
    row("twice", r#"[["twice","$NONCE"]]"#, good_and(NOBODY), good()),
    Row { alone: true, ..row("unasked", r#"[["reply","$NONCE"],["reply","nobody's"]]"#, good_and(NOBODY), good()) },
    // More than any pipe or socket holds, while others wait to be read.
    Row { keys: r#""inFlight": 4"#, ..row("writes-first", r#"[["waste",3145728]]"#, good(), good()) },
    row(
        "floods",
        r#"[["print","flood\n",50000],["reply","$NONCE"]]"#,
        Outcome { logged: Some(": flood"), ..good() },
        Outcome { logged: Some(": flood"), ..good() },
    ),
    // The child holds all that it held.
    dies("leaves-child", r#"[["fork"],["exit",6]]"#, "exited with status 6"),
    // The same, out of reach and still reading.
    Row { alone: true, ..dies("daemon", r#"[["daemonise"]]"#, "exited with status 0") },
];
