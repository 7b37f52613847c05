//! One socket with its two buffers: what was read and not handed over, what is to be written.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// Room for reads.
const READ: usize = 64 * 1024;
/// The same after a read that was as large: the fewer reads and writes, the less the kernel takes, and that is most of it.
const READ_MUCH: usize = 256 * 1024;
/// A read shorter than this gives its buffer back once it is empty: most connections are idle most of the time.
const SHORT: usize = 8 * 1024;
/// The same while the process is short of memory.
const READ_LITTLE: usize = 16 * 1024;
/// A slice that waits to be written and is shorter than this is copied: it would keep a whole read alive.
const WORTH: usize = 32 * 1024;
/// Places for slices that an empty queue keeps.
const KEPT: usize = 256;
/// How long a peer that was told the end may take to close the socket before we do.
const PEER_FIRST: Duration = Duration::from_millis(500);
/// How long it may take after that.
const PEER_LAST: Duration = Duration::from_secs(1);
/// Slices in one write.
const SLICES: usize = 64;

/// What a read has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// Nothing is there.
    Nothing,
    /// Bytes, or the end, and nothing is behind them now.
    Last,
    /// Bytes, and there may be more behind them.
    More,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Side {
    stream: TcpStream,
    /// Bytes that were read; the session takes whole frames out.
    pub(super) inbox: BytesMut,
    queue: VecDeque<Bytes>,
    /// Slices at the beginning of the queue that need not be copied any more.
    copied: usize,
    queued: usize,
    total_read: u64,
    total_written: u64,
    /// Nothing more can be read.
    ended: bool,
    /// Nothing more can be written. What the peer wrote before may still lie here: it is read to its end.
    deaf: bool,
    last_read: usize,
    /// Reads are short: memory is.
    little: bool,
    /// For so long may what was written stay unacknowledged, while there is nothing more to write.
    patience: Option<Duration>,
    /// The kernel keeps to that.
    watched: bool,
    /// Nothing more comes into the queue: the socket is closed when it is empty, or at this time.
    closing: Option<Instant>,
}

impl Side {
    pub(super) fn new(stream: TcpStream) -> Side {
        Side {
            stream,
            inbox: BytesMut::new(),
            queue: VecDeque::new(),
            copied: 0,
            queued: 0,
            total_read: 0,
            total_written: 0,
            ended: false,
            deaf: false,
            last_read: 0,
            little: false,
            patience: None,
            watched: false,
            closing: None,
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes that it takes, those of its buffers included.
    pub(super) fn memory(&self) -> usize {
        self.inbox.capacity() + self.queued + self.queue.capacity() * size_of::<Bytes>()
    }

    /// Whether reads are to be short.
    pub(super) fn read_little(&mut self, little: bool) {
        self.little = little;
    }

    /// From now on the kernel breaks the connection when what was written stays unacknowledged for so long: the peer's host has
    /// vanished. It counts the time for which a peer takes nothing, too. That is no fault of the peer's, so the kernel is
    /// not asked to while it takes nothing.
    pub(super) fn watch(&mut self, patience: Duration) {
        self.patience = Some(patience);
        self.set_watched(self.queue.is_empty());
    }

    fn set_watched(&mut self, watched: bool) {
        if let Some(patience) = self.patience
            && self.watched != watched
        {
            self.watched = watched;
            // Where it can't be set, the kernel's own patience holds.
            let _ = socket2::SockRef::from(&self.stream).set_tcp_user_timeout(watched.then_some(patience));
        }
    }

    /// Bytes read and written since the beginning.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.total_read, self.total_written)
    }

    /// The peer has ended, or the socket is broken, and all that came before that has been read.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn write(&mut self, bytes: Bytes) {
        if !self.ended && !self.deaf {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    pub(super) fn close(&mut self, patience: Duration, now: Instant) {
        self.closing = Some(now + patience);
    }

    /// Whether the socket is done with.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        self.closing.is_some_and(|until| self.queue.is_empty() || self.ended || now >= until)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closing
    }

    /// Waits until there is something to read (if that is wanted) or room to write (if there is something to write).
    pub(super) async fn ready(&self, reading: bool) {
        let interest = match (reading && !self.ended, !self.queue.is_empty()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        // An error shows itself in the read or write that follows.
        let _ = self.stream.ready(interest).await;
    }

    /// One read.
    pub(super) fn read(&mut self) -> Came {
        if self.ended {
            return Came::Nothing;
        }
        let room = self.make_room();
        let result = self.stream.try_read_buf(&mut (&mut self.inbox).limit(room));
        self.took(room, result)
    }

    /// As [`Side::read`], and it asks the system itself. The runtime learns of bytes by an event, and a timer may wake the task
    /// before that event: a process that was stopped for seconds finds both at once.
    pub(super) fn read_surely(&mut self) -> Came {
        match self.read() {
            Came::Nothing if self.has_unread() => {}
            came => return came,
        }
        let (room, len) = (self.make_room(), self.inbox.len());
        self.inbox.resize(len + room, 0);
        let socket = socket2::SockRef::from(&self.stream);
        let result = (&*socket).read(self.inbox.get_mut(len..).unwrap_or_default());
        self.inbox.truncate(len + result.as_ref().map_or(0, |count| *count));
        self.took(room, result)
    }

    /// Whether bytes of the peer lie in the socket.
    pub(super) fn has_unread(&self) -> bool {
        !self.ended && rustix::io::ioctl_fionread(&self.stream).is_ok_and(|count| count > 0)
    }

    /// How much is to be read at a time.
    fn make_room(&mut self) -> usize {
        let most = match (self.little, self.last_read < READ) {
            (true, _) => READ_LITTLE,
            (false, true) => READ,
            (false, false) => READ_MUCH,
        };
        if self.inbox.capacity() - self.inbox.len() < SHORT {
            self.inbox.reserve(most);
        }
        let room = self.inbox.capacity() - self.inbox.len();
        if self.little { room.min(READ_LITTLE) } else { room }
    }

    fn took(&mut self, room: usize, result: io::Result<usize>) -> Came {
        match result {
            Ok(0) => {
                self.ended = true;
                Came::Last
            }
            Ok(count) => {
                self.last_read = count;
                self.total_read += count as u64;
                if count < room { Came::Last } else { Came::More }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Came::Nothing,
            Err(_) => {
                self.ended = true;
                Came::Last
            }
        }
    }

    /// Gives back a buffer that is not worth keeping.
    pub(super) fn tidy(&mut self) {
        if self.inbox.is_empty() && self.last_read < SHORT {
            self.inbox = BytesMut::new();
        }
    }

    /// Writes as much as the socket takes. An error ends the writing only.
    pub(super) fn flush(&mut self) {
        while !self.queue.is_empty() && !self.ended {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            match self.stream.try_write_vectored(slices.get(..count).unwrap_or_default()) {
                Ok(written) => self.take(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.set_watched(false);
                    return self.copy_small();
                }
                Err(_) => {
                    self.deaf = true;
                    self.queue.clear();
                    self.queued = 0;
                    self.copied = 0;
                }
            }
        }
        if self.queue.is_empty() {
            self.set_watched(true);
            if self.queue.capacity() > KEPT {
                self.queue = VecDeque::new();
            }
        }
    }

    /// What has to wait lets go of the reads that it came with, where it is little of them. Each slice is looked at once.
    fn copy_small(&mut self) {
        if self.copied >= self.queue.len() {
            return;
        }
        let mut small = BytesMut::new();
        for slice in self.queue.split_off(self.copied) {
            if slice.len() < WORTH {
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

    /// Closes the socket at once. What the system still holds for the peer is not sent any more.
    pub(super) fn cut(self) {
        // Where it can't be set, the system closes as usual.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn take(&mut self, mut written: usize) {
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

    /// Lets the peer end first, as one does who has read `close-ok`; then says the end, and waits a moment for the peer's: to
    /// close with unread bytes would reset the connection, and the peer might never read what was written last.
    pub(super) async fn farewell(mut self) {
        if tokio::time::timeout(PEER_FIRST, self.read_to_end()).await.is_err() {
            let _ = self.stream.shutdown().await;
            let _ = tokio::time::timeout(PEER_LAST, self.read_to_end()).await;
        }
    }

    async fn read_to_end(&mut self) {
        let mut rest = [0; 4096];
        while !self.ended && matches!(self.stream.read(&mut rest).await, Ok(n) if n > 0) {}
    }
}
