//! One message is never confirmed, because its queue is stuck. All others go on.

use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::site::Site;
use std::collections::HashSet;
use std::io::Write;
use std::thread;

const MIB: u64 = 1 << 20;
/// More than `limits.max_unresolved`.
const COUNT: usize = 200_000;

/// Reads until all these tags are acked, each once.
fn read_acks(client: &mut Raw, mut open: HashSet<u64>) {
    while !open.is_empty() {
        match client.next(1) {
            Told::Ack { tag, multiple: false } => assert!(open.remove(&tag), "{tag} is acked twice"),
            other => panic!("an ack for one message is expected: {other:?}"),
        }
    }
}

#[test]
fn p17_two_hundred_thousand_pass_behind_one_that_is_never_confirmed() {
    let Some(site) = Site::of_relay("p17-stuck", "") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "stuck", &[]);
    client.declare(1, "good", &[]);
    for queue in ["stuck", "good"] {
        super::acked(&client.publish_and_settle(1, &Publish::to(queue, "first")));
    }
    let before = site.relay().memory();
    site.suspend("stuck");
    client.publish(1, &Publish::to("stuck", "never"));
    let max = client.frame_max();
    let mut socket = client.socket();
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in (0..COUNT).step_by(1000) {
                let publish =
                    |n: usize| Publish { body: b"", ..Publish::to("good", &n.to_string()) }.encode(1, max);
                let octets: Vec<u8> = (round..round + 1000).flat_map(publish).collect();
                socket.write_all(&octets).unwrap();
            }
        });
        read_acks(&mut client, (4..4 + COUNT as u64).collect());
    });
    let metrics = site.metrics();
    assert_eq!(metrics.sum("window_in_flight", &[]), 1.0);
    // The window remembers 200,000 ids, with 43 bytes for each.
    let grown = site.relay().memory().saturating_sub(before) / MIB;
    println!("{grown} MiB more are resident");
    assert!(grown < 48, "{grown} MiB");
    site.resume("stuck");
    assert_eq!(client.next(1), Told::Ack { tag: 3, multiple: false });
}
