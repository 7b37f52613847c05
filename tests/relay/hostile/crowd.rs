//! Half of all connections are hostile, in nine ways at once. The other half is served as if they were not there, and the relay holds no
//! more memory than it may.
//!
//! There are 1,000 connections; `make hostile` takes 10,000. Behind the relay stands `hapax bench sink`, so that the relay is what is
//! measured. The hostile half comes from another address, as it would.

use super::script::{channel_open, connection_open, frame, start_ok, tune_ok};
use crate::e2e::pki::Pki;
use crate::e2e::raw::{HEADER, Publish};
use crate::e2e::relay::{Relay, cpu_of};
use crate::e2e::site::without_relay;
use crate::e2e::wait::{PATIENCE, until};
use hapax::tools::bench::load::{self, End, Load, Outcome, Route};
use hapax::tools::bench::{Shape, Target};
use hapax_testbed::{Leash, free_port};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The hostile ones come from here, and the honest ones from 127.0.0.1.
const THEIRS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Each hostile connection does something once in this time.
const ROUND: Duration = Duration::from_secs(1);
/// One that was closed connects again after so many rounds.
const AWAY: usize = 5;
/// The memory of connections (`limits.memory`), for each of them. One that opens all channels that it may holds ten times as much.
const BUDGET_EACH: u64 = 128 << 10;
/// Beside that: the program, the window, and what the allocator keeps.
const OTHER: u64 = 96 << 20;

/// One way to be hostile.
#[derive(Clone)]
struct Way {
    to: SocketAddr,
    /// when it is connected
    first: Arc<[u8]>,
    /// in each round
    then: Then,
}

#[derive(Clone)]
enum Then {
    /// says nothing more
    Silent,
    /// sends the next octet of these
    Drip(Arc<[u8]>),
    /// sends all of these
    Again(Arc<[u8]>),
}

fn noise(octets: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(octets).collect()
}

/// The nine ways.
fn ways(plain: SocketAddr, tls: SocketAddr, proxy: SocketAddr) -> Vec<Way> {
    let login = [HEADER, &start_ok("guest"), &tune_ok(2047), &connection_open("/")].concat();
    let way = |to, first: Vec<u8>, then| Way { to, first: first.into(), then };
    let silent = Then::Silent;
    let half = [HEADER, &start_ok("guest")[..40]].concat();
    // A frame of 4 GiB.
    let oversized = [HEADER, &[1, 0, 0, 0xff, 0xff, 0xff, 0xff], &[0; 100]].concat();
    // A header frame of 128 KiB, of which 500 octets come in each round.
    let endless =
        [&login[..], &channel_open(1), &Publish::to("q", "a").method(1), &[2, 0, 1, 0, 1, 0xff, 0]].concat();
    let channels: Vec<u8> = login.iter().copied().chain((1..=u16::MAX).flat_map(channel_open)).collect();
    let tiny = frame(8, 0, b"").repeat(500);
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 60]].concat();
    let slowly: Arc<[u8]> = login.clone().into();
    let zeros: Arc<[u8]> = vec![0; 500].into();
    vec![
        // slow handshake
        way(plain, Vec::new(), Then::Drip(slowly)),
        // half frames
        way(plain, half, silent.clone()),
        // random bytes
        way(plain, noise(300), Then::Again(noise(300).into())),
        // oversized lengths
        way(plain, oversized, Then::Again(zeros.clone())),
        // endless headers
        way(plain, endless, Then::Again(zeros)),
        // 65,535 channels
        way(plain, channels, silent.clone()),
        // tiny frames
        way(plain, login, Then::Again(tiny.into())),
        // half TLS handshakes
        way(tls, hello, silent),
        // endless PROXY lines
        way(proxy, b"PROXY TCP4 1.2.3.4 ".to_vec(), Then::Drip(vec![b'1'; 500].into())),
    ]
}

/// A hostile connection.
struct Hostile {
    way: Way,
    socket: Option<TcpStream>,
    /// what it is writing, and how far it is
    writing: (Arc<[u8]>, usize),
    dripped: usize,
    /// rounds until it connects
    away: usize,
}

impl Hostile {
    fn new(way: Way) -> Hostile {
        Hostile { way, socket: None, writing: (Arc::new([]), 0), dripped: 0, away: 0 }
    }

    /// Connects without waiting.
    fn connect(&mut self) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((THEIRS, 0)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        // It is connected a moment later, or not at all.
        let _ = socket.connect(&self.way.to.into());
        self.socket = Some(socket.into());
        self.writing = (Arc::clone(&self.way.first), 0);
        self.dripped = 0;
    }

    /// Does what it does in a round. Returns true if it is connected.
    fn turn(&mut self, scratch: &mut [u8]) -> bool {
        if self.socket.is_none() {
            match self.away.checked_sub(1) {
                Some(away) => self.away = away,
                None => self.connect(),
            }
            return false;
        }
        if self.writing.1 >= self.writing.0.len() {
            match &self.way.then {
                Then::Silent => {}
                Then::Again(octets) => self.writing = (Arc::clone(octets), 0),
                Then::Drip(octets) => {
                    let next = octets.get(self.dripped).copied();
                    self.writing = (next.into_iter().collect(), 0);
                    self.dripped += 1;
                }
            }
        }
        let Some(socket) = &mut self.socket else { return false };
        let goes_on =
            |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted);
        let (octets, at) = (&self.writing.0, &mut self.writing.1);
        let mut lives = true;
        while lives && *at < octets.len() {
            match socket.write(&octets[*at..]) {
                Ok(written) => *at += written,
                Err(error) if goes_on(error.kind()) => break,
                Err(_) => lives = false,
            }
        }
        loop {
            match socket.read(scratch) {
                Ok(0) => lives = false,
                Ok(_) => continue,
                Err(error) => lives &= goes_on(error.kind()),
            }
            break;
        }
        if !lives {
            self.socket = None;
            self.away = AWAY;
        }
        lives
    }
}

/// Hostile connections, in a thread of their own.
struct Crowd {
    stop: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    rounds: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Crowd {
    fn start(count: usize, ways: &[Way]) -> Crowd {
        let mut all: Vec<Hostile> = ways.iter().cycle().take(count).cloned().map(Hostile::new).collect();
        let mut crowd =
            Crowd { stop: Arc::default(), open: Arc::default(), rounds: Arc::default(), thread: None };
        let (stop, open, rounds) =
            (Arc::clone(&crowd.stop), Arc::clone(&crowd.open), Arc::clone(&crowd.rounds));
        let run = move || {
            let mut scratch = vec![0; 64 << 10];
            // A part of them in each step, so that they do not all come at one moment.
            const STEPS: usize = 50;
            while !stop.load(Relaxed) {
                let mut there = 0;
                for step in 0..STEPS {
                    let begun = Instant::now();
                    let part = all.iter_mut().skip(step).step_by(STEPS);
                    there += part.filter_map(|one| one.turn(&mut scratch).then_some(())).count();
                    thread::park_timeout((ROUND / STEPS as u32).saturating_sub(begun.elapsed()));
                }
                open.store(there, Relaxed);
                rounds.fetch_add(1, Relaxed);
            }
        };
        crowd.thread = Some(thread::spawn(run));
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `hapax bench sink`.
struct Sink {
    child: Child,
    addr: SocketAddr,
    _leash: Leash,
}

impl Sink {
    fn start() -> Sink {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let leash = Leash::new("sink").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
        command.args(["bench", "sink", "--listen", &addr.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        leash.hold(&child).unwrap();
        until("the sink listens", PATIENCE, || TcpStream::connect(addr).ok());
        Sink { child, addr, _leash: leash }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The honest half: each connection logs in, publishes now and then, and waits for its acks.
fn honest(addr: SocketAddr, connections: usize, seconds: u64) -> Outcome {
    let load = Load {
        target: Target::guest(&addr.to_string()),
        route: Route::Given { exchange: String::new(), routing_key: "q".to_owned() },
        rate: Some(connections as f64),
        shape: Shape::default(),
        window: 10,
        connections,
        end: End::After(Duration::from_secs(seconds)),
        ..Load::new(Target::guest(""), 0)
    };
    let outcome = load::run(&load, &mut |_| ()).expect("all of them log in, and none is closed");
    assert_eq!(outcome.tally.acked, outcome.tally.published);
    assert!(outcome.tally.published as usize >= connections / 2);
    outcome
}

#[test]
fn a_hostile_half_is_hardly_noticed_by_the_honest_half() {
    if without_relay() {
        return;
    }
    let asked = std::env::var("HAPAX_CROWD").ok().map(|text| text.parse::<usize>().expect("a number"));
    let all = asked.unwrap_or(1_000);
    // Where other tests run at the same time, this shows that all are served. `make hostile` shows how fast.
    let (seconds, floor) = if asked.is_some() { (10, 10.0) } else { (3, 10_000.0) };
    let files = hapax::process::raise_file_limit().unwrap().unwrap_or(u64::MAX);
    // The relay has a socket for each connection, and one to the broker for those that log in.
    assert!(files > all as u64 * 17 / 10 + 300, "{files} files are too few for {all} connections: ulimit -n");
    let pki = Pki::new();
    let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let [tls, proxy] = [address(), address()];
    let sink = Sink::start();
    let budget = all as u64 * BUDGET_EACH;
    let config = format!(
        "[limits]\nmax_connections = {}\nmemory = {budget}\n[timeouts]\nhandshake = \"10s\"\n\
         [[listener]]\naddress = \"{proxy}\"\nproxy_protocol = true\ntrusted = [\"127.0.0.0/8\"]\n\
         [[listener]]\naddress = \"{tls}\"\n[listener.tls]\n{}",
        all + all / 5,
        pki.issue("server", &["localhost"]).toml()
    );
    let relay = Relay::start(sink.addr, &config);
    let plain = relay.addr();
    let half = all / 2;
    let millis = |outcome: &Outcome| outcome.latency.value_at_quantile(0.99) as f64 / 1e6;
    // Of the relay, of the sink, and of this process, which is all clients.
    let cpu = || [relay.cpu(), cpu_of(sink.child.id()), cpu_of(std::process::id())];
    honest(plain, half, 1);
    let begun = cpu();
    let before = honest(plain, half, seconds);
    let taken = |since: [Duration; 3]| {
        let [relay, sink, clients] = cpu();
        let [relay, sink, clients] = [relay - since[0], sink - since[1], clients - since[2]];
        format!(
            "relay {:.1} s, sink {:.1} s, clients {:.1} s",
            relay.as_secs_f64(),
            sink.as_secs_f64(),
            clients.as_secs_f64()
        )
    };
    let alone_cpu = taken(begun);

    let ways = ways(plain, tls, proxy);
    let crowd = Crowd::start(half, &ways);
    until("they are all there", PATIENCE, || (crowd.rounds.load(Relaxed) >= 3).then_some(()));
    let begun = cpu();
    let most = Arc::new(AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let with = thread::scope(|scope| {
        let (relay, most, over) = (&relay, &most, &done);
        scope.spawn(move || {
            while !over.load(Relaxed) {
                most.fetch_max(relay.memory() as usize, Relaxed);
                thread::park_timeout(Duration::from_millis(100));
            }
        });
        let with = honest(plain, half, seconds);
        done.store(true, Relaxed);
        with
    });
    let crowded_cpu = taken(begun);
    // They have been what they meant to be: those that were closed come again, and some are too slow.
    let accepted = || relay.metrics().sum("connections_accepted_total", &[]);
    until("they come again", PATIENCE, || (accepted() > (2 * all) as f64).then_some(()));
    for what in ["PROXY", "TLS handshake"] {
        until("the log says it", PATIENCE, || relay.log().contains(what).then_some(()));
    }
    let metrics = relay.metrics();
    let open = crowd.open.load(Relaxed);
    drop(crowd);
    let (alone, crowded, memory) = (millis(&before), millis(&with), most.load(Relaxed) as u64);
    println!(
        "{half} honest, {half} hostile ({open} of them connected): p99 {alone:.2} ms without them, {crowded:.2} ms with them; \
         {} MiB of memory",
        memory >> 20
    );
    // It shows whether the processors bound it. Both have the logins of the honest half in it, and all of its messages.
    println!("processor time without them: {alone_cpu}; with them: {crowded_cpu}");
    assert!(crowded <= (2.0 * alone).max(floor), "p99 is {crowded} ms, and {alone} ms without them");
    assert!(memory <= budget + OTHER, "{memory} bytes");
    assert!(metrics.sum("memory_bytes", &[]) <= metrics.sum("memory_limit_bytes", &[]));
    let log = relay.log();
    for sign in ["panic", "Please report"] {
        assert!(!log.contains(sign), "{log}");
    }
    // All is as before.
    until("they are gone", PATIENCE, || (relay.metrics().sum("connections", &[]) == 0.0).then_some(()));
    honest(plain, 10, 1);
}
