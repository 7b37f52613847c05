//! Point 6: one side is gone, and nobody knows what became of a publish.

use super::{acked, held};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait;
use amq_protocol::protocol::{AMQPClass, basic, channel, connection, queue};

fn passive(queue: &str) -> AMQPClass {
    let declare = queue::Declare { queue: queue.into(), passive: true, ..queue::Declare::default() };
    AMQPClass::Queue(queue::AMQPMethod::Declare(declare))
}

/// Ready messages and consumers of a queue.
fn state(direct: &mut Raw, queue: &str) -> (u32, u32) {
    match direct.call(1, &passive(queue)) {
        Ok(AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok))) => (ok.message_count, ok.consumer_count),
        other => panic!("{other:?}"),
    }
}

fn until_held(direct: &mut Raw, queue: &str, count: u32) {
    wait::until("the broker has stored it", wait::PATIENCE, || {
        (state(direct, queue).0 >= count).then_some(())
    });
}

fn confirming(site: &Site) -> Raw {
    let mut client = site.client();
    client.confirming(1);
    client
}

#[test]
fn p06_the_retry_of_a_vanished_client_finds_the_truth() {
    let Some(site) = Site::with_cut("p06-client", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    direct.declare(1, "consumed", &[]);
    let (mut first, mut retry) = (confirming(&site), confirming(&site));
    let exclusive = queue::Declare { queue: "own".into(), exclusive: true, ..queue::Declare::default() };
    first.call(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(exclusive))).unwrap();
    let consume = basic::Consume { queue: "consumed".into(), ..basic::Consume::default() };
    first.call(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    assert_eq!(state(&mut direct, "consumed").1, 1);

    // The broker stores it, its ack is on its way, and the client is gone.
    site.prove();
    site.cut().stall_down();
    first.publish(1, &Publish::to("q", "a"));
    until_held(&mut direct, "q", 1);
    drop(first);
    wait::until("its consumer is cancelled at once", wait::PATIENCE, || {
        (state(&mut direct, "consumed").1 == 0).then_some(())
    });
    retry.publish(1, &Publish::to("q", "a"));
    site.until_metric("publishes_total", &[("verdict", "in_flight")], 1.0);

    site.cut().resume();
    assert_eq!(retry.next(1), Told::Ack { tag: 1, multiple: false });
    assert_eq!(held(&mut direct, "q"), 1);
    // Nothing is unresolved any more: what was the client's own goes with it.
    wait::until("the exclusive queue is gone", wait::PATIENCE, || {
        direct.open_channel(2);
        let answer = direct.call(2, &passive("own"));
        matches!(answer, Err(Told::ChannelClosed { code: 404, .. })).then_some(())
    });
}

#[test]
fn p06_a_client_without_anything_unresolved_leaves_nothing_behind() {
    let site = Site::new("p06-exclusive", "");
    let mut direct = site.direct();
    let mut client = site.client();
    client.confirming(1);
    let exclusive = queue::Declare { queue: "own".into(), exclusive: true, ..queue::Declare::default() };
    client.call(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(exclusive))).unwrap();
    acked(&client.publish_and_settle(1, &Publish::to("own", "a")));
    drop(client);
    wait::until("the exclusive queue is gone", wait::PATIENCE, || {
        direct.open_channel(1);
        let answer = direct.call(1, &passive("own"));
        matches!(answer, Err(Told::ChannelClosed { code: 404, .. })).then_some(())
    });
}

/// The upstream dies after it has stored a message and before its ack has come, or before it has stored it.
fn upstream_vanishes(site: &Site, stored: bool) -> Raw {
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut client = confirming(site);
    acked(&client.publish_and_settle(1, &Publish::to("q", "settled")));
    if stored {
        site.cut().stall_down();
    } else {
        site.cut().stall_up();
    }
    client.publish(1, &Publish::to("q", "a"));
    if stored {
        until_held(&mut direct, "q", 2);
    } else {
        site.until_metric("window_in_flight", &[], 1.0);
    }
    site.cut().cut_all();
    match client.next(1) {
        Told::ConnectionClosed { code: 320, text } => assert!(text.contains("broker"), "{text}"),
        other => panic!("no ack, but a close with a reason is expected: {other:?}"),
    }
    assert_eq!(client.frame().unwrap(), None, "and the socket is closed");
    site.cut().resume();
    site.until_metric("window_in_flight", &[], 0.0);
    let mut again = confirming(site);
    for id in ["a", "settled"] {
        acked(&again.publish_and_settle(1, &Publish::to("q", id)));
    }
    direct
}

#[test]
fn p06_when_the_upstream_vanishes_nothing_is_acked_and_the_retry_passes() {
    let Some(site) = Site::with_cut("p06-lost", "") else { return };
    let mut direct = upstream_vanishes(&site, false);
    assert_eq!(direct.drain(1, "q"), ["settled", "a"]);
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "in_doubt")]), 1.0);
}

#[test]
fn p06_what_no_proxy_can_promise_is_counted() {
    let Some(site) = Site::with_cut("p06-doubt", "") else { return };
    let mut direct = upstream_vanishes(&site, true);
    assert_eq!(direct.drain(1, "q"), ["settled", "a", "a"]);
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "in_doubt")]), 1.0);
}

#[test]
fn p06_keep_prefers_loss_to_duplicates() {
    let config = "[[window]]\nname = \"w\"\nin_doubt = \"keep\"\n";
    let Some(site) = Site::with_cut("p06-keep", config) else { return };
    let mut direct = upstream_vanishes(&site, false);
    assert_eq!(direct.drain(1, "q"), ["settled"]);
    assert_eq!(site.metrics().sum("in_doubt_total", &[("outcome", "kept")]), 1.0);
}

#[test]
fn p06_a_drain_settles_what_is_in_flight_then_closes_with_320() {
    let Some(mut site) = Site::with_cut("p06-drain", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut client = confirming(&site);
    site.prove();
    site.cut().stall_down();
    client.publish(1, &Publish::to("q", "a"));
    until_held(&mut direct, "q", 1);
    site.relay().sigterm();
    // It takes no more clients; this one is not closed, for its publish is not answered.
    wait::until("the port is closed", wait::PATIENCE, || {
        std::net::TcpStream::connect(site.addr()).is_err().then_some(())
    });
    site.cut().resume();
    acked(&[client.next(1)]);
    match client.next(1) {
        Told::ConnectionClosed { code: 320, text } => assert!(text.contains("shutting down"), "{text}"),
        other => panic!("a close with a reason is expected: {other:?}"),
    }
    assert_eq!(client.frame().unwrap(), None);
    assert!(site.relay_mut().ended().success(), "{}", site.relay().log());
    assert_eq!(direct.drain(1, "q"), ["a"]);
}

#[test]
fn p06_a_graceful_close_waits_for_the_outcome() {
    let Some(site) = Site::with_cut("p06-close", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    // One closes its channel, one its connection; both in one breath with a publish, the second without confirms.
    let (mut closes_channel, mut closes_all, mut after) =
        (confirming(&site), site.client(), confirming(&site));
    closes_all.open_channel(1);
    site.prove();
    site.cut().stall_down();
    let close = channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    closes_channel.publish(1, &Publish::to("q", "a"));
    closes_channel.send(1, &AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    let close = connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    closes_all.publish(1, &Publish::to("q", "b"));
    closes_all.send(0, &AMQPClass::Connection(connection::AMQPMethod::Close(close)));
    until_held(&mut direct, "q", 1);
    site.cut().resume();
    let ok = Told::Method(AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
    // A client that closes has stopped listening for acks; RabbitMQ itself sends one or does not.
    let told = match closes_channel.next(1) {
        Told::Ack { tag: 1, .. } => closes_channel.next(1),
        told => told,
    };
    assert_eq!(told, ok);
    let ok = Told::Method(AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})));
    assert_eq!(closes_all.next(0), ok);

    for id in ["a", "b"] {
        acked(&after.publish_and_settle(1, &Publish::to("q", id)));
    }
    let mut stored = direct.drain(1, "q");
    stored.sort();
    assert_eq!(stored, ["a", "b"], "by two connections, in no order");
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "duplicate")]), 2.0);
}
