//! The admin interface over a real socket: metrics, health, readiness against a broker that answers or does not.

use hapax::admin::{Admin, Parts, serve as serve_admin};
use hapax::config::{Config, Overrides};
use hapax::live::Running;
use hapax::net::{ConnectionList, Opener, Upstreams};
use hapax::stats::Stats;
use hapax_core::pressure::Accounting;
use hapax_core::session::SessionListener as _;
use hapax_core::window::engine::Stamp;
use hapax_core::window::{Event, EvictionCause, ForgetCause, Key, KeyMaker, Listener as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// The smallest `connection.start`.
const START: &[u8] = b"\x01\x00\x00\x00\x00\x00\x1c\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US\xce";

struct Served {
    address: SocketAddr,
    stats: Arc<Stats>,
    accountings: Vec<Arc<Accounting>>,
    drain: watch::Sender<bool>,
}

/// An admin interface of two windows before this upstream.
async fn serve(upstream: SocketAddr) -> Served {
    serve_before(&[upstream], "").await
}

/// The same before these nodes, with these settings of their health.
async fn serve_before(nodes: &[SocketAddr], health: &str) -> Served {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("amqp://{node}")).collect();
    let text = "[[window]]\nname = \"orders\"\nexchange = \"orders\"\ncapacity = 7\nttl = \"90s\"\n\
                [[window]]\nname = \"rest\"\nmode = \"observe\"\n";
    let text = format!(
        "upstream = {nodes:?}\n[upstream_health]\n{health}\n[timeouts]\nupstream_connect = \"20s\"\n{text}"
    );
    let config = Config::parse(None, &text, &Overrides::default()).expect("valid").config;
    let windows =
        hapax::store::open(&config, tokio::time::Instant::now().into_std()).expect("opened").windows;
    let accountings = windows.iter().map(|watched| Arc::clone(&watched.accounting)).collect();
    let (drain, draining) = watch::channel(false);
    let stats = Stats::new();
    let upstreams = Upstreams::new(&config, Opener::default(), Duration::from_secs(3600));
    tokio::spawn(Arc::clone(&upstreams).watch());
    let admin = Admin::new(Parts {
        config: &config,
        running: Running::new(&config, windows, draining.clone()),
        keys: KeyMaker::new((1, 2)),
        stats: Arc::clone(&stats),
        connections: ConnectionList::new(),
        upstreams,
        certificates: Arc::default(),
        signals: Arc::default(),
        chaos: Arc::default(),
        tls: None,
        reloader: None,
        draining,
        drain: None,
        spans: None,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    tokio::spawn(serve_admin(listener, admin));
    Served { address, stats, accountings, drain }
}

/// Something that answers each connection's protocol header with these bytes and counts the connections.
async fn broker(answer: &'static [u8]) -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let (asked, count) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            asked.send_modify(|count| *count += 1);
            let mut header = [0; 8];
            stream.read_exact(&mut header).await.expect("protocol header");
            assert_eq!(&header, b"AMQP\x00\x00\x09\x01");
            stream.write_all(answer).await.expect("written");
        }
    });
    (address, count)
}

/// An address where nobody listens, and nobody else will while the socket lives.
fn nobody() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("bound");
    (socket.local_addr().expect("address"), socket)
}

/// Status line and headers, and the body.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    get_as(address, path, "*/*").await
}

/// Likewise, of this type.
async fn get_as(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

async fn ready(address: SocketAddr) -> (u16, serde_json::Value) {
    let (head, body) = get(address, "/readyz").await;
    let status = head.split(' ').nth(1).expect("status").parse().expect("number");
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn metrics_have_the_names_that_scripts_depend_on() {
    let (upstream, _socket) = nobody();
    let served = serve(upstream).await;
    let [orders, rest] = served.accountings.as_slice() else { panic!("two windows") };
    let (key, now, until) = (Key(1), Stamp(1), Stamp(2));
    orders.on(&Event::Fresh { claim: key.into() });
    orders.on(&Event::Committed { claim: key.into(), now, until });
    orders.on(&Event::Forgotten(ForgetCause::Nack));
    orders.on(&Event::Forgotten(ForgetCause::InDoubt));
    orders.on(&Event::Evicted { claim: key.into(), at: now, until, now, cause: EvictionCause::Capacity });
    (0..3).for_each(|_| rest.on(&Event::Duplicate { claim: key.into(), now }));
    rest.on(&Event::CommittedInDoubt { claim: key.into(), now, until });
    let open = served.stats.accepted();
    served.stats.rejected();
    served.stats.dial_failed();
    served.stats.unmatched();
    served.stats.publish_latency(Duration::from_millis(3), 1);
    let (head, body) = get(served.address, "/metrics").await;
    drop(open);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        r#"hapax_publishes_total{window="",verdict="unmatched"} 1"#,
        r#"hapax_publishes_total{window="orders",verdict="fresh"} 1"#,
        r#"hapax_publishes_total{window="orders",verdict="in_flight"} 0"#,
        r#"hapax_publishes_total{window="orders",verdict="no_id"} 0"#,
        r#"hapax_publishes_total{window="orders",verdict="bypassed"} 0"#,
        r#"hapax_publishes_total{window="rest",verdict="duplicate"} 3"#,
        r#"hapax_commits_total{window="orders"} 1"#,
        r#"hapax_forgotten_total{window="orders",cause="nack"} 1"#,
        r#"hapax_in_doubt_total{window="orders",outcome="forgotten"} 1"#,
        r#"hapax_in_doubt_total{window="rest",outcome="kept"} 1"#,
        r#"hapax_evictions_total{window="orders",cause="capacity"} 1"#,
        r#"hapax_window_entries{window="orders"} 0"#,
        r#"hapax_window_in_flight{window="orders"} 0"#,
        r#"hapax_window_capacity{window="rest"} 1000000"#,
        r#"hapax_window_ttl_seconds{window="orders"} 90.0"#,
        "hapax_connections 1",
        "hapax_connections_accepted_total 1",
        "hapax_connections_rejected_total 1",
        "hapax_upstream_dial_failures_total 1",
        "hapax_publish_latency_seconds_sum 0.003",
        "hapax_publish_latency_seconds_count 1",
        r#"hapax_publish_latency_seconds_bucket{le="0.0025"} 0"#,
        r#"hapax_publish_latency_seconds_bucket{le="0.005"} 1"#,
        r#"hapax_publish_latency_seconds_bucket{le="+Inf"} 1"#,
        concat!("hapax_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "# TYPE hapax_publishes_total counter",
        "# TYPE hapax_publish_latency_seconds histogram",
    ] {
        assert!(body.lines().any(|have| have == line), "{line}\nis not in\n{body}");
    }
    assert!(body.contains("hapax_window_bytes{window=\"orders\"} "), "{body}");
    for line in body.lines().filter(|line| line.starts_with("# HELP")) {
        assert!(line.ends_with('.'), "{line}");
    }
    for name in
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
    {
        assert!(body.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} in {body}");
    }
    let families: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let unique: std::collections::HashSet<&&str> = families.iter().collect();
    assert_eq!(families.len(), unique.len(), "a family is declared twice: {families:?}");
}

/// The value of `hapax_upstream_up` for this node.
async fn scraped_up(address: SocketAddr, node: SocketAddr) -> Option<String> {
    let (_, body) = get(address, "/metrics").await;
    let name = format!("hapax_upstream_up{{upstream=\"{node}\"}} ");
    body.lines().find_map(|line| Some(line.strip_prefix(&name)?.to_owned()))
}

#[tokio::test]
async fn prometheus_gets_the_format_that_it_asks_for_and_the_same_numbers() {
    let (upstream, _asked) = broker(START).await;
    let served = serve(upstream).await;
    served.accountings.iter().for_each(|accounting| accounting.on(&Event::NoId));
    let (_, classic) = get(served.address, "/metrics").await;
    let (head, open) = get_as(served.address, "/metrics", "application/openmetrics-text;version=1.0.0").await;
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(open.ends_with("\n# EOF\n") && !classic.contains("# EOF"));
    let samples = |text: &str| -> Vec<String> {
        let hapax = text.lines().filter(|line| line.starts_with("hapax_"));
        hapax.map(str::to_owned).collect()
    };
    assert_eq!(samples(&open), samples(&classic));
}

#[tokio::test]
async fn a_scrape_says_whether_the_upstream_answers() {
    let (upstream, asked) = broker(START).await;
    let served = serve(upstream).await;
    assert_eq!(scraped_up(served.address, upstream).await.as_deref(), Some("1"));
    assert_eq!(scraped_up(served.address, upstream).await.as_deref(), Some("1"));
    assert_eq!(*asked.borrow(), 1, "the answer is kept");
    let (upstream, _socket) = nobody();
    let served = serve(upstream).await;
    assert_eq!(scraped_up(served.address, upstream).await.as_deref(), Some("0"));
}

/// An upstream that accepts and says nothing costs a scrape a moment, not the probe's whole timeout (20 s here). A later
/// scrape shows its answer.
#[tokio::test]
async fn a_scrape_does_not_wait_for_an_upstream_that_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let upstream = listener.local_addr().expect("address");
    let served = serve(upstream).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(scraped_up(served.address, upstream).await, None, "nothing is known yet");
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited {:?}", begun.elapsed());
    let (mut stream, _) = listener.accept().await.expect("accepted");
    stream.write_all(START).await.expect("written");
    let answer = async {
        loop {
            if let Some(up) = scraped_up(served.address, upstream).await {
                break up;
            }
        }
    };
    let up = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("told in time");
    assert_eq!(up, "1");
}

#[tokio::test]
async fn health_is_there_while_the_process_is() {
    let (upstream, _socket) = nobody();
    let served = serve(upstream).await;
    let (head, body) = get(served.address, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "alive\n");
}

#[tokio::test]
async fn ready_when_the_upstream_answers_a_handshake() {
    let (upstream, asked) = broker(START).await;
    let served = serve(upstream).await;
    let (status, body) = ready(served.address).await;
    assert_eq!(
        (status, &body["ready"], &body["upstream"]["ok"]),
        (200, &true.into(), &true.into()),
        "{body}"
    );
    assert_eq!(body["upstream"]["address"], upstream.to_string());
    assert_eq!((&body["windows"][0]["name"], &body["windows"][0]["capacity"]), (&"orders".into(), &7.into()));
    assert_eq!((&body["windows"][1]["mode"], &body["windows"][1]["entries"]), (&"observe".into(), &0.into()));
    assert_eq!(ready(served.address).await.0, 200);
    assert_eq!(*asked.borrow(), 1, "the answer is kept");
}

#[tokio::test]
async fn not_ready_while_draining() {
    let (upstream, _asked) = broker(START).await;
    let served = serve(upstream).await;
    served.drain.send_replace(true);
    let (status, body) = ready(served.address).await;
    assert_eq!((status, &body["ready"], &body["draining"]), (503, &false.into(), &true.into()), "{body}");
}

#[tokio::test]
async fn not_ready_when_the_upstream_answers_wrongly() {
    let cases: [(&'static [u8], &str); 4] = [
        (b"", "closed the connection"),
        (b"AMQP\x00\x01\x00\x00", "another version of AMQP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP"),
        (&[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 50, 0xCE], "does not speak AMQP"),
    ];
    for (answer, error) in cases {
        let (upstream, _asked) = broker(answer).await;
        let (status, body) = ready(serve(upstream).await.address).await;
        assert_eq!(status, 503, "{body}");
        assert!(body["upstream"]["error"].as_str().expect("a text").contains(error), "{error:?} in {body}");
    }
}

#[tokio::test]
async fn not_ready_without_an_upstream() {
    let (upstream, _socket) = nobody();
    let (status, body) = ready(serve(upstream).await.address).await;
    assert_eq!(status, 503);
    assert!(body["upstream"]["error"].as_str().expect("a text").contains("refused"), "{body}");
}

#[tokio::test]
async fn anything_else_is_404_as_json() {
    let (upstream, _socket) = nobody();
    let served = serve(upstream).await;
    let (head, body) = get(served.address, "/nothing").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert!(body["error"].as_str().expect("a text").contains("/nothing"), "{body}");
}
