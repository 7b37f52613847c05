//! Reads the headers of a number: `x-hapax-producer`, `x-hapax-sequence` and `x-hapax-epoch`.

use super::bad_headers::{BadHeader, BadHeaders};
use super::field::Field;
use super::forms::{self, Form};
use super::properties::{EPOCH, IdValue, PRODUCER, SEQUENCE};

/// Octets of a producer's name at most.
const LONGEST: usize = 255;

/// A number, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sequence<'a> {
    /// the name of the producer: 1 to 255 octets
    pub producer: &'a [u8],
    /// which of its starts; 0 if it does not say
    pub epoch: u64,
    /// the number, at most 2^63 - 1
    pub number: u64,
}

/// Reads the three headers of a table that was read to its end before.
pub(super) fn read(table: &[u8]) -> Result<Option<Sequence<'_>>, BadHeaders> {
    let find = |name| Field::find(table, name);
    let producer = find(PRODUCER).map_or(Form::Absent, name);
    let number = find(SEQUENCE).map_or(Form::Absent, forms::count);
    let epoch = find(EPOCH).map_or(Form::Known(0), forms::count);
    let mut bad = BadHeaders::NONE;
    let checks = [
        (producer == Form::Bad, BadHeader::Producer),
        (number == Form::Bad, BadHeader::Sequence),
        (epoch == Form::Bad, BadHeader::Epoch),
    ];
    checks.into_iter().filter(|(is_bad, _)| *is_bad).for_each(|(_, header)| bad.insert(header));
    if !bad.is_empty() {
        return Err(bad);
    }
    Ok(match (producer, number, epoch) {
        (Form::Known(producer), Form::Known(number), Form::Known(epoch)) => {
            Some(Sequence { producer, epoch, number })
        }
        // An epoch of null is no epoch.
        (Form::Known(producer), Form::Known(number), Form::Absent) => {
            Some(Sequence { producer, epoch: 0, number })
        }
        _ => None,
    })
}

/// Reads a name: a text that is not empty and not too long.
fn name(field: Field<'_>) -> Form<&[u8]> {
    match (field.tag, field.value()) {
        (b'V', _) => Form::Absent,
        (_, IdValue::Bytes(name)) if (1..=LONGEST).contains(&name.len()) => Form::Known(name),
        _ => Form::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut table = Vec::new();
        for (name, value) in entries {
            table.push(u8::try_from(name.len()).unwrap());
            table.extend_from_slice(name);
            table.extend_from_slice(value);
        }
        table
    }

    fn text(text: &[u8]) -> Vec<u8> {
        [b"S", &u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    fn float(tag: u8, octets: &[u8]) -> Vec<u8> {
        [&[tag], octets].concat()
    }

    #[test]
    fn a_number_is_understood_in_every_sensible_form() {
        let most = i64::MAX.to_be_bytes();
        for (value, number) in [
            (&b"b\x07"[..], Some(7)),
            (b"B\xff", Some(255)),
            (b"I\0\0\0\x07", Some(7)),
            (b"l\0\0\0\0\0\0\0\0", Some(0)),
            (&[b"l", &most[..]].concat(), Some(i64::MAX as u64)),
            (&text(b"42"), Some(42)),
            (&text(b"9223372036854775807"), Some(i64::MAX as u64)),
            (&text(b"9223372036854775808"), None),
            (&text(b"-1"), None),
            (&text(b"4.5"), None),
            (&text(b"4s"), None),
            (&text(b""), None),
            (b"b\xff", None),
            (b"T\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"d\x40\x45\0\0\0\0\0\0", Some(42)),
            (&float(b'd', &9_007_199_254_740_991_f64.to_be_bytes()), Some(9_007_199_254_740_991)),
            (&float(b'f', &16_777_215_f32.to_be_bytes()), Some(16_777_215)),
            // The number after it is the same float.
            (&float(b'd', &9_007_199_254_740_992_f64.to_be_bytes()), None),
            (&float(b'f', &16_777_216_f32.to_be_bytes()), None),
            (&float(b'f', &123_456_789_f32.to_be_bytes()), None),
            (b"t\x01", None),
            (b"A\0\0\0\0", None),
        ] {
            let of = |header: &'static [u8], other: &'static [u8]| {
                let entries = [(PRODUCER, &text(b"p")[..]), (header, value), (other, b"b\x01")];
                read(&table(&entries)).map(|found| found.map(|found| (found.epoch, found.number)))
            };
            let bad = |header| {
                let mut bad = BadHeaders::NONE;
                bad.insert(header);
                bad
            };
            let expected =
                |found: fn(u64) -> (u64, u64), header| number.map(|n| Some(found(n))).ok_or(bad(header));
            assert_eq!(of(SEQUENCE, EPOCH), expected(|n| (1, n), BadHeader::Sequence), "{value:?}");
            assert_eq!(of(EPOCH, SEQUENCE), expected(|n| (n, 1), BadHeader::Epoch), "{value:?}");
        }
    }

    #[test]
    fn without_a_producer_or_a_number_there_is_no_id_and_a_bad_name_is_told() {
        let (number, name) = (&b"b\x05"[..], text(b"p"));
        let found = Sequence { producer: b"p", epoch: 0, number: 5 };
        assert_eq!(read(&table(&[(PRODUCER, &name), (SEQUENCE, number)])), Ok(Some(found)));
        assert_eq!(read(&table(&[(PRODUCER, &name), (SEQUENCE, number), (EPOCH, b"V")])), Ok(Some(found)));
        for entries in [
            &[][..],
            &[(PRODUCER, &name[..])],
            &[(SEQUENCE, number)],
            &[(PRODUCER, b"V"), (SEQUENCE, number)],
            &[(PRODUCER, &name), (SEQUENCE, b"V")],
        ] {
            assert_eq!(read(&table(entries)), Ok(None), "{entries:?}");
        }
        let longest = text(&[b'p'; 255]);
        assert!(matches!(read(&table(&[(PRODUCER, &longest), (SEQUENCE, number)])), Ok(Some(_))));
        for bad in [&text(b"")[..], &text(&[b'p'; 256]), b"b\x01"] {
            let table = table(&[(PRODUCER, bad), (SEQUENCE, number)]);
            let found = read(&table);
            assert!(found.is_err_and(|bad| bad.contains(BadHeader::Producer)), "{bad:?}");
        }
    }
}
