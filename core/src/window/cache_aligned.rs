//! What threads write often, kept from lying beside anything else.

use std::ops::Deref;

/// Alone on its cache line, and on the pair of lines that a processor fetches together: who writes to it takes nothing else
/// away from the other threads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
