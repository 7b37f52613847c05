//! The files that are shipped beside the program: every file, key, port and option in them exists. No container and no package is made
//! here: `make test-package` does that.

use super::cli::hapax;
use hapax::config::{Config, Overrides};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The values behind every `NAME:` or `NAME=` at the begin of a line, without quotes, and without a comment.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
    let found = lines.filter_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix([':', '=']));
    found.map(|value| value.split(" #").next().unwrap_or("").trim().trim_matches('"')).collect()
}

/// The one value of this name.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let found = values(text, name);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0]
}

/// A text that stands indented below `name: |`.
fn block(text: &str, name: &str) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != format!("{name}: |"));
    let head = lines.next().unwrap_or_else(|| panic!("{name}: |"));
    let indent = head.len() - head.trim_start().len() + 2;
    let inside = lines.take_while(|line| line.is_empty() || line.starts_with(&" ".repeat(indent)));
    inside.map(|line| line.get(indent..).unwrap_or("").to_owned() + "\n").collect()
}

fn manifest() -> toml::Table {
    read("Cargo.toml").parse().expect("TOML")
}

#[test]
fn packages_name_each_others_version_and_have_their_licences() {
    let manifest = manifest();
    let version = manifest["workspace"]["package"]["version"].as_str().expect("text");
    for name in ["hapax-core", "hapax-testbed"] {
        let wanted =
            manifest["dependencies"][name]["version"].as_str().expect("without it, nothing can be published");
        assert_eq!(wanted, format!("={version}"), "{name}");
    }
    for folder in ["core", "testbed"] {
        let own: toml::Table = read(&format!("{folder}/Cargo.toml")).parse().expect("TOML");
        assert!(own["package"].get("publish").is_none(), "{folder}");
        for key in ["description", "readme", "license", "documentation"] {
            assert!(own["package"].get(key).is_some(), "{folder}: {key}");
        }
        for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert_eq!(read(&format!("{folder}/{name}")), read(name));
        }
    }
    assert!(manifest["package"].get("publish").is_none());
}

#[test]
fn the_debian_package_is_made_of_what_is_there() {
    let manifest = manifest();
    let deb = &manifest["package"]["metadata"]["deb"];
    let mut targets = BTreeSet::new();
    for asset in deb["assets"].as_array().expect("list") {
        let source = asset[0].as_str().expect("text");
        targets.insert(format!("/{}", asset[1].as_str().expect("text")));
        // The program, and what scripts/package lets it write.
        let made = source == "target/release/hapax"
            || read("scripts/package").contains("target/package-files")
                && source.starts_with("target/package-files/");
        let folder = source.rsplit_once('/').map_or(".", |(folder, _)| folder);
        let there =
            if source.contains('*') { Path::new(folder).is_dir() } else { Path::new(source).is_file() };
        assert!(made || there, "{source}");
    }
    assert!(targets.contains("/usr/bin/") && targets.contains("/etc/hapax/"), "{targets:?}");
    let scripts = deb["maintainer-scripts"].as_str().expect("text");
    for name in ["postinst", "prerm", "postrm"] {
        let script = read(&format!("{scripts}/{name}"));
        assert!(
            script.starts_with("#!/bin/sh\n")
                && script.contains("\nset -e\n")
                && script.contains("\n#DEBHELPER#\n"),
            "{name}"
        );
    }
    // The unit runs what the package installs, as the user that it makes.
    let unit = read("config/hapax.service");
    assert_eq!(value(&unit, "ExecStart"), "/usr/bin/hapax --config /etc/hapax/hapax.toml");
    let user = value(&unit, "User");
    assert!(read(&format!("{scripts}/postinst")).contains(&format!(" {user}\n")));
    let home = format!("/var/lib/{}", value(&unit, "StateDirectory"));
    assert!(
        read(&format!("{scripts}/postinst")).contains(&home)
            && read(&format!("{scripts}/postrm")).contains(&home)
    );
    let config = Config::default();
    assert_eq!(
        values(&read("config/examples/hapax.socket"), "ListenStream")[0],
        config.listen.expect("on").to_string()
    );
    // The unit waits for longer than the program takes.
    let stop: u64 = value(&unit, "TimeoutStopSec").trim_end_matches('s').parse().expect("seconds");
    assert!(Duration::from_secs(stop) > config.timeouts.drain + config.timeouts.drain_delay);
}

#[test]
fn the_image_copies_what_is_there_and_listens_where_it_says() {
    let file = read("Dockerfile");
    let ignored = read(".dockerignore");
    for line in
        file.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(Path::new(source).exists(), "{line}");
            assert!(!ignored.lines().any(|own| own == *source), "{source} is in .dockerignore");
        }
    }
    // No source is below a folder whose name is left out.
    let mut folders =
        vec![std::path::PathBuf::from("src"), "core/src".into(), "testbed/src".into(), "config".into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("read").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() {
                let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
                assert!(
                    !["tests", "benches", "target", "docs", "fuzz"].contains(&name.as_str()),
                    "{}",
                    entry.display()
                );
                folders.push(entry);
            }
        }
    }
    let config = Config::default();
    let admin = config.admin.expect("on");
    assert!(file.contains(&format!("EXPOSE {} {}\n", config.listen.expect("on").port(), admin.port())));
    assert!(file.contains(&format!("/dev/tcp/127.0.0.1/{}", admin.port())));
    assert!(file.contains(&format!("\"--listen\", \"0.0.0.0:{}\"", config.listen.expect("on").port())));
    assert!(file.contains("\nUSER 10001:10001\n"));
    // Debian and Rust are those that the project names.
    let rust = manifest()["workspace"]["package"]["rust-version"].as_str().expect("text").to_owned();
    assert!(file.contains(&format!("FROM rust:{rust}-bookworm AS build")));
}

#[test]
fn what_the_image_is_built_from_is_a_workspace_of_its_own() {
    let folder = std::env::temp_dir().join(format!("hapax-image-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let file = read("Dockerfile");
    let mut script = String::from("set -e\n");
    for line in file.lines().take_while(|line| !line.starts_with("ARG")) {
        if let Some(copied) = line.strip_prefix("COPY ") {
            let words: Vec<&str> = copied.split_whitespace().collect();
            let (sources, into) = words.split_at(words.len() - 1);
            script += &format!("cp -r {} {}/{}\n", sources.join(" "), folder.display(), into[0]);
        }
    }
    // `**/tests` and `**/benches` of .dockerignore.
    script += &format!("cd {}\nrm -rf core/tests core/benches testbed/tests\n", folder.display());
    let edit =
        file.lines().find_map(|line| line.strip_prefix("RUN ")?.strip_suffix(" \\")).expect("a first RUN");
    script += &format!(
        "{edit}\n\"{}\" metadata --offline --locked --no-deps --format-version 1 >/dev/null\n",
        env!("CARGO")
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("started");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn compose_mounts_what_is_there_and_sets_what_is_known() {
    let folder = "packaging/compose";
    let text = read(&format!("{folder}/compose.yaml"));
    let mut mounts = 0;
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("- .")) {
        let source = format!("{folder}/.{}", line.split(':').next().expect("a source"));
        assert!(Path::new(&source).is_file(), "{source}");
        mounts += 1;
    }
    assert!(mounts >= 5, "{mounts}");
    let context = format!("{folder}/{}", value(&text, "context"));
    assert!(Path::new(&context).join("Dockerfile").is_file());
    // Every variable is one of the program's.
    let mut known: BTreeSet<String> = BTreeSet::from(["HAPAX_ADMIN_TOKEN".to_owned()]);
    let definition = hapax::cli::definition();
    known.extend(
        definition.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned())),
    );
    let set: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("HAPAX_")).collect();
    assert_eq!(set.len(), 3, "{set:?}");
    let env: BTreeMap<&str, &str> =
        set.iter().map(|line| line.split_once(": ").expect("name: value")).collect();
    for name in env.keys() {
        assert!(known.contains(*name), "{name}: {known:?}");
    }
    // With these values the program starts, and listens on the ports that are published.
    let mut command = hapax(&["check", "--listen", "0.0.0.0:5673"]);
    command.envs(env).env("HAPAX_ADMIN_TOKEN", "0123456789abcdef");
    let (code, _, stderr) = super::cli::run(&mut command);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for port in ["5673", "15673"] {
        assert!(text.contains(&format!("\"127.0.0.1:{port}:{port}\"")), "{port}");
    }
    assert!(
        read(&format!("{folder}/prometheus.yml")).contains("job_name: hapax\n"),
        "the alerts expect this name"
    );
    assert!(read(&format!("{folder}/prometheus.yml")).contains("[\"hapax:15673\"]"));
    let grace: u64 = value(&text, "stop_grace_period").trim_end_matches('s').parse().expect("seconds");
    assert!(Duration::from_secs(grace) > Config::default().timeouts.drain);
}

#[test]
fn kubernetes_gets_a_configuration_that_holds_and_probes_that_exist() {
    let folder = "packaging/kubernetes";
    let (pods, secret) = (read(&format!("{folder}/hapax.yaml")), read(&format!("{folder}/secret.yaml")));
    let mut text = block(&read(&format!("{folder}/config.yaml")), "hapax.toml");
    // Each file that it names is in the secret, and is copied to where the program reads it. A copy for this test stands for it.
    for (file, fixture) in
        [("admin.token", "admin.token"), ("digest.secret", "digest.secret"), ("stream.uri", "stream.uri")]
    {
        assert_eq!(values(&secret, file), ["REPLACE"], "{file}");
        assert!(pods.contains(&format!("\"/secret/{file}\"")), "{file}");
        let copy = std::env::temp_dir().join(format!("hapax-kubernetes-{}-{file}", std::process::id()));
        std::fs::write(&copy, read(&format!("tests/fixtures/{fixture}"))).expect("written");
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o400))
            .expect("changed");
        let named = format!("/run/hapax/{file}");
        assert!(text.contains(&named), "{named}");
        text = text.replace(&named, copy.to_str().expect("UTF-8"));
    }
    let loaded = Config::parse(Some("hapax.toml"), &text, &Overrides::default());
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    let (listen, admin) = (config.listen.expect("on"), config.admin.expect("on"));
    assert!(listen.ip().is_unspecified() && admin.ip().is_unspecified());
    for (name, port) in [("amqp", listen.port()), ("admin", admin.port())] {
        assert!(pods.contains(&format!("{{name: {name}, containerPort: {port}}}")), "{name} {port}");
    }
    assert!(pods.contains(&format!("prometheus.io/port: \"{}\"", admin.port())));
    for path in ["/healthz", "/readyz"] {
        assert!(pods.contains(&format!("httpGet: {{path: {path}, port: admin}}")), "{path}");
        assert!(read("src/admin/mod.rs").contains(&format!("`{path}`")), "{path}");
    }
    let grace: u64 = value(&pods, "terminationGracePeriodSeconds").parse().expect("seconds");
    assert!(Duration::from_secs(grace) > config.timeouts.drain + config.timeouts.drain_delay);
    let number = |name| value(&pods, name).parse::<u32>().expect("a number");
    assert!(number("minAvailable") < number("replicas"), "a node could never be drained");
    assert_eq!([number("runAsUser"), number("fsGroup")], [10_001; 2], "the user of the image");
    for file in values(&read(&format!("{folder}/kustomization.yaml")), "newTag") {
        assert_eq!(file, env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn the_bill_of_materials_has_what_is_compiled_and_nothing_of_the_tests() {
    let Ok(output) = Command::new("scripts/sbom").output() else {
        return println!("passed over: there is no python3");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("tomllib") {
        return println!("passed over: python3 is older than 3.11");
    }
    assert!(output.status.success(), "{said}");
    let bom: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let components = bom["components"].as_array().expect("list");
    let names: BTreeSet<&str> =
        components.iter().filter_map(|component| component["name"].as_str()).collect();
    let direct = manifest();
    for name in direct["dependencies"].as_table().expect("table").keys() {
        assert!(names.contains(name.as_str()), "{name}");
    }
    for name in ["proptest", "criterion", "insta", "thirtyfour"] {
        assert!(!names.contains(name), "{name} is for tests");
    }
    for component in components {
        let own = component["name"].as_str().is_some_and(|name| name.starts_with("hapax-"));
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        assert!(
            own || component["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64),
            "{component}"
        );
    }
    assert_eq!(bom["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
}
