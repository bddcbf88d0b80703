//! AH, transport mode and bundles: what one end protects, the other gives back, and nothing else.

use ipsecd::crypto::Secret;
use ipsecd::datapath::{DropReason, Ecn, Form, Received, Sealed};
use ipsecd::ipsec::sad::SadError;
use ipsecd::ipsec::{
    DfPolicy, Encap, Mode, OutboundSa, PacketBuf, Path, Place, SaParams, SadUpdate, Spi,
    TrafficSelector,
};
use ipsecd::testing::gateways::{Kind, POLICY, Protection, carry};
use ipsecd::wire::ip::{Ipv4Packet, NextHeader};
use proptest::prelude::*;

use crate::kinds::*;
use crate::support::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out(
        len in 0_usize..1200, inner_v6: bool, class: u8, start in prop::sample::select(vec![0_u64, 5, 0xffff_fffe]),
    ) {
        for kind in Kind::all() {
            let start = if kind.esn { start } else { start.min(5) };
            let (mut a, mut b) = pair_of_with(kind, |params| {
                params.sequence = start;
                params.around.iter_mut().for_each(|around| around.sequence = start);
            });
            for more in 0..3 {
                let packet = with_traffic_class(udp_packet(kind, inner_v6, len + more), class);
                prop_assert_eq!(carried(&mut a, &mut b, &packet), [arrives_as(kind, &packet)], "{:?}", kind);
            }
            prop_assert_eq!((a.dropped(), b.dropped()), (vec![], vec![]), "{:?}", kind);
            let stats = a.datapath.stats();
            for sa in stats.outbound.iter().chain(&b.datapath.stats().inbound) {
                prop_assert_eq!(sa.sequence, start + 3, "{:?} {}", kind, sa.suite);
            }
        }
    }
}

#[test]
fn a_replayed_or_changed_packet_is_refused() {
    for kind in Kind::all() {
        let (mut a, mut b) = pair_of(kind);
        let out = a.send(&[udp_packet(kind, false, 20), udp_packet(kind, false, 20)]);
        let [first, second] = out.sealed.as_slice() else { panic!("two packets") };
        let mut forged = carry(first);
        let last = forged.buf.len() - 1;
        forged.buf[last] ^= 1;
        let mut received = [forged, carry(second), carry(first), carry(first)];
        b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
        assert_eq!(b.inbound.deliver.len(), 2, "{kind:?}");
        let expected = [(DropReason::ReplayDuplicate, 1), (DropReason::IcvMismatch, 1)];
        assert_eq!(b.dropped(), expected, "{kind:?}");
    }
}

#[test]
fn without_a_window_a_packet_is_taken_again() {
    for kind in Kind::all() {
        let (mut a, mut b) = pair_of_with(kind, |params| {
            params.replay_window = 0;
            params.around.iter_mut().for_each(|around| around.replay_window = 0);
        });
        let out = a.send(&[udp_packet(kind, false, 20)]);
        let mut received = [carry(&out.sealed[0]), carry(&out.sealed[0])];
        b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
        assert_eq!(b.inbound.deliver.len(), 2, "{kind:?}");
    }
}

#[test]
fn every_sa_stops_before_a_number_repeats() {
    for kind in Kind::all() {
        for outer in [false, true] {
            if outer && kind.protection != Protection::Bundle {
                continue;
            }
            let last = if kind.esn { u64::MAX - (1 << 48) } else { u32::MAX.into() };
            let (mut a, mut b) = pair_of_with(kind, |params| {
                let sa = if outer { params.around.as_deref_mut().unwrap() } else { params };
                sa.sequence = last - 1;
            });
            let out = a.send(&vec![udp_packet(kind, false, 20); 5]);
            assert_eq!(b.receive_sealed(&out.sealed).deliver.len(), 1, "{kind:?}");
            assert_eq!(a.dropped(), [(DropReason::SequenceExhausted, 4)], "{kind:?}");
        }
    }
}

/// Length of the outer packet.
fn on_wire(kind: Kind, sealed: &Sealed) -> usize {
    match sealed.form {
        Form::Packet => sealed.buf.len(),
        Form::Payload { .. } => {
            let udp = if kind.udp { 8 } else { 0 };
            sealed.buf.len() + if kind.v6 { 40 } else { 20 } + udp
        }
    }
}

/// The longest that a path takes, as the SA says, is exact.
#[test]
fn the_mtu_is_exact() {
    for kind in Kind::all() {
        for path_mtu in (1400..1417).chain([1500]) {
            let (mut a, mut b) = pair_of(kind);
            let [_, remote] = kind.hosts();
            a.datapath = a.datapath.with_path_mtu(remote, Some(path_mtu));
            let mtu = a.datapath.tunnel_mtu().unwrap();
            let header = if kind.mode == Mode::Transport && kind.v6 { 40 } else { 20 };
            let fits = packet(kind, false, 99, &vec![7; mtu - header]);
            assert_eq!(fits.len(), mtu);
            let out = a.send(std::slice::from_ref(&fits));
            let [sealed] = out.sealed.as_slice() else { panic!("{kind:?}: {out:?}") };
            let on_wire = on_wire(kind, sealed);
            // ESP rounds up to its alignment.
            assert!(on_wire <= path_mtu && on_wire + 16 > path_mtu, "{kind:?}: {on_wire}");
            let delivered = &b.receive_sealed(&out.sealed).deliver;
            assert_eq!(delivered[0], arrives_as(kind, &fits), "{kind:?}");
            let out = a.send(&[packet(kind, false, 99, &vec![7; mtu - header + 1])]);
            assert_eq!((out.sealed.len(), out.replies.len()), (0, 1), "{kind:?}: one byte more");
        }
    }
}

#[test]
fn a_host_is_told_from_its_peers_address_what_fits() {
    for kind in raw_transport() {
        let (mut a, _) = pair_of(kind);
        let mtu = a.datapath.tunnel_mtu().unwrap();
        let big = packet(kind, false, 99, &[7; 1500]);
        let out = a.send(std::slice::from_ref(&big));
        let [reply] = out.replies.as_slice() else { panic!("one reply") };
        let (src, dst) = addresses(&big).split_at(addresses(&big).len() / 2);
        assert_eq!(addresses(reply), [dst, src].concat(), "{kind:?}");
        let told = if kind.v6 { &reply[46..48] } else { &reply[26..28] };
        assert_eq!(told, u16::try_from(mtu).unwrap().to_be_bytes(), "{kind:?}");
        assert_eq!(a.dropped(), [(DropReason::TooBig, 1)]);
    }
}

#[test]
fn transport_mode_leaves_the_ip_header_and_its_options() {
    for protection in [Protection::Ah, Protection::Gcm, Protection::Bundle] {
        let kind = transport(protection, false);
        let (mut a, mut b) = pair_of(kind);
        let plain = udp_packet(kind, false, 100);
        // Router alert.
        let mut packet = [&plain[..20], &[0x94, 4, 0, 0], &plain[20..]].concat();
        packet[0] = 0x46;
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&len);
        let packet = with_checksum(packet);
        let out = a.send(std::slice::from_ref(&packet));
        let sealed = &out.sealed[0].buf;
        assert_eq!(out.sealed[0].form, Form::Packet);
        assert_eq!(sealed[..2], packet[..2]);
        assert_eq!(sealed[4..9], packet[4..9], "identification, flags, TTL");
        assert_eq!(sealed[12..24], packet[12..24], "addresses, options");
        assert_eq!(sealed[9], if protection == Protection::Gcm { 50 } else { 51 });
        assert!(Ipv4Packet::new_checked(&sealed[..]).unwrap().verify_checksum());
        assert_eq!(carried(&mut a, &mut b, &packet), [packet], "{kind:?}");
    }
}

#[test]
fn transport_mode_keeps_routers_headers_before_and_protects_the_others() {
    for protection in [Protection::Ah, Protection::Gcm, Protection::Bundle] {
        let kind = transport(protection, true);
        let (mut a, mut b) = pair_of(kind);
        let udp = udp_packet(kind, true, 64)[40..].to_vec();
        // Hop-by-hop options, final destination options.
        let headers = [60, 0, 5, 2, 0, 0, 1, 0, 17, 0, 1, 4, 0, 0, 0, 0];
        let packet = packet(kind, true, 0, &[&headers[..], &udp].concat());
        let out = a.send(std::slice::from_ref(&packet));
        let sealed = &out.sealed[0].buf;
        let protocol = if protection == Protection::Gcm { NextHeader::ESP } else { NextHeader::AH };
        assert_eq!(Place::of(sealed, protocol).map(|place| place.at), Some(48), "{kind:?}");
        assert_eq!(carried(&mut a, &mut b, &packet), [packet], "{kind:?}");
    }
}

#[test]
fn in_udp_what_stands_before_esp_cannot_go_along() {
    let kind = Kind { udp: true, ..transport(Protection::Gcm, true) };
    let (mut a, _) = pair_of(kind);
    let headers = [17, 0, 5, 2, 0, 0, 1, 0];
    assert!(a.send(&[packet(kind, true, 0, &[headers; 3].concat())]).sealed.is_empty());
    assert_eq!(a.dropped(), [(DropReason::HeadersInUdp, 1)]);
}

#[test]
fn a_packet_without_identification_gets_one_before_it_is_covered() {
    for protection in [Protection::Ah, Protection::Gcm] {
        let kind = transport(protection, false);
        let (mut a, mut b) = pair_of(kind);
        let mut packet = udp_packet(kind, false, 10);
        packet[4..6].fill(0);
        let packet = with_checksum(packet);
        for _ in 0..3 {
            let [delivered] = &carried(&mut a, &mut b, &packet)[..] else { panic!("it passes") };
            assert_ne!(delivered[4..6], [0, 0]);
            let mut delivered = delivered.clone();
            delivered[4..6].fill(0);
            assert_eq!(with_checksum(delivered), packet);
        }
    }
    // The header of a tunnel is ours from the beginning.
    let kind = Kind { mode: Mode::Tunnel, ..transport(Protection::Ah, false) };
    let (mut a, _) = pair_of(kind);
    let out = a.send(&vec![udp_packet(kind, false, 10); 70_000]);
    assert!(out.sealed.iter().all(|sealed| sealed.buf[4..6] != [0, 0]));
}

#[test]
fn transport_mode_carries_ip_in_ip_and_tunnel_mode_nothing_else() {
    for kind in raw_transport() {
        let (mut a, mut b) = pair_of(kind);
        for (protocol, inner) in [(4, udp(false, 60)), (41, udp(true, 60)), (47, vec![0; 20])] {
            let packet = packet(kind, false, protocol, &inner);
            assert_eq!(carried(&mut a, &mut b, &packet), [packet], "{kind:?}");
        }
    }
    let kind = Kind { mode: Mode::Tunnel, ..transport(Protection::Ah, false) };
    let (_, mut b) = pair_of(kind);
    let sa = OutboundSa::new(kind.params(true, true)).unwrap();
    let mut packet = buf(&ip_between("192.0.2.1", "192.0.2.2", 17, &udp(false, 60)));
    let place = Place::for_insertion(&packet).unwrap();
    let _ = sa.seal_at(&mut packet, place).unwrap();
    assert!(b.receive(raw_path(kind), Ecn::NotEct, &[packet.to_vec()]).deliver.is_empty());
    assert_eq!(b.dropped(), [(DropReason::BadNextHeader, 1)]);
}

/// How packets come to B.
fn raw_path(kind: Kind) -> Path {
    Path { encap: Encap::Plain, ..kind.params(true, false).path }
}

#[test]
fn congestion_on_the_way_is_the_one_headers_own_in_transport_mode() {
    for kind in raw_transport() {
        let (mut a, mut b) = pair_of(kind);
        let packet = udp_packet(kind, false, 10);
        let out = a.send(std::slice::from_ref(&packet));
        let mut on_the_way = carry(&out.sealed[0]);
        on_the_way.buf = buf(&with_traffic_class(on_the_way.buf.to_vec(), 3));
        b.datapath.inbound_batch(b.now, &mut [on_the_way], &mut b.inbound);
        assert_eq!(b.inbound.deliver[0], with_traffic_class(packet, 3), "{kind:?}");
    }
}

#[test]
fn a_tunnel_of_ah_says_what_its_outer_header_went_through() {
    for v6 in [false, true] {
        let kind = Kind { mode: Mode::Tunnel, ..transport(Protection::Ah, v6) };
        let (mut a, mut b) = pair_of(kind);
        for (inner, outer, delivered) in [(0, 3, None), (2, 3, Some(3)), (2, 1, Some(1))] {
            let packet = with_traffic_class(udp_packet(kind, false, 10), inner);
            let out = a.send(std::slice::from_ref(&packet));
            let sealed = with_traffic_class(out.sealed[0].buf.to_vec(), outer);
            let out = b.receive(raw_path(kind), Ecn::NotEct, &[sealed]);
            let got = out.deliver.first().map(<[u8]>::to_vec);
            assert_eq!(got, delivered.map(|ecn| with_traffic_class(packet, ecn)));
        }
        assert_eq!(b.dropped(), [(DropReason::EcnCongestion, 1)]);
    }
}

#[test]
fn the_outer_header_of_ah_follows_its_policies() {
    for (df, inner_df, expected) in [
        (DfPolicy::Copy, true, 0x40),
        (DfPolicy::Copy, false, 0),
        (DfPolicy::Set, false, 0x40),
        (DfPolicy::Clear, true, 0),
    ] {
        let kind = Kind { mode: Mode::Tunnel, ..transport(Protection::Ah, false) };
        let (mut a, _) = pair_of_with(kind, |params| params.df = df);
        let packet = with_traffic_class(udp_packet(kind, false, 10), 0xb9);
        let packet = if inner_df { packet } else { without_df(packet) };
        let out = a.send(&[packet]);
        let sealed = &out.sealed[0].buf;
        assert_eq!((sealed[1], sealed[6], sealed[8]), (0xb9, expected, 64), "{df:?} {inner_df}");
        assert!(Ipv4Packet::new_checked(&sealed[..]).unwrap().verify_checksum());
    }
}

#[test]
fn addresses_outside_the_selectors_are_refused_in_transport_mode() {
    for kind in raw_transport() {
        let (mut a, mut b) = pair_of(kind);
        let out = a.send(&[udp_packet(kind, false, 10)]);
        let mut sealed = out.sealed[0].buf.to_vec();
        // Another host of A's network: ESP does not cover its address, AH does.
        let last = if kind.v6 { 23 } else { 15 };
        sealed[last] = 77;
        if !kind.v6 {
            sealed = with_checksum(sealed);
        }
        assert!(b.receive(raw_path(kind), Ecn::NotEct, &[sealed]).deliver.is_empty());
        let covered = matches!(kind.protection, Protection::Ah | Protection::Bundle);
        let expected =
            if covered { DropReason::IcvMismatch } else { DropReason::InboundSelectorMismatch };
        assert_eq!(b.dropped(), [(expected, 1)], "{kind:?}");
    }
}

#[test]
fn an_sa_is_found_by_its_protocol_too() {
    for v6 in [false, true] {
        for (sent, known) in [(Protection::Ah, Protection::Gcm), (Protection::Gcm, Protection::Ah)]
        {
            // Both have the same SPI.
            let (mut a, _) = pair_of(transport(sent, v6));
            let (_, mut b) = pair_of(transport(known, v6));
            let out = a.send(&[udp_packet(transport(sent, v6), false, 10)]);
            assert!(b.receive_sealed(&out.sealed).deliver.is_empty());
            assert_eq!(b.dropped(), [(DropReason::NoInboundSa, 1)]);
        }
    }
}

/// What A's SAs of a bundle, of which `last` numbers are used, make of a packet, each alone.
fn alone(kind: Kind, last: u64, which: impl Fn(&OutboundSa, &mut PacketBuf, Place)) -> Vec<u8> {
    let mut params = kind.params(true, true);
    params.sequence = last;
    params.around.iter_mut().for_each(|around| around.sequence = last);
    let sa = OutboundSa::new(params).unwrap();
    let mut packet = buf(&udp_packet(kind, false, 10));
    let place = Place::for_insertion(&packet).unwrap();
    which(&sa, &mut packet, place);
    packet.to_vec()
}

#[test]
fn neither_half_of_a_bundle_is_taken_alone() {
    for v6 in [false, true] {
        let kind = transport(Protection::Bundle, v6);
        let (_, mut b) = pair_of(kind);
        let esp_alone = alone(kind, 0, |sa, packet, place| {
            let _ = sa.seal_at(packet, place).unwrap();
        });
        let ah_alone = alone(kind, 0, |sa, packet, place| {
            let _ = sa.around().unwrap().seal_at(packet, place).unwrap();
        });
        // AH around ESP of another SA, which B has too.
        let other = OutboundSa::new(other_sa(kind, true)).unwrap();
        let around_other = alone(kind, 1, |sa, packet, place| {
            let _ = other.seal_at(packet, place).unwrap();
            let _ = sa.around().unwrap().seal_at(packet, place).unwrap();
        });
        b.apply(SadUpdate::AddInbound(Box::new(other_sa(kind, false))));
        // UDP does not get round it.
        let in_udp = Path { encap: Encap::Udp, ..raw_path(kind) };
        let esp = esp_alone[if v6 { 40 } else { 20 }..].to_vec();
        assert!(b.receive(in_udp, Ecn::NotEct, &[esp]).deliver.is_empty());
        let out = b.receive(raw_path(kind), Ecn::NotEct, &[esp_alone, ah_alone, around_other]);
        assert!(out.deliver.is_empty());
        assert_eq!(b.dropped(), [(DropReason::BundleBroken, 4)]);
        let charged: u64 =
            b.datapath.stats().inbound.iter().flat_map(|sa| &sa.drops).map(|d| d.1).sum();
        assert_eq!(charged, 4);
        let both = alone(kind, 2, |sa, packet, place| {
            let _ = sa.seal_at(packet, place).unwrap();
            let _ = sa.around().unwrap().seal_at(packet, place).unwrap();
        });
        assert_eq!(b.receive(raw_path(kind), Ecn::NotEct, &[both]).deliver.len(), 1);
    }
}

/// One end of an ESP SA from A to B beside the bundle.
fn other_sa(kind: Kind, at_a: bool) -> SaParams {
    let params = Kind { protection: Protection::Gcm, ..kind }.params(true, at_a);
    let spi = |spi: Spi| Spi::new(spi.get() + 0x100).unwrap();
    SaParams { spi: spi(params.spi), other_spi: spi(params.other_spi), ..params }
}

#[test]
fn a_bundle_goes_as_it_came() {
    let kind = transport(Protection::Bundle, false);
    let params = kind.params(true, false);
    let around = params.around.as_ref().unwrap().spi;
    for spi in [params.spi, around] {
        let (_, mut b) = pair_of(kind);
        assert_eq!(b.datapath.stats().inbound.len(), 2);
        b.apply(SadUpdate::RemoveInbound(spi));
        assert!(b.datapath.sad().inbound(params.spi).is_none());
        assert!(b.datapath.sad().inbound(around).is_none());
    }
    let (mut a, _) = pair_of(kind);
    assert_eq!(a.datapath.stats().outbound.len(), 2, "both are shown");
    let (spi, other_spi) = (params.spi, params.other_spi);
    a.apply(SadUpdate::RemoveOutbound { policy: POLICY, spi, other_spi });
    assert_eq!(a.datapath.stats().outbound.len(), 0);
}

#[test]
fn bundles_that_cannot_be_are_refused() {
    let kind = transport(Protection::Bundle, false);
    let good = kind.params(true, false);
    let (_, b) = pair_of(transport(Protection::Gcm, true));
    let refused = |change: &dyn Fn(&mut SaParams)| {
        let mut params = good.clone();
        (params.spi, params.other_spi) = (params.other_spi, params.spi);
        change(&mut params);
        let update = SadUpdate::AddInbound(Box::new(params));
        b.datapath.clone().apply(&update).map(drop).unwrap_err()
    };
    let spi = good.other_spi;
    let impossible = SadError::UnsupportedBundle(spi);
    let around = |params: &mut SaParams| params.around.clone().unwrap();
    assert_eq!(refused(&|params| params.around.as_mut().unwrap().mode = Mode::Tunnel), impossible);
    assert_eq!(
        refused(&|params| {
            params.path.encap = Encap::Udp;
            params.around.as_mut().unwrap().path.encap = Encap::Udp;
        }),
        impossible
    );
    assert_eq!(
        refused(&|params| {
            let inner = around(params);
            params.around.as_mut().unwrap().around = Some(inner);
        }),
        impossible
    );
    assert_eq!(
        refused(&|params| {
            let ah = around(params);
            *params = SaParams { spi, around: Some(ah.clone()), ..*ah };
        }),
        impossible
    );
    assert_eq!(
        refused(&|params| params.around.as_mut().unwrap().spi = spi),
        SadError::DuplicateSpi(spi)
    );
    // AH without UDP, without an encryption key, with padding to 4 or 8.
    let ah = transport(Protection::Ah, false).params(true, false);
    for wrong in [
        SaParams { ah_align: 5, ..ah.clone() },
        SaParams { encr_key: Secret::new(vec![1; 16]), ..ah.clone() },
        SaParams { path: Path { encap: Encap::Udp, ..ah.path }, ..ah.clone() },
    ] {
        assert!(OutboundSa::new(wrong).is_none());
    }
    assert!(OutboundSa::new(ah).is_some());
}

#[test]
fn a_bundle_does_not_move_into_udp() {
    for protection in [Protection::Bundle, Protection::Ah] {
        let kind = Kind { mode: Mode::Tunnel, ..transport(protection, false) };
        let (mut a, mut b) = pair_of(kind);
        let inbound = kind.params(false, true);
        let moved = Path { encap: Encap::Udp, ..inbound.path };
        a.apply(SadUpdate::MovePath { spi: inbound.spi, path: moved });
        let packet = udp_packet(kind, false, 10);
        assert_eq!(carried(&mut a, &mut b, &packet), [packet]);
    }
}

/// RFC 3948 §3.1.2: behind a NAT the checksums that the peer computed are of other addresses.
#[test]
fn checksums_are_mended_for_the_addresses_of_a_nat() {
    let kind = Kind { udp: true, ..transport(Protection::Gcm, false) };
    let nat: std::net::IpAddr = "198.51.100.9".parse().unwrap();
    for (protocol, sum_at, kept) in
        [(6_u8, 16, false), (17, 6, false), (17, 6, true), (132, 8, true)]
    {
        let (mut a, mut b) = pair_of_with(kind, |params| {
            if &*params.peer == "a" {
                params.ts_peer = [TrafficSelector::from_addr(nat)].into();
            }
        });
        let mut segment = vec![5; 60];
        segment[4..6].copy_from_slice(&60_u16.to_be_bytes());
        segment[12] = 0x50;
        segment[sum_at..sum_at + 2].fill(0);
        let sent = packet(kind, false, protocol, &segment);
        let pseudo = |packet: &[u8]| [&packet[12..20], &[0, protocol, 0, 60]].concat();
        if !kept {
            let sum = checksum(&[&pseudo(&sent), &segment]);
            segment[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let sent = packet(kind, false, protocol, &segment);
        let out = a.send(&[sent]);
        let mut received = carry(&out.sealed[0]);
        received.path.remote.set_ip(nat);
        b.datapath.inbound_batch(b.now, &mut [received], &mut b.inbound);
        assert_eq!(b.inbound.deliver.len(), 1, "{:?}", b.dropped());
        let delivered = &b.inbound.deliver[0];
        assert_eq!(delivered[12..16], [198, 51, 100, 9]);
        if kept {
            assert_eq!(
                delivered[20..],
                segment,
                "protocol {protocol}: no checksum, or none of ours"
            );
        } else {
            assert_eq!(checksum(&[&pseudo(delivered), &delivered[20..]]), 0, "protocol {protocol}");
        }
    }
}

#[test]
fn short_packets_are_padded_to_one_length() {
    for kind in Kind::all().into_iter().filter(|kind| kind.mode == Mode::Tunnel) {
        if kind.protection == Protection::Ah {
            continue;
        }
        let (mut a, mut b) = pair_of_with(kind, |params| params.tfc = 1000);
        let packets = [20, 100, 500, 900].map(|len| udp_packet(kind, len % 200 == 0, len));
        let out = a.send(&packets);
        let lengths: Vec<_> = out.sealed.iter().map(|sealed| sealed.buf.len()).collect();
        assert_eq!(lengths, [lengths[0]; 4], "{kind:?}");
        assert!(lengths[0] >= 1000);
        let delivered = &b.receive_sealed(&out.sealed).deliver;
        assert!(delivered.iter().map(|buf| buf.to_vec()).eq(packets), "{kind:?}");
        // What is longer stays as it is; and no padding makes a packet longer than the path takes.
        let longer = udp_packet(kind, false, 1100);
        assert_eq!(carried(&mut a, &mut b, &longer), [longer]);
        let (mut a, _) = pair_of_with(kind, |params| params.tfc = u16::MAX);
        let out = a.send(&[udp_packet(kind, false, 20)]);
        let on_wire = on_wire(kind, &out.sealed[0]);
        assert!(on_wire <= 1500 && on_wire + 16 > 1500, "{kind:?}: {on_wire}");
    }
}

#[test]
fn a_dummy_packet_vanishes_quietly() {
    for kind in Kind::all() {
        if matches!(kind.protection, Protection::Ah | Protection::Bundle) {
            continue;
        }
        let (_, mut b) = pair_of(kind);
        let sa = OutboundSa::new(kind.params(true, true)).unwrap();
        let mut dummy = buf(&[]);
        let _ = sa.seal_dummy(&mut dummy, 300).unwrap();
        let path = kind.params(true, false).path;
        let packet = if kind.udp {
            dummy.to_vec()
        } else {
            let [a, b] = kind.hosts().map(|host| host.to_string());
            ip_between(&a, &b, 50, &dummy)
        };
        let mut received =
            [Received { path, traffic_class: 0, buf: buf(&packet), segment_len: None }];
        b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
        assert!(b.inbound.deliver.is_empty());
        assert_eq!(b.dropped(), [(DropReason::Dummy, 1)], "{kind:?}");
    }
}
