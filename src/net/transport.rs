//! A socket, plain or with TLS. Everything that is read from a client or from the broker, and written to it, goes through here.
//!
//! A plain socket costs one comparison for each system call, and nothing else: bytes go straight from the kernel into the
//! caller's buffer, and from the caller's slices into the kernel. With TLS, [`Records`] stands between the two.

use super::records::Records;
use bytes::{BufMut, BytesMut};
use rustls::Connection;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;

/// Bytes that one read takes at most while there is no buffer of a `Side` yet.
const READ_EARLY: usize = 4 << 10;

/// A socket, plain or with TLS.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
    tls: Option<Box<Records>>,
}

/// The result of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Received {
    /// bytes that were taken from the socket
    pub(super) count: usize,
    /// the socket gave all that was asked for, so it may have more
    pub(super) is_full: bool,
    /// the peer says that nothing follows, or the socket has ended
    pub(super) is_end: bool,
}

impl Transport {
    /// Takes over a socket without TLS.
    pub fn plain(stream: TcpStream) -> Transport {
        Transport { stream, tls: None }
    }

    /// Speaks TLS from now on. `most` bounds the bytes that the peer may send before the handshake is over. `early` has bytes that
    /// were read already; they are taken out.
    pub(super) fn start_tls(
        &mut self,
        connection: Connection,
        most: usize,
        early: &mut BytesMut,
    ) -> io::Result<()> {
        let mut records = Box::new(Records::new(connection, most));
        let before = early.split();
        let received = records.receive(&before, early);
        self.tls = Some(records);
        if received.is_err() {
            let _ = self.flush();
        }
        received.map(drop)
    }

    /// Shakes hands. Data that the peer sends right behind its handshake goes into `inbox`. The caller sets the deadline.
    pub(super) async fn shake_hands(&mut self, inbox: &mut BytesMut) -> io::Result<()> {
        loop {
            match self.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ if self.owes() => {}
                _ if self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking()) => return Ok(()),
                _ => {}
            }
            self.ready(true, self.owes()).await?;
            match self.try_read(inbox, READ_EARLY) {
                Ok(received) if received.is_end => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // The alert that says what is wrong.
                    let _ = self.flush();
                    return Err(error);
                }
            }
        }
    }

    /// Reads to the end of the socket, whatever comes.
    pub(super) async fn drain(&mut self) {
        let mut rest = [0; 1024];
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Waits until the socket can be read or written. Only one task may wait.
    pub(super) async fn ready(&self, reading: bool, writing: bool) -> io::Result<()> {
        poll_fn(|cx| self.poll_ready(reading, writing, cx)).await
    }

    /// Ready when the socket can be read or written. Only the task that has asked last is woken: the runtime keeps one waker for each
    /// direction, which costs less than the list that `TcpStream::ready` joins and leaves each time.
    pub(super) fn poll_ready(
        &self,
        reading: bool,
        writing: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if reading && let Poll::Ready(result) = self.stream.poll_read_ready(cx) {
            return Poll::Ready(result);
        }
        if writing { self.stream.poll_write_ready(cx) } else { Poll::Pending }
    }

    /// Returns true unless a read would surely find nothing. Asks the kernel nothing.
    #[inline]
    pub(super) fn may_have_more(&self) -> bool {
        self.tls.is_some() || is_readable(&self.stream)
    }

    /// Reads once, without waiting: at most `room` bytes of the socket. With TLS, more or fewer bytes may go into `inbox`.
    #[inline]
    pub(super) fn try_read(&mut self, inbox: &mut BytesMut, room: usize) -> io::Result<Received> {
        let stream = &mut self.stream;
        match &mut self.tls {
            None => at_once(stream.read_buf(&mut inbox.limit(room))).map(|count| Received::of(count, room)),
            Some(tls) => tls.read(|wire| at_once(stream.read(wire)), inbox, room),
        }
    }

    /// Reads once, and asks the kernel directly: the runtime may not know yet that bytes have come.
    pub(super) fn read_from_kernel(&mut self, inbox: &mut BytesMut, room: usize) -> io::Result<Received> {
        let socket = socket2::SockRef::from(&self.stream);
        if let Some(tls) = &mut self.tls {
            return tls.read(|wire| (&*socket).read(wire), inbox, room);
        }
        let len = inbox.len();
        inbox.resize(len + room, 0);
        let result = (&*socket).read(inbox.get_mut(len..).unwrap_or_default());
        inbox.truncate(len + result.as_ref().map_or(0, |count| *count));
        result.map(|count| Received::of(count, room))
    }

    /// Writes as much as the socket accepts, without waiting. Returns how many bytes of the slices were taken.
    #[inline]
    pub(super) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.try_write_vectored(slices),
            Some(tls) => tls.write(slices, &self.stream),
        }
    }

    /// Writes what TLS still has to send. Fails with `WouldBlock` if the socket does not take all of it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&self.stream),
        }
    }

    /// Returns true if TLS still has bytes to send that were taken, or that belong to the protocol.
    #[inline]
    pub(super) fn owes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.owes())
    }

    /// Returns the bytes that TLS has taken and not sent yet.
    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.pending())
    }

    /// Returns the bytes of memory that TLS takes.
    pub(super) fn memory(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.memory())
    }

    /// Returns true if TLS was cut: the socket ended, and the peer has not said before that nothing follows.
    pub(super) fn was_cut(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.was_cut())
    }

    /// Tells the peer that nothing follows (`close_notify`), if this is TLS and was not said yet.
    pub(super) fn say_good_bye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.say_good_bye(&self.stream);
        }
    }

    /// Ends our half of the connection.
    pub(super) fn shut_down(&mut self) {
        self.say_good_bye();
        // If that fails, the socket is broken, and reading will show it.
        let _ = socket2::SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    /// Returns the socket, for its options.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads until something has come. Returns 0 at the end.
    pub async fn read_some(&mut self, inbox: &mut BytesMut) -> io::Result<usize> {
        loop {
            let before = inbox.len();
            inbox.reserve(READ_EARLY);
            match self.try_read(inbox, READ_EARLY) {
                Ok(received) if inbox.len() > before || received.is_end => return Ok(inbox.len() - before),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(true, self.owes()).await?;
                }
                Err(error) => return Err(error),
            }
            match self.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    /// Writes all of it.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || self.owes() {
            let written = if bytes.is_empty() {
                self.flush().map(|()| 0)
            } else {
                self.try_write(&[IoSlice::new(bytes)])
            };
            match written {
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready(false, true).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Returns true if the runtime has heard of bytes to read, or of an end. Asks the kernel nothing.
#[inline]
fn is_readable(stream: &TcpStream) -> bool {
    stream.try_io(Interest::READABLE, || Ok(())).is_ok()
}

/// Reads once, without waiting. After a short read the runtime knows that the socket is empty, and nobody asks the kernel again before
/// more has come. (`TcpStream::try_read` asks until the kernel says that it has nothing: every second of its calls is for that answer.)
fn at_once(read: impl Future<Output = io::Result<usize>>) -> io::Result<usize> {
    // Nobody is to be woken: the pump waits by `ready`. The budget of the task is not spent here, because `ready` would not give it back.
    match pin!(tokio::task::unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Received {
    /// The outcome of a read of a plain socket.
    fn of(count: usize, room: usize) -> Received {
        Received { count, is_full: count >= room, is_end: count == 0 }
    }
}
