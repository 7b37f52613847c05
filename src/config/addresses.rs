//! Checks addresses against each other: where Hapax listens, and where the broker is.

use super::problem::Report;
use super::{Config, UpstreamAddress};
use std::net::{IpAddr, SocketAddr};

/// Reports an address that is used twice, an upstream that is Hapax itself, an admin listener that other hosts can
/// reach without a token, and a read-only token that would let nobody change anything, or everybody.
pub(super) fn check(config: &Config, report: &mut Report) {
    check_read_only_token(config, report);
    if let Some(admin) = config.admin {
        let source = report.source("admin");
        let token_is_wrong = report.is_wrong("admin_token_file") || report.is_wrong("admin_token");
        if !admin.ip().is_loopback() && config.admin_token.is_none() && !token_is_wrong {
            report.problem(
                &source,
                format!("`admin` is \"{admin}\", which other hosts may reach, but there is no token to ask them for"),
                "name a file with a token in `admin_token_file` or set HAPAX_ADMIN_TOKEN (openssl rand -hex 32 makes one), or use a loopback address, as in \"127.0.0.1:15673\"",
            );
        }
        for (key, listener) in config.all_listeners() {
            if overlap(admin, listener.address) {
                report.problem(
                    &source,
                    format!("`admin` and `{key}` both want port {}", admin.port()),
                    "give one of them another port",
                );
            }
        }
    }
    let mut before: Vec<(String, SocketAddr)> = Vec::new();
    for (key, listener) in config.all_listeners() {
        let source = report.source(&key);
        if let Some((other, _)) = before.iter().find(|(_, address)| overlap(*address, listener.address)) {
            report.problem(
                &source,
                format!("`{other}` and `{key}` both want port {}", listener.address.port()),
                "give one of them another port",
            );
        }
        if let Some(upstream) = config.upstreams.iter().find(|upstream| is_self(upstream, listener.address)) {
            report.problem(
                &report.source("upstream").max(source),
                format!("`upstream` is {upstream}, where Hapax itself listens: it would relay to itself"),
                format!("name the broker's address in `upstream`, or another port in `{}`", shown_key(&key)),
            );
        }
        before.push((key, listener.address));
    }
}

fn check_read_only_token(config: &Config, report: &mut Report) {
    let Some(read_only) = &config.admin_read_only_token else { return };
    let source = report.source("admin_read_only_token_file");
    match &config.admin_token {
        Some(admin) if admin == read_only => report.problem(
            &source,
            "`admin_read_only_token_file` names a file with the admin token in it: who has it could change everything",
            "write another token into it (openssl rand -hex 32 makes one)",
        ),
        None if !report.is_wrong("admin_token_file") && !report.is_wrong("admin_token") => report.problem(
            &source,
            "`admin_read_only_token_file` is set, but there is no admin token beside it",
            "name a file with another token in `admin_token_file`, or set HAPAX_ADMIN_TOKEN",
        ),
        _ => {}
    }
}

/// Returns the name of a listener's key for a message.
fn shown_key(key: &str) -> &str {
    if key == "listen" { "listen" } else { "address" }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any)
}

/// Returns true if the upstream is certainly this process. Only the name `localhost` is resolved.
fn is_self(upstream: &UpstreamAddress, listen: SocketAddr) -> bool {
    let here = |ip: IpAddr| ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback());
    upstream.port == listen.port() && upstream.address().is_some_and(here)
}
