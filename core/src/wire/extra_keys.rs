//! The headers `CC` and `BCC`: more routing keys of a message.
//!
//! RabbitMQ routes by all keys together, and a queue gets the message once. It takes the keys from an array, passes over the entries that are no
//! long strings, and refuses any other value with 406.

use super::bad_headers::BadHeader;
use super::field::Field;
use super::reader::Reader;

/// Adds the keys in the value of `CC` or `BCC` (`header`) to `keys`.
pub(super) fn add<'a>(
    keys: &mut Vec<&'a [u8]>,
    field: Field<'a>,
    header: BadHeader,
) -> Result<(), BadHeader> {
    if field.tag != b'A' {
        return Err(header);
    }
    let mut reader = Reader::new(field.raw);
    while !reader.is_empty() {
        let entry = Field::read(&mut reader).map_err(|_| header)?;
        if entry.tag == b'S' {
            keys.push(entry.raw);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u8, raw: &[u8]) -> Result<Vec<&[u8]>, BadHeader> {
        let mut keys = Vec::new();
        add(&mut keys, Field { tag, raw }, BadHeader::Cc).map(|()| keys)
    }

    #[test]
    fn long_strings_in_an_array_are_keys() {
        assert_eq!(read(b'A', b""), Ok(vec![]));
        let mixed = b"S\0\0\0\x01bt\x01S\0\0\0\0x\0\0\0\x01zS\0\0\0\x01a";
        assert_eq!(read(b'A', mixed), Ok(vec![&b"b"[..], b"", b"a"]));
        for (tag, raw) in [(b'S', &b"b"[..]), (b'V', b""), (b'F', b""), (b'A', b"S\0\0\0\x02b"), (b'A', b"?")]
        {
            assert_eq!(read(tag, raw), Err(BadHeader::Cc));
        }
    }
}
