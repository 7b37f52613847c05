//! Files that an operator names, read with a bound. Whatever is there, the reading ends: a device that never ends, a pipe that nobody
//! writes to, a file of a gigabyte.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The most bytes of a configuration, or of a file with certificates.
pub(crate) const MOST: usize = 4 << 20;
/// How long a pipe may take to give more. A shell that makes the file as it is read is quicker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a file that has at most this many bytes. Returns the open file, too.
pub(crate) fn read(path: &Path, most: usize) -> io::Result<(Vec<u8>, File)> {
    // Without this the opening of a pipe waits for a writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let mut bytes = Vec::new();
    loop {
        // One more than there may be.
        let room = (most + 1).saturating_sub(bytes.len());
        match file.by_ref().take(room as u64).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() > most => {
                let text = format!("it has more than {most} bytes");
                return Err(io::Error::new(ErrorKind::FileTooLarge, text));
            }
            Ok(_) => return Ok((bytes, file)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for_more(&file)?,
            Err(error) => return Err(error),
        }
    }
}

/// Reads a text in the same way.
pub(crate) fn read_text(path: &Path, most: usize) -> io::Result<(String, File)> {
    let (bytes, file) = read(path, most)?;
    let text = String::from_utf8(bytes);
    Ok((text.map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))?, file))
}

fn wait_for_more(file: &File) -> io::Result<()> {
    let timeout = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout))? {
        0 => Err(io::Error::new(ErrorKind::TimedOut, "it is a pipe, and nobody writes its end")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::Command;

    #[test]
    fn a_file_that_is_longer_than_it_may_be_is_refused() {
        let path = std::env::temp_dir().join(format!("hapax-bounded-{}", std::process::id()));
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap().0, "12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(Path::new("/dev/zero"), 1_000).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_text(Path::new("/dev/null"), 5).unwrap().0, "");
        assert_eq!(read(Path::new("/"), 5).unwrap_err().kind(), ErrorKind::IsADirectory);
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_one_without_a_writer_has_none() {
        let path = std::env::temp_dir().join(format!("hapax-pipe-{}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read_text(&path, 5).unwrap().0, "");
        // Opened for both directions, it need not wait for a reader.
        let mut writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        writer.write_all(b"hel").unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || read_text(&path, 5).map(|(text, _)| text)
        });
        while rustix::io::ioctl_fionread(&writer).unwrap() > 0 {
            std::thread::yield_now();
        }
        writer.write_all(b"lo").unwrap();
        drop(writer);
        let text = reader.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.unwrap(), "hello");
    }
}
