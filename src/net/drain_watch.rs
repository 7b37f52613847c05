//! Waits for the begin of the drain, beside everything else that a connection waits for.
//!
//! All connections share one list of those who wait, and its locks. To join and leave the list at each wait would cost more than a
//! small message. Each connection therefore joins it once. It asks again only if the value has changed, or if it is another task by now.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::sync::watch;

type Begun = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Says when the drain begins.
pub(super) struct DrainWatch {
    /// It has seen the first value, and is asked whether there is another one.
    draining: watch::Receiver<bool>,
    begun: Begun,
    /// The waker that `begun` knows.
    waker: Option<Waker>,
}

impl DrainWatch {
    /// Watches this value: the drain begins when it is true, or when nobody can set it any more.
    pub(super) fn new(mut draining: watch::Receiver<bool>) -> DrainWatch {
        let mut own = draining.clone();
        draining.mark_unchanged();
        let begun = Box::pin(async move {
            let _ = own.wait_for(|draining| *draining).await;
        });
        DrainWatch { draining, begun, waker: None }
    }

    /// Ready when the drain has begun. Must not be called again then.
    pub(super) fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let knows_waker = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if knows_waker && self.draining.has_changed().is_ok_and(|changed| !changed) {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        self.begun.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::future::poll_fn;

    #[tokio::test]
    async fn it_hears_of_the_drain_once_asked_or_before() {
        for (before, asked) in [(false, 0), (false, 3), (true, 0)] {
            let (sender, receiver) = watch::channel(false);
            if before {
                sender.send_replace(true);
            }
            let mut drain = DrainWatch::new(receiver);
            for _ in 0..asked {
                assert!(poll_fn(|cx| drain.poll_begun(cx)).now_or_never().is_none());
            }
            let waits = tokio::spawn(async move { poll_fn(|cx| drain.poll_begun(cx)).await });
            tokio::task::yield_now().await;
            assert_eq!(waits.is_finished(), before);
            sender.send_replace(true);
            waits.await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_nobody_can_begin_any_more_has_begun() {
        let (sender, receiver) = watch::channel(false);
        let mut drain = DrainWatch::new(receiver);
        assert!(poll_fn(|cx| drain.poll_begun(cx)).now_or_never().is_none());
        drop(sender);
        poll_fn(|cx| drain.poll_begun(cx)).await;
    }
}
