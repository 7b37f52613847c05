//! One socket and its two buffers: bytes that were read and that the session has not taken yet, and bytes that wait to
//! be written.

use super::transport::{Received, Transport};
use super::upstreams::{Dialled, OpenUpstream};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Bytes to read at a time.
const READ: usize = 64 * 1024;
/// Bytes to read at a time after a read that returned fewer than [`IDLE_READ`]. The allocator keeps buffers of this size for each thread,
/// and larger ones for all threads together: one of 64 KiB for each message of a publisher that waits for each ack was a seventh of what
/// the program itself took for such a message.
const READ_IDLE: usize = 32 * 1024;
/// Bytes to read at a time after a read that returned at least [`READ`] bytes. Larger reads mean fewer system calls,
/// and system calls are most of what a busy relay costs.
const READ_LARGE: usize = 256 * 1024;
/// When a read returns fewer bytes than this and the session takes all of them, the buffer is freed. Most connections
/// are idle most of the time, so they should hold no buffer. Also the least free room to start a read with.
const IDLE_READ: usize = 8 * 1024;
/// Bytes to read at a time while the process is short of memory.
const READ_SMALL: usize = 16 * 1024;
/// When a write has to wait, slices shorter than this are copied. Without the copy, a short slice would keep the whole
/// buffer alive that it was read into.
const COPY_BELOW: usize = 32 * 1024;
/// An empty write queue with more capacity than this (in slices) is freed.
const KEPT_SLICES: usize = 256;
/// After the last byte is written, how long the peer may take to close the socket before we shut down our side.
const PEER_CLOSES_WITHIN: Duration = Duration::from_millis(500);
/// After we have shut down our side, how long we wait for the peer to close.
const PEER_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// The most slices that one write passes to the kernel.
const SLICES: usize = 64;
/// As many slices as a single message or ack needs. A short list is made much faster than a long one.
const FEW: usize = 4;

/// The outcome of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadOutcome {
    /// There was nothing to read.
    Nothing,
    /// The read returned bytes or the end of the stream, and the socket has no more for now.
    Last,
    /// The read returned bytes, and there may be more.
    More,
}

/// One socket, to a client or to the broker, with its read buffer and its write queue.
#[derive(Debug)]
pub(super) struct Side {
    transport: Transport,
    /// Bytes that were read. The session takes whole frames out of it.
    pub(super) inbox: BytesMut,
    queue: VecDeque<Bytes>,
    /// How many slices at the front of the queue [`Side::copy_small`] has already looked at.
    copied: usize,
    queued: usize,
    total_read: u64,
    total_written: u64,
    /// Nothing more can be read: the peer closed, or the socket broke.
    ended: bool,
    /// A write has failed, so nothing more is written. Bytes that the peer sent earlier may still be in the socket, so
    /// reading goes on until the end.
    write_failed: bool,
    last_read: usize,
    /// Reads are limited to [`READ_SMALL`], because the process is short of memory.
    short_reads: bool,
    /// How long written bytes may stay unacknowledged before the kernel breaks the connection.
    unacked_timeout: Option<Duration>,
    /// The kernel's `TCP_USER_TIMEOUT` is set to `unacked_timeout` now.
    user_timeout_on: bool,
    /// The socket is closed when the queue is empty, or at this time at the latest. Nothing more is queued from now
    /// on.
    closing: Option<Instant>,
    /// Our half is shut down: the peer reads to its end.
    shut: bool,
    /// Counts a connection to a node of the broker.
    _open: Option<OpenUpstream>,
}

impl Side {
    pub(super) fn new(transport: Transport) -> Side {
        Side {
            transport,
            inbox: BytesMut::new(),
            queue: VecDeque::new(),
            copied: 0,
            queued: 0,
            total_read: 0,
            total_written: 0,
            ended: false,
            write_failed: false,
            last_read: 0,
            short_reads: false,
            unacked_timeout: None,
            user_timeout_on: false,
            closing: None,
            shut: false,
            _open: None,
        }
    }

    /// The side of a node of the broker that has answered already.
    pub(super) fn dialled(dialled: Dialled) -> Side {
        let Dialled { transport, said, open, .. } = dialled;
        let total_read = said.len() as u64;
        Side { inbox: said, total_read, _open: Some(open), ..Side::new(transport) }
    }

    /// Returns the number of bytes that wait to be written.
    pub(super) fn queued(&self) -> usize {
        self.queued + self.transport.pending()
    }

    /// Returns the socket and the inbox, for the PROXY header and the TLS handshake. Bytes that were read beyond these belong into the
    /// inbox.
    pub(super) fn transport(&mut self) -> (&mut Transport, &mut BytesMut) {
        (&mut self.transport, &mut self.inbox)
    }

    /// Returns true if the peer has cut TLS: the socket ended before the peer said that nothing follows.
    pub(super) fn was_cut(&self) -> bool {
        self.transport.was_cut()
    }

    /// Returns true if no bytes wait to be written.
    fn is_written(&self) -> bool {
        self.queue.is_empty() && !self.transport.owes()
    }

    /// Tells the peer that nothing follows, if this is TLS. Call it before a socket is dropped.
    pub(super) fn say_good_bye(&mut self) {
        self.transport.say_good_bye();
    }

    /// Returns the bytes of memory that this socket's buffers take.
    pub(super) fn memory(&self) -> usize {
        self.inbox.capacity()
            + self.queued
            + self.queue.capacity() * size_of::<Bytes>()
            + self.transport.memory()
    }

    /// Makes reads short (or normal again), because the process is short of memory (or no longer is).
    pub(super) fn set_short_reads(&mut self, short: bool) {
        self.short_reads = short;
    }

    /// Makes the kernel break the connection when written bytes stay unacknowledged for `timeout`, because then the
    /// peer's host has vanished.
    ///
    /// The kernel's timeout also counts the time in which a living peer accepts no bytes because its receive window is
    /// full. That is not a reason to disconnect, so the timeout is off while bytes wait in the queue.
    pub(super) fn break_when_unacked(&mut self, timeout: Duration) {
        self.unacked_timeout = Some(timeout);
        self.set_user_timeout(self.is_written());
    }

    fn set_user_timeout(&mut self, on: bool) {
        if let Some(timeout) = self.unacked_timeout
            && self.user_timeout_on != on
        {
            self.user_timeout_on = on;
            // If the option can't be set, the kernel's default timeout applies.
            let _ =
                socket2::SockRef::from(self.transport.socket()).set_tcp_user_timeout(on.then_some(timeout));
        }
    }

    /// Returns the bytes read and the bytes written since the socket was opened.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.total_read, self.total_written)
    }

    /// Returns true when the peer has closed or the socket has broken, and all bytes before that have been read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn write(&mut self, bytes: Bytes) {
        if !self.ended && !self.write_failed {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    pub(super) fn close(&mut self, patience: Duration, now: Instant) {
        self.closing = Some(now + patience);
    }

    /// Returns true if the socket is closing.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns true when the socket is closing and may be dropped: all is written, the peer is gone, or the time is
    /// up.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        self.closing.is_some_and(|until| self.is_written() || self.ended || now >= until)
    }

    /// Returns true when the socket is closing, and the peer has read everything and closed, or the time is up. Shuts
    /// our half down when all is written.
    ///
    /// If the socket were dropped then, the kernel would answer anything that the peer still sends with a reset. The
    /// peer's kernel would drop what the peer has not read yet: of a broker with a memory alarm, that is everything.
    /// Therefore the caller goes on reading until this returns true.
    pub(super) fn is_read_out(&mut self, now: Instant) -> bool {
        let Some(until) = self.closing else { return false };
        if self.queue.is_empty() && !self.shut {
            self.transport.say_good_bye();
            if !self.transport.owes() {
                self.shut = true;
                self.transport.shut_down();
            }
        }
        self.ended || now >= until
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closing
    }

    /// Ready when the socket can be read (if `reading` is true) or can be written (if bytes are queued).
    pub(super) fn poll_ready(&self, reading: bool, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows up again in the read or write that follows.
        self.transport.poll_ready(reading && !self.ended, !self.is_written(), cx).map(drop)
    }

    /// Reads once, without waiting.
    pub(super) fn read(&mut self) -> ReadOutcome {
        if self.ended || !self.transport.may_have_more() {
            return ReadOutcome::Nothing;
        }
        let room = self.make_room();
        let result = self.transport.try_read(&mut self.inbox, room);
        self.finish_read(result)
    }

    /// Reads once, and asks the kernel directly if the runtime says that there is nothing. The runtime learns about
    /// new bytes from an event, and a timer can wake the task before the runtime has seen that event: after a process
    /// was stopped for seconds, both are due at once.
    pub(super) fn read_from_kernel(&mut self) -> ReadOutcome {
        match self.read() {
            ReadOutcome::Nothing if self.has_unread() => {}
            outcome => return outcome,
        }
        let room = self.make_room();
        let result = self.transport.read_from_kernel(&mut self.inbox, room);
        self.finish_read(result)
    }

    /// Returns true if the kernel holds bytes from the peer that were not read yet.
    pub(super) fn has_unread(&self) -> bool {
        !self.ended && rustix::io::ioctl_fionread(self.transport.socket()).is_ok_and(|count| count > 0)
    }

    /// Makes room in the read buffer. Returns how many bytes to read.
    fn make_room(&mut self) -> usize {
        let most = match (self.short_reads, self.last_read) {
            (true, _) => READ_SMALL,
            (false, count) if count < IDLE_READ => READ_IDLE,
            (false, count) if count < READ => READ,
            (false, _) => READ_LARGE,
        };
        if self.inbox.capacity() - self.inbox.len() < IDLE_READ {
            self.inbox.reserve(most);
        }
        let room = self.inbox.capacity() - self.inbox.len();
        if self.short_reads { room.min(READ_SMALL) } else { room }
    }

    fn finish_read(&mut self, result: io::Result<Received>) -> ReadOutcome {
        match result {
            Ok(Received { count, is_full, is_end }) => {
                if count > 0 {
                    self.last_read = count;
                    self.total_read += count as u64;
                }
                self.ended |= is_end;
                if is_full && !is_end { ReadOutcome::More } else { ReadOutcome::Last }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.free_idle_inbox();
                ReadOutcome::Nothing
            }
            Err(_) => {
                // TLS may have to say what was wrong.
                let _ = self.transport.flush();
                self.ended = true;
                ReadOutcome::Last
            }
        }
    }

    /// Frees the read buffer if it is empty and the last read was short.
    pub(super) fn free_idle_inbox(&mut self) {
        if self.inbox.is_empty() && self.last_read < IDLE_READ {
            self.inbox = BytesMut::new();
        }
    }

    /// Writes once, this many slices at most. Returns how many bytes were taken.
    fn write_up_to<const MOST: usize>(&mut self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MOST];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        self.transport.try_write(slices.get(..count).unwrap_or_default())
    }

    /// Writes as much as the socket accepts. A write error stops writing, not reading.
    pub(super) fn flush(&mut self) {
        if self.ended {
            self.drop_queue();
        }
        while !self.queue.is_empty() && !self.ended {
            let written = if self.queue.len() <= FEW {
                self.write_up_to::<FEW>()
            } else {
                self.write_up_to::<SLICES>()
            };
            match written {
                Ok(written) => self.drop_written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.set_user_timeout(false);
                    return self.copy_small();
                }
                Err(_) => {
                    self.write_failed = true;
                    self.drop_queue();
                }
            }
        }
        if self.transport.owes() && self.transport.flush().is_err() {
            // A socket that is broken shows it by the next read.
            return self.set_user_timeout(false);
        }
        if self.queue.is_empty() {
            self.set_user_timeout(true);
            if self.queue.capacity() > KEPT_SLICES {
                self.queue = VecDeque::new();
            }
        }
    }

    /// Drops the bytes that wait to be written: nobody reads them.
    fn drop_queue(&mut self) {
        self.queue.clear();
        self.queued = 0;
        self.copied = 0;
    }

    /// Copies the short slices of the queue, so that they no longer keep the large buffers alive that they were read
    /// into. Looks at each slice only once.
    fn copy_small(&mut self) {
        if self.copied >= self.queue.len() {
            return;
        }
        let mut small = BytesMut::new();
        for slice in self.queue.split_off(self.copied) {
            if slice.len() < COPY_BELOW {
                small.extend_from_slice(&slice);
                continue;
            }
            if !small.is_empty() {
                self.queue.push_back(small.split().freeze());
            }
            self.queue.push_back(slice);
        }
        if !small.is_empty() {
            self.queue.push_back(small.freeze());
        }
        self.copied = self.queue.len();
    }

    /// Closes the socket at once with a reset. Bytes that the kernel has not sent yet are lost.
    pub(super) fn cut(self) {
        // If the option can't be set, the kernel closes the socket in the usual way.
        let _ = socket2::SockRef::from(self.transport.socket()).set_linger(Some(Duration::ZERO));
    }

    fn drop_written(&mut self, mut written: usize) {
        self.queued -= written;
        self.total_written += written as u64;
        while let Some(first) = self.queue.front_mut() {
            if first.len() > written {
                bytes::Buf::advance(first, written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
            self.copied = self.copied.saturating_sub(1);
        }
    }

    /// Closes the connection without losing what was written last. A client that has read `close-ok` closes the socket
    /// itself, so this waits for that first. Then it shuts down our side and waits a little longer. Closing a socket
    /// with unread bytes would send a reset, and the peer might then never read our last bytes.
    pub(super) async fn farewell(mut self) {
        if tokio::time::timeout(PEER_CLOSES_WITHIN, self.read_to_end()).await.is_err() {
            self.transport.shut_down();
            let _ = tokio::time::timeout(PEER_ANSWERS_WITHIN, self.read_to_end()).await;
        }
        self.transport.say_good_bye();
    }

    /// Ends a connection that does not get as far as AMQP, so that the peer can read what TLS has told it. A socket that is closed
    /// with unread bytes would send a reset, and the peer might never read our last bytes.
    pub(super) async fn dismiss(mut self) {
        self.transport.shut_down();
        let _ = tokio::time::timeout(PEER_ANSWERS_WITHIN, self.transport.drain()).await;
    }

    async fn read_to_end(&mut self) {
        let mut rest = BytesMut::new();
        while !self.ended && matches!(self.transport.read_some(&mut rest).await, Ok(n) if n > 0) {
            rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn side() -> (Side, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Side::new(Transport::plain(listener.accept().await.unwrap().0)), peer)
    }

    /// Reads until this many bytes have come.
    async fn read(side: &mut Side, count: u64) {
        while side.totals().0 < count {
            poll_fn(|cx| side.poll_ready(true, cx)).await;
            side.read();
        }
    }

    #[tokio::test]
    async fn an_idle_socket_has_no_buffer_and_a_busy_one_a_larger_one() {
        let (mut side, mut peer) = side().await;
        assert_eq!((side.read(), side.inbox.capacity()), (ReadOutcome::Nothing, 0));
        for n in 1..=3 {
            peer.write_all(&[7; 600]).await.unwrap();
            read(&mut side, n * 600).await;
            assert_eq!((side.inbox.len(), side.inbox.capacity()), (600, READ_IDLE));
            side.inbox.clear();
            side.free_idle_inbox();
            assert_eq!((side.read(), side.inbox.capacity()), (ReadOutcome::Nothing, 0));
        }
        let all = side.totals().0 + 4 * READ_LARGE as u64;
        let writes =
            tokio::spawn(async move { peer.write_all(&vec![7; 4 * READ_LARGE]).await.map(|()| peer) });
        let mut largest = 0;
        while side.totals().0 < all {
            poll_fn(|cx| side.poll_ready(true, cx)).await;
            side.read();
            largest = largest.max(side.inbox.capacity());
            drop(side.inbox.split());
        }
        assert!(largest >= READ_LARGE, "{largest}");
        writes.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_written_arrives_in_order_however_many_slices_it_is() {
        for slices in [1, FEW, FEW + 1, SLICES + 1, 1_000] {
            let (mut side, mut peer) = side().await;
            for n in 0..slices {
                side.write(Bytes::from(n.to_string() + ","));
            }
            let expected: String = (0..slices).map(|n| n.to_string() + ",").collect();
            let came = tokio::spawn(async move {
                let mut came = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut came).await.unwrap();
                came
            });
            side.flush();
            while side.queued() > 0 {
                poll_fn(|cx| side.poll_ready(false, cx)).await;
                side.flush();
            }
            assert_eq!(side.totals().1, expected.len() as u64);
            drop(side);
            assert_eq!(came.await.unwrap(), expected.into_bytes());
        }
    }
}
