//! The sections `[[listener]]`, `[admin_tls]`, `[upstream_tls]`, and the others of TLS to a server.

use super::problem::{Report, Wrong};
use super::raw::{Section, type_name};
use super::{Config, token, value};
use crate::tls::{ClientCertificates, ClientFiles, Identity, ServerFiles, Unusable};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use toml::de::DeValue;

/// The protocols of the admin listener (ALPN).
const HTTP: &[&[u8]] = &[b"http/1.1"];

/// One `[[listener]]` of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// where clients connect
    pub address: SocketAddr,
    /// the networks of the proxies that say by a PROXY header who their clients are; `None`: clients come without a proxy
    pub trusted: Option<Vec<IpNet>>,
    /// the files of TLS; `None`: clients come without
    pub tls: Option<ServerFiles>,
}

impl ListenerConfig {
    /// A listener without TLS and without a proxy, as `listen` makes it.
    pub fn plain(address: SocketAddr) -> ListenerConfig {
        ListenerConfig { address, trusted: None, tls: None }
    }
}

/// Whether Hapax tells the broker who its clients are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// No: RabbitMQ sees Hapax's address.
    #[default]
    Off,
    /// By a PROXY header of version 2. The broker's listener must have `proxy_protocol = true`.
    V2,
}

/// How clients show who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientCertificateRule {
    #[default]
    None,
    Optional,
    Required,
}

/// Reads all `[[listener]]`.
pub(super) fn read(top: &mut Section<'_>, report: &mut Report) -> Vec<ListenerConfig> {
    let sections = top.sections("listener", report).unwrap_or_default();
    sections.into_iter().map(|section| read_listener(section, report)).collect()
}

fn read_listener(mut section: Section<'_>, report: &mut Report) -> ListenerConfig {
    let address = section.read_optional(report, "address", |v| {
        value::address(value::text(v, "0.0.0.0:5671")?, "0.0.0.0:5671")
    });
    if !report.sources.contains_key(&section.path_of("address")) {
        let what = format!("{} is missing", section.title_of("address"));
        report.problem(
            &section.source(),
            what,
            "say where clients connect, as in address = \"0.0.0.0:5671\"",
        );
    }
    let proxies = section.read(report, "proxy_protocol", false, value::boolean);
    let trusted = section.read_optional(report, "trusted", networks);
    let source = report.source(&section.path_of(if proxies { "proxy_protocol" } else { "trusted" }));
    let is_given = report.sources.contains_key(&section.path_of("trusted"));
    match (proxies, is_given) {
        (true, false) => report.problem(
            &source,
            format!(
                "{} is true, but `trusted` does not say which proxies may name the client",
                section.title_of("proxy_protocol")
            ),
            "name the networks of the proxies, as in trusted = [\"10.0.0.0/24\", \"127.0.0.1\"]",
        ),
        (false, true) => report.problem(
            &source,
            format!("{} means nothing, because `proxy_protocol` is false", section.title_of("trusted")),
            "write proxy_protocol = true, or leave it out",
        ),
        _ => {}
    }
    let tls = section.section("tls", report);
    let tls = if tls.is_absent() { None } else { read_server(tls, &[], true, report) };
    section.finish(report);
    ListenerConfig {
        address: address.unwrap_or(super::defaults::LISTEN),
        trusted: proxies.then(|| trusted.unwrap_or_default()),
        tls,
    }
}

/// Reads `[admin_tls]`.
pub(super) fn read_admin(section: Section<'_>, report: &mut Report) -> Option<ServerFiles> {
    if section.is_absent() { None } else { read_server(section, HTTP, false, report) }
}

/// Reads `[upstream_tls]`, `[store.stream.tls]` or `[telemetry.tls]`.
pub(super) fn read_client(mut section: Section<'_>, report: &mut Report) -> Option<ClientFiles> {
    if section.is_absent() {
        return None;
    }
    let ca = file(&mut section, "ca", report);
    let certificate = file(&mut section, "certificate", report);
    let key = file(&mut section, "key", report);
    let missing = match (&certificate, &key) {
        (Some(_), None) => Some(("certificate", "key")),
        (None, Some(_)) => Some(("key", "certificate")),
        _ => None,
    };
    if let Some((given, missing)) = missing {
        let source = report.source(&section.path_of(given));
        let what = format!("{} is there, but `{missing}` is not", section.title_of(given));
        report.problem(&source, what, "name both files, or neither");
    }
    section.finish(report);
    let identity = certificate.zip(key).map(|(certificate, key)| Identity { certificate, key });
    Some(ClientFiles { ca, identity })
}

fn read_server(
    mut section: Section<'_>,
    protocols: &'static [&'static [u8]],
    for_clients: bool,
    report: &mut Report,
) -> Option<ServerFiles> {
    let identity = read_identity(&mut section, report);
    let mut by_name = Vec::new();
    let mut clients = None;
    if for_clients {
        for mut own in section.sections("sni", report).unwrap_or_default() {
            let name = own.read_optional(report, "name", |v| host(value::text(v, "mq.example.com")?));
            if !report.sources.contains_key(&own.path_of("name")) {
                let what = format!("{} is missing", own.title_of("name"));
                report.problem(
                    &own.source(),
                    what,
                    "say which name clients ask for, as in name = \"mq.example.com\"",
                );
            }
            by_name.extend(name.zip(read_identity(&mut own, report)));
            own.finish(report);
        }
        clients = read_clients(&mut section, report);
    }
    section.finish(report);
    Some(ServerFiles { identity: identity?, by_name, clients, protocols })
}

fn read_identity(section: &mut Section<'_>, report: &mut Report) -> Option<Identity> {
    let certificate = file(section, "certificate", report);
    let key = file(section, "key", report);
    for name in ["certificate", "key"] {
        if !report.sources.contains_key(&section.path_of(name)) {
            let what = format!("{} is missing", section.title_of(name));
            let fix = format!("name a file in PEM, as in {name} = \"/etc/hapax/{name}.pem\"");
            report.problem(&section.source(), what, fix);
        }
    }
    Some(Identity { certificate: certificate?, key: key? })
}

fn read_clients(section: &mut Section<'_>, report: &mut Report) -> Option<ClientCertificates> {
    let rule = section.read(report, "client_certificates", ClientCertificateRule::default(), |v| {
        value::word(v, "required")
    });
    let ca = file(section, "client_ca", report);
    let crl = file(section, "client_crl", report);
    let names = section.read(report, "client_names", Vec::new(), value::names);
    let given = |report: &Report, key| report.sources.contains_key(&section.path_of(key));
    if rule == ClientCertificateRule::None {
        for key in ["client_ca", "client_crl", "client_names"] {
            if !given(report, key) {
                continue;
            }
            let source = report.source(&section.path_of(key));
            let what =
                format!("{} means nothing, because `client_certificates` is \"none\"", section.title_of(key));
            report.problem(&source, what, "write client_certificates = \"required\", or leave it out");
        }
        return None;
    }
    if !given(report, "client_ca") {
        let source = report.source(&section.path_of("client_certificates"));
        let what = format!(
            "{} asks for certificates, but `client_ca` does not say who may sign them",
            section.title_of("client_certificates")
        );
        report.problem(
            &source,
            what,
            "name a file with the authorities in PEM, as in client_ca = \"/etc/hapax/clients.ca.pem\"",
        );
    }
    Some(ClientCertificates { required: rule == ClientCertificateRule::Required, ca: ca?, crl, names })
}

fn file(section: &mut Section<'_>, key: &'static str, report: &mut Report) -> Option<PathBuf> {
    section.read_optional(report, key, |v| token::path(value::text(v, "/etc/hapax/server.pem")?))
}

/// Parses a host's name as clients ask for it: exact, or with `*.` in place of the first label.
fn host(text: &str) -> Result<String, Wrong> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_name = rustls::pki_types::DnsName::try_from(name).is_ok() && name.parse::<IpAddr>().is_err();
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("is {text:?}, which is no host name that a client can ask for"),
            "write a name as in \"mq.example.com\" or \"*.example.com\"",
        )),
    }
}

/// Parses a list of networks. An address alone is a network of one.
fn networks(value: &DeValue<'_>) -> Result<Vec<IpNet>, Wrong> {
    let fix = "write networks in quotes, as in [\"10.0.0.0/24\", \"2001:db8::/64\", \"127.0.0.1\"]";
    let DeValue::Array(items) = value else {
        return Err(Wrong::new(format!("is {}, but must be a list of networks", type_name(value)), fix));
    };
    let network = |item: &toml::Spanned<DeValue<'_>>| {
        let DeValue::String(text) = item.get_ref() else {
            return Err(Wrong::new(
                format!("has {} in it, but must be a list of networks", type_name(item.get_ref())),
                fix,
            ));
        };
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let network = network.map(|network| network.trunc());
        network.ok_or_else(|| Wrong::new(format!("has {text:?} in it, which is no network"), fix))
    };
    let networks = items.iter().map(network).collect::<Result<Vec<_>, Wrong>>()?;
    if networks.is_empty() {
        Err(Wrong::new("names no network, so nobody could connect", fix))
    } else {
        Ok(networks)
    }
}

/// Reports settings of TLS that mean nothing, and files that can't be used.
pub(super) fn check(config: &Config, report: &mut Report) {
    let first_of = |section: &str, report: &Report| {
        report
            .sources
            .range(format!("{section}.")..)
            .next()
            .map(|(_, source)| source.clone())
            .unwrap_or_default()
    };
    let is_used = config.upstreams.iter().any(|upstream| upstream.tls);
    if config.upstream_tls.is_some() && !is_used && !report.is_wrong("upstream") {
        let source = first_of("upstream_tls", report);
        let shown: Vec<String> = config.upstreams.iter().map(ToString::to_string).collect();
        report.problem(
            &source,
            format!("`[upstream_tls]` means nothing, because `upstream` is {}, without TLS", shown.join(", ")),
            "write upstream = \"amqps://HOST:PORT\" (RabbitMQ's port for TLS is 5671), or leave the section out",
        );
        return;
    }
    if config.admin_tls.is_some() && config.admin.is_none() {
        let source = first_of("admin_tls", report);
        report.problem(
            &source,
            "`[admin_tls]` means nothing, because `admin` is \"off\"",
            "leave the section out",
        );
    }
    check_files(config, report);
}

/// Reports files with certificates that can't be used.
fn check_files(config: &Config, report: &mut Report) {
    let mut report_unusable = |prefix: &str, unusable: Unusable| {
        let source =
            report.source(&format!("{prefix}certificate")).max(report.source(&format!("{prefix}ca")));
        let title = prefix.trim_end_matches('.');
        report.problem(&source, format!("`{title}`: {unusable}"), unusable.fix);
    };
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(Err(unusable)) = listener.tls.as_ref().map(ServerFiles::check) {
            report_unusable(&format!("listener.{index}.tls."), unusable);
        }
    }
    if let Some(Err(unusable)) = config.admin_tls.as_ref().map(ServerFiles::check) {
        report_unusable("admin_tls.", unusable);
    }
    let stream = config.store.stream.as_ref().and_then(|stream| stream.tls.as_ref());
    for (prefix, files) in [
        ("upstream_tls.", config.upstream_tls.as_ref()),
        ("store.stream.tls.", stream),
        ("telemetry.tls.", config.telemetry.tls.as_ref()),
    ] {
        if let Some(Err(unusable)) = files.map(ClientFiles::check) {
            report_unusable(prefix, unusable);
        }
    }
}
