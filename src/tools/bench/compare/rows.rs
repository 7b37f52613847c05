//! The rows: what is measured for each.

use super::super::Error;
use super::super::dial::{Dialed, Target};
use super::super::load::Load;
use super::super::take::take;
use super::Extent;
use super::awake::Awake;
use super::files;
use super::stand::{Process, Settings, WINDOW, cpu_of_load, put};
use super::table::{Goal, Pairs, Row, middle};
use hapax_testbed::rabbit::{self, Rabbit};

/// Messages of a run in front of the sink. They take long enough that a clock tick (10 ms) of processor time is a small part.
pub(super) const RUN: u64 = 2_000_000;
/// Ids that fill the window and a little more, so that every publish after them evicts one.
pub(super) const FILLING: u64 = WINDOW + 50_000;
pub(super) const ROUND_TRIPS: u64 = 20_000;
pub(super) const BEFORE_RABBIT: u64 = 100_000;
/// With one in flight, a message waits for the broker and for three processes to wake.
const ONE_BEFORE_RABBIT: u64 = 10_000;
/// A queue of the sink with a number of messages behind this.
const DELIVERIES: &str = "hapax-bench-deliver:";
const IDLE: u64 = 10_000;
const MANY: usize = 1000;
/// In flight on each of many connections.
const MANY_WINDOW: u32 = 100;
/// Enough for each worker thread to have some of them ready at any time.
const SHARED: usize = 64;
/// One publish in a hundred reaches the sink, so that the relay is what is measured.
const MOSTLY_KNOWN: f64 = 0.99;

/// Rows 1 and 3: processor time for each unique publish, and throughput.
pub(super) fn full_window(extent: Extent) -> Result<Vec<Row>, Error> {
    let sink = Process::sink()?;
    let (relay, haproxy) = (Process::relay(sink.address(), "enforce")?, Process::haproxy(sink.address())?);
    put(&Load::new(relay.target(), FILLING))?;
    let (cpu, rate) = cpu_and_rate(extent, &relay, &haproxy)?;
    Ok(vec![
        Row {
            number: 1,
            what: "CPU per unique publish, full window",
            against: "haproxy",
            unit: "µs",
            pairs: cpu,
            goal: Goal::AtMost(2.5),
            note: None,
        },
        Row {
            number: 3,
            what: "throughput into the sink, unique ids",
            against: "haproxy",
            unit: "msg/s",
            pairs: rate,
            goal: Goal::AtLeast(0.45),
            note: None,
        },
    ])
}

/// Row 2.
pub(super) fn off(extent: Extent) -> Result<Row, Error> {
    let sink = Process::sink()?;
    let (relay, haproxy) = (Process::relay(sink.address(), "off")?, Process::haproxy(sink.address())?);
    put(&Load::new(relay.target(), FILLING / 10))?;
    let (pairs, _) = cpu_and_rate(extent, &relay, &haproxy)?;
    Ok(Row {
        number: 2,
        what: "CPU per publish, mode = \"off\"",
        against: "haproxy",
        unit: "µs",
        pairs,
        goal: Goal::AtMost(1.3),
        note: None,
    })
}

/// Microseconds of processor time for each message, and messages per second.
fn cpu_and_rate(extent: Extent, relay: &Process, haproxy: &Process) -> Result<(Pairs, Pairs), Error> {
    let count = extent.messages(RUN);
    let run = |process: &Process| cpu_of_put(process, &Load::new(process.target(), count), count);
    let (mut cpu, mut rate) = (Pairs::default(), Pairs::default());
    for _ in 0..extent.pairs {
        let (theirs, ours) = (run(haproxy)?, run(relay)?);
        cpu.push(ours.0, theirs.0);
        rate.push(ours.1, theirs.1);
    }
    Ok((cpu, rate))
}

/// Microseconds of processor time for each of the `count` messages of a load, and messages per second.
pub(super) fn cpu_of_put(process: &Process, load: &Load, count: u64) -> Result<(f64, f64), Error> {
    let (cpu, outcome) = process.cpu(|| put(load))?;
    Ok((cpu * 1e6 / count as f64, outcome.rate()))
}

/// One figure of each, in turns.
pub(super) fn alternate(
    extent: Extent,
    mut theirs: impl FnMut() -> Result<f64, Error>,
    mut ours: impl FnMut() -> Result<f64, Error>,
) -> Result<Pairs, Error> {
    let mut pairs = Pairs::default();
    for _ in 0..extent.pairs {
        let theirs = theirs()?;
        pairs.push(ours()?, theirs);
    }
    Ok(pairs)
}

/// Row 4, twice: what a round trip takes longer than without anything in between.
pub(super) fn one_in_flight(extent: Extent) -> Result<Vec<Row>, Error> {
    let _awake = Awake::new();
    let sink = Process::sink()?;
    let (relay, haproxy) = (Process::relay(sink.address(), "enforce")?, Process::haproxy(sink.address())?);
    let run = |process: &Process| {
        let outcome = put(&Load { window: 1, ..Load::new(process.target(), extent.messages(ROUND_TRIPS)) })?;
        let micros = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok((micros(0.5), micros(0.99)))
    };
    let (mut half, mut most) = (Pairs::default(), Pairs::default());
    for _ in 0..extent.pairs {
        let (direct, theirs, ours): ((f64, f64), (f64, f64), (f64, f64)) =
            (run(&sink)?, run(&haproxy)?, run(&relay)?);
        half.push(ours.0 - direct.0, theirs.0 - direct.0);
        most.push(ours.1 - direct.1, theirs.1 - direct.1);
    }
    let row = |what, pairs| Row {
        number: 4,
        what,
        against: "haproxy",
        unit: "µs",
        pairs,
        goal: Goal::AtMost(1.3),
        note: None,
    };
    Ok(vec![
        row("added to a publish→ack round trip, p50", half),
        row("added to a publish→ack round trip, p99", most),
    ])
}

/// A private node.
pub(super) fn rabbit() -> Result<Rabbit, Error> {
    Rabbit::start().map_err(|error| match error {
        rabbit::Error::Missing(_) => Error::Step(format!("{error}, as scripts/setup bench")),
        error => Error::Step(error.to_string()),
    })
}

/// Rows 5 and 6: throughput before a real broker.
pub(super) fn before_rabbit(extent: Extent, unique: bool, half: bool) -> Result<Vec<Row>, Error> {
    let rabbit = rabbit()?;
    let (relay, haproxy) = (Process::relay(rabbit.addr(), "enforce")?, Process::haproxy(rabbit.addr())?);
    let count = extent.messages(BEFORE_RABBIT);
    let run = |target: Target, duplicates| {
        put(&Load { duplicates, ..Load::new(target, count) }).map(|outcome| outcome.rate())
    };
    let direct = || Target::guest(&rabbit.addr().to_string());
    // The node's first messages take longer than all that follow.
    run(direct(), 0.0)?;
    let mut rows = Vec::new();
    if unique {
        let pairs = alternate(extent, || run(haproxy.target(), 0.0), || run(relay.target(), 0.0))?;
        rows.push(Row {
            number: 5,
            what: "throughput before RabbitMQ, unique ids",
            against: "haproxy",
            unit: "msg/s",
            pairs,
            goal: Goal::AtLeast(1.0),
            note: None,
        });
    }
    if half {
        let pairs = alternate(extent, || run(direct(), 0.0), || run(relay.target(), 0.5))?;
        rows.push(Row {
            number: 6,
            what: "throughput before RabbitMQ, 50 % duplicates",
            against: "direct, all of them",
            unit: "msg/s",
            pairs,
            goal: Goal::AtLeast(1.3),
            note: None,
        });
    }
    Ok(rows)
}

/// Rows 13 and 14: processor time for each message before a real broker.
pub(super) fn cpu_before_rabbit(extent: Extent, wanted: impl Fn(u8) -> bool) -> Result<Vec<Row>, Error> {
    let rabbit = rabbit()?;
    let (relay, haproxy) = (Process::relay(rabbit.addr(), "enforce")?, Process::haproxy(rabbit.addr())?);
    // The node's first messages take longer than all that follow.
    put(&Load::new(Target::guest(&rabbit.addr().to_string()), extent.messages(BEFORE_RABBIT)))?;
    let mut rows = Vec::new();
    for (number, what, window, count, most) in [
        (13, "CPU per publish before RabbitMQ, 1,000 in flight", 1_000, BEFORE_RABBIT, 1.4),
        (14, "CPU per publish before RabbitMQ, one in flight", 1, ONE_BEFORE_RABBIT, 1.15),
    ] {
        if !wanted(number) {
            continue;
        }
        let count = extent.messages(count);
        let run = |process: &Process| {
            let load = Load { window, ..Load::new(process.target(), count) };
            cpu_of_put(process, &load, count).map(|(cpu, _)| cpu)
        };
        let pairs = alternate(extent, || run(&haproxy), || run(&relay))?;
        let goal = Goal::AtMost(most);
        rows.push(Row { number, what, against: "haproxy", unit: "µs", pairs, goal, note: None });
    }
    Ok(rows)
}

/// Row 9. Each connection has a channel, and has nothing to do.
pub(super) fn idle(extent: Extent) -> Result<Row, Error> {
    let wanted = extent.messages(IDLE);
    let count = files::connections(wanted);
    let sink = Process::sink()?;
    let relay = Process::relay(sink.address(), "enforce")?;
    let target = relay.target();
    let before = relay.resident()?;
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut dialed = Dialed::open(&target)?;
        dialed.channel(1)?;
        idle.push(dialed);
    }
    let each = (relay.resident()? - before) / count as f64 / 1024.0;
    let mut pairs = Pairs::default();
    pairs.push(each, 1.0);
    let note = match count < wanted {
        true => format!(
            "{count} connections: there may be {} open files, and a relay has two for each",
            files::limit()
        ),
        false => format!("{count} connections"),
    };
    Ok(Row {
        number: 9,
        what: "memory per idle connection",
        against: "-",
        unit: "KiB",
        pairs,
        goal: Goal::AtMost(24.0),
        note: Some(note),
    })
}

/// Row 10: processor time for each message that a consumer gets.
pub(super) fn deliveries(extent: Extent) -> Result<Row, Error> {
    let sink = Process::sink()?;
    let (relay, haproxy) = (Process::relay(sink.address(), "enforce")?, Process::haproxy(sink.address())?);
    let count = extent.messages(RUN);
    let queue = format!("{DELIVERIES}{count}");
    let pairs = alternate(
        extent,
        || cpu_of_take(&haproxy, &queue, count, false),
        || cpu_of_take(&relay, &queue, count, false),
    )?;
    Ok(Row {
        number: 10,
        what: "CPU per delivered message",
        against: "haproxy",
        unit: "µs",
        pairs,
        goal: Goal::AtMost(1.3),
        note: None,
    })
}

/// Row 25: the same with acks, and a guard that is full: each ack of an id evicts another one.
pub(super) fn guarded(extent: Extent) -> Result<Row, Error> {
    let sink = Process::sink()?;
    let window = format!(
        "\n[[guard]]\nname = \"guard\"\nqueue = \"{DELIVERIES}*\"\ncapacity = {WINDOW}\nttl = \"1h\"\n"
    );
    let relay = Process::relay_with(sink.address(), &Settings { window, ..Settings::default() })?;
    let haproxy = Process::haproxy(sink.address())?;
    let queue = |count| format!("{DELIVERIES}{count}");
    take(&relay.target(), &queue(FILLING), FILLING, true)?;
    let count = extent.messages(RUN);
    let pairs = alternate(
        extent,
        || cpu_of_take(&haproxy, &queue(count), count, true),
        || cpu_of_take(&relay, &queue(count), count, true),
    )?;
    Ok(Row {
        number: 25,
        what: "CPU per guarded delivery and its ack, full guard",
        against: "haproxy",
        unit: "µs",
        pairs,
        goal: Goal::AtMost(3.0),
        note: None,
    })
}

/// Microseconds of processor time for each message that a consumer gets.
fn cpu_of_take(process: &Process, queue: &str, count: u64, acks: bool) -> Result<f64, Error> {
    let (cpu, _) = process.cpu(|| take(&process.target(), queue, count, acks))?;
    Ok(cpu * 1e6 / count as f64)
}

/// Row 11.
pub(super) fn many(extent: Extent) -> Result<Row, Error> {
    let sink = Process::sink()?;
    let relay = Process::relay(sink.address(), "enforce")?;
    put(&Load::new(relay.target(), FILLING))?;
    let one = Load::new(relay.target(), extent.messages(RUN / 2));
    let many = Load { connections: MANY, window: MANY_WINDOW, ..one.clone() };
    let rate = |load: &Load| put(load).map(|outcome| outcome.rate());
    let pairs = alternate(extent, || rate(&one), || rate(&many))?;
    Ok(Row {
        number: 11,
        what: "1,000 publishing connections: throughput",
        against: "one connection",
        unit: "msg/s",
        pairs,
        goal: Goal::AtLeast(0.8),
        note: Some(format!("{MANY_WINDOW} in flight on each, 1,000 on the one")),
    })
}

/// Row 12: does a second worker thread help? The load and the sink need cores, too, so it says who had them.
pub(super) fn second_thread(extent: Extent) -> Result<Row, Error> {
    let sink = Process::sink()?;
    let with = |threads| Settings { threads: Some(threads), ..Settings::default() };
    let one = Process::relay_with(sink.address(), &with(1))?;
    let two = Process::relay_with(sink.address(), &with(2))?;
    let run = |relay: &Process| {
        let load = Load {
            connections: SHARED,
            window: MANY_WINDOW,
            duplicates: MOSTLY_KNOWN,
            ..Load::new(relay.target(), extent.messages(RUN))
        };
        let (sinks, (loads, (relays, outcome))) = sink.cpu(|| cpu_of_load(|| relay.cpu(|| put(&load))))?;
        let elapsed = outcome.elapsed.as_secs_f64();
        Ok((outcome.rate(), [relays, loads, sinks].map(|cpu| cpu / elapsed)))
    };
    let (mut pairs, mut cores) = (Pairs::default(), Vec::new());
    for _ in 0..extent.pairs {
        let (with_one, with_two): ((f64, [f64; 3]), (f64, [f64; 3])) = (run(&one)?, run(&two)?);
        pairs.push(with_two.0, with_one.0);
        cores.push((with_one.1, with_two.1));
    }
    let ones = |who: usize| middle(cores.iter().map(|(one, _)| one[who]));
    let twos = |who: usize| middle(cores.iter().map(|(_, two)| two[who]));
    Ok(Row {
        number: 12,
        what: "2 worker threads, 99 % duplicates: throughput",
        against: "1 worker thread",
        unit: "msg/s",
        pairs,
        goal: Goal::Known,
        note: Some(format!(
            "cores taken with one worker thread and with two: relay {:.2}, {:.2}; load {:.2}, {:.2}; sink {:.2}, {:.2}",
            ones(0),
            twos(0),
            ones(1),
            twos(1),
            ones(2),
            twos(2),
        )),
    })
}
