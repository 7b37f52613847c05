//! One client, or one tenant, that brings very much at once.

use super::stage::{Settled, Stage, Who, ids, publish_all};
use crate::e2e::raw::{Publish, Raw, Told};
use std::time::{Duration, Instant};

/// Ids of a transaction, all of which others repeat.
const MANY: usize = 20_000;
/// The work for them was the square of their number: minutes, without optimization. It is well below a second now.
const SOON: Duration = Duration::from_secs(5);

/// Transactions whose ids wait for those of another one: while the relay has to do with them, others are served.
#[test]
fn n08_transactions_that_repeat_each_others_ids_stop_nobody() {
    let Some(mut stage) = Stage::of_relay("n08-tx", "") else { return };
    let all = ids("many", MANY);
    let octets: Vec<u8> = all.iter().flat_map(|id| Publish::to("q", id).encode(1, 4096)).collect();
    let mut honest = stage.confirming(Who::All);
    let mut is_acked = |id: &str| {
        let told = honest.publish_and_settle(1, &Publish::to("q", id));
        assert!(matches!(told[..], [Told::Ack { multiple: false, .. }]), "{told:?}");
    };
    is_acked("first");
    // More of them than the relay has threads.
    let mut crowd: Vec<_> = (0..4)
        .map(|_| {
            let mut client = stage.client(Who::All);
            client.open_channel(1);
            client.tx_select(1).unwrap();
            client
        })
        .collect();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        crowd.iter_mut().for_each(|client| drop(scope.spawn(|| client.write(&octets).unwrap())));
        for n in 0..20 {
            let asked = Instant::now();
            is_acked(&format!("honest {n}"));
            assert!(asked.elapsed() < SOON, "{:?} for message {n}", asked.elapsed());
        }
    });
    println!("20 messages of the honest client: {:?}", begin.elapsed());
    drop(crowd);
    assert_eq!(stage.held("q"), 21, "nothing of the transactions, which were not committed");
}

/// A window for each tenant: one that floods its own pushes nobody else's ids out.
#[test]
fn n10_a_flood_in_one_vhost_pushes_out_no_ids_of_another() {
    let config = "[[window]]\nname = \"flood\"\nvhost = \"n10-flood\"\ncapacity = 500\n\
                  [[window]]\nname = \"other\"\nvhost = \"n10-other\"\ncapacity = 500\n";
    let Some(mut other) = Stage::of_relay("n10-other", config) else { return };
    let kept = ids("kept", 300);
    assert_eq!(publish_all(&mut other.client(Who::All), 1, &kept), Settled::acked(300));
    other.site.rabbit.add_vhost("n10-flood").unwrap();
    let mut flood = Raw::connect(other.site.addr(), "n10-flood");
    assert_eq!(publish_all(&mut flood, 1, &ids("flood", 5_000)), Settled::acked(5_000));
    assert_eq!(publish_all(&mut other.client(Who::All), 1, &kept), Settled::acked(300));
    assert_eq!(other.stored(), kept, "none of them twice");
}
