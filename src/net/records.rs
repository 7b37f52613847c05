//! TLS between a socket and the buffers of a `Side`: ciphertext in, plaintext out, and the other way about.
//!
//! It owns no socket and waits for nothing. A read takes up to 64 KiB of ciphertext with one system call. A write gathers many short
//! slices into few records. Its memory is bounded: one record that is not whole, 64 KiB that wait to be sent, and, before the
//! handshake is over, the bytes that the peer may send until then.

use super::transport::Received;
use bytes::BytesMut;
use rustls::Connection;
use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use tokio::net::TcpStream;

/// Bytes of ciphertext to read at a time.
const READ: usize = 64 << 10;
/// Bytes of memory of a connection: its state, and a part of a record (4 KiB at least). Bytes that wait to be sent are not included.
const STATE: usize = 12 << 10;

thread_local! {
    /// Ciphertext of one read. It is handed on at once, so one buffer serves all connections of a thread.
    static WIRE: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// One side of a TLS connection.
#[derive(Debug)]
pub(super) struct Records {
    connection: Connection,
    /// bytes that the peer may still send before the handshake is over
    handshake_room: usize,
    /// about how many bytes were taken and not sent yet
    pending: usize,
    /// the socket has ended without a `close_notify`
    was_cut: bool,
    has_said_good_bye: bool,
}

impl Records {
    /// `most` bounds the bytes that the peer may send before the handshake is over.
    pub(super) fn new(connection: Connection, most: usize) -> Records {
        Records { connection, handshake_room: most, pending: 0, was_cut: false, has_said_good_bye: false }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn owes(&self) -> bool {
        self.connection.wants_write()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn memory(&self) -> usize {
        STATE + self.pending
    }

    pub(super) fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Reads ciphertext by one call of `read`, at most `room` bytes, and appends the plaintext to `inbox`.
    pub(super) fn read(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        inbox: &mut BytesMut,
        room: usize,
    ) -> io::Result<Received> {
        WIRE.with_borrow_mut(|wire| {
            let room = room.min(wire.len());
            let count = read(wire.get_mut(..room).unwrap_or_default()).inspect_err(|error| {
                self.was_cut |= error.kind() != io::ErrorKind::WouldBlock;
            })?;
            if count == 0 {
                self.was_cut = true;
                return Ok(Received { count, is_full: false, is_end: true });
            }
            let is_end = self.receive(wire.get(..count).unwrap_or_default(), inbox)?;
            Ok(Received { count, is_full: count >= room, is_end })
        })
    }

    /// Decrypts bytes of the socket. Returns true if the peer says that nothing follows. After an error, the alert for
    /// the peer waits to be sent.
    pub(super) fn receive(&mut self, mut wire: &[u8], inbox: &mut BytesMut) -> io::Result<bool> {
        while !wire.is_empty() {
            let taken = self.connection.read_tls(&mut wire)?;
            if taken == 0 {
                return Ok(true);
            }
            if self.connection.is_handshaking() {
                self.handshake_room = self.handshake_room.checked_sub(taken).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "the peer sends too much for a TLS handshake")
                })?;
            }
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if state.plaintext_bytes_to_read() > 0 {
                self.take_plaintext(inbox);
            }
            if state.peer_has_closed() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_plaintext(&mut self, inbox: &mut BytesMut) {
        let mut reader = self.connection.reader();
        while let Ok(chunk) = reader.fill_buf()
            && !chunk.is_empty()
        {
            inbox.extend_from_slice(chunk);
            let count = chunk.len();
            reader.consume(count);
        }
    }

    /// Encrypts as much of the slices as may wait to be sent, and sends what the socket takes. Returns how many bytes of the slices
    /// were taken.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], socket: &TcpStream) -> io::Result<usize> {
        self.flush(socket)?;
        if self.is_handshaking() || self.has_said_good_bye {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.connection.writer().write_vectored(slices)?;
        self.pending += taken;
        match self.flush(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends what waits. Fails with `WouldBlock` if the socket does not take all of it.
    pub(super) fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            let written = self.connection.write_tls(&mut Outlet(socket))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.pending = self.pending.saturating_sub(written);
        }
        self.pending = 0;
        Ok(())
    }

    /// Takes what waits to be sent.
    #[cfg(any(test, fuzzing))]
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while self.connection.wants_write() && self.connection.write_tls(&mut output).is_ok() {}
        output
    }

    pub(super) fn say_good_bye(&mut self, socket: &TcpStream) {
        if !self.has_said_good_bye {
            self.has_said_good_bye = true;
            self.connection.send_close_notify();
        }
        // If the socket does not take it now, the caller flushes again, or the peer finds the connection cut.
        let _ = self.flush(socket);
    }
}

/// A socket that is written to without waiting.
struct Outlet<'a>(&'a TcpStream);

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
