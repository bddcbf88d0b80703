use super::*;
use crate::wire::ip::{Ipv4Repr, Ipv6Repr};

const A: [u8; 4] = [10, 0, 0, 1];
const ROUTERS: [[u8; 4]; 3] = [[10, 1, 0, 1], [10, 2, 0, 1], [10, 3, 0, 1]];

fn v4(dst: [u8; 4], options: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: A.into(),
        dst_addr: dst.into(),
        protocol: NextHeader::AH,
        tos: 0xb9,
        ident: 0x1234,
        dont_fragment: true,
        ttl: 64,
        payload_len: 0,
    };
    let mut bytes = [&repr.emit()[..], options, &[0x55; 24]].concat();
    bytes[0] += u8::try_from(options.len() / 4).expect("short");
    Ipv4Packet::new_resized(&mut bytes[..]).expect("well-formed").fill_checksum();
    bytes
}

fn covered_v4(packet: &[u8], side: Side) -> Option<Vec<u8>> {
    let at = usize::from(packet[0] & 15) * 4;
    Some(Covered::of(packet, Place { at, next_header_at: 9 }, side)?.as_slice().to_vec())
}

/// The options of a packet as the receiver's ICV covers them.
fn covered_options(options: &[u8]) -> Option<Vec<u8>> {
    Some(covered_v4(&v4(ROUTERS[0], options), Side::Receiver)?.split_off(20))
}

/// Before AH: the headers of `chain`, of which the first bytes are filled in.
fn v6(dst: u128, chain: &[(u8, Vec<u8>)]) -> (Vec<u8>, Place) {
    let repr = Ipv6Repr {
        src_addr: 1_u128.into(),
        dst_addr: dst.into(),
        next_header: NextHeader(chain.first().map_or(51, |(kind, _)| *kind)),
        traffic_class: 0xb9,
        flow_label: 0x1_2345,
        hop_limit: 64,
        payload_len: 0,
    };
    let mut bytes = repr.emit().to_vec();
    let mut next_header_at = 6;
    for (index, (_, header)) in chain.iter().enumerate() {
        next_header_at = bytes.len();
        bytes.extend_from_slice(header);
        bytes[next_header_at] = chain.get(index + 1).map_or(51, |(next, _)| *next);
    }
    let at = bytes.len();
    bytes.extend_from_slice(&[0x55; 24]);
    Ipv6Packet::new_resized(&mut bytes[..]).expect("well-formed");
    (bytes, Place { at, next_header_at })
}

fn covered_v6(dst: u128, chain: &[(u8, Vec<u8>)], side: Side) -> Option<Vec<u8>> {
    let (packet, place) = v6(dst, chain);
    Some(Covered::of(&packet, place, side)?.as_slice().to_vec())
}

/// A Routing header of type 0 (RFC 2460 §4.4).
fn route(left: u8, addresses: &[u128]) -> (u8, Vec<u8>) {
    let units = u8::try_from(addresses.len() * 2).expect("few");
    let mut header = vec![0, units, 0, left, 0, 0, 0, 0];
    header.extend(addresses.iter().flat_map(|address| address.to_be_bytes()));
    (43, header)
}

#[test]
fn of_an_ipv4_header_lengths_ident_protocol_and_addresses_are_covered() {
    let covered = covered_v4(&v4(ROUTERS[0], &[]), Side::Sender).expect("well-formed");
    assert_eq!(covered, [0x45, 0, 0, 44, 0x12, 0x34, 0, 0, 0, 51, 0, 0, 10, 0, 0, 1, 10, 1, 0, 1],);
}

#[test]
fn immutable_ipv4_options_are_covered_and_all_others_are_zero() {
    for kind in 2..=u8::MAX {
        let option = [kind, 6, 4, 9, 9, 9, 1, 1];
        let expected = if [130, 133, 134, 148, 149].contains(&kind) {
            option
        } else {
            [0, 0, 0, 0, 0, 0, 1, 1]
        };
        assert_eq!(covered_options(&option).as_deref(), Some(&expected[..]), "{kind}");
    }
}

#[test]
fn the_end_of_the_list_and_what_is_after_it_are_covered() {
    let options = [1, 7, 3, 4, 1, 0, 7, 7];
    assert_eq!(covered_options(&options).as_deref(), Some(&[1, 0, 0, 0, 1, 0, 7, 7][..]));
}

#[test]
fn a_malformed_ipv4_option_leaves_nothing_to_cover() {
    for options in [&[7, 1, 0, 0][..], &[7, 0, 0, 0], &[7, 5, 0, 0], &[1, 1, 1, 7]] {
        assert_eq!(covered_options(options), None, "{options:?}");
    }
}

#[test]
fn at_every_hop_of_a_source_route_the_sender_predicted_what_the_receiver_covers() {
    for kind in [131, 137] {
        // As it leaves: to the first router, two more and the destination to come.
        let route = |pointer: u8, addresses: [[u8; 4]; 3]| {
            [&[kind, 15, pointer][..], &addresses.concat(), &[1]].concat()
        };
        let destination = [10, 9, 0, 1];
        let sent = v4(ROUTERS[0], &route(4, [ROUTERS[1], ROUTERS[2], destination]));
        // As it arrives: each router has put its own address into the option.
        let own = [[10, 1, 0, 2], [10, 2, 0, 2], [10, 3, 0, 2]];
        let arrived = v4(destination, &route(16, own));
        let predicted = covered_v4(&sent, Side::Sender).expect("well-formed");
        assert_eq!(Some(&predicted), covered_v4(&arrived, Side::Receiver).as_ref());
        assert_eq!(predicted[16..], [&destination[..], &[0; 15], &[1]].concat());
        // A route that has been passed predicts nothing.
        assert_eq!(covered_v4(&arrived, Side::Sender), Some(predicted));
        // On its way it is not at its destination.
        let first_hop = covered_v4(&sent, Side::Receiver).expect("well-formed");
        assert_eq!(first_hop[16..20], ROUTERS[0]);
    }
    for malformed in [[131, 7, 3, 1, 1, 1, 1, 1], [131, 6, 4, 1, 1, 1, 1, 1]] {
        assert_eq!(covered_v4(&v4(ROUTERS[0], &malformed), Side::Sender), None);
    }
    let empty = covered_v4(&v4(ROUTERS[0], &[131, 3, 4, 1]), Side::Sender).expect("no route");
    assert_eq!(empty[16..], [10, 1, 0, 1, 0, 0, 0, 1]);
}

#[test]
fn of_an_ipv6_header_version_length_next_header_and_addresses_are_covered() {
    let covered = covered_v6(2, &[], Side::Receiver).expect("well-formed");
    let expected =
        [&[0x60, 0, 0, 0, 0, 24, 51, 0][..], &1_u128.to_be_bytes(), &2_u128.to_be_bytes()];
    assert_eq!(covered, expected.concat());
}

#[test]
fn ipv6_options_that_may_change_are_covered_by_type_and_length_alone() {
    let options =
        vec![0, 2, 0x3e, 4, 1, 2, 3, 4, 0x1e, 2, 5, 6, 0, 0xe3, 1, 9, 1, 2, 0, 0, 0, 0, 0, 0];
    let expected =
        [0, 2, 0x3e, 4, 0, 0, 0, 0, 0x1e, 2, 5, 6, 0, 0xe3, 1, 0, 1, 2, 0, 0, 0, 0, 0, 0];
    for kind in [0, 60] {
        let covered = covered_v6(2, &[(kind, options.clone())], Side::Sender).expect("well-formed");
        assert_eq!(covered[41..], expected[1..]);
        assert_eq!(covered[40], 51);
    }
    assert_eq!(covered_v6(2, &[(60, vec![0, 0, 0x3e, 5, 1, 2, 3, 4])], Side::Sender), None);
}

#[test]
fn at_the_end_of_a_type_0_route_the_receiver_covers_what_the_sender_predicted() {
    let (hops, destination) = ([11, 12, 13], 20);
    let mut to = hops[0];
    let mut addresses = [hops[1], hops[2], destination];
    let predicted = covered_v6(to, &[route(3, &addresses)], Side::Sender).expect("well-formed");
    assert_eq!(predicted[24..40], destination.to_be_bytes());
    for left in (0..3).rev() {
        // RFC 2460 §4.4, at each node that is visited.
        std::mem::swap(&mut to, &mut addresses[2 - left]);
        let left = u8::try_from(left).expect("few");
        let chain = [route(left, &addresses)];
        assert_eq!(covered_v6(to, &chain, Side::Sender).as_ref(), Some(&predicted), "{left}");
        let expected = (left == 0).then_some(&predicted);
        assert_eq!(covered_v6(to, &chain, Side::Receiver).as_ref(), expected, "{left}");
    }
}

#[test]
fn a_route_of_another_type_is_covered_once_nothing_is_left_of_it() {
    for kind in 1..=u8::MAX {
        let (mut routing, last) = (route(0, &[7]), route(1, &[7]).1);
        routing.1[2] = kind;
        let covered = covered_v6(2, std::slice::from_ref(&routing), Side::Sender);
        assert_eq!(covered.expect("nothing is left")[41..], routing.1[1..]);
        let mut left = last;
        left[2] = kind;
        assert_eq!(covered_v6(2, &[(43, left)], Side::Sender), None);
    }
    assert_eq!(covered_v6(2, &[route(2, &[7])], Side::Sender), None, "more than there are");
    let odd = (43, vec![0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(covered_v6(2, &[odd], Side::Sender), None, "half an address");
}

#[test]
fn the_header_of_an_atomic_fragment_is_as_if_it_were_not_there() {
    let options = || (0, vec![0, 0, 0x1e, 4, 1, 2, 3, 4]);
    let fragment = |low| (44, vec![0, 0, 0, low, 0, 0, 0, 9]);
    let last = || (60, vec![0, 0, 0x1e, 4, 5, 6, 7, 8]);
    let without = covered_v6(2, &[options(), last()], Side::Receiver);
    let with = covered_v6(2, &[options(), fragment(0), last()], Side::Receiver);
    assert_eq!(with, without);
    assert!(with.is_some());
    assert_eq!(covered_v6(2, &[fragment(0)], Side::Receiver), covered_v6(2, &[], Side::Receiver));
    assert_eq!(covered_v6(2, &[fragment(0)], Side::Sender), None, "the sender takes it out before");
    assert_eq!(covered_v6(2, &[fragment(1)], Side::Receiver), None, "more fragments");
    assert_eq!(covered_v6(2, &[fragment(8)], Side::Receiver), None, "a later fragment");
    assert_eq!(covered_v6(2, &[fragment(0), fragment(0)], Side::Receiver), None, "twice");
}

#[test]
fn a_place_that_is_none_and_headers_without_end_are_refused() {
    let bytes = v4(ROUTERS[0], &[]);
    for at in (0..70).filter(|&at| at != 20) {
        let place = Place { at, next_header_at: 9 };
        assert!(Covered::of(&bytes, place, Side::Sender).is_none(), "{at}");
    }
    let (bytes, place) = v6(2, &[(0, vec![0, 0, 1, 4, 0, 0, 0, 0])]);
    for at in (0..90).filter(|&at| at != 40 && at != 48) {
        assert!(Covered::of(&bytes, Place { at, ..place }, Side::Sender).is_none(), "{at}");
    }
    let long = |units: u8| {
        let mut header = vec![0; usize::from(units) * 8 + 8];
        header[1] = units;
        covered_v6(2, &[(60, header)], Side::Sender)
    };
    assert!(long(66).is_some_and(|covered| covered.len() == MAX_LEN));
    assert_eq!(long(67), None);
}

#[test]
fn fragments_are_refused() {
    for byte in [0x20, 0x01] {
        let mut bytes = v4(ROUTERS[0], &[]);
        bytes[6] = byte;
        assert_eq!(covered_v4(&bytes, Side::Receiver), None);
    }
}
