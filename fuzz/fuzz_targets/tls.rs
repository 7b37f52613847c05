//! Changes a TLS connection on its way to Hapax as arbitrary octets say: what Hapax lets through is what its peer has said.
#![no_main]

use hapax::net::fuzzed::{Peers, tls};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::PrivateKeyDer;
use std::sync::LazyLock;

static PEERS: LazyLock<Peers> = LazyLock::new(|| {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Peers::new(cert.der().clone(), PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap())
});

fuzz_target!(|octets: &[u8]| tls(&PEERS, octets));
