//! Reads arbitrary text as a configuration file: it is refused with what to do, or what is shown of it is the same configuration.
#![no_main]

#[path = "../../tests/operator/config/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(text) = std::str::from_utf8(octets) {
        oracle::check(text);
    }
});
