//! The operating system's facts about this process, from `/proc`: memory, CPU time, open files, start time. On other
//! systems than Linux there are none, and nothing is shown.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;

/// This process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// when it started, in seconds since 1970
    started_at: Option<f64>,
}

/// The resource usage of the process at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Usage {
    /// user and system time since the start
    pub(crate) cpu_seconds: f64,
    /// memory in RAM
    pub(crate) resident_bytes: u64,
    /// address space
    pub(crate) virtual_bytes: u64,
    /// open files, sockets and the like
    pub(crate) open_files: Option<u64>,
    /// the most that may be open; `None` if there is no limit
    pub(crate) max_files: Option<u64>,
}

/// The fields of `/proc/self/stat` that are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    cpu_ticks: u64,
    /// start time after boot
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn resident_bytes(&self) -> u64 {
        self.resident_pages * rustix::param::page_size() as u64
    }
}

/// Returns the CPU time (user and system) in seconds and the memory in RAM in bytes of the process with this id.
#[cfg(feature = "tools")]
pub(crate) fn of(pid: u32) -> Option<(f64, u64)> {
    let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some((ticks_to_seconds(stat.cpu_ticks), stat.resident_bytes()))
}

/// Returns this process's memory in RAM, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    stat().map(|stat| stat.resident_bytes())
}

impl Process {
    /// Creates the description of the process that runs this code.
    pub(crate) fn this() -> Process {
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_seconds(&text));
        let started_at = boot.zip(stat()).map(|(boot, stat)| boot + ticks_to_seconds(stat.start_ticks));
        Process { started_at }
    }

    /// Returns when the process started, in seconds since 1970.
    pub(crate) fn started_at(&self) -> Option<f64> {
        self.started_at
    }

    /// Returns the resource usage now.
    #[expect(clippy::unused_self, reason = "they are this process's numbers")]
    pub(crate) fn now(&self) -> Option<Usage> {
        let stat = stat()?;
        // The folder itself is open while it is read, so do not count it.
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1));
        Some(Usage {
            cpu_seconds: ticks_to_seconds(stat.cpu_ticks),
            resident_bytes: stat.resident_bytes(),
            virtual_bytes: stat.virtual_bytes,
            open_files: open,
            max_files: file_limit(),
        })
    }
}

/// Returns how many files this process may have open; `None` if there is no limit.
pub fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit of open files to the hard limit, and returns it.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(file_limit())
}

/// Files that each client may need: its socket and the one to the broker.
const FILES_OF_CLIENT: u64 = 2;

/// The limit of open files is too low for the clients that may connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooFewFiles {
    /// how many files may be open
    pub have: u64,
    /// how many may be needed
    pub needed: u64,
}

impl TooFewFiles {
    /// What an operator can do about it.
    pub const FIX: &str = "raise the limit (ulimit -n, LimitNOFILE), or lower limits.max_connections";

    /// Returns the limit if it is too low for so many clients and the other files of the process.
    pub fn of(max_connections: usize, others: u64) -> Option<TooFewFiles> {
        let needed = max_connections as u64 * FILES_OF_CLIENT + others;
        file_limit().filter(|have| *have < needed).map(|have| TooFewFiles { have, needed })
    }
}

impl std::fmt::Display for TooFewFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TooFewFiles { have, needed } = self;
        write!(
            f,
            "the limit of open files is too low for limits.max_connections: {have} may be open, and {needed} may be needed"
        )
    }
}

fn stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Parses `/proc/PID/stat` (proc(5)). The second field is the program's name in parentheses and may contain anything,
/// even spaces and parentheses. Fields count from 1, so the first field after the name has number 3.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

fn boot_seconds(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "ticks of many years are exact in 53 bits")]
fn ticks_to_seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_that_may_be_anything() {
        let text = "7 (a ) R 1 (b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 12345 8192000 321 18446744073709551615 1\n";
        assert_eq!(
            parse_stat(text),
            Some(Stat { cpu_ticks: 200, start_ticks: 12345, virtual_bytes: 8_192_000, resident_pages: 321 })
        );
        assert_eq!(parse_stat("7 (cut short) S 1"), None);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1.7e9));
    }

    #[test]
    fn this_process_is_known() {
        let process = Process::this();
        let before = process.now().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let seen = process.now().unwrap();
        drop(file);
        // Other tests of this binary run at the same time and open files, so their exact number can't be checked.
        assert!(before.open_files.unwrap() >= 3, "{before:?}");
        let ratio = seen.resident_bytes as f64 / (kib * 1024) as f64;
        assert!((0.8..1.25).contains(&ratio), "{seen:?} {resident}");
        assert!(seen.virtual_bytes >= seen.resident_bytes && seen.cpu_seconds >= before.cpu_seconds);
        let file_age = fs::metadata("/proc/self").unwrap().modified().unwrap();
        let age = file_age.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((age - process.started_at().unwrap()).abs() < 60.0, "{process:?} {age}");
    }
}
