//! The relay started again and again while publishers are at work: nobody is refused, nothing is lost, and what was acked before is
//! known after it.
//!
//! Twice: with a listening socket that the service manager keeps (`LISTEN_FDS`), and with two processes that listen on one port
//! (`reuse_port`), the new one waiting for the folder of the old one.

use crate::e2e::publisher::persistent;
use crate::e2e::raw::Raw;
use crate::e2e::retry;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE, now};
use amq_protocol::protocol::AMQPClass;
use hapax_testbed::{Leash, free_port};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Messages of a publisher that wait for an ack at a time.
const UNDER_WAY: usize = 20;
const PUBLISHERS: usize = 3;
/// A publisher publishes so many ids once more after its acks: retries of an ack that got lost.
const AGAIN: usize = 10;

/// A process with its log.
struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// Everything that outlives a process.
struct Ground {
    leash: Leash,
    vhost: &'static str,
    listen: SocketAddr,
    /// the socket that each process is given
    socket: Option<TcpListener>,
}

impl Ground {
    /// `None` if the environment asks to do without a relay.
    fn new(vhost: &'static str, socket: Option<TcpListener>) -> Option<Ground> {
        if without_relay() {
            return None;
        }
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let listen = socket.as_ref().map_or_else(port, |socket| socket.local_addr().unwrap());
        let leash = Leash::new("restart").unwrap();
        let config = format!(
            "listen = \"{listen}\"\nadmin = \"off\"\nupstream = \"amqp://{}\"\nreuse_port = {}\nstate_dir = \"{}\"\n\
             [[window]]\nname = \"w\"\nttl = \"1h\"\ncapacity = 1000000\nstore = \"disk\"\n",
            shared_rabbit().addr(),
            socket.is_none(),
            leash.folder().join("state").display(),
        );
        std::fs::write(leash.folder().join("hapax.toml"), config).unwrap();
        shared_rabbit().add_vhost(vhost).unwrap();
        let ground = Ground { leash, vhost, listen, socket };
        ground.direct().declare(1, "q", &[]);
        Some(ground)
    }

    fn direct(&self) -> Raw {
        let mut direct = Raw::connect(shared_rabbit().addr(), self.vhost);
        direct.open_channel(1);
        direct
    }

    fn start(&self) -> Process {
        let config = self.leash.folder().join("hapax.toml");
        let binary = env!("CARGO_BIN_EXE_hapax");
        let mut command = match &self.socket {
            None => Command::new(binary),
            Some(socket) => {
                // The socket becomes file 3, as systemd does it.
                let mut shell = Command::new("sh");
                shell.args([
                    "-c",
                    "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"",
                    binary,
                ]);
                shell.stdin(OwnedFd::from(socket.try_clone().unwrap()));
                shell
            }
        };
        if self.socket.is_none() {
            command.stdin(Stdio::null());
        }
        let mut child =
            command.arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        self.leash.hold(&child).unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Process { child, log }
    }

    fn terminate(&self, process: &Process) {
        let pid = process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits until the process has ended well.
    fn ended(&self, mut process: Process) {
        let status = wait::until("it drains and ends", PATIENCE, || process.child.try_wait().unwrap());
        self.leash.let_go(&process.child);
        assert!(status.success(), "{status}\n{}", process.log());
        assert!(!process.log().contains("timeouts.drain is over"), "{}", process.log());
    }
}

impl Process {
    fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn until_said(&mut self, what: &str) {
        wait::until(what, PATIENCE, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it has ended:\n{}", self.log());
            self.log().contains(what).then_some(())
        });
    }
}

/// What all publishers count.
#[derive(Default)]
struct Tally {
    enough: AtomicBool,
    acked: AtomicUsize,
    refused: AtomicUsize,
    connections: AtomicUsize,
}

/// Publishes until it is enough and everything is acked, each unconfirmed message again after a reconnect, and the last acked ones
/// once more. Returns how many different ids were acked, and those whose outcome was unknown when a connection ended.
fn publish(ground: &Ground, number: usize, tally: &Tally) -> (Vec<String>, BTreeMap<String, usize>) {
    let (mut next, mut acked, mut unknown) = (0, Vec::<String>::new(), BTreeMap::<String, usize>::new());
    let mut todo: Vec<String> = Vec::new();
    let end = now() + 6 * PATIENCE;
    while !tally.enough.load(SeqCst) || !todo.is_empty() {
        assert!(now() < end, "{} ids are not acked at the deadline", todo.len());
        todo.extend(acked.iter().rev().take(AGAIN).cloned());
        let mut under_way = BTreeMap::new();
        match connection(ground, tally, &mut under_way, &mut todo, &mut acked, || {
            next += 1;
            format!("{number}-{next}")
        }) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tally.refused.fetch_add(1, SeqCst);
            }
            Err(_) => {}
        }
        for id in under_way.into_values() {
            *unknown.entry(String::clone(&id)).or_default() += 1;
            todo.push(id);
        }
    }
    let mut different = BTreeSet::new();
    acked.retain(|id| different.insert(id.clone()));
    (acked, unknown)
}

fn connection(
    ground: &Ground,
    tally: &Tally,
    under_way: &mut BTreeMap<u64, String>,
    todo: &mut Vec<String>,
    acked: &mut Vec<String>,
    mut new: impl FnMut() -> String,
) -> io::Result<()> {
    let mut raw = retry::login(ground.listen, ground.vhost)?;
    tally.connections.fetch_add(1, SeqCst);
    let mut tag = 0;
    loop {
        let mut octets = Vec::new();
        while under_way.len() < UNDER_WAY {
            let enough = tally.enough.load(SeqCst);
            let Some(id) = todo.pop().or_else(|| (!enough).then(&mut new)) else { break };
            tag += 1;
            octets.extend(persistent(&id).encode(1, raw.frame_max()));
            under_way.insert(tag, id);
        }
        if under_way.is_empty() {
            return Ok(());
        }
        raw.write(&octets)?;
        match raw.receive()?.ok_or_else(retry::over)? {
            (1, crate::e2e::raw::Told::Ack { tag, multiple }) => {
                let settled = retry::settled(under_way, tag, multiple);
                tally.acked.fetch_add(settled.len(), SeqCst);
                acked.extend(settled);
            }
            // connection.blocked and connection.unblocked
            (0, crate::e2e::raw::Told::Method(AMQPClass::Connection(_))) => {}
            _ => return Err(retry::over()),
        }
    }
}

/// Starts the relay again so often under load. `again` gets the old process and returns the new one, ready.
fn restarted(ground: &Ground, restarts: usize, again: impl Fn(&Ground, Process) -> Process) {
    let (tally, began) = (Tally::default(), now());
    let mut first = ground.start();
    first.until_said("ready");
    let (outcomes, last): (Vec<_>, Process) = thread::scope(|scope| {
        let mut process = first;
        let tally = &tally;
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|number| scope.spawn(move || publish(ground, number, tally))).collect();
        for _ in 0..restarts {
            let before = tally.acked.load(SeqCst);
            wait::until("they publish", PATIENCE, || {
                (tally.acked.load(SeqCst) > before + PUBLISHERS * UNDER_WAY).then_some(())
            });
            process = again(ground, process);
        }
        tally.enough.store(true, SeqCst);
        (publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect(), process)
    });
    ground.terminate(&last);
    ground.ended(last);
    let held = retry::held(&mut ground.direct(), "q");
    let (ids, doubts) = outcomes.iter().fold((0, 0), |(ids, doubts), (acked, unknown)| {
        (ids + acked.len(), doubts + unknown.values().sum::<usize>())
    });
    println!(
        "{restarts} restarts in {:.1?}: {ids} ids, {} connections, {doubts} messages without an ack at the end of a connection",
        began.elapsed(),
        tally.connections.load(SeqCst)
    );
    assert_eq!(tally.refused.load(SeqCst), 0, "connections refused");
    for id in outcomes.iter().flat_map(|(acked, _)| acked) {
        assert_eq!(held.get(id), Some(&1), "{id}: acked, so it is in the queue, and once");
    }
    assert_eq!(held.len(), ids, "and nothing else");
}

#[test]
fn fifty_restarts_with_a_passed_socket_refuse_lose_and_double_nothing() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(ground) = Ground::new("restart-socket", Some(socket)) else { return };
    restarted(&ground, retry::restarts(50), |ground, old| {
        ground.terminate(&old);
        ground.ended(old);
        let mut new = ground.start();
        new.until_said("ready");
        new
    });
}

#[test]
fn restarts_with_two_processes_on_one_port_refuse_lose_and_double_nothing() {
    let Some(ground) = Ground::new("restart-port", None) else { return };
    restarted(&ground, retry::restarts(5), |ground, old| {
        let mut new = ground.start();
        new.until_said("another process has the folder");
        ground.terminate(&old);
        ground.ended(old);
        new.until_said("ready");
        new
    });
}

/// An operator who has started one by mistake ends it, and the old one goes on.
#[test]
fn a_process_that_waits_for_the_folder_ends_when_it_is_told_to() {
    let Some(ground) = Ground::new("restart-told", None) else { return };
    let mut old = ground.start();
    old.until_said("ready");
    let mut new = ground.start();
    new.until_said("another process has the folder");
    assert!(new.log().contains(&old.child.id().to_string()), "{}", new.log());
    let began = now();
    ground.terminate(&new);
    ground.ended(new);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    ground.terminate(&old);
    ground.ended(old);
}
