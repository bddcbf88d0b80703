//! IKE_INTERMEDIATE (RFC 9242): between IKE_SA_INIT and IKE_AUTH, one exchange for each additional key exchange that was agreed
//! on (RFC 9370 §2.2.2), and with the last of them, or alone, for a post-quantum preshared key (RFC 9867 §3.1). Nobody is authenticated yet; IKE_AUTH authenticates these messages, too.

use super::ppk::{PpkUse, ppk_identity};
use super::sa_init::InitDone;
use super::{Parts, notify};
use crate::crypto::Secret;
use crate::crypto::dh::{self, KeyPair};
use crate::ike::announce;
use crate::ike::event::{CloseReason, Event, Phase};
use crate::ike::ike_sa::{Ctx, IkeSa, Session, State};
use crate::ike::protect::Content;
use crate::ipsec::pad::Ppk;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{ExchangeType, NotifyType, PayloadType};
use crate::wire::ike::payload::{Ke, Payload};

/// What the initiator keeps between request and response.
pub(in crate::ike) struct IntermediateSent {
    init: InitDone,
    /// Of the additional key exchange, if this one has one.
    key: Option<KeyPair>,
}

/// The payloads without which the next message of IKE_INTERMEDIATE means nothing.
pub(in crate::ike) fn needs(state: &State) -> &'static [PayloadType] {
    let has_key = match state {
        State::IntermediateSent(sent) => sent.key.is_some(),
        State::InitAnswered(awaited) => !awaited.init.additional.is_empty(),
        State::InitSent(_)
        | State::AuthSent(_)
        | State::Established
        | State::Replaced
        | State::Deleting
        | State::Closed(_) => false,
    };
    if has_key { &[PayloadType::KE] } else { &[] }
}

impl IkeSa {
    // Initiator.

    /// The next additional key exchange, with the last of them (or alone) the PPK, or, when all is done, IKE_AUTH.
    pub(super) fn after_init(&mut self, ctx: &mut Ctx<'_>, mut init: InitDone) {
        if !init.awaits_intermediate() {
            self.send_auth(ctx, init);
            return;
        }
        let (Some(peer), Some(id)) = (self.peer.clone(), self.requests.next_id()) else { return };
        let method = init.additional.pop_front();
        let key = method.map(|method| KeyPair::generate(method, ctx.rng));
        let Some(key) = key.map_or(Some(None), |key| key.map(Some)) else {
            self.close(ctx, CloseReason::NoProposal("IKE_SA"));
            return;
        };
        let mut payloads = Vec::new();
        payloads.extend(
            key.as_ref()
                .map(|key| Payload::Ke(Ke { group: key.group(), data: key.public().to_vec() })),
        );
        if names_ppk(&init) {
            payloads.extend(self.ppk_identity_key(&init, &peer));
        }
        let header = self.header(ExchangeType::IKE_INTERMEDIATE, false, id);
        self.authenticate(&mut init, &header, &Content::of(&payloads));
        let phase = method.map_or(Phase::IkeIntermediatePpk, Phase::IkeIntermediate);
        ctx.events.push_back(Event::Progress { peer: peer.name.clone(), phase });
        self.request(ctx, ExchangeType::IKE_INTERMEDIATE, &payloads);
        self.state = State::IntermediateSent(Box::new(IntermediateSent { init, key }));
    }

    /// Initiator: the answer.
    pub(in crate::ike) fn handle_intermediate_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        content: &Content,
        payloads: &[Payload],
    ) {
        // What fails below is announced as the end of an IKE SA that was being made.
        let State::IntermediateSent(sent) = core::mem::replace(&mut self.state, State::Established)
        else {
            return;
        };
        let IntermediateSent { mut init, key } = *sent;
        let taken = self.take_intermediate(&mut init, key.as_ref(), payloads);
        let (shared, ppk) = match taken {
            Ok(taken) => taken,
            Err(reason) => {
                self.close(ctx, reason);
                return;
            }
        };
        self.authenticate(&mut init, header, content);
        if self.next_keys(ctx, &mut init, shared.as_ref(), ppk).is_none() {
            self.close(ctx, CloseReason::NoProposal("IKE_SA"));
            return;
        }
        self.after_init(ctx, init);
    }

    /// The shared secret and the PPK that the answer leads to.
    fn take_intermediate(
        &self,
        init: &mut InitDone,
        key: Option<&KeyPair>,
        payloads: &[Payload],
    ) -> Result<(Option<Secret>, Option<Box<Ppk>>), CloseReason> {
        let parts = Parts::of(payloads);
        init.terms.asked.hear(&parts);
        // RFC 9242 §3.4: errors are handled as in IKE_SA_INIT, but this one comes from who has the keys.
        match parts.error().map(|error| error.notify_type) {
            Some(NotifyType::NO_PROPOSAL_CHOSEN) => return Err(CloseReason::NoProposal("IKE_SA")),
            Some(NotifyType::AUTHENTICATION_FAILED) => {
                return Err(CloseReason::AuthenticationRefused);
            }
            Some(other) => return Err(CloseReason::PeerNotify(other)),
            None => {}
        }
        let shared = match key {
            None => None,
            Some(key) => {
                let other = CloseReason::PeerMisbehaved("it answered another key exchange");
                let ke = parts.ke.filter(|ke| ke.group == key.group()).ok_or(other)?;
                let bad = CloseReason::PeerMisbehaved("it sent a bad key exchange value");
                Some(key.agree(&ke.data).map_err(|_| bad)?)
            }
        };
        let mut ppk = None;
        if let Some(peer) = self.peer.as_ref().filter(|_| names_ppk(init)) {
            ppk = Self::ppk_of_answer(peer, &parts)?;
            init.ppk = PpkUse::None;
        }
        Ok((shared, ppk))
    }

    // Responder.

    /// Responder: the next additional key exchange, and a PPK with the last one or alone.
    pub(in crate::ike) fn handle_intermediate_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        content: &Content,
        payloads: &[Payload],
    ) {
        let State::InitAnswered(mut awaited) =
            core::mem::replace(&mut self.state, State::Closed(ctx.now))
        else {
            return;
        };
        let parts = Parts::of(payloads);
        let mut answer = Vec::new();
        let mut shared = None;
        let method = awaited.init.additional.pop_front();
        if let Some(method) = method {
            let response = parts
                .ke
                .filter(|ke| ke.group == method)
                .and_then(|ke| dh::respond(ke.group, &ke.data, ctx.rng))
                .and_then(Result::ok);
            let Some(response) = response else {
                // RFC 7296 §2.21.1: no IKE SA comes of it. Only who has the keys can bring that about.
                let refusal = [notify(NotifyType::INVALID_SYNTAX, &[])];
                self.respond(ctx, header.exchange, header.message_id, &refusal);
                self.closed(ctx);
                return;
            };
            answer.push(Payload::Ke(Ke { group: method, data: response.public }));
            shared = Some(response.shared);
        }
        let mut ppk = None;
        let is_named = parts.notify(NotifyType::PPK_IDENTITY_KEY).is_some();
        // It may come in an exchange of its own after the last key exchange; there is one at most.
        if names_ppk(&awaited.init) && (is_named || method.is_none()) {
            ppk = self.ppk_by_key(&awaited.init, &awaited.candidates, &parts);
            answer.extend(ppk.as_deref().map(ppk_identity));
            awaited.init.ppk = PpkUse::None;
        }
        answer.extend(awaited.init.to_announce.take().as_deref().map(announce::payload));
        self.authenticate(&mut awaited.init, header, content);
        let answered = self.header(header.exchange, true, header.message_id);
        self.authenticate(&mut awaited.init, &answered, &Content::of(&answer));
        // RFC 9242 §3.3.1: the keys that were there before protect the response, too.
        self.respond(ctx, header.exchange, header.message_id, &answer);
        if self.next_keys(ctx, &mut awaited.init, shared.as_ref(), ppk).is_some() {
            self.state = State::InitAnswered(awaited);
        }
    }

    // Both.

    /// Notes a message of this exchange for IKE_AUTH (RFC 9242 §3.3.2): with the keys of its own generation.
    fn authenticate(&self, init: &mut InitDone, header: &Header, content: &Content) {
        let Some(session) = self.session.as_ref() else { return };
        let keys = &init.keys;
        let sk_p = if header.flags.initiator { &keys.sk_pi } else { &keys.sk_pr };
        init.int_auth.add(session.suite.prf, sk_p, header, content);
    }

    /// The keys that protect everything from the next exchange on: after a key exchange, a PPK, or both in this order (RFC 9867
    /// §3.1).
    fn next_keys(
        &mut self,
        ctx: &mut Ctx<'_>,
        init: &mut InitDone,
        shared: Option<&Secret>,
        ppk: Option<Box<Ppk>>,
    ) -> Option<()> {
        if shared.is_none() && ppk.is_none() {
            return Some(());
        }
        let suite = self.session.as_ref()?.suite;
        let (nonce_i, nonce_r) = (&init.nonce_i, &init.nonce_r);
        let (spi_i, spi_r) = (self.spi_i, self.spi_r);
        if let Some(shared) = shared {
            init.keys = init.keys.next(suite, nonce_i, nonce_r, spi_i, spi_r, shared)?;
        }
        if let Some(ppk) = ppk {
            init.keys = init.keys.next_by_ppk(suite, nonce_i, nonce_r, spi_i, spi_r, &ppk.key)?;
            init.ppk = PpkUse::Through(ppk);
        }
        let next = Session::new(suite, &init.keys, self.initiator)?;
        ctx.export(self.spi_i, self.spi_r, suite, &init.keys);
        let old = self.session.replace(next)?;
        if let Some(session) = &mut self.session {
            session.previous = Some(old.inbound);
        }
        Some(())
    }
}

/// Whether the exchange at hand is the one for the PPK: the last one.
fn names_ppk(init: &InitDone) -> bool {
    init.additional.is_empty() && matches!(init.ppk, PpkUse::InIntermediate)
}
