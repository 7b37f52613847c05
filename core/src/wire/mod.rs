//! The wire: AMQP 0-9-1 frames as views over bytes that somebody else owns.
//!
//! Nothing here copies a payload or knows a connection. [`frame`] finds where frames begin and end, [`method`] reads
//! the few methods of the hot path in place, [`properties`] walks a content header to the deduplication id,
//! [`emit`] writes the frames that Hapax itself originates. Every other method goes through `amq-protocol`.

#![deny(clippy::indexing_slicing)]

pub mod emit;
pub mod frame;
pub mod method;
pub mod properties;
mod reader;

pub use frame::{ChannelId, Frame, FrameKind, WireError, scan};
pub use properties::{ContentHeader, IdSource};
