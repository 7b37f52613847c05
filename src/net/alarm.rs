//! The timer of one connection. It is moved only when the deadline comes earlier: nearly every turn of a busy connection puts its
//! deadlines off, and the runtime's timers cost more than a comparison.

use super::now;
use std::pin::Pin;
use std::time::Instant;
use tokio::time::Sleep;

/// A timer that is kept from one wait to the next.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the timer rings; `None` if it has rung.
    rings: Option<Instant>,
}

impl Alarm {
    /// Waits until the deadline; for ever, if there is none.
    pub(super) async fn wait(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        loop {
            let Alarm { sleep, rings } = self;
            let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if rings.is_none_or(|rings| deadline < rings) {
                sleep.as_mut().reset(deadline.into());
                *rings = Some(deadline);
            }
            sleep.as_mut().await;
            // It may have rung for a deadline that was put off.
            *rings = None;
            if now() >= deadline {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(60);

    /// Whether the deadline comes earlier, later, or again after the timer has rung.
    #[tokio::test]
    async fn it_rings_at_the_deadline_and_not_at_an_earlier_one_that_was_put_off() {
        let mut alarm = Alarm::default();
        let waited = async |alarm: &mut Alarm, after: Duration| {
            let at = now() + after;
            alarm.wait(Some(at)).await;
            assert!(now() >= at);
        };
        for deadlines in [[LATE, SOON], [SOON, SOON * 3], [SOON, SOON]] {
            // The first wait is given up, as when a socket is ready.
            let first = timeout(Duration::ZERO, waited(&mut alarm, deadlines[0])).await;
            assert!(first.is_err());
            timeout(LATE / 2, waited(&mut alarm, deadlines[1])).await.expect("the second deadline");
        }
        assert!(timeout(SOON, alarm.wait(None)).await.is_err());
    }
}
