//! The names of everything that a window keeps in Redis. `hapax:` is the `prefix` of the configuration.
//!
//! ```text
//! hapax:WINDOW:KEY              a lease or a record: the key is 12 octets. Keys are spread over all slots of a cluster.
//!                               With `id = "sequence"`: the hash of a producer, see `sequence.lua`
//! hapax:{WINDOW}:identity       what gives the keys their meaning: secret, scope, place of the id
//! hapax:{WINDOW}:generation     how often the window was flushed
//! hapax:{WINDOW}:since          since when the window is remembered, in seconds since 1970, by the clock of Redis
//! hapax:{WINDOW}:changes        a stream: what the relays of the window have to tell each other
//! ```

use hapax_core::window::Key;
use std::sync::OnceLock;

/// The names of one window.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: Vec<u8>,
    pub(super) identity: String,
    pub(super) generation: String,
    pub(super) since: String,
    pub(super) changes: String,
    script: OnceLock<String>,
}

impl Names {
    pub(super) fn new(beginning: &str, window: &str) -> Names {
        // Braces would put all keys into one slot of a cluster.
        let window = window.replace('%', "%25").replace('{', "%7B").replace('}', "%7D");
        Names {
            prefix: format!("{beginning}{window}:").into_bytes(),
            identity: format!("{beginning}{{{window}}}:identity"),
            generation: format!("{beginning}{{{window}}}:generation"),
            since: format!("{beginning}{{{window}}}:since"),
            changes: format!("{beginning}{{{window}}}:changes"),
            script: OnceLock::new(),
        }
    }

    /// Returns the name that Redis gives to the script of numbers. It is the same for every Redis.
    pub(super) fn script(&self) -> Option<&str> {
        self.script.get().map(String::as_str)
    }

    /// Notes that name.
    pub(super) fn set_script(&self, name: String) {
        let _ = self.script.set(name);
    }

    pub(super) fn key(&self, key: Key) -> Vec<u8> {
        [&*self.prefix, &key.octets()].concat()
    }
}
