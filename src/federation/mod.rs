//! Links to other servers: each peer has a thread that keeps a connection to it and sends what lies in its outbox.
//!
//! Start reading at `courier.rs`, which decides what a link does next, without a socket or a clock; `link.rs` is the thread around
//! it, with `wire.rs` for the connection, `single.rs` for peers that are connected to anew for each message, and `bell.rs` to
//! wake it. `links.rs` has all links together: it starts and ends them as peers come and go. `public.rs` says where a server may
//! be of which nothing is known, `invitation.rs` and `joining.rs` are how operators introduce servers to each other, and
//! `check.rs` tries each step on the way to a peer and says what to do about the one that fails. `introduction.rs` is what
//! connections of other servers need from here: to be let in with an invitation, and to be looked at from this side.
//!
//! What other servers send comes in as clients' messages do, through `listener` and `connection`: it is none of this room.

mod bell;
pub mod check;
pub mod courier;
#[cfg(test)]
pub(crate) mod fake;
pub mod introduction;
pub mod invitation;
pub mod joining;
mod link;
pub mod links;
pub mod public;
#[cfg(test)]
mod simulation;
mod single;
mod wire;

pub use wire::Ours;
