//! The lab itself: two strongSwans, and nothing of ours.

use crate::lab::capture::{self, Capture};
use crate::lab::charon::Connection;
use crate::lab::{Charon, Lab, Need, traffic};

#[test]
fn without_a_tunnel_nothing_passes_between_the_lans() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    assert!(traffic::answers(&lab.a.gw, lab.a.outside(false), lab.b.outside(false)));
    assert!(traffic::answers(&lab.a.gw, lab.a.outside(true), lab.b.outside(true)));
    assert!(!traffic::answers(&lab.a.lan, source, target));
}

#[test]
fn two_strongswans_pass_traffic_and_only_esp_crosses() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Tshark]) else { return };
    let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
    let b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, false));
    let a = Charon::start(&lab.a, &Connection::new(&lab.a, &lab.b, false));
    a.must_initiate();
    traffic::both_ways(&lab, 1, false);
    a.stop();
    b.stop();
    let wire = wire.stop();
    assert!(capture::lines(&lab.router, &wire, "udp port 4500").len() > 1_000);
    let clear = capture::lines(&lab.router, &wire, "ip and not udp port 500 and not udp port 4500");
    assert!(clear.is_empty(), "in clear: {clear:?}");
}
