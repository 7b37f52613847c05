//! Keys: a 128-bit keyed digest of (scope, id).

use crate::wire::properties::IdValue;

/// What a window compares: the keyed digest of scope and id. Chosen ids cannot be made to collide without the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u128);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What an id is unique within. Always within its vhost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// vhost, exchange and routing key (the default: two queues by the default exchange are two scopes)
    #[default]
    RoutingKey,
    /// vhost and exchange
    Exchange,
    /// vhost
    Vhost,
}

/// Makes keys. One per process: the digest's secret is drawn at the start.
#[derive(Clone, Debug)]
pub struct KeyMaker {
    secret: (u64, u64),
}

impl KeyMaker {
    /// With this secret (tests, and stores that outlive the process).
    pub fn new(secret: (u64, u64)) -> KeyMaker {
        KeyMaker { secret }
    }

    /// With a secret from the operating system.
    pub fn random() -> KeyMaker {
        todo!()
    }

    /// SipHash-1-3-128 over the parts of the scope and the id, each with its length before it.
    pub fn key(
        &self,
        scope: Scope,
        vhost: &[u8],
        exchange: &[u8],
        routing_key: &[u8],
        id: &IdValue<'_>,
    ) -> Key {
        let _ = (scope, vhost, exchange, routing_key, id, self.secret);
        todo!()
    }
}
