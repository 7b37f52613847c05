//! A window whose capacity is divided: one publisher draws a new id for each retry, and pushes out nobody else's ids.

use crate::e2e::raw::{Login, Publish, Raw};
use crate::e2e::site::Site;

const VHOST: &str = "tenants";
const QUIET: usize = 9;
const EACH: usize = 20;

fn as_user(site: &Site, user: &str) -> Raw {
    let mut client = Raw::login(site.addr(), &Login::new(VHOST, user, user)).unwrap();
    client.confirming(1);
    client
}

/// Publishes as fast as the broker takes it, and waits for all acks in the end.
fn publish_all(client: &mut Raw, ids: impl Iterator<Item = String>) {
    for id in ids {
        super::acked(&client.publish_and_settle(1, &Publish::to("q", &id)));
    }
}

#[test]
fn one_flood_and_nine_quiet_users_and_the_nine_lose_nothing() {
    let config = "[[window]]\nname = \"shared\"\ncapacity = 400\nquota = \"user\"\n";
    let Some(site) = Site::of_relay(VHOST, config) else { return };
    let mut owner = site.client();
    owner.open_channel(1);
    owner.declare(1, "q", &[]);
    let users: Vec<String> = (0..QUIET).map(|n| format!("quiet-{n}")).collect();
    users.iter().chain([&"flood".to_owned()]).for_each(|user| site.add_user(user, ".*"));
    let id = |user: &str, n: usize| format!("{user}-{n}");
    for user in &users {
        publish_all(&mut as_user(&site, user), (0..EACH).map(|n| id(user, n)));
    }
    publish_all(&mut as_user(&site, "flood"), (0..2000).map(|n| id("flood", n)));
    // Everybody sends everything again: nothing of the nine is stored twice.
    let before = site.metrics().sum("publishes_total", &[("verdict", "duplicate")]);
    for user in &users {
        publish_all(&mut as_user(&site, user), (0..EACH).map(|n| id(user, n)));
    }
    let metrics = site.metrics();
    let duplicates = metrics.sum("publishes_total", &[("verdict", "duplicate")]) - before;
    assert_eq!(duplicates, (QUIET * EACH) as f64);
    assert_eq!(metrics.sum("window_tenants", &[]), (QUIET + 1) as f64);
    assert_eq!(metrics.sum("window_largest_tenant_entries", &[]), (400 - QUIET * EACH) as f64);
    let tenants = site.relay().api("GET", "/api/v1/windows/shared/tenants", "");
    let first = &tenants["tenants"][0];
    assert_eq!(
        (&first["name"], &first["entries"]),
        (&"flood".into(), &(400 - QUIET * EACH).into()),
        "{tenants}"
    );
    assert_eq!(tenants["share"], 40, "{tenants}");
    assert!(tenants["tenants"].as_array().unwrap()[1..].iter().all(|one| one["evicted"] == 0), "{tenants}");
}
