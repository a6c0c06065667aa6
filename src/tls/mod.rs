//! TLS: who we are, and who the other side proved to be.

mod pin;

pub use pin::{BadPin, Pin};
