//! TLS: who we are, and who the other side proved to be.

mod pin;

pub use pin::{BadPin, Pin};

use sha2::{Digest, Sha256};

/// The SHA-256 of a secret: what is kept of it.
pub fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
