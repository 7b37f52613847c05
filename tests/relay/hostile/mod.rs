//! Hostile clients in front of a real RabbitMQ: what a client without the right does changes nothing that another client
//! sees, and tells it nothing that the broker would not.
//!
//! Four users stand on each stage: one may do everything, one may write to one exchange, one may write nowhere, and one may
//! write only some routing keys of a topic exchange. Where the question is what a client can find out, the same octets are
//! said to the broker and to the relay, and the two transcripts must be the same. The other tests count messages: in the
//! queue, acked, nacked.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and a few of them measure time"
)]

pub(crate) mod alarm;
mod before_login;
mod channels;
mod closed_by_broker;
mod copies;
mod crowd;
mod crowding;
mod flood;
mod handshake;
pub(crate) mod loopback;
mod oracle;
mod probes;
mod returns;
mod rights;
pub(crate) mod script;
pub(crate) mod stage;

/// The threat model names tests; each of them is there.
#[test]
fn every_test_that_the_threat_model_names_is_there() {
    fn functions(folder: &std::path::Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                functions(&entry.path(), text);
            } else if entry.path().extension().is_some_and(|end| end == "rs") {
                text.push_str(&std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for folder in ["tests", "src", "core/tests", "core/src"] {
        functions(&root.join(folder), &mut tests);
    }
    let document = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    // The second column of each table that has one for tests.
    let named: Vec<_> = document
        .lines()
        .filter(|line| line.starts_with("| ") && line.matches('|').count() == 3)
        .filter_map(|line| line.split('|').nth(2))
        .flat_map(|column| column.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let is_there = |name: &str| match name.contains('/') {
        true => root.join(name).exists(),
        false => tests.contains(&format!("fn {name}(")),
    };
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
