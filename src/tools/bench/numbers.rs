//! Messages of producers that number them: which producer a message is of, and its number.

use super::outlet::Template;

/// Digits in the name of a producer, the ones that change.
const DIGITS: usize = 8;
/// What stands before them.
const NAME: &str = "bench-";
/// The headers, as a window with `id = "sequence"` reads them.
const HEADERS: [&str; 3] = ["x-hapax-producer", "x-hapax-sequence", "x-hapax-epoch"];

/// The producers of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producers {
    /// how many, over all connections
    pub count: u64,
    /// Each load begins a new one, so that it may begin with any number.
    pub epoch: i64,
}

impl Producers {
    /// Creates so many producers, whose epoch is higher than that of every earlier load.
    pub fn new(count: u64) -> Producers {
        let since = crate::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Producers { count, epoch: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX) }
    }

    /// Returns those of the connection with this number. Each producer has one connection.
    pub(super) fn of(self, connection: u64, connections: u64) -> Numbers {
        let own = self.count.saturating_sub(connection).div_ceil(connections.max(1)).max(1);
        Numbers { first: connection, apart: connections, own }
    }
}

/// The producers of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Numbers {
    first: u64,
    apart: u64,
    own: u64,
}

impl Numbers {
    /// Returns the digits of the producer whose message has this counter, and its number, in the octets of a message.
    #[inline]
    pub(super) fn of(self, counter: u64) -> ([u8; DIGITS], [u8; 8]) {
        // (The counters of a connection begin at a multiple of 2⁴⁰.)
        let nth = (counter & ((1 << 40) - 1)).saturating_sub(1);
        let mut producer = self.first + nth % self.own * self.apart;
        let mut digits = [b'0'; DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(producer % 10).unwrap_or_default();
            producer /= 10;
        }
        (digits, (nth / self.own + 1).to_be_bytes())
    }
}

/// Where a message names its producer, and its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NumbersAt {
    pub(super) producer: usize,
    pub(super) number: usize,
}

impl NumbersAt {
    /// Looks for them in a message.
    pub(super) fn find(template: &Template) -> Option<NumbersAt> {
        let after = |name: &str| {
            let found = template.bytes.windows(name.len()).position(|window| window == name.as_bytes());
            found.map(|at| at + name.len())
        };
        let [producer, number, _] = HEADERS;
        // A type, and the length of a text.
        Some(NumbersAt { producer: after(producer)? + 5 + NAME.len(), number: after(number)? + 1 })
    }
}

/// Returns the headers of a message before it is patched.
pub(super) fn headers(epoch: i64) -> [(&'static str, amq_protocol::types::AMQPValue); 3] {
    use amq_protocol::types::AMQPValue::{LongLongInt, LongString};
    let name = format!("{NAME}{:0DIGITS$}", 0);
    let [producer, number, began] = HEADERS;
    [(producer, LongString(name.into())), (number, LongLongInt(0)), (began, LongLongInt(epoch))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn each_producer_counts_from_one_and_has_one_connection() {
        let (producers, connections) = (Producers { count: 10, epoch: 1 }, 3);
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for connection in 0..connections {
            let numbers = producers.of(connection, connections);
            let own = if connection == 0 { 4 } else { 3 };
            for counter in 1..=own * 5 {
                let (digits, number) = numbers.of((connection << 40) + counter);
                let name = String::from_utf8(digits.to_vec()).unwrap();
                seen.entry(name).or_default().push(u64::from_be_bytes(number));
            }
        }
        let names: Vec<&str> = seen.keys().map(String::as_str).collect();
        assert_eq!((names.len(), names[0], names[9]), (10, "00000000", "00000009"));
        assert!(seen.values().all(|numbers| *numbers == [1, 2, 3, 4, 5]), "{seen:?}");
    }

    #[test]
    fn a_connection_has_a_producer_even_if_there_are_fewer() {
        assert_eq!(Producers { count: 2, epoch: 1 }.of(5, 8).of(7), (*b"00000005", 7_u64.to_be_bytes()));
    }
}
