use super::*;
use proptest::prelude::*;
use proptest::sample::select;

fn settings(capacity: Option<i64>, ttl: Option<&str>, mode: Option<&str>) -> Vec<(&'static str, Value)> {
    let capacity = capacity.map(|ids| ("capacity", Value::Integer(ids)));
    let text = |key, value: Option<&str>| value.map(|value| (key, Value::String(value.to_owned())));
    [capacity, text("ttl", ttl), text("mode", mode)].into_iter().flatten().collect()
}

/// A file in parts: what is before the window, the lines of the window, what is after it.
#[derive(Clone, Debug)]
struct File {
    before: String,
    lines: Vec<String>,
    after: String,
}

impl File {
    fn text(&self) -> String {
        format!("{}{}{}", self.before, self.lines.concat(), self.after)
    }
}

fn file() -> impl Strategy<Value = File> {
    let comment = || select(&["", " # why", "   # \"quoted\" = 7 [[window]]"][..]);
    let line = |values: &'static [&'static str]| (select(values), comment());
    let own = (
        line(&["name = \"w\"", "name='w'", "\"name\"   =   \"w\"", "name = \"\"\"w\"\"\""]),
        line(&["", "capacity = 5", "capacity = \"2M\"", "capacity = 1_000", "'capacity' = \"auto\""]),
        line(&["", "ttl = \"10m\"", "ttl=90", "ttl = '1h 30m'", "ttl = \"600s\""]),
        line(&["", "mode = \"off\"", "mode = \"enforce\""]),
        line(&[
            "",
            "# ttl = \"1m\"",
            "id = [\"header:a\",\n  # between\n  \"header:b\"]",
            "vhost = \"ä\\u00e9\"",
        ]),
    );
    let around = select(
        &[
            "",
            "# ttl = \"9m\"\n",
            "[limits]\nmemory = \"64MiB\" # much\n\n",
            "[[window]]\nname = \"x\"\nttl = \"10m\"\n",
            "[[window]]\nname = \"ü\" # öä\ncapacity = 5\n\n",
        ][..],
    );
    let after = select(
        &["", "\n", "\n# the end", "\n[[window]]\nname = \"z\"\nmode = \"off\"", "[log]\nlevel = \"info\"\n"]
            [..],
    );
    let layout = (select(&["", "  ", "\t"][..]), any::<bool>(), 0..5_usize);
    (around, own, after, layout).prop_map(|(before, own, after, (indent, crlf, turn))| {
        let (name, capacity, ttl, mode, other) = own;
        let mut keys = vec![name, capacity, ttl, mode, other];
        keys.rotate_left(turn);
        let mut lines = vec!["[[window]]\n".to_owned()];
        let keys = keys.into_iter().filter(|(key, _)| !key.is_empty());
        lines.extend(keys.map(|(key, comment)| format!("{indent}{key}{comment}\n")));
        let newline = |text: &str| if crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
        File {
            before: newline(before),
            lines: lines.iter().map(|line| newline(line)).collect(),
            after: newline(after),
        }
    })
}

proptest! {
    /// When the lines that `Edited` names are taken back, the old text is there again, byte for byte.
    #[test]
    fn everything_else_is_byte_for_byte_the_same(
        file in file(),
        capacity in prop::option::of(1..3_000_000_i64),
        ttl in prop::option::of(select(&["10m", "90", "1h 30m", "2h"][..])),
        mode in prop::option::of(select(&["enforce", "observe", "off"][..])),
    ) {
        let (text, settings) = (file.text(), settings(capacity, ttl, mode));
        let edited = set(&text, "w", &settings).unwrap_or_else(|cannot| panic!("{cannot:?}\n{text}"));
        prop_assert!(edited.text.starts_with(&file.before) && edited.text.ends_with(&file.after));
        // Take the changes back by what is said of them.
        let mut lines: Vec<String> = edited.text.split_inclusive('\n').map(str::to_owned).collect();
        for Line { line, key, from, to } in edited.lines.iter().rev() {
            let place = &mut lines[line - 1];
            prop_assert!(place.contains(key) && place.contains(to.as_str()), "{place:?}");
            match from {
                Some(from) => *place = place.replacen(to.as_str(), from, 1),
                None => { lines.remove(line - 1); }
            }
        }
        let mut back = lines.concat();
        // A last line that had no end has one if a line was added below it.
        if back.len() > text.len() { back.truncate(text.len()); }
        prop_assert_eq!(&back, &text);
        // It says what was asked for, and a second time there is nothing to do.
        let again = set(&edited.text, "w", &settings).unwrap();
        prop_assert_eq!(&again.lines, &Vec::new());
        prop_assert_eq!(&again.text, &edited.text);
        for (key, value) in &settings {
            let table: Table = toml::from_str(&edited.text).unwrap();
            let windows = table["window"].as_array().unwrap();
            let window = windows.iter().find(|window| window["name"].as_str() == Some("w")).unwrap();
            let has = |line: &Line| line.key == *key;
            prop_assert!(!edited.lines.iter().any(has) || window[key] == *value);
        }
    }
}

#[test]
fn a_key_that_is_new_stands_with_its_window() {
    let text = "[[window]]\n  name = \"w\" # mine\n  id = \"body\"\n\n[[window]]\nname = \"x\"";
    let edited = set(text, "w", &settings(Some(7), Some("1h"), None)).unwrap();
    let wanted = "[[window]]\n  name = \"w\" # mine\n  capacity = 7\n  ttl = \"1h\"\n  id = \"body\"\n\n[[window]]\nname = \"x\"";
    assert_eq!(edited.text, wanted);
    assert_eq!(edited.lines.iter().map(|line| line.line).collect::<Vec<_>>(), [3, 4]);
    let edited = set(text, "x", &settings(None, None, Some("off"))).unwrap();
    assert_eq!(edited.text, format!("{text}\nmode = \"off\""));
}

#[test]
fn windows_in_one_line_are_changed_in_it() {
    let text = "window = [{ name = \"w\", ttl = \"1m\" }, { name = \"x\" }] # two\n";
    let edited = set(text, "x", &settings(Some(7), None, None)).unwrap();
    assert_eq!(
        edited.text,
        "window = [{ name = \"w\", ttl = \"1m\" }, { name = \"x\", capacity = 7 }] # two\n"
    );
    let edited = set(text, "w", &settings(Some(7), Some("2m"), None)).unwrap();
    assert_eq!(
        edited.text,
        "window = [{ name = \"w\", ttl = \"2m\", capacity = 7 }, { name = \"x\" }] # two\n"
    );
}

#[test]
fn a_text_that_does_not_fit_is_refused() {
    let settings = settings(None, Some("1m"), None);
    for (text, cannot) in [
        ("", Cannot::Windows(0)),
        ("[[window]]\nname = \"x\"\n", Cannot::Windows(0)),
        ("window = 7\n", Cannot::Windows(0)),
        ("[window]\nname = \"w\"\n", Cannot::Windows(0)),
        ("[[window]]\nname = \"w\"\n[[window]]\nname = \"w\"\n", Cannot::Windows(2)),
    ] {
        assert_eq!(set(text, "w", &settings), Err(cannot), "{text}");
    }
    let half = set("[[window]]\nname = \"w\"\nttl = \"1", "w", &settings);
    assert!(matches!(half, Err(Cannot::Parse { line: 3, .. })), "{half:?}");
}
