//! Which containers are open: one bit each, so that any depth can be followed.

/// A stack of bits; the first 64 take no memory of their own.
#[derive(Default)]
pub(super) struct Nest {
    /// The innermost containers, the last one in the lowest bit.
    top: u64,
    /// How many of `top`'s bits are in use.
    top_bits: u32,
    /// What no longer fits in `top`, in full words. Empty for all but hostile input.
    rest: Vec<u64>,
}

impl Nest {
    /// How many containers are open.
    pub(super) fn depth(&self) -> usize {
        self.rest.len() * 64 + self.top_bits as usize
    }

    /// Whether another container would need memory.
    pub(super) fn is_full(&self) -> bool {
        self.top_bits == 64
    }

    /// Opens an object or an array.
    pub(super) fn open(&mut self, object: bool) {
        if self.top_bits == 64 {
            self.rest.push(self.top);
            self.top_bits = 0;
        }
        self.top = self.top << 1 | u64::from(object);
        self.top_bits += 1;
    }

    /// Whether the innermost open container is an object; nothing when none is open.
    pub(super) fn object(&self) -> Option<bool> {
        (self.top_bits > 0).then_some(self.top & 1 == 1)
    }

    /// Closes the innermost container.
    pub(super) fn close(&mut self) {
        self.top >>= 1;
        self.top_bits = self.top_bits.saturating_sub(1);
        if self.top_bits == 0
            && let Some(word) = self.rest.pop()
        {
            self.top = word;
            self.top_bits = 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_come_back_in_reverse(bits in prop::collection::vec(any::<bool>(), 0..700)) {
            let mut nest = Nest::default();
            for (depth, &bit) in bits.iter().enumerate() {
                prop_assert_eq!(nest.depth(), depth);
                nest.open(bit);
            }
            for (depth, &bit) in bits.iter().enumerate().rev() {
                prop_assert_eq!(nest.depth(), depth + 1);
                prop_assert_eq!(nest.object(), Some(bit));
                nest.close();
            }
            prop_assert_eq!(nest.object(), None);
        }
    }
}
