//! `bester`: a server for the Bester protocol, a federated, pluggable message exchange.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod connection;
pub mod dispatcher;
pub mod frame;
pub mod handler;
pub mod listener;
pub mod logging;
pub mod name;
pub mod outlet;
pub mod password;
pub mod protocol;
pub mod server;
pub mod signals;
pub mod store;
mod sys;
pub mod thread;
pub mod transport;
