//! Tests over real sockets: silent peers, slow peers, and those who come after them.

use super::*;
use axum::routing::get;
use futures_util::stream;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a liveness probe waits by default.
const PROBE: Duration = Duration::from_secs(1);

async fn start(router: Router, bounds: Bounds) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(super::super::BACKLOG).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, bounds, None));
    address
}

async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream
}

/// Reads the first bytes of an answer.
async fn answer(stream: &mut TcpStream) -> io::Result<[u8; 12]> {
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    Ok(first)
}

/// Sends a request as soon as the socket is connected, like a probe that is a process of its own, and checks the
/// answer.
async fn is_answered(address: SocketAddr) {
    use std::io::{Read, Write};
    let probe = tokio::task::spawn_blocking(move || {
        let mut first = [0; 12];
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_exact(&mut first).unwrap();
        first
    });
    let answer = timeout(PROBE, probe).await.expect("answered within a second");
    assert_eq!(&answer.unwrap(), b"HTTP/1.1 200");
}

fn here() -> Router {
    Router::new().route("/", get(async || "here"))
}

/// A body that never ends and tells when it is dropped.
fn endless() -> (Router, mpsc::UnboundedReceiver<()>) {
    struct Told(mpsc::UnboundedSender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, dropped) = mpsc::unbounded_channel();
    let body = async move || {
        let told = Told(sender);
        Body::from_stream(stream::repeat_with(move || {
            let _ = &told;
            Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536]))
        }))
    };
    (Router::new().route("/", get(body)), dropped)
}

#[tokio::test]
async fn who_reads_nothing_is_dropped() {
    let (router, mut dropped) = endless();
    let address = start(router, Bounds { write: SOON, ..BOUNDS }).await;
    let mut slow = ask(address).await;
    assert_eq!(&answer(&mut slow).await.unwrap(), b"HTTP/1.1 200");
    timeout(DEADLINE, dropped.recv()).await.expect("the slow one is dropped");
    drop(slow);
}

#[tokio::test]
async fn who_says_nothing_is_dropped() {
    let address = start(here(), Bounds { head: SOON, ..BOUNDS }).await;
    for said in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(said.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let end = timeout(DEADLINE, silent.read_to_end(&mut rest)).await;
        end.expect("closed in time").unwrap();
        assert_eq!(rest.is_empty(), !said.ends_with("\r\n\r\n"), "{said:?}");
    }
}

/// All places are taken by connections that send nothing, or half a line, and that are never closed.
#[tokio::test]
async fn a_probe_is_answered_while_all_are_silent() {
    let address = start(here(), BOUNDS).await;
    let mut silent = Vec::new();
    for count in [BOUNDS.connections, 1000] {
        while silent.len() < count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if silent.len().is_multiple_of(2) {
                let _ = stream.write_all(b"GET /healthz HT").await;
            }
            silent.push(stream);
        }
        is_answered(address).await;
    }
}

/// While a probe connects, more silent connections than there are places arrive before and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_while_silent_ones_come() {
    let address = start(here(), BOUNDS).await;
    for _ in 0..20 {
        let flood = tokio::spawn(async move {
            let mut silent = Vec::new();
            for _ in 0..3 * BOUNDS.connections {
                silent.push(TcpStream::connect(address).await);
            }
        });
        is_answered(address).await;
        flood.await.unwrap();
    }
}

/// Every place has a request whose answer nobody reads.
#[tokio::test]
async fn a_probe_is_answered_while_all_have_a_request() {
    let (router, mut dropped) = endless();
    let router = router.route("/probe", get(async || "here"));
    let address = start(router, Bounds { connections: 16, ..BOUNDS }).await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut stream = ask(address).await;
        answer(&mut stream).await.unwrap();
        slow.push(stream);
    }
    let probe = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        answer(&mut stream).await.unwrap()
    };
    assert_eq!(&timeout(PROBE, probe).await.expect("answered within a second"), b"HTTP/1.1 200");
    assert_eq!(timeout(DEADLINE, dropped.recv()).await, Ok(Some(())), "one of them gave way");
    assert!(dropped.try_recv().is_err(), "and no other");
}

/// There are three places. The connection with a request stays; of the others, the one goes that was silent for
/// longest.
#[tokio::test]
async fn who_has_a_request_stays_and_the_oldest_without_goes() {
    let (router, mut dropped) = endless();
    let address = start(router, Bounds { connections: 3, ..BOUNDS }).await;
    let mut busy = ask(address).await;
    answer(&mut busy).await.unwrap();
    let mut silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let mut third = ask(address).await;
    answer(&mut third).await.unwrap();
    let mut rest = [0];
    let gone = timeout(DEADLINE, silent[0].read(&mut rest)).await.expect("the oldest gives way");
    assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
    assert_eq!(silent[1].try_read(&mut rest).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    assert!(dropped.try_recv().is_err());
}
