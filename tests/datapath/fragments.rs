//! Transport mode protects whole packets: fragments from the TUN are put together before, and what is too long for the path
//! is fragmented after.

use ipsecd::datapath::{DropReason, Form, OutboundBatch, Received};
use ipsecd::ipsec::{Encap, Path};
use ipsecd::testing::gateways::{Kind, Protection, carry};
use proptest::prelude::*;

use crate::captures::reassembled;
use crate::kinds::*;
use crate::support::*;

/// Fragments of a packet without options or extension headers, with at most `most` bytes of data each.
fn fragments(packet: &[u8], most: usize) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (header, data) = packet.split_at(if v6 { 40 } else { 20 });
    let most = most / 8 * 8;
    let pieces = data.chunks(most).enumerate();
    let pieces = pieces.map(|(index, piece)| {
        let offset = u16::try_from(index * most).unwrap();
        let more = index * most + piece.len() < data.len();
        if v6 {
            let place = (offset | u16::from(more)).to_be_bytes();
            let fragment = [header[6], 0, place[0], place[1], 0, 0, 0xab, 0xcd];
            let mut packet = [header, &fragment, piece].concat();
            packet[6] = 44;
            let len = u16::try_from(8 + piece.len()).unwrap().to_be_bytes();
            packet[4..6].copy_from_slice(&len);
            packet
        } else {
            let mut packet = [header, piece].concat();
            let len = u16::try_from(20 + piece.len()).unwrap().to_be_bytes();
            packet[2..4].copy_from_slice(&len);
            let place = ((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes();
            packet[6..8].copy_from_slice(&place);
            with_checksum(packet)
        }
    });
    pieces.collect()
}

/// A UDP packet that may be fragmented.
fn long_packet(kind: Kind, len: usize) -> Vec<u8> {
    let packet = udp_packet(kind, kind.v6, len);
    if kind.v6 { packet } else { without_df(packet) }
}

fn transport_kinds() -> impl Iterator<Item = Kind> {
    let in_udp = [false, true].map(|v6| Kind { udp: true, ..transport(Protection::Gcm, v6) });
    raw_transport().chain(in_udp)
}

/// What B gets of what A sent, its kernel having put the fragments together.
fn at_b(b: &mut Gateway, out: &OutboundBatch) -> Option<Vec<u8>> {
    let mut received = match out.sealed.as_slice() {
        [one] => carry(one),
        several => {
            assert!(several.iter().all(|sealed| sealed.form == Form::Packet));
            let parts: Vec<_> = several.iter().map(|sealed| sealed.buf.to_vec()).collect();
            let whole = reassembled(&parts.iter().collect::<Vec<_>>());
            let Path { local, remote, .. } = several[0].path;
            let path = Path { local: remote, remote: local, encap: Encap::Plain };
            Received { path, traffic_class: 0, buf: buf(&whole), segment_len: None }
        }
    };
    b.datapath.inbound_batch(b.now, core::slice::from_mut(&mut received), &mut b.inbound);
    b.inbound.deliver.first().map(<[u8]>::to_vec)
}

#[test]
fn what_is_too_long_for_the_path_is_fragmented_after_it_was_protected() {
    for kind in raw_transport().filter(|kind| !kind.v6) {
        let (mut a, mut b) = pair_of(kind);
        let packet = long_packet(kind, 4000);
        let out = a.send(std::slice::from_ref(&packet));
        assert_eq!(out.sealed.len(), 3, "{kind:?}");
        for sealed in &out.sealed {
            assert!(sealed.buf.len() <= 1500);
            assert_eq!(checksum(&[&sealed.buf[..20]]), 0);
        }
        assert_eq!(at_b(&mut b, out), Some(packet), "{kind:?}");
        assert_eq!(a.datapath.stats().outbound[0].packets, 1, "one packet was protected");
    }
}

#[test]
fn ipv6_of_1280_bytes_is_fragmented_where_the_path_takes_no_more() {
    for kind in raw_transport().filter(|kind| kind.v6) {
        let (mut a, mut b) = pair_of(kind);
        a.datapath = a.datapath.with_path_mtu(kind.hosts()[1], Some(1280));
        let packet = udp_packet(kind, true, 1280 - 48);
        let mut identifications = Vec::new();
        for _ in 0..3 {
            let out = a.send(std::slice::from_ref(&packet));
            assert_eq!(out.sealed.len(), 2, "{kind:?}");
            for sealed in &out.sealed {
                assert!(sealed.buf.len() <= 1280);
                assert_eq!(sealed.buf[6], 44);
                identifications.push(sealed.buf[44..48].to_vec());
            }
            assert_eq!(at_b(&mut b, out), Some(packet.clone()), "{kind:?}");
        }
        assert_eq!(identifications[0], identifications[1]);
        identifications.dedup();
        assert_eq!(identifications.len(), 3, "each packet has another");
        let out = a.send(&[udp_packet(kind, true, 1281 - 48)]);
        assert_eq!((out.sealed.len(), out.replies.len()), (0, 1), "what is longer is told of");
    }
}

#[test]
fn routers_headers_stand_before_the_fragment_header() {
    let kind = transport(Protection::Ah, true);
    let (mut a, _) = pair_of(kind);
    a.datapath = a.datapath.with_path_mtu(kind.hosts()[1], Some(1280));
    let options = [17, 0, 5, 2, 0, 0, 1, 0];
    let udp = udp_packet(kind, true, 1280 - 56)[40..].to_vec();
    let out = a.send(&[packet(kind, true, 0, &[&options[..], &udp].concat())]);
    assert_eq!(out.sealed.len(), 2);
    for sealed in &out.sealed {
        let packet = &sealed.buf;
        assert_eq!((packet[6], packet[40], packet[48]), (0, 44, 51));
        assert!(packet.len() <= 1280);
    }
}

#[test]
fn fragments_from_the_tun_are_put_together() {
    for kind in transport_kinds() {
        let (mut a, mut b) = pair_of(kind);
        let packet = long_packet(kind, 4000);
        let mut parts = fragments(&packet, 1400);
        parts.swap(0, 2);
        let (last, first) = parts.split_last().unwrap();
        assert!(a.send(first).sealed.is_empty(), "{kind:?}: one is missing");
        let out = a.send(std::slice::from_ref(last));
        if kind.udp {
            assert_eq!(out.sealed.len(), 1);
            assert!(!dont_fragment(&out.sealed[0]), "the kernel fragments it");
        }
        assert_eq!(at_b(&mut b, out), Some(arrives_as(kind, &packet)), "{kind:?}");
        assert_eq!((a.dropped(), b.dropped()), (vec![], vec![]), "{kind:?}");
    }
}

#[test]
fn fragments_of_other_policies_pass_as_they_are() {
    let (mut a, mut b) = pair(gcm());
    let packet = without_df(udp(false, 3000));
    let parts = fragments(&packet, 1000);
    let sealed = payloads(&a.send(&parts).sealed);
    let out: Vec<_> = sealed.iter().map(|sealed| b.open(sealed).unwrap()).collect();
    assert_eq!(out, parts);
}

#[test]
fn fragments_that_do_not_fit_together_are_dropped_whole() {
    for kind in raw_transport() {
        let packet = long_packet(kind, 2000);
        let good = fragments(&packet, 800);
        let wrong_in = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let (mut a, _) = pair_of(kind);
            let mut parts = good.clone();
            change(&mut parts);
            let out = a.send(&parts);
            assert!(out.sealed.is_empty(), "{kind:?}");
            let wrong = a.dropped();
            let [(DropReason::FragmentsWrong, count)] = wrong[..] else { panic!("{wrong:?}") };
            count
        };
        // The same again, with the rest to come; and with other bytes.
        assert_eq!(wrong_in(&|parts| *parts = vec![parts[0].clone(), parts[0].clone()]), 2);
        // Another end than the one that came.
        let shorter = fragments(&packet[..packet.len() - 8], 800);
        assert_eq!(wrong_in(&|parts| *parts = vec![parts[2].clone(), shorter[2].clone()]), 2);
        // The end before what came.
        let early = long_packet(kind, 900);
        let early = fragments(&early, 800);
        assert_eq!(wrong_in(&|parts| *parts = vec![parts[2].clone(), early[1].clone()]), 2);
        // Not in units of eight bytes.
        let odd = |parts: &mut Vec<Vec<u8>>| {
            let mut odd = parts[0].clone();
            odd.pop();
            let at = if kind.v6 { 4 } else { 2 };
            let len = u16::from_be_bytes([odd[at], odd[at + 1]]) - 1;
            odd[at..at + 2].copy_from_slice(&len.to_be_bytes());
            *parts = vec![if kind.v6 { odd } else { with_checksum(odd) }];
        };
        assert_eq!(wrong_in(&odd), 1);
    }
}

#[test]
fn fragments_wait_for_five_seconds_and_no_longer() {
    for kind in raw_transport() {
        let (mut a, _) = pair_of(kind);
        let parts = fragments(&long_packet(kind, 2000), 800);
        assert!(a.send(&parts[..2]).sealed.is_empty());
        a.pass(5001);
        assert!(a.send(&parts[2..]).sealed.is_empty());
        assert_eq!(a.dropped(), [(DropReason::FragmentsLate, 2)], "{kind:?}");
        assert!(!a.send(&parts[..2]).sealed.is_empty(), "with the last, which waits");
    }
}

#[test]
fn fragments_that_never_become_a_packet_make_room_for_others() {
    for kind in raw_transport() {
        let (mut a, _) = pair_of(kind);
        let parts = fragments(&long_packet(kind, 2000), 800);
        let first_of = |ident: u16, parts: &[Vec<u8>]| {
            let mut first = parts[0].clone();
            let at = if kind.v6 { 46 } else { 4 };
            first[at..at + 2].copy_from_slice(&ident.to_be_bytes());
            if kind.v6 { first } else { with_checksum(first) }
        };
        for ident in 1..=1000 {
            assert!(a.send(&[first_of(ident, &parts)]).sealed.is_empty());
        }
        assert_eq!(a.dropped(), [(DropReason::FragmentsFull, 1000 - 64)], "{kind:?}");
        assert!(!a.send(&parts).sealed.is_empty(), "{kind:?}: and those that do are carried");
        // Large ones by their bytes.
        let (mut a, _) = pair_of(kind);
        let large = fragments(&long_packet(kind, 60_000), 8800);
        for ident in 1..=10 {
            for part in &large[..6] {
                let _ = a.send(&[first_of(ident, std::slice::from_ref(part))]);
            }
        }
        assert!(a.dropped().is_empty(), "ten times 52 kB");
        for ident in 11..=30 {
            for part in &large[..6] {
                let _ = a.send(&[first_of(ident, std::slice::from_ref(part))]);
            }
        }
        let dropped = a.dropped();
        let [(DropReason::FragmentsFull, count)] = dropped[..] else { panic!("{dropped:?}") };
        assert!(count >= 6 * 10, "{kind:?}: {count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fragments_in_any_order_make_the_packet(
        v6: bool, len in 20_usize..6000, most in 8_usize..3000, order in any::<u64>(),
    ) {
        let kind = transport(Protection::Gcm, v6);
        let (mut a, mut b) = pair_of(kind);
        let packet = long_packet(kind, len);
        // Two at least: a single one would be an atomic fragment.
        let mut parts = fragments(&packet, most.max(len / 200).min(len / 2));
        let count = parts.len();
        // A permutation by the bits of `order`.
        for (at, shift) in (0..count).zip((0..64).cycle()) {
            let other = (usize::try_from(order >> shift & 0xffff).unwrap() + at) % count;
            parts.swap(at, other);
        }
        let out = a.send(&parts);
        prop_assert_eq!(at_b(&mut b, out), Some(packet));
        prop_assert_eq!(a.dropped(), vec![]);
    }
}
