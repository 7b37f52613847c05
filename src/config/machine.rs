//! Finds out how much memory this process may use: the machine's memory, or the limit of its control group.

use std::fs;
use std::path::{Path, PathBuf};

/// The bytes of memory to assume if the system does not say.
const UNKNOWN: usize = 4 << 30;

/// Returns the bytes of memory that this process may use: the smallest of the machine's memory, the limit of its
/// control group, and the limits of all groups above that one.
pub fn memory() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| limit(&fs::read_to_string(file).ok()?));
    machine.into_iter().chain(limits).min().unwrap_or(UNKNOWN)
}

/// Returns the machine's memory from a line like `MemTotal:       24523456 kB`.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// Parses a limit in bytes. A group without a limit has the word `max` (cgroup version 2), which is no number, or a
/// number larger than any machine's memory (version 1), which the smaller machine's memory overrules.
fn limit(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

/// Returns the files that hold a memory limit for the process, its own group's first. `/proc/self/cgroup` has one line
/// `0::/PATH` in version 2, and one line per controller in version 1.
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
