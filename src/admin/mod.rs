//! What the operator's commands tell a running server, and how.

pub mod control;
pub mod reload;
