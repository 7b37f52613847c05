//! The table of `docs/stores.md` against the one of the tests that show it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The first cells of a table below a heading, and the whole of its rows.
fn rows(file: &str, heading: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).unwrap();
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section = below.take_while(|line| !line.starts_with("## "));
    let rows = section.filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| (row.split('|').nth(1).unwrap().trim().to_owned(), row.to_owned())).collect()
}

/// Adds the names of all functions below this folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let declared = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
            names.extend(declared.filter_map(|line| line.split('(').next()).map(str::to_owned));
        }
    }
}

#[test]
fn the_table_of_stores_is_shown() {
    let says = rows("docs/stores.md", "## What can happen, and what passes");
    let shown = rows("docs/testing.md", "## What can happen to a store");
    let first = |rows: &[(String, String)]| rows.iter().map(|(cell, _)| cell.clone()).collect::<Vec<_>>();
    assert!(says.len() > 15);
    assert_eq!(first(&says), first(&shown));
    let mut there = BTreeSet::new();
    ["src", "core", "tests"].iter().for_each(|folder| functions(Path::new(folder), &mut there));
    for (what, row) in &shown {
        let is_test = |word: &&str| word.matches('_').count() > 1;
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).filter(is_test).collect();
        assert!(!tests.is_empty() || row.contains("not shown"), "no test shows: {what}");
        for test in tests {
            assert!(there.contains(test), "{what}: there is no test {test}");
        }
    }
}
