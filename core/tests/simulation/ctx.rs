//! The context that every part of a run uses: the time, the dice, the plan, the truth, and a log for failures.
//!
//! Each client (with its connections), each window and the world have dice of their own. When a client is left out of
//! a run, the others therefore roll the same numbers: see [`super::transcript`].

use super::content::EPOCHS;
use super::plan::{Micros, Plan};
use super::rng::Rng;
use super::transcript::Transcript;
use super::truth::Truth;
use super::watch::Watch;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The context of a run.
#[derive(Debug)]
pub struct Ctx {
    /// virtual time
    pub now: Micros,
    /// the dice of the one whose turn it is
    pub rng: Rng,
    /// whose turn it is, and the dice of the others
    pub dice: Dice,
    /// who, how large, what weather
    pub plan: Plan,
    /// what really happened
    pub truth: Truth,
    /// what was done last
    pub log: Log,
    /// what the relay has written, and what it should have written
    pub transcript: Transcript,
    /// who may ask a window
    pub watch: Arc<Watch>,
}

/// Who throws dice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whose {
    /// nobody's in particular
    World,
    /// a window's
    Window(usize),
    /// a client's, its links included
    Client(usize),
}

/// The dice of all who do not throw now.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    turn: Whose,
    others: BTreeMap<Whose, Rng>,
}

impl Dice {
    /// The world begins.
    pub fn new(seed: u64) -> Dice {
        Dice { seed, turn: Whose::World, others: BTreeMap::new() }
    }

    /// The dice that somebody begins with.
    pub fn first(&self, whose: Whose) -> Rng {
        let number = match whose {
            Whose::World => 0,
            Whose::Window(at) => 1 + at as u64,
            Whose::Client(at) => 101 + at as u64,
        };
        Rng::new(self.seed.rotate_left(17).wrapping_add(number.wrapping_mul(0xD134_2543_DE82_EF95)))
    }
}

impl Ctx {
    /// Switches to the dice of this participant.
    pub fn turn_to(&mut self, whose: Whose) {
        if self.dice.turn != whose {
            let next = self.dice.others.remove(&whose).unwrap_or_else(|| self.dice.first(whose));
            self.dice.others.insert(self.dice.turn, std::mem::replace(&mut self.rng, next));
            self.dice.turn = whose;
        }
    }

    /// The epoch of a publish that begins now. Some are late: they are of the one before.
    pub fn epoch(&mut self) -> u32 {
        let Some(lasts) = self.plan.epochs else { return 0 };
        let epoch = u32::try_from(self.now / lasts).unwrap_or(EPOCHS).min(EPOCHS);
        epoch.saturating_sub(u32::from(self.rng.chance(100)))
    }

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
