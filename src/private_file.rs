//! Files with a secret. Such a file must belong to its owner alone.

use crate::bounded_file;
use std::fmt;
use std::path::Path;

/// Bytes that are read of such a file. A token of 4 KiB, or a private key with its chain, fits.
const LONGEST: usize = 64 << 10;

/// A file with a secret that others than its owner can read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooOpen {
    mode: u32,
}

impl TooOpen {
    /// Returns the command that closes the file to everybody but its owner.
    pub(crate) fn fix(path: &Path) -> String {
        format!("chmod 600 {} (its owner must be who runs this)", path.display())
    }
}

impl fmt::Display for TooOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.mode & 0o006 == 0 { "its group" } else { "every user of this host" };
        write!(f, "which {who} can read or change (mode {:03o})", self.mode)
    }
}

/// Returns the text of a file with a secret, and whether others can access the file. Checks the mode of the open file,
/// because the name may lead to another file a moment later. A pipe or a device is not checked: its mode does not say
/// who has read the secret.
pub(crate) fn read_secret(path: &Path) -> std::io::Result<(String, Option<TooOpen>)> {
    use std::os::unix::fs::PermissionsExt;
    let (text, file) = bounded_file::read_text(path, LONGEST)?;
    let about = file.metadata()?;
    let mode = about.permissions().mode() & 0o777;
    let shared = about.is_file() && (mode & 0o006 != 0 || (mode & 0o060 != 0 && group_may(&file)));
    Ok((text, shared.then_some(TooOpen { mode })))
}

/// Returns true if the group really may read or write a file whose mode has the group's bits set. If the file has an
/// access list, these bits mean "somebody on the list": systemd uses such a list to give a service's user access to
/// its credentials.
fn group_may(file: &std::fs::File) -> bool {
    // This has room for some sixty entries. No list that systemd makes is longer.
    let mut list = [0; 512];
    match rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut list) {
        Ok(length) => list.get(..length).is_none_or(names_a_group),
        Err(_) => true,
    }
}

/// Returns true if an access list gives a group the right to read or write. The list has a version (4 bytes), and for
/// each entry a tag and permissions (2 bytes each) and an id (4 bytes), see acl(5).
fn names_a_group(list: &[u8]) -> bool {
    const READ_OR_WRITE: u16 = 6;
    const OWNING_GROUP: u16 = 4;
    const GROUP: u16 = 8;
    let mut entries = list.get(4..).unwrap_or_default().chunks_exact(8);
    entries.any(|entry| match entry {
        [tag0, tag1, may0, may1, ..] => {
            let (tag, may) = (u16::from_le_bytes([*tag0, *tag1]), u16::from_le_bytes([*may0, *may1]));
            matches!(tag, OWNING_GROUP | GROUP) && may & READ_OR_WRITE != 0
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_list_for_one_user_names_no_group() {
        let list = |entries: &[(u16, u16)]| -> Vec<u8> {
            let entry = |(tag, may): &(u16, u16)| {
                [tag.to_le_bytes(), may.to_le_bytes(), [0xFF; 2], [0xFF; 2]].concat()
            };
            [2_u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
        };
        // The entries are for the owner, a user, the owning group, the mask, and others, as systemd writes them.
        assert!(!names_a_group(&list(&[(1, 4), (2, 4), (4, 0), (16, 4), (32, 0)])));
        assert!(names_a_group(&list(&[(1, 4), (2, 4), (4, 4), (16, 4), (32, 0)])), "the owning group");
        assert!(names_a_group(&list(&[(1, 4), (4, 0), (8, 4), (16, 4), (32, 0)])), "a named group");
    }
}
