//! Users who may log in from the broker's own host only (`loopback_users`). The end-to-end tests compare the octets with a
//! real broker's.

use super::desk::{Desk, SECOND};
use crate::support::frames::{Frames, protocol_header};
use crate::support::methods::{
    connection_close_ok, connection_open, start, start_ok, start_ok_with, tune_ok,
};
use crate::support::pair::Pair;
use hapax_core::session::{RefusedBecause, RefusedLogin};

const REFUSED: &str = "connection.close 403 \"ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.\"";

/// A client from this address that the broker has greeted.
fn greeted(desk: &Desk, peer: &str) -> Pair {
    let mut pair = Pair::from_peer(&desk.shared, peer.parse().unwrap());
    pair.client(protocol_header());
    pair.upstream(start());
    assert_eq!((pair.to_client(), pair.to_upstream()), (start(), protocol_header()));
    pair
}

fn guest(told: bool) -> Frames {
    start_ok_with("PLAIN", "\0guest\0guest", &[("authentication_failure_close", told)])
}

#[test]
fn guest_from_another_host_is_told_and_the_broker_hears_nothing_of_it() {
    let desk = Desk::new();
    for peer in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
        let mut pair = greeted(&desk, peer);
        pair.client(guest(true) + tune_ok(100, 8192, 0) + connection_open("/"));
        assert_eq!(pair.to_upstream(), Frames::none(), "the broker would let guest in");
        assert!(pair.upstream_closed(), "and it does not wait for a login that never comes");
        let said = format!("{:?}", pair.to_client());
        assert!(said.contains(REFUSED), "{said}");
        let refused = pair.session.take_refused_login();
        let guest = Some("guest".into());
        let reason = RefusedBecause::Loopback;
        assert_eq!(refused, Some(RefusedLogin { mechanism: "PLAIN".into(), user: guest, reason }));
        assert_eq!(pair.session.take_refused_login(), None);
        assert_eq!((pair.session.vhost(), pair.session.about()), (None, None));
        pair.client(connection_close_ok());
        assert!(pair.session.is_over());
    }
}

#[test]
fn who_does_not_understand_a_refusal_hears_nothing_for_three_seconds() {
    let desk = Desk::new();
    for login in [guest(false), start_ok("guest")] {
        let mut pair = greeted(&desk, "192.0.2.1");
        pair.client(login);
        assert!(pair.upstream_closed());
        pair.client(start_ok("bob") + connection_open("/"));
        pair.advance(SECOND * 29 / 10);
        assert!(!pair.session.is_over());
        assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()));
        pair.advance(SECOND / 5);
        assert!(pair.session.is_over());
        assert_eq!(pair.to_client(), Frames::none());
    }
}

#[test]
fn everybody_else_is_the_brokers_to_judge() {
    let desk = Desk::new();
    for (peer, user) in
        [("127.0.0.1", "guest"), ("::ffff:127.3.0.1", "guest"), ("::1", "guest"), ("192.0.2.1", "bob")]
    {
        let mut pair = greeted(&desk, peer);
        pair.client(start_ok(user));
        assert_eq!(pair.to_upstream(), start_ok(user), "{peer} {user}");
        assert_eq!(pair.session.take_refused_login(), None);
    }
}

#[test]
fn a_mechanism_with_a_challenge_names_the_user_first() {
    let desk = Desk::new();
    let mut pair = greeted(&desk, "192.0.2.1");
    pair.client(start_ok_with("RABBIT-CR-DEMO", "guest", &[]));
    assert_eq!(pair.to_upstream(), Frames::none());
    let mut pair = greeted(&desk, "192.0.2.1");
    let bob = start_ok_with("RABBIT-CR-DEMO", "bob", &[]);
    pair.client(bob.clone());
    assert_eq!(pair.to_upstream(), bob);
    // ANONYMOUS of RabbitMQ 4 is guest.
    let mut pair = greeted(&desk, "192.0.2.1");
    pair.client(start_ok_with("ANONYMOUS", "", &[]));
    assert_eq!(pair.to_upstream(), Frames::none());
    let refused = pair.session.take_refused_login();
    let reason = RefusedBecause::Loopback;
    assert_eq!(refused, Some(RefusedLogin { mechanism: "ANONYMOUS".into(), user: None, reason }));
}
