//! Measures the cost of `verify_routing` for a real broker: classic and quorum queues, with it and without it, in pairs, one after the other.
//!
//! ```text
//! cargo test --release --test relay -- --ignored --nocapture the_cost_of_verified_routing
//! ```
//!
//! `HAPAX_PAIRS` (3) and `HAPAX_SECONDS` (10) change how long it takes. docs/performance.md has the figures.

use crate::e2e::relay::Relay;
use crate::e2e::site::Site;
use amq_protocol::types::AMQPValue;
use std::process::Command;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Returns how many messages a second the relay passes on to a queue of this vhost.
fn throughput(relay: &Relay, vhost: &str, queue: &str, seconds: u32) -> f64 {
    let url = format!("amqp://guest:guest@{}/{vhost}", relay.addr());
    let mut bench = Command::new(env!("CARGO_BIN_EXE_hapax"));
    bench.args(["bench", "--json", "--url", &url, "--routing-key", queue, "--duration"]);
    let output = bench.arg(format!("{seconds}s")).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    answer["messages_per_second"].as_f64().unwrap()
}

#[test]
#[ignore = "it measures, for two minutes"]
fn the_cost_of_verified_routing() {
    const VHOST: &str = "routing-cost";
    let Some(site) = Site::of_relay(VHOST, "") else { return };
    let window =
        |verify| format!("[[window]]\nname = \"w\"\ncapacity = 1000000\nverify_routing = {verify}\n");
    let [verified, unverified] =
        [true, false].map(|verify| Relay::start(site.rabbit.addr(), &window(verify)));
    let mut direct = site.direct();
    direct.open_channel(1);
    let (pairs, seconds) = (number("HAPAX_PAIRS", 3), number("HAPAX_SECONDS", 10));
    for kind in ["classic", "quorum"] {
        let arguments = [
            ("x-queue-type", AMQPValue::LongString(kind.into())),
            ("x-max-length", AMQPValue::LongInt(100_000)),
        ];
        direct.declare(1, kind, &arguments);
        throughput(&verified, VHOST, kind, 1);
        let mut ratios = Vec::new();
        for pair in 0..pairs {
            // In turns, so that neither is always the first.
            let run = |relay| throughput(relay, VHOST, kind, seconds);
            let (with, without) = if pair % 2 == 0 {
                let with = run(&verified);
                (with, run(&unverified))
            } else {
                let without = run(&unverified);
                (run(&verified), without)
            };
            println!("{kind}: {with:.0} msg/s verified, {without:.0} not, ratio {:.3}", with / without);
            ratios.push(with / without);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{kind}: ratio {:.3} ({:.3}..{:.3})",
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
}
