//! A certificate and its key: read from PEM files that nobody else may change or, of the key, read; or made for ourselves.

use super::Pin;
use super::trust::provider;
use super::verify::pin_of;
use crate::name::ServerName;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a server makes for itself lies under these names in its state directory.
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
/// A longer file is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;
const NO_PEM: &str = "it is damaged, or no PEM";

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The certificate, or a chain of them with the server's own first; PEM.
    pub certificate: PathBuf,
    /// The key; PEM.
    pub key: PathBuf,
}

impl Paths {
    /// Where a server's own are, which it made.
    pub fn own(state_directory: &Path) -> Paths {
        Paths { certificate: state_directory.join(CERTIFICATE), key: state_directory.join(KEY) }
    }
}

/// A certificate with its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: Pin,
}

/// Why there is no certificate with a key.
#[derive(Debug)]
pub struct IdentityError {
    /// The file or directory in question.
    pub path: PathBuf,
    /// What is wrong with it.
    pub flaw: IdentityFlaw,
}

/// What can be wrong with the file of a certificate or a key.
#[derive(Debug)]
pub enum IdentityFlaw {
    /// It cannot be read or written.
    Io(io::Error),
    /// It belongs to somebody who is neither root nor the user that we run as.
    Foreign {
        /// The owner's number.
        owner: u32,
        /// Ours.
        us: u32,
    },
    /// Others may read the key; these are its permission bits.
    Exposed(u32),
    /// It is longer than anything that we would expect there.
    TooLong,
    /// It has no certificate, or no key, in PEM.
    Without(&'static str),
    /// What is in it is of no use to us.
    Unusable(String),
    /// The key does not belong to the certificate in this file.
    Mismatch(PathBuf),
    /// There is a certificate, and its key, which would be here, is gone.
    NoKey(PathBuf),
    /// Nothing could be made.
    NotMade(String),
}

impl Identity {
    /// Reads a certificate, or a chain of them, and its key.
    ///
    /// # Errors
    /// They are missing, exposed, no PEM, not for each other, or of a kind that we cannot use.
    pub fn load(paths: &Paths) -> Result<Identity, IdentityError> {
        let fault = |path: &Path, flaw| IdentityError { path: path.to_owned(), flaw };
        let unusable = |path: &Path, why: &dyn fmt::Display| fault(path, IdentityFlaw::Unusable(why.to_string()));
        let Paths { certificate, key } = paths;
        let text = read(certificate, None)?;
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| unusable(certificate, &NO_PEM))?;
        let first = chain.first().ok_or_else(|| fault(certificate, IdentityFlaw::Without("certificate")))?;
        let pin = pin_of(first).map_err(|why| unusable(certificate, &why))?;
        let mut text = read(key, Some(guard))?;
        let parsed = PrivateKeyDer::from_pem_slice(&text);
        text.fill(0);
        let secret = parsed.map_err(|why| match why {
            rustls::pki_types::pem::Error::NoItemsFound => fault(key, IdentityFlaw::Without("key")),
            _ => unusable(key, &NO_PEM), // some of the errors quote what is in it
        })?;
        match CertifiedKey::from_der(chain.clone(), secret.clone_key(), &provider()) {
            Ok(_) => Ok(Identity { chain, key: secret, pin }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(fault(key, IdentityFlaw::Mismatch(certificate.clone()))),
            Err(why) => Err(unusable(key, &why)),
        }
    }

    /// Reads what a server called `name` made for itself in its state directory, and makes what is missing, the directory
    /// too. A certificate that is gone is made anew for the key that is there: others know the key.
    ///
    /// # Errors
    /// As of [`Identity::load`]; there is a certificate without its key; or something cannot be written.
    pub fn own(state_directory: &Path, name: &ServerName) -> Result<Identity, IdentityError> {
        let paths = Paths::own(state_directory);
        let Paths { certificate, key } = &paths;
        if let Some(there) = Identity::look_for_own(state_directory) {
            return there;
        }
        if !key.exists() {
            let made = KeyPair::generate().map_err(|why| not_made(key, &why))?;
            publish(state_directory, key, 0o600, made.serialize_pem())?;
        }
        if !certificate.exists() {
            // From the disk: another process may have been faster.
            let text = read(key, Some(guard))?;
            let pair = std::str::from_utf8(&text).map_err(|why| not_made(certificate, &why));
            let pair = pair.and_then(|text| KeyPair::from_pem(text).map_err(|why| not_made(certificate, &why)))?;
            let made = self_signed(name, &pair).map_err(|why| not_made(certificate, &why))?;
            publish(state_directory, certificate, 0o644, made)?;
        }
        Identity::load(&paths)
    }

    /// Reads what a server made for itself; `None` if [`Identity::own`] would make something.
    pub fn look_for_own(state_directory: &Path) -> Option<Result<Identity, IdentityError>> {
        let paths = Paths::own(state_directory);
        match (paths.key.exists(), paths.certificate.exists()) {
            (true, true) => Some(Identity::load(&paths)),
            (false, true) => Some(Err(IdentityError { path: paths.key, flaw: IdentityFlaw::NoKey(paths.certificate) })),
            (_, false) => None,
        }
    }

    /// What others know the key by.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// Whether the certificate's time is over, or has not come. Who goes by the pin does not care; who goes by authorities
    /// does not connect any longer.
    pub fn is_out_of_date(&self) -> bool {
        let out_of_date = || -> Option<bool> {
            let (first, rest) = self.chain.split_first()?;
            let mut roots = RootCertStore::empty();
            roots.add(self.chain.last()?.clone()).ok()?;
            let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
            // The time is looked at first of all, and it is all that we ask for.
            let name = "localhost".try_into().ok()?;
            let verdict = judge.verify_server_cert(first, rest, &name, &[], UnixTime::now());
            use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
            Some(matches!(
                verdict,
                Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }))
            ))
        };
        out_of_date().unwrap_or(false)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.pin)
    }
}

fn not_made(path: &Path, why: &dyn fmt::Display) -> IdentityError {
    IdentityError { path: path.to_owned(), flaw: IdentityFlaw::NotMade(why.to_string()) }
}

/// A certificate for a server of this name, and for this machine.
fn self_signed(name: &ServerName, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    // A name may also be one that no certificate could have, with a colon in it; then it stands in the subject alone.
    if !names.iter().any(|known| known == name.as_str()) && rustls::pki_types::ServerName::try_from(name.as_str()).is_ok() {
        names.insert(0, name.to_string());
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    Ok(params.self_signed(key)?.pem())
}

/// Writes a file that was not there, whole or not at all. If somebody else was faster, that one stays.
fn publish(directory: &Path, path: &Path, mode: u32, text: String) -> Result<(), IdentityError> {
    let written = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(io::Error::other)?;
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{:016x}", u64::from_le_bytes(number)));
        let new = PathBuf::from(new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        let filled = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let linked = filled.and_then(|()| match fs::hard_link(&new, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result,
        });
        fs::remove_file(&new)?;
        linked?;
        File::open(directory)?.sync_all()
    };
    let result = written().map_err(|error| IdentityError { path: path.to_owned(), flaw: IdentityFlaw::Io(error) });
    let mut bytes = text.into_bytes();
    bytes.fill(0); // of a key nothing is left behind
    result
}

type Guard = fn(&fs::Metadata) -> Result<(), IdentityFlaw>;

fn read(path: &Path, guard: Option<Guard>) -> Result<Vec<u8>, IdentityError> {
    let read = || -> Result<Vec<u8>, IdentityFlaw> {
        let file = File::open(path).map_err(IdentityFlaw::Io)?;
        // Of what was opened, not of what is there by now.
        let known = file.metadata().map_err(IdentityFlaw::Io)?;
        guard.map_or(Ok(()), |guard| guard(&known))?;
        if known.len() > FILE_BYTES_MAX {
            return Err(IdentityFlaw::TooLong);
        }
        // At once, so that no copy of a key is left behind when it grows.
        let mut bytes = Vec::with_capacity(known.len() as usize + 1);
        file.take(known.len()).read_to_end(&mut bytes).map_err(IdentityFlaw::Io)?;
        Ok(bytes)
    };
    read().map_err(|flaw| IdentityError { path: path.to_owned(), flaw })
}

/// Whoever has the key can pass for us.
fn guard(known: &fs::Metadata) -> Result<(), IdentityFlaw> {
    judge(known.uid(), known.mode() & 0o777, rustix::process::geteuid().as_raw())
}

fn judge(owner: u32, mode: u32, us: u32) -> Result<(), IdentityFlaw> {
    if owner != us && owner != 0 {
        return Err(IdentityFlaw::Foreign { owner, us });
    }
    // A group that may read it is how root gives a key to the server's user.
    let forbidden = if owner == us { 0o077 } else { 0o037 };
    if mode & forbidden != 0 { Err(IdentityFlaw::Exposed(mode)) } else { Ok(()) }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.flaw)?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl IdentityError {
    /// After `sysexits.h`: 69 a file is not there, 77 it may not be read, or others may, 78 it is of no use.
    pub fn exit_code(&self) -> u8 {
        match &self.flaw {
            IdentityFlaw::Io(error) if error.kind() != ErrorKind::PermissionDenied => 69,
            IdentityFlaw::Io(_) | IdentityFlaw::Foreign { .. } | IdentityFlaw::Exposed(_) => 77,
            _ => 78,
        }
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        let path = self.path.display();
        match &self.flaw {
            IdentityFlaw::Exposed(_) => Some(format!("run: chmod 0600 {path}")),
            IdentityFlaw::Foreign { .. } => Some("give it to the server's user with chown".to_owned()),
            IdentityFlaw::NoKey(certificate) => {
                Some(format!("put it back, or remove {} too to have both made anew", certificate.display()))
            }
            IdentityFlaw::Mismatch(_) => Some("put both from the same place there".to_owned()),
            _ => None,
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.flaw {
            IdentityFlaw::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for IdentityFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityFlaw::Io(error) => error.fmt(f),
            IdentityFlaw::Foreign { owner, us } => write!(f, "belongs to user {owner}, and we are user {us}"),
            IdentityFlaw::Exposed(mode) => write!(f, "the key is open to other users (mode {mode:04o})"),
            IdentityFlaw::TooLong => write!(f, "has more than {FILE_BYTES_MAX} bytes"),
            IdentityFlaw::Without(what) => write!(f, "has no {what} in PEM"),
            IdentityFlaw::Unusable(why) => write!(f, "is of no use: {why}"),
            IdentityFlaw::Mismatch(certificate) => write!(f, "is not the key of the certificate in {}", certificate.display()),
            IdentityFlaw::NoKey(certificate) => write!(f, "is gone, and the certificate {} is still there", certificate.display()),
            IdentityFlaw::NotMade(why) => write!(f, "cannot be made: {why}"),
        }
    }
}

#[cfg(test)]
mod tests;
