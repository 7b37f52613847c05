//! Arbitrary octets as a stream of frames: what we see is what `amq-protocol` sees, and no truncation of a frame is
//! taken for anything but "not all there".
#![no_main]

#[path = "../../core/tests/wire/oracle/mod.rs"]
mod oracle;

use hapax_core::wire::frame::limit;
use hapax_core::wire::scan;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stream: &[u8]| {
    let max = limit(4096);
    // A small one too: what is too large must be told from the header alone.
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
