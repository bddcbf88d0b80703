//! [`State`]: in what an endpoint can find itself when a datagram comes.

use std::sync::Arc;

use super::{Stage, eap, exchanges};
use crate::ike::Command;
use crate::wire::ike::numbers::{ExchangeType, NotifyType};
use crate::wire::ike::payload::{Delete, Notify, Payload};

/// In what an endpoint can find itself when a datagram comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It knows its peer, nothing more.
    Idle,
    /// It has answered IKE_SA_INIT.
    HalfOpen,
    /// It has sent IKE_SA_INIT.
    InitSent,
    /// It has sent IKE_AUTH.
    AuthSent,
    /// It has sent its EAP identity.
    EapAsking,
    /// It has asked for an EAP password.
    EapServing,
    /// It has answered IKE_AUTH.
    EstablishedResponder,
    /// It has got its answer to IKE_AUTH.
    EstablishedInitiator,
    /// Its request to rekey the CHILD_SA is on the way.
    ChildRekeySent,
    /// Its request to rekey the IKE SA is on the way.
    IkeRekeySent,
    /// Its request to delete the IKE SA is on the way.
    DeleteSent,
    /// It has sent IKE_INTERMEDIATE.
    IntermediateSent,
    /// It waits for the first of two IKE_INTERMEDIATE.
    IntermediateAwaited,
    /// It waits for the second.
    IntermediateHalfDone,
    /// It has got a COOKIE, and sent IKE_SA_INIT again.
    CookieReturned,
    /// It has got a puzzle with its COOKIE.
    PuzzleGiven,
    /// It has sent IKE_FOLLOWUP_KE for a CHILD_SA.
    FollowupSent,
    /// It waits for IKE_FOLLOWUP_KE.
    FollowupAwaited,
    /// Its CHILD_SA is in transport mode.
    EstablishedTransport,
    /// Its CHILD_SA is of AH.
    EstablishedAh,
    /// It has no CHILD_SA.
    EstablishedChildless,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 21] = [
        Self::Idle,
        Self::HalfOpen,
        Self::InitSent,
        Self::AuthSent,
        Self::EapAsking,
        Self::EapServing,
        Self::EstablishedResponder,
        Self::EstablishedInitiator,
        Self::ChildRekeySent,
        Self::IkeRekeySent,
        Self::DeleteSent,
        Self::IntermediateSent,
        Self::IntermediateAwaited,
        Self::IntermediateHalfDone,
        Self::CookieReturned,
        Self::PuzzleGiven,
        Self::FollowupSent,
        Self::FollowupAwaited,
        Self::EstablishedTransport,
        Self::EstablishedAh,
        Self::EstablishedChildless,
    ];

    /// Those with an established IKE SA.
    pub const ESTABLISHED: [Self; 10] = [
        Self::EstablishedResponder,
        Self::EstablishedInitiator,
        Self::ChildRekeySent,
        Self::IkeRekeySent,
        Self::DeleteSent,
        Self::FollowupSent,
        Self::FollowupAwaited,
        Self::EstablishedTransport,
        Self::EstablishedAh,
        Self::EstablishedChildless,
    ];

    /// Whether there is an IKE SA whose state unauthenticated datagrams must not change.
    #[must_use]
    pub fn is_established(self) -> bool {
        Self::ESTABLISHED.contains(&self)
    }

    /// An endpoint in this state, and real datagrams for it: those of its IKE SA so far, of both directions, and
    /// protected ones that its peer could send next. `None` if it does not come to that.
    #[must_use]
    pub fn stage(self, seed: u64) -> Option<(Stage, Vec<Vec<u8>>)> {
        match self {
            Self::Idle => {
                let mut stage = Stage::responder(seed);
                let payloads = stage.puppet.init_payloads();
                let request = stage.puppet.init_request(payloads);
                Some((stage, vec![request]))
            }
            Self::HalfOpen => {
                let mut stage = Stage::responder(seed);
                let payloads = stage.puppet.init_payloads();
                let mut corpus = vec![stage.puppet.init_request(payloads)];
                let response = stage.give(corpus.first()?);
                stage.puppet.read_init_response(response.first()?)?;
                corpus.extend(response);
                let payloads = stage.puppet.auth_payloads()?;
                corpus.extend(fragments(&mut stage, ExchangeType::IKE_AUTH, false, 1, &payloads)?);
                corpus.push(stage.puppet.request(ExchangeType::IKE_AUTH, &payloads)?);
                Some((stage, corpus))
            }
            Self::InitSent => {
                let (mut stage, request) = Stage::initiator(seed);
                stage.puppet.read_init_request(&request)?;
                let response = stage.puppet.init_response()?;
                Some((stage, vec![response, request]))
            }
            Self::AuthSent => {
                let (mut stage, mut corpus) = Self::InitSent.stage(seed)?;
                let auth = stage.give(corpus.first()?);
                let inside = stage.puppet.open(auth.first()?)?;
                let payloads = stage.puppet.auth_response_payloads(&inside)?;
                corpus.extend(fragments(&mut stage, ExchangeType::IKE_AUTH, true, 1, &payloads)?);
                corpus.push(stage.puppet.seal(ExchangeType::IKE_AUTH, true, 1, &payloads)?);
                corpus.extend(auth);
                Some((stage, corpus))
            }
            Self::EapAsking => eap::asking(seed),
            Self::EapServing => eap::serving(seed),
            Self::EstablishedResponder => with_requests(Stage::established_responder(seed)?),
            Self::EstablishedInitiator => with_requests(Stage::established_initiator(seed)?),
            Self::ChildRekeySent => busy(seed, |peer| Command::RekeyChildren { peer }),
            Self::IkeRekeySent => busy(seed, |peer| Command::RekeyIke { peer }),
            Self::DeleteSent => busy(seed, |peer| Command::Terminate { peer }),
            Self::IntermediateSent => exchanges::intermediate_sent(seed),
            Self::IntermediateAwaited => exchanges::intermediate_awaited(seed),
            Self::IntermediateHalfDone => exchanges::intermediate_half_done(seed),
            Self::CookieReturned => exchanges::cookie_returned(seed),
            Self::PuzzleGiven => exchanges::puzzle_given(seed),
            Self::FollowupSent => exchanges::followup_sent(seed),
            Self::FollowupAwaited => exchanges::followup_awaited(seed),
            Self::EstablishedTransport => with_requests(exchanges::transport(seed)?),
            Self::EstablishedAh => with_requests(exchanges::ah(seed)?),
            Self::EstablishedChildless => with_requests(exchanges::childless(seed)?),
        }
    }
}

impl Stage {
    /// What the puppet could say in an established IKE SA.
    #[must_use]
    pub fn bodies(&mut self) -> Vec<(ExchangeType, Vec<Payload>)> {
        let old = self.puppet.esp_spi.to_be_bytes();
        let protocol = self.puppet.child_proposal.protocol.id();
        let rekey = Notify::for_sa(protocol, old, NotifyType::REKEY_SA);
        let offer = self.puppet.child_offer();
        let mut rekey_child = vec![Payload::Notify(rekey), self.puppet.fresh_nonce()];
        rekey_child.extend(offer.clone());
        let mut new_child = vec![self.puppet.fresh_nonce()];
        new_child.extend(offer);
        let mut rekey_ike = self.puppet.init_payloads();
        for payload in &mut rekey_ike {
            if let Payload::Sa(sa) = payload {
                sa.proposals.iter_mut().for_each(|proposal| proposal.spi = vec![9; 8]);
            }
        }
        vec![
            (ExchangeType::CREATE_CHILD_SA, rekey_child),
            (ExchangeType::CREATE_CHILD_SA, new_child),
            (ExchangeType::CREATE_CHILD_SA, rekey_ike),
            (ExchangeType::INFORMATIONAL, vec![]),
            (ExchangeType::INFORMATIONAL, vec![Payload::Delete(Delete::of(protocol, [old]))]),
            (ExchangeType::INFORMATIONAL, vec![Payload::Delete(Delete::ike())]),
            (
                ExchangeType::INFORMATIONAL,
                vec![Payload::Notify(Notify::new(NotifyType::INVALID_SPI, old))],
            ),
        ]
    }
}

fn busy(seed: u64, command: fn(Arc<str>) -> Command) -> Option<(Stage, Vec<Vec<u8>>)> {
    let mut stage = Stage::established_responder(seed)?;
    let sent = stage.command(command(Arc::from("a")));
    let (stage, mut corpus) = with_requests(stage)?;
    corpus.extend(sent);
    Some((stage, corpus))
}

pub(super) fn with_requests(mut stage: Stage) -> Option<(Stage, Vec<Vec<u8>>)> {
    let mut corpus = Vec::new();
    for (exchange, payloads) in stage.bodies() {
        for (response, message_id) in [(false, stage.puppet.message_id), (true, 0)] {
            corpus.push(stage.puppet.seal(exchange, response, message_id, &payloads)?);
            corpus.extend(fragments(&mut stage, exchange, response, message_id, &payloads)?);
        }
    }
    Some((stage, corpus))
}

/// The same message in fragments, if it is not too short for that.
pub(super) fn fragments(
    stage: &mut Stage,
    exchange: ExchangeType,
    response: bool,
    message_id: u32,
    payloads: &[Payload],
) -> Option<Vec<Vec<u8>>> {
    let header = stage.puppet.header(exchange, response, message_id);
    stage.puppet.seal_in_fragments(header, payloads, 120)
}
