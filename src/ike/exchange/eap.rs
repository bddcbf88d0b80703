//! IKE_AUTH in several rounds (RFC 7296 §2.16): EAP for the initiator, a signature for the responder, and at last AUTH payloads
//! of both by the MSK.

use std::sync::Arc;

use tracing::{debug, warn};

use super::Parts;
use super::auth::{AuthSent, Awaited, Signed};
use super::ppk::{Claim, PpkUse};
use super::sa_init::InitDone;
use crate::crypto::Secret;
use crate::ike::cert::Asked;
use crate::ike::eap::{Client, ClientStep, EapFault, Server, ServerStep, UserName};
use crate::ike::event::CloseReason;
use crate::ike::identity;
use crate::ike::ike_sa::{Ctx, IkeSa, State};
use crate::ipsec::pad::{EncapPolicy, LocalAuth, Peer, PeerAuth};
use crate::wire::ike::eap::Eap;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{AuthMethod, ExchangeType, PayloadType};
use crate::wire::ike::payload::{Auth, Id, Payload};

/// What the initiator has besides, once the responder has proved who it is.
pub(in crate::ike) enum Asking {
    /// EAP goes on.
    Eap {
        /// Our side of it.
        client: Box<Client>,
        /// The responder's IDr.
        id_r: Id,
    },
    /// Our AUTH by the MSK is sent.
    Last {
        /// The MSK.
        msk: Secret,
        /// The responder's IDr.
        id_r: Id,
    },
}

/// What the responder has besides, once EAP has begun.
pub(in crate::ike) struct Serving {
    peer: Arc<Peer>,
    id_i: Id,
    id_r: Id,
    /// Of the first request: what the CHILD_SA is to be, and what it notified.
    offer: Vec<Payload>,
    stage: Stage,
}

enum Stage {
    Eap(Box<Server>),
    Last { msk: Secret, user: UserName },
}

/// The payloads without which the next message of IKE_AUTH means nothing.
pub(in crate::ike) fn needs(state: &State, payloads: &[Payload]) -> &'static [PayloadType] {
    const EAP: &[PayloadType] = &[PayloadType::EAP];
    const LAST: &[PayloadType] = &[PayloadType::AUTH];
    match state {
        State::InitAnswered(awaited) => match awaited.serving.as_ref().map(|s| &s.stage) {
            // RFC 7296 §2.16: without AUTH, EAP is wanted.
            None => &[PayloadType::ID_I],
            Some(Stage::Eap(_)) => EAP,
            Some(Stage::Last { .. }) => LAST,
        },
        State::AuthSent(sent) => match &sent.asking {
            None if payloads.iter().any(|payload| matches!(payload, Payload::Eap(_))) => {
                &[PayloadType::ID_R, PayloadType::AUTH, PayloadType::EAP]
            }
            None => &[PayloadType::ID_R, PayloadType::AUTH],
            Some(Asking::Eap { .. }) => EAP,
            Some(Asking::Last { .. }) => LAST,
        },
        State::InitSent(_)
        | State::IntermediateSent(_)
        | State::Established
        | State::Replaced
        | State::Deleting
        | State::Closed(_) => &[],
    }
}

impl IkeSa {
    // Initiator.

    /// The responder has proved who it is, and asks for EAP.
    pub(super) fn begin_asking(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut sent: Box<AuthSent>,
        peer: &Peer,
        id_r: &Id,
        eap: &Eap,
    ) {
        let LocalAuth::Eap(setup) = &peer.auth.local else {
            self.give_up_eap(
                ctx,
                &sent,
                CloseReason::PeerMisbehaved("it asked for EAP after our AUTH"),
            );
            return;
        };
        let authority = match &peer.auth.peer {
            PeerAuth::Signature(authority) => Some(Arc::clone(authority)),
            PeerAuth::Eap(_) | PeerAuth::Psk(_) => None,
        };
        let server = identity::from_wire(id_r);
        let now = ctx.wall_clock.since_1970();
        let client = Client::new(Arc::clone(setup), authority, server, now);
        sent.asking = Some(Asking::Eap { client: Box::new(client), id_r: id_r.clone() });
        self.continue_asking(ctx, sent, eap);
    }

    /// The next message of EAP.
    pub(super) fn continue_asking(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut sent: Box<AuthSent>,
        eap: &Eap,
    ) {
        let Some(Asking::Eap { mut client, id_r }) = sent.asking.take() else { return };
        let payloads = match client.handle(eap, ctx.rng) {
            Ok(ClientStep::Respond(response)) => {
                sent.asking = Some(Asking::Eap { client, id_r });
                vec![Payload::Eap(response)]
            }
            Ok(ClientStep::Succeeded(msk)) => {
                let proof = self.prove_by_msk(&mut sent.init, &msk);
                let Some(proof) = proof else {
                    self.give_up_eap(ctx, &sent, CloseReason::CannotSign("the IKE_SA has no keys"));
                    return;
                };
                sent.asking = Some(Asking::Last { msk, id_r });
                proof
            }
            Err(fault) => {
                self.give_up_eap(ctx, &sent, CloseReason::Eap(fault));
                return;
            }
        };
        self.request(ctx, ExchangeType::IKE_AUTH, &payloads);
        self.state = State::AuthSent(sent);
    }

    /// AUTH of the last round, and what goes with it if there is a PPK (RFC 8784 §3: it is named where AUTH is).
    fn prove_by_msk(&self, init: &mut InitDone, msk: &Secret) -> Option<Vec<Payload>> {
        let peer = self.peer.clone()?;
        self.mix_ppk(init, &peer)?;
        let id = identity::to_wire(&peer.local_id);
        let auth = self.auth_by_msk(init, msk, &id)?;
        let plain = |signed: &Signed<'_>| {
            let data = signed.psk(msk, &id).map(|data| data.expose().to_vec());
            data.ok_or(CloseReason::CannotSign("the IKE_SA has no keys"))
        };
        let notifies = self.ppk_notifies(init, &peer, plain).ok()?;
        Some([vec![auth], notifies].concat())
    }

    /// AUTH of the last round: whether the responder has the same MSK.
    pub(super) fn is_by_msk(&self, init: &InitDone, msk: &Secret, id_r: &Id, auth: &Auth) -> bool {
        let expected = self.signed(init, false).and_then(|signed| signed.psk(msk, id_r));
        auth.method == AuthMethod::SHARED_KEY_MIC && expected == Some(Secret::copy_of(&auth.data))
    }

    /// Ends the attempt. The responder has no IKE SA yet, so there is none to delete.
    fn give_up_eap(&mut self, ctx: &mut Ctx<'_>, sent: &AuthSent, reason: CloseReason) {
        sent.forget_offer(ctx);
        self.close(ctx, reason);
    }

    // Responder.

    /// A first request without AUTH: EAP is wanted (RFC 7296 §2.16).
    pub(super) fn begin_serving(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        mut awaited: Box<Awaited>,
        matching: &[&Arc<Peer>],
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        let Some(id_i) = parts.id_i else { return };
        let who = identity::from_wire(id_i);
        let found = matching.iter().find_map(|peer| match &peer.auth.peer {
            PeerAuth::Eap(setup) => Some((Arc::clone(peer), Arc::clone(setup))),
            PeerAuth::Psk(_) | PeerAuth::Signature(_) => None,
        });
        let Some((peer, setup)) = found else {
            warn!(remote = %self.path.remote, id = %who, "no peer with this identity is to use EAP");
            self.peer = matching.first().map(|peer| Arc::clone(peer));
            self.fail_auth(ctx, header, CloseReason::Eap(EapFault::Unwanted));
            return;
        };
        self.peer = Some(Arc::clone(&peer));
        if (self.nat.local || self.nat.peer) && peer.ike.encap == EncapPolicy::None {
            self.fail_auth(ctx, header, CloseReason::NatForbidden);
            return;
        }
        let id_r = identity::to_wire(&peer.local_id);
        let asked = Asked::in_message(&parts);
        let (certs, auth) = match self.prove(ctx, &awaited.init, &peer, &id_r, &asked) {
            Ok(proof) => proof,
            Err(reason) => {
                warn!(peer = %peer.name, %reason, "no AUTH of our own");
                self.fail_auth(ctx, header, reason);
                return;
            }
        };
        let credential = match &peer.auth.local {
            LocalAuth::Signature(all) => all.iter().find(|c| !c.chain().is_empty()).cloned(),
            LocalAuth::Eap(_) | LocalAuth::Psk(_) => None,
        };
        let is_fixed = peer.peer_id.is_some();
        let now = ctx.wall_clock.since_1970();
        let (server, request) = Server::begin(setup, credential, who, is_fixed, now, ctx.rng);
        let mut answer = vec![Payload::IdR(id_r.clone())];
        answer.extend(certs);
        answer.extend([auth, Payload::Eap(request)]);
        let is_offer = |payload: &&Payload| {
            matches!(
                payload,
                Payload::Sa(_)
                    | Payload::TsI(_)
                    | Payload::TsR(_)
                    | Payload::Notify(_)
                    | Payload::Cp(_)
            )
        };
        awaited.serving = Some(Box::new(Serving {
            peer,
            id_i: id_i.clone(),
            id_r,
            offer: payloads.iter().filter(is_offer).cloned().collect(),
            stage: Stage::Eap(Box::new(server)),
        }));
        self.state = State::InitAnswered(awaited);
        self.respond(ctx, header.exchange, header.message_id, &answer);
    }

    /// A further request of IKE_AUTH.
    pub(super) fn continue_serving(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        mut awaited: Box<Awaited>,
        mut serving: Box<Serving>,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        match (serving.stage, parts.eap, parts.auth) {
            (Stage::Eap(mut server), Some(eap), _) => {
                let (stage, answer) = match server.handle(eap, ctx.rng) {
                    ServerStep::Request(request) => (Stage::Eap(server), request),
                    ServerStep::Succeeded { success, msk, user } => {
                        (Stage::Last { msk, user }, success)
                    }
                    ServerStep::Failed(failure, fault) => {
                        let reason = CloseReason::Eap(fault);
                        warn!(peer = %serving.peer.name, remote = %self.path.remote, %reason, "EAP failed");
                        self.fail_auth_with(ctx, header, &[Payload::Eap(failure)], reason);
                        return;
                    }
                };
                serving.stage = stage;
                awaited.serving = Some(serving);
                self.state = State::InitAnswered(awaited);
                self.respond(ctx, header.exchange, header.message_id, &[Payload::Eap(answer)]);
            }
            (Stage::Last { msk, user }, _, Some(auth)) => {
                let claim = self.claim(&awaited.init, &serving.peer, auth, &parts);
                let Claim { signed, data, mixed } = match claim {
                    Ok(claim) => claim,
                    Err(reason) => {
                        warn!(peer = %serving.peer.name, remote = %self.path.remote, %reason, "AUTH does not hold");
                        self.fail_auth(ctx, header, reason);
                        return;
                    }
                };
                let expected = signed.psk(&msk, &serving.id_i);
                let good = auth.method == AuthMethod::SHARED_KEY_MIC
                    && expected == Some(Secret::copy_of(data));
                if let Some(mixed) = mixed {
                    awaited.init.ppk = PpkUse::Mixed(mixed);
                }
                let ours = self.auth_by_msk(&awaited.init, &msk, &serving.id_r);
                let Some(ours) = ours.filter(|_| good) else {
                    warn!(peer = %serving.peer.name, remote = %self.path.remote, "AUTH does not hold");
                    let reason =
                        CloseReason::Eap(EapFault::Malformed("its AUTH is by another MSK"));
                    self.fail_auth(ctx, header, reason);
                    return;
                };
                debug!(peer = %serving.peer.name, %user, "authenticated by EAP");
                self.eap_identity = Some(user);
                let who = identity::from_wire(&serving.id_i);
                let parts = Parts::of(&serving.offer);
                let mut proof = vec![ours];
                proof.extend(Self::ppk_answer(&awaited.init));
                self.accept(ctx, header, &awaited.init, &serving.peer, who, &parts, proof);
            }
            // What is needed has been looked at before.
            (Stage::Eap(_) | Stage::Last { .. }, _, _) => {}
        }
    }

    fn auth_by_msk(&self, init: &InitDone, msk: &Secret, id: &Id) -> Option<Payload> {
        let data = self.signed(init, self.initiator)?.psk(msk, id)?.expose().to_vec();
        Some(Payload::Auth(Auth { method: AuthMethod::SHARED_KEY_MIC, data }))
    }
}
