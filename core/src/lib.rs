//! The core of Hapax: the protocol and the windows, without sockets, tasks, files or a clock.
//!
//! Bytes and `now` come in as arguments; outputs come out as values. This lets every test of the package run without a
//! broker and repeat exactly. The root package `hapax` has the sockets, the clock and the commands.
//!
//! * [`wire`]: AMQP frames as views over bytes, the search of a content header for the id, the frames that Hapax writes itself.
//! * [`window`]: what is remembered: ids with a TTL in a bounded store, and reservations for publishes in flight.
//! * [`pressure`]: what a window's events add up to: is it large enough, what escaped, how large it should be.
//! * [`session`]: one client connection paired with one upstream connection.
//!
//! Folders import only folders below them: `session` → `window` → `wire`, and `pressure` → `window`.

pub mod pressure;
pub mod session;
pub mod window;
pub mod wire;
