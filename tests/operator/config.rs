//! The configuration: files that are shipped, files that are wrong, precedence, and the way back to a file.

mod oracle;

use hapax::config::{
    Config, Given, Judges, LogFormat, Overrides, Problems, ProxyProtocol, Secret, Source, StoreKind,
    UpstreamAddress, UpstreamOrder,
};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::{OnOutage, Remember, StorePolicy};
use hapax_core::window::{ConfirmRule, Key, Mode, Numbering, OnGap, Scope};
use hapax_core::wire::properties::IdValue;
use hapax_core::wire::{IdPart, IdSource};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The TOML files of a folder and the folders in it, by paths relative to the crate.
fn toml_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect(folder) {
        let path = entry.expect(folder).path();
        if path.is_dir() {
            found.extend(toml_files(path.to_str().expect("UTF-8")));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text, in which each file with a secret is a copy that is its owner's alone: git keeps no such mode.
fn with_secrets(text: &str) -> String {
    use std::os::unix::fs::OpenOptionsExt;
    static COPIES: OnceLock<Vec<(&str, PathBuf)>> = OnceLock::new();
    let copies = COPIES.get_or_init(|| {
        let copy = |name: &'static str| {
            let copy = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("config.{name}"));
            let _ = std::fs::remove_file(&copy);
            let open = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&copy);
            let mut secret = std::fs::File::open(format!("tests/fixtures/{name}")).expect("there");
            std::io::copy(&mut secret, &mut open.expect("made")).expect("copied");
            (name, copy)
        };
        let mut copies = ["admin.token", "admin.read-only.token", "digest.secret", "redis.url", "stream.uri"]
            .map(copy)
            .to_vec();
        copies.extend(certificate());
        copies
    });
    let copied = |text: String, (name, copy): &(&str, PathBuf)| {
        let copy = copy.to_str().expect("UTF-8");
        text.replace(&format!("tests/fixtures/{name}"), copy).replace(&format!("/etc/hapax/{name}"), copy)
    };
    copies.iter().fold(text.to_owned(), copied)
}

/// A certificate and its key, made now: no key belongs into a repository.
fn certificate() -> [(&'static str, PathBuf); 3] {
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, CertifiedIssuer, KeyIdMethod, KeyPair,
        KeyUsagePurpose, SerialNumber, date_time_ymd,
    };
    use std::os::unix::fs::PermissionsExt;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("valid");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let made = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("made")).expect("made");
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2024, 2, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&made).expect("signed").pem().expect("PEM");
    let files =
        [("server.pem", made.pem()), ("server.key", made.key().serialize_pem()), ("clients.crl", list)];
    files.map(|(name, text)| {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("config.{name}"));
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("changed");
        (name, file)
    })
}

/// The file with every key.
fn full() -> &'static Path {
    static FULL: OnceLock<PathBuf> = OnceLock::new();
    FULL.get_or_init(|| {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("config_full.toml");
        let text = std::fs::read_to_string("tests/fixtures/config_full.toml").expect("there");
        std::fs::write(&file, with_secrets(&text)).expect("written");
        file
    })
}

fn parse(text: &str) -> Config {
    Config::parse(Some("test.toml"), text, &Overrides::default()).expect(text).config
}

fn errors(text: &str) -> Vec<String> {
    let problems = Config::parse(Some("test.toml"), text, &Overrides::default()).expect_err(text);
    problems.0.iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect()
}

fn given(value: &str, source: Source) -> Option<Given> {
    Some(Given { value: value.to_owned(), source })
}

#[test]
fn every_shipped_file_parses() {
    let files = toml_files("config");
    assert!(files.len() >= 6, "only {files:?}");
    for file in files {
        // (Its secrets are those of the fixtures.)
        let text = with_secrets(&std::fs::read_to_string(&file).expect("readable"));
        let loaded = Config::parse(file.to_str(), &text, &Overrides::default());
        let loaded = loaded.unwrap_or_else(|problems| panic!("{}:\n{problems}", file.display()));
        assert_eq!(loaded.warnings, [], "{}", file.display());
    }
}

#[test]
fn the_documented_file_is_the_default() {
    let loaded = Config::load(Some(Path::new("config/hapax.toml")), &Overrides::default()).expect("valid");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(parse(""), Config::default());
}

#[test]
fn the_documented_file_has_every_key() {
    let loaded = Config::load(Some(Path::new("config/hapax.toml")), &Overrides::default()).expect("valid");
    let shown = loaded.to_toml();
    let from_default: Vec<&str> = shown.lines().filter(|line| line.ends_with("# default")).collect();
    assert!(from_default.is_empty(), "not in config/hapax.toml: {from_default:?}");
    assert!(shown.matches("# file, line").count() >= 30, "{shown}");
}

#[test]
fn an_address_has_half_of_the_connections_and_memory_is_a_share_of_the_machine() {
    let shares = [(10_000, 5_000), (200, 100), (100, 64), (10, 10)];
    for (max, share) in shares {
        let config = parse(&format!("[limits]\nmax_connections = {max}"));
        assert_eq!(config.limits.connections_per_address, share, "of {max}");
        assert_eq!(config.limits.handshakes, share, "of {max}");
    }
    let auto = parse("[limits]\nmemory = \"auto\"").limits.memory;
    assert_eq!(auto, Config::default().limits.memory);
    assert!(auto >= 16 << 20 && auto.is_multiple_of(1 << 20), "{auto}");
    assert_eq!(parse("[limits]\nmemory = \"64MiB\"").limits.memory, 64 << 20);
}

#[test]
fn every_invalid_file_fails_with_its_own_message() {
    let files = toml_files("tests/fixtures/config_invalid");
    assert!(files.len() >= 30, "only {} files", files.len());
    // The password in upstream_credentials.toml, and what the files with tokens and secrets hold.
    let mut hidden = vec!["opensesame".to_owned()];
    for name in ["blank.token", "short.token", "short.secret", "words.secret"] {
        let text = std::fs::read_to_string(Path::new("tests/fixtures/config_invalid").join(name));
        hidden.push(text.expect("readable").trim().to_owned());
    }
    // Files whose fault is another one name this secret. Git keeps no mode that makes it its owner's alone.
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions("tests/fixtures/digest.secret", owner_only).expect("changed");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let expected =
            text.lines().next().and_then(|line| line.strip_prefix("# expect: ")).expect("first line");
        let problems = Config::parse(file.to_str(), &with_secrets(&text), &Overrides::default())
            .expect_err(&file.display().to_string());
        let shown = problems.to_string();
        for part in expected.split(" | ") {
            assert!(shown.contains(part), "{}: expected {part:?} in\n{shown}", file.display());
        }
        assert_eq!(problems.0.len(), 1, "{}: one thing is wrong, but\n{shown}", file.display());
        let problem = &problems.0[0];
        assert!(problem.place.starts_with(&file.display().to_string()), "{problem}");
        assert!(!problem.fix.is_empty(), "{problem}");
        for hidden in &hidden {
            assert!(!shown.contains(hidden), "{hidden:?} is shown: {shown}");
        }
    }
}

#[test]
fn all_errors_at_once_in_the_order_of_the_file() {
    let text = r#"
listen = "nowhere"
bogus = 1
[limits]
frame_max = 1
held_bytes = true
[[window]]
name = "a"
ttl = "never"
engine = "redis"
[[window]]
name = "a"
capacity = 0
"#;
    assert_eq!(
        errors(text),
        [
            "test.toml:2: `listen` is \"nowhere\", which is no address to listen on",
            "test.toml:3: `bogus` is not a key",
            "test.toml:5: `limits.frame_max` is 1, below the minimum of 8192",
            "test.toml:6: `limits.held_bytes` is a boolean, but must be a size",
            "test.toml:9: window \"a\": `ttl` is \"never\", which is no duration",
            "test.toml:10: window \"a\": `engine` is \"redis\", which is not known",
            "test.toml:12: a window named \"a\" is there already, at test.toml:8",
            "test.toml:13: window \"a\": `capacity` is 0, below the minimum of 1",
        ]
    );
}

#[test]
fn several_syntax_errors_are_all_reported() {
    let errors = errors("listen = nope\n\n[limits\nmax_connections = 5\n[log]\nlevel = \n");
    assert!(errors.len() >= 2, "{errors:?}");
    assert!(errors[0].starts_with("test.toml:1: this is not TOML"), "{errors:?}");
}

#[test]
fn flags_and_environment_come_before_the_file() {
    let text =
        "listen = \"127.0.0.1:1\"\nupstream = \"amqp://file:2\"\nadmin = \"off\"\n[log]\nlevel = \"warn\"";
    let overrides = Overrides {
        listen: given("127.0.0.1:11", Source::Flag("--listen")),
        upstream: given("amqp://env:22, amqp://env2", Source::Env("HAPAX_UPSTREAM")),
        admin: None,
        log: given("debug", Source::Env("HAPAX_LOG")),
        admin_token: None,
    };
    let loaded = Config::parse(Some("test.toml"), text, &overrides).expect("valid");
    assert_eq!(loaded.config.listen.map(|listen| listen.port()), Some(11));
    let authorities: Vec<String> = loaded.config.upstreams.iter().map(UpstreamAddress::authority).collect();
    assert_eq!(authorities, ["env:22", "env2:5672"]);
    assert_eq!(loaded.config.admin, None);
    assert_eq!(loaded.config.log.level, "debug");
    let shown = loaded.to_toml();
    for line in
        ["# flag, --listen", "# environment, HAPAX_UPSTREAM", "# file, line 3", "# environment, HAPAX_LOG"]
    {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
}

#[test]
fn errors_in_the_environment_come_with_those_of_the_file() {
    let overrides =
        Overrides { upstream: given("http://x", Source::Env("HAPAX_UPSTREAM")), ..Overrides::default() };
    let problems = Config::parse(Some("test.toml"), "admin = 5", &overrides).expect_err("invalid");
    let places: Vec<&str> = problems.0.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(places, ["HAPAX_UPSTREAM", "test.toml:1"]);
}

#[test]
fn what_is_shown_reads_back_the_same() {
    let mut files = toml_files("config");
    files.push(full().to_owned());
    for file in files {
        let text = with_secrets(&std::fs::read_to_string(&file).expect("readable"));
        let loaded = Config::parse(file.to_str(), &text, &Overrides::default()).expect("valid");
        let shown = loaded.to_toml();
        assert_eq!(parse(&shown), loaded.config, "{}:\n{shown}", file.display());
    }
}

#[test]
fn every_key_arrives() {
    let loaded = Config::load(Some(full()), &Overrides::default()).expect("valid");
    let config = loaded.config;
    let settings = config.settings();
    assert_eq!(config.listen_addresses(), "0.0.0.0:15999, 0.0.0.0:15998, [::1]:15997");
    let upstreams: Vec<String> = config.upstreams.iter().map(ToString::to_string).collect();
    assert_eq!(upstreams, ["amqps://[::1]:5671", "amqp://b.internal:5673"]);
    assert_eq!(config.upstream_order, UpstreamOrder::RoundRobin);
    let health = config.upstream_health;
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(11), Duration::from_millis(350)));
    assert_eq!((health.rest, health.max_rest), (Duration::from_secs(12), Duration::from_secs(780)));
    assert_eq!(config.upstream_proxy_protocol, ProxyProtocol::V2);
    let tls = config.upstream_tls.as_ref().expect("upstream_tls");
    assert!(tls.ca.is_some() && tls.identity.is_some() && config.admin_tls.is_some());
    let stream = config.store.stream.as_ref().expect("store.stream");
    for other in [&stream.tls, &config.telemetry.tls] {
        assert_eq!(other.as_ref(), Some(tls));
    }
    let [listener, plain] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    let trusted: Vec<String> = listener.trusted.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "::1/128"]);
    let tls = listener.tls.as_ref().expect("listener.tls");
    let clients = tls.clients.as_ref().expect("client_certificates");
    assert!(!clients.required && clients.ca == tls.identity.certificate);
    assert_eq!(clients.names, ["orders", "*.example"]);
    assert!(clients.crl.is_some());
    assert_eq!(tls.by_name, [("*.mq.example".to_owned(), tls.identity.clone())]);
    assert_eq!((&plain.trusted, &plain.tls), (&None, &None));
    assert!(!settings.external, "TLS ends here");
    assert_eq!(config.admin.map(|admin| admin.to_string()).as_deref(), Some("[::]:16000"));
    assert!(config.digest_secret_file.is_some() && config.digest_secret.is_some());
    assert_eq!((config.limits.max_connections, config.limits.buffer_bytes), (1, 65_536));
    assert_eq!((config.limits.connections_per_address, config.limits.memory), (9, 77 << 20));
    assert_eq!((config.limits.connections_per_user, config.limits.handshakes), (8, 6));
    let rates = (config.limits.publish_rate_per_user, config.limits.publish_rate_per_vhost);
    assert_eq!((rates, config.limits.publish_burst), ((1000, 2000), 17));
    assert_eq!(config.timeouts.tcp_user, Duration::from_secs(7));
    assert_eq!((config.limits.unread_bytes, config.timeouts.unread), (65 << 10, Duration::from_secs(8)));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.timeouts.upstream_connect, Duration::from_millis(1500));
    assert_eq!(config.timeouts.drain, Duration::from_secs(5400));
    assert_eq!(config.timeouts.takeover, Duration::from_secs(14));
    assert_eq!(settings.linger, Duration::ZERO);
    assert_eq!(settings.in_flight_timeout, Duration::from_secs(3));
    assert_eq!(settings.store_timeout, Duration::from_secs(2));
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("var/hapax")));
    assert_eq!(settings.handshake_timeout, Duration::from_secs(4));
    assert_eq!(settings.rights_held, Duration::from_secs(5));
    assert_eq!((settings.max_unresolved, settings.held_bytes, settings.frame_max), (2, 0, 8192));
    let [window, second, third, guard] = config.windows.as_slice() else { panic!("{:?}", config.windows) };
    assert_eq!(window.rules.id, IdSource::Header("x-dedup: odd".into()));
    assert_eq!(second.rules.id.to_string(), "correlation-id, header:a, header:b=c");
    assert_eq!((window.rules.scope, window.rules.confirms), (Scope::Vhost, ConfirmRule::ClientOnly));
    assert!(!window.rules.verify_routing);
    assert_eq!(window.rules.forward_to.as_deref(), Some("back\"ing"));
    assert_eq!((window.limits.capacity, window.limits.mode), (7, Mode::Observe));
    assert!(window.limits.refresh_on_duplicate);
    assert_eq!((window.store, second.store), (StoreKind::Disk, StoreKind::Memory));
    let delay = Duration::from_millis(9);
    let policy = StorePolicy { remember: Remember::Async, delay, on_outage: OnOutage::Refuse };
    assert_eq!((window.policy, second.policy), (policy, StorePolicy::default()));
    assert_eq!((window.limits.waiters_per_id, second.limits.waiters_per_id), (5, 3));
    assert_eq!(config.memory_budget, Some(96 << 20));
    assert_eq!((window.auto, second.auto, second.weight), (false, true, 3));
    assert!((300_000..1_500_000).contains(&second.limits.capacity), "{}", second.limits.capacity);
    assert!(window.vhost.matches(b"test-1") && !window.vhost.matches(b"/"));
    assert_eq!((&third.rules.id, third.limits.capacity), (&IdSource::Sequence, 10_000));
    assert_eq!(third.rules.numbering, Numbering { on_gap: OnGap::Reject, places: 128 });
    assert_eq!(
        (guard.judges, &*guard.rules.name, guard.exchange.as_str()),
        (Judges::Deliveries, "workers", "jobs.*")
    );
    assert_eq!((guard.rules.id.to_string().as_str(), guard.limits.capacity), ("header:job", 12));
    assert_eq!((guard.limits.ttl, guard.engine), (Duration::from_secs(7200), EngineKind::Lru));
    assert_eq!((guard.store, guard.policy.remember), (StoreKind::Disk, Remember::Async));
    assert_eq!((guard.limits.mode, guard.limits.waiters_per_id, guard.weight), (Mode::Observe, 6, 4));
}

#[test]
fn a_preset_says_where_the_id_is_and_check_shows_it() {
    let text = "[[window]]\nname = \"tasks\"\npreset = \"celery\"\n";
    let loaded = Config::parse(Some("test.toml"), text, &Overrides::default()).expect("valid");
    let headers = ["id", "task", "retries", "replaced_task_nesting"];
    let expected = IdSource::Parts(headers.map(|name| IdPart::Header(name.into())).into());
    assert_eq!(loaded.config.windows[0].rules.id, expected);
    let shown = loaded.to_toml();
    let line = shown.lines().find(|line| line.starts_with("id = ")).expect("a line");
    let id = "id = [\"header:id\", \"header:task\", \"header:retries\", \"header:replaced_task_nesting\"]";
    assert!(line.starts_with(id) && line.ends_with("# file, line 3"), "{line}");
    assert_eq!(parse(&shown), loaded.config);
}

#[test]
fn a_list_of_one_is_as_a_text() {
    let id = |id: &str| parse(&format!("[[window]]\nname = \"a\"\nid = {id}")).windows[0].rules.id.clone();
    assert_eq!(id("[\"message-id\"]"), IdSource::MessageId);
    assert_eq!(id("[\"header:a\"]"), id("\"header:a\""));
}

fn token(text: &str) -> Overrides {
    Overrides { admin_token: Some(Secret(text.into())), ..Overrides::default() }
}

#[test]
fn a_token_of_the_environment_comes_before_the_file() {
    let text = "admin = \"0.0.0.0:1\"\nadmin_token_file = \"no/such/file\"\n";
    let loaded = Config::parse(Some("test.toml"), text, &token("from-the-environment")).expect("valid");
    let held = loaded.config.admin_token.as_ref().expect("a token");
    assert!(held.matches(b"from-the-environment"));
    for wrong in ["", "from-the-environmen", "from-the-environment ", "From-the-environment"] {
        assert!(!held.matches(wrong.as_bytes()), "{wrong:?}");
    }
    let shown = format!("{}{loaded:?}{:?}", loaded.to_toml(), token("from-the-environment"));
    assert!(shown.contains("# environment, HAPAX_ADMIN_TOKEN"), "{shown}");
    assert!(!shown.contains("from-the-env"), "the token is shown: {shown}");
}

#[test]
fn a_wrong_token_in_the_environment_is_reported_once_and_not_shown() {
    for (text, what) in [("short", "a token of 5 bytes"), ("a secret with blanks", "blanks")] {
        let problems =
            Config::parse(Some("test.toml"), "admin = \"0.0.0.0:1\"", &token(text)).expect_err("invalid");
        let [problem] = problems.0.as_slice() else { panic!("{problems}") };
        assert_eq!(problem.place, "HAPAX_ADMIN_TOKEN");
        assert!(problem.what.contains(what) && !problem.to_string().contains(text), "{problem}");
    }
}

#[test]
fn a_token_file_that_others_can_read_or_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = std::env::temp_dir().join(format!("hapax-config-token-{}", std::process::id()));
    std::fs::write(&file, "  0123456789abcdef\n").expect("written");
    let text = format!("admin_token_file = {:?}", file.display().to_string());
    for (mode, who) in [
        (0o600, None),
        (0o400, None),
        (0o711, None),
        (0o640, Some("its group")),
        (0o620, Some("its group")),
        (0o644, Some("every user")),
        (0o604, Some("every user")),
        (0o602, Some("every user")),
    ] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("changed");
        match (Config::parse(Some("test.toml"), &text, &Overrides::default()), who) {
            (Ok(loaded), None) => {
                assert!(loaded.config.admin_token.is_some_and(|token| token.matches(b"0123456789abcdef")));
                assert!(loaded.warnings.is_empty(), "{mode:o}: {:?}", loaded.warnings);
            }
            (Err(problems), Some(who)) => {
                let [problem] = problems.0.as_slice() else { panic!("{problems}") };
                assert_eq!(problem.place, "test.toml:1");
                assert!(
                    problem.what.contains(who) && problem.what.contains(&format!("{mode:o}")),
                    "{problem}"
                );
                assert!(problem.fix.starts_with("chmod 600 "), "{problem}");
                assert!(!problem.to_string().contains("0123456789"), "{problem}");
            }
            (loaded, _) => panic!("{mode:o}: {loaded:?}"),
        }
    }
    // The environment comes before the file, which is not looked at then.
    Config::parse(Some("test.toml"), &text, &token("from-the-environment")).expect("valid");
    std::fs::remove_file(&file).expect("removed");
}

/// The key of an id, as a process with this secret in its file makes it; `None` without a file.
fn key_by(secret: Option<&str>, mode: u32) -> Result<Key, Problems> {
    use std::os::unix::fs::PermissionsExt;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("hapax-digest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = std::env::temp_dir().join(name);
    let text = secret.map_or_else(String::new, |secret| {
        std::fs::write(&file, secret).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("changed");
        format!("digest_secret_file = {:?}", file.display().to_string())
    });
    let loaded = Config::parse(Some("test.toml"), &text, &Overrides::default());
    let _ = std::fs::remove_file(&file);
    let loaded = loaded?;
    let shown = format!("{}{loaded:?}", loaded.to_toml());
    assert!(secret.is_none_or(|secret| !shown.contains(secret.trim())), "the secret is shown: {shown}");
    Ok(loaded.config.keys().key(Scope::Exchange, b"/", b"orders", b"", &IdValue::Bytes(b"order-1")))
}

#[test]
fn processes_with_the_same_digest_secret_make_the_same_keys() {
    let key = |secret: Option<&str>| key_by(secret, 0o600).expect("valid");
    let (one, other) = ("00112233445566778899aabbccddeeff", "00112233445566778899aabbccddeef0");
    assert_eq!(key(Some(one)), key(Some(&format!("  {one}\n"))));
    assert_eq!(key(Some(one)), key(Some(&one.to_uppercase())));
    assert_ne!(key(Some(one)), key(Some(other)));
    assert_ne!(key(None), key(None), "each process draws its own");
}

#[test]
fn a_digest_secret_that_others_can_read_is_refused() {
    let secret = "00112233445566778899aabbccddeeff";
    for (mode, who) in [(0o640, "its group"), (0o644, "every user"), (0o602, "every user")] {
        let problems = key_by(Some(secret), mode).expect_err("refused");
        let [problem] = problems.0.as_slice() else { panic!("{problems}") };
        assert_eq!(problem.place, "test.toml:1");
        assert!(problem.what.contains(who) && problem.fix.starts_with("chmod 600 "), "{problem}");
        assert!(!problem.to_string().contains(secret), "{problem}");
    }
}

#[test]
fn a_window_that_is_never_reached_is_warned_of() {
    let text = "[[window]]\nname = \"all\"\n[[window]]\nname = \"late\"\nexchange = \"orders\"\n";
    let loaded = Config::parse(Some("test.toml"), text, &Overrides::default()).expect("valid");
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert_eq!(warning.place, "test.toml:3");
    assert!(warning.what.contains("\"late\" is never reached: \"all\" above it"), "{warning}");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let problems = Config::load(Some(Path::new("no/such.toml")), &Overrides::default()).expect_err("missing");
    assert_eq!(problems.0[0].place, "no/such.toml");
    assert!(problems.to_string().contains("can't be read"), "{problems}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Lines are left out, come twice, stand elsewhere, or have another value.
    #[test]
    fn any_text_is_refused_with_what_to_do_or_means_what_is_shown(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..5), 0..6),
        value in prop_oneof![
            prop::sample::select(vec!["0", "-1", "18446744073709551616", "\"\"", "\"0s\"", "\"1s 1ms\"", "\"1 GiB\"", "[]", "[1]", "{}", "true",
                "\"127.0.0.1:1\"", "\"[::1]:0\"", "\"amqp://h:1,amqps://g\"", "\"header:\"", "\"*\"", "\"\\u0000\"", "1.5", "\"auto\"", "\"disk\""])
                .prop_map(str::to_owned),
            "\\PC{0,12}",
        ],
    ) {
        // (Files are not named in it.)
        let text = include_str!("../../config/hapax.toml");
        let mut lines: Vec<String> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        for (one, other, what) in edits {
            let (at, to) = (one.index(lines.len()), other.index(lines.len()));
            match what {
                0 => drop(lines.remove(at)),
                1 => {
                    let line = lines[at].clone();
                    lines.insert(to, line);
                }
                2 => lines.swap(at, to),
                3 => {
                    let key = lines[at].split('=').next().unwrap_or_default();
                    lines[at] = format!("{key}= {value}");
                }
                _ => {
                    let place = lines[at].char_indices().map(|(at, _)| at).nth(to % 8).unwrap_or(0);
                    lines[at].insert_str(place, &value);
                }
            }
        }
        oracle::check(&lines.join("\n"));
    }
}
