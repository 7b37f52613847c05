//! Clients that never stop publishing: as many as the relay has worker threads, and one more.

use crate::e2e::raw::Publish;
use crate::e2e::site::Site;
use crate::e2e::wait::now;
use amq_protocol::protocol::{AMQPClass, basic};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// How long they publish.
const LASTS: Duration = Duration::from_secs(2);
/// A neighbour may wait this long. It was 10 s and more while a connection with something to read did not give way.
const PATIENCE: Duration = Duration::from_secs(1);

#[test]
fn clients_that_never_stop_publishing_keep_no_neighbour_waiting() {
    let Some(site) = Site::of_relay("flood", "") else { return };
    let mut quiet = site.client();
    quiet.open_channel(1);
    quiet.declare(1, "q", &[]);
    let stop = AtomicBool::new(false);
    let floods = thread::available_parallelism().map_or(2, usize::from) + 1;
    thread::scope(|scope| {
        for _ in 0..floods {
            scope.spawn(|| {
                let mut client = site.client();
                client.open_channel(1);
                let read = Publish::to("q", "same").encode(1, client.frame_max()).repeat(400);
                while !stop.load(SeqCst) {
                    client.write(&read).unwrap();
                }
            });
        }
        let (begun, mut slowest, mut answers) = (now(), Duration::ZERO, 0);
        while now() < begun + LASTS {
            let asked = now();
            let qos = basic::Qos { prefetch_count: 1, global: false };
            quiet.call(1, &AMQPClass::Basic(basic::AMQPMethod::Qos(qos))).unwrap();
            slowest = slowest.max(asked.elapsed());
            answers += 1;
        }
        stop.store(true, SeqCst);
        println!("{floods} floods: {answers} answers, the slowest after {slowest:.1?}");
        assert!(slowest < PATIENCE, "an answer took {slowest:?}");
    });
}
