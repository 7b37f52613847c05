//! Rows 23 and 24: TLS that ends in Hapax, against TLS that ends in haproxy.

use super::super::Error;
use super::super::load::Load;
use super::super::now;
use super::Extent;
use super::rows::{FILLING, RUN, alternate};
use super::stand::{ADDRESS, Process, Settings, put};
use super::table::{Goal, Row};
use hapax_testbed::Leash;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Handshakes of a run, and the connections that make them at a time.
const HANDSHAKES: u64 = 4_000;
const AT_A_TIME: u64 = 4;
const NAME: &str = "localhost";
const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate that has signed itself, with its key in the file that haproxy wants.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    both: PathBuf,
    _folder: Leash,
}

impl Certificate {
    fn new() -> Result<Certificate, Error> {
        let leash = Leash::new("certificate").map_err(Error::io("making a folder"))?;
        let file = |name| leash.folder().join(name);
        let (certificate, key, both) = (file("certificate.pem"), file("key.pem"), file("both.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:false"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        let done = openssl.stdin(Stdio::null()).output().map_err(Error::io("starting openssl"))?;
        if !done.status.success() {
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            return Err(Error::Step(format!("openssl makes no certificate:\n{text}")));
        }
        let join = || {
            let mut text = std::fs::read(&certificate)?;
            text.extend(std::fs::read(&key)?);
            std::fs::write(&both, text)
        };
        join().map_err(Error::io("writing a certificate"))?;
        Ok(Certificate { certificate, key, both, _folder: leash })
    }

    /// The lines of the relay's listener.
    fn listener(&self) -> String {
        format!(
            "[[listener]]\naddress = \"{ADDRESS}\"\n[listener.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
            self.certificate.display(),
            self.key.display()
        )
    }

    /// The settings of a client that trusts it, and never resumes a session.
    fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        let strange =
            |error: &dyn std::fmt::Display| Error::Step(format!("the certificate can't be used: {error}"));
        let mut roots = RootCertStore::empty();
        let certificate =
            CertificateDer::from_pem_file(&self.certificate).map_err(|error| strange(&error))?;
        roots.add(certificate).map_err(|error| strange(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            versions.map_err(|error| strange(&error))?.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Both rows.
pub(super) fn rows(extent: Extent) -> Result<Vec<Row>, Error> {
    let (sink, certificate) = (Process::sink()?, Certificate::new()?);
    let settings = Settings { mode: "off", top: certificate.listener(), ..Settings::default() };
    let relay = Process::relay_with(sink.address(), &settings)?;
    // It waits for the first octets of the client before it connects to the sink, as the relay does.
    let bind = format!(
        "ssl crt {}\n  tcp-request inspect-delay 30s\n  tcp-request content accept if {{ req.len gt 0 }}",
        certificate.both.display()
    );
    let haproxy = Process::haproxy_with(sink.address(), &bind, "")?;
    Ok(vec![cpu(extent, &relay, &haproxy)?, handshakes(extent, &certificate, &relay, &haproxy)?])
}

/// Row 23. The load is plain; another haproxy before each of the two makes TLS of it.
fn cpu(extent: Extent, relay: &Process, haproxy: &Process) -> Result<Row, Error> {
    let client = |server: &Process| Process::haproxy_with(server.address(), "", "ssl verify none");
    let (to_relay, to_haproxy) = (client(relay)?, client(haproxy)?);
    let count = extent.messages(RUN);
    put(&Load::new(to_relay.target(), FILLING / 10))?;
    let run = |client: &Process, server: &Process| {
        let (cpu, _) = server.cpu(|| put(&Load::new(client.target(), count)))?;
        Ok(cpu * 1e6 / count as f64)
    };
    Ok(Row {
        number: 23,
        what: "CPU per publish by TLS, mode = \"off\"",
        against: "haproxy",
        unit: "µs",
        pairs: alternate(extent, || run(&to_haproxy, haproxy), || run(&to_relay, relay))?,
        goal: Goal::AtMost(1.5),
        note: None,
    })
}

/// Row 24.
fn handshakes(
    extent: Extent,
    certificate: &Certificate,
    relay: &Process,
    haproxy: &Process,
) -> Result<Row, Error> {
    let config = certificate.client()?;
    let count = extent.messages(HANDSHAKES);
    let run = |server: &Process| {
        let (address, begin) = (server.address(), now());
        let each = || (0..count / AT_A_TIME).try_for_each(|_| shake_hands(address, &config));
        let done: io::Result<()> = thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(each)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or(Err(io::ErrorKind::Other.into())))
        });
        done.map_err(Error::io("shaking hands by TLS"))?;
        Ok(count as f64 / now().duration_since(begin).as_secs_f64())
    };
    Ok(Row {
        number: 24,
        what: "TLS handshakes",
        against: "haproxy",
        unit: "/s",
        pairs: alternate(extent, || run(haproxy), || run(relay))?,
        goal: Goal::AtLeast(0.9),
        note: Some(format!(
            "TLS 1.3, ECDSA with P-256, no session is resumed; {AT_A_TIME} clients at a time, on the same cores"
        )),
    })
}

fn shake_hands(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut socket)?;
    }
    socket.flush()
}
