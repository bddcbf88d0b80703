//! Rekeying: of the IKE SA (RFC 7296 §1.3.2, §2.18), and who wins when both sides rekey at once (§2.8.1, §2.8.2, §2.25).

use super::create_child::{Collision, Refusal, lower};
use super::{Parts, wanted_group};
use crate::crypto::dh::{self, KeyPair};
use crate::ike::child_sa::ChildState;
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Active, Ctx, IkeSa, SaId, Session, State, Task};
use crate::ike::keymat::IkeKeys;
use crate::ike::limits;
use crate::ike::proposal::{self, Made};
use crate::ipsec::Spi;
use crate::ipsec::pad::Peer;
use crate::ipsec::suite::{IkeProposal, IkeSuite};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{ExchangeType, KeId, NotifyType};
use crate::wire::ike::payload::{Ke, Nonce, Notify, Payload, Sa};

/// A CREATE_CHILD_SA request of ours for a new IKE SA.
pub(in crate::ike) struct IkeRequest {
    key: KeyPair,
    nonce: Vec<u8>,
    spi: IkeSpi,
    groups_tried: Vec<KeId>,
    /// The peer rekeyed meanwhile: the IKE SA of its exchange, and the lower nonce of that.
    collision: Option<(SaId, Vec<u8>)>,
}

impl IkeSa {
    // CHILD_SAs.

    /// Responder: the CHILD_SA that the peer wants to replace; the notify has the SPI that it receives on.
    pub(super) fn rekeyed_child(&self, rekey: &Notify) -> Result<Spi, Refusal> {
        let child = self.children.iter().find(|child| {
            rekey.protocol == child.suite.protocol().id()
                && rekey.spi == child.spi_outbound.to_be_bytes()
        });
        match child.map(|child| (child.state, child.spi_inbound)) {
            Some((ChildState::Installed, spi)) if self.has_collided(spi) => {
                Err(Refusal::new(NotifyType::TEMPORARY_FAILURE))
            }
            Some((ChildState::Installed, spi)) => Ok(spi),
            // RFC 7296 §2.25.1: we are closing it.
            Some((ChildState::Replaced | ChildState::Deleting, _)) => {
                Err(Refusal::new(NotifyType::TEMPORARY_FAILURE))
            }
            // It may be the one that the answer to our own request, still under way, tells of.
            None if matches!(self.active, Some(Active::Child(_))) => {
                Err(Refusal::new(NotifyType::TEMPORARY_FAILURE))
            }
            Some((ChildState::Lingering(_), _)) | None => Err(Refusal::child_not_found(rekey)),
        }
    }

    /// Whether both sides are rekeying this CHILD_SA already.
    fn has_collided(&self, spi: Spi) -> bool {
        matches!(&self.active, Some(Active::Child(request)) if request.replaces == Some(spi) && request.collision.is_some())
    }

    /// Responder: the peer has replaced `old` by `new`. If we are at it ourselves, that is a collision.
    pub(super) fn note_peer_rekeyed(&mut self, old: Spi, new: Spi, lowest_nonce: Vec<u8>) {
        if let Some(Active::Child(request)) = &mut self.active
            && request.replaces == Some(old)
        {
            request.collision = Some(Collision { spi: new, lowest_nonce });
            return;
        }
        if let Some(child) = self.child(old) {
            child.state = ChildState::Replaced;
        }
    }

    /// Initiator: `new` is there in place of `replaces`. RFC 7296 §2.8.1: of two rekeys at once, the SA of the exchange with
    /// the lowest nonce is redundant, and whoever made it deletes it; the other deletes the old one.
    pub(super) fn conclude_rekey_child(
        &mut self,
        ctx: &mut Ctx<'_>,
        replaces: Option<Spi>,
        new: Spi,
        collision: Option<Collision>,
        loses: bool,
    ) {
        let Some(old) = replaces else { return };
        if loses {
            self.survives(ctx, Some(old), collision.map_or(new, |collision| collision.spi));
            self.queue(Task::DeleteChildren(vec![new]));
            return;
        }
        if let Some(theirs) = collision.and_then(|collision| self.child(collision.spi)) {
            theirs.unconfirmed = None;
            if theirs.state == ChildState::Installed {
                theirs.state = ChildState::Replaced;
            }
        }
        let update = self.child(old).and_then(|child| {
            if child.state == ChildState::Installed {
                child.state = ChildState::Replaced;
            }
            child.remove_outbound()
        });
        if let Some(update) = update {
            ctx.sad(update);
        }
        self.queue(Task::DeleteChildren(vec![old]));
    }

    /// The peer's replacement of `old` is the one that stays; the peer deletes the old one.
    pub(super) fn survives(&mut self, _ctx: &mut Ctx<'_>, old: Option<Spi>, _theirs: Spi) {
        if let Some(child) = old.and_then(|old| self.child(old))
            && child.state == ChildState::Installed
        {
            child.state = ChildState::Replaced;
        }
    }

    // The IKE SA, as initiator.

    pub(in crate::ike) fn begin_rekey_ike(&mut self, ctx: &mut Ctx<'_>) {
        if !self.is_established() {
            return;
        }
        let Some(peer) = self.peer.clone() else { return };
        // The group in use is the one that the peer is known to take.
        let group = self.session.as_ref().map(|session| session.suite.ke);
        if let Some(group) = group {
            self.send_rekey_ike(ctx, &peer, group, vec![group]);
        }
    }

    fn send_rekey_ike(
        &mut self,
        ctx: &mut Ctx<'_>,
        peer: &Peer,
        group: KeId,
        groups_tried: Vec<KeId>,
    ) {
        let Some(key) = KeyPair::generate(group, ctx.rng) else { return };
        let nonce = ctx.random_bytes(limits::NONCE_LEN);
        let spi = ctx.fresh_ike_spi();
        let payloads = [
            Payload::Sa(proposal::ike_offer(&without_additional(peer), Some(spi))),
            Payload::Nonce(Nonce { data: nonce.clone() }),
            Payload::Ke(Ke { group, data: key.public().to_vec() }),
        ];
        self.request(ctx, ExchangeType::CREATE_CHILD_SA, &payloads);
        self.active = Some(Active::Ike(Box::new(IkeRequest {
            key,
            nonce,
            spi,
            groups_tried,
            collision: None,
        })));
    }

    pub(in crate::ike) fn handle_rekey_ike_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: IkeRequest,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        let Some(peer) = self.peer.clone() else { return };
        let (Some(sa), Some(nonce), Some(ke)) = (parts.sa, parts.nonce, parts.ke) else {
            self.rekey_ike_refused(ctx, request, &parts, &peer);
            return;
        };
        let next = self.rekeyed_to(ctx, &request, &peer, sa, nonce, ke);
        let IkeRequest { nonce: nonce_i, collision, .. } = request;
        let Some(mut next) = next else {
            // The peer has a successor that we cannot use, and has moved everything to it: there is nothing to go on with.
            if let Some(mut rival) = collision.and_then(|(id, _)| ctx.others.remove(&id)) {
                rival.begin_delete_ike(ctx);
                ctx.put(rival);
            }
            let reason = "it chose what was not offered for the rekeyed IKE_SA";
            self.terminate(ctx, CloseReason::PeerMisbehaved(reason));
            return;
        };
        let lowest = lower(&nonce_i, &nonce.data);
        let theirs =
            collision.and_then(|(id, theirs)| ctx.others.remove(&id).map(|sa| (sa, theirs)));
        match theirs {
            // RFC 7296 §2.8.2: ours has the lowest nonce, so we delete it, and the peer's inherits.
            Some((winner, their_lowest)) if lowest < their_lowest.as_slice() => {
                self.hand_over(ctx, winner);
                next.begin_delete_ike(ctx);
                ctx.put(next);
            }
            theirs => {
                if let Some((mut loser, _)) = theirs {
                    loser.state = State::Replaced;
                    loser.expire_at = Some(ctx.now + limits::HALF_OPEN_TIME);
                    ctx.put(loser);
                }
                self.hand_over(ctx, next);
                // RFC 7296 §2.8: the last request on the old IKE SA deletes it.
                self.begin_delete_ike(ctx);
            }
        }
    }

    /// The IKE SA that the peer's answer describes.
    fn rekeyed_to(
        &self,
        ctx: &mut Ctx<'_>,
        request: &IkeRequest,
        peer: &Peer,
        sa: &Sa,
        nonce: &Nonce,
        ke: &Ke,
    ) -> Option<Self> {
        let IkeRequest { key, nonce: nonce_i, spi, .. } = request;
        let chosen = proposal::accept_ike(&without_additional(peer), sa, Made::Rekeyed)
            .filter(|chosen| chosen.suite.ke == key.group() && ke.group == key.group())?;
        let spi_r = ike_spi(&chosen.peer_spi)?;
        let shared = key.agree(&ke.data).ok()?;
        let session =
            self.next_session(ctx, chosen.suite, &shared, nonce_i, &nonce.data, *spi, spi_r, true)?;
        Some(self.successor(ctx, true, *spi, spi_r, session))
    }

    /// The answer came when this IKE SA was to be deleted: the peer has moved everything to the new one, so that goes,
    /// too, and likewise the peer's own if it was rekeying at the same time.
    pub(in crate::ike) fn delete_rekeyed(
        &self,
        ctx: &mut Ctx<'_>,
        request: IkeRequest,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        let made = match (&self.peer, parts.sa, parts.nonce, parts.ke) {
            (Some(peer), Some(sa), Some(nonce), Some(ke)) => {
                self.rekeyed_to(ctx, &request, peer, sa, nonce, ke)
            }
            _ => None,
        };
        let rival = request.collision.and_then(|(id, _)| ctx.others.remove(&id));
        for mut next in made.into_iter().chain(rival) {
            next.begin_delete_ike(ctx);
            ctx.put(next);
        }
    }

    fn rekey_ike_refused(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: IkeRequest,
        parts: &Parts<'_>,
        peer: &Peer,
    ) {
        if let Some(winner) = request.collision.and_then(|(id, _)| ctx.others.remove(&id)) {
            self.hand_over(ctx, winner);
            return;
        }
        match parts.error() {
            Some(error) if error.notify_type == NotifyType::INVALID_KE_PAYLOAD => {
                let group = wanted_group(error)
                    .filter(|group| {
                        peer.ike.proposals.iter().any(|proposal| proposal.ke.contains(group))
                    })
                    .filter(|group| !request.groups_tried.contains(group));
                if let Some(group) = group {
                    let mut tried = request.groups_tried;
                    tried.push(group);
                    self.send_rekey_ike(ctx, peer, group, tried);
                    return;
                }
                self.queue_later(ctx, Task::RekeyIke);
            }
            Some(error) if error.notify_type == NotifyType::NO_ADDITIONAL_SAS => {
                // RFC 7296 §4: what cannot be rekeyed is deleted, and made anew.
                self.terminate(ctx, CloseReason::PeerNotify(error.notify_type));
            }
            Some(error)
                if error.notify_type == NotifyType::TEMPORARY_FAILURE
                    && self.is_put_off_for_good(ctx.now) =>
            {
                self.terminate(ctx, CloseReason::PeerNotify(error.notify_type));
            }
            _ => self.queue_later(ctx, Task::RekeyIke),
        }
    }

    // The IKE SA, as responder.

    pub(super) fn answer_rekey_ike(
        &mut self,
        ctx: &mut Ctx<'_>,
        parts: &Parts<'_>,
    ) -> Result<Vec<Payload>, Refusal> {
        // RFC 7296 §2.25.2: not while a CHILD_SA is being made, rekeyed or closed by us, nor the IKE SA closed.
        if !self.is_established()
            || matches!(
                self.active,
                Some(Active::Child(_) | Active::DeleteChildren(_) | Active::DeleteIke)
            )
        {
            return Err(Refusal::new(NotifyType::TEMPORARY_FAILURE));
        }
        // One collision is an accident, two are not.
        if matches!(&self.active, Some(Active::Ike(request)) if request.collision.is_some()) {
            return Err(Refusal::new(NotifyType::TEMPORARY_FAILURE));
        }
        let peer = self.peer.clone().ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let (Some(sa), Some(nonce)) = (parts.sa, parts.nonce) else {
            return Err(Refusal::new(NotifyType::INVALID_SYNTAX));
        };
        let chosen = proposal::choose_ike(
            &without_additional(&peer),
            sa,
            Made::Rekeyed,
            parts.ke.map(|ke| ke.group),
        )
        .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let group = chosen.suite.ke;
        let ke =
            parts.ke.filter(|ke| ke.group == group).ok_or_else(|| Refusal::invalid_ke(group))?;
        let spi_i = ike_spi(&chosen.peer_spi).ok_or(Refusal::new(NotifyType::INVALID_SYNTAX))?;
        let dh::Response { public, shared } = dh::respond(group, &ke.data, ctx.rng)
            .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?
            .map_err(|_| Refusal::new(NotifyType::INVALID_SYNTAX))?;
        let nonce_r = ctx.random_bytes(limits::NONCE_LEN);
        let spi_r = ctx.fresh_ike_spi();
        let session = self
            .next_session(ctx, chosen.suite, &shared, &nonce.data, &nonce_r, spi_i, spi_r, false)
            .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let next = self.successor(ctx, false, spi_i, spi_r, session);
        let answer = vec![
            Payload::Sa(proposal::answer_ike(&chosen, Some(spi_r))),
            Payload::Nonce(Nonce { data: nonce_r.clone() }),
            Payload::Ke(Ke { group, data: public }),
        ];
        if let Some(Active::Ike(request)) = &mut self.active {
            // Who wins is known when our own answer comes.
            request.collision = Some((next.id, lower(&nonce.data, &nonce_r).to_vec()));
            ctx.put(next);
        } else {
            self.hand_over(ctx, next);
        }
        Ok(answer)
    }

    /// Everything that this IKE SA has goes to the one that replaces it (RFC 7296 §2.8).
    pub(in crate::ike) fn hand_over(&mut self, ctx: &mut Ctx<'_>, mut next: Self) {
        next.children = core::mem::take(&mut self.children);
        for child in &next.children {
            ctx.spis.insert(child.spi_inbound, next.id);
        }
        next.tasks = core::mem::take(&mut self.tasks);
        next.wanted = core::mem::take(&mut self.wanted);
        next.tasks.retain(|waiting| !matches!(waiting.task, Task::RekeyIke | Task::Liveness));
        next.path = self.path;
        next.last_heard = self.last_heard;
        self.state = State::Replaced;
        self.expire_at = Some(ctx.now + limits::REPLACED_TIME);
        self.active = None;
        next.establish(ctx, Some((self.spi_i, self.spi_r)));
        next.next_task(ctx);
        ctx.put(next);
    }

    /// The IKE SA of a rekey by the peer that collided with ours, if the peer ends this one first.
    pub(in crate::ike) fn take_collided(&mut self, ctx: &mut Ctx<'_>) -> Option<Self> {
        match self.active.take() {
            Some(Active::Ike(request)) => {
                request.collision.and_then(|(id, _)| ctx.others.remove(&id))
            }
            other => {
                self.active = other;
                None
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the inputs that RFC 7296 §2.18 names")]
    fn next_session(
        &self,
        ctx: &mut Ctx<'_>,
        suite: IkeSuite,
        shared: &crate::crypto::Secret,
        nonce_i: &[u8],
        nonce_r: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        initiator: bool,
    ) -> Option<Session> {
        let old = self.session.as_ref()?;
        let keys = IkeKeys::derive_rekeyed(
            suite,
            old.suite.prf,
            &old.sk_d,
            shared,
            &[],
            nonce_i,
            nonce_r,
            spi_i,
            spi_r,
        )?;
        let session = Session::new(suite, &keys, initiator)?;
        ctx.export(spi_i, spi_r, suite, &keys);
        Some(session)
    }
}

/// A new IKE SA is as safe as the old one: its keys come from SK_d, too.
fn without_additional(peer: &Peer) -> Vec<IkeProposal> {
    let mut proposals = peer.ike.proposals.clone();
    for proposal in &mut proposals {
        proposal.addke = Default::default();
    }
    proposals
}

fn ike_spi(bytes: &[u8]) -> Option<IkeSpi> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes).filter(|spi| *spi != 0).map(IkeSpi)
}
