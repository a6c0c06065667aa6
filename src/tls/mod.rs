//! TLS: who we are, who the other side proved to be, and whom we trust.
//!
//! `identity.rs` has a certificate with its key: from files, or made; `shared.rs` is the one that a running server uses,
//! which may change while it runs. `trust.rs` makes what `rustls` needs for each side of a connection, with the judges
//! in `verify.rs`. Bytes are moved by [`crate::transport::TlsSocket`]; nothing here touches a socket.
//!
//! A key is known by its [`Pin`], whatever its certificate says; and whoever presents a certificate has to prove by a
//! signature that the key is his, always.

mod error;
mod identity;
mod pin;
mod shared;
mod trust;
mod verify;

pub use error::TlsError;
pub use identity::{Identity, IdentityError, IdentityFlaw, Paths};
pub use pin::{BadPin, Pin};
pub use shared::{Shared, Turn};
pub use trust::{Trust, client_config, server_config};
pub(crate) use verify::pin_of;

use sha2::{Digest, Sha256};

/// The SHA-256 of a secret: what is kept of it.
pub fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
