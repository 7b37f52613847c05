//! Records what each connection of the admin listener does: whether it has a request, when something last moved, and
//! since when its peer has accepted no bytes. The listener uses this to choose the connection that gives way to a new
//! one.

use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The kernel's send buffer in bytes for a peer that is [kept short](Activity::keep_short). The kernel doubles it. It
/// holds an event per second for any reader, and is soon full for a peer that reads nothing.
const SHORT: usize = 8 << 10;

/// The activity of one connection. Its socket, its requests and the listener share it.
#[derive(Debug)]
pub(super) struct Activity {
    now: Mutex<Now>,
    leave: Notify,
}

/// The stage that a connection is in. The variants are in the order in which connections give way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// the socket was read and there was no request: the peer has sent nothing yet, or is between two requests
    Silent,
    /// an answer is not fully written yet
    Busy,
    /// the socket was not read yet and may hold a request, so the connection does not give way
    New,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    stage: Stage,
    /// when the connection was accepted, a request began or ended, or the peer last accepted bytes of an answer
    moved: Instant,
    /// since when the peer has accepted no bytes of an answer
    stuck: Option<Instant>,
    short: bool,
    is_leaving: bool,
}

impl Default for Activity {
    fn default() -> Activity {
        let (stage, moved) = (Stage::New, Instant::now());
        let now = Now { stage, moved, stuck: None, short: false, is_leaving: false };
        Activity { now: Mutex::new(now), leave: Notify::new() }
    }
}

impl Activity {
    /// Returns the rank by which a connection is chosen to give way: the smallest goes first. A connection without a
    /// request goes before one with a request; among equals, the one in which nothing has moved for the longest time
    /// goes first.
    pub(super) fn rank(&self) -> (Stage, Instant) {
        let now = self.now.lock();
        (now.stage, now.moved)
    }

    /// Returns for how long the peer has accepted no bytes although some are waiting. `None` if no bytes are waiting.
    pub(super) fn stuck(&self) -> Option<Duration> {
        self.now.lock().stuck.map(|since| since.elapsed())
    }

    /// Asks the connection to end.
    pub(super) fn leave(&self) {
        self.now.lock().is_leaving = true;
        self.leave.notify_one();
    }

    /// Returns true after [`Activity::leave`] was called.
    pub(super) fn is_leaving(&self) -> bool {
        self.now.lock().is_leaving
    }

    /// Waits for [`Activity::leave`].
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Makes the kernel's send buffer small from the next write on, so that we soon notice when the peer reads
    /// nothing.
    pub(super) fn keep_short(&self) {
        self.now.lock().short = true;
    }

    /// Returns true once after [`Activity::keep_short`].
    fn take_short(&self) -> bool {
        std::mem::take(&mut self.now.lock().short)
    }

    fn set(&self, stage: Stage) {
        let mut now = self.now.lock();
        (now.stage, now.moved) = (stage, Instant::now());
    }

    /// Records that the socket was read and that no bytes were there.
    fn found_silent(&self) {
        let mut now = self.now.lock();
        if now.stage == Stage::New {
            now.stage = Stage::Silent;
        }
    }

    fn wrote(&self, taken: bool) {
        let mut now = self.now.lock();
        if taken {
            (now.moved, now.stuck) = (Instant::now(), None);
        } else {
            now.stuck.get_or_insert_with(Instant::now);
        }
    }
}

/// A guard: a request is in progress while this lives.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn new(activity: Arc<Activity>) -> Busy {
        activity.set(Stage::Busy);
        Busy(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(Stage::Silent);
    }
}

/// A socket that records its reads and writes in an [`Activity`].
#[derive(Debug)]
pub(super) struct ObservedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl ObservedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> ObservedStream {
        ObservedStream { stream, activity }
    }

    fn write(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.activity.take_short() {
            // If the option can't be set, a peer that reads nothing is only noticed later.
            let _ = socket2::SockRef::from(&self.stream).set_send_buffer_size(SHORT);
        }
        let written = write(Pin::new(&mut self.stream));
        self.activity.wrote(written.is_ready());
        written
    }
}

impl Drop for ObservedStream {
    /// Resets the connection if the peer has not accepted all bytes. The kernel would otherwise keep them for minutes.
    fn drop(&mut self) {
        if self.activity.stuck().is_some() {
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ObservedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() {
            self.activity.found_silent();
        }
        read
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(|stream| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
