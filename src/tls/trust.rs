//! What `rustls` is told to do on each side: TLS 1.2 and 1.3, no resumption, no early data, a provider that is named each
//! time, so that no other part of the process could put another in its place.

use super::verify::{AnyKey, Pinned};
use super::{Identity, Pin, TlsError};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// Whose word is taken for who a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A server with one of these keys is the right one; what its certificate says, and until when, does not matter.
    Pins(Vec<Pin>),
    /// The authorities that this machine trusts.
    System,
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// How a server answers handshakes: with this identity. It asks clients for a certificate, does without, and takes any whose
/// key is proven.
///
/// # Errors
/// The identity is of no use.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let clients = AnyKey::new(&provider);
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(identity.chain(), identity.key())?;
    // A session that is taken up again would keep the old identity alive, and proves a client's key to nobody.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How a client begins handshakes: whom it trusts, and who it is if it is asked.
///
/// # Errors
/// [`TlsError::NoRoots`]; or the identity is of no use.
pub fn client_config(trust: &Trust, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Pins(pins) => builder.dangerous().with_custom_certificate_verifier(Pinned::new(pins.clone(), &provider)),
        Trust::System => builder.with_root_certificates(system_roots()?),
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key())?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have one or the other that is too odd for us; all the others still count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots(why));
    }
    Ok(roots)
}
