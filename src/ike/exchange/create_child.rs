//! CHILD_SAs: agreed with IKE_AUTH or in CREATE_CHILD_SA, new or in place of another (RFC 7296 §1.3.1, §1.3.3, §2.9, §2.17).
//! Who wins when both sides rekey at once is decided in [`super::rekey`].

mod answer;

use std::sync::Arc;

use tracing::{debug, info};

use super::followup::{Series, What};
use super::offer::{Found, Offer};
use super::sa_init::InitDone;
use super::{Parts, notify, wanted_group};
use crate::crypto::Secret;
use crate::crypto::dh::{self, KeyPair};
use crate::ike::child_sa::{Agreed, ChildSa, ChildState, Origin, Resource, Unconfirmed};
use crate::ike::event::{CloseReason, Event, Phase};
use crate::ike::ike_sa::{Active, Ctx, IkeSa, State, Task};
use crate::ike::keymat::child_keys;
use crate::ike::limits;
use crate::ike::narrow::{narrow, within};
use crate::ike::policy::Policy;
use crate::ike::proposal::{self, Chosen};
use crate::ipsec::suite::{Protocol, Suite};
use crate::ipsec::{Flow, Mode, SaParams, SadUpdate, Spi, TrafficSelector};
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{ExchangeType, KeId, NotifyType, ProtocolId};
use crate::wire::ike::payload::{Ke, Nonce, Notify, Payload, Sa, Ts};

/// A CREATE_CHILD_SA request of ours for a CHILD_SA.
pub(in crate::ike) struct ChildRequest {
    pub(in crate::ike) offer: Offer,
    /// The CHILD_SA to be replaced.
    pub(in crate::ike) replaces: Option<Spi>,
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) key: Option<KeyPair>,
    groups_tried: Vec<KeId>,
    /// The additional key exchanges, once they have begun.
    pub(super) series: Option<Box<Series>>,
    /// The peer rekeyed the same CHILD_SA meanwhile.
    pub(in crate::ike) collision: Option<Collision>,
    /// SPIs of which a DELETE came before any CHILD_SA was known to have them: the answer to this request may be under way.
    pub(in crate::ike) deleted_early: Vec<(Protocol, Vec<u8>)>,
}

/// The other half of a simultaneous rekey: the CHILD_SA that the peer's request made, and the lower nonce of that exchange.
pub(in crate::ike) struct Collision {
    /// `None` while additional key exchanges are to come.
    pub(in crate::ike) spi: Option<Spi>,
    pub(in crate::ike) lowest_nonce: Vec<u8>,
}

impl ChildRequest {
    pub(in crate::ike) const fn replaces(&self) -> Option<Spi> {
        self.replaces
    }
}

/// The nonces of an exchange.
pub(in crate::ike) struct Nonces<'a> {
    pub(in crate::ike) i: &'a [u8],
    pub(in crate::ike) r: &'a [u8],
}

/// What we agreed to as responder, to be made into a CHILD_SA at once or after additional key exchanges.
pub(in crate::ike) struct AgreedChild {
    /// The CHILD_SA to be replaced.
    pub(super) replaces: Option<Spi>,
    pub(super) spi_inbound: Spi,
    spi_outbound: Spi,
    policy: Policy,
    chosen: Chosen<Suite>,
    mode: Mode,
    ts_local: Vec<TrafficSelector>,
    ts_peer: Vec<TrafficSelector>,
    origin: Origin,
    resource: Resource,
    shared: Option<Secret>,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    payloads: Vec<Payload>,
}

impl AgreedChild {
    /// The lower nonce of its exchange.
    pub(super) fn lowest_nonce(&self) -> Vec<u8> {
        lower(&self.nonce_i, &self.nonce_r).to_vec()
    }
}

/// A CHILD_SA that we agreed to as responder, not yet installed.
pub(in crate::ike) struct Answered {
    pub(in crate::ike) child: ChildSa,
    inbound: Box<SaParams>,
    outbound: Box<SaParams>,
    payloads: Vec<Payload>,
}

/// What a CHILD_SA is answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Occasion {
    /// IKE_AUTH.
    IkeAuth,
    /// CREATE_CHILD_SA, for one beside others.
    New,
    /// CREATE_CHILD_SA, for one in the place of another.
    Rekey,
}

impl Occasion {
    /// CREATE_CHILD_SA.
    pub(in crate::ike) const fn create(replaces: Option<Spi>) -> Self {
        if replaces.is_some() { Self::Rekey } else { Self::New }
    }
}

/// Why we do not agree.
#[derive(Debug)]
pub(in crate::ike) struct Refusal {
    pub(in crate::ike) notify: NotifyType,
    data: Vec<u8>,
    /// Protocol and SPI of the CHILD_SA that it is about.
    about: Option<(ProtocolId, Vec<u8>)>,
}

impl Refusal {
    pub(in crate::ike) const fn new(notify: NotifyType) -> Self {
        Self { notify, data: Vec::new(), about: None }
    }

    pub(in crate::ike) fn invalid_ke(group: KeId) -> Self {
        let data = group.0.to_be_bytes().to_vec();
        Self { notify: NotifyType::INVALID_KE_PAYLOAD, data, about: None }
    }

    /// RFC 7296 §2.25: named as the request named it.
    pub(in crate::ike) fn child_not_found(rekey: &Notify) -> Self {
        let about = Some((rekey.protocol, rekey.spi.clone()));
        Self { notify: NotifyType::CHILD_SA_NOT_FOUND, data: Vec::new(), about }
    }

    pub(in crate::ike) fn payload(&self) -> Payload {
        let Some((protocol, spi)) = &self.about else { return notify(self.notify, &self.data) };
        Payload::Notify(Notify::for_sa(*protocol, spi.clone(), self.notify))
    }
}

/// The peer took our offer in a way that it may not.
const CHOSE_OTHER: CloseReason =
    CloseReason::PeerMisbehaved("it chose what was not offered for a CHILD_SA");

fn close_reason(notify: NotifyType) -> CloseReason {
    match notify {
        NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => {
            CloseReason::NoProposal("CHILD_SA")
        }
        NotifyType::TS_UNACCEPTABLE => CloseReason::TrafficSelectors,
        other => CloseReason::PeerNotify(other),
    }
}

impl IkeSa {
    pub(in crate::ike) fn has_child(&self, name: &str) -> bool {
        self.children.iter().any(|child| {
            &*child.policy.name == name
                && child.state == ChildState::Installed
                && child.resource.number().is_none()
        })
    }

    fn policy(&self, name: &str) -> Option<Policy> {
        Policy::named(self.peer.as_ref()?, name)
    }

    // Initiator.

    pub(in crate::ike) fn begin_create_child(&mut self, ctx: &mut Ctx<'_>, name: &str) {
        let flow = self.take_wanted(name);
        if self.has_child(name) {
            return;
        }
        let Some(policy) = self.policy(name) else { return };
        let resource = Resource::of_first(&policy);
        self.send_create_child(ctx, policy, flow, None, resource, None);
    }

    pub(in crate::ike) fn begin_rekey_child(&mut self, ctx: &mut Ctx<'_>, spi: Spi) {
        if self.is_pending(spi) {
            return;
        }
        let Some(child) = self.child(spi).filter(|child| child.state == ChildState::Installed)
        else {
            return;
        };
        let (made_by, resource) = (child.policy.clone(), child.resource);
        // As the peer is configured by now: what cannot be had by a rekey was deleted when that changed.
        let policy = self.policy(&made_by.name).unwrap_or(made_by);
        self.send_create_child(ctx, policy, None, Some(spi), resource, None);
    }

    pub(super) fn send_create_child(
        &mut self,
        ctx: &mut Ctx<'_>,
        policy: Policy,
        flow: Option<Flow>,
        replaces: Option<Spi>,
        resource: Resource,
        again: Option<(KeId, Vec<KeId>)>,
    ) {
        let first = policy
            .proposals
            .iter()
            .flat_map(|proposal| &proposal.ke)
            .copied()
            .find(|group| *group != KeId::NONE);
        let (group, groups_tried) = match again {
            Some((group, tried)) => (Some(group), tried),
            None => (first, first.into_iter().collect()),
        };
        let key = group.and_then(|group| KeyPair::generate(group, ctx.rng));
        let nonce = ctx.random_bytes(limits::NONCE_LEN);
        let name = Arc::clone(&policy.name);
        let offer = match Offer::new(ctx, self, policy, flow, resource) {
            Ok(offer) => offer,
            Err(reason) if resource.number().is_some() => {
                self.no_more_beside(&name, &reason);
                return;
            }
            Err(reason) => {
                self.child_failed(ctx, &name, reason);
                return;
            }
        };
        let mut payloads = Vec::new();
        if let Some(old) = replaces.and_then(|spi| self.child(spi)) {
            // RFC 7296 §1.3.3: the SPI is the one that the exchange's initiator expects inbound packets with.
            payloads.push(Payload::Notify(Notify::for_sa(
                old.suite.protocol().id(),
                old.spi_inbound.to_be_bytes(),
                NotifyType::REKEY_SA,
            )));
        }
        payloads.extend(offer.notifies());
        if replaces.is_none() {
            payloads.extend(offer.resource_info());
        }
        let [sa, ts_i, ts_r] = offer.payloads(key.is_some());
        payloads.push(sa);
        payloads.push(Payload::Nonce(Nonce { data: nonce.clone() }));
        payloads.extend(
            key.as_ref()
                .map(|key| Payload::Ke(Ke { group: key.group(), data: key.public().to_vec() })),
        );
        payloads.extend([ts_i, ts_r]);
        ctx.events
            .push_back(Event::Progress { peer: self.peer_name(), phase: Phase::CreateChildSa });
        self.request(ctx, ExchangeType::CREATE_CHILD_SA, &payloads);
        self.active = Some(Active::Child(Box::new(ChildRequest {
            offer,
            replaces,
            nonce,
            key,
            groups_tried,
            series: None,
            collision: None,
            deleted_early: Vec::new(),
        })));
    }

    /// The answer to CREATE_CHILD_SA, and the shared secrets of what followed it.
    pub(super) fn handle_create_child_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: ChildRequest,
        payloads: &[Payload],
        additional: &[Secret],
    ) {
        let parts = Parts::of(payloads);
        let (Some(sa), Some(nonce)) = (parts.sa, parts.nonce) else {
            self.create_child_refused(ctx, request, &parts);
            return;
        };
        self.put_off = None;
        let ChildRequest { offer, replaces, nonce: nonce_i, key, collision, deleted_early, .. } =
            request;
        if collision.as_ref().is_some_and(|collision| collision.spi.is_none()) {
            // Ours is there, theirs is not, and will not be.
            self.drop_pending_of(ctx, replaces);
        }
        let collision = collision.filter(|collision| collision.spi.is_some());
        let with_ke = key.is_some();
        let chosen = proposal::accept_child(&offer.proposals, sa, with_ke);
        let shared = match (&key, parts.ke, chosen.as_ref().and_then(|chosen| chosen.ke)) {
            (Some(key), Some(ke), Some(group)) if ke.group == group && key.group() == group => {
                key.agree(&ke.data).ok().map(Some)
            }
            (_, _, None) => Some(None),
            _ => None,
        };
        let nonces = Nonces { i: &nonce_i, r: &nonce.data };
        let agreed = match (chosen, shared) {
            (Some(chosen), Some(shared)) => {
                let secrets = (shared.as_ref(), additional);
                self.agreed_as_initiator(&offer, &chosen, secrets, &nonces, &parts)
            }
            _ => Err(CHOSE_OTHER),
        };
        let mut agreed = match agreed {
            Ok(agreed) => agreed,
            Err(reason) => {
                self.disown(ctx, &offer, parts.sa, replaces, reason);
                return;
            }
        };
        let is_early = |(protocol, spi): &(Protocol, Vec<u8>)| {
            *protocol == agreed.suite.protocol() && *spi == agreed.spi_outbound.to_be_bytes()
        };
        if deleted_early.iter().any(is_early) {
            // The peer has deleted it already, and what it replaced is not wanted either.
            offer.forget(ctx);
            if let Some(old) = replaces {
                self.queue(Task::DeleteChildren(vec![old]));
            } else if offer.is_beside() {
                self.no_more_beside(&offer.policy.name, &CloseReason::DeletedByPeer);
            }
            return;
        }
        let (spi, lowest) = (offer.spi, lower(&nonce_i, &nonce.data).to_vec());
        agreed.origin = self.origin(replaces, true, &nonces);
        if replaces.is_some() {
            agreed.resource = offer.resource;
        }
        let jitter = ctx.random_u32();
        let Some(peer) = self.peer.clone() else { return };
        let (mut child, inbound, outbound) = ChildSa::new(&peer, agreed, ctx.now, jitter);
        ctx.sad(SadUpdate::AddInbound(inbound));
        let loses = collision.as_ref().is_some_and(|collision| lowest < collision.lowest_nonce);
        if loses {
            // Never sent on: it is about to be deleted.
            child.state = ChildState::Replaced;
        } else {
            ctx.sad(SadUpdate::AddOutbound(outbound));
            child.outbound_installed = true;
        }
        self.announce_child(ctx, &child, replaces.is_some() && !loses);
        self.children.push(child);
        if replaces.is_none() {
            // The peer sends once it knows that we have the SA, and our next request says so.
            self.queue(Task::Liveness);
        }
        self.conclude_rekey_child(ctx, replaces, spi, collision, loses);
        self.drop_redundant_children();
        self.queue_missing_resources();
    }

    /// The peer took our offer in a way that we cannot use. It has its half of a CHILD_SA, though, and takes the one that this
    /// was to replace for replaced: both are deleted.
    pub(super) fn disown(
        &mut self,
        ctx: &mut Ctx<'_>,
        offer: &Offer,
        answer: Option<&Sa>,
        replaces: Option<Spi>,
        reason: CloseReason,
    ) {
        if replaces.is_none() && offer.is_beside() {
            self.no_more_beside(&offer.policy.name, &reason);
        } else {
            self.child_failed(ctx, &offer.policy.name, reason);
        }
        self.queue(Task::Disown(offer.protocol_of(answer), offer.spi));
        if let Some(old) = replaces {
            self.expire_child(ctx, old);
        }
    }

    fn agreed_as_initiator(
        &self,
        offer: &Offer,
        chosen: &Chosen<Suite>,
        (shared, additional): (Option<&Secret>, &[Secret]),
        nonces: &Nonces<'_>,
        parts: &Parts<'_>,
    ) -> Result<Agreed, CloseReason> {
        let session = self.session.as_ref().ok_or(CHOSE_OTHER)?;
        let spi_outbound = spi_of(&chosen.peer_spi)
            .filter(|spi| self.is_fresh_at_peer(chosen.suite.protocol(), *spi))
            .ok_or(CHOSE_OTHER)?;
        let mut ts_local = parts.ts_i.ok_or(CHOSE_OTHER)?.selectors.clone();
        let mut ts_peer = parts.ts_r.ok_or(CHOSE_OTHER)?.selectors.clone();
        let mode = match (offer.mode, parts.notify(NotifyType::USE_TRANSPORT_MODE)) {
            (Mode::Transport, Some(_)) => Mode::Transport,
            // RFC 7296 §1.3.1: if tunnel mode will not do, the initiator deletes it.
            (Mode::Transport, None) if !offer.policy.or_tunnel => {
                return Err(CloseReason::NoTransport);
            }
            (Mode::Tunnel, Some(_)) => return Err(CHOSE_OTHER),
            (_, None) => Mode::Tunnel,
        };
        if mode == Mode::Transport {
            self.behind_nats(&mut ts_local, &mut ts_peer);
        }
        // RFC 7296 §2.9: narrowed is well, widened is not.
        if !within(&ts_local, &offer.ts_local) || !within(&ts_peer, &offer.ts_peer) {
            return Err(CHOSE_OTHER);
        }
        if let Some(configuration) = &self.configuration {
            // Whatever more the peer takes, we have these addresses alone.
            ts_local = narrow(&ts_local, &configuration.selectors());
            if ts_local.is_empty() {
                return Err(CHOSE_OTHER);
            }
        }
        let keys = child_keys(
            session.suite.prf,
            &session.sk_d,
            chosen.suite,
            shared,
            additional,
            nonces.i,
            nonces.r,
        )
        .ok_or(CHOSE_OTHER)?;
        let alike = |first: &ChildSa| first.is_alike(chosen.suite, mode, &ts_local, &ts_peer);
        let resource = self.resource_agreed(offer, alike, parts).ok_or(CHOSE_OTHER)?;
        Ok(Agreed {
            policy: offer.policy.clone(),
            spi_inbound: offer.spi,
            spi_outbound,
            suite: chosen.suite,
            mode,
            ts_local,
            ts_peer,
            path: self.esp_path(),
            initiator: true,
            origin: self.origin(None, true, nonces),
            resource,
            keys,
        })
    }

    /// Initiator of IKE_AUTH: its CHILD_SA.
    pub(super) fn conclude_auth_child(
        &mut self,
        ctx: &mut Ctx<'_>,
        offer: Offer,
        init: &InitDone,
        parts: &Parts<'_>,
    ) {
        let nonces = Nonces { i: &init.nonce_i, r: &init.nonce_r };
        let agreed = parts
            .sa
            .and_then(|sa| proposal::accept_child(&offer.proposals, sa, false))
            .ok_or(CHOSE_OTHER)
            .and_then(|chosen| {
                self.agreed_as_initiator(&offer, &chosen, (None, &[]), &nonces, parts)
            });
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(reason) => {
                match parts.error() {
                    Some(error) if parts.sa.is_none() => {
                        offer.forget(ctx);
                        let reason = close_reason(error.notify_type);
                        self.child_failed(ctx, &offer.policy.name, reason);
                    }
                    _ => self.disown(ctx, &offer, parts.sa, None, reason),
                }
                return;
            }
        };
        let jitter = ctx.random_u32();
        let Some(peer) = self.peer.clone() else { return };
        let (mut child, inbound, outbound) = ChildSa::new(&peer, agreed, ctx.now, jitter);
        ctx.sad(SadUpdate::AddInbound(inbound));
        ctx.sad(SadUpdate::AddOutbound(outbound));
        child.outbound_installed = true;
        self.announce_child(ctx, &child, false);
        self.children.push(child);
        self.queue_missing_resources();
    }

    /// Whether no CHILD_SA of this peer has that SPI at its end.
    fn is_fresh_at_peer(&self, protocol: Protocol, spi: Spi) -> bool {
        self.children.iter().all(|child| {
            child.spi_outbound != spi
                || child.suite.protocol() != protocol
                || matches!(child.state, ChildState::Lingering(_))
        })
    }

    fn create_child_refused(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: ChildRequest,
        parts: &Parts<'_>,
    ) {
        request.offer.forget(ctx);
        let Some(error) = parts.error() else { return };
        let task = request.task();
        if let Some(collision) = &request.collision {
            // The peer's own rekey of the same CHILD_SA went through, or goes on: nothing is left to do but what that asks for.
            if collision.spi.is_some() {
                self.survives(request.replaces);
            }
            return;
        }
        if error.notify_type != NotifyType::TEMPORARY_FAILURE {
            self.put_off = None;
        }
        match error.notify_type {
            NotifyType::INVALID_KE_PAYLOAD => {
                let group = wanted_group(error)
                    .filter(|group| {
                        request
                            .offer
                            .policy
                            .proposals
                            .iter()
                            .any(|proposal| proposal.ke.contains(group))
                    })
                    .filter(|group| !request.groups_tried.contains(group));
                if let Some(group) = group {
                    let mut tried = request.groups_tried;
                    tried.push(group);
                    self.send_create_child(
                        ctx,
                        request.offer.policy,
                        request.offer.flow,
                        request.replaces,
                        request.offer.resource,
                        Some((group, tried)),
                    );
                    return;
                }
                let reason = close_reason(error.notify_type);
                self.child_refused(ctx, &request, reason);
            }
            NotifyType::TEMPORARY_FAILURE => {
                let wanted = request.replaces.is_none_or(|spi| {
                    self.child(spi).is_some_and(|child| child.state == ChildState::Installed)
                });
                if wanted && self.is_put_off_for_good(ctx.now) {
                    self.terminate(ctx, close_reason(error.notify_type));
                } else if wanted {
                    self.queue_later(ctx, task);
                }
            }
            NotifyType::CHILD_SA_NOT_FOUND => {
                // RFC 7296 §2.25: the peer has lost it; ours goes silently and a new one is made.
                if let Some(spi) = request.replaces
                    && self.child(spi).is_some_and(|child| child.state == ChildState::Installed)
                {
                    self.remove_child(ctx, spi);
                    self.queue(Task::CreateChild(Arc::clone(&request.offer.policy.name)));
                }
            }
            other if matches!(task, Task::CreateResource(_)) => {
                self.no_more_beside(&request.offer.policy.name, &close_reason(other));
            }
            NotifyType::NO_ADDITIONAL_SAS => {
                let name = Arc::clone(&request.offer.policy.name);
                if let Some(old) = request.replaces {
                    // RFC 7296 §4: what cannot be rekeyed is deleted, and made anew.
                    self.queue(Task::DeleteChildren(vec![old]));
                    self.queue(Task::CreateChild(name));
                } else if self.children.iter().any(|child| child.state == ChildState::Installed) {
                    self.child_failed(ctx, &name, close_reason(error.notify_type));
                } else {
                    // A peer that makes no CHILD_SA but that of IKE_AUTH: only a new IKE SA brings another.
                    self.terminate(ctx, close_reason(error.notify_type));
                }
            }
            other => {
                self.child_refused(ctx, &request, close_reason(other));
                if let Some(spi) = request.replaces {
                    debug!(%spi, notify = %other, "rekey refused; it is tried again before the SA ends");
                    self.queue_later(ctx, task);
                }
            }
        }
    }

    // Both.

    /// Where a CHILD_SA comes from: what replaces another has the origin of that.
    fn origin(&self, replaces: Option<Spi>, ours: bool, nonces: &Nonces<'_>) -> Origin {
        let old =
            replaces.and_then(|spi| self.children.iter().find(|child| child.spi_inbound == spi));
        old.map_or_else(
            || Origin { ours, lowest_nonce: lower(nonces.i, nonces.r).to_vec() },
            |old| old.origin.clone(),
        )
    }

    /// Both sides made a CHILD_SA by the same policy at once. As when both rekey one (RFC 7296 §2.8.1), that of the exchange
    /// with the lowest nonce is redundant, and whoever made it deletes it, once the peer has the other.
    pub(in crate::ike) fn drop_redundant_children(&mut self) {
        let redundant: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.state == ChildState::Installed && child.origin.ours)
            .filter(|child| {
                self.children.iter().any(|other| {
                    other.state == ChildState::Installed
                        && !other.origin.ours
                        && other.unconfirmed.is_none()
                        && other.is_like(child)
                        && child.origin.lowest_nonce < other.origin.lowest_nonce
                })
            })
            .map(|child| child.spi_inbound)
            .collect();
        for spi in redundant {
            debug!(%spi, "the peer made the same CHILD_SA at once; ours is redundant");
            if let Some(child) = self.child(spi) {
                child.state = ChildState::Replaced;
            }
            self.queue(Task::DeleteChildren(vec![spi]));
        }
    }

    // What became of it.

    pub(in crate::ike) fn announce_child(&self, ctx: &mut Ctx<'_>, child: &ChildSa, rekeyed: bool) {
        info!(
            peer = %self.peer_name(), child = %child.policy.name, spi_inbound = %child.spi_inbound,
            spi_outbound = %child.spi_outbound, suite = %child.suite, mode = ?child.mode, encap = ?child.path.encap,
            rekeyed, "CHILD_SA installed"
        );
        ctx.events.push_back(Event::ChildSaEstablished {
            peer: self.peer_name(),
            child: Box::new(child.status(ctx.now, false)),
            rekeyed,
        });
    }

    /// The peer makes no CHILD_SA, or none in place of the one that there is.
    fn child_refused(&mut self, ctx: &mut Ctx<'_>, request: &ChildRequest, reason: CloseReason) {
        let name = &request.offer.policy.name;
        if matches!(request.task(), Task::CreateResource(_)) {
            self.no_more_beside(name, &reason);
            return;
        }
        if request.replaces.is_none() {
            self.child_failed(ctx, name, reason);
            return;
        }
        info!(peer = %self.peer_name(), child = %name, %reason, "CHILD_SA not rekeyed");
        ctx.events.push_back(Event::RekeyRefused {
            peer: self.peer_name(),
            child: Some(Arc::clone(name)),
            reason,
        });
    }

    pub(super) fn child_failed(&self, ctx: &mut Ctx<'_>, child: &Arc<str>, reason: CloseReason) {
        info!(peer = %self.peer_name(), %child, %reason, "no CHILD_SA");
        ctx.events.push_back(Event::ChildSaFailed {
            peer: self.peer_name(),
            child: Arc::clone(child),
            reason,
        });
    }

    pub(super) fn announce_child_failed(
        &self,
        ctx: &mut Ctx<'_>,
        _parts: &Parts<'_>,
        notify: NotifyType,
    ) {
        if let Some(policy) = self.peer.as_ref().and_then(|peer| peer.children.first()) {
            self.child_failed(ctx, &policy.name, close_reason(notify));
        }
    }
}

/// The lower of two nonces, compared as octet strings (RFC 7296 §2.8.1).
pub(in crate::ike) fn lower<'a>(a: &'a [u8], b: &'a [u8]) -> &'a [u8] {
    if a < b { a } else { b }
}

fn spi_of(bytes: &[u8]) -> Option<Spi> {
    <[u8; 4]>::try_from(bytes).ok().and_then(|bytes| Spi::new(u32::from_be_bytes(bytes)))
}
