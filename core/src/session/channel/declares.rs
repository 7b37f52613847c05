//! The exchanges that the client of a channel declares: their types are learned when the broker has agreed to them.

use crate::session::cx::Cx;
use crate::session::exchanges::ExchangeType;
use crate::session::outbox::View;
use crate::wire::emit;
use amq_protocol::protocol::{AMQPClass, exchange};
use std::collections::VecDeque;

/// Bound on the declarations without an answer that are remembered. Others are not learned from.
const KEPT: usize = 64;

/// The declarations of one channel that the broker has not answered.
#[derive(Debug, Default)]
pub(super) struct Declares {
    /// how many were sent that want an answer
    sent: u64,
    /// how many answers have come
    answered: u64,
    /// Their numbers, names and types.
    named: VecDeque<(u64, Box<[u8]>, ExchangeType)>,
    /// A declaration could not be read. It is not known which answer belongs to which one any more.
    lost: bool,
}

impl Declares {
    /// Handles `exchange.declare`, which is about to be forwarded.
    pub(super) fn recv_declare(&mut self, frame: View<'_>) {
        let Some(AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))) =
            emit::parse_method(frame.payload())
        else {
            self.lost = true;
            return;
        };
        if declare.nowait {
            return;
        }
        // The broker does not compare the type of a passive declaration.
        if !declare.passive && self.named.len() < KEPT {
            let name = declare.exchange.as_str().as_bytes().into();
            self.named.push_back((self.sent, name, ExchangeType::of(declare.kind.as_str())));
        }
        self.sent += 1;
    }

    /// Handles `exchange.declare-ok`.
    pub(super) fn recv_declare_ok(&mut self, cx: &mut Cx<'_>) {
        let number = self.answered;
        self.answered += 1;
        let declared = self.named.pop_front_if(|(first, ..)| *first == number);
        if let Some((_, name, of)) = declared.filter(|_| !self.lost) {
            cx.shared.exchanges.learn(cx.link.finder.vhost(), &name, of);
        }
    }

    /// Handles `exchange.delete`, which is about to be forwarded.
    pub(super) fn recv_delete(&self, frame: View<'_>, cx: &mut Cx<'_>) {
        if let Some(AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete))) =
            emit::parse_method(frame.payload())
        {
            cx.shared.exchanges.forget(cx.link.finder.vhost(), delete.exchange.as_str().as_bytes());
        }
    }
}
