//! Modes and protocols of CHILD_SAs: transport mode (RFC 7296 §1.3.1, §2.23.1), AH, ESN.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::sync::Arc;

use ipsecd::ike::{CloseReason, Command};
use ipsecd::ipsec::pad::{EncapPolicy, Peer, PeerAddress};
use ipsecd::ipsec::suite::{ChildProposal, Protocol};
use ipsecd::ipsec::{Encap, Mode, TrafficSelector};
use ipsecd::testing::{Nat, Stage};
use ipsecd::wire::ike::numbers::{EsnId, IntegId, NotifyType, ProtocolId};
use ipsecd::wire::ike::payload::{Delete, Notify, Payload};

use crate::support::*;

const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn hosts(mut peer: Peer, local: IpAddr, remote: IpAddr) -> Peer {
    let child = &mut peer.children[0];
    child.mode = Mode::Transport;
    child.ts_local = vec![TrafficSelector::from_addr(local)];
    child.ts_peer = vec![TrafficSelector::from_addr(remote)];
    peer
}

fn host_a() -> Peer {
    hosts(peers::site_a(), peers::ADDR_A, peers::ADDR_B)
}

fn host_b() -> Peer {
    hosts(peers::site_b(), peers::ADDR_B, peers::ADDR_A)
}

fn ah(esn: &[EsnId]) -> ChildProposal {
    ChildProposal {
        protocol: Protocol::Ah,
        encr: vec![],
        integ: vec![IntegId::AUTH_HMAC_SHA2_256_128],
        ke: vec![],
        addke: Default::default(),
        esn: esn.to_vec(),
    }
}

fn with_ah(mut peer: Peer) -> Peer {
    peer.children[0].proposals = vec![ah(&[EsnId::NO_ESN])];
    peer
}

#[track_caller]
fn assert_mode(pair: &Pair, mode: Mode) {
    for side in [A, B] {
        assert_eq!(only_child(pair, side).mode, mode, "{side}");
        assert!(pair.node(side).sad.all_inbound().all(|sa| sa.mode == mode));
        assert!(pair.node(side).sad.all_outbound().all(|sa| sa.mode == mode));
    }
}

/// With IKE_AUTH, and once more after it: A had no CHILD_SA for this reason.
#[track_caller]
fn assert_failed(pair: &Pair, reason: &CloseReason) {
    let failures = pair.child_failures(A);
    assert!(
        !failures.is_empty() && failures.iter().all(|failure| failure == reason),
        "{failures:?}"
    );
}

/// A initiates; the two come to rest.
fn brought_up(a: Peer, b: Peer) -> Pair {
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(10));
    pair
}

#[test]
fn transport_mode_is_agreed_and_stays_when_rekeyed_by_either_side() {
    let mut pair = established_of(1, host_a(), host_b());
    assert_mode(&pair, Mode::Transport);
    for side in [A, B] {
        pair.rekey_children(side).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_mode(&pair, Mode::Transport);
    }
    pair.rekey_ike(A).unwrap();
    settle(&mut pair);
    assert_mode(&pair, Mode::Transport);
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn responder_without_transport_mode_answers_in_tunnel_mode() {
    let (mut a, mut b) = (host_a(), host_b());
    b.children[0].mode = Mode::Tunnel;
    a.children[0].or_tunnel = true;
    let pair = established_of(1, a, b);
    assert_mode(&pair, Mode::Tunnel);
}

#[test]
fn initiator_that_wants_nothing_else_deletes_what_came_in_tunnel_mode() {
    let mut b = host_b();
    b.children[0].mode = Mode::Tunnel;
    let pair = brought_up(host_a(), b);
    // RFC 7296 §1.3.1: "If the responder declines the request .. the initiator MUST delete the SA".
    assert_failed(&pair, &CloseReason::NoTransport);
    assert_ok(&pair, pair.check_established(0));
    for side in [A, B] {
        assert!(pair.node(side).sad.is_empty());
    }
}

#[test]
fn responder_that_wants_nothing_else_refuses_tunnel_mode() {
    let mut a = host_a();
    a.children[0].mode = Mode::Tunnel;
    let pair = brought_up(a.clone(), host_b());
    assert_failed(&pair, &CloseReason::NoProposal("CHILD_SA"));
    assert_ok(&pair, pair.check_established(0));
    let mut b = host_b();
    b.children[0].or_tunnel = true;
    assert_mode(&brought_up(a, b), Mode::Tunnel);
}

#[test]
fn transport_mode_is_not_asked_for_between_others_than_the_two_hosts() {
    // RFC 7296 §2.23.1: the selectors "MUST have exactly one IP address, and that MUST match" that of the IKE SA.
    let mut a = peers::site_a();
    a.children[0].mode = Mode::Transport;
    let mut pair = pair_of(a.clone(), peers::site_b());
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    let reason = CloseReason::TransportElsewhere { local: peers::ADDR_A, remote: peers::ADDR_B };
    assert_eq!(pair.closed(A), [reason]);
    a.children[0].or_tunnel = true;
    assert_mode(&established_of(1, a, peers::site_b()), Mode::Tunnel);
}

#[test]
fn mode_that_was_not_asked_for_is_not_taken() {
    let (mut stage, request) = Stage::initiator(1);
    let request = {
        stage.puppet.read_init_request(&request).unwrap();
        let response = stage.puppet.init_response().unwrap();
        stage.give(&response).remove(0)
    };
    let asked = stage.puppet.open(&request).unwrap();
    let mut payloads = stage.puppet.auth_response_payloads(&asked).unwrap();
    payloads.push(Payload::Notify(Notify::new(NotifyType::USE_TRANSPORT_MODE, [])));
    let sent = stage.answer(&request, &payloads);
    assert!(stage.sad.is_empty());
    let deletes = |payloads: Vec<Payload>| {
        payloads.iter().any(
            |payload| matches!(payload, Payload::Delete(delete) if delete.protocol == ProtocolId::ESP),
        )
    };
    assert!(sent.iter().any(|datagram| deletes(stage.puppet.open(datagram).unwrap())));
}

#[test]
fn selectors_of_transport_mode_are_those_that_each_side_sees_through_a_nat() {
    for side in [A, B] {
        let (mut a, mut b) = (host_a(), host_b());
        if side == A {
            b = hosts(b, peers::ADDR_B, PUBLIC);
            b.address = PeerAddress::Ip(PUBLIC);
        } else {
            a = hosts(a, peers::ADDR_A, PUBLIC);
            a.address = PeerAddress::Ip(PUBLIC);
        }
        let mut pair = pair_of(a, b);
        let mut nat = Nat::new(PUBLIC);
        let inside = pair.node(side).addr;
        if side == B {
            for port in [500, 4500] {
                nat.outward((inside, port).into());
                nat.forward((inside, port).into(), port);
            }
        }
        pair.node_mut(side).nat = Some(nat);
        pair.initiate(A);
        pair.run_for(Duration::from_secs(2));
        assert_mode(&pair, Mode::Transport);
        let other = if side == A { B } else { A };
        let ts = |address| [TrafficSelector::from_addr(address)];
        let (outside, behind) = (only_child(&pair, other), only_child(&pair, side));
        assert_eq!(*outside.ts_peer, ts(PUBLIC));
        assert_eq!(*outside.ts_local, ts(pair.node(other).addr));
        assert_eq!(*behind.ts_local, ts(inside));
        assert_eq!(*behind.ts_peer, ts(pair.node(other).addr));
        assert_eq!(behind.path.encap, Encap::Udp);
        // And again when it is rekeyed, from either side.
        for initiator in [A, B] {
            pair.rekey_children(initiator).unwrap();
            pair.run_for(Duration::from_secs(10));
            assert_mode(&pair, Mode::Transport);
            assert_eq!(*only_child(&pair, other).ts_peer, ts(PUBLIC));
            assert_eq!(*only_child(&pair, side).ts_local, ts(inside));
        }
        assert_ok(&pair, pair.check_no_packet_missed());
    }
}

#[test]
fn tunnel_mode_through_a_nat_is_with_the_selectors_that_were_sent() {
    // RFC 7296 §2.23.1: the responder has no policy for transport mode, so it undoes the substitution.
    let mut a = host_a();
    a.children[0].or_tunnel = true;
    let mut b = host_b();
    b.children[0].mode = Mode::Tunnel;
    b.address = PeerAddress::Any;
    let mut pair = pair_of(a, b);
    pair.node_mut(A).nat = Some(Nat::new(PUBLIC));
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert_mode(&pair, Mode::Tunnel);
    assert_eq!(*only_child(&pair, B).ts_peer, [TrafficSelector::from_addr(peers::ADDR_A)]);
}

#[test]
fn ah_is_agreed_rekeyed_and_deleted() {
    for mode in [Mode::Tunnel, Mode::Transport] {
        let (mut a, mut b) = match mode {
            Mode::Tunnel => (peers::site_a(), peers::site_b()),
            Mode::Transport => (host_a(), host_b()),
        };
        (a, b) = (with_ah(a), with_ah(b));
        let mut pair = established_of(1, a, b);
        for side in [A, B] {
            pair.rekey_children(side).unwrap();
            settle(&mut pair);
            assert_ok(&pair, pair.check_established(1));
            assert_mode(&pair, mode);
            assert_eq!(only_child(&pair, side).suite.protocol(), Protocol::Ah);
        }
        assert_ok(&pair, pair.check_no_packet_missed());
        pair.terminate(A).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_gone());
    }
}

#[test]
fn each_side_may_have_both_protocols_and_the_responder_chooses() {
    let esp = peers::esp_proposal();
    for (ours, theirs, expected) in [
        ([ah(&[EsnId::NO_ESN]), esp.clone()], [esp.clone(), ah(&[EsnId::NO_ESN])], Protocol::Esp),
        ([esp.clone(), ah(&[EsnId::NO_ESN])], [ah(&[EsnId::NO_ESN]), esp.clone()], Protocol::Ah),
    ] {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        a.children[0].proposals = ours.to_vec();
        b.children[0].proposals = theirs.to_vec();
        let pair = established_of(1, a, b);
        for side in [A, B] {
            assert_eq!(only_child(&pair, side).suite.protocol(), expected);
        }
    }
}

#[test]
fn ah_and_esp_may_have_the_same_spi_at_the_peer() {
    // RFC 4301 §4.1: an SA is identified by SPI and protocol.
    let mut b = peers::site_b();
    b.children.push(peers::child("ah", 2, &[peers::subnet(12)], &[peers::subnet(11)]));
    b.children[1].proposals = vec![ah(&[EsnId::NO_ESN])];
    let mut a = peers::site_a();
    a.children.push(peers::child("ah", 2, &[peers::subnet(11)], &[peers::subnet(12)]));
    a.children[1].proposals = vec![ah(&[EsnId::NO_ESN])];
    let mut pair = established_of(1, a, b);
    // Both are deleted with one message, in a payload each.
    pair.command(A, Command::Terminate { peer: Arc::from("b") }).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn delete_of_esp_does_not_hit_the_ah_sa_of_the_same_spi() {
    let mut stage = Stage::established_initiator(1).unwrap();
    let spi = stage.puppet.esp_spi;
    let wrong = Payload::Delete(Delete::of(ProtocolId::AH, [spi.to_be_bytes()]));
    let request = stage.puppet.request(INFORMATIONAL, &[wrong]).unwrap();
    let answer = stage.give(&request);
    assert!(stage.puppet.open(&answer[0]).unwrap().is_empty());
    assert_eq!(stage.sad.all_outbound().count(), 1);
    let right = Payload::Delete(Delete::of(ProtocolId::ESP, [spi.to_be_bytes()]));
    let request = stage.puppet.request(INFORMATIONAL, &[right]).unwrap();
    let answer = stage.give(&request);
    assert_eq!(stage.puppet.open(&answer[0]).unwrap().len(), 1);
    assert_eq!(stage.sad.all_outbound().count(), 0);
}

#[test]
fn ah_is_neither_offered_nor_taken_where_packets_go_in_udp() {
    // The initiator knows of the NAT before it offers anything.
    let (a, mut b) = (with_ah(peers::site_a()), with_ah(peers::site_b()));
    b.address = PeerAddress::Any;
    let mut pair = pair_of(a, b);
    pair.node_mut(A).nat = Some(Nat::new(PUBLIC));
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.closed(A), [CloseReason::AhInUdp]);

    // One that has ESP besides, takes that.
    let (mut a, mut b) = (with_ah(peers::site_a()), with_ah(peers::site_b()));
    for peer in [&mut a, &mut b] {
        peer.children[0].proposals.push(peers::esp_proposal());
    }
    a.ike.encap = EncapPolicy::Udp;
    let pair = established_of(1, a, b);
    assert_eq!(only_child(&pair, B).suite.protocol(), Protocol::Esp);
}

#[test]
fn sequence_numbers_of_64_bits_are_had_where_both_have_them() {
    let both = [EsnId::ESN, EsnId::NO_ESN];
    for (ours, theirs, expected) in [
        (&both[..], &both[..], Some(true)),
        (&both[..], &both[1..], Some(false)),
        (&both[1..], &both[..], Some(false)),
        (&both[..1], &both[..], Some(true)),
        (&both[..1], &both[1..], None),
    ] {
        for protocol in [Protocol::Esp, Protocol::Ah] {
            let proposal = |esn: &[EsnId]| match protocol {
                Protocol::Ah => ah(esn),
                Protocol::Esp => ChildProposal { esn: esn.to_vec(), ..peers::esp_proposal() },
            };
            let (mut a, mut b) = (peers::site_a(), peers::site_b());
            a.children[0].proposals = vec![proposal(ours)];
            b.children[0].proposals = vec![proposal(theirs)];
            let pair = brought_up(a, b);
            match expected {
                Some(esn) => {
                    assert_ok(&pair, pair.check_established(1));
                    for side in [A, B] {
                        assert_eq!(only_child(&pair, side).suite.esn(), esn);
                    }
                }
                None => assert_failed(&pair, &CloseReason::NoProposal("CHILD_SA")),
            }
        }
    }
}
