//! A cursor over octets in a buffer that somebody else owns. Every read checks that enough octets are left. No read
//! copies.

use super::WireError;

/// The octets that were not read yet. Each read passes in `what` the name of its field, for the error's text.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Reader<'a> {
        Reader { rest: octets }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails if octets are left over: in RabbitMQ, the fields must fill the whole payload.
    #[inline]
    pub(super) fn end(&self, what: &'static str) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Malformed(what)) }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Malformed(what))?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Malformed(what))?;
        self.rest = rest;
        Ok(*head)
    }

    /// Returns the octets that were not read.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn octet(&mut self, what: &'static str) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    #[inline]
    pub(super) fn short(&mut self, what: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    #[inline]
    pub(super) fn longlong(&mut self, what: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Reads a length octet and that many octets.
    #[inline]
    pub(super) fn shortstr(&mut self, what: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.octet(what)?;
        self.take(usize::from(len), what)
    }

    /// Reads a length of four octets and that many octets: a long string, byte array, table or array.
    #[inline]
    pub(super) fn longstr(&mut self, what: &'static str) -> Result<&'a [u8], WireError> {
        let len = u32::from_be_bytes(self.array(what)?);
        let len = usize::try_from(len).map_err(|_| WireError::Malformed(what))?;
        self.take(len, what)
    }
    /// Reads a short string, this octet, and a long string, if all of that comes next. Otherwise reads nothing.
    #[inline]
    pub(super) fn string_entry(&mut self, between: u8) -> Option<(&'a [u8], &'a [u8])> {
        let (name_len, rest) = self.rest.split_first()?;
        // The octet and the length.
        let (head, rest) = rest.split_at_checked(usize::from(*name_len) + 5)?;
        let (name, [tag, length @ ..]) = head.split_last_chunk::<5>()?;
        if *tag != between {
            return None;
        }
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.rest = rest;
        Some((name, value))
    }
}
