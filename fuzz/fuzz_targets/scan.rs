//! Reads arbitrary octets as a stream of frames. We must see what `amq-protocol` sees, and a frame that is cut short
//! must always count as incomplete.
#![no_main]

#[path = "../../core/tests/wire/oracle/mod.rs"]
mod oracle;

use hapax_core::wire::frame::limit;
use hapax_core::wire::scan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let max = limit(4096);
    // Try a small limit, too: a frame that is too large must be refused by its header alone.
    oracle::check_first_frame(stream, 64);
    let mut rest = stream;
    while let Some(len) = oracle::check_first_frame(rest, max) {
        let (frame, after) = rest.split_at(len);
        for cut in (0..len).step_by(1 + len / 32) {
            assert_eq!(scan(&frame[..cut], max), Ok(None), "cut at {cut} of {len}");
        }
        assert_eq!(scan(frame, max), scan(rest, max), "what follows makes a difference");
        rest = after;
    }
});
