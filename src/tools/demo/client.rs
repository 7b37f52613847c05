//! An AMQP connection as the demo's publishers use it: one `lapin` connection, channels with publisher confirms.

use super::Error;
use super::message;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};

/// The outcome of a publish as its publisher sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// stored, says the broker
    Acked,
    /// not stored, says the broker
    Nacked,
    /// sent back, because no queue wants it; the ack that follows means nothing
    Returned,
    /// the connection was gone before an answer came
    Unconfirmed,
}

impl Outcome {
    /// Waits for the answer.
    pub(super) async fn of(confirm: PublisherConfirm) -> Outcome {
        match confirm.await {
            Ok(Confirmation::Ack(None)) => Outcome::Acked,
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Outcome::Returned,
            Ok(Confirmation::Nack(None)) => Outcome::Nacked,
            // Not requested: can't be, every channel here is in confirm mode.
            Ok(Confirmation::NotRequested) | Err(_) => Outcome::Unconfirmed,
        }
    }
}

/// Where a publish goes.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// return it if no queue wants it
    pub(super) mandatory: bool,
}

impl Address {
    /// To a queue, by the default exchange.
    pub(super) fn queue(name: &str) -> Address {
        Address { exchange: String::new(), routing_key: name.to_owned(), mandatory: false }
    }
}

/// A connection with a name that RabbitMQ shows, too.
#[derive(Debug)]
pub(super) struct Client {
    connection: Connection,
    name: String,
}

impl Client {
    /// Connects and logs in.
    pub(super) async fn connect(uri: &AMQPUri, name: &str) -> Result<Client, Error> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect_uri(uri.clone(), properties).await.map_err(Error::amqp(
            format!("connecting {name} to {}:{}", uri.authority.host, uri.authority.port),
        ))?;
        Ok(Client { connection, name: name.to_owned() })
    }

    /// A channel.
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        self.connection.create_channel().await.map_err(Error::amqp("opening a channel"))
    }

    /// A channel with publisher confirms.
    pub(super) async fn publisher(&self) -> Result<Publisher, Error> {
        let channel = self.channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(Error::amqp("selecting publisher confirms"))?;
        Ok(Publisher { channel, name: self.name.clone() })
    }

    /// Says good-bye.
    pub(super) async fn close(self) -> Result<(), Error> {
        let closing = self.connection.close(200, ShortString::from("done"));
        closing.await.map_err(Error::amqp(format!("closing {}", self.name)))
    }
}

/// A channel in confirm mode.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    channel: Channel,
    name: String,
}

impl Publisher {
    /// Publishes; on return it is written to the socket, and the answer is to come.
    pub(super) async fn publish(&self, to: &Address, id: &str) -> Result<PublisherConfirm, Error> {
        let options = BasicPublishOptions { mandatory: to.mandatory, ..BasicPublishOptions::default() };
        let body = message::body(id);
        let properties = message::properties(id, &self.name);
        let exchange = ShortString::from(to.exchange.as_str());
        let key = ShortString::from(to.routing_key.as_str());
        let sent = self.channel.basic_publish(exchange, key, options, body.as_bytes(), properties);
        sent.await.map_err(Error::amqp(format!("{} publishing {id}", self.name)))
    }
}
