//! The signals of a dropped publish, where its window has some ([`Signals`](crate::window::Signals)): a line for the log, a copy for an
//! exchange, and what its client hears in place of a plain ack.
//!
//! A window that tells nobody never comes here. One that needs the body holds a publish that is not whole
//! ([`Fate::Hold`](super::assembler::Fate)) as long as there is room for it. Without room the signals go without the body.
//!
//! ```text
//!               confirms                    no confirms          in a transaction
//!   nack        nack                        nothing              nothing
//!   return      return, then its own ack    return               return before tx.commit-ok, nothing after a rollback
//! ```
//!
//! Where a nack can't be said, only a `channel.close` could say it, and that would lose what the client has sent behind the duplicate.
//! A message that is stored is not worth that.

use super::assembler::Reply;
use super::ledger::Ledger;
use crate::session::candidate::body_of;
use crate::session::confirms::ClientTag;
use crate::session::copies::CopiedDuplicate;
use crate::session::cx::Cx;
use crate::session::held_returns::HeldReturns;
use crate::session::outbox::View;
use crate::session::sightings::{Publication, Sighted};
use crate::window::{Claim, Event, OnDuplicate, Told, Window};
use crate::wire::method::Publish;
use crate::wire::{ChannelId, emit};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// The code and the text of a return that means a duplicate. AMQP does not use this code.
const DUPLICATE: (u16, &str) = (319, "DUPLICATE");

/// A publish that is dropped.
#[derive(Clone, Copy)]
pub(super) struct Dropped<'a> {
    pub(super) window: &'a Arc<dyn Window>,
    pub(super) claim: Claim,
    /// the client's tag, if it counts its publishes
    pub(super) client: Option<ClientTag>,
    pub(super) publish: View<'a>,
    /// the payload of its header
    pub(super) header: &'a [u8],
    /// the frames of its header and its body, if the body was kept
    pub(super) content: Option<&'a [u8]>,
}

/// Tells others than its client of a publish that is dropped or refused.
pub(super) fn report(dropped: &Dropped<'_>, what: Sighted, cx: &mut Cx<'_>) {
    let Dropped { window, claim, publish, header, content, .. } = *dropped;
    let signals = &window.rules().signals;
    let link = &mut *cx.link;
    if signals.audit {
        let publication = Publication { window, claim, vhost: link.finder.vhost(), publish, header };
        link.out.sightings.audit(what, publication, cx.now);
    }
    let Some(to) = &signals.duplicates_to else { return };
    let Ok(Publish { exchange, routing_key, .. }) = Publish::parse(publish.payload()) else { return };
    link.out.copies.push_back(Box::new(CopiedDuplicate {
        window: Arc::clone(&window.rules().name),
        to: Arc::clone(to),
        claim,
        vhost: link.finder.vhost().into(),
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        header: Bytes::copy_from_slice(header),
        body: content.map(|content| body_of(content).into()),
    }));
}

/// Tells everybody of a publish that is dropped. Returns the answer that its client still has to get. `held`: the bytes of what waits on the
/// channel.
#[cold]
pub(super) fn drop_told(
    dropped: &Dropped<'_>,
    what: Sighted,
    ledger: &mut Ledger,
    (channel, held): (ChannelId, usize),
    cx: &mut Cx<'_>,
) -> Reply {
    report(dropped, what, cx);
    let Dropped { window, client, content, .. } = *dropped;
    let (reply, told) = match (window.rules().signals.on_duplicate, client) {
        (OnDuplicate::Ack, _) => return Reply::ack(client),
        (OnDuplicate::Nack, Some(tag)) => (Reply::Nack(tag), Told::Nacked),
        (OnDuplicate::Nack, None) => (Reply::Nothing, Told::Nothing),
        (OnDuplicate::Return, _) => {
            let Some(frames) = returned(dropped, channel) else { return Reply::ack(client) };
            // An open transaction lasts as long as its client likes.
            let has_room =
                !ledger.is_tx() || cx.has_room(held + ledger.told_bytes(), HeldReturns::weight(&frames));
            match (has_room, content) {
                (true, content) => {
                    ledger.tell(client, frames);
                    let told = if content.is_some() { Told::Returned } else { Told::ReturnedEmpty };
                    (Reply::Nothing, told)
                }
                (false, _) => (Reply::Nothing, Told::Nothing),
            }
        }
    };
    window.notice(Event::Told(told));
    reply
}

/// Makes the return of a publish: all of it, or an empty body where its own was not kept. No frame is larger than those that the client
/// has sent.
fn returned(dropped: &Dropped<'_>, channel: ChannelId) -> Option<Bytes> {
    let Publish { exchange, routing_key, .. } = Publish::parse(dropped.publish.payload()).ok()?;
    let mut frames = BytesMut::new();
    emit::returned(&mut frames, channel, DUPLICATE, exchange, routing_key);
    match dropped.content {
        Some(content) => frames.extend_from_slice(content),
        None => emit::header_without_body(&mut frames, channel, dropped.header),
    }
    Some(frames.freeze())
}
