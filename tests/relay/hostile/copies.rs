//! Copies of a message whose first one has no outcome share one fate; they are not released unjudged.

use super::script::frame;
use super::stage::{Stage, Who};
use crate::e2e::raw::{Publish, Raw};

/// A holder that stands still in the middle of its body, and copies by a client without confirms.
fn one_of(vhost: &str, count: usize) {
    let Some(mut stage) = Stage::of_relay(vhost, "[timeouts]\nin_flight = \"1s\"\n") else { return };
    let mut holder = stage.client(Who::All);
    holder.open_channel(1);
    let body = [b'x'; 1000];
    let upload = Publish { body: &body, ..Publish::to("q", "copy") };
    holder.write(&[upload.method(1), upload.header(1), frame(3, 1, &body[..500])].concat()).unwrap();
    // It was read: the next channel answers.
    holder.open_channel(2);

    let mut copies: Raw = stage.client(Who::All);
    copies.open_channel(1);
    for _ in 0..count {
        copies.publish(1, &Publish::to("q", "copy"));
    }
    // The answer comes at once. The waiting copies are forwarded behind it, and then only the holder's connection is left.
    copies.close();
    stage.site.until_metric("connections", &[], 1.0);
    assert_eq!(stage.stored(), ["copy"], "one of {count}");
    let nacked = stage.site.metrics().sum("refused_total", &[]);
    assert_eq!(nacked, 0.0, "who has no confirms is nacked nothing");
    drop(holder);
}

#[test]
fn n05_of_five_copies_one_is_forwarded() {
    one_of("n05-five", 5);
}

/// One more than may wait for an id.
#[test]
fn n05_of_sixty_five_copies_one_is_forwarded() {
    one_of("n05-many", 65);
}
