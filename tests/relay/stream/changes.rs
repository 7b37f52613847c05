//! What an operator does at one relay, the other one does, too, and logs who it was.

use super::stage::{Stage, until_logged};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use serde_json::{Value, json};

#[test]
fn what_an_operator_does_at_one_relay_happens_at_the_other_one_and_both_log_who_it_was() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-changes");
    let (one, mut other) = (stage.relay(), stage.relay());
    let path = format!("/api/v1/windows/{}", stage.name);
    let settings = |relay: &Relay| -> [Value; 3] {
        let window = relay.api("GET", &path, "");
        ["capacity", "ttl_seconds", "mode"].map(|key| window[key].clone())
    };
    let before = settings(&other);
    let changed = [json!(4321), json!(90.0), json!("observe")];
    one.api("PATCH", &path, r#"{"capacity": 4321, "ttl": "90s", "mode": "observe"}"#);
    wait::until("the other relay has the settings", PATIENCE, || (settings(&other) == changed).then_some(()));
    one.api("POST", &format!("{path}/flush"), "");
    for what in ["capacity changed", "ttl changed", "mode changed", "flushed"] {
        let words = format!("{what} at another relay");
        until_logged(&other, &words);
        let log = other.log();
        let line = log.lines().find(|line| line.contains(&words)).unwrap();
        assert!(line.contains("127.0.0.1:") && line.contains("(loopback)"), "who was it? {line}");
        assert!(!one.log().contains(&words), "it was here");
        one.until_says(what);
    }
    // The configuration holds after a restart, as ever.
    other.kill9();
    other.restart();
    assert_eq!((settings(&other), settings(&one)), (before, changed));
}
