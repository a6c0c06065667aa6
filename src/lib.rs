//! `bester`: a server for the Bester protocol, a federated, pluggable message exchange.

pub mod config;
pub mod frame;
pub mod name;
pub mod protocol;
