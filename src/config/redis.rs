//! The section `[store.redis]`: where Redis or Valkey is, for windows with `store = "redis"`.

use super::problem::Wrong;
use super::{token, value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// How long a lease lives that nobody renews.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// The shortest lease. It is renewed each third of it, and a relay may well be busy for that long.
pub(super) const LEAST_LEASE: Duration = Duration::from_millis(500);
/// The longest lease: for that long, nobody learns that a relay has died.
pub(super) const MOST_LEASE: Duration = Duration::from_secs(3_600);
/// Replicas that a write may wait for.
pub(super) const MOST_REPLICAS: usize = 16;

/// Where Redis is, and how it is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisSettings {
    /// the server; or Sentinels; or nodes of a cluster
    pub urls: Vec<RedisUrl>,
    /// what the Sentinels call the server; `None`: these are no Sentinels
    pub sentinel: Option<String>,
    /// these are nodes of a Redis Cluster
    pub cluster: bool,
    /// the file with the certificate of the authority that has signed the servers' certificates
    pub ca_file: Option<PathBuf>,
    /// the certificate, as the file has it
    pub ca: Option<Vec<u8>>,
    /// how long a lease lives that nobody renews
    pub lease: Duration,
    /// how many replicas must have a write before its client is acked
    pub replicas: usize,
}

impl Default for RedisSettings {
    fn default() -> RedisSettings {
        RedisSettings {
            urls: Vec::new(),
            sentinel: None,
            cluster: false,
            ca_file: None,
            ca: None,
            lease: LEASE,
            replicas: 0,
        }
    }
}

/// A URL of Redis. It may have a password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Returns the text with its password.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
            Some((scheme, Some((user, place)))) => match user.split_once(':') {
                Some((user, _)) => write!(f, "{scheme}://{user}:***@{place}"),
                None => write!(f, "{scheme}://{user}@{place}"),
            },
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads one URL or a list of them.
pub(super) fn urls(value: &DeValue<'_>) -> Result<Vec<RedisUrl>, Wrong> {
    const EXAMPLE: &str = "redis://127.0.0.1:6379";
    match value {
        DeValue::Array(items) => items.iter().map(|item| url(value::text(item.get_ref(), EXAMPLE)?)).collect(),
        one => Ok(vec![url(value::text(one, EXAMPLE)?)?]),
    }
}

fn url(text: &str) -> Result<RedisUrl, Wrong> {
    let url = RedisUrl(text.to_owned());
    let known = text.starts_with("redis://") || text.starts_with("rediss://");
    if !known || redis::parse_redis_url(text).is_none() {
        return Err(Wrong {
            what: format!("is \"{url}\", which is no address of Redis"),
            fix: "write \"redis://HOST:PORT\", \"redis://USER:PASSWORD@HOST:PORT\", or rediss:// for TLS".into(),
        });
    }
    Ok(url)
}

/// Reads a file of certificates.
pub(super) fn ca(text: &str) -> Result<(PathBuf, Vec<u8>), Wrong> {
    let path = token::path(text)?;
    let read = read(&path).map_err(|error| Wrong {
        what: format!("is \"{}\", which can't be read: {error}", path.display()),
        fix: "name a file with the certificate (PEM) of the authority that has signed Redis' certificate".into(),
    })?;
    Ok((path, read))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let is_pem = bytes.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----");
    if is_pem { Ok(bytes) } else { Err("it has no certificate in it".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (text, shown) in [
            ("redis://user:se:cret@host:1/2", "redis://user:***@host:1/2"),
            ("redis://:secret@host", "redis://:***@host"),
            ("redis://:se@cret@host", "redis://:***@host"),
            ("rediss://user@host", "rediss://user@host"),
            ("redis://host:6379", "redis://host:6379"),
        ] {
            assert_eq!(RedisUrl(text.into()).to_string(), shown);
            assert_eq!(format!("{:?}", RedisUrl(text.into())), shown);
        }
    }

    #[test]
    fn an_address_that_is_none_is_told() {
        for wrong in ["", "127.0.0.1:6379", "http://host", "redis+unix:///x", "redis://"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
        assert!(url("rediss://u:p@[::1]:6379/3").is_ok());
    }
}
