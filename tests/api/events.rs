//! Server-sent events.

use super::site::{DEADLINE, Site, TOKEN};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

struct Listener(BufReader<TcpStream>);

impl Listener {
    async fn connect(site: &Site) -> Listener {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
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
