//! How many connections the limit of open files allows.

use rustix::process::{Resource, getrlimit};

/// Files of a relay that are not for its connections.
const OTHER: u64 = 200;

/// Returns how many files a process may open.
pub(super) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns how many of the `wanted` connections a relay can have. It opens two files for each, and has the same limit as this process.
pub(super) fn connections(wanted: u64) -> u64 {
    wanted.min(limit().saturating_sub(OTHER) / 2)
}
