//! Publishes that stand whole in a read, as nearly all do: the window is asked about all of them together. A window in memory
//! then fetches the memory for all of them at once, and a window with a store sends one question.

use super::questions::Questions;
use super::reading::{Kind, Reading, Start};
use crate::session::candidate::Terms;
use crate::session::cx::{Cx, Link};
use crate::session::inbound::{Chunk, Whole};
use crate::session::rights::Standing;
use crate::window::{HINTED, OnConflict, Ticket, Verdict, Window, is_same};
use crate::wire::ChannelId;
use crate::wire::method::MethodId;
use crate::wire::properties::IdSource;
use std::sync::Arc;

/// The next frames of a read.
pub(super) enum Next {
    /// publishes for this window that need nothing special
    Plain(Arc<dyn Window>),
    /// a publish that no window judges now
    Unmatched { whole: Whole, mandatory: bool, passed_by: Option<Arc<dyn Window>> },
    /// a publish that a window has to look at more closely
    Special(Whole),
    /// other frames, or a publish that can't be taken as one
    Other,
}

/// The plain publishes that come next, what the window is asked about them, and what it says.
#[derive(Default)]
pub(super) struct Ahead {
    publishes: Vec<(Whole, Terms)>,
    questions: Questions,
}

impl Ahead {
    /// Looks at the plain publishes that come next, up to `most` of them and up to `room` bytes, but at least at one. Takes
    /// nothing. `distinct`: no two of the same claim.
    pub(super) fn look(
        &mut self,
        channel: ChannelId,
        (most, mut room): (usize, usize),
        distinct: bool,
        cx: &mut Cx<'_>,
    ) -> Next {
        let ahead = &mut self.publishes;
        let most = most.min(HINTED);
        let mut window: Option<Arc<dyn Window>> = None;
        let (mut places, mut next) = (0, Next::Other);
        while ahead.len() < most {
            let Link { inbound, finder, rights, marks, .. } = &mut *cx.link;
            let Some(whole) = inbound.whole(places, channel, MethodId::BASIC_PUBLISH) else { break };
            let Some(route) = finder.route(cx.shared, rights, inbound.method_of(whole)) else { break };
            let Some(judge) = route.judge() else {
                let (mandatory, passed_by) = (route.mandatory, route.passed_by().cloned());
                next = Next::Unmatched { whole, mandatory, passed_by };
                break;
            };
            let size = whole.len();
            if window.as_ref().is_some_and(|window| size > room || !is_same(window, &judge.window)) {
                break;
            }
            room = room.saturating_sub(size);
            let standing = rights.standing(&cx.shared.rights, &judge.needs, cx.now);
            if standing == Standing::Unknown {
                if judge.window.rules().id == IdSource::Body {
                    break;
                }
                next = Next::Special(whole);
                break;
            }
            let (header, keys) = (inbound.header_of(whole), &cx.shared.keys);
            let reading = Reading::of(header, route, judge, standing, rights, keys, &*marks);
            match reading.kind {
                // It is counted where it is taken.
                _ if !reading.bad.is_empty() => {
                    next = Next::Special(whole);
                    break;
                }
                Kind::Plain(terms)
                    if distinct && ahead.iter().any(|(_, before)| before.claim == terms.claim) =>
                {
                    break;
                }
                // It is not judged. (Most sessions have no deliveries, so their publishes have no mark.)
                Kind::Plain(Terms { mark: Some(mark), .. })
                    if marks.holds(mark, judge.window.rules(), cx.shared) =>
                {
                    next = Next::Special(whole);
                    break;
                }
                Kind::Plain(terms) => {
                    if ahead.is_empty() {
                        ahead.reserve(inbound.messages_left().min(most));
                    }
                    ahead.push((whole, terms));
                }
                Kind::Body(_) => break,
                Kind::Bypass | Kind::NoId | Kind::Malformed => {
                    next = Next::Special(whole);
                    break;
                }
            }
            window.get_or_insert_with(|| Arc::clone(&judge.window));
            places += whole.frames;
        }
        window.map_or(next, Next::Plain)
    }

    /// Asks the window about the publishes that were looked at, and takes them, each with its ticket and its verdict. `chunk`
    /// becomes the one that holds them. `in_order`: nothing waits on the channel. Then the mandatory bits are set of those that
    /// will be forwarded for certain.
    pub(super) fn ask<'a>(
        &'a mut self,
        window: &Arc<dyn Window>,
        channel: ChannelId,
        in_order: bool,
        chunk: &mut Chunk,
        cx: &mut Cx<'_>,
    ) -> impl Iterator<Item = (Whole, Terms, Ticket, Verdict)> + use<'a> {
        let Ahead { publishes, questions } = self;
        questions.ask(window, channel, publishes.iter().map(|(_, terms)| terms.claim), cx);
        let inbound = &mut cx.link.inbound;
        if in_order {
            // A duplicate with another body is a question of its own then.
            let may_go_on = window.rules().on_conflict == OnConflict::Forward;
            for ((whole, terms), verdict) in publishes.iter().zip(questions.verdicts()) {
                match verdict {
                    Some(Verdict::Fresh(_)) if terms.verify && !terms.asked => inbound.set_mandatory(*whole),
                    Some(Verdict::Fresh(_)) => {}
                    Some(Verdict::Duplicate(_)) if !may_go_on => {}
                    // The channel may stop here. Frames that wait must be as the client has sent them.
                    Some(_) | None => break,
                }
            }
        }
        if let (Some((first, _)), Some((last, _))) = (publishes.first(), publishes.last()) {
            inbound.fetch_all(*first, *last, chunk);
        }
        let answers = publishes.drain(..).zip(questions.answers());
        answers.map(|((whole, terms), (ticket, verdict))| (whole, terms, ticket, verdict))
    }
}

impl Whole {
    /// Marks its frames as handled.
    pub(super) fn take(self, cx: &mut Cx<'_>) {
        cx.link.inbound.skip(self.frames);
        cx.link.publishes += 1;
    }
}

impl<'a> Start<'a> {
    /// Returns the start of a content that stands whole in a read.
    pub(super) fn of(whole: Whole, chunk: &'a Chunk) -> Start<'a> {
        let (publish, header, content) = (whole.method(chunk), whole.header(chunk), whole.content(chunk));
        Start { publish, header, content, left: 0 }
    }
}
