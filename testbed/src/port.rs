//! Ports of the loopback for processes that are about to start.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Ports that this process has given out: two tests that start at the same time must not be given the same one.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns a port that nobody listens on, and that this process has not given out before.
///
/// It lies below 32768, where the kernel takes ports of outgoing connections from: a node that is restarted wants its own
/// port back.
pub fn free_port() -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0_u32..200 {
        let random = RandomState::new().hash_one(attempt) % 20_000;
        let port = 11_000 + u16::try_from(random).unwrap_or_default();
        if given.contains(&port) {
            continue;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => {
                given.insert(port);
                return Ok(port);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<_> = (0..500).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 500);
        assert!(ports.iter().all(|port| (11_000..31_000).contains(port)), "{ports:?}");
    }
}
