//! The methods of the frame DSL, client's and broker's, each as [`Frames`].

use super::frames::Frames;
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue, tx};
use amq_protocol::types::{AMQPValue, FieldTable, LongString};

/// `connection.start`, with the capabilities that RabbitMQ has.
pub fn start() -> Frames {
    start_offering("PLAIN AMQPLAIN")
}

/// `connection.start` with these mechanisms.
pub fn start_offering(mechanisms: &str) -> Frames {
    let mut capabilities = FieldTable::default();
    for name in ["publisher_confirms", "basic.nack", "connection.blocked", "consumer_cancel_notify"] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("RabbitMQ".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    connection(connection::AMQPMethod::Start(connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: properties,
        mechanisms: mechanisms.into(),
        locales: "en_US".into(),
    }))
}

/// `connection.start-ok` by SASL PLAIN; the password is the user's name.
pub fn start_ok(user: &str) -> Frames {
    start_ok_as(user, user)
}

/// `connection.start-ok` by SASL PLAIN.
pub fn start_ok_as(user: &str, password: &str) -> Frames {
    let response: LongString = format!("\0{user}\0{password}").as_str().into();
    connection(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties: FieldTable::default(),
        mechanism: "PLAIN".into(),
        response,
        locale: "en_US".into(),
    }))
}

/// `connection.start-ok` by this mechanism, with these capabilities.
pub fn start_ok_with(mechanism: &str, response: &str, capable: &[(&str, bool)]) -> Frames {
    let mut capabilities = FieldTable::default();
    for (name, able) in capable {
        capabilities.insert((*name).into(), AMQPValue::Boolean(*able));
    }
    let mut client_properties = FieldTable::default();
    if !capable.is_empty() {
        client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    }
    connection(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties,
        mechanism: mechanism.into(),
        response: response.into(),
        locale: "en_US".into(),
    }))
}

/// `connection.tune`.
pub fn tune(channel_max: u16, frame_max: u32, heartbeat: u16) -> Frames {
    connection(connection::AMQPMethod::Tune(connection::Tune { channel_max, frame_max, heartbeat }))
}

/// `connection.tune-ok`.
pub fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Frames {
    connection(connection::AMQPMethod::TuneOk(connection::TuneOk { channel_max, frame_max, heartbeat }))
}

/// `connection.open`.
pub fn connection_open(vhost: &str) -> Frames {
    connection(connection::AMQPMethod::Open(connection::Open { virtual_host: vhost.into() }))
}

/// `connection.update-secret`.
pub fn update_secret(secret: &str) -> Frames {
    connection(connection::AMQPMethod::UpdateSecret(connection::UpdateSecret {
        new_secret: secret.into(),
        reason: "it is time".into(),
    }))
}

/// `connection.open-ok`.
pub fn connection_open_ok() -> Frames {
    connection(connection::AMQPMethod::OpenOk(connection::OpenOk {}))
}

/// `connection.close`.
pub fn connection_close(reply_code: u16, text: &str) -> Frames {
    connection(connection::AMQPMethod::Close(connection::Close {
        reply_code,
        reply_text: text.into(),
        class_id: 0,
        method_id: 0,
    }))
}

/// `connection.close-ok`.
pub fn connection_close_ok() -> Frames {
    connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
}

/// `connection.blocked`.
pub fn blocked(reason: &str) -> Frames {
    connection(connection::AMQPMethod::Blocked(connection::Blocked { reason: reason.into() }))
}

/// `connection.unblocked`.
pub fn unblocked() -> Frames {
    connection(connection::AMQPMethod::Unblocked(connection::Unblocked {}))
}

/// `channel.open`.
pub fn channel_open(id: u16) -> Frames {
    channel(id, channel::AMQPMethod::Open(channel::Open {}))
}

/// `channel.open-ok`.
pub fn channel_open_ok(id: u16) -> Frames {
    channel(id, channel::AMQPMethod::OpenOk(channel::OpenOk {}))
}

/// `channel.close`.
pub fn channel_close(id: u16, reply_code: u16, text: &str) -> Frames {
    let close = channel::Close { reply_code, reply_text: text.into(), class_id: 0, method_id: 0 };
    channel(id, channel::AMQPMethod::Close(close))
}

/// `channel.close` that blames a method, by its class and its number.
pub fn channel_close_for(id: u16, reply_code: u16, text: &str, (class_id, method_id): (u16, u16)) -> Frames {
    let close = channel::Close { reply_code, reply_text: text.into(), class_id, method_id };
    channel(id, channel::AMQPMethod::Close(close))
}

/// `channel.close` that blames `basic.publish`.
pub fn publish_refused(id: u16, reply_code: u16, text: &str) -> Frames {
    channel_close_for(id, reply_code, text, (60, 40))
}

/// `channel.close-ok`.
pub fn channel_close_ok(id: u16) -> Frames {
    channel(id, channel::AMQPMethod::CloseOk(channel::CloseOk {}))
}

/// `channel.flow`.
pub fn flow(id: u16, active: bool) -> Frames {
    channel(id, channel::AMQPMethod::Flow(channel::Flow { active }))
}

/// `channel.flow-ok`.
pub fn flow_ok(id: u16, active: bool) -> Frames {
    channel(id, channel::AMQPMethod::FlowOk(channel::FlowOk { active }))
}

/// `confirm.select`.
pub fn confirm_select(id: u16) -> Frames {
    confirm(id, confirm::AMQPMethod::Select(confirm::Select { nowait: false }))
}

/// `confirm.select` that wants no answer.
pub fn confirm_select_nowait(id: u16) -> Frames {
    confirm(id, confirm::AMQPMethod::Select(confirm::Select { nowait: true }))
}

/// `confirm.select-ok`.
pub fn confirm_select_ok(id: u16) -> Frames {
    confirm(id, confirm::AMQPMethod::SelectOk(confirm::SelectOk {}))
}

/// `tx.select`.
pub fn tx_select(id: u16) -> Frames {
    tx(id, tx::AMQPMethod::Select(tx::Select {}))
}

/// `tx.select-ok`.
pub fn tx_select_ok(id: u16) -> Frames {
    tx(id, tx::AMQPMethod::SelectOk(tx::SelectOk {}))
}

/// `tx.commit`.
pub fn tx_commit(id: u16) -> Frames {
    tx(id, tx::AMQPMethod::Commit(tx::Commit {}))
}

/// `tx.commit-ok`.
pub fn tx_commit_ok(id: u16) -> Frames {
    tx(id, tx::AMQPMethod::CommitOk(tx::CommitOk {}))
}

/// `tx.rollback`.
pub fn tx_rollback(id: u16) -> Frames {
    tx(id, tx::AMQPMethod::Rollback(tx::Rollback {}))
}

/// `tx.rollback-ok`.
pub fn tx_rollback_ok(id: u16) -> Frames {
    tx(id, tx::AMQPMethod::RollbackOk(tx::RollbackOk {}))
}

/// `basic.ack` of one tag.
pub fn ack(id: u16, delivery_tag: u64) -> Frames {
    basic(id, basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple: false }))
}

/// `basic.ack` of all up to a tag.
pub fn ack_multiple(id: u16, delivery_tag: u64) -> Frames {
    basic(id, basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple: true }))
}

/// `basic.nack` of one tag.
pub fn nack(id: u16, delivery_tag: u64) -> Frames {
    basic(id, basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: false, requeue: false }))
}

/// `basic.nack` of all up to a tag.
pub fn nack_multiple(id: u16, delivery_tag: u64) -> Frames {
    basic(id, basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: true, requeue: false }))
}

/// `basic.nack` that gives one delivery back.
pub fn give_back(id: u16, delivery_tag: u64) -> Frames {
    basic(id, basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: false, requeue: true }))
}

/// `basic.nack` that gives back all deliveries up to this one.
pub fn give_back_multiple(id: u16, delivery_tag: u64) -> Frames {
    basic(id, basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: true, requeue: true }))
}

/// `basic.reject`.
pub fn reject(id: u16, delivery_tag: u64, requeue: bool) -> Frames {
    basic(id, basic::AMQPMethod::Reject(basic::Reject { delivery_tag, requeue }))
}

/// `basic.recover` that gives everything back.
pub fn recover(id: u16) -> Frames {
    basic(id, basic::AMQPMethod::Recover(basic::Recover { requeue: true }))
}

/// `basic.recover-async`, which is not answered.
pub fn recover_async(id: u16) -> Frames {
    basic(id, basic::AMQPMethod::RecoverAsync(basic::RecoverAsync { requeue: true }))
}

/// `basic.recover-ok`.
pub fn recover_ok(id: u16) -> Frames {
    basic(id, basic::AMQPMethod::RecoverOk(basic::RecoverOk {}))
}

/// `basic.get-empty`.
pub fn get_empty(id: u16) -> Frames {
    basic(id, basic::AMQPMethod::GetEmpty(basic::GetEmpty {}))
}

/// `basic.consume` without acks.
pub fn consume(id: u16, queue: &str, consumer: &str) -> Frames {
    let consume = basic::Consume {
        queue: queue.into(),
        consumer_tag: consumer.into(),
        no_ack: true,
        ..Default::default()
    };
    basic(id, basic::AMQPMethod::Consume(consume))
}

/// `basic.consume` of a consumer without a tag, which does not ack what it gets, and which the broker does not answer.
pub fn consume_nowait(id: u16, queue: &str) -> Frames {
    let consume = basic::Consume { queue: queue.into(), no_ack: true, nowait: true, ..Default::default() };
    basic(id, basic::AMQPMethod::Consume(consume))
}

/// `basic.consume` of a consumer that acks what it gets.
pub fn consume_acking(id: u16, queue: &str, consumer: &str) -> Frames {
    let consume = basic::Consume { queue: queue.into(), consumer_tag: consumer.into(), ..Default::default() };
    basic(id, basic::AMQPMethod::Consume(consume))
}

/// `basic.cancel` that the broker does not answer.
pub fn cancel_nowait(id: u16, consumer: &str) -> Frames {
    basic(id, basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: consumer.into(), nowait: true }))
}

/// `basic.get`.
pub fn get(id: u16, queue: &str, no_ack: bool) -> Frames {
    basic(id, basic::AMQPMethod::Get(basic::Get { queue: queue.into(), no_ack }))
}

/// `basic.consume-ok`.
pub fn consume_ok(id: u16, consumer: &str) -> Frames {
    basic(id, basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag: consumer.into() }))
}

/// `basic.cancel`.
pub fn cancel(id: u16, consumer: &str) -> Frames {
    basic(id, basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: consumer.into(), nowait: false }))
}

/// `basic.cancel-ok`.
pub fn cancel_ok(id: u16, consumer: &str) -> Frames {
    basic(id, basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: consumer.into() }))
}

/// `queue.declare`.
pub fn queue_declare(id: u16, queue: &str) -> Frames {
    let declare = queue::Declare { queue: queue.into(), ..Default::default() };
    Frames::method(id, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
}

/// `queue.declare-ok`.
pub fn queue_declare_ok(id: u16, queue: &str) -> Frames {
    let ok = queue::DeclareOk { queue: queue.into(), message_count: 0, consumer_count: 0 };
    Frames::method(id, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)))
}

/// `exchange.declare`.
pub fn exchange_declare(id: u16, exchange: &str, of: &str, passive: bool) -> Frames {
    let declare =
        exchange::Declare { exchange: exchange.into(), kind: of.into(), passive, ..Default::default() };
    Frames::method(id, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)))
}

/// `exchange.declare-ok`.
pub fn exchange_declare_ok(id: u16) -> Frames {
    Frames::method(id, AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {})))
}

/// `exchange.delete`.
pub fn exchange_delete(id: u16, exchange: &str) -> Frames {
    let delete = exchange::Delete { exchange: exchange.into(), ..Default::default() };
    Frames::method(id, AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete)))
}

fn connection(method: connection::AMQPMethod) -> Frames {
    Frames::method(0, AMQPClass::Connection(method))
}

fn channel(id: u16, method: channel::AMQPMethod) -> Frames {
    Frames::method(id, AMQPClass::Channel(method))
}

fn confirm(id: u16, method: confirm::AMQPMethod) -> Frames {
    Frames::method(id, AMQPClass::Confirm(method))
}

fn tx(id: u16, method: tx::AMQPMethod) -> Frames {
    Frames::method(id, AMQPClass::Tx(method))
}

fn basic(id: u16, method: basic::AMQPMethod) -> Frames {
    Frames::method(id, AMQPClass::Basic(method))
}

/// A method in a line.
pub fn describe(class: &AMQPClass) -> String {
    use basic::AMQPMethod as B;
    let all = |multiple: bool| if multiple { " multiple" } else { "" };
    match class {
        AMQPClass::Basic(B::Ack(m)) => format!("basic.ack {}{}", m.delivery_tag, all(m.multiple)),
        AMQPClass::Basic(B::Nack(m)) => format!("basic.nack {}{}", m.delivery_tag, all(m.multiple)),
        AMQPClass::Basic(B::Publish(m)) => {
            let bits = if m.mandatory { " mandatory" } else { "" };
            format!("basic.publish {:?} {:?}{bits}", m.exchange.as_str(), m.routing_key.as_str())
        }
        AMQPClass::Basic(B::Return(m)) => {
            format!("basic.return {} {:?} {:?}", m.reply_code, m.exchange.as_str(), m.routing_key.as_str())
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(m)) => {
            format!("channel.close {} {:?}", m.reply_code, m.reply_text.as_str())
        }
        AMQPClass::Connection(connection::AMQPMethod::Close(m)) => {
            format!("connection.close {} {:?}", m.reply_code, m.reply_text.as_str())
        }
        AMQPClass::Connection(connection::AMQPMethod::Start(_)) => "connection.start".into(),
        AMQPClass::Connection(connection::AMQPMethod::StartOk(_)) => "connection.start-ok".into(),
        other => format!("{other:?}").replace("(", ".").replace(")", ""),
    }
}
