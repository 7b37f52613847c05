//! Keeps all cores busy, at the lowest priority, while it lives.
//!
//! With one message in flight every core falls idle after every step, and an idle virtual core takes longer to wake than a
//! relay takes for its work: a chain with a relay in it may then be quicker than one without. Cores that never fall idle leave
//! what a relay adds. A thread that has work to do takes the core at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// A thread of this has hardly any share of a core that somebody else wants.
const NICEST: i32 = 19;

/// The threads that keep the cores busy. They end when this is dropped.
#[must_use = "dropping it lets the cores fall idle"]
#[derive(Debug)]
pub(super) struct Awake {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    pub(super) fn new() -> Awake {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spin = |_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                // (Of this thread alone, on Linux. Without it the figures would be wrong, so there is no busy thread then.)
                let is_nice = rustix::process::nice(NICEST).is_ok();
                while is_nice && !over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        Awake { threads: (0..cores).map(spin).collect(), over }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
