//! The folder of a process: `state_dir`. One process has it at a time.
//!
//! ```text
//! STATE_DIR/lock                       who has it
//! STATE_DIR/secret                     the secret of the digests, if the configuration names no file with one
//! STATE_DIR/windows/NAME/*.log         the log of a window
//! ```

use crate::clock::now;
use crate::config::DigestSecret;
use crate::store::Failure;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK: &str = "lock";
const SECRET: &str = "secret";
/// Bytes of a secret that Hapax makes.
const SECRET_BYTES: usize = 32;
/// How often a process that waits for the folder looks whether it is free.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The folder of this process. Another process gets it when this is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why a process does not have the folder.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another process has it: the number of that process, as it has written it.
    Taken(String),
    /// It can't be used.
    Unusable(Failure),
}

impl Refused {
    /// Says what to do. `waited`: the time that the other process had to end.
    fn failure(self, path: &Path, waited: Duration) -> Failure {
        let pid = match self {
            Refused::Unusable(failure) => return failure,
            Refused::Taken(pid) => pid,
        };
        let waited = match waited {
            Duration::ZERO => String::new(),
            waited => format!(
                "; it has not ended within {} (`timeouts.takeover`)",
                humantime::format_duration(waited)
            ),
        };
        Failure {
            what: format!(
                "another process (pid {pid}) uses the folder {} (`state_dir`){waited}",
                path.display()
            ),
            fix: "stop that process (SIGTERM drains it), or give this one a `state_dir` of its own"
                .to_owned(),
        }
    }
}

impl StateDir {
    /// Opens the folder, as [`StateDir::try_open`]. If another process has it, that is a failure.
    pub(crate) fn open(path: &Path) -> Result<StateDir, Failure> {
        StateDir::try_open(path).map_err(|refused| refused.failure(path, Duration::ZERO))
    }

    /// Opens the folder. If another process has it, waits for the end of that process, for at most this time. The kernel gives the lock
    /// free when that process has written all and let go of it, or when it is dead: never while it may still write.
    pub(crate) async fn take_over(path: &Path, within: Duration) -> Result<StateDir, Failure> {
        let began = now();
        let mut told = false;
        loop {
            match StateDir::try_open(path) {
                Ok(state) => return Ok(state),
                Err(Refused::Taken(pid)) if now().saturating_duration_since(began) < within => {
                    if !std::mem::replace(&mut told, true) {
                        let folder = path.display().to_string();
                        let within = humantime::format_duration(within).to_string();
                        tracing::info!(
                            pid,
                            folder,
                            within,
                            "another process has the folder of `state_dir`: clients wait until it ends; SIGTERM drains it"
                        );
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(refused) => return Err(refused.failure(path, within)),
            }
        }
    }

    /// Opens the folder, and makes it if it is not there.
    fn try_open(path: &Path) -> Result<StateDir, Refused> {
        let failed = |error: io::Error| {
            Refused::Unusable(Failure {
                what: format!("can't use the folder {} (`state_dir`): {error}", path.display()),
                fix: format!(
                    "make the folder, and make it the property of the user that runs Hapax (install -d -m 0700 -o USER {}); in a unit of systemd: StateDirectory=hapax",
                    path.display()
                ),
            })
        };
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        }
        let mut lock = open_lock(path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = (&lock).take(20).read_to_string(&mut owner);
                return Err(Refused::Taken(match owner.trim() {
                    "" => "unknown".to_owned(),
                    pid => pid.to_owned(),
                }));
            }
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    /// Returns the folder of this window.
    pub(crate) fn window(&self, name: &str) -> PathBuf {
        folder_of(&self.path, name)
    }

    /// Reads the secret of the digests. If there is none yet, makes one.
    pub(crate) fn secret(&self) -> Result<DigestSecret, Failure> {
        let path = self.path.join(SECRET);
        if !path.exists() {
            self.make_secret(&path).map_err(|error| Failure {
                what: format!("can't make the secret of the digests in {}: {error}", path.display()),
                fix: "see that the folder can be written to and that the disk has room".to_owned(),
            })?;
        }
        DigestSecret::of_file(&path).map_err(|(what, fix)| Failure {
            what: format!("`state_dir` {what}"),
            fix: format!(
                "{fix}; if it is lost, the logs in {} can't be used any more: move them away, and the windows begin empty",
                self.path.join("windows").display()
            ),
        })
    }

    /// The file has its name only when its content is on the disk: a crash leaves no half of a secret.
    fn make_secret(&self, path: &Path) -> io::Result<()> {
        let unfinished = path.with_extension("tmp");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut random = [0; SECRET_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(file, "{digits}")?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// Returns the folder of a window below a state folder.
pub(super) fn folder_of(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join("windows").join(name)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("disk-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn the_second_process_is_told_who_has_the_folder() {
        let path = folder("lock");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(error.contains(&path.display().to_string()) && error.contains("fix: "), "{error}");
        drop(first);
        StateDir::open(&path).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[tokio::test]
    async fn the_second_process_has_the_folder_as_soon_as_the_first_lets_go_of_it() {
        let path = folder("takeover");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::take_over(&path, Duration::from_millis(30)).await.unwrap_err().to_string();
        assert!(error.contains("within 30ms (`timeouts.takeover`)") && error.contains("fix: "), "{error}");
        let hour = Duration::from_secs(3600);
        let mut second = Box::pin(StateDir::take_over(&path, hour));
        // It has looked once, and waits now.
        assert!(futures_util::FutureExt::now_or_never(&mut second).is_none());
        drop(first);
        drop(second.await.unwrap());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_secret_is_made_once_and_is_its_owners_alone() {
        let path = folder("secret");
        let state = StateDir::open(&path).unwrap();
        // A crash has left half of one.
        fs::write(path.join("secret.tmp"), "ab").unwrap();
        let secret = state.secret().unwrap();
        assert_eq!(state.secret().unwrap(), secret);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("secret"))), (0o700, 0o600));
        assert!(!path.join("secret.tmp").exists());

        fs::set_permissions(path.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = state.secret().unwrap_err().to_string();
        assert!(error.contains("644") && error.contains("chmod 600"), "{error}");
        for text in ["", "abcd", "no digits, but long enough for it"] {
            fs::write(path.join("secret"), text).unwrap();
            fs::set_permissions(path.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
            let error = state.secret().unwrap_err().to_string();
            assert!(error.contains("move them away"), "{text}: {error}");
        }
        fs::remove_dir_all(path).unwrap();
    }
}
