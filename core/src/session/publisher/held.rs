//! Publishes that wait for the proof that their user may publish there. Until then no window is asked: what a user without
//! the right sends must not be told from what nobody has sent.

use super::*;

impl Publisher {
    /// Keeps a publish until the broker has shown what is not known of its user's rights, and asks.
    pub(super) fn hold(&mut self, start: Start<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Start { publish, header, content, left } = start;
        let asker = Asker { channel: self.id, birth: self.birth };
        // Since we looked, another thread has learned it of the same user, or has switched the window off.
        let Some(right) = ask(publish, Some(asker), cx) else { return self.recv_start(start, cx) };
        self.content = Content::Idle;
        let (publish, header, content) = (publish.compact(), header.compact(), content.compact());
        let held = Held { right, publish, header, content, left };
        self.waiting.hold(held.size());
        self.held = Some(held);
        self.newly_held = true;
        Ok(())
    }

    /// The broker has shown whether the user has this right, or can't be asked.
    pub(in crate::session) fn recv_finding(
        &mut self,
        right: Right,
        finding: Finding,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let Some(held) = self.take_held() else { return Ok(()) };
        let (publish, header, content) = (held.publish.view(), held.header.view(), held.content.view());
        let start = Start { publish, header, content, left: held.left };
        match finding {
            Finding::Refused if right == held.right => self.recv_refused(start, cx),
            Finding::Missing if self.goes_where(right, publish, cx) => self.recv_refused(start, cx),
            Finding::Unasked => self.recv_refused(start, cx),
            // Where there is something else to be known, it is held again.
            Finding::Allowed | Finding::Refused | Finding::Missing => self.recv_start(start, cx),
        }
    }

    /// Whether what was asked is about the exchange that this publish goes to. (The answer may be one that an earlier publish
    /// of the channel has waited for.)
    fn goes_where(&self, fact: Right, publish: View<'_>, cx: &mut Cx<'_>) -> bool {
        let route = cx.link.finder.route(cx.shared, &cx.link.rights, publish.payload());
        route.and_then(Route::judge).is_some_and(|judge| judge.needs.is_of_exchange(fact))
    }

    /// The broker refuses the user, and shall say so itself. If it does not, its ack is the proof.
    fn recv_refused(&mut self, start: Start<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(route) = cx.link.finder.route(cx.shared, &cx.link.rights, start.publish.payload()) else {
            return Ok(());
        };
        let mandatory = route.mandatory;
        let judge = route.judge().map(|judge| (Arc::clone(&judge.window), judge.needs.right));
        let client = self.next_client_tag();
        let Some((window, right)) = judge else {
            return self.forward_unjudged(client, None, None, mandatory, start, cx);
        };
        self.select_unseen(&window, cx);
        self.forward_unjudged(client, Some(&window), Some(right), mandatory, start, cx)
    }

    /// Nobody wants it any more.
    pub(super) fn drop_held(&mut self) {
        drop(self.take_held());
    }

    fn take_held(&mut self) -> Option<Held> {
        let held = self.held.take()?;
        self.waiting.release(held.size());
        Some(held)
    }
}

/// Asks for what is not known of the user's rights where this publish goes. Gives back the right to publish there; `None`
/// where there is nothing to ask.
pub(in crate::session) fn ask(publish: View<'_>, asker: Option<Asker>, cx: &mut Cx<'_>) -> Option<Right> {
    let route = cx.link.finder.route(cx.shared, &cx.link.rights, publish.payload())?;
    let needs = &route.judge()?.needs;
    let place = (&*route.target, &*route.routing_key);
    let questions = cx.link.rights.questions(&cx.shared.rights, needs, place, cx.now);
    let right = (!questions.is_empty()).then_some(needs.right);
    questions.into_iter().for_each(|question| cx.link.probes.ask(question, asker));
    right
}
