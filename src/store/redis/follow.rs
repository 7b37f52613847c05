//! Reads the changes of the other relays of a window, and the state of Redis.

use super::connect::Connection;
use super::{Failed, LONGEST_PAUSE, Shared};
use crate::clock::{now, wall};
use redis::{Value, cmd, from_redis_value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long Redis is waited for that has nothing to tell. After each such time it is asked how it is.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// The follower of one window.
pub(super) struct Follower {
    shared: Arc<Shared>,
    closing: watch::Receiver<bool>,
    /// the last entry that was read; `None`: nothing was read yet
    last: Option<String>,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, closing: watch::Receiver<bool>) -> Follower {
        Follower { shared, closing, last: None }
    }

    /// Follows until the process ends. The link tells of failures, so this does not.
    pub(super) async fn run(mut self) {
        while !*self.closing.borrow() {
            if let Ok(connection) = self.shared.connect().await {
                let failed = self.follow(connection).await;
                tracing::debug!(
                    window = self.shared.name(),
                    ?failed,
                    "the changes of other relays can't be read"
                );
            }
            sleep(LONGEST_PAUSE / 4).await;
        }
    }

    async fn follow(&mut self, mut connection: Connection) -> Result<(), Failed> {
        self.begin(&mut connection).await?;
        let mut informed = tokio::time::Instant::now() - WAIT;
        loop {
            if informed.elapsed() >= WAIT {
                informed = tokio::time::Instant::now();
                self.inform(&mut connection).await?;
            }
            let mut read = cmd("XREAD");
            read.arg("COUNT").arg(1_000).arg("BLOCK").arg(hapax_core::window::leased::millis(WAIT));
            read.arg("STREAMS").arg(&self.shared.names.changes).arg(self.last.as_deref().unwrap_or("0"));
            let reply = timeout(WAIT + self.shared.timeout, connection.ask(&read)).await;
            let reply = reply.map_err(|_| Failed::Silent)??;
            if matches!(reply, Value::Nil) {
                continue;
            }
            let streams: Streams = from_redis_value(reply).map_err(|_| Failed::Strange)?;
            for (id, fields) in streams.into_iter().flat_map(|(_, entries)| entries) {
                self.merge(&fields);
                self.last = Some(id);
            }
        }
    }

    /// Finds the place to read on from. If entries were thrown away that this relay has not read, its memory may hold what others have
    /// forgotten, so it forgets all of it. Redis knows what is seen.
    async fn begin(&mut self, connection: &mut Connection) -> Result<(), Failed> {
        let end = |command: &'static str| {
            let mut range = cmd(command);
            let (from, to) = if command == "XRANGE" { ("-", "+") } else { ("+", "-") };
            range.arg(&self.shared.names.changes).arg(from).arg(to).arg("COUNT").arg(1);
            range
        };
        match &self.last {
            None => {
                let last: Entries = ask(connection, &end("XREVRANGE"), self.shared.timeout).await?;
                self.last = Some(last.into_iter().next().map_or_else(|| "0-0".into(), |(id, _)| id));
            }
            Some(last) => {
                let first: Entries = ask(connection, &end("XRANGE"), self.shared.timeout).await?;
                let is_gap = first.first().is_some_and(|(id, _)| last != "0-0" && order(id) > order(last));
                let newest: Entries = ask(connection, &end("XREVRANGE"), self.shared.timeout).await?;
                let newest = newest.into_iter().next().map(|(id, _)| id);
                // Redis has lost entries: it failed over, or was started empty. The next ones may have smaller ids, if its clock is
                // behind. (Of an empty Redis, the memory of the relays is all that is left.)
                let is_lost = newest.as_ref().map_or((0, 0), |id| order(id)) < order(last);
                if is_gap || is_lost && newest.is_some() {
                    self.shared.window.forget_memory(now());
                }
                if is_lost {
                    self.last = Some(newest.unwrap_or_else(|| "0-0".into()));
                }
            }
        }
        Ok(())
    }

    fn merge(&self, fields: &[(String, Vec<u8>)]) {
        let field = |name: &str| fields.iter().find(|(have, _)| have == name).map(|(_, value)| value);
        let window = &self.shared.window;
        if let Some(generation) = field("g").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()) {
            window.set_generation(generation);
        }
        match field("b").map(|bytes| self.shared.codec.decode(bytes)) {
            Some(Ok(batch)) if batch.relay == self.shared.codec.relay() => {}
            Some(Ok(batch)) => {
                let changes = window.merge(&batch, now(), wall());
                crate::store::log_merged(&**window, &changes);
            }
            Some(Err(_)) | None => window.log().note_damaged(1),
        }
    }

    /// Asks Redis how it is. A user who may not ask that learns nothing.
    async fn inform(&self, connection: &mut Connection) -> Result<(), Failed> {
        let learnt = timeout(self.shared.timeout, self.shared.learn_generation(connection)).await;
        learnt.map_err(|_| Failed::Silent)??;
        let mut info = cmd("INFO");
        info.arg("everything");
        let reply = timeout(self.shared.timeout, connection.ask(&info)).await.map_err(|_| Failed::Silent)?;
        let text = match reply {
            Ok(reply) => text_of(&reply),
            Err(error) if error.is_io_error() || error.is_connection_dropped() => return Err(error.into()),
            Err(_) => return Ok(()),
        };
        self.shared.learn(|known| {
            known.evicted_keys = sum(&text, "evicted_keys");
            known.used_memory = sum(&text, "used_memory");
            known.max_memory = sum(&text, "maxmemory").filter(|most| *most > 0);
        });
        Ok(())
    }
}

type Entries = Vec<(String, Vec<(String, Vec<u8>)>)>;
type Streams = Vec<(String, Entries)>;

async fn ask(connection: &mut Connection, cmd: &redis::Cmd, within: Duration) -> Result<Entries, Failed> {
    let reply = timeout(within, connection.ask(cmd)).await.map_err(|_| Failed::Silent)??;
    from_redis_value(reply).map_err(|_| Failed::Strange)
}

/// Returns what an id of a stream is ordered by.
fn order(id: &str) -> (u64, u64) {
    let (time, number) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

/// Returns all text of a reply: in a cluster each node has its own.
fn text_of(reply: &Value) -> String {
    match reply {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        Value::Map(parts) => parts.iter().map(|(_, part)| text_of(part)).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// Sums this number over all nodes.
fn sum(text: &str, name: &str) -> Option<u64> {
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok();
    text.lines().filter_map(of).reduce(|one, other| one.saturating_add(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_summed_over_the_nodes() {
        let nodes = "used_memory:5\r\nused_memory_human:5B\r\nmaxmemory:0\r\n\nused_memory:7\r\n";
        assert_eq!((sum(nodes, "used_memory"), sum(nodes, "evicted_keys")), (Some(12), None));
    }

    #[test]
    fn ids_of_a_stream_are_ordered_by_their_numbers() {
        assert!(order("10-0") > order("9-9") && order("9-10") > order("9-9"));
    }
}
