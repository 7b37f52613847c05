//! The listening sockets that the service manager has opened and passed on (`LISTEN_FDS`, sd_listen_fds(3)). They stay open while the
//! process is started again: who connects meanwhile waits, and is not refused.

use listenfd::ListenFd;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Sockets that were passed and are not taken yet. A listener takes the one with its own address, so their order and their names do
/// not matter.
#[derive(Debug, Default)]
pub struct Sockets {
    passed: Vec<(SocketAddr, TcpListener)>,
}

/// A file that was passed is no listening TCP socket.
#[derive(Debug)]
pub struct Unusable {
    index: usize,
    error: io::Error,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unusable { index, error } = self;
        write!(
            f,
            "socket {index} of those that the service manager has passed can't be used: {error}\n    fix: let the .socket unit have TCP addresses only (ListenStream=ADDRESS:PORT)"
        )
    }
}

impl Sockets {
    /// Takes over the sockets that this process was started with. Call it once, before there is another thread: it changes the
    /// environment, so that no child of the process takes the sockets for its own.
    pub fn of_process() -> Result<Sockets, Unusable> {
        let mut files = ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..files.len() {
            let socket = files.take_tcp_listener(index).and_then(|socket| match socket {
                Some(socket) => {
                    // systemd makes sockets that block, and the runtime needs the other kind.
                    socket.set_nonblocking(true)?;
                    Ok((socket.local_addr()?, socket))
                }
                None => Err(io::ErrorKind::NotFound.into()),
            });
            passed.push(socket.map_err(|error| Unusable { index, error })?);
        }
        Ok(Sockets { passed })
    }

    /// Takes the socket that listens on this address, if there is one.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.passed.iter().position(|(own, _)| *own == address)?;
        Some(self.passed.swap_remove(index).1)
    }

    /// Returns the address of a socket that nobody has taken. Clients that connect to it would wait for ever.
    pub fn unused(&self) -> Option<SocketAddr> {
        self.passed.first().map(|(address, _)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_by_its_address_and_once() {
        let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let [first, second] = [0, 1].map(|index: usize| sockets[index].local_addr().unwrap());
        let passed = sockets.into_iter().map(|socket| (socket.local_addr().unwrap(), socket)).collect();
        let mut sockets = Sockets { passed };
        assert_eq!(sockets.take(second).unwrap().local_addr().unwrap(), second);
        assert!(sockets.take(second).is_none());
        assert_eq!(sockets.unused(), Some(first));
        assert!(sockets.take(first).is_some());
        assert_eq!(sockets.unused(), None);
    }
}
