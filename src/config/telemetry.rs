//! `[telemetry]`: where metrics and spans are sent, as OTLP.

use super::problem::{Report, Wrong};
use super::raw::Section;
use super::{TICK, Telemetry, most};
use super::{listener, value};
use toml::de::DeValue;
use url::Url;

/// The largest number of publishes of which one is looked at: a ratio of a millionth.
const RAREST: f64 = 1e6;

/// Reads the table.
pub(super) fn read(mut section: Section<'_>, report: &mut Report) -> Telemetry {
    let default = Telemetry::default();
    let tls = section.section("tls", report);
    let tls_source = tls.source();
    let tls = listener::read_client(tls, report);
    let mut telemetry = Telemetry {
        endpoint: section
            .read_optional(report, "endpoint", |v| endpoint(value::text(v, "http://127.0.0.1:4318")?)),
        tls,
        interval: section
            .read(report, "interval", default.interval, |v| value::duration(v, TICK..=most::TIMEOUT)),
        spans_every: section.read(report, "spans", default.spans_every, spans),
    };
    section.finish(report);
    let uses_tls = telemetry.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("https:"));
    if uses_tls {
        telemetry.tls.get_or_insert_default();
    } else if telemetry.tls.is_some() && !report.is_wrong("telemetry.endpoint") {
        let what =
            "`[telemetry.tls]` means nothing, because `telemetry.endpoint` does not begin with https://";
        report.problem(&tls_source, what, "write endpoint = \"https://HOST:PORT\", or leave the section out");
    }
    if telemetry.spans_every > 0 && telemetry.endpoint.is_none() && !report.is_wrong("telemetry.endpoint") {
        let source = report.source("telemetry.spans");
        let fix = "name the collector, as in endpoint = \"http://127.0.0.1:4318\"";
        report.problem(&source, "`telemetry.spans` is set, but there is no `telemetry.endpoint`", fix);
    }
    telemetry
}

/// Checks the collector's address. Returns it without a slash at its end.
fn endpoint(text: &str) -> Result<String, Wrong> {
    let fix = "write the collector's address for OTLP over HTTP, as in \"http://127.0.0.1:4318\"";
    let wrong = |what: &str| Wrong::new(format!("is {text:?}, {what}"), fix);
    let url = Url::parse(text).map_err(|_| wrong("which is no URL"))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(wrong("which is not HTTP")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new("has a user or a password in it", fix));
    }
    if url.host_str().is_none() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("which is not the address of a collector"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Reads how many publishes are looked at. Returns every how many one is; 0: none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and a million")]
fn spans(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let fix = "write \"off\", or the share of the publishes that is looked at: a number above 0, up to 1, as in 0.01";
    let ratio: f64 = match value {
        DeValue::String(text) if text == "off" => return Ok(0),
        DeValue::Float(number) => number.as_str().parse().unwrap_or(f64::NAN),
        DeValue::Integer(number) => number.as_str().parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    if !(1.0 / RAREST..=1.0).contains(&ratio) {
        return Err(Wrong::new("is neither \"off\" nor a share", fix));
    }
    Ok((1.0 / ratio).round() as u32)
}
