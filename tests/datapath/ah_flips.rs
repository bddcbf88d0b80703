//! AH in front of every header that it may have before it: each bit that changes on the way is refused, but for those
//! that routers may change (RFC 4302 §3.3.3.1, Appendix A), each of which is accepted. Bit by bit, for every integrity
//! algorithm, without and with ESN.

use ipsecd::datapath::DropReason;
use ipsecd::ipsec::ah::{Ah, Align};
use ipsecd::ipsec::{PacketBuf, Place, Spi};
use ipsecd::wire::ah::AhPacket;
use ipsecd::wire::ike::numbers::IntegId;
use ipsecd::wire::ip::{Ipv4Packet, NextHeader};

use crate::support::{buf, ip, ip_between, udp};

/// A packet to be protected, and what routers do to it.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) plain: Vec<u8>,
    /// What changes for certain on the way, as at the last hop.
    pub(crate) travel: fn(&mut [u8]),
    /// For each byte before AH the bits that may change.
    mutable: Vec<u8>,
}

/// IPv4 options that are covered as they stand.
const IMMUTABLE: [u8; 7] = [0, 1, 130, 133, 134, 148, 149];

fn stay(_: &mut [u8]) {}

/// Of an IPv4 header without options: TOS, the flags but MF, TTL and checksum. A packet with MF or an offset appears to be
/// a fragment, which is refused before the ICV is looked at (RFC 4302 §3.4.1).
fn v4_mutable() -> Vec<u8> {
    let mut bits = vec![0; 20];
    bits[1] = 0xff;
    bits[6] = 0xc0;
    bits[8] = 0xff;
    bits[10..12].fill(0xff);
    bits
}

/// Traffic class, flow label and hop limit.
fn v6_mutable() -> Vec<u8> {
    let mut bits = vec![0; 40];
    bits[0] = 0x0f;
    bits[1..4].fill(0xff);
    bits[7] = 0xff;
    bits
}

/// The options, each with the bits that may change: of one that is mutable everything (Appendix A1), so far as it is
/// neither an immutable one then, nor of another length.
fn v4_options(name: &'static str, options: &[&[u8]], travel: fn(&mut [u8])) -> Shape {
    let mut plain = udp(false, 60);
    let mut mutable = v4_mutable();
    for option in options {
        let at = mutable.len();
        plain.splice(at..at, option.iter().copied());
        if IMMUTABLE.contains(&option[0]) {
            mutable.resize(at + option.len(), 0);
            continue;
        }
        let flips = (0..8).map(|bit| 1 << bit);
        mutable.push(flips.filter(|bit| !IMMUTABLE.contains(&(option[0] ^ bit))).sum());
        mutable.push(0);
        mutable.resize(at + option.len(), 0xff);
    }
    plain[0] = 0x40 | u8::try_from(mutable.len() / 4).unwrap();
    Ipv4Packet::new_resized(&mut plain[..]).unwrap().fill_checksum();
    Shape { name, plain, travel, mutable }
}

/// Extension headers, each with its type and the bits of it that may change.
fn v6_headers(name: &'static str, chain: &[(u8, &[u8], &[u8])], travel: fn(&mut [u8])) -> Shape {
    let mut payload = udp(true, 80).split_off(40);
    let mut next = 17;
    for (kind, header, _) in chain.iter().rev() {
        let mut header = header.to_vec();
        header[0] = next;
        payload.splice(..0, header);
        next = *kind;
    }
    let bits: Vec<u8> = chain.iter().flat_map(|(_, _, bits)| bits.iter().copied()).collect();
    let mutable = [v6_mutable(), bits].concat();
    Shape { name, plain: ip(true, next, &payload), travel, mutable }
}

/// As [`Shape::plain`] for tunnel mode: the outer header before the inner packet.
fn tunnel(name: &'static str, v6: bool, inner_v6: bool) -> Shape {
    let protocol = if inner_v6 { 41 } else { 4 };
    let (src, dst) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
    let plain = ip_between(src, dst, protocol, &udp(inner_v6, 64));
    Shape { name, plain, travel: stay, mutable: if v6 { v6_mutable() } else { v4_mutable() } }
}

/// A route of one more hop, which has been taken on arrival.
fn arrive_v4(packet: &mut [u8]) {
    let destination: [u8; 4] = packet[23..27].try_into().unwrap();
    packet[23..27].copy_from_slice(&[1, 1, 1, 1]);
    packet[22] = 8;
    packet[16..20].copy_from_slice(&destination);
}

/// The same in a routing header of type 0, which is after 16 bytes of destination options.
fn arrive_v6(packet: &mut [u8]) {
    let (header, routing) = packet.split_at_mut(56);
    assert_eq!(routing[3], 1, "a segment is left");
    routing[3] = 0;
    header[24..40].swap_with_slice(&mut routing[8..24]);
}

pub(crate) fn shapes() -> Vec<Shape> {
    let hop_by_hop: [u8; 16] = [0, 1, 0x3e, 4, 1, 2, 3, 4, 0x1e, 2, 5, 6, 0, 1, 1, 0];
    let mut hop_by_hop_bits = [0; 16];
    hop_by_hop_bits[4..8].fill(0xff);
    let destination: [u8; 16] = [0, 1, 0x1e, 4, 1, 2, 3, 4, 0xff, 4, 5, 6, 7, 8, 0, 0];
    let mut destination_bits = [0; 16];
    destination_bits[10..14].fill(0xff);
    let mut routing = vec![0, 2, 0, 1, 0, 0, 0, 0];
    routing.extend([0xfd; 16]);
    vec![
        Shape { name: "IPv4", plain: udp(false, 60), travel: stay, mutable: v4_mutable() },
        v4_options(
            "IPv4, immutable options",
            &[
                &[148, 4, 0, 0],
                &[130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9],
                &[133, 3, 1],
                &[134, 6, 0, 0, 0, 1],
                &[149, 3, 1],
                &[0],
            ],
            stay,
        ),
        v4_options(
            "IPv4, record route and time stamp",
            &[&[7, 7, 8, 1, 1, 1, 1], &[1], &[68, 12, 13, 1, 1, 1, 1, 1, 1, 1, 1, 1]],
            stay,
        ),
        v4_options(
            "IPv4, an unknown option among others",
            &[&[148, 4, 0, 0], &[153, 6, 1, 1, 1, 1], &[1], &[1]],
            stay,
        ),
        v4_options("IPv4, loose source route", &[&[131, 7, 4, 10, 2, 0, 9], &[1]], arrive_v4),
        v4_options("IPv4, strict source route", &[&[137, 7, 4, 10, 2, 0, 9], &[1]], arrive_v4),
        Shape { name: "IPv6", plain: udp(true, 80), travel: stay, mutable: v6_mutable() },
        v6_headers("IPv6, hop-by-hop options", &[(0, &hop_by_hop, &hop_by_hop_bits)], stay),
        v6_headers(
            "IPv6, destination options and routing header",
            &[(60, &destination, &destination_bits), (43, &routing, &[0; 24])],
            arrive_v6,
        ),
        // Behind AH nothing may change.
        v6_headers(
            "IPv6, destination options behind AH",
            &[(0, &hop_by_hop, &hop_by_hop_bits), (60, &destination, &[])],
            stay,
        ),
        tunnel("IPv4 in IPv4", false, false),
        tunnel("IPv6 in IPv4", false, true),
        tunnel("IPv4 in IPv6", true, false),
        tunnel("IPv6 in IPv6", true, true),
    ]
}

/// Every integrity algorithm that there is, by its number.
pub(crate) fn algorithms() -> Vec<(IntegId, Ah)> {
    let ids = (0..=15).map(IntegId).chain([IntegId::AUTH_HMAC_SHA2_256_96]);
    let ah = |id, align| {
        (64..=u8::MAX).chain(1..64).find_map(|len| {
            let key: Vec<u8> = (0..len).collect();
            Ah::new(id, &key, align)
        })
    };
    let four = ids.clone().filter_map(|id| Some((id, ah(id, Align::Four)?)));
    let eight = ids.filter_map(|id| Some((id, ah(id, Align::Eight)?))).take(2);
    let all: Vec<_> = four.chain(eight).collect();
    assert!(all.len() >= 12, "{}", all.len());
    all
}

const SEQUENCE: u64 = 0x2_0000_0007;

fn sealed(shape: &Shape, ah: &Ah, esn: bool) -> PacketBuf {
    let place = Place::for_insertion(&shape.plain).unwrap();
    assert_eq!(place.at, shape.mutable.len(), "{}", shape.name);
    let mut packet = buf(&shape.plain);
    ah.seal(&mut packet, place, Spi::new(0x1234_5678).unwrap(), SEQUENCE, esn).unwrap();
    (shape.travel)(&mut packet);
    packet
}

/// What a receiver does: it finds AH, and the number in it, and verifies. `None`: there is no AH.
fn open(ah: &Ah, packet: &[u8], esn: bool) -> Option<Result<(), DropReason>> {
    let place = Place::of(packet, NextHeader::AH)?;
    let low = AhPacket::new_checked(&packet[place.at..]).ok()?.sequence();
    let sequence = SEQUENCE >> 32 << 32 | u64::from(low);
    Some(ah.open(packet, place, sequence, esn).map(|_| ()))
}

#[test]
fn each_bit_is_refused_but_for_those_that_may_change() {
    let (mut refused, mut accepted) = (0, 0);
    for (id, ah) in algorithms() {
        for shape in shapes() {
            for esn in [false, true] {
                let mut packet = sealed(&shape, &ah, esn);
                let name = format!("{} {id} {esn}", shape.name);
                assert_eq!(open(&ah, &packet, esn), Some(Ok(())), "{name}");
                for at in 0..packet.len() {
                    let mutable = shape.mutable.get(at).copied().unwrap_or(0);
                    for bit in (0..8).map(|bit| 1 << bit) {
                        packet[at] ^= bit;
                        let opened = open(&ah, &packet, esn);
                        if mutable & bit != 0 {
                            assert_eq!(opened, Some(Ok(())), "{name}: byte {at} bit {bit:#x}");
                            accepted += 1;
                        } else {
                            assert_ne!(opened, Some(Ok(())), "{name}: byte {at} bit {bit:#x}");
                            refused += 1;
                        }
                        packet[at] ^= bit;
                    }
                }
            }
        }
    }
    assert!(refused > 200_000 && accepted > 10_000, "{refused} {accepted}");
}

/// RFC 4302 Appendix A1: what it names as immutable is covered, every other option is a unit of zeros, whatever its class, and whether it is
/// named there or not.
#[test]
fn an_option_of_every_number_is_covered_or_zero_as_a_whole() {
    let ah = Ah::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32], Align::Four).unwrap();
    let (mut refused, mut accepted) = (0, 0);
    // The end of the list and NOP have no length; a route needs addresses, and has shapes of its own.
    for kind in (2..=u8::MAX).filter(|kind| ![131, 137].contains(kind)) {
        let shape = v4_options("an option", &[&[kind, 6, 1, 2, 3, 4], &[1], &[1]], stay);
        let mut packet = sealed(&shape, &ah, false);
        for at in 20..shape.mutable.len() {
            for bit in (0..8).map(|bit| 1 << bit) {
                packet[at] ^= bit;
                let opened = open(&ah, &packet, false);
                packet[at] ^= bit;
                // What becomes a route that is none, or an option without an end, is malformed.
                let is_route = at == 20 && matches!(kind ^ bit, 131 | 137);
                if shape.mutable[at] & bit != 0 && !is_route {
                    assert_eq!(opened, Some(Ok(())), "option {kind}: byte {at} bit {bit:#x}");
                    accepted += 1;
                } else if !is_route {
                    assert_ne!(opened, Some(Ok(())), "option {kind}: byte {at} bit {bit:#x}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 5_000 && accepted > 9_000, "{refused} {accepted}");
}

#[test]
fn every_value_of_every_field_that_may_change_is_accepted() {
    let ah = Ah::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32], Align::Four).unwrap();
    for shape in shapes() {
        let packet = sealed(&shape, &ah, true);
        // All of them at once, in every value of a byte. The type of an option is none of these: not all bits of it are free.
        for value in 0..=u8::MAX {
            let mut changed = packet.to_vec();
            let types = |at: usize| at >= 20 && shape.mutable.get(at + 1) == Some(&0);
            for (at, bits) in shape.mutable.iter().enumerate() {
                if !(packet[0] >> 4 == 4 && types(at)) {
                    changed[at] = changed[at] & !bits | value & bits;
                }
            }
            assert_eq!(open(&ah, &changed, true), Some(Ok(())), "{}: {value:#x}", shape.name);
        }
    }
}

#[test]
fn what_looks_like_a_fragment_is_refused_as_one() {
    let ah = Ah::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32], Align::Four).unwrap();
    for shape in shapes().iter().filter(|shape| shape.plain[0] >> 4 == 4) {
        let whole = sealed(shape, &ah, false);
        let place = Place::of(&whole, NextHeader::AH).unwrap();
        for bit in 0..14 {
            let mut fragment = whole.to_vec();
            let [high, low] = (1_u16 << bit).to_be_bytes();
            fragment[6] |= high;
            fragment[7] |= low;
            assert_eq!(open(&ah, &fragment, false), None, "{}", shape.name);
            let opened = ah.open(&fragment, place, SEQUENCE, false).map(|_| ());
            assert_eq!(opened, Err(DropReason::AhFragment), "{}", shape.name);
        }
    }
}

#[test]
fn a_packet_still_on_its_route_is_refused() {
    let ah = Ah::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32], Align::Four).unwrap();
    let routed: fn(&[u8]) -> bool = |plain| {
        plain[0] >> 4 == 4 && plain[0] & 15 == 7 && matches!(plain[20], 131 | 137)
            || plain[0] >> 4 == 6 && plain[40] == 43
    };
    let shapes = shapes();
    let shapes: Vec<_> = shapes.iter().filter(|shape| routed(&shape.plain)).collect();
    assert_eq!(shapes.len(), 3);
    for shape in shapes {
        let place = Place::for_insertion(&shape.plain).unwrap();
        let mut packet = buf(&shape.plain);
        ah.seal(&mut packet, place, Spi::new(0x1234_5678).unwrap(), SEQUENCE, false).unwrap();
        assert!(open(&ah, &packet, false).is_none_or(|opened| opened.is_err()), "{}", shape.name);
    }
}
