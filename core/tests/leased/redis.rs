//! A Redis that is a map. It knows nothing of Hapax but the five questions, and that a record begins with an `S`.

use hapax_core::window::leased::{Answer, LeasedWindow, Question, Request};
use hapax_core::window::logged::{Record, What};
use hapax_core::window::{Claim, Key};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A command on its way, with all that it needs: the relay that has sent it may be dead when it is executed.
#[derive(Clone, Debug)]
pub enum Command {
    /// a question, the value of its lease, and how long the lease lives
    Ask(Question, Vec<u8>, Duration),
    /// set this value for this time
    Set([u8; Key::OCTETS], Vec<u8>, Duration),
    /// remove it if its value begins so
    Clear([u8; Key::OCTETS], Vec<u8>),
    /// remove it if it is a record
    Forget([u8; Key::OCTETS]),
    /// let a record live for this time; without one, set this value
    Touch([u8; Key::OCTETS], Vec<u8>, Duration),
    /// nothing
    Nothing,
    /// count a flush
    Flush,
}

/// Makes the command of a record, as the shell does.
pub fn write(
    window: &LeasedWindow<impl hapax_core::window::Listener>,
    record: &Record,
    now: Instant,
) -> Command {
    let of = |claim: &Claim| {
        let key = claim.key();
        key.octets()
    };
    match &record.what {
        What::Seen(claim, memo) => {
            let left = memo.ttl().saturating_sub(now.saturating_duration_since(record.at));
            match left.is_zero() {
                true => Command::Clear(of(claim), window.own_lease()),
                false => Command::Set(of(claim), window.seen(*claim, *memo), left),
            }
        }
        What::Touched(claim, memo) => Command::Touch(of(claim), window.seen(*claim, *memo), memo.ttl()),
        What::Forgotten(claim) => Command::Forget(of(claim)),
        What::Flushed => Command::Flush,
        What::ProducerForgotten(_) | What::Producer(_) | What::Changed(_) => Command::Nothing,
    }
}

#[derive(Default)]
pub struct Redis {
    values: BTreeMap<[u8; Key::OCTETS], (Vec<u8>, Instant)>,
    pub generation: u32,
}

impl Redis {
    pub fn get(&mut self, key: [u8; Key::OCTETS], now: Instant) -> Option<Vec<u8>> {
        self.values.retain(|_, (_, until)| *until > now);
        self.values.get(&key).map(|(value, _)| value.clone())
    }

    pub fn set(&mut self, key: [u8; Key::OCTETS], value: Vec<u8>, life: Duration, now: Instant) {
        self.values.insert(key, (value, now + life));
    }

    pub fn value(&mut self, key: u128, now: Instant) -> Option<char> {
        self.get(Key(key).octets(), now).map(|value| char::from(value[0]))
    }

    pub fn leases(&mut self, now: Instant) -> usize {
        self.values.retain(|_, (_, until)| *until > now);
        self.values.values().filter(|(value, _)| value[0] == b'L').count()
    }

    /// Executes a command. Only a question has an answer that says anything.
    pub fn execute(&mut self, command: Command, now: Instant) -> Answer {
        match command {
            Command::Ask(Question { key, what, .. }, value, life) => {
                let key = key.octets();
                let have = self.get(key, now);
                match (what, have) {
                    (Request::Lease | Request::Replace(_) | Request::Renew, None) => {
                        self.set(key, value, life, now);
                        Answer::Done
                    }
                    (Request::Lease, Some(have)) => Answer::Found(have, Duration::ZERO),
                    (Request::Replace(from), Some(have)) if have == from => {
                        self.set(key, value, life, now);
                        Answer::Done
                    }
                    (Request::Renew, Some(have)) if have == value => {
                        self.set(key, value, life, now);
                        Answer::Done
                    }
                    (Request::Replace(_) | Request::Renew, Some(have)) => Answer::Found(have, Duration::ZERO),
                    (Request::Look, Some(have)) => {
                        let left = self.values[&key].1 - now;
                        Answer::Found(have, left)
                    }
                    (Request::Release, Some(have)) if have == value => {
                        self.values.remove(&key);
                        Answer::Done
                    }
                    (Request::Look | Request::Release, _) => Answer::Nothing,
                }
            }
            Command::Set(key, value, life) => {
                self.set(key, value, life, now);
                Answer::Done
            }
            Command::Clear(key, beginning) => {
                if self.get(key, now).is_some_and(|have| have.starts_with(&beginning)) {
                    self.values.remove(&key);
                }
                Answer::Done
            }
            Command::Forget(key) => {
                if self.get(key, now).is_some_and(|have| have[0] == b'S') {
                    self.values.remove(&key);
                }
                Answer::Done
            }
            Command::Touch(key, value, life) => {
                let have = self.get(key, now).unwrap_or(value);
                if have[0] == b'S' {
                    self.set(key, have, life, now);
                }
                Answer::Done
            }
            Command::Nothing => Answer::Done,
            Command::Flush => {
                self.generation += 1;
                Answer::Done
            }
        }
    }
}
