//! Connections to one server, to the master that Sentinels name, or to a cluster: behind one type.

use super::Failed;
use super::slot::slot;
use crate::bounded_file;
use crate::config::{Node, RedisMode, RedisSettings};
use crate::store::Failure;
use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where Redis is.
#[derive(Clone, Debug)]
pub(super) struct Target {
    settings: RedisSettings,
    /// the certificates in `ca_file`
    ca: Option<Vec<u8>>,
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
    /// Reads `ca_file`.
    pub(super) fn new(settings: RedisSettings, timeout: Duration) -> Result<Target, Failure> {
        let ca = match &settings.ca_file {
            None => None,
            Some(path) => {
                Some(bounded_file::read(path, bounded_file::MOST).map(|(ca, _)| ca).map_err(|error| {
                    Failure {
                    what: format!("can't read {} (`store.redis.ca_file`): {error}", path.display()),
                    fix:
                        "name a file with the certificates in PEM of the authorities that may sign Redis' own"
                            .into(),
                }
                })?)
            }
        };
        Ok(Target { settings, ca, timeout })
    }

    /// Opens a connection. The caller sets the deadlines.
    pub(super) async fn connect(&self) -> Result<Connection, Failed> {
        let connecting = async {
            match self.settings.mode {
                RedisMode::Single => self.one(&self.client()?).await,
                RedisMode::Sentinel => self.one(&self.sentinels()?.async_get_client().await?).await,
                RedisMode::Cluster => self.cluster().await,
            }
        };
        // With sentinels there are several connections to be opened, one after the other.
        let hops = if self.settings.mode == RedisMode::Single { 2 } else { 4 };
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
        let mut builder = ClusterClient::builder(self.infos()?)
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

    fn client(&self) -> RedisResult<Client> {
        let first = self.infos()?.into_iter().next().ok_or_else(no_url)?;
        let is_tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
        match self.certificates() {
            Some(certificates) if is_tls => Client::build_with_tls(first, certificates),
            _ => Client::open(first),
        }
    }

    fn infos(&self) -> RedisResult<Vec<ConnectionInfo>> {
        self.settings.nodes.iter().map(info).collect()
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        self.ca.clone().map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca) })
    }

    /// User, password and database of the first URL are those of the server. Sentinels are asked without.
    fn sentinels(&self) -> RedisResult<SentinelClient> {
        let (infos, master) = (self.infos()?, &self.settings.sentinel_master);
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

fn info(node: &Node) -> RedisResult<ConnectionInfo> {
    let Node { scheme, host, port, user, password, path } = node;
    let address = match *scheme {
        "rediss" => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        _ => ConnectionAddr::Tcp(host.clone(), *port),
    };
    let mut redis = RedisConnectionInfo::default().set_db(path.parse().unwrap_or(0));
    if let Some(user) = user {
        redis = redis.set_username(user);
    }
    if let Some(password) = password {
        redis = redis.set_password(&password.0);
    }
    Ok(address.into_connection_info()?.set_redis_settings(redis))
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
        if commands.is_empty() {
            return Ok(Vec::new());
        }
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

    /// Sends one command. Fails, too, if Redis answers with an error: `LOADING` while it reads its data, or `NOPERM`.
    pub(super) async fn ask(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        let reply = match self {
            Connection::One(connection) => connection.req_packed_command(cmd).await,
            Connection::Cluster(cluster) => cluster.req_packed_command(cmd).await,
        };
        reply?.extract_error()
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
