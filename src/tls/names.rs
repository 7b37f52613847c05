//! Lets clients in by the names in their certificates, after their chain was verified.

use super::certificate::names;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::sync::Arc;

/// Verifies the chain as another verifier does, and then the names.
#[derive(Debug)]
pub(super) struct AllowedNames {
    chain: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

/// The certificate is valid, but it has none of the names.
#[derive(Debug, thiserror::Error)]
#[error("none of its names is in client_names: {}", .0.join(", "))]
struct NoAllowedName(Vec<String>);

impl AllowedNames {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, allowed: &[String]) -> AllowedNames {
        AllowedNames { chain, allowed: allowed.to_vec() }
    }
}

/// Returns true if a name of a certificate is the allowed one. `*.` at the beginning of the allowed one stands for one label.
/// Case does not matter.
fn fits(allowed: &str, name: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && label != "*" && rest.eq_ignore_ascii_case(parent)
        }),
        None => allowed.eq_ignore_ascii_case(name),
    }
}

impl ClientCertVerifier for AllowedNames {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let names = names(end_entity);
        if names.iter().any(|name| self.allowed.iter().any(|allowed| fits(allowed, name))) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NoAllowedName(names))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        for (allowed, name, fit) in [
            ("orders", "orders", true),
            ("orders", "Orders", true),
            ("orders", "orders.example", false),
            ("*.example", "orders.example", true),
            ("*.example", "a.orders.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "*.example", false),
            ("*", "orders", false),
            ("spiffe://prod/orders", "spiffe://prod/orders", true),
        ] {
            assert_eq!(fits(allowed, name), fit, "{allowed} {name}");
        }
    }
}
