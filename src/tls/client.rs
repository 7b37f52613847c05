//! The settings of connections that Hapax opens itself, to the broker and to others: whom to trust, and the certificate that it shows.

use super::certificate::{self, Identity, Unusable};
use super::live::{Live, Made};
use rustls::ClientConfig;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of the connections to a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientFiles {
    /// the authorities that may sign the server's certificate; `None`: those of the system
    pub ca: Option<PathBuf>,
    /// the certificate that Hapax shows
    pub identity: Option<Identity>,
}

/// The TLS settings of connections to a server, which may be read again while Hapax runs.
pub type Client = Live<ClientConfig>;

impl ClientFiles {
    /// Reads the files. `used_for` is the server, for the log and for metrics.
    pub fn open(self, used_for: &str) -> Result<Arc<Client>, Unusable> {
        let paths = self.ca.iter().cloned().chain(self.identity.iter().flat_map(Identity::paths)).collect();
        Live::open(used_for, paths, move || self.make())
    }

    /// Checks that the files can be used.
    pub fn check(&self) -> Result<(), Unusable> {
        self.make().map(drop)
    }

    fn make(&self) -> Result<Made<ClientConfig>, Unusable> {
        let provider = super::provider();
        let roots = match &self.ca {
            Some(ca) => certificate::authorities(ca)?,
            None => certificate::authorities_of_system()?,
        };
        let identity = self.identity.as_ref().map(|identity| identity.load(&provider)).transpose()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                Unusable::new(self.ca.as_deref().unwrap_or("TLS".as_ref()), error.to_string(), "")
            })?
            .with_root_certificates(roots);
        let (config, expiries) = match identity {
            None => (builder.with_no_client_auth(), Vec::new()),
            Some((key, expiry)) => (builder.with_client_cert_resolver(Arc::new(Own(key))), vec![expiry]),
        };
        Ok(Made { config: Arc::new(config), expiries })
    }
}

/// The one certificate that Hapax has, for whoever asks.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _roots: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes)?;
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
