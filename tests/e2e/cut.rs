//! A TCP forwarder whose connections can be cut after a number of bytes, stalled, or left alone.
//!
//! It reads nothing of what it carries. Without limits it is the most trivial relay there is, which is what the tests
//! are proved against before they are believed about ours.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// After how many bytes of either direction a connection is cut on both sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// from the client to the upstream
    pub up: Option<u64>,
    /// from the upstream to the client
    pub down: Option<u64>,
}

/// The limits of the nth connection, counted from 0.
pub type Plan = dyn Fn(usize) -> Limits + Send + Sync;

/// Which directions carry nothing at the moment.
#[derive(Clone, Copy, Debug, Default)]
struct Stalled {
    up: bool,
    down: bool,
}

/// A forwarder that listens on a port of its own until it is dropped.
pub struct Cut {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    plan: Box<Plan>,
    accepted: AtomicUsize,
    cuts: AtomicUsize,
    stalled: Mutex<Stalled>,
    moved: Condvar,
    /// New connections are closed at once.
    shut: AtomicBool,
    over: AtomicBool,
    /// both sockets of each connection that is open, by its number
    sockets: Mutex<BTreeMap<usize, [TcpStream; 2]>>,
}

/// A connection that is carried. Both directions have it; when both are over, its sockets are closed.
struct Carried {
    nth: usize,
    shared: Arc<Shared>,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.shared.sockets.lock().unwrap().remove(&self.nth);
    }
}

impl Cut {
    /// Forwards everything, cuts nothing.
    pub fn forward(upstream: SocketAddr) -> Cut {
        Cut::start(upstream, |_| Limits::default())
    }

    /// Forwards each connection until its limits are reached.
    pub fn start(upstream: SocketAddr, plan: impl Fn(usize) -> Limits + Send + Sync + 'static) -> Cut {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            plan: Box::new(plan),
            accepted: AtomicUsize::new(0),
            cuts: AtomicUsize::new(0),
            stalled: Mutex::default(),
            moved: Condvar::new(),
            shut: AtomicBool::new(false),
            over: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Cut { addr, shared }
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were cut at their limits.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Carries no byte to the upstream until [`Cut::resume`]; connections stay open.
    pub fn stall_up(&self) {
        self.shared.stalled.lock().unwrap().up = true;
    }

    /// Carries no byte from the upstream until [`Cut::resume`]; connections stay open.
    pub fn stall_down(&self) {
        self.shared.stalled.lock().unwrap().down = true;
    }

    /// Cuts all connections, and closes each new one at once, until [`Cut::resume`].
    pub fn shut(&self) {
        self.shared.shut.store(true, Ordering::SeqCst);
        self.cut_all();
    }

    /// Carries on.
    pub fn resume(&self) {
        self.shared.shut.store(false, Ordering::SeqCst);
        *self.shared.stalled.lock().unwrap() = Stalled::default();
        self.shared.moved.notify_all();
    }

    /// Cuts all connections there are now.
    pub fn cut_all(&self) {
        for socket in self.shared.sockets.lock().unwrap().values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.resume();
        self.cut_all();
        let _ = TcpStream::connect(self.addr);
    }
}

type IsStalled = fn(&mut Stalled) -> bool;

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        if shared.shut.load(Ordering::SeqCst) {
            continue;
        }
        let nth = shared.accepted.fetch_add(1, Ordering::SeqCst);
        // A broker that is down looks to its client like one that hangs up.
        let Ok(upstream) = TcpStream::connect(shared.upstream) else { continue };
        let limits = (shared.plan)(nth);
        let clones = [&client, &upstream].map(|socket| {
            socket.set_nodelay(true).unwrap();
            socket.try_clone().unwrap()
        });
        let [client2, upstream2] = clones;
        let both = [&client, &upstream].map(|socket| socket.try_clone().unwrap());
        shared.sockets.lock().unwrap().insert(nth, both);
        let carried = Arc::new(Carried { nth, shared: Arc::clone(shared) });
        let (up, down): (IsStalled, IsStalled) = (|stalled| stalled.up, |stalled| stalled.down);
        for (from, to, limit, is_stalled) in
            [(client, upstream2, limits.up, up), (upstream, client2, limits.down, down)]
        {
            let carried = Arc::clone(&carried);
            thread::spawn(move || carry(from, to, limit, is_stalled, &carried.shared));
        }
    }
}

/// One direction of one connection, to its end. A half-close is carried on as a half-close.
fn carry(mut from: TcpStream, mut to: TcpStream, limit: Option<u64>, is_stalled: IsStalled, shared: &Shared) {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut buffer = vec![0; 64 * 1024];
    let carried: io::Result<()> = (|| {
        loop {
            let length = from.read(&mut buffer)?;
            drop(shared.moved.wait_while(shared.stalled.lock().unwrap(), is_stalled).unwrap());
            if length == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let passed = length.min(usize::try_from(left).unwrap_or(usize::MAX));
            to.write_all(&buffer[..passed])?;
            left -= passed as u64;
            if left == 0 {
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                return Err(io::Error::other("the limit is reached"));
            }
        }
    })();
    if carried.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
