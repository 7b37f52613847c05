//! The body of a request that changes a window. It is either valid as a whole, or refused with all of its errors.

use crate::admin::complaint::Complaint;
use crate::config::{TICK, most, number};
use axum::http::StatusCode;
use hapax_core::pressure::Budget;
use hapax_core::window::Mode;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The settings to change. A setting that is `None` stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Change {
    pub(super) capacity: Option<Capacity>,
    pub(super) ttl: Option<Duration>,
    pub(super) mode: Option<Mode>,
}

/// How the API writes the capacity of a window that sizes itself.
pub(super) const AUTO: &str = "auto";

/// A capacity, as a number of ids or as "auto".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Capacity {
    /// a fixed number of ids
    Ids(usize),
    /// whatever the traffic needs, within the memory budget
    Auto,
}

impl Capacity {
    /// Returns the number, unless it is "auto".
    pub(super) fn ids(self) -> Option<usize> {
        match self {
            Capacity::Ids(ids) => Some(ids),
            Capacity::Auto => None,
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capacity::Ids(ids) => ids.fmt(f),
            Capacity::Auto => f.write_str(AUTO),
        }
    }
}

impl Change {
    /// Parses the body of a request to change the window of this name.
    pub(super) fn parse(window: &str, body: &[u8], budget: &Budget) -> Result<Change, Complaint> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            let text =
                format!("the body is not JSON ({error}); write an object, as in {{\"capacity\": 2000000}}");
            Complaint::new(StatusCode::BAD_REQUEST, text)
        })?;
        let Value::Object(object) = value else {
            return Err(unprocessable(
                window,
                vec![format!(
                    "the body is {}, but must be an object, as in {{\"capacity\": 2000000}}",
                    kind(&value)
                )],
            ));
        };
        let mut errors = Vec::new();
        let change = Change {
            capacity: field(&object, "capacity", |value| capacity(value, window, budget), &mut errors),
            ttl: field(&object, "ttl", ttl, &mut errors),
            mode: field(&object, "mode", mode, &mut errors),
        };
        let unknown = object.keys().filter(|key| !["capacity", "ttl", "mode"].contains(&key.as_str()));
        errors.extend(unknown.map(|key| format!("`{key}` can't be changed; what can: capacity, ttl, mode")));
        if errors.is_empty() { Ok(change) } else { Err(unprocessable(window, errors)) }
    }
}

pub(super) fn unprocessable(window: &str, errors: Vec<String>) -> Complaint {
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    };
    let text =
        format!("window {window:?}: {count} in what is asked for, so nothing is done: {}", errors.join("; "));
    Complaint::of_many(StatusCode::UNPROCESSABLE_ENTITY, text, errors)
}

/// Returns the value of a key if it is present and valid. Adds to `errors` if it is invalid.
fn field<T>(
    object: &Map<String, Value>,
    key: &str,
    parse: impl FnOnce(&Value) -> Result<T, String>,
    errors: &mut Vec<String>,
) -> Option<T> {
    match parse(object.get(key)?) {
        Ok(value) => Some(value),
        Err(error) => {
            errors.push(format!("`{key}` {error}"));
            None
        }
    }
}

fn capacity(value: &Value, window: &str, budget: &Budget) -> Result<Capacity, String> {
    let fix = format!("write a number from 1 to {}, as in 2000000 or \"2M\", or \"auto\"", most::IDS);
    let ids = match value {
        Value::String(text) if text == AUTO => {
            return match budget.may_be_auto(window) {
                Ok(()) => Ok(Capacity::Auto),
                Err(refused) => Err(format!("is \"auto\", but {refused}")),
            };
        }
        Value::String(text) => number::count(text),
        Value::Number(number) => number.as_u64(),
        other => return Err(format!("is {}; {fix}", kind(other))),
    };
    match ids.map(usize::try_from) {
        Some(Ok(ids)) if (1..=most::IDS).contains(&ids) => Ok(Capacity::Ids(ids)),
        Some(_) => Err(format!("is {value}, out of bounds; {fix}")),
        None => Err(format!("is {value}, which is no count; {fix}")),
    }
}

fn ttl(value: &Value) -> Result<Duration, String> {
    let fix = "write a duration, as in \"10m\", or a number of seconds; from 1ms to 365 days";
    let ttl = match value {
        Value::String(text) => {
            number::duration(text).ok_or_else(|| format!("is {text:?}, which is no duration; {fix}"))?
        }
        Value::Number(number) => number
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| format!("is {number}, out of bounds; {fix}"))?,
        other => return Err(format!("is {}; {fix}", kind(other))),
    };
    if (TICK..=most::TTL).contains(&ttl) {
        return Ok(ttl);
    }
    Err(format!("is {value}, out of bounds; {fix}"))
}

fn mode(value: &Value) -> Result<Mode, String> {
    let fix = "write \"enforce\", \"observe\" or \"off\"";
    match value {
        Value::String(text) => {
            Mode::deserialize(value).map_err(|_| format!("is {text:?}, which is not known; {fix}"))
        }
        other => Err(format!("is {}; {fix}", kind(other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl ToSchema for Change {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Change")
    }
}

/// Written by hand, because the body is parsed by hand, too.
impl PartialSchema for Change {
    fn schema() -> RefOr<Schema> {
        let of = |kind| ObjectBuilder::new().schema_type(SchemaType::Type(kind));
        let ids = of(Type::Integer).minimum(Some(1.0)).maximum(Some(most::IDS as f64));
        let text = of(Type::String)
            .pattern(Some(r"^\s*(auto|[0-9][0-9_,]*(\.[0-9]+)?\s*[kKmMgG]?)\s*$"))
            .examples(["2M", "auto"]);
        let seconds = of(Type::Number).minimum(Some(0.001)).maximum(Some(most::TTL.as_secs_f64()));
        let capacity = AnyOfBuilder::new().item(ids).item(text).description(Some(
            "ids that can be remembered, as a number or a text (\"1.5M\"); \"auto\": as many as the traffic needs, within memory_budget",
        ));
        let ttl = AnyOfBuilder::new()
            .item(of(Type::String).examples(["10m", "1h 30m"]))
            .item(seconds)
            .description(Some("how long an id is remembered: a duration, or seconds"));
        let mode = of(Type::String).enum_values(Some(["enforce", "observe", "off"])).description(Some(
            "enforce: duplicates are dropped; observe: counted and forwarded; off: nothing is judged",
        ));
        of(Type::Object)
            .description(Some("The settings to change. A setting that is absent stays as it is."))
            .property("capacity", capacity)
            .property("ttl", ttl)
            .property("mode", mode)
            .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::pressure::budget::Share;
    use hapax_core::window::engine::EngineKind;

    /// A budget for the window `w`, with or without a limit in bytes.
    fn budget(bytes: Option<usize>) -> Budget {
        let share = Share { name: "w".into(), engine: EngineKind::Lru, auto: false, weight: 1 };
        Budget::new(bytes, [share])
    }

    #[test]
    fn auto_needs_a_budget() {
        let body = br#"{"capacity": "auto"}"#;
        let change = Change::parse("w", body, &budget(Some(1 << 30))).expect("a budget is there");
        assert_eq!(change.capacity, Some(Capacity::Auto));
        assert!(Change::parse("w", body, &budget(None)).is_err());
    }

    #[test]
    fn good_ones() {
        let parse = |text: &str| Change::parse("w", text.as_bytes(), &budget(None)).expect(text);
        assert_eq!(parse("{}"), Change::default());
        assert_eq!(
            parse(r#"{"capacity": 500000000, "ttl": "1h 30m", "mode": "off"}"#),
            Change {
                capacity: Some(Capacity::Ids(500_000_000)),
                ttl: Some(Duration::from_secs(5400)),
                mode: Some(Mode::Off)
            }
        );
        for (text, millis) in
            [("0.001", 1), ("90", 90_000), ("\"1ms\"", 1), ("\"20\"", 20_000), ("31536000", 31_536_000_000)]
        {
            let ttl = parse(&format!("{{\"ttl\": {text}}}")).ttl;
            assert_eq!(ttl, Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_capacity_may_be_a_text() {
        let parse = |text: &str| Change::parse("w", text.as_bytes(), &budget(None)).expect(text).capacity;
        assert_eq!(parse(r#"{"capacity": "1.5M"}"#), Some(Capacity::Ids(1_500_000)));
        assert_eq!(parse(r#"{"capacity": "7"}"#), Some(Capacity::Ids(7)));
    }

    #[test]
    fn all_errors_at_once() {
        let text = r#"{"capacity": 0, "ttl": null, "mode": "on", "engine": "moka", "Capacity": 1}"#;
        let complaint = Change::parse("w", text.as_bytes(), &budget(None)).expect_err("wrong");
        assert_eq!(complaint.status, StatusCode::UNPROCESSABLE_ENTITY);
        let errors = complaint.body.errors;
        assert_eq!(errors.len(), 5, "{errors:?}");
        for key in
            ["`capacity` is 0,", "`ttl` is null;", "`mode` is \"on\",", "`engine` can't", "`Capacity` can't"]
        {
            assert!(errors.iter().any(|error| error.starts_with(key)), "{key} in {errors:?}");
        }
    }

    #[test]
    fn each_wrong_value_has_its_error() {
        for (text, status, error) in [
            ("", 400, "not JSON"),
            ("{\"capacity\": }", 400, "not JSON"),
            ("[]", 422, "the body is a list"),
            (r#"{"capacity": -1}"#, 422, "no count"),
            (r#"{"capacity": 1.5}"#, 422, "no count"),
            (r#"{"capacity": 500000001}"#, 422, "out of bounds"),
            (r#"{"capacity": 99999999999999999999}"#, 422, "no count"),
            (r#"{"capacity": "7 apples"}"#, 422, "no count"),
            (r#"{"capacity": "1,5M"}"#, 422, "no count"),
            (r#"{"capacity": "1G"}"#, 422, "out of bounds"),
            (r#"{"capacity": "auto"}"#, 422, "no memory_budget is configured"),
            (r#"{"ttl": 0}"#, 422, "out of bounds"),
            (r#"{"ttl": -1}"#, 422, "out of bounds"),
            (r#"{"ttl": 1e300}"#, 422, "out of bounds"),
            (r#"{"ttl": "0s"}"#, 422, "out of bounds"),
            (r#"{"ttl": "366d"}"#, 422, "out of bounds"),
            (r#"{"ttl": "10x"}"#, 422, "no duration"),
            (r#"{"ttl": []}"#, 422, "is a list"),
            (r#"{"mode": "Enforce"}"#, 422, "not known"),
            (r#"{"mode": true}"#, 422, "is a boolean"),
        ] {
            let complaint = Change::parse("w", text.as_bytes(), &budget(None)).expect_err(text);
            assert_eq!(complaint.status.as_u16(), status, "{text}");
            assert!(complaint.body.error.contains(error), "{text}: {}", complaint.body.error);
        }
    }
}
