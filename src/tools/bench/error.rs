//! Why there is no result, and with which code the process then ends.

use std::fmt::Write as _;
use std::io;

/// Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// what is asked for can't be
    #[error("{what}\n    fix: {fix}")]
    Usage {
        /// what is wrong
        what: String,
        /// what to do
        fix: String,
    },
    /// nobody answers there
    #[error("no broker answers at {address}: {source}\n    fix: start it, or name another one with --url")]
    Unreachable {
        /// host and port
        address: String,
        /// what the system says
        source: io::Error,
    },
    /// the broker closed the connection or the channel, and says why
    #[error("the broker refuses: {code} {text}")]
    Refused {
        /// of AMQP
        code: u16,
        /// what it says
        text: String,
    },
    /// the connection is gone
    #[error("the connection to {address} is gone ({doing}): {why}")]
    Lost {
        /// host and port
        address: String,
        /// what we were at
        doing: &'static str,
        /// what was seen
        why: String,
    },
    /// the other side does not keep to AMQP 0-9-1
    #[error("{address} says what AMQP 0-9-1 does not allow: {what}")]
    Strange {
        /// host and port
        address: String,
        /// what it said
        what: String,
    },
    /// nothing moves any more
    #[error("nothing has moved for {seconds} s: {published} messages are published and {answered} answered")]
    Stalled {
        /// the patience
        seconds: u64,
        /// so far
        published: u64,
        /// so far
        answered: u64,
    },
    /// the operating system said no
    #[error("{doing}: {source}")]
    Io {
        /// what we were doing
        doing: String,
        /// what it said
        source: io::Error,
    },
    /// a step of the comparison failed
    #[error("{0}")]
    Step(String),
}

impl Error {
    /// 1 failed while running, 2 wrong usage.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } => 2,
            Error::Unreachable { .. }
            | Error::Refused { .. }
            | Error::Lost { .. }
            | Error::Strange { .. }
            | Error::Stalled { .. }
            | Error::Io { .. }
            | Error::Step(_) => 1,
        }
    }

    /// All that is wrong with what was asked for, at once.
    pub(super) fn usage(problems: &[(String, String)]) -> Option<Error> {
        let ((what, fix), others) = problems.split_first()?;
        let mut fix = fix.clone();
        for (other, other_fix) in others {
            let _ = write!(fix, "\nerror: {other}\n    fix: {other_fix}");
        }
        Some(Error::Usage { what: what.clone(), fix })
    }

    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing: doing.into(), source }
    }
}
