//! Additional key exchanges (RFC 9370): in IKE_INTERMEDIATE (RFC 9242) before IKE_AUTH.

use core::time::Duration;

use ipsecd::ike::{Command, Event, Phase};
use ipsecd::ipsec::pad::{Fragments, Peer};
use ipsecd::testing::{MessageInfo, Stage};
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{KeId, NotifyType};
use ipsecd::wire::ike::payload::{Ke, Notify, Payload};

use crate::support::*;

const KEM512: KeId = KeId::ML_KEM_512;
const KEM768: KeId = KeId::ML_KEM_768;
const KEM1024: KeId = KeId::ML_KEM_1024;

/// The sites, with these additional key exchanges, one method for each. Each message is one datagram, so that tests can say which.
fn sites(addke: &[KeId]) -> (Peer, Peer) {
    let with = |mut peer: Peer| {
        for (ours, method) in peer.ike.proposals[0].addke.iter_mut().zip(addke) {
            *ours = vec![*method];
        }
        peer.ike.fragmentation.fragments = Fragments::No;
        peer
    };
    (with(peers::site_a()), with(peers::site_b()))
}

fn addke(pair: &Pair, side: Side) -> Vec<KeId> {
    only_sa(pair, side).suite.unwrap().addke.methods().collect()
}

#[test]
fn each_additional_key_exchange_takes_one_ike_intermediate() {
    let methods = [KEM768, KeId::ECP_384, KEM1024];
    let (a, b) = sites(&methods);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);

    // IKE_SA_INIT { SAi1(ADDKE1..3), KEi, Ni, N(INTERMEDIATE_EXCHANGE_SUPPORTED) } -->
    pair.pass(A, IKE_SA_INIT, REQUEST);
    // <-- IKE_SA_INIT { SAr1(ADDKE1..3), KEr, Nr, N(INTERMEDIATE_EXCHANGE_SUPPORTED) }
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    for message_id in 1..=3 {
        // IKE_INTERMEDIATE { KEi(n) } -->
        let request = pair.expect(A, IKE_INTERMEDIATE, REQUEST);
        assert_eq!(request.info().unwrap().message_id, message_id);
        pair.deliver(request);
        // <-- IKE_INTERMEDIATE { KEr(n) }
        pair.pass(B, IKE_INTERMEDIATE, RESPONSE);
        assert!(pair.ike_sas(A).is_empty() && pair.ike_sas(B).is_empty());
    }
    // IKE_AUTH { IDi, AUTH, SAi2, TSi, TSr } -->
    let request = pair.expect(A, IKE_AUTH, REQUEST);
    assert_eq!(request.info().unwrap().message_id, 4);
    pair.deliver(request);
    pair.pass(B, IKE_AUTH, RESPONSE);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
    for side in [A, B] {
        assert_eq!(addke(&pair, side), methods);
        let suite = only_sa(&pair, side).suite.unwrap().to_string();
        assert!(suite.ends_with("/CURVE25519/KE1_ML_KEM_768/KE2_ECP_384/KE3_ML_KEM_1024"));
    }
    let phases = pair.node(A).events.iter().filter_map(|(_, event)| {
        let Event::Progress { phase: Phase::IkeIntermediate(method), .. } = event else {
            return None;
        };
        Some(*method)
    });
    assert_eq!(phases.collect::<Vec<_>>(), methods);
}

#[test]
fn every_message_may_be_lost_once() {
    for (from, exchange, response) in [
        (A, IKE_SA_INIT, REQUEST),
        (B, IKE_SA_INIT, RESPONSE),
        (A, IKE_INTERMEDIATE, REQUEST),
        (B, IKE_INTERMEDIATE, RESPONSE),
        (A, IKE_AUTH, REQUEST),
        (B, IKE_AUTH, RESPONSE),
    ] {
        for nth in 0..2 {
            let (a, b) = sites(&[KEM512, KEM768]);
            let mut pair = pair_of(a, b);
            pair.hold = true;
            pair.initiate(A);
            let mut left = nth;
            for side in [A, B].into_iter().cycle().take(8) {
                let Some(info) = pair.in_flight(side).first().copied() else { break };
                let message = pair.take(side, 0).unwrap();
                if (side, info.exchange, info.response) == (from, exchange, response) {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                }
                pair.deliver(message);
            }
            pair.hold = false;
            settle(&mut pair);
            assert_ok(&pair, pair.check_established(1));
            assert_eq!(addke(&pair, B), [KEM512, KEM768]);
        }
    }
}

#[test]
fn repeated_requests_of_the_old_keys_get_their_answer_again() {
    let (a, b) = sites(&[KEM768]);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let request = pair.expect(A, IKE_INTERMEDIATE, REQUEST);
    pair.deliver(request.clone());
    let answer = pair.expect(B, IKE_INTERMEDIATE, RESPONSE);
    for _ in 0..3 {
        pair.deliver(request.clone());
        let again = pair.expect(B, IKE_INTERMEDIATE, RESPONSE);
        assert_eq!(again.datagram(), answer.datagram());
    }
    pair.deliver(answer);
    pair.exchange(A, IKE_AUTH);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn peers_without_it_get_the_proposal_without_it() {
    for hybrid in [A, B] {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        let peer = if hybrid == A { &mut a } else { &mut b };
        let mut first = peer.ike.proposals[0].clone();
        first.addke[0] = vec![KEM768];
        peer.ike.proposals.insert(0, first);
        for begins in [A, B] {
            let mut pair = pair_of(a.clone(), b.clone());
            pair.initiate(begins);
            pair.run_for(Duration::from_secs(2));
            assert_ok(&pair, pair.check_established(1));
            assert!(addke(&pair, A).is_empty());
        }
    }
}

#[test]
fn what_one_side_must_have_and_the_other_has_not_is_refused() {
    let (a, _) = sites(&[KEM768]);
    let mut pair = pair_of(a, peers::site_b());
    pair.initiate(A);
    settle(&mut pair);
    assert!(pair.ike_sas(A).is_empty() && pair.ike_sas(B).is_empty());
    assert!(pair.closed(A)[0].to_string().contains("proposal"), "{:?}", pair.closed(A));
}

#[test]
fn kem_can_be_the_only_key_exchange() {
    let (mut a, mut b) = sites(&[]);
    for peer in [&mut a, &mut b] {
        peer.ike.proposals[0].ke = vec![KEM768];
        peer.children[0].proposals[0].ke = vec![KEM1024, KEM512];
    }
    let mut pair = established_of(3, a, b);
    assert_eq!(only_sa(&pair, B).suite.unwrap().ke, KEM768);
    for side in [A, B] {
        pair.rekey_children(side).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        pair.rekey_ike(side).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
    }
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn ike_auth_does_not_come_before_what_was_agreed_on() {
    let (a, b) = sites(&[KEM768]);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    // One that is damaged does not pass, and changes nothing.
    let request = pair.expect(A, IKE_INTERMEDIATE, REQUEST);
    let mut spoilt = request.datagram().to_vec();
    let last = spoilt.len() - 1;
    spoilt[last] ^= 1;
    pair.deliver(request.clone().with_datagram(spoilt));
    assert!(pair.in_flight(B).is_empty());
    pair.deliver(request);
    pair.pass(B, IKE_INTERMEDIATE, RESPONSE);
    pair.exchange(A, IKE_AUTH);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn half_open_ike_sas_do_not_live_longer_for_it() {
    let (a, b) = sites(&[KEM768]);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    pair.exchange(A, IKE_INTERMEDIATE);
    // A is gone.
    drop(pair.expect(A, IKE_AUTH, REQUEST));
    pair.restart(A);
    pair.hold = false;
    pair.run_for(Duration::from_secs(45));
    assert_that(&pair, pair.timer(B).is_none(), "B still waits for something");
}

#[test]
fn ike_intermediate_that_was_not_agreed_on_is_ignored() {
    for agreed in [&[][..], &[KEM768]] {
        let (_, b) = sites(agreed);
        let mut stage = Stage::responder_with(5, b);
        let mut payloads = stage.puppet.init_payloads();
        if !agreed.is_empty() {
            // It knows IKE_INTERMEDIATE, and offers nothing for it: B must have it.
            payloads.push(Payload::Notify(Notify::new(
                NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
                [],
            )));
        }
        let request = stage.puppet.init_request(payloads);
        let response = stage.give(&request);
        if !agreed.is_empty() {
            assert!(stage.puppet.read_init_response(&response[0]).is_none());
            continue;
        }
        stage.puppet.read_init_response(&response[0]).unwrap();
        let ke = Payload::Ke(Ke { group: KEM768, data: vec![0; 1184] });
        let stray = stage.puppet.seal(IKE_INTERMEDIATE, false, 1, &[ke]).unwrap();
        assert!(stage.give(&stray).is_empty());
        let payloads = stage.puppet.auth_payloads().unwrap();
        let auth = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
        assert_eq!(stage.give(&auth).len(), 1);
        assert!(!stage.sad.is_empty());
    }
}

#[test]
fn data_in_the_notify_of_support_is_ignored() {
    let mut stage = Stage::responder(5);
    let mut payloads = stage.puppet.init_payloads();
    let notify = Notify::new(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, [1, 2, 3]);
    payloads.push(Payload::Notify(notify));
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    let message = Message::parse(&response[0]).unwrap();
    let ours = message.payloads.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        let is_it = notify.notify_type == NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED;
        is_it.then(|| notify.data.clone())
    });
    assert_eq!(ours, Some(Vec::new()));
}

#[test]
fn unprotected_intermediate_is_ignored() {
    let (a, b) = sites(&[KEM768]);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let request = pair.expect(A, IKE_INTERMEDIATE, REQUEST);
    let header = Message::parse(request.datagram()).unwrap().header;
    let payloads = vec![Payload::Ke(Ke { group: KEM768, data: vec![0; 1184] })];
    let bare = Message { header, payloads }.emit();
    pair.deliver(request.clone().with_datagram(bare));
    assert!(pair.in_flight(B).is_empty());
    pair.deliver(request);
    pair.pass(B, IKE_INTERMEDIATE, RESPONSE);
    pair.exchange(A, IKE_AUTH);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
}

/// The same for CHILD_SAs, beside a first key exchange.
fn sites_with_pfs(addke: &[KeId]) -> (Peer, Peer) {
    let (mut a, mut b) = sites(addke);
    for peer in [&mut a, &mut b] {
        peer.children[0].proposals[0].ke = vec![KeId::CURVE25519];
        peer.children[0].proposals[0].addke = peer.ike.proposals[0].addke.clone();
    }
    (a, b)
}

#[test]
fn ike_followup_ke_carries_them_when_an_ike_sa_is_rekeyed() {
    let (a, b) = sites(&[KEM768, KEM512]);
    for side in [A, B] {
        let mut pair = established_of(4, a.clone(), b.clone());
        let before = pair.ike_sas(A);
        pair.hold = true;
        pair.rekey_ike(side).unwrap();
        // CREATE_CHILD_SA { SA, Ni, KEi } -->  <-- { SA, Nr, KEr, N(ADDITIONAL_KEY_EXCHANGE)(link1) }
        pair.exchange(side, CREATE_CHILD_SA);
        assert_eq!((pair.ike_sas(A), pair.ike_sas(B)), (before.clone(), before.clone()));
        // IKE_FOLLOWUP_KE { KEi(1), N(ADDITIONAL_KEY_EXCHANGE)(link1) } -->  <-- { KEr(1), N(..)(link2) }
        pair.exchange(side, IKE_FOLLOWUP_KE);
        assert_eq!((pair.ike_sas(A), pair.ike_sas(B)), (before.clone(), before.clone()));
        // IKE_FOLLOWUP_KE { KEi(2), N(ADDITIONAL_KEY_EXCHANGE)(link2) } -->  <-- { KEr(2) }
        pair.exchange(side, IKE_FOLLOWUP_KE);
        // INFORMATIONAL { D } -->  <-- { }
        pair.exchange(side, INFORMATIONAL);
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert!(pair.ike_sas(A).is_disjoint(&before));
        assert_ok(&pair, pair.check_no_packet_missed());
        assert_eq!(addke(&pair, side), [KEM768, KEM512]);
    }
}

#[test]
fn ike_followup_ke_carries_them_when_a_child_sa_is_rekeyed() {
    let (a, b) = sites_with_pfs(&[KEM768, KEM1024]);
    for side in [A, B] {
        let mut pair = established_of(4, a.clone(), b.clone());
        let before = only_child(&pair, A).spi_inbound;
        pair.hold = true;
        pair.rekey_children(side).unwrap();
        pair.exchange(side, CREATE_CHILD_SA);
        for _ in 0..2 {
            assert_eq!(only_child(&pair, A).spi_inbound, before, "nothing is made before the end");
            pair.exchange(side, IKE_FOLLOWUP_KE);
        }
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_ok(&pair, pair.check_no_packet_missed());
        assert_ne!(only_child(&pair, A).spi_inbound, before);
    }
}

#[test]
fn forgotten_series_gets_state_not_found_and_is_begun_again() {
    for ike in [false, true] {
        let (a, b) = sites_with_pfs(&[KEM768]);
        let mut pair = established_of(4, a, b);
        let (before, child) = (pair.ike_sas(A), only_child(&pair, A).spi_inbound);
        pair.hold = true;
        if ike {
            pair.rekey_ike(A).unwrap();
        } else {
            pair.rekey_children(A).unwrap();
        }
        pair.exchange(A, CREATE_CHILD_SA);
        let late = pair.expect(A, IKE_FOLLOWUP_KE, REQUEST);
        let start = pair.clock.elapsed();
        while pair.clock.elapsed() < start + Duration::from_secs(21) {
            pair.fire_next_timer().unwrap();
            while pair.take(A, 0).is_some() {}
        }
        // B wants the rekey that did not come to an end.
        while pair.take(B, 0).is_some() {}
        pair.deliver(late);
        // <-- IKE_FOLLOWUP_KE { N(STATE_NOT_FOUND) }
        pair.pass(B, IKE_FOLLOWUP_KE, RESPONSE);
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_ok(&pair, pair.check_no_packet_missed());
        assert_eq!(pair.ike_sas(A) != before, ike, "{}", pair.trace);
        assert!(ike || only_child(&pair, A).spi_inbound != child);
    }
}

#[test]
fn initiator_that_loses_a_collision_begins_no_ike_followup_ke() {
    let mut lost = [0, 0];
    for seed in 0..8 {
        let (a, b) = sites_with_pfs(&[KEM512]);
        let mut pair = established_of(seed, a, b);
        pair.hold = true;
        if seed % 2 == 0 {
            pair.rekey_ike(A).unwrap();
            pair.rekey_ike(B).unwrap();
        } else {
            pair.rekey_children(A).unwrap();
            pair.rekey_children(B).unwrap();
        }
        pair.pass(A, CREATE_CHILD_SA, REQUEST);
        pair.pass(B, CREATE_CHILD_SA, REQUEST);
        pair.pass(A, CREATE_CHILD_SA, RESPONSE);
        pair.pass(B, CREATE_CHILD_SA, RESPONSE);
        // RFC 9370 §2.2.4: one of them goes on.
        let going = [A, B].map(|side| pair.in_flight(side).len());
        assert_eq!(going.iter().sum::<usize>(), 1, "{}", pair.trace);
        lost[going[0]] += 1;
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_ok(&pair, pair.check_no_packet_missed());
    }
    assert!(lost[0] > 0 && lost[1] > 0, "the nonces of 8 seeds let only one side win");
}

#[test]
fn rekey_amid_additional_key_exchanges_is_put_off() {
    let (a, b) = sites_with_pfs(&[KEM512]);
    let mut pair = established_of(6, a, b);
    pair.hold = true;
    pair.rekey_children(A).unwrap();
    pair.rekey_children(B).unwrap();
    let late = pair.expect(B, CREATE_CHILD_SA, REQUEST);
    pair.pass(A, CREATE_CHILD_SA, REQUEST);
    pair.pass(B, CREATE_CHILD_SA, RESPONSE);
    let series = pair.expect(A, IKE_FOLLOWUP_KE, REQUEST);
    // CREATE_CHILD_SA of B, which A gets when it has begun IKE_FOLLOWUP_KE -->  <-- { N(TEMPORARY_FAILURE) }
    let before = only_child(&pair, A).spi_inbound;
    pair.deliver(late);
    pair.pass(A, CREATE_CHILD_SA, RESPONSE);
    assert_eq!(only_child(&pair, A).spi_inbound, before);
    pair.deliver(series);
    pair.pass(B, IKE_FOLLOWUP_KE, RESPONSE);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn stray_ike_followup_ke_gets_state_not_found() {
    let mut stage = Stage::established_responder(5).unwrap();
    for link in [None, Some(vec![]), Some(vec![7; 8]), Some(vec![7; 300])] {
        let mut payloads = vec![Payload::Ke(Ke { group: KEM768, data: vec![0; 1184] })];
        payloads.extend(
            link.map(|link| {
                Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, link))
            }),
        );
        let request = stage.puppet.request(IKE_FOLLOWUP_KE, &payloads).unwrap();
        let answer = stage.give(&request);
        let inside = stage.puppet.open(&answer[0]).unwrap();
        let not_found = Payload::Notify(Notify::new(NotifyType::STATE_NOT_FOUND, []));
        assert_eq!(inside, [not_found]);
    }
}

#[test]
fn peer_that_forgets_every_series_is_given_up() {
    let (_, mut b) = sites_with_pfs(&[]);
    b.children[0].proposals[0].addke[0] = vec![KEM768];
    let mut stage = Stage::responder_with(5, b);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(&response[0]).unwrap();
    let payloads = stage.puppet.auth_payloads().unwrap();
    let auth = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let _ = stage.give(&auth);
    assert!(!stage.sad.is_empty());
    // It agrees to every rekey, and knows nothing of it a moment later.
    let mut sent = stage.command(Command::RekeyChildren { peer: "a".into() });
    let mut forgotten = 0;
    for _ in 0..20 {
        if sent.is_empty() {
            sent = stage.pass_time(Duration::from_secs(5));
        }
        let Some(request) = sent.pop() else { continue };
        sent.clear();
        let info = MessageInfo::of(&request).unwrap();
        if info.response {
            continue;
        }
        let inside = stage.puppet.open(&request).unwrap();
        if info.exchange == INFORMATIONAL {
            if inside.iter().any(|payload| matches!(payload, Payload::Delete(_))) {
                break;
            }
            sent = stage.answer(&request, &[]);
            continue;
        }
        let answer = if info.exchange == CREATE_CHILD_SA {
            stage.puppet.additional_answer(&inside).unwrap()
        } else {
            forgotten += 1;
            vec![Payload::Notify(Notify::new(NotifyType::STATE_NOT_FOUND, []))]
        };
        sent = stage.answer(&request, &answer);
    }
    assert_eq!(forgotten, 4);
    assert!(stage.sad.is_empty());
}
