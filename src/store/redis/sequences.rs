//! The commands about numbers (`id = "sequence"`): one script, which changes the hash of a producer. `sequence.lua` says how it looks.
//!
//! Redis counts in doubles, which know no number above 2^53 for certain. An epoch and a number are therefore texts of 16 digits. The place of a
//! number is a chunk of 1,024 numbers and a bit in it.

use super::connect::Command;
use super::names::Names;
use super::{Failed, Leased};
use hapax_core::window::leased::{Answer, Question, Request, millis};
use hapax_core::window::{Claim, Key, ProducerKey, Refusal};
use redis::{Cmd, Value, cmd};
use std::time::Duration;

/// The script.
const SCRIPT: &str = include_str!("sequence.lua");
/// The numbers of a chunk.
const CHUNK: u64 = 1024;

/// A number, as commands name it.
#[derive(Clone, Copy)]
pub(super) struct Number {
    producer: ProducerKey,
    epoch: u64,
    number: u64,
}

impl Number {
    /// Returns the number of a claim, if it is one.
    pub(super) fn of(claim: Claim) -> Option<Number> {
        match claim {
            Claim::Digest(_) => None,
            Claim::Sequence { producer, epoch, number } => Some(Number { producer, epoch, number }),
        }
    }
}

/// Returns the command that makes the script known to Redis. Its reply is the name of the script.
pub(super) fn load() -> Cmd {
    let mut load = cmd("SCRIPT");
    load.arg("LOAD").arg(SCRIPT);
    load
}

/// Makes a call of the script. The script says what each letter means.
fn call(
    window: &Leased,
    names: &Names,
    what: &str,
    Number { producer, epoch, number }: Number,
) -> (Vec<u8>, Cmd) {
    let key = names.key(Key::from(producer));
    let mut call = match names.script() {
        Some(script) => {
            let mut call = cmd("EVALSHA");
            call.arg(script);
            call
        }
        None => {
            let mut call = cmd("EVAL");
            call.arg(SCRIPT);
            call
        }
    };
    let digits = |number: u64| format!("{number:016x}");
    call.arg(1).arg(&key).arg(what).arg(digits(epoch)).arg(digits(number));
    call.arg(digits(number.saturating_add(1))).arg(number / CHUNK).arg(number % CHUNK);
    call.arg(window.set_generation(0));
    (key, call)
}

/// Returns the command that writes a number that is stored, for as long as is left of its TTL.
pub(super) fn stored(window: &Leased, names: &Names, number: Number, left: Duration) -> Command {
    let (key, mut cmd) = call(window, names, if left.is_zero() { "K" } else { "C" }, number);
    match left.is_zero() {
        true => cmd.arg(window.own_lease()),
        false => cmd.arg(millis(left)),
    };
    Command { key, cmd }
}

/// Returns the command that says that the producer of a number that was stored is alive.
pub(super) fn touched(window: &Leased, names: &Names, number: Number, left: Duration) -> Command {
    let (key, mut cmd) = call(window, names, "T", number);
    cmd.arg(millis(left));
    Command { key, cmd }
}

/// Returns the command that makes a number unknown.
pub(super) fn forgotten(window: &Leased, names: &Names, number: Number) -> Command {
    let (key, cmd) = call(window, names, "U", number);
    Command { key, cmd }
}

/// Returns the command that makes everything about a producer unknown.
pub(super) fn producer_forgotten(window: &Leased, names: &Names, producer: ProducerKey) -> Command {
    let (key, cmd) = call(window, names, "P", Number { producer, epoch: 0, number: 0 });
    Command { key, cmd }
}

/// Returns the command of a question.
pub(super) fn ask(window: &Leased, names: &Names, question: &Question, number: Number) -> Command {
    let what = match question.what {
        Request::Lease | Request::Replace(_) | Request::Look => "R",
        Request::Renew => "W",
        Request::Release => "X",
    };
    let (key, mut cmd) = call(window, names, what, number);
    cmd.arg(window.value(question));
    if question.what != Request::Release {
        let keep = question.lease.keep;
        cmd.arg(millis(window.lease_time(question.lease)).saturating_sub(keep)).arg(keep);
        match &question.what {
            Request::Replace(from) => cmd.arg(&**from),
            _ => cmd.arg(""),
        };
        cmd.arg(u8::from(window.refuses_gaps()));
    }
    Command { key, cmd }
}

/// Reads the reply to a question.
pub(super) fn answer(question: &Question, reply: Value) -> Result<Answer, Failed> {
    if question.what == Request::Release {
        return Ok(Answer::Done);
    }
    let Value::Array(parts) = reply else { return Err(Failed::Strange) };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(Value::BulkString(what)), more) => match (&*what, more) {
            (b"F", Some(Value::Int(gap))) => Ok(Answer::Granted { gap: gap == 1 }),
            (b"D", Some(Value::Int(left))) => {
                Ok(Answer::Stored(Duration::from_millis(u64::try_from(left).unwrap_or(0))))
            }
            (b"L", Some(Value::BulkString(value))) => Ok(Answer::Found(value, Duration::ZERO)),
            (b"S", None) => Ok(Answer::Refused(Refusal::Stale)),
            (b"G", None) => Ok(Answer::Refused(Refusal::Gap)),
            _ => Err(Failed::Strange),
        },
        _ => Err(Failed::Strange),
    }
}
