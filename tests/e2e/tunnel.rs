//! TLS for clients that speak none: a socket of the loopback whose octets travel by TLS from there on.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use tokio_rustls::TlsConnector;

/// Opens a TLS connection to this address. The certificate must be for `host`. Returns a plain socket to it, and the version that
/// was agreed on. The connection ends with the socket.
pub fn open(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
) -> io::Result<(TcpStream, Option<ProtocolVersion>)> {
    let near = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(near.local_addr()?)?;
    let (theirs, _) = near.accept()?;
    let (connector, name) =
        (TlsConnector::from(Arc::clone(config)), ServerName::try_from(host.to_owned()).unwrap());
    let (shaken, outcome) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let connecting = async {
                let stream = tokio::net::TcpStream::connect(addr).await?;
                connector.connect(name, stream).await
            };
            match connecting.await {
                Ok(mut far) => {
                    let _ = shaken.send(Ok(far.get_ref().1.protocol_version()));
                    theirs.set_nonblocking(true).unwrap();
                    let mut near = tokio::net::TcpStream::from_std(theirs).unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
                Err(error) => drop(shaken.send(Err(error))),
            }
        });
    });
    let version = outcome.recv().map_err(io::Error::other)??;
    Ok((ours, version))
}
