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
        let message = Message { kind: kind.into(), data: slice(data), id: id.map(slice), bytes: data.len() };
        self.tells(|conn| Event::Message(conn, message));
    }

    pub(super) fn tells(&mut self, event: impl FnOnce(ConnId) -> Event) {
        self.world.handle(event(self.conn));
    }

    pub(super) fn logs_in(&mut self, name: &str, revision: u64) {
        let about = About { kind: Text::from("dummy"), id: Some(Id::AuthSpecial) };
        self.tells(|conn| Event::LoggedIn { conn, user: username(name), revision, about });
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
    /// Its place in [`KINDS`].
    pub(super) place: usize,
}

impl Handler<'_> {
    fn end(&mut self) -> &mut HandlerEnd {
        &mut self.world.handlers[self.place]
    }

    fn route(&self) -> RouteId {
        RouteId(self.place as u32)
    }

    pub(super) fn comes_up(&mut self) {
        self.end().generation += 1;
        self.end().asked.clear();
        let event = Event::HandlerUp(self.route(), Generation(self.end().generation));
        self.world.handle(event);
    }

    pub(super) fn dies(&mut self, reason: &str) {
        self.end().asked.clear();
        let generation = Generation(self.end().generation);
        self.world.handle(Event::HandlerDown { route: self.route(), generation, reason: reason.into() });
    }

    /// What it was asked and did not answer yet.
    pub(super) fn asked(&mut self) -> Vec<String> {
        let text = |packet: &Packet| String::from_utf8(packet.body().to_vec()).expect("UTF-8");
        self.end().asked.iter().map(|(_, packet)| text(packet)).collect()
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
        let (request, packet) = self.end().asked.remove(nth).expect("it was asked so much");
        let generation = self.end().generation;
        self.says(generation, Some(request), &in_reply_to(&packet, answer));
    }

    /// Writes a frame, asked or not.
    pub(super) fn says(&mut self, generation: u64, request: Option<RequestId>, text: &str) {
        let request = request.filter(|_| self.place == EACH);
        let answer = handler::parse(&Frame::from(text.as_bytes()), 100, 10);
        self.world.handle(Event::Answered { route: self.route(), generation: Generation(generation), request, answer });
    }

    pub(super) fn replaced(&mut self) -> Vec<String> {
        std::mem::take(&mut self.end().replaced)
    }
}
