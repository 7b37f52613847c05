//! A [`Publisher`]'s way to the upstream and back: forwarding with an entry in the ledger, and what becomes of the entry.

use super::*;

impl Publisher {
    pub(in crate::session) fn forward(
        &mut self,
        candidate: Candidate<'_>,
        reservation: Option<Reservation>,
        cx: &mut Cx<'_>,
    ) -> Fate {
        self.select_unseen(candidate.window, cx);
        let (left, is_reserved) = (candidate.left, reservation.is_some());
        let target = candidate.window.rules().forward_to.as_deref();
        let exchange = went_to(target, candidate.publish);
        let entry = candidate.forward(self.id, reservation, &mut cx.out.upstream, cx.now);
        let at_write = self.enter(entry, exchange);
        if (left > 0 || self.mode == Mode::Tx) && is_reserved {
            self.owe_progress(left, at_write.as_ref(), cx);
        }
        Fate::Forward { at_write }
    }

    /// Hapax's own confirms, where the window has them: the ledger is where outcomes and returns are told whose they are.
    pub(super) fn select_unseen(&mut self, window: &Arc<dyn Window>, cx: &mut Cx<'_>) {
        if self.mode == Mode::Plain && window.rules().confirms == ConfirmRule::Shadow {
            cx.out.upstream.push(emit::confirm_select(self.id));
            self.mode = Mode::Confirm { client: false };
        }
    }

    pub(super) fn forward_unjudged(
        &mut self,
        client: Option<ClientTag>,
        window: Option<&Arc<dyn Window>>,
        right: Option<Key>,
        mandatory: bool,
        start: Start<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let Start { publish, header, content, left } = start;
        let target = window.and_then(|window| window.rules().forward_to.as_deref());
        // Its return has to name the exchange that the client named.
        if let (Some(window), Some(_), true) = (window, target, mandatory) {
            self.select_unseen(window, cx);
        }
        let named = forward_to(target, self.id, publish, &mut cx.out.upstream);
        cx.out.upstream.forward(content);
        if self.mode != Mode::Plain || self.written.is_some() {
            let exchange = went_to(target, publish);
            let fields = if mandatory { Publish::parse(publish.payload()).ok() } else { None };
            let mandatory = fields.map(|Publish { routing_key, .. }| {
                Mandatory::new(
                    ReturnKey::new(&cx.shared.keys, exchange, routing_key, header.payload()),
                    named,
                )
            });
            self.enter(Entry { client, reservation: None, since: cx.now, right, mandatory }, exchange);
        }
        self.go_on(left, Fate::Forward { at_write: None }, cx)
    }

    /// Puts a publish that was forwarded to `exchange` where its outcome will find it; without confirms or tx there is no such
    /// place, and its reservation is committed when all of it is written.
    #[inline]
    pub(super) fn enter(&mut self, entry: Entry, exchange: &[u8]) -> Option<(Reservation, Duration)> {
        if let Mode::Confirm { .. } = self.mode {
            self.confirms.forwarded(entry, exchange);
            return None;
        }
        self.enter_without_confirms(entry, exchange)
    }

    #[inline(never)]
    fn enter_without_confirms(&mut self, entry: Entry, exchange: &[u8]) -> Option<(Reservation, Duration)> {
        match self.mode {
            Mode::Plain => {
                let reserved = entry.reserved();
                let committed = reserved.and_then(|reserved| Some((reserved.window()?, reserved.claim())));
                let return_key = entry.mandatory.as_ref().map(|mandatory| mandatory.key);
                if committed.is_some() || self.written.is_some() {
                    self.written.get_or_insert_default().push(committed, exchange, return_key);
                }
                return entry.reservation;
            }
            Mode::Tx => self.tx.forwarded(entry, exchange),
            Mode::Confirm { .. } => self.confirms.forwarded(entry, exchange),
        }
        None
    }

    pub(in crate::session) fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Nothing => {}
            Reply::Nack(tag) => self.confirms.nack(tag),
            Reply::Ack(tag) => self.confirms.ack(tag),
        }
    }

    /// `basic.ack` or `basic.nack`.
    pub(in crate::session) fn recv_settle(&mut self, settle: Settle, outcome: Outcome, cx: &mut Cx<'_>) {
        // The broker routes in order: no earlier publish can come back any more.
        self.written = None;
        let Cx { shared, rights, now, .. } = cx;
        // Neighbours came by the same read and went to the same place: they are told of together.
        let (mut since, mut alike) = (*now, 0);
        let (mut learned, mut stored) = (None, Reservations::default());
        let tell = |since, alike| {
            if alike > 0 {
                shared.listener.publish_latency(now.saturating_duration_since(since), alike);
            }
        };
        self.confirms.settle(UpstreamTag(settle.tag), settle.multiple, outcome, |entry| {
            if entry.since != since {
                tell(since, std::mem::take(&mut alike));
                since = entry.since;
            }
            alike += 1;
            if let Some(right) = entry.right.filter(|_| entry.right != learned) {
                rights.learn(&shared.rights, right, *now);
                learned = entry.right;
            }
            match outcome {
                Outcome::Acked => entry.stored(&mut stored, *now),
                Outcome::Nacked => entry.forget(ForgetCause::Nack),
            }
        });
        stored.commit(*now);
        tell(since, alike);
    }

    /// `basic.return` with its header. Gives back the exchange that the client had named, where it was another.
    pub(in crate::session) fn recv_return(
        &mut self,
        fields: &Return<'_>,
        header: View<'_>,
        cx: &Cx<'_>,
    ) -> Option<Box<[u8]>> {
        let key = ReturnKey::new(&cx.shared.keys, fields.exchange, fields.routing_key, header.payload());
        // What was written before there was a ledger is older than all that is in it.
        let written = self.written.as_ref().is_some_and(|written| written.holds(key));
        let (named, exact) = match self.mode {
            Mode::Plain => (None, false),
            Mode::Confirm { .. } if !written => self.confirms.returned(key),
            Mode::Tx if !written => self.tx.returned(key),
            Mode::Confirm { .. } | Mode::Tx => (None, false),
        };
        if let Some(written) = self.written.as_mut().filter(|_| !exact) {
            written.recv_return(key, cx.now);
        }
        named
    }

    /// Whether a return means something here.
    pub(in crate::session) fn hears_returns(&self) -> bool {
        self.mode != Mode::Plain || self.written.is_some()
    }

    /// `tx.commit-ok` or `tx.rollback-ok`.
    pub(in crate::session) fn recv_tx_ended(&mut self, cx: &mut Cx<'_>) {
        let Cx { shared, rights, now, .. } = cx;
        self.written = None;
        self.tx.ended(*now, |right| rights.learn(&shared.rights, right, *now));
    }
}

/// The exchange that a publish is forwarded to.
fn went_to<'a>(target: Option<&'a str>, publish: View<'a>) -> &'a [u8] {
    target.map_or_else(|| Publish::exchange_of(publish.payload()), str::as_bytes)
}
