//! Post-quantum preshared keys: in IKE_AUTH (RFC 8784), with a puppet that has no RFC 9867, and in IKE_INTERMEDIATE (RFC 9867
//! §3.1), between two endpoints.

use core::time::Duration;

use ipsecd::crypto::Secret;
use ipsecd::ike::keymat::{IkeKeys, child_keys, psk_auth};
use ipsecd::ike::{CloseReason, Event};
use ipsecd::ipsec::pad::{Peer, Ppk};
use ipsecd::testing::Stage;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{KeId, NotifyType, PrfId};
use ipsecd::wire::ike::payload::{Auth, Notify, Payload};

use crate::support::*;

const PRF: PrfId = PrfId::PRF_HMAC_SHA2_256;
const OPTIONAL: bool = false;
const REQUIRED: bool = true;

fn ppk(id: &str, key: &[u8], required: bool) -> Ppk {
    Ppk { id: id.as_bytes().to_vec(), key: Secret::copy_of(key), required }
}

fn ours(required: bool) -> Ppk {
    ppk("a-b", b"a key for after the quantum computer", required)
}

fn with(mut peer: Peer, ppk: Option<Ppk>) -> Peer {
    peer.ppk = ppk;
    peer
}

fn notify(notify_type: NotifyType, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(notify_type, data))
}

fn data_of(payloads: &[Payload], wanted: NotifyType) -> Option<Vec<u8>> {
    payloads.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == wanted).then(|| notify.data.clone())
    })
}

fn has(payloads: &[Payload], wanted: NotifyType) -> bool {
    data_of(payloads, wanted).is_some()
}

fn auth_of(payloads: &[Payload]) -> Option<Auth> {
    payloads.iter().find_map(|payload| {
        if let Payload::Auth(auth) = payload { Some(auth.clone()) } else { None }
    })
}

/// `02`, PPK_ID_FIXED, and the name.
fn wire_id(id: &str) -> Vec<u8> {
    [&[2], id.as_bytes()].concat()
}

// RFC 8784, the endpoint as responder.

/// What a puppet's initiator does.
struct Initiator<'a> {
    offers: bool,
    identity: Option<&'a str>,
    /// The key that it mixes in.
    key: &'a [u8],
    /// NO_PPK_AUTH: none, the right one, or a wrong one.
    plain: Option<bool>,
}

const USUAL: Initiator<'static> = Initiator {
    offers: true,
    identity: Some("a-b"),
    key: b"a key for after the quantum computer",
    plain: None,
};

struct Outcome {
    stage: Stage,
    /// The endpoint's IKE_SA_INIT response.
    init: Vec<u8>,
    answer: Vec<Payload>,
    keys: IkeKeys,
}

impl Outcome {
    fn is_up(&self) -> bool {
        !self.stage.sad.is_empty()
    }

    fn is_refused(&self) -> bool {
        self.stage.sad.is_empty() && has(&self.answer, NotifyType::AUTHENTICATION_FAILED)
    }

    fn uses_ppk(&self) -> bool {
        let status = self.stage.endpoint.status(self.stage.clock.now());
        status.first().is_some_and(|sa| sa.ppk)
    }

    fn closed(&self) -> Vec<CloseReason> {
        let reason = |event: &Event| {
            if let Event::IkeSaClosed { reason, .. } = event { Some(reason.clone()) } else { None }
        };
        self.stage.events.iter().filter_map(reason).collect()
    }
}

fn attempt(ppk: Option<Ppk>, initiator: &Initiator<'_>) -> Outcome {
    let mut stage = Stage::responder_with(1, with(peers::site_b(), ppk));
    let mut payloads = stage.puppet.init_payloads();
    if initiator.offers {
        payloads.push(notify(NotifyType::USE_PPK, &[]));
    }
    let request = stage.puppet.init_request(payloads);
    let init = stage.give(&request).remove(0);
    stage.puppet.read_init_response(&init).unwrap();
    let plain = stage.puppet.auth().unwrap();
    let keys = stage.puppet.keys.clone().unwrap();
    if initiator.offers && initiator.identity.is_some() {
        stage.puppet.keys = keys.with_ppk(PRF, &Secret::copy_of(initiator.key));
    }
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    if let Some(id) = initiator.identity {
        payloads.push(notify(NotifyType::PPK_IDENTITY, &wire_id(id)));
    }
    if let Some(right) = initiator.plain {
        let mut data = plain.data;
        data[0] ^= u8::from(!right);
        payloads.push(notify(NotifyType::NO_PPK_AUTH, &data));
    }
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let sent = stage.give(&request);
    let answer = stage.puppet.open(&sent[0]).unwrap();
    let keys = stage.puppet.keys.clone().unwrap();
    Outcome { stage, init, answer, keys }
}

fn says_use_ppk(init: &[u8]) -> bool {
    has(&Message::parse(init).unwrap().payloads, NotifyType::USE_PPK)
}

/// The KEYMAT of the CHILD_SA, by SK_d of the puppet's keys.
#[track_caller]
fn child_comes_from(outcome: &Outcome, request_nonce: &[u8]) {
    let response = Message::parse(&outcome.init).unwrap();
    let nonce_r = nonce_of(&response.payloads);
    let inbound = outcome.stage.sad.all_inbound().next().unwrap();
    let expected =
        child_keys(PRF, &outcome.keys.sk_d, inbound.suite, None, &[], request_nonce, &nonce_r);
    assert_eq!(inbound.encr_key, expected.unwrap().encr_i);
}

fn nonce_of(payloads: &[Payload]) -> Vec<u8> {
    let nonce = payloads.iter().find_map(|payload| {
        if let Payload::Nonce(nonce) = payload { Some(nonce.data.clone()) } else { None }
    });
    nonce.unwrap()
}

/// The body of IDi or IDr.
fn id_of(payloads: &[Payload]) -> Vec<u8> {
    let id = payloads.iter().find_map(|payload| {
        if let Payload::IdI(id) | Payload::IdR(id) = payload { Some(id.body()) } else { None }
    });
    id.unwrap()
}

#[test]
fn responder_mixes_in_the_ppk_that_ike_auth_names() {
    for required in [OPTIONAL, REQUIRED] {
        let outcome = attempt(Some(ours(required)), &USUAL);
        assert!(says_use_ppk(&outcome.init));
        // <-- IKE_AUTH { IDr, AUTH by SK_pr with the PPK, .., N(PPK_IDENTITY) }
        assert_eq!(data_of(&outcome.answer, NotifyType::PPK_IDENTITY), Some(Vec::new()));
        let nonce_i = nonce_of(&outcome.stage.puppet.init_payloads());
        let id = id_of(&outcome.answer);
        let psk = Secret::copy_of(peers::PSK);
        let sk_pr = &outcome.keys.sk_pr;
        let expected = psk_auth(PRF, &psk, &outcome.init, &nonce_i, sk_pr, &id, &[]).unwrap();
        assert_eq!(auth_of(&outcome.answer).unwrap().data, expected.expose());
        child_comes_from(&outcome, &nonce_i);
        assert!(outcome.uses_ppk());
    }
}

#[test]
fn no_ppk_auth_is_not_looked_at_where_the_ppk_is_known() {
    let outcome = attempt(Some(ours(OPTIONAL)), &Initiator { plain: Some(false), ..USUAL });
    assert!(outcome.is_up() && outcome.uses_ppk());
}

#[test]
fn another_key_under_the_same_name_is_refused() {
    let initiator = Initiator { key: b"another", plain: Some(true), ..USUAL };
    for required in [OPTIONAL, REQUIRED] {
        assert!(attempt(Some(ours(required)), &initiator).is_refused());
    }
}

#[test]
fn a_name_must_follow_use_ppk() {
    let initiator = Initiator { identity: None, plain: Some(true), ..USUAL };
    let outcome = attempt(Some(ours(OPTIONAL)), &initiator);
    assert!(outcome.is_refused());
    assert_eq!(outcome.closed(), [CloseReason::Ppk("the peer agreed on one and names none")]);
}

#[test]
fn an_unknown_ppk_is_gone_without_if_both_sides_can() {
    let unknown = |plain| Initiator { identity: Some("other"), plain, ..USUAL };
    let outcome = attempt(Some(ours(OPTIONAL)), &unknown(Some(true)));
    assert!(outcome.is_up() && !outcome.uses_ppk());
    assert!(!has(&outcome.answer, NotifyType::PPK_IDENTITY));
    // NO_PPK_AUTH proves who the initiator is, so it has to hold.
    assert!(attempt(Some(ours(OPTIONAL)), &unknown(Some(false))).is_refused());
    assert!(attempt(Some(ours(OPTIONAL)), &unknown(None)).is_refused());
    assert!(attempt(Some(ours(REQUIRED)), &unknown(Some(true))).is_refused());
}

#[test]
fn a_required_ppk_cannot_be_left_out() {
    let without = Initiator { offers: false, identity: None, ..USUAL };
    let outcome = attempt(Some(ours(REQUIRED)), &without);
    assert!(outcome.is_refused());
    assert_eq!(outcome.closed(), [CloseReason::Ppk("the peer does without")]);
    let outcome = attempt(Some(ours(OPTIONAL)), &without);
    assert!(outcome.is_up() && !outcome.uses_ppk() && !says_use_ppk(&outcome.init));
}

#[test]
fn a_responder_without_ppks_takes_no_notice() {
    let outcome = attempt(None, &Initiator { identity: None, ..USUAL });
    assert!(outcome.is_up() && !says_use_ppk(&outcome.init));
}

// RFC 8784, the endpoint as initiator.

/// The endpoint's IKE_SA_INIT request, taken in by the puppet.
fn initiator(required: bool) -> (Stage, Vec<u8>) {
    let (mut stage, request) = Stage::initiator_of(1, with(peers::site_a(), Some(ours(required))));
    stage.puppet.read_init_request(&request).unwrap();
    (stage, request)
}

/// The puppet agrees, and has the PPK in its keys. What IKE_AUTH has, and AUTH as it is without a PPK.
fn agreed(required: bool) -> (Stage, Vec<u8>, Vec<Payload>) {
    let (mut stage, request) = initiator(required);
    let response = stage.puppet.init_response_with(&[notify(NotifyType::USE_PPK, &[])]).unwrap();
    let auth = stage.give(&response).remove(0);
    let inside = stage.puppet.open(&auth).unwrap();
    let expected = |sk_p: &Secret| {
        let id = id_of(&inside);
        let nonce_r = nonce_of(&Message::parse(&response).unwrap().payloads);
        let psk = Secret::copy_of(peers::PSK);
        let auth = psk_auth(PRF, &psk, &request, &nonce_r, sk_p, &id, &[]).unwrap();
        auth.expose().to_vec()
    };
    let keys = stage.puppet.keys.clone().unwrap();
    let mixed = keys.with_ppk(PRF, &ours(required).key).unwrap();
    assert_eq!(auth_of(&inside).unwrap().data, expected(&mixed.sk_pi));
    assert_eq!(data_of(&inside, NotifyType::PPK_IDENTITY), Some(wire_id("a-b")));
    let plain = data_of(&inside, NotifyType::NO_PPK_AUTH);
    assert_eq!(plain, (!required).then(|| expected(&keys.sk_pi)));
    (stage, auth, inside)
}

#[test]
fn initiator_with_a_ppk_says_so_in_ike_sa_init() {
    for required in [OPTIONAL, REQUIRED] {
        let (_, request) = initiator(required);
        let payloads = Message::parse(&request).unwrap().payloads;
        assert_eq!(data_of(&payloads, NotifyType::USE_PPK), Some(Vec::new()));
        assert_eq!(data_of(&payloads, NotifyType::USE_PPK_INT), Some(Vec::new()));
        assert!(has(&payloads, NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED));
    }
}

#[test]
fn initiator_takes_what_the_ppk_answer_says_and_not_what_is_in_it() {
    for (required, content) in [(REQUIRED, &b""[..]), (OPTIONAL, b"whatever")] {
        let (mut stage, request, inside) = agreed(required);
        let keys = stage.puppet.keys.clone().unwrap();
        stage.puppet.keys = keys.with_ppk(PRF, &ours(required).key);
        let mut answer = stage.puppet.auth_response_payloads(&inside).unwrap();
        answer.push(notify(NotifyType::PPK_IDENTITY, content));
        stage.answer(&request, &answer);
        let status = stage.endpoint.status(stage.clock.now());
        assert!(!stage.sad.is_empty() && status[0].ppk);
    }
}

#[test]
fn initiator_goes_on_without_only_if_the_ppk_is_optional() {
    let (mut stage, request, inside) = agreed(OPTIONAL);
    let answer = stage.puppet.auth_response_payloads(&inside).unwrap();
    stage.answer(&request, &answer);
    let status = stage.endpoint.status(stage.clock.now());
    assert!(!stage.sad.is_empty() && !status[0].ppk);

    let (mut stage, request, inside) = agreed(REQUIRED);
    let answer = stage.puppet.auth_response_payloads(&inside).unwrap();
    // INFORMATIONAL { N(AUTHENTICATION_FAILED), D } -->
    let sent = stage.answer(&request, &answer);
    let inside = stage.puppet.open(&sent[0]).unwrap();
    assert!(has(&inside, NotifyType::AUTHENTICATION_FAILED));
    assert!(stage.sad.is_empty());
}

#[test]
fn responder_that_says_ppk_and_has_another_is_not_believed() {
    let (mut stage, request, inside) = agreed(OPTIONAL);
    let mut answer = stage.puppet.auth_response_payloads(&inside).unwrap();
    // AUTH is by SK_pr without it.
    answer.push(notify(NotifyType::PPK_IDENTITY, &[]));
    stage.answer(&request, &answer);
    assert!(stage.sad.is_empty());
}

#[test]
fn initiator_that_needs_the_ppk_waits_for_an_answer_with_use_ppk() {
    let (mut stage, _) = initiator(REQUIRED);
    let forged = stage.puppet.init_response().unwrap();
    assert!(stage.give(&forged).is_empty());
    let real = stage.puppet.init_response_with(&[notify(NotifyType::USE_PPK, &[])]).unwrap();
    let sent = stage.give(&real);
    assert!(has(&stage.puppet.open(&sent[0]).unwrap(), NotifyType::PPK_IDENTITY));

    let (mut stage, _) = initiator(REQUIRED);
    let answer = stage.puppet.init_response().unwrap();
    assert!(stage.give(&answer).is_empty());
    stage.pass_time(Duration::from_secs(120));
    let reason = CloseReason::Ppk("the peer does without");
    let is_closed =
        |event: &Event| matches!(event, Event::IkeSaClosed { reason: why, .. } if *why == reason);
    assert!(stage.events.iter().any(is_closed));
}

#[test]
fn initiator_goes_on_as_usual_with_a_responder_without_ppks() {
    let (mut stage, _) = initiator(OPTIONAL);
    let response = stage.puppet.init_response().unwrap();
    let sent = stage.give(&response);
    let inside = stage.puppet.open(&sent[0]).unwrap();
    assert!(!has(&inside, NotifyType::PPK_IDENTITY) && !has(&inside, NotifyType::NO_PPK_AUTH));
    let answer = stage.puppet.auth_response_payloads(&inside).unwrap();
    stage.answer(&sent[0], &answer);
    assert!(!stage.sad.is_empty());
}

// RFC 9867.

fn pair(a: Option<Ppk>, b: Option<Ppk>) -> Pair {
    pair_of(with(peers::site_a(), a), with(peers::site_b(), b))
}

#[track_caller]
fn up(pair: &mut Pair, uses_ppk: bool) {
    pair.initiate(A);
    settle(pair);
    assert_ok(pair, pair.check_established(1));
    for side in [A, B] {
        let status = only_sa(pair, side);
        assert_that(pair, status.ppk == uses_ppk, &format!("{side}: ppk is {}", status.ppk));
    }
}

#[test]
fn a_ppk_takes_one_ike_intermediate_and_is_in_every_key() {
    let mut pair = pair(Some(ours(REQUIRED)), Some(ours(REQUIRED)));
    pair.hold = true;
    pair.initiate(A);
    // IKE_SA_INIT { .., N(INTERMEDIATE_EXCHANGE_SUPPORTED), N(USE_PPK), N(USE_PPK_INT) } -->
    pair.pass(A, IKE_SA_INIT, REQUEST);
    // <-- IKE_SA_INIT { .., N(INTERMEDIATE_EXCHANGE_SUPPORTED), N(USE_PPK_INT) }
    let response = pair.expect(B, IKE_SA_INIT, RESPONSE);
    let payloads = Message::parse(response.datagram()).unwrap().payloads;
    assert!(has(&payloads, NotifyType::USE_PPK_INT) && !has(&payloads, NotifyType::USE_PPK));
    pair.deliver(response);
    // IKE_INTERMEDIATE { N(PPK_IDENTITY_KEY) } -->
    // <-- IKE_INTERMEDIATE { N(PPK_IDENTITY) }
    pair.exchange(A, IKE_INTERMEDIATE);
    pair.exchange(A, IKE_AUTH);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
    assert!(only_sa(&pair, A).ppk && only_sa(&pair, B).ppk);
}

#[test]
fn with_additional_key_exchanges_the_ppk_goes_with_the_last() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    for peer in [&mut a, &mut b] {
        for (ours, method) in
            peer.ike.proposals[0].addke.iter_mut().zip([KeId::ML_KEM_512, KeId::ML_KEM_768])
        {
            *ours = vec![method];
        }
    }
    let mut pair = pair_of(with(a, Some(ours(REQUIRED))), with(b, Some(ours(REQUIRED))));
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    pair.exchange(A, IKE_INTERMEDIATE);
    pair.exchange(A, IKE_INTERMEDIATE);
    pair.exchange(A, IKE_AUTH);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
    assert!(only_sa(&pair, A).ppk && only_sa(&pair, B).ppk);
}

#[test]
fn every_message_of_the_ppk_exchange_may_be_lost_once() {
    for (from, response) in [(A, REQUEST), (B, RESPONSE)] {
        let mut pair = pair(Some(ours(OPTIONAL)), Some(ours(REQUIRED)));
        pair.hold = true;
        pair.initiate(A);
        pair.exchange(A, IKE_SA_INIT);
        if from == B {
            pair.pass(A, IKE_INTERMEDIATE, REQUEST);
        }
        drop(pair.expect(from, IKE_INTERMEDIATE, response));
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert!(only_sa(&pair, A).ppk && only_sa(&pair, B).ppk);
    }
}

#[test]
fn a_ppk_that_only_one_side_has_is_gone_without_unless_it_is_required() {
    up(&mut pair(Some(ours(OPTIONAL)), None), false);
    up(&mut pair(None, Some(ours(OPTIONAL))), false);
    let other = || Some(ppk("a-b", b"the wrong key under the right name, and long", OPTIONAL));
    up(&mut pair(Some(ours(OPTIONAL)), other()), false);
    up(&mut pair(Some(ours(OPTIONAL)), Some(ppk("b-a", b"any", OPTIONAL))), false);
    for (a, b) in [
        (Some(ours(REQUIRED)), None),
        (None, Some(ours(REQUIRED))),
        (Some(ours(REQUIRED)), other()),
        (other(), Some(ours(REQUIRED))),
    ] {
        let mut pair = pair(a, b);
        pair.initiate(A);
        settle(&mut pair);
        assert_ok(&pair, pair.check_gone());
        assert_that(&pair, !pair.closed(A).is_empty(), "the initiator's operator is told");
    }
}

#[test]
fn a_ppk_of_another_peer_does_not_stand_for_this_one() {
    let mut b = peers::site_b();
    b.ppk = Some(ours(REQUIRED));
    let mut stranger = b.clone();
    stranger.name = "c".into();
    stranger.peer_id = Some(ipsecd::ipsec::pad::Identity::Fqdn("c.example.net".into()));
    stranger.ppk = Some(ppk("c-b", b"what the stranger has, which is as long", REQUIRED));
    stranger.children[0].policy = ipsecd::ipsec::PolicyId(2);
    let a = with(peers::site_a(), stranger.ppk.clone());
    let mut pair = pair_of(a, b);
    let stranger = ipsecd::ike::Command::AddPeer(std::sync::Arc::new(stranger));
    pair.command(B, stranger).unwrap();
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(B), [CloseReason::Ppk("the peer uses one that is not its own")]);
}

#[test]
fn what_replaces_an_ike_sa_with_a_ppk_comes_from_its_keys() {
    let mut pair = pair(Some(ours(REQUIRED)), Some(ours(REQUIRED)));
    up(&mut pair, true);
    pair.rekey_ike(B).unwrap();
    settle(&mut pair);
    pair.rekey_children(A).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert!(only_sa(&pair, A).ppk && only_sa(&pair, B).ppk);
    assert_ok(&pair, pair.check_no_packet_missed());
}
