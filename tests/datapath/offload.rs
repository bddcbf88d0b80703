//! Packets that the host sends in one piece, and those that it gets in one: cutting and joining, against a model that builds
//! each segment by itself, and through the whole datapath, against the same packets one by one.

use core::net::IpAddr;

use ipsecd::datapath::coalesce::Coalescer;
use ipsecd::datapath::segment::{Segments, complete};
use ipsecd::datapath::{OutboundBatch, PacketBuf, Sealed};
use ipsecd::ipsec::{Encap, Mode};
use ipsecd::testing::HostPacket;
use ipsecd::testing::gateways::{Kind, carry};
use ipsecd::wire::ip::{Ipv4Packet, NextHeader};
use ipsecd::wire::tcp::TcpPacket;
use ipsecd::wire::udp::UdpPacket;
use ipsecd::wire::vnet::{Gso, Offloads, PartialChecksum, VnetHeader};
use proptest::prelude::*;

use crate::kinds::pair_of;
use crate::support::{Gateway, gcm, pair, pair_with, udp};

const ALL: Offloads = Offloads { tcp: true, udp: true };

fn cut(packet: &[u8], vnet: &VnetHeader) -> Vec<Vec<u8>> {
    let segments = Segments::new(packet, vnet).expect("what it says it is");
    let made: Vec<_> = (0..segments.len())
        .map(|index| {
            // What was in the buffer before does not show.
            let mut out = vec![0xa5; segments.len_of(index)];
            segments.write(index, &mut out);
            out
        })
        .collect();
    assert_eq!(segments.total_len(), made.iter().map(Vec::len).sum::<usize>());
    made
}

/// The pieces in which a batch is written: header and packet.
fn joined(packets: &[Vec<u8>], offloads: Offloads) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut coalescer = Coalescer::new();
    coalescer.arrange(packets.iter().map(Vec::as_slice), offloads);
    coalescer
        .joined()
        .map(|joined| {
            let mut whole = joined.header.to_vec();
            for (at, skip) in joined.parts() {
                whole.extend(&packets[at][skip..]);
            }
            (joined.vnet, whole)
        })
        .collect()
}

/// What the host gets of it in the end.
fn taken_apart(pieces: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let apart = pieces.iter().flat_map(|(vnet, whole)| match vnet.gso {
        Gso::None => vec![whole.clone()],
        _ => cut(whole, vnet),
    });
    apart.collect()
}

fn model() -> impl Strategy<Value = HostPacket> {
    let ip = (any::<bool>(), any::<bool>(), any::<u8>(), 1_u8.., any::<u16>(), any::<bool>());
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), any::<u16>(), 0_usize..=10);
    (ip, tcp, 0_u32..1 << 20, prop::collection::vec(any::<u8>(), 0..9000)).prop_map(
        |((v6, tcp, traffic_class, ttl, ident, dont_fragment), of_tcp, flow_label, payload)| {
            let (sequence, acknowledgment, flags, window, urgent, words) = of_tcp;
            HostPacket {
                tcp,
                port: 40_000,
                traffic_class,
                ttl,
                ident,
                dont_fragment,
                flow_label,
                sequence,
                acknowledgment,
                flags,
                window,
                urgent,
                options: vec![1; 4 * words],
                payload,
                ..HostPacket::new(v6)
            }
        },
    )
}

/// Packets of up to three flows as they might come, most of them in sequence, some changed in a way that must not be lost.
fn stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let flow = (any::<bool>(), any::<bool>(), 0_u16..2);
    let step = (0_usize..3, 0_u8..60, prop_oneof![4 => Just(100_usize), 1 => 0_usize..300]);
    (prop::collection::vec(flow, 3), prop::collection::vec(step, 1..80)).prop_map(
        |(flows, steps)| {
            let mut flows: Vec<_> = flows
                .into_iter()
                .map(|(v6, tcp, port)| HostPacket { tcp, port, ..HostPacket::new(v6) })
                .collect();
            let steps = steps.into_iter().enumerate();
            let packets = steps.map(|(nth, (flow, change, len))| {
                let flow = &mut flows[flow];
                flow.payload = vec![u8::try_from(nth).unwrap(); len];
                flow.flags = 0x10;
                let mut spoilt = None;
                match change {
                    0 => flow.traffic_class ^= 3,
                    1 => flow.ttl -= 1,
                    2 => flow.window += 1,
                    3 => flow.acknowledgment += 1,
                    4 => flow.flags = 0x18,
                    5 => flow.flags = 0x11,
                    6 => flow.flags = 0x90,
                    7 => flow.flags = 0x50,
                    8 => flow.flags = 0x30,
                    9 => flow.flags = 0x14,
                    10 => flow.flags = 0x02,
                    11 => flow.sequence = flow.sequence.wrapping_add(1),
                    12 => flow.sequence = flow.sequence.wrapping_sub(100),
                    13 => flow.ident = flow.ident.wrapping_sub(1),
                    14 => flow.dont_fragment = !flow.dont_fragment,
                    15 if !flow.options.is_empty() => flow.options[11] ^= 1,
                    16 => flow.options.truncate(0),
                    17 => flow.options = vec![1; 12],
                    18 => flow.urgent ^= 1,
                    19 => flow.flow_label ^= 1,
                    // A checksum that is wrong, of TCP or UDP, and of IPv4; no checksum of UDP.
                    20 => spoilt = Some(flow.header_len() - 1),
                    21 => spoilt = Some(11),
                    22 if !flow.tcp => spoilt = Some(flow.header_len() - 2),
                    _ => {}
                }
                let mut packet = flow.packet();
                if let Some(at) = spoilt {
                    if change == 22 {
                        packet[at..at + 2].fill(0);
                    } else {
                        packet[at] ^= 1;
                    }
                }
                flow.sequence = flow.sequence.wrapping_add(u32::try_from(len).unwrap());
                flow.ident = flow.ident.wrapping_add(1);
                packet
            });
            packets.collect()
        },
    )
}

/// What tells one flow from another.
fn flow_of(packet: &[u8]) -> (Vec<u8>, u8) {
    if packet[0] >> 4 == 4 {
        (packet[12..24].to_vec(), packet[9])
    } else {
        (packet[8..44].to_vec(), packet[6] | 0x80)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn segments_are_those_that_the_host_would_have_sent(model in model(), len in 1_usize..3000) {
        let mut model = model;
        model.payload.truncate(60 * len);
        let expected: Vec<_> = model.segments(len).iter().map(HostPacket::packet).collect();
        prop_assert_eq!(cut(&model.packet(), &model.vnet(len)), expected);
    }

    #[test]
    fn what_is_joined_comes_apart_as_it_was(packets in stream()) {
        let pieces = joined(&packets, ALL);
        let apart = taken_apart(&pieces);
        prop_assert_eq!(apart.len(), packets.len());
        let mut flows: Vec<_> = packets.iter().map(|packet| flow_of(packet)).collect();
        flows.sort();
        flows.dedup();
        for flow in flows {
            let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                packets.iter().filter(|packet| flow_of(packet) == flow).cloned().collect()
            };
            prop_assert!(of_flow(&apart) == of_flow(&packets), "the same bytes in the same order");
        }
    }

    #[test]
    fn cut_and_joined_again_is_the_same(model in model(), len in 100_usize..3000) {
        // Of what may be joined, and of more than one segment.
        let model = HostPacket { flags: 0x10 | model.flags & 0x49, ..model };
        prop_assume!(model.payload.len() > len && model.payload.len() <= 60 * len);
        let segments = cut(&model.packet(), &model.vnet(len));
        let pieces = joined(&segments, ALL);
        prop_assert_eq!(pieces.len(), 1);
        prop_assert_eq!(pieces[0].0, model.vnet(len));
        // But for the checksum, which is left to be made.
        let mut whole = pieces[0].1.clone();
        prop_assert!(complete(&mut whole, model.vnet(len).checksum.unwrap()));
        prop_assert_eq!(whole, model.packet());
    }

    #[test]
    fn nothing_panics_whatever_is_cut_or_joined(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8),
        bytes in any::<[u8; 10]>(),
    ) {
        for packet in &packets {
            if let Ok(vnet) = VnetHeader::parse(&bytes)
                && Segments::new(packet, &vnet).is_some()
            {
                let _ = cut(packet, &vnet);
            }
            let partial = PartialChecksum { start: bytes[0].into(), offset: bytes[1].into() };
            let _ = complete(&mut packet.clone(), partial);
        }
        let pieces = joined(&packets, ALL);
        prop_assert_eq!(taken_apart(&pieces), packets);
    }
}

#[test]
fn a_stream_is_joined_as_far_as_a_packet_is_long() {
    for (v6, tcp, most) in
        [(false, true, 65), (true, true, 65), (false, false, 64), (true, false, 64)]
    {
        let model = HostPacket { tcp, payload: vec![7; 130 * 1000], ..HostPacket::new(v6) };
        let packets: Vec<_> = model.segments(1000).iter().map(HostPacket::packet).collect();
        let pieces = joined(&packets, ALL);
        let rest = 130 - 2 * most;
        let expected: Vec<_> = [most, most, rest].into_iter().filter(|&count| count > 0).collect();
        let counts: Vec<_> = pieces
            .iter()
            .map(|(vnet, whole)| if vnet.gso == Gso::None { 1 } else { cut(whole, vnet).len() })
            .collect();
        assert_eq!(counts, expected, "IPv6 {v6} TCP {tcp}");
    }
}

#[test]
fn nothing_is_joined_that_the_tun_does_not_take() {
    for (tcp, offloads) in
        [(true, Offloads { tcp: false, udp: true }), (false, Offloads { tcp: true, udp: false })]
    {
        let model = HostPacket { tcp, payload: vec![7; 5000], ..HostPacket::default() };
        let packets: Vec<_> = model.segments(1000).iter().map(HostPacket::packet).collect();
        let pieces = joined(&packets, offloads);
        assert!(pieces.iter().all(|(vnet, _)| *vnet == VnetHeader::default()));
        assert_eq!(taken_apart(&pieces), packets);
    }
}

/// The second of two that would follow each other is changed in one thing.
#[test]
fn what_differs_in_anything_is_not_joined() {
    type Change = fn(&mut HostPacket);
    let changes: [(&str, Change); 16] = [
        ("ECN", |model| model.traffic_class = 3),
        ("DSCP", |model| model.traffic_class = 0xb8),
        ("TTL", |model| model.ttl -= 1),
        ("DF", |model| model.dont_fragment = false),
        ("identification", |model| model.ident += 1),
        ("the same identification", |model| model.ident -= 1),
        ("a gap", |model| model.sequence = model.sequence.wrapping_add(1)),
        ("sent again", |model| model.sequence = model.sequence.wrapping_sub(1000)),
        ("acknowledgment", |model| model.acknowledgment += 1),
        ("window", |model| model.window += 1),
        ("ECE", |model| model.flags |= 0x40),
        ("CWR", |model| model.flags |= 0x80),
        ("URG", |model| model.flags |= 0x20),
        ("timestamp", |model| model.options[11] ^= 1),
        ("no options", |model| model.options.clear()),
        ("longer", |model| model.payload.push(7)),
    ];
    for (what, change) in changes {
        let mut models =
            HostPacket { payload: vec![7; 2000], ..HostPacket::default() }.segments(1000);
        let plain: Vec<_> = models.iter().map(HostPacket::packet).collect();
        assert_eq!(joined(&plain, ALL).len(), 1);
        change(&mut models[1]);
        let packets: Vec<_> = models.iter().map(HostPacket::packet).collect();
        assert_eq!(joined(&packets, ALL).len(), 2, "{what}");
    }
    let mut models = HostPacket { payload: vec![7; 2000], ..HostPacket::new(true) }.segments(1000);
    models[1].flow_label += 1;
    let packets: Vec<_> = models.iter().map(HostPacket::packet).collect();
    assert_eq!(joined(&packets, ALL).len(), 2, "flow label");
}

/// As a checksum 0 and 0xffff mean the same, but for UDP, where 0 is none. The sum of a word of zeros and of what was the checksum
/// with it is 0xffff, of which the checksum is 0.
#[test]
fn a_checksum_of_zero_stays_zero_and_one_of_ones_is_not_joined() {
    for v6 in [false, true] {
        let transport = if v6 { 40 } else { 20 };
        let tcp = transport + 16..transport + 18;
        let zeros = HostPacket { payload: vec![0; 2000], ..HostPacket::new(v6) };
        let mut model = zeros.clone();
        model.payload[..2].copy_from_slice(&zeros.packet()[tcp.clone()]);
        assert_eq!(model.packet()[tcp.clone()], [0, 0]);
        let pieces = joined(&cut(&model.packet(), &model.vnet(1000)), ALL);
        let mut whole = pieces[0].1.clone();
        assert!(complete(&mut whole, model.vnet(1000).checksum.unwrap()));
        assert_eq!(whole, model.packet());

        let mut models = zeros.segments(1000);
        let sum = models[1].packet()[tcp.clone()].to_vec();
        models[1].payload[..2].copy_from_slice(&sum);
        zero_is_joined_and_ones_are_not(&models, tcp);
    }
    let model = |third, fourth| {
        let mut model = HostPacket { payload: vec![7; 2000], ..HostPacket::default() };
        model.addresses[0] = [10, 1, third, fourth].into();
        model.segments(1000)
    };
    let sum = model(0, 0)[1].packet()[10..12].to_vec();
    zero_is_joined_and_ones_are_not(&model(sum[0], sum[1]), 10..12);
}

/// Of two packets whose second has a checksum of zero at `at`.
fn zero_is_joined_and_ones_are_not(models: &[HostPacket], at: core::ops::Range<usize>) {
    let mut packets: Vec<_> = models.iter().map(HostPacket::packet).collect();
    assert_eq!(packets[1][at.clone()], [0, 0]);
    for (checksum, count) in [([0, 0], 1), ([0xff, 0xff], 2)] {
        packets[1][at.clone()].copy_from_slice(&checksum);
        let pieces = joined(&packets, ALL);
        assert_eq!(pieces.len(), count, "{checksum:?} at {at:?}");
        assert_eq!(taken_apart(&pieces), packets);
    }
}

#[test]
fn what_ends_a_stream_or_is_shorter_is_the_last_that_joins() {
    for (flags, len) in [(0x18, 1000), (0x11, 1000), (0x10, 999)] {
        let mut models =
            HostPacket { payload: vec![7; 4000], ..HostPacket::default() }.segments(1000);
        models[2].flags = flags;
        models[2].payload.truncate(len);
        models[3].sequence = models[2].sequence.wrapping_add(u32::try_from(len).unwrap());
        let packets: Vec<_> = models.iter().map(HostPacket::packet).collect();
        let pieces = joined(&packets, ALL);
        assert_eq!(pieces.len(), 2, "{flags:#x} {len}");
        assert_eq!(pieces[1].1, packets[3]);
        assert_eq!(taken_apart(&pieces), packets);
    }
}

#[test]
fn a_packet_without_payload_is_not_overtaken() {
    let mut models = HostPacket { payload: vec![7; 3000], ..HostPacket::default() }.segments(1000);
    models[1].payload.clear();
    models[2].sequence = models[1].sequence;
    models[1].ident = models[0].ident;
    let packets: Vec<_> = models.iter().map(HostPacket::packet).collect();
    assert_eq!(taken_apart(&joined(&packets, ALL)), packets);
}

#[test]
fn flows_that_are_mixed_are_joined_each() {
    let flow = |port| {
        let model = HostPacket { port, payload: vec![7; 8000], ..HostPacket::default() };
        model.segments(1000).iter().map(HostPacket::packet).collect::<Vec<_>>()
    };
    let flows = [flow(1), flow(2), flow(3)];
    let packets: Vec<_> =
        (0..8).flat_map(|nth| flows.iter().map(move |flow| flow[nth].clone())).collect();
    let pieces = joined(&packets, ALL);
    assert_eq!(pieces.len(), 3);
    assert_eq!(taken_apart(&pieces), flows.concat());
}

#[test]
fn a_checksum_left_to_the_card_is_made() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let model = HostPacket { tcp, payload: (0..=255).collect(), ..HostPacket::new(v6) };
        let expected = model.packet();
        let partial = model.vnet(1).checksum.unwrap();
        let mut packet = expected.clone();
        let at = usize::from(partial.start + partial.offset);
        let [src, dst] = model.addresses;
        let len = packet.len() - usize::from(partial.start);
        packet[at..at + 2].copy_from_slice(&pseudo(src, dst, tcp, len).to_be_bytes());
        assert!(complete(&mut packet, partial));
        assert_eq!(packet, expected, "IPv6 {v6} TCP {tcp}");
    }
    let mut short = vec![0; 30];
    assert!(!complete(&mut short, PartialChecksum { start: 20, offset: 9 }));
    assert!(!complete(&mut short, PartialChecksum { start: 31, offset: 0 }));
    assert!(!complete(&mut short, PartialChecksum { start: 65_535, offset: 65_535 }));
    assert_eq!(short, [0; 30]);
}

/// RFC 9293 §3.1, RFC 8200 §8.1: the sum, two bytes at a time.
fn pseudo(src: IpAddr, dst: IpAddr, tcp: bool, len: usize) -> u16 {
    let octets = |addr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let mut bytes = [octets(src), octets(dst)].concat();
    bytes.extend(u32::try_from(len).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, if tcp { 6 } else { 17 }]);
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn send_cut<'a>(a: &'a mut Gateway, packet: &[u8], vnet: VnetHeader) -> &'a OutboundBatch {
    let mut buf = PacketBuf::new(65_535);
    assert!(buf.fill_from(packet));
    let mut packets = [buf];
    a.outbound = OutboundBatch::new(65_535);
    a.datapath.outbound_batch_with(a.now, &mut packets, &[vnet], &mut a.outbound);
    assert!(packets[0].is_empty());
    &a.outbound
}

/// Where UDP datagrams of a run begin and end.
fn lengths(out: &OutboundBatch) -> Vec<usize> {
    out.sealed.iter().flat_map(|sealed| sealed.packets().map(<[u8]>::len)).collect()
}

#[test]
fn a_large_packet_leaves_as_runs_that_open_to_its_segments() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let (mut a, mut b) = pair(gcm());
        let payload: Vec<_> = (0..64_007_u32).map(|n| n.to_le_bytes()[0]).collect();
        let model = HostPacket { tcp, flags: 0x98, payload, ..HostPacket::new(v6) };
        let expected: Vec<_> = model.segments(1300).iter().map(HostPacket::packet).collect();
        let (packet, vnet) = (model.packet(), model.vnet(1300));
        let out = send_cut(&mut a, &packet, vnet);
        assert_eq!(out.sealed.len(), 2, "as many bytes as UDP takes each time");
        let lengths = lengths(out);
        assert_eq!(lengths.len(), expected.len());
        assert!(lengths[..expected.len() - 1].iter().all(|&len| len == lengths[0]));
        let mut delivered = Vec::new();
        for sealed in &out.sealed {
            let mut received = [carry(sealed)];
            b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
            delivered.extend(b.inbound.deliver.iter().map(<[u8]>::to_vec));
        }
        assert_eq!(delivered, expected, "IPv6 {v6} TCP {tcp}");
        assert_eq!((a.dropped(), b.dropped()), (vec![], vec![]));
        let (sent, got) = (a.datapath.stats(), b.datapath.stats());
        let bytes: usize = expected.iter().map(Vec::len).sum();
        let counted = (expected.len() as u64, bytes as u64);
        assert_eq!((sent.outbound[0].packets, sent.outbound[0].bytes), counted);
        assert_eq!((got.inbound[0].packets, got.inbound[0].bytes), counted);
        let policy = &sent.policies[0];
        assert_eq!((policy.outbound_packets, policy.outbound_bytes), counted);
        assert_eq!(sent.outbound[0].sequence, expected.len() as u64, "no number was left out");
    }
}

/// A peer with a window of 32 packets would drop what leaves after so many with higher numbers.
#[test]
fn packets_before_and_after_a_large_one_leave_in_the_order_of_their_numbers() {
    let (mut a, _) = pair(gcm());
    let large = HostPacket { payload: vec![7; 60_000], ..HostPacket::new(false) };
    let small = VnetHeader::default();
    let packets: Vec<_> = [0, 1, 0, 0, 1, 0]
        .into_iter()
        .map(|is_large| match is_large {
            0 => (udp(false, 100), small),
            _ => (large.packet(), large.vnet(1300)),
        })
        .collect();
    let (mut bufs, vnet): (Vec<_>, Vec<_>) = packets
        .into_iter()
        .map(|(packet, vnet)| {
            let mut buf = PacketBuf::new(65_535);
            assert!(buf.fill_from(&packet));
            (buf, vnet)
        })
        .unzip();
    a.outbound = OutboundBatch::new(65_535);
    a.datapath.outbound_batch_with(a.now, &mut bufs, &vnet, &mut a.outbound);
    let sealed = a.outbound.sealed.iter().flat_map(Sealed::packets);
    let numbers: Vec<_> =
        sealed.map(|packet| u32::from_be_bytes(packet[4..8].try_into().unwrap())).collect();
    let count = u32::try_from(4 + 2 * large.segments(1300).len()).unwrap();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
}

/// The same packet between the hosts or subnets of this kind of SA.
fn of_kind(kind: Kind, model: &HostPacket) -> Vec<u8> {
    let packet = model.packet();
    let [src, dst] = match kind.mode {
        Mode::Transport => kind.hosts(),
        Mode::Tunnel => model.addresses,
    };
    let mut packet = packet;
    let transport = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet[12..16].copy_from_slice(&src.octets());
            packet[16..20].copy_from_slice(&dst.octets());
            Ipv4Packet::new_checked(&mut packet[..]).unwrap().fill_checksum();
            20
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet[8..24].copy_from_slice(&src.octets());
            packet[24..40].copy_from_slice(&dst.octets());
            40
        }
        _ => panic!("one version"),
    };
    if model.tcp {
        TcpPacket::new_checked(&mut packet[transport..]).unwrap().fill_checksum(src, dst);
    } else {
        UdpPacket::new_checked(&mut packet[transport..]).unwrap().fill_checksum(src, dst);
    }
    packet
}

/// Through the sockets of a kind of SA, where only UDP has runs.
fn carried(b: &mut Gateway, sealed: &[Sealed]) -> Vec<Vec<u8>> {
    let mut delivered = Vec::new();
    for sealed in sealed {
        let mut received = if sealed.path.encap == Encap::Udp {
            vec![carry(sealed)]
        } else {
            let single = |packet: &[u8]| {
                let buf = PacketBuf::copy_of(packet);
                carry(&Sealed { buf, segment_len: None, path: sealed.path, form: sealed.form })
            };
            sealed.packets().map(single).collect()
        };
        b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
        delivered.extend(b.inbound.deliver.iter().map(<[u8]>::to_vec));
    }
    delivered
}

#[test]
fn every_kind_of_sa_carries_segments_as_it_carries_packets() {
    for kind in Kind::all() {
        for tcp in [true, false] {
            let payload = vec![7; 5000];
            let model = HostPacket { tcp, flags: 0x18, payload, ..HostPacket::new(kind.v6) };
            let vnet = model.vnet(700);
            let packet = of_kind(kind, &model);
            let singles = cut(&packet, &vnet);
            let (mut a, mut b) = pair_of(kind);
            let out = send_cut(&mut a, &packet, vnet);
            let delivered = carried(&mut b, &out.sealed);
            assert_eq!(delivered.len(), 8, "{kind:?} {:?}", (a.dropped(), b.dropped()));
            let (mut a, mut b) = pair_of(kind);
            let out = a.send(&singles);
            assert_eq!(delivered, carried(&mut b, &out.sealed), "{kind:?}");
        }
    }
}

#[test]
fn segments_that_do_not_fit_are_answered_once() {
    let (mut a, _) = pair(gcm());
    let model = HostPacket { payload: vec![7; 20_000], ..HostPacket::default() };
    let out = send_cut(&mut a, &model.packet(), model.vnet(1460));
    assert!(out.sealed.is_empty());
    assert_eq!(out.replies.len(), 1);
    let reply = Ipv4Packet::new_checked(&out.replies[0][..]).unwrap();
    assert_eq!(reply.protocol(), NextHeader::ICMP);
    assert_eq!(reply.payload()[..2], [3, 4], "fragmentation needed");
    assert_eq!(a.dropped().iter().map(|(_, count)| count).sum::<u64>(), 14, "every segment");
    // What may be fragmented is, each segment by itself.
    let model = HostPacket { dont_fragment: false, tcp: false, ..model };
    let out = send_cut(&mut a, &model.packet(), model.vnet(1460));
    assert_eq!((out.sealed.len(), out.replies.len()), (2 * 13 + 1, 0), "the last fits");
}

#[test]
fn when_an_sa_ends_within_a_packet_the_segments_before_it_leave() {
    let (mut a, _) = pair_with(gcm(), |params| params.lifetime.hard_packets = Some(5));
    let model = HostPacket { payload: vec![7; 5000], ..HostPacket::default() };
    let out = send_cut(&mut a, &model.packet(), model.vnet(700));
    assert_eq!((lengths(out).len(), model.segments(700).len()), (5, 8));
    assert_eq!(out.notices.len(), 1, "IKE hears of it");
}
