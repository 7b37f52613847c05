//! What publishers and others are told of duplicates: `on_duplicate` and `audit`, with a real broker behind.

use super::{acked, held};
use crate::e2e::raw::{Frame, Publish, Raw, Told, Value};
use crate::e2e::site::Site;
use crate::e2e::wait;
use amq_protocol::protocol::{AMQPClass, exchange, tx};

fn site(vhost: &str, rules: &str) -> Option<Site> {
    Site::of_relay(vhost, &format!("[[window]]\nname = \"orders\"\n{rules}\n"))
}

fn told(site: &Site, how: &str) -> f64 {
    site.metrics().sum("duplicates_told_total", &[("window", "orders"), ("how", how)])
}

/// A body of 300 KB that comes in many pieces: it comes back whole, in frames that the client takes, and then the ack comes.
#[test]
fn p19_a_duplicate_comes_back_as_it_was_sent_and_is_acked() {
    let Some(site) = site("p19-return", "on_duplicate = \"return\"") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let publish = Publish { body: &body, persistent: true, ..Publish::to("q", "a") };
    assert_eq!(acked(&client.publish_and_settle(1, &publish)), 1);
    for size in [131_000, 4_000] {
        client.write(&publish.method(1)).unwrap();
        client.write(&publish.header(1)).unwrap();
        for part in body.chunks(size) {
            client.write(&Frame { kind: 3, channel: 1, payload: part.to_vec() }.encode()).unwrap();
        }
        let Told::Returned { code, message } = client.next(1) else { panic!("a return is expected") };
        assert_eq!((code, &*message.exchange, &*message.key, message.id()), (319, "", "q", Some(&b"a"[..])));
        assert!(message.body == body && message.property(12).is_some());
        assert!(matches!(client.next(1), Told::Ack { multiple: false, .. }));
    }
    assert_eq!((held(&mut at_broker(&site), "q"), told(&site, "return")), (1, 2.0));
}

fn at_broker(site: &Site) -> Raw {
    let mut direct = site.direct();
    direct.open_channel(1);
    direct
}

#[test]
fn p19_without_confirms_and_in_a_transaction_a_return_says_it() {
    let Some(site) = site("p19-tx", "on_duplicate = \"return\"") else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    client.publish(1, &Publish::to("q", "a"));
    site.until_metric("commits_total", &[], 1.0);
    client.publish(1, &Publish::to("q", "a"));
    assert!(matches!(client.next(1), Told::Returned { code: 319, .. }));
    client.open_channel(2);
    client.tx_select(2).unwrap();
    for id in ["a", "b"] {
        client.publish(2, &Publish::to("q", id));
    }
    client.send(2, &AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {})));
    let said = client.next(2);
    assert!(matches!(said, Told::Returned { code: 319, .. }), "before commit-ok: {said:?}");
    assert!(matches!(client.next(2), Told::Method(_)), "commit-ok");
    assert_eq!((held(&mut at_broker(&site), "q"), told(&site, "return")), (2, 2.0));
}

/// The broker's own returns and those of duplicates do not get mixed up.
#[test]
fn p19_what_no_queue_takes_is_returned_by_the_broker_and_is_no_duplicate() {
    let Some(site) = site("p19-both", "on_duplicate = \"return\"") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for _ in 0..2 {
        let said = client.publish_and_settle(1, &Publish::to("nowhere", "a").mandatory());
        assert!(matches!(said[..], [Told::Returned { code: 312, .. }, Told::Ack { .. }]), "{said:?}");
    }
    client.publish_and_settle(1, &Publish::to("q", "a"));
    let said = client.publish_and_settle(1, &Publish::to("q", "a").mandatory());
    assert!(matches!(said[..], [Told::Returned { code: 319, .. }, Told::Ack { .. }]), "{said:?}");
}

#[test]
fn p19_an_audited_window_logs_each_message_that_it_drops() {
    let Some(site) = site("p19-audit", "audit = true\non_duplicate = \"nack\"") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    client.publish_and_settle(1, &Publish::to("q", "a\n{\"forged\": 1}"));
    for _ in 0..2 {
        let said = client.publish_and_settle(1, &Publish::to("q", "a\n{\"forged\": 1}"));
        assert!(matches!(said[..], [Told::Nack { .. }]), "{said:?}");
    }
    let lines = wait::until("two lines", wait::PATIENCE, || {
        let log = site.relay().log();
        let lines: Vec<String> =
            log.lines().filter(|line| line.contains("hapax::audit")).map(str::to_owned).collect();
        (lines.len() == 2).then_some(lines)
    });
    for (line, count) in lines.iter().zip(1..) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for (key, value) in [
            ("window", "orders"),
            ("vhost", "p19-audit"),
            ("exchange", ""),
            ("routing_key", "q"),
            ("id", "a\n{\"forged\": 1}"),
            ("user", "guest"),
            ("outcome", "dropped"),
        ] {
            assert_eq!(line[key], value, "{line}");
        }
        assert_eq!((&line["count"], &line["left_out"]), (&count.into(), &0.into()), "{line}");
        assert!(line["first_seen_seconds"].as_f64().is_some_and(|age| age < 60.0), "{line}");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    }
    assert_eq!(site.metrics().sum("audit_lines_total", &[]), 2.0);
}

/// A relay whose window drops to the exchange `copies`, with a user of Hapax's own that may write there only. The queue `copies` gets
/// all of them.
fn copying(vhost: &str, more: &str) -> Option<(Site, Raw)> {
    let rabbit = crate::e2e::site::shared_rabbit();
    rabbit.add_vhost(vhost).unwrap();
    let uri = format!("amqp://{vhost}:{vhost}@{}/{vhost}", rabbit.addr());
    let config = format!(
        "[duplicates]\nuri = \"{uri}\"\nmessages = 50\n[[window]]\nname = \"orders\"\nduplicates_to = \"copies\"\n{more}\n"
    );
    let site = Site::of_relay(vhost, &config)?;
    site.add_user(vhost, "^copies$");
    let mut direct = at_broker(&site);
    declare_copies(&mut direct);
    Some((site, direct))
}

fn declare_copies(direct: &mut Raw) {
    let declare = exchange::Declare {
        exchange: "copies".into(),
        kind: "fanout".into(),
        ..exchange::Declare::default()
    };
    direct.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
    direct.declare(1, "copied", &[]);
    direct.bind(1, "copied", ("copies", ""), &[]);
}

fn copied(site: &Site, direct: &mut Raw, count: usize) -> Vec<crate::e2e::raw::Message> {
    site.until_metric("duplicates_copied_total", &[], count as f64);
    (0..count).map(|_| direct.get(1, "copied").expect("a copy")).collect()
}

#[test]
fn p19_a_copy_of_what_was_dropped_goes_to_another_exchange() {
    let Some((site, mut direct)) = copying("p19-copies", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let headers = [("mine", Value::Text("v"))];
    let publish =
        Publish { headers: &headers, persistent: true, reply_to: Some("r"), ..Publish::to("q", "a") };
    for _ in 0..3 {
        acked(&client.publish_and_settle(1, &publish));
    }
    for message in copied(&site, &mut direct, 2) {
        assert_eq!((&*message.exchange, &*message.key, &message.body[..]), ("copies", "q", &b"a"[..]));
        assert_eq!((message.id(), message.property(9)), (Some(&b"a"[..]), Some(&b"r"[..])));
        assert!(message.property(12).is_some(), "its delivery mode");
        let headers = String::from_utf8_lossy(message.property(13).unwrap()).into_owned();
        for name in ["mine", "window", "vhost", "exchange", "user", "first-seen", "count"] {
            assert!(headers.contains(name), "{name}: {headers:?}");
        }
        assert!(headers.contains("orders") && headers.contains("p19-copies") && headers.contains("guest"));
    }
    assert_eq!(held(&mut direct, "q"), 1);
}

/// Copies come back through Hapax, where the same window judges them: they go round once.
#[test]
fn p19_copies_of_copies_are_not_made() {
    let Some((site, mut direct)) = copying("p19-loop", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for _ in 0..2 {
        acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
    }
    let copy = copied(&site, &mut direct, 1).remove(0);
    let headers = [("x-hapax-window", Value::Text("orders"))];
    let again = Publish { headers: &headers, body: &copy.body, ..Publish::to("q", "a") };
    acked(&client.publish_and_settle(1, &again));
    let to_copies = Publish { exchange: "copies", ..Publish::to("q", "b") };
    for _ in 0..3 {
        acked(&client.publish_and_settle(1, &to_copies));
    }
    site.until_metric("duplicates_uncopied_total", &[("reason", "copy")], 3.0);
    assert_eq!(site.metrics().sum("duplicates_copied_total", &[]), 1.0);
}

/// The exchange is not there, so the broker closes the channel each time. Publishers notice nothing. When it is there, copies go there.
#[test]
fn p19_copies_that_the_broker_does_not_take_slow_nobody() {
    let Some((site, mut direct)) = copying("p19-refused", "") else { return };
    let delete = exchange::Delete { exchange: "copies".into(), ..exchange::Delete::default() };
    direct.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete))).unwrap();
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
    let begin = std::time::Instant::now();
    for _ in 0..500 {
        acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
    }
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
    let uncopied = |site: &Site| site.metrics().sum("duplicates_uncopied_total", &[]);
    let waiting = |site: &Site| site.metrics().sum("duplicates_copies_waiting", &[]);
    assert!(waiting(&site) <= 50.0);
    wait::until("all are given up", wait::PATIENCE, || (uncopied(&site) >= 500.0).then_some(()));
    site.relay().until_says("duplicates_to");
    declare_copies(&mut direct);
    wait::until("a copy comes", wait::PATIENCE, || {
        acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
        direct.get(1, "copied")
    });
}

/// A request of a client that waits for its reply by `amq.rabbitmq.reply-to`: nobody but this client's channel can wait there, so the broker
/// would close the channel of the copies. And a header of a frame that is too large for their connection.
#[test]
fn p19_a_copy_that_the_broker_would_refuse_takes_no_other_copy_with_it() {
    let Some((site, mut direct)) = copying("p19-poison", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let large = "x".repeat(100_000);
    let headers = [("large", Value::Text(&large))];
    for id in ["plain", "rpc", "large"] {
        acked(&client.publish_and_settle(1, &Publish::to("q", id)));
    }
    for _ in 0..5 {
        acked(&client.publish_and_settle(1, &Publish::to("q", "plain")));
        let rpc = Publish { reply_to: Some("amq.rabbitmq.reply-to"), ..Publish::to("q", "rpc") };
        acked(&client.publish_and_settle(1, &rpc));
        acked(&client.publish_and_settle(1, &Publish { headers: &headers, ..Publish::to("q", "large") }));
    }
    site.until_metric("duplicates_uncopied_total", &[("reason", "unreadable")], 5.0);
    let mut ids: Vec<Vec<u8>> =
        copied(&site, &mut direct, 10).into_iter().map(|message| message.body).collect();
    ids.sort();
    assert_eq!(ids, [vec![b"plain".to_vec(); 5], vec![b"rpc".to_vec(); 5]].concat());
    assert_eq!(site.metrics().sum("duplicates_uncopied_total", &[]), 5.0);
}

/// The exchange is there, and no queue behind it: the broker acks what it has thrown away.
#[test]
fn p19_a_copy_that_no_queue_takes_counts_as_none() {
    let Some((site, mut direct)) = copying("p19-unrouted", "") else { return };
    let unbind = amq_protocol::protocol::queue::Unbind {
        queue: "copied".into(),
        exchange: "copies".into(),
        ..Default::default()
    };
    direct.call(1, &AMQPClass::Queue(amq_protocol::protocol::queue::AMQPMethod::Unbind(unbind))).unwrap();
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for _ in 0..3 {
        acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
    }
    site.until_metric("duplicates_uncopied_total", &[("reason", "unroutable")], 2.0);
    assert_eq!(site.metrics().sum("duplicates_copied_total", &[]), 0.0);
    direct.bind(1, "copied", ("copies", ""), &[]);
    acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
    assert_eq!(copied(&site, &mut direct, 1).len(), 1, "the next one comes");
}
