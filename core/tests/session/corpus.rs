//! The seeds of the fuzz target `session` and whatever it has found, without nightly or a fuzzer.

use crate::driver;
use proptest::array::uniform2;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

#[test]
fn the_session_corpus_replays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/session");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 42, "{} seeds", files.len());
    for file in files {
        println!("{}", file.display());
        driver::drive(&fs::read(file).unwrap());
    }
}

#[test]
fn the_seeds_replay() {
    for (name, octets) in driver::seeds() {
        println!("{name}");
        driver::drive(&octets);
    }
}

/// Whole steps, most of them on a channel that is open.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let frames = |side: u8| {
        (0..20_u8, 1..3_u8, any::<u8>())
            .prop_map(move |(what, channel, more)| vec![side, what, channel, more])
    };
    prop_oneof![
        6 => frames(2),
        5 => frames(4),
        1 => (0..20_u8, 0..6_u8, any::<u8>()).prop_map(|(what, channel, more)| vec![4, what, channel, more]),
        1 => (6..14_u8, any::<u8>()).prop_map(|(what, more)| vec![what, more]),
        2 => any::<u8>().prop_map(|what| vec![8, what]),
        1 => (0..16_u8, 0..6_u8, any::<u8>()).prop_map(|(what, channel, more)| vec![14, what, channel, more]),
        1 => any::<u8>().prop_map(|how| vec![15, how]),
    ]
}

proptest! {
    /// `PROPTEST_CASES=100000 cargo test -p hapax-core --test session corpus` looks harder.
    #[test]
    fn any_list_of_steps_does_no_harm(config in uniform2(any::<u8>()), steps in vec(step(), 0..80)) {
        driver::drive(&[&[config[0] & 127, config[1]], &steps.concat()[..]].concat());
    }

    #[test]
    fn any_list_of_octets_does_no_harm(octets in vec(any::<u8>(), 0..400)) {
        driver::drive(&octets);
    }
}
