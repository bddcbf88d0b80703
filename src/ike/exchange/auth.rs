//! IKE_AUTH (RFC 7296 §1.2, §2.15): both sides prove who they are, and the first CHILD_SA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::create_child::{self, Offer};
use super::sa_init::InitDone;
use super::{Parts, notify};
use crate::crypto::Secret;
use crate::ike::child_sa::earlier;
use crate::ike::event::{CloseReason, Event, Phase};
use crate::ike::identity;
use crate::ike::ike_sa::{Ctx, IkeSa, State, Task};
use crate::ike::keymat::psk_auth;
use crate::ike::limits;
use crate::ipsec::Path;
use crate::ipsec::pad::{Auth as PeerAuth, EncapPolicy, Peer, PeerAddress, StartPolicy};
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{AuthMethod, ExchangeType, NotifyType};
use crate::wire::ike::payload::{Auth, Delete, Id, Payload};

/// What the initiator keeps between IKE_AUTH request and response.
pub(in crate::ike) struct AuthSent {
    init: InitDone,
    offer: Option<Offer>,
    /// Whether INITIAL_CONTACT goes with it.
    initial_contact: bool,
    /// The operator wants no IKE SA any more. The responder may have it already, so it has to be deleted when its answer
    /// has come.
    pub(in crate::ike) unwanted: bool,
}

impl AuthSent {
    /// The SPI that was offered is free again.
    pub(in crate::ike) fn forget_offer(&self, ctx: &mut Ctx<'_>) {
        if let Some(offer) = &self.offer {
            offer.forget(ctx);
        }
    }
}

/// What the responder keeps until IKE_AUTH comes.
pub(in crate::ike) struct Awaited {
    pub(in crate::ike) init: InitDone,
    /// The peers that this may be, by address and algorithms.
    pub(in crate::ike) candidates: Vec<Arc<Peer>>,
}

/// The PAD entries for a peer at this address: those that name it first.
pub(in crate::ike) fn candidates(
    peers: &BTreeMap<Arc<str>, Arc<Peer>>,
    path: Path,
) -> Vec<Arc<Peer>> {
    let rank = |peer: &Peer| {
        if peer.local_addr.is_some_and(|local| local != path.local.ip()) {
            return None;
        }
        match &peer.address {
            PeerAddress::Ip(ip) if *ip == path.remote.ip() => Some(0),
            // Behind a NAT, the address that is seen is not the one that was written down.
            PeerAddress::Ip(_) => Some(3),
            PeerAddress::Name(_) => Some(1),
            PeerAddress::Any => Some(2),
        }
    };
    let mut found: Vec<_> =
        peers.values().filter_map(|peer| rank(peer).map(|rank| (rank, Arc::clone(peer)))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, peer)| peer).collect()
}

fn secret(peer: &Peer) -> &Secret {
    let PeerAuth::Psk(secret) = &peer.auth;
    secret
}

impl IkeSa {
    /// What we sign, or the peer should have signed, as the side whose `sk_p` and message these are.
    fn auth_data(
        &self,
        init: &InitDone,
        peer: &Peer,
        by_initiator: bool,
        id: &Id,
    ) -> Option<Secret> {
        let session = self.session.as_ref()?;
        let (message, nonce, sk_p) = if by_initiator {
            (&init.request, &init.nonce_r, &init.keys.sk_pi)
        } else {
            (&init.response, &init.nonce_i, &init.keys.sk_pr)
        };
        psk_auth(session.suite.prf, secret(peer), message, nonce, sk_p, &id.body())
    }

    /// Initiator: sends IKE_AUTH.
    pub(super) fn send_auth(&mut self, ctx: &mut Ctx<'_>, init: InitDone) {
        let Some(peer) = self.peer.clone() else { return };
        let id = identity::to_wire(&peer.local_id);
        let Some(auth) = self.auth_data(&init, &peer, true, &id) else { return };
        let mut payloads = vec![Payload::IdI(id)];
        let initial_contact = !ctx
            .others
            .values()
            .any(|other| other.is_established() && other.peer_name() == peer.name);
        if initial_contact {
            payloads.push(notify(NotifyType::INITIAL_CONTACT, &[]));
        }
        payloads.extend(peer.peer_id.as_ref().map(|id| Payload::IdR(identity::to_wire(id))));
        payloads.push(Payload::Auth(Auth {
            method: AuthMethod::SHARED_KEY_MIC,
            data: auth.expose().to_vec(),
        }));
        let offer = peer
            .children
            .first()
            .cloned()
            .map(|policy| Offer::new(ctx, self.id, policy.into(), None));
        if let Some(offer) = &offer {
            payloads.extend(offer.payloads_for_auth());
        }
        ctx.events
            .push_back(Event::Progress { peer: Arc::clone(&peer.name), phase: Phase::IkeAuth });
        self.request(ctx, ExchangeType::IKE_AUTH, &payloads);
        self.state =
            State::AuthSent(Box::new(AuthSent { init, offer, initial_contact, unwanted: false }));
    }

    /// Initiator: the answer.
    pub(in crate::ike) fn handle_auth_response(&mut self, ctx: &mut Ctx<'_>, payloads: &[Payload]) {
        let State::AuthSent(sent) = core::mem::replace(&mut self.state, State::Established) else {
            return;
        };
        let Some(peer) = self.peer.clone() else { return };
        let AuthSent { init, offer, initial_contact, unwanted } = *sent;
        if unwanted {
            if let Some(offer) = &offer {
                offer.forget(ctx);
            }
            self.terminate(ctx, CloseReason::Operator);
            return;
        }
        let parts = Parts::of(payloads);
        let (Some(id), Some(auth)) = (parts.id_r, parts.auth) else {
            if let Some(offer) = &offer {
                offer.forget(ctx);
            }
            let reason = match parts.error().map(|error| error.notify_type) {
                Some(NotifyType::AUTHENTICATION_FAILED) => CloseReason::AuthenticationRefused,
                Some(NotifyType::NO_PROPOSAL_CHOSEN) => CloseReason::NoProposal("IKE_SA"),
                Some(other) => CloseReason::PeerNotify(other),
                None => CloseReason::PeerMisbehaved("IKE_AUTH was answered without AUTH"),
            };
            self.close(ctx, reason);
            return;
        };
        let got = identity::from_wire(id);
        if let Some(expected) =
            peer.peer_id.as_ref().filter(|expected| !identity::same(expected, &got))
        {
            if let Some(offer) = &offer {
                offer.forget(ctx);
            }
            self.reject(ctx, CloseReason::IdentityMismatch { expected: expected.clone(), got });
            return;
        }
        let expected = self.auth_data(&init, &peer, false, id);
        let proved = auth.method == AuthMethod::SHARED_KEY_MIC
            && expected == Some(Secret::copy_of(&auth.data));
        if !proved {
            if let Some(offer) = &offer {
                offer.forget(ctx);
            }
            self.reject(ctx, CloseReason::AuthenticationOfPeer);
            return;
        }
        self.peer_identity = Some(got);
        ctx.events.push_back(Event::Progress {
            peer: Arc::clone(&peer.name),
            phase: Phase::Authenticated,
        });
        if initial_contact {
            self.forget_replaced(ctx);
        }
        self.establish(ctx, None);
        if let Some(offer) = offer {
            self.conclude_auth_child(ctx, offer, &init, &parts);
        }
        self.queue_missing_children();
    }

    /// The initiator could not authenticate the responder, which believes to have an SA: it is told (RFC 7296 §2.21.2).
    fn reject(&mut self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        self.announce_closed(ctx, reason);
        self.begin_delete_ike_with(
            ctx,
            &[notify(NotifyType::AUTHENTICATION_FAILED, &[]), Payload::Delete(Delete::ike())],
        );
    }

    /// Responder: the initiator shows who it is.
    pub(in crate::ike) fn handle_auth_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        payloads: &[Payload],
    ) {
        let State::InitAnswered(awaited) =
            core::mem::replace(&mut self.state, State::Closed(ctx.now))
        else {
            return;
        };
        let Awaited { init, candidates } = *awaited;
        let parts = Parts::of(payloads);
        let (Some(id_i), Some(auth)) = (parts.id_i, parts.auth) else { return };
        let who = identity::from_wire(id_i);
        let fits = |peer: &&Arc<Peer>| {
            peer.peer_id.as_ref().is_none_or(|expected| identity::same(expected, &who))
                && parts
                    .id_r
                    .is_none_or(|id_r| identity::same(&identity::from_wire(id_r), &peer.local_id))
        };
        let mut matching: Vec<_> = candidates.iter().filter(fits).collect();
        // Who is named goes before who takes anybody; of several, the key decides.
        matching.sort_by_key(|peer| peer.peer_id.is_none());
        matching.truncate(limits::MAX_AUTH_CANDIDATES);
        let proves = |peer: &Arc<Peer>| {
            auth.method == AuthMethod::SHARED_KEY_MIC
                && self.auth_data(&init, peer, true, id_i) == Some(Secret::copy_of(&auth.data))
        };
        let proved = matching.iter().find(|peer| proves(peer)).copied();
        let matching = proved.or(matching.first().copied());
        // RFC 7296 §2.21.2: one answer, whatever failed, so that nobody can learn which identities exist.
        let Some(peer) = matching.cloned() else {
            warn!(remote = %self.path.remote, id = %who, wanted = ?parts.id_r.map(identity::from_wire), "no peer is configured with these identities");
            if let [only] = candidates.as_slice() {
                self.peer = Some(Arc::clone(only));
                let reason = only
                    .peer_id
                    .clone()
                    .filter(|expected| !identity::same(expected, &who))
                    .map_or(CloseReason::AuthenticationRefused, |expected| {
                        CloseReason::IdentityMismatch { expected, got: who.clone() }
                    });
                self.fail_auth(ctx, header, reason);
            } else {
                self.fail_auth(ctx, header, CloseReason::AuthenticationRefused);
            }
            return;
        };
        let proved = proved.is_some();
        self.peer = Some(Arc::clone(&peer));
        if !proved {
            warn!(peer = %peer.name, remote = %self.path.remote, "AUTH does not match our pre-shared key");
            self.fail_auth(ctx, header, CloseReason::AuthenticationOfPeer);
            return;
        }
        if (self.nat.local || self.nat.peer) && peer.ike.encap == EncapPolicy::None {
            self.fail_auth(ctx, header, CloseReason::NatForbidden);
            return;
        }
        self.how = crate::ike::window::Retransmission::of(&peer.ike);
        self.peer_identity = Some(who);
        let id_r = identity::to_wire(&peer.local_id);
        let Some(ours) = self.auth_data(&init, &peer, false, &id_r) else { return };
        let began = self.created;
        self.state = State::Established;
        if parts.notify(NotifyType::INITIAL_CONTACT).is_some() {
            self.forget_older(ctx, began);
        }
        self.establish(ctx, None);

        let mut answer = vec![
            Payload::IdR(id_r),
            Payload::Auth(Auth {
                method: AuthMethod::SHARED_KEY_MIC,
                data: ours.expose().to_vec(),
            }),
        ];
        if parts.sa.is_some() {
            match self.answer_child(
                ctx,
                &parts,
                None,
                &create_child::Nonces { i: &init.nonce_i, r: &init.nonce_r },
            ) {
                Ok(child) => answer.extend(self.install_answered(ctx, child, false)),
                Err(refusal) => {
                    // RFC 7296 §1.2: the IKE SA stands, the CHILD_SA does not.
                    debug!(peer = %peer.name, refusal = %refusal.notify, "no CHILD_SA with IKE_AUTH");
                    self.announce_child_failed(ctx, &parts, refusal.notify);
                    answer.push(refusal.payload());
                }
            }
        }
        self.respond(ctx, header.exchange, header.message_id, &answer);
    }

    fn fail_auth(&mut self, ctx: &mut Ctx<'_>, header: &Header, reason: CloseReason) {
        self.respond(
            ctx,
            header.exchange,
            header.message_id,
            &[notify(NotifyType::AUTHENTICATION_FAILED, &[])],
        );
        self.state = State::Established;
        self.close(ctx, reason);
    }

    /// The IKE SA is established: timers start, everyone is told. `from`: the SPIs of the one that it replaces.
    pub(in crate::ike) fn establish(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: Option<(crate::wire::ike::header::IkeSpi, crate::wire::ike::header::IkeSpi)>,
    ) {
        let Some(peer) = self.peer.clone() else { return };
        let jitter = ctx.random_u32();
        self.state = State::Established;
        self.established = Some(ctx.now);
        self.rekey_at = peer.ike.rekey_time.map(|time| ctx.now + earlier(time, jitter));
        self.expire_at = peer.ike.rekey_time.map(|time| ctx.now + time + peer.ike.over_time);
        if self.nat.local {
            self.keepalive_at = Some(ctx.now + limits::KEEPALIVE);
        }
        if let Some(status) = self.status(ctx.now) {
            info!(
                peer = %peer.name, role = if self.initiator { "initiator" } else { "responder" },
                spi_i = %self.spi_i, spi_r = %self.spi_r, local_id = %peer.local_id,
                peer_id = %status.peer_id.as_ref().unwrap_or(&peer.local_id),
                suite = %status.suite.map(|suite| suite.to_string()).unwrap_or_default(),
                remote = %self.path.remote, rekeyed = from.is_some(), "IKE_SA established"
            );
            ctx.events.push_back(Event::IkeSaEstablished {
                peer: Arc::clone(&peer.name),
                status: Box::new(status),
                rekeyed_from: from,
            });
        }
        self.resolve_crossing(ctx);
    }

    /// RFC 7296 §2.4: INITIAL_CONTACT says that the peer has no other IKE SA with us, so those from before are dead. One that was
    /// established while this one was being made has crossed it, and lives.
    fn forget_older(&self, ctx: &mut Ctx<'_>, began: Instant) {
        let mine = self.peer_identity.clone();
        let local = self.peer.as_ref().map(|peer| peer.local_id.clone());
        let old: Vec<_> = ctx
            .others
            .iter()
            .filter(|(_, other)| {
                other.peer_identity == mine
                    && other.peer.as_ref().map(|peer| &peer.local_id) == local.as_ref()
                    && other.established.is_some_and(|at| at < began)
                    // A DELETE under way goes on: should the peer have that one all the same, it has to learn of it.
                    && !matches!(other.state, State::Deleting)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            if let Some(mut other) = ctx.others.remove(&id) {
                other.close(ctx, CloseReason::Replaced);
                ctx.put(other);
            }
        }
    }

    /// The peer knows by our INITIAL_CONTACT that there is no other IKE SA, and forgets those that it was still about to delete.
    fn forget_replaced(&self, ctx: &mut Ctx<'_>) {
        let name = self.peer_name();
        let waiting =
            |other: &&IkeSa| matches!(other.state, State::Replaced) && other.peer_name() == name;
        let ids: Vec<_> = ctx.others.values().filter(waiting).map(|other| other.id).collect();
        for id in ids {
            if let Some(mut other) = ctx.others.remove(&id) {
                other.close(ctx, CloseReason::Replaced);
                ctx.put(other);
            }
        }
    }

    /// Both ends began at once, and now there are two IKE SAs: the one with the lower initiator's SPI is deleted by its initiator.
    /// The initiator may be the same of both by now, for a rekey changes it.
    fn resolve_crossing(&mut self, ctx: &mut Ctx<'_>) {
        let Some(name) = self.peer.as_ref().map(|peer| Arc::clone(&peer.name)) else { return };
        let other = ctx.others.values_mut().find(|other| {
            other.is_established()
                && !other.is_candidate()
                && other.peer.as_ref().is_some_and(|peer| peer.name == name)
        });
        let Some(other) = other else { return };
        ctx.touched.push(other.id);
        let redundant = if other.spi_i < self.spi_i { other } else { self };
        if redundant.initiator
            && redundant.tasks.iter().all(|waiting| waiting.task != Task::DeleteIke)
        {
            redundant.tasks.push_back(crate::ike::ike_sa::Waiting {
                task: Task::DeleteIke,
                not_before: Some(ctx.now + limits::REDUNDANT_AFTER),
            });
        }
    }

    /// Queues the CHILD_SAs that the configuration wants from the start and that are not there.
    pub(in crate::ike) fn queue_missing_children(&mut self) {
        let Some(peer) = self.peer.clone() else { return };
        for policy in peer.children.iter().filter(|policy| policy.start == StartPolicy::Now) {
            if !self.has_child(&policy.name) {
                self.queue(Task::CreateChild(Arc::clone(&policy.name)));
            }
        }
    }
}
