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

/// A reload answers before its changes of capacity are done. It makes a large window small, which takes a while, and then another one
/// larger. The next reload says something else of that one meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_reloads_the_last_one_says_what_a_capacity_is() {
    let file = std::env::temp_dir().join(format!("hapax-resize-{}.toml", std::process::id()));
    let write = |big: usize, other: usize| {
        let text = format!(
            "{}[[window]]\nname = \"other\"\nexchange = \"other\"\ncapacity = {other}\n",
            WINDOW.replace("400000", &big.to_string())
        );
        // Of two windows, the one with a pattern comes first.
        std::fs::write(&file, text.replace("name = \"big\"", "name = \"big\"\nexchange = \"big\"")).unwrap();
    };
    write(400_000, 30);
    let site = Site::with_file(&file).await;
    let window = site.window("big");
    for n in 0..IDS {
        if let Verdict::Fresh(reservation) =
            reserve_one(window, key(n), now(), &Arc::new(Mailbox::new()), Ticket(0))
        {
            reservation.commit(now(), window.ttl());
        }
    }
    for (big, other) in [(100, 20), (100, 10)] {
        write(big, other);
        assert_eq!(site.change("POST", "/api/v1/reload", "{}").await.status, 200);
    }
    let begin = now();
    loop {
        let windows =
            [site.get("/api/v1/windows/big").await.json(), site.get("/api/v1/windows/other").await.json()];
        if windows.iter().all(|window| window["resizing"] == Value::Null) && windows[0]["capacity"] == 100 {
            assert_eq!(windows[1]["capacity"], 10);
            break;
        }
        assert!(now().duration_since(begin) < DEADLINE, "{windows:?}");
    }
    std::fs::remove_file(&file).unwrap();
}
