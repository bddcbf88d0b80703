//! What is offered for a CHILD_SA by a policy, and what an offer of the peer comes to by ours: proposals, mode and selectors (RFC
//! 7296 §1.3.1, §2.9, §2.23.1).

use core::net::IpAddr;
use std::sync::Arc;

use super::{Parts, notify};
use crate::ike::child_sa::{ChildSa, Resource};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Ctx, IkeSa};
use crate::ike::narrow::{narrow, within};
use crate::ike::policy::Policy;
use crate::ike::proposal::{self, Chosen};
use crate::ipsec::pad::{ChildPolicy, Peer};
use crate::ipsec::selector::matches_pair;
use crate::ipsec::suite::{ChildProposal, Protocol, Suite};
use crate::ipsec::{Flow, Mode, Spi, TrafficSelector};
use crate::wire::ike::numbers::{NotifyType, ProtocolId};
use crate::wire::ike::payload::{Payload, Sa, Ts};

/// What we offered for a CHILD_SA.
pub(in crate::ike) struct Offer {
    pub(in crate::ike) policy: Policy,
    pub(in crate::ike) spi: Spi,
    /// Those of the policy that can be on the path there is.
    pub(super) proposals: Vec<ChildProposal>,
    pub(super) mode: Mode,
    /// The packet that asked for it.
    pub(super) flow: Option<Flow>,
    pub(super) ts_local: Vec<TrafficSelector>,
    pub(super) ts_peer: Vec<TrafficSelector>,
    /// What it is to be among others for the same packets.
    pub(super) resource: Resource,
}

impl Offer {
    /// An offer by a policy, also when it replaces a CHILD_SA: then with selectors no narrower than that one's (RFC 7296
    /// §2.9.2). `Err` says why nothing can be offered on the path of the IKE SA.
    pub(in crate::ike) fn new(
        ctx: &mut Ctx<'_>,
        sa: &IkeSa,
        policy: Policy,
        flow: Option<Flow>,
        resource: Resource,
    ) -> Result<Self, CloseReason> {
        let proposals = sa.usable_proposals(&policy);
        if proposals.is_empty() {
            return Err(CloseReason::AhInUdp);
        }
        let beside = resource.number().and_then(|_| sa.selectors_beside(&policy));
        let (mut ts_local, mut ts_peer) = beside.unwrap_or_else(|| sa.selectors_of(&policy));
        if ts_local.is_empty() || ts_peer.is_empty() {
            return Err(CloseReason::TrafficSelectors);
        }
        // RFC 7296 §2.23.1: one address each, those of the IKE SA.
        let (local, remote) = (sa.path.local.ip(), sa.path.remote.ip());
        let can_transport = are_of(&ts_local, local) && are_of(&ts_peer, remote);
        if policy.mode == Mode::Transport && !can_transport && !policy.or_tunnel {
            return Err(CloseReason::TransportElsewhere { local, remote });
        }
        let mode = if can_transport { policy.mode } else { Mode::Tunnel };
        // RFC 7296 §2.9: the packet's own selectors come first, so that a responder that narrows knows what is needed.
        if let Some(flow) = flow.filter(|flow| matches_pair(&ts_local, &ts_peer, flow)) {
            let (src, dst) = TrafficSelector::of(&flow);
            ts_local.insert(0, src);
            ts_peer.insert(0, dst);
        }
        let spi = ctx.fresh_spi(sa.id, resource);
        Ok(Self { spi, proposals, mode, flow, ts_local, ts_peer, policy, resource })
    }

    /// What goes into IKE_AUTH: without key exchange (RFC 7296 §1.2).
    pub(in crate::ike) fn payloads_for_auth(&self) -> Vec<Payload> {
        let mut payloads = self.notifies();
        payloads.extend(self.resource_info());
        payloads.extend(self.payloads(false));
        payloads
    }

    pub(super) fn notifies(&self) -> Vec<Payload> {
        match self.mode {
            Mode::Transport => vec![notify(NotifyType::USE_TRANSPORT_MODE, &[])],
            Mode::Tunnel => Vec::new(),
        }
    }

    pub(super) fn payloads(&self, with_ke: bool) -> [Payload; 3] {
        [
            Payload::Sa(proposal::child_offer(&self.proposals, self.spi, with_ke)),
            Payload::TsI(Ts { selectors: self.ts_local.clone() }),
            Payload::TsR(Ts { selectors: self.ts_peer.clone() }),
        ]
    }

    /// The protocol of what the peer says to have made of it.
    pub(super) fn protocol_of(&self, answer: Option<&Sa>) -> Protocol {
        let theirs = answer.and_then(|sa| sa.proposals.first()).map(|proposal| proposal.protocol);
        match theirs {
            Some(ProtocolId::AH) => Protocol::Ah,
            Some(ProtocolId::ESP) => Protocol::Esp,
            _ => self.proposals.first().map_or(Protocol::Esp, |proposal| proposal.protocol),
        }
    }

    /// The SPI is free again.
    pub(in crate::ike) fn forget(&self, ctx: &mut Ctx<'_>) {
        ctx.spis.remove(&self.spi);
    }
}

/// What a request of the peer comes to by our policy.
pub(super) struct Found {
    pub(super) policy: Policy,
    pub(super) chosen: Chosen<Suite>,
    pub(super) mode: Mode,
    pub(super) ts_local: Vec<TrafficSelector>,
    pub(super) ts_peer: Vec<TrafficSelector>,
}

/// A policy, and its selectors within the addresses that were given to either side.
struct Candidate<'p> {
    policy: &'p ChildPolicy,
    ts_local: Vec<TrafficSelector>,
    ts_peer: Vec<TrafficSelector>,
}

impl IkeSa {
    /// The proposals of a policy but for AH where packets go in UDP, which has no place for it (RFC 3948 §1).
    pub(super) fn usable_proposals(&self, policy: &ChildPolicy) -> Vec<ChildProposal> {
        let usable = |proposal: &&ChildProposal| !self.encap || proposal.protocol != Protocol::Ah;
        policy.proposals.iter().filter(usable).cloned().collect()
    }

    /// RFC 7296 §2.23.1: in transport mode, selectors of one address that a NAT has changed on the way get the addresses of the
    /// IKE SA as they are seen here.
    pub(super) fn behind_nats(
        &self,
        ts_local: &mut [TrafficSelector],
        ts_peer: &mut [TrafficSelector],
    ) {
        let substitute = |all: &mut [TrafficSelector], address: IpAddr| {
            let is_one = |ts: &TrafficSelector| ts.start_addr == ts.end_addr;
            let one = all.first().map(|ts| ts.start_addr);
            if all.iter().all(|ts| is_one(ts) && Some(ts.start_addr) == one) {
                for ts in all {
                    (ts.start_addr, ts.end_addr) = (address, address);
                }
            }
        };
        if self.nat.local {
            substitute(ts_local, self.path.local.ip());
        }
        if self.nat.peer {
            substitute(ts_peer, self.path.remote.ip());
        }
    }

    /// How well a policy suits the selectors of a request; less is better. RFC 7296 §2.9: what narrowing leaves has to contain the
    /// first selectors, if any policy does.
    fn rank(
        &self,
        Candidate { policy, ts_local, ts_peer }: &Candidate<'_>,
        theirs: &[TrafficSelector],
        ours: &[TrafficSelector],
    ) -> (u8, bool) {
        let takes = |all: &[TrafficSelector], by: &[TrafficSelector]| within(all, by);
        let first = |all: &[TrafficSelector], by: &[TrafficSelector]| {
            all.first().is_some_and(|first| takes(&[*first], by))
        };
        let whole = takes(theirs, ts_peer) && takes(ours, ts_local);
        let exact = whole && takes(ts_peer, theirs) && takes(ts_local, ours);
        let rank = if exact {
            0
        } else if whole {
            1
        } else if first(theirs, ts_peer) && first(ours, ts_local) {
            2
        } else {
            3
        };
        // A peer that asks for everything each time gets one after the other.
        (rank, self.has_child(&policy.name))
    }

    /// Responder: the policy for the selectors of a request, what they are narrowed to, and the mode. `only`: the policy of the
    /// CHILD_SA that is rekeyed.
    pub(super) fn find_policy(
        &self,
        peer: &Arc<Peer>,
        parts: &Parts<'_>,
        only: Option<&ChildSa>,
        with_ke: bool,
    ) -> Result<Found, NotifyType> {
        let (Some(sa), Some(ts_i), Some(ts_r)) = (parts.sa, parts.ts_i, parts.ts_r) else {
            return Err(NotifyType::INVALID_SYNTAX);
        };
        let may_transport = parts.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        let (mut seen_local, mut seen_peer) = (ts_r.selectors.clone(), ts_i.selectors.clone());
        self.behind_nats(&mut seen_local, &mut seen_peer);
        let mut refusal = NotifyType::TS_UNACCEPTABLE;
        // RFC 7296 §2.23.1: transport mode with the addresses that are seen here; if there is none, tunnel mode with those
        // that the peer sees.
        for mode in [Mode::Transport, Mode::Tunnel] {
            if mode == Mode::Transport && !may_transport {
                continue;
            }
            let (theirs, ours) = match mode {
                Mode::Transport => (&seen_peer, &seen_local),
                Mode::Tunnel => (&ts_i.selectors, &ts_r.selectors),
            };
            let candidate = |policy| {
                let (ts_local, ts_peer) = self.selectors_of(policy);
                Candidate { policy, ts_local, ts_peer }
            };
            let mut candidates: Vec<_> = peer.children.iter().map(candidate).collect();
            // The order of the configuration decides among equals.
            candidates.sort_by_key(|candidate| self.rank(candidate, theirs, ours));
            for Candidate { policy, ts_local, ts_peer } in candidates {
                if only.is_some_and(|old| old.policy.name != policy.name)
                    || mode == Mode::Transport && policy.mode != Mode::Transport
                {
                    continue;
                }
                let ts_peer = narrow(theirs, &ts_peer);
                let ts_local = narrow(ours, &ts_local);
                if ts_peer.is_empty() || ts_local.is_empty() {
                    continue;
                }
                let fits = match mode {
                    Mode::Transport => {
                        are_of(&ts_local, self.path.local.ip())
                            && are_of(&ts_peer, self.path.remote.ip())
                    }
                    Mode::Tunnel => policy.mode == Mode::Tunnel || policy.or_tunnel,
                };
                let peer_ke = parts.ke.map(|ke| ke.group);
                let proposals = self.usable_proposals(policy);
                let chosen = proposal::choose_child(&proposals, sa, with_ke, peer_ke);
                match chosen.filter(|_| fits) {
                    Some(chosen) => {
                        let Some(policy) = Policy::named(peer, &policy.name) else { continue };
                        return Ok(Found { policy, chosen, mode, ts_local, ts_peer });
                    }
                    None => refusal = NotifyType::NO_PROPOSAL_CHOSEN,
                }
            }
        }
        Err(refusal)
    }
}

/// Whether these are of one address, as transport mode wants them.
fn are_of(selectors: &[TrafficSelector], address: IpAddr) -> bool {
    selectors.iter().all(|ts| (ts.start_addr, ts.end_addr) == (address, address))
}
