//! The settings of TLS, made from files: certificates of listeners, certificates of clients, and whom to trust as the broker.
//! Nothing here reads or writes a socket.
//!
//! [`ServerFiles`] and [`ClientFiles`] name files, [`Live`] is what was made of them, and [`Certificates`] reads all of them again.

mod certificate;
mod client;
mod live;
mod names;
mod server;

pub use certificate::{Expiry, Identity, Unusable, trusted};
pub use client::{Client, ClientFiles};
pub use live::{Certificates, Live, Reread};
pub use server::{ClientCertificates, Server, ServerFiles};

use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, Error, InvalidMessage};
use std::io;
use std::sync::Arc;

/// Returns the cryptography that all TLS of Hapax uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Says why a handshake with a server has failed, for people. `server` is what the server is called.
pub fn explain_handshake(server: &str, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("{server} has closed the connection during the TLS handshake")
        }
        _ => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            format!("TLS: {}", inner.map_or_else(|| error.to_string(), explain))
        }
    };
    io::Error::new(error.kind(), text)
}

/// Says why a handshake has failed, for people.
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.to_string().as_str() {
            "CaUsedAsEndEntity" => {
                "its certificate is that of an authority (CA:TRUE); it needs one of its own, which an authority has signed".to_owned()
            }
            other => other.to_owned(),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "this is no TLS".to_owned(),
        error => error.to_string(),
    }
}
