//! Reads `/metrics` and `/readyz` of the relay, with as much HTTP as that needs.

use super::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Both are answered from memory, or within the relay's own second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Counters, over all windows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub(super) struct Relayed {
    /// forwarded
    pub(super) fresh: u64,
    /// dropped
    pub(super) duplicate: u64,
    /// had to wait for the outcome of another one; counted again above
    pub(super) in_flight: u64,
    /// forwarded without judgement
    pub(super) unjudged: u64,
    /// acked by the broker
    pub(super) commits: u64,
    /// forwarded, and not stored
    pub(super) forgotten: u64,
    /// nacked, because they could not be kept waiting
    pub(super) refused: u64,
}

impl Relayed {
    /// Reads them.
    pub(super) async fn read(admin: SocketAddr) -> Result<Relayed, Error> {
        let (status, text) =
            get(admin, "/metrics").await.map_err(Error::io("reading the relay's /metrics"))?;
        if status != 200 {
            return Err(Error::Step(format!("the relay's /metrics answered {status}")));
        }
        Ok(Relayed::parse(&text))
    }

    fn parse(text: &str) -> Relayed {
        let sum = |name: &str, label: &str| -> u64 {
            let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
            let wanted = samples.filter(|(series, _)| {
                series
                    .strip_prefix(name)
                    .is_some_and(|labels| labels.starts_with('{') && labels.contains(label))
            });
            wanted.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        let verdict = |name: &str| sum("hapax_publishes_total", &format!("verdict=\"{name}\""));
        Relayed {
            fresh: verdict("fresh"),
            duplicate: verdict("duplicate"),
            in_flight: verdict("in_flight"),
            unjudged: verdict("no_id") + verdict("bypassed") + verdict("unmatched"),
            commits: sum("hapax_commits_total", ""),
            forgotten: sum("hapax_forgotten_total", ""),
            refused: sum("hapax_refused_total", ""),
        }
    }
}

/// Status and body of a GET.
pub(super) async fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that was not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_summed_over_windows() {
        let relayed = Relayed::parse(
            "# HELP hapax_publishes Publishes.\n\
             hapax_publishes_total{window=\"a\",verdict=\"fresh\"} 3\n\
             hapax_publishes_total{window=\"b\",verdict=\"fresh\"} 4\n\
             hapax_publishes_total{window=\"a\",verdict=\"duplicate\"} 2\n\
             hapax_commits_total{window=\"a\"} 7\n\
             hapax_connections 12\n",
        );
        assert_eq!(relayed, Relayed { fresh: 7, duplicate: 2, commits: 7, ..Relayed::default() });
    }
}
