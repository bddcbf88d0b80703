//! Two ipsecd whose CHILD_SAs are not ESP tunnels: transport mode and AH, negotiated, with and without a NAT.

use crate::lab::capture::{self, Capture};
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, Peer, traffic, wait};

/// What crosses the link, but for IKE and IPsec, neighbours and the like left out.
const CLEAR: &str = "(ip or ip6) and not (udp port 500 or udp port 4500 or ip proto 50 or ip6 proto 50 or ip proto 51 or ip6 proto 51) \
                     and not icmp6 and not src net fe80::/10";

/// The hosts themselves.
fn host(side: &Side, far: &Side, v6: bool, esp: &str) -> Peer {
    let mut peer = Peer::new(side, far, v6);
    peer.local_address = Some(side.outside(v6).to_string());
    peer.local_subnets = vec![side.outside(v6).to_string()];
    peer.subnets = vec![far.outside(v6).to_string()];
    peer.esp = esp.to_owned();
    peer
}

fn hosts_exchange_traffic(lab: &Lab, v6: bool) {
    let (a, b) = (lab.a.outside(v6), lab.b.outside(v6));
    traffic::ping(&lab.a.gw, a, b);
    traffic::ping(&lab.b.gw, b, a);
    traffic::transfer(&lab.a.gw, a, &lab.b.gw, b, traffic::TRANSFER);
    traffic::transfer(&lab.b.gw, b, &lab.a.gw, a, traffic::TRANSFER);
}

#[test]
fn transport_mode_and_ah_are_negotiated_and_carry_traffic() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    let before = lab.both().map(|side| side.gw.network_state());
    for (esp, transport, v6, encap, protocol) in [
        ("mode = \"transport\"", true, false, "esp", 50),
        ("mode = \"transport\"\nproposals = \"aes256-sha256-esn\"", true, true, "esp", 50),
        ("mode = \"transport\"\nprotocol = \"ah\"", true, false, "ah", 51),
        (
            "mode = \"transport\"\nprotocol = \"ah\"\nproposals = \"aes256gmac-esn\"",
            true,
            true,
            "ah",
            51,
        ),
        ("protocol = \"ah\"\nproposals = \"sha512-esn\"", false, false, "ah", 51),
    ] {
        let peer = |side: &Side, far: &Side| {
            if transport {
                host(side, far, v6, esp)
            } else {
                Peer { esp: esp.to_owned(), ..Peer::new(side, far, v6) }
            }
        };
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let a = Ipsecd::start(&lab.a, &peer(&lab.a, &lab.b));
        let mut there = peer(&lab.b, &lab.a);
        there.esp += "\nstart = \"respond\"";
        let b = Ipsecd::start(&lab.b, &there);
        b.must_up();
        a.must_up();
        b.up_within(wait::PATIENCE);
        for round in 0..2 {
            if transport {
                hosts_exchange_traffic(&lab, v6);
            } else {
                traffic::both_ways(&lab, 1, v6);
            }
            for daemon in [&a, &b] {
                let child = daemon.child();
                assert_eq!(child["encap"], encap, "{child:#}");
                assert_eq!(child["mode"], if transport { "transport" } else { "tunnel" });
                assert_eq!(child["drops"], serde_json::json!({}), "{child:#}");
            }
            if round == 0 {
                a.rekey(false);
            }
        }
        a.down();
        b.down();
        let wire = wire.stop();
        let ip = if v6 { "ip6" } else { "ip" };
        let protected = capture::lines(&lab.router, &wire, &format!("{ip} proto {protocol}"));
        assert!(protected.len() > 10_000, "{} packets", protected.len());
        assert_eq!(capture::lines(&lab.router, &wire, CLEAR), [""; 0], "{esp}");
        let after = lab.both().map(|side| side.gw.network_state());
        assert_eq!(before, after, "something was left, or is gone");
        assert!(a.stop().success() && b.stop().success());
    }
}

#[test]
fn transport_mode_passes_a_nat() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    lab.nat(&lab.a, false);
    let esp = "mode = \"transport\"";
    let mut there = host(&lab.b, &lab.a, false, esp);
    // What B sees of A is the router.
    let seen = lab.b.router(false).to_string();
    there.address = seen.clone();
    there.subnets = vec![seen];
    there.esp += "\nstart = \"respond\"";
    let a = Ipsecd::start(&lab.a, &host(&lab.a, &lab.b, false, esp));
    let b = Ipsecd::start(&lab.b, &there);
    b.must_up();
    a.must_up();
    b.up_within(wait::PATIENCE);
    let (from, to) = (lab.a.outside(false), lab.b.outside(false));
    traffic::ping(&lab.a.gw, from, to);
    let outside = lab.b.router(false);
    traffic::transfer_through_nat(&lab.a.gw, from, outside, &lab.b.gw, to, traffic::TRANSFER);
    for daemon in [&a, &b] {
        let child = daemon.child();
        assert_eq!(
            (child["encap"].as_str(), child["mode"].as_str()),
            (Some("udp"), Some("transport"))
        );
        assert_eq!(child["drops"], serde_json::json!({}), "{child:#}");
    }
    assert!(a.stop().success() && b.stop().success());
}
