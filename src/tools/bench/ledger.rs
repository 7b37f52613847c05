//! The messages in flight on a connection: for each tag, the moment when its message was due, until the broker answers.

/// A ring over the tags from the oldest unanswered one on.
#[derive(Debug)]
pub(super) struct Ledger {
    /// nanoseconds since the start, plus 1; 0 is answered
    due: Vec<u64>,
    window: u64,
    oldest: u64,
    next: u64,
}

/// The broker has answered something that was not asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Strange {
    /// which tag it named
    pub(super) tag: u64,
}

impl Ledger {
    /// Creates a ledger for at most `window` messages in flight, counted from the oldest unanswered one.
    pub(super) fn new(window: u32) -> Ledger {
        Ledger {
            due: vec![0; (window as usize).next_power_of_two()],
            window: window.into(),
            oldest: 1,
            next: 1,
        }
    }

    /// How many may be published now.
    pub(super) fn room(&self) -> u64 {
        self.window - (self.next - self.oldest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.oldest == self.next
    }

    /// The next tag's message was due at `due` nanoseconds after the start.
    pub(super) fn publish(&mut self, due: u64) {
        let tag = self.next;
        if let Some(slot) = self.slot(tag) {
            *slot = due + 1;
        }
        self.next += 1;
    }

    /// Calls `answered` for the messages that are settled: when they were due, and how many in a row were due at that moment.
    pub(super) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        mut answered: impl FnMut(u64, u64),
    ) -> Result<(), Strange> {
        let tag = if multiple && tag == 0 { self.next - 1 } else { tag };
        if tag >= self.next || (!multiple && tag < self.oldest) {
            return Err(Strange { tag });
        }
        if multiple {
            let mut run = (0, 0);
            while self.oldest <= tag {
                let due = self.take(self.oldest);
                self.oldest += 1;
                if due == run.0 {
                    run.1 += 1;
                    continue;
                }
                if run.0 > 0 {
                    answered(run.0 - 1, run.1);
                }
                run = (due, 1);
            }
            if run.0 > 0 {
                answered(run.0 - 1, run.1);
            }
        } else {
            match self.take(tag) {
                0 => return Err(Strange { tag }),
                due => answered(due - 1, 1),
            }
        }
        while self.oldest < self.next && self.slot(self.oldest).is_none_or(|due| *due == 0) {
            self.oldest += 1;
        }
        Ok(())
    }

    fn take(&mut self, tag: u64) -> u64 {
        self.slot(tag).map(std::mem::take).unwrap_or_default()
    }

    fn slot(&mut self, tag: u64) -> Option<&mut u64> {
        #[expect(clippy::cast_possible_truncation, reason = "what is cut off is masked away")]
        let at = tag as usize & (self.due.len() - 1);
        self.due.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(ledger: &mut Ledger, tag: u64, multiple: bool) -> Result<Vec<(u64, u64)>, Strange> {
        let mut answers = Vec::new();
        ledger.settle(tag, multiple, |due, count| answers.push((due, count)))?;
        Ok(answers)
    }

    #[test]
    fn answers_in_any_order_find_when_their_message_was_due() {
        let mut ledger = Ledger::new(5);
        [0, 0, 7, 8, 9].into_iter().for_each(|due| ledger.publish(due));
        assert_eq!(ledger.room(), 0);
        assert_eq!(answers(&mut ledger, 4, false), Ok(vec![(8, 1)]));
        assert_eq!(ledger.room(), 0, "counted from the oldest");
        assert_eq!(answers(&mut ledger, 3, true), Ok(vec![(0, 2), (7, 1)]));
        assert_eq!(ledger.room(), 4);
        ledger.publish(10);
        assert_eq!(answers(&mut ledger, 0, true), Ok(vec![(9, 1), (10, 1)]), "0 is all");
        assert!(ledger.is_empty());
    }

    #[test]
    fn what_was_never_published_or_is_answered_can_t_be_answered() {
        let mut ledger = Ledger::new(3);
        (0..3).for_each(|due| ledger.publish(due));
        assert_eq!(answers(&mut ledger, 2, false), Ok(vec![(1, 1)]));
        assert_eq!(answers(&mut ledger, 2, false), Err(Strange { tag: 2 }));
        assert_eq!(answers(&mut ledger, 4, false), Err(Strange { tag: 4 }));
        assert_eq!(answers(&mut ledger, 4, true), Err(Strange { tag: 4 }));
        assert_eq!(answers(&mut ledger, 1, false), Ok(vec![(0, 1)]));
        assert_eq!(answers(&mut ledger, 1, false), Err(Strange { tag: 1 }));
        assert_eq!(answers(&mut ledger, 3, true), Ok(vec![(2, 1)]));
    }
}
