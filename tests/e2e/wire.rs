//! What others read of our packets, and what our logs tell.

use crate::lab::capture::Capture;
use crate::lab::ipsecd::PSK;
use crate::lab::readers::{self, Found, Keys};
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, traffic, wait};

#[test]
fn tshark_and_scapy_open_every_packet_and_find_none_malformed() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Tshark, Need::Scapy]) else { return };
    for (ike, esp, v6) in [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16", false),
        ("aes128-sha256-ecp256", "aes256-sha512", true),
    ] {
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let mut connection = Connection::new(&lab.b, &lab.a, v6);
        (connection.ike, connection.esp) = (ike.to_owned(), esp.to_owned());
        let b = Charon::start(&lab.b, &connection);
        let mut peer = Peer::new(&lab.a, &lab.b, v6);
        (peer.ike, peer.esp) = (format!("proposals = {ike:?}"), format!("proposals = {esp:?}"));
        let a = Ipsecd::start(&lab.a, &peer);
        a.must_up();
        let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
        traffic::ping(&lab.a.lan, source, target);
        traffic::transfer(&lab.a.lan, source, &lab.b.lan, target, 200_000);
        a.rekey(false);
        a.rekey(true);
        traffic::ping(&lab.b.lan, target, source);
        a.down();
        wait::until("strongSwan to hear of the DELETE", wait::PATIENCE, || {
            b.sas().is_empty().then_some(())
        });
        let keys = Keys::from_log(&b.log());
        let wire = wire.stop();
        let tshark = readers::tshark(&wire, &keys);
        assert_eq!(tshark.faults, [""; 0], "{ike} {esp}");
        assert_eq!(tshark.ike_opened + 2, tshark.ike, "all but IKE_SA_INIT");
        assert!(tshark.ike_opened >= 8 && tshark.esp_opened > 150, "{tshark:?}");
        let scapy = readers::scapy(lab.dir(), &wire, &keys);
        let same = Found { esp_opened: tshark.esp_opened, ..Found::default() };
        assert_eq!(scapy, same, "{ike} {esp}: Scapy and tshark agree");
        assert!(a.stop().success());
        b.stop();
    }
}

#[test]
fn no_secret_is_in_the_log_at_its_most_talkative() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for suite in ["aes256gcm16-prfsha384-x25519", "aes256-sha512-ecp256"] {
        let esp = if suite.contains("gcm") { "aes256gcm16" } else { "aes256-sha512" };
        let mut connection = Connection::new(&lab.b, &lab.a, false);
        (connection.ike, connection.esp) = (suite.to_owned(), esp.to_owned());
        let b = Charon::start(&lab.b, &connection);
        let mut peer = Peer::new(&lab.a, &lab.b, false);
        (peer.ike, peer.esp) = (format!("proposals = {suite:?}"), format!("proposals = {esp:?}"));
        let a = Ipsecd::start_talkative(&lab.a, &peer);
        let said = a.must_up();
        traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
        a.rekey(false);
        a.rekey(true);
        let status = a.status().to_string();
        a.down();
        let mut secrets = Keys::from_log(&b.log()).secrets();
        secrets.push(PSK.as_bytes().to_vec());
        let log = a.log();
        assert!(log.contains("TRACE") && log.len() > 2_000, "a log at level trace:\n{log}");
        for text in [log, said, status] {
            for secret in &secrets {
                for form in forms(secret) {
                    assert!(!text.contains(&form), "{form} is in:\n{text}");
                }
            }
        }
        assert!(a.stop().success());
        b.stop();
    }
}

/// How bytes could be written: their first eight are enough to give a key away.
fn forms(secret: &[u8]) -> Vec<String> {
    let head = &secret[..secret.len().min(8)];
    let join = |each: &dyn Fn(&u8) -> String, between: &str| {
        head.iter().map(each).collect::<Vec<_>>().join(between)
    };
    let mut forms = Vec::new();
    for between in ["", " ", ":", ", "] {
        forms.push(join(&|byte| format!("{byte:02x}"), between));
        forms.push(join(&|byte| format!("{byte:02X}"), between));
    }
    forms.push(join(&|byte| byte.to_string(), ", "));
    forms.push(join(&|byte| format!("0x{byte:02x}"), ", "));
    forms.push(join(&|byte| format!("{byte:x}"), ", "));
    forms.push(head.escape_ascii().to_string());
    forms.push(String::from_utf8_lossy(head).into_owned());
    forms
}
