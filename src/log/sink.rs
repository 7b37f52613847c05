//! Holds log lines in bounded memory until they are written, so that a thread that logs never waits for the log's
//! reader.
//!
//! One thread writes all lines that have come together, while new lines are collected. A line is lost if there is no
//! room for it, or if writing it fails (a full disk). Lost lines are counted, and the count is logged after the next
//! write that succeeds.

use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// The most bytes that may wait, including those that are being written: a few thousand lines.
const ROOM: usize = 1 << 20;
/// The bytes of a buffer that are kept for the next lines.
const KEPT: usize = 64 << 10;

thread_local! {
    /// True in the thread that writes. It logs how many lines were lost, and that line is accepted even when there is
    /// no room. There is only one such line at a time.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// A handle to the lines that wait to be written.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Signals that there are new lines, or that all lines are written.
    changed: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    /// bytes that are being written
    taken: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.taken == 0
    }
}

impl Sink {
    /// Starts the thread. After a successful write, the thread calls `tell` with the number of lines that were lost.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        tell: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<Sink> {
        let queue = Arc::new(Queue::default());
        let sink = Sink(Arc::clone(&queue));
        // Nobody ends this thread: when the process ends, it may be inside a write that never returns.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.run(out, tell))?;
        Ok(sink)
    }

    /// Adds a line, or counts it as lost if there is no room.
    pub(super) fn put(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if waiting.bytes.len() + waiting.taken + line.len() > ROOM && !WRITES.get() {
            self.0.lost.fetch_add(1, Relaxed);
            return;
        }
        waiting.bytes.extend_from_slice(line);
        waiting.lines += 1;
        self.0.changed.notify_all();
    }

    /// Returns how many lines were lost.
    pub(super) fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// Waits until all lines are written, for at most `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let mut waiting = self.0.waiting.lock();
        self.0.changed.wait_while_for(&mut waiting, |waiting| !waiting.is_empty(), patience);
    }
}

impl Queue {
    fn run(&self, mut out: impl Write, mut tell: impl FnMut(u64)) {
        WRITES.set(true);
        let (mut batch, mut told) = (Vec::new(), 0);
        loop {
            let lines = self.take(&mut batch);
            let written = out.write_all(&batch);
            batch.clear();
            batch.shrink_to(KEPT);
            if written.is_err() {
                self.lost.fetch_add(lines, Relaxed);
            } else {
                let lost = self.lost.load(Relaxed);
                if lost > told {
                    tell(lost - told);
                    told = lost;
                }
            }
            self.waiting.lock().taken = 0;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes all of them. Returns their number.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut waiting = self.waiting.lock();
        self.changed.wait_while(&mut waiting, |waiting| waiting.bytes.is_empty());
        std::mem::swap(&mut waiting.bytes, batch);
        waiting.taken = batch.len();
        std::mem::take(&mut waiting.lines)
    }
}

impl Write for &Sink {
    /// The formatter passes a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Sink {
    type Writer = &'w Sink;

    fn make_writer(&'w self) -> &'w Sink {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A pipe whose test decides when a write ends, and whether it succeeds.
    struct Pipe {
        ends: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let end = self.ends.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
            end?;
            let _ = self.written.send(bytes.to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stand {
        sink: Sink,
        ends: Sender<io::Result<()>>,
        written: Receiver<Vec<u8>>,
        told: Receiver<u64>,
    }

    fn stand() -> Stand {
        let ((ends, end), (write, written), (say, told)) = (channel(), channel(), channel());
        let pipe = Pipe { ends: end, written: write };
        let sink = Sink::start(pipe, move |lines| say.send(lines).unwrap()).unwrap();
        Stand { sink, ends, written, told }
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_no_time() {
        let stand = stand();
        let line = [b'x'; 1024];
        for _ in 0..3 * ROOM / line.len() {
            stand.sink.put(&line);
        }
        let lost = stand.sink.lost();
        assert_eq!(lost, (2 * ROOM / line.len()) as u64, "one mebibyte waits, the rest is lost");
        stand.sink.flush(Duration::from_millis(10));
        // The reader is back: the lines that waited are written, and the number of lost lines is reported.
        stand.ends.send(Ok(())).unwrap();
        let mut bytes = stand.written.recv_timeout(DEADLINE).unwrap().len();
        assert_eq!(stand.told.recv_timeout(DEADLINE), Ok(lost));
        while bytes < ROOM {
            stand.ends.send(Ok(())).unwrap();
            bytes += stand.written.recv_timeout(DEADLINE).unwrap().len();
        }
        assert_eq!(bytes, ROOM);
        stand.sink.flush(DEADLINE);
        stand.sink.put(&line);
        assert_eq!(stand.sink.lost(), lost, "there is room again");
    }

    #[test]
    fn what_a_full_disk_refuses_is_counted_and_told() {
        let stand = stand();
        stand.sink.put(b"one\n");
        stand.ends.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        stand.sink.flush(DEADLINE);
        assert_eq!(stand.sink.lost(), 1);
        stand.sink.put(b"two\n");
        stand.ends.send(Ok(())).unwrap();
        assert_eq!(stand.written.recv_timeout(DEADLINE).unwrap(), b"two\n");
        assert_eq!(stand.told.recv_timeout(DEADLINE), Ok(1));
    }
}
