//! Which of many sockets can be read or written now: epoll, with waits that are as fine as the kernel's timers.

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Events that are taken at a time.
const EVENTS: usize = 256;

/// The events that a socket is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interest {
    /// there is something to read
    Read,
    /// there is room to write
    Write,
    /// either
    Both,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// A socket has something for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ready {
    /// as it was added
    pub(super) token: usize,
    /// to be read, also where the other side has gone
    pub(super) readable: bool,
    /// to be written
    pub(super) writable: bool,
}

/// The sockets, each with a number of the caller's.
pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    pub(super) fn add(&self, socket: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token as u64), interest.flags())?)
    }

    pub(super) fn change(&self, socket: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token as u64), interest.flags())?)
    }

    pub(super) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits for so long at most, and gives what is ready. `ready` is emptied first.
    pub(super) fn wait(&mut self, at_most: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
        // epoll's own timeout knows milliseconds only, on kernels before 5.11.
        if !at_most.is_zero() && !at_most.subsec_nanos().is_multiple_of(1_000_000) {
            let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Ok(_) => self.take(&Timespec { tv_sec: 0, tv_nsec: 0 })?,
                Err(error) => return Err(error.into()),
            }
        } else {
            self.take(&timeout)?;
        }
        ready.extend(self.events.iter().map(|event| {
            // Its fields are not aligned: taken out, not referred to.
            let (flags, data) = (event.flags, event.data);
            Ready {
                token: usize::try_from(data.u64()).unwrap_or(usize::MAX),
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                writable: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }

    fn take(&mut self, timeout: &Timespec) -> io::Result<()> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
