//! The numbers that a channel adds to the sums of its session.

/// The numbers that a channel adds to the sums of its session.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::session) struct Booked {
    /// publishes whose outcome is unknown
    pub(in crate::session) unresolved: usize,
    /// bytes held for frames that wait
    pub(in crate::session) held: usize,
    /// bytes that the channel takes
    pub(in crate::session) memory: usize,
    /// the part of `memory` that only the client can end
    pub(in crate::session) stuck: usize,
    /// 1 if the client believes the channel to be closed, and the upstream's channel is open
    pub(in crate::session) hidden: usize,
}

impl Booked {
    /// Takes what a channel had booked before out of the sums, and adds what it has booked now.
    #[inline]
    pub(in crate::session) fn replace(&mut self, before: Booked, after: Booked) {
        self.unresolved = self.unresolved - before.unresolved + after.unresolved;
        self.held = self.held - before.held + after.held;
        self.memory = self.memory - before.memory + after.memory;
        self.stuck = self.stuck - before.stuck + after.stuck;
        self.hidden = self.hidden - before.hidden + after.hidden;
    }
}
