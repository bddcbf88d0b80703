//! NAT detection and traversal (RFC 7296 §2.23).

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use ipsecd::ike::CloseReason;
use ipsecd::ipsec::Encap;
use ipsecd::ipsec::pad::{EncapPolicy, PeerAddress};
use ipsecd::testing::{FixedRandom, Nat};

use crate::support::*;

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn behind_nat(side: Side) -> Pair {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    if side == A {
        b.address = PeerAddress::Any;
    } else {
        a.address = PeerAddress::Ip(PUBLIC);
    }
    let mut pair = pair_of(a, b);
    pair.node_mut(side).nat = Some(Nat::new(PUBLIC));
    pair
}

#[test]
fn initiator_behind_a_nat_moves_to_port_4500() {
    let mut pair = behind_nat(A);
    pair.hold = true;
    pair.initiate(A);
    // IKE_SA_INIT { .., N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP) } --> NAT -->
    pair.exchange(A, IKE_SA_INIT);
    // IKE_AUTH on port 4500, with the non-ESP marker -->
    let auth = pair.expect(A, IKE_AUTH, REQUEST);
    assert_eq!(auth.path().local.port(), 4500);
    assert_eq!(auth.path().encap, Encap::Udp);
    pair.deliver(auth);
    pair.pass(B, IKE_AUTH, RESPONSE);
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));
    assert_ok(&pair, pair.check_no_packet_missed());
    let (a, b) = (only_sa(&pair, A), only_sa(&pair, B));
    assert!(a.nat_local && !a.nat_peer && b.nat_peer && !b.nat_local);
    assert_eq!(b.path.remote.ip(), PUBLIC);
    for side in [A, B] {
        assert_eq!(only_child(&pair, side).path.encap, Encap::Udp);
    }
}

#[test]
fn responder_behind_a_nat_is_noticed_too() {
    let mut pair = behind_nat(B);
    // Someone has to have opened the way in, as a port forwarding would.
    let inside = pair.node(B).addr;
    let nat = pair.node_mut(B).nat.as_mut().unwrap();
    let (ike, natt) = (nat.outward((inside, 500).into()), nat.outward((inside, 4500).into()));
    assert_eq!((ike.ip(), natt.ip()), (PUBLIC, PUBLIC));
    nat.forward((inside, 500).into(), 500);
    nat.forward((inside, 4500).into(), 4500);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    let (a, b) = (only_sa(&pair, A), only_sa(&pair, B));
    assert!(!a.nat_local && a.nat_peer && b.nat_local && !b.nat_peer);
    assert_eq!(only_child(&pair, A).path.encap, Encap::Udp);
}

#[test]
fn without_a_nat_nothing_is_encapsulated() {
    let pair = established();
    for side in [A, B] {
        assert_eq!(only_child(&pair, side).path.encap, Encap::Plain);
    }
}

#[test]
fn encapsulation_can_be_forced_from_either_side() {
    for side in [A, B] {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        if side == A { &mut a } else { &mut b }.ike.encap = EncapPolicy::Udp;
        let pair = established_of(1, a, b);
        for side in [A, B] {
            let path = only_child(&pair, side).path;
            assert_eq!((path.encap, path.local.port()), (Encap::Udp, 4500), "{}", pair.trace);
        }
        assert_ok(&pair, pair.check_no_packet_missed());
    }
}

#[test]
fn initiator_may_begin_on_port_4500() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.initiate_on(A, peers::path_udp(peers::ADDR_A, peers::ADDR_B));
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn nat_is_an_error_where_encapsulation_is_forbidden() {
    let mut pair = behind_nat(A);
    let mut a = peers::site_a();
    a.ike.encap = EncapPolicy::None;
    pair.command(A, ipsecd::ike::Command::AddPeer(std::sync::Arc::new(a))).unwrap();
    pair.initiate(A);
    settle(&mut pair);
    assert_eq!(pair.closed(A), [CloseReason::NatForbidden], "{}", pair.trace);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn nat_in_front_of_us_is_kept_open() {
    let mut pair = behind_nat(A);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    let due = pair.timer(A).unwrap() - pair.clock.elapsed();
    // RFC 3948 §4: 20 seconds by default.
    assert!(due <= Duration::from_secs(30), "{due:?}");
}

#[test]
fn peer_behind_a_rebound_nat_is_followed() {
    let mut pair = behind_nat(A);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    let old = only_child(&pair, B).path;
    pair.node_mut(A).nat.as_mut().unwrap().rebind();
    // The first ESP packet from the new port, authenticated, moves the SA (RFC 7296 §2.23).
    pair.send_packets();
    pair.run_for(Duration::from_millis(100));
    let new = only_child(&pair, B).path;
    assert_ne!(old.remote, new.remote, "{}", pair.trace);
    pair.missed.clear();
    pair.send_packets();
    pair.run_for(Duration::from_secs(1));
    assert_ok(&pair, pair.check_no_packet_missed());
    assert_ok(&pair, pair.check_established(1));
    // And IKE goes there too.
    pair.rekey_ike(B).unwrap();
    settle_behind_nat(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn rekeys_behind_a_nat_keep_encapsulation_and_path() {
    let mut pair = behind_nat(A);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    let path = only_child(&pair, B).path;
    for begin in [Pair::rekey_children, Pair::rekey_ike, Pair::rekey_children] {
        for side in [B, A] {
            begin(&mut pair, side).unwrap();
            settle_behind_nat(&mut pair);
            assert_ok(&pair, pair.check_established(1));
            assert_eq!(only_child(&pair, B).path, path);
            let (a, b) = (only_sa(&pair, A), only_sa(&pair, B));
            assert!(a.nat_local && b.nat_peer, "{}", pair.trace);
        }
    }
    assert_ok(&pair, pair.check_no_packet_missed());
}

/// Keepalives never end.
fn settle_behind_nat(pair: &mut Pair) {
    pair.run_for(Duration::from_secs(60));
}

#[test]
fn forged_source_does_not_move_the_peer() {
    let mut pair = established();
    let path = only_sa(&pair, B).path;
    pair.hold = true;
    pair.rekey_children(A).unwrap();
    let request = pair.expect(A, CREATE_CHILD_SA, REQUEST);
    let mut forged = request.datagram().to_vec();
    let at = FixedRandom::new(5, 0).below(forged.len() - 28) + 28;
    forged[at] ^= 1;
    let elsewhere = (Ipv4Addr::new(203, 0, 113, 66), 4500).into();
    let from = ipsecd::ipsec::Path { remote: elsewhere, ..request.path() };
    pair.inject(B, from, &forged);
    assert_eq!(only_sa(&pair, B).path, path);
    assert!(pair.in_flight(B).is_empty(), "{}", pair.trace);
}
