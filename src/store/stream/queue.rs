//! The stream queue of a window: its name and arguments, and how it is declared.

use super::{Why, soft_error};
use crate::config::{StreamSettings, WindowConfig};
use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;

/// A stream drops whole segments. It has this many, if it is full.
const SEGMENTS: u64 = 32;
/// The most bytes of a segment.
const MOST_SEGMENT: u64 = 50 << 20;
/// The age is written in whole minutes.
const MINUTE: u64 = 60;

/// The stream that a window asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) name: String,
    /// how long a message is kept, in seconds
    age: u64,
    /// the most bytes of the whole stream
    bytes: u64,
    /// Hapax declares it; otherwise it has to be there
    declare: bool,
}

/// How a stream was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It is as the window asks, or Hapax may not look.
    Fits,
    /// It was declared with other arguments. The broker says which.
    Differs(String),
}

impl Layout {
    /// Without settings, nothing is declared.
    pub(super) fn of(settings: Option<&StreamSettings>, window: &WindowConfig) -> Layout {
        let bytes = settings.map_or(0, |settings| settings.max_bytes as u64);
        let declare = settings.is_some_and(|settings| settings.declare);
        Layout { declare, ..Layout::new(&window.rules.name, window.limits.ttl, bytes) }
    }

    fn new(window: &str, ttl: Duration, bytes: u64) -> Layout {
        // A message counts from when it was written; what it says may be a moment older.
        let minutes = ttl.as_secs().div_ceil(MINUTE) + 1;
        Layout { name: format!("hapax.window.{window}"), age: minutes * MINUTE, bytes, declare: true }
    }

    /// How long the broker keeps a message, if the stream is as asked.
    pub(super) fn age(&self) -> Duration {
        Duration::from_secs(self.age)
    }

    /// The age as RabbitMQ writes it.
    pub(super) fn max_age(&self) -> String {
        format!("{}s", self.age)
    }

    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        let mut put = |name: &str, value| {
            arguments.insert(name.into(), value);
        };
        let number = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
        put("x-queue-type", AMQPValue::LongString("stream".into()));
        put("x-max-age", AMQPValue::LongString(self.max_age().into()));
        put("x-max-length-bytes", number(self.bytes));
        put("x-stream-max-segment-size-bytes", number((self.bytes / SEGMENTS).min(MOST_SEGMENT)));
        arguments
    }

    /// Declares the stream. One that is there already is used as it is. So is one that Hapax may not declare.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<Found, Why> {
        let found = match self.declare {
            true => match self.try_declare(connection, false).await {
                Ok(()) => return Ok(Found::Fits),
                Err(error) => self.found(&error)?,
            },
            false => Found::Fits,
        };
        match self.try_declare(connection, true).await {
            Ok(()) => Ok(found),
            Err(error) if matches!(soft_error(&error), Some((AMQPSoftError::NOTFOUND, _))) => Err(Why {
                what: format!("there is no stream {:?}, and Hapax may not declare it", self.name),
                fix: Some(format!(
                    "let Hapax declare it (`declare = true` in [store.stream], and the configure permission), or declare it: durable, x-queue-type = stream, x-max-age = {}",
                    self.max_age()
                )),
                is_final: false,
            }),
            Err(error) => Err(Why::of(&error)),
        }
    }

    /// How the stream was found that could not be declared.
    fn found(&self, error: &lapin::Error) -> Result<Found, Why> {
        match soft_error(error) {
            Some((AMQPSoftError::PRECONDITIONFAILED, text)) if text.contains("x-queue-type") => {
                Err(self.is_no_stream())
            }
            Some((AMQPSoftError::PRECONDITIONFAILED, text)) => Ok(Found::Differs(text)),
            Some((AMQPSoftError::ACCESSREFUSED, _)) => Ok(Found::Fits),
            _ => Err(Why::of(error)),
        }
    }

    /// Another kind of queue has the name.
    pub(super) fn is_no_stream(&self) -> Why {
        Why {
            what: format!("the queue {:?} is not a stream", self.name),
            fix: Some("delete that queue, or give the window another name".to_owned()),
            is_final: true,
        }
    }

    async fn try_declare(&self, connection: &Connection, passive: bool) -> Result<(), lapin::Error> {
        // A refusal closes the channel, so each attempt has its own.
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(self.name.as_str().into(), options, self.arguments()).await?;
        let _ = channel.close(200, "".into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_keeps_ids_for_their_ttl_at_least() {
        for (ttl, age) in [(0, "60s"), (1, "120s"), (60, "120s"), (61, "180s"), (86_400, "86460s")] {
            assert_eq!(Layout::new("w", Duration::from_secs(ttl), 1).max_age(), age);
        }
        let tenth = Layout::new("w", Duration::from_millis(59_900), 1);
        assert!(tenth.age() >= Duration::from_secs(60));
    }

    #[test]
    fn the_name_is_that_of_the_window() {
        assert_eq!(Layout::new("orders", Duration::from_secs(1), 1).name, "hapax.window.orders");
    }
}
