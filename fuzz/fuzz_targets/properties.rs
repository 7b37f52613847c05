//! Reads arbitrary octets as a content header: class, size, ids, TTL and bypass must be those that `amq-protocol`
//! reads.
#![no_main]

#[path = "../../core/tests/wire/oracle/mod.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| oracle::check_header_payload(payload));
