//! The queue that was declared last on a channel: `basic.consume` and `basic.get` mean it by an empty name.
//!
//! A queue that is declared without a name gets one by the broker's answer. The answers come in the order of the declarations. They are counted
//! from the channel's beginning on, also if no queue has a guard then: a reload may bring one while answers are on their way.

use crate::session::outbox::View;
use crate::wire::consuming::Declare;
use std::sync::Arc;

/// The name of the queue that was declared last.
#[derive(Clone, Default, Debug)]
pub(in crate::session) enum LastName {
    /// No queue was declared, or nobody will tell its name.
    #[default]
    Unknown,
    Known(Arc<[u8]>),
    /// It comes with the answer to the declaration of this number.
    Coming(u64),
}

/// The queue that was declared last on a channel.
#[derive(Default, Debug)]
pub(in crate::session) struct LastQueue {
    name: LastName,
    /// declarations that the broker answers
    asked: u64,
    /// those that it has answered
    answered: u64,
}

impl LastQueue {
    /// Returns its name.
    pub(in crate::session) fn name(&self) -> &LastName {
        &self.name
    }

    /// Handles `queue.declare` of the client, which is about to be forwarded. (The broker closes the connection for a malformed one.)
    pub(super) fn recv_declare(&mut self, frame: View<'_>) {
        let Ok(Declare { queue, nowait }) = Declare::parse(frame.payload()) else { return };
        self.asked += u64::from(!nowait);
        self.name = match queue {
            b"" if nowait => LastName::Unknown,
            b"" => LastName::Coming(self.asked),
            name => LastName::Known(name.into()),
        };
    }

    /// Handles `queue.declare-ok`. Returns the number of the declaration that it answers, and the name of the queue.
    pub(super) fn recv_declare_ok(&mut self, frame: View<'_>) -> Option<(u64, Arc<[u8]>)> {
        self.answered += 1;
        let name: Arc<[u8]> = Declare::queue_of_ok(frame.payload()).ok()?.into();
        if matches!(self.name, LastName::Coming(number) if number == self.answered) {
            self.name = LastName::Known(Arc::clone(&name));
        }
        Some((self.answered, name))
    }
}
