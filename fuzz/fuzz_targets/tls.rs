//! Changes a TLS connection on its way to Hapax as arbitrary octets say: what Hapax lets through is what its peer has said.
#![no_main]

use hapax::net::fuzzed::{Peers, tls};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::{Arc, LazyLock};

static PEERS: LazyLock<Peers> = LazyLock::new(|| {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Peers { server: Arc::new(server), client: Arc::new(client) }
});

fuzz_target!(|octets: &[u8]| tls(&PEERS, octets));
