//! How records stand in a store: in batches, each sealed with the secret of the digests.
//!
//! ```text
//! "HXB" | format 1 or 2 | identity 16 | relay 8 | base 8 | count 4 | records … | seal 16            (integers: little endian)
//!
//! seen        1 | key 12 | body 4 | ms after base | ttl in ms                 the last two as varints
//! touched     2 | key 12 | body 4 | ms after base | ttl in ms
//! forgotten   3 | key 12
//! flushed     4
//! seen        6 | tenant 3 | key 12 | body 4 | …                           as 1 and 2, in a window
//! touched     7 | tenant 3 | key 12 | body 4 | …                           whose capacity is divided among tenants
//! changed     5 | setting 1 | value | length of `by` | by
//!
//! format 2, of a window with `id = "sequence"`; a number: producer 12 | epoch | number          (both as varints)
//! seen        8 | a number | ms after base | ttl in ms
//! touched     9 | a number | ms after base | ttl in ms
//! forgotten  10 | a number
//! forgotten  11 | producer 12
//! producer   12 | producer 12 | epoch | ms after base | ttl in ms | end | unknown below | count of ranges | ranges: gap, length …
//! ```
//!
//! * A window of ids writes format 1, as earlier versions did, so that they can read it. They refuse format 2.
//! * A *producer* is all that is remembered of it. It stands for a record of each of its numbers. A range of numbers that are not stored is
//!   written as the distance from the end of the range before (or from `unknown below`), and the distance between its own ends.
//! * The *identity* is a digest of everything that gives a key its meaning: the secret, the scope, and where the id is. Keys of another
//!   identity mean nothing here, so a batch of another identity is refused.
//! * The *seal* is a keyed digest of the whole batch. It finds damage, and it keeps out a stranger: who may write to the store, but does
//!   not know the secret, can't make Hapax take a message for a duplicate.
//! * `base` is the wall clock's time of the oldest record, in milliseconds since 1970. Times are rounded up to the millisecond.
//! * `relay` is drawn at each start. By it a relay knows its own batches again.

use super::record::{Change, Record, Setting, What, Written};
use crate::window::{
    BodyDigest, Claim, Key, KeyMaker, Memo, Mode, ProducerImage, ProducerKey, Rules, Tenant,
};
use crate::wire::IdSource;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// The latest format that this version writes. It reads all before it.
pub const FORMAT: u8 = 2;
/// The format of a window with ids.
const OF_IDS: u8 = 1;
const MAGIC: &[u8; 3] = b"HXB";
const HEAD: usize = 3 + 1 + 16 + 8 + 8 + 4;
const SEAL: usize = 16;

const SEEN: u8 = 1;
const TOUCHED: u8 = 2;
const FORGOTTEN: u8 = 3;
const FLUSHED: u8 = 4;
const CHANGED: u8 = 5;
const NUMBER_SEEN: u8 = 8;
const NUMBER_TOUCHED: u8 = 9;
const NUMBER_FORGOTTEN: u8 = 10;
const PRODUCER_FORGOTTEN: u8 = 11;
const PRODUCER: u8 = 12;
const SEEN_OF: u8 = SEEN + OF_TENANT;
const TOUCHED_OF: u8 = TOUCHED + OF_TENANT;
/// The difference between the tag of a record without a tenant and that of one with a tenant.
const OF_TENANT: u8 = 5;

const CAPACITY: u8 = 1;
const TTL: u8 = 2;
const MODE: u8 = 3;
const FLUSHED_BY: u8 = 4;
const FORGOTTEN_BY: u8 = 5;

/// A digest of everything that gives the keys of a window their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// Makes the identity of a window with these rules, whose keys are made by this maker.
    pub fn new(keys: &KeyMaker, rules: &Rules) -> Identity {
        let meaning = format!("hapax identity\n{:?}\n{:?}", rules.scope, rules.id);
        Identity(keys.seal(meaning.as_bytes()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of one run of a window in a relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RelayId(pub u64);

/// Writes and reads the batches of one window.
#[derive(Clone, Debug)]
pub struct Codec {
    keys: KeyMaker,
    identity: Identity,
    relay: RelayId,
    format: u8,
}

/// A batch that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch {
    /// who has written it
    pub relay: RelayId,
    /// in order
    pub records: Vec<Written>,
}

/// Why a batch can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadBatch {
    /// It is something else.
    #[error("these bytes are not a batch of records")]
    Foreign,
    /// A later version has written it.
    #[error("the batch has format {0}, and this version of Hapax reads the formats up to {FORMAT}")]
    Format(u8),
    /// Its keys have another meaning.
    #[error("the batch was written with another digest secret, scope or id")]
    Identity,
    /// Its bytes are not those that were written.
    #[error("the batch is damaged, or was not written by Hapax")]
    Seal,
}

impl Codec {
    /// Makes the codec of a window with these rules.
    pub fn new(keys: KeyMaker, rules: &Rules, relay: RelayId) -> Codec {
        let identity = Identity::new(&keys, rules);
        let format = if rules.id == IdSource::Sequence { FORMAT } else { OF_IDS };
        Codec { keys, identity, relay, format }
    }

    /// Returns the name of this run.
    pub fn relay(&self) -> RelayId {
        self.relay
    }

    /// Returns the identity of the window.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Writes a batch. `now` and `wall` are the same moment on the two clocks.
    pub fn encode(&self, records: &[Record], now: Instant, wall: SystemTime) -> Vec<u8> {
        let time = |at: Instant| match now.checked_duration_since(at) {
            Some(age) => wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            None => wall + at.saturating_duration_since(now),
        };
        let base = records.iter().map(|record| record.at).min().map_or(0, |at| millis(time(at)));
        let mut out = Vec::with_capacity(HEAD + SEAL + records.len() * (Key::OCTETS + 12));
        out.extend_from_slice(MAGIC);
        out.push(self.format);
        out.extend_from_slice(&self.identity.0);
        out.extend_from_slice(&self.relay.0.to_le_bytes());
        out.extend_from_slice(&base.to_le_bytes());
        out.extend_from_slice(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_le_bytes());
        for record in records {
            let after = millis(time(record.at)).saturating_sub(base);
            match &record.what {
                What::Seen(claim, memo) => put_seen(&mut out, (SEEN, NUMBER_SEEN), *claim, after, *memo),
                What::Touched(claim, memo) => {
                    put_seen(&mut out, (TOUCHED, NUMBER_TOUCHED), *claim, after, *memo);
                }
                What::Forgotten(claim) => put_claim(&mut out, (FORGOTTEN, NUMBER_FORGOTTEN), *claim),
                What::ProducerForgotten(producer) => {
                    out.push(PRODUCER_FORGOTTEN);
                    put_producer(&mut out, *producer);
                }
                What::Producer(image) => put_image(&mut out, image, after),
                What::Flushed => out.push(FLUSHED),
                What::Changed(change) => put_change(&mut out, change),
            }
        }
        let seal = self.keys.seal(&out);
        out.extend_from_slice(&seal);
        out
    }

    /// Reads a batch.
    pub fn decode(&self, bytes: &[u8]) -> Result<Batch, BadBatch> {
        let (identity, sealed, seal) = split(bytes)?;
        // A batch of another identity has another secret, perhaps, so its seal says nothing.
        if identity != self.identity {
            return Err(BadBatch::Identity);
        }
        if self.keys.seal(sealed) != *seal {
            return Err(BadBatch::Seal);
        }
        read_sealed(sealed).ok_or(BadBatch::Seal)
    }
}

/// Reads a batch without its secret, for somebody who looks at a store. Whether Hapax has written it, nobody knows then.
pub fn read_batch(bytes: &[u8]) -> Result<(Identity, Batch), BadBatch> {
    let (identity, sealed, _) = split(bytes)?;
    read_sealed(sealed).map(|batch| (identity, batch)).ok_or(BadBatch::Seal)
}

/// Splits a batch into its identity, everything that is sealed, and the seal.
fn split(bytes: &[u8]) -> Result<(Identity, &[u8], &[u8; SEAL]), BadBatch> {
    let head = bytes.first_chunk::<HEAD>().ok_or(BadBatch::Foreign)?;
    let mut head = Reader(head);
    if head.take::<3>() != Some(*MAGIC) {
        return Err(BadBatch::Foreign);
    }
    match head.byte() {
        Some(OF_IDS..=FORMAT) => {}
        format => return Err(BadBatch::Format(format.unwrap_or(0))),
    }
    let identity = head.take().map(Identity).ok_or(BadBatch::Foreign)?;
    let (sealed, seal) = bytes.split_last_chunk::<SEAL>().ok_or(BadBatch::Seal)?;
    if sealed.len() < HEAD {
        return Err(BadBatch::Seal);
    }
    Ok((identity, sealed, seal))
}

/// Reads a batch from everything that is sealed.
fn read_sealed(sealed: &[u8]) -> Option<Batch> {
    let (head, records) = sealed.split_at_checked(HEAD)?;
    let mut head = Reader(head.get(HEAD - 20..)?);
    let relay = RelayId(u64::from_le_bytes(head.take()?));
    let base = u64::from_le_bytes(head.take()?);
    let count = u32::from_le_bytes(head.take()?);
    let mut rest = Reader(records);
    let mut records = Vec::with_capacity((count as usize).min(rest.0.len()));
    for _ in 0..count {
        records.push(rest.record(base)?);
    }
    rest.0.is_empty().then_some(Batch { relay, records })
}

fn millis(time: SystemTime) -> u64 {
    whole_millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Rounds up: an id is never forgotten early.
pub(in crate::window) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn time_of(millis: u64) -> SystemTime {
    // A time that can't be told lies in the far future. The reader takes such a record for a new one.
    let most = Duration::from_secs(u64::from(u32::MAX) * 16);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis).min(most)
}

/// Writes a claim behind its tag: the first one for an id, the second one for a number.
fn put_claim(out: &mut Vec<u8>, (of_id, of_number): (u8, u8), claim: Claim) {
    match claim {
        Claim::Digest(key) => {
            out.push(of_id);
            out.extend_from_slice(&key.octets());
        }
        Claim::Sequence { producer, epoch, number } => {
            out.push(of_number);
            put_producer(out, producer);
            put_varint(out, epoch);
            put_varint(out, number);
        }
    }
}

fn put_producer(out: &mut Vec<u8>, producer: ProducerKey) {
    out.extend_from_slice(&producer.key().octets());
}

fn put_seen(out: &mut Vec<u8>, (of_id, of_number): (u8, u8), claim: Claim, after: u64, memo: Memo) {
    match claim {
        Claim::Digest(_) if memo.tenant() == Tenant::COMMON => put_claim(out, (of_id, of_number), claim),
        Claim::Digest(key) => {
            out.push(of_id + OF_TENANT);
            out.extend_from_slice(&memo.tenant().octets());
            out.extend_from_slice(&key.octets());
        }
        Claim::Sequence { .. } => put_claim(out, (of_id, of_number), claim),
    }
    if let Claim::Digest(_) = claim {
        out.extend_from_slice(&memo.body().bits().to_le_bytes());
    }
    put_varint(out, after);
    put_varint(out, whole_millis(memo.ttl()));
}

fn put_image(out: &mut Vec<u8>, image: &ProducerImage, after: u64) {
    out.push(PRODUCER);
    put_producer(out, image.producer);
    let numbers = [image.epoch, after, whole_millis(image.ttl), image.end, image.unknown_below];
    numbers.into_iter().for_each(|number| put_varint(out, number));
    put_varint(out, image.missing.len() as u64);
    let mut before = image.unknown_below;
    for &(first, last) in &image.missing {
        put_varint(out, first.saturating_sub(before));
        put_varint(out, last.saturating_sub(first));
        before = last;
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    out.push(CHANGED);
    match change.setting {
        Setting::Capacity(capacity) => {
            out.push(CAPACITY);
            put_varint(out, capacity as u64);
        }
        Setting::Ttl(ttl) => {
            out.push(TTL);
            put_varint(out, whole_millis(ttl));
        }
        Setting::Mode(mode) => {
            out.push(MODE);
            put_varint(
                out,
                match mode {
                    Mode::Enforce => 0,
                    Mode::Observe => 1,
                    Mode::Off => 2,
                },
            );
        }
        Setting::Flushed => out.extend_from_slice(&[FLUSHED_BY, 0]),
        Setting::Forgotten => out.extend_from_slice(&[FORGOTTEN_BY, 0]),
    }
    put_varint(out, change.by.len() as u64);
    out.extend_from_slice(change.by.as_bytes());
}

/// The bytes that are left to read.
pub(in crate::window) struct Reader<'a>(pub(in crate::window) &'a [u8]);

impl Reader<'_> {
    pub(in crate::window) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn key(&mut self) -> Option<Key> {
        self.take().map(Key::of_octets)
    }

    fn producer(&mut self) -> Option<ProducerKey> {
        self.key().map(ProducerKey::new)
    }

    fn number(&mut self) -> Option<Claim> {
        let producer = self.producer()?;
        Some(Claim::Sequence { producer, epoch: self.varint()?, number: self.varint()? })
    }

    fn number_seen(&mut self, base: u64) -> Option<(Claim, SystemTime, Duration)> {
        let claim = self.number()?;
        Some((claim, self.time(base)?, self.varint().map(Duration::from_millis)?))
    }

    fn image(&mut self, base: u64) -> Option<Written> {
        let (producer, epoch, at) = (self.producer()?, self.varint()?, self.time(base)?);
        let ttl = Duration::from_millis(self.varint()?);
        let (end, unknown_below, count) = (self.varint()?, self.varint()?, self.varint()?);
        let mut missing = Vec::with_capacity(usize::try_from(count).ok()?.min(self.0.len() / 2));
        let mut before = unknown_below;
        for _ in 0..count {
            let first = before.checked_add(self.varint()?)?;
            let last = first.checked_add(self.varint()?)?;
            missing.push((first, last));
            before = last;
        }
        let image = Box::new(ProducerImage { producer, epoch, ttl, end, unknown_below, missing });
        Some(Written::Producer { image, at })
    }

    fn time(&mut self, base: u64) -> Option<SystemTime> {
        self.varint().map(|after| time_of(base.saturating_add(after)))
    }

    fn record(&mut self, base: u64) -> Option<Written> {
        Some(match self.byte()? {
            tag @ (SEEN | TOUCHED | SEEN_OF | TOUCHED_OF) => {
                let tenant = match tag {
                    SEEN_OF | TOUCHED_OF => Tenant::from_octets(self.take()?),
                    _ => Tenant::COMMON,
                };
                let claim = Claim::Digest(self.key()?);
                let body = BodyDigest::from_bits(u32::from_le_bytes(self.take()?));
                let at = self.time(base)?;
                let ttl = Duration::from_millis(self.varint()?);
                match tag {
                    SEEN | SEEN_OF => Written::Seen { claim, at, ttl, body, tenant },
                    _ => Written::Touched { claim, at, ttl, body, tenant },
                }
            }
            NUMBER_SEEN => {
                let (claim, at, ttl) = self.number_seen(base)?;
                Written::Seen { claim, at, ttl, body: BodyDigest::UNKNOWN, tenant: Tenant::COMMON }
            }
            NUMBER_TOUCHED => {
                let (claim, at, ttl) = self.number_seen(base)?;
                Written::Touched { claim, at, ttl, body: BodyDigest::UNKNOWN, tenant: Tenant::COMMON }
            }
            FORGOTTEN => Written::Forgotten(self.key()?.into()),
            NUMBER_FORGOTTEN => Written::Forgotten(self.number()?),
            PRODUCER_FORGOTTEN => Written::ProducerForgotten(self.producer()?),
            PRODUCER => self.image(base)?,
            FLUSHED => Written::Flushed,
            CHANGED => Written::Changed(self.change()?),
            _ => return None,
        })
    }

    fn change(&mut self) -> Option<Change> {
        let (kind, value) = (self.byte()?, self.varint()?);
        let setting = match (kind, value) {
            (CAPACITY, capacity) => Setting::Capacity(usize::try_from(capacity).ok()?),
            (TTL, ttl) => Setting::Ttl(Duration::from_millis(ttl)),
            (MODE, 0) => Setting::Mode(Mode::Enforce),
            (MODE, 1) => Setting::Mode(Mode::Observe),
            (MODE, 2) => Setting::Mode(Mode::Off),
            (FLUSHED_BY, _) => Setting::Flushed,
            (FORGOTTEN_BY, _) => Setting::Forgotten,
            _ => return None,
        };
        let len = usize::try_from(self.varint()?).ok()?;
        let (by, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(Change { setting, by: String::from_utf8_lossy(by).into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000)
    }

    fn codec(secret: u64, relay: u64) -> Codec {
        Codec::new(KeyMaker::new((secret, 2)), &Rules::named("orders"), RelayId(relay))
    }

    fn producers() -> impl Strategy<Value = ProducerKey> {
        any::<u128>().prop_map(|key| ProducerKey::new(Key(key)))
    }

    fn numbers() -> impl Strategy<Value = Claim> {
        (producers(), any::<u64>(), any::<u64>()).prop_map(|(producer, epoch, number)| Claim::Sequence {
            producer,
            epoch,
            number,
        })
    }

    /// The log has neither the body nor the tenant of a number.
    fn of_numbers(memo: Memo) -> Memo {
        memo.ttl().into()
    }

    fn images() -> impl Strategy<Value = ProducerImage> {
        let ranges = prop::collection::vec((2..1_000_u64, 0..1_000_u64), 0..20);
        (producers(), any::<u64>(), 0..1_000_000_u64, 0..1_000_u64, ranges).prop_map(
            |(producer, epoch, ttl, unknown_below, ranges)| {
                let mut end = unknown_below;
                let range = |(gap, length)| {
                    let first = end + gap;
                    end = first + length;
                    (first, end)
                };
                let missing = ranges.into_iter().map(range).collect();
                let ttl = Duration::from_millis(ttl);
                ProducerImage { producer, epoch, ttl, end: end + 1, unknown_below, missing }
            },
        )
    }

    fn what() -> impl Strategy<Value = What> {
        let claim = || any::<u128>().prop_map(|key| Claim::from(Key(key & Key::MASK)));
        let change = |setting| What::Changed(Change { setting, by: "10.0.0.7 (API)".into() });
        let memo = || {
            (any::<u32>(), 0..10_000_000_000_u64, prop_oneof![Just([0; 3]), any::<[u8; 3]>()]).prop_map(
                |(body, ttl, tenant)| {
                    let memo = Memo::new(Duration::from_millis(ttl), BodyDigest::from_bits(body));
                    memo.of_tenant(Tenant::from_octets(tenant))
                },
            )
        };
        prop_oneof![
            4 => (claim(), memo()).prop_map(|(claim, memo)| What::Seen(claim, memo)),
            1 => (claim(), memo()).prop_map(|(claim, memo)| What::Touched(claim, memo)),
            2 => (numbers(), memo()).prop_map(|(claim, memo)| What::Seen(claim, of_numbers(memo))),
            1 => (numbers(), memo()).prop_map(|(claim, memo)| What::Touched(claim, of_numbers(memo))),
            1 => numbers().prop_map(What::Forgotten),
            1 => producers().prop_map(What::ProducerForgotten),
            1 => images().prop_map(|image| What::Producer(Box::new(image))),
            1 => claim().prop_map(What::Forgotten),
            1 => Just(What::Flushed),
            1 => (1..1_000_000_usize).prop_map(move |n| change(Setting::Capacity(n))),
            1 => (1..1_000_000_u64).prop_map(move |n| change(Setting::Ttl(Duration::from_millis(n)))),
            1 => Just(change(Setting::Flushed)),
            1 => Just(change(Setting::Forgotten)),
            1 => prop_oneof![Just(Mode::Enforce), Just(Mode::Observe), Just(Mode::Off)]
                .prop_map(move |mode| change(Setting::Mode(mode))),
        ]
    }

    /// What was written, as it has to be read.
    fn read_of(Record { at, what }: &Record, now: Instant) -> Written {
        let at = wall() - (now - *at);
        match what.clone() {
            What::Seen(claim, memo) => {
                Written::Seen { claim, at, ttl: memo.ttl(), body: memo.body(), tenant: memo.tenant() }
            }
            What::Touched(claim, memo) => {
                Written::Touched { claim, at, ttl: memo.ttl(), body: memo.body(), tenant: memo.tenant() }
            }
            What::Forgotten(claim) => Written::Forgotten(claim),
            What::ProducerForgotten(producer) => Written::ProducerForgotten(producer),
            What::Producer(image) => Written::Producer { image, at },
            What::Flushed => Written::Flushed,
            What::Changed(change) => Written::Changed(change),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            whats in prop::collection::vec((what(), 0..100_000_u64), 0..50),
        ) {
            let now = base() + Duration::from_secs(1_000);
            let records: Vec<Record> = whats
                .into_iter()
                .map(|(what, age)| Record { at: now - Duration::from_millis(age), what })
                .collect();
            let bytes = codec(1, 7).encode(&records, now, wall());
            let batch = codec(1, 8).decode(&bytes).unwrap();
            prop_assert_eq!(batch.relay, RelayId(7));
            let expected: Vec<Written> = records.iter().map(|record| read_of(record, now)).collect();
            prop_assert_eq!(batch.records, expected);
        }

        /// Whatever bytes come, there is an answer.
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(codec(1, 1).decode(&bytes).is_err());
        }
    }

    fn three() -> Vec<u8> {
        let now = base();
        let seen =
            |n: u128| Record { at: now, what: What::Seen(Key(n).into(), Duration::from_secs(600).into()) };
        codec(1, 1).encode(&[seen(1), seen(2), seen(3)], now, wall())
    }

    #[test]
    fn no_bit_can_be_turned_and_no_end_can_be_cut() {
        let bytes = three();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(codec(1, 1).decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(codec(1, 1).decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn an_id_takes_about_twenty_bytes() {
        assert_eq!(three().len(), HEAD + SEAL + 3 * (1 + 12 + 4 + 1 + 3));
    }

    #[test]
    fn a_batch_of_others_is_refused_and_says_why() {
        let bytes = three();
        assert_eq!(codec(2, 1).decode(&bytes), Err(BadBatch::Identity));
        let mut later = bytes.clone();
        later[3] = 3;
        assert_eq!(codec(1, 1).decode(&later), Err(BadBatch::Format(3)));
        assert_eq!(codec(1, 1).decode(b"hello"), Err(BadBatch::Foreign));
        let scoped = Rules { scope: crate::window::Scope::Vhost, ..Rules::named("orders") };
        let scoped = Codec::new(KeyMaker::new((1, 2)), &scoped, RelayId(1));
        assert_eq!(scoped.decode(&bytes), Err(BadBatch::Identity));
        // The name says nothing about the keys.
        let renamed = Codec::new(KeyMaker::new((1, 2)), &Rules::named("other"), RelayId(1));
        assert!(renamed.decode(&bytes).is_ok());
    }

    /// Somebody who may write to the store, and knows everything but the secret.
    #[test]
    fn a_stranger_cannot_make_a_batch() {
        let honest = codec(1, 1);
        let mut stranger = codec(9, 1);
        stranger.identity = honest.identity;
        let now = base();
        let seen = Record { at: now, what: What::Seen(Key(5).into(), Duration::from_secs(600).into()) };
        assert_eq!(honest.decode(&stranger.encode(&[seen], now, wall())), Err(BadBatch::Seal));
    }

    /// A store that outlives the process holds these bytes.
    #[test]
    fn the_format_is_pinned() {
        let now = base();
        let memo = Memo::new(Duration::from_secs(600), BodyDigest::from_bits(7));
        let records = [
            Record { at: now, what: What::Seen(Key(0x0102).into(), memo) },
            Record { at: now, what: What::Flushed },
        ];
        let bytes = codec(1, 1).encode(&records, now, wall());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, PINNED);
    }

    fn sequences() -> Codec {
        let rules = Rules { id: IdSource::Sequence, ..Rules::named("orders") };
        Codec::new(KeyMaker::new((1, 2)), &rules, RelayId(1))
    }

    fn number(number: u64) -> Claim {
        Claim::Sequence { producer: ProducerKey::new(Key(0x0102)), epoch: 3, number }
    }

    /// The same for numbers.
    #[test]
    fn the_format_of_sequences_is_pinned() {
        let (now, ttl) = (base(), Duration::from_secs(600));
        let producer = ProducerKey::new(Key(0x0102));
        let image = ProducerImage {
            producer,
            epoch: 3,
            ttl,
            end: 300,
            unknown_below: 4,
            missing: vec![(9, 9), (200, 210)],
        };
        let whats = [
            What::Seen(number(300), ttl.into()),
            What::Touched(number(1), ttl.into()),
            What::Forgotten(number(1)),
            What::ProducerForgotten(producer),
            What::Producer(Box::new(image)),
            What::Flushed,
        ];
        let records = whats.map(|what| Record { at: now, what });
        let bytes = sequences().encode(&records, now, wall());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, PINNED_SEQUENCES);
        let read: Vec<Written> = records.iter().map(|record| read_of(record, now)).collect();
        assert_eq!(sequences().decode(&bytes).unwrap().records, read);
    }

    #[test]
    fn a_number_takes_about_twenty_bytes() {
        let now = base();
        let seen = |n| Record { at: now, what: What::Seen(number(n), Duration::from_secs(86_400).into()) };
        let bytes = sequences().encode(&[seen(1_000_000), seen(1_000_001)], now, wall());
        assert_eq!(bytes.len(), HEAD + SEAL + 2 * (1 + 12 + 1 + 3 + 1 + 4));
    }

    const PINNED_SEQUENCES: &str = concat!(
        "48584202",
        "7be238dc91cc468398049f5a15a54fd2",
        "0100000000000000",
        "00505c18a3010000",
        "06000000",
        "0802010000000000000000000003ac0200c0cf24",
        "09020100000000000000000000030100c0cf24",
        "0a0201000000000000000000000301",
        "0b020100000000000000000000",
        "0c0201000000000000000000000300c0cf24ac0204020500bf010a",
        "04",
        "44aa7b8b1add88325675bb7a7c8e85b4",
    );

    const PINNED: &str = concat!(
        "48584201",
        "40f010fcfcea4f566a73c30534deaefd",
        "0100000000000000",
        "00505c18a3010000",
        "02000000",
        "010201000000000000000000000700000000c0cf24",
        "04",
        "ae403d2213f85e7cf86c369d928c061a",
    );
}
