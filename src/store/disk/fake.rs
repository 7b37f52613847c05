//! A disk for tests: it can be full, refuse to sync, and lose power after any operation.

use super::files::Files;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;

/// Chance that a seed repeats.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below this one, which is not zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        for shift in [13, -7, 17] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
    }
}

/// A folder in memory.
#[derive(Debug, Default)]
pub(super) struct Fake(Mutex<Disk>);

#[derive(Clone, Debug, Default)]
struct Disk {
    contents: Vec<Content>,
    /// as a reader sees the names, and as they survive a power loss
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// changes of the names that are not synced yet
    pending: Vec<Change>,
    faults: Faults,
}

#[derive(Clone, Debug)]
enum Change {
    Set(String, usize),
    Gone(String),
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// how many of them survive a power loss
    synced: usize,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// bytes that the disk has room for
    pub(super) room: usize,
    /// syncs that fail from now on
    pub(super) bad_syncs: u32,
    /// operations until nothing works any more
    pub(super) operations: u64,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { room: usize::MAX, bad_syncs: 0, operations: u64::MAX }
    }
}

impl Fake {
    pub(super) fn set(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> usize {
        self.0.lock().used()
    }

    /// The folder after a power loss: what was not synced is there in part.
    pub(super) fn after_power_loss(&self, seed: u64) -> Fake {
        let mut dice = Dice::new(seed);
        let mut disk = self.0.lock().clone();
        let survived = dice.below(disk.pending.len() + 1);
        let changes: Vec<Change> = disk.pending.drain(..).take(survived).collect();
        changes.into_iter().for_each(|change| change.apply(&mut disk.synced_names));
        for content in &mut disk.contents {
            let length = content.synced + dice.below(content.bytes.len() - content.synced + 1);
            content.bytes.truncate(length);
            if dice.below(3) == 0 {
                // The length was written, and the bytes were not.
                content.bytes[content.synced..].fill(0);
            }
            content.synced = content.bytes.len();
        }
        disk.names = disk.synced_names.clone();
        disk.faults = Faults::default();
        Fake(Mutex::new(disk))
    }

    /// The folder after the process alone has ended.
    pub(super) fn after_kill(&self) -> Fake {
        let mut disk = self.0.lock().clone();
        disk.faults = Faults::default();
        Fake(Mutex::new(disk))
    }

    /// Changes the content of a file.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.0.lock();
        let n = disk.names[name];
        change(&mut disk.contents[n].bytes);
    }
}

impl Disk {
    fn used(&self) -> usize {
        self.names.values().map(|n| self.contents[*n].bytes.len()).sum()
    }

    fn step(&mut self) -> io::Result<()> {
        if self.faults.operations == 0 {
            return Err(io::Error::other("no power"));
        }
        self.faults.operations -= 1;
        Ok(())
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Set(name, n) => {
                names.retain(|_, other| other != n);
                names.insert(name.clone(), *n);
            }
            Change::Gone(name) => {
                names.remove(name);
            }
        }
    }
}

impl Files for Fake {
    type File = usize;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let disk = self.0.lock();
        disk.find(name).map(|n| disk.contents[n].bytes.clone())
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut disk = self.0.lock();
        disk.step()?;
        if disk.find(name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.contents.push(Content::default());
        let n = disk.contents.len() - 1;
        disk.rename(Change::Set(name.to_owned(), n));
        Ok(n)
    }

    fn append(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock();
        let room = disk.faults.room.saturating_sub(disk.used());
        let (part, end) = match disk.step() {
            Ok(()) if bytes.len() <= room => (bytes.len(), Ok(())),
            Ok(()) => (room, Err(io::ErrorKind::StorageFull.into())),
            Err(error) => (bytes.len() / 2, Err(error)),
        };
        disk.contents[*file].bytes.extend_from_slice(&bytes[..part]);
        end
    }

    fn sync(&self, file: &mut usize) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        if disk.faults.bad_syncs > 0 {
            disk.faults.bad_syncs -= 1;
            return Err(io::Error::other("the sync failed"));
        }
        let content = &mut disk.contents[*file];
        content.synced = content.bytes.len();
        Ok(())
    }

    fn sync_old(&self, name: &str) -> io::Result<()> {
        let mut n = self.0.lock().find(name)?;
        self.sync(&mut n)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.synced_names = disk.names.clone();
        disk.pending.clear();
        Ok(())
    }

    fn cut(&self, name: &str, length: usize) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        let n = disk.find(name)?;
        let content = &mut disk.contents[n];
        content.bytes.truncate(length);
        content.synced = content.synced.min(length);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        let n = disk.find(from)?;
        disk.rename(Change::Set(to.to_owned(), n));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.find(name)?;
        disk.rename(Change::Gone(name.to_owned()));
        Ok(())
    }
}
