//! The counters of a load.

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// handed to the operating system
    pub published: u64,
    /// of them with an id that was published before
    pub repeated: u64,
    /// `basic.ack`
    pub acked: u64,
    /// `basic.nack`
    pub nacked: u64,
    /// `basic.return`
    pub returned: u64,
    /// `basic.deliver`
    pub delivered: u64,
}
