//! What every part of a run has at hand: the time, the dice, the plan, the truth, and a log for the day it fails.

use super::plan::{Micros, Plan};
use super::rng::Rng;
use super::truth::Truth;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub struct Ctx {
    /// virtual time
    pub now: Micros,
    /// the dice
    pub rng: Rng,
    /// who, how large, what weather
    pub plan: Plan,
    /// what really happened
    pub truth: Truth,
    /// what was done last
    pub log: Log,
}

impl Ctx {
    /// A time up to `most` from now.
    pub fn soon(&mut self, most: Micros) -> Micros {
        self.now + self.rng.between(1, most.max(1))
    }
}

/// The last lines. It listens only when a failed run is run again.
#[derive(Debug, Default)]
pub struct Log {
    /// how many lines it keeps; 0 = it does not listen
    pub kept: usize,
    /// what it has heard
    pub lines: VecDeque<String>,
}

impl Log {
    /// A line, made only where somebody listens.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.kept > 0 {
            self.lines.push_back(line());
            if self.lines.len() > self.kept {
                self.lines.pop_front();
            }
        }
    }
}
