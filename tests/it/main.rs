//! The whole server, as its users see it: real processes, real sockets, real handlers. One file for each behaviour.

#![allow(unreachable_pub, reason = "nothing outside could reach a test")]

mod demo;
mod smoke;
mod tidy;
mod world;
