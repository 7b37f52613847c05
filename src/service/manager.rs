//! Tells the service manager what the process does (sd_notify(3)).
//!
//! ```text
//! Recovering ──> Serving ──> Draining
//!                READY=1     STOPPING=1        WATCHDOG=1 at every beat, in each phase
//! ```
//!
//! A task of the runtime makes the messages, so a runtime that stands still is silent, and the watchdog notices. A thread of its own
//! sends them: a service manager that does not read stops neither clients nor the end of the process.

use parking_lot::Mutex;
use sd_notify::NotifyState;
use std::fmt::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// The time between two messages, if no watchdog wants them more often.
const BEAT: Duration = Duration::from_secs(10);
/// Messages that may wait for a service manager that does not read.
const WAITING: usize = 8;
/// How long the end of the process waits until the last message is sent.
const LAST: Duration = Duration::from_secs(1);

/// The stage of the process's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// it reads what the stores of its windows have; clients that connect wait
    Recovering,
    /// it relays
    Serving,
    /// it takes no clients and settles what is in flight
    Draining,
}

/// The service manager of this process, if there is one.
#[derive(Debug)]
pub struct Manager {
    phase: watch::Sender<Phase>,
    sending: Option<Sending>,
}

/// The thread that sends. It ends when the sender is dropped.
#[derive(Debug)]
struct Sending {
    messages: SyncSender<String>,
    ended: Mutex<Receiver<()>>,
}

impl Manager {
    /// Finds the service manager by the environment. If there is none, this sends no messages.
    pub fn of_process() -> Manager {
        let there = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        let sending = there.then(Sending::begin).transpose();
        let sending = sending.unwrap_or_else(|error| {
            tracing::error!(%error, "can't start the thread that tells the service manager that Hapax is ready");
            None
        });
        Manager { phase: watch::Sender::new(Phase::Recovering), sending }
    }

    /// Begins a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Tells the service manager every change of the phase, and the number of clients at every beat. It never ends.
    pub async fn report(&self, clients: impl Fn() -> usize) {
        let watchdog = sd_notify::watchdog_enabled();
        // Twice in the watchdog's time, as sd_watchdog_enabled(3) wants it.
        let every = watchdog.map_or(BEAT, |time| (time / 2).min(BEAT)).max(Duration::from_millis(1));
        self.report_every(every, watchdog.is_some(), clients).await;
    }

    async fn report_every(&self, every: Duration, watchdog: bool, clients: impl Fn() -> usize) {
        let Some(sending) = &self.sending else { return std::future::pending().await };
        let mut beat = tokio::time::interval(every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut phases = self.phase.subscribe();
        let mut told = None;
        loop {
            tokio::select! {
                _ = phases.changed() => {}
                _ = beat.tick() => {}
            }
            // A phase is new until it was told: a beat that comes at the same moment, or a queue that is full, must not swallow it.
            let phase = *phases.borrow_and_update();
            if sending.send(message(phase, told != Some(phase), watchdog, clients())) {
                told = Some(phase);
            }
        }
    }

    /// Waits until the last message is sent, for a second at most.
    pub fn end(self) {
        if let Some(Sending { messages, ended }) = self.sending {
            drop(messages);
            let _ = ended.into_inner().recv_timeout(LAST);
        }
    }
}

fn message(phase: Phase, is_new: bool, watchdog: bool, clients: usize) -> String {
    let status = match phase {
        Phase::Recovering => "reading what the stores of the windows have".to_owned(),
        Phase::Serving => format!("serving; clients: {clients}"),
        Phase::Draining => format!("draining; clients: {clients}"),
    };
    let mut states = vec![NotifyState::Status(&status)];
    match phase {
        Phase::Serving if is_new => states.push(NotifyState::Ready),
        Phase::Draining if is_new => states.push(NotifyState::Stopping),
        Phase::Recovering | Phase::Serving | Phase::Draining => {}
    }
    if watchdog {
        states.push(NotifyState::Watchdog);
    }
    let mut text = String::new();
    for state in states {
        let _ = writeln!(text, "{state}");
    }
    text
}

impl Sending {
    fn begin() -> std::io::Result<Sending> {
        let (messages, queue) = sync_channel::<String>(WAITING);
        let (end, ended) = sync_channel(1);
        // Nobody joins this thread: it may be inside a write that never returns.
        std::thread::Builder::new().name("service".to_owned()).spawn(move || {
            let mut failed = false;
            for message in queue {
                // `Custom` writes the text as it is, and one line end more.
                let sent = sd_notify::notify(&[NotifyState::Custom(message.trim_end())]);
                if let Err(error) = sent
                    && !std::mem::replace(&mut failed, true)
                {
                    tracing::warn!(%error, "can't tell the service manager what Hapax does (NOTIFY_SOCKET)");
                }
            }
            let _ = end.send(());
        })?;
        Ok(Sending { messages, ended: Mutex::new(ended) })
    }

    /// Queues a message. Returns false if too many wait: the message is left out then.
    fn send(&self, message: String) -> bool {
        self.messages.try_send(message).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_told_depends_on_the_phase() {
        let told = |phase, is_new, watchdog| message(phase, is_new, watchdog, 3);
        assert_eq!(
            told(Phase::Recovering, true, false),
            "STATUS=reading what the stores of the windows have\n"
        );
        assert_eq!(told(Phase::Serving, true, true), "STATUS=serving; clients: 3\nREADY=1\nWATCHDOG=1\n");
        assert_eq!(told(Phase::Serving, false, true), "STATUS=serving; clients: 3\nWATCHDOG=1\n");
        assert_eq!(told(Phase::Draining, true, false), "STATUS=draining; clients: 3\nSTOPPING=1\n");
        assert_eq!(told(Phase::Draining, false, false), "STATUS=draining; clients: 3\n");
    }

    #[test]
    fn neither_a_beat_nor_a_full_queue_swallows_a_phase() {
        let (messages, heard) = sync_channel(1);
        let (_end, ended) = sync_channel(1);
        let sending = Some(Sending { messages, ended: Mutex::new(ended) });
        let manager = Arc::new(Manager { phase: watch::Sender::new(Phase::Recovering), sending });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let reporter = Arc::clone(&manager);
        // A beat is due at every moment, and the queue is full nearly always.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = reporter.report_every(Duration::from_nanos(1), true, || 0) => {}
                    _ = stopped => {}
                }
            });
        });
        for _ in 0..64 {
            for (phase, line) in [(Phase::Serving, "READY=1"), (Phase::Draining, "STOPPING=1")] {
                manager.enter(phase);
                while !heard.recv_timeout(Duration::from_secs(20)).unwrap().contains(line) {}
            }
        }
        stop.send(()).unwrap();
        thread.join().unwrap();
    }
}
