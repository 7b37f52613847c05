//! A user that publishes more than `limits.publish_rate` is not read from until the rate has paid for it. Nobody else notices.

use super::acked;
use crate::e2e::raw::{Login, Publish, Raw};
use crate::e2e::site::Site;
use std::thread;
use std::time::{Duration, Instant};

const VHOST: &str = "rates";
const BURST: usize = 100;
/// Sent by each of two connections of one user: four seconds' worth in all, beyond the burst.
const EACH: usize = 250;

#[test]
fn a_user_is_held_to_its_rate_on_all_of_its_connections_and_nobody_else_is() {
    let Some(site) = Site::of_relay(VHOST, "[limits]\npublish_rate = 100\npublish_burst = 100\n") else {
        return;
    };
    let mut owner = site.client();
    owner.confirming(1);
    owner.declare(1, "q", &[]);
    site.add_user("busy", ".*");
    let connect = || {
        let mut client = Raw::login(site.addr(), &Login::new(VHOST, "busy", "busy")).unwrap();
        client.confirming(1);
        client
    };
    let begin = Instant::now();
    let pour = |name: usize| {
        let mut client = connect();
        move || {
            for n in 0..EACH {
                acked(&client.publish_and_settle(1, &Publish::to("q", &format!("busy-{name}-{n}"))));
            }
        }
    };
    thread::scope(|scope| {
        let both = [1, 2].map(|name| scope.spawn(pour(name)));
        crate::e2e::wait::until("the user is held", crate::e2e::wait::PATIENCE, || {
            (site.metrics().sum("publish_rate_holds_total", &[]) > 0.0).then_some(())
        });
        let asked = Instant::now();
        for n in 0..20 {
            acked(&owner.publish_and_settle(1, &Publish::to("q", &format!("owner-{n}"))));
        }
        assert!(asked.elapsed() < Duration::from_secs(2), "another user waits: {:?}", asked.elapsed());
        both.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let least = Duration::from_millis((2 * EACH - BURST) as u64 * 1000 / 100);
    assert!(begin.elapsed() >= least, "{:?} is less than {least:?}", begin.elapsed());
}
