//! The same thing in the words of both dialects.

use core::time::Duration;

use crate::config::{render_child, render_ike};
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{Peer, PeerAddress};
use crate::ipsec::suite::{ChildProposal, EspSuite, IkeProposal, IkeSuite, Protocol, Suite};
use crate::wire::ike::numbers::{IntegId, KeId};

/// Where a peer is, as it is written.
pub(super) fn address(address: &PeerAddress) -> String {
    match address {
        PeerAddress::Any => "any".to_owned(),
        PeerAddress::Ip(addr) => addr.to_string(),
        PeerAddress::Name(name) => name.clone(),
    }
}

/// A date for people, UTC.
pub(super) fn date(since_1970: Duration) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs());
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', "")
}

/// A selector's addresses as prefixes.
pub(super) fn selector(ts: &TrafficSelector) -> String {
    let nets: Vec<_> =
        ts.prefixes().into_iter().map(|(addr, len)| format!("{addr}/{len}")).collect();
    match &nets[..] {
        [_] | [_, _] => nets.join(" "),
        _ => format!("{}-{}", ts.start_addr, ts.end_addr),
    }
}

/// Selectors, each once.
pub(super) fn selectors<'a>(all: impl IntoIterator<Item = &'a TrafficSelector>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for text in all.into_iter().map(selector) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// `["10.1.0.0/16", "10.3.0.0/16"]`
pub(super) fn array(items: &[String]) -> String {
    format!("{items:?}")
}

/// What is offered for the IKE SA.
pub(super) fn ike_proposals(peer: &Peer) -> Vec<String> {
    peer.ike.proposals.iter().map(render_ike).collect()
}

/// What is offered for the first CHILD_SA.
pub(super) fn child_proposals(peer: &Peer) -> Vec<String> {
    peer.children.first().into_iter().flat_map(|it| &it.proposals).map(render_child).collect()
}

/// The suite of an IKE SA as a proposal that has nothing else.
pub(super) fn ike_suite(suite: &IkeSuite) -> IkeProposal {
    IkeProposal {
        encr: vec![suite.encr],
        integ: integ(suite.integ),
        prf: vec![suite.prf],
        ke: vec![suite.ke],
        addke: suite.addke.0.map(|ke| if ke == KeId::NONE { vec![] } else { vec![ke] }),
    }
}

/// The suite of a CHILD_SA as a proposal that has nothing else, but for the groups.
pub(super) fn child_suite(suite: &Suite, ke: &[KeId]) -> ChildProposal {
    let (protocol, encr, integrity, esn) = match *suite {
        Suite::Ah(suite) => (Protocol::Ah, vec![], suite.integ, suite.esn),
        Suite::Esp(EspSuite { encr, integ, esn }) => (Protocol::Esp, vec![encr], integ, esn),
    };
    ChildProposal {
        protocol,
        encr,
        integ: integ(integrity),
        ke: ke.to_vec(),
        addke: Default::default(),
        esn: vec![esn],
    }
}

fn integ(id: IntegId) -> Vec<IntegId> {
    if id == IntegId::NONE { vec![] } else { vec![id] }
}
