//! Rekeying: of the IKE SA (RFC 7296 §1.3.2, §2.18), and who wins when both sides rekey at once (§2.8.1, §2.8.2, §2.25).

use tracing::info;

use super::create_child::{Collision, Refusal, lower};
use super::followup::{Series, Step, What};
use super::{Parts, wanted_group};
use crate::crypto::Secret;
use crate::crypto::dh::{self, KeyPair};
use crate::crypto::secret::wipe_stack;
use crate::ike::child_sa::ChildState;
use crate::ike::event::{CloseReason, Event};
use crate::ike::ike_sa::{Active, Ctx, IkeSa, SaId, Session, State, Task};
use crate::ike::keymat::IkeKeys;
use crate::ike::limits;
use crate::ike::proposal::{self, Made};
use crate::ipsec::Spi;
use crate::ipsec::pad::Peer;
use crate::ipsec::suite::IkeSuite;
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{ExchangeType, KeId, NotifyType};
use crate::wire::ike::payload::{Ke, Nonce, Notify, Payload, Sa};

/// A CREATE_CHILD_SA request of ours for a new IKE SA.
pub(in crate::ike) struct IkeRequest {
    key: KeyPair,
    pub(super) nonce: Vec<u8>,
    spi: IkeSpi,
    groups_tried: Vec<KeId>,
    /// The additional key exchanges, once they have begun.
    pub(super) series: Option<Box<Series>>,
    /// The peer rekeyed meanwhile.
    pub(super) collision: Option<IkeCollision>,
}

/// The other half of a simultaneous rekey: the IKE SA of the peer's exchange, and the lower nonce of that.
pub(in crate::ike) struct IkeCollision {
    /// `None` while additional key exchanges are to come.
    pub(super) id: Option<SaId>,
    pub(super) lowest_nonce: Vec<u8>,
}

impl IkeRequest {
    /// The IKE SA that the peer made meanwhile, taken out of where it waits.
    pub(super) fn winner(&self, ctx: &mut Ctx<'_>) -> Option<IkeSa> {
        self.collision.as_ref()?.id.and_then(|id| ctx.others.remove(&id)).map(|sa| *sa)
    }
}

/// What we agreed to as responder, to be made into an IKE SA at once or after additional key exchanges.
pub(in crate::ike) struct AgreedIke {
    suite: IkeSuite,
    shared: Secret,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    spi_i: IkeSpi,
    spi_r: IkeSpi,
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

    /// Whether both sides are rekeying this CHILD_SA already, or we are amid additional key exchanges for it, which the peer would
    /// have begun by now if it had won (RFC 9370 §2.2.4).
    fn has_collided(&self, spi: Spi) -> bool {
        matches!(&self.active, Some(Active::Child(request))
            if request.replaces == Some(spi)
                && (request.collision.is_some() || request.series.is_some()))
    }

    /// Responder: the peer has replaced `old` by `new`. If we are at it ourselves, that is a collision.
    /// `new` is none while additional key exchanges are to come.
    pub(super) fn note_peer_rekeyed(&mut self, old: Spi, new: Option<Spi>, lowest_nonce: Vec<u8>) {
        if let Some(Active::Child(request)) = &mut self.active
            && request.replaces == Some(old)
        {
            request.collision = Some(Collision { spi: new, lowest_nonce });
            return;
        }
        if let (Some(_), Some(child)) = (new, self.child(old)) {
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
            self.survives(Some(old));
            self.queue(Task::DeleteChildren(vec![new]));
            return;
        }
        if let Some(theirs) =
            collision.and_then(|collision| collision.spi).and_then(|spi| self.child(spi))
        {
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
    pub(super) fn survives(&mut self, old: Option<Spi>) {
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
            Payload::Sa(proposal::ike_offer(&peer.ike.proposals, Some(spi))),
            Payload::Nonce(Nonce { data: nonce.clone() }),
            Payload::Ke(Ke { group, data: key.public().to_vec() }),
        ];
        self.request(ctx, ExchangeType::CREATE_CHILD_SA, &payloads);
        self.active = Some(Active::Ike(Box::new(IkeRequest {
            key,
            nonce,
            spi,
            groups_tried,
            series: None,
            collision: None,
        })));
    }

    /// The answer to CREATE_CHILD_SA, and the shared secrets of what followed it.
    pub(super) fn handle_rekey_ike_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: IkeRequest,
        payloads: &[Payload],
        additional: &[Secret],
    ) {
        let parts = Parts::of(payloads);
        let Some(peer) = self.peer.clone() else { return };
        let (Some(sa), Some(nonce), Some(ke)) = (parts.sa, parts.nonce, parts.ke) else {
            self.rekey_ike_refused(ctx, request, &parts, &peer);
            return;
        };
        let next = self.rekeyed_to(ctx, &request, additional, &peer, sa, nonce, ke);
        let Some(mut next) = next else {
            // The peer has a successor that we cannot use, and has moved everything to it: there is nothing to go on with.
            self.drop_rival(ctx, &request);
            let reason = "it chose what was not offered for the rekeyed IKE_SA";
            self.terminate(ctx, CloseReason::PeerMisbehaved(reason));
            return;
        };
        next.take_token(&parts);
        // Should theirs not be there yet, it will not be.
        self.drop_pending_ike(ctx);
        let lowest = lower(&request.nonce, &nonce.data);
        let theirs = request.winner(ctx).zip(request.collision);
        match theirs {
            // RFC 7296 §2.8.2: ours has the lowest nonce, so we delete it, and the peer's inherits.
            Some((winner, collision)) if *lowest < *collision.lowest_nonce => {
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

    /// The IKE SA that the peer made meanwhile goes, too.
    pub(super) fn drop_rival(&self, ctx: &mut Ctx<'_>, request: &IkeRequest) {
        if let Some(mut rival) = request.winner(ctx) {
            rival.begin_delete_ike(ctx);
            ctx.put(rival);
        }
    }

    /// The IKE SA that the peer's answer describes.
    #[expect(clippy::too_many_arguments, reason = "the parts of an answer")]
    fn rekeyed_to(
        &self,
        ctx: &mut Ctx<'_>,
        request: &IkeRequest,
        additional: &[Secret],
        peer: &Peer,
        sa: &Sa,
        nonce: &Nonce,
        ke: &Ke,
    ) -> Option<Self> {
        let IkeRequest { key, nonce: nonce_i, spi, .. } = request;
        let chosen = proposal::accept_ike(&peer.ike.proposals, sa, Made::Rekeyed)
            .filter(|chosen| chosen.suite.ke == key.group() && ke.group == key.group())
            .filter(|chosen| chosen.addke.methods().count() == additional.len())?;
        let agreed = AgreedIke {
            suite: chosen.suite,
            shared: key.agree(&ke.data).ok()?,
            nonce_i: nonce_i.clone(),
            nonce_r: nonce.data.clone(),
            spi_i: *spi,
            spi_r: ike_spi(&chosen.peer_spi)?,
        };
        self.next_ike_sa(ctx, &agreed, additional, true)
    }

    /// The answer came when this IKE SA was to be deleted: the peer has moved everything to the new one, so that goes,
    /// too, and likewise the peer's own if it was rekeying at the same time.
    pub(in crate::ike) fn delete_rekeyed(
        &self,
        ctx: &mut Ctx<'_>,
        mut request: IkeRequest,
        payloads: &[Payload],
    ) {
        let mut series = request.series.take();
        // With additional key exchanges, there is something after the last of them alone.
        let (payloads, additional) = match &mut series {
            None => (payloads, &[][..]),
            Some(series) => match series.take(ctx, &Parts::of(payloads)) {
                Step::Done => (&series.response[..], &series.secrets[..]),
                Step::Next(_) | Step::Failed(_) => (&[][..], &[][..]),
            },
        };
        let parts = Parts::of(payloads);
        let made = match (&self.peer, parts.sa, parts.nonce, parts.ke) {
            (Some(peer), Some(sa), Some(nonce), Some(ke)) => {
                self.rekeyed_to(ctx, &request, additional, peer, sa, nonce, ke)
            }
            _ => None,
        };
        let rival = request.winner(ctx);
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
        if let Some(winner) = request.winner(ctx) {
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
                self.rekey_refused(ctx, error.notify_type);
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
            Some(error) if error.notify_type != NotifyType::TEMPORARY_FAILURE => {
                self.rekey_refused(ctx, error.notify_type);
            }
            _ => self.queue_later(ctx, Task::RekeyIke),
        }
    }

    /// The peer does not rekey the IKE SA. It is tried again before that ends.
    fn rekey_refused(&mut self, ctx: &mut Ctx<'_>, notify: NotifyType) {
        let reason = match notify {
            NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => {
                CloseReason::NoProposal("IKE_SA")
            }
            other => CloseReason::PeerNotify(other),
        };
        info!(peer = %self.peer_name(), %reason, "IKE_SA not rekeyed");
        let (peer, child) = (self.peer_name(), None);
        ctx.events.push_back(Event::RekeyRefused { peer, child, reason });
        self.queue_later(ctx, Task::RekeyIke);
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
        // One collision is an accident, two are not; and who is amid additional key exchanges has won (RFC 9370 §2.2.4).
        let busy = |request: &IkeRequest| request.collision.is_some() || request.series.is_some();
        if matches!(&self.active, Some(Active::Ike(request)) if busy(request)) {
            return Err(Refusal::new(NotifyType::TEMPORARY_FAILURE));
        }
        let peer = self.peer.clone().ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let (Some(sa), Some(nonce)) = (parts.sa, parts.nonce) else {
            return Err(Refusal::new(NotifyType::INVALID_SYNTAX));
        };
        let chosen = proposal::choose_ike(
            &peer.ike.proposals,
            sa,
            Made::Rekeyed,
            parts.ke.map(|ke| ke.group),
        )
        .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let group = chosen.suite.ke;
        let ke =
            parts.ke.filter(|ke| ke.group == group).ok_or_else(|| Refusal::invalid_ke(group))?;
        let spi_i = ike_spi(&chosen.peer_spi).ok_or(Refusal::new(NotifyType::INVALID_SYNTAX))?;
        if !self.may_work(ctx.now, group) {
            return Err(Refusal::new(NotifyType::TEMPORARY_FAILURE));
        }
        let dh::Response { public, shared } = dh::respond(group, &ke.data, ctx.rng)
            .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?
            .map_err(|_| Refusal::new(NotifyType::INVALID_SYNTAX))?;
        let nonce_r = ctx.random_bytes(limits::NONCE_LEN);
        let spi_r = ctx.fresh_ike_spi();
        let mut answer = vec![
            Payload::Sa(proposal::answer_ike(&chosen, Some(spi_r))),
            Payload::Nonce(Nonce { data: nonce_r.clone() }),
            Payload::Ke(Ke { group, data: public }),
        ];
        let nonce_i = nonce.data.clone();
        let agreed = AgreedIke { suite: chosen.suite, shared, nonce_i, nonce_r, spi_i, spi_r };
        // Whoever begins once more has given up what it began before.
        self.drop_pending_ike(ctx);
        if chosen.addke.is_none() {
            self.make_pending_ike(ctx, agreed, &[])
                .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
            return Ok(answer);
        }
        if let Some(Active::Ike(request)) = &mut self.active {
            let lowest_nonce = lower(&agreed.nonce_i, &agreed.nonce_r).to_vec();
            request.collision = Some(IkeCollision { id: None, lowest_nonce });
        }
        answer.push(self.note_pending(ctx, chosen.addke, What::Ike(Box::new(agreed))));
        Ok(answer)
    }

    /// Responder: the IKE SA that was agreed on takes the place of this one, unless we are rekeying, too.
    pub(super) fn make_pending_ike(
        &mut self,
        ctx: &mut Ctx<'_>,
        agreed: AgreedIke,
        additional: &[Secret],
    ) -> Option<()> {
        let next = self.next_ike_sa(ctx, &agreed, additional, false)?;
        if let Some(Active::Ike(request)) = &mut self.active {
            // Who wins is known when our own answer comes.
            let lowest_nonce = lower(&agreed.nonce_i, &agreed.nonce_r).to_vec();
            request.collision = Some(IkeCollision { id: Some(next.id), lowest_nonce });
            ctx.put(next);
        } else {
            self.hand_over(ctx, next);
        }
        Some(())
    }

    /// Everything that this IKE SA has goes to the one that replaces it (RFC 7296 §2.8).
    pub(in crate::ike) fn hand_over(&mut self, ctx: &mut Ctx<'_>, mut next: Self) {
        self.drop_pending(ctx);
        next.children = core::mem::take(&mut self.children);
        for child in &next.children {
            ctx.spis.insert(child.spi_inbound, next.id);
        }
        next.tasks = core::mem::take(&mut self.tasks);
        next.wanted = core::mem::take(&mut self.wanted);
        next.tasks.retain(|waiting| !matches!(waiting.task, Task::RekeyIke | Task::Liveness));
        self.hand_over_configuration(&mut next);
        next.path = self.path;
        next.heard_on = self.heard_on;
        (next.nat, next.encap) = (self.nat, self.encap);
        next.mobike = self.mobike.take();
        next.last_heard = self.last_heard;
        self.state = State::Replaced;
        self.expire_at = Some(ctx.now + limits::REPLACED_TIME);
        self.active = None;
        next.resume_mobike();
        next.establish(ctx, Some((self.spi_i, self.spi_r)));
        if ctx.qcd_secret.is_some() {
            // RFC 6290 §4.3: the new SPIs have another token.
            next.queue(Task::Token);
        }
        next.next_task(ctx);
        ctx.put(next);
    }

    /// The IKE SA of a rekey by the peer that collided with ours, if the peer ends this one first.
    pub(in crate::ike) fn take_collided(&mut self, ctx: &mut Ctx<'_>) -> Option<Self> {
        match self.active.take() {
            Some(Active::Ike(request)) => request.winner(ctx),
            other => {
                self.active = other;
                None
            }
        }
    }

    /// The IKE SA that was agreed on, `additional` being the shared secrets of the key exchanges that followed.
    fn next_ike_sa(
        &self,
        ctx: &mut Ctx<'_>,
        agreed: &AgreedIke,
        additional: &[Secret],
        initiator: bool,
    ) -> Option<Self> {
        let AgreedIke { suite, shared, nonce_i, nonce_r, spi_i, spi_r } = agreed;
        let (suite, spi_i, spi_r) = (*suite, *spi_i, *spi_r);
        let old = self.session.as_ref()?;
        let keys = IkeKeys::derive_rekeyed(
            suite,
            old.suite.prf,
            &old.sk_d,
            shared,
            additional,
            nonce_i,
            nonce_r,
            spi_i,
            spi_r,
        )?;
        let session = Session::new(suite, &keys, initiator)?;
        ctx.export(spi_i, spi_r, suite, &keys);
        let successor = self.successor(ctx, initiator, spi_i, spi_r, session);
        wipe_stack();
        Some(successor)
    }
}

fn ike_spi(bytes: &[u8]) -> Option<IkeSpi> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes).filter(|spi| *spi != 0).map(IkeSpi)
}
