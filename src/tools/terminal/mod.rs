//! The operator's side: `hapax top`, `windows`, `ids`, `connections`, `upstreams`, `drops`. A client of a running relay's HTTP API, and no part
//! of the relay: it holds no windows, and whatever it shows or changes goes through [`client`].
//!
//! ```text
//! cli ─→ commands ─┬─→ client ─→ HTTP ─→ the relay's admin listener
//!        top ──────┘      │
//!   input ─→ model ─→ view (pure: a model in, a screen out)
//! ```
//!
//! * [`client`]: one request, one answer or one failure.
//! * [`answer`]: the relay's answers as types.
//! * [`columns`]: text, bars and curves that fit into a number of columns.
//! * [`sections`]: the facts of one window as lines, for `windows show` and for the detail view.
//! * [`commands`]: the commands that ask once and end.
//! * `save`: writes a change of a window into the configuration file.
//! * [`top`]: the command that stays.

pub mod answer;
pub mod args;
pub mod client;
pub mod columns;
pub mod commands;
mod save;
pub mod sections;
mod store;
pub mod theme;
pub mod top;

pub use client::ApiClient;
