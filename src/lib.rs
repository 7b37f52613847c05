//! Hapax: an AMQP 0-9-1 relay that takes out the publishes whose message-id RabbitMQ has already stored.
//!
//! The map of the crate, from the wire up. Dependency runs one way: `main` → [`net`], [`admin`] → [`session`] →
//! [`wire`], [`window`]; [`pressure`] listens to [`window`].
//!
//! * [`wire`]: frames as views over bytes, the walk over a content header to the id, the frames we originate.
//! * [`window`]: what is remembered: keys with a TTL in a bounded store, and reservations for what is in flight.
//! * [`pressure`]: what a window's events add up to: is it large enough, what did it cost that it was not, what to set.
//! * [`session`]: one client paired with one upstream connection: the whole protocol, without a socket or a clock.
//! * [`net`]: the one place with sockets and the clock.
//! * [`stats`]: what the process counts beside its windows.
//! * [`log`]: the process's own log, which nobody waits for and nobody can forge.
//! * [`admin`]: HTTP: metrics, health, the API, the dashboard.
//! * [`cli`]: what to do, and what is said over the configuration file.
//! * [`config`]: what the user asked for, checked once; after that nothing is "maybe".
//! * [`simulate`]: how large, how long? Traces through the real engines, before anybody deploys anything.
//! * [`mod@bench`]: a load for any AMQP 0-9-1 broker, and a broker that costs nothing, to measure what stands between.
//! * [`terminal`]: the operator's commands: a client of a running relay's HTTP API, and no part of the relay.
//! * [`demo`]: the relay at work before a newcomer's eyes; its private RabbitMQ node serves the end-to-end tests, too.

pub mod admin;

pub mod cli;
pub mod config;

pub mod log;
pub mod net;

pub mod stats;
pub mod tools;
