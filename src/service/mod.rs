//! What the service manager and the process say to each other: sockets that it has opened for the process, and whether the
//! process is ready, serves, drains and lives. systemd is one; others speak the same protocol (`NOTIFY_SOCKET`, `LISTEN_FDS`).
//!
//! Without a service manager both parts are empty, and nothing is done.

mod manager;
mod sockets;

pub use manager::{Manager, Phase};
pub use sockets::Sockets;
