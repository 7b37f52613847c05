//! Does the upstream answer an AMQP handshake? Asked on a connection of its own: the protocol header out, the first
//! frame in, and away before any credentials are due.
//!
//! A TCP connection would prove less: a load balancer accepts for brokers that are gone, and a RabbitMQ that is still
//! booting accepts before it speaks. RabbitMQ logs such a connection as one that its client closed early; the answer
//! is kept for a moment, so that many who ask do not fill that log. A scrape of the metrics is content with an older
//! answer, as long as it was good, and does not wait for a slow one.

use crate::config::Upstream;
use hapax_core::wire::frame::{HEADER_LEN, PROTOCOL_HEADER};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// A method frame on channel 0, and behind its size the ids of `connection.start`.
const METHOD_ON_CHANNEL_0: [u8; 3] = [1, 0, 0];
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

/// For how long a good answer serves those who only count: one handshake for each scrape would be a line in RabbitMQ's
/// log for each. That the upstream is gone is seen so much later.
const GOOD_FOR_SCRAPES: Duration = Duration::from_secs(15);

/// Why the upstream is not ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// no TCP connection, or it broke
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// nothing within this time
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// it closed instead of answering
    #[error("it closed the connection instead of answering the protocol header")]
    Closed,
    /// it answered with a protocol header of its own
    #[error("it speaks another version of AMQP than 0-9-1")]
    OtherVersion,
    /// it answered something else
    #[error("what answers there does not speak AMQP")]
    NotAmqp,
}

/// Asks the upstream, and remembers the answer for a moment.
#[derive(Debug)]
pub struct Probe {
    address: String,
    timeout: Duration,
    fresh: Duration,
    last: Mutex<Option<Answer>>,
    /// Held while asking: of many at once, one asks and the others get its answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    what: Result<(), ProbeError>,
}

impl Probe {
    /// For this upstream; an answer takes no longer than `timeout`, and is good for as long as `fresh`.
    pub fn new(upstream: &Upstream, timeout: Duration, fresh: Duration) -> Probe {
        let (last, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Probe { address: upstream.authority(), timeout, fresh, last, asking }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it answers, as of now or a moment ago.
    pub async fn check(&self) -> Result<(), ProbeError> {
        let _asking = self.asking.lock().await;
        if let Some(answer) = self.answer(self.fresh) {
            return answer.what;
        }
        let what = self.ask().await;
        *self.last.lock() = Some(Answer { at: Instant::now(), what: what.clone() });
        what
    }

    /// What it answered last, however long ago; none before it was asked.
    pub fn last(&self) -> Option<Result<(), ProbeError>> {
        self.last.lock().as_ref().map(|answer| answer.what.clone())
    }

    /// For those who then look at [`Probe::last`]: asks if need be, and waits no longer than `patience`. What is slower
    /// goes on by itself, and is there for the next one.
    pub async fn refresh(self: &Arc<Probe>, patience: Duration) {
        let good = self.answer(self.fresh.max(GOOD_FOR_SCRAPES)).is_some_and(|answer| answer.what.is_ok());
        if good || self.answer(self.fresh).is_some() {
            return;
        }
        let probe = Arc::clone(self);
        let asked = tokio::spawn(async move { probe.check().await });
        let _ = timeout(patience, asked).await;
    }

    /// The state of a while ago, for those who only show it: see [`Probe::refresh`].
    pub async fn glance(self: &Arc<Probe>, patience: Duration) -> Result<(), ProbeError> {
        self.refresh(patience).await;
        self.last().unwrap_or(Err(ProbeError::Silent(patience)))
    }

    /// The last one, if it is not older than this.
    fn answer(&self, age: Duration) -> Option<Answer> {
        self.last.lock().clone().filter(|answer| answer.at.elapsed() < age)
    }

    async fn ask(&self) -> Result<(), ProbeError> {
        match timeout(self.timeout, handshake(&self.address)).await {
            Ok(answer) => answer,
            Err(_) => Err(ProbeError::Silent(self.timeout)),
        }
    }
}

async fn handshake(address: &str) -> Result<(), ProbeError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&PROTOCOL_HEADER).await?;
    // A protocol header is as long as a frame's header and one more, so neither can be missed by reading this much.
    let mut head = [0; HEADER_LEN];
    stream.read_exact(&mut head).await?;
    if head.starts_with(b"AMQP") {
        return Err(ProbeError::OtherVersion);
    }
    if !head.starts_with(&METHOD_ON_CHANNEL_0) {
        return Err(ProbeError::NotAmqp);
    }
    let mut method = [0; CONNECTION_START.len()];
    stream.read_exact(&mut method).await?;
    if method == CONNECTION_START { Ok(()) } else { Err(ProbeError::NotAmqp) }
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> ProbeError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ProbeError::Closed,
            _ => ProbeError::Io(Arc::new(error)),
        }
    }
}
