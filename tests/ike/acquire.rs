//! CHILD_SAs that a packet asks for, and several of them under one IKE SA (RFC 7296 §2.9).

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use ipsecd::ike::{Command, CommandError};
use ipsecd::ipsec::pad::{Peer, PolicyId, StartPolicy};
use ipsecd::ipsec::{Flow, Notice, TrafficSelector};
use ipsecd::wire::ike::numbers::KeId;

use crate::support::*;

fn flow(third: u8, port: u16) -> Flow {
    Flow {
        src: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 7)),
        dst: IpAddr::V4(Ipv4Addr::new(10, 2, third, 9)),
        protocol: 6,
        ports: Some((40_000, port)),
    }
}

fn tcp(ts: TrafficSelector, start_port: u16, end_port: u16) -> TrafficSelector {
    TrafficSelector { protocol: 6, start_port, end_port, ..ts }
}

fn third(n: u8) -> TrafficSelector {
    peers::range(Ipv4Addr::new(10, 2, n, 0), Ipv4Addr::new(10, 2, n, 255))
}

/// A, which waits for traffic with everything in one policy.
fn waiting_a() -> Peer {
    let mut a = peers::site_a();
    a.children[0].start = StartPolicy::OnTraffic;
    a
}

/// B, which has two policies for parts of it.
fn parted_b() -> Peer {
    let mut b = peers::site_b();
    b.children[0].ts_local = vec![third(0)];
    b.children.push(peers::child("web", 2, &[tcp(third(9), 443, 443)], &[peers::subnet(1)]));
    b
}

fn acquire(pair: &mut Pair, policy: u32, flow: Flow) -> Result<(), CommandError> {
    let path = peers::path(peers::ADDR_A, peers::ADDR_B);
    pair.command(A, Command::Acquire { policy: PolicyId(policy), flow, path })
}

#[test]
fn responder_narrows_to_what_contains_the_packet_that_asked() {
    let mut pair = pair_of(waiting_a(), parted_b());
    acquire(&mut pair, 1, flow(9, 443)).unwrap();
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(*only_child(&pair, B).name, *"web");
    assert_eq!(*only_child(&pair, A).ts_peer, [tcp(third(9), 443, 443)]);

    // Of another packet the other policy is the one.
    let mut pair = pair_of(waiting_a(), parted_b());
    acquire(&mut pair, 1, flow(0, 80)).unwrap();
    pair.run_for(Duration::from_secs(2));
    assert_eq!(*only_child(&pair, B).name, *"lan");
    assert_eq!(*only_child(&pair, A).ts_peer, [third(0)]);
}

#[test]
fn packet_of_no_policy_of_the_peers_gets_what_the_peer_has() {
    // RFC 7296 §2.9: without the first selector, an acceptable subset of the others.
    let mut pair = pair_of(waiting_a(), parted_b());
    acquire(&mut pair, 1, flow(77, 80)).unwrap();
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(*only_child(&pair, A).ts_peer, [third(0)]);
}

#[test]
fn packet_outside_the_policy_does_not_widen_it() {
    let mut pair = pair_of(waiting_a(), peers::site_b());
    let mut outside = flow(9, 443);
    outside.dst = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
    acquire(&mut pair, 1, outside).unwrap();
    pair.run_for(Duration::from_secs(2));
    assert_eq!(*only_child(&pair, A).ts_peer, [peers::subnet(2)]);
}

#[test]
fn policy_that_nobody_has_is_an_error() {
    let mut pair = pair_of(waiting_a(), peers::site_b());
    let refused = acquire(&mut pair, 9, flow(9, 443));
    assert_eq!(refused, Err(CommandError::NoSuchPolicy(PolicyId(9))));
}

/// Both sides with `n` CHILD_SAs between subnets of their own.
fn with_children(n: u8) -> [Peer; 2] {
    [(peers::site_a(), 1, 2), (peers::site_b(), 2, 1)].map(|(mut peer, here, there)| {
        for i in 1..n {
            let (name, id) = (format!("child-{i}"), u32::from(i) + 1);
            let (here, there) = (peers::subnet(here + 10 * i), peers::subnet(there + 10 * i));
            peer.children.push(peers::child(&name, id, &[here], &[there]));
        }
        peer
    })
}

#[test]
fn several_child_sas_are_made_rekeyed_and_deleted_under_one_ike_sa() {
    let [a, b] = with_children(5);
    let mut pair = established_of(1, a, b);
    for side in [A, B] {
        pair.rekey_children(side).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(5));
    }
    pair.rekey_ike(B).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(5));
    assert_ok(&pair, pair.check_no_packet_missed());
    pair.terminate(B).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn each_request_for_everything_gets_another_policy() {
    // As a peer does that knows only one policy, and is asked for two.
    let [mut a, b] = with_children(2);
    let all = peers::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    for child in &mut a.children {
        (child.ts_local, child.ts_peer) = (vec![all], vec![all]);
    }
    let pair = established_of(1, a, b);
    let names: Vec<_> = only_sa(&pair, B).children.iter().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["lan", "child-1"]);
}

#[test]
fn traffic_makes_a_further_child_sa_under_the_ike_sa_there_is() {
    let [mut a, mut b] = with_children(2);
    a.children[1].start = StartPolicy::OnTraffic;
    b.children[1].start = StartPolicy::Respond;
    // The group that B does not like is asked for again, for the same packet.
    a.children[1].proposals[0].ke = vec![KeId::ECP_256, KeId::CURVE25519];
    b.children[1].proposals[0].ke = vec![KeId::CURVE25519];
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    let flow = Flow {
        src: IpAddr::V4(Ipv4Addr::new(10, 11, 0, 7)),
        dst: IpAddr::V4(Ipv4Addr::new(10, 12, 0, 9)),
        protocol: 1,
        ports: Some((8, 0)),
    };
    // Twice: the second packet asks for nothing new.
    for _ in 0..2 {
        pair.notice(A, Notice::Acquire { policy: PolicyId(2), flow });
    }
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(2));
    let sa = only_sa(&pair, A);
    assert_eq!(*sa.children[1].ts_peer, [peers::subnet(12)]);
    // After its end, the next packet makes another.
    let spi = sa.children[1].spi_inbound;
    pair.notice(A, Notice::Expire { spi, hard: true });
    pair.run_for(Duration::from_secs(10));
    assert_ok(&pair, pair.check_established(1));
    pair.notice(A, Notice::Acquire { policy: PolicyId(2), flow });
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(2));
}
