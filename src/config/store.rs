//! The choice of a window's store.

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
