//! Why a reload was refused.

use crate::config::Problems;
use std::fmt::Display;

/// Why a reload was refused. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// another one is under way, or the process has not started yet, or it drains
    Busy(&'static str),
    /// all that is wrong
    Wrong(Vec<String>),
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Refused {
        Refused::Wrong(problems.0.iter().map(one_line).collect())
    }
}

/// Returns a problem and its fix as one line.
pub fn one_line(problem: &impl Display) -> String {
    problem.to_string().replace("\n    ", "; ")
}
