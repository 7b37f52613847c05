//! Channels that are closed and opened without waiting, twice, never, or too many of them: the broker's own words.

use super::script::{
    Differences, channel_close, channel_close_ok, channel_open, connection_open, logged_in, qos, shown,
    to_the_end,
};
use super::stage::{Stage, Who};
use crate::e2e::raw::{Frame, Publish, Raw};

/// A script after the login, which ends the connection.
struct Script {
    name: &'static str,
    code: u16,
    parts: Vec<Vec<u8>>,
}

fn scripts() -> Vec<Script> {
    let publish = Publish::to("q", "a").encode(1, 4096);
    let refused = Publish { exchange: "none", ..Publish::to("", "a") }.encode(1, 4096);
    let script = |name, code, parts: &[&[u8]]| Script {
        name,
        code,
        parts: parts.iter().map(|part| part.to_vec()).collect(),
    };
    let [one, two, three] = [1, 2, 3].map(channel_open);
    let close = channel_close(1);
    vec![
        script("close, open, publish", 504, &[&one, &close, &one, &publish]),
        script("close, open, qos", 504, &[&one, &close, &one, &qos(1)]),
        script("publish, close, open, publish", 504, &[&one, &publish, &close, &one, &publish]),
        script("open twice", 504, &[&one, &one]),
        script("open twice at the limit", 504, &[&one, &two, &one]),
        script("a publish on a channel that was never open", 504, &[&publish]),
        script("qos on a channel that was never open", 504, &[&qos(7)]),
        script("close of a channel that was never open", 504, &[&channel_close(7)]),
        script("close-ok that nobody waits for", 504, &[&channel_close_ok(7)]),
        script("one channel more than agreed on", 530, &[&one, &two, &three]),
        script(
            "one channel more than agreed on, by high numbers",
            530,
            &[&channel_open(2000), &channel_open(65_535), &one],
        ),
        script("a publish that is refused, close, open", 504, &[&one, &refused, &close, &one]),
        script("another open", 504, &[&one, &connection_open("n13")]),
    ]
}

#[test]
fn n13_channels_are_opened_and_closed_as_at_the_broker() {
    let stage = Stage::new("n13", "");
    let mut differences = Differences::default();
    for Script { name, code, parts } in scripts() {
        println!("{name}");
        let [theirs, ours] = [stage.site.rabbit.addr(), stage.site.addr()].map(|addr| {
            let mut client = logged_in(addr, &stage.user(Who::All), "n13", 2);
            let mut said = to_the_end(&mut client, &parts.concat());
            // The answers on the channels before it depend on which of the broker's processes is first.
            said.retain(|line| line.starts_with("channel 0:") || !line.starts_with("channel"));
            said
        });
        differences.expect(name, &format!("connection.close {code}"), &theirs);
        differences.compare(name, &theirs, &ours);
    }
    differences.none();
}

/// The relay does not answer a method that the broker does not answer, and the connection lives.
#[test]
fn n13_what_comes_between_close_and_close_ok_is_ignored() {
    let mut stage = Stage::new("n13-ignored", "");
    let mut differences = Differences::default();
    let publish = Publish::to("q", "a").encode(1, 4096);
    for (name, parts) in [
        ("close, publish", [channel_close(1), publish].concat()),
        ("close, qos", [channel_close(1), qos(1)].concat()),
        ("close, close", [channel_close(1), channel_close(1)].concat()),
    ] {
        let [theirs, ours] = [stage.site.rabbit.addr(), stage.site.addr()].map(|addr| {
            let mut client = logged_in(addr, &stage.user(Who::All), "n13-ignored", 10);
            client.open_channel(1);
            client.write(&parts).unwrap();
            until_opened(&mut client)
        });
        differences.compare(name, &theirs, &ours);
    }
    differences.none();
    assert_eq!(stage.held("q"), 0);
}

/// Returns the answers on channel 1 until it is open again, after one `close-ok` at least.
fn until_opened(client: &mut Raw) -> Vec<String> {
    let mut lines = Vec::new();
    let mut said = |client: &mut Raw| -> Frame {
        let frame = client.frame().unwrap().expect("the connection lives");
        lines.push(shown(&frame));
        frame
    };
    while said(client).payload[..4] != [0, 20, 0, 41] {}
    client.write(&channel_open(1)).unwrap();
    while said(client).payload[..4] != [0, 20, 0, 11] {}
    lines
}

/// A client may open all channels that were offered, and no more: the relay's own channel is not for clients.
#[test]
fn n13_as_many_channels_as_were_offered_can_be_opened() {
    let Some(mut stage) = Stage::of_relay("n13-many", "") else { return };
    let user = stage.user(Who::All);
    let offered = {
        let mut client = Raw::dial(stage.site.addr()).unwrap();
        client.write(crate::e2e::raw::HEADER).unwrap();
        client.frame().unwrap().expect("start");
        client.write(&super::script::start_ok(&user)).unwrap();
        let tune = client.frame().unwrap().expect("tune");
        u16::from_be_bytes([tune.payload[4], tune.payload[5]])
    };
    let mut client = logged_in(stage.site.addr(), &user, "n13-many", offered);
    client.write(&(1..=offered).flat_map(channel_open).collect::<Vec<u8>>()).unwrap();
    for _ in 1..=offered {
        let frame = client.frame().unwrap().expect("open-ok");
        assert_eq!(frame.payload[..4], [0, 20, 0, 11], "{}", shown(&frame));
    }
    // With every channel open, a publish whose right is not proven yet is served nevertheless.
    client
        .write(&[super::script::confirm_select(1), Publish::to("q", "a").encode(1, 4096)].concat())
        .unwrap();
    let said = [client.frame().unwrap(), client.frame().unwrap()].map(|frame| shown(&frame.unwrap()));
    assert!(said[1].contains("Ack("), "{said:?}");
    assert_eq!(stage.stored(), ["a"]);
    let said = to_the_end(&mut client, &channel_open(offered + 1));
    assert!(said[0].contains("connection.close 530"), "{said:?}");
}
