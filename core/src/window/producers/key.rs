//! The key by which a window knows a producer.

use crate::window::Key;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The keyed digest of scope and producer: a [`Key`] of 96 bits, in 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProducerKey([u32; 3]);

impl ProducerKey {
    /// Makes it of a digest. The bits above 96 are not kept.
    #[expect(clippy::cast_possible_truncation, reason = "the parts are meant")]
    pub fn new(key: Key) -> ProducerKey {
        ProducerKey([key.0 as u32, (key.0 >> 32) as u32, (key.0 >> 64) as u32])
    }

    /// Returns the digest.
    #[inline]
    pub fn key(self) -> Key {
        let ProducerKey([low, middle, high]) = self;
        Key(u128::from(low) | u128::from(middle) << 32 | u128::from(high) << 64)
    }
}

impl Hash for ProducerKey {
    /// As a [`Key`], which is a digest already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.key().0);
    }
}

impl fmt::Debug for ProducerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:024x}", self.key().0)
    }
}
