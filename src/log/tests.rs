//! Tests of whole log lines that contain texts which strangers choose.

use super::*;
use crate::config::Config;
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Lines;

    fn make_writer(&'w self) -> Lines {
        self.clone()
    }
}

/// Returns everything that `log` logs.
fn logged(format: LogFormat, terminal: bool, log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let settings = LogSettings { format, ..Config::default().log };
    tracing::subscriber::with_default(subscriber(&settings, terminal, lines.clone()).0, log);
    String::from_utf8(lines.0.lock().clone()).unwrap()
}

/// A line end with a forged line, both forms of a terminal's clear command, and text that runs backwards.
const FORGED: &str = "x\n2026-11-29T00:00:00Z  INFO hapax: all is well\x1b[2J\u{9b}2J\u{202e} forgotten=true";

fn in_every_way() {
    let error = io::Error::other(FORGED);
    let boxed: &(dyn std::error::Error + 'static) = &error;
    let span = tracing::info_span!("span", id = %FORGED, name = FORGED);
    let _within = span.enter();
    tracing::info!(id = %FORGED, name = FORGED, debug = ?FORGED, error = boxed, count = 3, "{FORGED}");
}

#[test]
fn what_a_stranger_chooses_makes_no_line_and_no_command() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let line = logged(format, false, in_every_way);
        assert_eq!(line.lines().count(), 1, "{line}");
        let body = line.strip_suffix('\n').unwrap();
        assert!(!body.chars().any(|c| c.is_control() || is_hidden(c)), "{line:?}");
    }
    // On a terminal only the formatter's own colours are there.
    let line = logged(LogFormat::Text, true, in_every_way);
    let body = line.strip_suffix('\n').unwrap();
    assert!(!body.contains("\x1b[2J") && !body.contains('\u{9b}') && body.contains("\x1b[3m"), "{line:?}");
    assert!(!body.chars().any(|c| c != '\x1b' && (c.is_control() || is_hidden(c))), "{line:?}");
}

#[test]
fn text_shows_where_a_value_ends() {
    let line = logged(LogFormat::Text, false, || {
        tracing::info!(target: "hapax::admin", peer = %"127.0.0.1:9", window = "orders", id = %"x forgotten=true", forgotten = false, "id forgotten");
    });
    let (_, rest) = line.split_once(" hapax::admin: ").unwrap();
    assert_eq!(
        rest,
        "id forgotten peer=127.0.0.1:9 window=\"orders\" id=\"x forgotten=true\" forgotten=false\n"
    );
}

#[test]
fn json_keeps_the_value() {
    let line = logged(LogFormat::Json, false, in_every_way);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["id"], &line["name"], &line["message"]),
        (&FORGED.into(), &FORGED.into(), &FORGED.into())
    );
}

/// Reads a JSON object whose keys are all different. (serde_json takes the last of two.)
fn strictly(line: &str) -> Vec<(String, serde_json::Value)> {
    use serde::de::{Deserializer as _, MapAccess, Visitor};
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, serde_json::Value)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs: Self::Value = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
                assert!(pairs.iter().all(|(other, _)| *other != key), "{key} twice");
                pairs.push((key, value));
            }
            Ok(pairs)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(line);
    let pairs = reader.deserialize_map(Pairs).expect(line);
    reader.end().expect(line);
    pairs
}

#[test]
fn json_has_each_key_once_and_numbers_are_numbers() {
    let line = logged(LogFormat::Json, false, || {
        tracing::warn!(
            level = "high",
            target = 7,
            timestamp = true,
            message_ = "m",
            r#type = 0.5,
            nan = f64::NAN,
            small = -3_i64,
            big = u64::MAX,
            "{}",
            "told"
        );
    });
    let pairs = strictly(&line);
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys[..3], ["timestamp", "level", "target"], "{line}");
    let value = |key: &str| {
        &pairs.iter().find(|(other, _)| other == key).unwrap_or_else(|| panic!("{key} in {line}")).1
    };
    assert_eq!((value("level"), value("level_")), (&"WARN".into(), &"high".into()));
    assert_eq!(
        (value("target_"), value("timestamp_"), value("type")),
        (&7.into(), &true.into(), &0.5.into())
    );
    assert_eq!((value("message"), value("message_")), (&"told".into(), &"m".into()));
    assert_eq!((value("small"), value("big")), (&(-3).into(), &u64::MAX.into()));
    assert!(value("nan").is_null());
}
