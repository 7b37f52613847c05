//! How batches of records stand in a segment: each in a frame.
//!
//! ```text
//! "HXF" | format 1 | length of the batch 4 | clock 8 | check of these 4 | check of the batch 8 | batch …        (integers: little endian)
//! ```
//!
//! * The checks need no secret, so everybody who reads the files finds damage. Reading goes on behind it. If the head of the damaged frame
//!   is whole, it says where the next frame begins. Otherwise the next head is searched for.
//! * The seal within the batch is what keeps a stranger's records out. The checks are not for that.
//! * `clock` is how far the wall clock was ahead of the writer's own clock, in milliseconds. With it two times of one run can be compared
//!   although somebody has set the wall clock between them.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The format that this version writes. It reads no other.
pub(crate) const FORMAT: u8 = 1;
/// The bytes of a frame beside its batch.
pub(crate) const HEAD: usize = 28;
/// The most bytes of one batch. A head that says more is damaged.
pub(crate) const MOST: usize = 16 << 20;

const MAGIC: &[u8; 3] = b"HXF";
const CHECKED: usize = 16;

/// A piece of a segment, as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found<'a> {
    /// a whole frame
    Frame {
        /// see the module
        clock: i64,
        /// the batch
        batch: &'a [u8],
    },
    /// These bytes are no frame, and behind them is more, or they are as long as a frame: something has changed them.
    Damaged {
        /// where they begin
        at: usize,
        /// how many they are
        length: usize,
    },
    /// The segment ends within a frame: the process ended while it wrote. Nothing is behind it.
    Torn {
        /// where the frame begins
        at: usize,
    },
    /// Another version has written this segment.
    Format(u8),
}

/// Appends a frame. The batch has at most [`MOST`] bytes.
pub(crate) fn put(out: &mut Vec<u8>, clock: i64, batch: &[u8]) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.push(FORMAT);
    out.extend_from_slice(&u32::try_from(batch.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&clock.to_le_bytes());
    let head = check(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&head.to_le_bytes()[..4]);
    out.extend_from_slice(&check_batch(head, batch).to_le_bytes());
    out.extend_from_slice(batch);
}

/// Reads a segment from its beginning.
pub(crate) fn scan(bytes: &[u8]) -> Scan<'_> {
    Scan { bytes, at: 0 }
}

/// The frames of a segment, in order.
#[derive(Clone, Debug)]
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Scan<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        match Head::read(rest) {
            Some(head) => match rest.get(HEAD..HEAD + head.length) {
                Some(batch) => {
                    self.at += HEAD + head.length;
                    if head.fits(batch) {
                        return Some(Found::Frame { clock: head.clock, batch });
                    }
                    return Some(Found::Damaged { at, length: HEAD + head.length });
                }
                None => return Some(self.lost(at, true)),
            },
            None if at == 0 => {
                if let Some(format) = foreign(rest)
                    && next_frame(rest).is_none()
                {
                    self.at = self.bytes.len();
                    return Some(Found::Format(format));
                }
            }
            None => {}
        }
        let is_short = rest.len() < HEAD || rest.iter().all(|byte| *byte == 0);
        Some(self.lost(at, is_short))
    }
}

impl<'a> Scan<'a> {
    /// Goes on at the next whole frame. If there is none, and the bytes may be the beginning of a frame, the segment ends here.
    fn lost(&mut self, at: usize, may_be_torn: bool) -> Found<'a> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let next = next_frame(rest);
        let length = next.unwrap_or(rest.len());
        self.at += length;
        if next.is_none() && may_be_torn { Found::Torn { at } } else { Found::Damaged { at, length } }
    }
}

#[derive(Clone, Copy)]
struct Head {
    length: usize,
    clock: i64,
    check: u64,
    batch: u64,
}

impl Head {
    /// Reads a head if it is whole.
    fn read(bytes: &[u8]) -> Option<Head> {
        let (checked, rest) = bytes.split_first_chunk::<CHECKED>()?;
        let (magic, fields) = checked.split_first_chunk::<4>()?;
        if magic[..3] != *MAGIC || magic[3] != FORMAT {
            return None;
        }
        let (head, rest) = rest.split_first_chunk::<4>()?;
        let batch = u64::from_le_bytes(*rest.first_chunk()?);
        let check = check(checked);
        let length = u32::from_le_bytes(*fields.first_chunk()?) as usize;
        let clock = i64::from_le_bytes(*fields.last_chunk()?);
        (check.to_le_bytes()[..4] == *head && length <= MOST).then_some(Head { length, clock, check, batch })
    }

    fn fits(&self, batch: &[u8]) -> bool {
        check_batch(self.check, batch) == self.batch
    }
}

/// Finds the next whole frame, or the next head whose batch goes on behind the end, but for the first byte.
fn next_frame(bytes: &[u8]) -> Option<usize> {
    let is_frame = |at: &usize| {
        let rest = bytes.get(*at..).unwrap_or_default();
        rest.starts_with(MAGIC) && Head::read(rest).is_some()
    };
    (1..bytes.len()).find(is_frame)
}

/// Returns the format of a frame that another version has written. A frame of this version with a damaged format is none.
fn foreign(bytes: &[u8]) -> Option<u8> {
    let format = *bytes.get(3)?;
    if !bytes.starts_with(MAGIC) || format == FORMAT {
        return None;
    }
    let mut own = *bytes.first_chunk::<HEAD>()?;
    own[3] = FORMAT;
    Head::read(&own).is_none().then_some(format)
}

fn check(bytes: &[u8]) -> u64 {
    SipHasher13::new_with_keys(0x6861_7061, 1).hash(bytes)
}

fn check_batch(head: u64, batch: &[u8]) -> u64 {
    let mut check = SipHasher13::new_with_keys(0x6861_7061, head);
    check.write(batch);
    check.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn three() -> (Vec<u8>, [Vec<u8>; 3]) {
        let batches = [b"one".to_vec(), vec![7; 60], b"HXF\x01 is no frame within a batch".to_vec()];
        let mut bytes = Vec::new();
        for (n, batch) in batches.iter().enumerate() {
            put(&mut bytes, i64::try_from(n).unwrap() - 1, batch);
        }
        (bytes, batches)
    }

    fn batches(bytes: &[u8]) -> Vec<Vec<u8>> {
        let frame = |found| match found {
            Found::Frame { batch, .. } => Some(batch.to_vec()),
            _ => None,
        };
        scan(bytes).filter_map(frame).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, written) = three();
        assert_eq!(batches(&bytes), written);
        let clocks = scan(&bytes).map(|found| match found {
            Found::Frame { clock, .. } => clock,
            other => panic!("{other:?}"),
        });
        assert_eq!(clocks.collect::<Vec<_>>(), [-1, 0, 1]);
        assert_eq!(scan(&[]).next(), None);
    }

    /// Each bit costs only its own frame when it turns. The damage is told, and nothing is read that was not written.
    #[test]
    fn a_bit_costs_one_frame_and_is_told() {
        let (bytes, written) = three();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = batches(&damaged);
            assert_eq!(read.len(), 2, "bit {bit}: {:?}", scan(&damaged).collect::<Vec<_>>());
            assert!(read.iter().all(|batch| written.contains(batch)), "bit {bit}");
            let told = |found| matches!(found, Found::Damaged { .. } | Found::Torn { .. });
            assert_eq!(scan(&damaged).filter(|found| told(*found)).count(), 1, "bit {bit}");
        }
    }

    /// Wherever a segment ends, the whole frames before it are read, and the rest is a torn tail.
    #[test]
    fn a_cut_costs_the_frame_that_it_is_in() {
        let (bytes, written) = three();
        let mut ends = vec![0];
        ends.extend(written.iter().scan(0, |at, batch| {
            *at += HEAD + batch.len();
            Some(*at)
        }));
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let found: Vec<_> = scan(&bytes[..cut]).collect();
            assert_eq!(batches(&bytes[..cut]), written[..whole], "cut {cut}");
            match ends.contains(&cut) {
                true => assert_eq!(found.len(), whole, "cut {cut}"),
                false => assert_eq!(found.last(), Some(&Found::Torn { at: ends[whole] }), "cut {cut}"),
            }
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_torn_tail() {
        let (mut bytes, written) = three();
        let at = bytes.len();
        bytes.extend([0; 5_000]);
        assert_eq!(batches(&bytes), written);
        assert_eq!(scan(&bytes).last(), Some(Found::Torn { at }));
    }

    #[test]
    fn another_format_is_told_apart_from_damage() {
        let mut bytes = b"HXF\x02".to_vec();
        bytes.extend([5; 300]);
        assert_eq!(scan(&bytes).collect::<Vec<_>>(), [Found::Format(2)]);
        let (mut damaged, _) = three();
        damaged[3] = 2;
        assert!(matches!(scan(&damaged).next(), Some(Found::Damaged { at: 0, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(prop_oneof![Just(b'H'), Just(b'X'), Just(b'F'), Just(1), any::<u8>()], 0..300)) {
            let covered: usize = scan(&bytes).map(|found| match found {
                Found::Frame { batch, .. } => HEAD + batch.len(),
                Found::Damaged { length, .. } => length,
                Found::Torn { at } => bytes.len() - at,
                Found::Format(_) => bytes.len(),
            }).sum();
            prop_assert_eq!(covered, bytes.len());
        }
    }
}
