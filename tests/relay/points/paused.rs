//! The relay stands still for longer than it tolerates a silent peer. Afterwards it reads before it judges.
//!
//! These tests let a fixed time pass, as no other does: the length of the pause is what they are about, and nothing can be
//! waited for in a process that is stopped.

use super::held;
use crate::e2e::raw::{Login, Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait;
use amq_protocol::protocol::{AMQPClass, queue};
use std::time::Duration;

/// Two intervals of it are the bound.
const HEARTBEAT: u16 = 2;
/// Above the bound.
const PAUSE: Duration = Duration::from_secs(5);
const BEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xce];

fn beating(site: &Site) -> Raw {
    let login = Login { heartbeat: HEARTBEAT, ..Login::guest(&site.vhost) };
    let mut client = Raw::login(site.addr(), &login).unwrap();
    client.confirming(1);
    client
}

fn ready(direct: &mut Raw) -> u32 {
    let declare = queue::Declare { queue: "q".into(), passive: true, ..queue::Declare::default() };
    match direct.call(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare))) {
        Ok(AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok))) => ok.message_count,
        other => panic!("{other:?}"),
    }
}

fn publish(client: &mut Raw, count: u64) {
    let ids: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let max = client.frame_max();
    let octets: Vec<u8> = ids.iter().flat_map(|id| Publish::to("q", id).encode(1, max)).collect();
    client.write(&octets).unwrap();
}

fn until_stored(direct: &mut Raw, count: u32) {
    wait::until("the broker has stored them", wait::PATIENCE, || (ready(direct) == count).then_some(()));
}

#[test]
fn p11_answers_that_lie_in_the_socket_come_before_the_judgement() {
    let Some(site) = Site::with_cut("p11-paused-answers", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let mut client = beating(&site);
    site.prove();
    site.cut().stall_down();
    publish(&mut client, 12);
    until_stored(&mut direct, 12);
    site.relay().stand_still();
    site.cut().resume();
    // The client is alive all the while: its heartbeats lie in the relay's socket.
    client.write(&BEAT).unwrap();
    std::thread::sleep(PAUSE);
    client.write(&BEAT).unwrap();
    site.relay().carry_on();
    let mut acked = 0;
    while acked < 12 {
        match client.next(1) {
            Told::Ack { tag, multiple } => {
                assert!(multiple || tag == acked + 1, "{tag} after {acked}");
                acked = tag;
            }
            other => panic!("{acked} of 12 are acked, then {other:?}"),
        }
    }
    assert_eq!(site.metrics().sum("forgotten_total", &[("cause", "in_doubt")]), 0.0);
    assert_eq!(held(&mut direct, "q"), 12);
}

#[test]
fn p11_no_waiter_is_stored_by_an_upstream_that_is_dead() {
    let Some(site) = Site::with_cut("p11-paused-waiters", "") else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    let (mut first, mut waiter) = (beating(&site), beating(&site));
    site.prove();
    site.cut().stall_down();
    publish(&mut first, 50);
    until_stored(&mut direct, 50);
    publish(&mut waiter, 50);
    site.until_metric("publishes_total", &[("verdict", "in_flight")], 50.0);
    site.relay().stand_still();
    std::thread::sleep(PAUSE);
    for client in [&mut first, &mut waiter] {
        client.write(&BEAT).unwrap();
    }
    site.relay().carry_on();
    // Nothing has come from the broker: both are given up, and neither publishes anything more.
    for client in [&mut first, &mut waiter] {
        let Told::ConnectionClosed { code, .. } = client.next(1) else { panic!("not closed") };
        assert_eq!(code, 320);
    }
    site.until_metric("connections", &[], 0.0);
    assert_eq!(held(&mut direct, "q"), 50, "50 ids are stored, none twice");
}
