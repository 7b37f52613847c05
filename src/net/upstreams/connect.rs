//! Opens a connection to one address of a node. It is the only place that does, for clients and for Hapax's own probes.

use crate::net::configure;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A connection to a node.
pub(super) type Stream = TcpStream;

/// Opens a connection to this address.
pub(super) async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    configure(&stream)?;
    Ok(stream)
}
