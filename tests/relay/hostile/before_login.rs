//! Clients that have not logged in: nothing of such a client is judged, reserved, kept or answered.

use super::script::{
    Differences, channel_open, confirm_select, connection_open, logged_in, qos, start_ok, to_the_end, tune_ok,
};
use super::stage::{Settled, Stage, Who, ids, publish_all};
use crate::e2e::raw::{HEADER, Publish, Raw};
use crate::e2e::wait;
use std::net::SocketAddr;
use std::thread;

/// The octets of a stranger who leaves out `start-ok`: it goes on as if it were logged in, with messages.
fn without_start_ok(vhost: &str, ids: &[String]) -> Vec<u8> {
    let publishes = |channel| ids.iter().flat_map(move |id| Publish::to("q", id).encode(channel, 4096));
    let mut octets = [connection_open(vhost), channel_open(1)].concat();
    octets.extend(publishes(1));
    octets.extend([channel_open(2), confirm_select(2)].concat());
    octets.extend(publishes(2));
    octets
}

/// Strangers that have said all of this after the protocol header, and have been greeted since.
fn strangers(addr: SocketAddr, count: usize, octets: &[u8]) -> Vec<Raw> {
    let stranger = || {
        let mut stranger = Raw::dial(addr).unwrap();
        stranger.write(&[HEADER, octets].concat()).unwrap();
        stranger.frame().unwrap().expect("the broker greets everybody");
        stranger
    };
    std::iter::repeat_with(stranger).take(count).collect()
}

/// The broker hangs up without a word.
fn until_hung_up(strangers: Vec<Raw>) {
    for mut stranger in strangers {
        assert_eq!(to_the_end(&mut stranger, b""), ["the end"]);
    }
}

#[test]
fn n01_strangers_take_no_place_of_an_id() {
    let Some(mut stage) = Stage::of_relay("n01-places", "[timeouts]\nin_flight = \"1s\"\n") else { return };
    let guessed = ids("guessed", 10);
    let strangers = strangers(stage.site.addr(), 12, &without_start_ok("n01-places", &guessed));
    let mut honest = stage.client(Who::All);
    assert_eq!(publish_all(&mut honest, 1, &guessed), Settled::acked(10), "while the strangers are there");
    until_hung_up(strangers);
    assert_eq!(stage.stored(), guessed);
    assert_eq!(stage.site.metrics().sum("window_in_flight", &[]), 0.0);
}

/// A stranger's ids, and then everybody else's messages with these ids.
fn nothing_is_remembered(vhost: &str, window: &str) {
    let config = format!("[[window]]\nname = \"w\"\n{window}\n");
    let Some(mut stage) = Stage::of_relay(vhost, &config) else { return };
    let guessed = ids("guessed", 50);
    until_hung_up(strangers(stage.site.addr(), 2, &without_start_ok(vhost, &guessed)));
    assert_eq!(publish_all(&mut stage.client(Who::All), 1, &guessed), Settled::acked(50));
    assert_eq!(stage.stored(), guessed, "acked and not stored is lost");
}

#[test]
fn n01_nothing_of_a_stranger_is_kept() {
    nothing_is_remembered("n01-keep", "in_doubt = \"keep\"");
}

#[test]
fn n01_nothing_of_a_stranger_is_committed_at_write() {
    nothing_is_remembered("n01-client-only", "confirms = \"client-only\"");
}

/// Every way to speak too early or twice, once with an id that is known and once with one that is not.
#[test]
fn n01_before_login_the_relay_says_what_the_broker_says() {
    let vhost = "n01-scripts";
    let mut stage = Stage::new(vhost, "");
    let mut honest = stage.client(Who::All);
    let known = vec!["known".to_owned()];
    assert_eq!(publish_all(&mut honest, 1, &known), Settled::acked(1));

    let (all, none) = (stage.user(Who::All), stage.user(Who::None));
    let (start_all, start_none) = (start_ok(&all), start_ok(&none));
    let (tune, open) = (tune_ok(2047), connection_open(vhost));
    let scripts = |id: &str| -> Vec<(&'static str, Vec<u8>)> {
        let publish = Publish::to("q", id).encode(1, 4096);
        let on_channel = [channel_open(1), confirm_select(1), publish.clone(), qos(1)].concat();
        vec![
            ("open, no start-ok", [open.clone(), on_channel.clone()].concat()),
            ("no open, no start-ok", on_channel.clone()),
            ("a publish and nothing else", publish),
            ("tune-ok and open, no start-ok", [tune.clone(), open.clone(), on_channel.clone()].concat()),
            ("no tune-ok", [start_all.clone(), open.clone(), on_channel.clone()].concat()),
            ("no open", [start_all.clone(), tune.clone(), on_channel.clone()].concat()),
            (
                "open after the channel",
                [start_all.clone(), tune.clone(), on_channel.clone(), open.clone()].concat(),
            ),
            (
                "start-ok twice",
                [start_none.clone(), start_all.clone(), tune.clone(), open.clone(), on_channel.clone()]
                    .concat(),
            ),
            (
                "start-ok after tune-ok",
                [start_none.clone(), tune.clone(), start_all.clone(), open.clone(), on_channel.clone()]
                    .concat(),
            ),
            (
                "start-ok after open",
                [start_none.clone(), tune.clone(), open.clone(), start_all.clone(), on_channel.clone()]
                    .concat(),
            ),
            (
                "tune-ok after open",
                [start_none.clone(), tune.clone(), open.clone(), tune.clone(), on_channel.clone()].concat(),
            ),
            (
                "a wrong password",
                [start_ok("nobody"), tune.clone(), open.clone(), on_channel.clone()].concat(),
            ),
            (
                "a vhost without a right",
                [start_none.clone(), tune.clone(), connection_open("/"), on_channel.clone()].concat(),
            ),
            (
                "a vhost that is not there",
                [start_none.clone(), tune.clone(), connection_open("no such vhost"), on_channel].concat(),
            ),
        ]
    };
    // The broker takes three seconds to hang up without a word: all at once.
    let hear = |addr: SocketAddr, octets: &[u8]| {
        let mut client = Raw::dial(addr).unwrap();
        to_the_end(&mut client, &[HEADER, octets].concat())
    };
    let (broker, relay) = (stage.site.rabbit.addr(), stage.site.addr());
    let mut differences = Differences::default();
    thread::scope(|scope| {
        let said: Vec<_> = scripts("known")
            .into_iter()
            .zip(scripts("unknown"))
            .map(|((name, known), (_, unknown))| {
                let theirs = known.clone();
                let each = [(broker, theirs), (relay, known), (relay, unknown)]
                    .map(|(addr, octets)| scope.spawn(move || hear(addr, &octets)));
                (name, each)
            })
            .collect();
        for (name, each) in said {
            let [theirs, known, unknown] = each.map(|said| said.join().unwrap());
            differences.compare(&format!("{name}, a known id"), &theirs, &known);
            differences.compare(&format!("{name}, an unknown id"), &theirs, &unknown);
        }
    });
    differences.none();
    if !crate::e2e::site::without_relay() {
        assert_eq!(publish_all(&mut honest, 2, &["unknown".to_owned()]), Settled::acked(1));
        assert_eq!(stage.stored(), ["known", "unknown"]);
    }
}

/// A client with the right password may send everything in one write, as at the broker.
#[test]
fn n01_a_login_in_one_write_is_served() {
    let vhost = "n01-pipelined";
    let mut stage = Stage::new(vhost, "");
    let all = stage.user(Who::All);
    let mut octets = [HEADER, &start_ok(&all), &tune_ok(100), &connection_open(vhost)].concat();
    octets.extend([channel_open(1), confirm_select(1), Publish::to("q", "a").encode(1, 4096)].concat());
    octets.extend(super::script::method(0, &[0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0]));
    let said = [stage.site.rabbit.addr(), stage.site.addr()].map(|addr| {
        let mut client = Raw::dial(addr).unwrap();
        to_the_end(&mut client, &octets).into_iter().filter(|line| !line.contains("Ack(")).collect::<Vec<_>>()
    });
    let mut differences = Differences::default();
    differences.compare("a login in one write", &said[0], &said[1]);
    differences.expect("a login in one write", "CloseOk", &said[1]);
    differences.none();
    assert_eq!(stage.stored(), ["a", "a"], "once by each way");
}

#[test]
fn n01_a_second_open_poisons_no_other_vhost() {
    let config = "[[window]]\nname = \"w\"\nin_doubt = \"keep\"\n";
    let Some(elsewhere) = Stage::of_relay("n01-elsewhere", config) else { return };
    let mut here = Stage::new("n01-here", config);
    let guessed = ids("guessed", 20);
    // The user of the first vhost has no right at all in the second, and speaks through the second's relay.
    let user = elsewhere.user(Who::All);
    let mut octets = without_start_ok("n01-here", &guessed);
    octets.extend(qos(1));
    let mut differences = Differences::default();
    let said = [here.site.rabbit.addr(), here.site.addr()].map(|addr| {
        let mut client = logged_in(addr, &user, "n01-elsewhere", 100);
        to_the_end(&mut client, &octets)
    });
    differences.compare("a second open", &said[0], &said[1]);
    differences.expect("a second open", "connection.close 504", &said[1]);
    differences.none();
    assert_eq!(publish_all(&mut here.client(Who::All), 1, &guessed), Settled::acked(20));
    assert_eq!(here.stored(), guessed);
}

#[test]
fn n01_channels_before_login_take_no_memory() {
    let vhost = "n01-memory";
    let Some(stage) = Stage::of_relay(vhost, "") else { return };
    let channels: Vec<u8> = (1..=u16::MAX).flat_map(channel_open).collect();
    let relay = stage.site.relay();
    let before = relay.memory();
    // A writer blocks where nobody reads, hence the threads.
    let addr = stage.site.addr();
    let strangers: Vec<_> = [&b""[..], &connection_open(vhost), b"", &connection_open(vhost)]
        .into_iter()
        .map(|open| {
            let octets = [HEADER, open, &channels].concat();
            thread::spawn(move || to_the_end(&mut Raw::dial(addr).unwrap(), &octets))
        })
        .collect();
    let most = wait::until("the strangers are hung up on", wait::PATIENCE, {
        let mut most = 0;
        move || {
            most = most.max(relay.memory());
            strangers.iter().all(thread::JoinHandle::is_finished).then_some(most)
        }
    });
    let each = most.saturating_sub(before) / 4;
    // Two buffers of `limits.buffer_bytes`, and what the allocator rounds up: not 70 MB.
    assert!(each < 4 << 20, "{each} bytes for each stranger");
}
