//! What a window's events add up to.
//!
//! It listens to [`crate::window`] and knows nothing of sessions. [`Accounting`] counts; how full, how fast and how large a
//! window ought to be is not judged here yet.

mod accounting;

pub use accounting::Accounting;
