use super::*;
use crate::wire::ip::{Ipv4Repr, Ipv6Repr};

/// Hop-by-Hop Options, 8 bytes, one PadN.
const HOP_BY_HOP: (u8, &[u8]) = (0, &[0, 0, 1, 4, 0, 0, 0, 0]);
/// Destination Options, 16 bytes.
const DESTINATION: (u8, &[u8]) = (60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
/// A Routing header without addresses.
const ROUTING: (u8, &[u8]) = (43, &[0, 0, 0, 0, 0, 0, 0, 0]);
/// The header of an atomic fragment.
const ATOMIC: (u8, &[u8]) = (44, &[0, 0, 0, 0, 0, 0, 0, 9]);
const ESP: (u8, &[u8]) = (50, &[0, 0, 1, 0, 0, 0, 0, 1]);
const AH: (u8, &[u8]) = (51, &[50, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
const UDP: (u8, &[u8]) = (17, &[0; 8]);

fn v4(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: [10, 0, 0, 1].into(),
        dst_addr: [10, 0, 0, 2].into(),
        protocol: NextHeader(protocol),
        tos: 0,
        ident: 1,
        dont_fragment: true,
        ttl: 64,
        payload_len: 0,
    };
    let mut bytes = [&repr.emit()[..], options, payload].concat();
    bytes[0] += u8::try_from(options.len() / 4).expect("short");
    Ipv4Packet::new_resized(&mut bytes[..]).expect("well-formed").fill_checksum();
    bytes
}

fn v6(chain: &[(u8, &[u8])]) -> Vec<u8> {
    let repr = Ipv6Repr {
        src_addr: 1_u128.into(),
        dst_addr: 2_u128.into(),
        next_header: NextHeader(chain[0].0),
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        payload_len: 0,
    };
    let mut bytes = repr.emit().to_vec();
    for (index, (kind, header)) in chain.iter().enumerate() {
        let at = bytes.len();
        bytes.extend_from_slice(header);
        if !matches!(kind, 50 | 17) {
            bytes[at] = chain.get(index + 1).map_or(59, |(next, _)| *next);
        }
    }
    Ipv6Packet::new_resized(&mut bytes[..]).expect("well-formed");
    bytes
}

const fn at(at: usize, next_header_at: usize) -> Option<Place> {
    Some(Place { at, next_header_at })
}

#[test]
fn in_ipv4_it_is_after_the_options() {
    assert_eq!(Place::for_insertion(&v4(17, &[], &[0; 8])), at(20, 9));
    assert_eq!(Place::for_insertion(&v4(17, &[0x94, 4, 0, 0], &[0; 8])), at(24, 9));
    let sealed = v4(51, &[1, 1, 1, 0], AH.1);
    assert_eq!(Place::of(&sealed, NextHeader::AH), at(24, 9));
    assert_eq!(Place::of(&sealed, NextHeader::ESP), None);
    assert_eq!(Place::for_insertion(&sealed), at(24, 9), "before other IPsec headers");
}

#[test]
fn in_ipv6_it_is_after_what_routers_read() {
    let place = |chain: &[(u8, &[u8])]| Place::for_insertion(&v6(chain));
    assert_eq!(place(&[UDP]), at(40, 6));
    assert_eq!(place(&[HOP_BY_HOP, UDP]), at(48, 40));
    assert_eq!(place(&[HOP_BY_HOP, ROUTING, UDP]), at(56, 48));
    assert_eq!(place(&[HOP_BY_HOP, ROUTING, ATOMIC, UDP]), at(64, 56));
    assert_eq!(place(&[HOP_BY_HOP, AH, ESP]), at(48, 40), "before other IPsec headers");
}

#[test]
fn destination_options_stay_before_a_routing_header_and_else_behind() {
    let place = |chain: &[(u8, &[u8])]| Place::for_insertion(&v6(chain));
    assert_eq!(place(&[DESTINATION, UDP]), at(40, 6));
    assert_eq!(place(&[HOP_BY_HOP, DESTINATION, UDP]), at(48, 40));
    assert_eq!(place(&[DESTINATION, ROUTING, UDP]), at(64, 56));
    assert_eq!(place(&[DESTINATION, ROUTING, DESTINATION, UDP]), at(64, 56));
    assert_eq!(place(&[ROUTING, DESTINATION, UDP]), at(48, 40));
}

#[test]
fn what_stands_in_a_packet_is_found_behind_any_extension_header() {
    let chain = [HOP_BY_HOP, DESTINATION, ROUTING, ATOMIC, DESTINATION];
    let all = [&chain[..], &[ESP]].concat();
    assert_eq!(Place::of(&v6(&all), NextHeader::ESP), at(96, 80));
    assert_eq!(Place::of(&v6(&all), NextHeader::AH), None);
    let both = [&chain[..1], &[AH, ESP]].concat();
    assert_eq!(Place::of(&v6(&both), NextHeader::AH), at(48, 40));
    assert_eq!(Place::of(&v6(&both), NextHeader::ESP), None, "AH is the first to be opened");
    assert_eq!(Place::of(&v6(&[UDP]), NextHeader::ESP), None);
}

#[test]
fn a_fragment_has_no_place() {
    for (more, offset) in [(0x20, 0), (0, 3), (0x20, 3)] {
        let mut bytes = v4(50, &[], &[0; 8]);
        bytes[6] = more;
        bytes[7] = offset;
        assert_eq!(Place::for_insertion(&bytes), None);
        assert_eq!(Place::of(&bytes, NextHeader::ESP), None);
    }
    for offset_flags in [[0, 1], [0, 8], [1, 1]] {
        let [high, low] = offset_flags;
        let bytes = v6(&[(44, &[0, 0, high, low, 0, 0, 0, 9]), ESP]);
        assert_eq!(Place::for_insertion(&bytes), None);
        assert_eq!(Place::of(&bytes, NextHeader::ESP), None);
    }
}

#[test]
fn what_is_no_packet_has_no_place() {
    for bytes in [v4(50, &[], &[0; 8]), v6(&[HOP_BY_HOP, ESP])] {
        for len in 0..bytes.len() {
            assert_eq!(Place::for_insertion(&bytes[..len]), None, "{len}");
            assert_eq!(Place::of(&bytes[..len], NextHeader::ESP), None, "{len}");
        }
    }
    // Cut in the chain, misplaced, and without end.
    let endless = [DESTINATION; 9];
    for chain in [&[(60, &[0, 9, 0, 0, 0, 0, 0, 0][..])][..], &[HOP_BY_HOP, HOP_BY_HOP], &endless] {
        assert_eq!(Place::for_insertion(&v6(chain)), None);
        assert_eq!(Place::of(&v6(chain), NextHeader::ESP), None);
    }
}

#[test]
fn mending_gives_length_protocol_and_checksum() {
    let mut bytes = v4(17, &[1, 1, 1, 0], &[0; 8]);
    let place = Place::for_insertion(&bytes).expect("a place");
    bytes.splice(place.at..place.at, [0; 12]);
    place.mend(&mut bytes, NextHeader::AH).expect("room for the length");
    let packet = Ipv4Packet::new_checked(&bytes).expect("well-formed");
    assert_eq!((packet.total_len(), packet.protocol()), (44, NextHeader::AH));
    assert!(packet.verify_checksum());

    let mut bytes = v6(&[HOP_BY_HOP, UDP]);
    let place = Place::for_insertion(&bytes).expect("a place");
    bytes.splice(place.at..place.at, [0; 12]);
    place.mend(&mut bytes, NextHeader::AH).expect("room for the length");
    assert_eq!(Place::of(&bytes, NextHeader::AH), Some(place));
    assert_eq!(Ipv6Packet::new_checked(&bytes).expect("well-formed").total_len(), 68);
}

#[test]
fn what_no_header_can_say_is_not_mended() {
    for (mut bytes, too_long) in [(v4(17, &[], &[]), 65_536), (v6(&[UDP]), 65_576)] {
        let place = Place::for_insertion(&bytes).expect("a place");
        bytes.resize(too_long, 0);
        let before = bytes.clone();
        assert_eq!(place.mend(&mut bytes, NextHeader::ESP), None);
        assert_eq!(bytes, before);
        assert_eq!(place.mend(&mut bytes[..place.at - 1], NextHeader::ESP), None);
        assert_eq!(place.mend(&mut [], NextHeader::ESP), None);
    }
}
