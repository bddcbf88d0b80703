//! IKE_SA_INIT and IKE_AUTH that end well.

use core::net::Ipv4Addr;
use core::time::Duration;

use ipsecd::ike::{CloseReason, Event, Phase};
use ipsecd::ipsec::suite::{ChildProposal, Encr, IkeProposal, Protocol};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

use crate::support::*;

#[test]
fn two_exchanges_establish_ike_sa_and_child_sa() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);

    // IKE_SA_INIT { SAi1, KEi, Ni, N(NAT_DETECTION_*) } -->
    pair.pass(A, IKE_SA_INIT, REQUEST);
    assert!(pair.ike_sas(A).is_empty() && pair.ike_sas(B).is_empty());

    // <-- IKE_SA_INIT { SAr1, KEr, Nr, N(NAT_DETECTION_*) }
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    assert!(pair.ike_sas(A).is_empty() && pair.ike_sas(B).is_empty());

    // IKE_AUTH { IDi, [IDr], AUTH, SAi2, TSi, TSr } -->
    let request = pair.expect(A, IKE_AUTH, REQUEST);
    assert_eq!(request.info().unwrap().message_id, 1);
    pair.deliver(request);
    assert!(pair.ike_sas(A).is_empty(), "A has not seen B's AUTH");
    assert_eq!(only_sa(&pair, B).state, "ESTABLISHED");
    assert_eq!(pair.node(B).sad.all_inbound().count(), 1);

    // <-- IKE_AUTH { IDr, AUTH, SAr2, TSi, TSr }
    pair.pass(B, IKE_AUTH, RESPONSE);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
    assert_ok(&pair, pair.check_no_packet_missed());
    assert!(pair.in_flight(A).is_empty() && pair.in_flight(B).is_empty());

    let (a, b) = (only_sa(&pair, A), only_sa(&pair, B));
    assert!(a.initiator && !b.initiator);
    assert_eq!(a.peer_id, Some(b.local_id.clone()));
    assert_eq!(b.peer_id, Some(a.local_id.clone()));
    assert_eq!(a.suite, b.suite);
    assert!(!a.nat_local && !a.nat_peer && !b.nat_local && !b.nat_peer);
}

#[test]
fn child_sa_of_ike_auth_serves_at_once_and_nothing_more_is_asked() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let request = pair.expect(A, IKE_AUTH, REQUEST);
    pair.deliver(request);
    // B has no older one, and A is authenticated.
    assert_eq!(pair.node(B).sad.in_use().len(), 1);
    let told = |(_, event): &&(_, Event)| matches!(event, Event::ChildSaEstablished { .. });
    assert_eq!(pair.node(B).events.iter().filter(told).count(), 1);
    pair.pass(B, IKE_AUTH, RESPONSE);
    pair.run_for(Duration::from_secs(5));
    assert!(pair.in_flight(A).is_empty() && pair.in_flight(B).is_empty(), "{}", pair.trace);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn both_sides_report_their_progress() {
    let pair = established();
    let phases = |side| -> Vec<Phase> {
        let phase = |event: &Event| {
            let Event::Progress { phase, .. } = event else { return None };
            Some(*phase)
        };
        pair.node(side).events.iter().filter_map(|(_, event)| phase(event)).collect()
    };
    assert_eq!(phases(A), [Phase::IkeSaInit, Phase::IkeAuth, Phase::Authenticated]);
    for side in [A, B] {
        let count = |wanted: fn(&Event) -> bool| {
            pair.node(side).events.iter().filter(|(_, event)| wanted(event)).count()
        };
        assert_eq!(count(|e| matches!(e, Event::IkeSaEstablished { rekeyed_from: None, .. })), 1);
        assert_eq!(count(|e| matches!(e, Event::ChildSaEstablished { rekeyed: false, .. })), 1);
    }
}

#[test]
fn either_side_can_begin() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.initiate(B);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert!(only_sa(&pair, B).initiator);
}

#[test]
fn invalid_ke_payload_is_answered_with_the_group_asked_for() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.ike.proposals[0].ke = vec![KeId::CURVE25519, KeId::ECP_256];
    b.ike.proposals[0].ke = vec![KeId::ECP_256];
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);

    // IKE_SA_INIT { SAi1, KEi(x25519), Ni } -->
    let first = pair.expect(A, IKE_SA_INIT, REQUEST);
    pair.deliver(first);
    // <-- IKE_SA_INIT { N(INVALID_KE_PAYLOAD, P-256) }
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    assert!(pair.status(B).is_empty(), "nothing is kept for a request that was refused");
    // IKE_SA_INIT { SAi1, KEi(P-256), Ni } -->
    let second = pair.expect(A, IKE_SA_INIT, REQUEST);
    assert_eq!(second.info().unwrap().message_id, 0);
    pair.deliver(second);
    // <-- IKE_SA_INIT { SAr1, KEr, Nr }
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    pair.exchange(A, IKE_AUTH);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(only_sa(&pair, A).suite.unwrap().ke, KeId::ECP_256);
}

#[test]
fn every_ike_and_esp_algorithm_establishes_and_rekeys() {
    let gcm = |bits| Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) };
    let cbc = |bits| Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(bits) };
    let sha = [
        (IntegId::AUTH_HMAC_SHA2_256_128, PrfId::PRF_HMAC_SHA2_256),
        (IntegId::AUTH_HMAC_SHA2_384_192, PrfId::PRF_HMAC_SHA2_384),
        (IntegId::AUTH_HMAC_SHA2_512_256, PrfId::PRF_HMAC_SHA2_512),
    ];
    let groups = [KeId::CURVE25519, KeId::ECP_256, KeId::ECP_384, KeId::MODP_2048];
    let mut suites = vec![];
    for (encr, (integ, prf), ke) in [
        (gcm(128), (IntegId::NONE, sha[0].1), groups[0]),
        (gcm(256), (IntegId::NONE, sha[1].1), groups[1]),
        (cbc(128), sha[0], groups[2]),
        (cbc(256), sha[1], groups[0]),
        (cbc(256), sha[2], groups[3]),
    ] {
        let integ = if integ == IntegId::NONE { vec![] } else { vec![integ] };
        suites.push((
            IkeProposal {
                encr: vec![encr],
                integ: integ.clone(),
                prf: vec![prf],
                ke: vec![ke],
                addke: Default::default(),
            },
            ChildProposal {
                protocol: Protocol::Esp,
                encr: vec![encr],
                integ,
                ke: vec![ke],
                addke: Default::default(),
                esn: vec![EsnId::NO_ESN],
            },
        ));
    }
    for (ike, esp) in suites {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        for peer in [&mut a, &mut b] {
            peer.ike.proposals = vec![ike.clone()];
            peer.children[0].proposals = vec![esp.clone()];
        }
        let mut pair = established_of(2, a, b);
        assert_eq!(only_sa(&pair, A).suite.unwrap().encr, ike.encr[0]);
        assert_eq!(only_child(&pair, B).suite.esp().unwrap().encr, esp.encr[0]);
        pair.rekey_children(A).unwrap();
        settle(&mut pair);
        pair.rekey_ike(B).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
    }
}

#[test]
fn several_child_sas_come_up_under_one_ike_sa() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.children.push(peers::child("voice", 2, &[peers::subnet(11)], &[peers::subnet(12)]));
    b.children.push(peers::child("voice", 2, &[peers::subnet(12)], &[peers::subnet(11)]));
    a.children.push(peers::child("video", 3, &[peers::subnet(21)], &[peers::subnet(22)]));
    b.children.push(peers::child("video", 3, &[peers::subnet(22)], &[peers::subnet(21)]));
    let pair = established_of(1, a, b);
    assert_ok(&pair, pair.check_established(3));
    assert_eq!(pair.node(A).sad.in_use().len(), 3);
}

#[test]
fn simultaneous_initiation_ends_with_the_same_sas_on_both_sides() {
    for seed in 0..20 {
        let mut pair = Pair::with(seed, LinkConfig::PERFECT, peers::site_a(), peers::site_b());
        pair.trace.keep_lines();
        pair.initiate(A);
        pair.initiate(B);
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
    }
}

#[test]
fn an_attempt_is_given_up_once_the_peer_was_faster() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(B);
    drop(pair.expect(B, IKE_SA_INIT, REQUEST));
    pair.hold = false;
    pair.initiate(A);
    assert!(pair.run_until(Duration::from_secs(1), |pair| pair.check_established(1).is_ok()));
    let only = pair.ike_sas(A);
    assert_eq!(only.len(), 1);
    // The request is not sent again.
    settle(&mut pair);
    assert_eq!((pair.ike_sas(A), pair.ike_sas(B)), (only.clone(), only));
    assert_eq!(pair.closed(B), [CloseReason::Replaced]);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn ike_auth_that_crosses_another_makes_an_sa_that_is_sent_on_once_the_peer_has_it() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let ours = pair.expect(A, IKE_AUTH, REQUEST);
    pair.initiate(B);
    pair.exchange(B, IKE_SA_INIT);
    let theirs = pair.expect(B, IKE_AUTH, REQUEST);
    pair.deliver(ours);
    pair.pass(B, IKE_AUTH, RESPONSE);
    // IKE_AUTH <--, and A, which has an SA in use already, sends on that until B has the new one.
    pair.deliver(theirs);
    let in_use = pair.node(A).sad.in_use().len();
    assert_eq!(in_use, 1);
    assert_ok(&pair, pair.check_no_packet_missed());
    pair.pass(A, IKE_AUTH, RESPONSE);
    assert_ok(&pair, pair.check_no_packet_missed());
    pair.hold = false;
    pair.run_for(Duration::from_millis(500));
    assert_ok(&pair, pair.check_no_packet_missed());
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn initiating_again_leaves_an_established_ike_sa_alone() {
    let mut pair = established();
    let before = pair.ike_sas(A);
    pair.initiate(A);
    settle(&mut pair);
    assert_eq!(pair.ike_sas(A), before);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn responder_takes_a_peer_from_anywhere() {
    let mut b = peers::site_b();
    b.address = ipsecd::ipsec::pad::PeerAddress::Any;
    let mut pair = pair_of(peers::site_a(), b);
    pair.node_mut(A).addr = Ipv4Addr::new(203, 0, 113, 77).into();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(only_sa(&pair, B).path.remote.ip(), Ipv4Addr::new(203, 0, 113, 77));
}
