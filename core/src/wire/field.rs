//! The values of a headers table: each is a letter for its type, and its octets.

use super::WireError;
use super::properties::IdValue;
use super::reader::Reader;

/// Marks a type in [`LENGTHS`] whose length is in the first four octets of the value.
const LONG: u8 = 0xFE;
/// Marks a letter in [`LENGTHS`] that is no type.
const UNKNOWN: u8 = 0xFF;

/// The length of a value in octets, by its type's letter. A `match` on the letter would be mispredicted when types
/// vary.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const LENGTHS: [u8; 256] = {
    let known: [(u8, &[u8]); 7] =
        [(0, b"V"), (1, b"tbB"), (2, b"suU"), (4, b"Iif"), (5, b"D"), (8, b"lLdT"), (LONG, b"SxFA")];
    let mut lengths = [UNKNOWN; 256];
    let mut n = 0;
    while n < known.len() {
        let (length, mut letters) = known[n];
        while let [letter, rest @ ..] = letters {
            lengths[*letter as usize] = length;
            letters = rest;
        }
        n += 1;
    }
    lengths
};

/// A value of a headers table: the letter of its type, and its octets without their length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field<'a> {
    pub(super) tag: u8,
    pub(super) raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// Returns the first value of this name in a table that was read to its end before.
    pub(super) fn find(table: &'a [u8], wanted: &[u8]) -> Option<Field<'a>> {
        let mut reader = Reader::new(table);
        while !reader.is_empty() {
            let (name, field) = Field::entry(&mut reader).ok()?;
            if name == wanted {
                return Some(field);
            }
        }
        None
    }

    /// Reads one entry of a table: its name, and its value.
    #[inline]
    pub(super) fn entry(reader: &mut Reader<'a>) -> Result<(&'a [u8], Field<'a>), WireError> {
        // Most values are strings. They are found in fewer steps.
        if let Some(entry) = reader.string_entry(b'S') {
            let (name, raw) = entry;
            return Ok((name, Field { tag: b'S', raw }));
        }
        let name = reader.shortstr("name of a header")?;
        Ok((name, Field::read(reader)?))
    }

    /// Reads one value. Tables and arrays are skipped by their length, so there is no recursion.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Field<'a>, WireError> {
        let tag = reader.octet("type of a header")?;
        let raw = match LENGTHS.get(usize::from(tag)).copied().unwrap_or(UNKNOWN) {
            LONG => reader.longstr("long value of a header")?,
            UNKNOWN => return Err(WireError::Malformed("unknown type of a header")),
            fixed => reader.take(usize::from(fixed), "value of a header")?,
        };
        Ok(Field { tag, raw })
    }

    /// Returns the value as an id is compared.
    pub(super) fn value(self) -> IdValue<'a> {
        match self.tag {
            b'S' | b'x' => IdValue::Bytes(self.raw),
            b'b' | b's' | b'U' | b'I' | b'l' | b'L' => IdValue::Integer(signed(self.raw)),
            b'B' | b'u' | b'i' | b'T' => IdValue::Integer(unsigned(self.raw)),
            tag => IdValue::Other(tag, self.raw),
        }
    }
}

/// Passes over one value of a headers table.
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), WireError> {
    Field::read(reader).map(drop)
}

/// Reads an integer of at most eight octets, since no type is longer.
fn unsigned(raw: &[u8]) -> i128 {
    raw.iter().fold(0, |value, &octet| value << 8 | i128::from(octet))
}

fn signed(raw: &[u8]) -> i128 {
    let negative = raw.first().is_some_and(|&first| first & 0x80 != 0);
    unsigned(raw) - if negative { 1 << (8 * raw.len()) } else { 0 }
}
