//! The tunnel MTU is exact: a packet of that length fits, and one byte more does not.

use ipsecd::datapath::tunnel_mtu;
use ipsecd::ipsec::Encap;
use ipsecd::ipsec::OutboundSa;
use ipsecd::ipsec::esp::EspLayout;
use ipsecd::wire::ip::NextHeader;

use crate::support::*;

#[test]
fn mtu_is_exact_for_every_suite_and_path() {
    for suite in suites() {
        let sa = OutboundSa::new(params(suite, true, 0).0).unwrap();
        let sealed_len = |inner: usize| {
            let mut packet = buf(&vec![0x45; inner]);
            let _ = sa.seal(&mut packet, NextHeader::IPV4).unwrap();
            assert_eq!(packet.len(), EspLayout::of(suite).unwrap().sealed_len(inner));
            packet.len()
        };
        for path_mtu in (1280..1280 + 17).chain([576, 1492, 1500, 9000]) {
            for (encap, v6) in [
                (Encap::Plain, false),
                (Encap::Udp, false),
                (Encap::Plain, true),
                (Encap::Udp, true),
            ] {
                let headers = if v6 { 40 } else { 20 } + if encap == Encap::Udp { 8 } else { 0 };
                let mtu = tunnel_mtu(path_mtu, suite, encap, v6).unwrap();
                assert!(headers + sealed_len(mtu) <= path_mtu, "{suite} {path_mtu} {encap:?} {v6}");
                assert!(
                    headers + sealed_len(mtu + 1) > path_mtu,
                    "{suite} {path_mtu} {encap:?} {v6}"
                );
            }
        }
    }
}

#[test]
fn well_known_values() {
    // 1500 - 20 - 8 - 8 - 8 - 16 = 1440, of which 2 are trailer.
    assert_eq!(tunnel_mtu(1500, gcm(), Encap::Udp, false), Some(1438));
    assert_eq!(tunnel_mtu(1500, gcm(), Encap::Plain, false), Some(1446));
    assert_eq!(tunnel_mtu(1500, gcm(), Encap::Udp, true), Some(1418));
}
