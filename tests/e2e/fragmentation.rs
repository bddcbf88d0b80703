//! IKE messages in fragments (RFC 7383), with strongSwan at the far end: certificates make IKE_AUTH long.

use crate::cert::{Case, Proof, both_roles};
use crate::lab::capture::{Capture, lines};
use crate::lab::{Lab, Need};

/// IKE messages with an SKF payload.
const SKF: &str =
    "(udp port 500 and udp[24] = 53) or (udp port 4500 and udp[8:4] = 0 and udp[28] = 53)";
/// IP packets in fragments.
const IP_FRAGMENTS: &str = "ip[6:2] & 0x3fff != 0";
/// IP packets with IKE behind IKE_SA_INIT that are longer than 600 bytes.
const TOO_LONG: &str = "udp port 4500 and udp[8:4] = 0 and ip[2:2] > 600";

#[test]
fn ike_auth_in_fragments_in_both_roles_and_both_ways() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (ours, theirs) = (Proof::Certificate("a-rsa2048", ""), Proof::Certificate("b-rsa2048", ""));
    let mut case = Case::new(ours, theirs, &["ca-rsa2048"]);
    case.more = "[ike]\nfragment-size = 600\n";
    case.charon = "fragment_size = 600";
    let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
    both_roles(&lab, &case, &["splitting IKE message", "reassembled fragmented IKE message"]);
    let file = wire.stop();
    let [a, b] = [&lab.a, &lab.b].map(|side| side.outside(false));
    for from in [a, b] {
        let sent = lines(&lab.router, &file, &format!("src host {from} and ({SKF})"));
        // Two runs, each with one long message of ours and one of theirs.
        assert!(sent.len() >= 4, "{} fragments from {from}", sent.len());
        println!("{} fragments from {from}", sent.len());
    }
    assert_eq!(lines(&lab.router, &file, IP_FRAGMENTS), [""; 0]);
    assert_eq!(lines(&lab.router, &file, TOO_LONG), [""; 0]);
}

#[test]
fn who_refuses_fragments_gets_and_sends_none() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (ours, theirs) = (Proof::Certificate("a-p256", ""), Proof::Certificate("b-p256", ""));
    let mut case = Case::new(ours, theirs, &["ca-p256"]);
    case.more = "[ike]\nfragmentation = \"no\"\nfragment-size = 600\n";
    case.charon = "fragment_size = 600";
    let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
    both_roles(&lab, &case, &[]);
    assert_eq!(lines(&lab.router, &wire.stop(), SKF), [""; 0]);
}
