//! Reads arbitrary octets as a PROXY header: it makes no difference in how many pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| hapax::net::fuzzed::proxy(octets));
