//! Publishes that stand whole in a read, as nearly all do: each is taken as one, and the window is shown the keys of those
//! that follow before it is asked for the first, so that what it has to look at comes from memory at the same time.

use super::*;
use crate::session::inbound::Whole;
use crate::window::{Claim, HINTED, is_same};
use crate::wire::method::MethodId;

/// What comes next in the read.
enum Next {
    /// publishes for this window, and nothing is special about them
    Plain(Arc<dyn Window>),
    /// a publish that no window judges now
    Unmatched { whole: Whole, mandatory: bool },
    /// a publish that a window looks at more closely
    Special(Whole),
    /// something else, or what can't be taken as one
    Other,
}

impl Publisher {
    /// Whether the next publish can be taken before anything else happens.
    pub(in crate::session) fn takes_publishes(&self) -> bool {
        self.is_between_contents() && !self.is_stalled() && self.mode != Mode::Tx
    }

    /// Takes the publishes that stand whole in `frames` and come next, `most` at most. Where one of them has to wait, the
    /// rest is left.
    pub(in crate::session) fn recv_publishes(
        &mut self,
        frames: &Bytes,
        most: usize,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let held = self.waiting.held();
        let mut left = most;
        let mut ahead = Vec::new();
        while left > 0 && self.goes_on(held) {
            match look_ahead(&mut ahead, self.id, frames, left.min(HINTED), cx) {
                Next::Other => return Ok(()),
                Next::Unmatched { whole, mandatory } => {
                    left -= 1;
                    take(whole, cx);
                    cx.shared.listener.unmatched();
                    let client = self.next_client_tag();
                    self.forward_unjudged(client, None, None, mandatory, Start::of(whole, frames), cx)?;
                }
                Next::Special(whole) => {
                    left -= 1;
                    take(whole, cx);
                    self.recv_start(Start::of(whole, frames), cx)?;
                }
                Next::Plain(window) => {
                    for (whole, terms) in ahead.drain(..) {
                        if !self.goes_on(held) {
                            return Ok(());
                        }
                        left -= 1;
                        take(whole, cx);
                        let terms = Terms { client: self.next_client_tag(), ..terms };
                        let (publish, content) = (whole.method(frames), whole.content(frames));
                        self.judge(Candidate { window: &window, terms, publish, content, left: 0 }, cx)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing has begun to wait since so much was held.
    fn goes_on(&self, held: usize) -> bool {
        self.takes_publishes() && self.waiting.held() == held
    }
}

impl<'a> Start<'a> {
    fn of(whole: Whole, frames: &'a Bytes) -> Start<'a> {
        let (publish, header, content) = (whole.method(frames), whole.header(frames), whole.content(frames));
        Start { publish, header, content, left: 0 }
    }
}

/// It is looked at by now.
fn take(whole: Whole, cx: &mut Cx<'_>) {
    cx.inbound.skip(whole.places);
    *cx.publishes += 1;
}

/// The publishes that come next are put into `ahead`, as far as they are plain.
fn look_ahead(
    ahead: &mut Vec<(Whole, Terms)>,
    channel: ChannelId,
    frames: &Bytes,
    most: usize,
    cx: &mut Cx<'_>,
) -> Next {
    let mut window: Option<Arc<dyn Window>> = None;
    let (mut places, mut next) = (0, Next::Other);
    while ahead.len() < most {
        let Some(whole) = cx.inbound.whole(places, channel, MethodId::BASIC_PUBLISH) else { break };
        let payload = whole.method(frames).payload();
        let Some(route) = cx.finder.route(cx.shared, cx.rights, payload) else { break };
        let Some(judge) = route.judge() else {
            next = Next::Unmatched { whole, mandatory: route.mandatory };
            break;
        };
        if window.as_ref().is_some_and(|window| !is_same(window, &judge.window)) {
            break;
        }
        let standing = cx.rights.standing(&cx.shared.rights, &judge.needs, cx.now);
        if standing == Standing::Unknown {
            if judge.window.rules().id == IdSource::Body {
                break;
            }
            next = Next::Special(whole);
            break;
        }
        match Reading::of(whole.header(frames), route, judge, standing, &cx.shared.keys) {
            Reading::Plain(terms) => ahead.push((whole, terms)),
            Reading::Body => break,
            Reading::Bypass | Reading::NoId | Reading::Malformed => {
                next = Next::Special(whole);
                break;
            }
        }
        window.get_or_insert_with(|| Arc::clone(&judge.window));
        places += whole.places;
    }
    if let Some(window) = window.as_ref().filter(|_| ahead.len() > 1) {
        let mut claims = [Claim::Digest(Key(0)); HINTED];
        claims.iter_mut().zip(&*ahead).for_each(|(claim, (_, terms))| *claim = terms.claim);
        window.warm(claims.get(..ahead.len()).unwrap_or_default());
    }
    window.map_or(next, Next::Plain)
}
