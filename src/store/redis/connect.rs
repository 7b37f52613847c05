//! Connections to one server, to the master that Sentinels name, or to a cluster: behind one type.

use super::Failed;
use super::slot::slot;
use crate::config::RedisSettings;
use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisError,
    RedisResult, TlsCertificates, TlsMode, Value,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where Redis is.
#[derive(Clone, Debug)]
pub(super) struct Target {
    settings: RedisSettings,
    timeout: Duration,
}

/// An open connection. A clone uses the same one.
#[derive(Clone)]
pub(super) enum Connection {
    /// a server, or the master
    One(MultiplexedConnection),
    /// a cluster
    Cluster(Box<ClusterConnection>),
}

/// A command, and the key that says to which node of a cluster it goes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) key: Vec<u8>,
    pub(super) cmd: Cmd,
}

impl Target {
    pub(super) fn new(settings: RedisSettings, timeout: Duration) -> Target {
        Target { settings, timeout }
    }

    /// Opens a connection. Whoever uses it sets deadlines himself.
    pub(super) async fn connect(&self) -> Result<Connection, Failed> {
        let connecting = async {
            if self.settings.cluster {
                self.cluster().await
            } else if let Some(master) = &self.settings.sentinel {
                let client = self.sentinels(master)?.async_get_client().await?;
                self.one(&client).await
            } else {
                let first = self.settings.urls.first().ok_or_else(no_url)?;
                self.one(&self.client(first.secret())?).await
            }
        };
        // With Sentinels there are several connections to be opened, one after the other.
        let hops = if self.settings.sentinel.is_some() { 4 } else { 2 };
        let connected = tokio::time::timeout(self.timeout * hops, connecting).await;
        Ok(connected.map_err(|_| Failed::Silent)??)
    }

    async fn one(&self, client: &Client) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None);
        Ok(Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    async fn cluster(&self) -> RedisResult<Connection> {
        let nodes: Vec<&str> = self.settings.urls.iter().map(|url| url.secret()).collect();
        let mut builder = ClusterClient::builder(nodes)
            .connection_timeout(self.timeout)
            // A reader of changes waits for up to a second, see `follow`.
            .response_timeout(self.timeout + super::follow::WAIT)
            .overall_response_timeout(Some(self.timeout + super::follow::WAIT))
            .retries(3)
            .max_retry_wait(200);
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        let connection = builder.build()?.get_async_connection().await?;
        Ok(Connection::Cluster(Box::new(connection)))
    }

    fn client(&self, url: &str) -> RedisResult<Client> {
        match self.certificates() {
            Some(certificates) if url.starts_with("rediss:") => Client::build_with_tls(url, certificates),
            _ => Client::open(url),
        }
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        self.settings.ca.clone().map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca) })
    }

    /// User, password and database of the URLs are those of the server. Sentinels are asked without.
    fn sentinels(&self, master: &str) -> RedisResult<SentinelClient> {
        let mut infos = Vec::new();
        for url in &self.settings.urls {
            infos.push(url.secret().into_connection_info()?);
        }
        let first = infos.first().ok_or_else(no_url)?;
        let (redis, is_tls) = (first.redis_settings(), matches!(first.addr(), ConnectionAddr::TcpTls { .. }));
        let addresses: Vec<ConnectionAddr> = infos.iter().map(|info| info.addr().clone()).collect();
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_db(redis.db());
        if let Some(user) = redis.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = redis.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if is_tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if let Some(certificates) = self.certificates() {
                builder = builder
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
        }
        builder.build()
    }
}

fn no_url() -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "no url"))
}

impl Connection {
    /// Returns true if pipelines that are sent one after the other are executed one after the other.
    pub(super) fn keeps_order(&self) -> bool {
        matches!(self, Connection::One(_))
    }

    /// Sends all commands. Returns their replies in order. To a server that is one pipeline. In a cluster it is one for each slot;
    /// commands of one key keep their order.
    pub(super) async fn send(&mut self, commands: Vec<Command>) -> Result<Vec<Value>, Failed> {
        let replies = match self {
            Connection::One(connection) => one_pipeline(connection, commands.iter()).await?,
            Connection::Cluster(cluster) => {
                let mut slots: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
                for (place, command) in commands.iter().enumerate() {
                    slots.entry(slot(&command.key)).or_default().push(place);
                }
                let commands = &commands;
                let pipelines = slots.into_values().map(|places| {
                    let mut cluster = cluster.clone();
                    async move {
                        let chosen = places.iter().filter_map(|place| commands.get(*place));
                        let replies = one_pipeline(&mut *cluster, chosen).await?;
                        Ok::<_, RedisError>(places.into_iter().zip(replies).collect::<Vec<_>>())
                    }
                });
                let mut replies: Vec<(usize, Value)> =
                    try_join_all(pipelines).await?.into_iter().flatten().collect();
                replies.sort_by_key(|(place, _)| *place);
                replies.into_iter().map(|(_, reply)| reply).collect()
            }
        };
        if replies.len() != commands.len() {
            return Err(Failed::Strange);
        }
        match replies.iter().find_map(|reply| match reply {
            Value::ServerError(error) => Some(RedisError::from(error.clone())),
            _ => None,
        }) {
            Some(error) => Err(Failed::Redis(error)),
            None => Ok(replies),
        }
    }

    /// Sends one command.
    pub(super) async fn ask(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Connection::One(connection) => connection.req_packed_command(cmd).await,
            Connection::Cluster(cluster) => cluster.req_packed_command(cmd).await,
        }
    }
}

async fn one_pipeline(
    connection: &mut impl ConnectionLike,
    commands: impl Iterator<Item = &Command>,
) -> RedisResult<Vec<Value>> {
    let mut pipeline = Pipeline::new();
    let mut count = 0;
    for command in commands {
        pipeline.add_command(command.cmd.clone());
        count += 1;
    }
    connection.req_packed_commands(&pipeline, 0, count).await
}
