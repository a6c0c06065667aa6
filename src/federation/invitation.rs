//! The two texts by which operators introduce servers to each other: a card says who a server is and where, and an invitation
//! is a card with a secret, by which one server lets one other in, once.
//!
//! ```text
//! bester-peer/1/NAME/HOST:PORT/PIN
//! bester-join/1/NAME/HOST:PORT/PIN/SECRET/UNTIL
//! ```

use crate::name::{BadName, ServerName};
use crate::store::mail::Digest;
use crate::tls::{BadPin, Pin};
use crate::transport::{BadHostPort, HostPort};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// What a card begins with.
const CARD: &str = "bester-peer";
/// What an invitation begins with.
const INVITATION: &str = "bester-join";
/// Of both.
const VERSION: &str = "1";
const SECRET_BYTES: usize = 16;

/// Who a server is, where it listens, and by which key it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub server: ServerName,
    /// Where other servers reach it.
    pub address: HostPort,
    /// Its key.
    pub pin: Pin,
}

/// What one server gives another, by way of their operators, so that this one may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The server that invites.
    pub card: Card,
    /// What shows that the other one was invited.
    pub secret: Secret,
    /// Until when it is good, in seconds since 1970.
    pub until: u64,
}

/// 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What is wrong with a card or an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadToken {
    /// It is something else.
    Other {
        /// What it should be.
        wanted: &'static str,
    },
    /// It is the other one of the two, ...
    Swapped {
        /// ... and this is the command for it.
        command: &'static str,
    },
    /// A newer version has written it.
    Version(String),
    /// It has too few or too many parts; probably it was not copied as a whole.
    Parts {
        /// So many.
        found: usize,
        /// And not so many.
        wanted: usize,
    },
    /// Its name is none.
    Name(BadName),
    /// Its address is none.
    Address(BadHostPort),
    /// Its pin is none.
    Pin(BadPin),
    /// Its secret is none.
    Secret,
    /// Its end is no time.
    Until,
}

impl Secret {
    /// A new one, that nobody can guess.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> Result<Secret, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Secret(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is kept.
    pub fn digest(&self) -> Digest {
        secret_digest(self.0.as_bytes())
    }
}

/// What the database keeps of a secret, as another server sent it.
pub fn secret_digest(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

/// Whoever has it may join.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CARD}/{VERSION}/{}/{}/{}", self.server, self.address, self.pin)
    }
}

/// With its secret.
impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Card { server, address, pin } = &self.card;
        write!(f, "{INVITATION}/{VERSION}/{server}/{address}/{pin}/{}/{}", self.secret.as_str(), self.until)
    }
}

impl FromStr for Card {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Card, BadToken> {
        let [server, address, pin] = parts(text, CARD)?;
        card(server, address, pin)
    }
}

impl FromStr for Invitation {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Invitation, BadToken> {
        let [server, address, pin, secret, until] = parts(text, INVITATION)?;
        let card = card(server, address, pin)?;
        if secret.len() != 2 * SECRET_BYTES || !secret.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(BadToken::Secret);
        }
        let digits = until.bytes().all(|b| b.is_ascii_digit());
        let until = until.parse().ok().filter(|_| digits).ok_or(BadToken::Until)?;
        Ok(Invitation { card, secret: Secret(secret.to_owned()), until })
    }
}

fn card(server: &str, address: &str, pin: &str) -> Result<Card, BadToken> {
    Ok(Card {
        server: ServerName::new(server).map_err(BadToken::Name)?,
        address: address.parse().map_err(BadToken::Address)?,
        pin: pin.parse().map_err(BadToken::Pin)?,
    })
}

/// The parts behind the kind and the version.
fn parts<'a, const N: usize>(text: &'a str, kind: &'static str) -> Result<[&'a str; N], BadToken> {
    let other =
        || BadToken::Other { wanted: if kind == CARD { "a card (bester-peer/1/...)" } else { "an invitation (bester-join/1/...)" } };
    let mut parts = text.split('/');
    match parts.next() {
        Some(found) if found == kind => {}
        Some(INVITATION) => return Err(BadToken::Swapped { command: "this is an invitation: bester peer join takes it" }),
        Some(CARD) => return Err(BadToken::Swapped { command: "this is a card: bester peer add takes it" }),
        _ => return Err(other()),
    }
    match parts.next() {
        Some(VERSION) => {}
        Some(version) => return Err(BadToken::Version(version.to_owned())),
        None => return Err(other()),
    }
    let parts: Vec<&str> = parts.collect();
    let found = parts.len() + 2;
    parts.try_into().map_err(|_| BadToken::Parts { found, wanted: N + 2 })
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadToken::Other { wanted } => write!(f, "this is not {wanted}"),
            BadToken::Swapped { command } => f.write_str(command),
            BadToken::Version(version) => write!(f, "it was written by a newer version ({version:?}): update this one"),
            BadToken::Parts { found, wanted } => write!(f, "it has {found} parts between slashes instead of {wanted}: copy it as a whole"),
            BadToken::Name(error) => error.fmt(f),
            BadToken::Address(error) => error.fmt(f),
            BadToken::Pin(error) => write!(f, "{error}: copy all of it"),
            // Never the text itself.
            BadToken::Secret => f.write_str("its secret is not 32 hexadecimal digits: copy all of it"),
            BadToken::Until => f.write_str("its last part is not a time in seconds: copy all of it"),
        }
    }
}

impl std::error::Error for BadToken {}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
    const SECRET: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn both_are_read_as_they_are_written() {
        for address in ["a.example:2224", "[2a00::1]:1"] {
            let card = format!("bester-peer/1/a.example/{address}/{PIN}");
            assert_eq!(card.parse::<Card>().map(|card| card.to_string()).as_deref(), Ok(&*card));
            let invitation = format!("bester-join/1/a.example/{address}/{PIN}/{SECRET}/1790000000");
            let read: Invitation = invitation.parse().expect("an invitation");
            assert_eq!((read.to_string(), read.card.to_string()), (invitation, card));
            assert_eq!(read.until, 1_790_000_000);
            assert!(!format!("{read:?}").contains("0011"), "{read:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let words = |text: &str| text.parse::<Invitation>().map_err(|error| error.to_string()).expect_err(text);
        let good = format!("bester-join/1/a.example/a.example:2224/{PIN}/{SECRET}/1790000000");
        for (text, expected) in [
            ("", "not an invitation"),
            ("bester-join", "not an invitation"),
            ("hello/1/x", "not an invitation"),
            (&good.replace("/1/", "/2/"), "newer version (\"2\")"),
            (&good.replace("/1790000000", ""), "6 parts between slashes instead of 7"),
            (&format!("{good}/"), "8 parts"),
            (&good.replace("a.example/", "a example/"), "a server name has"),
            (&good.replace(":2224", ""), "HOST:PORT"),
            (&good.replace("2c70", "2c7"), "64 hexadecimal digits"),
            (&good.replace("eeff", "eef"), "32 hexadecimal digits"),
            (&good.replace("eeff", "EEFF"), "32 hexadecimal digits"),
            (&good.replace("1790000000", "+1"), "time in seconds"),
            (&good.replace("1790000000", ""), "time in seconds"),
            (&format!("bester-peer/1/a.example/a.example:2224/{PIN}"), "bester peer add takes it"),
        ] {
            let words = words(text);
            assert!(words.contains(expected) && !words.contains("0011"), "{text}: {words}");
        }
        assert!(good.parse::<Card>().expect_err("an invitation").to_string().contains("bester peer join takes it"));
    }

    #[test]
    fn a_secret_is_kept_as_the_digest_of_what_is_sent() {
        let (one, two) = (Secret::random().expect("a secret"), Secret::random().expect("a secret"));
        assert_ne!(one, two);
        assert_eq!(one.digest(), secret_digest(one.as_str().as_bytes()));
        let text = format!("bester-join/1/a/a:1/{PIN}/{}/1", one.as_str());
        assert_eq!(text.parse::<Invitation>().map(|read| read.secret), Ok(one));
    }
}
