//! The second step of reading a configuration. It reads every key by name, checks the bounds of its value, and checks
//! the rules that involve several keys.

use super::preset::Preset;
use super::problem::{Report, Source, Wrong};
use super::raw::{self, Section};
use super::{
    Config, DigestSecret, Given, Limits, Loaded, LogSettings, Overrides, Problems, StoreKind, Timeouts,
    Token, WindowConfig, addresses, chaos, duplicates, guard, listener, log_filter, machine, publishing,
    sequence, store, telemetry, token, upstream, value, warnings,
};
use crate::tls::ClientFiles;
use hapax_core::pressure::budget;
use hapax_core::window::{Release, Scope};
use hapax_core::wire::IdSource;
use hapax_core::wire::frame::MIN_FRAME_MAX;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds. A larger value is surely a typing error, and would only fail later with a less clear message.
pub(crate) mod most {
    use std::time::Duration;

    pub(crate) const CONNECTIONS: usize = 1_000_000;
    pub(crate) const RATE: usize = 1_000_000_000;
    pub(crate) const UNRESOLVED: usize = 1 << 24;
    pub(crate) const HELD_BYTES: usize = 64 << 30;
    pub(crate) const WAITERS: usize = 1_000_000;
    pub(crate) const FRAME: usize = 16 << 20;
    /// A stranger can make Hapax hold a frame of this size.
    pub(crate) const INITIAL_FRAME: usize = 1 << 20;
    pub(crate) const BUFFER: usize = 1 << 30;
    pub(crate) const IDS: usize = hapax_core::window::engine::MOST_IDS;
    pub(crate) const BUDGET: usize = 1 << 40;
    /// With less memory than this, not even a few connections could be served.
    pub(crate) const LEAST_MEMORY: usize = 16 << 20;
    pub(crate) const WEIGHT: usize = 1000;
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(86_400);
    pub(crate) const REPLICAS: usize = 100;
    pub(crate) const REMEMBER_DELAY: Duration = Duration::from_secs(60);
    pub(crate) const TTL: Duration = Duration::from_secs(365 * 86_400);
}

/// The shortest duration that a key accepts where zero makes no sense.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// The broker's proof must live longer than the answer that carries it.
const RIGHTS_LEAST: Duration = Duration::from_secs(1);

/// Returns the complete configuration, or all of its errors.
pub(super) fn check(name: Option<&str>, text: &str, overrides: &Overrides) -> Result<Loaded, Problems> {
    let mut report = Report::new(name, text);
    let table = raw::parse(text, &mut report);
    let mut config = read(Section::top(table.as_ref()), overrides, &mut report);
    addresses::check(&config, &mut report);
    listener::check(&config, &mut report);
    upstream::check(&config, &mut report);
    check_names(&config, &mut report);
    check_stores(&config, &mut report);
    check_quotas(&config, &mut report);
    check_releases(&config, &mut report);
    duplicates::check(&config, &mut report);
    sequence::check(&config, &mut report);
    share_budget(&mut config, &mut report);
    warnings::add(&config, machine::memory(), &mut report);
    let (warnings, sources) = report.finish()?;
    Ok(Loaded { config, sources, warnings })
}

fn read(mut top: Section<'_>, overrides: &Overrides, report: &mut Report) -> Config {
    let default = Config::default();
    let listen =
        top.read(report, "listen", super::defaults::LISTEN, |v| listen(value::text(v, "127.0.0.1:5673")?));
    let listen = overridden(listen, "listen", overrides.listen.as_ref(), report, self::listen);
    let listeners = listener::read(&mut top, report);
    let listen = (listeners.is_empty() || report.sources.contains_key("listen")).then_some(listen);
    let upstreams = top.read(report, "upstream", default.upstreams, upstream::nodes);
    let upstreams = overridden(upstreams, "upstream", overrides.upstream.as_ref(), report, upstream::listed);
    let upstream_order =
        top.read(report, "upstream_order", default.upstream_order, |v| value::word(v, "priority"));
    let upstream_health = upstream::read_health(top.section("upstream_health", report), report);
    let upstream_tls = listener::read_client(top.section("upstream_tls", report), report);
    let upstream_proxy_protocol =
        top.read(report, "upstream_proxy_protocol", default.upstream_proxy_protocol, |v| {
            value::word(v, "v2")
        });
    let loopback_users = top.read(report, "loopback_users", default.loopback_users, value::names);
    let admin =
        top.read(report, "admin", default.admin, |v| value::admin(value::text(v, "127.0.0.1:15673")?));
    let admin_tls = listener::read_admin(top.section("admin_tls", report), report);
    let (admin_token_file, admin_token) = read_token(&mut top, overrides, report);
    let read_only = top.read_optional(report, "admin_read_only_token_file", |v| {
        let path = token::path(value::text(v, "/etc/hapax/admin.read-only.token")?)?;
        let token = Token::read(&path, "")?;
        Ok((path, token))
    });
    let (admin_read_only_token_file, admin_read_only_token) = read_only.unzip();
    top.retired(report, "admin_allow_remote", "leave it out; an `admin` that other hosts may reach needs a token: name its file in `admin_token_file`, or set HAPAX_ADMIN_TOKEN");
    let digest = top.read_optional(report, "digest_secret_file", |v| {
        let path = token::path(value::text(v, "/etc/hapax/digest.secret")?)?;
        let secret = DigestSecret::read(&path)?;
        Ok((path, secret))
    });
    let (digest_secret_file, digest_secret) = digest.unzip();
    let reuse_port = top.read(report, "reuse_port", default.reuse_port, value::boolean);
    let state_dir =
        top.read_optional(report, "state_dir", |v| value::folder(value::text(v, "/var/lib/hapax")?));
    let memory_budget = top.read_optional(report, "memory_budget", |v| value::bytes(v, 1..=most::BUDGET));
    let limits = read_limits(top.section("limits", report), report);
    let stores = store::read(top.section("store", report), report);
    let duplicates = publishing::read(top.section("duplicates", report), "duplicates", report);
    let chaos = chaos::read(top.section("chaos", report), report);
    let timeouts = read_timeouts(top.section("timeouts", report), report);
    let log = read_log(top.section("log", report), report);
    let telemetry = telemetry::read(top.section("telemetry", report), report);
    let mut windows = read_windows(&mut top, limits.waiters_per_id, report);
    windows.extend(guard::read(&mut top, limits.waiters_per_id, report));
    top.finish(report);
    let level = overridden(log.level, "log.level", overrides.log.as_ref(), report, log_filter::parse);
    Config {
        listen,
        listeners,
        upstream_tls: upstream_tls
            .or_else(|| upstreams.iter().any(|upstream| upstream.tls).then(ClientFiles::default)),
        upstreams,
        upstream_order,
        upstream_health,
        upstream_proxy_protocol,
        admin_tls,
        loopback_users,
        admin: overridden(admin, "admin", overrides.admin.as_ref(), report, value::admin),
        admin_token_file,
        admin_token,
        admin_read_only_token_file,
        admin_read_only_token,
        digest_secret_file,
        digest_secret,
        reuse_port,
        state_dir,
        store: stores,
        duplicates,
        chaos,
        memory_budget,
        limits,
        timeouts,
        log: LogSettings { level, ..log },
        telemetry,
        windows,
    }
}

/// Returns the path of the token's file, and the token. A token from the environment wins; the file is then not read.
fn read_token(
    top: &mut Section<'_>,
    overrides: &Overrides,
    report: &mut Report,
) -> (Option<PathBuf>, Option<Token>) {
    let from_file = overrides.admin_token.is_none();
    let found = top.read_optional(report, "admin_token_file", |v| {
        let path = token::path(value::text(v, "/etc/hapax/admin.token")?)?;
        let otherwise = "; where a file can't have that mode, use HAPAX_ADMIN_TOKEN";
        let token = if from_file { Some(Token::read(&path, otherwise)?) } else { None };
        Ok((path, token))
    });
    let (path, read) = found.unzip();
    let mut token = read.flatten();
    if let Some(secret) = &overrides.admin_token {
        let source = Source::Env("HAPAX_ADMIN_TOKEN");
        match Token::new(&secret.0) {
            Ok(read) => token = Some(read),
            Err(wrong) => report.problem(&source, format!("HAPAX_ADMIN_TOKEN {}", wrong.what), wrong.fix),
        }
        report.sources.insert("admin_token".to_owned(), source);
    }
    (path, token)
}

fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    value::address(text, "127.0.0.1:5673")
}

/// Returns the value of a flag or of the environment if there is one, and the file's value otherwise.
fn overridden<T>(
    value: T,
    key: &str,
    given: Option<&Given>,
    report: &mut Report,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> T {
    let Some(given) = given else { return value };
    report.sources.insert(key.to_owned(), given.source.clone());
    match parse(&given.value) {
        Ok(value) => value,
        Err(wrong) => {
            report.problem(&given.source, format!("`{key}` {}", wrong.what), wrong.fix);
            value
        }
    }
}

fn read_limits(mut section: Section<'_>, report: &mut Report) -> Limits {
    let default = Limits::default();
    let min_frame = MIN_FRAME_MAX as usize;
    let max_connections = section
        .read(report, "max_connections", default.max_connections, |v| value::count(v, 1..=most::CONNECTIONS));
    let per_address = super::defaults::connections_per_address(max_connections);
    let limits = Limits {
        max_connections,
        connections_per_address: section
            .read(report, "connections_per_address", per_address, |v| value::count(v, 1..=most::CONNECTIONS)),
        connections_per_user: section.read(
            report,
            "connections_per_user",
            default.connections_per_user,
            |v| value::count(v, 0..=most::CONNECTIONS),
        ),
        handshakes: section
            .read(report, "handshakes", per_address, |v| value::count(v, 1..=most::CONNECTIONS)),
        publish_rate_per_user: section.read(
            report,
            "publish_rate_per_user",
            default.publish_rate_per_user,
            |v| value::count(v, 0..=most::RATE),
        ),
        publish_rate_per_vhost: section.read(
            report,
            "publish_rate_per_vhost",
            default.publish_rate_per_vhost,
            |v| value::count(v, 0..=most::RATE),
        ),
        publish_burst: section
            .read(report, "publish_burst", default.publish_burst, |v| value::count(v, 1..=most::RATE)),
        memory: section
            .read(report, "memory", Some(default.memory), |v| {
                value::bytes_or_auto(v, most::LEAST_MEMORY..=most::BUDGET)
            })
            .unwrap_or(default.memory),
        max_unresolved: section.read(report, "max_unresolved", default.max_unresolved, |v| {
            value::count(v, 1..=most::UNRESOLVED)
        }),
        held_bytes: section
            .read(report, "held_bytes", default.held_bytes, |v| value::bytes(v, 0..=most::HELD_BYTES)),
        waiters_per_id: section
            .read(report, "waiters_per_id", default.waiters_per_id, |v| value::count(v, 0..=most::WAITERS)),
        frame_max: section.read(report, "frame_max", default.frame_max, |v| {
            value::bytes(v, min_frame..=most::FRAME).map(|max| u32::try_from(max).unwrap_or(u32::MAX))
        }),
        initial_frame_max: section.read(report, "initial_frame_max", default.initial_frame_max, |v| {
            value::bytes(v, min_frame..=most::INITIAL_FRAME).map(|max| u32::try_from(max).unwrap_or(u32::MAX))
        }),
        buffer_bytes: section.read(report, "buffer_bytes", default.buffer_bytes, |v| {
            value::bytes(v, min_frame..=most::BUFFER)
        }),
        unread_bytes: section.read(report, "unread_bytes", default.unread_bytes, |v| {
            value::bytes(v, min_frame..=most::BUFFER)
        }),
    };
    section.finish(report);
    limits
}

fn read_timeouts(mut section: Section<'_>, report: &mut Report) -> Timeouts {
    let default = Timeouts::default();
    let mut read = |key, default, least| {
        section.read(report, key, default, |v| value::duration(v, least..=most::TIMEOUT))
    };
    let timeouts = Timeouts {
        linger: read("linger", default.linger, Duration::ZERO),
        in_flight: read("in_flight", default.in_flight, TICK),
        store: read("store", default.store, TICK),
        handshake: read("handshake", default.handshake, TICK),
        rights: read("rights", default.rights, RIGHTS_LEAST),
        drain: read("drain", default.drain, Duration::ZERO),
        drain_delay: read("drain_delay", default.drain_delay, Duration::ZERO),
        takeover: read("takeover", default.takeover, Duration::ZERO),
        upstream_connect: read("upstream_connect", default.upstream_connect, TICK),
        tcp_user: read("tcp_user", default.tcp_user, Duration::ZERO),
        unread: read("unread", default.unread, TICK),
    };
    section.finish(report);
    timeouts
}

fn read_log(mut section: Section<'_>, report: &mut Report) -> LogSettings {
    let default = LogSettings::default();
    let log = LogSettings {
        format: section.read(report, "format", default.format, |v| value::word(v, "auto")),
        level: section.read(report, "level", default.level, |v| log_filter::parse(value::text(v, "info")?)),
    };
    section.finish(report);
    log
}

fn read_windows(top: &mut Section<'_>, waiters: usize, report: &mut Report) -> Vec<WindowConfig> {
    match top.sections("window", report) {
        Some(sections) => sections.into_iter().map(|section| read_window(section, waiters, report)).collect(),
        None => {
            let mut window = WindowConfig::named(super::defaults::WINDOW_NAME);
            window.limits.waiters_per_id = waiters;
            vec![window]
        }
    }
}

fn read_window(mut section: Section<'_>, waiters: usize, report: &mut Report) -> WindowConfig {
    let mut window = read_named(&mut section, "orders", "exchange", report);
    let (rules, limits) = (&mut window.rules, &mut window.limits);
    rules.id = read_id(&mut section, rules.id.clone(), report);
    rules.scope = section.read(report, "scope", rules.scope, |v| value::word(v, "routing-key"));
    rules.quota = section.read(report, "quota", rules.quota, |v| value::word(v, "user"));
    sequence::read(&mut section, rules, report);
    sequence::default_capacity(rules, limits);
    read_memory(&mut section, &mut window, waiters, report);
    let (rules, limits) = (&mut window.rules, &mut window.limits);
    rules.in_doubt = section.read(report, "in_doubt", rules.in_doubt, |v| value::word(v, "forget"));
    rules.republish = section.read(report, "republish", rules.republish, |v| value::word(v, "connection"));
    rules.release = section.read(report, "release", rules.release, |v| value::word(v, "consumed"));
    rules.missing_id = section.read(report, "missing_id", rules.missing_id, |v| value::word(v, "forward"));
    rules.on_conflict = section.read(report, "on_conflict", rules.on_conflict, |v| value::word(v, "drop"));
    let signals = &mut rules.signals;
    signals.on_duplicate =
        section.read(report, "on_duplicate", signals.on_duplicate, |v| value::word(v, "return"));
    signals.duplicates_to = section
        .read_optional(report, "duplicates_to", |v| value::exchange(value::text(v, "orders.duplicates")?))
        .map(Arc::from);
    signals.audit = section.read(report, "audit", signals.audit, value::boolean);
    limits.refresh_on_duplicate = section.read(report, "refresh_on_duplicate", false, value::boolean);
    rules.forward_to = section
        .read_optional(report, "forward_to", |v| value::exchange(value::text(v, "orders.backing")?))
        .map(Arc::from);
    rules.confirms = section.read(report, "confirms", rules.confirms, |v| value::word(v, "shadow"));
    rules.verify_routing = section.read(report, "verify_routing", rules.verify_routing, value::boolean);
    section.finish(report);
    window
}

/// Begins to read a window or a guard: its name, as in `example`, and the patterns of the vhosts, and of the exchanges or queues (`places`).
pub(super) fn read_named(
    section: &mut Section<'_>,
    example: &'static str,
    places: &'static str,
    report: &mut Report,
) -> WindowConfig {
    let begin = section.source();
    let name = section.read_optional(report, "name", |v| value::name(value::text(v, example)?));
    if !report.sources.contains_key(&section.path_of("name")) {
        let what = format!("{} is missing", section.title_of("name"));
        let fix = format!("give it a name, as in name = \"{example}\": metrics and the API call it so");
        report.problem(&begin, what, fix);
    }
    let mut window = WindowConfig::named(name.as_deref().unwrap_or(""));
    for (key, slot) in [("vhost", &mut window.vhost), (places, &mut window.exchange)] {
        if let Some(pattern) = section.read_optional(report, key, |v| value::pattern(value::text(v, "*")?)) {
            *slot = pattern;
        }
    }
    window
}

/// Reads what a window or a guard remembers, where, and for how long.
pub(super) fn read_memory(
    section: &mut Section<'_>,
    window: &mut WindowConfig,
    waiters: usize,
    report: &mut Report,
) {
    let limits = &mut window.limits;
    let capacity = Some(limits.capacity);
    match section.read(report, "capacity", capacity, |v| value::capacity(v, 1..=most::IDS)) {
        Some(capacity) => limits.capacity = capacity,
        None => window.auto = true,
    }
    window.weight = section.read(report, "weight", window.weight, |v| {
        value::count(v, 1..=most::WEIGHT).map(|weight| u32::try_from(weight).unwrap_or(u32::MAX))
    });
    limits.ttl = section.read(report, "ttl", limits.ttl, |v| value::duration(v, TICK..=most::TTL));
    window.engine = section.read(report, "engine", window.engine, |v| value::word(v, "compact"));
    window.store = section.read(report, "store", window.store, |v| value::word(v, "disk"));
    let policy = &mut window.policy;
    policy.remember = section.read(report, "remember", policy.remember, |v| value::word(v, "async"));
    policy.delay = section
        .read(report, "remember_delay", policy.delay, |v| value::duration(v, TICK..=most::REMEMBER_DELAY));
    policy.on_outage = section.read(report, "on_outage", policy.on_outage, |v| value::word(v, "refuse"));
    limits.mode = section.read(report, "mode", limits.mode, |v| value::word(v, "enforce"));
    limits.waiters_per_id =
        section.read(report, "waiters_per_id", waiters, |v| value::count(v, 0..=most::WAITERS));
}

/// Returns where the id is: `id`, or what `preset` stands for.
pub(super) fn read_id(section: &mut Section<'_>, default: IdSource, report: &mut Report) -> IdSource {
    let id = section.read_optional(report, "id", value::id);
    let preset: Option<Preset> = section.read_optional(report, "preset", |v| value::word(v, "celery"));
    let Some(preset) = preset else { return id.unwrap_or(default) };
    let (id_path, source) = (section.path_of("id"), report.source(&section.path_of("preset")));
    if report.sources.contains_key(&id_path) {
        let what = format!("{} and `id` both say where the id is", section.title_of("preset"));
        report.problem(&source, what, "leave one of them out");
    }
    report.sources.insert(id_path, source);
    preset.id()
}

/// Reports a name that two windows have: their metrics would be mixed up.
fn check_names(config: &Config, report: &mut Report) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, window) in config.windows.iter().enumerate() {
        let name = &*window.rules.name;
        if name.is_empty() {
            continue; // reported already
        }
        if let Some(first) = seen.insert(name, index) {
            let kind = config.windows.get(first).map(|window| window.judges).unwrap_or_default().section();
            let first = report.place(&report.source(&format!("{}.name", guard::path_of(config, first))));
            let source = report.source(&format!("{}.name", guard::path_of(config, index)));
            report.problem(
                &source,
                format!("a {kind} named \"{name}\" is there already, at {first}"),
                "give it another name",
            );
        }
    }
}

/// Reports a quota that nothing would keep.
fn check_quotas(config: &Config, report: &mut Report) {
    for (index, window) in
        config.windows.iter().enumerate().filter(|(_, window)| window.rules.quota.is_some())
    {
        let (name, quota) = (&window.rules.name, window.rules.quota.name());
        let source = report.source(&format!("window.{index}.quota"));
        let mut problem = |why: &str, fix: &str| {
            report.problem(&source, format!("window \"{name}\": `quota` is \"{quota}\", but {why}"), fix);
        };
        if !window.engine.has_tenants() {
            let why =
                format!("its engine \"{}\" can't divide a capacity among tenants", window.engine.name());
            problem(
                &why,
                "write engine = \"compact\", which can, or leave `engine` out; or leave `quota` out",
            );
        }
        if window.store == StoreKind::Redis {
            let why = "its `store` is \"redis\": Redis decides what it evicts, and knows no tenants";
            problem(why, "leave `quota` out, or choose store = \"memory\", \"disk\" or \"stream\"");
        }
    }
}

/// Reports a release that could never happen, because a delivery does not show the key of its publish.
fn check_releases(config: &Config, report: &mut Report) {
    let releasing = config.windows.iter().enumerate();
    for (index, window) in releasing.filter(|(_, window)| window.rules.release == Release::Consumed) {
        let rules = &window.rules;
        let why = match (&rules.id, &rules.forward_to) {
            (IdSource::Body, _) => "`id` is \"body\", and a delivery is not held until its body is known",
            (_, Some(_)) if rules.scope != Scope::Vhost => {
                "`forward_to` sends messages to another exchange, so a delivery does not show where it was published"
            }
            _ => continue,
        };
        let source = report.source(&format!("{}.release", guard::path_of(config, index)));
        report.problem(
            &source,
            format!("{}: `release` is \"consumed\", but {why}", window.title()),
            "leave `release` out; or take the id from a property or a header, and with `forward_to` write scope = \"vhost\"",
        );
    }
}

/// Reports a window whose store is not told where to keep it, or with which secret.
fn check_stores(config: &Config, report: &mut Report) {
    let has_secret = config.digest_secret_file.is_some() || report.is_wrong("digest_secret_file");
    let has_folder = config.state_dir.is_some() || report.is_wrong("state_dir");
    for (index, window) in config.windows.iter().enumerate() {
        let (title, kind) = (window.title(), window.store.name());
        let path = guard::path_of(config, index);
        let mut missing = |what: &str, fix: &str| {
            let source = report.source(&format!("{path}.store"));
            report.problem(&source, format!("{title}: `store` is \"{kind}\", but there is no {what}"), fix);
        };
        match window.store {
            StoreKind::Memory => continue,
            StoreKind::Disk if !has_folder => missing(
                "`state_dir` to keep it in",
                "write state_dir = \"/var/lib/hapax\" at the top of the file, above every [section]",
            ),
            StoreKind::Stream if config.store.stream.is_none() => missing(
                "`[store.stream]` that says where the stream is",
                "write a line [store.stream], and below it uri = \"amqp://hapax:PASSWORD@127.0.0.1:5672\"",
            ),
            StoreKind::Redis if config.store.redis.is_none() => missing(
                "`[store.redis]` that says where Redis is",
                "write a line [store.redis], and below it url = \"redis://127.0.0.1:6379\"",
            ),
            StoreKind::Disk | StoreKind::Stream | StoreKind::Redis => {}
        }
        if matches!(window.store, StoreKind::Stream | StoreKind::Redis) && !has_secret && !has_folder {
            let source = report.source(&format!("{path}.store"));
            report.problem(
                &source,
                format!("{title}: `store` is \"{kind}\", which outlives this process, but the secret of the digests would not"),
                "name a file with the secret that all relays of this window share, as in digest_secret_file = \"/etc/hapax/digest.secret\" (openssl rand -hex 16); for one relay alone, state_dir = \"/var/lib/hapax\" is enough",
            );
        }
    }
}

/// Gives each window with capacity "auto" its share of the memory budget. Reports a budget that is missing or too
/// small.
fn share_budget(config: &mut Config, report: &mut Report) {
    let autos = || config.windows.iter().enumerate().filter(|(_, window)| window.auto);
    let Some((first, window)) = autos().next() else { return };
    for (index, window) in autos().filter(|(_, window)| !window.engine.resizes_in_place()) {
        let (title, engine) = (window.title(), window.engine.name());
        report.problem(
            &report.source(&format!("{}.capacity", guard::path_of(config, index))),
            format!("{title}: `capacity` is \"auto\", but its engine \"{engine}\" makes a new store at each change of it"),
            "choose another engine, or give `capacity` a number",
        );
    }
    let weights = autos().map(|(_, window)| window.weight).sum();
    // The total must be so large that the share of each window is enough for it.
    let least = autos().map(|(_, window)| {
        let (weight, weights) = (u128::from(window.weight), u128::from(weights));
        usize::try_from((budget::least_bytes(window.engine) as u128 * weights).div_ceil(weight))
    });
    let least = least.map(|bytes| bytes.unwrap_or(usize::MAX)).max().unwrap_or(0);
    let Some(bytes) = config.memory_budget else {
        if !report.sources.contains_key("memory_budget") {
            report.problem(
                &report.source(&format!("{}.capacity", guard::path_of(config, first))),
                format!("{}: `capacity` is \"auto\", but there is no `memory_budget` to share", window.title()),
                "write memory_budget = \"512MiB\" at the top of the file, above every [section], or give `capacity` a number",
            );
        }
        return;
    };
    if bytes < least {
        report.problem(
            &report.source("memory_budget"),
            format!("`memory_budget` is {bytes} bytes, too little for the windows with capacity = \"auto\""),
            format!("write \"{}MiB\" or more", least.div_ceil(1 << 20)),
        );
        return;
    }
    for window in config.windows.iter_mut().filter(|window| window.auto) {
        window.limits.capacity = budget::capacity_at_start(window.engine, bytes, window.weight, weights);
    }
}
