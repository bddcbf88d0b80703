//! Requests that the peer refuses, and answers of it that cannot be used: nothing one-sided stays behind.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use ipsecd::ike::{CloseReason, Command, EndpointConfig, Event};
use ipsecd::testing::{MessageInfo, Stage};
use ipsecd::wire::ike::message::emit_chain;
use ipsecd::wire::ike::numbers::{KeId, NotifyType, PayloadType, ProtocolId};
use ipsecd::wire::ike::payload::{Delete, Ke, Notify, Payload, Ts};

use crate::support::*;

/// The endpoint as site A and initiator.
fn stage() -> Stage {
    Stage::established_initiator(1).unwrap()
}

fn rekey_children(stage: &mut Stage) -> Vec<u8> {
    one(stage.command(Command::RekeyChildren { peer: Arc::from("b") }))
}

fn rekey_ike(stage: &mut Stage) -> Vec<u8> {
    one(stage.command(Command::RekeyIke { peer: Arc::from("b") }))
}

/// Lets time pass until the endpoint sends something.
#[track_caller]
fn next_request(stage: &mut Stage) -> Vec<u8> {
    for _ in 0..100 {
        let sent = stage.pass_time(Duration::from_millis(100));
        if !sent.is_empty() {
            return one(sent);
        }
    }
    panic!("nothing in ten seconds");
}

#[track_caller]
fn one(sent: Vec<Vec<u8>>) -> Vec<u8> {
    let [only] = <[_; 1]>::try_from(sent).unwrap_or_else(|sent| panic!("{} sent", sent.len()));
    only
}

fn error(notify: NotifyType) -> [Payload; 1] {
    [Payload::Notify(Notify::new(notify, []))]
}

/// The SPI that a request offers for a CHILD_SA.
fn offered(payloads: &[Payload]) -> [u8; 4] {
    let spi = payloads.iter().find_map(|payload| {
        let Payload::Sa(sa) = payload else { return None };
        Some(sa.proposals[0].spi.clone())
    });
    spi.unwrap().try_into().unwrap()
}

fn names_a_rekey(payloads: &[Payload]) -> bool {
    payloads.iter().any(|payload| {
        matches!(payload, Payload::Notify(notify) if notify.notify_type == NotifyType::REKEY_SA)
    })
}

/// What takes the CHILD_SA that a request offers.
fn acceptance(stage: &mut Stage, request: &[Payload]) -> Vec<Payload> {
    stage.puppet.fresh_esp_spi();
    let mut payloads = stage.puppet.child_answer(request).unwrap();
    payloads.insert(1, stage.puppet.fresh_nonce());
    payloads
}

/// The same with a selector that was not offered.
fn widened(stage: &mut Stage, request: &[Payload]) -> Vec<Payload> {
    let mut payloads = acceptance(stage, request);
    let all = peers::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    payloads.pop();
    payloads.push(Payload::TsR(Ts { selectors: vec![all] }));
    payloads
}

/// Whether this is a DELETE of the IKE SA, the last thing that is said in it.
#[track_caller]
fn deletes_the_ike_sa(stage: &mut Stage, datagram: &[u8]) -> bool {
    let payloads = stage.puppet.open(datagram).unwrap();
    let deletes = payloads.contains(&Payload::Delete(Delete::ike()));
    if deletes {
        assert_eq!(stage.answer(datagram, &[]), Vec::<Vec<u8>>::new());
        assert_eq!(stage.ike_sas(), 0);
        assert!(stage.sad.is_empty());
        assert_eq!(stage.endpoint.spis_taken(), 0);
    }
    deletes
}

fn closed(stage: &Stage) -> Vec<CloseReason> {
    let reason = |event: &Event| {
        let Event::IkeSaClosed { reason, .. } = event else { return None };
        Some(reason.clone())
    };
    stage.events.iter().filter_map(reason).collect()
}

#[test]
fn child_sa_that_must_not_be_rekeyed_is_deleted_and_made_anew() {
    let mut stage = stage();
    let old = stage.sad.all_inbound().next().unwrap().spi;
    let theirs = stage.puppet.esp_spi;
    // CREATE_CHILD_SA { N(REKEY_SA), .. } -->  <-- { N(NO_ADDITIONAL_SAS) }
    let request = rekey_children(&mut stage);
    let delete = one(stage.answer(&request, &error(NotifyType::NO_ADDITIONAL_SAS)));
    // INFORMATIONAL { D(ESP, old SPI) } -->  <-- { D(ESP, its SPI) }
    let expected = Payload::Delete(Delete::esp([old.to_be_bytes()]));
    assert_eq!(stage.puppet.open(&delete), Some(vec![expected]));
    let answer = [Payload::Delete(Delete::esp([theirs.to_be_bytes()]))];
    let create = one(stage.answer(&delete, &answer));
    // CREATE_CHILD_SA { SA, Ni, TSi, TSr } -->
    let payloads = stage.puppet.open(&create).unwrap();
    assert!(!names_a_rekey(&payloads), "{payloads:?}");
    let answer = acceptance(&mut stage, &payloads);
    let _liveness = stage.answer(&create, &answer);
    stage.pass_time(Duration::from_secs(10));
    let spis: Vec<_> = stage.sad.all_inbound().map(|sa| sa.spi.to_be_bytes()).collect();
    assert_eq!(spis, [offered(&payloads)]);
    assert_eq!(stage.violations, []);
}

#[test]
fn peer_that_makes_no_child_sa_beyond_the_first_gets_a_new_ike_sa() {
    let mut stage = stage();
    let theirs = stage.puppet.esp_spi;
    let request = rekey_children(&mut stage);
    let delete = one(stage.answer(&request, &error(NotifyType::NO_ADDITIONAL_SAS)));
    let answer = [Payload::Delete(Delete::esp([theirs.to_be_bytes()]))];
    let create = one(stage.answer(&delete, &answer));
    // CREATE_CHILD_SA { SA, Ni, TSi, TSr } -->  <-- { N(NO_ADDITIONAL_SAS) }
    let last = one(stage.answer(&create, &error(NotifyType::NO_ADDITIONAL_SAS)));
    assert!(deletes_the_ike_sa(&mut stage, &last));
    // Whoever keeps the connection up begins again.
    assert_eq!(closed(&stage), [CloseReason::PeerNotify(NotifyType::NO_ADDITIONAL_SAS)]);
}

#[test]
fn ike_sa_that_must_not_be_rekeyed_is_deleted() {
    let mut stage = stage();
    let request = rekey_ike(&mut stage);
    let last = one(stage.answer(&request, &error(NotifyType::NO_ADDITIONAL_SAS)));
    assert!(deletes_the_ike_sa(&mut stage, &last));
    assert_eq!(closed(&stage), [CloseReason::PeerNotify(NotifyType::NO_ADDITIONAL_SAS)]);
}

#[test]
fn child_sa_that_cannot_be_used_is_deleted_at_the_peer_at_once() {
    let mut stage = stage();
    let old = stage.sad.all_inbound().next().unwrap().spi;
    let request = rekey_children(&mut stage);
    let payloads = stage.puppet.open(&request).unwrap();
    let answer = widened(&mut stage, &payloads);
    // INFORMATIONAL { D(ESP, the SPI offered) } -->  <-- { D(ESP, its SPI) }
    let delete = one(stage.answer(&request, &answer));
    let expected = Payload::Delete(Delete::esp([offered(&payloads)]));
    assert_eq!(stage.puppet.open(&delete), Some(vec![expected]));
    let theirs = [Payload::Delete(Delete::esp([stage.puppet.esp_spi.to_be_bytes()]))];
    // The peer takes the old one for replaced, so that goes, too, and another is made.
    let delete = one(stage.answer(&delete, &theirs));
    let expected = Payload::Delete(Delete::esp([old.to_be_bytes()]));
    assert_eq!(stage.puppet.open(&delete), Some(vec![expected]));
    let create = one(stage.answer(&delete, &[]));
    let payloads = stage.puppet.open(&create).unwrap();
    assert!(!names_a_rekey(&payloads), "{payloads:?}");
    // And again. It is told of that one as well, and then there is peace.
    let answer = widened(&mut stage, &payloads);
    let delete = one(stage.answer(&create, &answer));
    let expected = Payload::Delete(Delete::esp([offered(&payloads)]));
    assert_eq!(stage.puppet.open(&delete), Some(vec![expected]));
    assert_eq!(stage.answer(&delete, &theirs), Vec::<Vec<u8>>::new());
    stage.pass_time(Duration::from_secs(10));
    assert!(stage.sad.is_empty());
    assert_eq!(stage.endpoint.spis_taken(), 0);
    assert_eq!((stage.ike_sas(), stage.violations), (1, vec![]));
}

#[test]
fn child_sa_of_ike_auth_that_cannot_be_used_is_deleted_at_the_peer_at_once() {
    let (mut stage, request) = Stage::initiator(1);
    stage.puppet.read_init_request(&request).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let request = one(stage.give(&response));
    let payloads = stage.puppet.open(&request).unwrap();
    let mut answer = stage.puppet.auth_response_payloads(&payloads).unwrap();
    answer.pop();
    let all = peers::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    answer.push(Payload::TsR(Ts { selectors: vec![all] }));
    let sent = stage.answer(&request, &answer);
    // RFC 7296 §2.9: it does not lie within the offer. The IKE SA stands.
    let expected = Payload::Delete(Delete::esp([offered(&payloads)]));
    assert!(sent.iter().any(|sent| stage.puppet.open(sent) == Some(vec![expected.clone()])));
    assert!(stage.sad.is_empty());
    assert_eq!(stage.ike_sas(), 1);
}

#[test]
fn successor_that_cannot_be_used_ends_the_ike_sa() {
    let mut stage = stage();
    let request = rekey_ike(&mut stage);
    let mut answer = stage.puppet.open(&request).unwrap();
    for payload in &mut answer {
        if let Payload::Sa(sa) = payload {
            sa.proposals[0].spi = vec![9; 8];
        } else if let Payload::Ke(ke) = payload {
            // RFC 8031 §3.2: a point of small order.
            *ke = Ke { group: KeId::CURVE25519, data: vec![0; 32] };
        }
    }
    let last = one(stage.answer(&request, &answer));
    assert!(deletes_the_ike_sa(&mut stage, &last));
    assert!(matches!(closed(&stage)[..], [CloseReason::PeerMisbehaved(_)]));
}

#[test]
fn malformed_answer_ends_the_ike_sa_at_both_ends() {
    let mut stage = stage();
    let request = rekey_children(&mut stage);
    // No payloads at all.
    let last = one(stage.answer(&request, &[]));
    assert!(deletes_the_ike_sa(&mut stage, &last));

    let mut stage = Stage::established_responder(1).unwrap();
    let request = one(stage.command(Command::RekeyIke { peer: Arc::from("a") }));
    // A payload that is longer than the message.
    let id = MessageInfo::of(&request).unwrap().message_id;
    let header = stage.puppet.header(CREATE_CHILD_SA, true, id);
    let inner = [0, 0, 0, 99];
    let response = stage.puppet.seal_bytes(header, PayloadType::NONCE, &inner, 1 << 40).unwrap();
    let last = one(stage.give(&response));
    assert!(deletes_the_ike_sa(&mut stage, &last));
}

#[test]
fn unknown_error_means_that_the_request_has_failed_and_nothing_more() {
    let mut stage = stage();
    let request = rekey_children(&mut stage);
    // RFC 7296 §3.10.1: of a type that nobody knows.
    assert_eq!(stage.answer(&request, &error(NotifyType(8000))), Vec::<Vec<u8>>::new());
    assert_eq!((stage.ike_sas(), stage.sad.all_inbound().count()), (1, 1));
    let failed = |event: &&Event| matches!(event, Event::RekeyRefused { reason, .. } if *reason == CloseReason::PeerNotify(NotifyType(8000)));
    assert_eq!(stage.events.iter().filter(failed).count(), 1);
}

#[test]
fn what_is_put_off_is_tried_again_later_and_after_minutes_no_more() {
    let attempts = [rekey_children, rekey_ike];
    for begin in attempts {
        let mut stage = stage();
        let mut request = begin(&mut stage);
        let mut tries = 0;
        loop {
            // RFC 7296 §2.25: not immediately.
            let sent = stage.answer(&request, &error(NotifyType::TEMPORARY_FAILURE));
            if let Some(last) = sent.first() {
                assert!(deletes_the_ike_sa(&mut stage, last));
                break;
            }
            tries += 1;
            assert_eq!(stage.pass_time(Duration::from_secs(1)), Vec::<Vec<u8>>::new());
            request = next_request(&mut stage);
        }
        let minutes = stage.clock.elapsed().as_secs() / 60;
        assert!((4..=7).contains(&minutes) && tries > 10, "{tries} tries in {minutes} min");
        assert_eq!(closed(&stage), [CloseReason::PeerNotify(NotifyType::TEMPORARY_FAILURE)]);
    }
}

#[test]
fn being_put_off_now_and_then_is_no_reason_to_close() {
    let mut stage = stage();
    for _ in 0..20 {
        let request = rekey_children(&mut stage);
        stage.answer(&request, &error(NotifyType::TEMPORARY_FAILURE));
        let request = next_request(&mut stage);
        let payloads = stage.puppet.open(&request).unwrap();
        let answer = acceptance(&mut stage, &payloads);
        let delete = one(stage.answer(&request, &answer));
        assert_eq!(stage.answer(&delete, &[]), Vec::<Vec<u8>>::new());
        stage.pass_time(Duration::from_secs(60));
    }
    assert_eq!((stage.ike_sas(), closed(&stage)), (1, vec![]));
}

// RFC 7296 §2.2.

#[test]
fn ike_sa_is_rekeyed_before_its_message_ids_run_out() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.ike.dpd_delay = Some(Duration::from_secs(10));
    b.ike.dpd_delay = Some(Duration::from_secs(15));
    let config = EndpointConfig { last_message_id: 64, ..EndpointConfig::default() };
    let mut pair = Pair::with_config(1, LinkConfig::PERFECT, a, b, config);
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    pair.missed.clear();
    let (mut ike_sas, mut highest) = (BTreeSet::new(), 0);
    pair.run_until(Duration::from_secs(4 * 3600), |pair| {
        ike_sas.extend(pair.ike_sas(A));
        let flying = [A, B].into_iter().flat_map(|side| pair.in_flight(side));
        highest = flying.map(|info| info.message_id).max().unwrap_or(0).max(highest);
        false
    });
    settle_dpd(&mut pair);
    assert_ok(&pair, pair.check_no_packet_missed());
    assert!(ike_sas.len() > 10, "{} IKE SAs", ike_sas.len());
    assert!((60..=64).contains(&highest), "the highest Message ID was {highest}");
    for side in [A, B] {
        assert_eq!(pair.closed(side), [], "{}", pair.trace);
    }
}

/// Both ask now and then whether the other lives, so that it is never quiet for long.
fn settle_dpd(pair: &mut Pair) {
    let done = pair.run_until(Duration::from_secs(60), |pair| pair.check_established(1).is_ok());
    assert_that(pair, done, "one IKE SA and one CHILD_SA");
}

#[test]
fn last_message_id_deletes_an_ike_sa_that_cannot_be_rekeyed() {
    let config = EndpointConfig { last_message_id: 32, ..EndpointConfig::default() };
    let mut stage = Stage::established_initiator_with(1, config).unwrap();
    let mut request = rekey_ike(&mut stage);
    for _ in 0..32 {
        let id = MessageInfo::of(&request).unwrap().message_id;
        if id == 32 {
            assert!(deletes_the_ike_sa(&mut stage, &request));
            assert!(matches!(closed(&stage)[..], [CloseReason::Limit(_)]));
            return;
        }
        let mut sent = stage.answer(&request, &error(NotifyType::NO_PROPOSAL_CHOSEN));
        if sent.is_empty() {
            sent = vec![next_request(&mut stage)];
        }
        request = sent.remove(0);
    }
    panic!("it has more Message IDs than there are");
}

#[test]
fn peer_that_uses_up_its_message_ids_is_given_a_new_ike_sa() {
    let config = EndpointConfig { last_message_id: 32, ..EndpointConfig::default() };
    let mut stage = Stage::established_initiator_with(1, config).unwrap();
    for _ in 0..40 {
        let request = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
        let sent = stage.give(&request);
        let own = sent.iter().find(|sent| MessageInfo::of(sent).is_some_and(|info| !info.response));
        if let Some(own) = own {
            let payloads = stage.puppet.open(own).unwrap();
            let rekeys = |payload: &Payload| matches!(payload, Payload::Sa(sa) if sa.proposals[0].protocol == ProtocolId::IKE);
            assert!(payloads.iter().any(rekeys), "{payloads:?}");
            return;
        }
    }
    panic!("it has not been rekeyed");
}

// RFC 7296 §2.15.

#[test]
fn auth_covers_the_reserved_octets_of_an_id_payload_as_they_came() {
    let mut stage = Stage::responder(1);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = one(stage.give(&request));
    stage.puppet.read_init_response(&response).unwrap();
    stage.puppet.id.reserved = [1, 2, 3];
    let payloads = stage.puppet.auth_payloads().unwrap();
    let mut inner = Vec::new();
    let first = emit_chain(&payloads, &mut inner);
    // RESERVED is sent as zero, so it is written by hand: generic header, ID Type, RESERVED.
    assert_eq!((first, &inner[5..8]), (PayloadType::ID_I, &[0; 3][..]));
    inner[5..8].copy_from_slice(&[1, 2, 3]);
    let header = stage.puppet.header(IKE_AUTH, false, 1);
    let request = stage.puppet.seal_bytes(header, first, &inner, 1 << 40).unwrap();
    stage.give(&request);
    assert_eq!((stage.ike_sas(), stage.sad.all_inbound().count()), (1, 1));
}
