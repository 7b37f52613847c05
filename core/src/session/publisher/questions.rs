//! One question to a window about several publishes.

use crate::session::cx::Cx;
use crate::window::{Ask, Claim, Ticket, Verdict, Window};
use crate::wire::ChannelId;
use std::sync::Arc;

/// The asks of one question and the verdicts on them. It may be used again, and keeps its memory for that.
#[derive(Default)]
pub(super) struct Questions {
    asks: Vec<Ask>,
    verdicts: Vec<Option<Verdict>>,
}

impl Questions {
    /// Returns the verdicts in the order of the claims.
    pub(super) fn verdicts(&self) -> &[Option<Verdict>] {
        &self.verdicts
    }

    /// Asks the window about all these claims with one call.
    #[inline]
    pub(super) fn ask(
        &mut self,
        window: &Arc<dyn Window>,
        channel: ChannelId,
        claims: impl Iterator<Item = Claim>,
        cx: &mut Cx<'_>,
    ) {
        let Questions { asks, verdicts } = self;
        let tickets = &mut cx.link.tickets;
        asks.clear();
        asks.extend(claims.map(|claim| Ask { claim, ticket: tickets.draw(channel) }));
        verdicts.clear();
        verdicts.resize_with(asks.len(), || None);
        Arc::clone(window).reserve(asks, cx.now, &cx.link.mailbox, verdicts);
    }

    /// Takes a ticket and a verdict for each claim, in their order.
    #[inline]
    pub(super) fn answers(&mut self) -> impl Iterator<Item = (Ticket, Verdict)> {
        self.asks.iter().zip(&mut self.verdicts).map(|(ask, verdict)| {
            // A window that gives no verdict breaks its contract: nothing will come, which is what `Crowded` says.
            (ask.ticket, verdict.take().unwrap_or(Verdict::Crowded))
        })
    }
}
