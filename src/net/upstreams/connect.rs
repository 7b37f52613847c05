//! Opens a connection to one address of a node. It is the only place that does, for clients and for Hapax's own probes.

use super::greeting::{NoAnswer, exchange};
use crate::config::UpstreamAddress;
use crate::net::{Ends, Opener, Transport, configure};
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// The first bytes of a new connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening<'a> {
    /// opens TLS and sends the PROXY header
    pub(super) opener: &'a Opener,
    /// the client's connection; `None`: the connection is Hapax's own
    pub(super) ends: Option<Ends>,
    /// the first bytes of AMQP
    pub(super) protocol_header: &'a [u8],
}

impl Opening<'_> {
    /// Connects to this address of the node, and returns what the node has said. The caller sets the deadline.
    pub(super) async fn greet(
        &self,
        node: &UpstreamAddress,
        address: SocketAddr,
    ) -> Result<(Transport, BytesMut), NoAnswer> {
        let connected = self.connect(node, address).await;
        let mut transport = connected.map_err(|error| NoAnswer::Io(Arc::new(error)))?;
        let said = exchange(&mut transport, self.protocol_header).await?;
        Ok((transport, said))
    }

    async fn connect(&self, node: &UpstreamAddress, address: SocketAddr) -> io::Result<Transport> {
        let stream = TcpStream::connect(address).await?;
        configure(&stream)?;
        self.opener.open(stream, node, self.ends).await
    }
}
