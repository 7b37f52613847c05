//! Log lines, for tests.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns what is logged while this is done.
pub(super) fn log_of(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(log, work);
    let bytes = std::mem::take(&mut *lines.0.lock());
    String::from_utf8_lossy(&bytes).into_owned()
}
