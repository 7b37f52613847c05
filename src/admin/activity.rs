//! What a connection of the admin listener is doing, for whoever has to choose which one gives way: whether it has a
//! request, when something moved last, and since when its peer takes nothing.

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

/// Bytes that the system may hold for a peer who is [`kept short`](Activity::keep_short); it doubles them. Enough for an
/// event each second to anybody, and soon full for who reads nothing.
const SHORT: usize = 8 << 10;

/// Of one connection, shared by its socket, its requests and the listener.
#[derive(Debug)]
pub(super) struct Activity {
    now: Mutex<Now>,
    leave: Notify,
}

/// In the order in which connections give way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// it was read, and there was no request: it is silent, or between two
    Silent,
    /// its answer is not out
    Busy,
    /// nobody has read it yet, so its request may be there: it does not give way
    New,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    stage: Stage,
    /// it was accepted, a request began or ended, or bytes of an answer were taken
    moved: Instant,
    /// its peer takes nothing since then
    stuck: Option<Instant>,
    short: bool,
    leaves: bool,
}

impl Default for Activity {
    fn default() -> Activity {
        let (stage, moved) = (Stage::New, Instant::now());
        let now = Now { stage, moved, stuck: None, short: false, leaves: false };
        Activity { now: Mutex::new(now), leave: Notify::new() }
    }
}

impl Activity {
    /// The connection that is worth least gives way: without a request before with one, and then the one where nothing
    /// has moved for longest.
    pub(super) fn worth(&self) -> (Stage, Instant) {
        let now = self.now.lock();
        (now.stage, now.moved)
    }

    /// For how long its peer has taken nothing of what is there for it; `None` if there is nothing.
    pub(super) fn stuck(&self) -> Option<Duration> {
        self.now.lock().stuck.map(|since| since.elapsed())
    }

    /// Ends the connection.
    pub(super) fn leave(&self) {
        self.now.lock().leaves = true;
        self.leave.notify_one();
    }

    /// Whether [`Activity::leave`] was called.
    pub(super) fn leaves(&self) -> bool {
        self.now.lock().leaves
    }

    /// Waits for [`Activity::leave`].
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// From its next write on the system holds little for this peer, so that it is seen soon when it reads nothing.
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

    /// It was read, and nothing was there.
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

/// A request is in progress.
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

/// A socket that tells what happens on it.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Watched {
        Watched { stream, activity }
    }

    fn write(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.activity.take_short() {
            // Without it, it is only noticed later.
            let _ = socket2::SockRef::from(&self.stream).set_send_buffer_size(SHORT);
        }
        let written = write(Pin::new(&mut self.stream));
        self.activity.wrote(written.is_ready());
        written
    }
}

impl Drop for Watched {
    /// What a peer has not taken is not kept for it, which the system would do for minutes.
    fn drop(&mut self) {
        if self.activity.stuck().is_some() {
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Watched {
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

impl AsyncWrite for Watched {
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
