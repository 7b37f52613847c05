//! Logins by EXTERNAL. The broker takes the user from the certificate of its own connection, which is Hapax's where TLS ends in
//! Hapax.

use super::desk::{Desk, SECOND};
use crate::support::frames::{Frames, protocol_header};
use crate::support::methods::{
    connection_close_ok, connection_open, start_offering, start_ok, start_ok_with, tune_ok,
};
use crate::support::pair::Pair;
use hapax_core::session::{RefusedBecause, RefusedLogin};

/// A client in front of a broker that offers EXTERNAL, and what the client is offered.
fn offered(external: bool) -> (Desk, Pair, Frames) {
    let desk = Desk::with(|plan| plan.settings.external = external);
    let mut pair = Pair::from_peer(&desk.shared, "192.0.2.1".parse().unwrap());
    pair.client(protocol_header());
    pair.upstream(start_offering("EXTERNAL PLAIN AMQPLAIN"));
    assert_eq!(pair.to_upstream(), protocol_header());
    let offered = pair.to_client();
    (desk, pair, offered)
}

#[test]
fn where_tls_ends_in_hapax_external_is_not_offered_and_other_logins_go_on() {
    let (_desk, mut pair, offer) = offered(false);
    assert_eq!(offer, start_offering("PLAIN AMQPLAIN"));
    pair.client(start_ok("bob"));
    assert_eq!(pair.to_upstream(), start_ok("bob"));
}

#[test]
fn who_uses_external_anyway_is_refused_and_the_broker_hears_nothing_of_it() {
    for told in [true, false] {
        let (_desk, mut pair, _) = offered(false);
        let login = start_ok_with("EXTERNAL", "", &[("authentication_failure_close", told)]);
        pair.client(login + tune_ok(100, 8192, 0) + connection_open("/"));
        assert_eq!(pair.to_upstream(), Frames::none(), "the broker would take hapax's certificate");
        assert!(pair.upstream_closed());
        let said = format!("{:?}", pair.to_client());
        assert_eq!(said.contains("403 \"ACCESS_REFUSED - EXTERNAL can't be used here"), told, "{said}");
        let reason = RefusedBecause::External;
        let refused = RefusedLogin { mechanism: "EXTERNAL".into(), user: None, reason };
        assert_eq!(pair.session.take_refused_login(), Some(refused));
        match told {
            true => pair.client(connection_close_ok()),
            false => pair.advance(SECOND * 4),
        }
        assert!(pair.session.is_over());
    }
}

#[test]
fn where_a_tunnel_carries_it_external_passes_as_it_is() {
    let (_desk, mut pair, offer) = offered(true);
    assert_eq!(offer, start_offering("EXTERNAL PLAIN AMQPLAIN"));
    let login = start_ok_with("EXTERNAL", "", &[]);
    pair.client(login.clone());
    assert_eq!(pair.to_upstream(), login);
}
