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
        "connections",
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
    std::fs::remove_dir_all(&folder).unwrap();
}
