//! The messages of the stream: a batch of records, and behind it what a stream needs.
//!
//! ```text
//! batch … | kind 1 | number 8 | sent 8 | seal 16        (integers: little endian; the batch: see `Codec`)
//!
//! records    number: of the batch, among those of this run of the relay, from 1 on
//! mark       number: of the mark; its batch is empty
//! ```
//!
//! * By the number, a batch that stands in the stream twice counts once. It does if it was written again because its confirm was lost,
//!   or if a stranger has published an old message again.
//! * A mark is written by who wants to know how far it has read: all that stood in the stream before comes before the mark.
//! * `sent` is the writer's wall clock at the time of writing, in milliseconds since 1970.
//! * The seal covers all of it. Nobody can make one without the secret of the digests.

use hapax_core::window::logged::{BadBatch, Batch, Codec, Record, RelayId};
use hapax_core::window::{KeyMaker, Rules};
use std::time::{Duration, Instant, SystemTime};

const SEAL: usize = 16;
const TAIL: usize = 1 + 8 + 8 + SEAL;

const RECORDS: u8 = 1;
const MARK: u8 = 2;

/// The kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// a batch, with its number among those of this run of the relay
    Records(u64),
    /// a mark, with its number
    Mark(u64),
}

/// A message that was read.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// by the clock of who has written it
    pub(super) sent: SystemTime,
    pub(super) batch: Batch,
}

/// Writes and reads the messages of one window's stream.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    codec: Codec,
    keys: KeyMaker,
}

impl Envelope {
    pub(super) fn new(keys: KeyMaker, rules: &Rules, relay: RelayId) -> Envelope {
        Envelope { codec: Codec::new(keys.clone(), rules, relay), keys }
    }

    /// The name of this run of the relay.
    pub(super) fn relay(&self) -> RelayId {
        self.codec.relay()
    }

    /// Writes a message; a mark has no records. `now` and `wall` are the same moment on the two clocks.
    pub(super) fn seal(&self, kind: Kind, records: &[Record], now: Instant, wall: SystemTime) -> Vec<u8> {
        self.close(self.codec.encode(records, now, wall), kind, wall)
    }

    /// Puts behind a batch what a stream needs.
    fn close(&self, mut bytes: Vec<u8>, kind: Kind, wall: SystemTime) -> Vec<u8> {
        let (kind, number) = match kind {
            Kind::Records(number) => (RECORDS, number),
            Kind::Mark(number) => (MARK, number),
        };
        let sent = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        bytes.push(kind);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&u64::try_from(sent).unwrap_or(u64::MAX).to_le_bytes());
        let seal = self.keys.seal(&bytes);
        bytes.extend_from_slice(&seal);
        bytes
    }

    /// Gives the batch of an own message another number. It is the same batch all the same.
    pub(super) fn renumber(&self, bytes: &[u8], number: u64, wall: SystemTime) -> Vec<u8> {
        let batch = bytes.get(..bytes.len().saturating_sub(TAIL)).unwrap_or_default();
        self.close(batch.to_vec(), Kind::Records(number), wall)
    }

    /// Reads a message.
    pub(super) fn open(&self, bytes: &[u8]) -> Result<Message, BadBatch> {
        let (batch, tail) = bytes.split_last_chunk::<TAIL>().ok_or(BadBatch::Foreign)?;
        // The batch goes first: it says so if the message was written under another secret, or by another version.
        let batch = self.codec.decode(batch)?;
        let (sealed, seal) = bytes.split_last_chunk::<SEAL>().ok_or(BadBatch::Foreign)?;
        if self.keys.seal(sealed) != *seal {
            return Err(BadBatch::Seal);
        }
        let [kind, n0, n1, n2, n3, n4, n5, n6, n7, s0, s1, s2, s3, s4, s5, s6, s7, ..] = *tail;
        let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        let sent = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let kind = match kind {
            RECORDS => Kind::Records(number),
            MARK => Kind::Mark(number),
            _ => return Err(BadBatch::Seal),
        };
        // A time that can't be told is that of a clock which is wrong anyway.
        let sent =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(sent)).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Message { kind, sent, batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::window::Key;
    use hapax_core::window::logged::What;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123)
    }

    fn envelope(secret: u64, relay: u64) -> Envelope {
        Envelope::new(KeyMaker::new((secret, 2)), &Rules::named("orders"), RelayId(relay))
    }

    fn two(envelope: &Envelope, kind: Kind) -> Vec<u8> {
        let now = base();
        let seen =
            |n: u128| Record { at: now, what: What::Seen(Key(n).into(), Duration::from_secs(60).into()) };
        envelope.seal(kind, &[seen(1), seen(2)], now, wall())
    }

    #[test]
    fn what_is_written_is_read() {
        let message = envelope(1, 8).open(&two(&envelope(1, 7), Kind::Records(5))).unwrap();
        assert_eq!((message.kind, message.sent), (Kind::Records(5), wall()));
        assert_eq!((message.batch.relay, message.batch.records.len()), (RelayId(7), 2));
        let mark = envelope(1, 7).seal(Kind::Mark(u64::MAX), &[], base(), wall());
        let mark = envelope(1, 8).open(&mark).unwrap();
        assert_eq!((mark.kind, mark.batch.records.len()), (Kind::Mark(u64::MAX), 0));
    }

    #[test]
    fn no_bit_can_be_turned_and_no_end_can_be_cut() {
        let envelope = envelope(1, 1);
        let bytes = two(&envelope, Kind::Records(1));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(envelope.open(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(envelope.open(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    /// A stranger has read the stream, and takes a batch out of a message to give it another number.
    #[test]
    fn a_batch_cannot_be_given_another_number() {
        let envelope = envelope(1, 1);
        let bytes = two(&envelope, Kind::Records(1));
        let batch = &bytes[..bytes.len() - TAIL];
        let mut forged = batch.to_vec();
        forged.push(RECORDS);
        forged.extend_from_slice(&2_u64.to_le_bytes());
        forged.extend_from_slice(&bytes[bytes.len() - 24..]);
        assert_eq!(envelope.open(&forged), Err(BadBatch::Seal));
        // Nor is a batch alone a message, with the batch's own seal at its end.
        assert!(envelope.open(batch).is_err());
    }

    #[test]
    fn what_others_wrote_says_so() {
        let bytes = two(&envelope(2, 1), Kind::Records(1));
        assert_eq!(envelope(1, 1).open(&bytes), Err(BadBatch::Identity));
        let mut later = bytes;
        later[3] = 9;
        assert_eq!(envelope(2, 1).open(&later), Err(BadBatch::Format(9)));
        assert_eq!(envelope(1, 1).open(&[b'x'; 200]), Err(BadBatch::Foreign));
    }
}
