//! Where lines wait until they are written: bounded, and nobody who logs waits for whoever reads.
//!
//! One thread writes what has come together, while the next lines come together. A line for which there is no room is
//! lost, as is what can't be written (a full disk); both are counted, and told when writing succeeds again.

use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait, those that are being written included: a few thousand lines.
const ROOM: usize = 1 << 20;
/// Bytes of a buffer that are kept for the next lines.
const KEPT: usize = 64 << 10;

thread_local! {
    /// Whether this thread is the one that writes. What it says of lost lines finds room always: one line at a time.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There are lines, or there are none any more.
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
    /// Starts the thread. `tell` is called there with the number of lines that were lost, after a write has succeeded.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        tell: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<Sink> {
        let shared = Arc::new(Shared::default());
        let sink = Sink(Arc::clone(&shared));
        // It has no end: it may be in the middle of a write that never returns when the process ends.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.run(out, tell))?;
        Ok(sink)
    }

    /// Takes a line, or loses it.
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

    /// Lines that were lost.
    pub(super) fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// Waits until all lines are written, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        let mut waiting = self.0.waiting.lock();
        self.0.changed.wait_while_for(&mut waiting, |waiting| !waiting.is_empty(), patience);
    }
}

impl Shared {
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

    /// Waits for lines and takes them all.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut waiting = self.waiting.lock();
        self.changed.wait_while(&mut waiting, |waiting| waiting.bytes.is_empty());
        std::mem::swap(&mut waiting.bytes, batch);
        waiting.taken = batch.len();
        std::mem::take(&mut waiting.lines)
    }
}

impl Write for &Sink {
    /// A whole line at a time, as the formatter hands it over.
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

    /// A pipe whose reader decides when a write ends, and how.
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
        // It flows again: what waited comes, and how much did not.
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
