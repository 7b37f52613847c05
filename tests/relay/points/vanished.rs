//! Point 11: a host that vanishes says no goodbye. Without heartbeats, the kernel is asked to notice.
//!
//! The test runs itself again in a network of its own, where nothing but loopback is, and takes the route to the broker away.
//! That needs root.

use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::site::without_relay;
use crate::e2e::wait;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

const INSIDE: &str = "HAPAX_TEST_NETWORK";
const NAME: &str = "points::vanished::p11_the_brokers_host_vanishes_amid_a_publish";

#[test]
fn p11_the_brokers_host_vanishes_amid_a_publish() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if without_relay() {
        println!("passed over: it is about what only the relay does");
        return;
    }
    if !Command::new("unshare").args(["--net", "true"]).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED {NAME}: a network of its own needs root (unshare --net)");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("--net")
        .arg(own)
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn inside() {
    ip("link set lo up");
    let broker = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 5672));
    let mut sink = Command::new(env!("CARGO_BIN_EXE_hapax"))
        .args(["bench", "sink", "--listen", &broker.to_string()])
        .spawn()
        .unwrap();
    wait::until("the broker listens", wait::PATIENCE, || Raw::dial(broker).ok().map(drop));
    let relay = Relay::start(broker, "[timeouts]\ntcp_user = \"2s\"\n");
    let mut client = Raw::connect(relay.addr(), "/");
    client.confirming(1);
    let stored = client.publish_and_settle(1, &Publish::to("q", "before"));
    assert!(matches!(stored[..], [Told::Ack { .. }]), "{stored:?}");
    ip("route add blackhole 127.0.0.2/32 table local");
    let begin = Instant::now();
    client.publish(1, &Publish::to("q", "after"));
    let told = client.next(1);
    assert!(matches!(told, Told::ConnectionClosed { code: 320, .. }), "{told:?}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(relay.metrics().sum("forgotten_total", &[("cause", "in_doubt")]), 1.0);
    sink.kill().unwrap();
    sink.wait().unwrap();
}
