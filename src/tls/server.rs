//! The settings of a listener: its certificates by the name that a client asks for, and the certificates of clients.

use super::certificate::{self, Expiry, Identity, Unusable};
use super::live::{Live, Made};
use super::names::AllowedNames;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerFiles {
    /// for clients that ask for no name, or for one that is not listed
    pub identity: Identity,
    /// for clients that ask for this name (SNI); `*.` at the beginning stands for one label
    pub by_name: Vec<(String, Identity)>,
    /// how clients show who they are; `None`: they are not asked to
    pub clients: Option<ClientCertificates>,
    /// the protocols that a client may agree on (ALPN)
    pub protocols: &'static [&'static [u8]],
}

/// Which certificates clients show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificates {
    /// a client without a certificate is refused
    pub required: bool,
    /// the authorities that may sign them
    pub ca: PathBuf,
    /// the lists of those that were revoked; `None`: nobody looks
    pub crl: Option<PathBuf>,
    /// names of which a certificate must have one; empty: any will do
    pub names: Vec<String>,
}

/// The TLS settings of a listener, which may be read again while it runs.
pub type Server = Live<ServerConfig>;

impl ServerFiles {
    /// Reads the files. `used_for` is the listener, for the log and for metrics.
    pub fn open(self, used_for: &str) -> Result<Arc<Server>, Unusable> {
        let identities = std::iter::once(&self.identity).chain(self.by_name.iter().map(|(_, own)| own));
        let of_clients =
            self.clients.iter().flat_map(|clients| [Some(clients.ca.clone()), clients.crl.clone()]);
        let paths = identities.flat_map(Identity::paths).chain(of_clients.flatten()).collect();
        Live::open(used_for, paths, move || self.make())
    }

    /// Checks that the files can be used.
    pub fn check(&self) -> Result<(), Unusable> {
        self.make().map(drop)
    }

    fn make(&self) -> Result<Made<ServerConfig>, Unusable> {
        let provider = super::provider();
        let mut expiries = Vec::new();
        let mut load = |identity: &Identity| {
            let (key, expiry) = identity.load(&provider)?;
            expiries.push(expiry);
            Ok(key)
        };
        let default = load(&self.identity)?;
        let by_name = self.by_name.iter().map(|(name, own)| Ok((name.to_ascii_lowercase(), load(own)?)));
        let certificates = ByName { default, by_name: by_name.collect::<Result<_, Unusable>>()? };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Unusable::new(&self.identity.certificate, error.to_string(), ""))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(&provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        if self.clients.is_some() {
            // A resumed session would not be checked again, and would outlive the certificate of its client.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Made { config: Arc::new(config), expiries: unique(expiries) })
    }
}

fn unique(mut expiries: Vec<Expiry>) -> Vec<Expiry> {
    expiries.sort_by(|a, b| a.file.cmp(&b.file));
    expiries.dedup_by(|a, b| a.file == b.file);
    expiries
}

impl ClientCertificates {
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Unusable> {
        let roots = Arc::new(certificate::authorities(&self.ca)?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let builder = if self.required { builder } else { builder.allow_unauthenticated() };
        let lists = self.crl.as_deref().map(certificate::revocation_lists).transpose()?;
        // With lists, a certificate whose authority has none in the file is refused: rustls does so. A list that is out of date still
        // counts: it names who was revoked, and an update that is late must not close the listener to everybody.
        let builder = builder.with_crls(lists.into_iter().flatten());
        let verifier = builder.build().map_err(|error| {
            let file = self.crl.as_ref().filter(|_| matches!(error, VerifierBuilderError::InvalidCrl(_)));
            Unusable::new(
                file.unwrap_or(&self.ca),
                format!("can't be used ({error})"),
                "write the authorities, or their revocation lists, in PEM",
            )
        })?;
        match self.names.is_empty() {
            true => Ok(verifier),
            false => Ok(Arc::new(AllowedNames::new(verifier, &self.names))),
        }
    }
}

/// Chooses the certificate by the name that a client asks for.
#[derive(Debug)]
struct ByName {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn find(&self, asked: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(asked) = asked.filter(|_| !self.by_name.is_empty()) else { return &self.default };
        let name = asked.trim_end_matches('.').to_ascii_lowercase();
        let under = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let found = self.by_name.get(&name).or_else(|| self.by_name.get(&under?));
        found.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.find(hello.server_name())))
    }
}
