//! A client whose right is not proven makes nobody wait, and its ids are remembered nowhere.

use super::script::{channel_open, frame};
use super::stage::{Settled, Stage, Who, ids, publish_all, settle_all};
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::wait;
use amq_protocol::protocol::{AMQPClass, channel, confirm};

const QUICK: &str = "[timeouts]\nin_flight = \"1s\"\n";

/// Everything that a connection has sent so far was read: a channel of its own answers.
fn until_read(client: &mut Raw) {
    client.open_channel(2000);
}

/// Method and header without the body, a channel for each id.
fn begun(ids: &[String]) -> Vec<u8> {
    let begin = |(channel, id): (u16, &String)| {
        let publish = Publish { body: b"a body that never comes", ..Publish::to("q", id) };
        [channel_open(channel), publish.method(channel), publish.header(channel)].concat()
    };
    (1..).zip(ids).flat_map(begin).collect()
}

#[test]
fn n03_who_has_no_right_makes_nobody_wait() {
    let Some(mut stage) = Stage::of_relay("n03-begun", QUICK) else { return };
    let guessed = ids("guessed", 200);
    let mut hostile = stage.client(Who::None);
    hostile.write(&begun(&guessed)).unwrap();
    until_read(&mut hostile);
    assert_eq!(publish_all(&mut stage.client(Who::All), 1, &guessed), Settled::acked(200));
    assert_eq!(stage.stored(), guessed);
}

/// Publishes until it is acked, and gives how often it was nacked before.
fn nacks_until_acked(client: &mut Raw, publish: &Publish<'_>, most: usize) -> usize {
    let mut nacks = 0;
    loop {
        client.publish(1, publish);
        match client.next(1) {
            Told::Ack { .. } => return nacks,
            Told::Nack { .. } => nacks += 1,
            other => panic!("{other:?}"),
        }
        assert!(nacks <= most, "nacked {nacks} times");
    }
}

#[test]
fn n03_an_upload_that_stands_still_gives_its_place_to_its_twin() {
    let Some(mut stage) = Stage::of_relay("n03-upload", QUICK) else { return };
    let mut slow = stage.confirming(Who::All);
    let body = [b'x'; 1000];
    let upload = Publish { body: &body, ..Publish::to("q", "twin") };
    slow.write(&[upload.method(1), upload.header(1), frame(3, 1, &body[..500])].concat()).unwrap();
    until_read(&mut slow);
    let mut twin = stage.confirming(Who::All);
    nacks_until_acked(&mut twin, &Publish::to("q", "twin"), 3);
    drop(slow);
    assert_eq!(stage.stored(), ["twin"]);
    // An acked id is known.
    assert_eq!(nacks_until_acked(&mut twin, &Publish::to("q", "twin"), 0), 0);
    assert_eq!(stage.held("q"), 0);
}

#[test]
fn n03_a_transaction_that_never_ends_gives_its_place_to_others() {
    let Some(mut stage) = Stage::of_relay("n03-tx", QUICK) else { return };
    let mut endless = stage.client(Who::All);
    endless.open_channel(1);
    endless.tx_select(1).unwrap();
    endless.publish(1, &Publish::to("q", "twin"));
    until_read(&mut endless);
    let mut twin = stage.confirming(Who::All);
    nacks_until_acked(&mut twin, &Publish::to("q", "twin"), 3);
    assert_eq!(stage.stored(), ["twin"]);
    drop(endless);
    assert_eq!(nacks_until_acked(&mut twin, &Publish::to("q", "twin"), 0), 0);
    assert_eq!(stage.held("q"), 0);
}

/// Publishes of this user, who may not, up to the broker's 403.
fn refused(stage: &Stage, who: Who, publishes: &[Publish<'_>]) {
    let mut hostile = stage.client(who);
    hostile.open_channel(1);
    publishes.iter().for_each(|publish| hostile.publish(1, publish));
    match hostile.next(1) {
        Told::ChannelClosed { code: 403, .. } => {}
        other => panic!("a 403 is expected: {other:?}"),
    }
}

#[test]
fn n03_what_was_refused_is_not_committed_at_write() {
    let config = "[[window]]\nname = \"w\"\nconfirms = \"client-only\"\n";
    let Some(mut stage) = Stage::of_relay("n03-at-write", config) else { return };
    let guessed = ids("guessed", 20);
    for who in [Who::None, Who::Some] {
        let publishes: Vec<_> = guessed.iter().map(|id| Publish::to("q", id)).collect();
        refused(&stage, who, &publishes);
    }
    assert_eq!(publish_all(&mut stage.client(Who::All), 1, &guessed), Settled::acked(20));
    assert_eq!(stage.stored(), guessed);
    // The right belongs to the routing key.
    let on = |id| Publish { exchange: "topics", ..Publish::to("a.key", id) };
    let publishes: Vec<_> = guessed.iter().map(|id| on(id)).collect();
    refused(&stage, Who::Topic, &publishes);
    assert_eq!(settle_all(&mut stage.client(Who::All), 1, &publishes), Settled::acked(20));
    assert_eq!(stage.stored(), guessed);
}

/// The connection breaks before the relay has heard the 403.
#[test]
fn n03_what_is_in_doubt_is_not_kept_for_a_user_without_the_right() {
    let config = "[[window]]\nname = \"w\"\nin_doubt = \"keep\"\n";
    let Some(mut stage) = Stage::with_cut("n03-keep", config) else { return };
    let guessed = ids("guessed", 20);
    let mut hostile = stage.client(Who::None);
    hostile.open_channel(1);
    stage.site.cut().stall_down();
    guessed.iter().for_each(|id| hostile.publish(1, &Publish::to("q", id)));
    let refusal = format!("refused for user '{}'", stage.user(Who::None));
    wait::until("the broker has refused it", wait::PATIENCE, || {
        (stage.site.rabbit.lines_with(&[&refusal]) > 0).then_some(())
    });
    stage.site.cut().cut_all();
    stage.site.cut().resume();
    assert!(matches!(hostile.next(1), Told::ConnectionClosed { code: 320, .. }));
    assert_eq!(publish_all(&mut stage.client(Who::All), 1, &guessed), Settled::acked(20));
    assert_eq!(stage.stored(), guessed);
    assert_eq!(stage.site.metrics().sum("in_doubt_total", &[("outcome", "kept")]), 0.0);
}

/// A user who may write some keys of a topic exchange, and one who may write all of them, with the same ids.
fn ids_are_apart(vhost: &str, scope: &str) {
    let config = format!("[[window]]\nname = \"w\"\nscope = \"{scope}\"\n");
    let Some(mut stage) = Stage::of_relay(vhost, &config) else { return };
    let ids = ids("id", 50);
    let to = |key: &'static str| -> Vec<_> {
        ids.iter().map(|id| Publish { exchange: "topics", ..Publish::to(key, id) }).collect()
    };
    let (mut some, mut all) = (stage.client(Who::Topic), stage.client(Who::All));
    assert_eq!(settle_all(&mut some, 1, &to("b.key")), Settled::acked(50));
    assert_eq!(stage.stored(), ids);
    assert_eq!(settle_all(&mut all, 1, &to("a.key")), Settled::acked(50));
    assert_eq!(stage.stored(), ids, "50 of 50 messages of another user");
    // Each has said it once, to any key.
    assert_eq!(settle_all(&mut some, 2, &to("b.other")), Settled::acked(50));
    assert_eq!(settle_all(&mut all, 2, &to("a.other")), Settled::acked(50));
    assert_eq!(stage.held("q"), 0);
}

#[test]
fn n03_who_may_write_some_keys_suppresses_nothing_on_others() {
    ids_are_apart("n03-exchange", "exchange");
}

#[test]
fn n03_nor_elsewhere_in_the_vhost() {
    ids_are_apart("n03-vhost", "vhost");
}

#[test]
fn n03_a_right_that_is_taken_away_is_not_believed_for_long() {
    let config = "[timeouts]\nrights = \"1s\"\n";
    let Some(mut stage) = Stage::of_relay("n03-revoked", config) else { return };
    let to = Publish { exchange: "open", ..Publish::to("", "known") };
    let mut client = stage.confirming(Who::Some);
    assert_eq!(nacks_until_acked(&mut client, &to, 0), 0);
    assert_eq!(nacks_until_acked(&mut client, &to, 0), 0);
    stage.site.add_user(&stage.user(Who::Some), "^$");
    let text = wait::until("the broker's 403", wait::PATIENCE, || {
        let mut client = stage.confirming(Who::Some);
        client.publish(1, &to);
        match client.next(1) {
            Told::Ack { .. } => None,
            Told::ChannelClosed { code: 403, text } => Some(text),
            other => panic!("{other:?}"),
        }
    });
    assert!(text.contains("access to exchange 'open'"), "{text}");
    assert_eq!(stage.stored(), ["known"]);
}

/// The broker counts Hapax's own channel against the user's limit, and closes the whole connection of a user who goes beyond
/// it. That happens once; after it, an ack of the broker is the proof.
#[test]
fn n03_a_users_limit_of_channels_costs_one_connection() {
    let Some(mut stage) = Stage::of_relay("n03-limit", "") else { return };
    for who in [Who::All, Who::None] {
        let user = stage.user(who);
        let limit = format!(
            "ok = rabbit_auth_backend_internal:set_user_limits(\
             <<\"{user}\">>, <<\"{{\\\"max-channels\\\":1}}\">>, <<\"hapax\">>)."
        );
        stage.site.rabbit.eval(&limit).unwrap();
        let mut client = stage.confirming(who);
        client.publish(1, &Publish::to("q", "first"));
        let told = client.next(1);
        assert!(matches!(told, Told::ConnectionClosed { .. }), "{told:?}");
    }
    assert_eq!(stage.stored(), [""; 0]);
    let mut client = stage.confirming(Who::All);
    assert_eq!(nacks_until_acked(&mut client, &Publish::to("q", "first"), 0), 0);
    assert_eq!(stage.stored(), ["first"]);
    assert_eq!(nacks_until_acked(&mut client, &Publish::to("q", "second"), 0), 0);
    assert_eq!(nacks_until_acked(&mut client, &Publish::to("q", "second"), 0), 0);
    assert_eq!(stage.stored(), ["second"], "once the right is proven, duplicates are dropped");
    for id in ["second", "third"] {
        refused(&stage, Who::None, &[Publish::to("q", id)]);
    }
    // Unjudged messages are counted, and the log says what to do: once for each user.
    assert!(stage.site.metrics().sum("unverified_total", &[]) >= 1.0);
    let advice = || {
        let log = stage.site.relay().log();
        [Who::All, Who::None].map(|who| {
            let user = format!("\"user\":\"{}\"", stage.user(who));
            log.lines().filter(|line| line.contains("max-channels") && line.contains(&user)).count()
        })
    };
    wait::until("both are advised", wait::PATIENCE, || (!advice().contains(&0)).then_some(()));
    assert_eq!(advice(), [1, 1]);
}

/// Whatever the user sends after that, on as many connections and with as many keys as it likes: none is closed, and nothing is
/// written into the broker's log.
#[test]
fn n03_a_user_at_its_limit_of_channels_loses_no_second_connection() {
    let Some(mut stage) = Stage::of_relay("n03-limited", "") else { return };
    let user = stage.user(Who::All);
    let limit = format!(
        "ok = rabbit_auth_backend_internal:set_user_limits(\
         <<\"{user}\">>, <<\"{{\\\"max-channels\\\":1}}\">>, <<\"hapax\">>)."
    );
    stage.site.rabbit.eval(&limit).unwrap();
    let mut client = stage.confirming(Who::All);
    client.publish(1, &Publish::to("q", "first"));
    assert!(matches!(client.next(1), Told::ConnectionClosed { .. }));
    drop(client);
    let name = format!("user: '{user}'");
    let errors = |stage: &Stage| stage.site.rabbit.lines_with(&["[error]", &name]);
    let before = errors(&stage);
    let keys = ids("key", 20);
    // The broker counts a channel until some time after its connection has ended.
    let mut client = wait::until("a channel", wait::PATIENCE, || {
        let mut client = stage.client(Who::All);
        let open = crate::e2e::raw::method_frame(
            1,
            &AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})),
        );
        client.write(&open).unwrap();
        matches!(client.next(1), Told::Method(AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))))
            .then_some(client)
    });
    let before = before.max(errors(&stage));
    client
        .call(1, &AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })))
        .unwrap();
    for _ in 0..4 {
        for key in &keys {
            client.publish(1, &Publish { exchange: "topics", ..Publish::to(key, "a") });
            assert!(matches!(client.next(1), Told::Ack { .. }));
        }
    }
    assert_eq!(stage.held("q"), 40, "the first of each key went unjudged, and its ack was the proof");
    assert_eq!(errors(&stage), before);
    assert_eq!(stage.site.metrics().sum("unverified_total", &[]), 20.0);
}
