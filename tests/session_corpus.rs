//! The seeds of the fuzz target `session` and whatever it has found, without nightly or a fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a test fails")]

mod driver;
mod support;

use std::fs;
use std::path::Path;

#[test]
fn the_session_corpus_replays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/session");
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 20, "{} seeds", files.len());
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
