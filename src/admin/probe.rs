//! Does the upstream answer an AMQP handshake? Asked on a connection of its own: the protocol header out, the first
//! frame in, and away before any credentials are due.
//!
//! A TCP connection would prove less: a load balancer accepts for brokers that are gone, and a RabbitMQ that is still
//! booting accepts before it speaks. RabbitMQ logs such a connection as one that its client closed early; the answer
//! is kept for a moment, so that many who ask do not fill that log.

use crate::config::Upstream;
use crate::wire::frame::{HEADER_LEN, PROTOCOL_HEADER};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// A method frame on channel 0, and behind its size the ids of `connection.start`.
const METHOD_ON_CHANNEL_0: [u8; 3] = [1, 0, 0];
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

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
    /// Held while asking: of many at once, one asks and the others get its answer.
    last: Mutex<Option<(Instant, Result<(), ProbeError>)>>,
}

impl Probe {
    /// For this upstream; an answer takes no longer than `timeout`, and is good for as long as `fresh`.
    pub fn new(upstream: &Upstream, timeout: Duration, fresh: Duration) -> Probe {
        Probe { address: upstream.authority(), timeout, fresh, last: Mutex::new(None) }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it answers, as of now or a moment ago.
    pub async fn check(&self) -> Result<(), ProbeError> {
        self.check_within(self.fresh).await
    }

    /// Likewise, where an answer of this age is good enough.
    pub async fn check_within(&self, age: Duration) -> Result<(), ProbeError> {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, answer)) if at.elapsed() < age.max(self.fresh) => answer.clone(),
            _ => {
                let answer = self.ask().await;
                *last = Some((Instant::now(), answer.clone()));
                answer
            }
        }
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
