//! A capacity that is divided among tenants: in a full window the tenant with the most ids makes room.

use super::{Asker, LIMITS, assert_adds_up, base};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    BodyDigest, Inspect, Key, KeyMaker, Limits, LocalWindow, Memo, Quota, Rules, Tenant, Verdict,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(60);

fn window(capacity: usize) -> (Arc<LocalWindow>, Arc<Accounting>) {
    let rules = Rules { quota: Quota::User, ..Rules::named("shared") };
    let accounting = Arc::new(Accounting::new());
    let limits = Limits { capacity, ..LIMITS };
    (LocalWindow::new(rules, limits, EngineKind::Compact, accounting.clone()), accounting)
}

fn tenant(n: usize) -> Tenant {
    let name = format!("user-{n}");
    KeyMaker::new((1, 2)).tenant(Quota::User, b"/", Some(name.as_bytes()), b"")
}

/// Publishes an id of a tenant; true if it was forwarded.
fn publish(asker: &mut Asker, key: u128, whose: Tenant, ttl: Duration, now: Instant) -> bool {
    match asker.ask(key, now) {
        Verdict::Fresh(reservation) => {
            let _ = reservation.commit(now, Memo::new(ttl, BodyDigest::UNKNOWN).of_tenant(whose));
            true
        }
        Verdict::Duplicate(_) => false,
        other => panic!("{key} should be fresh or a duplicate and is {other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// An id of a tenant. Nobody else has it.
    Publish(usize, u128),
    Forget(usize, u128),
    Resize(usize),
    Flush,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        30 => (0..5_usize, 0..60_u128).prop_map(|(tenant, id)| Action::Publish(tenant, id)),
        2 => (0..5_usize, 0..60_u128).prop_map(|(tenant, id)| Action::Forget(tenant, id)),
        1 => (1..40_usize).prop_map(Action::Resize),
        1 => Just(Action::Flush),
    ]
}

proptest! {
    /// Every tenant has as many ids as the model says, whatever the order of the publishes. Where the model knows whose turn it is, it
    /// knows the id, too.
    #[test]
    fn the_tenant_with_the_most_ids_makes_room(actions in prop::collection::vec(action(), 1..400)) {
        let (window, accounting) = window(20);
        let (mut asker, now) = (Asker::new(&window), base());
        let mut held: BTreeMap<usize, Vec<u128>> = BTreeMap::new();
        let mut capacity = 20;
        for action in actions {
            let before = held.clone();
            match action {
                Action::Publish(n, id) => {
                    let key = n as u128 * 1000 + id + 1;
                    let known = held.entry(n).or_default().contains(&key);
                    prop_assert_eq!(publish(&mut asker, key, tenant(n), TTL, now), !known);
                    let own = held.entry(n).or_default();
                    own.retain(|other| *other != key);
                    own.push(key);
                }
                Action::Forget(n, id) => {
                    let key = n as u128 * 1000 + id + 1;
                    window.forget(Key(key), now);
                    held.entry(n).or_default().retain(|other| *other != key);
                }
                Action::Resize(to) => {
                    window.resize(to, now);
                    capacity = to;
                }
                Action::Flush => {
                    window.flush(now);
                    held.clear();
                }
            }
            while held.values().map(Vec::len).sum::<usize>() > capacity {
                // Whoever made room must have had the most, and it must be its oldest id.
                let most = held.values().map(Vec::len).max().unwrap();
                let gone = |ids: &Vec<u128>| ids.len() == most && window.get(Key(ids[0]), now).is_none();
                let whose = held.iter().find(|(_, ids)| gone(ids)).map(|(n, _)| *n);
                prop_assert!(whose.is_some(), "not of the tenant with the most: {before:?} to {held:?}");
                if let Action::Publish(n, _) = action && held[&n].len() == most && most > 1 {
                    prop_assert_eq!(whose, Some(n), "a newcomer makes room for itself if nobody has more");
                }
                held.get_mut(&whose.unwrap()).unwrap().remove(0);
            }
            for key in held.values().flatten() {
                prop_assert!(window.get(Key(*key), now).is_some(), "{key} is lost: {before:?} to {held:?}");
            }
            prop_assert_eq!(window.len(), held.values().map(Vec::len).sum::<usize>());
            let facts = window.tenants();
            for (n, ids) in &held {
                let found = facts.iter().find(|facts| facts.tenant == tenant(*n));
                prop_assert_eq!(found.map_or(0, |facts| facts.entries), ids.len());
            }
            assert_adds_up(&window, &accounting);
        }
    }

    /// With ids that expire, too, at each tenant after a time of its own: a tenant that has never had more than its part loses none
    /// before.
    #[test]
    fn who_keeps_to_its_part_loses_nothing(
        steps in prop::collection::vec((0..4_usize, 0..3_u64), 100..600),
    ) {
        let (window, _) = window(40);
        let (mut asker, mut now) = (Asker::new(&window), base());
        let mut held: BTreeMap<usize, Vec<(u128, Instant)>> = BTreeMap::new();
        for (step, (n, wait)) in steps.into_iter().enumerate() {
            now += Duration::from_secs(wait);
            let (key, ttl) = (step as u128 + 1, Duration::from_secs(7 * (n as u64 + 1)));
            for ids in held.values_mut() {
                ids.retain(|(_, until)| *until > now);
            }
            // Tenant 0 publishes eight times as much, and nobody counts what it has.
            if n > 0 && held.get(&n).is_none_or(|ids| ids.len() < 10) {
                publish(&mut asker, key, tenant(n), ttl, now);
                held.entry(n).or_default().push((key, now + ttl));
            } else {
                for more in 0..8 {
                    publish(&mut asker, key + (more + 1) * 100_000, tenant(0), TTL, now);
                }
            }
            for (key, _) in held.values().flatten() {
                prop_assert!(window.get(Key(*key), now).is_some(), "{key} of a quiet tenant is lost");
            }
        }
    }
}

/// One publisher draws a new id for each retry, as fast as it can. In a large window, which has sixteen shards.
#[test]
fn a_flood_pushes_out_its_own_ids_only() {
    const CAPACITY: usize = 80_000;
    let (window, _) = window(CAPACITY);
    let (mut asker, now) = (Asker::new(&window), base());
    let quiet = 1..10_usize;
    let mut flood = 1_000_000_000_u128;
    let mut ids = Vec::new();
    for n in 0..500_u128 {
        for whose in quiet.clone() {
            let key = whose as u128 * 1_000_000 + n;
            assert!(publish(&mut asker, key, tenant(whose), TTL, now));
            ids.push(key);
        }
        for _ in 0..400 {
            flood += 1;
            assert!(publish(&mut asker, flood, tenant(0), TTL, now));
        }
    }
    assert!(
        ids.iter().all(|key| !publish(&mut asker, *key, tenant(1), TTL, now)),
        "every retry is a duplicate"
    );
    let facts = window.tenants();
    let of = |n| facts.iter().find(|facts| facts.tenant == tenant(n)).unwrap();
    assert!(quiet.clone().all(|n| (of(n).entries, of(n).evicted) == (500, 0)));
    assert!(of(0).entries > CAPACITY - 9 * 500 - CAPACITY / 50, "the rest is the flood's: {:?}", of(0));
    assert!(of(0).evicted > 100_000);
}

/// Who makes names to get more than one part gets as many parts, but no memory without a bound, and who had a part keeps it.
#[test]
fn a_thousand_names_are_as_many_tenants_as_there_is_room_for() {
    let (window, _) = window(2000);
    let (mut asker, now) = (Asker::new(&window), base());
    for key in 1..=5 {
        assert!(publish(&mut asker, key, tenant(0), TTL, now));
    }
    let before = window.bytes();
    for n in 1..=20_000_usize {
        assert!(publish(&mut asker, 1000 + n as u128, tenant(n), TTL, now));
    }
    assert!((1..=5).all(|key| window.get(Key(key), now).is_some()), "the first tenant has five ids of 2,000");
    let facts = window.tenants();
    assert!(facts.len() <= Tenant::MOST + 1, "{}", facts.len());
    assert_eq!(facts.iter().map(|facts| facts.entries).sum::<usize>(), 2000);
    assert!(window.bytes() < before + 200_000);
    // Those whose ids have all gone give their place to newcomers.
    window.flush(now);
    assert!(publish(&mut asker, 1, tenant(30_000), TTL, now));
    let newcomer = window.tenants().into_iter().find(|facts| facts.tenant == tenant(30_000)).unwrap();
    assert_eq!(newcomer.entries, 1);
}

/// A change of the number of shards keeps tenants, and takes from the largest.
#[test]
fn a_resize_takes_from_the_tenant_with_the_most() {
    let (window, accounting) = window(70_000);
    let (mut asker, now) = (Asker::new(&window), base());
    for n in 0..300 {
        assert!(publish(&mut asker, n + 1, tenant(1), TTL, now));
    }
    for n in 0..60_000 {
        assert!(publish(&mut asker, n + 1_000_000, tenant(0), TTL, now));
    }
    for capacity in [30_000, 9_000, 1_000, 50_000, 700] {
        window.resize(capacity, now);
        let all = (0..300).filter(|n| window.get(Key(n + 1), now).is_some()).count();
        assert_eq!(all, 300, "at {capacity}");
        assert!(window.len() <= capacity);
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn tenants_are_told_apart_by_what_the_quota_names() {
    let keys = KeyMaker::new((1, 2));
    let of =
        |quota, vhost: &[u8], user: Option<&[u8]>, exchange: &[u8]| keys.tenant(quota, vhost, user, exchange);
    let user = |vhost, name: &'static [u8]| of(Quota::User, vhost, Some(name), b"e");
    assert_eq!(user(b"a", b"bob"), user(b"b", b"bob"), "a user is one tenant in all vhosts");
    assert_ne!(user(b"a", b"bob"), user(b"a", b"eve"));
    assert_eq!(of(Quota::User, b"a", None, b"e"), Tenant::COMMON);
    assert_eq!(of(Quota::None, b"a", Some(b"bob"), b"e"), Tenant::COMMON);
    let exchange = |vhost, name| of(Quota::Exchange, vhost, Some(b"bob"), name);
    assert_ne!(exchange(b"a", b"bc"), exchange(b"ab", b"c"));
    assert_eq!(of(Quota::Vhost, b"a", Some(b"bob"), b"e"), of(Quota::Vhost, b"a", None, b"f"));
}

/// The bound on memory that a tenant costs: a byte for each id.
#[test]
fn an_id_of_a_tenant_takes_45_bytes_at_most() {
    const IDS: usize = 200_000;
    let (window, _) = window(IDS);
    let (mut asker, now) = (Asker::new(&window), base());
    for key in 0..IDS as u128 * 11 / 10 {
        assert!(publish(&mut asker, key, tenant(key as usize % 10), TTL, now));
    }
    let per_id = window.store_bytes() as f64 / window.len() as f64;
    assert!(per_id <= 45.0, "{per_id}");
    assert!(window.store_bytes() <= window.store_bytes_at(IDS));
}
