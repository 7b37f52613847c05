//! Generates any frame that `amq-protocol` can write: every method of every class, content headers with any properties
//! and nested tables, bodies, heartbeats.

#![allow(clippy::expect_used, reason = "that is how a check fails")]

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{
    AMQPClass, BasicProperties, access, basic, channel, confirm, connection, exchange, queue, tx,
};
use amq_protocol::types::{AMQPValue, ByteArray, DecimalValue, FieldTable, LongString, ShortString};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

/// Returns the octets of a frame.
pub(crate) fn octets(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new())).expect("a Vec takes all").into_inner().0
}

/// Generates a short string. Most are short; some have all 255 octets, and some have characters of several octets.
pub(crate) fn short_string() -> BoxedStrategy<ShortString> {
    prop_oneof![
        1 => Just(String::new()),
        8 => "[a-z0-9._-]{1,20}",
        3 => "\\PC{0,60}",
        1 => "[a-z]{250,255}",
    ]
    .prop_map(ShortString::from)
    .boxed()
}

fn long_string() -> BoxedStrategy<LongString> {
    vec(any::<u8>(), 0..60).prop_map(LongString::from).boxed()
}

fn scalar() -> impl Strategy<Value = AMQPValue> {
    prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_map(AMQPValue::Float),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<(u8, u32)>().prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        long_string().prop_map(AMQPValue::LongString),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        vec(any::<u8>(), 0..60).prop_map(|bytes| AMQPValue::ByteArray(ByteArray::from(bytes))),
        Just(AMQPValue::Void),
    ]
}

fn value() -> impl Strategy<Value = AMQPValue> {
    scalar().prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|values| AMQPValue::FieldArray(values.into())),
            btree_map(short_string(), inner, 0..5).prop_map(|entries| AMQPValue::FieldTable(entries.into())),
        ]
    })
}

/// Generates a header's name. The names that Hapax looks for occur among others, and in nested tables, too.
fn header_name() -> BoxedStrategy<ShortString> {
    let ours = prop_oneof![
        Just("id"),
        Just("x-cache-ttl"),
        Just("x-hapax-bypass"),
        Just("x-death"),
        Just("CC"),
        Just("BCC")
    ];
    prop_oneof![2 => short_string(), 3 => ours.prop_map(ShortString::from)].boxed()
}

/// Generates a value that one of our headers may have: a text, a list of routing keys, deaths.
fn our_value() -> impl Strategy<Value = AMQPValue> {
    let text = prop_oneof![
        "[0-9]{1,19}",
        " ?[0-9]{1,5}(ms|s|x)?",
        Just("true".to_owned()),
        Just("False".to_owned()),
        Just(" 1".to_owned())
    ];
    let keys = vec(
        prop_oneof![3 => "[ab]{0,2}".prop_map(|key| AMQPValue::LongString(key.into())), 1 => scalar()],
        0..5,
    );
    let names = ["queue", "reason", "count", "time", "exchange", "routing-keys"];
    let field =
        prop_oneof![2 => "[a-z]{0,3}".prop_map(|text| AMQPValue::LongString(text.into())), 2 => scalar()];
    let fields = vec(option::weighted(0.8, field), names.len());
    let death = fields.prop_map(move |fields| {
        let names = names.into_iter().map(ShortString::from);
        let some = names.zip(fields).filter_map(|(name, field)| Some((name, field?)));
        AMQPValue::FieldTable(some.collect::<std::collections::BTreeMap<_, _>>().into())
    });
    prop_oneof![
        text.prop_map(|text| AMQPValue::LongString(text.into())),
        keys.prop_map(|keys| AMQPValue::FieldArray(keys.into())),
        vec(death, 0..3).prop_map(|deaths| AMQPValue::FieldArray(deaths.into())),
    ]
}

fn table() -> BoxedStrategy<FieldTable> {
    btree_map(header_name(), prop_oneof![value(), our_value()], 0..8).prop_map(FieldTable::from).boxed()
}

prop_compose! {
    fn properties()(
        strings in vec(option::of(short_string()), 10),
        headers in option::of(table()),
        delivery_mode in option::of(any::<u8>()),
        priority in option::of(any::<u8>()),
        timestamp in option::of(any::<u64>()),
    ) -> BasicProperties {
        let mut properties = BasicProperties::default();
        let with: [fn(BasicProperties, ShortString) -> BasicProperties; 10] = [
            BasicProperties::with_content_type,
            BasicProperties::with_content_encoding,
            BasicProperties::with_correlation_id,
            BasicProperties::with_reply_to,
            BasicProperties::with_expiration,
            BasicProperties::with_message_id,
            BasicProperties::with_type,
            BasicProperties::with_user_id,
            BasicProperties::with_app_id,
            BasicProperties::with_cluster_id,
        ];
        for (with, string) in with.into_iter().zip(strings) {
            if let Some(string) = string {
                properties = with(properties, string);
            }
        }
        if let Some(headers) = headers {
            properties = properties.with_headers(headers);
        }
        if let Some(delivery_mode) = delivery_mode {
            properties = properties.with_delivery_mode(delivery_mode);
        }
        if let Some(priority) = priority {
            properties = properties.with_priority(priority);
        }
        if let Some(timestamp) = timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        properties
    }
}

prop_compose! {
    pub(crate) fn content_header()(
        class_id in prop_oneof![15 => Just(60_u16), 1 => any::<u16>()],
        body_size in any::<u64>(),
        properties in properties(),
    ) -> AMQPContentHeader {
        AMQPContentHeader { class_id, body_size, properties }
    }
}

/// A type of a method's field that can be generated.
trait Draw: Sized {
    fn draw() -> BoxedStrategy<Self>;
}

macro_rules! draw {
    ($($type:ty => $strategy:expr),* $(,)?) => {
        $(impl Draw for $type { fn draw() -> BoxedStrategy<Self> { $strategy } })*
    };
}

draw! {
    bool => any::<bool>().boxed(),
    u8 => any::<u8>().boxed(),
    u16 => any::<u16>().boxed(),
    u32 => any::<u32>().boxed(),
    u64 => any::<u64>().boxed(),
    ShortString => short_string(),
    LongString => long_string(),
    FieldTable => table(),
}

/// Returns the strategy for a field. The function is never called; it only tells the field's type.
fn draw_like<S, T: Draw>(_: fn(&S) -> &T) -> BoxedStrategy<T> {
    T::draw()
}

/// Makes one strategy per method, which generates every field. The fields are listed without `..Default`: when
/// `amq-protocol` adds a field, this does not compile until the field is listed.
macro_rules! methods {
    ($($class:ident :: $Class:ident { $($Method:ident { $($field:ident),* })* })*) => {
        /// Returns a strategy for every method, with its name, in the order of this file.
        pub(crate) fn every_method() -> Vec<(&'static str, BoxedStrategy<AMQPClass>)> {
            vec![$($((
                concat!(stringify!($class), ".", stringify!($Method)),
                methods!(@draw $class $Class $Method $($field)*),
            )),*),*]
        }

        /// Does not compile when `amq-protocol` adds a method, until the method is listed.
        #[allow(dead_code, reason = "it is the compiler that reads it")]
        fn all_are_listed(class: &AMQPClass) {
            match class {
                $(AMQPClass::$Class(method) => match method {
                    $($class::AMQPMethod::$Method(_) => {})*
                },)*
            }
        }
    };
    (@draw $class:ident $Class:ident $Method:ident) => {
        Just(AMQPClass::$Class($class::AMQPMethod::$Method($class::$Method {}))).boxed()
    };
    (@draw $class:ident $Class:ident $Method:ident $($field:ident)+) => {{
        let fields = methods!(@nest $class $Method $($field)+);
        fields
            .prop_map(|methods!(@pattern $($field)+)| {
                AMQPClass::$Class($class::AMQPMethod::$Method($class::$Method { $($field),+ }))
            })
            .boxed()
    }};
    // The strategies are nested pairs, because a tuple of strategies has a maximum length.
    (@nest $class:ident $Method:ident $field:ident) => {
        draw_like(|method: &$class::$Method| &method.$field)
    };
    (@nest $class:ident $Method:ident $field:ident $($more:ident)+) => {
        (draw_like(|method: &$class::$Method| &method.$field), methods!(@nest $class $Method $($more)+))
    };
    (@pattern $field:ident) => { $field };
    (@pattern $field:ident $($more:ident)+) => { ($field, methods!(@pattern $($more)+)) };
}

methods! {
    connection::Connection {
        Start { version_major, version_minor, server_properties, mechanisms, locales }
        StartOk { client_properties, mechanism, response, locale }
        Secure { challenge }
        SecureOk { response }
        Tune { channel_max, frame_max, heartbeat }
        TuneOk { channel_max, frame_max, heartbeat }
        Open { virtual_host }
        OpenOk {}
        Close { reply_code, reply_text, class_id, method_id }
        CloseOk {}
        Blocked { reason }
        Unblocked {}
        UpdateSecret { new_secret, reason }
        UpdateSecretOk {}
    }
    channel::Channel {
        Open {}
        OpenOk {}
        Flow { active }
        FlowOk { active }
        Close { reply_code, reply_text, class_id, method_id }
        CloseOk {}
    }
    access::Access {
        Request { realm, exclusive, passive, active, write, read }
        RequestOk {}
    }
    exchange::Exchange {
        Declare { exchange, kind, passive, durable, auto_delete, internal, nowait, arguments }
        DeclareOk {}
        Delete { exchange, if_unused, nowait }
        DeleteOk {}
        Bind { destination, source, routing_key, nowait, arguments }
        BindOk {}
        Unbind { destination, source, routing_key, nowait, arguments }
        UnbindOk {}
    }
    queue::Queue {
        Declare { queue, passive, durable, exclusive, auto_delete, nowait, arguments }
        DeclareOk { queue, message_count, consumer_count }
        Bind { queue, exchange, routing_key, nowait, arguments }
        BindOk {}
        Purge { queue, nowait }
        PurgeOk { message_count }
        Delete { queue, if_unused, if_empty, nowait }
        DeleteOk { message_count }
        Unbind { queue, exchange, routing_key, arguments }
        UnbindOk {}
    }
    basic::Basic {
        Qos { prefetch_count, global }
        QosOk {}
        Consume { queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments }
        ConsumeOk { consumer_tag }
        Cancel { consumer_tag, nowait }
        CancelOk { consumer_tag }
        Publish { exchange, routing_key, mandatory, immediate }
        Return { reply_code, reply_text, exchange, routing_key }
        Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key }
        Get { queue, no_ack }
        GetOk { delivery_tag, redelivered, exchange, routing_key, message_count }
        GetEmpty {}
        Ack { delivery_tag, multiple }
        Reject { delivery_tag, requeue }
        RecoverAsync { requeue }
        Recover { requeue }
        RecoverOk {}
        Nack { delivery_tag, multiple, requeue }
    }
    tx::Tx {
        Select {}
        SelectOk {}
        Commit {}
        CommitOk {}
        Rollback {}
        RollbackOk {}
    }
    confirm::Confirm {
        Select { nowait }
        SelectOk {}
    }
}

/// The methods that are read in place.
const HOT: [&str; 4] = ["basic.Publish", "basic.Return", "basic.Ack", "basic.Nack"];

/// Generates any frame. (The protocol header is not a frame.)
pub(crate) fn frame() -> impl Strategy<Value = AMQPFrame> {
    let channel = prop_oneof![Just(0), Just(1), any::<u16>()];
    let (all, hot): (Vec<_>, Vec<_>) =
        every_method().into_iter().map(|(name, method)| (method.clone(), (name, method))).unzip();
    let hot = hot.into_iter().filter(|(name, _)| HOT.contains(name)).map(|(_, method)| method);
    let method = prop_oneof![Union::new(all), Union::new(hot)];
    prop_oneof![
        4 => (channel.clone(), method).prop_map(|(channel, method)| AMQPFrame::Method(channel, method)),
        4 => (channel.clone(), content_header())
            .prop_map(|(channel, header)| AMQPFrame::Header(channel, header)),
        2 => (channel.clone(), vec(any::<u8>(), 0..300))
            .prop_map(|(channel, body)| AMQPFrame::Body(channel, body)),
        1 => channel.prop_map(|channel| match channel {
            0 => AMQPFrame::Heartbeat,
            channel => AMQPFrame::InvalidHeartbeat(channel),
        }),
    ]
}
