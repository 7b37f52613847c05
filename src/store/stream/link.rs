//! The connection to the broker that keeps the streams: one for all windows. A task of its own opens it, and opens it again, to the next
//! node, when it has ended. A window takes the connection as it is, and opens channels on it.

use super::Why;
use super::socket::{self, Socket};
use crate::clock::Backoff;
use crate::config::{AMQPS, Node};
use crate::tls;
use hapax_core::wire::frame::OVERHEAD;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};
use parking_lot::Mutex;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// How long the broker has for a TCP connection and the handshake of TLS, and then for the AMQP handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// The broker has to be heard of that often, in seconds.
const HEARTBEAT: u16 = 10;
/// The largest frame. A batch fits, and lapin's buffers hold 32 of them.
const FRAME_MAX: u32 = 64 << 10;
/// How often the connection is looked at. Windows say at once what they notice themselves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a connection may take to close in good order.
const CLOSE: Duration = Duration::from_secs(1);

fn uri(node: &Node) -> AMQPUri {
    let login = match (&node.user, &node.password) {
        (None, None) => AMQPUserInfo::default(),
        (user, password) => AMQPUserInfo {
            username: user.clone().unwrap_or_default(),
            password: password.as_ref().map(|password| password.0.clone()).unwrap_or_default(),
        },
    };
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority { userinfo: login, host: node.host.clone(), port: node.port },
        vhost: node.path.clone(),
        query: AMQPQueryString {
            heartbeat: Some(HEARTBEAT),
            frame_max: Some(FRAME_MAX),
            ..AMQPQueryString::default()
        },
    }
}

/// An open connection.
pub(crate) struct Live {
    /// the connection itself
    pub(crate) connection: Connection,
    /// the node, for the log
    pub(super) node: String,
    socket: Cutter,
    /// Somebody has found out that it is of no use.
    given_up: Notify,
}

impl Live {
    /// Opens a connection to this node.
    pub(crate) async fn open(node: &Node, tls: Option<&Arc<tls::Client>>) -> Result<Live, Why> {
        connect(node, tls).await
    }

    /// Says that the connection is of no use: the link is to try the next node.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until it has ended, or somebody has given it up.
    async fn ended(&self) {
        while self.connection.status().connected() {
            tokio::select! {
                () = self.given_up.notified() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Returns the most octets that the content header of a message may have here: it can't be divided among frames.
    pub(crate) fn largest_header(&self) -> usize {
        match self.connection.configuration().frame_max() {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(OVERHEAD),
        }
    }

    /// Opens a channel with confirms. The broker has this long for each step.
    pub(crate) async fn confirming_channel(&self, patience: Duration) -> Result<Channel, Why> {
        let channel = within(patience, self.connection.create_channel()).await?;
        within(patience, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Waits until it has ended, or this channel of it.
    pub(crate) async fn ended_with(&self, channel: &Channel) {
        while self.connection.status().connected() && channel.status().connected() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Closes it, in good order if the broker takes part in that.
    pub(crate) async fn close(&self) {
        let _ = timeout(CLOSE, self.connection.close(200, "".into())).await;
        self.socket.cut();
    }
}

/// Waits for a step of the broker, but no longer than this.
pub(crate) async fn within<T>(
    patience: Duration,
    step: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Why> {
    match timeout(patience, step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Why::new("the broker does not answer")),
    }
}

/// A second handle of a socket that lapin has, to end it for certain: lapin's thread waits for as long as the peer is silent.
#[derive(Clone, Default)]
struct Cutter(Arc<Mutex<Option<TcpStream>>>);

impl Cutter {
    fn keep(&self, socket: impl AsFd) -> std::io::Result<()> {
        *self.0.lock() = Some(TcpStream::from(socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    fn cut(&self) {
        if let Some(socket) = self.0.lock().take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The state of the connection, as windows see it.
#[derive(Clone)]
pub(super) enum State {
    /// It is being opened. This was wrong with the last attempt.
    Down(Option<Why>),
    /// It is open.
    Up(Arc<Live>),
    /// It was closed for good.
    Closed,
}

/// The connection, for all windows.
pub(crate) struct Link {
    nodes: Mutex<Vec<Node>>,
    /// the settings of TLS, for the nodes with `amqps`
    tls: Option<Arc<tls::Client>>,
    tell: watch::Sender<State>,
    closing: watch::Sender<bool>,
    opened: AtomicU64,
    /// the windows that use it, or are about to
    users: Mutex<usize>,
}

impl Link {
    /// The connection to the first of these nodes that takes one. It is opened when a window begins to use it. The caller has joined.
    pub(super) fn new(nodes: &[Node], tls: Option<Arc<tls::Client>>) -> Arc<Link> {
        let (tell, closing) = (watch::Sender::new(State::Down(None)), watch::Sender::new(false));
        let nodes = Mutex::new(nodes.to_vec());
        Arc::new(Link { nodes, tls, tell, closing, opened: AtomicU64::new(0), users: Mutex::new(1) })
    }

    /// Joins those who use it. Returns false if the last of them has left: it stays closed. The caller has to leave it, too.
    pub(super) fn join(&self) -> bool {
        let mut users = self.users.lock();
        let is_open = !*self.closing.borrow();
        *users += usize::from(is_open);
        is_open
    }

    /// Begins to use it, for somebody who has joined.
    pub(super) fn enter(self: &Arc<Link>) -> watch::Receiver<State> {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        if !nodes.is_empty() {
            tokio::spawn(Arc::clone(self).keep_open(nodes));
        }
        self.tell.subscribe()
    }

    /// Ends the use of it. The last one closes it.
    pub(super) async fn leave(&self) {
        {
            let mut users = self.users.lock();
            *users = users.saturating_sub(1);
            if *users > 0 {
                return;
            }
            self.closing.send_replace(true);
        }
        // Nobody has begun to use it.
        if !self.nodes.lock().is_empty() {
            return;
        }
        let mut state = self.tell.subscribe();
        let _ = timeout(2 * CLOSE, state.wait_for(|state| matches!(state, State::Closed))).await;
    }

    /// How often the connection was opened again.
    pub(super) fn reconnects(&self) -> u64 {
        self.opened.load(Relaxed).saturating_sub(1)
    }

    async fn keep_open(self: Arc<Link>, nodes: Vec<Node>) {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            () = self.open_again_and_again(&nodes) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        if let State::Up(live) = self.tell.send_replace(State::Down(None)) {
            live.close().await;
        }
        self.tell.send_replace(State::Closed);
    }

    async fn open_again_and_again(&self, nodes: &[Node]) {
        let mut backoff = Backoff::of_broker();
        for node in nodes.iter().cycle() {
            match connect(node, self.tls.as_ref()).await {
                Ok(live) => {
                    backoff.reset();
                    self.opened.fetch_add(1, Relaxed);
                    let live = Arc::new(live);
                    self.tell.send_replace(State::Up(Arc::clone(&live)));
                    live.ended().await;
                    self.tell.send_replace(State::Down(None));
                    live.close().await;
                }
                Err(why) => {
                    self.tell.send_replace(State::Down(Some(why)));
                }
            }
            backoff.rest().await;
        }
    }
}

async fn connect(node: &Node, tls: Option<&Arc<tls::Client>>) -> Result<Live, Why> {
    let socket = Cutter::default();
    let kept = socket.clone();
    let resolving = timeout(CONNECT, lookup_host((node.host.as_str(), node.port))).await;
    let Ok(Ok(addresses)) = resolving else {
        return Err(Why::new(format!("{}: the name can't be resolved", node.authority())));
    };
    let addresses: Vec<_> = addresses.collect();
    let (host, tls) = (node.host.clone(), tls.filter(|_| node.scheme == AMQPS).cloned());
    let connector = async move |_, _| {
        let connecting = async {
            let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
            for address in &addresses {
                match Socket::connect(*address).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let mut socket = timeout(CONNECT, connecting).await.map_err(std::io::Error::from)??;
        kept.keep(socket.tcp())?;
        if let Some(tls) = &tls {
            socket = timeout(CONNECT, socket.secure(tls, &host)).await.map_err(std::io::Error::from)??;
        }
        // Plain for lapin: whether it is TLS is not its concern.
        Ok(AsyncTcpStream::Plain(socket))
    };
    let name = format!("hapax {}", env!("CARGO_PKG_VERSION"));
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    match timeout(2 * CONNECT, Connection::connector(uri(node), socket::runtime(), connector, properties))
        .await
    {
        Ok(Ok(connection)) => {
            Ok(Live { connection, node: node.authority(), socket, given_up: Notify::new() })
        }
        Ok(Err(error)) => {
            socket.cut();
            Err(Why::at(node, &error))
        }
        Err(_) => {
            socket.cut();
            Err(Why::new(format!("{} does not answer", node.authority())))
        }
    }
}
