//! The first words between Hapax and a node of the broker: a protocol header, and `connection.start`. They show that AMQP is
//! spoken there, which a TCP connection alone does not: a load balancer accepts connections for brokers that are gone, and a
//! RabbitMQ that boots or hangs accepts connections and says nothing.

use crate::net::Transport;
use bytes::BytesMut;
use hapax_core::wire::frame::HEADER_LEN;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The beginning of a method frame on channel 0. [`CONNECTION_START`] follows after the frame's size.
const METHOD_ON_CHANNEL_0: [u8; 3] = [1, 0, 0];
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
/// A field of the `connection.start` of a Hapax that can't reach its broker.
const SAYS_HAPAX: &[u8] = b"\x07productS\x00\x00\x00\x05Hapax";
/// The most octets of `connection.start` that are read here. RabbitMQ's has about 500.
const READ_MOST: usize = 16 << 10;

/// Why a node does not count as one that answers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoAnswer {
    /// its name can't be resolved
    #[error("its name can't be resolved: {0}")]
    Unresolved(Arc<io::Error>),
    /// there is no TCP connection, or it broke
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// there was no answer within this time
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// the node closed the connection instead of answering
    #[error("it closed the connection instead of answering the protocol header")]
    Closed,
    /// the node answered with a protocol header of its own
    #[error("it speaks another version of AMQP than 0-9-1")]
    OtherVersion,
    /// the node is another Hapax, and it answers for its broker
    #[error("another hapax answers there, and it can't reach its broker")]
    NoBroker,
    /// the node answered something else
    #[error("what answers there does not speak AMQP")]
    NotAmqp,
    /// there was no time left to ask it
    #[error("there was no time left to ask it")]
    NoTime,
}

impl NoAnswer {
    /// Returns true if the fault is on this side: the process has no more files, ports or memory. That says nothing of the node.
    pub(super) fn is_our_own(&self) -> bool {
        use rustix::io::Errno;
        let (NoAnswer::Io(error) | NoAnswer::Unresolved(error)) = self else {
            return matches!(self, NoAnswer::NoTime);
        };
        let ours =
            [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE];
        error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
    }
}

impl NoAnswer {
    /// Returns how much it says of a node, of which several addresses were tried: an answer that is wrong says more than none, and
    /// no connection more than a fault of this process, such as an IPv6 address on a host without IPv6.
    pub(super) fn weight(&self) -> u8 {
        match self {
            _ if self.is_our_own() => 0,
            NoAnswer::Unresolved(_) | NoAnswer::NoTime => 0,
            NoAnswer::Io(error) if error.raw_os_error().is_some() => 1,
            NoAnswer::Silent(_) => 1,
            NoAnswer::Io(_) | NoAnswer::Closed | NoAnswer::OtherVersion | NoAnswer::NoBroker => 2,
            NoAnswer::NotAmqp => 2,
        }
    }
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> NoAnswer {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => NoAnswer::Closed,
            _ => NoAnswer::Io(Arc::new(error)),
        }
    }
}

/// Sends the protocol header and reads the answer, which must be a broker's `connection.start`. Returns everything that was read.
pub(super) async fn exchange(
    transport: &mut Transport,
    protocol_header: &[u8],
) -> Result<BytesMut, NoAnswer> {
    transport.write_all(protocol_header).await?;
    let mut said = BytesMut::new();
    // 7 octets first. A protocol header has 8 octets and a frame at least as many.
    let head = read(transport, &mut said, HEADER_LEN).await?;
    if head.starts_with(b"AMQP") {
        return Err(NoAnswer::OtherVersion);
    }
    let [first, second, third, size @ ..] = *head.first_chunk::<HEADER_LEN>().ok_or(NoAnswer::NotAmqp)?;
    if [first, second, third] != METHOD_ON_CHANNEL_0 {
        return Err(NoAnswer::NotAmqp);
    }
    let start = HEADER_LEN + CONNECTION_START.len();
    if !read(transport, &mut said, start).await?.ends_with(&CONNECTION_START) {
        return Err(NoAnswer::NotAmqp);
    }
    // The octet after the payload ends the frame.
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    let whole = HEADER_LEN.saturating_add(size).saturating_add(1).min(READ_MOST);
    let frame = read(transport, &mut said, whole.max(start)).await?;
    let is_dismissal = frame.windows(SAYS_HAPAX.len()).any(|octets| octets == SAYS_HAPAX);
    if is_dismissal { Err(NoAnswer::NoBroker) } else { Ok(said) }
}

/// Returns the first `count` octets of what was said. Reads as long as there are fewer.
async fn read<'s>(
    transport: &mut Transport,
    said: &'s mut BytesMut,
    count: usize,
) -> Result<&'s [u8], NoAnswer> {
    while said.len() < count {
        if transport.read_some(said).await? == 0 {
            return Err(NoAnswer::Closed);
        }
    }
    Ok(said.get(..count).unwrap_or_default())
}
