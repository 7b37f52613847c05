//! Alert rules and dashboard, held against the real thing: `promtool` reads them, a real Prometheus runs every one of
//! their queries against a real relay before a real RabbitMQ, and everything that an alert tells of is made to happen.

use crate::api::site::now;
use crate::api::stores;
use crate::e2e::cut::Cut;
use crate::e2e::pki::{Files, Pki};
use crate::e2e::prometheus::{Alert, Prometheus, config_folder};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::relay::{self, Relay};
use crate::e2e::{http, site, wait};
use hapax_core::window::logged::{AtStore, Batch, RelayId, Written};
use hapax_core::window::{BodyDigest, StorePolicy, Verdict};
use hapax_core::wire::properties::IdValue;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

const TTL: Duration = Duration::from_secs(90);

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").current_dir(config_folder()).args(arguments).output();
    let output = output.expect("promtool is there: run scripts/setup");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_accepts_configuration_and_rules() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "hapax.rules.yml"]);
    promtool(&["test", "rules", "hapax.rules.test.yml"]);
}

/// `key: value` lines of a YAML file that is written in that way.
fn values<'t>(yaml: &'t str, key: &str) -> Vec<&'t str> {
    let value = |line: &'t str| {
        let (name, value) = line.trim().trim_start_matches("- ").split_once(':')?;
        (name == key).then_some(value.trim())
    };
    yaml.lines().filter_map(value).collect()
}

#[test]
fn every_alert_is_tested_quiet_firing_and_over() {
    let rules = repository("config/prometheus/hapax.rules.yml");
    let tests = repository("config/prometheus/hapax.rules.test.yml");
    let mut told: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    let (names, expected) = (values(&tests, "alertname"), values(&tests, "exp_alerts"));
    assert_eq!(names.len(), expected.len());
    for (name, expected) in names.into_iter().zip(expected) {
        told.entry(name).or_default().push(expected.is_empty());
    }
    let alerts: BTreeSet<&str> = values(&rules, "alert").into_iter().collect();
    assert!(alerts.len() >= 9, "{alerts:?}");
    assert_eq!(alerts, told.keys().copied().collect());
    for (name, fires) in told {
        let shape = (fires.first(), fires.contains(&true), fires.last());
        assert_eq!(shape, (Some(&false), true, Some(&false)), "{name}: {fires:?}");
    }
}

/// A heading as GitHub links to it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn every_runbook_is_there() {
    let rules = repository("config/prometheus/hapax.rules.yml");
    let links = values(&rules, "runbook_url");
    assert_eq!(links.len(), values(&rules, "alert").len(), "each alert has one");
    for link in links {
        let (path, wanted) = link.split_once('#').unwrap();
        let found = repository(path).lines().any(|line| line.starts_with('#') && anchor(line) == wanted);
        assert!(found, "{link} leads nowhere");
    }
}

/// Names in the first column of a table of metrics.
fn documented() -> BTreeSet<String> {
    let operations = repository("docs/operations.md");
    let first = operations.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let names = first.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let metrics = names.filter(|name| name.starts_with("hapax_") || name.starts_with("process_"));
    metrics.map(str::to_owned).collect()
}

struct Panel {
    title: String,
    expressions: Vec<String>,
}

fn dashboard() -> Value {
    serde_json::from_str(&repository("config/grafana/hapax.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Those that show something.
fn panels(dashboard: &Value) -> Vec<Panel> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    let shown = all.filter(|panel| panel["type"] != "row");
    let expression = |target: &Value| text(&target["expr"]).to_owned();
    shown
        .map(|panel| Panel {
            title: text(&panel["title"]).to_owned(),
            expressions: panel["targets"].as_array().unwrap().iter().map(expression).collect(),
        })
        .collect()
}

#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is there twice");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{title} is wider than the grid");
        for (x, y) in (0..side("w")).flat_map(|x| (0..side("h")).map(move |y| (x, y))) {
            assert!(taken.insert((side("x") + x, side("y") + y)), "{title} lies upon another");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(!text(&panel["description"]).is_empty(), "{title} says nothing of itself");
        for source in panel["targets"].as_array().unwrap().iter().chain([panel]) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(names, ["datasource", "instance", "window"]);
}

/// As Grafana would fill it in for all instances and windows.
fn filled(expression: &str) -> String {
    let filled = ["$__rate_interval", "$__interval", "$__range"]
        .iter()
        .fold(expression.to_owned(), |text, name| text.replace(name, "1m"));
    filled.replace("$instance", ".*").replace("$window", ".*")
}

/// `label_values(METRIC, LABEL)`, as Prometheus says it.
fn label_values(definition: &str) -> String {
    let inside = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
    let (metric, label) = inside.rsplit_once(", ").unwrap();
    format!("group by ({label}) ({})", filled(metric))
}

/// A window that is too small for what it is given.
const CONFIG: &str = "[limits]\nmax_connections = 2\nwaiters_per_id = 1\nmemory = \"16MiB\"\n\
                      [upstream_health]\ninterval = \"500ms\"\n\
                      [[window]]\nname = \"orders\"\ncapacity = 100\nttl = \"20s\"\nengine = \"lru\"\n";

/// The ground: node, forwarder, relay, Prometheus; and what goes through them.
struct Ground {
    pki: Pki,
    server: Files,
    cut: Option<Cut>,
    /// the second node of the broker: another way to the same
    second: Option<Cut>,
    relay: Relay,
    /// its configuration file
    config: String,
    prometheus: Prometheus,
    /// alerts whose expression was true at some time
    fired: BTreeSet<String>,
}

impl Ground {
    fn new() -> Ground {
        let cut = Cut::forward(site::shared_rabbit().addr());
        let second = Cut::forward(site::shared_rabbit().addr());
        let pki = Pki::new();
        let server = pki.issue("server", &["localhost"]);
        let address = format!("127.0.0.1:{}", hapax_testbed::free_port().unwrap());
        let listener = format!("[[listener]]\naddress = \"{address}\"\n[listener.tls]\n{}", server.toml());
        let nodes = relay::nodes(&[cut.addr(), second.addr()]);
        let config = format!("{CONFIG}{listener}");
        let relay = Relay::start_before(&nodes, &config, 200);
        let prometheus = Prometheus::start(relay.admin());
        prometheus.until_scraped(1.0);
        Ground {
            pki,
            server,
            cut: Some(cut),
            second: Some(second),
            relay,
            config,
            prometheus,
            fired: BTreeSet::new(),
        }
    }

    fn client(&self) -> Raw {
        let mut client = Raw::connect(self.relay.addr(), "/");
        client.confirming(1);
        client
    }

    /// Publishes fresh ids, duplicates, and duplicates of evicted ids.
    fn traffic(&self, client: &mut Raw, round: &str) {
        let id = |n: usize| format!("{round}-{n}");
        let ids = (0..400).chain(390..400).chain(0..200);
        for n in ids {
            let told = client.publish_and_settle(1, &Publish::to("q", &id(n)));
            assert!(matches!(told.as_slice(), [Told::Ack { .. }]), "{told:?}");
        }
    }

    /// Goes on until the window is as old as its TTL, and says that it is too small and what it needs.
    fn until_warm(&mut self, client: &mut Raw) {
        let alerts = self.prometheus.alerts();
        let low = alerts.into_iter().find(|alert| alert.name == "HapaxWindowCoverageLow").unwrap();
        for round in 0.. {
            assert!(round < 1000, "it does not get warm");
            self.traffic(client, &format!("round-{round}"));
            if self.relay.metrics().sum("window_recommended_capacity", &[]) > 0.0
                && !self.prometheus.query(&low.query).is_empty()
            {
                break;
            }
        }
        self.fired.insert(low.name);
    }

    /// Publishes without ids, more than with them, and lets the window be younger than its TTL again.
    fn without_ids(&mut self, client: &mut Raw) {
        let judged = self.relay.metrics().sum("publishes_total", &[]);
        let mut left = judged * 1.5;
        while left > 0.0 {
            let nameless = Publish { id: None, ..Publish::to("q", "nameless") };
            let told = client.publish_and_settle(1, &nameless);
            assert!(matches!(told.as_slice(), [Told::Ack { .. }]), "{told:?}");
            left -= 1.0;
        }
        self.until_alert("HapaxMissingIds");
        self.relay.api("PATCH", "/api/v1/windows/orders", r#"{"ttl": "5m"}"#);
        self.traffic(client, "young");
        self.until_alert("HapaxWindowCold");
        self.relay.api("PATCH", "/api/v1/windows/orders", r#"{"ttl": "20s"}"#);
    }

    /// Publishes that the broker never answers, one that waits for it, one that may not; a client too many; one that holds too
    /// much. Then the connection to the broker breaks.
    fn trouble(&mut self, mut client: Raw) {
        let mut waiting = self.client();
        // An id that is used twice.
        for body in [&b"one"[..], b"another"] {
            client.publish_and_settle(1, &Publish { body, ..Publish::to("q", "used twice") });
        }
        self.until("conflicts_total", &[], 1.0);
        self.cut.as_ref().unwrap().stall_down();
        client.publish(1, &Publish::to("q", "unanswered"));
        client.publish(1, &Publish::to("q", "as well"));
        client.publish(1, &Publish::to("q", "and this"));
        self.until("publishes_total", &[("verdict", "fresh")], 3.0 + self.fresh());
        for _ in 0..2 {
            waiting.publish(1, &Publish::to("q", "unanswered"));
        }
        self.until("refused_total", &[], 1.0);
        let mut third = Raw::dial(self.relay.addr()).unwrap();
        assert_eq!(third.frame().unwrap(), None, "turned away");
        // The first is held until its outcome. There is no room for the second.
        let body = vec![0; 5 << 20];
        let large = Publish { body: &body, ..Publish::to("q", "as well") };
        waiting.publish(1, &large);
        let large = Publish { body: &body, ..Publish::to("q", "and this") };
        waiting.write(&[large.method(1), large.header(1)].concat()).unwrap();
        self.until("memory_paused_connections", &[], 1.0);
        self.until_alert("HapaxShortOfMemory");
        let cut = self.cut.as_ref().unwrap();
        cut.cut_all();
        cut.resume();
        self.until("in_doubt_total", &[("outcome", "forgotten")], 1.0);
    }

    /// A certificate that ends soon, and then one that can't be used.
    fn certificates(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a certificate that ends tomorrow")]
        let soon = SystemTime::now() + Duration::from_secs(86_400);
        let soon = self.pki.issue_with("soon", &["localhost"], |params| params.not_after = soon.into());
        soon.replace(&self.server);
        self.until_alert("HapaxCertificateExpires");
        fs::write(&self.server.certificate, "rubbish").unwrap();
        self.until_alert("HapaxCertificateUnusable");
        self.pki.issue("new", &["localhost"]).replace(&self.server);
    }

    /// A reload of a file that does not hold, and then one of a file that does.
    fn reloads(&mut self) {
        self.relay.write_config("[limits]\nmax_connections = 0\n");
        self.relay.sighup();
        self.until_alert("HapaxReloadFailed");
        self.relay.write_config(&self.config);
        self.relay.sighup();
        self.until("config_last_reload_successful", &[], 1.0);
    }

    fn fresh(&self) -> f64 {
        self.relay.metrics().sum("commits_total", &[])
    }

    fn until(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        wait::until(&format!("{name}{labels:?} is {value}"), wait::PATIENCE, || {
            (self.relay.metrics().sum(name, labels) >= value).then_some(())
        });
    }

    /// Notes which alerts have a reason to fire now.
    fn look_for_alerts(&mut self) {
        for alert in self.prometheus.alerts() {
            if !self.prometheus.query(&alert.query).is_empty() {
                self.fired.insert(alert.name);
            }
        }
    }

    /// Waits until this one has.
    fn until_alert(&mut self, name: &str) {
        let alert = self.prometheus.alerts().into_iter().find(|alert| alert.name == name).unwrap();
        wait::until(name, wait::PATIENCE, || (!self.prometheus.query(&alert.query).is_empty()).then_some(()));
        self.fired.insert(alert.name);
    }
}

/// Every query of the dashboard gives numbers, and every alert's reason can be seen, on a relay that has all these
/// troubles.
#[test]
fn every_query_has_data_and_every_alert_has_its_day() {
    if site::without_relay() {
        println!("passed over: these are the relay's metrics");
        return;
    }
    let mut ground = Ground::new();
    ground.look_for_alerts();
    assert!(ground.fired.is_empty(), "nothing has happened yet: {:?}", ground.fired);
    let mut client = ground.client();
    client.declare(1, "q", &[]);
    ground.traffic(&mut client, "first");
    ground.prometheus.until_scraped(2.0);
    ground.traffic(&mut client, "second");
    ground.look_for_alerts();
    ground.until_warm(&mut client);
    ground.without_ids(&mut client);
    ground.certificates();
    ground.reloads();
    ground.trouble(client);
    ground.prometheus.until_scraped(2.0);

    let fresh = ground.prometheus.query(r#"hapax_publishes_total{verdict="fresh", window="orders"}"#);
    let [fresh] = fresh.as_slice() else { panic!("{fresh:?}") };
    assert_eq!(fresh.value, ground.relay.metrics().sum("publishes_total", &[("verdict", "fresh")]));

    let dashboard = dashboard();
    assert_eq!(without_data(&ground.prometheus, |expression| !is_of_store(expression)), [""; 0]);
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(definition) = variable["definition"].as_str() {
            assert!(!ground.prometheus.query(&label_values(definition)).is_empty(), "{definition}");
        }
    }
    ground.look_for_alerts();
    let (_, exposed) = http::get(ground.relay.admin(), "/metrics").unwrap();
    let types = exposed.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(documented(), types.map(str::to_owned).collect(), "docs/operations.md, and what there is");

    // The relay dies and comes back: an alert, and a mark on the dashboard.
    ground.relay.kill9();
    ground.until_alert("HapaxDown");
    ground.relay.restart();
    let restarts = filled(text(&dashboard["annotations"]["list"][1]["expr"]));
    wait::until("the restart is seen", wait::PATIENCE, || {
        (!ground.prometheus.query(&restarts).is_empty()).then_some(())
    });
    // A node of the broker is gone, and then the other one.
    drop(ground.second.take());
    ground.until_alert("HapaxUpstreamNodeDown");
    // Asking for readiness makes the relay notice sooner than scrapes would.
    drop(ground.cut.take());
    wait::until("/readyz says 503", wait::PATIENCE, || {
        matches!(http::get(ground.relay.admin(), "/readyz"), Ok((503, _))).then_some(())
    });
    ground.until_alert("HapaxUpstreamDown");
    // Before there was a Prometheus, it knew of no Hapax.
    let absent = ground.prometheus.alerts().into_iter().find(|alert| alert.name == "HapaxAbsent").unwrap();
    assert_eq!(ground.prometheus.query_before_all(&absent.query).len(), 1);
    ground.fired.insert(absent.name);

    let all = ground.prometheus.alerts().into_iter().filter(|alert| !is_of_store(&alert.query));
    assert_eq!(ground.fired, all.map(|alert| alert.name).collect());
}

/// Returns true if a window in memory has nothing to say to this query.
fn is_of_store(expression: &str) -> bool {
    ["hapax_store_", "hapax_unremembered_", "hapax_recovered_", "hapax_merged_", "hapax_crossed_"]
        .iter()
        .any(|start| expression.contains(start))
}

/// The dashboard's queries of this kind that give no number.
fn without_data(prometheus: &Prometheus, of: impl Fn(&str) -> bool) -> Vec<String> {
    let mut empty = Vec::new();
    for panel in panels(&dashboard()) {
        for expression in panel.expressions.iter().filter(|expression| of(expression)) {
            let samples = prometheus.query(&filled(expression));
            if samples.is_empty() || samples.iter().any(|sample| sample.value.is_nan()) {
                empty.push(format!("{}: {expression}: {samples:?}", panel.title));
            }
        }
    }
    empty
}

/// The same for stores: the test plays a store that fails, is slow, throws keys out and is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_stores_has_data_and_every_alert_has_its_day() {
    let (site, logged) = stores::site(StorePolicy::default()).await;
    let prometheus = Prometheus::start(site.address);
    let says = |keys| AtStore {
        bytes: Some(1),
        oldest: Some(TTL),
        behind: Some(Duration::ZERO),
        latency: Some(Duration::ZERO),
        reconnects: Some(keys),
        evicted_keys: Some(keys),
        used_memory: Some(1),
        max_memory: Some(2),
    };
    logged.recovered();
    logged.set_at_store(says(1));
    prometheus.until_scraped(2.0);
    let alerts = || prometheus.alerts().into_iter().filter(|alert| is_of_store(&alert.query));
    let firing = || -> BTreeSet<String> {
        let is_firing = |alert: &Alert| !prometheus.query(&alert.query).is_empty();
        alerts().filter(is_firing).map(|alert| alert.name).collect()
    };
    assert_eq!(firing(), BTreeSet::new(), "nothing has happened yet");
    logged.set_at_store(says(2));
    logged.note_damaged(1);
    // A message was stored long ago and its id is not written; another relay has stored the same id.
    let (id, at) = (IdValue::Bytes(b"a"), ["/", "logged", "k"]);
    let Verdict::Fresh(reservation) = site.reserve("logged", at, id) else { panic!("it is new") };
    let claim = reservation.claim();
    reservation.commit(now() - TTL, TTL);
    let (body, wall) = (BodyDigest::from_bits(0), SystemTime::UNIX_EPOCH + TTL);
    let records =
        vec![Written::Seen { claim, at: wall, ttl: TTL, body, tenant: hapax_core::window::Tenant::COMMON }];
    logged.merge(&Batch { relay: RelayId(9), records }, now(), wall);
    logged.store_failed(now());
    let all: BTreeSet<String> = alerts().map(|alert| alert.name).collect();
    assert!(all.len() >= 5, "{all:?}");
    wait::until("all alerts", wait::PATIENCE, || (firing() == all).then_some(()));
    assert_eq!(without_data(&prometheus, is_of_store), [""; 0]);
}
