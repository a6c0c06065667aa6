//! The stand-in for a handler's informer: it knows one user, and no push of it reaches anybody.
//!
//! Its socket lies in a directory of its own, for the owner alone. A thread accepts and each connection has one; they
//! end with the handler, or with this process.

use super::Event;
use super::words::fate;
use crate::config::Offline;
use crate::connection::informer::read_questions;
use crate::frame::{Frame, Packet};
use crate::name::Username;
use crate::protocol::{handler, informer, report};
use crate::transport::{Acceptor, Socket, SocketReader};
use crossbeam_channel::Sender;
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STACK_BYTES: usize = 128 << 10;
/// Nesting of a question's argument.
const DEPTH_MAX: usize = 16;
/// Before the numbers of pushes.
pub(super) const PUSH_PREFIX: &str = "push-";

/// It is gone when this is.
pub(super) struct StandIn {
    directory: PathBuf,
    acceptor: Option<Acceptor>,
}

/// What it must know.
#[derive(Clone)]
pub(super) struct Knows {
    pub(super) user: Username,
    /// `admin.info` of the configuration.
    pub(super) admin_info: String,
    pub(super) frame_bytes_max: usize,
    pub(super) depth_max: usize,
    pub(super) recipients_max: usize,
    /// What is configured.
    pub(super) offline: Offline,
    /// Who tells of pushes.
    pub(super) events: Sender<Event>,
    pub(super) pushes: Arc<AtomicU64>,
}

impl StandIn {
    pub(super) fn start(knows: Knows) -> io::Result<StandIn> {
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(io::Error::other)?;
        let directory = std::env::temp_dir().join(format!("bester-handler-run-{:016x}", u64::from_le_bytes(unique)));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let mut stand_in = StandIn { directory, acceptor: None };
        let serve = move |stream| {
            let knows = knows.clone();
            // Without a thread the handler sees its connection closed.
            let _ = crate::thread::spawn("informer", STACK_BYTES, move || knows.serve(stream));
        };
        stand_in.acceptor = Some(Acceptor::start("informer".into(), STACK_BYTES, &stand_in.path(), serve)?);
        Ok(stand_in)
    }

    pub(super) fn path(&self) -> PathBuf {
        Path::new(&self.directory).join("informer.sock")
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop();
        }
        let _ = fs::remove_dir(&self.directory); // what it cannot remove is an empty directory for temporary files
    }
}

impl Knows {
    fn serve(&self, stream: UnixStream) {
        let Ok(mut output) = stream.try_clone() else { return };
        read_questions(SocketReader::new(Arc::new(Socket::Unix(stream))), self.frame_bytes_max, |frame| {
            let (packet, more) = match informer::parse(frame, DEPTH_MAX.max(self.depth_max)) {
                Ok(question) => (self.answer(&question), question.kind.bytes() != b"quit"),
                Err(words) => (informer::failure(&words), false),
            };
            packet.parts().iter().all(|part| output.write_all(part).is_ok()) && more
        });
    }

    fn answer(&self, question: &informer::Question) -> Packet {
        let name = self.user.as_str();
        let data = match (question.kind.as_str(), &question.data) {
            ("listClients" | "watchClients", _) => json!([name]),
            ("sessions", _) => json!([{ "user": name, "session": super::SESSION }]),
            ("quit", _) => json!(null),
            ("serverInfo", _) => {
                let info: serde_json::Value = serde_json::from_str(&self.admin_info).unwrap_or_default();
                json!({ "clientCount": "1", "adminInfo": info, "listeners": {} })
            }
            ("isClient", Some(data)) => match informer::text(data) {
                Ok(asked) => json!(asked.as_str() == name),
                Err(words) => return informer::failure(&words),
            },
            ("push", Some(data)) => return self.push(&Frame::from(data.bytes())),
            ("isClient" | "push", None) => return informer::failure("command.data is missing"),
            (other, _) => return informer::failure(&format!("there is no question {other}")),
        };
        informer::success(data.to_string().as_bytes())
    }

    fn push(&self, frame: &Frame) -> Packet {
        let number = self.pushes.fetch_add(1, Ordering::Relaxed) + 1;
        let read = handler::parse(frame, self.depth_max, self.recipients_max);
        let packet = match &read {
            Ok(answer) => {
                let (counts, missed) = fate(&answer.outcome, self.user.as_str(), false, self.offline);
                let names = json!({ "offline": missed.offline, "unknown": missed.unknown, "refused": missed.refused });
                let data = json!({
                    "messageId": format!("{PUSH_PREFIX}{number}"),
                    "delivered": counts.delivered, "queued": counts.queued, "offline": counts.offline, "unknown": counts.unknown_servers,
                    "refused": 0, "names": names,
                });
                informer::success(data.to_string().as_bytes())
            }
            Err(wrong) => informer::failure(&wrong.message),
        };
        // Before the answer, so that it is shown before whatever follows from that.
        let _ = self.events.send(Event::Pushed(frame.clone(), read.map(|answer| answer.outcome)));
        packet
    }
}

/// What became of an answer with an id, for the handler.
pub(super) fn outcome(
    kind: &str,
    id: crate::frame::Slice,
    message_id: report::MessageId<'_>,
    user: &str,
    asked: bool,
    offline: Offline,
    outcome: &handler::Outcome,
) -> Packet {
    let (counts, missed) = fate(outcome, user, asked, offline);
    report::outcome_for_handler(kind, &report::Id::Client(id), message_id, &counts, &missed)
}
