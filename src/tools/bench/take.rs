//! A consumer and nothing else: takes a number of deliveries, as fast as they come, and acks them if it is told to.

use super::Error;
use super::dial::{Dialed, Target};
use super::load::consume;
use super::now;
use bytes::BytesMut;
use hapax_core::wire::frame::limit;
use hapax_core::wire::method::MethodId;
use hapax_core::wire::{ChannelId, FrameKind, emit, scan};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

const READ_BYTES: usize = 256 << 10;

/// Consumes from this queue until `count` messages have come. Returns how long that took. With `acks`, each read is acked by one
/// `basic.ack`.
pub(super) fn take(target: &Target, queue: &str, count: u64, acks: bool) -> Result<Duration, Error> {
    let mut dialed = Dialed::open(target)?;
    dialed.channel(1)?;
    let started = now();
    consume(&mut dialed, 1, queue, !acks)?;
    let lost = |why: String| Error::Lost { address: target.address.clone(), doing: "consuming", why };
    let mut buffer = vec![0; READ_BYTES];
    let mut held = std::mem::take(&mut dialed.input);
    let (mut taken, mut acked) = (dialed.delivered, 0);
    if let Some(front) = buffer.get_mut(..held.len()) {
        front.copy_from_slice(&held);
    }
    let (mut begin, mut length) = (held.len(), 0);
    loop {
        let all = buffer.get(..begin + length).unwrap_or_default();
        let mut at = 0;
        while let Some(frame) = scan(all.get(at..).unwrap_or_default(), limit(dialed.frame_max))
            .map_err(|error| lost(error.to_string()))?
        {
            at += frame.wire_len();
            let delivery =
                frame.kind == FrameKind::Method && MethodId::of(frame.payload) == Ok(MethodId::BASIC_DELIVER);
            taken += u64::from(delivery);
        }
        held.clear();
        held.extend_from_slice(all.get(at..).unwrap_or_default());
        if acks && taken > acked {
            let mut ack = BytesMut::new();
            emit::ack(&mut ack, ChannelId(1), taken, true);
            dialed.stream.write_all(&ack).map_err(|error| lost(error.to_string()))?;
            acked = taken;
        }
        if taken >= count {
            let took = now().duration_since(started);
            dialed.close();
            return Ok(took);
        }
        begin = held.len();
        if let Some(front) = buffer.get_mut(..begin) {
            front.copy_from_slice(&held);
        }
        length = match dialed.stream.read(buffer.get_mut(begin..).unwrap_or_default()) {
            Ok(0) => return Err(lost("closed by the other side".to_owned())),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(lost(error.to_string())),
        };
    }
}
