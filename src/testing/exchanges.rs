//! Endpoints in the middle of exchanges that not every IKE SA has, for [`State`](super::State): IKE_INTERMEDIATE, IKE_FOLLOWUP_KE,
//! COOKIE and puzzle; and with CHILD_SAs other than ESP in tunnel mode. The first datagram of each is the one that takes it further.

use super::state::{fragments, with_requests};
use super::{Stage, peers};
use crate::crypto::dh::{KeyPair, respond};
use crate::ike::Command;
use crate::ipsec::pad::Peer;
use crate::ipsec::suite::Protocol;
use crate::ipsec::{Mode, TrafficSelector};
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, IntegId, KeId, NotifyType, PrfId};
use crate::wire::ike::payload::{Ke, Notify, Payload};

type Found = Option<(Stage, Vec<Vec<u8>>)>;

/// Bits of the puzzle that is given: some thousand tries.
const PUZZLE_BITS: u8 = 12;

/// The first additional key exchange, and the second where there are two.
const METHODS: [KeId; 2] = [KeId::ML_KEM_512, KeId::ECP_256];

fn with_additional(mut peer: Peer, count: usize) -> Peer {
    for proposal in &mut peer.ike.proposals {
        for (addke, method) in proposal.addke.iter_mut().zip(METHODS).take(count) {
            *addke = vec![method];
        }
    }
    peer
}

fn ke(group: KeId, data: &[u8]) -> Payload {
    Payload::Ke(Ke { group, data: data.to_vec() })
}

fn ke_of(payloads: &[Payload]) -> Option<&Ke> {
    payloads.iter().find_map(|payload| if let Payload::Ke(ke) = payload { Some(ke) } else { None })
}

/// What answers a key exchange.
fn answer_to(stage: &mut Stage, request: &[Payload]) -> Option<Payload> {
    let asked = ke_of(request)?;
    let response = respond(asked.group, &asked.data, &mut stage.puppet.random)?.ok()?;
    Some(ke(asked.group, &response.public))
}

pub(super) fn intermediate_sent(seed: u64) -> Found {
    let peer = with_additional(peers::site_a(), 1);
    let proposal = peer.ike.proposals.first()?.clone();
    let (mut stage, request) = Stage::initiator_of(seed, peer);
    stage.puppet.ike_proposal = proposal;
    stage.puppet.read_init_request(&request)?;
    let response = stage.puppet.init_response()?;
    let sent = stage.give(&response);
    let inside = stage.puppet.open(sent.first()?)?;
    let payloads = [answer_to(&mut stage, &inside)?];
    let exchange = ExchangeType::IKE_INTERMEDIATE;
    let mut corpus = vec![stage.puppet.seal(exchange, true, 1, &payloads)?];
    corpus.extend(fragments(&mut stage, exchange, true, 1, &payloads)?);
    corpus.extend(sent);
    corpus.extend([response, request]);
    Some((stage, corpus))
}

/// The responder after IKE_SA_INIT with this many additional key exchanges.
fn awaiting(seed: u64, count: usize) -> Found {
    let peer = with_additional(peers::site_b(), count);
    let proposal = peer.ike.proposals.first()?.clone();
    let mut stage = Stage::responder_with(seed, peer);
    stage.puppet.ike_proposal = proposal;
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(response.first()?)?;
    let mut corpus = vec![request];
    corpus.extend(response);
    Some((stage, corpus))
}

/// A request with a key of this method, whole and in fragments, before what there is.
fn with_intermediate(
    mut stage: Stage,
    corpus: Vec<Vec<u8>>,
    message_id: u32,
    key: &KeyPair,
) -> Found {
    let payloads = [ke(key.group(), key.public())];
    let exchange = ExchangeType::IKE_INTERMEDIATE;
    let mut all = vec![stage.puppet.seal(exchange, false, message_id, &payloads)?];
    all.extend(fragments(&mut stage, exchange, false, message_id, &payloads)?);
    all.extend(corpus);
    Some((stage, all))
}

pub(super) fn intermediate_awaited(seed: u64) -> Found {
    let (mut stage, corpus) = awaiting(seed, 2)?;
    let key = KeyPair::generate(METHODS[0], &mut stage.puppet.random)?;
    with_intermediate(stage, corpus, 1, &key)
}

pub(super) fn intermediate_half_done(seed: u64) -> Found {
    let (mut stage, mut corpus) = awaiting(seed, 2)?;
    let key = KeyPair::generate(METHODS[0], &mut stage.puppet.random)?;
    let payloads = [ke(key.group(), key.public())];
    let request = stage.puppet.seal(ExchangeType::IKE_INTERMEDIATE, false, 1, &payloads)?;
    let response = stage.give(&request);
    let inside = stage.puppet.open(response.first()?)?;
    let shared = key.agree(&ke_of(&inside)?.data).ok()?;
    stage.puppet.next_keys(&shared)?;
    corpus.push(request);
    corpus.extend(response);
    let key = KeyPair::generate(METHODS[1], &mut stage.puppet.random)?;
    with_intermediate(stage, corpus, 2, &key)
}

/// An answer to IKE_SA_INIT of notifies alone.
fn init_answer(stage: &Stage, payloads: Vec<Payload>) -> Vec<u8> {
    let flags = Flags::new(false, true);
    let header = Header::new(stage.puppet.spi_i, IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, 0);
    Message { header, payloads }.emit()
}

fn cookie(byte: u8) -> Payload {
    Payload::Notify(Notify::new(NotifyType::COOKIE, [byte; 24]))
}

pub(super) fn cookie_returned(seed: u64) -> Found {
    let (mut stage, first) = Stage::initiator(seed);
    stage.puppet.read_init_request(&first)?;
    let asked = init_answer(&stage, vec![cookie(1)]);
    let again = stage.give(&asked);
    stage.puppet.read_init_request(again.first()?)?;
    let mut corpus = vec![stage.puppet.init_response()?, asked];
    corpus.push(init_answer(&stage, vec![cookie(2)]));
    corpus.push(first);
    corpus.extend(again);
    Some((stage, corpus))
}

pub(super) fn puzzle_given(seed: u64) -> Found {
    let (mut stage, first) = Stage::initiator(seed);
    stage.puppet.read_init_request(&first)?;
    // RFC 8019 §8.1: PRF and difficulty.
    let [a, b] = PrfId::PRF_HMAC_SHA2_256.0.to_be_bytes();
    let puzzle = Payload::Notify(Notify::new(NotifyType::PUZZLE, [a, b, PUZZLE_BITS]));
    let asked = init_answer(&stage, vec![cookie(1), puzzle]);
    let sent = stage.give(&asked);
    if !sent.is_empty() {
        // It is to be solved first.
        return None;
    }
    let easier = init_answer(&stage, vec![cookie(3)]);
    Some((stage, vec![asked, easier, first]))
}

fn with_pfs(mut peer: Peer) -> Peer {
    for proposal in peer.children.iter_mut().flat_map(|child| &mut child.proposals) {
        proposal.ke = vec![KeId::CURVE25519];
        for (addke, method) in proposal.addke.iter_mut().zip(METHODS) {
            *addke = vec![method];
        }
    }
    peer
}

pub(super) fn followup_sent(seed: u64) -> Found {
    let mut stage =
        Stage::responder_with(seed, with_pfs(peers::site_b())).established_by(|_| true)?;
    let sent = stage.command(Command::RekeyChildren { peer: "a".into() });
    let request = sent.first()?;
    let inside = stage.puppet.open(request)?;
    let answer = stage.puppet.additional_answer(&inside)?;
    let next = stage.answer(request, &answer);
    let inside = stage.puppet.open(next.first()?)?;
    let mut payloads = vec![answer_to(&mut stage, &inside)?];
    // Another is to come.
    payloads.push(Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, [5, 6])));
    let exchange = ExchangeType::IKE_FOLLOWUP_KE;
    let mut corpus = vec![stage.puppet.seal(exchange, true, 1, &payloads)?];
    corpus.extend(fragments(&mut stage, exchange, true, 1, &payloads)?);
    corpus.extend(sent);
    corpus.extend(next);
    let (stage, more) = with_requests(stage)?;
    corpus.extend(more);
    Some((stage, corpus))
}

pub(super) fn followup_awaited(seed: u64) -> Found {
    let peer = with_pfs(peers::site_b());
    let proposal = peer.children.first()?.proposals.first()?.clone();
    let mut stage = Stage::responder_with(seed, peer).established_by(|_| true)?;
    stage.puppet.child_proposal = proposal;
    let old = stage.puppet.esp_spi;
    let rekey = Notify::for_sa(Protocol::Esp.id(), old.to_be_bytes(), NotifyType::REKEY_SA);
    stage.puppet.fresh_esp_spi();
    let mut payloads = vec![Payload::Notify(rekey)];
    payloads.extend(stage.puppet.child_offer_with_ke());
    stage.puppet.esp_spi = old;
    let request = stage.puppet.request(ExchangeType::CREATE_CHILD_SA, &payloads)?;
    let sent = stage.give(&request);
    let inside = stage.puppet.open(sent.first()?)?;
    let link = inside.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == NotifyType::ADDITIONAL_KEY_EXCHANGE).then(|| notify.clone())
    })?;
    let key = KeyPair::generate(METHODS[0], &mut stage.puppet.random)?;
    let payloads = [ke(key.group(), key.public()), Payload::Notify(link)];
    let (exchange, message_id) = (ExchangeType::IKE_FOLLOWUP_KE, stage.puppet.message_id);
    let mut corpus = vec![stage.puppet.seal(exchange, false, message_id, &payloads)?];
    corpus.extend(fragments(&mut stage, exchange, false, message_id, &payloads)?);
    corpus.push(request);
    corpus.extend(sent);
    let (stage, more) = with_requests(stage)?;
    corpus.extend(more);
    Some((stage, corpus))
}

pub(super) fn transport(seed: u64) -> Option<Stage> {
    let mut peer = peers::site_b();
    let sites = [peers::ADDR_A, peers::ADDR_B].map(TrafficSelector::from_addr);
    let [site_a, site_b] = sites;
    let child = peer.children.first_mut()?;
    child.mode = Mode::Transport;
    (child.ts_local, child.ts_peer) = (vec![site_b], vec![site_a]);
    let mut stage = Stage::responder_with(seed, peer);
    stage.puppet.transport = true;
    stage.puppet.selectors = sites;
    stage.established_by(|_| true)
}

pub(super) fn ah(seed: u64) -> Option<Stage> {
    let mut peer = peers::site_b();
    let proposal = peer.children.first_mut()?.proposals.first_mut()?;
    proposal.protocol = Protocol::Ah;
    (proposal.encr, proposal.integ) = (vec![], vec![IntegId::AUTH_HMAC_SHA2_256_128]);
    let proposal = proposal.clone();
    let mut stage = Stage::responder_with(seed, peer);
    stage.puppet.child_proposal = proposal;
    stage.established_by(|_| true)
}

/// RFC 6023.
pub(super) fn childless(seed: u64) -> Option<Stage> {
    Stage::responder(seed).established_by(|payload| {
        !matches!(payload, Payload::Sa(_) | Payload::TsI(_) | Payload::TsR(_))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{MessageInfo, State};
    use super::*;

    /// What the first datagram of a state leads to.
    fn next(state: State) -> Vec<MessageInfo> {
        let (mut stage, corpus) = state.stage(1).unwrap_or_else(|| panic!("no {state:?}"));
        let sent = stage.give(corpus.first().expect("a datagram"));
        assert_eq!(stage.violations, [], "{state:?}");
        sent.iter().filter_map(|datagram| MessageInfo::of(datagram)).collect()
    }

    #[test]
    fn the_first_datagram_of_each_stage_is_taken() {
        use ExchangeType as E;
        let expected = [
            (State::IntermediateSent, E::IKE_AUTH, false),
            (State::IntermediateAwaited, E::IKE_INTERMEDIATE, true),
            (State::IntermediateHalfDone, E::IKE_INTERMEDIATE, true),
            (State::CookieReturned, E::IKE_AUTH, false),
            (State::FollowupSent, E::IKE_FOLLOWUP_KE, false),
            (State::FollowupAwaited, E::IKE_FOLLOWUP_KE, true),
        ];
        for (state, exchange, response) in expected {
            let sent = next(state);
            let info = sent.first().unwrap_or_else(|| panic!("{state:?} is deaf"));
            assert_eq!((info.exchange, info.response), (exchange, response), "{state:?}");
        }
        let (mut stage, _) = State::PuzzleGiven.stage(1).expect("a stage");
        let sent = stage.pass_time(core::time::Duration::from_millis(500));
        let info = sent.first().and_then(|datagram| MessageInfo::of(datagram));
        assert_eq!(info.map(|info| info.exchange), Some(E::IKE_SA_INIT), "it is solved");
    }

    #[test]
    fn child_sas_are_what_their_state_says() {
        let only = |state: State| {
            let (stage, _) = state.stage(1).unwrap_or_else(|| panic!("no {state:?}"));
            stage.sad.all_inbound().next().map(|sa| (sa.mode, sa.suite.protocol()))
        };
        assert_eq!(only(State::EstablishedTransport), Some((Mode::Transport, Protocol::Esp)));
        assert_eq!(only(State::EstablishedAh), Some((Mode::Tunnel, Protocol::Ah)));
        assert_eq!(only(State::EstablishedChildless), None);
    }
}
