//! Traffic selectors (RFC 7296 §2.9) and CHILD_SAs that cannot be made.

use core::net::Ipv4Addr;
use core::time::Duration;

use ipsecd::ike::CloseReason;
use ipsecd::ipsec::TrafficSelector;
use ipsecd::ipsec::pad::Peer;

use crate::support::*;

fn with_ts(mut peer: Peer, local: &[TrafficSelector], remote: &[TrafficSelector]) -> Peer {
    peer.children[0].ts_local = local.to_vec();
    peer.children[0].ts_peer = remote.to_vec();
    peer
}

/// Whether every address, port and protocol of `inner` is one of `outer`.
fn within(inner: &TrafficSelector, outer: &[TrafficSelector]) -> bool {
    outer.iter().any(|outer| {
        outer.start_addr <= inner.start_addr
            && inner.end_addr <= outer.end_addr
            && outer.start_port <= inner.start_port
            && inner.end_port <= outer.end_port
            && (outer.protocol == 0 || outer.protocol == inner.protocol)
    })
}

#[test]
fn responder_narrows_to_what_both_have() {
    let all = peers::range(Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 255, 255, 255));
    let a = with_ts(peers::site_a(), &[peers::subnet(1)], &[all]);
    let b = with_ts(peers::site_b(), &[peers::subnet(2)], &[all]);
    let pair = established_of(1, a, b);
    let child = only_child(&pair, A);
    assert_eq!(*child.ts_local, [peers::subnet(1)]);
    assert_eq!(*child.ts_peer, [peers::subnet(2)]);
    assert_eq!(*only_child(&pair, B).ts_local, [peers::subnet(2)]);
}

#[test]
fn initiator_with_less_than_the_responder_gets_what_it_asked_for() {
    let all = peers::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let b = with_ts(peers::site_b(), &[all], &[all]);
    let pair = established_of(1, peers::site_a(), b);
    assert_eq!(*only_child(&pair, A).ts_peer, [peers::subnet(2)]);
    assert_eq!(*only_child(&pair, A).ts_local, [peers::subnet(1)]);
}

#[test]
fn overlap_in_the_middle_is_cut_out() {
    let addr = |third, last| Ipv4Addr::new(10, 2, third, last);
    let ours = peers::range(addr(0, 0), addr(10, 255));
    let theirs = peers::range(addr(5, 0), addr(20, 255));
    let a = with_ts(peers::site_a(), &[peers::subnet(1)], &[ours]);
    let b = with_ts(peers::site_b(), &[theirs], &[peers::subnet(1)]);
    let pair = established_of(1, a, b);
    assert_eq!(*only_child(&pair, A).ts_peer, [peers::range(addr(5, 0), addr(10, 255))]);
}

#[test]
fn several_selectors_on_each_side_are_kept() {
    let (here, there) =
        ([peers::subnet(1), peers::subnet(3)], [peers::subnet(2), peers::subnet(4)]);
    let a = with_ts(peers::site_a(), &here, &there);
    let b = with_ts(peers::site_b(), &there, &here);
    let pair = established_of(1, a, b);
    assert_eq!(*only_child(&pair, A).ts_local, here);
    assert_eq!(*only_child(&pair, A).ts_peer, there);
}

#[test]
fn selectors_that_only_one_side_has_fall_away() {
    let (here, there) =
        ([peers::subnet(1), peers::subnet(3)], [peers::subnet(2), peers::subnet(4)]);
    let a = with_ts(peers::site_a(), &here, &there);
    let b = with_ts(peers::site_b(), &there[..1], &here[1..]);
    let pair = established_of(1, a, b);
    assert_eq!(*only_child(&pair, A).ts_local, here[1..]);
    assert_eq!(*only_child(&pair, A).ts_peer, there[..1]);
}

#[test]
fn protocol_and_ports_are_narrowed() {
    let ports = |ts: TrafficSelector, protocol, start_port, end_port| TrafficSelector {
        protocol,
        start_port,
        end_port,
        ..ts
    };
    let b = with_ts(
        peers::site_b(),
        &[ports(peers::subnet(2), 6, 80, 443)],
        &[ports(peers::subnet(1), 6, 0, u16::MAX)],
    );
    let pair = established_of(1, peers::site_a(), b);
    assert_eq!(*only_child(&pair, A).ts_peer, [ports(peers::subnet(2), 6, 80, 443)]);
    assert_eq!(*only_child(&pair, A).ts_local, [ports(peers::subnet(1), 6, 0, u16::MAX)]);
}

#[test]
fn ipv6_selectors_go_through_an_ipv4_tunnel() {
    let six = |n: u16| TrafficSelector {
        start_addr: core::net::Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 0).into(),
        end_addr: core::net::Ipv6Addr::new(
            0x2001, 0xdb8, n, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
        )
        .into(),
        ..peers::subnet(0)
    };
    let a = with_ts(peers::site_a(), &[peers::subnet(1), six(1)], &[peers::subnet(2), six(2)]);
    let b = with_ts(peers::site_b(), &[six(2), peers::subnet(2)], &[six(1), peers::subnet(1)]);
    let pair = established_of(1, a, b);
    let child = only_child(&pair, A);
    assert_eq!((child.ts_local.len(), child.ts_peer.len()), (2, 2));
    assert!(child.ts_peer.contains(&six(2)) && child.ts_local.contains(&six(1)));
}

#[test]
fn narrowed_selectors_lie_within_both_offers() {
    let mut random = ipsecd::testing::FixedRandom::new(11, 0);
    let mut some = |network: u8| -> Vec<TrafficSelector> {
        let count = 1 + random.below(3);
        (0..count)
            .map(|_| {
                let [one, two] = [0, 1].map(|_| {
                    let host = u16::try_from(random.below(65_536)).unwrap().to_be_bytes();
                    Ipv4Addr::new(10, network, host[0], host[1])
                });
                peers::range(one.min(two), one.max(two))
            })
            .collect()
    };
    let (mut made, mut refused) = (0, 0);
    for seed in 0..60 {
        let (a_here, a_there, b_here, b_there) = (some(1), some(2), some(2), some(1));
        let a = with_ts(peers::site_a(), &a_here, &a_there);
        let b = with_ts(peers::site_b(), &b_here, &b_there);
        let mut pair = Pair::with(seed, LinkConfig::PERFECT, a, b);
        pair.initiate(A);
        pair.run_for(Duration::from_secs(2));
        let children = pair.status(A)[0].children.len();
        assert_ok(&pair, pair.check_established(children));
        if children == 0 {
            refused += 1;
            continue;
        }
        made += 1;
        let child = only_child(&pair, A);
        let (here, there) = (&child.ts_local, &child.ts_peer);
        assert!(here.iter().all(|ts| within(ts, &a_here) && within(ts, &b_there)), "{seed}");
        assert!(there.iter().all(|ts| within(ts, &a_there) && within(ts, &b_here)), "{seed}");
    }
    assert!(made > 10 && refused > 3, "{made} made, {refused} refused");
}

#[test]
fn disjoint_selectors_leave_the_ike_sa_up() {
    let b = with_ts(peers::site_b(), &[peers::subnet(9)], &[peers::subnet(1)]);
    let mut pair = pair_of(peers::site_a(), b);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    // RFC 7296 §1.2, §2.21.2: TS_UNACCEPTABLE beside AUTH; the IKE SA is up.
    assert_ok(&pair, pair.check_established(0));
    assert_eq!(
        pair.child_failures(A).first(),
        Some(&CloseReason::TrafficSelectors),
        "{}",
        pair.trace
    );
    assert_eq!(pair.closed(A), []);
}

#[test]
fn one_of_two_child_sas_may_fail_alone() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.children.push(peers::child("voice", 2, &[peers::subnet(11)], &[peers::subnet(12)]));
    b.children.push(peers::child("voice", 2, &[peers::subnet(99)], &[peers::subnet(11)]));
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(pair.child_failures(A).first(), Some(&CloseReason::TrafficSelectors));
}
