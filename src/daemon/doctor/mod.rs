//! Gathers what [`doctor`](crate::doctor) judges: this host, the running daemon's word, and, if asked for, an attempt and
//! experiments of its own.

mod live;
mod offers;
mod prober;

use core::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::config::{self, Config, Diagnostic, Diagnostics, SecretSource, Severity};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, PeerStatus};
use crate::doctor::{
    Address, Attempt, Experiments, Facts, Firewall, Host, PortHolder, Recorded, Route, Ruleset,
};
use crate::io::{clock, host, resolve, route};

/// Everything about the peer of `file`.
///
/// # Errors
/// What is wrong with the file itself.
pub fn gather(
    file: &Path,
    others: &[PathBuf],
    socket: &Path,
    secrets: &dyn SecretSource,
    live: bool,
) -> Result<Facts, Diagnostics> {
    let loaded = config::load(file, secrets)?;
    let config = loaded.config;
    if !config.fixed().is_empty() {
        let message = "there is no peer here, only policies that need no SA";
        let mut found = Diagnostic::of_file(Severity::Error, file, message);
        found.help("`ipsecd explain` tells what becomes of a packet");
        return Err(found.into());
    }
    let (recorded, known) = ask_daemon(socket, config.name());
    let mut files: Vec<_> = others.iter().chain(&known).filter(|it| **it != config.file).collect();
    files.sort();
    files.dedup();
    // What is wrong with another file is told when that is examined.
    let others = files.into_iter().filter_map(|it| config::load(it, secrets).ok());
    let others = others.map(|it| it.config).filter(|it| it.name() != config.name()).collect();
    let resolved =
        resolve::addresses_now(config.address()).map_err(|error| error.to_string()).map(|found| {
            let fits = |addr: &IpAddr| {
                config.local_addr().is_none_or(|local| local.is_ipv4() == addr.is_ipv4())
            };
            found.into_iter().filter(fits).collect::<Vec<_>>()
        });
    let mut host = host_facts(&config);
    let route = resolved.as_ref().ok().and_then(|found| found.first()).map(|remote| {
        let (local, mtu) =
            host::route_to(config.local_addr(), *remote).map_err(|error| error.to_string())?;
        let interface = host.addresses.iter().find(|it| it.net.addr() == local);
        let interface = interface.map(|it| it.interface.clone());
        Ok(Route { remote: *remote, local, interface, mtu })
    });
    host.addresses.retain(|it| it.interface != config.interface.name);
    let (attempt, experiments): (Option<Attempt>, Experiments) = match (&route, config.ike()) {
        (Some(Ok(route)), Some(peer)) if live => live::examine(peer, route, &recorded),
        _ => (None, Experiments::default()),
    };
    Ok(Facts {
        config,
        warnings: loaded.warnings,
        others,
        host,
        resolved,
        route,
        recorded,
        attempt,
        experiments,
    })
}

/// What the daemon says of the peer, and the files of all that it carries.
fn ask_daemon(socket: &Path, name: &str) -> (Recorded, Vec<PathBuf>) {
    let asked =
        Client::connect(socket).and_then(|client| client.ask(Ask::Status { peer: None }, |_| {}));
    match asked {
        Ok(Body::Status(status)) => {
            let files = status.peers.iter().map(|peer| peer.file.clone()).collect();
            let peer = status.peers.into_iter().find(|peer: &PeerStatus| peer.name == name);
            let recorded = peer.map_or(Recorded::Unknown, |peer| Recorded::Peer(Box::new(peer)));
            (recorded, files)
        }
        Ok(_) => (Recorded::NoDaemon(ClientError::Ended.to_string()), Vec::new()),
        Err(error) => (Recorded::NoDaemon(error.to_string()), Vec::new()),
    }
}

fn host_facts(config: &Config) -> Host {
    let files = core::iter::once(&config.file)
        .chain(&config.revocation.crls)
        .chain(&config.revocation.ocsp);
    let addresses = host::addresses().unwrap_or_default().into_iter();
    let holders = host::udp_port_holders(&[500, 4500]).into_iter();
    let forwarding = host::per_interface_v4("forwarding").into_iter();
    Host {
        now: clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default(),
        newest_file: files.filter_map(|file| host::modified(file)).max(),
        tun: host::tun_fault(),
        missing_capabilities: host::missing_capabilities(),
        addresses: addresses.map(|(interface, net)| Address { interface, net }).collect(),
        rp_filter: host::per_interface_v4("rp_filter"),
        forwarding_v4: forwarding.map(|(name, number)| (name, number != 0)).collect(),
        forwarding_v6: route::forwards(true),
        ports: holders.map(|(port, process)| PortHolder { port, process }).collect(),
        firewall: firewall(),
    }
}

fn firewall() -> Firewall {
    let text = match host::nft_rules() {
        Ok(text) => text,
        Err(why) => return Firewall::Unknown(why),
    };
    match Ruleset::from_json(&text) {
        Ok(_) if host::has_legacy_iptables() => Firewall::Unknown(
            "there are rules of the older iptables, which are not read: see iptables-legacy-save"
                .to_owned(),
        ),
        Ok(rules) if rules.is_empty() => Firewall::None,
        Ok(rules) => Firewall::Rules(rules),
        Err(error) => Firewall::Unknown(error.to_string()),
    }
}
