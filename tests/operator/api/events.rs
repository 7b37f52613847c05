//! Server-sent events.

use super::site::{DEADLINE, Site, TOKEN};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

struct Listener(BufReader<TcpStream>);

impl Listener {
    async fn connect(site: &Site) -> Listener {
        Listener::over(TcpStream::connect(site.address).await.unwrap(), site).await
    }

    /// One whose system takes little for it, so that it is soon full.
    async fn short(site: &Site) -> Listener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        Listener::over(socket.connect(site.address).await.unwrap(), site).await
    }

    async fn over(mut stream: TcpStream, site: &Site) -> Listener {
        let request = format!(
            "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
            site.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Listener(BufReader::new(stream))
    }

    /// Status line and headers.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).await.unwrap() > 0, "ended: {head}");
        }
        head
    }

    /// The data of the next event.
    async fn next(&mut self) -> Value {
        let data = async {
            let mut name = String::new();
            loop {
                let mut line = String::new();
                assert!(self.0.read_line(&mut line).await.unwrap() > 0, "the stream has ended");
                if let Some(event) = line.strip_prefix("event: ") {
                    name = event.trim().to_owned();
                }
                if let Some(data) = line.strip_prefix("data: ") {
                    assert_eq!(name, "windows");
                    return serde_json::from_str(data).unwrap();
                }
            }
        };
        tokio::time::timeout(DEADLINE, data).await.expect("an event in time")
    }
}

#[tokio::test]
async fn windows_and_status_come_each_second() {
    let site = Site::open().await;
    let mut listener = Listener::connect(&site).await;
    let head = listener.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let first = listener.next().await;
    assert_eq!(first["windows"].as_array().unwrap().len(), 4);
    assert_eq!(first["windows"][0]["entries"], 0);
    assert_eq!(first["status"]["upstream"]["ok"], false);
    site.fill(5);
    // The next but one was surely made after that.
    listener.next().await;
    let later = listener.next().await;
    assert_eq!(later["windows"][0]["entries"], 5);
    let passed = later["status"]["uptime_seconds"].as_f64().unwrap()
        - first["status"]["uptime_seconds"].as_f64().unwrap();
    assert!(passed > 1.5, "one a second, but two took {passed} s");
}

#[tokio::test]
async fn all_listeners_share_one_snapshot() {
    let site = Site::open().await;
    let (mut one, mut two) = (Listener::connect(&site).await, Listener::connect(&site).await);
    let first = one.next().await;
    let mut second = two.next().await;
    // The later one may begin with the event after.
    let mut third = first;
    while third["status"]["uptime_seconds"].as_f64() < second["status"]["uptime_seconds"].as_f64() {
        third = one.next().await;
    }
    while second["status"]["uptime_seconds"].as_f64() < third["status"]["uptime_seconds"].as_f64() {
        second = two.next().await;
    }
    assert_eq!(second, third, "made twice");
}

#[tokio::test]
async fn one_listener_too_many_is_503_and_a_place_is_free_again() {
    let site = Site::guarded().await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        let mut listener = Listener::connect(&site).await;
        assert!(listener.head().await.starts_with("HTTP/1.1 200"));
        listeners.push(listener);
    }
    let head = Listener::connect(&site).await.head().await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(head.to_ascii_lowercase().contains("retry-after: 5"), "{head}");
    listeners.pop();
    let free = async { while !Listener::connect(&site).await.head().await.starts_with("HTTP/1.1 200") {} };
    tokio::time::timeout(DEADLINE, free).await.expect("a place is given back");
}

/// 64 streams that nobody reads hold all places for a while. The first one that is stuck makes room for a newcomer,
/// and the others are dropped. A stream that is read is not.
#[tokio::test]
async fn who_reads_no_events_loses_its_place_and_who_reads_keeps_it() {
    const LONG: Duration = Duration::from_secs(60);
    let site = Arc::new(Site::guarded().await);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let mut dashboard = Listener::connect(&site).await;
    dashboard.next().await;
    let begun = tokio::time::Instant::now();
    let reads = tokio::spawn(async move {
        let mut events = 0;
        loop {
            tokio::select! {
                _ = dashboard.next() => events += 1,
                _ = &mut stopped => break events,
            }
        }
    });
    let mut silent = Vec::new();
    for _ in 0..63 {
        let mut listener = Listener::short(&site).await;
        assert!(listener.head().await.starts_with("HTTP/1.1 200"));
        silent.push(listener);
    }
    assert!(Listener::connect(&site).await.head().await.starts_with("HTTP/1.1 503"), "all seem to read yet");
    // Each of these takes the place of one that is stuck, until none is left: all 63 places are had back.
    let all = async {
        let mut reading = Vec::new();
        let mut again = tokio::time::interval(Duration::from_millis(100));
        while reading.len() < 63 {
            let mut listener = Listener::connect(&site).await;
            if listener.head().await.starts_with("HTTP/1.1 200") {
                reading.push(tokio::spawn(async move {
                    loop {
                        listener.next().await;
                    }
                }));
            } else {
                again.tick().await;
            }
        }
        reading
    };
    let reading = tokio::time::timeout(LONG, all).await.expect("no silent one keeps its place");
    assert!(Listener::connect(&site).await.head().await.starts_with("HTTP/1.1 503"), "all read now");
    assert!(reading.iter().all(|reads| !reads.is_finished()), "one that reads was dropped");
    reading.iter().for_each(tokio::task::JoinHandle::abort);
    stop.send(()).unwrap();
    let (events, seconds) = (reads.await.unwrap(), begun.elapsed().as_secs());
    assert!(
        events > 0 && events + 2 >= seconds,
        "the dashboard was served all along: {events} in {seconds} s"
    );
}

/// Nobody else comes: the bound of the socket ends a stream that nobody reads.
#[tokio::test]
async fn who_reads_no_events_is_dropped() {
    let site = Site::guarded().await;
    let mut silent = Listener::short(&site).await;
    silent.head().await;
    let mut second = Listener::connect(&site).await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(40) {
        second.next().await;
        // Its socket is closed with unread bytes, so a reset comes. It is seen without reading.
        if silent.0.get_ref().take_error().unwrap().is_some() {
            return;
        }
    }
    panic!("it is kept");
}
