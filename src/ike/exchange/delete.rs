//! DELETE (RFC 7296 §1.4.1): of CHILD_SAs, in pairs, and of the IKE SA with all that is under it.

use std::sync::Arc;

use tracing::info;

use crate::ike::child_sa::ChildState;
use crate::ike::event::{CloseReason, Event};
use crate::ike::ike_sa::{Active, Ctx, IkeSa, State};
use crate::ike::limits;
use crate::ipsec::{Protocol, SadUpdate, Spi};
use crate::wire::ike::numbers::{ExchangeType, ProtocolId};
use crate::wire::ike::payload::{Delete, Payload};

impl IkeSa {
    // As initiator.

    pub(in crate::ike) fn begin_delete_children(&mut self, ctx: &mut Ctx<'_>, spis: Vec<Spi>) {
        let mut named = Vec::new();
        let mut deletes = Deletes::default();
        for spi in spis {
            let peer = self.peer_name();
            let Some(child) = self.child(spi) else { continue };
            if !matches!(child.state, ChildState::Installed | ChildState::Replaced) {
                continue;
            }
            if child.state == ChildState::Installed {
                let name = Arc::clone(&child.policy.name);
                ctx.events.push_back(Event::ChildSaClosed {
                    peer,
                    child: name,
                    spi,
                    beside: child.resource.number().is_some(),
                    by_peer: false,
                });
            }
            child.state = ChildState::Deleting;
            if let Some(update) = child.remove_outbound() {
                ctx.sad(update);
            }
            deletes.name(child.suite.protocol(), spi);
            named.push(spi);
        }
        if named.is_empty() {
            return;
        }
        self.request(ctx, ExchangeType::INFORMATIONAL, &deletes.payloads());
        self.active = Some(Active::DeleteChildren(named));
    }

    /// The peer has half a CHILD_SA of which we have nothing but the SPI that we offered.
    pub(in crate::ike) fn begin_disown(&mut self, ctx: &mut Ctx<'_>, protocol: Protocol, spi: Spi) {
        let payload = Payload::Delete(Delete::of(protocol.id(), [spi.to_be_bytes()]));
        self.request(ctx, ExchangeType::INFORMATIONAL, &[payload]);
        self.active = Some(Active::Disown(spi));
    }

    pub(in crate::ike) fn handle_delete_children_response(&mut self, ctx: &Ctx<'_>, spis: &[Spi]) {
        let until = ctx.now + limits::LINGER;
        for spi in spis {
            if let Some(child) = self.child(*spi) {
                child.state = ChildState::Lingering(until);
            }
        }
    }

    /// Ends the IKE SA: everything under it is gone at once, and the peer is told as soon as the window allows.
    pub(in crate::ike) fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        self.announce_closed(ctx, reason);
        self.begin_delete_ike(ctx);
    }

    /// Ends the IKE SA, of which another has taken the place: nothing is sent on its CHILD_SAs any more, but the peer may send on
    /// them until it has the DELETE.
    pub(in crate::ike) fn retire(&mut self, ctx: &mut Ctx<'_>) {
        self.announce_closed(ctx, CloseReason::Replaced);
        let mut children = core::mem::take(&mut self.children);
        for child in &mut children {
            child.state = ChildState::Deleting;
            if let Some(update) = child.remove_outbound() {
                ctx.sad(update);
            }
        }
        self.begin_delete_ike(ctx);
        self.children = children;
        if matches!(self.state, State::Closed(_)) {
            self.drop_children(ctx);
        }
    }

    /// Deletes an IKE SA that the daemon does not know, or no longer.
    pub(in crate::ike) fn begin_delete_ike(&mut self, ctx: &mut Ctx<'_>) {
        self.begin_delete_ike_with(ctx, &[Payload::Delete(Delete::ike())]);
    }

    pub(in crate::ike) fn begin_delete_ike_with(
        &mut self,
        ctx: &mut Ctx<'_>,
        payloads: &[Payload],
    ) {
        self.drop_children(ctx);
        self.forget_tasks(ctx);
        if let State::AuthSent(sent) = &self.state {
            sent.forget_offer(ctx);
        }
        self.state = State::Deleting;
        // RFC 7296 §2.3: the window is one; with a request under way, DELETE follows its answer.
        if self.requests.is_idle() {
            if self.requests.next_id().is_none() {
                // RFC 7296 §2.2: there is no Message ID left to say it with.
                self.closed(ctx);
                return;
            }
            self.request(ctx, ExchangeType::INFORMATIONAL, payloads);
            self.active = Some(Active::DeleteIke);
        }
    }

    // As responder.

    /// Carries out the peer's DELETE payloads; returns those of the answer.
    pub(super) fn handle_deletes(
        &mut self,
        ctx: &mut Ctx<'_>,
        payloads: &[Payload],
    ) -> Vec<Payload> {
        let mut paired = Deletes::default();
        for payload in payloads {
            let Payload::Delete(delete) = payload else { continue };
            let protocol = match delete.protocol {
                ProtocolId::AH => Protocol::Ah,
                ProtocolId::ESP => Protocol::Esp,
                _ => continue,
            };
            for spi in &delete.spis {
                if let Some(spi) = self.delete_by_peer(ctx, protocol, spi) {
                    paired.name(protocol, spi);
                }
            }
        }
        paired.payloads()
    }

    /// The peer no longer receives on `spi`. Returns our half of the pair for the answer.
    fn delete_by_peer(&mut self, ctx: &mut Ctx<'_>, protocol: Protocol, spi: &[u8]) -> Option<Spi> {
        let until = ctx.now + limits::LINGER;
        let at = self.children.iter().position(|child| {
            protocol == child.suite.protocol()
                && spi == child.spi_outbound.to_be_bytes()
                && !matches!(child.state, ChildState::Lingering(_))
        });
        let Some(at) = at else {
            if let Some(Active::Child(request)) = &mut self.active
                && request.deleted_early.len() < limits::MAX_EARLY_DELETES
            {
                request.deleted_early.push((protocol, spi.to_vec()));
            }
            return None;
        };
        let name = Arc::clone(&self.children.get(at)?.policy.name);
        let peer = self.peer_name();
        let child = self.children.get_mut(at)?;
        if let Some(update) = child.remove_outbound() {
            ctx.sad(update);
        }
        let spi_inbound = child.spi_inbound;
        let (policy, beside) = (Arc::clone(&name), child.resource.number().is_some());
        match child.state {
            // RFC 7296 §1.4.1: both ends delete it at once; our half goes with the answer to our own request.
            ChildState::Deleting => return None,
            ChildState::Installed => {
                info!(%peer, child = %name, spi_inbound = %spi_inbound, "CHILD_SA deleted by the peer");
                ctx.events.push_back(Event::ChildSaClosed {
                    peer,
                    child: name,
                    spi: spi_inbound,
                    beside,
                    by_peer: true,
                });
            }
            ChildState::Replaced | ChildState::Lingering(_) => {}
        }
        let was_installed = child.state == ChildState::Installed;
        child.state = ChildState::Lingering(until);
        if was_installed && beside {
            self.no_more_beside(&policy, &CloseReason::DeletedByPeer);
        }
        Some(spi_inbound)
    }

    /// The peer deletes the IKE SA; the answer has been sent.
    pub(super) fn deleted_by_peer(&mut self, ctx: &mut Ctx<'_>) {
        // RFC 7296 §2.25.2: our own rekey of it is forgotten; the peer's, if there was one, has won.
        if let Some(mut winner) = self.take_collided(ctx) {
            if matches!(self.state, State::Deleting) {
                // What was to be deleted has moved to the new one, and goes with that.
                winner.begin_delete_ike(ctx);
                ctx.put(winner);
            } else {
                self.hand_over(ctx, winner);
            }
        }
        self.close(ctx, CloseReason::DeletedByPeer);
    }

    /// Takes a CHILD_SA out of the SAD without a word to the peer.
    pub(in crate::ike) fn remove_child(&mut self, ctx: &mut Ctx<'_>, spi: Spi) {
        if let Some(at) = self.children.iter().position(|child| child.spi_inbound == spi) {
            let mut child = self.children.remove(at);
            if let Some(update) = child.remove_outbound() {
                ctx.sad(update);
            }
            ctx.sad(SadUpdate::RemoveInbound(spi));
            ctx.spis.remove(&spi);
            let peer = self.peer_name();
            ctx.events.push_back(Event::ChildSaClosed {
                peer,
                child: Arc::clone(&child.policy.name),
                spi,
                beside: child.resource.number().is_some(),
                by_peer: false,
            });
        }
    }
}

/// SPIs to be deleted. A DELETE payload is of one protocol (RFC 7296 §3.11).
#[derive(Default)]
struct Deletes {
    ah: Vec<Spi>,
    esp: Vec<Spi>,
}

impl Deletes {
    fn name(&mut self, protocol: Protocol, spi: Spi) {
        match protocol {
            Protocol::Ah => self.ah.push(spi),
            Protocol::Esp => self.esp.push(spi),
        }
    }

    fn payloads(&self) -> Vec<Payload> {
        [(Protocol::Ah, &self.ah), (Protocol::Esp, &self.esp)]
            .into_iter()
            .filter(|(_, spis)| !spis.is_empty())
            .map(|(protocol, spis)| {
                let spis = spis.iter().map(|spi| spi.to_be_bytes());
                Payload::Delete(Delete::of(protocol.id(), spis))
            })
            .collect()
    }
}
