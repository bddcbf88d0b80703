//! What is wrong only where several configurations meet: [`conflicts`].

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::manual::{Clash, spi_clashes};
use super::selector::show;
use super::{Config, Keying, PolicyRef, identity};
use crate::ipsec::TrafficSelector;
use crate::ipsec::manual::ManualPeer;
use crate::ipsec::pad::{Peer, PeerAddress, PeerAuth};

/// What is wrong between configurations that are to be used together, each by itself being right. The findings are
/// those of the later file and name the earlier.
#[must_use]
pub fn conflicts(configs: &[&Config]) -> Diagnostics {
    let mut found = Diagnostics::default();
    for (i, later) in configs.iter().enumerate() {
        found.append(conflicts_with(later, configs[..i].iter().copied()));
    }
    found
}

/// What is wrong between a configuration and those that are in use, which go with each other. Its cost grows with their
/// number, so that ten thousand files take fifty million comparisons one after the other.
#[must_use]
pub fn conflicts_with<'a>(
    later: &Config,
    earlier: impl IntoIterator<Item = &'a Config>,
) -> Diagnostics {
    let mut found = Diagnostics::default();
    let selectors = pairs(later);
    for earlier in earlier {
        pair(earlier, later, &selectors, &mut found);
    }
    found
}

/// A selector of our side, and one of the peer's.
type Selectors = (TrafficSelector, TrafficSelector);

fn pair(earlier: &Config, later: &Config, selectors: &[Selectors], found: &mut Diagnostics) {
    let other = || earlier.file.display().to_string();
    let mut add = |severity, message: String, help: String| {
        let mut diagnostic = Diagnostic::of_file(severity, &later.file, message);
        diagnostic.help(help);
        found.push(diagnostic);
    };
    if earlier.name() == later.name() {
        add(
            Severity::Error,
            format!("the name `{}` is taken by {}", later.name(), other()),
            "rename one of the files, or begin it with: name = \"…\"".to_owned(),
        );
    }
    let manual = earlier.manual().is_some() || later.manual().is_some();
    match overlap(earlier, selectors) {
        Some((ours, theirs, true)) => add(
            Severity::Error,
            format!("{ours} <-> {theirs} is in {} too", other()),
            "traffic can take one tunnel only: give each peer subnets of its own".to_owned(),
        ),
        Some((ours, theirs, false)) if manual => add(
            Severity::Error,
            format!("{ours} <-> {theirs} overlaps selectors in {}", other()),
            "nobody narrows the selectors of manual keys: write such as do not meet".to_owned(),
        ),
        Some((ours, theirs, false)) => add(
            Severity::Warning,
            format!("{ours} <-> {theirs} overlaps subnets in {}", other()),
            "the peer that was loaded first gets the traffic of both".to_owned(),
        ),
        None => {}
    }
    match (&earlier.keying, &later.keying) {
        (Keying::Ike(a), Keying::Ike(b)) => identities(a, b, &other, &mut add),
        (Keying::Manual(a), Keying::Manual(b)) => manual_keys(a, b, &other(), &mut add),
        (Keying::Ike(_), Keying::Manual(_)) | (Keying::Manual(_), Keying::Ike(_)) => {}
    }
    let (a, b) = (&earlier.interface, &later.interface);
    if a.name == b.name && (a.mtu, a.clamp_mss, a.routes) != (b.mtu, b.clamp_mss, b.routes) {
        add(
            Severity::Error,
            format!("[interface] `{}` is set up differently in {}", b.name, other()),
            "files that share an interface agree on mtu, routes and clamp-mss; else give it another name"
                .to_owned(),
        );
    }
}

fn identities(
    a: &Peer,
    b: &Peer,
    other: &dyn Fn() -> String,
    add: &mut dyn FnMut(Severity, String, String),
) {
    let psks = match (&a.auth.peer, &b.auth.peer) {
        (PeerAuth::Psk(a), PeerAuth::Psk(b)) => Some((a, b)),
        (PeerAuth::Eap(_) | PeerAuth::Signature(_), _)
        | (_, PeerAuth::Eap(_) | PeerAuth::Signature(_)) => None,
    };
    if a.peer_id == b.peer_id && a.local_id == b.local_id && psks.is_some_and(|(a, b)| a != b) {
        // The responder learns who asks by the identity alone (RFC 7296 §2.15).
        let id = b.peer_id.as_ref().map_or_else(|| "any".to_owned(), identity::render);
        add(
            Severity::Error,
            format!("the peer's id {id} has another psk in {}", other()),
            "two peers need two identities, or one key".to_owned(),
        );
    }
}

fn manual_keys(
    a: &ManualPeer,
    b: &ManualPeer,
    other: &str,
    add: &mut dyn FnMut(Severity, String, String),
) {
    for clash in spi_clashes(b.layers(), a.layers().collect()) {
        let (message, help) = match clash {
            Clash::Inbound(spi) => {
                (format!("spi-in {spi} is in {other} too"), "every SA has an SPI of its own")
            }
            // Another peer may have chosen the same.
            Clash::Outbound(_) if a.address != b.address => continue,
            Clash::Outbound(spi) => {
                (format!("spi-out {spi} is in {other} too"), "every SA has an SPI of its own")
            }
            Clash::Key => (
                format!("a key is in {other} too"),
                "each SA its own: with this algorithm, a sequence number used twice under one key gives plaintext away",
            ),
        };
        add(Severity::Error, message, help.to_owned());
    }
}

fn pairs(config: &Config) -> Vec<Selectors> {
    let policies = config.policies().into_iter();
    policies
        .flat_map(|c| c.ts_local.iter().flat_map(|l| c.ts_peer.iter().map(|p| (*l, *p))))
        .filter(|(l, p)| l.start_addr.is_ipv6() == p.start_addr.is_ipv6())
        .collect()
}

/// The first of these selectors that the other configuration has as well, and whether it is the same there.
fn overlap(other: &Config, selectors: &[Selectors]) -> Option<(String, String, bool)> {
    let others = pairs(other);
    let mut partial = None;
    for &(local, peer) in selectors {
        for &(other_local, other_peer) in &others {
            if local == other_local && peer == other_peer {
                return Some((show(&local), show(&peer), true));
            }
            let met = local.intersect(&other_local).and(peer.intersect(&other_peer));
            if met.is_some() {
                partial.get_or_insert_with(|| (show(&local), show(&peer), false));
            }
        }
    }
    partial
}

impl Config {
    /// One line: the name, the subnets of both sides, and the peer.
    #[must_use]
    pub fn summary(&self) -> String {
        let policies = self.policies();
        let list = |of: fn(&PolicyRef<'_>) -> Vec<String>| {
            policies.iter().flat_map(of).collect::<Vec<_>>().join(", ")
        };
        let with = match self.address() {
            PeerAddress::Any => match self.ike().and_then(|peer| peer.peer_id.as_ref()) {
                Some(id) => format!("{} from anywhere", identity::render(id)),
                None => "anyone from anywhere".to_owned(),
            },
            PeerAddress::Ip(address) => address.to_string(),
            PeerAddress::Name(name) => name.clone(),
        };
        let keys = if self.manual().is_some() { ", manual keys: no rekey" } else { "" };
        let local = list(|policy| policy.ts_local.iter().map(show).collect());
        let peer = list(|policy| policy.ts_peer.iter().map(show).collect());
        format!("{local} <-> {peer} with {with}{keys}")
    }
}
