//! Parses single values: the meaning of a TOML value or of a flag's text, or what to write instead.

use super::UpstreamAddress;
use super::number;
use super::problem::Wrong;
use super::raw::type_name;
use hapax_core::window::set::Pattern;
use hapax_core::wire::properties::PARTS_MAX;
use hapax_core::wire::{IdPart, IdSource};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as SerdeError, StrDeserializer};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// The longest name that AMQP can carry (a shortstr), in bytes.
const SHORTSTR_MAX: usize = 255;
/// The longest name of a window, in bytes. It is a metric label and part of a URL.
const NAME_MAX: usize = 64;

/// Parses a string.
pub(super) fn text<'a>(value: &'a DeValue<'_>, example: &str) -> Result<&'a str, Wrong> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(Wrong::new(
            format!("is {}, but must be a string", type_name(other)),
            format!("write it in quotes, as in {example:?}"),
        )),
    }
}

/// Parses `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(Wrong::new(
            format!("is {}, but must be true or false", type_name(other)),
            "write true or false, without quotes",
        )),
    }
}

/// Parses a list of users' names.
pub(super) fn names(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let fix = "write a list of names in quotes, as in [\"guest\"], or [] for none";
    let DeValue::Array(items) = value else {
        return Err(Wrong::new(format!("is {}, but must be a list", type_name(value)), fix));
    };
    let name = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::String(name) if !name.is_empty() => Ok(name.to_string()),
        DeValue::String(_) => Err(Wrong::new("has an empty name in it", fix)),
        other => Err(Wrong::new(format!("has {} in it, but must be a list of names", type_name(other)), fix)),
    };
    items.iter().map(name).collect()
}

/// Parses a count within bounds: an integer, or a string as [`number::count`] reads it.
pub(super) fn count(value: &DeValue<'_>, bounds: RangeInclusive<usize>) -> Result<usize, Wrong> {
    let fix = format!(
        "write a number from {} to {}, as in 2000000, \"500k\" or \"1.5M\"",
        bounds.start(),
        bounds.end()
    );
    match value {
        DeValue::Integer(integer) => {
            within(i128::from_str_radix(integer.as_str(), integer.radix()).ok(), integer, bounds, fix)
        }
        DeValue::String(text) => match number::count(text) {
            Some(count) => within(Some(count.into()), &format_args!("{text:?}"), bounds, fix),
            None => Err(Wrong::new(format!("is {text:?}, which is no count"), fix)),
        },
        other => Err(Wrong::new(format!("is {}, but must be a whole number", type_name(other)), fix)),
    }
}

/// Parses a number of ids within bounds. Returns `None` for `"auto"`.
pub(super) fn capacity(value: &DeValue<'_>, bounds: RangeInclusive<usize>) -> Result<Option<usize>, Wrong> {
    match value {
        DeValue::String(text) if text == "auto" => Ok(None),
        other => count(other, bounds)
            .map(Some)
            .map_err(|wrong| Wrong { fix: format!("{}, or \"auto\"", wrong.fix), ..wrong }),
    }
}

/// Parses bytes: an integer, or a string with a unit.
pub(super) fn bytes(value: &DeValue<'_>, bounds: RangeInclusive<usize>) -> Result<usize, Wrong> {
    let fix = format!(
        "write a number of bytes from {} to {}, or a string with a unit, as in \"256KiB\", \"16MiB\" or \"16MB\"",
        bounds.start(),
        bounds.end()
    );
    match value {
        DeValue::Integer(_) => count(value, bounds).map_err(|wrong| Wrong { fix, ..wrong }),
        DeValue::String(text) => match number::size(text) {
            Some(size) => within(Some(size.into()), &format_args!("{text:?}"), bounds, fix),
            None => Err(Wrong::new(format!("is {text:?}, which is no size"), fix)),
        },
        other => Err(Wrong::new(format!("is {}, but must be a size", type_name(other)), fix)),
    }
}

/// Parses bytes. Returns `None` for `"auto"`.
pub(super) fn bytes_or_auto(
    value: &DeValue<'_>,
    bounds: RangeInclusive<usize>,
) -> Result<Option<usize>, Wrong> {
    match value {
        DeValue::String(text) if text == "auto" => Ok(None),
        other => bytes(other, bounds)
            .map(Some)
            .map_err(|wrong| Wrong { fix: format!("{}, or \"auto\"", wrong.fix), ..wrong }),
    }
}

fn within(
    value: Option<i128>,
    shown: &dyn std::fmt::Display,
    bounds: RangeInclusive<usize>,
    fix: String,
) -> Result<usize, Wrong> {
    let wrong = |how: &str, bound: usize| Err(Wrong::new(format!("is {shown}, {how} {bound}"), fix));
    match value.map(usize::try_from) {
        Some(Ok(value)) if bounds.contains(&value) => Ok(value),
        Some(Ok(value)) if value > *bounds.end() => wrong("above the maximum of", *bounds.end()),
        Some(Err(_)) if value > Some(0) => wrong("above the maximum of", *bounds.end()),
        Some(_) => wrong("below the minimum of", *bounds.start()),
        None => wrong("above the maximum of", *bounds.end()),
    }
}

/// Writes a size in the largest unit that divides it. [`bytes()`] reads it back.
pub(super) fn show_bytes(bytes: usize) -> String {
    [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(unit, name)| format!("\"{}{name}\"", bytes / unit))
}

/// Parses a duration within bounds: a string as [`number::duration`] reads it, or a number of seconds.
pub(super) fn duration(value: &DeValue<'_>, bounds: RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let show = |duration: &Duration| humantime::format_duration(*duration).to_string();
    let (min, max) = (show(bounds.start()), show(bounds.end()));
    let fix = format!(
        "write a duration from {min} to {max}, as in \"30s\", \"10m\" or \"1h 30m\"; a number without a unit counts seconds"
    );
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().to_owned(),
        DeValue::Float(float) => float.as_str().to_owned(),
        other => return Err(Wrong::new(format!("is {}, but must be a duration", type_name(other)), fix)),
    };
    match number::duration(&text) {
        Some(duration) if duration < *bounds.start() => {
            Err(Wrong::new(format!("is {text:?}, below the minimum of {min}"), fix))
        }
        Some(duration) if duration > *bounds.end() => {
            Err(Wrong::new(format!("is {text:?}, above the maximum of {max}"), fix))
        }
        Some(duration) => Ok(duration),
        None => Err(Wrong::new(format!("is {text:?}, which is no duration"), fix)),
    }
}

/// Parses one of an enum's words, as its `Deserialize` knows them.
pub(super) fn word<T: DeserializeOwned>(value: &DeValue<'_>, example: &str) -> Result<T, Wrong> {
    let text = text(value, example)?;
    T::deserialize(StrDeserializer::<SerdeError>::new(text)).map_err(|error| {
        // The error of serde is: unknown variant `x`, expected `a` or `b`
        let error = error.to_string();
        let choice =
            error.split_once("expected ").map_or(error.as_str(), |(_, choice)| choice).replace('`', "\"");
        Wrong::new(format!("is {text:?}, which is not known"), format!("write {choice}"))
    })
}

/// Parses an address to listen on.
pub(super) fn address(text: &str, example: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        let fix = match text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}")) {
            Some(fixed) if fixed.parse::<SocketAddr>().is_ok() => format!("write {fixed:?}"),
            _ => format!(
                "write an IP address and a port, as in {example:?} (every interface: \"0.0.0.0:PORT\")"
            ),
        };
        Wrong::new(format!("is {text:?}, which is no address to listen on"), fix)
    })
}

/// Parses an address, or `off`.
pub(super) fn admin(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text == "off" {
        return Ok(None);
    }
    address(text, "127.0.0.1:15673")
        .map(Some)
        .map_err(|wrong| Wrong { fix: format!("{}, or \"off\"", wrong.fix), ..wrong })
}

/// Parses `amqp://HOST:PORT` or `amqps://HOST:PORT`.
pub(super) fn upstream(text: &str) -> Result<UpstreamAddress, Wrong> {
    let example = "write amqp://HOST:PORT, as in \"amqp://127.0.0.1:5672\"";
    let wrong = |what: &str, fix: &str| Err(Wrong::new(format!("{what}: {}", masked(text)), fix));
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("has no scheme", example);
    };
    let tls = match scheme {
        "amqp" => false,
        "amqps" => true,
        _ => return wrong("has a scheme that is not amqp or amqps", example),
    };
    let (authority, path) = rest.split_once(['/', '?', '#']).unwrap_or((rest, ""));
    if authority.contains('@') {
        return wrong(
            "has credentials in it, but Hapax logs in with each client's own",
            "leave out everything before the @; give the credentials to the clients",
        );
    }
    if !path.is_empty() {
        return wrong(
            "has a vhost or parameters in it, but each client names its own vhost",
            "leave out everything after the port",
        );
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok()),
        _ if tls => (authority, Some(super::defaults::UPSTREAM_TLS_PORT)),
        _ => (authority, Some(super::defaults::UPSTREAM_PORT)),
    };
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match name {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    match port {
        Some(port) if valid && port > 0 => {
            Ok(UpstreamAddress { host: name.unwrap_or(host).into(), port, tls })
        }
        Some(port) if port > 0 => wrong("has no valid host", example),
        _ => wrong("has no valid port", "write a port from 1 to 65535; RabbitMQ's is 5672"),
    }
}

/// Returns the URL for a message, without everything before the last `@`. Even in a badly written URL this hides the
/// password.
pub(super) fn masked(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return format!("{url:?}") };
    let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("\"{scheme}***@{host}\"")
}

/// Parses a folder's path. No shell reads it, so `~` at its beginning would be a folder of that name.
pub(super) fn folder(text: &str) -> Result<PathBuf, Wrong> {
    match text {
        "" => Err(Wrong::new("is empty", "name a folder, as in \"/var/lib/hapax\"")),
        _ if text.starts_with('~') => Err(Wrong::new(
            format!("is {text:?}, but ~ is not replaced here"),
            "write the whole path, as in \"/var/lib/hapax\"",
        )),
        _ => Ok(PathBuf::from(text)),
    }
}

/// Parses a window's name, which is a metric label and part of a URL.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if begins_well && text.len() <= NAME_MAX && text.chars().all(safe) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("is {text:?}, which can be no metric label and no part of a URL"),
        format!("use letters, digits, `-`, `_` and `.`, a letter or digit first, at most {NAME_MAX}"),
    ))
}

/// Parses a pattern for names of vhosts or exchanges.
pub(super) fn pattern(text: &str) -> Result<Pattern, Wrong> {
    Pattern::new(text).map_err(|error| {
        Wrong::new(
            format!("is {text:?}, which is no pattern ({})", error.kind()),
            "use * for any text, ? for one character, [a-z] for one of a set, {a,b} for either; \\ before one of them takes it as it is",
        )
    })
}

/// Parses where the id is: a text, or a list of texts for an id of several parts.
pub(super) fn id(value: &DeValue<'_>) -> Result<IdSource, Wrong> {
    let DeValue::Array(items) = value else {
        return id_source(text(value, "message-id")?);
    };
    let parts = items.iter().map(|item| id_part(text(item.get_ref(), "message-id")?));
    let mut parts = parts.collect::<Result<Vec<_>, Wrong>>()?;
    let twice =
        parts.iter().enumerate().find(|(n, part)| parts.iter().take(*n).any(|before| before == *part));
    match twice.map(|(_, part)| part.to_string()) {
        Some(part) => Err(Wrong::new(format!("has {part:?} twice"), "name each part once")),
        None if parts.len() > PARTS_MAX => {
            Err(Wrong::new(format!("has {} parts", parts.len()), format!("name {PARTS_MAX} parts at most")))
        }
        None if parts.len() > 1 => Ok(IdSource::Parts(parts.into())),
        None => parts.pop().map(IdSource::from).ok_or_else(|| {
            Wrong::new("is an empty list", "name at least one part, as in [\"message-id\", \"header:type\"]")
        }),
    }
}

fn id_source(text: &str) -> Result<IdSource, Wrong> {
    match text {
        "body" => Ok(IdSource::Body),
        "sequence" => Ok(IdSource::Sequence),
        _ => id_part(text).map(IdSource::from),
    }
}

fn id_part(text: &str) -> Result<IdPart, Wrong> {
    let fix = "write \"message-id\", \"correlation-id\", \"header:NAME\", \"body\" or \"sequence\", or a list of the first three";
    match text.split_once(':') {
        None if text == "message-id" => Ok(IdPart::MessageId),
        None if text == "correlation-id" => Ok(IdPart::CorrelationId),
        None if text == "body" => Err(Wrong::new(
            "has \"body\" in a list, but a body can only be an id as a whole",
            "write id = \"body\" alone, or leave it out of the list",
        )),
        None if text == "sequence" => Err(Wrong::new(
            "has \"sequence\" in a list, but a number can only be an id as a whole",
            "write id = \"sequence\" alone, or leave it out of the list",
        )),
        Some(("header", name)) if (1..=SHORTSTR_MAX).contains(&name.len()) => Ok(IdPart::Header(name.into())),
        Some(("header", _)) => {
            Err(Wrong::new(format!("is {text:?}, but a header's name has 1 to {SHORTSTR_MAX} bytes"), fix))
        }
        _ => Err(Wrong::new(format!("is {text:?}, where no id can be"), fix)),
    }
}

/// Writes an id source as TOML, so that [`id`] reads it back.
pub(super) fn show_id(id: &IdSource) -> toml::Value {
    match id {
        IdSource::Parts(parts) => parts.iter().map(IdPart::to_string).collect::<Vec<_>>().into(),
        one => one.to_string().into(),
    }
}

/// Parses the name of an exchange to publish to instead.
pub(super) fn exchange(text: &str) -> Result<String, Wrong> {
    match text.len() {
        1..=SHORTSTR_MAX => Ok(text.to_owned()),
        0 => Err(Wrong::new(
            "is empty",
            "name an exchange, or leave the key out to publish where the client does",
        )),
        length => Err(Wrong::new(
            format!("has {length} bytes, but AMQP carries names of up to {SHORTSTR_MAX}"),
            "name an exchange that exists",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_back() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 30] {
            assert_eq!(number::size(show_bytes(bytes).trim_matches('"')), Some(bytes as u64));
        }
    }

    #[test]
    fn upstreams() {
        let valid = [
            ("amqp://localhost", "localhost:5672"),
            ("amqp://localhost/", "localhost:5672"),
            ("amqp://10.0.0.1:1", "10.0.0.1:1"),
            ("amqp://rabbit_mq-1.internal:5672/", "rabbit_mq-1.internal:5672"),
            ("amqp://[::1]", "[::1]:5672"),
            ("amqp://[fe80::1]:99", "[fe80::1]:99"),
            ("amqps://rabbit", "rabbit:5671"),
            ("amqps://rabbit:5672", "rabbit:5672"),
        ];
        for (text, authority) in valid {
            assert_eq!(upstream(text).map(|upstream| upstream.authority()), Ok(authority.into()), "{text:?}");
        }
        let invalid = [
            "",
            "localhost",
            "amqp://",
            "amqp://:5672",
            "amqp://a:0",
            "amqp://a:65536",
            "amqp://a:",
            "amqp://a b",
            "amqp://[::1",
            "amqp://[x]",
            "amqp://::1",
            "http://a",
            "AMQP//a",
            "amqp://a?heartbeat=1",
            "amqp://a//",
            "amqpss://a",
            "amqp://u@a",
            "amqp://u:p/w@a",
        ];
        for text in invalid {
            assert!(upstream(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in
            ["amqp://u:secret@a", "amqps://u:secret@a", "amqp://u:se/secret@a", "u:secret@a", "x://secret@@a"]
        {
            let wrong = upstream(text).expect_err(text);
            assert!(!wrong.what.contains("secret") && !wrong.fix.contains("secret"), "{wrong:?}");
        }
    }
}
