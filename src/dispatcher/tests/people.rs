//! People on connections, and the programs of handlers.

use super::*;
use crate::dispatcher::{About, Message};
use crate::frame::Frame;
use crate::protocol::handler;
use crate::protocol::report::Id;
use crate::protocol::text::Text;

/// Somebody on a connection.
pub(super) struct Person<'w> {
    pub(super) world: &'w mut World,
    pub(super) conn: ConnId,
}

impl Person<'_> {
    /// Sends a message without an id.
    pub(super) fn sends(&mut self, kind: &str, data: &str) {
        self.message(kind, data, None);
    }

    /// Sends a message with an id.
    pub(super) fn asks(&mut self, kind: &str, data: &str, id: &str) {
        self.message(kind, data, Some(&format!("\"{id}\"")));
    }

    pub(super) fn message(&mut self, kind: &str, data: &str, id: Option<&str>) {
        let message = Message { kind: kind.into(), data: slice(data), id: id.map(slice), bytes: data.len(), digest: None, transit: None };
        self.tells(|conn| Event::Message(conn, message));
    }

    pub(super) fn tells(&mut self, event: impl FnOnce(ConnId) -> Event) {
        self.world.handle(event(self.conn));
    }

    pub(super) fn logs_in(&mut self, name: &str, revision: u64) {
        self.logs_in_with(name, revision, false, None);
    }

    /// With the options `ack` and `after`.
    pub(super) fn logs_in_with(&mut self, name: &str, revision: u64, ack: bool, after: Option<u64>) {
        let about = About { kind: Text::from("dummy"), id: Some(Id::AuthSpecial) };
        self.tells(|conn| Event::LoggedIn { conn, user: username(name), revision, ack, after, about });
    }

    /// Sends a message that may come again: it is known by its id.
    pub(super) fn asks_once(&mut self, kind: &str, data: &str, id: &str) {
        let mut digest = [0; 32];
        digest.iter_mut().zip(id.bytes()).for_each(|(place, byte)| *place = byte);
        let (id, digest) = (Some(slice(&format!("\"{id}\""))), Some(Box::new(digest)));
        let message = Message { kind: kind.into(), data: slice(data), id, bytes: data.len(), digest, transit: None };
        self.tells(|conn| Event::Message(conn, message));
    }

    /// Acknowledges everything up to `seq`.
    pub(super) fn acknowledges(&mut self, seq: u64) {
        self.tells(|conn| Event::Acknowledged { conn, seq, about: about("ack") });
    }

    /// Its socket takes nothing from now on.
    pub(super) fn stops_reading(&mut self) {
        self.world.connection(self.conn).stuck = true;
    }

    /// Its socket takes everything again.
    pub(super) fn reads_on(&mut self) {
        let connection = self.world.connection(self.conn);
        (connection.stuck, connection.room, connection.waiting) = (false, 0, 0);
        if std::mem::take(&mut connection.waits) {
            self.tells(Event::Emptied);
        }
    }

    pub(super) fn disconnects(&mut self) {
        self.tells(Event::Disconnected);
    }

    /// All that has come since this was last asked is exactly this, each as [`short`].
    #[track_caller]
    pub(super) fn gets(&mut self, expected: &[&str]) {
        let got: Vec<String> = self.frames().iter().map(|frame| short(frame)).collect();
        assert_eq!(got, expected, "what came to {}", self.conn);
    }

    /// The same, as it came.
    pub(super) fn frames(&mut self) -> Vec<String> {
        let inbox = self.world.connections.get_mut(&self.conn).map(|connection| std::mem::take(&mut connection.inbox));
        let text = |packet: &Packet| String::from_utf8(packet.body().to_vec()).expect("UTF-8");
        inbox.unwrap_or_default().iter().map(text).collect()
    }

    /// The messages that were dealt with since this was last asked, by their bytes.
    pub(super) fn settled(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.world.connection(self.conn).settled)
    }

    pub(super) fn verdict(&mut self) -> Option<bool> {
        self.world.connection(self.conn).verdicts.pop()
    }

    pub(super) fn closed(&mut self) -> Option<CloseReason> {
        self.world.connection(self.conn).closed
    }
}

/// A handler's program.
pub(super) struct Handler<'w> {
    pub(super) world: &'w mut World,
    /// Its place in [`ENDS`].
    pub(super) place: usize,
}

impl Handler<'_> {
    fn end(&mut self) -> &mut HandlerEnd {
        &mut self.world.handlers[self.place]
    }

    /// Its last start.
    pub(super) fn id(&mut self) -> HandlerId {
        let (route, instance, _) = ENDS[self.place];
        HandlerId { route: RouteId(route as u32), instance: instance as u32, start: StartId(self.end().start) }
    }

    /// A new start is up, in the place of the one before if that has not died.
    pub(super) fn comes_up(&mut self) {
        self.world.starts.push(self.place);
        let start = self.world.starts.len() as u64;
        let end = self.end();
        (end.before, end.start) = (end.start, start);
        let form = end.form.unwrap_or(form(KINDS[ENDS[self.place].0]));
        let id = self.id();
        self.world.handle(Event::HandlerUp(id, form));
    }

    pub(super) fn dies(&mut self, reason: &str) {
        let id = self.id();
        self.world.handle(Event::HandlerDown { id, reason: reason.into(), for_good: None });
    }

    /// It dies, and is not started again.
    pub(super) fn breaks(&mut self, why: &str) {
        let id = self.id();
        self.world.handle(Event::HandlerDown { id, reason: "exited with status 1".into(), for_good: Some(why.into()) });
    }

    /// A start that was told that it may end does.
    pub(super) fn retires(&mut self) -> usize {
        let retired = std::mem::take(&mut self.end().retired);
        for start in &retired {
            let id = HandlerId { start: *start, ..self.id() };
            self.world.handle(Event::HandlerDown { id, reason: "exited with status 0".into(), for_good: None });
        }
        retired.len()
    }

    /// What it was asked and did not answer yet.
    pub(super) fn asked(&mut self) -> Vec<String> {
        let text = |packet: &Packet| String::from_utf8(packet.body().to_vec()).expect("UTF-8");
        self.end().asked.iter().map(|(.., packet)| text(packet)).collect()
    }

    /// What it was told of its answers since this was last asked.
    pub(super) fn told(&mut self) -> Vec<String> {
        let text = |packet: Packet| String::from_utf8(packet.body().to_vec()).expect("UTF-8");
        std::mem::take(&mut self.end().told).into_iter().map(text).collect()
    }

    /// Answers what it was asked first.
    pub(super) fn answers(&mut self, answer: &str) {
        self.answers_nth(0, answer);
    }

    /// Answers one of the things that it was asked.
    pub(super) fn answers_nth(&mut self, nth: usize, answer: &str) {
        let (start, request, packet) = self.end().asked.remove(nth).expect("it was asked so much");
        self.says(start, Some(request), &in_reply_to(&packet, answer));
    }

    /// Writes a frame, asked or not.
    pub(super) fn says(&mut self, start: StartId, request: Option<RequestId>, text: &str) {
        let request = request.filter(|_| self.place == EACH);
        let answer = handler::parse(&Frame::from(text.as_bytes()), 100, 10);
        let id = HandlerId { start, ..self.id() };
        self.world.handle(Event::Answered { id, request, answer });
    }

    /// Says something without being asked.
    pub(super) fn pushes(&mut self, text: &str) {
        let start = self.id().start;
        self.says(start, None, text);
    }

    pub(super) fn replaced(&mut self) -> Vec<String> {
        std::mem::take(&mut self.end().replaced)
    }
}
