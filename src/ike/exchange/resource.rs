//! Several CHILD_SAs beside each other for the same packets (RFC 9611): the first, which takes whatever no other does, and one for
//! each resource, so that no two of those share a sequence counter or a replay window.
//!
//! Whoever made the first asks for the others, one after another. Numbers of resources are of this end alone; the datapath gives each
//! flow one of them ([`SaParams::resource`](crate::ipsec::SaParams)).

use std::sync::Arc;

use tracing::{debug, info};

use super::create_child::{ChildRequest, Refusal};
use super::offer::{Found, Offer};
use super::{Parts, notify};
use crate::ike::child_sa::{ChildSa, ChildState, Resource};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Ctx, IkeSa, Task};
use crate::ike::limits;
use crate::ike::narrow::narrow;
use crate::ipsec::pad::ChildPolicy;
use crate::ipsec::{Spi, TrafficSelector};
use crate::wire::ike::numbers::NotifyType;
use crate::wire::ike::payload::Payload;

impl Offer {
    /// What asks for it, or for a first CHILD_SA that others may be made beside.
    pub(super) fn resource_info(&self) -> Option<Payload> {
        // RFC 9611 §5.1: the data is anything that differs from one to the other, for whoever looks for faults.
        let data = match self.resource {
            Resource::None => return None,
            Resource::First => Vec::new(),
            Resource::One(number) => u32::from(number).to_be_bytes().to_vec(),
        };
        Some(notify(NotifyType::SA_RESOURCE_INFO, &data))
    }

    /// What was asked for is a CHILD_SA beside another.
    pub(super) const fn is_beside(&self) -> bool {
        matches!(self.resource, Resource::One(_))
    }
}

impl ChildRequest {
    /// What asks once more.
    pub(super) fn task(&self) -> Task {
        let name = Arc::clone(&self.offer.policy.name);
        match (self.replaces, self.offer.resource) {
            (Some(spi), _) => Task::RekeyChild(spi),
            (None, Resource::One(_)) => Task::CreateResource(name),
            (None, Resource::First | Resource::None) => Task::CreateChild(name),
        }
    }
}

impl IkeSa {
    // Initiator.

    /// Asks for what is still to be made beside CHILD_SAs of ours.
    pub(super) fn queue_missing_resources(&mut self) {
        let first = |child: &&ChildSa| {
            child.resource == Resource::First && child.origin.ours && !child.no_more_beside
        };
        let missing: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.state == ChildState::Installed)
            .filter(first)
            .filter(|first| {
                self.beside(&first.policy).count() < usize::from(first.policy.per_resource)
            })
            .map(|first| Task::CreateResource(Arc::clone(&first.policy.name)))
            .collect();
        missing.into_iter().for_each(|task| self.queue(task));
    }

    pub(in crate::ike) fn begin_create_resource(&mut self, ctx: &mut Ctx<'_>, name: &str) {
        let Some(first) = self.first_of(name).filter(|first| first.origin.ours) else { return };
        let policy = first.policy.clone();
        if !first.no_more_beside && self.beside(&policy).count() < usize::from(policy.per_resource)
        {
            let resource = Resource::One(self.free_resource(&policy));
            self.send_create_child(ctx, policy, None, None, resource, None);
        }
    }

    /// Selectors of an offer beside another CHILD_SA: the same as that has (RFC 9611 §3).
    pub(super) fn selectors_beside(
        &self,
        policy: &ChildPolicy,
    ) -> Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)> {
        let first = self.first_of(&policy.name)?;
        Some((first.ts_local.to_vec(), first.ts_peer.to_vec()))
    }

    /// What a CHILD_SA is that the peer agreed to; `None` if it is not like the one that it was to be beside.
    pub(super) fn resource_agreed(
        &self,
        offer: &Offer,
        is_alike: impl Fn(&ChildSa) -> bool,
        parts: &Parts<'_>,
    ) -> Option<Resource> {
        match offer.resource {
            // RFC 9611 §3: a responder that is willing says so.
            Resource::First if parts.notify(NotifyType::SA_RESOURCE_INFO).is_some() => {
                Some(Resource::First)
            }
            Resource::First | Resource::None => Some(Resource::None),
            Resource::One(_) => {
                // The first may be gone by now, which is no reason to throw this one away.
                self.first_of(&offer.policy.name).is_none_or(is_alike).then_some(offer.resource)
            }
        }
    }

    /// Nothing more is made beside the first of this policy, until that is rekeyed: the peer does not want it, and to ask at once, or
    /// after each DELETE, would go on for ever (RFC 9611 §6).
    pub(in crate::ike) fn no_more_beside(&mut self, policy: &str, why: &CloseReason) {
        info!(peer = %self.peer_name(), child = %policy, reason = %why, "no more CHILD_SAs beside the first");
        let first = |child: &&mut ChildSa| {
            child.resource == Resource::First && *child.policy.name == *policy
        };
        for child in self.children.iter_mut().filter(first) {
            child.no_more_beside = true;
        }
    }

    // Responder.

    /// What a CHILD_SA is that the peer asks for, or why it gets none. `found` is narrowed to what the first has.
    pub(super) fn resource_asked(
        &self,
        found: &mut Found,
        parts: &Parts<'_>,
        replaces: Option<Spi>,
    ) -> Result<Resource, Refusal> {
        if let Some(old) = replaces {
            // RFC 9611 §3: a rekeyed one is of the same resource, whether the peer names it or not.
            let old = self.children.iter().find(|child| child.spi_inbound == old);
            return Ok(old.map_or(Resource::None, |old| old.resource));
        }
        let most = found.policy.per_resource;
        if most == 0 || parts.notify(NotifyType::SA_RESOURCE_INFO).is_none() {
            return Ok(Resource::None);
        }
        let Some(first) = self.first_of(&found.policy.name) else { return Ok(Resource::First) };
        if self.beside(&found.policy).count()
            >= usize::from(most) * limits::RESOURCES_TAKEN_FOR_EACH_MADE
        {
            // RFC 9611 §6: NO_ADDITIONAL_SAS would mean other selectors as well.
            return Err(Refusal::new(NotifyType::TS_MAX_QUEUE));
        }
        found.ts_local = narrow(&found.ts_local, &first.ts_local);
        found.ts_peer = narrow(&found.ts_peer, &first.ts_peer);
        if !first.is_alike(found.chosen.suite, found.mode, &found.ts_local, &found.ts_peer) {
            // RFC 9611 §3: they are the same in all but their keys.
            return Err(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN));
        }
        debug!(peer = %self.peer_name(), child = %found.policy.name, "one more CHILD_SA beside the first");
        Ok(Resource::One(self.free_resource(&found.policy)))
    }

    /// The first of those that the peer asks for another beside: what it names the same selectors for.
    pub(super) fn first_asked_for(&self, parts: &Parts<'_>) -> Option<&ChildSa> {
        let (ts_i, ts_r) = (parts.ts_i?, parts.ts_r?);
        parts.notify(NotifyType::SA_RESOURCE_INFO)?;
        self.children.iter().find(|child| {
            child.state == ChildState::Installed
                && child.resource == Resource::First
                && *child.ts_peer == *ts_i.selectors
                && *child.ts_local == *ts_r.selectors
        })
    }

    // Both.

    /// The CHILD_SA of a policy that others may be beside.
    pub(super) fn first_of(&self, policy: &str) -> Option<&ChildSa> {
        self.children.iter().find(|child| {
            child.state == ChildState::Installed
                && child.resource == Resource::First
                && *child.policy.name == *policy
        })
    }

    /// Those that are beside it.
    fn beside(&self, policy: &ChildPolicy) -> impl Iterator<Item = &ChildSa> {
        self.children.iter().filter(move |child| {
            child.state == ChildState::Installed
                && matches!(child.resource, Resource::One(_))
                && child.policy.name == policy.name
        })
    }

    /// The lowest number that none of them has, nor one that still receives.
    fn free_resource(&self, policy: &ChildPolicy) -> u16 {
        let is_free = |number: &u16| {
            self.children.iter().all(|child| {
                child.policy.name != policy.name || child.resource != Resource::One(*number)
            })
        };
        (0..u16::MAX).find(is_free).unwrap_or(u16::MAX)
    }
}
