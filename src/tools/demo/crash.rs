//! The second act: a relay is killed with signal 9 while it works, and the publisher sends everything again. Once to the same relay with
//! a log on disk, started again; once to a second relay, which shares a stream with the first one.

use super::census::Census;
use super::client::{Address, Client, Outcome};
use super::stage::Relay;
use super::voice::Voice;
use super::{Error, behind, cases, message};
use hapax_testbed::Leash;
use lapin::PublisherConfirm;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use serde::Serialize;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Publishes that the publisher leaves unanswered.
const UNANSWERED: usize = 256;

/// The fate of the ids of one crash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Crash {
    /// where the relay remembers
    pub(super) store: &'static str,
    /// ids that were acked before the relay was killed
    pub(super) acked: u64,
    /// ids that were published, and whose ack did not come
    pub(super) in_doubt: u64,
    /// ids that were acked, and are in the queue twice: a retry has passed
    pub(super) passed: u64,
    /// ids in doubt that are in the queue twice: nobody could know that the broker had stored them
    pub(super) doubled: u64,
    /// ids that are not in the queue
    pub(super) missing: u64,
}

impl Crash {
    /// Nothing is lost, and no retry of an acked id has passed.
    pub(super) fn is_right(&self) -> bool {
        self.missing == 0 && self.passed == 0 && self.acked > 0
    }
}

/// The answers that the publisher has had before the relay was killed.
struct Answers {
    /// for each id, whether it was acked
    acked: Vec<bool>,
    published: u64,
}

/// The broker, and how many ids a crash is played with.
pub(super) struct Crashes<'a> {
    pub(super) broker: &'a AMQPUri,
    pub(super) prefix: &'a str,
    pub(super) ids: u64,
}

impl Crashes<'_> {
    /// Plays both.
    pub(super) async fn play(&self, voice: Voice) -> Result<Vec<Crash>, Error> {
        voice.say("Killing a relay with a log on disk, and one that shares a stream with another …\n");
        Ok(vec![self.disk().await?, self.stream().await?])
    }

    async fn disk(&self) -> Result<Crash, Error> {
        let mut relay = Relay::configured(self.broker, |folder| Some(on_disk(folder))).await?;
        let entry = behind(self.broker, &relay);
        let queue = self.declare("disk").await?;
        let answers = self.publish_until(&entry, &queue, || relay.kill()).await?;
        relay.restart().await?;
        self.retry(&entry, &queue).await?;
        self.count("disk", &queue, &answers).await
    }

    async fn stream(&self) -> Result<Crash, Error> {
        let shared = Leash::new("secret").map_err(Error::io("making a folder for the secret"))?;
        let secret = shared.folder().join("digest.secret");
        write_secret(&secret).map_err(Error::io("writing the secret"))?;
        let configuration = |_: &Path| Some(self.on_stream(&secret));
        let mut first = Relay::configured(self.broker, configuration).await?;
        let second = Relay::configured(self.broker, configuration).await?;
        let queue = self.declare("stream").await?;
        let answers = self.publish_until(&behind(self.broker, &first), &queue, || first.kill()).await?;
        self.retry(&behind(self.broker, &second), &queue).await?;
        drop((first, second));
        let crash = self.count("stream", &queue, &answers).await?;
        self.delete(&format!("hapax.window.{}", self.window())).await?;
        Ok(crash)
    }

    /// Publishes all ids, and calls `kill` when half of them are acked.
    async fn publish_until(
        &self,
        entry: &AMQPUri,
        queue: &str,
        kill: impl FnOnce(),
    ) -> Result<Answers, Error> {
        let client = Client::connect(entry, "unlucky").await?;
        let (publisher, to) = (client.publisher().await?, Address::queue(queue));
        let mut acked = vec![false; usize::try_from(self.ids).unwrap_or_default()];
        let (mut kill, mut count, mut published) = (Some(kill), 0, 0);
        let mut waiting: VecDeque<(u64, PublisherConfirm)> = VecDeque::new();
        let mut ids = 0..self.ids;
        loop {
            // After the kill a publish fails at once, and what was published before is unconfirmed.
            let next = if waiting.len() < UNANSWERED { ids.next() } else { None };
            if let Some(number) = next {
                match publisher.publish(&to, &message::id(number)).await {
                    Ok(confirm) => {
                        published += 1;
                        waiting.push_back((number, confirm));
                    }
                    Err(_) => ids.start = self.ids,
                }
                continue;
            }
            let Some((number, confirm)) = waiting.pop_front() else {
                return Ok(Answers { acked, published });
            };
            if Outcome::of(confirm).await == Outcome::Acked
                && let Some(slot) = acked.get_mut(usize::try_from(number).unwrap_or(usize::MAX))
            {
                *slot = true;
                count += 1;
            }
            if count >= self.ids / 2
                && let Some(kill) = kill.take()
            {
                kill();
            }
        }
    }

    /// Publishes all ids once more, as a publisher does that does not know where it was.
    async fn retry(&self, entry: &AMQPUri, queue: &str) -> Result<(), Error> {
        let client = Client::connect(entry, "restarted").await?;
        let (publisher, to) = (client.publisher().await?, Address::queue(queue));
        let mut waiting = VecDeque::new();
        for number in 0..self.ids {
            if waiting.len() >= UNANSWERED {
                acked(waiting.pop_front()).await?;
            }
            waiting.push_back(publisher.publish(&to, &message::id(number)).await?);
        }
        while !waiting.is_empty() {
            acked(waiting.pop_front()).await?;
        }
        client.close().await
    }

    async fn count(&self, store: &'static str, queue: &str, answers: &Answers) -> Result<Crash, Error> {
        let Answers { acked, published } = answers;
        let census = Census::take(self.broker, queue, self.ids).await?;
        self.delete(queue).await?;
        let twice = |of_acked: bool| {
            let ids = census.counts.iter().zip(acked);
            ids.filter(|(count, acked)| **count > 1 && **acked == of_acked).count() as u64
        };
        let count = acked.iter().filter(|acked| **acked).count() as u64;
        let (passed, doubled) = (twice(true), twice(false));
        Ok(Crash {
            store,
            acked: count,
            in_doubt: published - count,
            passed,
            doubled,
            missing: census.missing,
        })
    }

    async fn declare(&self, name: &str) -> Result<String, Error> {
        let queue = format!("{}.{name}", self.prefix);
        let client = Client::connect(self.broker, "stage hand").await?;
        let channel = client.channel().await?;
        cases::declare(&channel, &queue, FieldTable::default()).await?;
        client.close().await?;
        Ok(queue)
    }

    async fn delete(&self, queue: &str) -> Result<(), Error> {
        let client = Client::connect(self.broker, "stage hand").await?;
        let channel = client.channel().await?;
        cases::delete(&channel, queue).await?;
        client.close().await
    }

    /// The name of the window that the two relays share.
    fn window(&self) -> String {
        self.prefix.replace('/', "-")
    }

    fn on_stream(&self, secret: &Path) -> String {
        let authority = &self.broker.authority;
        let (user, password) = (&authority.userinfo.username, &authority.userinfo.password);
        format!(
            "digest_secret_file = {secret:?}\n\
             [store.stream]\nuri = \"amqp://{user}:{password}@{}:{}\"\n\
             [[window]]\nname = \"{}\"\nstore = \"stream\"\n",
            authority.host,
            authority.port,
            self.window()
        )
    }
}

/// Writes a secret into a file that only its owner can read.
fn write_secret(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let seed = RandomState::new();
    writeln!(file, "{:016x}{:016x}", seed.hash_one(0_u8), seed.hash_one(1_u8))
}

fn on_disk(folder: &Path) -> String {
    let state = folder.join("state");
    format!("state_dir = {state:?}\n[[window]]\nname = \"default\"\nstore = \"disk\"\n")
}

async fn acked(confirm: Option<PublisherConfirm>) -> Result<(), Error> {
    let Some(confirm) = confirm else { return Ok(()) };
    match Outcome::of(confirm).await {
        Outcome::Acked => Ok(()),
        outcome => Err(Error::Step(format!("a publish after the crash was not acked: {outcome:?}"))),
    }
}
