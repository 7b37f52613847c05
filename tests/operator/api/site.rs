//! An admin interface of a few windows on a port of its own, and as much HTTP as it takes to talk to it.

use hapax::admin::{Admin, Parts, serve};
use hapax::chaos::Chaos;
use hapax::config::{Config, Overrides, Secret};
use hapax::live::{self, Reloader, Running, Source};
use hapax::net::{ConnectionList, CurrentRelay, MemoryLimit, Opener, Relay, RelaySettings, Upstreams};
use hapax::stats::Stats;
use hapax_core::pressure::Watched;
use hapax_core::session::Shared;
use hapax_core::window::{
    Inspect, KeyMaker, LiveWindows, Mailbox, Scope, Ticket, Verdict, WindowSet, reserve_one,
};
use hapax_core::wire::properties::IdValue;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};

/// Two windows of one exchange each, one for many, and one that takes the rest.
pub(crate) const WINDOWS: &str = r#"
[[window]]
name = "orders"
vhost = "/"
exchange = "orders"
capacity = 1000
ttl = "90s"
[[window]]
name = "numbers"
vhost = "shop"
exchange = "numbers"
id = "header:x-id"
scope = "exchange"
[[window]]
name = "events"
vhost = "test-*"
exchange = "events.*"
mode = "observe"
forward_to = "events.backing"
[[window]]
name = "rest"
scope = "vhost"
engine = "moka"
"#;

pub(crate) const TOKEN: &str = "a-token-that-nobody-guesses";
/// Of those who may only read. Beside [`TOKEN`].
pub(crate) const READ_ONLY: &str = "a-token-that-only-reads";
/// For an event to come about, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) windows: Vec<Watched>,
    pub(crate) keys: KeyMaker,
    /// the orders to drain
    pub(crate) orders: Mutex<mpsc::Receiver<String>>,
    _drain: watch::Sender<bool>,
}

#[expect(clippy::disallowed_methods, reason = "the windows of a running relay count from the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A file with [`READ_ONLY`] that is its owner's alone.
fn read_only_file() -> String {
    use std::os::unix::fs::PermissionsExt;
    static FILE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let made = || {
        let file = std::env::temp_dir().join(format!("page-read-only-{}.token", std::process::id()));
        std::fs::write(&file, READ_ONLY).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file.display().to_string()
    };
    FILE.get_or_init(made).clone()
}

/// Chaos as this configuration allows it, with nobody to trouble.
fn chaos(config: &Config, draining: &watch::Receiver<bool>) -> Arc<Chaos> {
    let none = LiveWindows::new(WindowSet::default());
    Arc::new(Chaos::new(&config.chaos, none, None, draining.clone(), Box::new(|| ())))
}

impl Site {
    /// Without a token.
    pub(crate) async fn open() -> Site {
        Site::start(WINDOWS, None).await
    }

    /// With [`TOKEN`] and [`READ_ONLY`].
    pub(crate) async fn guarded() -> Site {
        Site::start(WINDOWS, Some(TOKEN)).await
    }

    pub(crate) async fn start(text: &str, token: Option<&str>) -> Site {
        let overrides =
            Overrides { admin_token: token.map(|token| Secret(token.into())), ..Overrides::default() };
        // An upstream that refuses at once.
        let mut text = format!("upstream = \"amqp://127.0.0.1:1\"\n{text}");
        if token.is_some() {
            text = format!("admin_read_only_token_file = {:?}\n{text}", read_only_file());
        }
        let config = Config::parse(None, &text, &overrides).unwrap_or_else(|e| panic!("{e}")).config;
        let windows = hapax::store::open(&config, now()).unwrap().windows;
        Site::of(&config, windows).await
    }

    /// With a configuration file, which can be loaded again.
    pub(crate) async fn with_file(file: &Path) -> Site {
        let overrides = Overrides::default();
        let config = Config::load(Some(file), &overrides).unwrap_or_else(|e| panic!("{e}")).config;
        let (drain, draining) = watch::channel(false);
        let opened = hapax::store::open(&config, now()).unwrap();
        let (stats, windows) = (Stats::new(), opened.windows);
        let set = Arc::clone(&opened.set);
        let shared = Shared::new(config.settings(), opened.keys, set, config.loopback_users(), stats.clone());
        let memory = MemoryLimit::new(config.limits.memory, Arc::clone(&stats));
        let chaos = chaos(&config, &draining);
        let reloader = Reloader::new(live::Parts {
            source: Source { file: Some(file.to_owned()), overrides },
            running: Running::new(&config, windows.clone(), draining.clone()),
            set: opened.set,
            maker: opened.maker,
            stores: opened.stores,
            relay: CurrentRelay::new(Relay {
                shared: Arc::new(shared),
                upstreams: Upstreams::new(&config, Opener::default(), Duration::from_secs(1)),
                settings: RelaySettings::of(&config),
                buckets: Arc::default(),
                stats,
                connections: ConnectionList::new(),
                memory: Arc::clone(&memory),
                signals: Arc::default(),
                chaos: Arc::clone(&chaos),
                spans: None,
            }),
            memory,
            certificates: Arc::default(),
            other_files: 64,
            draining: draining.clone(),
        });
        Site::serving(&config, windows, (drain, draining), Some(reloader), chaos).await
    }

    /// With these windows, which are as `config` says.
    pub(crate) async fn of(config: &Config, windows: Vec<Watched>) -> Site {
        let (drain, draining) = watch::channel(false);
        let chaos = chaos(config, &draining);
        Site::serving(config, windows, (drain, draining), None, chaos).await
    }

    async fn serving(
        config: &Config,
        windows: Vec<Watched>,
        (drain, draining): (watch::Sender<bool>, watch::Receiver<bool>),
        reloader: Option<Arc<Reloader>>,
        chaos: Arc<Chaos>,
    ) -> Site {
        let (order, orders) = mpsc::channel(1);
        let running = reloader.as_ref().map_or_else(
            || Running::new(config, windows.clone(), draining.clone()),
            |reloader| Arc::clone(reloader.running()),
        );
        let keys = KeyMaker::new((1, 2));
        let admin = Admin::new(Parts {
            config,
            running,
            keys: keys.clone(),
            stats: Stats::new(),
            connections: ConnectionList::new(),
            upstreams: Upstreams::new(config, Opener::default(), Duration::from_secs(1)),
            certificates: Arc::default(),
            signals: Arc::default(),
            chaos,
            tls: None,
            reloader,
            draining,
            drain: Some(order),
            spans: None,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, admin));
        Site { address, windows, keys, orders: Mutex::new(orders), _drain: drain }
    }

    pub(crate) fn window(&self, name: &str) -> &Arc<dyn Inspect> {
        let named = |watched: &&Watched| &*watched.window.rules().name == name;
        &self.windows.iter().find(named).expect(name).window
    }

    /// As a publish of this id to this exchange and routing key would be, until the broker has acked it.
    pub(crate) fn store(&self, window: &str, at: [&str; 3], id: IdValue<'_>) {
        match self.reserve(window, at, id) {
            Verdict::Fresh(reservation) => {
                let ttl = self.window(window).ttl();
                reservation.commit(now(), ttl);
            }
            other => panic!("not fresh: {other:?}"),
        }
    }

    pub(crate) fn reserve(
        &self,
        window: &str,
        [vhost, exchange, key]: [&str; 3],
        id: IdValue<'_>,
    ) -> Verdict {
        let window = self.window(window);
        let scope: Scope = window.rules().scope;
        let key = self.keys.key(scope, vhost.as_bytes(), exchange.as_bytes(), key.as_bytes(), &id);
        reserve_one(window, key, now(), &Arc::new(Mailbox::new()), Ticket(0))
    }

    /// `count` ids in window `orders`.
    pub(crate) fn fill(&self, count: usize) {
        for n in 0..count {
            self.store("orders", ["/", "orders", "k"], IdValue::Bytes(format!("id-{n}").as_bytes()));
        }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        // A server that refuses what is too long does not read it all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer");
        Answer::parse(&String::from_utf8(answer).unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// A change as a client of ours asks for it.
    pub(crate) async fn change(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask(method, path, &[("Content-Type", "application/json")], body).await
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    fn parse(answer: &str) -> Answer {
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head = head.to_ascii_lowercase();
        let chunked = head.contains("transfer-encoding: chunked");
        Answer { status, head, text: if chunked { whole(text) } else { text.to_owned() } }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}")).to_owned()
    }
}

/// A body that came in chunks, as whoever reads it sees it. The last chunk is empty; an answer that was cut short has none.
fn whole(chunks: &str) -> String {
    let (mut text, mut rest) = (String::new(), chunks);
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk");
        if size == 0 {
            break;
        }
        text.push_str(&more[..size]);
        rest = &more[size + 2..];
    }
    text
}
