use proptest::prelude::*;

use super::*;
use crate::wire::ip::{Ipv4Repr, Ipv6Repr};

fn v4(protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4Repr {
        src_addr: [10, 1, 0, 1].into(),
        dst_addr: [10, 2, 0, 1].into(),
        protocol: NextHeader(protocol),
        tos: 0xb9,
        ident: 7,
        dont_fragment: false,
        ttl: 64,
        payload_len: u16::try_from(payload.len()).unwrap(),
    };
    let mut packet = header.emit().to_vec();
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Repr {
        src_addr: "fd01::1".parse().unwrap(),
        dst_addr: "fd02::1".parse().unwrap(),
        next_header: NextHeader(next_header),
        traffic_class: 0xb9,
        flow_label: 1,
        hop_limit: 64,
        payload_len: u16::try_from(payload.len()).unwrap(),
    };
    let mut packet = header.emit().to_vec();
    packet.extend(payload);
    packet
}

/// From port 0x0102 to 0x0304, long enough for a header of any protocol; as ICMP type 1, code 2.
const TRANSPORT: [u8; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
const PORTS: Option<(u16, u16)> = Some((0x0102, 0x0304));

#[test]
fn each_protocol_has_its_own_selector_fields() {
    for (protocol, ports) in [
        (6, PORTS),
        (17, PORTS),
        (33, PORTS),
        (132, PORTS),
        (136, PORTS),
        (1, Some((1, 2))),
        (58, Some((1, 2))),
        (135, Some((3, 0))),
        (47, None),
        (50, None),
        (51, None),
        (59, None),
    ] {
        for packet in [v4(protocol, 0, &TRANSPORT), v6(protocol, &TRANSPORT)] {
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!((inner.flow.protocol, inner.flow.ports), (protocol, ports));
            assert_eq!(inner.len, packet.len());
            assert_eq!(inner.traffic_class, 0xb9);
            assert_eq!(inner.is_ipv6(), packet[0] >> 4 == 6);
            assert!(!inner.is_later_fragment() && inner.fragment.is_none());
        }
    }
}

#[test]
fn df_is_ipv4s_flag_and_ipv6s_nature() {
    let df = |packet: Vec<u8>| Inner::parse(&packet).unwrap().dont_fragment;
    assert!(df(v4(17, 0x4000, &TRANSPORT)));
    assert!(!df(v4(17, 0, &TRANSPORT)));
    assert!(df(v6(17, &TRANSPORT)));
}

#[test]
fn a_header_that_is_cut_has_no_selector_fields() {
    for (protocol, least) in [(6, 20), (17, 8), (1, 8), (58, 8), (132, 12), (33, 12), (135, 6)] {
        let parse = |len: usize| {
            let [v4, v6] = [v4(protocol, 0, &TRANSPORT[..len]), v6(protocol, &TRANSPORT[..len])];
            assert_eq!(Inner::parse(&v4).is_some(), Inner::parse(&v6).is_some());
            Inner::parse(&v4).is_some()
        };
        assert!(parse(least), "{protocol}");
        assert!(!parse(least - 1), "{protocol}");
        assert!(!parse(0), "{protocol}");
    }
}

#[test]
fn later_fragments_have_no_ports() {
    let first = Inner::parse(&v4(17, 0x2000, &TRANSPORT)).unwrap();
    assert_eq!(first.flow.ports, PORTS);
    assert!(first.fragment.unwrap().more && !first.is_later_fragment());
    let later = Inner::parse(&v4(17, 0x0010, &TRANSPORT)).unwrap();
    assert_eq!(later.flow.ports, None);
    assert!(later.is_later_fragment());

    let fragment = |bits: u16| {
        let [high, low] = bits.to_be_bytes();
        v6(44, &[&[17, 0, high, low, 0, 0, 0, 9][..], &TRANSPORT].concat())
    };
    let first = Inner::parse(&fragment(1)).unwrap();
    assert_eq!((first.flow.protocol, first.flow.ports, first.transport), (17, PORTS, 48));
    let later = Inner::parse(&fragment(0x80)).unwrap();
    assert_eq!((later.flow.protocol, later.flow.ports), (17, None));
    let atomic = Inner::parse(&fragment(0)).unwrap();
    assert_eq!((atomic.flow.ports, atomic.fragment), (PORTS, None));
}

#[test]
fn fragments_that_overlap_the_tcp_flags_or_the_end_are_refused() {
    assert!(Inner::parse(&v4(6, 0x0001, &TRANSPORT)).is_none());
    assert!(Inner::parse(&v4(17, 0x0001, &TRANSPORT)).is_some());
    assert!(Inner::parse(&v4(17, 0x1fff, &TRANSPORT[..7])).is_some());
    assert!(Inner::parse(&v4(17, 0x1fff, &TRANSPORT[..8])).is_none());
    assert!(
        Inner::parse(&v4(17, 0x2000, &TRANSPORT[..3])).is_none(),
        "a first fragment without ports"
    );
}

#[test]
fn extension_headers_are_passed_over() {
    let chain = [
        &[43, 0, 1, 4, 0, 0, 0, 0][..],                     // hop-by-hop
        &[60, 0, 4, 0, 0, 0, 0, 0],                         // routing
        &[6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // destination options
        &TRANSPORT,
    ]
    .concat();
    let inner = Inner::parse(&v6(0, &chain)).unwrap();
    assert_eq!((inner.flow.protocol, inner.flow.ports, inner.transport), (6, PORTS, 72));
    for len in 0..chain.len() {
        assert_eq!(Inner::parse(&v6(0, &chain[..len])), None, "cut at {len}");
    }
}

#[test]
fn what_is_longer_than_its_header_says_is_no_longer() {
    let mut packet = v4(17, 0, &TRANSPORT);
    packet.extend([0; 9]);
    assert_eq!(Inner::parse(&packet).unwrap().len, 40);
    packet.truncate(39);
    assert_eq!(Inner::parse(&packet), None, "and what is shorter is cut");
    assert_eq!(Inner::parse(&[]), None);
    assert_eq!(Inner::parse(&[0x50; 60]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_short_way_says_what_the_long_one_does(
        is_v6: bool,
        protocol in prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 47, 50, 58, 60, 132, 135]),
        payload in proptest::collection::vec(any::<u8>(), 0..48),
        changes in proptest::collection::vec((0..90_usize, any::<u8>()), 0..4),
        len in 0..120_usize,
    ) {
        let mut packet =
            if is_v6 { v6(protocol, &payload) } else { v4(protocol, 0x4000, &payload) };
        for (at, byte) in changes {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        // Now and then cut, or with something behind it.
        if len < 90 {
            packet.resize(len.max(packet.len() / 2), 0);
        }
        prop_assert_eq!(Inner::parse(&packet), Inner::parse_any(&packet));
    }
}
