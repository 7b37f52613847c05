//! A cable that can be pulled: a forwarder between a producer and the relay. When it goes, both ends find their socket
//! closed, with whatever was under way lost, as when the producer's process is killed.

use super::Error;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Carries one connection.
#[derive(Debug)]
pub(super) struct Cable {
    port: u16,
    carrying: JoinHandle<()>,
}

impl Cable {
    /// Lays it to this address (`HOST:PORT`).
    pub(super) async fn lay(target: String) -> Result<Cable, Error> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any).await.map_err(Error::io("listening for a producer"))?;
        let port = listener.local_addr().map_err(Error::io("asking for a port"))?.port();
        let carrying = tokio::spawn(async move {
            let Ok((mut near, _)) = listener.accept().await else { return };
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            let _ = near.set_nodelay(true);
            let _ = far.set_nodelay(true);
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
        Ok(Cable { port, carrying })
    }

    /// Where a producer connects, on the loopback.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Pulls it.
    pub(super) async fn pull(mut self) {
        self.carrying.abort();
        let _ = (&mut self.carrying).await;
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}
