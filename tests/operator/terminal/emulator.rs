//! A real terminal without a person: a pseudo terminal of the kernel, and an emulator that knows what it shows.

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// For whatever a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a command in it.
pub struct Terminal {
    master: File,
    /// Held so that it can be looked at when the command has ended.
    slave: OwnedFd,
    before: Termios,
    child: Child,
    output: Receiver<Vec<u8>>,
    emulator: vt100::Parser,
}

impl Terminal {
    /// `setsid` makes the pseudo terminal the command's own, so that signals of the terminal reach it.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave =
            open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        resize(&master, columns, rows);
        let before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        let child =
            wrapped.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (tell, output) = channel();
        let mut from = File::from(master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The slave is held, so that this ends with the test, when nobody listens any more.
            while let Ok(n) = from.read(&mut buffer) {
                if n == 0 || tell.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let emulator = vt100::Parser::new(positive(rows), positive(columns), 0);
        Terminal { master: File::from(master), slave, before, child, output, emulator }
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        resize(&self.master, columns, rows);
        self.emulator.screen_mut().set_size(positive(rows), positive(columns));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn text(&self) -> String {
        self.emulator.screen().contents()
    }

    /// Until the screen is as it should be.
    pub fn wait_for(&mut self, what: &str, is: impl Fn(&vt100::Screen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(self.emulator.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.emulator.process(&bytes),
                Err(_) => panic!("waited for {what}; the screen is\n{}", self.text()),
            }
        }
    }

    pub fn wait_for_text(&mut self, text: &str) {
        self.wait_for(text, |screen| screen.contents().contains(text));
    }

    /// Waits for the command's end and takes in what it wrote last.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(20)) {
                self.emulator.process(&bytes);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                // Output that was written before the end is read by now, or comes within this time.
                while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                    self.emulator.process(&bytes);
                }
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; the screen is\n{}", self.text());
        }
    }

    /// It is as it was before the command: modes of the line, screen, cursor.
    pub fn assert_restored(&self) {
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes, "echo, line by line");
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        let screen = self.emulator.screen();
        assert!(!screen.alternate_screen(), "the alternate screen is left\n{}", self.text());
        assert!(!screen.hide_cursor(), "the cursor is seen");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}

fn positive(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}
