//! Checks whether the upstream answers an AMQP handshake. A probe opens its own connection, sends the protocol header,
//! reads the first frame, and closes before any credentials are due.
//!
//! A TCP connection alone would prove less: a load balancer accepts connections for brokers that are gone, and a
//! booting RabbitMQ accepts connections before it speaks AMQP. RabbitMQ logs each probe as a connection that its
//! client closed early. To keep that log short, an answer is remembered for a moment and given to everybody who asks.
//! A scrape of the metrics also accepts an older answer if it was good, and does not wait for a slow one.

use crate::config::UpstreamAddress;
use crate::net::{Opener, Transport, Upstream};
use bytes::BytesMut;
use hapax_core::wire::frame::{HEADER_LEN, PROTOCOL_HEADER};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The beginning of a method frame on channel 0. [`CONNECTION_START`] follows after the frame's size.
const METHOD_ON_CHANNEL_0: [u8; 3] = [1, 0, 0];
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
/// A field of the `connection.start` of a Hapax that can't reach its broker.
const SAYS_HAPAX: &[u8] = b"\x07productS\x00\x00\x00\x05Hapax";
/// The most octets of `connection.start` that are looked at.
const LOOKED_AT: usize = 16 << 10;

/// How long a scrape accepts a good answer. Otherwise each scrape would add a line to RabbitMQ's log. The price: a
/// scrape notices a lost upstream this much later.
const GOOD_FOR_SCRAPES: Duration = Duration::from_secs(15);

/// Why the upstream is not ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// there is no TCP connection, or it broke
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// there was no answer within this time
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// the upstream closed the connection instead of answering
    #[error("it closed the connection instead of answering the protocol header")]
    Closed,
    /// the upstream answered with a protocol header of its own
    #[error("it speaks another version of AMQP than 0-9-1")]
    OtherVersion,
    /// the upstream is another Hapax, and it answers for its broker
    #[error("another hapax answers there, and it can't reach its broker")]
    NoBroker,
    /// the upstream answered something else
    #[error("what answers there does not speak AMQP")]
    NotAmqp,
}

/// Probes the upstream and remembers the answer for a moment.
#[derive(Debug)]
pub struct Probe {
    upstream: Upstream,
    address: String,
    fresh: Duration,
    last: Mutex<Option<Answer>>,
    /// Held during a probe. If several callers ask at once, one probes and the others get its answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    what: Result<(), ProbeError>,
}

impl Probe {
    /// Creates a probe of this upstream. An answer takes at most `timeout` and is remembered for `fresh`.
    pub fn new(upstream: &UpstreamAddress, timeout: Duration, fresh: Duration) -> Probe {
        let opener = Opener::default();
        Probe::of(Upstream { address: upstream.clone(), connect_timeout: timeout, opener }, fresh)
    }

    /// Creates a probe of an upstream that may be reached by TLS or expect a PROXY header.
    pub fn of(upstream: Upstream, fresh: Duration) -> Probe {
        let (last, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Probe { address: upstream.address.authority(), upstream, fresh, last, asking }
    }

    /// Returns `HOST:PORT` of the upstream.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns whether the upstream answers. The answer may be up to `fresh` old.
    pub async fn check(&self) -> Result<(), ProbeError> {
        let _asking = self.asking.lock().await;
        if let Some(answer) = self.answer(self.fresh) {
            return answer.what;
        }
        let what = self.ask().await;
        *self.last.lock() = Some(Answer { at: Instant::now(), what: what.clone() });
        what
    }

    /// Returns the last answer, however old it is; `None` before the first probe.
    pub fn last(&self) -> Option<Result<(), ProbeError>> {
        self.last.lock().as_ref().map(|answer| answer.what.clone())
    }

    /// Renews [`Probe::last`] if it is too old, but waits at most `patience`. A slower probe goes on in the
    /// background, and its answer is there for the next caller.
    pub async fn refresh(self: &Arc<Probe>, patience: Duration) {
        let good = self.answer(self.fresh.max(GOOD_FOR_SCRAPES)).is_some_and(|answer| answer.what.is_ok());
        if good || self.answer(self.fresh).is_some() {
            return;
        }
        let probe = Arc::clone(self);
        let asked = tokio::spawn(async move { probe.check().await });
        let _ = timeout(patience, asked).await;
    }

    /// Returns an answer for somebody who only shows it. It may be some seconds old, because it comes from
    /// [`Probe::refresh`].
    pub async fn glance(self: &Arc<Probe>, patience: Duration) -> Result<(), ProbeError> {
        self.refresh(patience).await;
        self.last().unwrap_or(Err(ProbeError::Silent(patience)))
    }

    /// Returns the last answer if it is younger than `age`.
    fn answer(&self, age: Duration) -> Option<Answer> {
        self.last.lock().clone().filter(|answer| answer.at.elapsed() < age)
    }

    async fn ask(&self) -> Result<(), ProbeError> {
        let patience = self.upstream.connect_timeout;
        match timeout(patience, handshake(&self.upstream)).await {
            Ok(Err(ProbeError::Io(error))) if error.kind() == io::ErrorKind::TimedOut => {
                Err(ProbeError::Silent(patience))
            }
            Ok(answer) => answer,
            Err(_) => Err(ProbeError::Silent(patience)),
        }
    }
}

async fn handshake(upstream: &Upstream) -> Result<(), ProbeError> {
    let mut transport = upstream.dial(None).await.map_err(|error| ProbeError::Io(Arc::new(error)))?;
    transport.write_all(&PROTOCOL_HEADER).await?;
    let mut heard = BytesMut::new();
    // Reads 7 bytes first. A protocol header has 8 bytes and a frame at least as many, so this read fits both.
    let head: [u8; HEADER_LEN] = take(&mut transport, &mut heard).await?;
    if head.starts_with(b"AMQP") {
        return Err(ProbeError::OtherVersion);
    }
    if !head.starts_with(&METHOD_ON_CHANNEL_0) {
        return Err(ProbeError::NotAmqp);
    }
    let method: [u8; CONNECTION_START.len()] = take(&mut transport, &mut heard).await?;
    if method != CONNECTION_START {
        return Err(ProbeError::NotAmqp);
    }
    let [_, _, _, size @ ..] = head;
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX).min(LOOKED_AT);
    let fields = size.saturating_sub(method.len());
    wait_for(&mut transport, &mut heard, fields).await?;
    let is_dismissal =
        heard.get(..fields).unwrap_or_default().windows(SAYS_HAPAX.len()).any(|octets| octets == SAYS_HAPAX);
    if is_dismissal { Err(ProbeError::NoBroker) } else { Ok(()) }
}

/// Reads until so many bytes have come.
async fn wait_for(transport: &mut Transport, heard: &mut BytesMut, count: usize) -> Result<(), ProbeError> {
    while heard.len() < count {
        if transport.read_some(heard).await? == 0 {
            return Err(ProbeError::Closed);
        }
    }
    Ok(())
}

/// Takes the next bytes out of what has come.
async fn take<const N: usize>(
    transport: &mut Transport,
    heard: &mut BytesMut,
) -> Result<[u8; N], ProbeError> {
    wait_for(transport, heard, N).await?;
    let mut bytes = [0; N];
    bytes.copy_from_slice(&heard.split_to(N));
    Ok(bytes)
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> ProbeError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ProbeError::Closed,
            _ => ProbeError::Io(Arc::new(error)),
        }
    }
}
