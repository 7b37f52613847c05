//! The publishers, each on connections of its own, all at once: steady ones, two redundant ones, one that keeps
//! crashing, one that is impatient.

use super::Error;
use super::cable::Cable;
use super::client::{Address, Client, Outcome, Publisher};
use super::message;
use super::plan::{Plan, split};
use super::tally::Tally;
use lapin::PublisherConfirm;
use lapin::uri::AMQPUri;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Publishes that a publisher leaves unanswered before it waits.
const UNANSWERED: usize = 256;
/// Connections that publish each id once.
const STEADY: u64 = 3;

/// The settings that all publishers share.
#[derive(Clone, Debug)]
pub(super) struct Publishers {
    /// where they connect
    pub(super) uri: AMQPUri,
    /// where they publish to
    pub(super) to: Address,
    /// what they count
    pub(super) tally: Arc<Tally>,
}

impl Publishers {
    /// Publishes all of it; the first error ends all.
    pub(super) async fn run(&self, plan: &Plan) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for (number, ids) in split(&plan.once, STEADY).into_iter().enumerate() {
            tasks.spawn(self.clone().steady(format!("refunds-{}", number + 1), ids));
        }
        for name in ["redundant-a", "redundant-b"] {
            tasks.spawn(self.clone().steady(name.to_owned(), plan.redundant.clone()));
        }
        tasks.spawn(self.clone().crashing(plan.crashes()));
        tasks.spawn(self.clone().impatient(plan.hasty.clone()));
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Error::Step(format!("a publisher of the demo panicked: {error}")))??;
        }
        Ok(())
    }

    /// Each id once.
    async fn steady(self, name: String, ids: Range<u64>) -> Result<(), Error> {
        let client = Client::connect(&self.uri, &name).await?;
        let publisher = client.publisher().await?;
        let mut waiting = Waiting::new(&self.tally);
        for number in ids {
            waiting.publish(&publisher, &self.to, &message::id(number)).await?;
        }
        waiting.rest().await;
        client.close().await
    }

    /// A batch, a crash, the same batch again by the next producer; and so on.
    async fn crashing(self, batches: Vec<Range<u64>>) -> Result<(), Error> {
        for (crash, batch) in batches.into_iter().enumerate() {
            // Every other one dies before it has read anything; the rest have read an ack half-way through.
            self.crash(batch.clone(), crash % 2 == 1).await?;
            self.clone().steady(format!("restarted-{}", crash + 1), batch).await?;
        }
        Ok(())
    }

    async fn crash(&self, batch: Range<u64>, reads_an_ack: bool) -> Result<(), Error> {
        let authority = &self.uri.authority;
        let cable = Cable::lay(format!("{}:{}", authority.host, authority.port)).await?;
        let mut uri = self.uri.clone();
        "127.0.0.1".clone_into(&mut uri.authority.host);
        uri.authority.port = cable.port();
        let client = Client::connect(&uri, "crashing").await?;
        let publisher = client.publisher().await?;
        let mut waiting = Waiting::new(&self.tally);
        let middle = batch.start.midpoint(batch.end);
        for number in batch {
            waiting.send(&publisher, &self.to, &message::id(number)).await?;
            if reads_an_ack && number == middle {
                waiting.first().await;
            }
        }
        cable.pull().await;
        waiting.rest().await;
        Ok(())
    }

    /// Each id twice at once: on two channels of one connection, or on two connections.
    async fn impatient(self, ids: Range<u64>) -> Result<(), Error> {
        let clients = [
            Client::connect(&self.uri, "impatient-1").await?,
            Client::connect(&self.uri, "impatient-2").await?,
        ];
        let mut lanes = Vec::new();
        for _ in 0..2 {
            for client in &clients {
                lanes.push(client.publisher().await?);
            }
        }
        // Lanes 0 and 2 are one connection, 1 and 3 the other.
        let pairs = [(0, 1), (0, 2), (3, 2), (1, 3), (2, 0), (1, 0)];
        let mut waiting = Waiting::new(&self.tally);
        for (number, (first, second)) in ids.zip(pairs.into_iter().cycle()) {
            let id = message::id(number);
            for lane in [lanes.get(first), lanes.get(second)].into_iter().flatten() {
                waiting.publish(lane, &self.to, &id).await?;
            }
        }
        waiting.rest().await;
        let [one, two] = clients;
        one.close().await?;
        two.close().await
    }
}

/// Answers that are to come, oldest first.
struct Waiting<'t> {
    confirms: VecDeque<PublisherConfirm>,
    tally: &'t Tally,
}

impl<'t> Waiting<'t> {
    fn new(tally: &'t Tally) -> Waiting<'t> {
        Waiting { confirms: VecDeque::new(), tally }
    }

    /// Publishes, after the oldest answer where too many are missing.
    async fn publish(&mut self, publisher: &Publisher, to: &Address, id: &str) -> Result<(), Error> {
        if self.confirms.len() >= UNANSWERED {
            self.first().await;
        }
        self.send(publisher, to, id).await
    }

    /// Publishes, whatever is missing.
    async fn send(&mut self, publisher: &Publisher, to: &Address, id: &str) -> Result<(), Error> {
        self.confirms.push_back(publisher.publish(to, id).await?);
        self.tally.sent();
        Ok(())
    }

    async fn first(&mut self) {
        if let Some(confirm) = self.confirms.pop_front() {
            self.tally.settled(Outcome::of(confirm).await);
        }
    }

    async fn rest(mut self) {
        while !self.confirms.is_empty() {
            self.first().await;
        }
    }
}
