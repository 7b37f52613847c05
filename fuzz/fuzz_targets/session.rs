//! Runs a session between a client, an upstream, a clock and a window, all of which act as arbitrary octets say.
#![no_main]

#[path = "../../core/tests/session/driver/mod.rs"]
mod driver;
#[path = "../../core/tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| driver::drive(octets));
