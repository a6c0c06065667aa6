//! What a key is known by.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// The SHA-256 of a public key (of its `SubjectPublicKeyInfo`, in DER, as it stands in a certificate). Certificates of the
/// same key have the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

/// A text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPin;

impl Pin {
    /// Of a public key.
    pub fn of(subject_public_key_info: &[u8]) -> Pin {
        Pin(Sha256::digest(subject_public_key_info).into())
    }
}

impl FromStr for Pin {
    type Err = BadPin;

    /// 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Pin, BadPin> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadPin);
        }
        let mut pin = [0; 32];
        for (byte, place) in pin.iter_mut().zip(0..) {
            let digits = text.get(2 * place..2 * place + 2).ok_or(BadPin)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadPin)?;
        }
        Ok(Pin(pin))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BadPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pin is 64 hexadecimal digits")
    }
}

impl std::error::Error for BadPin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_as_it_is_read() {
        let pin = Pin::of(b"key");
        let text = pin.to_string();
        assert_eq!(text, "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683");
        assert_eq!(text.parse(), Ok(pin));
        assert_eq!(text.to_uppercase().parse(), Ok(pin));
        for bad in ["", "2c", &text[1..], &format!("{text}0"), &text.replace('2', "g"), &text.replace('2', "ä")] {
            assert_eq!(bad.parse::<Pin>(), Err(BadPin), "{bad}");
        }
    }
}
