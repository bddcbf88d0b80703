//! Several IKE SAs with one peer: reauthentication, make-before-break (RFC 7296 §2.8.3, RFC 4478), INITIAL_CONTACT (RFC 7296 §2.4),
//! what [`Unique`] says, and both ends having begun at once.
//!
//! Reauthentication is a new IKE SA with new CHILD_SAs, begun while the old ones are in use, and for the peer nothing else. Whoever
//! began it deletes the old ones once the new ones are in use at both ends.

use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info};

use super::{Parts, notify};
use crate::ike::child_sa::{ChildState, earlier};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Ctx, IkeSa, SaId, State, Task, Waiting};
use crate::ike::limits;
use crate::ipsec::pad::{Peer, PeerAddress, PeerAuth, Unique};
use crate::wire::ike::numbers::NotifyType;
use crate::wire::ike::payload::Payload;

/// When both sides authenticated each other, and when they are to do it again. A rekey changes nothing of it.
#[derive(Clone, Debug)]
pub(in crate::ike) struct Authentication {
    /// When the IKE SA that was authenticated began.
    began: Instant,
    /// When it was authenticated.
    done: Option<Instant>,
    /// When another is begun in its place.
    pub(in crate::ike) again_at: Option<Instant>,
    /// When it is worth nothing any more.
    pub(in crate::ike) expire_at: Option<Instant>,
}

/// What a reauthentication is to have from the start: the CHILD_SAs that there are.
#[derive(Clone, Debug, Default)]
pub(in crate::ike) struct Reauth {
    /// The names of their policies.
    pub(super) children: Vec<Arc<str>>,
}

impl Authentication {
    pub(in crate::ike) const fn begun(now: Instant) -> Self {
        Self { began: now, done: None, again_at: None, expire_at: None }
    }

    /// Whether `other` was there already when this began, so that the two did not cross.
    fn is_after(&self, other: &Self) -> bool {
        other.done.is_some_and(|done| done < self.began)
    }
}

impl IkeSa {
    // Reauthentication.

    /// Both sides are authenticated: notes when that is over.
    pub(super) fn note_authentication(&mut self, ctx: &mut Ctx<'_>, peer: &Peer) {
        self.authentication.done = Some(ctx.now);
        let Some(time) = peer.ike.reauth_time else { return };
        let over = peer.ike.over_time;
        let jitter = ctx.random_u32();
        self.authentication.expire_at = Some(ctx.now + time + over);
        self.authentication.again_at = if self.initiator {
            Some(ctx.now + earlier(time, jitter))
        } else {
            // AUTH_LIFETIME has told the initiator, which may know nothing of that.
            can_begin(peer).then(|| ctx.now + time + over / 2)
        };
    }

    /// Responder: how long the initiator's authentication is good (RFC 4478 §3), if there is an end.
    pub(super) fn auth_lifetime(peer: &Peer) -> Option<Payload> {
        let time = peer.ike.reauth_time?;
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Some(notify(NotifyType::AUTH_LIFETIME, &seconds.to_be_bytes()))
    }

    /// Original initiator: the responder wants it to authenticate again in so many seconds (RFC 4478 §3).
    pub(super) fn heed_auth_lifetime(&mut self, ctx: &mut Ctx<'_>, parts: &Parts<'_>) {
        let Some(lifetime) = parts.notify(NotifyType::AUTH_LIFETIME) else { return };
        let Ok(seconds) = <[u8; 4]>::try_from(lifetime.data.as_slice()) else { return };
        if !self.initiator {
            return;
        }
        let lifetime = core::time::Duration::from_secs(u32::from_be_bytes(seconds).into());
        let time = lifetime.max(limits::MIN_AUTH_LIFETIME);
        debug!(peer = %self.peer_name(), ?lifetime, "the peer wants to be authenticated again");
        // A tenth early, that it may take its time.
        let at = ctx.now + earlier(time - time / 10, ctx.random_u32());
        let sooner = self.authentication.again_at.is_none_or(|planned| at < planned);
        if sooner {
            self.authentication.again_at = Some(at);
        }
    }

    /// Begins another IKE SA with the same peer, that has what this one has. If it comes to nothing it is tried again.
    pub(in crate::ike) fn begin_reauth(&mut self, ctx: &mut Ctx<'_>) {
        self.authentication.again_at = None;
        let Some(peer) = self.peer.clone() else { return };
        self.authentication.again_at = Some(ctx.now + limits::REAUTH_RETRY);
        let connecting = ctx.others.attempts_with(&peer.name).next().is_some();
        if ctx.others.len() >= limits::MAX_IKE_SAS || connecting {
            return;
        }
        let mut children: Vec<Arc<str>> = Vec::new();
        for child in &self.children {
            let name = &child.policy.name;
            if child.state == ChildState::Installed && !children.contains(name) {
                children.push(Arc::clone(name));
            }
        }
        info!(peer = %peer.name, spi_i = %self.spi_i, spi_r = %self.spi_r, "reauthentication begins");
        if let Some(mut next) = Self::initiate(ctx, peer, self.path, None) {
            next.reauth = Some(Reauth { children });
            ctx.put(next);
        }
    }

    /// The new IKE SA is authenticated: its CHILD_SAs are made, then the old one is deleted.
    pub(super) fn go_on_with_reauth(&mut self) {
        let Some(Reauth { children }) = self.reauth.clone() else { return };
        for name in children {
            if !self.has_child(&name) {
                self.queue(Task::CreateChild(name));
            }
        }
        // RFC 7296 §2.8: the peer sends with the new ones when it knows that we have them.
        self.queue(Task::Liveness);
        self.queue(Task::Supersede);
    }

    /// What this IKE SA stands in place of is deleted, after the packets that are under way.
    pub(in crate::ike) fn supersede(&mut self, ctx: &mut Ctx<'_>) {
        self.reauth = None;
        let ids: Vec<SaId> = ctx
            .others
            .beside(self)
            .into_iter()
            .filter(|other| other.is_established() && !other.is_candidate())
            .filter(|other| self.is_twin_of(other))
            .filter(|other| self.authentication.is_after(&other.authentication))
            .map(|other| other.id)
            .collect();
        for id in ids {
            if let Some(other) = ctx.others.get_mut(&id) {
                other.authentication.again_at = None;
                other.delete_later(ctx.now + limits::REAUTH_OVERLAP);
                ctx.touched.push(id);
            }
        }
    }

    /// It is deleted then, if there is another by that time.
    fn delete_later(&mut self, at: Instant) {
        let planned = self.tasks.iter_mut().find(|waiting| waiting.task == Task::DeleteIke);
        match planned {
            Some(waiting) => waiting.not_before = waiting.not_before.map(|before| before.min(at)),
            None => {
                self.tasks.push_back(Waiting { task: Task::DeleteIke, not_before: Some(at) });
            }
        }
    }

    // Who is who.

    /// Whether the two are with the same peer. Where anybody may come, under a name of its own.
    fn is_twin_of(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (&self.peer, &other.peer) else { return false };
        ours.name == theirs.name
            && (ours.address != PeerAddress::Any || self.is_of_same_identity(other))
    }

    fn is_of_same_identity(&self, other: &Self) -> bool {
        other.peer_identity == self.peer_identity
            // Whoever comes by EAP may say to be anybody in IDi.
            && other.eap_identity == self.eap_identity
            && self.peer.as_ref().map(|peer| &peer.local_id)
                == other.peer.as_ref().map(|peer| &peer.local_id)
    }

    /// Whether there is another established IKE SA with the same peer.
    pub(in crate::ike) fn has_twin(&self, ctx: &Ctx<'_>) -> bool {
        let twin = |other: &Self| {
            other.is_established() && !other.is_candidate() && self.is_twin_of(other)
        };
        ctx.others.beside(self).into_iter().any(twin)
    }

    // INITIAL_CONTACT and uniqueness.

    /// Initiator: whether we have no other IKE SA with the peer, and say so.
    pub(super) fn is_initial_contact(&self, ctx: &Ctx<'_>, peer: &Peer) -> bool {
        peer.ike.unique != Unique::Never
            && !ctx.others.of_peer(&peer.name).any(Self::is_established)
    }

    /// Responder: whether a peer that is authenticated may have another IKE SA (see [`Unique`]); that which it may not have with
    /// it goes.
    pub(super) fn may_have_another(
        &self,
        ctx: &mut Ctx<'_>,
        peer: &Peer,
        parts: &Parts<'_>,
    ) -> bool {
        if peer.ike.unique != Unique::Never && parts.notify(NotifyType::INITIAL_CONTACT).is_some() {
            self.forget_older(ctx);
        }
        let mine: Vec<SaId> = ctx
            .others
            .with_identity(self.peer_identity.as_ref())
            .into_iter()
            .filter(|other| other.is_established() && self.is_of_same_identity(other))
            .filter(|other| self.authentication.is_after(&other.authentication))
            .map(|other| other.id)
            .collect();
        match peer.ike.unique {
            Unique::No | Unique::Never => {}
            Unique::Replace => self.replace(ctx, &mine),
            Unique::Keep => {
                let elsewhere = mine.iter().copied().find(|id| {
                    ctx.others
                        .get(id)
                        .is_some_and(|other| other.path.remote.ip() != self.path.remote.ip())
                });
                if let Some(id) = elsewhere {
                    // Should it be dead, the next attempt finds it gone.
                    self.ask_other(ctx, id);
                    return false;
                }
                self.replace(ctx, &mine);
            }
        }
        self.make_room_among_own(ctx, peer);
        true
    }

    fn replace(&self, ctx: &mut Ctx<'_>, ids: &[SaId]) {
        for id in ids {
            if let Some(other) = ctx.others.get_mut(id) {
                other.delete_later(ctx.now + limits::REAUTH_OVERLAP);
                ctx.touched.push(*id);
            }
        }
    }

    fn ask_other(&self, ctx: &mut Ctx<'_>, id: SaId) {
        if let Some(mut other) = ctx.others.remove(&id) {
            other.follow_hint(ctx);
            ctx.put(other);
        }
    }

    /// One peer does not take the place of all others: of too many IKE SAs its oldest goes.
    fn make_room_among_own(&self, ctx: &mut Ctx<'_>, peer: &Peer) {
        let most = match peer.ike.unique {
            Unique::Never => limits::MAX_IKE_SAS_OF_MANY,
            Unique::No | Unique::Replace | Unique::Keep => limits::MAX_IKE_SAS_OF_PEER,
        };
        loop {
            let own = ctx.others.beside(self).into_iter().filter(|other| {
                other.is_established() && !other.is_candidate() && self.is_of_same_identity(other)
            });
            let ids: Vec<_> = own.map(|other| (other.established, other.id)).collect();
            let Some((_, oldest)) = ids.iter().min().filter(|_| ids.len() >= most) else { return };
            let Some(mut other) = ctx.others.remove(oldest) else { return };
            other.terminate(ctx, CloseReason::Limit("IKE_SAs of one peer"));
            ctx.put(other);
        }
    }

    /// RFC 7296 §2.4: INITIAL_CONTACT says that the peer has no other IKE SA with us, so those from before are dead. One that was
    /// established while this one was being made has crossed it, and lives.
    fn forget_older(&self, ctx: &mut Ctx<'_>) {
        let old: Vec<_> = ctx
            .others
            .with_identity(self.peer_identity.as_ref())
            .into_iter()
            .filter(|other| {
                self.is_of_same_identity(other)
                    && other.established.is_some_and(|at| at < self.created)
                    // A DELETE under way goes on: should the peer have that one all the same, it has to learn of it.
                    && !matches!(other.state, State::Deleting)
            })
            .map(|other| other.id)
            .collect();
        for id in old {
            if let Some(mut other) = ctx.others.remove(&id) {
                other.close(ctx, CloseReason::Replaced);
                ctx.put(other);
            }
        }
    }

    /// The peer knows by our INITIAL_CONTACT that there is no other IKE SA, and forgets those that it was still about to delete.
    pub(super) fn forget_replaced(&self, ctx: &mut Ctx<'_>) {
        let name = self.peer_name();
        let waiting = |other: &&Self| matches!(other.state, State::Replaced);
        let ids: Vec<_> = ctx.others.of_peer(&name).filter(waiting).map(|other| other.id).collect();
        for id in ids {
            if let Some(mut other) = ctx.others.remove(&id) {
                other.close(ctx, CloseReason::Replaced);
                ctx.put(other);
            }
        }
    }

    /// There are two IKE SAs with one peer. Either both ends began at once: then the one with the lower initiator's SPI is deleted by
    /// its initiator (who may be the same of both by now, for a rekey changes it). Or the peer has authenticated anew, and deletes
    /// the older one itself; should it not, we do.
    pub(super) fn resolve_crossing(&mut self, ctx: &mut Ctx<'_>) {
        let Some(peer) = self.peer.clone() else { return };
        if peer.ike.unique == Unique::Never {
            return;
        }
        let other = ctx
            .others
            .beside(self)
            .into_iter()
            .find(|other| other.is_established() && !other.is_candidate());
        let id = other.map(|other| other.id);
        let Some(other) = id.and_then(|id| ctx.others.get_mut(&id)) else { return };
        let older = if self.authentication.is_after(&other.authentication) {
            Some(true)
        } else if other.authentication.is_after(&self.authentication) {
            Some(false)
        } else {
            None
        };
        ctx.touched.push(other.id);
        let is_reauth = self.reauth.is_some() || other.reauth.is_some();
        match older {
            // Whoever began it goes on with it.
            Some(_) if is_reauth => {}
            // Others of this name may come from elsewhere.
            Some(_) if peer.address == PeerAddress::Any => {}
            Some(other_is_older) => {
                let redundant = if other_is_older { other } else { self };
                redundant.delete_later(ctx.now + limits::SUPERSEDED_AFTER);
            }
            None => {
                let redundant = if other.spi_i < self.spi_i { other } else { self };
                if redundant.initiator {
                    let wait =
                        if is_reauth { limits::REAUTH_OVERLAP } else { limits::REDUNDANT_AFTER };
                    redundant.delete_later(ctx.now + wait);
                }
            }
        }
    }
}

/// Whether we may be the one to begin. RFC 7296 §2.8.3: not where EAP makes the peer the initiator, nor where it may be anywhere.
fn can_begin(peer: &Peer) -> bool {
    peer.address != PeerAddress::Any && !matches!(peer.auth.peer, PeerAuth::Eap(_))
}
