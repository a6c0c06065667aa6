//! Messages to other servers: kept in their outboxes together with everything else of an answer, and then given to their
//! links.

use super::Dispatcher;
use super::answering::Tally;
use super::event::Effect;
use super::requests::{MessageKey, Sender};
use crate::frame::Slice;
use crate::protocol::handler::Names;
use crate::store::mail::{Author, Destination, Keep, Outgoing, Place};
use foldhash::HashSet;

/// What a frame has beside the data: names, ids and the words around them, each at its longest.
const AROUND_BYTES_MAX: usize = 2 << 10;

impl Dispatcher {
    /// A message to each of these servers.
    pub(super) fn send_servers<'a>(&mut self, key: MessageKey, names: &'a Names, data: &Slice, tally: &mut Tally<'a>) {
        let fits = data.len() + AROUND_BYTES_MAX <= self.settings.frame_bytes_server;
        let mut named: HashSet<Destination> = HashSet::default();
        for name in names {
            let Some(to) = self.peers.destination(name.as_str()) else {
                tally.unknown(name.as_str(), true);
                continue;
            };
            if !named.insert(to.clone()) {
                continue;
            }
            if fits { self.send_server(key, to, data, tally) } else { tally.refused(name.as_str()) }
        }
    }

    /// What is for the server that asked.
    pub(super) fn reply_to_server(&mut self, key: MessageKey, data: &Slice, tally: &mut Tally<'_>) {
        let Some(Sender::Server(_, abroad)) = self.messages.peek(key).map(|message| &message.sender) else { return };
        let remote = std::sync::Arc::clone(&abroad.remote);
        let fits = data.len() + AROUND_BYTES_MAX <= self.settings.frame_bytes_server;
        match remote.peer.filter(|peer| self.peers.name(*peer).is_some()) {
            Some(peer) if fits => self.send_server(key, Destination::Peer(peer), data, tally),
            Some(_) => tally.refused(&remote.name),
            // Nobody knows where it listens.
            None => tally.unknown_server(&remote.name),
        }
    }

    fn send_server(&mut self, key: MessageKey, to: Destination, data: &Slice, tally: &mut Tally<'_>) {
        let number = self.next_number();
        let Some(message) = self.messages.peek(key) else { return };
        let author = match &message.sender {
            Sender::Client(_, user) => {
                Some(Author { user: user.clone(), id: message.id.clone(), message_id: self.message_id(message.number).to_string().into() })
            }
            Sender::Server(..) | Sender::Handler => None,
        };
        tally.gathered.send(Outgoing {
            to,
            // Its own: several may go to one server because of the same message, and none of them is a repetition.
            message_id: self.message_id(number).to_string().into(),
            kind: self.routes.kind(tally.route).into(),
            data: data.clone(),
            hops: message.sender.hops() + 1,
            author,
        });
    }

    /// What is kept for other servers goes to their links.
    pub(super) fn forward(&self, keep: &Keep, places: &[Place], effects: &mut Vec<Effect>) {
        for (outgoing, place) in keep.sent(places) {
            if let (Place::Queued(seq), Some(peer)) = (place, self.peers.find(&outgoing.to)) {
                effects.push(Effect::Forward(peer, seq, std::sync::Arc::clone(outgoing)));
            }
        }
    }

    /// How a server is called in what handlers are told.
    pub(super) fn name_of(&self, to: &Destination) -> Option<String> {
        match to {
            Destination::Peer(peer) => self.peers.name(*peer).map(str::to_owned),
            Destination::Address(address) => Some(address.to_string()),
        }
    }
}
