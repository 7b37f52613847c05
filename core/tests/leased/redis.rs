//! A Redis that is a map. It knows nothing of Hapax but the five questions, and that a record begins with an `S`. It keeps every number of
//! a producer that was ever stored, in a set.

use hapax_core::window::leased::{Answer, LeasedWindow, Question, Request};
use hapax_core::window::logged::{Record, What};
use hapax_core::window::{Claim, Key, Listener, ProducerKey, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
    /// this number is stored, or was before
    Number(Claim),
    /// remove the lease of this number if its value begins so
    NumberClear(Claim, Vec<u8>),
    /// this number is not stored after all
    NumberForget(Claim),
    /// nothing is known of this producer
    ProducerForget(ProducerKey),
    /// nothing
    Nothing,
    /// count a flush
    Flush,
}

/// Makes the command of a record, as the shell does.
pub fn write(window: &LeasedWindow<impl Listener + ?Sized>, record: &Record, now: Instant) -> Command {
    let of = |claim: &Claim| {
        let key = claim.key();
        key.octets()
    };
    match &record.what {
        What::Seen(claim @ Claim::Sequence { .. }, memo) => {
            let is_over = memo.ttl() <= now.saturating_duration_since(record.at);
            match is_over {
                true => Command::NumberClear(*claim, window.own_lease()),
                false => Command::Number(*claim),
            }
        }
        What::Touched(claim @ Claim::Sequence { .. }, _) => Command::Number(*claim),
        What::Forgotten(claim @ Claim::Sequence { .. }) => Command::NumberForget(*claim),
        What::ProducerForgotten(producer) => Command::ProducerForget(*producer),
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
        What::Producer(_) | What::Changed(_) => Command::Nothing,
    }
}

#[derive(Default)]
struct Producer {
    epoch: u64,
    stored: BTreeSet<u64>,
    /// one more than the highest number that was let through
    top: u64,
}

#[derive(Default)]
pub struct Redis {
    producers: BTreeMap<ProducerKey, Producer>,
    refuses_gaps: bool,
    values: BTreeMap<[u8; Key::OCTETS], (Vec<u8>, Instant)>,
    pub generation: u32,
}

impl Redis {
    /// Does what a relay writes and asks, and gives it the answers, until there is nothing more.
    pub fn serve<L: Listener + ?Sized>(&mut self, window: &Arc<LeasedWindow<L>>, now: Instant) {
        loop {
            let (records, questions) = (window.log().take(100), window.take_questions(100));
            if records.is_none() && questions.is_empty() {
                return;
            }
            if let Some((records, position)) = records {
                for record in &records {
                    self.execute(write(window, record, now), now);
                    window.set_generation(self.generation);
                }
                window.log().written(position, now);
            }
            self.refuses_gaps = window.refuses_gaps();
            for question in questions {
                let (value, life) = (window.value(&question), window.lease_time(question.lease));
                let answer = self.execute(Command::Ask(question.clone(), value, life), now);
                window.answer(&question, answer, now);
            }
        }
    }

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

    /// Returns the producer of a number, in this epoch or a later one.
    fn producer(&mut self, producer: ProducerKey, epoch: u64) -> &mut Producer {
        let one = self.producers.entry(producer).or_default();
        if epoch > one.epoch {
            *one = Producer { epoch, ..Producer::default() };
        }
        one
    }

    fn ask_number(&mut self, question: Question, value: Vec<u8>, life: Duration, now: Instant) -> Answer {
        let Question { claim, what, .. } = question;
        let Claim::Sequence { producer, epoch, number } = claim else { panic!("an id") };
        let (key, refuses_gaps) = (claim.key().octets(), self.refuses_gaps);
        let have = self.get(key, now);
        if what == Request::Release {
            if have == Some(value) {
                self.values.remove(&key);
            }
            return Answer::Done;
        }
        let one = self.producer(producer, epoch);
        if epoch < one.epoch {
            return match what {
                Request::Renew => Answer::Granted { gap: false },
                _ => Answer::Refused(Refusal::Stale),
            };
        }
        if one.stored.contains(&number) {
            return Answer::Stored(Duration::from_secs(86_400));
        }
        let from = if let Request::Replace(from) = &what { Some(from) } else { None };
        match have {
            Some(have) if have != value && Some(&have) != from => return Answer::Found(have, Duration::ZERO),
            _ => {}
        }
        let gap = one.top > 0 && number > one.top;
        if gap && refuses_gaps && what != Request::Renew {
            return Answer::Refused(Refusal::Gap);
        }
        one.top = one.top.max(number + 1);
        self.set(key, value, life, now);
        Answer::Granted { gap }
    }

    /// Executes a command. Only a question has an answer that says anything.
    pub fn execute(&mut self, command: Command, now: Instant) -> Answer {
        match command {
            Command::Ask(question @ Question { claim: Claim::Sequence { .. }, .. }, value, life) => {
                self.ask_number(question, value, life, now)
            }
            Command::Number(claim) => {
                self.values.remove(&claim.key().octets());
                let Claim::Sequence { producer, epoch, number } = claim else { panic!("an id") };
                let one = self.producer(producer, epoch);
                if epoch == one.epoch {
                    one.stored.insert(number);
                    one.top = one.top.max(number + 1);
                }
                Answer::Done
            }
            Command::NumberClear(claim, beginning) => {
                self.execute(Command::Clear(claim.key().octets(), beginning), now)
            }
            Command::NumberForget(claim) => {
                let Claim::Sequence { producer, epoch, number } = claim else { panic!("an id") };
                let one = self.producer(producer, epoch);
                if epoch == one.epoch {
                    one.stored.remove(&number);
                }
                Answer::Done
            }
            Command::ProducerForget(producer) => {
                self.producers.remove(&producer);
                Answer::Done
            }
            Command::Ask(Question { claim, what, .. }, value, life) => {
                let key = claim.key().octets();
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
                self.producers.clear();
                self.generation += 1;
                Answer::Done
            }
        }
    }
}
