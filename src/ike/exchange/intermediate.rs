//! IKE_INTERMEDIATE (RFC 9242): between IKE_SA_INIT and IKE_AUTH, one exchange for each additional key exchange that was agreed
//! on (RFC 9370 §2.2.2). Nobody is authenticated yet; IKE_AUTH authenticates these messages, too.

use super::sa_init::InitDone;
use super::{Parts, notify};
use crate::crypto::dh::{self, KeyPair};
use crate::ike::event::{CloseReason, Event, Phase};
use crate::ike::ike_sa::{Ctx, IkeSa, Session, State};
use crate::ike::protect::Content;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{ExchangeType, NotifyType};
use crate::wire::ike::payload::{Ke, Payload};

/// What the initiator keeps between request and response.
pub(in crate::ike) struct IntermediateSent {
    init: InitDone,
    key: KeyPair,
}

impl IkeSa {
    // Initiator.

    /// The next additional key exchange or, when all are done, IKE_AUTH.
    pub(super) fn after_init(&mut self, ctx: &mut Ctx<'_>, mut init: InitDone) {
        let Some(method) = init.additional.pop_front() else {
            self.send_auth(ctx, init);
            return;
        };
        let (Some(peer), Some(id)) = (self.peer.clone(), self.requests.next_id()) else { return };
        let Some(key) = KeyPair::generate(method, ctx.rng) else {
            self.close(ctx, CloseReason::NoProposal("IKE_SA"));
            return;
        };
        let payloads = [Payload::Ke(Ke { group: method, data: key.public().to_vec() })];
        let header = self.header(ExchangeType::IKE_INTERMEDIATE, false, id);
        self.authenticate(&mut init, &header, &Content::of(&payloads));
        let phase = Phase::IkeIntermediate(method);
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
        let parts = Parts::of(payloads);
        let Some(ke) = parts.ke.filter(|ke| ke.group == key.group()) else {
            // RFC 9242 §3.4: errors are handled as in IKE_SA_INIT, but this one comes from who has the keys.
            let reason = match parts.error().map(|error| error.notify_type) {
                Some(NotifyType::NO_PROPOSAL_CHOSEN) => CloseReason::NoProposal("IKE_SA"),
                Some(other) => CloseReason::PeerNotify(other),
                None => CloseReason::PeerMisbehaved("it answered another key exchange"),
            };
            self.close(ctx, reason);
            return;
        };
        let Ok(shared) = key.agree(&ke.data) else {
            self.close(ctx, CloseReason::PeerMisbehaved("it sent a bad key exchange value"));
            return;
        };
        self.authenticate(&mut init, header, content);
        if self.next_keys(ctx, &mut init, &shared).is_none() {
            self.close(ctx, CloseReason::NoProposal("IKE_SA"));
            return;
        }
        self.after_init(ctx, init);
    }

    // Responder.

    /// Responder: the next additional key exchange.
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
        let method = awaited.init.additional.pop_front();
        let response = parts
            .ke
            .filter(|ke| Some(ke.group) == method)
            .and_then(|ke| dh::respond(ke.group, &ke.data, ctx.rng))
            .and_then(Result::ok);
        let (Some(method), Some(response)) = (method, response) else {
            // RFC 7296 §2.21.1: no IKE SA comes of it. Only who has the keys can bring that about.
            let refusal = [notify(NotifyType::INVALID_SYNTAX, &[])];
            self.respond(ctx, header.exchange, header.message_id, &refusal);
            self.closed(ctx);
            return;
        };
        self.authenticate(&mut awaited.init, header, content);
        let payloads = [Payload::Ke(Ke { group: method, data: response.public })];
        let answer = self.header(header.exchange, true, header.message_id);
        self.authenticate(&mut awaited.init, &answer, &Content::of(&payloads));
        // RFC 9242 §3.3.1: the keys that were there before protect the response, too.
        self.respond(ctx, header.exchange, header.message_id, &payloads);
        if self.next_keys(ctx, &mut awaited.init, &response.shared).is_some() {
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

    /// The keys that protect everything from the next exchange on.
    fn next_keys(
        &mut self,
        ctx: &mut Ctx<'_>,
        init: &mut InitDone,
        shared: &crate::crypto::Secret,
    ) -> Option<()> {
        let suite = self.session.as_ref()?.suite;
        let (nonce_i, nonce_r) = (&init.nonce_i, &init.nonce_r);
        init.keys = init.keys.next(suite, nonce_i, nonce_r, self.spi_i, self.spi_r, shared)?;
        let next = Session::new(suite, &init.keys, self.initiator)?;
        ctx.export(self.spi_i, self.spi_r, suite, &init.keys);
        let old = self.session.replace(next)?;
        if let Some(session) = &mut self.session {
            session.previous = Some(old.inbound);
        }
        Some(())
    }
}
