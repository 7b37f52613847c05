use super::*;
use crate::config::{Overrides, Secret};
use proptest::prelude::*;
use proptest::sample::select;
use toml::{Table, Value};

fn parse(text: &str) -> Config {
    Config::parse(None, text, &Overrides::default())
        .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
        .config
}

/// Some windows, each with a line or two.
fn windows() -> impl Strategy<Value = String> {
    let window = (
        select(&["a", "b", "c", "d-e", "f.g"][..]),
        select(
            &["", "capacity = 7", "ttl = \"5m\"", "mode = \"off\"", "exchange = \"x\"", "id = \"body\""][..],
        ),
        select(&["", "weight = 3", "scope = \"vhost\"", "forward_to = \"y\"", "vhost = \"/\""][..]),
    );
    prop::collection::vec(window, 0..5).prop_map(|mut windows| {
        let mut seen = std::collections::BTreeSet::new();
        windows.retain(|(name, _, _)| seen.insert(*name));
        windows
            .iter()
            .map(|(name, one, two)| format!("[[window]]\nname = \"{name}\"\n{one}\n{two}\n"))
            .collect()
    })
}

fn config() -> impl Strategy<Value = Config> {
    let top =
        select(&["", "upstream = \"amqp://b:1\"", "memory_budget = \"64MiB\"", "state_dir = \"/tmp\""][..]);
    let limits = select(
        &["", "[limits]\nmemory = \"64MiB\"", "[limits]\nmax_connections = 5\nheld_bytes = \"1MiB\""][..],
    );
    let timeouts =
        select(&["", "[timeouts]\ndrain = \"5s\"", "[timeouts]\nstore = \"2s\"\nlinger = \"1m\""][..]);
    let log = select(&["", "[log]\nlevel = \"debug\"", "[log]\nformat = \"json\""][..]);
    (top, limits, timeouts, log, windows()).prop_map(|(top, limits, timeouts, log, windows)| {
        parse(&format!("{top}\n{limits}\n{timeouts}\n{log}\n{windows}"))
    })
}

fn document(config: &Config) -> Table {
    toml::from_str(&show::to_toml(config, &BTreeMap::new())).expect("a file")
}

fn value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("v = {text}")).expect("a value").remove("v").expect("v")
}

fn put(table: &mut Table, path: &[&str], to: Option<&String>) {
    match path {
        [key] => drop(match to {
            Some(to) => table.insert((*key).to_owned(), value(to)),
            None => table.remove(*key),
        }),
        [key, rest @ ..] => {
            let inner = table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            put(inner.as_table_mut().expect("a section"), rest, to);
        }
        [] => {}
    }
}

/// Applies the changes to a file, as a person would who edits it by hand.
fn apply(diff: &Diff, file: &mut Table) {
    let mut windows: Vec<Table> = match file.remove("window") {
        Some(Value::Array(windows)) => {
            windows.into_iter().map(|window| window.as_table().unwrap().clone()).collect()
        }
        _ => Vec::new(),
    };
    let is = |window: &Table, name: &str| window["name"].as_str() == Some(name);
    for Change { key, from, to, .. } in &diff.0 {
        if key == ORDER {
            let names = value(to.as_ref().unwrap());
            let place =
                |window: &Table| names.as_array().unwrap().iter().position(|name| *name == window["name"]);
            windows.sort_by_key(place);
        } else if let Some(rest) = key.strip_prefix("window \"") {
            let (name, key) = rest.split_once('"').unwrap();
            match (key.strip_prefix(": "), from, to) {
                (Some(key), _, to) => {
                    let window = windows.iter_mut().find(|window| is(window, name)).unwrap();
                    put(window, &[key], to.as_ref());
                }
                (None, None, Some(to)) => windows.push(value(to).as_table().unwrap().clone()),
                (None, _, _) => windows.retain(|window| !is(window, name)),
            }
        } else {
            put(file, &key.split('.').collect::<Vec<_>>(), to.as_ref());
        }
    }
    file.insert("window".to_owned(), Value::Array(windows.into_iter().map(Value::Table).collect()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Who edits the old file as the diff says has the new configuration. Nothing else changes, and nothing is left out.
    #[test]
    fn the_diff_applied_to_the_old_file_is_the_new_one(old in config(), new in config()) {
        let diff = Diff::between(&old, &new);
        let mut file = document(&old);
        apply(&diff, &mut file);
        prop_assert_eq!(&parse(&file.to_string()), &new, "{:#?}", diff);
        prop_assert_eq!(diff.is_empty(), old == new);
        prop_assert!(Diff::between(&new, &new).is_empty());
    }
}

#[test]
fn each_change_says_when_it_takes_effect() {
    let effect = |old: &str, new: &str| {
        let diff = Diff::between(&parse(old), &parse(new));
        diff.0.into_iter().map(|change| (change.key, change.effect)).collect::<Vec<_>>()
    };
    let w = |line: &str| format!("[[window]]\nname = \"w\"\n{line}");
    assert_eq!(
        effect("[log]\nlevel = \"info\"", "[log]\nlevel = \"debug\""),
        [("log.level".into(), Effect::Now)]
    );
    assert_eq!(
        effect("", "[timeouts]\nlinger = \"1m\""),
        [("timeouts.linger".into(), Effect::NewConnections)]
    );
    assert_eq!(effect("", "listen = \"127.0.0.1:1\""), [("listen".into(), Effect::Restart)]);
    assert_eq!(effect(&w(""), &w("ttl = \"1m\"")), [("window \"w\": ttl".into(), Effect::Now)]);
    assert_eq!(effect(&w(""), &w("id = \"body\"")), [("window \"w\": id".into(), Effect::Restart)]);
    assert_eq!(effect(&w(""), &w("scope = \"vhost\"")), [("window \"w\": scope".into(), Effect::Restart)]);
}

#[test]
fn a_secret_is_compared_and_never_shown() {
    let with = |token: &str| {
        let overrides = Overrides { admin_token: Some(Secret(token.into())), ..Overrides::default() };
        Config::parse(None, "", &overrides).expect("valid").config
    };
    let (one, two) = ("first-secret-0123456789", "other-secret-0123456789");
    let diff = Diff::between(&with(one), &with(two));
    let [change] = &diff.0[..] else { panic!("{diff:?}") };
    assert_eq!((change.key.as_str(), change.effect), ("admin_token", Effect::Restart));
    assert!(!format!("{diff:?}").contains("secret-0"), "{diff:?}");
    let redis = |password: &str| {
        let url = format!("[store.redis]\nurl = \"redis://u:{password}@127.0.0.1:1\"");
        parse(&url)
    };
    let diff = Diff::between(&redis(one), &redis(two));
    assert_eq!(diff.0.len(), 1);
    assert!(!format!("{diff:?}").contains("secret-0"), "{diff:?}");
}
