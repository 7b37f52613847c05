//! The systemd unit: what it promises holds for its user.

use super::cli::{hapax, run};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// A folder that everybody may enter.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("hapax-operate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("folder");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("changed");
        Folder(path)
    }

    /// A file of root's with this mode.
    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `hapax check` as `nobody`, with this folder of credentials: exit code, output and errors.
fn check_as_nobody(binary: &Path, config: &Path, credentials: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(binary).arg("check").arg("--config").arg(config).stdin(Stdio::null());
    for name in ["CONFIG", "LISTEN", "UPSTREAM", "ADMIN", "ADMIN_TOKEN", "LOG"] {
        command.env_remove(format!("HAPAX_{name}"));
    }
    run(command.current_dir("/").env("CREDENTIALS_DIRECTORY", credentials))
}

/// Gives one user the right to read, as systemd does where it cannot give the file away: an access list.
fn let_read(path: &Path, user: u32) -> bool {
    let entry = |tag: u16, may: u16, id: u32| {
        [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let nobody_else = u32::MAX;
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 4, nobody_else),
        entry(2, 4, user),
        entry(4, 0, nobody_else),
        entry(16, 4, nobody_else),
        entry(32, 0, nobody_else),
    ]
    .concat();
    rustix::fs::setxattr(path, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).is_ok()
}

#[test]
fn the_units_user_can_read_its_secrets_and_nobody_elses() {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return println!("passed over: only root can run a process as another user");
    }
    let folder = Folder::new("unit");
    // The folder of the build may be closed to others.
    let binary = folder.0.join("hapax");
    fs::copy(env!("CARGO_BIN_EXE_hapax"), &binary).expect("copied");
    fs::set_permissions(&binary, Permissions::from_mode(0o755)).expect("changed");
    let config = folder.file(
        "hapax.toml",
        "admin_token_file = \"${CREDENTIALS_DIRECTORY}/hapax.admin.token\"\n\
         digest_secret_file = \"${CREDENTIALS_DIRECTORY}/hapax.digest.secret\"\n",
        0o644,
    );
    let secrets = |mode: u32| {
        [
            folder.file("hapax.admin.token", "0123456789abcdef\n", mode),
            folder.file("hapax.digest.secret", "000102030405060708090a0b0c0d0e0f\n", mode),
        ]
    };

    // systemd gives the files to the service's user, mode 400.
    for path in secrets(0o400) {
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("given");
    }
    let (code, stdout, stderr) = check_as_nobody(&binary, &config, &folder.0);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("hapax.admin.token") && !stdout.contains("0123456789"), "{stdout}");

    // Or they are root's, with an access list; their mode is 440 then.
    let lists = secrets(0o400).map(|path| (let_read(&path, NOBODY), path));
    if lists.iter().all(|(may, _)| *may) {
        assert_eq!(fs::metadata(&lists[0].1).expect("there").mode() & 0o777, 0o440);
        let (code, _, stderr) = check_as_nobody(&binary, &config, &folder.0);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
    } else {
        println!("passed over: this file system has no access lists");
    }

    // Root's own file, as one would name it first.
    secrets(0o600);
    let (code, _, stderr) = check_as_nobody(&binary, &config, &folder.0);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("Permission denied") && stderr.contains("LoadCredential="), "{stderr}");

    // A file that everybody can read is refused. Its owner does not matter.
    secrets(0o444);
    let (code, _, stderr) = check_as_nobody(&binary, &config, &folder.0);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("every user of this host can read"), "{stderr}");
}

#[test]
fn without_systemd_its_folder_is_an_error_with_the_way_out() {
    let folder = Folder::new("no-unit");
    let config = folder.file(
        "hapax.toml",
        "\nadmin_token_file = \"${CREDENTIALS_DIRECTORY}/hapax.admin.token\"\n",
        0o644,
    );
    let name = config.to_str().expect("UTF-8");
    let (code, _, stderr) = run(hapax(&["check", "--config", name]).env_remove("CREDENTIALS_DIRECTORY"));
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("hapax.toml:2: ") && stderr.contains("CREDENTIALS_DIRECTORY is not set"),
        "{stderr}"
    );
}

#[test]
fn the_unit_loads_the_files_that_the_documents_name() {
    let unit = fs::read_to_string("config/hapax.service").expect("there");
    let loaded: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")).collect();
    assert_eq!(loaded, ["hapax.admin.token", "hapax.digest.secret"]);
    for document in ["config/hapax.toml", "config/hapax.service", "docs/operations.md"] {
        let text = fs::read_to_string(document).expect("there");
        for name in &loaded {
            assert!(
                text.contains(&format!("${{CREDENTIALS_DIRECTORY}}/{name}"))
                    || document.ends_with(".md") && text.contains(name),
                "{name} in {document}"
            );
        }
    }
    // systemd's own opinion, where it is installed. The binary is not installed here.
    let folder = Folder::new("verify");
    let there = unit.replace("/usr/bin/hapax", "/bin/true");
    let path = folder.file("hapax.service", &there, 0o644);
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        return println!("passed over: there is no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // The manual pages are not installed here either.
    let about_it =
        said.lines().filter(|line| line.contains("hapax.service") && !line.contains("Command 'man "));
    let about_it: Vec<&str> = about_it.collect();
    assert!(about_it.is_empty(), "{about_it:#?}");
}

#[test]
fn systemd_finds_little_to_say_against_the_sandbox() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=15", "config/hapax.service"]);
    let Ok(output) = command.output() else {
        return println!("passed over: there is no systemd-analyze");
    };
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("unrecognized option") {
        return println!("passed over: this systemd-analyze is too old");
    }
    assert!(output.status.success(), "{said}");
}
