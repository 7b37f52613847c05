//! The names of the properties and headers of a message, for advice on where an id may be. Values are passed over.

use super::WireError;
use super::properties::BASIC;
use super::reader::Reader;

/// The most names of one message. The properties come first.
pub const MOST: usize = 32;

/// The properties whose presence may mean something to a reader of advice: the bit of the flags, and AMQP's name.
const PROPERTIES: [(u32, &[u8]); 6] = [
    (10, b"correlation-id"),
    (7, b"message-id"),
    (6, b"timestamp"),
    (5, b"type"),
    (4, b"user-id"),
    (3, b"app-id"),
];

/// The names of the properties and headers of one message.
#[derive(Debug)]
pub struct Names<'a> {
    names: [&'a [u8]; MOST],
    len: usize,
}

impl<'a> Names<'a> {
    /// Reads the payload of a content header. A malformed one ends at its fault.
    pub fn of(payload: &'a [u8]) -> Names<'a> {
        let mut names = Names { names: [&[]; MOST], len: 0 };
        // A fault only ends the list.
        let _ = names.read(payload);
        names
    }

    /// Returns the names in the order of the message.
    pub fn as_slice(&self) -> &[&'a [u8]] {
        self.names.get(..self.len).unwrap_or_default()
    }

    fn read(&mut self, payload: &'a [u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(payload);
        let class = reader.short("content header: class")?;
        reader.take(10, "content header: weight and body size")?;
        if class != BASIC {
            return Ok(());
        }
        let flags = reader.short("property flags")?;
        let mut last = flags;
        while last & 1 != 0 {
            last = reader.short("property flags: continuation")?;
        }
        let has = |bit: u32| flags >> bit & 1 != 0;
        PROPERTIES.iter().filter(|(bit, _)| has(*bit)).for_each(|(_, name)| self.push(name));
        for bit in [15, 14] {
            if has(bit) {
                reader.shortstr("a property before the headers")?;
            }
        }
        if has(13) {
            self.walk(reader.longstr("headers")?)?;
        }
        Ok(())
    }

    fn walk(&mut self, table: &'a [u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(table);
        while !reader.is_empty() && self.len < MOST {
            self.push(reader.shortstr("name of a header")?);
            super::field::skip(&mut reader)?;
        }
        Ok(())
    }

    fn push(&mut self, name: &'a [u8]) {
        if let Some(slot) = self.names.get_mut(self.len) {
            *slot = name;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(flags: u16, properties: &[u8]) -> Vec<u8> {
        [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5][..], &flags.to_be_bytes(), properties].concat()
    }

    fn told(payload: &[u8]) -> Vec<String> {
        Names::of(payload).as_slice().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn properties_and_headers_are_named_and_values_are_not() {
        let table: &[u8] = b"\x03oneS\0\0\0\x06secret\x03twot\x01";
        let len = u32::try_from(table.len()).unwrap().to_be_bytes();
        let all = [b"\x02ct".as_slice(), &len, table, b"\x03cor"].concat();
        assert_eq!(told(&payload(0xA400, &all)), ["correlation-id", "one", "two"]);
        assert!(told(&payload(0, b"")).is_empty());
        for cut in 0..table.len() {
            let table = &table[..cut];
            let len = u32::try_from(cut).unwrap().to_be_bytes();
            assert!(told(&payload(0x2000, &[&len, table].concat())).len() <= 2);
        }
        let many: Vec<u8> = (0..1000).flat_map(|_| *b"\x01kV").collect();
        let len = u32::try_from(many.len()).unwrap().to_be_bytes();
        assert_eq!(told(&payload(0x2000, &[&len[..], &many].concat())).len(), MOST);
    }
}
