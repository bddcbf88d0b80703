//! Packets of somebody who wants them joined wrongly, or changed: in sequence but for one thing, with bits turned, checksums that are made
//! good again or not, fragments and extension headers in between, sent twice, and in another order. What is joined must come apart as it
//! was, and what crosses two gateways is what was sent, in its order; what is missing is counted.

use ipsecd::datapath::coalesce::Coalescer;
use ipsecd::datapath::segment::Segments;
use ipsecd::datapath::{OutboundBatch, PacketBuf, Received};
use ipsecd::testing::gateways::carry;
use ipsecd::testing::{FixedRandom, HostPacket};
use ipsecd::wire::ip::{IpPacket, Ipv4Packet};
use ipsecd::wire::tcp::TcpPacket;
use ipsecd::wire::udp::UdpPacket;
use ipsecd::wire::vnet::{Gso, Offloads, VnetHeader};
use proptest::prelude::*;

use crate::support::{gcm, pair};

const ALL: Offloads = Offloads { tcp: true, udp: true };

/// Who sends.
struct Attacker {
    random: FixedRandom,
    flows: Vec<HostPacket>,
}

impl Attacker {
    fn new(seed: u64) -> Self {
        let flows = (0..6_u16).map(|nth| HostPacket {
            tcp: nth & 2 != 0,
            port: 40_000 + nth / 4,
            dont_fragment: nth & 4 == 0,
            ..HostPacket::new(nth & 1 != 0)
        });
        Self { random: FixedRandom::new(seed, 0), flows: flows.collect() }
    }

    /// Such as come out of a tunnel: packets that end where they say.
    fn packets(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let mut packet = self.next();
            let Ok(ip) = IpPacket::new_checked(&packet[..]) else { continue };
            packet.truncate(ip.total_len());
            match self.random.below(20) {
                0 => packets.extend([packet.clone(), packet]),
                1 if !packets.is_empty() => packets.insert(packets.len() - 1, packet),
                2 => {}
                3 => packets.extend(self.fragments(&packet)),
                _ => packets.push(packet),
            }
        }
        packets
    }

    /// The next of a flow; often of the one before.
    fn next(&mut self) -> Vec<u8> {
        let most = if self.random.chance(70) { 2 } else { self.flows.len() };
        let which = self.random.below(most);
        let len = match self.random.below(10) {
            0 => self.random.below(4),
            1 => 99 + self.random.below(3),
            _ => 100,
        };
        let fill = self.random.next_u64().to_le_bytes();
        let change = self.random.below(60);
        let flow = &mut self.flows[which];
        flow.payload = fill.into_iter().cycle().take(len).collect();
        flow.flags = 0x10;
        let mut packet = flow.clone();
        let bit = fill[0];
        match change {
            0 => flow.traffic_class ^= 3,
            1 => packet.traffic_class ^= 1 << (bit % 8),
            2 => packet.ttl ^= 1 << (bit % 8),
            3 => packet.ident ^= 1 << (bit % 16),
            4 => packet.dont_fragment = !packet.dont_fragment,
            5 => packet.flow_label ^= 1 << (bit % 20),
            6 => packet.sequence ^= 1 << (bit % 32),
            7 => packet.acknowledgment ^= 1 << (bit % 32),
            8 => packet.flags ^= 1 << (bit % 8),
            9 => packet.window ^= 1 << (bit % 16),
            10 => packet.urgent ^= 1 << (bit % 16),
            11 => flow.options = vec![bit; 4 * usize::from(bit % 11)],
            12 => packet.flags = bit,
            _ => {}
        }
        if packet.ttl == 0 {
            packet.ttl = 1;
        }
        flow.sequence = flow.sequence.wrapping_add(u32::try_from(len).unwrap());
        flow.ident = flow.ident.wrapping_add(1);
        let mut packet = packet.packet();
        match self.random.below(12) {
            0 => self.spoil(&mut packet),
            1 => insert_header(&mut packet, bit),
            _ => {}
        }
        packet
    }

    /// Turns a bit of the headers, or a few after them, and may make the sums good again.
    fn spoil(&mut self, packet: &mut [u8]) {
        let at = self.random.below(packet.len().min(90));
        packet[at] ^= 1 << self.random.below(8);
        if self.random.chance(60) {
            resum(packet);
        }
        if self.random.chance(10) {
            // Ones for a zero, or anything.
            let at = if packet[0] >> 4 == 4 { 36 } else { 56 };
            if let Some(place) = packet.get_mut(at..at + 2) {
                place.fill(0xff);
            }
        }
    }

    /// The packet in two, if it can be.
    fn fragments(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        if packet[0] != 0x45 || packet.len() < 60 {
            return vec![packet.to_vec()];
        }
        let at = 8 * (1 + self.random.below(3));
        let piece = |start: usize, end: usize, more: u16| {
            let mut piece = [&packet[..20], &packet[20 + start..20 + end]].concat();
            let offset = u16::try_from(start / 8).unwrap() | more << 13;
            piece[6..8].copy_from_slice(&offset.to_be_bytes());
            let len = u16::try_from(piece.len()).unwrap();
            piece[2..4].copy_from_slice(&len.to_be_bytes());
            resum(&mut piece);
            piece
        };
        vec![piece(0, at, 1), piece(at, packet.len() - 20, 0)]
    }
}

/// Options of IPv4 or an extension header of IPv6.
fn insert_header(packet: &mut Vec<u8>, bit: u8) {
    if packet[0] >> 4 == 6 {
        let next = packet[6];
        packet[6] = [60, 0, 44][usize::from(bit % 3)];
        packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        let len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        if packet[6] == 44 {
            packet[41..48].fill(0);
        }
    } else {
        packet[0] += 1;
        packet.splice(20..20, [1; 4]);
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        resum(packet);
    }
}

/// Makes every checksum that can be found.
fn resum(packet: &mut [u8]) {
    if let Ok(mut ip) = Ipv4Packet::new_checked(&mut packet[..]) {
        ip.fill_checksum();
    }
    let Ok(ip) = IpPacket::new_checked(&packet[..]) else { return };
    let (src, dst, len) = (ip.src_addr(), ip.dst_addr(), ip.total_len());
    let Ok(upper) = ip.upper_layer() else { return };
    if upper.fragment.is_some() {
        return;
    }
    let protocol = upper.protocol.0;
    let data = &mut packet[upper.offset..len];
    if protocol == 6
        && let Ok(mut tcp) = TcpPacket::new_checked(&mut *data)
    {
        tcp.fill_checksum(src, dst);
    } else if protocol == 17
        && let Ok(mut udp) = UdpPacket::new_checked(data)
    {
        udp.fill_checksum(src, dst);
    }
}

fn cut(packet: &[u8], vnet: &VnetHeader) -> Vec<Vec<u8>> {
    let segments = Segments::new(packet, vnet).expect("what it says it is");
    let made = (0..segments.len()).map(|index| {
        let mut out = vec![0xa5; segments.len_of(index)];
        segments.write(index, &mut out);
        out
    });
    made.collect()
}

/// Each once and as it was, none before one of its flow that came before it. Gives the number of pieces.
fn check_joined(packets: &[Vec<u8>]) -> Result<usize, TestCaseError> {
    let mut coalescer = Coalescer::new();
    coalescer.arrange(packets.iter().map(Vec::as_slice), ALL);
    let (mut order, mut pieces) = (Vec::new(), 0);
    for joined in coalescer.joined() {
        pieces += 1;
        let parts: Vec<_> = joined.parts().collect();
        order.extend(parts.iter().map(|&(at, _)| at));
        if !joined.is_joined() {
            prop_assert_eq!((parts.len(), parts[0].1), (1, 0));
            continue;
        }
        let payloads = parts.iter().flat_map(|&(at, skip)| &packets[at][skip..]);
        let whole: Vec<_> = joined.header.iter().chain(payloads).copied().collect();
        let apart = cut(&whole, &joined.vnet);
        let were: Vec<_> = parts.iter().map(|&(at, _)| packets[at].clone()).collect();
        prop_assert_eq!(apart, were);
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    prop_assert!(sorted.into_iter().eq(0..packets.len()), "each once: {:?}", order);
    for (place, &at) in order.iter().enumerate() {
        for &later in &order[place + 1..] {
            let overtaken = later < at && may_be_one_flow(&packets[later], &packets[at]);
            prop_assert!(!overtaken, "{:02x?} comes before {:02x?}", packets[at], packets[later]);
        }
    }
    Ok(pieces)
}

/// Of the same hosts, and of the same ports where both say them.
fn may_be_one_flow(one: &[u8], other: &[u8]) -> bool {
    let hosts = |packet: &[u8]| match packet[0] >> 4 {
        4 => packet.get(12..20).map(<[u8]>::to_vec),
        6 => packet.get(8..40).map(<[u8]>::to_vec),
        _ => None,
    };
    let (Some(of_one), Some(of_other)) = (hosts(one), hosts(other)) else { return false };
    let ports = |packet: &[u8]| {
        let ip = IpPacket::new_checked(packet).ok()?;
        let upper = ip.upper_layer().ok()?;
        let at = upper.offset;
        let is_flow = upper.fragment.is_none() && matches!(upper.protocol.0, 6 | 17);
        is_flow.then(|| Some((upper.protocol.0, packet.get(at..at + 4)?.to_vec()))).flatten()
    };
    // Of what is not well-formed nothing is demanded.
    let is_fragment = |packet: &[u8]| {
        IpPacket::new_checked(packet)
            .is_ok_and(|ip| ip.upper_layer().is_ok_and(|it| it.fragment.is_some()))
    };
    of_one == of_other
        && match (ports(one), ports(other)) {
            (Some(one), Some(other)) => one == other,
            (Some(_), None) => is_fragment(other),
            (None, Some(_)) => is_fragment(one),
            (None, None) => false,
        }
}

/// What a host hands over in one piece.
type Piece = (VnetHeader, Vec<u8>);

/// Pieces as a host hands them over, and the packets that they are.
fn pieces(attacker: &mut Attacker, count: usize) -> (Vec<Piece>, Vec<Vec<u8>>) {
    let (mut pieces, mut packets) = (Vec::new(), Vec::new());
    for _ in 0..count {
        if attacker.random.chance(60) {
            let packet = attacker.next();
            pieces.push((VnetHeader::default(), packet.clone()));
            packets.push(packet);
            continue;
        }
        let which = attacker.random.below(attacker.flows.len());
        let (len, many) = (1 + attacker.random.below(900), 2 + attacker.random.below(20));
        let short = attacker.random.below(len);
        let flags = attacker.random.next_u64().to_le_bytes();
        let flow = &mut attacker.flows[which];
        flow.payload = vec![7; len * many - short];
        flow.flags = flags[0] & !2 | 0x10;
        flow.urgent = if flow.flags & 0x20 == 0 { 0 } else { flags[1].into() };
        pieces.push((flow.vnet(len), flow.unfinished()));
        packets.extend(flow.segments(len).iter().map(HostPacket::packet));
    }
    (pieces, packets)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_joined_wrongly(seed in any::<u64>(), count in 1_usize..64) {
        check_joined(&Attacker::new(seed).packets(count))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_crosses_two_gateways_is_what_was_sent(seed in any::<u64>(), count in 1_usize..20) {
        let mut attacker = Attacker::new(seed);
        let (pieces, packets) = pieces(&mut attacker, count);
        let (a, mut b) = pair(gcm());
        let headers: Vec<_> = pieces.iter().map(|(vnet, _)| *vnet).collect();
        let mut buffers: Vec<_> = pieces
            .iter()
            .map(|(_, packet)| {
                let mut buf = PacketBuf::new(65_535);
                assert!(buf.fill_from(packet));
                buf
            })
            .collect();
        let mut sealed = OutboundBatch::new(65_535);
        a.datapath.outbound_batch_with(a.now, &mut buffers, &headers, &mut sealed);
        let mut received: Vec<Received> = sealed.sealed.iter().map(carry).collect();
        b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
        let delivered: Vec<Vec<u8>> = b.inbound.deliver.iter().map(<[u8]>::to_vec).collect();
        // What is not well-formed is dropped where that is seen; nothing else is, and nothing is without being counted.
        let dropped: u64 = a.dropped().iter().chain(&b.dropped()).map(|(_, count)| count).sum();
        prop_assert_eq!(delivered.len() as u64 + dropped, packets.len() as u64);
        let mut sent = packets.iter();
        for packet in &delivered {
            prop_assert!(sent.any(|one| one == packet), "{:02x?} was not sent, or not then", packet);
        }
        check_joined(&delivered)?;
    }
}

/// The attacker is none if nothing is joined.
#[test]
fn what_is_sent_in_sequence_is_joined() {
    let (mut packets, mut made) = (0, 0);
    for seed in 0..50 {
        let sent = Attacker::new(seed).packets(64);
        packets += sent.len();
        made += check_joined(&sent).unwrap();
    }
    assert!(made * 4 < packets * 3, "{made} pieces of {packets} packets");
    assert_eq!(Gso::None, VnetHeader::default().gso);
}

/// A fragment does not say which flow it is of, and none may overtake it.
#[test]
fn a_fragment_is_not_overtaken() {
    let model = HostPacket { tcp: false, payload: vec![7; 3000], ..HostPacket::new(true) };
    let mut packets: Vec<_> = model.segments(1000).iter().map(HostPacket::packet).collect();
    let pieces = |packets: &[Vec<u8>]| check_joined(packets).unwrap();
    assert_eq!(pieces(&packets), 1);
    // A Fragment header.
    insert_header(&mut packets[1], 2);
    assert_eq!(packets[1][6], 44);
    assert_eq!(pieces(&packets), 3, "in their order");
}
