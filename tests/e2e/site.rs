//! One test's place: a vhost of its own on the node that its test binary shares, and the relay or the forwarder in front of that node.

use super::cut::Cut;
use super::raw::{Publish, Raw, Told};
use super::relay::{Metrics, Relay};
use super::wait::PATIENCE;
use hapax_testbed::Rabbit;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// The process that clients connect to.
pub enum Before {
    Nothing,
    Forwarder(Cut),
    Relay(Box<Relay>),
}

/// The node that all tests of this binary share. Its leash ends it when the process ends.
pub fn shared_rabbit() -> &'static Arc<Rabbit> {
    static SHARED: OnceLock<Arc<Rabbit>> = OnceLock::new();
    SHARED.get_or_init(own_rabbit)
}

/// A node for one test, which may kill it or raise its memory alarm: an alarm stops every publisher of a node.
pub fn own_rabbit() -> Arc<Rabbit> {
    Arc::new(Rabbit::start().unwrap_or_else(|error| panic!("{error}")))
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether clients reach the broker without the relay, which a variable has asked for.
pub fn without_relay() -> bool {
    set("HAPAX_E2E_DIRECT") || set("HAPAX_E2E_FORWARD")
}

impl Before {
    /// Starts what the environment asks for in front of the broker at `upstream`; `config` is for the relay.
    pub fn start(upstream: SocketAddr, config: &str) -> Before {
        if set("HAPAX_E2E_DIRECT") {
            Before::Nothing
        } else if set("HAPAX_E2E_FORWARD") {
            Before::Forwarder(Cut::forward(upstream))
        } else {
            Before::Relay(Box::new(Relay::start(upstream, config)))
        }
    }
}

/// A vhost on a node, and the process that clients connect to.
pub struct Site {
    pub rabbit: Arc<Rabbit>,
    pub vhost: String,
    pub before: Before,
    /// between the relay and the broker, for tests that make the broker silent or gone
    cut: Option<Cut>,
}

impl Site {
    /// For tests that hold with the relay and without it.
    pub fn new(vhost: &str, config: &str) -> Site {
        Site::on(shared_rabbit(), vhost, config)
    }

    /// Likewise, on a node that the test has for itself.
    pub fn on(rabbit: &Arc<Rabbit>, vhost: &str, config: &str) -> Site {
        rabbit.add_vhost(vhost).unwrap();
        let before = Before::start(rabbit.addr(), config);
        Site { rabbit: Arc::clone(rabbit), vhost: vhost.to_owned(), before, cut: None }
    }

    /// What stands in front of the shared node already.
    pub fn of(before: Before, vhost: &str) -> Site {
        let rabbit = shared_rabbit();
        rabbit.add_vhost(vhost).unwrap();
        Site { rabbit: Arc::clone(rabbit), vhost: vhost.to_owned(), before, cut: None }
    }

    /// For tests of what only the relay does: `None`, said aloud, when the environment asks to do without it.
    pub fn of_relay(vhost: &str, config: &str) -> Option<Site> {
        if without_relay() {
            println!("passed over: {vhost} is about what only the relay does");
            return None;
        }
        Some(Site::new(vhost, config))
    }

    /// As [`Site::of_relay`], with a forwarder between the relay and the broker.
    pub fn with_cut(vhost: &str, config: &str) -> Option<Site> {
        if without_relay() {
            return Site::of_relay(vhost, config);
        }
        let rabbit = shared_rabbit();
        Some(Site::behind(rabbit, Cut::forward(rabbit.addr()), vhost, config))
    }

    /// The relay, and behind it this forwarder to that node.
    pub fn behind(rabbit: &Arc<Rabbit>, cut: Cut, vhost: &str, config: &str) -> Site {
        rabbit.add_vhost(vhost).unwrap();
        let before = Before::start(cut.addr(), config);
        Site { rabbit: Arc::clone(rabbit), vhost: vhost.to_owned(), before, cut: Some(cut) }
    }

    pub fn cut(&self) -> &Cut {
        self.cut.as_ref().expect("made with a cut")
    }

    /// A user of this vhost who may write (publish) only where the pattern fits, and read everything.
    pub fn add_user(&self, user: &str, write: &str) {
        let vhost = &self.vhost;
        self.rabbit
            .eval(&format!(
                "catch rabbit_auth_backend_internal:add_user(<<\"{user}\">>, <<\"{user}\">>, <<\"hapax\">>), \
                 ok = rabbit_auth_backend_internal:set_permissions(\
                 <<\"{user}\">>, <<\"{vhost}\">>, <<\"\">>, <<\"{write}\">>, <<\".*\">>, <<\"hapax\">>)."
            ))
            .unwrap();
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        match &self.before {
            Before::Nothing => self.rabbit.addr(),
            Before::Forwarder(cut) => cut.addr(),
            Before::Relay(relay) => relay.addr(),
        }
    }

    /// A client as any other.
    pub fn client(&self) -> Raw {
        Raw::connect(self.addr(), &self.vhost)
    }

    /// The default user's right to publish to the default exchange is shown to the relay, as by any first publish. For tests
    /// that make the broker silent after that.
    pub fn prove(&self) {
        let mut client = self.client();
        client.confirming(1);
        let told = client.publish_and_settle(1, &Publish::to("nowhere", "proof"));
        assert_eq!(told, [Told::Ack { tag: 1, multiple: false }]);
    }

    /// A client straight at the broker, to set the scene and to see what is true.
    pub fn direct(&self) -> Raw {
        Raw::connect(self.rabbit.addr(), &self.vhost)
    }

    pub fn relay(&self) -> &Relay {
        match &self.before {
            Before::Relay(relay) => relay,
            Before::Nothing | Before::Forwarder(_) => panic!("this site has no relay"),
        }
    }

    pub fn relay_mut(&mut self) -> &mut Relay {
        match &mut self.before {
            Before::Relay(relay) => relay,
            Before::Nothing | Before::Forwarder(_) => panic!("this site has no relay"),
        }
    }

    /// The process of a queue does nothing until [`Site::resume`]: it stores nothing, so the broker acks nothing.
    pub fn suspend(&self, queue: &str) {
        self.sys(queue, "suspend");
    }

    pub fn resume(&self, queue: &str) {
        self.sys(queue, "resume");
    }

    fn sys(&self, queue: &str, what: &str) {
        let vhost = &self.vhost;
        self.rabbit
            .eval(&format!(
                "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)), \
                 ok = sys:{what}(amqqueue:get_pid(Q))."
            ))
            .unwrap();
    }

    pub fn metrics(&self) -> Metrics {
        self.relay().metrics()
    }

    /// Waits until a metric, summed over these labels, has this value.
    pub fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = f64::NAN;
        let end = std::time::Instant::now() + PATIENCE;
        while last != value {
            assert!(std::time::Instant::now() < end, "{name}{labels:?} is {last}, not {value}");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
            last = self.metrics().sum(name, labels);
        }
    }
}
