//! Makes connections to the broker ready for AMQP: a PROXY header if one is due, then the handshake of TLS.

use super::proxy::{self, Ends};
use super::transport::Transport;
use crate::config::UpstreamAddress;
use crate::tls;
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Bytes that a broker may send before the handshake of TLS is over. Its certificates are the most of it.
const HANDSHAKE_BYTES: usize = 64 << 10;

/// Does on a connection to the broker what has to be done between TCP and AMQP: the PROXY header and the handshake of TLS.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    /// the settings of TLS, for the nodes that are reached by it
    pub tls: Option<Arc<tls::Client>>,
    /// the broker expects a PROXY header
    pub proxy_header: bool,
}

impl Opener {
    /// Makes a TCP connection ready for AMQP. If `node` is reached by TLS, the broker's certificate must be for its host. `ends` is the
    /// client's connection, `None` for a connection of Hapax itself. The caller sets the deadline.
    pub(super) async fn open(
        &self,
        stream: TcpStream,
        node: &UpstreamAddress,
        ends: Option<Ends>,
    ) -> io::Result<Transport> {
        let header = match self.proxy_header {
            true => proxy::header(ends, stream.local_addr()?, stream.peer_addr()?),
            false => Vec::new(),
        };
        let mut transport = Transport::plain(stream);
        transport.write_all(&header).await?;
        if !node.tls {
            return Ok(transport);
        }
        let tls = self.tls.as_ref().ok_or_else(|| io::Error::other("there are no settings of TLS"))?;
        let name = ServerName::try_from(node.host.to_string()).map_err(io::Error::other)?;
        let client = rustls::ClientConnection::new(tls.config(), name).map_err(io::Error::other)?;
        let mut inbox = BytesMut::new();
        transport.start_tls(client.into(), HANDSHAKE_BYTES, &mut inbox)?;
        transport
            .shake_hands(&mut inbox)
            .await
            .map_err(|error| tls::explain_handshake("the broker", &error))?;
        // A server may send data right behind its handshake, but a broker waits for the protocol header.
        if inbox.is_empty() {
            Ok(transport)
        } else {
            Err(io::Error::other("it speaks before it is spoken to"))
        }
    }
}
