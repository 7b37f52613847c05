//! Which side of a session may be read from, while bytes wait to be written to the other.
//!
//! Each side waits for the other, so two bounds that stop reading can stop both sides for ever. Two rules keep a way out:
//!
//! * Hapax reads from a client although bytes wait for it. A client may publish a batch first and read after that. RabbitMQ
//!   takes such a batch, because its reader does not wait for its writer.
//! * The answers to these publishes stand behind deliveries, which nobody reads from the upstream when too many bytes wait for
//!   the client. As long as a session can take nothing from its client without such an answer, or others wait for one, it reads
//!   on from the upstream, up to a larger bound.
//!
//! At that bound, and when the process is short of memory, only the client can make room, by reading. If it does not for long,
//! the shell calls [`Session::handle_unread`](super::Session::handle_unread).

/// The bytes that wait to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queued {
    /// to the client
    pub client: usize,
    /// to the upstream
    pub upstream: usize,
}

/// The bounds on [`Queued`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// for each direction
    pub buffer: usize,
    /// for a client whose session needs the upstream's answers; `None` if the process is short of memory and the connection
    /// may not take more
    pub unread: Option<usize>,
}

/// The sides that may be read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// the client
    pub client: bool,
    /// the upstream
    pub upstream: bool,
}

/// The states of a session that decide which side may be read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wants {
    /// bytes of the client are wanted now
    pub(super) client: bool,
    /// answers of the upstream are needed: the client's bytes are not wanted before, or others wait for an outcome
    pub(super) answers: bool,
    /// nothing that the upstream sends goes to the client any more
    pub(super) deaf: bool,
}

impl Wants {
    /// Returns the sides that may be read from.
    pub(super) fn reading(self, queued: Queued, room: Room) -> Reading {
        let has_spare_room = room.unread.is_some_and(|unread| queued.client < unread.max(room.buffer));
        let upstream_has_room = queued.upstream < room.buffer;
        Reading {
            client: self.client && (self.deaf || has_spare_room && upstream_has_room),
            upstream: self.deaf || queued.client < room.buffer || self.answers && has_spare_room,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { buffer: 10, unread: Some(100) };
    const SHORT: Room = Room { buffer: 10, unread: None };

    fn reading(client: usize, upstream: usize, room: Room, answers: bool) -> (bool, bool) {
        let wants = Wants { client: !answers, answers, deaf: false };
        let reading = wants.reading(Queued { client, upstream }, room);
        (reading.client, reading.upstream)
    }

    #[test]
    fn a_client_that_does_not_read_is_read_from() {
        assert_eq!(reading(9, 0, ROOM, false), (true, true));
        assert_eq!(reading(10, 0, ROOM, false), (true, false), "deliveries stop here");
        assert_eq!(reading(99, 0, ROOM, false), (true, false));
        assert_eq!(reading(100, 0, ROOM, false), (false, false));
    }

    #[test]
    fn answers_are_read_for_a_client_that_does_not_read() {
        assert_eq!(reading(10, 0, ROOM, true), (false, true));
        assert_eq!(reading(99, 0, ROOM, true), (false, true));
        assert_eq!(reading(100, 0, ROOM, true), (false, false));
    }

    #[test]
    fn a_broker_that_does_not_read_stops_the_client_alone() {
        assert_eq!(reading(0, 10, ROOM, false), (false, true));
        assert_eq!(reading(9, 10, ROOM, false), (false, true));
    }

    #[test]
    fn while_memory_is_short_nothing_is_read_beyond_the_buffer() {
        assert_eq!(reading(0, 0, SHORT, false), (false, true));
        assert_eq!(reading(10, 0, SHORT, true), (false, false));
    }

    #[test]
    fn for_a_client_that_was_told_to_go_both_are_read() {
        let wants = Wants { client: true, answers: false, deaf: true };
        let all = Reading { client: true, upstream: true };
        assert_eq!(wants.reading(Queued { client: 1000, upstream: 1000 }, SHORT), all);
    }
}
