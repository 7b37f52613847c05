//! How much memory this process may count on: the machine's, or what its control group leaves it.

use std::fs;
use std::path::{Path, PathBuf};

/// What is assumed where the system does not say.
const UNKNOWN: usize = 4 << 30;

/// Bytes: the least of the machine's memory and the limits of the process's control group and of those above it.
pub(super) fn memory() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| limit(&fs::read_to_string(file).ok()?));
    machine.into_iter().chain(limits).min().unwrap_or(UNKNOWN)
}

/// `MemTotal:       24523456 kB`
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// A number of bytes. Without a limit it is the word `max` (version 2), or a number that no machine has (version 1): the
/// machine's own is less.
fn limit(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

/// The files with a limit for the process, its own group's first. Version 2 has one line `0::/PATH`, version 1 one for each
/// controller.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_limits_are_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert_eq!((limit("max\n"), limit("1048576\n")), (None, Some(1 << 20)));
    }

    #[test]
    fn a_group_and_all_above_it_have_a_limit() {
        let shown = |groups: &str| -> Vec<String> {
            limit_files(groups).iter().map(|file| file.display().to_string()).collect()
        };
        let slice = "/sys/fs/cgroup/system.slice";
        assert_eq!(
            shown("0::/system.slice/hapax.service\n"),
            [
                format!("{slice}/hapax.service/memory.max"),
                format!("{slice}/memory.max"),
                "/sys/fs/cgroup/memory.max".into()
            ]
        );
        assert_eq!(
            shown("5:cpu,memory:/a\n4:pids:/a\n"),
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
    }

    #[test]
    fn this_machine_has_some() {
        assert!(memory() > 1 << 20);
    }
}
