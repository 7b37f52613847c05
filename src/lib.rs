//! Hapax: an AMQP 0-9-1 relay that takes out the publishes whose message-id RabbitMQ has already stored.
//!
//! The protocol and the windows are in the package [`hapax_core`], which has no sockets and no clock. This crate is the
//! shell around it. No module imports one that stands above it here (`tests/layers.rs` checks it):
//!
//! ```text
//! main, run          the process: signals, listeners, exit codes
//! cli                the command line
//! tools              bench, demo, simulate, record, terminal; only with the cargo feature `tools`
//! admin              HTTP: metrics, health, API, dashboard
//! live               the configuration in force, and how a new one takes its place
//! store              the windows, and the stores that outlive the process
//! net                the sockets of clients and of the broker; the clock is read here
//! chaos              trouble that an operator asks for
//! signals            what is said of dropped publishes, beside the answer to their publisher
//! config             the file, the flags and the environment, checked once
//! tls                the settings of TLS, made from files with certificates
//! log stats process accept clock bounded_file private_file service   what all of them may use
//! ```
//!
//! A publish comes in by [`net`], which hands the bytes to a [`hapax_core::session::Session`] and carries out what the
//! session answers. [`admin`] shows what the windows, [`stats`] and [`net`] count.

mod accept;
pub mod admin;
mod bounded_file;
pub mod chaos;
pub mod cli;
pub mod clock;
pub mod config;
pub mod live;
pub mod log;
pub mod net;
mod private_file;
pub mod process;
pub mod service;
pub mod signals;
pub mod stats;
pub mod store;
pub mod tls;
#[cfg(feature = "tools")]
pub mod tools;
