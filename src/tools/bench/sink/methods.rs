//! The sink's answer to each method.

use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue, tx};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};
use bytes::Bytes;
use hapax_core::wire::ChannelId;
use hapax_core::wire::emit;

/// The frame size that it proposes.
pub(super) const FRAME_MAX: u32 = 131_072;
/// A queue with this prefix and a number N as its name holds N messages.
const FEED: &str = "hapax-bench-deliver:";
/// Seconds between two signs of life, as RabbitMQ proposes it.
const HEARTBEAT: u16 = 60;

/// The reaction to a method.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answer {
    /// no answer
    Nothing,
    /// `connection.tune-ok`
    Agreed { heartbeat: u16 },
    /// no more than an answer
    Say(AMQPClass),
    /// a new channel
    Open(AMQPClass),
    /// a channel's end
    Close(AMQPClass),
    /// confirms from here on
    Confirm(Option<AMQPClass>),
    /// send `count` deliveries to a consumer
    Feed { consumer: String, count: u64, method: Option<AMQPClass> },
    /// no more deliveries to a consumer
    Cancel { consumer: String, method: Option<AMQPClass> },
    /// the connection's end
    Leave(AMQPClass),
}

/// `connection.start`.
pub(super) fn start() -> Bytes {
    let mut capabilities = FieldTable::default();
    for name in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "exchange_exchange_bindings"] {
        capabilities.insert(ShortString::from(name), AMQPValue::Boolean(true));
    }
    let mut server_properties = FieldTable::default();
    let product = AMQPValue::LongString(LongString::from("hapax bench sink"));
    server_properties.insert(ShortString::from("product"), product);
    server_properties.insert(ShortString::from("capabilities"), AMQPValue::FieldTable(capabilities));
    let start = connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: "PLAIN AMQPLAIN".into(),
        locales: "en_US".into(),
    };
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(connection::AMQPMethod::Start(start)))
}

/// Returns the answer to a method. Unknown methods are ignored.
pub(super) fn answer(method: &AMQPClass) -> Answer {
    match method {
        AMQPClass::Connection(method) => connection_answer(method),
        AMQPClass::Channel(channel::AMQPMethod::Open(_)) => {
            Answer::Open(AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})))
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(_)) => {
            Answer::Close(AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})))
        }
        AMQPClass::Channel(channel::AMQPMethod::Flow(flow)) => {
            let ok = channel::FlowOk { active: flow.active };
            Answer::Say(AMQPClass::Channel(channel::AMQPMethod::FlowOk(ok)))
        }
        AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => {
            let ok = AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {}));
            Answer::Confirm((!select.nowait).then_some(ok))
        }
        AMQPClass::Tx(method) => tx_answer(method),
        AMQPClass::Queue(method) => queue_answer(method),
        AMQPClass::Exchange(method) => exchange_answer(method),
        AMQPClass::Basic(method) => basic_answer(method),
        _ => Answer::Nothing,
    }
}

/// Answers a method of a transaction. Messages are thrown away at once, so there is nothing to commit or to roll back.
fn tx_answer(method: &tx::AMQPMethod) -> Answer {
    use tx::AMQPMethod as M;
    let answer = match method {
        M::Select(_) => M::SelectOk(tx::SelectOk {}),
        M::Commit(_) => M::CommitOk(tx::CommitOk {}),
        M::Rollback(_) => M::RollbackOk(tx::RollbackOk {}),
        M::SelectOk(_) | M::CommitOk(_) | M::RollbackOk(_) => return Answer::Nothing,
    };
    Answer::Say(AMQPClass::Tx(answer))
}

fn connection_answer(method: &connection::AMQPMethod) -> Answer {
    use connection::AMQPMethod as M;
    match method {
        M::StartOk(_) => {
            let tune = connection::Tune { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: HEARTBEAT };
            Answer::Say(AMQPClass::Connection(M::Tune(tune)))
        }
        M::TuneOk(ok) => Answer::Agreed { heartbeat: ok.heartbeat },
        M::Open(_) => Answer::Say(AMQPClass::Connection(M::OpenOk(connection::OpenOk {}))),
        M::Close(_) => Answer::Leave(AMQPClass::Connection(M::CloseOk(connection::CloseOk {}))),
        _ => Answer::Nothing,
    }
}

fn queue_answer(method: &queue::AMQPMethod) -> Answer {
    use queue::AMQPMethod as M;
    let answer = match method {
        M::Declare(declare) if !declare.nowait => M::DeclareOk(queue::DeclareOk {
            queue: if declare.queue.as_str().is_empty() { "sink".into() } else { declare.queue.clone() },
            message_count: 0,
            consumer_count: 0,
        }),
        M::Bind(bind) if !bind.nowait => M::BindOk(queue::BindOk {}),
        M::Unbind(_) => M::UnbindOk(queue::UnbindOk {}),
        M::Purge(purge) if !purge.nowait => M::PurgeOk(queue::PurgeOk { message_count: 0 }),
        M::Delete(delete) if !delete.nowait => M::DeleteOk(queue::DeleteOk { message_count: 0 }),
        _ => return Answer::Nothing,
    };
    Answer::Say(AMQPClass::Queue(answer))
}

fn exchange_answer(method: &exchange::AMQPMethod) -> Answer {
    use exchange::AMQPMethod as M;
    let answer = match method {
        M::Declare(declare) if !declare.nowait => M::DeclareOk(exchange::DeclareOk {}),
        M::Delete(delete) if !delete.nowait => M::DeleteOk(exchange::DeleteOk {}),
        M::Bind(bind) if !bind.nowait => M::BindOk(exchange::BindOk {}),
        M::Unbind(unbind) if !unbind.nowait => M::UnbindOk(exchange::UnbindOk {}),
        _ => return Answer::Nothing,
    };
    Answer::Say(AMQPClass::Exchange(answer))
}

fn basic_answer(method: &basic::AMQPMethod) -> Answer {
    use basic::AMQPMethod as M;
    match method {
        M::Qos(_) => Answer::Say(AMQPClass::Basic(M::QosOk(basic::QosOk {}))),
        M::Consume(consume) => {
            let given = consume.consumer_tag.as_str();
            let consumer = if given.is_empty() { "sink" } else { given }.to_owned();
            let ok = basic::ConsumeOk { consumer_tag: consumer.as_str().into() };
            let ok = AMQPClass::Basic(M::ConsumeOk(ok));
            let count = consume.queue.as_str().strip_prefix(FEED).and_then(|count| count.parse().ok());
            Answer::Feed { consumer, count: count.unwrap_or(0), method: (!consume.nowait).then_some(ok) }
        }
        M::Cancel(cancel) => {
            let ok = basic::CancelOk { consumer_tag: cancel.consumer_tag.clone() };
            let ok = AMQPClass::Basic(M::CancelOk(ok));
            Answer::Cancel {
                consumer: cancel.consumer_tag.to_string(),
                method: (!cancel.nowait).then_some(ok),
            }
        }
        M::Get(_) => Answer::Say(AMQPClass::Basic(M::GetEmpty(basic::GetEmpty {}))),
        M::Recover(_) => Answer::Say(AMQPClass::Basic(M::RecoverOk(basic::RecoverOk {}))),
        _ => Answer::Nothing,
    }
}
