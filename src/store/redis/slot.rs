//! The slot of a cluster that a key belongs to.

const SLOTS: u16 = 16_384;

/// Returns the slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it.
pub(super) fn slot(key: &[u8]) -> u16 {
    let mut crc: u16 = 0;
    for byte in hash_tag(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % SLOTS
}

/// Returns the text between the first `{` and the next `}`, if it is not empty.
fn hash_tag(key: &[u8]) -> &[u8] {
    let tag = || {
        let (_, rest) = key.split_at_checked(key.iter().position(|byte| *byte == b'{')? + 1)?;
        let (tag, _) = rest.split_at_checked(rest.iter().position(|byte| *byte == b'}')?)?;
        (!tag.is_empty()).then_some(tag)
    };
    tag().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two numbers are from the specification of Redis Cluster; `redis-cli cluster keyslot` says the others.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo"), 12_182);
    }
}
