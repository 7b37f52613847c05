//! The document against the code: it says what the contract says, the router answers what it says, and what a live run
//! answers is as it says.

use super::site::{Answer, Site, now};
use hapax_core::window::{ForgetCause, StorePolicy, Verdict};
use hapax_core::wire::properties::IdValue;
use hapax_testbed::Leash;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The routes, written down once more: a route that comes or goes must be meant.
const CONTRACT: [&str; 34] = [
    "delete /api/v1/chaos",
    "get /api/v1/chaos",
    "post /api/v1/chaos",
    "delete /api/v1/windows/{name}/producers/{key}",
    "get /api/v1/windows/{name}/producers",
    "get /api/v1/windows/{name}/producers/{key}",
    "delete /api/v1/connections/{id}",
    "get /api/v1/access",
    "get /api/v1/history",
    "get /api/v1/journal",
    "get /api/v1/log",
    "post /api/v1/drain",
    "put /api/v1/log",
    "delete /api/v1/windows/{name}/ids/{id}",
    "get /api/v1/config",
    "get /api/v1/connections",
    "get /api/v1/drops",
    "get /api/v1/drops/events",
    "get /api/v1/events",
    "get /api/v1/openapi.json",
    "get /api/v1/status",
    "get /api/v1/upstreams",
    "get /api/v1/windows",
    "get /api/v1/windows/{name}",
    "get /api/v1/windows/{name}/ids/{id}",
    "get /healthz",
    "get /metrics",
    "get /readyz",
    "patch /api/v1/windows/{name}",
    "post /api/v1/reload",
    "post /api/v1/windows/{name}/flush",
    "get /api/v1/windows/{name}/tenants",
    "post /api/v1/windows/{name}/forecast",
    "get /api/v1/windows/{name}/record",
];

async fn document(site: &Site) -> Value {
    let answer = site.get("/api/v1/openapi.json").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods: Vec<String> = item.as_object().unwrap().keys().map(|m| format!("{m} {path}")).collect();
        methods
    };
    paths.iter().flat_map(of).collect()
}

#[tokio::test]
async fn it_has_every_route_of_the_contract_and_no_other() {
    let document = document(&Site::open().await).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(operations(&document), CONTRACT.map(str::to_owned).into());
}

#[tokio::test]
async fn the_router_answers_exactly_the_methods_that_it_has() {
    let site = Site::open().await;
    let document = document(&site).await;
    let operations = operations(&document);
    for path in document["paths"].as_object().unwrap().keys() {
        let real = path.replace("{name}", "orders").replace("{id}", "a");
        for method in ["get", "post", "put", "patch", "delete"] {
            let described = operations.contains(&format!("{method} {path}"));
            // An answer that never ends is asked for its head only.
            let endless = path.ends_with("/events") || path.ends_with("/record");
            let verb = if endless && method == "get" { "HEAD" } else { method };
            let answer = site.change(&verb.to_ascii_uppercase(), &real, "{}").await;
            assert_eq!(answer.status != 405, described, "{method} {path}: {answer:?}");
            // There is no such connection.
            let absent = path.contains("/connections/{id}") && described;
            assert_eq!(answer.status == 404, absent, "{method} {path}");
        }
    }
}

/// Objects have what is described and nothing else.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("allOf") {
                object.insert("unevaluatedProperties".into(), false.into());
            }
            object.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// The parts of an `allOf` can't be strict each for itself.
fn close(components: &mut Map<String, Value>) {
    for (name, schema) in components {
        strict(schema);
        let plain = schema.get("properties").is_some() && name != "Facts";
        if let (true, Some(object)) = (plain, schema.as_object_mut()) {
            object.insert("additionalProperties".into(), false.into());
        }
    }
}

struct Checker {
    document: Value,
    seen: BTreeSet<String>,
}

impl Checker {
    async fn of(site: &Site) -> Checker {
        let mut document = document(site).await;
        close(document["components"]["schemas"].as_object_mut().unwrap());
        Checker { document, seen: BTreeSet::new() }
    }

    /// The answer is one that is described, in status, type and shape.
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let status = answer.status.to_string();
        let place = format!("{method} {path} {status}");
        let content = self.document["paths"][path][method]["responses"][&status]["content"].clone();
        let (kind, media) = content.as_object().and_then(|content| content.iter().next()).expect(&place);
        assert!(
            answer.head.contains(&format!("content-type: {}", kind.to_ascii_lowercase())),
            "{place}: {answer:?}"
        );
        self.seen.insert(place.clone());
        if kind != "application/json" {
            return;
        }
        let mut schema = media["schema"].clone();
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&schema).expect(&place);
        let instance = answer.json();
        let errors: Vec<String> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{place}: {errors:#?}\n{instance:#}");
    }

    /// What a window of sequences answers, and another one.
    async fn producers(&mut self) {
        let site = super::producers::site().await;
        super::producers::publish(&site, "p", 1, &[1, 2]);
        let (list, one) = ("/api/v1/windows/{name}/producers", "/api/v1/windows/{name}/producers/{key}");
        let path = "/api/v1/windows/numbered/producers";
        let all = site.get(path).await;
        self.check("get", list, &all);
        self.check("get", list, &site.get("/api/v1/windows/rest/producers").await);
        self.check("get", "/api/v1/windows/{name}", &site.get("/api/v1/windows/numbered").await);
        let key = all.json()["producers"][0]["key"].as_str().unwrap().to_owned();
        self.check("get", one, &site.get(&format!("{path}/{key}")).await);
        self.check("delete", one, &site.change("DELETE", &format!("{path}/{key}"), "").await);
        self.check("get", one, &site.get(&format!("{path}/{key}")).await);
        self.check("get", one, &site.get(&format!("{path}/x")).await);
    }

    /// The answers about chaos: where it is not allowed, before a run, while one is on, and when it is over.
    async fn chaos(&mut self) {
        let path = "/api/v1/chaos";
        let forbidden = Site::open().await;
        let allowed = "[chaos]\nenabled = true\nvhosts = [\"a\"]\n[[window]]\nname = \"orders\"\n";
        for site in [forbidden, Site::start(allowed, None).await] {
            for body in
                ["x", "{}", r#"{"cut": 2}"#, r#"{"cut": 0.1, "windows": ["orders"]}"#, r#"{"cut": 0.1}"#]
            {
                self.check("post", path, &site.change("POST", path, body).await);
                self.check("get", path, &site.get(path).await);
                self.check("get", "/api/v1/status", &site.get("/api/v1/status").await);
            }
            for _ in 0..2 {
                self.check("delete", path, &site.change("DELETE", path, "").await);
                self.check("get", path, &site.get(path).await);
            }
            self.check("post", path, &site.ask("POST", path, &[], "{}").await);
        }
    }

    /// What a process answers whose file can be read again: as it is, with changes, and broken.
    async fn reloads(&mut self) {
        let leash = Leash::new("reloads").unwrap();
        let file = leash.folder().join("hapax.toml");
        let write = |text: &str| std::fs::write(&file, format!("upstream = \"amqp://127.0.0.1:1\"\n{text}"));
        write("[[window]]\nname = \"orders\"\n").unwrap();
        let site = Site::with_file(&file).await;
        for (text, applied, status) in [
            ("[[window]]\nname = \"orders\"\nttl = \"1m\"\n[[window]]\nname = \"more\"\n", true, 200),
            ("[[window]]\nname = \"orders\"\nid = \"body\"\nttl = \"1m\"\n", false, 422),
            ("[[window]]\nttl = 0", false, 422),
        ] {
            write(text).unwrap();
            let config = site.get("/api/v1/config").await;
            self.check("get", "/api/v1/config", &config);
            let said = config.json();
            assert!(said["not_loaded"] != json!([]) || said["file_errors"] != json!([]), "{said}");
            let dry = site.change("POST", "/api/v1/reload?dry_run=true", "").await;
            self.check("post", "/api/v1/reload", &dry);
            let done = site.change("POST", "/api/v1/reload", "").await;
            self.check("post", "/api/v1/reload", &done);
            assert_eq!((done.status, done.json()["applied"] == true), (status, applied), "{done:?}");
        }
        self.check("post", "/api/v1/reload", &site.change("POST", "/api/v1/reload?dry_run=1", "").await);
        let without_file = Site::open().await;
        self.check("get", "/api/v1/config", &without_file.get("/api/v1/config").await);
        self.check("post", "/api/v1/reload", &without_file.change("POST", "/api/v1/reload", "").await);
    }
}

#[tokio::test]
async fn what_a_live_run_answers_is_as_it_is_described() {
    let site = Site::open().await;
    let mut checker = Checker::of(&site).await;
    let window = "/api/v1/windows/{name}";
    site.fill(50);
    let id = IdValue::Bytes(b"in-flight");
    let Verdict::Fresh(reservation) = site.reserve("orders", ["/", "orders", ""], id) else { panic!() };
    site.windows.iter().for_each(|watched| watched.tick(now()));
    for path in [
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/v1/openapi.json",
        "/api/v1/windows",
        "/api/v1/access",
        "/api/v1/connections",
        "/api/v1/history",
        "/api/v1/journal",
        "/api/v1/log",
        "/api/v1/drops",
        "/api/v1/status",
        "/api/v1/upstreams",
    ] {
        checker.check("get", path, &site.get(path).await);
    }
    for name in ["orders", "numbers", "events", "rest", "nope"] {
        checker.check("get", window, &site.get(&format!("/api/v1/windows/{name}")).await);
    }
    let one = format!("{window}/ids/{{id}}");
    for (id, key) in [("id-1", "k"), ("in-flight", ""), ("other", "")] {
        let answer = site.get(&format!("/api/v1/windows/orders/ids/{id}?routing_key={key}")).await;
        checker.check("get", &one, &answer);
    }
    let record = format!("{window}/record");
    for (name, query) in
        [("orders", "seconds=0.01"), ("orders", "seconds=0"), ("orders", "for=1"), ("nope", "")]
    {
        let answer = site.get(&format!("/api/v1/windows/{name}/record?{query}")).await;
        checker.check("get", &record, &answer);
    }
    reservation.forget(ForgetCause::Nack);
    checker.check("get", &one, &site.get("/api/v1/windows/orders/ids/a").await);
    checker.check(
        "delete",
        &one,
        &site.change("DELETE", "/api/v1/windows/orders/ids/id-1?routing_key=k", "").await,
    );
    for body in [r#"{"capacity": 10, "ttl": "1m", "mode": "observe"}"#, "{}", "[]", r#"{"ttl": 0}"#, "x"] {
        checker.check("patch", window, &site.change("PATCH", "/api/v1/windows/orders", body).await);
        let forecast = site.change("POST", "/api/v1/windows/orders/forecast", body).await;
        checker.check("post", &format!("{window}/forecast"), &forecast);
    }
    checker.check("patch", window, &site.ask("PATCH", "/api/v1/windows/orders", &[], "{}").await);
    checker.check(
        "post",
        &format!("{window}/flush"),
        &site.change("POST", "/api/v1/windows/orders/flush", "").await,
    );
    let tenants = site.get("/api/v1/windows/orders/tenants").await;
    checker.check("get", &format!("{window}/tenants"), &tenants);
    checker.producers().await;
    checker.chaos().await;
    let log = site.change("PUT", "/api/v1/log", r#"{"level": "chatty"}"#).await;
    checker.check("put", "/api/v1/log", &log);
    let close = site.change("DELETE", "/api/v1/connections/7", "").await;
    checker.check("delete", "/api/v1/connections/{id}", &close);
    checker.check("post", "/api/v1/drain", &site.change("POST", "/api/v1/drain", "").await);
    let (logged, _) = super::stores::site(StorePolicy::default()).await;
    for (path, template) in
        [("/api/v1/windows", "/api/v1/windows"), ("/api/v1/windows/logged", window), ("/readyz", "/readyz")]
    {
        checker.check("get", template, &logged.get(path).await);
    }
    let foreign = [("Host", "evil.example")];
    for path in ["/metrics", "/healthz", "/readyz", "/api/v1/openapi.json", "/api/v1/status"] {
        checker.check("get", path, &site.ask("GET", path, &foreign, "").await);
    }
    checker.check("get", "/api/v1/status", &Site::guarded().await.get("/api/v1/status").await);
    checker.reloads().await;
    let head = site.ask("HEAD", "/api/v1/events", &[], "").await;
    checker.check("get", "/api/v1/events", &head);
    let head = site.ask("HEAD", "/api/v1/drops/events", &[], "").await;
    checker.check("get", "/api/v1/drops/events", &head);
    // Each operation has been answered at least once as it should.
    let answered: BTreeSet<String> =
        checker.seen.iter().filter_map(|place| Some(place.rsplit_once(' ')?.0.to_owned())).collect();
    assert_eq!(answered, CONTRACT.map(str::to_owned).into());
}

/// The parser takes exactly the parameters that the document names.
#[tokio::test]
async fn the_described_change_is_the_one_that_is_read() {
    let site = Site::open().await;
    let checker = Checker::of(&site).await;
    let mut schema = json!({"$ref": "#/components/schemas/Change"});
    schema["components"] = checker.document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for body in [
        json!({}),
        json!({"capacity": 1}),
        json!({"capacity": 500_000_000}),
        json!({"capacity": 0}),
        json!({"capacity": 500_000_001}),
        json!({"capacity": 1.5}),
        json!({"capacity": null}),
        json!({"capacity": "many"}),
        json!({"ttl": 90}),
        json!({"ttl": 0.0001}),
        json!({"ttl": "10m"}),
        json!({"ttl": true}),
        json!({"mode": "off"}),
        json!({"mode": "on"}),
        json!({"engine": "moka"}),
        json!([]),
    ] {
        let answer = site.change("POST", "/api/v1/windows/orders/forecast", &body.to_string()).await;
        assert_eq!(answer.status == 200, validator.is_valid(&body), "{body}: {answer:?}");
    }
}
