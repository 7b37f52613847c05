//! The notices about the configuration file.

use super::browser::Browser;
use super::stub::{Stub, calm, no_drift, window_of};
use crate::e2e::site::Site;
use serde_json::{Value, json};

fn change(key: &str, effect: &str) -> Value {
    json!({ "key": key, "from": "1", "to": "2", "effect": effect, "note": null })
}

#[tokio::test]
async fn a_file_that_differs_is_told_with_its_keys() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("#drift").await, "", "they are the same");
    let (live, loud) = (change("window \"orders\": ttl", "now"), change("timeouts.store", "restart"));
    let many: Vec<Value> = (0..8).map(|n| change(&format!("key{n}"), "now")).collect();
    for (changes, wanted) in [
        (
            json!({ "changed_live": [live], "not_loaded": [live, loud] }),
            "Changed while the relay runs, and not in /etc/hapax/hapax.toml: window \"orders\": ttl. A restart or a reload undoes it.\n\
             In /etc/hapax/hapax.toml, and not loaded: timeouts.store (needs a restart). hapax reload --dry-run says more.",
        ),
        (
            json!({ "not_loaded": many }),
            "In /etc/hapax/hapax.toml, and not loaded: key0, key1, key2, key3, key4, and 3 more. hapax reload --dry-run says more.",
        ),
        (
            json!({ "file_errors": ["hapax.toml:3: this is not TOML\u{202e}"] }),
            "A restart would fail, because of /etc/hapax/hapax.toml: hapax.toml:3: this is not TOML\u{fffd}",
        ),
        (
            json!({ "file": null, "changed_live": [live] }),
            "Changed while the relay runs, and not in a file: window \"orders\": ttl. A restart undoes it.",
        ),
        (json!({}), ""),
    ] {
        let mut state = no_drift();
        state.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        *stub.scene.config.lock().unwrap() = state;
        // A mark for what can't be seen has more than one form.
        page.until(&format!("it says {wanted:?}"), async || {
            let text = page.text("#drift").await;
            (text == wanted
                || wanted.ends_with('\u{fffd}') && text.starts_with(wanted.trim_end_matches('\u{fffd}')))
            .then_some(())
        })
        .await;
    }
    page.close(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_real_relay_is_drift_until_the_file_has_it() {
    let config = "[[window]]\nname = \"orders\"\nttl = \"10m\"\n";
    let Some(site) = Site::of_relay("drift", config) else { return };
    let relay = site.relay();
    let page = Browser::open(relay.admin()).await;
    relay.api("PATCH", "/api/v1/windows/orders", r#"{"ttl": "20m"}"#);
    page.until_has("#drift", "window \"orders\": ttl").await;
    relay.write_config("[[window]]\nname = \"orders\"\nttl = \"20m\"\n");
    page.until_text("#drift", "").await;
    page.close(&[]).await;
}
