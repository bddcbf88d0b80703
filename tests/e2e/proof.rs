//! The lab itself: two strongSwans, and nothing of ours.

use crate::lab::capture::{self, Capture};
use crate::lab::charon::Connection;
use crate::lab::readers::{self, Found, Keys};
use crate::lab::relay::{Faults, Relay};
use crate::lab::stream::{Account, Stream};
use crate::lab::{Charon, Lab, Need, traffic, wait};

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
    let wire = wire.stop();
    a.stop();
    b.stop();
    assert!(capture::lines(&lab.router, &wire, "udp port 4500").len() > 1_000);
    let clear = capture::lines(&lab.router, &wire, "ip and not udp port 500 and not udp port 4500");
    assert!(clear.is_empty(), "in clear: {clear:?}");
}

#[test]
fn the_readers_open_every_packet_of_two_strongswans() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Tshark, Need::Scapy]) else { return };
    for (ike, esp) in
        [("aes256gcm16-prfsha384-x25519", "aes128gcm16"), ("aes128-sha256-ecp256", "aes256-sha512")]
    {
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let mut connection = Connection::new(&lab.b, &lab.a, false);
        (connection.ike, connection.esp) = (ike.to_owned(), esp.to_owned());
        let b = Charon::start(&lab.b, &connection);
        let mut connection = Connection::new(&lab.a, &lab.b, false);
        (connection.ike, connection.esp) = (ike.to_owned(), esp.to_owned());
        let a = Charon::start(&lab.a, &connection);
        a.must_initiate();
        traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
        b.rekey(false);
        a.rekey(true);
        traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
        let keys = Keys::from_log(&a.log());
        a.stop();
        b.stop();
        let wire = wire.stop();
        let tshark = readers::tshark(&wire, &keys);
        assert_eq!(tshark.faults, [""; 0], "{ike} {esp}");
        assert!(tshark.esp_opened >= 40 && tshark.ike_opened >= 6, "{tshark:?}");
        assert_eq!(tshark.ike_opened + 2, tshark.ike, "all but IKE_SA_INIT");
        let scapy = readers::scapy(lab.dir(), &wire, &keys);
        assert_eq!(
            scapy,
            Found { esp_opened: tshark.esp_opened, ..Found::default() },
            "{ike} {esp}: Scapy and tshark agree"
        );
    }
}

#[test]
fn the_bad_link_loses_and_the_good_one_does_not() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    let bad = Faults { seed: 1, loss: 20, duplication: 20, reordering: 20, ..Faults::default() };
    for faults in [Faults::default(), bad] {
        let mut connection = Connection::new(&lab.b, &lab.a, false);
        connection.remote_addr = "%any".to_owned();
        let _b = Charon::start(&lab.b, &connection);
        let connection = Connection::new(&lab.a, &lab.b, false);
        let a = Charon::start_with(&lab.a, &connection, "retransmit_timeout = 0.2");
        let relay = Relay::start(&lab, &lab.a, &lab.b, faults);
        a.must_initiate();
        let stream = Stream::start(&lab.a, &lab.b, 1_000);
        wait::until("packets to be sent", wait::PATIENCE, || (stream.sent() > 2_000).then_some(()));
        let account = stream.stop();
        drop(relay);
        match faults.loss {
            0 => assert_eq!(
                account,
                Account { sent: account.sent, lost: vec![], duplicated: vec![] }
            ),
            // What the link doubled, the replay window took out.
            _ => assert!(account.lost.len() > 200 && account.duplicated.is_empty(), "{account:?}"),
        }
    }
}

#[test]
fn strongswans_meet_through_a_nat_in_front_of_either() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    for (behind, far) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        lab.nat(behind, false);
        let mut connection = Connection::new(far, behind, false);
        connection.remote_addr = "%any".to_owned();
        let _responder = Charon::start(far, &connection);
        let initiator = Charon::start(behind, &Connection::new(behind, far, false));
        initiator.must_initiate();
        traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
        let sas = initiator.sas();
        assert!(sas.contains(&far.outside(false).to_string()), "{sas}");
    }
}
