//! Finds frames in a stream of bytes: type, channel, size, payload, end octet.

use std::fmt;

/// The octets before the payload: type (1), channel (2), size (4).
pub const HEADER_LEN: usize = 7;
/// The octet at the end of every frame.
pub const FRAME_END: u8 = 0xCE;
/// The octets of a frame besides its payload.
pub const OVERHEAD: usize = HEADER_LEN + 1;
/// The largest frame that a peer may send before `connection.tune` has settled a larger size (AMQP 0-9-1,
/// frame-min-size; RabbitMQ accepts 8192 before tune).
pub const MIN_FRAME_MAX: u32 = 8192;
/// The protocol header of AMQP 0-9-1. Hapax sends it to the broker, and also answers with it to a client that asks for
/// another version.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// The protocol header of AMQP 0-9, which RabbitMQ accepts as 0-9-1.
pub const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";

/// A channel number; 0 is the connection itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// Channel 0, which belongs to the connection itself.
    pub const CONNECTION: ChannelId = ChannelId(0);
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type octet of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// 1
    Method,
    /// 2
    Header,
    /// 3
    Body,
    /// 8
    Heartbeat,
}

impl FrameKind {
    #[inline]
    fn of(octet: u8) -> Option<FrameKind> {
        match octet {
            1 => Some(FrameKind::Method),
            2 => Some(FrameKind::Header),
            3 => Some(FrameKind::Body),
            8 => Some(FrameKind::Heartbeat),
            _ => None,
        }
    }
}

/// One whole frame, as a view over the bytes of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The kind that the type octet names.
    pub kind: FrameKind,
    /// The channel that the frame belongs to.
    pub channel: ChannelId,
    /// The octets between the header and the end octet.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Returns the octets that the frame takes on the wire, including header and end octet.
    pub fn wire_len(&self) -> usize {
        self.payload.len() + OVERHEAD
    }
}

/// Why bytes are not valid AMQP. The session turns this into a fault of AMQP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The type octet is none of 1, 2, 3, 8, or it is 8 and there is a payload. RabbitMQ answers with 501.
    #[error("unknown frame type {kind} on channel {channel}")]
    UnknownKind {
        /// the type octet
        kind: u8,
        /// the channel it was on
        channel: ChannelId,
    },
    /// The frame says that it is larger than what was negotiated. This is known before its payload has arrived.
    #[error("frame of {len} bytes is larger than the negotiated maximum of {max}")]
    TooLarge {
        /// the channel it was on
        channel: ChannelId,
        /// its type octet
        kind: u8,
        /// the frame's whole length on the wire
        len: usize,
        /// the negotiated frame_max
        max: usize,
    },
    /// The octet at the end of the frame is not 0xCE.
    #[error("frame end octet is {got:#04x}, expected 0xce")]
    BadEnd {
        /// the channel it was on
        channel: ChannelId,
        /// its type octet
        kind: u8,
        /// what was there instead
        got: u8,
    },
    /// A method or content header ends before its fields do, or a length inside it points outside.
    #[error("payload is cut short or a length in it is wrong: {0}")]
    Malformed(&'static str),
}

/// How many octets a frame may exceed the negotiated frame_max by. RabbitMQ allows them because "quite a few" clients
/// forget the overhead.
pub const FUDGE: usize = OVERHEAD;

/// Returns the `max` for [`scan`] that accepts the same frames as RabbitMQ does after this frame_max was negotiated:
/// [`FUDGE`] octets more, and no limit for 0.
pub fn limit(frame_max: u32) -> usize {
    match usize::try_from(frame_max) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(max) => max.saturating_add(FUDGE),
    }
}

/// Returns the first frame of `buf`, or `Ok(None)` while it is incomplete. `max` is the largest whole frame, overhead
/// included. A larger size is refused as soon as the seven header octets are known. An unknown type is refused after
/// three octets, because the error names the channel.
///
/// A heartbeat with a payload is an unknown frame, as in RabbitMQ (`analyze_frame`). A heartbeat on another channel
/// than 0 is accepted here; the session answers it with 505.
#[inline]
pub fn scan(buf: &[u8], max: usize) -> Result<Option<Frame<'_>>, WireError> {
    let Some((&[octet, high, low], rest)) = buf.split_first_chunk::<3>() else { return Ok(None) };
    let channel = ChannelId(u16::from_be_bytes([high, low]));
    let unknown = WireError::UnknownKind { kind: octet, channel };
    let kind = FrameKind::of(octet).ok_or(unknown)?;
    let Some((&size, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    // If a u32 does not fit in this machine's usize, neither does the frame, so it is refused as too large.
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    let len = size.saturating_add(OVERHEAD);
    if len > max {
        return Err(WireError::TooLarge { channel, kind: octet, len, max });
    }
    if kind == FrameKind::Heartbeat && size != 0 {
        return Err(unknown);
    }
    let Some((payload, rest)) = rest.split_at_checked(size) else { return Ok(None) };
    match rest.first() {
        None => Ok(None),
        Some(&FRAME_END) => Ok(Some(Frame { kind, channel, payload })),
        Some(&got) => Err(WireError::BadEnd { channel, kind: octet, got }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4096;
    /// `basic.ack` 7 on channel 258, and the first octets of the next frame.
    const ACK: &[u8] = &[1, 1, 2, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0xCE, 2, 0, 1];

    #[test]
    fn a_frame_is_seen_in_place_and_the_rest_is_left() {
        let frame = scan(ACK, MAX).unwrap().unwrap();
        assert_eq!((frame.kind, frame.channel), (FrameKind::Method, ChannelId(258)));
        assert_eq!(Some(frame.payload), ACK.get(7..20));
        assert_eq!(frame.wire_len(), 21);
    }

    #[test]
    fn a_frame_that_is_cut_short_anywhere_is_waited_for() {
        for len in 0..21 {
            assert_eq!(scan(ACK.get(..len).unwrap(), MAX), Ok(None), "{len} octets");
        }
    }

    #[test]
    fn an_unknown_type_is_told_when_the_channel_is_known() {
        for kind in (0..=u8::MAX).filter(|kind| ![1, 2, 3, 8].contains(kind)) {
            let unknown = WireError::UnknownKind { kind, channel: ChannelId(5) };
            assert_eq!(scan(&[kind, 0], MAX), Ok(None));
            assert_eq!(scan(&[kind, 0, 5], MAX), Err(unknown));
        }
    }

    #[test]
    fn a_length_is_checked_before_its_payload_has_come() {
        let too_large = |len| WireError::TooLarge { channel: ChannelId(1), kind: 3, len, max: MAX };
        assert_eq!(scan(&[3, 0, 1, 0, 0, 0x0F, 0xF8], MAX), Ok(None), "4088 + 8 = 4096");
        assert_eq!(scan(&[3, 0, 1, 0, 0, 0x0F, 0xF9], MAX), Err(too_large(4097)));
        assert_eq!(scan(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], MAX), Err(too_large(0x1_0000_0007)));
        assert_eq!(scan(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], usize::MAX), Ok(None));
        assert_eq!(scan(&[3, 0, 1, 0, 0, 0x0F], MAX), Ok(None), "the length is not known yet");
    }

    #[test]
    fn a_frame_must_end_with_its_end_octet() {
        for got in (0..=u8::MAX).filter(|&got| got != FRAME_END) {
            let bad = WireError::BadEnd { channel: ChannelId(1), kind: 3, got };
            assert_eq!(scan(&[3, 0, 1, 0, 0, 0, 1, 0xCE, got], MAX), Err(bad));
        }
    }

    #[test]
    fn a_heartbeat_has_no_payload() {
        let unknown = WireError::UnknownKind { kind: 8, channel: ChannelId(0) };
        assert_eq!(scan(&[8, 0, 0, 0, 0, 0, 1], MAX), Err(unknown));
        let frame = scan(&[8, 0, 3, 0, 0, 0, 0, 0xCE], MAX).unwrap().unwrap();
        assert_eq!((frame.kind, frame.channel, frame.wire_len()), (FrameKind::Heartbeat, ChannelId(3), 8));
    }

    #[test]
    fn the_limit_is_as_wide_as_that_of_rabbitmq() {
        assert_eq!(limit(0), usize::MAX);
        assert_eq!(limit(131_072), 131_080);
    }
}
