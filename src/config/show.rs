//! Writes the settings in force as a configuration file.

use super::show_tls;
use super::value::{show_bytes, show_id};
use super::{Config, PublishingSettings, Sources, guard, warnings};
use hapax_core::window::set::Pattern;
use hapax_core::wire::IdSource;
use std::fmt::{self, Display, Write};
use std::time::Duration;

/// The column at which the sources begin.
const COLUMN: usize = 44;

/// Returns the settings in force as TOML, each line with its source.
pub(super) fn to_toml(config: &Config, sources: &Sources) -> String {
    write(config, sources).text
}

/// Returns the path of each key in [`Sources`], and its value as TOML. A password is shown as `***`.
pub(super) fn entries(config: &Config) -> Vec<(String, String)> {
    write(config, &Sources::new()).entries
}

fn write<'a>(config: &Config, sources: &'a Sources) -> Out<'a> {
    let mut out = Out { text: String::new(), entries: Vec::new(), path: String::new(), sources };
    // Writing to a String can't fail.
    let _ = write_config(config, &mut out);
    out
}

pub(super) struct Out<'a> {
    text: String,
    entries: Vec<(String, String)>,
    path: String,
    sources: &'a Sources,
}

impl Out<'_> {
    pub(super) fn section(&mut self, header: &str, path: String) -> fmt::Result {
        self.path = path;
        writeln!(self.text, "\n{header}")
    }

    /// Writes a key, its value as TOML, and its source.
    pub(super) fn raw(&mut self, key: &str, value: impl Display) -> fmt::Result {
        let path = format!("{}{key}", self.path);
        let source = self.sources.get(&path).cloned().unwrap_or_default();
        let value = value.to_string();
        let line = format!("{key} = {value}");
        self.entries.push((path, value));
        writeln!(self.text, "{line:<COLUMN$} # {source}")
    }

    pub(super) fn string(&mut self, key: &str, value: impl Display) -> fmt::Result {
        self.raw(key, toml::Value::String(value.to_string()))
    }

    fn duration(&mut self, key: &str, value: Duration) -> fmt::Result {
        self.string(key, humantime::format_duration(value))
    }

    /// Writes a key with an enum's word, as its `Serialize` writes it.
    pub(super) fn word(&mut self, key: &str, value: impl serde::Serialize) -> fmt::Result {
        let value = toml::Value::try_from(value).map_err(|_| fmt::Error)?;
        self.raw(key, value)
    }
}

fn write_config(config: &Config, out: &mut Out<'_>) -> fmt::Result {
    if let Some(listen) = config.listen {
        out.string("listen", listen)?;
    }
    match config.upstreams.as_slice() {
        [upstream] => out.string("upstream", upstream)?,
        upstreams => out.raw("upstream", list(upstreams))?,
    }
    out.word("upstream_order", config.upstream_order)?;
    out.word("upstream_proxy_protocol", config.upstream_proxy_protocol)?;
    out.raw("loopback_users", toml::Value::from(config.loopback_users.clone()))?;
    match config.admin {
        Some(admin) => out.string("admin", admin)?,
        None => out.string("admin", "off")?,
    }
    if let Some(file) = &config.admin_token_file {
        out.string("admin_token_file", file.display())?;
    }
    // The token itself is never shown.
    if let Some(source) = out.sources.get("admin_token") {
        writeln!(out.text, "{:<COLUMN$} # {source}", "# (the admin listener's token)")?;
    }
    if let Some(file) = &config.admin_read_only_token_file {
        out.string("admin_read_only_token_file", file.display())?;
    }
    if let Some(file) = &config.digest_secret_file {
        out.string("digest_secret_file", file.display())?;
    }
    out.raw("reuse_port", config.reuse_port)?;
    if let Some(dir) = &config.state_dir {
        out.string("state_dir", dir.display())?;
    }
    if let Some(bytes) = config.memory_budget {
        out.raw("memory_budget", show_bytes(bytes))?;
    }

    show_tls::write(config, out)?;

    let limits = &config.limits;
    out.section("[limits]", "limits.".into())?;
    out.raw("max_connections", limits.max_connections)?;
    out.raw("connections_per_address", limits.connections_per_address)?;
    out.raw("connections_per_user", limits.connections_per_user)?;
    out.raw("handshakes", limits.handshakes)?;
    out.raw("publish_rate_per_user", limits.publish_rate_per_user)?;
    out.raw("publish_rate_per_vhost", limits.publish_rate_per_vhost)?;
    out.raw("publish_burst", limits.publish_burst)?;
    out.raw("memory", show_bytes(limits.memory))?;
    out.raw("max_unresolved", limits.max_unresolved)?;
    out.raw("held_bytes", show_bytes(limits.held_bytes))?;
    out.raw("waiters_per_id", limits.waiters_per_id)?;
    out.raw("frame_max", show_bytes(limits.frame_max as usize))?;
    out.raw("initial_frame_max", show_bytes(limits.initial_frame_max as usize))?;
    out.raw("buffer_bytes", show_bytes(limits.buffer_bytes))?;
    out.raw("unread_bytes", show_bytes(limits.unread_bytes))?;

    if let Some(stream) = &config.store.stream {
        out.section("[store.stream]", "store.stream.".into())?;
        match &stream.uri_file {
            Some(file) => out.string("uri_file", file.display())?,
            None => out.raw("uri", list(&stream.nodes))?,
        }
        out.raw("declare", stream.declare)?;
        out.raw("max_bytes", show_bytes(stream.max_bytes))?;
        show_tls::write_client("store.stream.tls", stream.tls.as_ref(), out)?;
    }
    if let Some(redis) = &config.store.redis {
        out.section("[store.redis]", "store.redis.".into())?;
        match &redis.url_file {
            Some(file) => out.string("url_file", file.display())?,
            None => out.raw("url", list(&redis.nodes))?,
        }
        out.word("mode", redis.mode)?;
        out.string("sentinel_master", &redis.sentinel_master)?;
        if let Some(file) = &redis.ca_file {
            out.string("ca_file", file.display())?;
        }
        out.duration("lease", redis.lease)?;
        out.raw("replicas", redis.replicas)?;
        out.string("prefix", &redis.prefix)?;
    }

    if let Some(duplicates) = &config.duplicates {
        write_publishing("duplicates", duplicates, out)?;
    }

    let chaos = &config.chaos;
    out.section("[chaos]", "chaos.".into())?;
    out.raw("enabled", chaos.enabled)?;
    out.raw("vhosts", patterns(&chaos.vhosts))?;
    out.raw("users", patterns(&chaos.users))?;
    out.duration("max_duration", chaos.max_duration)?;
    out.duration("max_hold", chaos.max_hold)?;
    if let Some(replay) = &chaos.replay {
        write_publishing("chaos.replay", replay, out)?;
    }

    let health = &config.upstream_health;
    out.section("[upstream_health]", "upstream_health.".into())?;
    out.duration("interval", health.interval)?;
    out.duration("timeout", health.timeout)?;
    out.duration("rest", health.rest)?;
    out.duration("max_rest", health.max_rest)?;

    let timeouts = &config.timeouts;
    out.section("[timeouts]", "timeouts.".into())?;
    out.duration("linger", timeouts.linger)?;
    out.duration("in_flight", timeouts.in_flight)?;
    out.duration("store", timeouts.store)?;
    out.duration("handshake", timeouts.handshake)?;
    out.duration("rights", timeouts.rights)?;
    out.duration("drain", timeouts.drain)?;
    out.duration("drain_delay", timeouts.drain_delay)?;
    out.duration("takeover", timeouts.takeover)?;
    out.duration("upstream_connect", timeouts.upstream_connect)?;
    out.duration("tcp_user", timeouts.tcp_user)?;
    out.duration("unread", timeouts.unread)?;

    out.section("[log]", "log.".into())?;
    out.word("format", config.log.format)?;
    out.string("level", &config.log.level)?;

    let telemetry = &config.telemetry;
    out.section("[telemetry]", "telemetry.".into())?;
    if let Some(endpoint) = &telemetry.endpoint {
        out.string("endpoint", endpoint)?;
    }
    out.duration("interval", telemetry.interval)?;
    match telemetry.spans_every {
        0 => out.string("spans", "off")?,
        every => out.raw("spans", toml::Value::Float(1.0 / f64::from(every)))?,
    }
    show_tls::write_client("telemetry.tls", telemetry.tls.as_ref(), out)?;

    for (index, window) in config.windows.iter().enumerate() {
        let header = format!("[[{}]]", window.judges.section());
        out.section(&header, format!("{}.", guard::path_of(config, index)))?;
        match window.is_guard() {
            true => write_guard(window, out)?,
            false => write_window(window, out)?,
        }
    }
    let windows = about_bytes(warnings::windows_bytes(config));
    writeln!(
        out.text,
        "\n# memory when full: all windows {windows}, connections at most {} (limits.memory)",
        about_bytes(limits.memory)
    )
}

fn write_publishing(name: &str, settings: &PublishingSettings, out: &mut Out<'_>) -> fmt::Result {
    out.section(&format!("[{name}]"), format!("{name}."))?;
    match &settings.uri_file {
        Some(file) => out.string("uri_file", file.display())?,
        None => out.raw("uri", list(&settings.nodes))?,
    }
    out.raw("messages", settings.messages)?;
    out.raw("bytes", show_bytes(settings.bytes))?;
    show_tls::write_client(&format!("{name}.tls"), settings.tls.as_ref(), out)
}

fn patterns(patterns: &[Pattern]) -> toml::Value {
    toml::Value::Array(patterns.iter().map(|pattern| pattern.as_str().into()).collect())
}

/// Returns the servers as TOML. A password is shown as `***`.
fn list(nodes: &[impl Display]) -> toml::Value {
    toml::Value::Array(nodes.iter().map(|node| toml::Value::String(node.to_string())).collect())
}

fn write_window(window: &super::WindowConfig, out: &mut Out<'_>) -> fmt::Result {
    let (rules, limits) = (&window.rules, &window.limits);
    out.string("name", &rules.name)?;
    out.string("vhost", window.vhost.as_str())?;
    out.string("exchange", window.exchange.as_str())?;
    out.raw("id", show_id(&rules.id))?;
    out.word("scope", rules.scope)?;
    out.word("quota", rules.quota)?;
    write_memory(window, out)?;
    out.word("in_doubt", rules.in_doubt)?;
    out.word("missing_id", rules.missing_id)?;
    if rules.id == IdSource::Sequence {
        out.word("on_gap", rules.numbering.on_gap)?;
        out.raw("places", rules.numbering.places)?;
    } else {
        out.word("on_conflict", rules.on_conflict)?;
    }
    out.word("on_duplicate", rules.signals.on_duplicate)?;
    if let Some(exchange) = &rules.signals.duplicates_to {
        out.string("duplicates_to", exchange)?;
    }
    out.raw("audit", rules.signals.audit)?;
    out.word("republish", rules.republish)?;
    out.word("release", rules.release)?;
    out.raw("refresh_on_duplicate", limits.refresh_on_duplicate)?;
    out.raw("waiters_per_id", limits.waiters_per_id)?;
    if let Some(exchange) = &rules.forward_to {
        out.string("forward_to", exchange)?;
    }
    out.word("confirms", rules.confirms)?;
    out.raw("verify_routing", rules.verify_routing)
}

fn write_guard(guard: &super::WindowConfig, out: &mut Out<'_>) -> fmt::Result {
    let (rules, limits) = (&guard.rules, &guard.limits);
    out.string("name", &rules.name)?;
    out.string("vhost", guard.vhost.as_str())?;
    out.string("queue", guard.exchange.as_str())?;
    out.raw("id", show_id(&rules.id))?;
    write_memory(guard, out)?;
    out.raw("waiters_per_id", limits.waiters_per_id)
}

/// Writes what a window or a guard remembers, where, and for how long.
fn write_memory(window: &super::WindowConfig, out: &mut Out<'_>) -> fmt::Result {
    let (limits, policy) = (&window.limits, &window.policy);
    match window.auto {
        true => out.string("capacity", "auto")?,
        false => out.raw("capacity", limits.capacity)?,
    }
    if !window.auto {
        writeln!(out.text, "# takes {} when it is full", about_bytes(warnings::window_bytes(window)))?;
    }
    out.raw("weight", window.weight)?;
    out.duration("ttl", limits.ttl)?;
    if window.rules.id != IdSource::Sequence {
        out.word("engine", window.engine)?;
    }
    out.word("store", window.store)?;
    out.word("remember", policy.remember)?;
    out.duration("remember_delay", policy.delay)?;
    out.word("on_outage", policy.on_outage)?;
    out.word("mode", limits.mode)
}

/// Writes a size for people, with three digits.
pub(super) fn about_bytes(bytes: usize) -> String {
    let units = [(1_usize << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let amount = bytes as f64 / unit as f64;
            let places = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
            format!("{amount:.places$} {name}")
        }
        None => format!("{bytes} B"),
    }
}
