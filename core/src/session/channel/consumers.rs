//! The consumers of a [`Channel`], known by their tags so that they can be cancelled when nobody wants their deliveries.

use super::*;

impl Channel {
    pub(super) fn note_consumer(&mut self, frame: View<'_>) {
        self.used_otherwise = true;
        if let Some(AMQPClass::Basic(basic::AMQPMethod::Consume(consume))) =
            emit::parse_method(frame.payload())
            && !consume.consumer_tag.as_str().is_empty()
        {
            self.consumers.insert(consume.consumer_tag.as_str().to_owned());
        }
    }

    pub(super) fn note_consume_ok(&mut self, frame: View<'_>, cx: &mut Cx<'_>) {
        if let Some(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok))) = emit::parse_method(frame.payload())
        {
            self.consumers.insert(ok.consumer_tag.as_str().to_owned());
        }
        let open_upstream = matches!(
            self.state,
            State::Open
                | State::Settling { .. }
                | State::Refused { told_upstream: false, upstream_done: false, .. }
        );
        if self.unwanted && open_upstream {
            self.cancel_consumers(cx);
        }
    }

    /// What is delivered from now on would be lost, or given back late: the channel stays open for outcomes only. Amid a
    /// content there is no way to say so.
    pub(super) fn cancel_consumers(&mut self, cx: &mut Cx<'_>) {
        if self.publisher.is_forwarding() {
            return;
        }
        self.unwanted = true;
        for tag in self.consumers.drain() {
            let cancel = basic::Cancel { consumer_tag: tag.into(), nowait: true };
            cx.link
                .out
                .upstream
                .push(emit::method(self.id, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel))));
        }
    }

    pub(super) fn note_cancel(&mut self, frame: View<'_>) {
        if let Some(AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel))) = emit::parse_method(frame.payload())
        {
            self.consumers.remove(cancel.consumer_tag.as_str());
        }
    }
}
