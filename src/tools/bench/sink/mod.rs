//! `hapax bench sink`: a broker for measuring only. It takes every login, vhost, exchange and queue, confirms all that is
//! published, and stores nothing.
//!
//! It costs next to nothing for each message, so that the process in front of it is what is measured: it reads large,
//! jumps from frame to frame, and acks everything of a read at once. A consumer of the queue `hapax-bench-deliver:N` gets N
//! messages that were made ahead, as fast as it takes them; prefetch and acks of consumers are not looked at.

mod client;
mod methods;

use super::Error;
use super::now;
use super::poll::{Interest, Poll, Ready};
use client::{Gone, SinkClient};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Twice the largest frame, and what a core's cache holds.
const READ_BYTES: usize = 512 << 10;
const LISTENER: usize = usize::MAX;
/// How often heartbeats are looked at.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Listens, and serves until the process is ended.
pub fn run(listen: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).map_err(Error::io(format!("listening on {listen}")))?;
    listener.set_nonblocking(true).map_err(Error::io("making a socket nonblocking"))?;
    Sink::new(listener)?.serve()
}

struct Sink {
    listener: TcpListener,
    poll: Poll,
    clients: Vec<Option<SinkClient>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    beaten: Instant,
}

impl Sink {
    fn new(listener: TcpListener) -> Result<Sink, Error> {
        let poll = Poll::new().map_err(Error::io("making an epoll"))?;
        poll.add(&listener, LISTENER, Interest::Read).map_err(Error::io("watching the listener"))?;
        Ok(Sink {
            listener,
            poll,
            clients: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; READ_BYTES],
            beaten: now(),
        })
    }

    fn serve(mut self) -> Result<(), Error> {
        let mut ready = Vec::new();
        loop {
            self.poll.wait(BEAT_EVERY, &mut ready).map_err(Error::io("waiting for sockets"))?;
            for ready in &ready {
                match ready.token {
                    LISTENER => self.accept()?,
                    _ => self.handle(*ready)?,
                }
            }
            self.beat()?;
        }
    }

    fn accept(&mut self) -> Result<(), Error> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A client that has gone already, or no files: the next one may have more luck.
                Err(_) => return Ok(()),
            };
            let Ok(client) = SinkClient::new(stream) else { continue };
            let token = self.free.pop().unwrap_or(self.clients.len());
            if token == self.clients.len() {
                self.clients.push(None);
            }
            self.poll.add(&client.stream, token, Interest::Read).map_err(Error::io("watching a client"))?;
            if let Some(slot) = self.clients.get_mut(token) {
                *slot = Some(client);
            }
        }
    }

    fn handle(&mut self, ready: Ready) -> Result<(), Error> {
        let Some(slot) = self.clients.get_mut(ready.token) else { return Ok(()) };
        let Some(client) = slot else { return Ok(()) };
        let went = client.handle(ready, &mut self.buffer);
        self.after(ready.token, went)
    }

    /// Watches for what is wanted now, or forgets a client that has gone.
    fn after(&mut self, token: usize, went: Result<(), Gone>) -> Result<(), Error> {
        let Some(slot) = self.clients.get_mut(token) else { return Ok(()) };
        let Some(client) = slot else { return Ok(()) };
        match went {
            Ok(()) => {
                let wanted = client.wanted();
                if wanted != client.interest {
                    client.interest = wanted;
                    let changed = self.poll.change(&client.stream, token, wanted);
                    changed.map_err(Error::io("watching a client"))?;
                }
            }
            Err(Gone) => {
                self.poll.remove(&client.stream).map_err(Error::io("letting a client go"))?;
                *slot = None;
                self.free.push(token);
            }
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), Error> {
        let now = now();
        if now.duration_since(self.beaten) < BEAT_EVERY {
            return Ok(());
        }
        self.beaten = now;
        for token in 0..self.clients.len() {
            if let Some(Some(client)) = self.clients.get_mut(token) {
                let went = client.beat(now);
                self.after(token, went)?;
            }
        }
        Ok(())
    }
}
