//! Two ipsecd: every kind of path, ping and TCP both ways, and nothing left behind.

use std::time::Duration;

use crate::lab::capture::{self, Capture};
use crate::lab::relay::{Faults, Relay};
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, Peer, traffic, wait};

/// Where a NAT stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    /// In front of A, which begins.
    BeforeA,
    /// In front of B, to which UDP 500 and 4500 are passed on; A begins.
    BeforeBForwarded,
    /// In front of B, which begins.
    BeforeB,
    Nowhere,
}

/// One way to run a tunnel.
#[derive(Clone, Copy)]
struct Scenario {
    v6_outside: bool,
    v6_inside: bool,
    /// `[esp] encap`.
    encap: &'static str,
    nat: Nat,
}

const PLAIN: Scenario =
    Scenario { v6_outside: false, v6_inside: false, encap: "auto", nat: Nat::Nowhere };

impl Scenario {
    /// Whether ESP must be seen in UDP.
    fn in_udp(self) -> bool {
        self.encap == "udp" || self.nat != Nat::Nowhere
    }

    fn peer(self, local: &Side, remote: &Side) -> Peer {
        let mut peer = Peer::new(local, remote, self.v6_outside);
        peer.esp = format!("encap = {:?}", self.encap);
        if self.v6_inside {
            peer.local_subnets = vec![local.subnet(1, true)];
            peer.subnets = vec![remote.subnet(1, true)];
        }
        peer
    }

    fn run(self) {
        let Some(lab) = Lab::open(&[Need::Nat, Need::Tshark]) else { return };
        let before = lab.both().map(|side| side.gw.network_state());
        let (mut a, mut b) = (self.peer(&lab.a, &lab.b), self.peer(&lab.b, &lab.a));
        let (begins, waits) = match self.nat {
            Nat::BeforeB => (&mut b, &mut a),
            Nat::BeforeA | Nat::BeforeBForwarded | Nat::Nowhere => (&mut a, &mut b),
        };
        waits.esp += "\nstart = \"respond\"";
        match self.nat {
            Nat::Nowhere => (),
            Nat::BeforeA => {
                lab.nat(&lab.a, false);
                waits.address = "any".to_owned();
            }
            Nat::BeforeB => {
                lab.nat(&lab.b, false);
                waits.address = "any".to_owned();
            }
            Nat::BeforeBForwarded => {
                lab.nat(&lab.b, true);
                begins.address = lab.a.router(false).to_string();
            }
        }
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
        let (begins, waits) = if self.nat == Nat::BeforeB { (&b, &a) } else { (&a, &b) };
        waits.must_up();
        begins.must_up();
        waits.up_within(wait::PATIENCE);

        traffic::both_ways(&lab, 1, self.v6_inside);

        let encap = if self.in_udp() { "udp" } else { "esp" };
        for daemon in [&a, &b] {
            let child = daemon.child();
            assert_eq!(child["encap"], encap, "{child:#}");
            for way in ["inbound", "outbound"] {
                let bytes = child[way]["bytes"].as_u64().unwrap_or_default();
                assert!(bytes > traffic::TRANSFER as u64, "{way}: {child:#}");
            }
        }
        begins.down();
        wait::until("the far end to hear of the DELETE", wait::PATIENCE, || {
            waits.status()["peers"][0]["ike_sas"].as_array()?.is_empty().then_some(())
        });
        waits.down();
        let wire = wire.stop();
        let after = lab.both().map(|side| side.gw.network_state());
        assert_eq!(before, after, "something was left, or is gone");
        let count = |filter: &str| capture::lines(&lab.router, &wire, filter).len();
        let (raw, udp) = (count("ip proto 50 or ip6 proto 50"), count("udp port 4500"));
        if self.in_udp() {
            assert!(raw == 0 && udp > 10_000, "{raw} raw, {udp} in UDP");
        } else {
            // IKE goes there, too (RFC 4555 §3.3).
            assert!(raw > 10_000 && udp < 100, "{raw} raw, {udp} in UDP");
        }
        // IPv6 neighbours and the like are the link's own.
        let clear = capture::lines(
            &lab.router,
            &wire,
            "(ip or ip6) and not (udp port 500 or udp port 4500 or ip proto 50 or ip6 proto 50) \
             and not icmp6 and not src net fe80::/10",
        );
        assert!(clear.is_empty(), "in clear: {clear:?}");
        assert!(a.stop().success() && b.stop().success());
    }
}

#[test]
fn ipv4_in_raw_esp() {
    Scenario { encap: "none", ..PLAIN }.run();
}

#[test]
fn ipv4_in_raw_esp_where_no_nat_is_found() {
    PLAIN.run();
}

#[test]
fn ipv4_in_udp() {
    Scenario { encap: "udp", ..PLAIN }.run();
}

#[test]
fn ipv6_in_raw_esp() {
    Scenario { v6_outside: true, v6_inside: true, ..PLAIN }.run();
}

#[test]
fn ipv6_in_udp() {
    Scenario { v6_outside: true, v6_inside: true, encap: "udp", ..PLAIN }.run();
}

#[test]
fn ipv6_lans_over_ipv4() {
    Scenario { v6_inside: true, ..PLAIN }.run();
}

#[test]
fn ipv4_lans_over_ipv6() {
    Scenario { v6_outside: true, ..PLAIN }.run();
}

#[test]
fn nat_in_front_of_the_initiator() {
    Scenario { nat: Nat::BeforeA, ..PLAIN }.run();
}

#[test]
fn nat_in_front_of_the_responder() {
    Scenario { nat: Nat::BeforeBForwarded, ..PLAIN }.run();
}

#[test]
fn nat_in_front_of_b_which_begins() {
    Scenario { nat: Nat::BeforeB, ..PLAIN }.run();
}

#[test]
fn several_subnets_of_both_families_in_one_tunnel() {
    let Some(lab) = Lab::open(&[]) else { return };
    let peer = |local: &Side, remote: &Side| {
        let subnets = |side: &Side| {
            [(1, false), (2, false), (1, true), (2, true)]
                .map(|(n, v6)| side.subnet(n, v6))
                .to_vec()
        };
        let (local_subnets, subnets) = (subnets(local), subnets(remote));
        Peer { local_subnets, subnets, ..Peer::new(local, remote, false) }
    };
    let (a, b) = (peer(&lab.a, &lab.b), peer(&lab.b, &lab.a));
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start_with_peer(&lab.b, &b));
    a.must_up();
    b.up_within(wait::PATIENCE);
    for (net, v6) in [(1, false), (2, false), (1, true), (2, true)] {
        traffic::ping(&lab.a.lan, lab.a.host(net, v6), lab.b.host(3 - net, v6));
        traffic::ping(&lab.b.lan, lab.b.host(net, v6), lab.a.host(net, v6));
    }
    traffic::both_ways(&lab, 2, true);
}

#[test]
fn the_first_packet_brings_the_tunnel_up() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    a.esp = "start = \"on-traffic\"".to_owned();
    b.esp = "start = \"respond\"".to_owned();
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    b.must_up();
    a.must_up();
    assert_eq!(a.state(), "waiting");
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    // Not one of ten is lost: the first ones wait for the CHILD_SA.
    traffic::ping(&lab.a.lan, source, target);
    assert_eq!(a.state(), "up");
    let drops = a.status()["drops"].clone();
    for reason in ["no-outbound-sa", "acquire-failed", "acquire-late"] {
        assert_eq!(drops[reason], serde_json::Value::Null, "{drops}");
    }
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn both_sides_may_begin_at_once() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    let a = Ipsecd::start_with_peer(&lab.a, &a);
    let b = Ipsecd::start_with_peer(&lab.b, &b);
    a.up_within(wait::PATIENCE);
    b.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn a_forgetful_nat_costs_some_packets_and_no_tunnel() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let (a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    b.address = "any".to_owned();
    b.esp = "start = \"respond\"".to_owned();
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    let relay = Relay::start(&lab, &lab.a, &lab.b, Faults::default());
    b.must_up();
    a.must_up();
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::ping(&lab.a.lan, source, target);
    let seen = b.child()["remote"].clone();
    relay.rebind();
    traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
    assert_ne!(b.child()["remote"], seen, "the far end follows to the new port");
    let spi = a.child()["spi_inbound"].clone();
    relay.hole(true);
    assert!(!traffic::answers(&lab.a.lan, source, target));
    relay.hole(false);
    traffic::answers_within(Duration::from_secs(3), &lab.a.lan, source, target);
    assert_eq!(a.child()["spi_inbound"], spi, "a short outage costs no SA");
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn a_bad_link_delays_the_tunnel_and_does_not_prevent_it() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    b.address = "any".to_owned();
    a.ike = "retransmit-timeout = \"200ms\"".to_owned();
    b.esp = "start = \"respond\"".to_owned();
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    b.must_up();
    for seed in 1..=5 {
        let delay = Duration::from_millis(10);
        let faults = Faults { seed, loss: 20, duplication: 20, reordering: 20, delay };
        let relay = Relay::start(&lab, &lab.a, &lab.b, faults);
        a.must_up();
        let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
        traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
        a.rekey(false);
        a.rekey(true);
        traffic::transfer(&lab.a.lan, source, &lab.b.lan, target, 30_000);
        drop(relay);
        let relay = Relay::start(&lab, &lab.a, &lab.b, Faults::default());
        a.down();
        drop(relay);
    }
}

#[test]
fn a_path_narrower_than_the_gateways_know_carries_tcp() {
    let Some(lab) = Lab::open(&[]) else { return };
    for v6 in [false, true] {
        let (a, b) = (Peer::new(&lab.a, &lab.b, v6), Peer::new(&lab.b, &lab.a, v6));
        lab.router.ip("link set to-b mtu 1350");
        lab.b.gw.ip("link set wan0 mtu 1350");
        let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start_with_peer(&lab.b, &b));
        a.must_up();
        b.up_within(wait::PATIENCE);
        traffic::both_ways(&lab, 1, false);
        a.down();
        b.down();
    }
}
