//! CREATE_CHILD_SA that replaces a CHILD_SA (RFC 7296 §1.3.3) or the IKE SA (§1.3.2), without a packet lost.

use core::time::Duration;

use ipsecd::ike::Event;
use ipsecd::ipsec::{Lifetime, Notice};
use ipsecd::wire::ike::numbers::KeId;

use crate::support::*;

#[test]
fn child_sa_is_replaced_without_a_moment_in_which_a_packet_meets_nothing() {
    for (side, group) in
        [(A, None), (B, None), (A, Some(KeId::CURVE25519)), (B, Some(KeId::ECP_256))]
    {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        for peer in [&mut a, &mut b] {
            peer.children[0].proposals[0].ke = group.into_iter().collect();
        }
        let mut pair = established_of(1, a, b);
        let old = only_child(&pair, side);
        let other = side.other();
        pair.hold = true;
        pair.rekey_children(side).unwrap();

        // CREATE_CHILD_SA { N(REKEY_SA), SA, Ni, [KEi], TSi, TSr } -->
        pair.pass(side, CREATE_CHILD_SA, REQUEST);
        assert_eq!(pair.node(side).sad.all_inbound().count(), 1);
        assert_eq!(pair.node(other).sad.all_inbound().count(), 2);
        // RFC 7296 §2.8: the responder goes on sending on the old SA.
        let sending = pair.node(other).sad.in_use();
        assert_eq!(sending.values().next().unwrap().spi, old.spi_inbound);

        // <-- CREATE_CHILD_SA { SA, Nr, [KEr], TSi, TSr }
        pair.pass(other, CREATE_CHILD_SA, RESPONSE);
        let sending = pair.node(side).sad.in_use();
        assert_ne!(sending.values().next().unwrap().spi, old.spi_outbound, "A sends on the new SA");
        assert_eq!(pair.node(side).sad.all_inbound().count(), 2, "A still receives on the old one");

        // INFORMATIONAL { D(ESP, old SPI) } -->  <-- INFORMATIONAL { D(ESP, old SPI) }
        pair.exchange(side, INFORMATIONAL);
        pair.deliver_packets();
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_ok(&pair, pair.check_no_packet_missed());
        let new = only_child(&pair, side);
        assert_ne!(new.spi_inbound, old.spi_inbound);
        assert_ne!(new.spi_outbound, old.spi_outbound);
        assert_eq!((new.ts_local, new.ts_peer), (old.ts_local, old.ts_peer));
        assert_eq!(new.suite, old.suite);
    }
}

#[test]
fn pfs_group_that_the_peer_does_not_like_is_asked_for_again() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.children[0].proposals[0].ke = vec![KeId::CURVE25519, KeId::ECP_256];
    b.children[0].proposals[0].ke = vec![KeId::ECP_256];
    let mut pair = established_of(1, a, b);
    let old = only_child(&pair, A).spi_inbound;
    pair.hold = true;
    pair.rekey_children(A).unwrap();
    // CREATE_CHILD_SA { .., KEi(x25519) } -->  <-- { N(INVALID_KE_PAYLOAD, P-256) }
    pair.exchange(A, CREATE_CHILD_SA);
    // CREATE_CHILD_SA { .., KEi(P-256) } -->  <-- { .., KEr }
    pair.exchange(A, CREATE_CHILD_SA);
    pair.exchange(A, INFORMATIONAL);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_ne!(only_child(&pair, A).spi_inbound, old);
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn new_ike_sa_inherits_the_child_sas_untouched() {
    for side in [A, B] {
        let mut pair = established();
        let (old, child) = (pair.ike_sas(A), only_child(&pair, A));
        let other = side.other();
        pair.hold = true;
        pair.rekey_ike(side).unwrap();

        // CREATE_CHILD_SA { SA(IKE, SPI), Ni, KEi } -->
        pair.pass(side, CREATE_CHILD_SA, REQUEST);
        // <-- CREATE_CHILD_SA { SA(IKE, SPI), Nr, KEr }
        pair.pass(other, CREATE_CHILD_SA, RESPONSE);
        // INFORMATIONAL { D(IKE) } in the old IKE SA, its last message ID -->
        let delete = pair.expect(side, INFORMATIONAL, REQUEST);
        let info = delete.info().unwrap();
        assert!(old.contains(&(info.spi_i, info.spi_r)), "the delete goes over the old IKE SA");
        pair.deliver(delete);
        pair.pass(other, INFORMATIONAL, RESPONSE);
        pair.hold = false;
        settle(&mut pair);

        assert_ok(&pair, pair.check_established(1));
        assert!(pair.ike_sas(A).is_disjoint(&old));
        // RFC 7296 §2.18: who rekeyed is the original initiator of the new IKE SA.
        assert!(only_sa(&pair, side).initiator && !only_sa(&pair, other).initiator);
        let kept = only_child(&pair, A);
        assert_eq!((kept.spi_inbound, kept.spi_outbound), (child.spi_inbound, child.spi_outbound));
        for side in [A, B] {
            let rekeyed = |event: &Event| {
                matches!(event, Event::IkeSaEstablished { rekeyed_from: Some(_), .. })
            };
            assert_eq!(pair.node(side).events.iter().filter(|(_, e)| rekeyed(e)).count(), 1);
            assert_eq!(pair.closed(side), [], "a rekeyed IKE SA is not closed");
        }
    }
}

#[test]
fn message_ids_begin_at_zero_after_an_ike_rekey() {
    let mut pair = established();
    pair.rekey_ike(B).unwrap();
    settle(&mut pair);
    pair.hold = true;
    pair.rekey_children(A).unwrap();
    let request = pair.expect(A, CREATE_CHILD_SA, REQUEST);
    // RFC 7296 §2.2: the first message in each direction of the new IKE SA has ID 0.
    assert_eq!(request.info().unwrap().message_id, 0);
    assert!(!request.info().unwrap().from_initiator, "B began this IKE SA");
    pair.deliver(request);
    pair.pass(B, CREATE_CHILD_SA, RESPONSE);
    pair.exchange(A, INFORMATIONAL);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn many_rekeys_of_both_kinds_lose_no_packet_of_a_stream() {
    let mut pair = established();
    pair.stream = Some(Duration::from_millis(5));
    for round in 0..220 {
        let side = if round % 3 == 0 { B } else { A };
        if round % 11 == 10 { pair.rekey_ike(side) } else { pair.rekey_children(side) }.unwrap();
        pair.run_for(Duration::from_millis(500));
    }
    pair.stream = None;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_ok(&pair, pair.check_no_packet_missed());
    assert!(pair.node(A).received > 20_000 && pair.node(B).received > 20_000);
}

#[test]
fn soft_limits_rekey_by_themselves() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    for peer in [&mut a, &mut b] {
        peer.ike.rekey_time = Some(Duration::from_secs(1000));
        peer.children[0].lifetime = Lifetime {
            soft_time: Some(Duration::from_secs(300)),
            hard_time: Some(Duration::from_secs(400)),
            ..Lifetime::default()
        };
    }
    let mut pair = established_of(3, a, b);
    let (ike, child) = (pair.ike_sas(A), only_child(&pair, A).spi_inbound);
    pair.stream = Some(Duration::from_secs(1));
    for _ in 0..100 {
        pair.run_for(Duration::from_secs(100));
        assert_eq!(pair.closed(A), [], "{}", pair.trace);
    }
    assert_ok(&pair, pair.check_no_packet_missed());
    pair.stream = None;
    // Give a rekey that is just going on the time to end.
    let done = pair.run_until(Duration::from_secs(60), |pair| pair.check_established(1).is_ok());
    assert_that(&pair, done, "one IKE SA and one CHILD_SA");
    assert!(pair.ike_sas(A).is_disjoint(&ike));
    assert_ne!(only_child(&pair, A).spi_inbound, child);
}

#[test]
fn soft_expiry_told_by_the_datapath_rekeys() {
    let mut pair = established();
    let old = only_child(&pair, B);
    for _ in 0..3 {
        // Told again and again, it is one rekey.
        pair.notice(B, Notice::Expire { spi: old.spi_inbound, hard: false });
    }
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_ne!(only_child(&pair, B).spi_inbound, old.spi_inbound);
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn ike_sa_that_cannot_be_rekeyed_ends_with_its_lifetime() {
    let (mut a, b) = (peers::site_a(), peers::site_b());
    a.ike.rekey_time = Some(Duration::from_secs(100));
    a.ike.over_time = Duration::from_secs(20);
    // More than the lifetime leaves, so that the lifetime decides and not the retransmissions.
    a.ike.retransmit_timeout = Duration::from_secs(60);
    let mut pair = established_of(1, a, b);
    pair.run_for(Duration::from_secs(80));
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.run_for(Duration::from_secs(60));
    assert!(pair.ike_sas(A).is_empty(), "{}", pair.trace);
    assert!(pair.node(A).sad.is_empty());
}

#[test]
fn several_child_sas_are_rekeyed_together() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.children.push(peers::child("voice", 2, &[peers::subnet(11)], &[peers::subnet(12)]));
    b.children.push(peers::child("voice", 2, &[peers::subnet(12)], &[peers::subnet(11)]));
    let mut pair = established_of(1, a, b);
    let old: Vec<_> = only_sa(&pair, A).children.iter().map(|c| c.spi_inbound).collect();
    pair.rekey_children(A).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(2));
    assert_ok(&pair, pair.check_no_packet_missed());
    assert!(only_sa(&pair, A).children.iter().all(|c| !old.contains(&c.spi_inbound)));
}
