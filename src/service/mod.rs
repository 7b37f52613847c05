//! Talks with the service manager, such as systemd: takes over the sockets that it has opened for the process (`LISTEN_FDS`), and
//! tells it whether the process is ready, serves, drains and lives (`NOTIFY_SOCKET`).
//!
//! Without a service manager both parts are empty, and nothing is done.

mod manager;
mod sockets;

pub use manager::{Manager, Phase};
pub use sockets::Sockets;
