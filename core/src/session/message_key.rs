//! Makes the claim by which a window tells messages apart: from the scope, the id, the newest death, and the routing keys beyond the
//! first.

use super::finder::{Judge, Route};
use super::rights::{OwnRights, Standing};
use crate::window::{Claim, Scope, Scoped};
use crate::wire::properties::{IdSource, IdValue};
use crate::wire::{BadHeaders, ContentHeader, Sequence};
use std::time::Duration;

/// The claim of a message, as far as its content header shows it.
#[derive(Clone, Copy, Debug)]
pub(super) enum MessageKey {
    /// The claim.
    Known(Claim),
    /// The id is the body. This makes the key of it.
    Body(Scoped),
    /// There is no id.
    NoId,
    /// These headers can't be understood, so there is no id.
    BadId(BadHeaders),
    /// These headers can't be understood, so nobody knows which messages are the same as this one.
    Unreadable(BadHeaders),
}

impl MessageKey {
    /// Makes the key of a message on this route. `found` was read with the id source of the route's window.
    #[inline]
    pub(super) fn of(
        found: &ContentHeader<'_>,
        route: &Route,
        judge: &Judge,
        standing: Standing,
        rights: &OwnRights,
    ) -> MessageKey {
        let (scoped, source) = (judge.needs.scoped(&judge.scoped, standing), &judge.window.rules().id);
        match (source, found.id) {
            (IdSource::MessageId | IdSource::CorrelationId | IdSource::Header(_), Some(id))
                if !found.is_special() =>
            {
                MessageKey::Known(scoped.key(&id).into())
            }
            _ => MessageKey::unusual(found, route, judge, scoped, rights),
        }
    }

    /// Returns true if the message has this claim whoever publishes it. False: the claim is the user's own.
    pub(super) fn is_common(claim: Claim, header: &[u8], body: &[u8], route: &Route) -> bool {
        let Some(judge) = route.judge() else { return false };
        let Ok(found) = ContentHeader::parse(header, &judge.window.rules().id) else { return false };
        let nobody = OwnRights::new(Duration::ZERO);
        match MessageKey::of(&found, route, judge, Standing::Common, &nobody) {
            MessageKey::Known(common) => common == claim,
            MessageKey::Body(scoped) => claim == scoped.key(&IdValue::Bytes(body)).into(),
            MessageKey::NoId | MessageKey::BadId(_) | MessageKey::Unreadable(_) => false,
        }
    }

    /// Does the same where there is more than an id of one value.
    #[inline(never)]
    fn unusual(
        found: &ContentHeader<'_>,
        route: &Route,
        judge: &Judge,
        scoped: &Scoped,
        rights: &OwnRights,
    ) -> MessageKey {
        let scoped = match special(found, route, judge, scoped, rights) {
            Ok(scoped) => scoped,
            Err(bad) => return MessageKey::Unreadable(bad),
        };
        match (&judge.window.rules().id, found.id) {
            (IdSource::Body, _) => MessageKey::Body(scoped),
            (IdSource::Sequence, _) => match found.sequence() {
                Ok(Some(Sequence { producer, epoch, number })) => {
                    // Dead letters come back in any order, and not all of them. Each is a producer of its own: it leaves no gap, and no
                    // epoch has taken its place.
                    let is_dead = found.is_special() && matches!(found.death(), Ok(Some(_)));
                    let scoped = if is_dead { scoped.with_number(epoch, number) } else { scoped };
                    MessageKey::Known(Claim::Sequence { producer: scoped.producer(producer), epoch, number })
                }
                Ok(None) => MessageKey::NoId,
                Err(bad) => MessageKey::BadId(bad),
            },
            (_, None) => MessageKey::NoId,
            (IdSource::Parts(parts), _) => {
                MessageKey::Known(scoped.key_of_parts(parts.iter().map(|part| found.part(part))).into())
            }
            (_, Some(id)) => MessageKey::Known(scoped.key(&id).into()),
        }
    }
}

/// Returns the scope of the message: the route's own, made narrower by the routing keys in its headers and by its newest death.
fn special(
    found: &ContentHeader<'_>,
    route: &Route,
    judge: &Judge,
    scoped: &Scoped,
    rights: &OwnRights,
) -> Result<Scoped, BadHeaders> {
    if !found.is_special() {
        return Ok(*scoped);
    }
    let (keys, death) = (found.extra_keys(), found.death());
    let (mut keys, death) = match (keys, death) {
        (Ok(keys), Ok(death)) => (keys, death),
        (keys, death) => {
            let mut bad = BadHeaders::NONE;
            [keys.err(), death.err()].into_iter().flatten().for_each(|header| bad.insert(header));
            return Err(bad);
        }
    };
    keys.retain(|key| *key != &*route.routing_key);
    let mut scoped = *scoped;
    if judge.window.rules().scope == Scope::RoutingKey && !keys.is_empty() {
        scoped = scoped.with_extra_keys(judge.needs.owner_of_extra_keys(rights), &keys);
    }
    Ok(death.map_or(scoped, |death| scoped.with_death(&death)))
}
