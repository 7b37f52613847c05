//! The publish that waits for the proof that its user may publish there. Until then no window is asked: the messages of a user
//! without the right must look the same to it, whether others have sent them or not.

use super::reading::Start;
use crate::session::cx::Cx;
use crate::session::finder::Route;
use crate::session::outbox::{Piece, View};
use crate::session::probe::Asker;
use crate::session::rights::Right;

/// A publish that is not judged before the broker has shown its user's right. Its channel waits with it.
#[derive(Debug)]
pub(super) struct Held {
    right: Right,
    publish: Piece,
    header: Piece,
    /// the header, and the frames of the body that have come
    content: Piece,
    /// octets of the body that are missing
    left: u64,
}

impl Held {
    /// A copy that lets go of the reads that its frames came with.
    pub(super) fn new(start: Start<'_>, right: Right) -> Held {
        let Start { publish, header, content, left } = start;
        let (publish, header, content) = (publish.compact(), header.compact(), content.compact());
        Held { right, publish, header, content, left }
    }

    /// Returns its bytes.
    pub(super) fn size(&self) -> usize {
        self.publish.view().len() + self.header.view().len() + self.content.view().len()
    }

    /// Returns the right that it waits for.
    pub(super) fn right(&self) -> Right {
        self.right
    }

    pub(super) fn start(&self) -> Start<'_> {
        let (publish, header, content) = (self.publish.view(), self.header.view(), self.content.view());
        Start { publish, header, content, left: self.left }
    }
}

/// Returns true if a fact is about the exchange that this publish goes to.
pub(super) fn goes_where(fact: Right, publish: View<'_>, cx: &mut Cx<'_>) -> bool {
    let route = cx.link.finder.route(cx.shared, &cx.link.rights, publish.payload());
    route.and_then(Route::judge).is_some_and(|judge| judge.needs.is_of_exchange(fact))
}

/// Asks for the rights of the user that are not known yet, at the place where this publish goes. Returns the right to publish
/// there; `None` if there is nothing to ask.
pub(in crate::session) fn ask(publish: View<'_>, asker: Option<Asker>, cx: &mut Cx<'_>) -> Option<Right> {
    let route = cx.link.finder.route(cx.shared, &cx.link.rights, publish.payload())?;
    let needs = &route.judge()?.needs;
    let place = (&*route.target, &*route.routing_key);
    let questions = cx.link.rights.questions(&cx.shared.rights, needs, place, cx.now);
    let right = (!questions.is_empty()).then_some(needs.right);
    questions.into_iter().for_each(|question| cx.link.probes.ask(question, asker));
    right
}
