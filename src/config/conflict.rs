//! What is wrong only where several configurations meet: [`conflicts`].

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::{Config, identity, subnet};
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{Peer, PeerAuth};

/// What is wrong between configurations that are to be used together, each by itself being right. The findings are
/// those of the later file and name the earlier.
#[must_use]
pub fn conflicts(configs: &[&Config]) -> Diagnostics {
    let mut found = Diagnostics::default();
    for (i, later) in configs.iter().enumerate() {
        for earlier in &configs[..i] {
            pair(earlier, later, &mut found);
        }
    }
    found
}

fn pair(earlier: &Config, later: &Config, found: &mut Diagnostics) {
    let other = earlier.file.display().to_string();
    let mut add = |severity, message: String, help: String| {
        let mut diagnostic = Diagnostic::of_file(severity, &later.file, message);
        diagnostic.help(help);
        found.push(diagnostic);
    };
    let (a, b) = (&earlier.peer, &later.peer);
    if a.name == b.name {
        add(
            Severity::Error,
            format!("the name `{}` is taken by {other}", b.name),
            "rename one of the files, or begin it with: name = \"…\"".to_owned(),
        );
    }
    match overlap(a, b) {
        Some((ours, theirs, true)) => add(
            Severity::Error,
            format!("{ours} <-> {theirs} is in {other} too"),
            "traffic can take one tunnel only: give each peer subnets of its own".to_owned(),
        ),
        Some((ours, theirs, false)) => add(
            Severity::Warning,
            format!("{ours} <-> {theirs} overlaps subnets in {other}"),
            "the peer that was loaded first gets the traffic of both".to_owned(),
        ),
        None => {}
    }
    let psks = match (&a.auth.peer, &b.auth.peer) {
        (PeerAuth::Psk(a), PeerAuth::Psk(b)) => Some((a, b)),
        (PeerAuth::Certificate(_), _) | (_, PeerAuth::Certificate(_)) => None,
    };
    if a.peer_id == b.peer_id && a.local_id == b.local_id && psks.is_some_and(|(a, b)| a != b) {
        // The responder learns who asks by the identity alone (RFC 7296 §2.15).
        let id = b.peer_id.as_ref().map_or_else(|| "any".to_owned(), identity::render);
        add(
            Severity::Error,
            format!("the peer's id {id} has another psk in {other}"),
            "two peers need two identities, or one key".to_owned(),
        );
    }
    let (a, b) = (&earlier.interface, &later.interface);
    if a.name == b.name && (a.mtu, a.clamp_mss, a.routes) != (b.mtu, b.clamp_mss, b.routes) {
        add(
            Severity::Error,
            format!("[interface] `{}` is set up differently in {other}", b.name),
            "files that share an interface agree on mtu, routes and clamp-mss; else give it another name"
                .to_owned(),
        );
    }
}

/// The first pair of selectors that both have, and whether it is the same in both.
fn overlap(a: &Peer, b: &Peer) -> Option<(String, String, bool)> {
    let pairs = |peer: &Peer| -> Vec<(TrafficSelector, TrafficSelector)> {
        let children = peer.children.iter();
        children
            .flat_map(|c| c.ts_local.iter().flat_map(|l| c.ts_peer.iter().map(|p| (*l, *p))))
            .filter(|(l, p)| l.start_addr.is_ipv6() == p.start_addr.is_ipv6())
            .collect()
    };
    let mut partial = None;
    for (local, peer) in pairs(b) {
        for (other_local, other_peer) in pairs(a) {
            if local == other_local && peer == other_peer {
                return Some((show(&local), show(&peer), true));
            }
            if meet(&local, &other_local) && meet(&peer, &other_peer) {
                partial.get_or_insert_with(|| (show(&local), show(&peer), false));
            }
        }
    }
    partial
}

fn meet(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    a.start_addr.is_ipv6() == b.start_addr.is_ipv6()
        && a.start_addr <= b.end_addr
        && b.start_addr <= a.end_addr
}

fn show(selector: &TrafficSelector) -> String {
    subnet::show(selector.start_addr, selector.end_addr)
}

impl Config {
    /// One line: the name, the subnets of both sides, and the peer.
    #[must_use]
    pub fn summary(&self) -> String {
        use crate::ipsec::pad::PeerAddress;
        let list = |of: fn(&crate::ipsec::pad::ChildPolicy) -> &Vec<TrafficSelector>| {
            let shown = self.peer.children.iter().flat_map(|c| of(c).iter().map(show));
            shown.collect::<Vec<_>>().join(", ")
        };
        let with = match &self.peer.address {
            PeerAddress::Any => match &self.peer.peer_id {
                Some(id) => format!("{} from anywhere", identity::render(id)),
                None => "anyone from anywhere".to_owned(),
            },
            PeerAddress::Ip(address) => address.to_string(),
            PeerAddress::Name(name) => name.clone(),
        };
        format!("{} <-> {} with {with}", list(|c| &c.ts_local), list(|c| &c.ts_peer))
    }
}
