//! `hapax windows set --save`: the relay and its file say the same afterwards, or nothing has changed in either.

use super::commands::{Ran, hapax, run};
use crate::e2e::relay::Relay;
use crate::e2e::site::Site;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const FILE: &str = "# Orders of the shop.\n[[window]]\nname = \"orders\"   # see the wiki\ncapacity = 1_000\n  ttl = '10m' # ten\n\n[[window]]\nname = \"rest\"\n";

fn set(relay: &Relay, args: &[&str]) -> Ran {
    let args = [&["windows", "set"], args, &["--save"]].concat();
    run(&mut hapax(&args, &format!("http://{}", relay.admin())))
}

fn state(relay: &Relay) -> Value {
    relay.api("GET", "/api/v1/config", "")
}

fn path(relay: &Relay) -> PathBuf {
    PathBuf::from(state(relay)["file"].as_str().unwrap())
}

fn nothing() -> Value {
    Value::Array(Vec::new())
}

#[test]
fn a_saved_change_outlives_a_restart_and_touches_nothing_else() {
    let Some(mut site) = Site::of_relay("save", FILE) else { return };
    let relay = site.relay();
    let file = path(relay);
    let name = file.display();
    let ran = set(relay, &["orders", "--ttl", "1h", "--capacity", "2000", "--mode", "observe"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(
        ran.out,
        format!(
            "orders: capacity 1,000 → 2,000\norders: ttl 10m → 1h\norders: mode enforce → observe\n\
             {name}:4: capacity = 1_000 → 2000\n{name}:5: ttl = '10m' → \"1h\"\n{name}:6: mode = \"observe\" (new line)\n"
        )
    );
    let wanted = "# Orders of the shop.\n[[window]]\nname = \"orders\"   # see the wiki\ncapacity = 2000\n  ttl = \"1h\" # ten\n  mode = \"observe\"\n\n[[window]]\nname = \"rest\"\n";
    assert_eq!(fs::read_to_string(&file).unwrap(), wanted);
    let now = state(relay);
    assert_eq!((&now["changed_live"], &now["not_loaded"]), (&nothing(), &nothing()), "no drift");
    let again = set(relay, &["orders", "--ttl", "60m", "--json"]);
    let saved: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(saved["saved"]["lines"], nothing(), "it says so in other words");
    assert_eq!(fs::read_to_string(&file).unwrap(), wanted);
    site.relay_mut().restart();
    let window = site.relay().api("GET", "/api/v1/windows/orders", "");
    assert_eq!((&window["ttl_seconds"], &window["mode"]), (&Value::from(3600.0), &"observe".into()));
}

#[test]
fn what_cannot_be_saved_is_not_changed_either() {
    let Some(site) = Site::of_relay("save-no", FILE) else { return };
    let relay = site.relay();
    let file = path(relay);
    let folder = file.parent().unwrap();
    let obstacle = folder.join(".hapax.toml.saving");
    let before = relay.api("GET", "/api/v1/windows/orders", "")["ttl_seconds"].clone();
    let refused = |args: &[&str], code: i32, says: &str| {
        let text = fs::read_to_string(&file).ok();
        let ran = set(relay, args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{}", ran.err);
        assert!(ran.err.contains(says), "{says:?} in {}", ran.err);
        assert_eq!(fs::read_to_string(&file).ok(), text, "the file stays");
        assert_eq!(relay.api("GET", "/api/v1/windows/orders", "")["ttl_seconds"], before, "the window stays");
    };
    // The relay does not want it, and nothing is left of the file that was ready.
    refused(&["orders", "--ttl", "1h", "--capacity", "0"], 2, "capacity");
    assert!(!obstacle.exists());
    refused(&["order", "--ttl", "1h"], 1, "there is no window `order`");
    // The folder takes no new file. (Rights say nothing to root, who may run this test.)
    fs::create_dir(&obstacle).unwrap();
    refused(&["orders", "--ttl", "1h"], 1, "can't be replaced");
    fs::remove_dir(&obstacle).unwrap();
    for (text, says) in [
        ("[[window]]\nname = \"orders\"\nttl = \"1", "hapax.toml:3: this is not TOML"),
        ("[[window]]\nname = \"other\"\n", "has no [[window]] with name = \"orders\""),
    ] {
        relay.write_config(text);
        refused(&["orders", "--ttl", "1h"], 1, says);
    }
    // The error says what to write, for operators who may edit the file elsewhere.
    refused(&["orders", "--ttl", "1h"], 1, "write ttl = \"1h\" into [[window]] \"orders\"");
    fs::remove_file(&file).unwrap();
    refused(&["orders", "--ttl", "1h"], 1, "can't be read here");
}

/// A file of the same name and text on the operator's own host is not the relay's.
#[test]
fn the_same_path_on_another_host_is_left_alone() {
    let stub = super::stub::Stub::start();
    let leash = hapax_testbed::Leash::new("save-other").unwrap();
    let file = leash.folder().join("hapax.toml");
    fs::write(&file, FILE).unwrap();
    stub.configure(file.to_str().unwrap(), "7-134-1.0-1.0");
    let ran = run(&mut hapax(&["windows", "set", "orders", "--ttl", "1h", "--save"], &stub.url()));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("--save works on the relay's host"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), FILE);
    assert!(!stub.asked().iter().any(|line| line.starts_with("PATCH")), "{:?}", stub.asked());
    let both =
        run(&mut hapax(&["windows", "set", "orders", "--ttl", "1h", "--save", "--dry-run"], &stub.url()));
    assert_eq!(both.code, Some(2), "{}", both.err);
}
