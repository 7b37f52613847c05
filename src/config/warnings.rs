//! Settings that are allowed, but probably not meant: each gets a warning with what to write instead, in `hapax check` and at
//! the start.

use super::problem::{Report, Source};
use super::show::about_bytes;
use super::{Config, StoreKind, WindowConfig, chaos, guard, upstream};
use hapax_core::pressure::budget;
use hapax_core::session::is_loopback;
use hapax_core::window::set::Pattern;
use hapax_core::window::{Mode, Release, Remember, Scope, StorePolicy};
use hapax_core::wire::IdSource;

/// Adds all warnings about this configuration. This machine has `memory` bytes for the process.
pub(super) fn add(config: &Config, memory: usize, report: &mut Report) {
    warn_all_local(config, report);
    upstream::warn(config, report);
    warn_no_window(config, report);
    warn_unreachable(config, report);
    warn_patterns(config, report);
    warn_memory(config, memory, report);
    warn_stores(config, report);
    warn_releases(config, report);
    warn_shared_releases(config, report);
    chaos::warn(config, report);
}

/// Warns of guards beside windows that let a job be queued again when it is done: the guard hides such a job.
fn warn_releases(config: &Config, report: &mut Report) {
    let releases = |window: &&WindowConfig| window.rules.release == Release::Consumed;
    let Some(releasing) = config.windows.iter().find(releases) else { return };
    for (index, guard) in config.windows.iter().enumerate().filter(|(_, window)| window.is_guard()) {
        let source = report.source(&format!("{}.queue", guard::path_of(config, index)));
        let what = format!(
            "{} hides for its `ttl` what was acked, and window \"{}\" lets it be queued again at once (release = \"consumed\"): such a job is stored, acked to its publisher, and never shown",
            guard.title(),
            releasing.rules.name
        );
        report.warning(
            &source,
            what,
            "make sure that the guard's `queue` and `vhost` match no queue of that window",
        );
    }
}

/// Warns of windows whose ids are released by a delivery that does not show who has published it, although not everybody who may publish one
/// such message may publish the others.
fn warn_shared_releases(config: &Config, report: &mut Report) {
    let windows = (0_usize..).zip(&config.windows);
    for (index, window) in windows.filter(|(_, window)| window.rules.release == Release::Consumed) {
        let who = match window.rules.scope {
            Scope::RoutingKey => continue,
            Scope::Exchange => "who may write one routing key of an exchange",
            Scope::Vhost => "who may write to one exchange of this window",
        };
        let source = report.source(&format!("{}.scope", guard::path_of(config, index)));
        let what = format!(
            "{}: {who} can release the ids of all others there (release = \"consumed\"): the ack of a message counts for its id, whoever has published it",
            window.title()
        );
        report.warning(
            &source,
            what,
            "write scope = \"routing-key\", or let only users publish there who may write everything",
        );
    }
}

/// Returns the most bytes that all windows take when they are full, with the accounting of their pressure.
pub(super) fn windows_bytes(config: &Config) -> usize {
    let fixed = config.windows.iter().filter(|window| !window.auto).map(window_bytes);
    let auto = if config.windows.iter().any(|window| window.auto) { config.memory_budget } else { None };
    fixed.chain(auto).fold(0, usize::saturating_add)
}

/// Returns the most bytes that a window takes when it is full, with the accounting of its pressure.
pub(super) fn window_bytes(window: &WindowConfig) -> usize {
    if window.rules.id == IdSource::Sequence {
        return window.rules.numbering.bytes_at(window.limits.capacity);
    }
    let tenants =
        if window.rules.quota.is_some() { window.engine.tenant_bytes_at(window.limits.capacity) } else { 0 };
    budget::full_bytes(window.engine, window.limits.capacity) + tenants
}

/// Warns of keys about a store that nothing uses. Their defaults may stand anywhere.
fn warn_stores(config: &Config, report: &mut Report) {
    let default = StorePolicy::default();
    for (index, window) in config.windows.iter().enumerate() {
        let (policy, title) = (&window.policy, window.title());
        let path = guard::path_of(config, index);
        let is_memory = window.store == StoreKind::Memory;
        let mut warn = |key: &str, why: &str, fix: &str| {
            let source = report.source(&format!("{path}.{key}"));
            report.warning(&source, format!("{title}: `{key}` means nothing, because {why}"), fix);
        };
        let changed = [
            ("remember", policy.remember != default.remember),
            ("remember_delay", policy.delay != default.delay),
            ("on_outage", policy.on_outage != default.on_outage),
        ];
        for (key, _) in changed.into_iter().filter(|(_, changed)| *changed && is_memory) {
            let fix = "leave it out, or choose a store that outlives the process (docs/stores.md)";
            warn(key, "`store` is \"memory\"", fix);
        }
        if !is_memory && policy.remember == Remember::Sync && policy.delay != default.delay {
            warn("remember_delay", "`remember` is \"sync\"", "leave it out, or write remember = \"async\"");
        }
    }
    let unused = [
        ("store.stream", StoreKind::Stream, config.store.stream.is_some()),
        ("store.redis", StoreKind::Redis, config.store.redis.is_some()),
    ];
    for (section, kind, is_there) in unused {
        if is_there && config.windows.iter().all(|window| window.store != kind) {
            let first =
                report.sources.range(format!("{section}.")..).next().map(|(_, source)| source.clone());
            let what = format!("no window uses `[{section}]`");
            let fix =
                format!("write store = \"{}\" into the section of a window, or leave it out", kind.name());
            report.warning(&first.unwrap_or_default(), what, fix);
        }
    }
}

/// Warns if the windows and the connections may need more memory than there is.
fn warn_memory(config: &Config, memory: usize, report: &mut Report) {
    let windows = windows_bytes(config);
    let all = windows.saturating_add(config.limits.memory);
    if all <= memory {
        return;
    }
    let largest = config.windows.iter().enumerate().max_by_key(|(_, window)| window_bytes(window));
    let source = largest.map_or(Source::Default, |(index, _)| {
        report.source(&format!("{}.capacity", guard::path_of(config, index)))
    });
    report.warning(
        &source,
        format!(
            "full windows take up to {}, and connections up to {} (limits.memory), but there are {} of memory for this process",
            about_bytes(windows),
            about_bytes(config.limits.memory),
            about_bytes(memory)
        ),
        "lower `capacity`, or `limits.memory`; or raise the memory limit of the control group (MemoryMax=, docker --memory)",
    );
}

/// Warns of patterns that are written in another language than that of [`Pattern`], so that no name fits them.
fn warn_patterns(config: &Config, report: &mut Report) {
    for (index, window) in config.windows.iter().enumerate() {
        let patterns = [
            ("vhost", &window.vhost, vhost_trouble(&window.vhost)),
            match window.is_guard() {
                true => ("queue", &window.exchange, pattern_trouble(window.exchange.as_str())),
                false => ("exchange", &window.exchange, exchange_trouble(&window.exchange)),
            },
        ];
        for (key, pattern, trouble) in patterns {
            let Some((why, instead)) = trouble else { continue };
            let source = report.source(&format!("{}.{key}", guard::path_of(config, index)));
            let title = window.title();
            report.warning(
                &source,
                format!(
                    "{title}: `{key}` is \"{}\", which fits no name that is likely: {why}",
                    pattern.as_str()
                ),
                instead,
            );
        }
    }
}

/// Why a pattern fits nothing, and what to write instead.
type Trouble = Option<(&'static str, String)>;

fn vhost_trouble(pattern: &Pattern) -> Trouble {
    match pattern.as_str() {
        "" => Some((
            "no vhost has an empty name",
            "write \"/\" for the default vhost, or \"*\" for all".to_owned(),
        )),
        "%2F" | "%2f" => Some(("a vhost is not written as in a URL", "write \"/\"".to_owned())),
        text => pattern_trouble(text),
    }
}

fn exchange_trouble(pattern: &Pattern) -> Trouble {
    match pattern.as_str() {
        "(AMQP default)" | "amq.default" => {
            Some(("the default exchange has an empty name", "write exchange = \"\"".to_owned()))
        }
        text => pattern_trouble(text),
    }
}

fn pattern_trouble(text: &str) -> Trouble {
    let inner = text.strip_prefix('^').unwrap_or(text);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let is_regex =
        inner != text || inner.contains(".*") && (inner.starts_with(".*") || inner.contains(['(', '+']));
    if is_regex {
        let glob = inner
            .replace(".*", "*")
            .replace(".+", "?*")
            .replace('(', "{")
            .replace(')', "}")
            .replace('|', ",");
        return Some(("this is no regular expression; * alone is any text", format!("write \"{glob}\"")));
    }
    if text.contains('|') {
        let parts = text.split('|').map(str::trim).collect::<Vec<_>>().join(",");
        return Some(("| does not mean \"or\" here", format!("write \"{{{parts}}}\"")));
    }
    if text.contains('#') {
        return Some((
            "# is of binding keys, and means nothing here",
            format!(
                "write \"{}\": * is any text, also with dots; and it is the exchange's name that is compared, not the routing key",
                text.replace('#', "*")
            ),
        ));
    }
    if text.trim() != text {
        return Some(("it begins or ends with a blank", format!("write \"{}\"", text.trim())));
    }
    if text.contains(',') && !text.contains('{') {
        return Some(("a comma does not mean \"or\" here", format!("write \"{{{text}}}\"")));
    }
    if !text.contains(['*', '{']) && text.len() > 255 {
        return Some((
            "AMQP carries names of up to 255 bytes",
            "write the name of a vhost or exchange that exists".to_owned(),
        ));
    }
    None
}

/// Warns if the broker takes all clients for local ones. Hapax refuses the users of `loopback_users` in its place, but other
/// users whom RabbitMQ trusts because of their address can't be told from here.
fn warn_all_local(config: &Config, report: &mut Report) {
    let open = config.all_listeners().find(|(_, listener)| !is_loopback(listener.address.ip()));
    let local = config.upstreams.iter().find(|upstream| upstream.is_loopback());
    let (Some((key, listener)), Some(upstream)) = (open, local) else { return };
    let source = report.source(&key).max(report.source("upstream"));
    let what = format!(
        "other hosts may reach `{key}` ({}), and the broker at {upstream} takes every client of Hapax for one of its own host",
        listener.address
    );
    let (what, fix) = if config.loopback_users.is_empty() {
        (
            format!("{what}: `loopback_users` is empty, so guest can log in from anywhere"),
            "write loopback_users = [\"guest\"], or be sure that guest has no password that others know"
                .to_owned(),
        )
    } else {
        (
            format!("{what}; only the users in `loopback_users` are refused from other hosts"),
            "give other hosts users of their own, and list in `loopback_users` all users that rabbitmq.conf lists there"
                .to_owned(),
        )
    };
    report.warning(&source, what, fix);
}

/// Warns of a window that can never judge a publish, because one before it matches everything that it matches.
fn warn_unreachable(config: &Config, report: &mut Report) {
    for (index, window) in config.windows.iter().enumerate() {
        let before = config.windows.iter().take(index).filter(|other| other.judges == window.judges);
        let covers = |other: &&WindowConfig| {
            other.vhost.covers(&window.vhost) && other.exchange.covers(&window.exchange)
        };
        if let Some(other) = before.filter(|other| !std::ptr::eq(*other, window)).find(covers) {
            let source: Source = report.source(&guard::path_of(config, index));
            let (title, other) = (window.title(), &other.rules.name);
            report.warning(
                &source,
                format!("{title} is never reached: \"{other}\" above it takes all that it could get"),
                format!("move it above \"{other}\": the first match wins"),
            );
        }
    }
}

/// Warns if nothing is deduplicated: `window = []`, or every window is off.
fn warn_no_window(config: &Config, report: &mut Report) {
    if config.windows.iter().all(|window| window.limits.mode == Mode::Off) {
        let source = report.source("window");
        report.warning(
            &source,
            "there is no window, or every window is off: nothing is deduplicated",
            "add a [[window]] with mode = \"enforce\" or \"observe\"",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::super::problem::Report;
    use super::*;

    fn warnings(text: &str) -> Vec<(String, String)> {
        let loaded = Config::parse(Some("t"), text, &Overrides::default()).expect(text);
        loaded.warnings.into_iter().map(|warning| (warning.what, warning.fix)).collect()
    }

    #[test]
    fn a_window_that_fits_nothing_gets_the_pattern_that_was_meant() {
        for (key, text, fix) in [
            ("exchange", "a|b", "write \"{a,b}\""),
            ("exchange", "a,b", "write \"{a,b}\""),
            ("exchange", "orders.#", "write \"orders.*\""),
            ("exchange", "^orders.*$", "write \"orders*\""),
            ("exchange", ".*", "write \"*\""),
            ("exchange", "^(a|b)$", "write \"{a,b}\""),
            ("exchange", " orders", "write \"orders\""),
            ("exchange", "amq.default", "write exchange = \"\""),
            ("exchange", "(AMQP default)", "write exchange = \"\""),
            ("vhost", "", "write \"/\""),
            ("vhost", "%2F", "write \"/\""),
            ("vhost", "a|b", "write \"{a,b}\""),
        ] {
            let found = warnings(&format!("[[window]]\nname = \"w\"\n{key} = '{text}'\n"));
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(found[0].0.contains(text) && found[0].1.starts_with(fix), "{text:?}: {found:?}");
        }
        for (key, text) in [
            ("exchange", ""),
            ("exchange", "orders.*"),
            ("exchange", "{a,b}"),
            ("exchange", "a.b"),
            ("exchange", "amq.topic"),
            ("vhost", "/"),
            ("vhost", "/prod"),
            ("vhost", "*"),
        ] {
            assert_eq!(warnings(&format!("[[window]]\nname = \"w\"\n{key} = '{text}'\n")), [], "{text:?}");
        }
    }

    #[test]
    fn a_scope_in_which_some_release_what_is_others_is_told() {
        for (scope, told) in [("routing-key", false), ("exchange", true), ("vhost", true)] {
            let window =
                |release| warnings(&format!("[[window]]\nname = \"w\"\nscope = \"{scope}\"\n{release}"));
            let found = window("release = \"consumed\"\n");
            assert_eq!(
                found.iter().any(|(what, _)| what.contains("release the ids of all others")),
                told,
                "{found:?}"
            );
            assert_eq!(window(""), []);
        }
    }

    #[test]
    fn windows_above_the_machines_memory_are_told() {
        let windows = "[limits]\nmemory = \"64MiB\"\n[[window]]\nname = \"a\"\nexchange = \"a\"\ncapacity = \"1M\"\n[[window]]\nname = \"b\"\ncapacity = \"10M\"\n";
        let config = Config::parse(Some("t"), windows, &Overrides::default()).expect("valid").config;
        let bytes = windows_bytes(&config);
        assert!((430 << 20..3 << 30).contains(&bytes), "11 million ids take {bytes}");
        for (memory, told) in [(bytes + (64 << 20), 0), (bytes + (63 << 20), 1)] {
            let mut report = Report::new(Some("t"), windows);
            add(&config, memory, &mut report);
            let (warnings, _) = report.finish().expect("no problem");
            assert_eq!(warnings.len(), told, "{warnings:?}");
            assert!(warnings.iter().all(|warning| warning.what.contains("full windows take up to")));
        }
    }
}
