//! A large window becomes small in steps: the answer comes at once, and neither publishes nor other requests wait.

use super::site::{DEADLINE, Site, now};
use hapax_core::window::{Key, Mailbox, Ticket, Verdict, reserve_one};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const IDS: u64 = 400_000;
const WINDOW: &str = "[[window]]\nname = \"big\"\ncapacity = 400000\nttl = \"1h\"\n";

fn key(n: u64) -> Key {
    Key((u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n) << 33 | u128::from(n))
        & Key::MASK)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_window_becomes_small_in_steps_and_nobody_waits() {
    let site = Arc::new(Site::start(WINDOW, None).await);
    let publish = |site: &Site, n: u64| {
        let window = site.window("big");
        match reserve_one(window, key(n), now(), &Arc::new(Mailbox::new()), Ticket(0)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(now(), window.ttl())),
            other => panic!("{n} is not fresh: {other:?}"),
        }
    };
    (0..IDS).for_each(|n| publish(&site, n));
    // A publisher goes on all the time. Its longest wait is what the change costs it.
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = std::thread::spawn({
        let (site, stop) = (Arc::clone(&site), Arc::clone(&stop));
        move || {
            let mut longest = Duration::ZERO;
            for n in IDS.. {
                if stop.load(Relaxed) {
                    break;
                }
                let begin = now();
                publish(&site, n);
                longest = longest.max(now().duration_since(begin));
            }
            longest
        }
    });
    let begin = now();
    let answer = site.change("PATCH", "/api/v1/windows/big", r#"{"capacity": "1k"}"#).await;
    let answered = now().duration_since(begin);
    assert_eq!(answer.status, 200, "{answer:?}");
    let (mut window, mut seen) = (answer.json(), Vec::new());
    while window["resizing"] != Value::Null {
        assert_eq!(window["resizing"]["to"], 1000, "{window}");
        seen.push(window["resizing"]["left"].as_u64().unwrap());
        assert!(now().duration_since(begin) < DEADLINE, "{window}");
        // Another request of the same window is answered meanwhile.
        window = site.get("/api/v1/windows/big").await.json();
    }
    stop.store(true, Relaxed);
    let longest = publisher.join().expect("no panic");
    println!("answered after {answered:?}; {} looks; a publish waited {longest:?} at most", seen.len());
    assert!(answered < Duration::from_secs(3), "the first steps took {answered:?}");
    assert!(longest < Duration::from_secs(1), "a publish waited for {longest:?}");
    assert!(seen.windows(2).all(|two| two[0] >= two[1]), "{seen:?}");
    assert_eq!(window["capacity"], 1000);
    assert!(window["entries"].as_u64().unwrap() <= 1000, "{window}");
}

#[tokio::test]
async fn the_last_of_two_changes_counts() {
    let site = Site::start(WINDOW, None).await;
    for (body, capacity) in [(r#"{"capacity": 10}"#, 10), (r#"{"capacity": "300k"}"#, 300_000)] {
        site.change("PATCH", "/api/v1/windows/big", body).await;
        assert_eq!(site.get("/api/v1/windows/big").await.json()["capacity"], json!(capacity));
    }
}
