//! Opens connections to the broker: TCP, then a PROXY header if one is due, then the handshake of TLS.

use super::configure;
use super::proxy::{self, Ends};
use super::transport::Transport;
use crate::config::UpstreamAddress;
use crate::tls;
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes that a broker may send before the handshake of TLS is over. Its certificates are the most of it.
const HANDSHAKE_BYTES: usize = 64 << 10;

/// What comes between TCP and AMQP on a connection to the broker.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    /// the settings of TLS; `None`: the broker is reached without
    pub tls: Option<Arc<tls::Client>>,
    /// the broker expects a PROXY header
    pub proxy_header: bool,
}

impl Opener {
    /// Makes a TCP connection ready for AMQP. `host` is the name, or the address, that the broker's certificate must be for. `ends`
    /// is the client's connection, `None` for a connection of Hapax itself. The caller sets the deadline.
    pub async fn open(&self, stream: TcpStream, host: &str, ends: Option<Ends>) -> io::Result<Transport> {
        let header = match self.proxy_header {
            true => proxy::header(ends, stream.local_addr()?, stream.peer_addr()?),
            false => Vec::new(),
        };
        let mut transport = Transport::plain(stream);
        transport.write_all(&header).await?;
        let Some(tls) = &self.tls else { return Ok(transport) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let client = rustls::ClientConnection::new(tls.config(), name).map_err(io::Error::other)?;
        let mut inbox = BytesMut::new();
        transport.start_tls(client.into(), HANDSHAKE_BYTES, &mut inbox)?;
        transport.shake_hands(&mut inbox).await.map_err(|error| explain(&error))?;
        // A server may send data right behind its handshake, but a broker waits for the protocol header.
        if inbox.is_empty() {
            Ok(transport)
        } else {
            Err(io::Error::other("it speaks before it is spoken to"))
        }
    }
}

/// Says where a handshake has failed.
fn explain(error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the broker has closed the connection during the TLS handshake")
        }
        kind => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            io::Error::new(kind, format!("TLS: {}", inner.map_or_else(|| error.to_string(), tls::explain)))
        }
    }
}

/// One broker, and how it is reached.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// where it is
    pub address: UpstreamAddress,
    /// how long connecting may take, with everything that comes before AMQP
    pub connect_timeout: Duration,
    /// what comes before AMQP
    pub opener: Opener,
}

impl Upstream {
    /// Connects, for a client (`ends`) or for Hapax itself.
    pub async fn dial(&self, ends: Option<Ends>) -> io::Result<Transport> {
        let connecting = async {
            let stream = TcpStream::connect(self.address.authority()).await?;
            configure(&stream)?;
            self.opener.open(stream, &self.address.host, ends).await
        };
        tokio::time::timeout(self.connect_timeout, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}
