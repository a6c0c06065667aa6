//! [`Text`]: what a JSON string says.

use crate::frame::Slice;
use std::fmt;

/// A JSON string, decoded. Without escapes it is a range of its frame; only otherwise a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Slice);

impl Text {
    /// A text whose bytes, without quotes and escapes, are these. Bytes that are not UTF-8 make an empty text.
    pub fn shared(bytes: Slice) -> Text {
        Text(bytes)
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        // The scan of the frame has found them to be UTF-8; the bytes are few, so looking again costs little.
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// The text in UTF-8, for where it is only compared and looked up.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(Slice::from(text.as_bytes()))
    }
}

/// It may be a password, so only its length is printed.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_and_owned_texts_are_the_same_but_to_debug() {
        let shared = Text::shared(Slice::from("hunter2ä".as_bytes()));
        assert_eq!(shared, Text::from("hunter2ä"));
        assert_ne!(shared, Text::from("hunter2a"));
        assert_eq!(format!("{shared:?}"), "Text(9 bytes)");
        assert_eq!(format!("{:?}", Text::from("hunter2")), "Text(7 bytes)");
    }
}
