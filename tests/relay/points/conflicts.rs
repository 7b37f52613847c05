//! Same id, other content: a producer whose counter has started again.

use super::held;
use crate::e2e::raw::{Frame, Publish, Raw, Told};
use crate::e2e::site::Site;

fn site(vhost: &str, rule: &str) -> Option<Site> {
    Site::of_relay(vhost, &format!("[[window]]\nname = \"orders\"\non_conflict = \"{rule}\"\n"))
}

/// Ten orders, then ten others with the same ids. Returns the answers to the latter.
fn a_counter_that_starts_again(client: &mut Raw) -> Vec<bool> {
    client.confirming(1);
    client.declare(1, "q", &[]);
    let mut publish = |run: u32, number: u32| {
        let (id, body) = (format!("order-{number}"), format!("run {run}, order {number}"));
        match client.publish_and_settle(1, &Publish { body: body.as_bytes(), ..Publish::to("q", &id) }).pop()
        {
            Some(Told::Ack { .. }) => true,
            Some(Told::Nack { .. }) => false,
            other => panic!("an answer is expected: {other:?}"),
        }
    };
    assert!((0..10).all(|number| publish(1, number)));
    (0..10).map(|number| publish(2, number)).collect()
}

fn conflicts(site: &Site) -> f64 {
    site.metrics().sum("conflicts_total", &[("window", "orders")])
}

#[test]
fn p18_of_a_counter_that_starts_again_all_conflicts_are_counted_and_logged() {
    let Some(site) = site("p18-drop", "drop") else { return };
    let mut client = site.client();
    assert_eq!(a_counter_that_starts_again(&mut client), [true; 10]);
    assert_eq!((client.drain(1, "q").len(), conflicts(&site)), (10, 10.0));
    // A retry of what was stored is none.
    let retry = Publish { body: b"run 1, order 3", ..Publish::to("q", "order-3") };
    client.publish_and_settle(1, &retry);
    assert_eq!(conflicts(&site), 10.0);
}

#[test]
fn p18_of_a_counter_that_starts_again_nothing_is_lost_with_forward() {
    let Some(site) = site("p18-forward", "forward") else { return };
    let mut client = site.client();
    assert_eq!(a_counter_that_starts_again(&mut client), [true; 10]);
    let told: Vec<bool> = (0..10)
        .map(|number| {
            let (id, body) = (format!("order-{number}"), format!("run 2, order {number}"));
            let retry = Publish { body: body.as_bytes(), ..Publish::to("q", &id) };
            matches!(client.publish_and_settle(1, &retry)[..], [Told::Ack { .. }])
        })
        .collect();
    assert_eq!(told, [true; 10]);
    assert_eq!((client.drain(1, "q").len(), conflicts(&site)), (20, 10.0), "the retries are duplicates");
}

#[test]
fn p18_of_a_counter_that_starts_again_the_publisher_is_told_with_reject() {
    let Some(site) = site("p18-reject", "reject") else { return };
    let mut client = site.client();
    assert_eq!(a_counter_that_starts_again(&mut client), [false; 10]);
    assert_eq!((client.drain(1, "q").len(), conflicts(&site)), (10, 10.0));
}

#[test]
fn p18_without_confirms_the_channel_is_closed_with_reject() {
    let Some(site) = site("p18-closed", "reject") else { return };
    let (mut client, mut direct) = (site.client(), site.direct());
    client.open_channel(1);
    client.declare(1, "q", &[]);
    direct.open_channel(1);
    let frame_max = client.frame_max();
    client.write(&Publish { body: b"one", ..Publish::to("q", "a") }.encode(1, frame_max)).unwrap();
    site.until_metric("commits_total", &[], 1.0);
    client.write(&Publish { body: b"two", ..Publish::to("q", "a") }.encode(1, frame_max)).unwrap();
    let told = client.next(1);
    assert!(matches!(&told, Told::ChannelClosed { code: 406, .. }), "{told:?}");
    assert_eq!(held(&mut direct, "q"), 1);
}

/// Bodies of 300 KB, each attempt cut into frames of another size, and written in other pieces.
#[test]
fn p18_frames_make_no_conflict_of_a_large_body() {
    let Some(site) = site("p18-frames", "forward") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let bodies: [Vec<u8>; 2] =
        [3, 7].map(|factor: usize| (0..300_000).map(|n| (n * factor % 251) as u8).collect());
    for (attempt, size) in [4_000, 100_000, 131_000, 1_237].into_iter().enumerate() {
        for body in &bodies[..1] {
            let publish = Publish { body, ..Publish::to("q", "large") };
            client.write(&publish.method(1)).unwrap();
            client.write(&publish.header(1)).unwrap();
            for part in body.chunks(size) {
                client.write(&Frame { kind: 3, channel: 1, payload: part.to_vec() }.encode()).unwrap();
            }
            assert!(matches!(client.next(1), Told::Ack { .. }), "attempt {attempt}");
        }
    }
    assert_eq!(conflicts(&site), 0.0);
    let other = Publish { body: &bodies[1], ..Publish::to("q", "large") };
    client.publish_and_settle(1, &other);
    assert_eq!((client.drain(1, "q").len(), conflicts(&site)), (2, 1.0));
}
