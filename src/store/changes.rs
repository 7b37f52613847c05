//! Logs what operators have done at other relays that share a store.

use hapax_core::window::{Change, Inspect, Setting};
use hapax_core::wire::IdSource;

/// Logs what operators have done at other relays of a shared store, and what this window has done, too. `changes` is
/// [`Applied::changes`](hapax_core::window::logged::Applied).
pub fn log_merged(window: &dyn Inspect, changes: &[Change]) {
    for Change { setting, by } in changes {
        let (what, to) = match setting {
            Setting::Capacity(capacity) => ("capacity changed", Some(capacity.to_string())),
            Setting::Ttl(ttl) => ("ttl changed", Some(humantime::format_duration(*ttl).to_string())),
            Setting::Mode(mode) => ("mode changed", Some(mode.name().to_owned())),
            Setting::Flushed => ("flushed", None),
            Setting::Forgotten if window.rules().id == IdSource::Sequence => {
                ("producer or number forgotten", None)
            }
            Setting::Forgotten => ("id forgotten", None),
        };
        let window = &*window.rules().name;
        tracing::info!(target: "hapax::store", by = &**by, window, to, "{what} at another relay");
    }
}
