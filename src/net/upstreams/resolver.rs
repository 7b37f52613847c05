//! Looks the addresses of a node up, anew for each connection.
//!
//! The system's resolver occupies a thread for as long as it is silent, and there is a bounded number of threads for such work,
//! which stores use, too. Therefore a node has one lookup at a time. Connections that come while it is under way share its answer.

use super::greeting::NoAnswer;
use crate::config::UpstreamAddress;
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::lookup_host;
use tokio::sync::watch;

/// The most addresses of one name that are tried.
const ADDRESSES: usize = 16;

type Answer = Result<Arc<[SocketAddr]>, NoAnswer>;

/// Looks the addresses of one node up.
#[derive(Debug)]
pub(super) struct Resolver {
    address: UpstreamAddress,
    under_way: Mutex<Option<watch::Receiver<Option<Answer>>>>,
}

impl Resolver {
    /// Creates the resolver of this node.
    pub(super) fn new(address: UpstreamAddress) -> Resolver {
        Resolver { address, under_way: Mutex::default() }
    }

    /// Returns the node's addresses: at least one, in the resolver's order. An IP address stands for itself.
    pub(super) async fn addresses(&self) -> Answer {
        let UpstreamAddress { host, port, .. } = &self.address;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Arc::from([SocketAddr::new(ip, *port)]));
        }
        self.shared(|| lookup(Arc::clone(host), *port)).await
    }

    /// Waits for the lookup that is under way, or begins one. It goes on if all who wait for it give up.
    async fn shared<F>(&self, begin: impl FnOnce() -> F) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut answer = {
            let mut under_way = self.under_way.lock();
            // A lookup that has panicked has no answer and no sender any more.
            let is_open = |answer: &&watch::Receiver<Option<Answer>>| {
                answer.borrow().is_none() && answer.has_changed().is_ok()
            };
            match under_way.as_ref().filter(is_open) {
                Some(answer) => answer.clone(),
                None => {
                    let (tell, answer) = watch::channel(None);
                    let lookup = begin();
                    tokio::spawn(async move { tell.send_replace(Some(lookup.await)) });
                    under_way.insert(answer).clone()
                }
            }
        };
        let answer = answer.wait_for(Option::is_some).await;
        answer
            .ok()
            .and_then(|answer| answer.clone())
            .unwrap_or_else(|| Err(unresolved("the lookup has failed")))
    }
}

async fn lookup(host: Arc<str>, port: u16) -> Answer {
    let found = lookup_host((&*host, port)).await.map_err(|error| NoAnswer::Unresolved(Arc::new(error)))?;
    let addresses: Vec<SocketAddr> = found.take(ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(unresolved("it has no address"));
    }
    Ok(addresses.into())
}

fn unresolved(why: &str) -> NoAnswer {
    NoAnswer::Unresolved(Arc::new(io::Error::other(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::sync::Notify;

    fn resolver(host: &str) -> Resolver {
        Resolver::new(UpstreamAddress { host: host.into(), port: 5672, tls: false })
    }

    fn address(port: u16) -> Arc<[SocketAddr]> {
        Arc::from([SocketAddr::from(([127, 0, 0, 1], port))])
    }

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        for (host, shown) in [("127.0.0.1", "127.0.0.1:5672"), ("::1", "[::1]:5672")] {
            let addresses = resolver(host).addresses().await.unwrap();
            assert_eq!(addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), [shown]);
        }
    }

    /// A resolver that is silent occupies one thread, however many connections ask and give up.
    #[tokio::test]
    async fn a_silent_resolver_is_asked_once_at_a_time_and_anew_afterwards() {
        let (resolver, begun, go) = (resolver("a"), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            resolver.shared(move || async move {
                let number = begun.fetch_add(1, SeqCst);
                go.notified().await;
                Ok(address(u16::try_from(number).unwrap()))
            })
        };
        for _ in 0..100 {
            let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), ask()).await;
            assert!(given_up.is_err());
        }
        assert_eq!(begun.load(SeqCst), 1);
        let waiting = ask();
        go.notify_one();
        assert_eq!(*waiting.await.unwrap(), *address(0));
        // The next one asks again: what the name stands for may have changed.
        go.notify_one();
        assert_eq!(*ask().await.unwrap(), *address(1));
    }

    #[tokio::test]
    async fn nobody_waits_for_an_answer_that_nobody_had_the_time_to_take() {
        let resolver = resolver("a");
        assert!(resolver.shared(|| async { Ok(address(1)) }).now_or_never().is_none());
        tokio::task::yield_now().await;
        assert_eq!(*resolver.shared(|| async { Ok(address(2)) }).await.unwrap(), *address(2));
    }
}
