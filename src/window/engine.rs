//! Engines: bounded stores of seen keys. One contract, one test suite.

/// Which engine a window uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `moka::sync::Cache` with the LRU policy
    Moka,
    /// the `lru` crate, in shards
    #[default]
    Lru,
}

/// The contract.
pub trait Engine: Send + Sync + std::fmt::Debug {}
