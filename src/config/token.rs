//! The password of the admin listener: one token, from a file or the environment, never from the command line (every
//! user of a host can read that). It is compared in constant time and shown to nobody.

use super::problem::Wrong;
use std::fmt;
use std::io::Read;
use std::path::Path;
use subtle::ConstantTimeEq;

/// Bytes. Shorter than this can be guessed.
const SHORTEST: usize = 16;
/// Bytes. It travels in a header line.
const LONGEST: usize = 4096;
/// How to make one.
const MAKE: &str = "make one with: openssl rand -hex 32";

/// The token that the admin listener asks for.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Blanks and line ends around it do not count.
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

    /// The token in this file, and whether everybody on this host can read it.
    pub(super) fn read(path: &Path) -> Result<(Token, bool), Wrong> {
        let unreadable = |error: std::io::Error| {
            Wrong::new(
                format!("names {}, which can't be read: {error}", path.display()),
                format!("name a file that this user can read and that holds the token alone; {MAKE}"),
            )
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        // Room for blanks around it; a device that never ends must not be read to its end.
        (&file).take(2 * LONGEST as u64).read_to_string(&mut text).map_err(unreadable)?;
        let token = Token::new(&text).map_err(|wrong| Wrong {
            what: format!("names {}, which {}", path.display(), wrong.what),
            ..wrong
        })?;
        Ok((token, is_open_to_all(&file)))
    }

    /// Whether this is it. Takes as long for a wrong one as for the right one; only the length shows.
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

/// Whether users that are neither its owner nor in its group can read it.
fn is_open_to_all(file: &std::fs::File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// A token as the environment gives it, not looked at yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
