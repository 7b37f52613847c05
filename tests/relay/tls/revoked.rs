//! Certificates of clients that their authority has revoked.

use super::{BOTH, Encrypted, vhost};
use crate::e2e::pki::{Files, Pki};
use crate::e2e::raw::Raw;
use crate::e2e::wait;

#[test]
fn a_certificate_lets_nobody_in_from_the_moment_on_at_which_a_list_names_it() {
    let pki = Pki::new();
    let (stolen, good) = (pki.issue("stolen", &["stolen"]), pki.issue("good", &["good"]));
    let list = pki.revoke("clients.crl", &[]);
    let more =
        format!("client_certificates = \"required\"\nclient_ca = {:?}\nclient_crl = {list:?}\n", pki.ca());
    let Some(site) = Encrypted::with(pki, "", &more, "") else { return };
    let login = vhost("tls-revoked");
    // By TLS 1.3, a client learns only after its handshake that it was refused.
    let try_as = |own: &Files| {
        let raw = site.dial(&site.pki.client(BOTH, Some(own))).and_then(|raw| raw.logged_in(&login));
        raw.map(Raw::close)
    };
    let refused = |own: &Files, why: &str| {
        wait::until(why, wait::PATIENCE, || {
            let is_refused = try_as(own).is_err();
            // One line a second is written, so the line may be one that was left out.
            (is_refused && site.relay.log().to_lowercase().contains(why)).then_some(())
        });
    };
    let put = |written: &std::path::Path| std::fs::rename(written, &list).unwrap();
    for own in [&stolen, &good] {
        try_as(own).expect("nobody is revoked");
    }
    put(&site.pki.revoke("new.crl", &[&stolen]));
    refused(&stolen, "revoked");
    try_as(&good).expect("another one is");
    // What is no list changes nothing.
    std::fs::write(&list, "rubbish").unwrap();
    wait::until("the log says that there is no list", wait::PATIENCE, || {
        site.relay.log().contains("holds no revocation list").then_some(())
    });
    assert!(try_as(&stolen).is_err() && try_as(&good).is_ok());
    // A list of another authority says nothing of these.
    put(&Pki::new().revoke("other.crl", &[]));
    refused(&good, "unknownrevocationstatus");
    put(&site.pki.revoke("none.crl", &[]));
    wait::until("nobody is revoked any more", wait::PATIENCE, || try_as(&stolen).ok());
}
