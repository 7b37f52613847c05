//! The header `traceparent` of W3C Trace Context: which span a message belongs to.
//!
//! ```text
//! 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//! version  trace, 16 octets           parent, 8 octets  flags
//! ```

/// The name of the header.
pub const TRACE_PARENT: &str = "traceparent";

/// The span that a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    /// the trace
    pub trace: [u8; 16],
    /// the span in it
    pub span: [u8; 8],
    /// whether the publisher records this trace
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the value of the header. `None` if it is not valid. A later version may have more behind the flags.
    pub fn parse(text: &[u8]) -> Option<TraceParent> {
        let (head, rest) = text.split_at_checked(55)?;
        let mut fields = head.split(|byte| *byte == b'-');
        let ([version], trace, span, [flags]) = (
            octets(fields.next()?)?,
            octets(fields.next()?)?,
            octets(fields.next()?)?,
            octets(fields.next()?)?,
        );
        let is_whole = fields.next().is_none() && (rest.is_empty() || version > 0 && rest.starts_with(b"-"));
        let parent = TraceParent { trace, span, sampled: flags & 1 != 0 };
        (is_whole && version < 0xFF && trace != [0; 16] && span != [0; 8]).then_some(parent)
    }
}

/// Reads lower-case hexadecimal digits, exactly as many as it takes.
fn octets<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let mut octets = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        *octet = digit(*high)? << 4 | digit(*low)?;
    }
    Some(octets)
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn as_w3c_says() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(
            (parent.trace[0], parent.trace[15], parent.span[0], parent.sampled),
            (0x0a, 0x9c, 0xb7, true)
        );
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!TraceParent::parse(unsampled.as_bytes()).unwrap().sampled);
        for later in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
        ] {
            assert!(TraceParent::parse(later.as_bytes()).is_some(), "{later}");
        }
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replacen("00-", "0g-", 1),
            &GOOD.replacen("-b7", "b7-", 1),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            &"-".repeat(55),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
