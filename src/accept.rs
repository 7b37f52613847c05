//! Accepts connections, for the relay's listener and for the admin listener.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// How long accepting rests when the system refuses (out of files, out of memory).
const REST: Duration = Duration::from_millis(100);

/// A listener that rests after an error, so that a lack of files does not keep a processor busy.
pub(crate) struct Acceptor {
    listener: TcpListener,
    /// the configuration's key of the address, for the log
    key: &'static str,
    /// the end of the rest
    rests_until: Option<Instant>,
}

impl Acceptor {
    /// Takes over a listener; `key` is the configuration's key of its address.
    pub(crate) fn new(listener: TcpListener, key: &'static str) -> Acceptor {
        Acceptor { listener, key, rests_until: None }
    }

    /// Waits for the next connection. An error goes to the log, and nothing is accepted until the rest after it is over,
    /// even if this future is dropped and called again meanwhile.
    pub(crate) async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(until) = self.rests_until {
                tokio::time::sleep_until(until).await;
                self.rests_until = None;
            }
            let accepted = self.listener.accept().await;
            if let Some(connection) = self.judge(accepted) {
                return connection;
            }
        }
    }

    fn judge(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
        match accepted {
            Ok(connection) => Some(connection),
            Err(error) => {
                let listener = self.key;
                tracing::error!(listener, %error, "can't accept; is the limit of open files too low? (ulimit -n)");
                self.rests_until = Some(Instant::now() + REST);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn after_an_error_it_rests_even_if_it_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut acceptor = Acceptor::new(listener, "listen");
        let began = Instant::now();
        assert!(acceptor.judge(Err(io::ErrorKind::OutOfMemory.into())).is_none());
        // This future is dropped at once, as `select!` drops it when another branch is ready first.
        if acceptor.next().now_or_never().is_none() {
            acceptor.next().await;
        }
        assert!(began.elapsed() >= REST);
    }
}
