//! Cases of docs/exchange-cases.md that no other file here has.

use core::time::Duration;

use ipsecd::ike::Event;
use ipsecd::ipsec::Notice;
use ipsecd::ipsec::pad::Peer;
use ipsecd::testing::Stage;
use ipsecd::wire::ike::numbers::{KeId, NotifyType, ProtocolId};
use ipsecd::wire::ike::payload::{Delete, Notify, Payload};

use crate::support::*;

/// The sites, with these groups for CHILD_SAs.
fn with_groups(a: &[KeId], b: &[KeId]) -> (Peer, Peer) {
    let (mut site_a, mut site_b) = (peers::site_a(), peers::site_b());
    site_a.children[0].proposals[0].ke = a.to_vec();
    site_b.children[0].proposals[0].ke = b.to_vec();
    (site_a, site_b)
}

#[track_caller]
fn comes_to_rest(pair: &mut Pair) {
    pair.hold = false;
    settle(pair);
    pair.run_for(Duration::from_secs(10));
    assert_ok(pair, pair.check_established(1));
    assert_ok(pair, pair.check_no_packet_missed());
}

#[test]
fn pfs_group_that_is_not_liked_is_asked_for_again_before_additional_key_exchanges() {
    for side in [A, B] {
        let (both, one) = ([KeId::CURVE25519, KeId::ECP_256], [KeId::ECP_256]);
        let (mut a, mut b) =
            if side == A { with_groups(&both, &one) } else { with_groups(&one, &both) };
        for peer in [&mut a, &mut b] {
            peer.children[0].proposals[0].addke[0] = vec![KeId::ML_KEM_512];
        }
        let mut pair = established_of(1, a, b);
        let old = only_child(&pair, A).spi_inbound;
        pair.hold = true;
        pair.rekey_children(side).unwrap();
        // CREATE_CHILD_SA { .., KEi(x25519) } -->  <-- { N(INVALID_KE_PAYLOAD, P-256) }
        pair.exchange(side, CREATE_CHILD_SA);
        // CREATE_CHILD_SA { .., KEi(P-256) } -->  <-- { .., KEr, N(ADDITIONAL_KEY_EXCHANGE) }
        pair.exchange(side, CREATE_CHILD_SA);
        // IKE_FOLLOWUP_KE { KEi(ML-KEM-512) } -->
        pair.exchange(side, IKE_FOLLOWUP_KE);
        comes_to_rest(&mut pair);
        assert_ne!(only_child(&pair, A).spi_inbound, old);
    }
}

/// Rekeyed by a side, whose DELETE of the old CHILD_SA is on the way; the inbound SPI of that at the other side.
fn rekeyed_but_for_the_delete(pair: &mut Pair, side: Side) -> ipsecd::ipsec::Spi {
    let old = only_child(pair, side.other()).spi_inbound;
    pair.hold = true;
    pair.rekey_children(side).unwrap();
    pair.exchange(side, CREATE_CHILD_SA);
    old
}

#[test]
fn soft_limit_of_what_is_replaced_begins_nothing() {
    for side in [A, B] {
        let mut pair = established();
        let old = rekeyed_but_for_the_delete(&mut pair, side);
        pair.notice(side.other(), Notice::Expire { spi: old, hard: false });
        assert!(pair.in_flight(side.other()).is_empty(), "{}", pair.trace);
        // INFORMATIONAL { D } -->
        pair.exchange(side, INFORMATIONAL);
        comes_to_rest(&mut pair);
    }
}

#[test]
fn hard_limit_of_what_is_replaced_deletes_it_and_nothing_else() {
    for side in [A, B] {
        let mut pair = established();
        let old = rekeyed_but_for_the_delete(&mut pair, side);
        pair.notice(side.other(), Notice::Expire { spi: old, hard: true });
        comes_to_rest(&mut pair);
        let closed = |side: Side| {
            let is = |event: &Event| matches!(event, Event::ChildSaClosed { .. });
            pair.node(side).events.iter().filter(|(_, event)| is(event)).count()
        };
        assert_eq!([closed(A), closed(B)], [0, 0], "it was replaced, not lost\n{}", pair.trace);
    }
}

#[test]
fn child_rekeys_meet_of_which_one_has_additional_key_exchanges() {
    for (one, order) in [(A, 0), (A, 1), (A, 2), (A, 3), (B, 0), (B, 1), (B, 2), (B, 3)] {
        for seed in 0..8 {
            let (mut a, mut b) = with_groups(&[KeId::CURVE25519], &[KeId::CURVE25519]);
            for (side, peer) in [(A, &mut a), (B, &mut b)] {
                // Both take either; only one of them asks for it first.
                let mut with = peer.children[0].proposals[0].clone();
                with.addke[0] = vec![KeId::ML_KEM_512];
                let at = usize::from(side != one);
                peer.children[0].proposals.insert(at, with);
            }
            let mut pair = established_of(seed, a, b);
            let old = only_child(&pair, A).spi_inbound;
            pair.hold = true;
            pair.rekey_children(A).unwrap();
            pair.rekey_children(B).unwrap();
            let (first, second) = if order & 1 == 0 { (A, B) } else { (B, A) };
            pair.pass(first, CREATE_CHILD_SA, REQUEST);
            pair.pass(second, CREATE_CHILD_SA, REQUEST);
            let (first, second) = if order & 2 == 0 { (A, B) } else { (B, A) };
            pair.pass(first, CREATE_CHILD_SA, RESPONSE);
            pair.pass(second, CREATE_CHILD_SA, RESPONSE);
            comes_to_rest(&mut pair);
            assert_ne!(only_child(&pair, A).spi_inbound, old);
        }
    }
}

#[test]
fn rekeys_that_meet_may_both_be_asked_for_another_group() {
    // Each begins with the group that the other does not take; the retries meet, or the one comes when the other is through.
    for delayed in [None, Some(A), Some(B)] {
        for seed in 0..8 {
            let (a, b) = with_groups(
                &[KeId::CURVE25519, KeId::MODP_2048],
                &[KeId::ECP_256, KeId::MODP_2048],
            );
            let mut pair = established_of(seed, a, b);
            let old = only_child(&pair, A).spi_inbound;
            pair.hold = true;
            pair.rekey_children(A).unwrap();
            pair.rekey_children(B).unwrap();
            for side in [A, B] {
                pair.pass(side, CREATE_CHILD_SA, REQUEST);
            }
            // N(INVALID_KE_PAYLOAD, MODP-2048) both ways
            for side in [A, B] {
                pair.pass(side, CREATE_CHILD_SA, RESPONSE);
            }
            if let Some(late) = delayed {
                let held = pair.expect(late, CREATE_CHILD_SA, REQUEST);
                pair.exchange(late.other(), CREATE_CHILD_SA);
                pair.deliver(held);
            }
            comes_to_rest(&mut pair);
            assert_ne!(only_child(&pair, A).spi_inbound, old);
        }
    }
}

/// An established endpoint as initiator, which takes these groups for IKE SAs, with a puppet that knows the first alone.
fn stage_with(groups: &[KeId]) -> Stage {
    let mut site = peers::site_a();
    site.ike.proposals[0].ke = groups.to_vec();
    let (mut stage, request) = Stage::initiator_of(1, site);
    stage.puppet.read_init_request(&request).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let request = stage.give(&response).remove(0);
    let asked = stage.puppet.open(&request).unwrap();
    let answer = stage.puppet.auth_response_payloads(&asked).unwrap();
    stage.answer(&request, &answer);
    assert!(!stage.sad.is_empty());
    stage
}

fn group_of(payloads: &[Payload]) -> Option<KeId> {
    payloads.iter().find_map(|payload| {
        let Payload::Ke(ke) = payload else { return None };
        Some(ke.group)
    })
}

#[test]
fn group_that_the_peer_no_longer_takes_is_asked_for_again_when_the_ike_sa_is_rekeyed() {
    let groups = [KeId::CURVE25519, KeId::ECP_256, KeId::MODP_2048];
    let mut stage = stage_with(&groups);
    let command = ipsecd::ike::Command::RekeyIke { peer: "b".into() };
    let mut request = stage.command(command).remove(0);
    assert_eq!(group_of(&stage.puppet.open(&request).unwrap()), Some(KeId::CURVE25519));
    let refuse = |group: KeId| {
        Payload::Notify(Notify::new(NotifyType::INVALID_KE_PAYLOAD, group.0.to_be_bytes()))
    };
    for group in [KeId::MODP_2048, KeId::ECP_256] {
        // CREATE_CHILD_SA { SA, Ni, KEi } -->  <-- { N(INVALID_KE_PAYLOAD) }
        request = stage.answer(&request, &[refuse(group)]).remove(0);
        assert_eq!(group_of(&stage.puppet.open(&request).unwrap()), Some(group));
    }
    // No group twice, and none that is not offered: the rekey has failed, and the IKE SA stays for now.
    for group in [KeId::CURVE25519, KeId::MODP_3072] {
        let mut stage = stage_with(&groups);
        let command = ipsecd::ike::Command::RekeyIke { peer: "b".into() };
        let request = stage.command(command).remove(0);
        assert!(stage.answer(&request, &[refuse(group)]).is_empty());
        assert_eq!(stage.ike_sas(), 1);
        assert!(!stage.sad.is_empty());
    }
}

#[test]
fn delete_of_the_old_child_sa_by_the_responder_of_a_rekey_is_taken() {
    // Before its answer to our rekey, and after it; we rekey and the puppet, which is not to do so, deletes.
    for before in [true, false] {
        let mut stage = Stage::established_initiator(1).unwrap();
        let old = stage.sad.all_inbound().next().unwrap().clone();
        let request = stage.command(ipsecd::ike::Command::RekeyChildren { peer: "b".into() });
        let request = request.first().unwrap().clone();
        let asked = stage.puppet.open(&request).unwrap();
        stage.puppet.esp_spi = stage.puppet.fresh_esp_spi();
        let mut answer = stage.puppet.child_answer(&asked).unwrap();
        answer.push(stage.puppet.fresh_nonce());
        let delete = Payload::Delete(Delete::of(ProtocolId::ESP, [old.other_spi.to_be_bytes()]));
        let mut sent = Vec::new();
        if before {
            let delete =
                stage.puppet.request(INFORMATIONAL, std::slice::from_ref(&delete)).unwrap();
            sent.extend(stage.give(&delete));
        }
        sent.extend(stage.answer(&request, &answer));
        if !before {
            let delete = stage.puppet.request(INFORMATIONAL, &[delete]).unwrap();
            sent.extend(stage.give(&delete));
        }
        // Whatever the endpoint asks is answered.
        while let Some(datagram) = sent.pop() {
            let is_request =
                ipsecd::testing::MessageInfo::of(&datagram).is_some_and(|it| !it.response);
            if is_request {
                sent.extend(stage.answer(&datagram, &[]));
            }
        }
        let _ = stage.pass_time(Duration::from_secs(10));
        assert!(stage.violations.is_empty(), "{:?}", stage.violations);
        let spis: Vec<_> = stage.sad.all_outbound().map(|sa| sa.spi).collect();
        assert_eq!(spis, [stage.puppet.esp_spi], "the new one stays, before: {before}");
        let errors = |event: &&Event| {
            matches!(event, Event::IkeSaClosed { .. } | Event::ChildSaFailed { .. })
        };
        assert_eq!(stage.events.iter().filter(errors).count(), 0);
    }
}
