//! The choice of a window's store, and the sections `[store.stream]` and `[store.redis]`: how Hapax itself logs in there.

use super::check::most;
use super::problem::{Report, Wrong};
use super::raw::Section;
use super::{Secret, listener, token, value};
use crate::tls::ClientFiles;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;
use url::Url;

/// Where a window remembers its ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the memory of the process alone: a restart forgets them.
    #[default]
    Memory,
    /// In a log below `state_dir`.
    Disk,
    /// In a stream queue of the broker.
    Stream,
    /// In Redis or Valkey.
    Redis,
}

impl StoreKind {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            StoreKind::Memory => "memory",
            StoreKind::Disk => "disk",
            StoreKind::Stream => "stream",
            StoreKind::Redis => "redis",
        }
    }
}

/// How Hapax reaches the stores that are servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreSettings {
    /// the broker of the windows with `store = "stream"`
    pub stream: Option<StreamSettings>,
    /// the server of the windows with `store = "redis"`
    pub redis: Option<RedisSettings>,
}

/// The broker that has the streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamSettings {
    /// nodes of one cluster, in the order in which they are tried
    pub nodes: Vec<Node>,
    /// the file that the URI came from
    pub uri_file: Option<PathBuf>,
    /// the files of TLS to the nodes with `amqps`; `None`: no node has it
    pub tls: Option<ClientFiles>,
    /// Hapax declares the streams; otherwise they must be there
    pub declare: bool,
    /// the most bytes of each stream (`x-max-length-bytes`)
    pub max_bytes: usize,
}

/// The Redis or Valkey that has the ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisSettings {
    /// servers: one, the sentinels, or some nodes of the cluster
    pub nodes: Vec<Node>,
    /// the file that the URL came from
    pub url_file: Option<PathBuf>,
    /// what the servers are
    pub mode: RedisMode,
    /// how the sentinels call the servers that they watch
    pub sentinel_master: String,
    /// certificates of the authorities that may sign the server's, in PEM; `None`: those of the system
    pub ca_file: Option<PathBuf>,
    /// how long a reservation lives whose relay is gone
    pub lease: Duration,
    /// replicas that must have a commit before it counts (`WAIT`)
    pub replicas: usize,
    /// the beginning of every key
    pub prefix: String,
}

/// The kind of the servers in [`RedisSettings::nodes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// one server
    #[default]
    Single,
    /// sentinels, which know the server
    Sentinel,
    /// nodes of a cluster
    Cluster,
}

/// A server, and how to log in there. Its `Display` and `Debug` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// `amqp`, `amqps`, `redis` or `rediss`
    pub scheme: &'static str,
    /// a name or an IP address, without brackets
    pub host: String,
    /// the port
    pub port: u16,
    /// the user; `None`: the server's default
    pub user: Option<String>,
    /// the password
    pub password: Option<Secret>,
    /// the vhost of RabbitMQ, or the number of the database of Redis
    pub path: String,
}

impl Node {
    /// Returns `HOST:PORT`.
    pub fn authority(&self) -> String {
        super::authority(&self.host, self.port)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match (&self.user, &self.password) {
            (None, None) => {}
            (user, None) => write!(f, "{}@", user.as_deref().unwrap_or_default())?,
            (user, Some(_)) => write!(f, "{}:***@", user.as_deref().unwrap_or_default())?,
        }
        f.write_str(&self.authority())?;
        let path = percent_encoding::utf8_percent_encode(&self.path, percent_encoding::NON_ALPHANUMERIC);
        if self.path.is_empty() || self.path == "/" { Ok(()) } else { write!(f, "/{path}") }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// AMQP by TLS.
pub(crate) const AMQPS: &str = "amqps";
const STREAM_EXAMPLE: &str = "amqp://hapax:PASSWORD@127.0.0.1:5672";
const REDIS_EXAMPLE: &str = "redis://127.0.0.1:6379";

/// Reads `[store]`.
pub(super) fn read(mut section: Section<'_>, report: &mut Report) -> StoreSettings {
    let stream = section.section("stream", report);
    let redis = section.section("redis", report);
    let settings = StoreSettings { stream: read_stream(stream, report), redis: read_redis(redis, report) };
    section.finish(report);
    settings
}

fn read_stream(mut section: Section<'_>, report: &mut Report) -> Option<StreamSettings> {
    if section.is_absent() {
        return None;
    }
    let Broker { nodes, uri_file, tls } = read_broker(&mut section, "store.stream", report);
    let settings = StreamSettings {
        nodes,
        uri_file,
        tls,
        declare: section.read(report, "declare", true, value::boolean),
        max_bytes: section.read(report, "max_bytes", 1 << 30, |v| {
            value::bytes(v, super::defaults::STREAM_LEAST..=most::BUDGET)
        }),
    };
    section.finish(report);
    Some(settings)
}

/// A broker that Hapax itself logs in to.
pub(super) struct Broker {
    pub(super) nodes: Vec<Node>,
    pub(super) uri_file: Option<PathBuf>,
    pub(super) tls: Option<ClientFiles>,
}

/// Reads the broker that `uri` or `uri_file` names in the section of this name.
pub(super) fn read_broker(section: &mut Section<'_>, name: &str, report: &mut Report) -> Broker {
    let (nodes, uri_file) = read_nodes(section, ("uri", "uri_file"), STREAM_EXAMPLE, amqp, report);
    let tls = section.section("tls", report);
    let source = tls.source();
    let tls = listener::read_client(tls, report);
    let uses_tls = nodes.iter().any(|node: &Node| node.scheme == AMQPS);
    if tls.is_some() && !uses_tls && !nodes.is_empty() {
        report.problem(
            &source,
            format!("`[{name}.tls]` means nothing, because no URI of `[{name}]` begins with amqps://"),
            "write amqps://HOST (RabbitMQ's port for TLS is 5671), or leave the section out",
        );
    }
    Broker { nodes, uri_file, tls: tls.or_else(|| uses_tls.then(ClientFiles::default)) }
}

fn read_redis(mut section: Section<'_>, report: &mut Report) -> Option<RedisSettings> {
    if section.is_absent() {
        return None;
    }
    let (nodes, url_file) = read_nodes(&mut section, ("url", "url_file"), REDIS_EXAMPLE, redis, report);
    let mode = section.read(report, "mode", RedisMode::default(), |v| value::word(v, "single"));
    let settings = RedisSettings {
        nodes,
        url_file,
        mode,
        sentinel_master: section.read(report, "sentinel_master", "mymaster".to_owned(), |v| {
            value::text(v, "mymaster").map(str::to_owned)
        }),
        ca_file: section
            .read_optional(report, "ca_file", |v| token::path(value::text(v, "/etc/hapax/ca.pem")?)),
        lease: section.read(report, "lease", super::defaults::LEASE, |v| {
            value::duration(v, Duration::from_secs(1)..=most::TIMEOUT)
        }),
        replicas: section.read(report, "replicas", 0, |v| value::count(v, 0..=most::REPLICAS)),
        prefix: section.read(report, "prefix", super::defaults::REDIS_PREFIX.to_owned(), |v| {
            value::text(v, "hapax:").map(str::to_owned)
        }),
    };
    if mode == RedisMode::Single && settings.nodes.len() > 1 {
        let source = report.source(&section.path_of("url"));
        let what = format!(
            "{} names {} servers, but `mode` is \"single\"",
            section.title_of("url"),
            settings.nodes.len()
        );
        report.problem(&source, what, "write mode = \"sentinel\" or mode = \"cluster\", or name one server");
    }
    if mode == RedisMode::Cluster && settings.replicas > 0 {
        let source = report.source(&section.path_of("replicas"));
        let what =
            format!("{} is {}, but `mode` is \"cluster\"", section.title_of("replicas"), settings.replicas);
        report.problem(&source, what, "leave `replicas` out: in a cluster Hapax does not wait for replicas");
    }
    section.finish(report);
    Some(settings)
}

/// Reads the servers: one URL or a list, in the file itself or in a file of its own.
fn read_nodes(
    section: &mut Section<'_>,
    (key, file_key): (&'static str, &'static str),
    example: &str,
    parse: fn(&str) -> Result<Node, Wrong>,
    report: &mut Report,
) -> (Vec<Node>, Option<PathBuf>) {
    let here = section.read_optional(report, key, |v| list(v, example, parse));
    let there = section.read_optional(report, file_key, |v| {
        let path = token::path(value::text(v, "/etc/hapax/store.url")?)?;
        let nodes = token::read_private(
            &path,
            |text| text.split_whitespace().map(parse).collect::<Result<Vec<_>, _>>().and_then(some(example)),
            ("URL", "write it into the file, and chmod 600 the file"),
            "",
        )?;
        Ok((path, nodes))
    });
    let given = |report: &Report, key| report.sources.contains_key(&section.path_of(key));
    let (has_key, has_file) = (given(report, key), given(report, file_key));
    let source = section.source();
    match (has_key, has_file) {
        (true, true) => {
            let what = format!("{} and `{file_key}` both name the server", section.title_of(key));
            report.problem(&source, what, "leave one of them out");
        }
        (false, false) => {
            let what = format!("{} is missing", section.title_of(key));
            let fix = format!(
                "name the server, as in {key} = \"{example}\", or a file with that URL in `{file_key}`"
            );
            report.problem(&source, what, fix);
        }
        _ => {}
    }
    match there {
        Some((path, nodes)) => (nodes, Some(path)),
        None => (here.unwrap_or_default(), None),
    }
}

/// Refuses an empty list.
fn some(example: &str) -> impl Fn(Vec<Node>) -> Result<Vec<Node>, Wrong> {
    let fix = format!("name one server at least, as in \"{example}\"");
    move |nodes| if nodes.is_empty() { Err(Wrong::new("names no server", fix.clone())) } else { Ok(nodes) }
}

fn list(
    value: &DeValue<'_>,
    example: &str,
    parse: fn(&str) -> Result<Node, Wrong>,
) -> Result<Vec<Node>, Wrong> {
    let DeValue::Array(items) = value else { return Ok(vec![parse(value::text(value, example)?)?]) };
    let nodes = items.iter().map(|item| parse(value::text(item.get_ref(), example)?));
    nodes.collect::<Result<Vec<_>, _>>().and_then(some(example))
}

/// Parses `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or the same with `amqps`.
fn amqp(text: &str) -> Result<Node, Wrong> {
    let ports = [("amqp", super::defaults::UPSTREAM_PORT), (AMQPS, super::defaults::UPSTREAM_TLS_PORT)];
    let node = node(text, &ports, STREAM_EXAMPLE)?;
    let path = if node.path.is_empty() { "/".to_owned() } else { node.path };
    Ok(Node { path, ..node })
}

/// Parses `redis://USER:PASSWORD@HOST:PORT/DB`.
fn redis(text: &str) -> Result<Node, Wrong> {
    let node = node(text, &[("redis", 6379), ("rediss", 6379)], REDIS_EXAMPLE)?;
    match node.path.is_empty() || node.path.parse::<u32>().is_ok() {
        true => Ok(node),
        false => Err(Wrong::new(
            format!("has a database that is no number: {}", value::masked(text)),
            format!(
                "write the number of the database behind the port, or nothing, as in \"{REDIS_EXAMPLE}\""
            ),
        )),
    }
}

/// Parses a URL with one of these schemes, each with its port.
fn node(text: &str, schemes: &[(&'static str, u16)], example: &str) -> Result<Node, Wrong> {
    let wrong = |what: &str, fix: String| Wrong::new(format!("{what}: {}", value::masked(text)), fix);
    let fix = || format!("write it as in \"{example}\"");
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL ({error})"), fix()))?;
    let Some(&(scheme, port)) = schemes.iter().find(|(scheme, _)| *scheme == url.scheme()) else {
        let schemes: Vec<_> = schemes.iter().map(|(scheme, _)| *scheme).collect();
        return Err(wrong(&format!("has a scheme that is not {}", schemes.join(" or ")), fix()));
    };
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("has no host", fix()))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has parameters in it", "leave out everything from ? or # on".to_owned()));
    }
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(String::from).map_err(|_| wrong("has a part that is not UTF-8", fix()))
    };
    let path = decoded(url.path().strip_prefix('/').unwrap_or_default())?;
    let user = if url.username().is_empty() { None } else { Some(decoded(url.username())?) };
    let password = url.password().map(decoded).transpose()?.map(Secret);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Node { scheme, host, port: url.port().unwrap_or(port), user, password, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_stores() {
        let node = amqp("amqp://hapax:p%40ss@rabbit-1:5673/pay%2Fments").unwrap();
        assert_eq!((node.host.as_str(), node.port, node.path.as_str()), ("rabbit-1", 5673, "pay/ments"));
        assert_eq!(node.user.as_deref(), Some("hapax"));
        assert_eq!(node.password, Some(Secret("p@ss".to_owned())));
        assert_eq!(node.to_string(), "amqp://hapax:***@rabbit-1:5673/pay%2Fments");
        assert_eq!(amqp("amqp://[::1]").unwrap().to_string(), "amqp://[::1]:5672");
        for text in ["amqp://a", "amqp://a/"] {
            assert_eq!(amqp(text).unwrap().path, "/");
        }
        let node = redis("rediss://:secret@cache/3").unwrap();
        assert_eq!((node.scheme, node.port, node.path.as_str(), node.user), ("rediss", 6379, "3", None));
        let node = amqp("amqps://hapax@rabbit-1/v").unwrap();
        assert_eq!(
            (node.scheme, node.port, node.to_string().as_str()),
            ("amqps", 5671, "amqps://hapax@rabbit-1:5671/v")
        );
        for text in
            ["", "localhost", "http://a", "amqp://", "amqp://a:0x", "amqp://a?heartbeat=1", "redis://a"]
        {
            assert!(amqp(text).is_err(), "{text:?}");
        }
        assert!(redis("redis://a/b").is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in
            ["amqp://u:secret@a", "amqps://u:secret@a", "amqp://u:secret@a:x", "x://u:secret@a", "u:secret@a"]
        {
            match amqp(text) {
                Ok(node) => assert!(!format!("{node} {node:?}").contains("secret")),
                Err(wrong) => assert!(!format!("{wrong:?}").contains("secret"), "{wrong:?}"),
            }
        }
    }
}
