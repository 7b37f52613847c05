//! Certificates for tests: an authority of their own, and what it signs. All are made anew, in a folder that goes away.

use hapax_testbed::Leash;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_cert::der::Decode;

/// An authority, and a folder with what it has signed.
pub struct Pki {
    leash: Leash,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// The two keys of the configuration.
    pub fn toml(&self) -> String {
        format!("certificate = {:?}\nkey = {:?}\n", self.certificate, self.key)
    }

    pub fn paths(&self) -> (&Path, &Path) {
        (&self.certificate, &self.key)
    }

    /// The certificate as it is sent.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }

    fn serial_number(&self) -> SerialNumber {
        let certificate = x509_cert::Certificate::from_der(&self.der()).unwrap();
        SerialNumber::from_slice(certificate.tbs_certificate().serial_number().as_bytes())
    }

    /// Takes the place of other files, each by a rename, as tools that renew certificates do.
    pub fn replace(&self, other: &Files) {
        std::fs::rename(&self.certificate, &other.certificate).unwrap();
        std::fs::rename(&self.key, &other.key).unwrap();
    }
}

impl Pki {
    pub fn new() -> Pki {
        let leash = Leash::new("pki").unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let name = format!("authority {}", leash.folder().display());
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(leash.folder().join("ca.pem"), authority.pem()).unwrap();
        Pki { leash, authority }
    }

    pub fn folder(&self) -> &Path {
        self.leash.folder()
    }

    /// The file with the authority.
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// A certificate for these hosts, in files of this name. The first host is its common name, too.
    pub fn issue(&self, file: &str, hosts: &[&str]) -> Files {
        self.issue_with(file, hosts, |_| {})
    }

    /// A certificate that ended long ago.
    pub fn expired(&self, file: &str, hosts: &[&str]) -> Files {
        self.issue_with(file, hosts, |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    pub fn issue_with(
        &self,
        file: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Files {
        let names: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2019, 1, 1);
        params.distinguished_name.push(DnType::CommonName, hosts[0]);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let files = Files {
            certificate: self.folder().join(format!("{file}.pem")),
            key: self.folder().join(format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        let _ = std::fs::remove_file(&files.key);
        let secret = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&files.key);
        std::io::Write::write_all(&mut secret.unwrap(), key.serialize_pem().as_bytes()).unwrap();
        files
    }

    /// A revocation list in a file of this name: these certificates count no more.
    pub fn revoke(&self, file: &str, revoked: &[&Files]) -> PathBuf {
        let revoked = revoked.iter().map(|files| RevokedCertParams {
            serial_number: files.serial_number(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            // Long ago: a list that is out of date still counts.
            next_update: date_time_ymd(2020, 2, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder().join(file);
        std::fs::write(&path, list.signed_by(&self.authority).unwrap().pem().unwrap()).unwrap();
        path
    }

    /// A server that shows this certificate, and asks clients for one of this authority.
    pub fn server(&self, own: &Files) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(clients.build().unwrap());
        Arc::new(builder.with_single_cert(vec![own.der()], key).unwrap())
    }

    /// A client that trusts this authority, speaks these versions, and shows a certificate or none.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Files>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
                builder.with_client_auth_cert(vec![own.der()], key).unwrap()
            }
        })
    }
}
