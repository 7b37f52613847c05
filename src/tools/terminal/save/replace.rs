//! Puts a new text in the place of a file, all of it at once: a reader finds the old text or the new one. Mode and owner
//! stay.

use crate::bounded_file;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Original {
    /// where it is, links followed
    path: PathBuf,
    pub(super) text: String,
    version: String,
    about: fs::Metadata,
}

/// A new text, written and synced beside the file. Dropped, it is deleted again.
#[derive(Debug)]
pub(super) struct Replacement {
    path: PathBuf,
    /// the new text; empty once it is in place
    beside: Option<PathBuf>,
    /// the version that it replaces
    version: String,
}

impl Original {
    /// Reads a file. A link is followed: the file that it leads to will be replaced, not the link.
    pub(super) fn read(path: &Path) -> io::Result<Original> {
        let path = fs::canonicalize(path)?;
        let (text, file) = bounded_file::read_text(&path, bounded_file::MOST)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is no ordinary file"));
        }
        let version = crate::config::version(&about);
        Ok(Original { path, text, version, about })
    }

    /// Returns what tells this file, as it is, from any other.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Writes a new text beside it.
    pub(super) fn prepare(self, text: &str) -> io::Result<Replacement> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let beside = self.path.with_file_name(format!(".{name}.saving"));
        // Left by a command that was killed.
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let Original { path, version, about, .. } = self;
        let replacement = Replacement { path, beside: Some(beside), version };
        file.write_all(text.as_bytes())?;
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (about.uid(), about.gid()) {
            fchown(&file, Some(about.uid()), Some(about.gid()))?;
        }
        file.set_permissions(about.permissions())?;
        file.sync_all()?;
        Ok(replacement)
    }
}

impl Replacement {
    /// Puts it in place, unless the file is another one by now.
    pub(super) fn put(mut self) -> io::Result<()> {
        if crate::config::version(&fs::metadata(&self.path)?) != self.version {
            return Err(io::Error::other("it was changed in the meantime"));
        }
        if let Some(beside) = &self.beside {
            fs::rename(beside, &self.path)?;
        }
        self.beside = None;
        // The name, too, survives a power failure.
        File::open(self.path.parent().unwrap_or(&self.path))?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("hapax-save-{}-{test}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn mode_owner_and_link_stay() {
        let folder = Folder::new("mode");
        let (file, link) = (folder.0.join("real.toml"), folder.0.join("link.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            chown(&file, Some(12), Some(34)).unwrap();
        }
        symlink("real.toml", &link).unwrap();
        Original::read(&link).unwrap().prepare("new").unwrap().put().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        let about = fs::metadata(&file).unwrap();
        assert_eq!(about.mode() & 0o7777, 0o640);
        assert!(!is_root || (about.uid(), about.gid()) == (12, 34));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(folder.names(), ["link.toml", "real.toml"]);
    }

    #[test]
    fn a_file_that_was_changed_meanwhile_is_left_alone() {
        let folder = Folder::new("changed");
        let file = folder.0.join("hapax.toml");
        fs::write(&file, "old").unwrap();
        let replacement = Original::read(&file).unwrap().prepare("new").unwrap();
        fs::write(&file, "by another").unwrap();
        assert!(replacement.put().is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "by another");
        // Nor is anything left of one that is not put in place.
        drop(Original::read(&file).unwrap().prepare("new").unwrap());
        assert_eq!(folder.names(), ["hapax.toml"]);
    }

    #[test]
    fn what_a_killed_command_has_left_is_no_obstacle_and_a_folder_is_one() {
        let folder = Folder::new("left");
        let (file, left) = (folder.0.join("hapax.toml"), folder.0.join(".hapax.toml.saving"));
        fs::write(&file, "old").unwrap();
        fs::write(&left, "half").unwrap();
        Original::read(&file).unwrap().prepare("new").unwrap().put().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        fs::create_dir(&left).unwrap();
        assert!(Original::read(&file).unwrap().prepare("newer").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }
}
