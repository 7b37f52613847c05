//! Reads certificates, keys and authorities from files in PEM.

use crate::bounded_file;
use crate::private_file::{TooOpen, read_secret};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate, with its chain, and its private key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// the certificate, and behind it those of the authorities that lead to a root
    pub certificate: PathBuf,
    /// its private key; this file must belong to its owner alone
    pub key: PathBuf,
}

/// Why a file can't be used, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unusable {
    /// the file
    pub file: PathBuf,
    /// what is wrong with it; it completes a sentence that begins with the file's name
    pub what: String,
    /// what to do
    pub fix: String,
}

impl Unusable {
    pub(super) fn new(file: &Path, what: impl Into<String>, fix: impl Into<String>) -> Unusable {
        Unusable { file: file.to_owned(), what: what.into(), fix: fix.into() }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.file.display(), self.what)
    }
}

/// The last moment at which the certificate in a file is valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expiry {
    /// the file
    pub file: PathBuf,
    /// seconds since 1970-01-01 UTC
    pub not_after: u64,
}

impl Identity {
    /// Reads both files. The key must be that of the certificate.
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<(Arc<CertifiedKey>, Expiry), Unusable> {
        let chain = certificates(&self.certificate)?;
        let unreadable = |what: &dyn fmt::Display| {
            Unusable::new(
                &self.certificate,
                format!("holds a certificate that can't be read ({what})"),
                "write the server's certificate first, and behind it those of the authorities that signed it",
            )
        };
        let first = chain.first().ok_or_else(|| unreadable(&"there is none"))?;
        let not_after = not_after(first).map_err(|error| unreadable(&error))?;
        let certified = CertifiedKey::from_der(chain, self.private_key()?, provider);
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Unusable::new(
                &self.key,
                format!("holds another key than that of the certificate in {}", self.certificate.display()),
                "name the key that the certificate was made for",
            ),
            error => unreadable(&error),
        })?;
        Ok((Arc::new(certified), Expiry { file: self.certificate.clone(), not_after }))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Unusable> {
        let (text, shared) = read_secret(&self.key).map_err(|error| unreadable(&self.key, &error))?;
        if let Some(shared) = shared {
            return Err(Unusable::new(&self.key, format!("is a file {shared}"), TooOpen::fix(&self.key)));
        }
        PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
            Unusable::new(
                &self.key,
                format!("holds no private key that can be used ({error})"),
                "write the key in PEM, without a passphrase (openssl pkey -in KEY -out KEY.plain; chmod 600 KEY.plain)",
            )
        })
    }

    /// Returns both files.
    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [self.certificate.clone(), self.key.clone()]
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Unusable {
    Unusable::new(
        path,
        format!("can't be read: {error}"),
        "name a file that this user can read; a unit of systemd gets a copy of its own by LoadCredential= (see config/hapax.service)",
    )
}

/// Returns all certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let (text, _) = bounded_file::read(path, bounded_file::MOST).map_err(|error| unreadable(path, &error))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let fix = "write the certificate in PEM: it begins with -----BEGIN CERTIFICATE-----";
    match found {
        Ok(found) if found.is_empty() => Err(Unusable::new(path, "holds no certificate", fix)),
        Ok(found) => Ok(found),
        Err(error) => Err(Unusable::new(path, format!("is no PEM ({error})"), fix)),
    }
}

/// Reads the revocation lists in a file, at least one.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Unusable> {
    let text = bounded_file::read(path, bounded_file::MOST).map_err(|error| unreadable(path, &error))?.0;
    let fix = "write the lists of all authorities in PEM: each begins with -----BEGIN X509 CRL-----";
    match CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(lists) if lists.is_empty() => Err(Unusable::new(path, "holds no revocation list", fix)),
        Ok(lists) => Ok(lists),
        Err(error) => Err(Unusable::new(path, format!("is no PEM ({error})"), fix)),
    }
}

/// Reads the authorities in a file.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            Unusable::new(
                path,
                format!("holds a certificate that can't be an authority ({error})"),
                "write the certificates of the authorities, in PEM",
            )
        })?;
    }
    Ok(roots)
}

/// Returns the certificates of the authorities in a file, or without one, of those that this system trusts.
pub fn trusted(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    if let Some(ca) = ca {
        return certificates(ca);
    }
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(none_of_system(&why))
}

/// Reads the authorities that this system trusts.
pub(super) fn authorities_of_system() -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(trusted(None)?);
    if added > 0 { Ok(roots) } else { Err(none_of_system("")) }
}

fn none_of_system(why: &str) -> Unusable {
    Unusable::new(
        Path::new("this system"),
        format!("trusts no certificate authority{why}"),
        "install the package ca-certificates, or name a file with the authorities",
    )
}

/// Returns when a certificate ends, in seconds since 1970-01-01 UTC.
fn not_after(certificate: &CertificateDer<'_>) -> Result<u64, x509_cert::der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    Ok(certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
}

/// Returns the names of a certificate: its DNS names, URIs and mail addresses, and the common name of its subject.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let certificate = certificate.tbs_certificate();
    let alternatives = certificate.get_extension::<SubjectAltName>().ok().flatten();
    let mut names: Vec<String> = alternatives
        .into_iter()
        .flat_map(|(_, SubjectAltName(names))| names)
        .filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            GeneralName::Rfc822Name(mail) => Some(mail.to_string()),
            _ => None,
        })
        .collect();
    if let Ok(Some(name)) = certificate.subject().common_name()
        && !names.contains(&name.value().to_string())
    {
        names.push(name.value().to_string());
    }
    names
}
