//! IKE_AUTH (RFC 7296 §1.2, §2.15): both sides prove who they are, and the first CHILD_SA.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::create_child::{self, Occasion, Refusal};
use super::eap::{Asking, Serving};
use super::offer::Offer;
use super::ppk::{Claim, PpkUse};
use super::sa_init::InitDone;
use super::{Parts, notify};
use crate::crypto::Secret;
use crate::ike::announce;
use crate::ike::cert::{self, Asked, CertFault, Shown};
use crate::ike::child_sa::{Resource, earlier};
use crate::ike::eap::EapFault;
use crate::ike::event::{CloseReason, Event, Phase};
use crate::ike::identity;
use crate::ike::ike_sa::{Ctx, IkeSa, State, Task};
use crate::ike::keymat::{IkeKeys, psk_auth, signed_octets};
use crate::ike::limits;
use crate::ike::policy::Policy;
use crate::ike::qcd;
use crate::ipsec::pad::{Authority, EncapPolicy, Identity, LocalAuth, Peer, PeerAuth, StartPolicy};
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{AuthMethod, ExchangeType, NotifyType, PrfId};
use crate::wire::ike::payload::{Auth, Delete, Id, Payload};

/// What the initiator keeps between IKE_AUTH request and response.
pub(in crate::ike) struct AuthSent {
    pub(in crate::ike) init: InitDone,
    offer: Option<Offer>,
    /// How far EAP is, if that is how we prove who we are, and the responder has proved who it is.
    pub(in crate::ike) asking: Option<Asking>,
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
    /// The peers that this may be, by address and algorithms, or one of each sort that is alike in that.
    pub(in crate::ike) candidates: Vec<Arc<Peer>>,
    /// How far EAP is, if the initiator wants it.
    pub(in crate::ike) serving: Option<Box<Serving>>,
}

/// What both sides sign (RFC 7296 §2.15), but for the identity: a message, the other side's nonce, SK_p.
pub(super) struct Signed<'a> {
    prf: PrfId,
    message: &'a [u8],
    nonce: &'a [u8],
    sk_p: Secret,
    int_auth: Vec<u8>,
}

impl Signed<'_> {
    pub(super) fn psk(&self, key: &Secret, id: &Id) -> Option<Secret> {
        psk_auth(self.prf, key, self.message, self.nonce, &self.sk_p, &id.body(), &self.int_auth)
    }

    const fn sk_p(&self) -> &Secret {
        &self.sk_p
    }

    fn octets(&self, id: &Id) -> Option<Vec<u8>> {
        signed_octets(self.prf, self.message, self.nonce, &self.sk_p, &id.body(), &self.int_auth)
    }
}

const NO_KEYS: CloseReason = CloseReason::CannotSign("the IKE_SA has no keys");

impl IkeSa {
    /// What we sign, or the peer should have signed: with the PPK, if one is used.
    pub(super) fn signed<'a>(&self, init: &'a InitDone, by_initiator: bool) -> Option<Signed<'a>> {
        let keys = if let PpkUse::Mixed(keys) = &init.ppk { keys } else { &init.keys };
        self.signed_by(init, keys, by_initiator)
    }

    /// The same by these keys.
    pub(super) fn signed_by<'a>(
        &self,
        init: &'a InitDone,
        keys: &IkeKeys,
        by_initiator: bool,
    ) -> Option<Signed<'a>> {
        let prf = self.session.as_ref()?.suite.prf;
        let int_auth = init.int_auth.octets();
        Some(if by_initiator {
            let InitDone { request: message, nonce_r: nonce, .. } = init;
            Signed { prf, message, nonce, sk_p: keys.sk_pi.clone(), int_auth }
        } else {
            let InitDone { response: message, nonce_i: nonce, .. } = init;
            Signed { prf, message, nonce, sk_p: keys.sk_pr.clone(), int_auth }
        })
    }

    /// The payloads with which we prove who we are: CERT if we have certificates, and AUTH.
    pub(super) fn prove(
        &self,
        ctx: &mut Ctx<'_>,
        init: &InitDone,
        peer: &Peer,
        id: &Id,
        asked: &Asked,
    ) -> Result<(Vec<Payload>, Payload), CloseReason> {
        if !asked.may_take(&init.terms, &peer.auth.local) {
            warn!(peer = %peer.name, "the peer announces no authentication method that is ours; it is tried all the same");
        }
        let signed = self.signed(init, self.initiator).ok_or(NO_KEYS)?;
        let auth = Self::prove_by(ctx, init, &signed, peer, id, asked)?;
        let certs = match &peer.auth.local {
            LocalAuth::Signature(credentials) => {
                let credential = cert::choose(&init.terms, credentials, asked).ok_or(NO_KEYS)?;
                cert::payloads(credential, asked)
            }
            LocalAuth::Eap(_) | LocalAuth::Psk(_) => Vec::new(),
        };
        Ok((certs, Payload::Auth(auth)))
    }

    /// AUTH over these octets.
    fn prove_by(
        ctx: &mut Ctx<'_>,
        init: &InitDone,
        signed: &Signed<'_>,
        peer: &Peer,
        id: &Id,
        asked: &Asked,
    ) -> Result<Auth, CloseReason> {
        match &peer.auth.local {
            // Proved with the MSK, at the end.
            LocalAuth::Eap(_) => {
                Err(CloseReason::CannotSign("by EAP only an initiator proves who it is"))
            }
            LocalAuth::Psk(key) => {
                let data = signed.psk(key, id).ok_or(NO_KEYS)?.expose().to_vec();
                Ok(Auth { method: AuthMethod::SHARED_KEY_MIC, data })
            }
            LocalAuth::Signature(credentials) => {
                let credential = cert::choose(&init.terms, credentials, asked).ok_or(NO_KEYS)?;
                let octets = signed.octets(id).ok_or(NO_KEYS)?;
                cert::sign(&init.terms, asked, credential, ctx.rng, &octets)
                    .map_err(CloseReason::CannotSign)
            }
        }
    }

    /// Which of these peers has proved, by this message, to have this identity: the first, or what is wrong with the first that
    /// is none. With it the keys that its PPK is in, where one is used.
    fn proved<'p>(
        &self,
        ctx: &Ctx<'_>,
        init: &InitDone,
        peers: &[&'p Arc<Peer>],
        parts: &Parts<'_>,
        id: &Id,
    ) -> Result<(&'p Arc<Peer>, Option<Box<IkeKeys>>), CloseReason> {
        const FAILED: CloseReason = CloseReason::AuthenticationOfPeer;
        let auth = parts.auth.ok_or(FAILED)?;
        let is_psk = auth.method == AuthMethod::SHARED_KEY_MIC;
        // RFC 7619: an identity that proves nothing is none. There is no method by which it would be one here.
        let mut shown: Vec<(Secret, &[u8], Result<Shown, CertFault>)> = Vec::new();
        let mut tried: Vec<(&Authority, Result<(), CertFault>)> = Vec::new();
        let mut wrong = None;
        for peer in peers {
            let Claim { signed, data, mixed } = match self.claim(init, peer, auth, parts) {
                Ok(claim) => claim,
                Err(reason) => {
                    wrong.get_or_insert(reason);
                    continue;
                }
            };
            let result = match &peer.auth.peer {
                PeerAuth::Eap(_) => {
                    Err(CloseReason::MethodOfPeer { got: auth.method, expected: "EAP" })
                }
                PeerAuth::Psk(_) if !is_psk => Err(CloseReason::MethodOfPeer {
                    got: auth.method,
                    expected: "the pre-shared key",
                }),
                PeerAuth::Signature(authority) if is_psk => {
                    let expected =
                        if authority.keys.is_empty() { "a certificate" } else { "a public key" };
                    Err(CloseReason::MethodOfPeer { got: auth.method, expected })
                }
                PeerAuth::Psk(key) => {
                    let good = signed.psk(key, id) == Some(Secret::copy_of(data));
                    if good { Ok(()) } else { Err(FAILED) }
                }
                PeerAuth::Signature(authority) => {
                    // The signature once by the same keys, and each set of CAs once: public-key work is dear.
                    let known =
                        |(sk_p, of, _): &(Secret, &[u8], _)| *sk_p == *signed.sk_p() && *of == data;
                    let at = shown.iter().position(known).unwrap_or(shown.len());
                    if at == limits::MAX_PROOFS {
                        wrong.get_or_insert(FAILED);
                        continue;
                    }
                    if at == shown.len() {
                        let octets = signed.octets(id).ok_or(FAILED)?;
                        let known = peers.iter().filter_map(|peer| match &peer.auth.peer {
                            PeerAuth::Signature(authority) => Some(&authority.keys),
                            PeerAuth::Eap(_) | PeerAuth::Psk(_) => None,
                        });
                        let auth = Auth { method: auth.method, data: data.to_vec() };
                        let found =
                            Shown::verify(&init.terms, parts, &auth, &octets, known.flatten());
                        shown.push((signed.sk_p().clone(), data, found));
                    }
                    let Some((_, _, shown)) = shown.get(at) else { continue };
                    let again = tried.iter().find(|(other, _)| **other == **authority);
                    let result = match (shown, again) {
                        (Err(fault), _) => Err(fault.clone()),
                        (Ok(_), Some((_, result))) => result.clone(),
                        (Ok(_), None) if tried.len() >= limits::MAX_AUTHORITIES => {
                            Err(CertFault::TooMany)
                        }
                        (Ok(shown), None) => {
                            let id = identity::from_wire(id);
                            let now = ctx.wall_clock.since_1970();
                            let result = shown.accept(authority, &id, now);
                            tried.push((authority, result.clone()));
                            result
                        }
                    };
                    result.map_err(CloseReason::CertificateOfPeer)
                }
            };
            match result {
                Ok(()) => return Ok((peer, mixed)),
                Err(reason) => drop(wrong.get_or_insert(reason)),
            }
        }
        Err(wrong.unwrap_or(FAILED))
    }

    /// Initiator: CERT, and AUTH with what goes with it if there is a PPK.
    fn prove_with_ppk(
        &self,
        ctx: &mut Ctx<'_>,
        init: &mut InitDone,
        peer: &Peer,
        id: &Id,
    ) -> Result<(Vec<Payload>, Vec<Payload>), CloseReason> {
        self.mix_ppk(init, peer).ok_or(NO_KEYS)?;
        let asked = &init.terms.asked;
        let (certs, auth) = self.prove(ctx, init, peer, id, asked)?;
        let plain = |signed: &Signed<'_>| {
            Self::prove_by(ctx, init, signed, peer, id, asked).map(|auth| auth.data)
        };
        let notifies = self.ppk_notifies(init, peer, plain)?;
        Ok((certs, [vec![auth], notifies].concat()))
    }

    /// Initiator: sends IKE_AUTH.
    pub(super) fn send_auth(&mut self, ctx: &mut Ctx<'_>, mut init: InitDone) {
        let Some(peer) = self.peer.clone() else { return };
        let id = identity::to_wire(&peer.local_id);
        let proof = match &peer.auth.local {
            // RFC 7296 §2.16: leaving AUTH out says that EAP is wanted.
            LocalAuth::Eap(_) => Ok((Vec::new(), Vec::new())),
            LocalAuth::Psk(_) | LocalAuth::Signature(_) => {
                self.prove_with_ppk(ctx, &mut init, &peer, &id)
            }
        };
        let (certs, auth) = match proof {
            Ok(proof) => proof,
            Err(reason) => {
                self.close(ctx, reason);
                return;
            }
        };
        let mut payloads = vec![Payload::IdI(id)];
        payloads.extend(certs);
        // Who answers may be another, with SAs that serve somebody here.
        let initial_contact = self.names_peer && self.is_initial_contact(ctx, &peer);
        if initial_contact {
            payloads.push(notify(NotifyType::INITIAL_CONTACT, &[]));
        }
        payloads.extend(cert::request(core::iter::once(&peer.auth.peer)));
        if init.terms.announces {
            // RFC 9593 §3.1: to whom that means something.
            let list = announce::list(core::iter::once(&peer.auth.peer));
            payloads.extend(list.as_deref().map(announce::payload));
        }
        let named = peer.peer_id.as_ref().filter(|_| self.names_peer);
        payloads.extend(named.map(|id| Payload::IdR(identity::to_wire(id))));
        payloads.extend(auth);
        payloads.extend(qcd::token(ctx.qcd_secret, self.spi_i, self.spi_r));
        // What a packet asked for, or there was before, or else what is to be up from the start.
        let wanted = self
            .wanted
            .first()
            .map(|wanted| Arc::clone(&wanted.child))
            .or_else(|| self.reauth.as_ref()?.children.first().cloned());
        let first = peer
            .children
            .iter()
            .find(|child| wanted.as_ref().is_some_and(|wanted| *wanted == child.name))
            .or_else(|| peer.children.iter().find(|child| child.start == StartPolicy::Now))
            .or(peer.children.first());
        // RFC 7296 §2.19: an address is asked for beside the SA payload.
        let childless = peer.ike.childless && init.may_be_childless && peer.request.is_none();
        if let Some(first) = first.filter(|_| childless) {
            // Begins once the IKE SA is there.
            self.queue(Task::CreateChild(Arc::clone(&first.name)));
        }
        let first = first.filter(|_| !childless);
        let offer = first.and_then(|first| Policy::named(&peer, &first.name)).map(|policy| {
            let flow = self.take_wanted(&policy.name);
            let resource = Resource::of_first(&policy);
            Offer::new(ctx, self, policy, flow, resource)
        });
        let offer = match offer.transpose() {
            Ok(offer) => offer,
            Err(reason) => {
                self.close(ctx, reason);
                return;
            }
        };
        if let Some(offer) = &offer {
            // RFC 7296 §2.19: before the SA payload.
            payloads.extend(Self::configuration_request(ctx, &peer));
            payloads.extend(offer.payloads_for_auth());
        }
        payloads.extend(self.mobike_supported(&peer));
        ctx.events
            .push_back(Event::Progress { peer: Arc::clone(&peer.name), phase: Phase::IkeAuth });
        self.request(ctx, ExchangeType::IKE_AUTH, &payloads);
        let sent = AuthSent { init, offer, asking: None, initial_contact, unwanted: false };
        self.state = State::AuthSent(Box::new(sent));
    }

    /// Initiator: the answer.
    pub(in crate::ike) fn handle_auth_response(&mut self, ctx: &mut Ctx<'_>, payloads: &[Payload]) {
        let State::AuthSent(mut sent) = core::mem::replace(&mut self.state, State::Established)
        else {
            return;
        };
        let Some(peer) = self.peer.clone() else { return };
        if sent.unwanted {
            sent.forget_offer(ctx);
            self.terminate(ctx, CloseReason::Operator);
            return;
        }
        let parts = Parts::of(payloads);
        let is_first = sent.asking.is_none();
        if let (Some(Asking::Eap { .. }), Some(eap)) = (&sent.asking, parts.eap) {
            self.continue_asking(ctx, sent, eap);
            return;
        }
        let (id, auth) = match &sent.asking {
            None => (parts.id_r.cloned(), parts.auth),
            Some(Asking::Last { id_r, .. }) => (Some(id_r.clone()), parts.auth),
            Some(Asking::Eap { .. }) => (None, None),
        };
        let (Some(id), Some(auth)) = (id, auth) else {
            sent.forget_offer(ctx);
            let reason = match parts.error().map(|error| error.notify_type) {
                Some(NotifyType::AUTHENTICATION_FAILED) => CloseReason::AuthenticationRefused,
                Some(NotifyType::NO_PROPOSAL_CHOSEN) => CloseReason::NoProposal("IKE_SA"),
                Some(other) => CloseReason::PeerNotify(other),
                None => CloseReason::PeerMisbehaved("IKE_AUTH was answered without AUTH"),
            };
            self.close(ctx, reason);
            return;
        };
        if let Err(reason) = self.settle_ppk(&mut sent.init, &peer, &parts) {
            sent.forget_offer(ctx);
            self.reject(ctx, reason);
            return;
        }
        let got = identity::from_wire(&id);
        let checked = match &sent.asking {
            Some(Asking::Last { msk, .. }) => {
                let good = self.is_by_msk(&sent.init, msk, &id, auth);
                let other = EapFault::Malformed("its AUTH is by another MSK");
                if good { Ok(()) } else { Err(CloseReason::Eap(other)) }
            }
            Some(Asking::Eap { .. }) | None => {
                match peer.peer_id.as_ref().filter(|expected| !expected.is_same(&got)) {
                    Some(expected) => {
                        let (expected, got) = (expected.clone(), got.clone());
                        Err(CloseReason::IdentityMismatch { expected, got })
                    }
                    None => self.proved(ctx, &sent.init, &[&peer], &parts, &id).map(drop),
                }
            }
        };
        if let Err(reason) = checked {
            sent.forget_offer(ctx);
            self.reject(ctx, reason);
            return;
        }
        self.peer_identity = Some(got);
        if is_first && (parts.eap.is_some() || matches!(peer.auth.local, LocalAuth::Eap(_))) {
            match parts.eap {
                Some(eap) => self.begin_asking(ctx, sent, &peer, &id, eap),
                None => {
                    sent.forget_offer(ctx);
                    let reason = CloseReason::PeerMisbehaved("it did not ask for EAP");
                    self.reject(ctx, reason);
                }
            }
            return;
        }
        if let Err(reason) = self.take_configuration(ctx, &peer, &parts) {
            // RFC 7296 §3.15.4: what the responder has made is of no use.
            sent.forget_offer(ctx);
            self.terminate(ctx, reason);
            return;
        }
        self.agree_on_mobike(&peer, &parts);
        let AuthSent { init, offer, initial_contact, .. } = *sent;
        ctx.events.push_back(Event::Progress {
            peer: Arc::clone(&peer.name),
            phase: Phase::Authenticated,
        });
        if initial_contact {
            self.forget_replaced(ctx);
        }
        self.conclude_ppk(&init, &peer);
        self.note_authentication(ctx, &peer);
        self.heed_auth_lifetime(ctx, &parts);
        self.take_token(&parts);
        self.establish(ctx, None);
        if let Some(offer) = offer {
            self.conclude_auth_child(ctx, offer, &init, &parts);
        }
        self.queue_missing_children();
        self.go_on_with_reauth();
    }

    /// The initiator could not authenticate the responder, which believes to have an SA: it is told (RFC 7296 §2.21.2).
    pub(super) fn reject(&mut self, ctx: &mut Ctx<'_>, reason: CloseReason) {
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
        let mut awaited = awaited;
        if let Some(serving) = awaited.serving.take() {
            self.continue_serving(ctx, header, awaited, serving, payloads);
            return;
        }
        let candidates = core::mem::take(&mut awaited.candidates);
        let parts = Parts::of(payloads);
        let Some(id_i) = parts.id_i else { return };
        let who = identity::from_wire(id_i);
        let fitting = ctx.peers.fitting(&candidates, self.path, &who);
        let fits = |peer: &&Arc<Peer>| {
            parts.id_r.is_none_or(|id_r| identity::from_wire(id_r).is_same(&peer.local_id))
        };
        let mut matching: Vec<_> = fitting.iter().filter(fits).collect();
        // Who is named goes before who takes anybody; of several, the key decides.
        matching.sort_by_key(|peer| peer.peer_id.is_none());
        matching.truncate(limits::MAX_AUTH_CANDIDATES);
        if parts.auth.is_none() && !matching.is_empty() {
            self.begin_serving(ctx, header, awaited, &matching, payloads);
            return;
        }
        let proved = self.proved(ctx, &awaited.init, &matching, &parts, id_i);
        let (proved, mixed) = match proved {
            Ok((peer, mixed)) => (Ok(peer), mixed),
            Err(reason) => (Err(reason), None),
        };
        if let Some(mixed) = mixed {
            awaited.init.ppk = PpkUse::Mixed(mixed);
        }
        let init = &awaited.init;
        let matching = proved.as_ref().ok().or(matching.first()).copied();
        // RFC 7296 §2.21.2: one answer, whatever failed, so that nobody can learn which identities exist.
        let Some(peer) = matching.cloned() else {
            warn!(remote = %self.path.remote, id = %who, wanted = ?parts.id_r.map(identity::from_wire), "no peer is configured with these identities");
            if let Some(only) = ctx.peers.only(&candidates) {
                self.peer = Some(Arc::clone(only));
                let reason = only
                    .peer_id
                    .clone()
                    .filter(|expected| !expected.is_same(&who))
                    .map_or(CloseReason::AuthenticationRefused, |expected| {
                        CloseReason::IdentityMismatch { expected, got: who.clone() }
                    });
                self.fail_auth(ctx, header, reason);
            } else {
                self.fail_auth(ctx, header, CloseReason::AuthenticationRefused);
            }
            return;
        };
        let wrong = proved.err();
        self.peer = Some(Arc::clone(&peer));
        if let Some(reason) = wrong {
            warn!(peer = %peer.name, remote = %self.path.remote, %reason, "AUTH does not hold");
            self.fail_auth(ctx, header, reason);
            return;
        }
        if (self.nat.local || self.nat.peer) && peer.ike.encap == EncapPolicy::None {
            self.fail_auth(ctx, header, CloseReason::NatForbidden);
            return;
        }
        let id_r = identity::to_wire(&peer.local_id);
        let asked = Asked::in_message(&parts);
        let (certs, ours) = match self.prove(ctx, init, &peer, &id_r, &asked) {
            Ok(proof) => proof,
            Err(reason) => {
                warn!(peer = %peer.name, %reason, "no AUTH of our own");
                self.fail_auth(ctx, header, reason);
                return;
            }
        };
        let mut proof = vec![Payload::IdR(id_r)];
        proof.extend(certs);
        proof.push(ours);
        proof.extend(Self::ppk_answer(init));
        self.accept(ctx, header, init, &peer, who, &parts, proof);
    }

    /// Responder: the initiator is who it says. `parts` has what it offers, `proof` is what goes before the answer to that.
    #[expect(clippy::too_many_arguments, reason = "all that two ways of authentication end with")]
    pub(super) fn accept(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        init: &InitDone,
        peer: &Arc<Peer>,
        who: Identity,
        parts: &Parts<'_>,
        proof: Vec<Payload>,
    ) {
        self.how = crate::ike::window::Retransmission::of(&peer.ike);
        self.peer_identity = Some(who);
        if peer.ike.mobike && self.has_unexpected_nat(parts) {
            // RFC 4555 §3.9.
            let answer = [notify(NotifyType::UNEXPECTED_NAT_DETECTED, &[])];
            self.fail_auth_with(ctx, header, &answer, CloseReason::NatForbidden);
            return;
        }
        if !self.may_have_another(ctx, peer, parts) {
            warn!(peer = %peer.name, remote = %self.path.remote, "the peer has an IKE_SA from another address, which is kept");
            self.fail_auth(ctx, header, CloseReason::NotUnique);
            return;
        }
        self.agree_on_mobike(peer, parts);
        self.state = State::Established;
        self.note_authentication(ctx, peer);
        self.conclude_ppk(init, peer);
        self.take_token(parts);
        let configured = match self.answer_configuration(ctx, parts.cp) {
            // RFC 7296 §2.19: not fatal to the IKE SA.
            Err(_) if parts.sa.is_none() => Ok(None),
            other => other.map_err(Refusal::new),
        };
        self.establish(ctx, None);
        self.take_over_attempts(ctx, peer);

        let mut answer = proof;
        answer.extend(Self::auth_lifetime(peer));
        answer.extend(qcd::token(ctx.qcd_secret, self.spi_i, self.spi_r));
        if parts.sa.is_some() {
            let child = configured.and_then(|reply| {
                answer.extend(reply);
                let nonces = create_child::Nonces { i: &init.nonce_i, r: &init.nonce_r };
                self.answer_child(ctx, parts, &nonces)
            });
            match child {
                Ok(child) => answer.extend(self.install_answered(ctx, child, Occasion::IkeAuth)),
                Err(refusal) => {
                    // RFC 7296 §1.2: the IKE SA stands, the CHILD_SA does not.
                    debug!(peer = %peer.name, refusal = %refusal.notify, "no CHILD_SA with IKE_AUTH");
                    self.announce_child_failed(ctx, parts, refusal.notify);
                    answer.push(refusal.payload());
                }
            }
        }
        if self.mobike.is_some() {
            answer.extend(self.mobike_supported(peer));
        }
        self.respond(ctx, header.exchange, header.message_id, &answer);
    }

    pub(super) fn fail_auth(&mut self, ctx: &mut Ctx<'_>, header: &Header, reason: CloseReason) {
        let failed = notify(NotifyType::AUTHENTICATION_FAILED, &[]);
        self.fail_auth_with(ctx, header, &[failed], reason);
    }

    /// Responder: this answer, and the end.
    pub(super) fn fail_auth_with(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        answer: &[Payload],
        reason: CloseReason,
    ) {
        self.respond(ctx, header.exchange, header.message_id, answer);
        if self.peer.is_none() && reason.is_authentication() {
            self.announce_failure(ctx, reason.clone());
        }
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
                ppk = self.ppk, remote = %self.path.remote, rekeyed = from.is_some(), "IKE_SA established"
            );
            ctx.events.push_back(Event::IkeSaEstablished {
                peer: Arc::clone(&peer.name),
                status: Box::new(status),
                rekeyed_from: from,
            });
        }
        self.resolve_crossing(ctx);
    }

    /// The peer was faster: what we began with it and have not shown who we are in is not needed any more. What packets asked
    /// for there is asked for here.
    fn take_over_attempts(&mut self, ctx: &mut Ctx<'_>, peer: &Arc<Peer>) {
        let begun = |other: &&Self| {
            matches!(other.state, State::InitSent(_) | State::IntermediateSent(_))
                && other.peer.as_ref().is_some_and(|of| Arc::ptr_eq(of, peer))
        };
        let ids: Vec<_> =
            ctx.others.attempts_with(&peer.name).filter(begun).map(|other| other.id).collect();
        for id in ids {
            if let Some(mut other) = ctx.others.remove(&id) {
                let wanted = core::mem::take(&mut other.wanted);
                other.close(ctx, CloseReason::Replaced);
                ctx.put(other);
                wanted.into_iter().for_each(|wanted| self.acquire(wanted));
            }
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
        for wanted in core::mem::take(&mut self.wanted) {
            self.acquire(wanted);
        }
    }
}
