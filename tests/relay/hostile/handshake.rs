//! The handshake with a real broker: everything in one write, and logins that are larger than usual.

use super::script::{connection_open, method, to_the_end, tune_ok};
use crate::e2e::raw::{Frame, HEADER, Login, Raw};
use crate::e2e::site::{Site, own_rabbit, without_relay};
use std::io;
use std::thread;

/// A `start-ok` as guest, whose client-properties have a key that is no UTF-8.
fn odd_login() -> Vec<u8> {
    let mut payload = vec![0, 10, 0, 11, 0, 0, 0, 4];
    payload.extend(b"\x01\xfft\x01");
    payload.extend(b"\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US");
    Frame { kind: 1, channel: 0, payload }.encode()
}

/// Some clients do not wait for `connection.tune`: they know what RabbitMQ offers.
#[test]
fn a_handshake_in_one_write_asks_for_no_more_channels_than_are_offered() {
    let site = Site::new("handshake-in-one-write", "");
    let close = method(0, &[0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0]);
    let hear = |channels: u16| {
        let octets =
            [HEADER, &odd_login(), &tune_ok(channels), &connection_open(&site.vhost), &close].concat();
        [site.rabbit.addr(), site.addr()].map(|addr| to_the_end(&mut Raw::dial(addr).unwrap(), &octets))
    };
    // The broker takes three seconds to refuse a number without a word: all at once.
    thread::scope(|scope| {
        let heard = [1, 2046, 2047, 0, 2048, 65_535].map(|channels| {
            (
                channels,
                scope.spawn({
                    let hear = &hear;
                    move || hear(channels)
                }),
            )
        });
        for (channels, said) in heard {
            let said = said.join().unwrap();
            assert_eq!(said[0], said[1], "{channels} channels");
            let served = said[1].iter().any(|line| line.contains("OpenOk"));
            assert_eq!(served, (1..=2047).contains(&channels), "{channels} channels: {said:?}");
        }
    });
}

/// A token of OAuth 2 is the password, and may have more than 8 KiB.
#[test]
fn a_login_of_nine_kilobytes_passes_where_both_allow_it() {
    if without_relay() {
        return println!("passed over: it is about what only the relay does");
    }
    let rabbit = own_rabbit();
    rabbit.eval("ok = application:set_env(rabbit, initial_frame_max, 65536).").unwrap();
    let config = "[limits]\ninitial_frame_max = \"16KiB\"\n";
    let (large, usual) = (Site::on(&rabbit, "large-login", config), Site::on(&rabbit, "usual-login", ""));
    for site in [&large, &usual] {
        site.rabbit
            .eval(&format!(
                "catch rabbit_auth_backend_internal:add_user(<<\"big\">>, binary:copy(<<\"x\">>, 9216), <<\"hapax\">>), \
                 ok = rabbit_auth_backend_internal:set_permissions(\
                 <<\"big\">>, <<\"{}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"hapax\">>).",
                site.vhost
            ))
            .unwrap();
    }
    let login = |site: &Site| -> io::Result<Raw> {
        Raw::login(site.addr(), &Login::new(&site.vhost, "big", &"x".repeat(9216)))
    };
    login(&large).unwrap().close();
    let refused = login(&usual).expect_err("more than 8 KiB");
    println!("without the setting: {refused}");
}
