//! The relay between clients and broker in a run: the real session, or a plain wire on which the models are tested.

use bytes::{Bytes, BytesMut};
use hapax_core::session::{Output, Phase, Queued, Reading, Room, Session};
use hapax_core::window::Mailbox;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// The session's own interface, so that a wire can stand in for it.
pub trait Relay {
    /// see [`Session::handle_client`]
    fn handle_client(&mut self, buf: &mut BytesMut, now: Instant);
    /// see [`Session::handle_upstream`]
    fn handle_upstream(&mut self, buf: &mut BytesMut, now: Instant);
    /// see [`Session::handle_client_alive`]
    fn handle_client_alive(&mut self, now: Instant);
    /// see [`Session::handle_upstream_open`]
    fn handle_upstream_open(&mut self, now: Instant);
    /// see [`Session::handle_client_eof`]
    fn handle_client_eof(&mut self, now: Instant);
    /// see [`Session::handle_upstream_eof`]
    fn handle_upstream_eof(&mut self, now: Instant);
    /// see [`Session::handle_mail`]
    fn handle_mail(&mut self, now: Instant);
    /// see [`Session::handle_timeout`]
    fn handle_timeout(&mut self, now: Instant);
    /// see [`Session::handle_drain`]
    fn handle_drain(&mut self, now: Instant);
    /// see [`Session::handle_forced_close`]
    fn handle_forced_close(&mut self, now: Instant);
    /// see [`Session::handle_drain_overdue`]
    fn handle_drain_overdue(&mut self, now: Instant);
    /// see [`Session::handle_drain_over`]
    fn handle_drain_over(&mut self, now: Instant);
    /// see [`Session::handle_publish_limit`]; `more`: so many more than there were
    fn allow(&mut self, more: u64, now: Instant);
    /// see [`Session::handle_turn`]
    fn handle_turn(&mut self, frames: usize, now: Instant);
    /// see [`Session::is_turn_over`]
    fn is_turn_over(&self) -> bool;
    /// see [`Session::is_at_publish_limit`]
    fn is_at_publish_limit(&self) -> bool;
    /// see [`Session::poll_output`]
    fn poll_output(&mut self) -> Option<Output>;
    /// see [`Session::poll_timeout`]
    fn poll_timeout(&self) -> Option<Instant>;
    /// see [`Session::mailbox`]
    fn mailbox(&self) -> Option<Arc<Mailbox>>;
    /// see [`Session::wants_client`]
    fn wants_client(&self) -> bool;
    /// see [`Session::reading`]
    fn reading(&self, queued: Queued, room: Room) -> Reading;
    /// see [`Session::handle_reading_client`] and [`Session::handle_reading_upstream`]
    fn handle_reading(&mut self, reading: Reading, now: Instant);
    /// see [`Session::is_over`]
    fn is_over(&self) -> bool;
    /// see [`Session::unresolved`]
    fn unresolved(&self) -> usize;
    /// see [`Session::held_bytes`]
    fn held_bytes(&self) -> usize;
    /// see [`Session::channels`]
    fn channels(&self) -> usize;
    /// whether the broker has let the client in, and it may have channels
    fn is_open(&self) -> bool;
}

impl Relay for Session {
    fn handle_client(&mut self, buf: &mut BytesMut, now: Instant) {
        Session::handle_client(self, buf, now);
    }
    fn handle_upstream(&mut self, buf: &mut BytesMut, now: Instant) {
        Session::handle_upstream(self, buf, now);
    }
    fn handle_client_alive(&mut self, now: Instant) {
        Session::handle_client_alive(self, now);
    }
    fn handle_upstream_open(&mut self, now: Instant) {
        Session::handle_upstream_open(self, now);
    }
    fn handle_client_eof(&mut self, now: Instant) {
        Session::handle_client_eof(self, now);
    }
    fn handle_upstream_eof(&mut self, now: Instant) {
        Session::handle_upstream_eof(self, now);
    }
    fn handle_mail(&mut self, now: Instant) {
        Session::handle_mail(self, now);
    }
    fn handle_timeout(&mut self, now: Instant) {
        Session::handle_timeout(self, now);
    }
    fn handle_drain(&mut self, now: Instant) {
        Session::handle_drain(self, now);
    }
    fn handle_forced_close(&mut self, now: Instant) {
        Session::handle_forced_close(self, "told to", now);
    }
    fn handle_drain_overdue(&mut self, now: Instant) {
        Session::handle_drain_overdue(self, now);
    }
    fn handle_drain_over(&mut self, now: Instant) {
        Session::handle_drain_over(self, now);
    }
    fn allow(&mut self, more: u64, now: Instant) {
        let limit = Session::publishes(self).saturating_add(more);
        Session::handle_publish_limit(self, limit, now);
    }
    fn handle_turn(&mut self, frames: usize, now: Instant) {
        Session::handle_turn(self, frames, now);
    }
    fn is_turn_over(&self) -> bool {
        Session::is_turn_over(self)
    }
    fn is_at_publish_limit(&self) -> bool {
        Session::is_at_publish_limit(self)
    }
    fn poll_output(&mut self) -> Option<Output> {
        Session::poll_output(self)
    }
    fn poll_timeout(&self) -> Option<Instant> {
        Session::poll_timeout(self)
    }
    fn mailbox(&self) -> Option<Arc<Mailbox>> {
        Some(Session::mailbox(self).clone())
    }
    fn wants_client(&self) -> bool {
        Session::wants_client(self)
    }
    fn reading(&self, queued: Queued, room: Room) -> Reading {
        Session::reading(self, queued, room)
    }
    fn handle_reading(&mut self, reading: Reading, now: Instant) {
        self.handle_reading_client(reading.client, now);
        self.handle_reading_upstream(reading.upstream, now);
    }
    fn is_over(&self) -> bool {
        Session::is_over(self)
    }
    fn unresolved(&self) -> usize {
        Session::unresolved(self)
    }
    fn held_bytes(&self) -> usize {
        Session::held_bytes(self)
    }
    fn channels(&self) -> usize {
        Session::channels(self)
    }
    fn is_open(&self) -> bool {
        Session::phase(self) != Phase::Handshake
    }
}

/// A relay that changes nothing and knows nothing.
#[derive(Debug, Default)]
pub struct Wire {
    outputs: VecDeque<Output>,
    early: BytesMut,
    open: bool,
    client_over: bool,
    upstream_over: bool,
}

impl Wire {
    /// It dials at once.
    pub fn new() -> Wire {
        Wire { outputs: VecDeque::from([Output::Dial]), ..Wire::default() }
    }

    fn to_upstream(&mut self, bytes: Bytes) {
        if !self.upstream_over && !bytes.is_empty() {
            self.outputs.push_back(Output::ToUpstream(bytes));
        }
    }
}

impl Relay for Wire {
    fn handle_client(&mut self, buf: &mut BytesMut, _: Instant) {
        if self.open {
            self.to_upstream(buf.split().freeze());
        } else {
            self.early.extend_from_slice(&buf.split());
        }
    }
    fn handle_upstream(&mut self, buf: &mut BytesMut, _: Instant) {
        let bytes = buf.split().freeze();
        if !self.client_over {
            self.outputs.push_back(Output::ToClient(bytes));
        }
    }
    fn handle_client_alive(&mut self, _: Instant) {}
    fn handle_upstream_open(&mut self, _: Instant) {
        self.open = true;
        let early = self.early.split().freeze();
        self.to_upstream(early);
        if self.client_over {
            self.upstream_over = true;
            self.outputs.push_back(Output::CloseUpstream);
        }
    }
    fn handle_client_eof(&mut self, _: Instant) {
        self.client_over = true;
        if self.open && !self.upstream_over {
            self.upstream_over = true;
            self.outputs.push_back(Output::CloseUpstream);
        }
    }
    fn handle_upstream_eof(&mut self, _: Instant) {
        self.upstream_over = true;
        if !self.client_over {
            self.client_over = true;
            self.outputs.push_back(Output::CloseClient);
        }
    }
    fn handle_mail(&mut self, _: Instant) {}
    fn handle_timeout(&mut self, _: Instant) {}
    fn handle_drain(&mut self, _: Instant) {}
    fn handle_forced_close(&mut self, _: Instant) {}
    fn handle_drain_overdue(&mut self, _: Instant) {}
    fn handle_drain_over(&mut self, _: Instant) {}
    fn allow(&mut self, _: u64, _: Instant) {}
    fn handle_turn(&mut self, _: usize, _: Instant) {}
    fn is_turn_over(&self) -> bool {
        false
    }
    fn is_at_publish_limit(&self) -> bool {
        false
    }
    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    fn mailbox(&self) -> Option<Arc<Mailbox>> {
        None
    }
    fn wants_client(&self) -> bool {
        true
    }
    fn reading(&self, _: Queued, _: Room) -> Reading {
        Reading { client: true, upstream: true }
    }
    fn handle_reading(&mut self, _: Reading, _: Instant) {}
    fn is_over(&self) -> bool {
        self.client_over && self.upstream_over && self.outputs.is_empty()
    }
    fn unresolved(&self) -> usize {
        0
    }
    fn held_bytes(&self) -> usize {
        0
    }
    fn channels(&self) -> usize {
        0
    }
    fn is_open(&self) -> bool {
        true
    }
}
