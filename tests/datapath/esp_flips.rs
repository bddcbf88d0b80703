//! ESP: each bit of a packet that changes on the way makes it be refused, for every transform that there is, without and
//! with ESN; and what was refused has left no trace.

use ipsecd::crypto::integ::Integ;
use ipsecd::crypto::{Encr, Secret};
use ipsecd::datapath::DropReason;
use ipsecd::ipsec::SaParams;
use ipsecd::ipsec::suite::EspSuite;
use ipsecd::ipsec::{InboundSa, OutboundSa};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::NextHeader;

use crate::support::{buf, gcm, params, udp};

/// Both ends of an SA for every pair of numbers that the datapath takes.
fn transforms() -> Vec<SaParams> {
    let mut all = Vec::new();
    for id in (0..=40).map(EncrId) {
        for key_bits in [None, Some(128), Some(192), Some(256)] {
            let encr = Encr { id, key_bits };
            let Some(encr_len) = encr.keymat_len() else { continue };
            for integ in (0..=15).map(IntegId).chain([IntegId::AUTH_HMAC_SHA2_256_96]) {
                for esn in [EsnId::NO_ESN, EsnId::ESN] {
                    let sa = SaParams {
                        suite: EspSuite { encr, integ, esn }.into(),
                        encr_key: Secret::new(vec![7; encr_len]),
                        integ_key: Secret::new(vec![8; Integ::key_len(integ).unwrap_or(0)]),
                        sequence: 0x3_0000_0040 * u64::from(esn == EsnId::ESN),
                        ..params(gcm(), true, 0).1
                    };
                    if OutboundSa::new(sa.clone()).is_some() {
                        all.push(sa);
                    }
                }
            }
        }
    }
    assert!(all.len() >= 150, "{}", all.len());
    all
}

#[test]
fn each_bit_of_a_packet_is_covered_by_its_icv() {
    let mut flips = 0;
    for sa in transforms() {
        let name = format!("{:?}", sa.suite);
        let outbound = OutboundSa::new(sa.clone()).unwrap();
        let inbound = InboundSa::new(sa).unwrap();
        let plain = udp(false, 49);
        let mut packet = buf(&plain);
        let _ = outbound.seal(&mut packet, NextHeader::IPV4).unwrap();
        let sealed = packet.to_vec();
        for at in 0..sealed.len() {
            for bit in (0..8).map(|bit| 1 << bit) {
                let mut flipped = sealed.clone();
                flipped[at] ^= bit;
                let refused = inbound.open(&mut buf(&flipped)).expect_err(&name);
                // A number that the window refuses gets no further.
                let by_window =
                    matches!(refused, DropReason::ReplayOld | DropReason::ReplayDuplicate);
                assert!(
                    refused == DropReason::IcvMismatch || by_window && (4..8).contains(&at),
                    "{name}: byte {at} bit {bit:#x}: {refused}"
                );
                flips += 1;
            }
        }
        // The window has not moved, and the packet itself is still fresh.
        let mut packet = buf(&sealed);
        assert_eq!(
            inbound.open(&mut packet).map(|opened| opened.next_header),
            Ok(NextHeader::IPV4)
        );
        assert_eq!(*packet, *plain, "{name}");
        assert_eq!(inbound.open(&mut buf(&sealed)), Err(DropReason::ReplayDuplicate), "{name}");
    }
    assert!(flips > 100_000, "{flips}");
}
