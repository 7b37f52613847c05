//! Why a command did not do what it was asked for. Each says what, where, and what to do; what the relay wrote is cleaned
//! before a terminal sees it.

use crate::tls;
use crate::tools::text::clean;
use std::fmt;
use std::io;

/// Failed while running.
const RUNTIME: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;

/// Why it did not work.
#[derive(Debug)]
pub enum Failure {
    /// nobody answers there
    Unreachable {
        /// the admin address
        url: String,
        /// what the system says
        why: String,
    },
    /// the relay takes too long
    Silent {
        /// the admin address
        url: String,
        /// how long it was waited for
        seconds: u64,
    },
    /// nobody knows who answers there
    Untrusted {
        /// the admin address
        url: String,
        /// what is wrong with its certificate
        why: String,
    },
    /// somebody answers, but not as a relay's admin listener does
    Foreign {
        /// the admin address
        url: String,
        /// what came
        why: String,
    },
    /// 401
    Token {
        /// the admin address
        url: String,
        /// whether one was sent
        sent: bool,
    },
    /// there is no such window
    UnknownWindow {
        /// as asked for
        name: String,
        /// those that there are
        known: Vec<String>,
    },
    /// the relay does not want to
    Refused {
        /// of HTTP
        status: u16,
        /// what it says
        error: String,
        /// what else is wrong with it
        errors: Vec<String>,
    },
    /// asked in a way that can't work
    Usage {
        /// what is wrong
        what: String,
        /// what to do
        fix: String,
    },
    /// the configuration file can't be changed
    Unsaved {
        /// what is wrong
        what: String,
        /// what to do
        fix: String,
    },
    /// the terminal, or a file, can't be written
    Io(io::Error),
}

impl Failure {
    /// Wrong usage.
    pub fn usage(what: impl Into<String>, fix: impl Into<String>) -> Failure {
        Failure::Usage { what: what.into(), fix: fix.into() }
    }

    /// A request that was not answered, because of this.
    pub fn of_io(url: String, error: &io::Error) -> Failure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Failure::Untrusted { url, why: tls::explain(error) },
            None => Failure::Unreachable { url, why: error.to_string() },
        }
    }

    /// 1 failed while running, 2 wrong usage: also where it is the relay who finds a value wrong.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage { .. } | Failure::Refused { status: 400 | 413 | 415 | 422, .. } => USAGE,
            Failure::Unreachable { .. }
            | Failure::Silent { .. }
            | Failure::Untrusted { .. }
            | Failure::Foreign { .. }
            | Failure::Token { .. }
            | Failure::UnknownWindow { .. }
            | Failure::Unsaved { .. }
            | Failure::Refused { .. }
            | Failure::Io(_) => RUNTIME,
        }
    }

    /// The reader of our output has seen enough (`hapax windows list | head -1`): no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable { url, why } => write!(
                f,
                "no relay answers at {url}: {why}\n    fix: start it (hapax --config FILE), or name its admin address with --admin URL or HAPAX_ADMIN_URL"
            ),
            Failure::Silent { url, seconds } => write!(
                f,
                "{url} has not answered within {seconds} s; what was asked may still be done\n    fix: look into the relay's log, and ask again"
            ),
            Failure::Untrusted { url, why } => write!(
                f,
                "what answers at {url} does not show that it is the relay: {}\n    fix: name the host as its certificate does, and the file of its authority with --admin-ca FILE or HAPAX_ADMIN_CA",
                clean(why)
            ),
            Failure::Foreign { url, why } => write!(
                f,
                "what answers at {url} is no Hapax of this version: {}\n    fix: name the relay's admin address with --admin URL or HAPAX_ADMIN_URL (this is hapax {})",
                clean(why),
                env!("CARGO_PKG_VERSION")
            ),
            Failure::Token { url, sent: false } => write!(
                f,
                "{url} wants a token (401)\n    fix: set HAPAX_ADMIN_TOKEN, or name the file that holds it with --token-file FILE"
            ),
            Failure::Token { url, sent: true } => write!(
                f,
                "{url} does not accept this token (401)\n    fix: use the one that the relay was started with: its HAPAX_ADMIN_TOKEN or `admin_token_file`"
            ),
            Failure::UnknownWindow { name, known } => {
                write!(f, "there is no window `{}`\n    fix: ", clean(name))?;
                let names = known.iter().map(String::as_str);
                match crate::tools::text::alike(name, names) {
                    Some(best) => write!(f, "did you mean `{}`? hapax windows list shows all", clean(best)),
                    None => write!(f, "the windows are: {}", clean(&known.join(", "))),
                }
            }
            Failure::Refused { status, error, errors } => {
                write!(f, "the relay refuses ({status}): {}", clean(error))?;
                errors.iter().try_for_each(|error| write!(f, "\n  * {}", clean(error)))
            }
            Failure::Usage { what, fix } | Failure::Unsaved { what, fix } => {
                write!(f, "{what}\n    fix: {fix}")
            }
            Failure::Io(error) => write!(f, "can't write: {error}"),
        }
    }
}

impl std::error::Error for Failure {}
