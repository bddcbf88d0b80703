//! The Configuration payload (RFC 7296 §2.19, §3.15) within IKE_AUTH, CREATE_CHILD_SA and INFORMATIONAL: who asks gets an address
//! of our pool, and what we are given becomes our selector.

use std::sync::Arc;

use tracing::{debug, info};

use super::Parts;
use crate::crypto::sha::sha256;
use crate::ike::configuration::{self, Configuration};
use crate::ike::event::{CloseReason, Event};
use crate::ike::identity;
use crate::ike::ike_sa::{Ctx, IkeSa};
use crate::ike::lease::{Holder, Want};
use crate::ike::limits;
use crate::ike::narrow::narrow;
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{ChildPolicy, Peer};
use crate::wire::ike::cp::Cp;
use crate::wire::ike::numbers::{CfgType, NotifyType};
use crate::wire::ike::payload::Payload;

impl IkeSa {
    /// The selectors of a policy, ours and the peer's, within the addresses that a Configuration payload has given to either
    /// (RFC 7296 §2.19). What is asked for and not given yet may be anything.
    pub(in crate::ike) fn selectors_of(
        &self,
        policy: &ChildPolicy,
    ) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let (mut local, mut peer) = (policy.ts_local.clone(), policy.ts_peer.clone());
        if let Some(configuration) = &self.configuration {
            local = narrow(&local, &configuration.selectors());
        }
        if self.peer.as_ref().is_some_and(|peer| peer.pool.is_some()) {
            let leased: Vec<_> =
                self.leased.iter().map(|address| TrafficSelector::from_addr(*address)).collect();
            peer = narrow(&peer, &leased);
        }
        (local, peer)
    }

    // Initiator.

    /// What we ask the peer for.
    pub(super) fn configuration_request(ctx: &Ctx<'_>, peer: &Peer) -> Option<Payload> {
        let wanted = peer.request.as_ref()?;
        let before = ctx.leases.ours.get(&peer.name).map_or(&[][..], Vec::as_slice);
        Some(Payload::Cp(configuration::request(wanted, before)))
    }

    /// The answer to what we asked for.
    ///
    /// # Errors
    /// Without an address there is nothing that we could send from (RFC 7296 §3.15.4).
    pub(super) fn take_configuration(
        &mut self,
        ctx: &mut Ctx<'_>,
        peer: &Peer,
        parts: &Parts<'_>,
    ) -> Result<(), CloseReason> {
        // RFC 7296 §2.19: what comes unasked is not for us.
        let Some(wanted) = &peer.request else { return Ok(()) };
        let is_all = |ts: &TrafficSelector| {
            TrafficSelector::from_prefix(ts.start_addr, 0)
                .is_some_and(|all| all.is_subset(ts) && ts.start_addr == all.start_addr)
        };
        let ts_r = parts.ts_r.map_or(&[][..], |ts| ts.selectors.as_slice());
        let is_split = !ts_r.iter().any(is_all);
        let found = parts
            .cp
            .filter(|cp| cp.cfg_type == CfgType::CFG_REPLY)
            .and_then(|cp| Configuration::of(cp, wanted, is_split));
        let Some(found) = found else {
            let refused = parts.notify(NotifyType::INTERNAL_ADDRESS_FAILURE).is_some();
            return Err(CloseReason::NoAddress { refused });
        };
        info!(peer = %peer.name, addresses = ?found.addresses, dns = ?found.dns, domains = ?found.domains, "configured by the peer");
        ctx.leases.ours.insert(Arc::clone(&peer.name), found.addresses.clone());
        let found = Arc::new(found);
        self.configuration = Some(Arc::clone(&found));
        let (peer, configuration) = (Arc::clone(&peer.name), Some(found));
        ctx.events.push_back(Event::Configured { peer, configuration });
        Ok(())
    }

    // Responder.

    /// The answer to a Configuration payload, if it asks for something that we have. `Err`: what the CHILD_SA fails with.
    pub(super) fn answer_configuration(
        &mut self,
        ctx: &mut Ctx<'_>,
        cp: Option<&Cp>,
    ) -> Result<Option<Payload>, NotifyType> {
        let Some(peer) = self.peer.clone() else { return Ok(None) };
        let Some(pool) = &peer.pool else { return Ok(None) };
        let request = cp.filter(|cp| cp.cfg_type == CfgType::CFG_REQUEST);
        let wishes = request.map(configuration::wishes).unwrap_or_default();
        let Some(request) = request.filter(|_| !wishes.is_empty() || !self.leased.is_empty())
        else {
            // RFC 7296 §2.19: the configuration wants one, unless it has been.
            return if self.leased.is_empty() {
                Err(NotifyType::FAILED_CP_REQUIRED)
            } else {
                Ok(None)
            };
        };
        if self.leased.is_empty() {
            let holder = self.holder();
            for (v6, wish) in wishes {
                let here = self.path.remote.ip();
                let others = &*ctx.others;
                // Make-before-break: the same one, from the same place, asks for what it has.
                let may_share = |address| {
                    others
                        .values()
                        .any(|sa| sa.leased.contains(&address) && sa.path.remote.ip() == here)
                };
                let want = Want { holder, v6, wish };
                let taken = ctx.leases.take(pool, want, may_share);
                let is_new = |address: &_| !self.leased.contains(address);
                self.leased.extend(taken.filter(is_new));
            }
            if self.leased.is_empty() {
                // RFC 7296 §3.15.4.
                return Err(NotifyType::INTERNAL_ADDRESS_FAILURE);
            }
            info!(peer = %peer.name, addresses = ?self.leased, "addresses given to the peer");
        }
        let local: Vec<_> =
            peer.children.iter().flat_map(|child| &child.ts_local).copied().collect();
        let local = local.get(..limits::MAX_SELECTORS.min(local.len())).unwrap_or_default();
        Ok(Some(Payload::Cp(configuration::reply(request, pool, &self.leased, local))))
    }

    /// Who the peer has proved to be.
    fn holder(&self) -> Holder {
        let name = self.peer_name();
        let id = self.peer_identity.as_ref().map(|id| identity::to_wire(id).body());
        let user = self.eap_identity.as_ref().map(ToString::to_string).unwrap_or_default();
        let id = id.unwrap_or_default();
        let len = (id.len() as u64).to_be_bytes();
        sha256(&[name.as_bytes(), &[0], &len, &id, user.as_bytes()])
    }

    // The end.

    /// The one that replaces this IKE SA has its addresses from here on (RFC 7296 §2.19).
    pub(super) fn hand_over_configuration(&mut self, next: &mut Self) {
        next.leased = core::mem::take(&mut self.leased);
        next.configuration = self.configuration.take();
    }

    /// Nothing is sent from or to the addresses any more.
    pub(in crate::ike) fn drop_configuration(&mut self, ctx: &mut Ctx<'_>) {
        for address in core::mem::take(&mut self.leased) {
            debug!(peer = %self.peer_name(), %address, "address given back");
            ctx.leases.release(ctx.now, address);
        }
        if self.configuration.take().is_some() {
            let peer = self.peer_name();
            let other = ctx.others.of_peer(&peer).find_map(|other| other.configuration.clone());
            ctx.events.push_back(Event::Configured { peer, configuration: other });
        }
    }
}
