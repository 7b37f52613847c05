//! Message ids: 128 bits as hexadecimal digits, unique in all runs, with the asked share of repeats among them.

/// Digits of an id.
pub(super) const ID_LEN: usize = 32;
/// Digits of its second half, the ones that change.
pub(super) const COUNTER_LEN: usize = 16;

/// The counters of one connection's messages.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Ids {
    /// where this connection's counters begin
    base: u64,
    /// how many were new
    fresh: u64,
    /// share of repeats, in 2⁻³² of a message
    share: u64,
    /// what is owed to the repeats
    owed: u64,
    /// a repeat takes the id that was new this many ids ago
    repeat_after: u64,
}

impl Ids {
    /// For the connection with this number.
    pub(super) fn new(connection: usize, duplicates: f64, repeat_after: u64) -> Ids {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share below 1")]
        let share = (duplicates * 2_f64.powi(32)).ceil() as u64;
        Ids { base: (connection as u64) << 40, fresh: 0, share, owed: 0, repeat_after: repeat_after.max(1) }
    }

    /// How many were new so far.
    pub(super) fn fresh(&self) -> u64 {
        self.fresh
    }

    /// Moves on as after `messages` calls of [`Ids::next`].
    pub(super) fn skip(&mut self, messages: usize) {
        for _ in 0..messages {
            self.next();
        }
    }

    /// The next message's counter.
    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.owed += self.share;
        if self.owed >> 32 == 0 {
            self.fresh += 1;
            return self.base + self.fresh;
        }
        self.owed -= 1 << 32;
        // Repeats walk along behind the new ones, so that each of them is about as old; in the beginning half of that, so that
        // they do not all repeat the first one.
        self.base + self.fresh - (self.repeat_after - 1).min(self.fresh / 2)
    }
}

/// The first half of all ids of a run.
pub(super) fn fresh_run() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// The digits of a counter.
#[inline]
pub(super) fn hex(counter: u64) -> [u8; COUNTER_LEN] {
    let mut digits = [0; COUNTER_LEN];
    for (pair, octet) in digits.chunks_exact_mut(2).zip(counter.to_be_bytes()) {
        pair.copy_from_slice(&PAIRS[usize::from(octet)]);
    }
    digits
}

const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut octet = 0;
    while octet < 256 {
        pairs[octet] = [digits[octet >> 4], digits[octet & 15]];
        octet += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn digits_are_those_of_the_number() {
        for counter in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hex(counter).as_slice(), format!("{counter:016x}").as_bytes());
        }
    }

    #[test]
    fn the_share_of_repeats_is_as_asked() {
        for (share, fresh) in [(0.0, 1000), (0.25, 750), (0.5, 500), (0.99, 10)] {
            let mut ids = Ids::new(3, share, 100);
            let seen: HashSet<u64> = (0..1000).map(|_| ids.next()).collect();
            assert_eq!((seen.len(), ids.fresh()), (fresh, fresh as u64), "{share}");
        }
    }

    #[test]
    fn a_repeat_is_as_old_as_asked_once_there_are_so_many() {
        let mut ids = Ids::new(0, 0.5, 10);
        let counters: Vec<u64> = (0..100).map(|_| ids.next()).collect();
        assert_eq!(counters[..6], [1, 1, 2, 1, 3, 2]);
        assert_eq!(counters[98..], [50, 41]);
    }
}
