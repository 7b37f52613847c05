//! The entrance of a listener: a client passes the PROXY header and the TLS handshake here, before it speaks AMQP.
//!
//! Both are read under the same deadline as the AMQP handshake that follows (`timeouts.handshake`, counted from the accept), and by a
//! connection that has not logged in: it gives way to others when a limit is reached.

use super::configure;
use super::proxy::{BadHeader, Ends, LONGEST, take_header};
use super::side::Side;
use crate::tls;
use ipnet::IpNet;
use rustls::{InvalidMessage, ServerConnection};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Bytes that a client may send before the handshake of TLS is over. A `ClientHello` has less than 4 KiB.
const HANDSHAKE_BYTES: usize = 16 << 10;
/// The same where clients show certificates.
const HANDSHAKE_BYTES_WITH_CERTIFICATES: usize = 64 << 10;
/// Bytes to read at a time while the PROXY header is not whole.
const READ: usize = 1024;

/// Decides what a listener asks for before AMQP: a PROXY header, a TLS handshake, both or neither (the default).
#[derive(Debug, Default)]
pub struct Entrance {
    /// the networks of the proxies that say who their clients are; `None`: clients come without a proxy
    pub trusted: Option<Vec<IpNet>>,
    /// the settings of TLS; `None`: clients come without
    pub tls: Option<Arc<tls::Server>>,
    /// clients may show certificates
    pub client_certificates: bool,
}

/// Why a client does not get as far as AMQP.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLetIn {
    /// it has left without a word, as health checks do
    #[error("it left without a word")]
    Silent,
    /// the PROXY header can't be read
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// the socket has ended within the PROXY header
    #[error("the connection ended within the PROXY header")]
    HeaderCut,
    /// the TLS handshake has failed
    #[error("{0}")]
    Tls(io::Error),
    /// the socket broke
    #[error("{0}")]
    Socket(io::Error),
    /// the deadline is over
    #[error("the PROXY header or the TLS handshake was not whole within timeouts.handshake")]
    TooSlow,
}

impl Entrance {
    /// Returns true if AMQP comes first.
    pub(super) fn is_plain(&self) -> bool {
        self.trusted.is_none() && self.tls.is_none()
    }

    /// Returns true if a connection from this address may bring a PROXY header, or needs none.
    pub(super) fn trusts(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.trusted.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&from)))
    }

    /// Returns the address that a connection counts for, if it is known before its PROXY header.
    pub(super) fn address_of(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.trusted.is_none().then(|| peer.ip())
    }

    /// Returns the bytes that a client may send before the handshake of TLS is over.
    pub(super) fn handshake_bytes(&self) -> usize {
        match (&self.tls, self.client_certificates) {
            (None, _) => 0,
            (Some(_), false) => HANDSHAKE_BYTES,
            (Some(_), true) => HANDSHAKE_BYTES_WITH_CERTIFICATES,
        }
    }

    /// Reads the PROXY header, if one is due. Returns the addresses of the client's own connection.
    pub(super) async fn read_header(&self, side: &mut Side, direct: Ends) -> Result<Ends, NotLetIn> {
        if self.trusted.is_none() {
            return Ok(direct);
        }
        let (transport, inbox) = side.transport();
        loop {
            if let Some(ends) = take_header(inbox, direct)? {
                return Ok(ends);
            }
            let room = READ.min(LONGEST + 1 - inbox.len().min(LONGEST));
            inbox.reserve(room);
            match transport.try_read(inbox, room) {
                Ok(received) if received.is_end && inbox.is_empty() => return Err(NotLetIn::Silent),
                Ok(received) if received.is_end => return Err(NotLetIn::HeaderCut),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    transport.ready(true, false).await.map_err(NotLetIn::Socket)?;
                }
                Err(error) => return Err(NotLetIn::Socket(error)),
            }
        }
    }

    /// Shakes hands for TLS, if this listener speaks it.
    pub(super) async fn shake_hands(&self, side: &mut Side) -> Result<(), NotLetIn> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let connection =
            ServerConnection::new(tls.config()).map_err(io::Error::other).map_err(NotLetIn::Tls)?;
        let most = self.handshake_bytes();
        let (transport, inbox) = side.transport();
        if inbox.is_empty() {
            // A health check connects and leaves. It makes no line in the log.
            transport.ready(true, false).await.map_err(NotLetIn::Socket)?;
            let mut first = [0];
            if matches!(transport.socket().peek(&mut first).await, Ok(0) | Err(_)) {
                return Err(NotLetIn::Silent);
            }
        }
        let shaken = match transport.start_tls(connection.into(), most, inbox) {
            Ok(()) => transport.shake_hands(inbox).await,
            Err(error) => Err(error),
        };
        shaken.map_err(|error| NotLetIn::Tls(explain(error)))
    }
}

/// Says what a client may have done wrong.
fn explain(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(error.kind(), "the client has closed the connection during the handshake");
    }
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error;
    };
    let hint = match inner {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "; does the client speak AMQP without TLS?"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("{}{hint}", tls::explain(inner)))
}

/// Sets the options of a client's socket. Returns its addresses.
pub(super) fn accepted(client: &TcpStream, peer: SocketAddr) -> io::Result<Ends> {
    configure(client)?;
    Ok(Ends { client: peer, listener: client.local_addr()? })
}
