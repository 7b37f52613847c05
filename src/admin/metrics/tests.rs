//! Makes facts by hand, with a different number in each. Every number must appear under its metric, and nothing else
//! may.

use super::*;
use hapax_core::pressure::facts::{
    AgeBucket, Ages, Distinct, Facts, GhostFacts, Level, MissingIds, Publishes, Store, TopScope,
};

#[derive(Debug)]
struct Canned(Vec<(&'static str, Facts)>);

impl Collector for Canned {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let named = |(name, facts): &(&str, Facts)| NamedFacts {
            name: (*name).into(),
            mode: hapax_core::window::Mode::Enforce,
            is_guard: name.starts_with("guard"),
            facts: facts.clone(),
        };
        let windows: Vec<NamedFacts> = self.0.iter().map(named).collect();
        windows::encode(&mut encoder, &windows, 3)
    }
}

/// Returns the text of a scrape of these windows.
fn text(windows: Vec<(&'static str, Facts)>) -> String {
    let mut registry = Registry::with_prefix("hapax");
    registry.register_collector(Box::new(Canned(windows)));
    Metrics(registry).text(Format::Classic).unwrap()
}

/// Returns only the samples of that text.
fn samples(windows: Vec<(&'static str, Facts)>) -> Vec<String> {
    let text = text(windows);
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn facts() -> Facts {
    let bucket = |le, count| AgeBucket { le, count };
    Facts {
        publishes: Publishes {
            fresh: 11,
            duplicate: 12,
            in_flight: 13,
            republished: 16,
            no_id: 14,
            bypassed: 15,
        },
        commits: 16,
        commits_in_doubt: 17,
        promoted: 18,
        takeovers: 29,
        refused: 19,
        conflicts: 191,
        uncompared: 192,
        told: [("nack".to_owned(), 193), ("return".to_owned(), 194)].into(),
        forgotten: [("nack".to_owned(), 20), ("in_doubt".to_owned(), 21)].into(),
        evictions: [("capacity".to_owned(), 22), ("expired".to_owned(), 23)].into(),
        escaped_duplicates: 24,
        escaped_duplicates_about: 44,
        store_bytes: 45,
        warming_seconds: 46.5,
        missing_ids: MissingIds { share: Some(0.25), ..MissingIds::default() },
        ghost: GhostFacts {
            keys: 25,
            capacity: 26,
            dropped: 27,
            bits_per_key: 28,
            false_positive_rate: 0.0625,
            watched: 0.5,
            bytes: 43,
        },
        entries: Some(30),
        tenants: Some(130),
        largest_tenant_entries: Some(131),
        in_flight: Some(31),
        capacity: Some(32),
        ttl_seconds: 33.5,
        bytes: 34,
        bytes_per_id: 35.5,
        hit_ratio: Some(0.36),
        distinct: Distinct { ids: 37, seconds: 60.5, standard_error: 0.016 },
        age_at_eviction: Ages {
            sum_seconds: 38.5,
            buckets: vec![bucket(Some(0.5), 1), bucket(Some(2.0), 2), bucket(None, 3)],
            ..Ages::default()
        },
        oldest_seconds: Some(39.5),
        pressure: Some(1.25),
        effective_seconds: 40.5,
        coverage: 0.75,
        recommended_capacity: Some(41),
        recommended_bytes: Some(42),
        level: Level::Critical,
        top_scopes: vec![TopScope {
            vhost: "/".to_owned(),
            exchange: "secret".to_owned(),
            routing_key: "secret".to_owned(),
            fresh: 1,
            error: 0,
        }],
        store: Some(Store {
            kind: "redis".to_owned(),
            up: true,
            recovering: true,
            waiting_records: 50,
            lag_seconds: 51.5,
            waiting_commits: 52,
            waiting_publishes: 53,
            unremembered: 54,
            dropped_records: 55,
            recovered: 56,
            merged: 57,
            crossed: 58,
            damaged_batches: 59,
            bytes: Some(60),
            oldest_seconds: Some(61.5),
            behind_seconds: Some(62.5),
            latency_seconds: Some(63.5),
            reconnects: Some(64),
            evicted_keys: Some(65),
            memory_bytes: Some(66),
            memory_max_bytes: Some(67),
            ..Store::default()
        }),
        ..Facts::default()
    }
}

#[test]
fn every_fact_has_its_metric() {
    let expected = r#"hapax_publishes_total{window="",verdict="unmatched"} 3
hapax_publishes_total{window="w",verdict="fresh"} 11
hapax_publishes_total{window="w",verdict="duplicate"} 12
hapax_publishes_total{window="w",verdict="in_flight"} 13
hapax_publishes_total{window="w",verdict="republished"} 16
hapax_publishes_total{window="w",verdict="no_id"} 14
hapax_publishes_total{window="w",verdict="bypassed"} 15
hapax_forgotten_total{window="w",cause="in_doubt"} 21
hapax_forgotten_total{window="w",cause="nack"} 20
hapax_duplicates_told_total{window="w",how="nack"} 193
hapax_duplicates_told_total{window="w",how="return"} 194
hapax_evictions_total{window="w",cause="capacity"} 22
hapax_evictions_total{window="w",cause="expired"} 23
hapax_in_doubt_total{window="w",outcome="forgotten"} 21
hapax_in_doubt_total{window="w",outcome="kept"} 17
hapax_commits_total{window="w"} 16
hapax_promoted_total{window="w"} 18
hapax_takeovers_total{window="w"} 29
hapax_refused_total{window="w"} 19
hapax_conflicts_total{window="w"} 191
hapax_uncompared_total{window="w"} 192
hapax_escaped_duplicates_total{window="w"} 24
hapax_escaped_duplicates_estimate_total{window="w"} 44
hapax_ghost_dropped_total{window="w"} 27
hapax_window_entries{window="w"} 30
hapax_window_tenants{window="w"} 130
hapax_window_largest_tenant_entries{window="w"} 131
hapax_window_in_flight{window="w"} 31
hapax_window_capacity{window="w"} 32
hapax_window_bytes{window="w"} 34
hapax_window_store_bytes{window="w"} 45
hapax_window_recommended_capacity{window="w"} 41
hapax_window_recommended_bytes{window="w"} 42
hapax_window_level{window="w"} 2
hapax_window_distinct_ids{window="w"} 37
hapax_ghost_keys{window="w"} 25
hapax_ghost_capacity{window="w"} 26
hapax_ghost_bytes{window="w"} 43
hapax_window_bytes_per_id{window="w"} 35.5
hapax_window_ttl_seconds{window="w"} 33.5
hapax_window_pressure{window="w"} 1.25
hapax_window_effective_seconds{window="w"} 40.5
hapax_window_warming_seconds{window="w"} 46.5
hapax_window_missing_id_ratio{window="w"} 0.25
hapax_window_coverage{window="w"} 0.75
hapax_window_oldest_seconds{window="w"} 39.5
hapax_window_hit_ratio{window="w"} 0.36
hapax_window_distinct_interval_seconds{window="w"} 60.5
hapax_ghost_false_positive_ratio{window="w"} 0.0625
hapax_window_mode{window="w",mode="enforce"} 1
hapax_window_mode{window="w",mode="observe"} 0
hapax_window_mode{window="w",mode="off"} 0
hapax_eviction_age_seconds_sum{window="w"} 38.5
hapax_eviction_age_seconds_count{window="w"} 6
hapax_eviction_age_seconds_bucket{le="0.5",window="w"} 1
hapax_eviction_age_seconds_bucket{le="2.0",window="w"} 3
hapax_eviction_age_seconds_bucket{le="+Inf",window="w"} 6
hapax_store_up{window="w",store="redis"} 1
hapax_unremembered_total{window="w"} 54
hapax_store_dropped_total{window="w"} 55
hapax_recovered_total{window="w"} 56
hapax_merged_total{window="w"} 57
hapax_crossed_total{window="w"} 58
hapax_store_damaged_total{window="w"} 59
hapax_store_reconnects_total{window="w"} 64
hapax_store_evicted_keys_total{window="w"} 65
hapax_store_recovering{window="w"} 1
hapax_store_waiting_records{window="w"} 50
hapax_store_waiting_publishes{window="w"} 53
hapax_store_bytes{window="w"} 60
hapax_store_memory_bytes{window="w"} 66
hapax_store_memory_max_bytes{window="w"} 67
hapax_store_lag_seconds{window="w"} 51.5
hapax_store_behind_seconds{window="w"} 62.5
hapax_store_latency_seconds{window="w"} 63.5
hapax_store_oldest_seconds{window="w"} 61.5"#;
    assert_eq!(samples(vec![("w", facts())]), expected.lines().collect::<Vec<_>>());
}

#[test]
fn what_is_not_known_is_absent() {
    let samples = samples(vec![("full", facts()), ("new", Facts::default())]);
    for name in [
        "window_recommended_capacity",
        "window_recommended_bytes",
        "window_oldest_seconds",
        "window_hit_ratio",
        "window_missing_id_ratio",
        "window_entries",
        "window_in_flight",
        "window_tenants",
        "window_largest_tenant_entries",
        "window_capacity",
        "window_pressure",
    ] {
        let series = |window: &str| {
            samples.iter().any(|s| s.starts_with(&format!("hapax_{name}{{window=\"{window}\"}} ")))
        };
        assert!(series("full") && !series("new"), "{name}: {samples:?}");
    }
    assert!(samples.contains(&r#"hapax_eviction_age_seconds_bucket{le="+Inf",window="new"} 0"#.to_owned()));
    // A window in memory has no store, and a store has what it can know.
    let is_of_store = |s: &&String| s.contains("store_") && !s.contains("window_store_bytes");
    assert!(!samples.iter().filter(is_of_store).any(|s| s.contains("\"new\"")), "{samples:?}");
    let known = Facts { store: Some(Store::default()), ..Facts::default() };
    let samples = self::samples(vec![("known", known)]);
    for name in [
        "bytes",
        "memory_bytes",
        "behind_seconds",
        "latency_seconds",
        "evicted_keys_total",
        "reconnects_total",
    ] {
        let start = format!("hapax_store_{name}{{");
        assert!(!samples.iter().any(|s| s.starts_with(&start)), "{name}: {samples:?}");
    }
    assert!(samples.contains(&r#"hapax_store_up{window="known",store=""} 0"#.to_owned()), "{samples:?}");
}

#[test]
fn a_name_with_quotes_stays_one_label() {
    let samples = samples(vec![("a\"} 1\n\\", Facts::default())]);
    let level = samples.iter().find(|line| line.starts_with("hapax_window_level")).unwrap();
    assert_eq!(level, r#"hapax_window_level{window="a\"} 1\n\\"} 0"#);
}

/// Runs `promtool check metrics`: the text parses, and the linter accepts names, types and help.
#[test]
fn promtool_finds_nothing_to_complain_about() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: run scripts/setup");
    let text = text(vec![("full", facts()), ("new", Facts::default())]);
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}{text}");
}
