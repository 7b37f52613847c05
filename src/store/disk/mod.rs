//! A store on a disk: for each window a log of what it has committed, in segments of an own folder.
//!
//! ```text
//!   LoggedWindow ──take──▶ writer ──batch──▶ frame ──▶ log: 0000000000000001.log, 0000000000000002.log, …
//!                                                       │ compact: a segment with what is still needed takes the place of some
//!   LoggedWindow ◀────────────── recover ◀──────────────┘ expire: the oldest go when all their ids are expired
//! ```
//!
//! `docs/adr/0033-disk-log.md` says why it is an own log.

mod checkpoint;
mod compact;
#[cfg(test)]
mod fake;
mod files;
mod frame;
mod log;
pub(super) mod look;
mod recover;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub(super) use state::StateDir;

use super::{Failure, Keeper, Logged, name_of};
use files::Folder;
use hapax_core::window::logged::Codec;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use writer::{Parts, Signals};

/// Opens the log of a window, and starts its writer. A write that takes longer than `timeout` counts as a store that is down.
pub(super) fn open(
    state: &Arc<StateDir>,
    window: &Arc<Logged>,
    codec: Codec,
    timeout: Duration,
) -> Result<Keeper, Failure> {
    let path = state.window(name_of(window));
    let failed = |error: std::io::Error| Failure {
        what: format!(
            "window \"{}\": can't use the folder of its log, {}: {error}",
            name_of(window),
            path.display()
        ),
        fix: "see that the user that runs Hapax may read and write it".to_owned(),
    };
    let files = Arc::new(Folder::open(&path).map_err(failed)?);
    let signals = Arc::new(Signals::default());
    let parts = Parts {
        files,
        folder: path.display().to_string(),
        window: Arc::clone(window),
        codec,
        segment_bytes: log::SEGMENT,
        signals: Arc::clone(&signals),
        clock: writer::clock(),
    };
    let (recovered, has_recovered) = oneshot::channel();
    let (ended, has_ended) = oneshot::channel::<()>();
    let held = Arc::clone(state);
    let work = move || {
        writer::run(parts, recovered);
        drop((ended, held));
    };
    std::thread::Builder::new().name("hapax-log".into()).spawn(work).map_err(failed)?;
    let watched = Arc::downgrade(&signals);
    let (of, closed) = (Arc::downgrade(window), Arc::clone(window));
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval((timeout / 4).max(Duration::from_millis(10)));
        loop {
            ticks.tick().await;
            let (Some(signals), Some(window)) = (watched.upgrade(), of.upgrade()) else { return };
            signals.busy.watch(&window, crate::clock::now(), timeout);
        }
    });
    Ok(Keeper {
        recover: Box::pin(async move {
            // A writer that ends without a word has been told to end.
            has_recovered.await.unwrap_or(Ok(()))
        }),
        close: Box::new(move |within| {
            Box::pin(async move {
                signals.close(within);
                // A disk that does not answer may hold a thread for ever.
                if tokio::time::timeout(within, has_ended).await.is_err() {
                    let window = name_of(&closed);
                    tracing::error!(
                        window,
                        "the process ends, and the disk does not answer: what was not written is forgotten"
                    );
                }
            })
        }),
    })
}
