//! The wire: what the bytes of a frame mean. No I/O, no threads, no state.
//!
//! Frames are taken apart by one scan of our own (`json.rs` for the syntax, `fields.rs` for objects) that looks at
//! each byte once, needs no stack, and gives ranges of the frame instead of copies; `data` in particular is never
//! decoded, so that it goes out byte for byte as it came in. What is read: `client.rs` (a message), `builtin.rs` (a
//! command to the server itself), `server.rs` (a message of another server, and how one is written), `handler.rs` (an answer),
//! `informer.rs` (a question of a handler). What is written: `report.rs`, and `envelope.rs`, which `request.rs` reads in handlers that are written in Rust.

pub mod builtin;
pub mod client;
mod envelope;
mod fields;
mod grammar;
pub mod handler;
pub mod informer;
pub mod json;
mod nest;
pub mod reason;
pub mod report;
pub mod request;
pub mod server;
pub mod text;
