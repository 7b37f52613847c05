//! The layers of the code: no folder imports one above it, and `hapax-core` has no sockets, runtime or clock to use.
//!
//! All paths that begin with `crate::` or `super::` are read from the sources, tests within them included.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder or file, and what it may import beside itself.
type Layers = &'static [(&'static str, &'static [&'static str])];

const CORE: Layers = &[
    ("wire", &[]),
    ("window", &["wire"]),
    ("pressure", &["window", "wire"]),
    ("session", &["window", "wire"]),
];

const BELOW_TOOLS: &[&str] = &[
    "accept",
    "clock",
    "bounded_file",
    "private_file",
    "process",
    "stats",
    "tls",
    "config",
    "log",
    "store",
    "signals",
    "chaos",
    "net",
    "live",
    "admin",
];

/// `log` reads its settings as `config` has checked them. `main` and `run` are the binary and may import everything.
const SHELL: Layers = &[
    ("accept", &[]),
    ("clock", &[]),
    ("process", &[]),
    ("service", &[]),
    ("stats", &[]),
    ("bounded_file", &[]),
    ("private_file", &["bounded_file"]),
    ("tls", &["bounded_file", "private_file"]),
    ("config", &["bounded_file", "private_file", "tls"]),
    ("log", &["config"]),
    ("store", &["clock", "process", "bounded_file", "tls", "config", "log"]),
    ("signals", &["clock", "tls", "config", "log", "store"]),
    ("chaos", &["clock", "tls", "config", "store", "signals"]),
    ("net", &["accept", "clock", "process", "stats", "tls", "config", "log", "signals", "chaos"]),
    ("live", &["clock", "process", "tls", "config", "log", "store", "net"]),
    (
        "admin",
        &["accept", "clock", "process", "stats", "tls", "config", "log", "signals", "chaos", "net", "live"],
    ),
    ("tools", BELOW_TOOLS),
    ("cli", &["config", "store", "tools"]),
];

/// Tools do not import each other, but what they share.
const TOOLS: Layers = &[
    ("text", &[]),
    ("chart", &["text"]),
    ("reach", &["text"]),
    ("bench", &["text", "chart"]),
    ("demo", &["text"]),
    ("simulate", &["text", "chart"]),
    ("record", &["text", "reach"]),
    ("terminal", &["text", "reach"]),
    ("command", &["bench", "demo", "simulate", "record", "terminal", "reach"]),
];

/// Crates that would give the core a runtime, sockets, files or a clock.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "tokio-util",
    "mio",
    "socket2",
    "hyper",
    "axum",
    "rustix",
    "nix",
    "polling",
    "async-io",
    "async-std",
    "smol",
    "futures-util",
    "lapin",
    "ureq",
    "chrono",
    "jiff",
    "time",
    "web-time",
    "quanta",
    "tempfile",
    "memmap2",
];

/// Crates with sockets or a clock inside that the core has in its tree and does not use:
///
/// * `amq-protocol`, for its generated methods, always brings `amq-protocol-tcp`, `tcp-stream` and `async-rs`;
/// * `moka` reads a clock of its own for its expiry. The engine does not use that: it keeps the instants that it is given.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    ("amq-protocol-tcp", &["amq-protocol"]),
    ("tcp-stream", &["amq-protocol-tcp"]),
    ("async-rs", &["amq-protocol-tcp", "tcp-stream"]),
    ("moka", &["hapax-core"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            sources(&entry.path(), found);
        } else if entry.path().extension().is_some_and(|end| end == "rs") {
            found.push(entry.path());
        }
    }
}

/// `admin/api/mod.rs` is `["admin", "api"]`.
fn module(path: &Path) -> Vec<String> {
    let mut parts: Vec<_> =
        path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// The text without comments and the insides of strings, with as many lines.
fn code(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = line.replace("\\\"", "");
        let mut rest = line.split("//").next().unwrap();
        while let Some((before, quoted)) = rest.split_once('"') {
            out.push_str(before);
            rest = quoted.split_once('"').map_or("", |(_, after)| after);
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

/// Adds the paths that begin at the start of `text`, just after a `::`: one name and its continuation, or each branch of a `{…}`.
fn branches(text: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut begin) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => return branches(&group[begin..at], prefix, paths),
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    branches(&group[begin..at], prefix, paths);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut path = prefix.to_vec();
    match name {
        "" => {}
        "super" => drop(path.pop()),
        "self" => {}
        name => path.push(name.to_owned()),
    }
    match rest.trim_start().strip_prefix("::") {
        Some(rest) if !rest.trim_start().starts_with(['<', '*']) => branches(rest, &path, paths),
        _ => paths.push(path),
    }
}

/// Every path in this text of the module `here`, from the root of the crate, with its line.
fn imports(text: &str, here: &[String]) -> Vec<(usize, Vec<String>)> {
    let text = code(text);
    let mut found = Vec::new();
    for (word, prefix) in [("crate", &[][..]), ("super", here)] {
        for (at, _) in text.match_indices(&format!("{word}::")) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let begin = if word == "super" { at } else { at + word.len() + 2 };
            let mut paths = Vec::new();
            branches(&text[begin..], prefix, &mut paths);
            let line = text[..at].lines().count() + usize::from(text[..at].ends_with('\n'));
            found.extend(paths.into_iter().map(|path| (line.max(1), path)));
        }
    }
    found
}

/// The imports of a module that its layer may not have.
fn upward(layers: Layers, under: &[&str], here: &[String], text: &str) -> Vec<String> {
    let layer_of = |path: &[String]| -> Option<String> {
        let inside = path.iter().zip(under).all(|(part, name)| part == name) && path.len() > under.len();
        inside.then(|| path[under.len()].clone())
    };
    let Some(layer) = layer_of(here) else { return Vec::new() };
    let Some((_, allowed)) = layers.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{layer} is in no layer: add it to tests/layers.rs")];
    };
    let known = |name: &String| layers.iter().any(|(layer, _)| layer == name);
    imports(text, here)
        .into_iter()
        .filter_map(|(line, path)| Some((line, layer_of(&path)?)))
        .filter(|(_, other)| *other != layer && known(other) && !allowed.contains(&other.as_str()))
        .map(|(line, other)| format!("{}, line {line}: {layer} imports {other}", here.join("::")))
        .collect()
}

fn judge(folder: &str, layers: Layers, under: &[&str], passed_over: &[&str]) {
    let folder = root().join(folder);
    let mut files = Vec::new();
    sources(&folder, &mut files);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in &files {
        let here = module(file.strip_prefix(&folder).unwrap());
        if passed_over.contains(&here.join("::").as_str()) {
            continue;
        }
        seen.extend(here.get(under.len()).cloned());
        wrong.extend(upward(layers, under, &here, &std::fs::read_to_string(file).unwrap()));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (layer, _) in layers {
        assert!(seen.contains(*layer), "there is no {layer} any more: take it out of tests/layers.rs");
    }
}

#[test]
fn no_folder_of_the_core_imports_one_above_it() {
    judge("core/src", CORE, &[], &[""]);
}

#[test]
fn no_folder_of_the_shell_imports_one_above_it() {
    judge("src", SHELL, &[], &["", "run"]);
}

#[test]
fn no_tool_imports_another() {
    judge("src", TOOLS, &["tools"], &["tools"]);
}

#[test]
fn an_import_that_points_upwards_is_seen() {
    let here: Vec<String> = ["net", "pump"].map(str::to_owned).to_vec();
    for (text, seen) in [
        ("use crate::admin::Admin;", true),
        ("fn f() {\n    crate::cli::definition();\n}", true),
        ("use crate::{\n    config,\n    admin::{self, Parts},\n};", true),
        ("use super::super::admin;", true),
        ("use crate::stats::Stats;", false),
        ("use super::side::{Came, Side};", false),
        ("// crate::admin", false),
        ("let text = \"crate::admin\";", false),
        ("use other_crate::admin;", false),
    ] {
        let wrong = upward(SHELL, &[], &here, text);
        assert_eq!(!wrong.is_empty(), seen, "{text}: {wrong:?}");
    }
    let tool: Vec<String> = ["tools", "bench", "report"].map(str::to_owned).to_vec();
    assert_eq!(
        upward(TOOLS, &["tools"], &tool, "\nuse crate::tools::demo::grouped;"),
        ["tools::bench::report, line 2: bench imports demo"]
    );
    assert!(upward(TOOLS, &["tools"], &tool, "use crate::tools::text::grouped;").is_empty());
    assert!(!upward(CORE, &[], &["window".to_owned()], "use crate::session::Windows;").is_empty());
}

/// The tree of `hapax-core`'s dependencies: each crate, and those that need it.
fn core_tree() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "-p",
            "hapax-core",
            "-e",
            "normal",
            "--prefix",
            "depth",
            "--no-dedupe",
            "--offline",
            "--locked",
        ])
        .args(["--format", "|{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut above: Vec<String> = Vec::new();
    for line in text.lines() {
        let (depth, package) = line.split_once('|').unwrap();
        let name = package.split(' ').next().unwrap().to_owned();
        above.truncate(depth.parse().unwrap());
        let needed_by = tree.entry(name.clone()).or_default();
        needed_by.extend(above.last().cloned());
        above.push(name);
    }
    tree
}

#[test]
fn the_core_has_no_runtime_sockets_or_clock_among_its_dependencies() {
    let tree = core_tree();
    assert!(tree.len() > 20 && tree.contains_key("bytes"), "{tree:?}");
    let forbidden: Vec<_> = FORBIDDEN.iter().filter_map(|name| tree.get_key_value(*name)).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    for (name, needed_by) in EXCEPTIONS {
        let Some(really) = tree.get(*name) else {
            panic!("{name} is no exception any more: take it out of tests/layers.rs")
        };
        assert!(really.iter().all(|by| needed_by.contains(&by.as_str())), "{name} is needed by {really:?}");
    }
}

/// The same for the standard library. (Clippy refuses `Instant::now` in code.)
#[test]
fn the_core_asks_the_standard_library_for_no_sockets_files_or_environment() {
    let mut files = Vec::new();
    sources(&root().join("core/src"), &mut files);
    for file in files {
        let text = code(&std::fs::read_to_string(&file).unwrap());
        for word in ["std::net", "std::fs", "std::env", "std::process", "SystemTime::now"] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}
