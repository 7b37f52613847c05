//! Completions and manual pages know every command.

use super::commands::{hapax, run};
use clap::Command;

/// Every command by its path, `["windows", "set"]`. Hidden ones (`bench compare`) are for those who work on Hapax.
fn paths(command: &Command, above: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let shown = |sub: &&Command| sub.get_name() != "help" && !sub.is_hide_set();
    for sub in command.get_subcommands().filter(shown) {
        let path: Vec<String> = above.iter().cloned().chain([sub.get_name().to_owned()]).collect();
        all.extend(paths(sub, &path));
        all.push(path);
    }
    all
}

fn all() -> Vec<Vec<String>> {
    let paths = paths(&hapax::cli::definition(), &[]);
    for name in [
        "serve",
        "check",
        "demo",
        "top",
        "windows",
        "ids",
        "producers",
        "connections",
        "journal",
        "drain",
        "log",
        "reload",
        "upstreams",
        "drops",
        "completions",
        "man",
    ] {
        assert!(paths.contains(&vec![name.to_owned()]), "{name}");
    }
    assert!(paths.contains(&vec!["windows".to_owned(), "flush".to_owned()]));
    paths
}

#[test]
fn every_command_can_be_completed() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&mut hapax(&["completions", shell], ""));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{shell}");
        for path in all() {
            let last = path.last().unwrap();
            assert!(ran.out.contains(last.as_str()), "{path:?} for {shell}");
        }
        assert!(ran.out.contains("token-file"), "{shell}");
    }
    assert_eq!(run(&mut hapax(&["completions", "cmd.exe"], "")).code, Some(2));
}

#[test]
fn bash_completes_what_follows() {
    let script = run(&mut hapax(&["completions", "bash"], "")).out;
    let folder = std::env::temp_dir().join(format!("hapax-completions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("hapax.bash");
    std::fs::write(&file, script).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(hapax windows f); COMP_CWORD=2; _hapax hapax f windows; echo \"${COMPREPLY[*]}\"";
    let output = std::process::Command::new("bash").args(["-c", ask]).arg(&file).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "flush", "{output:?}");
}

#[test]
fn every_command_has_a_manual_page() {
    let root = run(&mut hapax(&["man"], ""));
    assert_eq!((root.code, root.err.as_str()), (Some(0), ""));
    for path in all() {
        let args: Vec<&str> = ["man"].into_iter().chain(path.iter().map(String::as_str)).collect();
        let page = run(&mut hapax(&args, ""));
        assert_eq!(page.code, Some(0), "{path:?}: {}", page.err);
        let name = format!("hapax-{}", path.join("-"));
        assert!(page.out.contains(&format!(".TH {name} 1")), "{path:?}\n{}", page.out);
        if path.len() == 1 {
            assert!(root.out.contains(&format!("hapax\\-{}", path[0])), "{path:?}\n{}", root.out);
        }
    }
    let unknown = run(&mut hapax(&["man", "windws"], ""));
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("hapax windws"), "{}", unknown.err);
}

#[test]
fn all_pages_are_written_at_once() {
    let folder = std::env::temp_dir().join(format!("hapax-man-{}", std::process::id()));
    let ran = run(&mut hapax(&["man", "--out", folder.to_str().unwrap()], ""));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for path in all() {
        let page = folder.join(format!("hapax-{}.1", path.join("-")));
        assert!(page.exists(), "{}", page.display());
    }
    assert!(folder.join("hapax.toml.5").exists());
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Every key of a file, with the header of its section, from the file as a parser of TOML reads it.
fn keys(table: &toml::Table, path: &str, header: &str, all: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(inner) => keys(inner, &path, &format!("[{path}]"), all),
            toml::Value::Array(tables) if !tables.is_empty() && tables.iter().all(toml::Value::is_table) => {
                let inner = tables.iter().filter_map(toml::Value::as_table);
                inner.for_each(|inner| keys(inner, &path, &format!("[[{path}]]"), all));
            }
            _ => all.push((header.to_owned(), key.clone())),
        }
    }
}

#[test]
fn the_page_of_the_configuration_has_every_key_with_its_words() {
    let ran = run(&mut hapax(&["man", "hapax.toml"], ""));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    // Section by section, as the page has them.
    let mut pages = std::collections::BTreeMap::new();
    for part in ran.out.split("\n.SH ").skip(1) {
        let (title, text) = part.split_once('\n').unwrap();
        pages.insert(title.trim_matches('"').to_owned(), text.to_owned());
    }
    let full = std::fs::read_to_string("tests/fixtures/config_full.toml").unwrap();
    let mut all = Vec::new();
    keys(&full.parse().unwrap(), "", "", &mut all);
    assert!(all.len() > 50, "{all:?}");
    for (section, key) in all {
        let title = if section.is_empty() { "TOP LEVEL" } else { &section };
        let page = pages.get(title).unwrap_or_else(|| panic!("{title} of {key}: {:?}", pages.keys()));
        let head = page.lines().position(|line| line.starts_with(&format!("\\fB{key}\\fR = ")));
        let place = head.unwrap_or_else(|| panic!("{title}: {key} in\n{page}"));
        let above = page.lines().nth(place - 1).unwrap();
        assert!(above == ".TP", "{title}: {key} stands below {above:?}");
    }
    // No word of the file is missing, and none was invented.
    let words = |text: &str| -> Vec<String> {
        let plain = text.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\.", ".").replace("\\\\", "\\");
        plain.split_whitespace().map(str::to_owned).collect()
    };
    let page: std::collections::BTreeSet<String> = words(&ran.out).into_iter().collect();
    let file = std::fs::read_to_string("config/hapax.toml").unwrap();
    for line in file.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| !line.contains(" = ")) {
        for word in words(line).into_iter().filter(|word| !word.starts_with('[')) {
            assert!(page.contains(&word), "{word:?} of {line:?}");
        }
    }
}

#[test]
fn man_has_nothing_to_say_against_the_pages() {
    let folder = std::env::temp_dir().join(format!("hapax-man-said-{}", std::process::id()));
    let ran = run(&mut hapax(&["man", "--out", folder.to_str().unwrap()], ""));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for name in ["hapax.1", "hapax-check.1", "hapax.toml.5"] {
        let mut man = std::process::Command::new("groff");
        let Ok(output) = man.args(["-man", "-Tutf8", "-ww"]).arg(folder.join(name)).output() else {
            println!("passed over: there is no groff");
            break;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        assert!(output.stdout.len() > 500, "{name}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
