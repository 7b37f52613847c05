//! Makes commands of records and questions, and answers of replies.

use super::connect::Command;
use super::names::Names;
use super::sequences::{self, Number};
use super::{Failed, Leased};
use hapax_core::window::leased::{Answer, Question, Request, millis};
use hapax_core::window::logged::{Record, What};
use hapax_core::window::{Claim, Memo};
use redis::{Cmd, Value, cmd};
use std::time::{Duration, Instant};

/// Sets a value if the key has none, or this one. Returns the value that it has otherwise.
const REPLACE: &str = "local v = redis.call('GET', KEYS[1])
if v == false or v == ARGV[3] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return nil end
return v";
/// Returns the value, and for how long the key has it.
const LOOK: &str = "local v = redis.call('GET', KEYS[1])
if v == false then return nil end
return {v, redis.call('PTTL', KEYS[1])}";
/// Removes a value if the key has it.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";
/// Removes a value that begins so.
const CLEAR: &str = "local v = redis.call('GET', KEYS[1])
if v and string.sub(v, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";
/// Removes a record, not a lease.
const FORGET: &str = "local v = redis.call('GET', KEYS[1])
if v and string.sub(v, 1, 1) == 'S' then return redis.call('DEL', KEYS[1]) end
return 0";
/// Lets a record live for its TTL from now. If it is gone, writes it again.
const TOUCH: &str = "local v = redis.call('GET', KEYS[1])
if v == false then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif string.sub(v, 1, 1) == 'S' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0";
/// Counts a flush, and tells the other relays. What is remembered begins now. Returns the count.
const FLUSH: &str = "local g = redis.call('INCR', KEYS[1])
redis.call('SET', KEYS[3], redis.call('TIME')[1])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'b', ARGV[1], 'g', g)
return g";
/// Raises the count of flushes to this one, if it is lower: Redis may have lost it. Returns the count, and for how many seconds the
/// window has been remembered. (Its clock may have been set back.)
const GREET: &str = "local g = tonumber(redis.call('GET', KEYS[1]) or '0')
if g < tonumber(ARGV[1]) then g = tonumber(ARGV[1]) redis.call('SET', KEYS[1], g) end
local now = redis.call('TIME')[1]
redis.call('SET', KEYS[2], now, 'NX')
return {g, math.max(0, now - redis.call('GET', KEYS[2]))}";
/// Entries of the stream of changes. A relay that misses more than these forgets all that it knows by itself.
pub(super) const CHANGES: usize = 100_000;

/// Returns the command with which a connection begins, see [`GREET`].
pub(super) fn greet(names: &Names, generation: u32) -> Cmd {
    let mut cmd = cmd("EVAL");
    cmd.arg(GREET).arg(2).arg(&names.generation).arg(&names.since).arg(generation);
    cmd
}

/// Makes a command that runs a script on one key.
fn script(text: &str, key: &[u8]) -> Cmd {
    let mut cmd = cmd("EVAL");
    cmd.arg(text).arg(1).arg(key);
    cmd
}

/// Returns the command that writes a record; `None` if there is nothing to write, because it is told to the other relays only. A record
/// whose time is over takes the lease away that it would have replaced.
pub(super) fn write(window: &Leased, names: &Names, record: &Record, now: Instant) -> Option<Command> {
    let name = |claim: &Claim| {
        let key = claim.key();
        names.key(key)
    };
    let left = |memo: Memo| memo.ttl().saturating_sub(now.saturating_duration_since(record.at));
    if let Some(command) = write_number(window, names, record, left) {
        return command;
    }
    match &record.what {
        What::Seen(claim, memo) => {
            let left = left(*memo);
            let key = name(claim);
            let cmd = if left.is_zero() {
                let mut clear = script(CLEAR, &key);
                clear.arg(window.own_lease());
                clear
            } else {
                let mut set = cmd("SET");
                set.arg(&key).arg(window.seen(*claim, *memo)).arg("PX").arg(millis(left));
                set
            };
            Some(Command { key, cmd })
        }
        What::Touched(claim, memo) => {
            let left = left(*memo);
            let key = name(claim);
            let mut touch = script(TOUCH, &key);
            touch.arg(window.seen(*claim, *memo)).arg(millis(left));
            (!left.is_zero()).then_some(Command { key, cmd: touch })
        }
        What::Forgotten(claim) => {
            let key = name(claim);
            Some(Command { cmd: script(FORGET, &key), key })
        }
        What::ProducerForgotten(_) | What::Producer(_) | What::Flushed | What::Changed(_) => None,
    }
}

/// The same for a record about a number or a producer; `None` if it is about something else.
fn write_number(
    window: &Leased,
    names: &Names,
    record: &Record,
    left: impl Fn(Memo) -> Duration,
) -> Option<Option<Command>> {
    Some(match &record.what {
        What::Seen(claim, memo) => Some(sequences::stored(window, names, Number::of(*claim)?, left(*memo))),
        What::Touched(claim, memo) => {
            let (number, left) = (Number::of(*claim)?, left(*memo));
            (!left.is_zero()).then(|| sequences::touched(window, names, number, left))
        }
        What::Forgotten(claim) => Some(sequences::forgotten(window, names, Number::of(*claim)?)),
        What::ProducerForgotten(producer) => Some(sequences::producer_forgotten(window, names, *producer)),
        // Redis has heard of the epoch when it was asked about the number.
        What::Producer(_) => None,
        What::Flushed | What::Changed(_) => return None,
    })
}

/// Returns true if the other relays have to hear of it.
pub(super) fn is_told(record: &Record) -> bool {
    matches!(record.what, What::Forgotten(_) | What::ProducerForgotten(_) | What::Flushed | What::Changed(_))
}

/// Returns the command that tells the other relays. With a flush, its reply is the new generation.
pub(super) fn tell(names: &Names, batch: &[u8], is_flush: bool) -> Command {
    let cmd = if is_flush {
        let mut cmd = cmd("EVAL");
        cmd.arg(FLUSH).arg(3).arg(&names.generation).arg(&names.changes).arg(&names.since);
        cmd.arg(batch).arg(CHANGES);
        cmd
    } else {
        let mut cmd = cmd("XADD");
        cmd.arg(&names.changes).arg("MAXLEN").arg("~").arg(CHANGES).arg("*").arg("b").arg(batch);
        cmd
    };
    Command { key: names.changes.clone().into_bytes(), cmd }
}

/// Returns the command of a question.
pub(super) fn ask(window: &Leased, names: &Names, question: &Question) -> Command {
    if let Some(number) = Number::of(question.claim) {
        return sequences::ask(window, names, question, number);
    }
    let key = names.key(question.claim.key());
    let value = || window.value(question);
    let life = millis(window.lease_time(question.lease));
    let cmd = match &question.what {
        Request::Lease => {
            let mut set = cmd("SET");
            set.arg(&key).arg(value()).arg("NX").arg("GET").arg("PX").arg(life);
            set
        }
        Request::Replace(from) => {
            let mut replace = script(REPLACE, &key);
            replace.arg(value()).arg(life).arg(&**from);
            replace
        }
        Request::Renew => {
            let (mut renew, value) = (script(REPLACE, &key), value());
            renew.arg(&*value).arg(life).arg(&*value);
            renew
        }
        Request::Look => script(LOOK, &key),
        Request::Release => {
            let mut release = script(RELEASE, &key);
            release.arg(value());
            release
        }
    };
    Command { key, cmd }
}

/// Reads the reply to a question.
pub(super) fn answer(question: &Question, reply: Value) -> Result<Answer, Failed> {
    if Number::of(question.claim).is_some() {
        return sequences::answer(question, reply);
    }
    match (&question.what, reply) {
        (Request::Lease | Request::Replace(_) | Request::Renew, Value::Nil) => Ok(Answer::Done),
        (Request::Lease | Request::Replace(_) | Request::Renew, Value::BulkString(value)) => {
            Ok(Answer::Found(value, Duration::ZERO))
        }
        (Request::Look, Value::Nil) => Ok(Answer::Nothing),
        (Request::Look, Value::Array(parts)) => match <[Value; 2]>::try_from(parts) {
            // A key without an end: somebody else has set it.
            Ok([Value::BulkString(value), Value::Int(left)]) => {
                let left = u64::try_from(left).unwrap_or(u64::MAX);
                Ok(Answer::Found(value, Duration::from_millis(left)))
            }
            _ => Err(Failed::Strange),
        },
        (Request::Release, Value::Int(_)) => Ok(Answer::Done),
        _ => Err(Failed::Strange),
    }
}
