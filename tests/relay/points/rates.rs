//! A user or vhost that publishes more than its rate (`limits.publish_rate_per_user`, `limits.publish_rate_per_vhost`) is not read from
//! until the rate has paid for the next message. It still gets what is sent to it, and nobody else notices.

use super::acked;
use crate::e2e::raw::{Login, Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait::{PATIENCE, until};
use amq_protocol::protocol::{AMQPClass, basic};
use std::thread;
use std::time::{Duration, Instant};

const BURST: usize = 100;
/// Sent by each of two connections of one user: four seconds' worth in all, beyond the burst.
const EACH: usize = 250;

fn held(site: &Site) -> f64 {
    site.metrics().sum("publish_rate_held_connections", &[])
}

#[test]
fn a_user_is_held_to_its_rate_on_all_of_its_connections_and_nobody_else_is() {
    let config = "[limits]\npublish_rate_per_user = 100\npublish_burst = 100\n";
    let Some(site) = Site::of_relay("rates", config) else { return };
    let mut owner = site.client();
    owner.confirming(1);
    owner.declare(1, "q", &[]);
    site.add_user("busy", ".*");
    let connect = || {
        let mut client = Raw::login(site.addr(), &Login::new("rates", "busy", "busy")).unwrap();
        client.confirming(1);
        client
    };
    let begin = Instant::now();
    let one_by_one = |name: usize| {
        let mut client = connect();
        move || {
            for n in 0..EACH {
                acked(&client.publish_and_settle(1, &Publish::to("q", &format!("busy-{name}-{n}"))));
            }
        }
    };
    thread::scope(|scope| {
        let both = [1, 2].map(|name| scope.spawn(one_by_one(name)));
        until("the user is held", PATIENCE, || (held(&site) > 0.0).then_some(()));
        let asked = Instant::now();
        // (It has a burst of its own.)
        for n in 0..20 {
            acked(&owner.publish_and_settle(1, &Publish::to("q", &format!("owner-{n}"))));
        }
        assert!(asked.elapsed() < Duration::from_secs(2), "another user waits: {:?}", asked.elapsed());
        both.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let least = Duration::from_millis((2 * EACH - BURST) as u64 * 1000 / 100);
    assert!(begin.elapsed() >= least, "{:?} is less than {least:?}", begin.elapsed());
    until("nobody is held", PATIENCE, || (held(&site) == 0.0).then_some(()));
    assert!(site.metrics().sum("publish_rate_holds_total", &[]) > 0.0);
    until("the log says it", PATIENCE, || site.relay().log().contains("publish_rate_per_user").then_some(()));
}

/// A client of a vhost whose rate is used up: with one large message, a transaction, a consumer and many messages in one write.
#[test]
fn who_is_held_back_gets_its_deliveries_and_acks_and_loses_nothing() {
    let config = "[limits]\npublish_rate_per_vhost = 20\npublish_burst = 20\n";
    let Some(site) = Site::of_relay("rates-vhost", config) else { return };
    site.add_user("other", ".*");
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    client.declare(1, "work", &[]);
    client.open_channel(2);
    client.tx_select(2).unwrap();
    client.open_channel(3);
    let consume = basic::Consume { queue: "work".into(), no_ack: true, ..basic::Consume::default() };
    client.call(3, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    let mut direct = site.direct();
    direct.open_channel(1);
    // A large message counts as one, and so does each of a transaction.
    let body = vec![b'x'; 1 << 20];
    acked(&client.publish_and_settle(1, &Publish { body: &body, ..Publish::to("q", "large") }));
    for n in 0..9 {
        client.publish(2, &Publish::to("q", &format!("tx-{n}")));
    }
    client.tx_commit(2).unwrap();
    assert_eq!(held(&site), 0.0, "ten of twenty");
    let many: Vec<u8> =
        (0..70).flat_map(|n| Publish::to("q", &format!("many-{n}")).encode(1, 131_072)).collect();
    let begin = Instant::now();
    client.write(&many).unwrap();
    until("it is held", PATIENCE, || (held(&site) > 0.0).then_some(()));
    // Another user of the vhost waits in turn, and one of another vhost does not.
    let mut other = Raw::login(site.addr(), &Login::new("rates-vhost", "other", "other")).unwrap();
    other.confirming(1);
    acked(&other.publish_and_settle(1, &Publish::to("q", "of another")));
    assert!(begin.elapsed() < Duration::from_secs(2), "its turn comes: {:?}", begin.elapsed());
    for n in 0..5 {
        direct.publish(1, &Publish::to("work", &format!("work-{n}")));
    }
    let (mut acks, mut deliveries, mut delivered_at) = (0, 0, begin);
    while acks < 70 || deliveries < 5 {
        match client.receive().unwrap().expect("the connection lives") {
            (1, Told::Ack { tag, .. }) => acks = tag - 1,
            (3, Told::Delivered { .. }) => {
                deliveries += 1;
                delivered_at = Instant::now();
            }
            other => panic!("{other:?}"),
        }
    }
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(2), "60 beyond the burst, at 20 a second: {waited:?}");
    assert!(delivered_at - begin < waited / 2, "deliveries do not wait: {:?}", delivered_at - begin);
    assert_eq!(direct.drain(1, "q").len(), 1 + 9 + 70 + 1);
}

/// It publishes without confirms, and leaves: what it had sent is published, and it pays for that when it comes back.
#[test]
fn who_leaves_while_it_is_held_back_loses_nothing_and_wins_nothing() {
    let config = "[limits]\npublish_rate_per_user = 10\npublish_burst = 10\n[timeouts]\nlinger = \"2s\"\n";
    let Some(site) = Site::of_relay("rates-leave", config) else { return };
    site.add_user("hasty", ".*");
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let login = Login::new("rates-leave", "hasty", "hasty");
    let mut hasty = Raw::login(site.addr(), &login).unwrap();
    hasty.open_channel(1);
    let begin = Instant::now();
    let all: Vec<u8> = (0..60).flat_map(|n| Publish::to("q", &n.to_string()).encode(1, 131_072)).collect();
    hasty.write(&all).unwrap();
    drop(hasty);
    let mut stored = 0;
    until("all are stored", PATIENCE, || {
        stored += direct.drain(1, "q").len();
        (stored == 60).then_some(())
    });
    let mut again = Raw::login(site.addr(), &login).unwrap();
    again.confirming(1);
    acked(&again.publish_and_settle(1, &Publish::to("q", "again")));
    assert!(
        begin.elapsed() >= Duration::from_millis(4900),
        "61 at 10 a second, but for the burst: {:?}",
        begin.elapsed()
    );
}

/// A reload sets a rate for connections that are open.
#[test]
fn a_reload_slows_a_flood_down() {
    let Some(site) = Site::of_relay("rates-reload", "[limits]\npublish_rate_per_user = 0\n") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    site.relay().write_config("[limits]\npublish_rate_per_user = 5\npublish_burst = 1\n");
    assert_eq!(site.relay().api("POST", "/api/v1/reload", "")["applied"], true);
    let begin = Instant::now();
    for n in 0..6 {
        acked(&client.publish_and_settle(1, &Publish::to("q", &n.to_string())));
    }
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
}
