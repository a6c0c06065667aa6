//! What a handler says, shown and judged.

use super::{Asked, Over, Run, Shown, informer, show, took, words};
use crate::frame::{Frame, Slice};
use crate::handler::by_hand::on_one_line;
use crate::protocol::handler::{self, Outcome};
use crate::protocol::reason::Reason;
use crate::protocol::report::{Id, MessageId, bad};
use std::io::Write;
use std::time::Instant;

impl Run<'_> {
    /// What came on the stream that all answers come on.
    pub(super) fn frame(&mut self, out: &mut dyn Write, frame: &Frame, at: Instant) -> Shown {
        if !self.handler.envelope {
            if let Some(asked) = self.under_way.pop_front() {
                return self.answer(out, frame, &asked, at);
            }
            self.over = Some(Over::Ended("gave an answer that nobody had asked for".into()));
            return self.nobodys(out, "-", frame, "nobody has asked; a server ends the handler here and starts it again");
        }
        let read = handler::parse(frame, self.config.limits.depth, self.config.limits.recipients);
        let about = match &read {
            Ok(answer) => answer.in_reply_to.clone(),
            Err(wrong) => wrong.in_reply_to.clone(),
        };
        let Some(about) = about else {
            writeln!(out, "[push] says    {}", on_one_line(frame.bytes()))?;
            let id = read.as_ref().map_or_else(|wrong| wrong.id.clone(), |answer| answer.id.clone());
            let read = read.map(|answer| answer.outcome).map_err(|wrong| wrong.message);
            self.push(out, &read, " (header.inReplyTo is missing, so this is no answer)")?;
            return self.tell(id, 0, &read, false);
        };
        let number: Option<u64> = about.as_str().strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let place = self.under_way.iter().position(|asked| Some(asked.number) == number);
        if let Some(asked) = place.and_then(|place| self.under_way.remove(place)) {
            return self.answer(out, frame, &asked, at);
        }
        match number.and_then(|number| Some((number, self.late.remove(&number)?))) {
            Some((number, sent)) => {
                let words = format!("came too late, after {}; a server drops it", took(at.saturating_duration_since(sent)));
                self.late_is_told(out, number, frame, &words)
            }
            None => self.nobodys(out, "-", frame, "header.inReplyTo names no message that is under way; a server drops it"),
        }
    }

    pub(super) fn answer(&mut self, out: &mut dyn Write, frame: &Frame, asked: &Asked, at: Instant) -> Shown {
        show(out, asked.number, "answer", &on_one_line(frame.bytes()))?;
        let took_so_long = at.saturating_duration_since(asked.sent);
        let read = handler::parse(frame, self.config.limits.depth, self.config.limits.recipients);
        let id = read.as_ref().map_or_else(|wrong| wrong.id.clone(), |answer| answer.id.clone());
        let read = read.map(|answer| answer.outcome).map_err(|wrong| wrong.message);
        let words = read.as_ref().map_err(Clone::clone).and_then(|outcome| words::of(outcome, self.config));
        match words {
            Ok(words) => {
                self.times.push(took_so_long);
                show(out, asked.number, "server", &format!("{}; after {}", on_one_line(words.as_bytes()), took(took_so_long)))?;
            }
            Err(words) => {
                let words = format!("the answer is not carried out: {words} (handlerProtocol); after {}", took(took_so_long));
                self.is_wrong(out, asked.number, &words)?;
            }
        }
        if self.handler.envelope { self.tell(id, asked.number, &read, true) } else { Ok(()) }
    }

    /// Tells the handler what became of an answer that has an id.
    fn tell(&mut self, id: Option<Slice>, number: u64, read: &Result<Outcome, String>, asked: bool) -> Shown {
        let (Some(id), Some(to_handler)) = (id, &self.to_handler) else { return Ok(()) };
        let kind = self.kind.as_str();
        let packet = match read {
            Ok(Outcome::Refused { .. }) => return Ok(()),
            Ok(outcome) => informer::outcome(
                kind,
                id,
                MessageId::Own { prefix: &self.prefix, number },
                self.user.as_str(),
                asked,
                self.handler.offline,
                outcome,
            ),
            Err(words) => bad(kind, Some(&Id::Client(id)), Reason::HandlerProtocol, words),
        };
        // Whoever does not read them goes without.
        let _ = to_handler.try_send(packet.framed_as(self.handler.framing));
        Ok(())
    }

    pub(super) fn push(&mut self, out: &mut dyn Write, read: &Result<Outcome, String>, note: &str) -> Shown {
        match read.as_ref().map_err(Clone::clone).and_then(|outcome| words::of(outcome, self.config)) {
            Ok(words) => writeln!(out, "[push] server  {}{note}", on_one_line(words.as_bytes()))?,
            Err(words) => {
                self.wrong += 1;
                writeln!(out, "[push] server  it is not carried out: {}{note}", on_one_line(words.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// An answer that counts for nothing, and is one mistake more.
    fn nobodys(&mut self, out: &mut dyn Write, number: &str, frame: &Frame, words: &str) -> Shown {
        self.wrong += 1;
        writeln!(out, "[{number}] answer   {}", on_one_line(frame.bytes()))?;
        Ok(writeln!(out, "[{number}] server   {words}")?)
    }

    /// The same of one that has been counted when it was missed.
    pub(super) fn late_is_told(&mut self, out: &mut dyn Write, number: u64, frame: &Frame, words: &str) -> Shown {
        show(out, number, "answer", &on_one_line(frame.bytes()))?;
        show(out, number, "server", words)
    }

    pub(super) fn is_wrong(&mut self, out: &mut dyn Write, number: u64, words: &str) -> Shown {
        self.wrong += 1;
        show(out, number, "server", &on_one_line(words.as_bytes()))
    }
}
