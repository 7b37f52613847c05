//! The dashboard reads numbers as the relay does: both are tested with one table of examples.

use std::fs;
use std::process::Command;

const SCRIPT: &str = r#"
const [module, file] = process.argv.slice(1);
const { readFileSync } = await import("node:fs");
const fmt = await import(module);
const table = JSON.parse(readFileSync(file, "utf8"));
const near = (a, b) => a === b || (a !== null && b !== null && Math.abs(a - b) < 1e-9);
for (const [kind, parse] of [["counts", fmt.parseCount], ["durations", fmt.parseSpan]])
  for (const [text, value] of table[kind])
    if (!near(parse(text), value)) console.log(`${kind} ${JSON.stringify(text)}: ${parse(text)} instead of ${value}`);
console.log(`${table.counts.length + table.durations.length} examples`);
"#;

#[test]
fn the_dashboard_reads_numbers_as_the_relay_does() {
    let folder = std::env::temp_dir().join(format!("hapax-operate-numbers-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    let module = folder.join("format.mjs");
    fs::copy("src/admin/dashboard/format.js", &module).expect("copied");
    let output = Command::new("node")
        .args(["--input-type=module", "--eval", SCRIPT])
        .arg(&module)
        .arg(fs::canonicalize("tests/fixtures/numbers.json").expect("there"))
        .output();
    let _ = fs::remove_dir_all(&folder);
    let Ok(output) = output else { return println!("passed over: there is no node") };
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(lines.len() == 1 && lines[0].ends_with(" examples"), "{lines:#?}");
}
