//! Processes and a folder that do not outlive us, whatever we die of.
//!
//! A small shell waits on a pipe whose other end only this process holds. That end closes when the leash is dropped, when the
//! process ends, and when it is killed with signal 9. Then the shell kills the processes that are on
//! the leash, by their ids, and removes the folder. Nothing is ever killed by its name.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// `$0` is our folder; a process that dies may still write there for a moment, hence the tries. The ids are file names in
/// `pids/`, so one that was let go is not there any more. The file `keep` says that all of it stays.
const KEEPER: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
[ -e "$0/keep" ] && exit
for held in "$0"/pids/*; do
  [ -e "$held" ] && kill -9 "${held##*/}" 2>/dev/null
done
tries=100
until rm -rf "$0" 2>/dev/null || [ $tries = 0 ]; do tries=$((tries - 1)); done
"#;

/// A private folder, and processes, that end with this value or with this process, whichever is first.
#[derive(Debug)]
pub struct Leash {
    folder: PathBuf,
    keeper: Child,
}

impl Leash {
    /// Makes the folder, readable by nobody else, and starts the shell that waits for our end.
    pub fn new(label: &str) -> io::Result<Leash> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hapax-{label}-{}-{serial}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder)?;
        fs::create_dir(folder.join("pids"))?;
        let keeper = Command::new("sh")
            .arg("-c")
            .arg(KEEPER)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Leash { folder, keeper })
    }

    /// The folder that goes with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// This process is to die with us.
    pub fn hold(&self, child: &Child) -> io::Result<()> {
        fs::write(self.slot(child), b"")
    }

    /// This process has ended and was waited for: its id may be somebody else's soon.
    pub fn let_go(&self, child: &Child) {
        let _ = fs::remove_file(self.slot(child));
    }

    /// Kills a process on the leash with signal 9, waits for it and lets it go.
    pub fn kill9(&self, child: &mut Child) {
        let _ = child.kill();
        let _ = child.wait();
        self.let_go(child);
    }

    /// Leaves the processes and the folder when the leash ends. Somebody else has to end them.
    pub fn cut(&self) -> io::Result<()> {
        fs::write(self.folder.join("keep"), b"")
    }

    fn slot(&self, child: &Child) -> PathBuf {
        self.folder.join("pids").join(child.id().to_string())
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_leash_ends_with_it_and_so_does_the_folder() {
        let leash = Leash::new("leash").unwrap();
        let folder = leash.folder().to_owned();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        leash.hold(&child).unwrap();
        drop(leash);
        assert!(!folder.exists());
        assert!(!child.wait().unwrap().success(), "killed, not waited for");
    }

    #[test]
    fn what_is_on_a_cut_leash_stays_and_so_does_the_folder() {
        let leash = Leash::new("leash").unwrap();
        let folder = leash.folder().to_owned();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        leash.hold(&child).unwrap();
        leash.cut().unwrap();
        drop(leash);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "it ended by itself when its input did");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_let_go_lives_on() {
        let leash = Leash::new("leash").unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        leash.hold(&child).unwrap();
        leash.let_go(&child);
        drop(leash);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "it ended by itself when its input did");
    }
}
