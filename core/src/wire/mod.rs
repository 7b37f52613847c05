//! The wire format: AMQP 0-9-1 frames as views over bytes in a buffer that somebody else owns.
//!
//! Nothing here copies a payload or knows a connection. [`frame`] finds where frames begin and end. [`method`] reads
//! the few methods of the hot path in place, and [`consuming`] those about consumers. [`properties`] finds the deduplication id in a content header. [`emit`]
//! writes the frames that Hapax itself sends. All other methods go through `amq-protocol`.

#![deny(clippy::indexing_slicing)]

mod bad_headers;
pub mod consuming;
mod death;
pub mod emit;
mod extra_keys;
mod field;
mod forms;
pub mod frame;
pub mod method;
pub mod names;
pub mod properties;
mod reader;
mod sequence;
pub mod trace_parent;

pub use bad_headers::{BadHeader, BadHeaders};
pub use death::Death;
pub use frame::{ChannelId, Frame, FrameKind, WireError, scan};
pub use properties::{ContentHeader, IdPart, IdSource};
pub use sequence::Sequence;
