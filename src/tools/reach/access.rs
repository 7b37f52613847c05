//! Where the relay is and with which token: decided once, before anything is asked. Flags come before the environment.
//! A token is never an argument, because other users can read those.

use super::Failure;
use crate::config::defaults;
use crate::private_file::{TooOpen, read_secret};
use crate::tls;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A relay's admin listener, and the right to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    url: String,
    token: Option<String>,
    /// the authorities that may sign its certificate; none where it speaks plain HTTP
    authorities: Vec<CertificateDer<'static>>,
}

/// Never with the token.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("url", &self.url).field("token", &self.token.is_some()).finish()
    }
}

impl Access {
    /// `admin` as given (`http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`; the default without); the authorities from the file
    /// `ca`, or else those of the system; the token from this file, or else from the value of the environment.
    pub fn new(
        admin: Option<&str>,
        ca: Option<&Path>,
        token_file: Option<&Path>,
        token: Option<String>,
    ) -> Result<Access, Failure> {
        // An authority is named for TLS only.
        let scheme = if ca.is_some() { "https" } else { "http" };
        let url = match admin {
            Some(admin) => url(admin, scheme)?,
            None => format!("{scheme}://{}", defaults::ADMIN),
        };
        if ca.is_some() && !url.starts_with("https://") {
            return Err(Failure::usage(
                format!("{url} is plain HTTP, and --admin-ca or HAPAX_ADMIN_CA names an authority"),
                "say it like https://HOST:15673, or leave the authority out",
            ));
        }
        let token = match token_file {
            Some(file) => Some(read_token(file)?),
            None => token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
        };
        // Refuse a token that a header can't carry here: the HTTP client's own error would show it.
        if token.as_deref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let place =
                token_file.map_or_else(|| "HAPAX_ADMIN_TOKEN".to_owned(), |f| f.display().to_string());
            return Err(Failure::usage(
                format!("{place}: a token has only visible ASCII characters, without spaces"),
                "use the one that the relay was started with",
            ));
        }
        let authorities = if url.starts_with("https://") {
            tls::trusted(ca).map_err(|unusable| Failure::usage(unusable.to_string(), &unusable.fix))?
        } else {
            Vec::new()
        };
        Ok(Access { url, token, authorities })
    }

    /// Without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Returns the settings of TLS: the relay's certificate is always checked.
    pub(crate) fn tls(&self) -> TlsConfig {
        let authorities: Vec<Certificate<'static>> =
            self.authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&authorities))
            .unversioned_rustls_crypto_provider(Arc::clone(&tls::provider()))
            .build()
    }
}

fn read_token(file: &Path) -> Result<String, Failure> {
    let fix = "write the relay's token into it, alone";
    let shown = file.display();
    let (text, shared) = read_secret(file)
        .map_err(|error| Failure::usage(format!("{shown}: the token file can't be read: {error}"), fix))?;
    if let Some(shared) = shared {
        return Err(Failure::usage(format!("{shown}: the token file, {shared}"), TooOpen::fix(file)));
    }
    match text.trim() {
        "" => Err(Failure::usage(format!("{shown}: the token file is empty"), fix)),
        token => Ok(token.to_owned()),
    }
}

/// Returns the address as a base for paths. An error shows the given text only if it holds no password.
fn url(given: &str, scheme: &str) -> Result<String, Failure> {
    let fix = "say it like http://127.0.0.1:15673, or https://HOST:15673 for a relay with [admin_tls]";
    let given = given.trim();
    if given == "off" {
        return Err(Failure::usage(
            "the relay's admin listener is off",
            "start the relay with --admin IP:PORT",
        ));
    }
    if given.contains('@') {
        return Err(Failure::usage(
            "--admin: credentials in a URL are seen by other users",
            "leave them out; a token comes from HAPAX_ADMIN_TOKEN or --token-file FILE",
        ));
    }
    let full = if given.contains("://") { given.to_owned() } else { format!("{scheme}://{given}") };
    let uri: Uri = full
        .parse()
        .map_err(|error| Failure::usage(format!("--admin {given:?} is no address: {error}"), fix))?;
    let (scheme, standard) = match uri.scheme_str() {
        Some("http") => ("http", 80),
        Some("https") => ("https", 443),
        _ => return Err(Failure::usage(format!("--admin {given:?}: the admin listener speaks HTTP"), fix)),
    };
    let Some(host) = uri.host().filter(|host| !host.is_empty() && uri.query().is_none()) else {
        return Err(Failure::usage(format!("--admin {given:?} names no host, or more than one"), fix));
    };
    // Where it listens on all addresses, it listens on loopback, too.
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    let port =
        uri.port_u16().unwrap_or(if given.contains("://") { standard } else { defaults::ADMIN.port() });
    Ok(format!("{scheme}://{host}:{port}{}", uri.path().trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(admin: &str) -> Result<String, String> {
        Access::new(Some(admin), None, None, None)
            .map(|access| access.url().to_owned())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn addresses_are_forgiving() {
        assert_eq!(Access::new(None, None, None, None).expect("default").url(), "http://127.0.0.1:15673");
        for (given, url) in [
            ("http://10.0.0.1:15673/", "http://10.0.0.1:15673"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
            ("relay.example", "http://relay.example:15673"),
            ("http://proxy.example/hapax/", "http://proxy.example:80/hapax"),
            ("https://10.0.0.1:15673/", "https://10.0.0.1:15673"),
            ("https://proxy.example/hapax", "https://proxy.example:443/hapax"),
            ("0.0.0.0:9", "http://127.0.0.1:9"),
            ("[::]:9", "http://[::1]:9"),
        ] {
            assert_eq!(to(given).as_deref(), Ok(url), "{given}");
        }
    }

    #[test]
    fn who_names_an_authority_means_tls() {
        let to = |admin| {
            let ca = Path::new("/dev/null");
            Access::new(admin, Some(ca), None, None).expect_err("no certificate is in there").to_string()
        };
        for admin in [None, Some("h:1"), Some("https://h")] {
            assert!(to(admin).contains("holds no certificate"), "{admin:?}: {}", to(admin));
        }
        assert!(to(Some("http://h:1")).contains("plain HTTP"), "{}", to(Some("http://h:1")));
    }

    #[test]
    fn wrong_addresses_say_what_to_do() {
        for (given, text) in [
            ("ftp://h:1", "like http://"),
            ("off", "--admin IP:PORT"),
            ("http://", "like http://"),
            ("a b", "no address"),
            ("http://h?x=1", "like http://"),
        ] {
            let error = to(given).expect_err(given);
            assert!(error.contains(text) && error.contains("fix: "), "{given}: {error}");
        }
        let error = to("http://admin:secret@h").expect_err("credentials");
        assert!(!error.contains("secret") && error.contains("HAPAX_ADMIN_TOKEN"), "{error}");
    }

    #[test]
    fn a_token_is_trimmed_checked_and_never_shown() {
        let with = |token: &str| Access::new(None, None, None, Some(token.to_owned()));
        assert_eq!(with(" abc\n").expect("valid").token(), Some("abc"));
        assert_eq!(with("").expect("an empty variable is none").token(), None);
        assert!(!format!("{:?}", with("abcdef")).contains("abcdef"));
        let error = with("geheim\x1bnis").expect_err("control character").to_string();
        assert!(error.contains("HAPAX_ADMIN_TOKEN") && !error.contains("geheim"), "{error}");
        let error = Access::new(None, None, Some(Path::new("no/such/file")), None).expect_err("no file");
        assert!(error.to_string().contains("no/such/file") && error.exit_code() == 2, "{error}");
    }

    #[test]
    fn a_token_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = std::env::temp_dir().join(format!("hapax-access-{}", std::process::id()));
        std::fs::write(&file, "geheimnis\n").expect("written");
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("changed");
            match Access::new(None, None, Some(&file), None) {
                Ok(access) => assert!(good && access.token() == Some("geheimnis"), "{mode:o}"),
                Err(error) => {
                    assert!(!good && error.exit_code() == 2, "{mode:o}: {error}");
                    let error = error.to_string();
                    assert!(error.contains("chmod 600 ") && !error.contains("geheimnis"), "{error}");
                }
            }
        }
        std::fs::remove_file(&file).expect("removed");
    }
}
