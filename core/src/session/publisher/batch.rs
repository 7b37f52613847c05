//! Publishes that waited as frames in the line, and go on together. While a store is asked about them one by one, each would
//! wait for the answer to the one before it.

use super::line::Line;
use super::questions::Questions;
use super::reading::{Kind, Reading};
use crate::session::candidate::{Candidate, Terms};
use crate::session::confirms::ClientTag;
use crate::session::cx::Cx;
use crate::session::outbox::{Piece, View};
use crate::session::rights::Standing;
use crate::window::{Ticket, Verdict, Window, is_same};
use crate::wire::ChannelId;
use bytes::Bytes;
use std::sync::Arc;

/// Plain publishes of one window that were taken from the line.
#[derive(Default)]
pub(super) struct WaitingBatch {
    window: Option<Arc<dyn Window>>,
    publishes: Vec<(Piece, Bytes, Terms)>,
}

impl WaitingBatch {
    pub(super) fn len(&self) -> usize {
        self.publishes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.publishes.is_empty()
    }

    /// Takes the first publish of the line. Returns false if it is not whole or not plain, or is judged by another window.
    /// `distinct`: nor if there is one of the same claim already.
    pub(super) fn take_first(&mut self, line: &mut Line, distinct: bool, cx: &mut Cx<'_>) -> bool {
        let Some((publish, header, count)) = line.first_publish() else { return false };
        let Some((window, terms, false)) = read(publish, header, cx) else { return false };
        if !is_same(self.window.get_or_insert_with(|| Arc::clone(&window)), &window) {
            return false;
        }
        if distinct && self.publishes.iter().any(|(_, _, before)| before.claim == terms.claim) {
            return false;
        }
        let taken = line.pop_publish(count);
        self.publishes.extend(taken.map(|(publish, content)| (publish, content, terms)));
        true
    }

    /// Asks the window about all of them. Calls `judge` with each of them, in their order. The client's tags are not known here.
    pub(super) fn ask(
        self,
        channel: ChannelId,
        cx: &mut Cx<'_>,
        mut judge: impl FnMut(Candidate<'_>, Ticket, Verdict, &mut Cx<'_>),
    ) {
        let WaitingBatch { window: Some(window), publishes } = self else { return };
        let mut questions = Questions::default();
        let claims = publishes.iter().map(|(_, _, terms)| terms.claim);
        questions.ask(&window, channel, claims, cx);
        for ((publish, content, terms), (ticket, verdict)) in publishes.into_iter().zip(questions.answers()) {
            let (publish, content) = (publish.view(), View::whole(&content));
            judge(Candidate { window: &window, terms, publish, content, left: 0 }, ticket, verdict, cx);
        }
    }
}

/// A publish that waited as frames.
pub(super) struct Waited {
    window: Arc<dyn Window>,
    terms: Terms,
    publish: Piece,
    content: Bytes,
}

impl Waited {
    /// Takes the first publish of the line, if it is whole and a message that its consumer publishes again.
    pub(super) fn republish(line: &mut Line, cx: &mut Cx<'_>) -> Option<Waited> {
        let (publish, header, count) = line.first_publish()?;
        let Some((window, terms, true)) = read(publish, header, cx) else { return None };
        let (publish, content) = line.pop_publish(count)?;
        Some(Waited { window, terms, publish, content })
    }

    /// Calls `judge` with it. `client` is its tag.
    pub(super) fn judge<T>(self, client: Option<ClientTag>, judge: impl FnOnce(Candidate<'_>) -> T) -> T {
        let Waited { window, terms, publish, content } = &self;
        let (publish, content) = (publish.view(), View::whole(content));
        judge(Candidate { window, terms: Terms { client, ..*terms }, publish, content, left: 0 })
    }
}

/// Reads a publish that needs nothing special: the window that judges it, its terms, and whether it is a message that its consumer
/// publishes again.
fn read(publish: View<'_>, header: View<'_>, cx: &mut Cx<'_>) -> Option<(Arc<dyn Window>, Terms, bool)> {
    let route = cx.link.finder.route(cx.shared, &cx.link.rights, publish.payload())?;
    let judge = route.judge()?;
    let standing = cx.link.rights.standing(&cx.shared.rights, &judge.needs, cx.now);
    if standing == Standing::Unknown {
        return None;
    }
    let (rights, marks) = (&cx.link.rights, &cx.link.marks);
    let reading = Reading::of(header.payload(), route, judge, standing, rights, &cx.shared.keys, marks);
    match reading.kind {
        // It is counted where it is taken.
        _ if !reading.bad.is_empty() => None,
        Kind::Plain(terms) => {
            let again =
                terms.mark.is_some_and(|mark| cx.link.marks.holds(mark, judge.window.rules(), cx.shared));
            Some((Arc::clone(&judge.window), terms, again))
        }
        Kind::Body(_) | Kind::Bypass | Kind::NoId | Kind::Malformed => None,
    }
}
