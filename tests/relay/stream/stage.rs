//! Relays that share the stream of one window.

use crate::e2e::publisher::persistent;
use crate::e2e::raw::{Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::wait::{self, PATIENCE};
use hapax_testbed::{Leash, Rabbit};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A vhost on a node, with a queue `q`, and a secret that relays share.
pub(super) struct Stage {
    pub(super) rabbit: Arc<Rabbit>,
    /// The vhost, and the window's name.
    pub(super) name: String,
    leash: Leash,
}

/// What a relay is started with.
#[derive(Clone)]
pub(super) struct With {
    /// the addresses of the nodes that keep the stream
    pub(super) nodes: Vec<SocketAddr>,
    pub(super) login: String,
    pub(super) secret: String,
    /// keys of the window
    pub(super) window: String,
    /// keys of `[timeouts]`
    pub(super) timeouts: String,
}

impl Stage {
    pub(super) fn new(rabbit: &Arc<Rabbit>, name: &str) -> Stage {
        rabbit.add_vhost(name).unwrap();
        let stage =
            Stage { rabbit: Arc::clone(rabbit), name: name.to_owned(), leash: Leash::new("stream").unwrap() };
        let mut direct = stage.direct();
        direct.declare(1, "q", &[]);
        stage
    }

    /// The same for all relays unless a test changes it.
    pub(super) fn with(&self) -> With {
        With {
            nodes: vec![self.rabbit.addr()],
            login: "guest:guest".to_owned(),
            secret: "00112233445566778899aabbccddeeff".to_owned(),
            window: String::new(),
            timeouts: String::new(),
        }
    }

    /// A user who may configure nothing, write where the pattern fits, and read everything.
    pub(super) fn add_user(&self, user: &str, write: &str) {
        let vhost = &self.name;
        let add = format!(
            "catch rabbit_auth_backend_internal:add_user(<<\"{user}\">>, <<\"{user}\">>, <<\"hapax\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(\
             <<\"{user}\">>, <<\"{vhost}\">>, <<\"^$\">>, <<\"{write}\">>, <<\".*\">>, <<\"hapax\">>)."
        );
        self.rabbit.eval(&add).unwrap();
    }

    /// The path of an id in the API.
    pub(super) fn path(&self, id: &str) -> String {
        format!("/api/v1/windows/{0}/ids/{id}?vhost={0}&exchange=&routing_key=q", self.name)
    }

    /// The name of the stream.
    pub(super) fn stream(&self) -> String {
        format!("hapax.window.{}", self.name)
    }

    pub(super) fn relay(&self) -> Relay {
        self.relay_with(&self.with())
    }

    pub(super) fn relay_with(&self, with: &With) -> Relay {
        Relay::start(self.rabbit.addr(), &self.config(with))
    }

    /// The configuration of a relay.
    pub(super) fn config(&self, with: &With) -> String {
        let With { nodes, login, secret, window, timeouts } = with;
        let uris: Vec<String> =
            nodes.iter().map(|node| format!("\"amqp://{login}@{node}/{}\"", self.name)).collect();
        format!(
            "digest_secret_file = \"{}\"\n[timeouts]\n{timeouts}\n[store.stream]\nuri = [{}]\n\
             [[window]]\nname = \"{}\"\nttl = \"10m\"\nstore = \"stream\"\n{window}\n",
            self.secret(secret).display(),
            uris.join(", "),
            self.name
        )
    }

    fn secret(&self, secret: &str) -> PathBuf {
        let path = self.leash.folder().join(secret);
        if !path.exists() {
            let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
            file.unwrap().write_all(secret.as_bytes()).unwrap();
        }
        path
    }

    /// A client of this relay, with a channel in confirm mode.
    pub(super) fn client(&self, relay: &Relay) -> Raw {
        let mut client = Raw::connect(relay.addr(), &self.name);
        client.confirming(1);
        client
    }

    /// A client straight at the broker, with a channel in confirm mode.
    pub(super) fn direct(&self) -> Raw {
        let mut client = Raw::connect(self.rabbit.addr(), &self.name);
        client.confirming(1);
        client
    }

    /// How often each id is in the queue. Empties it.
    pub(super) fn held(&self) -> BTreeMap<String, usize> {
        retry::held(&mut self.direct(), "q")
    }

    /// A figure of the window.
    pub(super) fn metric(&self, relay: &Relay, name: &str) -> f64 {
        relay.metrics().sum(name, &[("window", &self.name)])
    }

    /// Waits until the relay remembers so many ids.
    pub(super) fn until_known(&self, relay: &Relay, ids: usize) {
        wait::until(&format!("{ids} ids are known"), PATIENCE, || {
            (self.metric(relay, "window_entries") == ids as f64).then_some(())
        });
    }
}

/// Waits until the relay has logged a line with these words.
pub(super) fn until_logged(relay: &Relay, words: &str) {
    wait::until(&format!("the log says {words:?}"), PATIENCE, || relay.log().contains(words).then_some(()));
}

/// `n` ids with this prefix.
pub(super) fn ids(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|n| format!("{prefix}-{n}")).collect()
}

/// Publishes all at once, and waits until all are acked. Nothing may be nacked.
pub(super) fn publish_all(client: &mut Raw, tag: &mut u64, ids: &[String]) {
    for id in ids {
        client.publish(1, &persistent(id));
    }
    let mut open: Vec<u64> = (1..=ids.len() as u64).map(|n| *tag + n).collect();
    *tag += ids.len() as u64;
    while !open.is_empty() {
        match client.next(1) {
            Told::Ack { tag, multiple: true } => open.retain(|open| *open > tag),
            Told::Ack { tag, multiple: false } => open.retain(|open| *open != tag),
            told => panic!("no ack: {told:?}"),
        }
    }
}
