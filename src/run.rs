//! Runs the process, as a part of the binary: sets the limit of open files, opens the listeners, handles signals, and
//! stops everything in order.

use hapax::admin::{self, Admin, Parts, telemetry};
use hapax::chaos::Chaos;
use hapax::clock;
use hapax::config::{Config, ListenerConfig, ProxyProtocol};
use hapax::live::{self, Reloader, Running, Source};
use hapax::net::{
    self, ConnectionList, CurrentRelay, Entrance, Opener, Relay, RelaySettings, Spans, Upstreams,
};
use hapax::process::{self, TooFewFiles};
use hapax::service::{Manager, Phase, Sockets};
use hapax::signals;
use hapax::stats::Stats;
use hapax::store::{self, Opened};
use hapax::tls::{self, Certificates};
use hapax_core::session::Shared;
use hapax_core::window::{KeyMaker, Windows};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// The allocator of libc keeps most of the memory of a burst (docs/adr/0021-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Files that are open besides client connections: listeners, runtime, stderr, and the connections of the admin
/// listener.
const OTHER_FILES: u64 = 64 + admin::CONNECTIONS as u64;
/// The shortest time between two probes of a node of the broker for `/readyz`, however often `/readyz` is requested.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How often expired ids are swept out of the windows, and the accounting's levels are updated.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How long the stores may take for their last records at least, however little of `timeouts.drain` is left.
const STORES_AT_LEAST: Duration = Duration::from_secs(1);
/// How long the end of the process waits for copies of duplicates.
const COPIES_AT_MOST: Duration = Duration::from_secs(1);
/// How long the end of the process waits for threads that read files or change windows.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Why the process ends with code 1. The text says what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// can't listen on an address
    Bind { key: String, address: SocketAddr, error: io::Error },
    /// the service manager has passed a socket on this address, and no listener has that address
    Unused(SocketAddr),
    /// can't start the runtime or set up the signal handlers
    System(io::Error),
    /// can't use a store
    Store(store::Failure),
    /// can't use a file with a certificate
    Certificate(tls::Unusable),
}

impl From<tls::Unusable> for Failure {
    fn from(unusable: tls::Unusable) -> Failure {
        Failure::Certificate(unusable)
    }
}

impl From<store::Failure> for Failure {
    fn from(failure: store::Failure) -> Failure {
        Failure::Store(failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, address, error) = match self {
            Failure::Bind { key, address, error } => (key, address, error),
            Failure::Store(failure) => return write!(f, "{failure}"),
            Failure::Unused(address) => {
                return write!(
                    f,
                    "the service manager has passed a socket on {address}, and no listener has this address\n    fix: write `listen = \"{address}\"`, or let ListenStream= of the .socket unit be the same as `listen` and `admin`"
                );
            }
            Failure::Certificate(unusable) => {
                return write!(f, "{unusable}\n    fix: {}", unusable.fix);
            }
            Failure::System(error) => {
                return write!(f, "the operating system refuses what Hapax needs: {error}");
            }
        };
        let port = address.port();
        let choose = match key.as_str() {
            "listen" | "admin" => format!("with --{key}"),
            _ => "as `address` of this [[listener]]".to_owned(),
        };
        write!(f, "can't listen on {address} (`{key}`): {error}\n    fix: ")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "another process has port {port} (see: ss -ltnp 'sport = :{port}'); stop it, or choose another address {choose}"
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "this host has no address {}; use one of its own, or 0.0.0.0 for all", address.ip())
            }
            io::ErrorKind::PermissionDenied => write!(f, "choose a port from 1024 on {choose}"),
            _ => write!(f, "choose another address {choose}"),
        }
    }
}

/// Raises the limit of open files. Warns if even the hard limit is too low for `max_connections`.
pub(crate) fn raise_file_limit(max_connections: usize) {
    if let Err(error) = process::raise_file_limit() {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
    if let Some(few) = TooFewFiles::of(max_connections, OTHER_FILES) {
        tracing::warn!(have = few.have, needed = few.needed, fix = TooFewFiles::FIX, "{few}");
    }
}

/// Runs the relay until SIGTERM or SIGINT, and then drains.
pub(crate) fn serve(
    Begun { runtime, harmless }: Begun,
    config: Config,
    source: Source,
    sockets: Sockets,
) -> Result<(), Failure> {
    let manager = Arc::new(Manager::of_process());
    let serving = serve_until_told(config, source, sockets, harmless, Arc::clone(&manager));
    let ended = runtime.block_on(serving);
    // A thread that waits for a file, for ever perhaps, does not hold up the end.
    runtime.shutdown_timeout(LAST_THREADS);
    if let Some(manager) = Arc::into_inner(manager) {
        manager.end();
    }
    ended
}

/// A process that is about to start. Signals that must not end it do not end it from now on.
pub(crate) struct Begun {
    runtime: Runtime,
    harmless: Harmless,
}

impl Begun {
    /// Begins. This comes before the configuration is read.
    pub(crate) fn new() -> Result<Begun, Failure> {
        let build = || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let harmless = {
                let _inside = runtime.enter();
                Harmless::new()?
            };
            Ok(Begun { runtime, harmless })
        };
        build().map_err(Failure::System)
    }
}

async fn serve_until_told(
    config: Config,
    source: Source,
    mut sockets: Sockets,
    harmless: Harmless,
    manager: Arc<Manager>,
) -> Result<(), Failure> {
    let mut listen = |key: &str, address| listen(&mut sockets, key, address, config.reuse_port);
    let mut certificates: Vec<Arc<dyn tls::Reread>> = Vec::new();
    let mut listeners = Vec::new();
    for (key, listener) in config.all_listeners() {
        let socket = listen(&key, listener.address)?;
        listeners.push((socket, entrance(listener, &mut certificates)?));
    }
    let admin_tls = config.admin_tls.clone().map(|files| files.open("admin")).transpose()?;
    let upstream_tls = config.upstream_tls.clone().map(|files| files.open("upstream")).transpose()?;
    let telemetry_tls = config.telemetry.tls.clone().map(|files| files.open("telemetry")).transpose()?;
    let duplicates_tls = config.duplicates.as_ref().and_then(|duplicates| duplicates.tls.clone());
    let duplicates_tls = duplicates_tls.map(|files| files.open("duplicates")).transpose()?;
    let replay_tls = config.chaos.replay.as_ref().and_then(|replay| replay.tls.clone());
    let replay_tls = replay_tls.map(|files| files.open("chaos.replay")).transpose()?;
    certificates.extend(admin_tls.iter().map(|tls| Arc::clone(tls) as _));
    certificates.extend(
        [&upstream_tls, &telemetry_tls, &duplicates_tls, &replay_tls]
            .into_iter()
            .flatten()
            .map(|tls| Arc::clone(tls) as _),
    );
    let opener =
        Opener { tls: upstream_tls, proxy_header: config.upstream_proxy_protocol == ProxyProtocol::V2 };
    let admin_listener = match config.admin {
        Some(address) => Some(listen("admin", address)?),
        None => None,
    };
    if let Some(address) = sockets.unused() {
        return Err(Failure::Unused(address));
    }
    let Orders { leaving, draining, hangups, drain } =
        on_signals(harmless, config.timeouts.drain_delay, Arc::clone(&manager)).map_err(Failure::System)?;
    let (stats, connections) = (Stats::new(), ConnectionList::new());
    // These tasks stop when the set is dropped, after the relay has drained. Until then, /readyz says that it is
    // draining.
    let mut helpers = JoinSet::new();
    let (told, open) = (Arc::clone(&manager), Arc::clone(&connections));
    helpers.spawn(async move { told.report(|| open.page(0, 0).0).await });
    let mut told_to_end = leaving.clone();
    let state = tokio::select! {
        state = store::State::take_over(&config) => state?,
        _ = told_to_end.wait_for(|leaving| *leaving) => {
            tracing::info!("told to end before another process has let go of `state_dir`; good bye");
            return Ok(());
        }
    };
    let Opened { keys, set, windows, stores, maker } = store::open_in(state, &config, clock::now())?;
    certificates.extend(maker.certificates());
    let certificates = Certificates::new(certificates);
    let shared = share(&config, keys, Arc::clone(&set) as _, &stats);
    let memory = net::MemoryLimit::new(config.limits.memory, Arc::clone(&stats));
    if !certificates.is_empty() {
        helpers.spawn(look_at_certificates(certificates.clone()));
    }
    let upstreams = Upstreams::new(&config, opener, PROBE_EVERY);
    helpers.spawn(Arc::clone(&upstreams).watch());
    let (spans, spans_queue) = match config.telemetry.spans_every {
        0 => (None, None),
        every => {
            let (spans, queue) = Spans::new(every);
            (Some(spans), Some(queue))
        }
    };
    let signals = signals::Signals::new(Arc::clone(&set), config.duplicates.clone(), duplicates_tls);
    let woken = Arc::clone(&connections);
    let wake = Box::new(move || woken.wake_all());
    let chaos = Arc::new(Chaos::new(&config.chaos, Arc::clone(&set), replay_tls, leaving.clone(), wake));
    let relay = CurrentRelay::new(Relay {
        shared: Arc::clone(&shared),
        upstreams: Arc::clone(&upstreams),
        settings: RelaySettings::of(&config),
        buckets: Arc::default(),
        stats: Arc::clone(&stats),
        connections: Arc::clone(&connections),
        memory: Arc::clone(&memory),
        signals: Arc::clone(&signals),
        chaos: Arc::clone(&chaos),
        spans: spans.clone(),
    });
    let running = Running::new(&config, windows, draining.clone());
    let reloader = Reloader::new(live::Parts {
        source,
        running,
        set,
        maker,
        stores,
        relay: Arc::clone(&relay),
        memory: Arc::clone(&memory),
        certificates: Arc::clone(&certificates),
        other_files: OTHER_FILES,
        draining: draining.clone(),
    });
    helpers.spawn(tick(Arc::clone(&reloader), memory));
    helpers.spawn(reload_at(hangups, Arc::clone(&reloader)));
    let telemetry = config.telemetry.clone();
    if admin_listener.is_some() || telemetry.endpoint.is_some() {
        let admin = Admin::new(Parts {
            config: &config,
            running: Arc::clone(reloader.running()),
            keys: shared.keys.clone(),
            stats: Arc::clone(&stats),
            connections: Arc::clone(&connections),
            upstreams: Arc::clone(&upstreams),
            certificates: Arc::clone(&certificates),
            signals,
            chaos,
            tls: admin_tls,
            reloader: Some(Arc::clone(&reloader)),
            draining: leaving.clone(),
            drain: Some(drain),
            spans,
        });
        helpers.spawn(telemetry::export(Arc::clone(&admin), (telemetry, telemetry_tls), spans_queue));
        if let Some(listener) = admin_listener {
            helpers.spawn(async move {
                if let Err(error) = admin::serve(listener, admin).await {
                    tracing::error!(%error, "the admin listener ended");
                }
            });
        }
    }
    let mut told_to_end = leaving.clone();
    tokio::select! {
        recovered = reloader.recover() => recovered?,
        _ = told_to_end.wait_for(|leaving| *leaving) => {
            // Nobody was served, so the stores have nothing to write.
            reloader.close(STORES_AT_LEAST).await;
            tracing::info!("told to end while the stores were read; good bye");
            return Ok(());
        }
    }
    let shown = config.admin.map_or_else(|| "off".to_owned(), |admin| admin.to_string());
    let upstream: Vec<String> = config.upstreams.iter().map(ToString::to_string).collect();
    let upstream = upstream.join(",");
    tracing::info!(listen = config.listen_addresses(), upstream, admin = shown, "ready");
    manager.enter(Phase::Serving);
    let mut told = draining.clone();
    let serving = Arc::clone(&relay).serve(listeners, draining);
    let ((), begun) = tokio::join!(serving, async {
        let _ = told.wait_for(|draining| *draining).await;
        clock::now()
    });
    let left = relay.now().settings.drain_timeout.saturating_sub(clock::now().duration_since(begun));
    reloader.close(left.max(STORES_AT_LEAST)).await;
    if let Some(copies) = &relay.now().signals.copies {
        copies.close(COPIES_AT_MOST).await;
    }
    tracing::info!("drained; good bye");
    Ok(())
}

/// Creates the settings, keys and windows that all sessions share.
fn share(config: &Config, keys: KeyMaker, windows: Arc<dyn Windows>, stats: &Arc<Stats>) -> Arc<Shared> {
    let listener = Arc::clone(stats) as _;
    Arc::new(Shared::new(config.settings(), keys, windows, config.loopback_users(), listener))
}

/// Opens the files of a listener. Adds them to those that are read again.
fn entrance(
    listener: ListenerConfig,
    certificates: &mut Vec<Arc<dyn tls::Reread>>,
) -> Result<Entrance, tls::Unusable> {
    let ListenerConfig { address, trusted, tls } = listener;
    let client_certificates = tls.as_ref().is_some_and(|files| files.clients.is_some());
    let tls = tls.map(|files| files.open(&address.to_string())).transpose()?;
    certificates.extend(tls.iter().map(|tls| Arc::clone(tls) as _));
    Ok(Entrance { trusted, tls, client_certificates })
}

/// Once per [`TICK_EVERY`]: looks whether files with certificates have changed, and reads them again.
async fn look_at_certificates(certificates: Arc<Certificates>) {
    let mut tick = tokio::time::interval(TICK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let certificates = Arc::clone(&certificates);
        // A folder of the network may take long to answer.
        let _ = tokio::task::spawn_blocking(move || certificates.look()).await;
    }
}

/// Once per [`TICK_EVERY`]: removes expired ids that no publish has removed in passing, updates the averages of the
/// accounting, and lets windows with capacity "auto" change their size.
async fn tick(reloader: Arc<Reloader>, memory: Arc<net::MemoryLimit>) {
    let running = reloader.running();
    let mut tick = tokio::time::interval(TICK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tick.tick().await.into_std();
        let in_force = running.now();
        in_force.windows.iter().for_each(|watched| watched.tick(now));
        running.budget.tick(&in_force.windows, now);
        memory.tick();
        reloader.tick(now);
    }
}

/// Reloads the configuration at each SIGHUP. Several that come during a reload become one.
async fn reload_at(hangups: Arc<Notify>, reloader: Arc<Reloader>) {
    loop {
        hangups.notified().await;
        // The log says how it went.
        let _ = reloader.reload(false, true).await;
    }
}

/// Listens on an address: with the socket that the service manager has opened there, or with one of its own.
fn listen(
    sockets: &mut Sockets,
    key: &str,
    address: SocketAddr,
    reuse_port: bool,
) -> Result<TcpListener, Failure> {
    let mut listen = || {
        if let Some(socket) = sockets.take(address) {
            return TcpListener::from_std(socket);
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A port can then be opened again at once, even if its last connections are still in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        socket.listen(admin::BACKLOG)
    };
    listen().map_err(|error| Failure::Bind { key: key.to_owned(), address, error })
}

/// What a signal asks for. Each turns true once.
struct Orders {
    /// `/readyz` says 503 from now on
    leaving: watch::Receiver<bool>,
    /// no new connections, and what is in flight is settled: `timeouts.drain_delay` later
    draining: watch::Receiver<bool>,
    /// notified at each SIGHUP
    hangups: Arc<Notify>,
    /// takes the order of an operator to drain, with who gives it
    drain: mpsc::Sender<String>,
}

/// Follows the signals that ask for the end ([`Signals::end`]), and an operator who does. A second signal, or one after the
/// operator, ends the process at once.
fn on_signals(harmless: Harmless, delay: Duration, manager: Arc<Manager>) -> io::Result<Orders> {
    let mut signals = Signals::new(harmless)?;
    let hangups = Arc::clone(&signals.hangups);
    let (leave, leaving) = watch::channel(false);
    let (drain, draining) = watch::channel(false);
    let (order, mut ordered) = mpsc::channel(1);
    tokio::spawn(async move {
        let name = tokio::select! {
            name = signals.end() => name.to_owned(),
            // Never, if the admin listener is off.
            Some(by) = ordered.recv() => format!("order of {by}"),
        };
        leave.send_replace(true);
        manager.enter(Phase::Draining);
        drop(manager);
        let begin = async {
            if !delay.is_zero() {
                let delay = humantime::format_duration(delay).to_string();
                tracing::info!(
                    signal = &*name,
                    delay,
                    "/readyz says 503; the drain begins after timeouts.drain_delay"
                );
            }
            tokio::time::sleep(delay).await;
            tracing::info!(
                signal = &*name,
                "draining: no new connections; what is in flight is settled first"
            );
            drain.send_replace(true);
            std::future::pending::<()>().await;
        };
        let name = tokio::select! {
            () = begin => return,
            name = signals.end() => name,
        };
        tracing::warn!(signal = name, "told twice: ending at once");
        hapax::log::flush();
        std::process::exit(1);
    });
    Ok(Orders { leaving, draining, hangups, drain: order })
}

/// The signals that would end the process without a drain if nobody handled them. (Rust itself ignores SIGPIPE.)
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    harmless: Harmless,
    hangups: Arc<Notify>,
}

/// Those of them that do not ask for the end.
struct Harmless {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Harmless {
    fn new() -> io::Result<Harmless> {
        Ok(Harmless {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

impl Signals {
    fn new(harmless: Harmless) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            harmless,
            hangups: Arc::default(),
        })
    }

    /// Waits for a signal that asks for the end: SIGTERM, SIGINT or SIGQUIT. Passes SIGHUP on. Ignores the others and
    /// logs them: other programs take them for "open your log again", which Hapax cannot do.
    async fn end(&mut self) -> &'static str {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.quit.recv() => return "SIGQUIT",
                _ = self.harmless.hangup.recv() => {
                    self.hangups.notify_one();
                    continue;
                }
                _ = self.harmless.user1.recv() => "SIGUSR1",
                _ = self.harmless.user2.recv() => "SIGUSR2",
            };
            tracing::warn!(signal = ignored, "ignored: SIGHUP reloads the configuration, SIGTERM drains");
        }
    }
}
