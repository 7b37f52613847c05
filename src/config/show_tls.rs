//! Writes the settings of listeners and of TLS as a configuration file.

use super::listener::ClientCertificateRule;
use super::show::Out;
use super::{Config, ListenerConfig};
use crate::tls::{ClientFiles, Identity, ServerFiles};
use std::fmt;

/// Writes `[upstream_tls]`, `[admin_tls]` and each `[[listener]]`.
pub(super) fn write(config: &Config, out: &mut Out<'_>) -> fmt::Result {
    write_client("upstream_tls", config.upstream_tls.as_ref(), out)?;
    if let Some(files) = &config.admin_tls {
        out.section("[admin_tls]", "admin_tls.".into())?;
        write_identity(&files.identity, out)?;
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        out.section("[[listener]]", format!("listener.{index}."))?;
        write_listener(index, listener, out)?;
    }
    Ok(())
}

/// Writes a section with the files of TLS to a server.
pub(super) fn write_client(section: &str, files: Option<&ClientFiles>, out: &mut Out<'_>) -> fmt::Result {
    let Some(files) = files else { return Ok(()) };
    out.section(&format!("[{section}]"), format!("{section}."))?;
    if let Some(ca) = &files.ca {
        out.string("ca", ca.display())?;
    }
    files.identity.as_ref().map_or(Ok(()), |identity| write_identity(identity, out))
}

fn write_identity(identity: &Identity, out: &mut Out<'_>) -> fmt::Result {
    out.string("certificate", identity.certificate.display())?;
    out.string("key", identity.key.display())
}

fn write_listener(index: usize, listener: &ListenerConfig, out: &mut Out<'_>) -> fmt::Result {
    out.string("address", listener.address)?;
    out.raw("proxy_protocol", listener.trusted.is_some())?;
    if let Some(networks) = &listener.trusted {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        out.raw("trusted", toml::Value::from(networks))?;
    }
    let Some(ServerFiles { identity, by_name, clients, protocols: _ }) = &listener.tls else { return Ok(()) };
    out.section("[listener.tls]", format!("listener.{index}.tls."))?;
    write_identity(identity, out)?;
    let rule = match clients {
        None => ClientCertificateRule::None,
        Some(clients) if clients.required => ClientCertificateRule::Required,
        Some(_) => ClientCertificateRule::Optional,
    };
    out.word("client_certificates", rule)?;
    if let Some(clients) = clients {
        out.string("client_ca", clients.ca.display())?;
        if let Some(crl) = &clients.crl {
            out.string("client_crl", crl.display())?;
        }
        out.raw("client_names", toml::Value::from(clients.names.clone()))?;
    }
    for (place, (name, identity)) in by_name.iter().enumerate() {
        out.section("[[listener.tls.sni]]", format!("listener.{index}.tls.sni.{place}."))?;
        out.string("name", name)?;
        write_identity(identity, out)?;
    }
    Ok(())
}
