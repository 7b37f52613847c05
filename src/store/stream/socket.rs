//! The sockets of lapin: plain TCP, or TLS with the settings and the cryptography that Hapax has for all its connections.
//!
//! lapin's own TLS takes no settings that were made elsewhere, and brings a reader of PKCS #12 (DES, RC2). But it takes any sockets that
//! a *reactor* of `async-rs` has. [`Sockets`] is one: [`Socket`]s, and for the rest the reactor of tokio.

use crate::tls;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Runs lapin on the runtime of this process, with our sockets.
pub(super) type Kit = RuntimeParts<Tokio, Sockets>;

/// Returns the runtime for lapin. Call it within the runtime of the process.
pub(super) fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Sockets(Tokio::current())))
}

/// A socket to a broker.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects to an address.
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Socket> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Socket::Plain(stream))
    }

    /// Shakes hands for TLS. The certificate must be for this host.
    pub(super) async fn secure(self, tls: &tls::Client, host: &str) -> io::Result<Socket> {
        let Socket::Plain(stream) = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let shaken = TlsConnector::from(tls.config()).connect(name, stream).await;
        let stream = shaken.map_err(|error| tls::explain_handshake("the broker", &error))?;
        Ok(Socket::Tls(Box::new(stream)))
    }

    /// Returns the socket below TLS.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        let read = match self.get_mut() {
            Socket::Plain(stream) => tokio::io::AsyncRead::poll_read(Pin::new(stream), context, &mut buffer),
            Socket::Tls(stream) => tokio::io::AsyncRead::poll_read(Pin::new(stream), context, &mut buffer),
        };
        ready!(read)?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => tokio::io::AsyncWrite::poll_write(Pin::new(stream), context, bytes),
            Socket::Tls(stream) => tokio::io::AsyncWrite::poll_write(Pin::new(stream), context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => tokio::io::AsyncWrite::poll_flush(Pin::new(stream), context),
            Socket::Tls(stream) => tokio::io::AsyncWrite::poll_flush(Pin::new(stream), context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => tokio::io::AsyncWrite::poll_shutdown(Pin::new(stream), context),
            Socket::Tls(stream) => tokio::io::AsyncWrite::poll_shutdown(Pin::new(stream), context),
        }
    }
}

/// The reactor of tokio, with our sockets.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        Socket::connect(address)
    }
}
