//! Helpers for tests and benches of windows: keys that are as even as digests, and the memory of the process.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each includer uses a part of it, and none goes on without it"
)]

use hapax_core::window::Key;

/// The n-th key: spread as a digest would be (splitmix64, twice).
pub(crate) fn key(n: u64) -> Key {
    let mix = |n: u64| {
        let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    };
    let high = mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Key((u128::from(high) << 64 | u128::from(mix(high))) >> 32)
}

/// A line of `/proc/self/status`, in bytes: `VmRSS:`, `RssAnon:` (without the pages of the program), or the most that there
/// ever was, `VmHWM:`.
pub(crate) fn resident(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line");
    let kib: usize = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    kib << 10
}

/// Runs an ignored test of this binary in a process of its own, with one more variable in its environment, and gives back what
/// it printed. A test that measures its process needs this: others run at the same time in this one.
pub(crate) fn run_alone(test: &str, variable: (&str, &str)) -> String {
    run_alone_with(test, &[variable])
}

/// Like [`run_alone`], with several variables.
pub(crate) fn run_alone_with(test: &str, variables: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().expect("its own name"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.envs(variables.iter().filter(|(name, _)| !name.is_empty()).copied());
    let child = command.output().expect("a child");
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{test}: {text}{said}");
    text
}
