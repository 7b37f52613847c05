//! Secrets that come from files: the token of the admin listener, and the secret of the id digests.
//!
//! A secret is never given on the command line, because every user of a host can read that. A file with a secret must
//! belong to its owner alone. The token may also come from the environment. It is compared in constant time. Neither
//! secret is ever shown.

use super::problem::Wrong;
use crate::private_file::{TooOpen, read_secret};
use hapax_core::window::KeyMaker;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;

/// Bytes. A shorter token can be guessed.
const SHORTEST: usize = 16;
/// Bytes. A token must fit in a header line.
const LONGEST: usize = 4096;
/// The hint for making a token.
const MAKE: &str = "make one with: openssl rand -hex 32";
/// Bytes of a digest's secret. It is condensed to 16 anyway.
const LONGEST_DIGEST_SECRET: usize = 256;
/// How to make a digest's secret.
const MAKE_DIGEST_SECRET: &str = "make one with: openssl rand -hex 16";

/// Where systemd puts the files of `LoadCredential=`. A path may begin with it.
const CREDENTIALS: &str = "${CREDENTIALS_DIRECTORY}";

/// Returns the path that a text names. `${CREDENTIALS_DIRECTORY}` at its beginning is the folder that systemd has made for
/// this service. No other variable is replaced.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    path_in(text, std::env::var_os("CREDENTIALS_DIRECTORY"))
}

fn path_in(text: &str, credentials: Option<OsString>) -> Result<PathBuf, Wrong> {
    let Some(rest) = text.strip_prefix(CREDENTIALS) else { return Ok(PathBuf::from(text)) };
    let folder = credentials.filter(|folder| !folder.is_empty()).ok_or_else(|| {
        Wrong::new(
            format!("is {text:?}, but the variable CREDENTIALS_DIRECTORY is not set"),
            "systemd sets it for a unit with LoadCredential= (see config/hapax.service); elsewhere, write the path of the file",
        )
    })?;
    match rest.strip_prefix('/') {
        Some(name) => Ok(PathBuf::from(folder).join(name)),
        None => Err(Wrong::new(
            format!("is {text:?}, which names no file"),
            format!("write a file's name behind it, as in \"{CREDENTIALS}/hapax.admin.token\""),
        )),
    }
}

/// The token that the admin listener asks for.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Checks the text of a token. Blanks and line ends around it are dropped.
    pub(super) fn new(text: &str) -> Result<Token, Wrong> {
        let token = text.trim();
        match token.len() {
            0 => Err(Wrong::new("holds no token", MAKE)),
            length if length < SHORTEST => Err(Wrong::new(
                format!("holds a token of {length} bytes, below the minimum of {SHORTEST}"),
                MAKE,
            )),
            length if length > LONGEST => Err(Wrong::new(
                format!("holds a token of more than {LONGEST} bytes, which no header line carries"),
                MAKE,
            )),
            _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(Wrong::new(
                "holds a token with blanks or other bytes that no header line carries",
                format!("use letters, digits and punctuation of ASCII only; {MAKE}"),
            )),
            _ => Ok(Token(token.as_bytes().into())),
        }
    }

    /// Reads the token from this file. The file must belong to its owner alone. `otherwise` says what to do where a file can't.
    pub(super) fn read(path: &Path, otherwise: &str) -> Result<Token, Wrong> {
        read_private(path, Token::new, ("token", MAKE), otherwise)
    }

    /// Returns true if `given` is this token. The time does not depend on where the two differ, only on the length.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The secret of the id digests. Processes with the same secret make the same digest of an id.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestSecret(Box<[u8]>);

impl DigestSecret {
    /// The hexadecimal digits of at least [`SHORTEST`] bytes. Blanks and line ends around them do not count.
    fn new(text: &str) -> Result<DigestSecret, Wrong> {
        let digits = text.trim().as_bytes();
        let pairs = digits.chunks(2).map(|pair| match pair {
            [high, low] => Some(hex(*high)? << 4 | hex(*low)?),
            _ => None,
        });
        match pairs.collect::<Option<Box<[u8]>>>() {
            Some(bytes) if bytes.is_empty() => Err(Wrong::new("holds no secret", MAKE_DIGEST_SECRET)),
            Some(bytes) if bytes.len() < SHORTEST => Err(Wrong::new(
                format!("holds {} bytes, below the minimum of {SHORTEST}", bytes.len()),
                MAKE_DIGEST_SECRET,
            )),
            Some(bytes) if bytes.len() > LONGEST_DIGEST_SECRET => Err(Wrong::new(
                format!("holds {} bytes, above the maximum of {LONGEST_DIGEST_SECRET}", bytes.len()),
                MAKE_DIGEST_SECRET,
            )),
            Some(bytes) => Ok(DigestSecret(bytes)),
            None => {
                Err(Wrong::new("holds something else than pairs of hexadecimal digits", MAKE_DIGEST_SECRET))
            }
        }
    }

    /// The secret in this file, which must be its owner's alone.
    pub(super) fn read(path: &Path) -> Result<DigestSecret, Wrong> {
        read_private(path, DigestSecret::new, ("secret", MAKE_DIGEST_SECRET), "")
    }

    /// The same for a file that no key of the configuration names. The error says what is wrong, and what to do.
    pub(crate) fn of_file(path: &Path) -> Result<DigestSecret, (String, String)> {
        DigestSecret::read(path).map_err(|wrong| (wrong.what, wrong.fix))
    }

    /// Returns the maker of keys with this secret.
    pub(crate) fn keys(&self) -> KeyMaker {
        KeyMaker::of_secret(&self.0)
    }
}

impl fmt::Debug for DigestSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestSecret(***)")
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Reads a file that holds one secret and is its owner's alone. `what` names the secret and says how to make one.
pub(super) fn read_private<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
    (what, make): (&str, &str),
    otherwise: &str,
) -> Result<T, Wrong> {
    let unreadable = |error: std::io::Error| {
        let fix = if error.kind() == std::io::ErrorKind::PermissionDenied {
            format!(
                "name a file that this user can read; a unit of systemd with DynamicUser gets a copy of its own by LoadCredential=, and finds it at \"{CREDENTIALS}/hapax.admin.token\" (see config/hapax.service)"
            )
        } else {
            format!("name a file that this user can read and that holds the {what} alone; {make}")
        };
        Wrong::new(format!("names {}, which can't be read: {error}", path.display()), fix)
    };
    let (text, shared) = read_secret(path).map_err(unreadable)?;
    let secret = parse(&text).map_err(|wrong| Wrong {
        what: format!("names {}, which {}", path.display(), wrong.what),
        ..wrong
    })?;
    match shared {
        None => Ok(secret),
        Some(shared) => Err(Wrong::new(
            format!("names {}, {shared}", path.display()),
            format!("{}{otherwise}", TooOpen::fix(path)),
        )),
    }
}

/// A token from the environment, not checked yet, or a password of a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_folder_is_found() {
        let folder = || Some(OsString::from("/run/credentials/hapax.service"));
        let token = "${CREDENTIALS_DIRECTORY}/hapax.admin.token";
        let found = PathBuf::from("/run/credentials/hapax.service/hapax.admin.token");
        assert_eq!(path_in(token, folder()), Ok(found));
        assert_eq!(path_in("/etc/${HOME}", folder()), Ok(PathBuf::from("/etc/${HOME}")));
        assert!(path_in(token, None).is_err_and(|wrong| wrong.fix.contains("LoadCredential=")));
        assert!(path_in("${CREDENTIALS_DIRECTORY}", folder()).is_err());
        assert!(path_in("${CREDENTIALS_DIRECTORY}x", folder()).is_err());
    }
}
