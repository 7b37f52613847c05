//! The binary: what it prints, where, and with which exit code.

use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const TRACE: &str = "time,id\n0,a\n1,b\n2,a\n3,c\n4,b\n4.5,a\n";
const GRID: [&str; 4] = ["--capacities", "3,1,2", "--ttls", "1s,5s"];

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("hapax-simulate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        Folder(folder)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn hapax(args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .arg("simulate")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // It may end before it has read: wrong usage.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("ended");
    (status.code(), String::from_utf8(stdout).expect("UTF-8"), String::from_utf8(stderr).expect("UTF-8"))
}

fn with<'a>(first: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    first.iter().chain(rest).copied().collect()
}

#[test]
fn the_json_has_the_shape_that_scripts_depend_on() {
    let (code, stdout, stderr) = hapax(&with(&["-", "--json", "--engine", "lru"], &GRID), TRACE);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let trace = &json["trace"];
    assert_eq!(
        (&trace["events"], &trace["ids"], &trace["repeats"], &trace["seconds"], &trace["time_unit"]),
        (&6.into(), &3.into(), &3.into(), &4.5.into(), &"s".into())
    );
    assert_eq!(trace["repeat_delay_seconds"]["max"], 3.0);
    assert_eq!((&json["engine"], &json["target"]), (&"lru".into(), &0.999.into()));
    let cells = json["cells"].as_array().expect("a list");
    let order: Vec<_> =
        cells.iter().map(|cell| (cell["capacity"].as_u64(), cell["ttl_seconds"].as_f64())).collect();
    let (short, long) = (Some(1.0), Some(5.0));
    let [one, two, three] = [1, 2, 3].map(Some);
    assert_eq!(order, [(one, short), (one, long), (two, short), (two, long), (three, short), (three, long)]);
    let cell = &cells[3];
    assert_eq!(
        (&cell["caught"], &cell["escaped"], &cell["evicted_early"], &cell["peak_entries"]),
        (&1.into(), &2.into(), &3.into(), &2.into())
    );
    let third = cell["caught_of_repeats"].as_f64().expect("a number");
    assert!((third - 1.0 / 3.0).abs() < 1e-9 && cell["caught_of_catchable"] == cell["caught_of_repeats"]);
    assert_eq!(cells[0]["caught_of_catchable"], Value::Null, "nothing can be caught within a second");
    assert!(cell["bytes_when_full"].as_u64() > Some(0) && cell["peak_bytes"].as_u64() > Some(0));
    let ttl = &json["ttls"][1];
    assert_eq!(
        (&ttl["ttl_seconds"], &ttl["catchable"], &ttl["peak_ids"], &ttl["enough_capacity"]),
        (&5.0.into(), &3.into(), &3.into(), &3.into())
    );
    let smallest = &json["smallest"];
    assert_eq!(
        (&smallest["capacity"], &smallest["ttl_seconds"], &smallest["escaped"]),
        (&3.into(), &5.0.into(), &0.into())
    );
    assert!(json["took_seconds"].as_f64() > Some(0.0));
}

/// Two producers count; one has used a number for two messages. The one that has come first is the least recently seen one.
#[test]
fn a_trace_with_numbers_is_compared_with_sequences() {
    let trace = "time,producer,number,id\n\
        0,a,1,a1\n1,b,1,b1\n2,a,1,a1\n3,a,2,a2\n4,b,1,b1\n5,b,2,b2\n6,a,2,other\n7,a,1,a1\n";
    let ten = ["--present-ttl", "10m"];
    let (code, stdout, stderr) = hapax(&with(&["-", "--json"], &ten), trace);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let sequences = &json["sequences"];
    assert_eq!((&sequences["producers"], &sequences["ttl_seconds"]), (&2.into(), &600.0.into()));
    let rows: Vec<_> = sequences["rows"].as_array().expect("a list").iter().collect();
    let counts = |row: &Value| {
        ["capacity", "caught", "passed", "used_twice"].map(|key| row[key].as_u64().unwrap_or(99))
    };
    assert_eq!(
        rows.iter().map(|row| counts(row)).collect::<Vec<_>>(),
        [[1, 0, 3, 0], [2, 3, 0, 1], [10_000, 3, 0, 1]]
    );
    assert!(rows[1]["bytes_when_full"].as_u64() < Some(700));
    let (_, text, _) = hapax(&with(&["-"], &ten), trace);
    let (_, table) = text.split_once("The same with id = \"sequence\": ").expect("the table");
    assert!(table.starts_with("2 producers, ttl = \"10m\"; caught in % of all repeats\n"), "{table}");
    assert!(table.contains("numbers used twice"), "{table}");
    // Without an id, producer and number are one. One line without a number: no comparison.
    let numbers =
        "{\"time\":1,\"producer\":\"a\",\"sequence\":7}\n{\"time\":2,\"producer\":\"a\",\"number\":\"7\"}\n";
    let (_, stdout, _) = hapax(&["-", "--json"], numbers);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&json["trace"]["repeats"], &json["sequences"]["rows"][0]["caught"]), (&1.into(), &1.into()));
    let (_, stdout, _) = hapax(&["-", "--json"], &format!("{numbers}{{\"time\":3,\"id\":\"x\"}}\n"));
    assert!(stdout.contains("\"sequences\": null"), "{stdout}");
    let (code, _, stderr) = hapax(&["-"], "{\"time\":1,\"producer\":\"a\",\"number\":\"x\"}\n");
    assert!(code != Some(0) && stderr.contains("is no number of a message"), "{stderr}");
}

#[test]
fn tables_say_what_to_set() {
    let folder = Folder::new("tables");
    let file = folder.file("trace.csv", TRACE);
    let (code, stdout, stderr) = hapax(&with(&[&file], &GRID), "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for text in [
        "6 publishes of 3 ids in 4s 500ms, 3 repeats (50.0 %)",
        "unlimited",
        "ids at the same time",
        "capacity = 3, ttl = \"5s\"",
    ] {
        assert!(stdout.contains(text), "{text} in\n{stdout}");
    }
    let row = |first: &str| {
        stdout.lines().find(|line| line.split_whitespace().nth(1) == Some(first)).expect("a row")
    };
    assert!(row("2").contains("33.3") && row("3").contains("100"), "{stdout}");
}

/// A recording says what its window's setting was. It cannot show a repeat that comes later than its own length.
#[test]
fn the_answer_comes_first_and_the_present_setting_is_compared() {
    let folder = Folder::new("answer");
    let head = "{\"hapax_record\":1,\"setting\":{\"capacity\":2,\"ttl_seconds\":5.0},\"window\":\"w\"}\n";
    let events: String = TRACE
        .lines()
        .filter_map(|line| line.split_once(','))
        .filter(|(time, _)| time.parse::<f64>().is_ok())
        .map(|(time, id)| format!("{{\"time\":{time},\"id\":\"{id}\"}}\n"))
        .collect();
    let file = folder.file("trace.jsonl", &format!("{head}{events}{{\"end\":{{\"dropped\":0}}}}\n"));
    let (code, stdout, stderr) = hapax(&[&file], "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("Smallest that catches 99.9 % of all repeats: capacity = "), "{stdout}");
    assert!(lines[1].starts_with("Now, with capacity = 2 and ttl = \"5s\""), "{stdout}");
    assert!(lines[1].contains("caught 1 of 3 (33.3 %)"), "{stdout}");
    assert!(
        lines[2].starts_with("The trace is 4s 500ms long, so it shows no repeat that comes later"),
        "{stdout}"
    );

    // Without a recording, it is what a window has without settings; a flag says otherwise.
    for (args, now) in [
        (vec![], "Now, with capacity = 1000000 and ttl = \"10m\""),
        (vec!["--present-capacity", "3", "--present-ttl", "2"], "Now, with capacity = 3 and ttl = \"2s\""),
    ] {
        let (_, stdout, _) = hapax(&with(&["-"], &args), TRACE);
        assert!(stdout.lines().nth(1).is_some_and(|line| line.starts_with(now)), "{stdout}");
    }
    let (_, stdout, _) = hapax(&[&file, "--json"], "");
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (&json["present"]["capacity"], &json["longest_visible_delay_seconds"]),
        (&2.into(), &4.5.into())
    );
}

#[test]
fn where_nothing_is_enough_it_says_what_is_missing() {
    let cases = [
        (vec!["--capacities", "1,2", "--ttls", "5s"], TRACE, "try larger --capacities"),
        (vec!["--capacities", "3", "--ttls", "2500ms"], TRACE, "even an unlimited window catches 33.3 %"),
        (vec![], "0,a\n1,b\n", "No id came twice"),
        (vec![], "0,a\n0,a\n", "Smallest that catches 99.9 % of all repeats: capacity = 1"),
    ];
    for (args, trace, text) in cases {
        let (_, stdout, stderr) = hapax(&with(&["-"], &args), trace);
        assert!(stdout.contains(text) || stderr.contains(text), "{text} in\n{stdout}{stderr}");
    }
}

#[test]
fn bad_lines_end_it_unless_they_may_be_left_out() {
    let folder = Folder::new("bad");
    let file = folder.file("bad.csv", "0,a\n1\n2,a\nx,b\n");
    let (code, stdout, stderr) = hapax(&[&file], "");
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    for text in [
        &file as &str,
        "2 of its lines can't be used",
        "line 2: it has 1 column(s)",
        "line 4: \"x\" is no time",
        "--skip-bad",
    ] {
        assert!(stderr.contains(text), "{text} in\n{stderr}");
    }
    let (code, stdout, stderr) = hapax(&[&file, "--skip-bad"], "");
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("; 2 lines left out") && stderr.contains("warning: ") && stderr.contains("line 2: "),
        "{stdout}{stderr}"
    );
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let cases: [(&[&str], &str, i32, &[&str]); 8] = [
        (&["no/such/trace.csv"], "", 1, &["no/such/trace.csv", "can't be read", "fix: "]),
        (&["-"], "", 1, &["standard input: there is no event in it", "fix: "]),
        (&["-"], "time,id\n", 1, &["there is no event in it"]),
        (&[], "", 2, &["--rate"]),
        (&["-", "--rate", "5"], "", 2, &["--rate"]),
        (&["-", "--plot", "a.png"], TRACE, 2, &["SVG", "rsvg-convert"]),
        (&["--rate", "5", "--delay", "soon"], "", 2, &["exp:MEAN"]),
        (&["-", "--plot", "no/such/folder/a.svg"], TRACE, 1, &["no/such/folder/a.svg", "fix: "]),
    ];
    for (args, stdin, exit, texts) in cases {
        let (code, _, stderr) = hapax(args, stdin);
        assert_eq!(code, Some(exit), "{args:?}: {stderr}");
        for text in texts {
            assert!(stderr.contains(text), "{text} in\n{stderr}");
        }
    }
}

#[test]
fn a_plot_has_a_title_axes_with_units_and_a_line_for_each_ttl() {
    let folder = Folder::new("plot");
    let path = folder.path("caught.svg");
    let (code, _, stderr) = hapax(&with(&["-", "--plot", &path], &GRID), TRACE);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let svg = std::fs::read_to_string(path).expect("written");
    assert!(svg.starts_with("<svg"), "{svg}");
    for text in [
        "Repeats caught, by capacity and TTL",
        "standard input: 6 publishes",
        "capacity (ids, logarithmic)",
        "caught (% of all repeats)",
        "1s",
        "5s",
        "target 99.9 %",
    ] {
        assert!(
            svg.lines().any(|line| line.trim() == text || (line.contains(text) && text.contains(':'))),
            "{text} in\n{svg}"
        );
    }
    // A dot for each cell, and one for each TTL in the legend.
    assert_eq!(svg.matches("<circle").count(), 3 * 2 + 2);
}

#[test]
fn a_made_up_workload_needs_no_file() {
    let args = ["--rate", "1000", "--events", "5k", "--duplicates", "20%", "--delay", "exp:200ms", "--json"];
    let (code, stdout, stderr) = hapax(&args, "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let repeats = json["trace"]["repeats"].as_u64().expect("a number");
    assert!((800..1_100).contains(&repeats), "{repeats}");
    assert_eq!(json["cells"].as_array().map(Vec::len), Some(121), "ten by ten, and the present setting");
    assert!(json["smallest"]["caught_of_repeats"].as_f64() >= Some(0.999), "{}", json["smallest"]);
}

#[test]
fn restarts_are_compared_without_and_with_a_store() {
    let restarts = ["-", "--restart-every", "2s", "--remember-delay", "500ms"];
    let (code, text, stderr) = hapax(&with(&restarts, &GRID), TRACE);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let end = text.split("Restarts of the relay every ").nth(1).expect("a part about restarts");
    assert!(end.starts_with("2s (2 of them), with capacity = 1000000 and ttl = \"10m\""), "{end}");
    let (_, json, _) = hapax(&with(&with(&restarts, &["--json"]), &GRID), TRACE);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let rows = json["restarts"]["rows"].as_array().expect("rows");
    let brief = |row: &Value| {
        (row["remember"].clone(), row["caught"].clone(), row["passed_because_of_restarts"].clone())
    };
    let told: Vec<_> = rows.iter().map(brief).collect();
    // A restart at 2 s and at 4 s. "a" comes at 0, 2 and 4.5 s, "b" at 1 and 4 s: each repeat follows a restart.
    let row = |remember: Value, caught: u64, passed: u64| (remember, caught.into(), passed.into());
    assert_eq!(told, [row(Value::Null, 0, 3), row("async".into(), 3, 0), row("sync".into(), 3, 0)]);
    let (_, plain, _) = hapax(&with(&["-", "--json"], &GRID), TRACE);
    let plain: Value = serde_json::from_str(&plain).expect("JSON");
    assert_eq!(
        (&plain["restarts"], &plain["cells"]),
        (&Value::Null, &json["cells"]),
        "the grid is as without"
    );
    let (code, _, stderr) = hapax(&["-", "--remember-delay", "1s"], TRACE);
    assert_eq!((code, stderr.contains("--restart-every")), (Some(2), true), "{stderr}");
}
