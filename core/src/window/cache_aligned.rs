//! Alignment for values that several threads write often.

use std::ops::Deref;

/// A value alone on its cache line, and alone on the pair of lines that a processor fetches together. A thread that writes to
/// it takes no other value away from the other threads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CacheAligned<T>(pub(crate) T);

impl<T> Deref for CacheAligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
