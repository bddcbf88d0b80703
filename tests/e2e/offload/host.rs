//! Who sends: eight flows of TCP and UDP over IPv4 and IPv6, pings, and whatever else a host, or somebody who means no good, may send.

use std::net::IpAddr;

use ipsecd::testing::{FixedRandom, HostPacket};
use ipsecd::wire::ip::{Ipv4Packet, Ipv4Repr, Ipv6Repr, NextHeader};
use ipsecd::wire::vnet::VnetHeader;

use super::HOPS;

/// The flows, as far as they have come.
pub(super) struct Host {
    random: FixedRandom,
    flows: Vec<HostPacket>,
}

/// Packets and their virtio headers, and what is to arrive.
pub(super) type Step = (Vec<(VnetHeader, Vec<u8>)>, Vec<Vec<u8>>);

impl Host {
    pub(super) fn new() -> Self {
        let flows = (0..8_u16).map(|nth| {
            let v6 = nth & 1 != 0;
            let addresses =
                if v6 { ["fd01:1::77", "fd02:1::77"] } else { ["10.1.1.77", "10.2.1.77"] };
            HostPacket {
                addresses: addresses.map(|addr| addr.parse().expect("an address")),
                tcp: nth & 2 != 0,
                port: 40_000 + nth,
                dont_fragment: nth & 4 != 0,
                ..HostPacket::new(v6)
            }
        });
        Self { random: FixedRandom::new(1, 0), flows: flows.collect() }
    }

    pub(super) fn step(&mut self) -> Step {
        if self.random.chance(5) {
            return self.ping();
        }
        if self.random.chance(15) {
            return self.odd();
        }
        let which = self.random.below(self.flows.len());
        // Seldom: what the flow has with each of its packets.
        let byte = self.random.next_u64().to_le_bytes();
        let flow = &mut self.flows[which];
        match byte[0] {
            0..20 => flow.traffic_class ^= byte[1] & 3,
            20..25 => flow.traffic_class = byte[1],
            25..30 => flow.ttl = 10 | byte[1],
            30..35 => flow.flow_label = u32::from(byte[1]) << 8,
            35..50 => flow.window = flow.window.wrapping_add(byte[1].into()),
            50..60 => flow.acknowledgment = flow.acknowledgment.wrapping_add(1000),
            60..65 => flow.options = vec![1; 4 * usize::from(byte[1] % 11)],
            65..68 => flow.ident = flow.ident.wrapping_add(byte[1].into()),
            68..70 => flow.sequence = flow.sequence.wrapping_add(byte[1].into()),
            _ => {}
        }
        if flow.options.len() == 12 {
            flow.options[7] = flow.options[7].wrapping_add(1);
        }
        flow.flags = 0x10;
        if byte[2] < 10 && flow.tcp {
            return self.alone(which, byte[3]);
        }
        self.bulk(which, byte[3])
    }

    /// What is sent in one piece or one by one.
    fn bulk(&mut self, which: usize, flags: u8) -> Step {
        let most = 1400 - self.flows[which].header_len();
        let segment_len = match self.random.below(4) {
            0 => 1 + self.random.below(most.min(200)),
            _ => most - self.random.below(200),
        };
        let count = 1 + self.random.below(60.min(60_000 / segment_len));
        let len = segment_len * count - self.random.below(segment_len);
        let fill = self.random.next_u64().to_le_bytes()[0];
        let flow = &mut self.flows[which];
        flow.payload = (0..len).map(|at| fill.wrapping_add(at.to_le_bytes()[0])).collect();
        if flow.tcp {
            flow.flags |= match flags {
                0..100 => 0x08,
                100..120 => 0x01,
                120..130 => 0x80,
                130..140 => 0x40,
                140..150 => 0xc9,
                _ => 0,
            };
        }
        let packet = flow.clone();
        let mut segments = packet.segments(segment_len);
        let sent = u32::try_from(len).expect("short");
        flow.sequence = flow.sequence.wrapping_add(sent);
        flow.ident = flow.ident.wrapping_add(u16::try_from(segments.len()).expect("few"));
        if self.random.chance(70) && segments.len() > 1 {
            let expected = segments.iter().map(arrived).collect();
            return (vec![(packet.vnet(segment_len), packet.unfinished())], expected);
        }
        if self.random.chance(20) && segments.len() > 2 {
            let at = self.random.below(segments.len() - 1);
            segments.swap(at, at + 1);
        }
        one_by_one(&segments)
    }

    /// What never comes in one piece.
    fn alone(&mut self, which: usize, kind: u8) -> Step {
        let flow = &mut self.flows[which];
        flow.payload.clear();
        let mut packet = flow.clone();
        match kind % 5 {
            0 => {
                packet.flags = 0x02;
                packet.options = vec![2, 4, 2, 24, 4, 2, 1, 1];
            }
            1 => packet.flags = 0x14,
            2 => {
                packet.flags = 0x30;
                packet.urgent = 3;
                packet.payload = vec![kind; 7];
            }
            3 => packet.flags = 0x11,
            _ => {}
        }
        one_by_one(&[packet])
    }

    fn ping(&mut self) -> Step {
        let v6 = self.random.chance(50);
        let len = self.random.below(1300);
        let flow = &self.flows[usize::from(v6)];
        let mut echo = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0x12, 0x34, 0, 1];
        echo.extend((0..len).map(|at| at.to_le_bytes()[0]));
        let payload_len = u16::try_from(echo.len()).expect("short");
        let ident = self.random.next_u64().to_le_bytes();
        let packet = |ttl| {
            let mut echo = echo.clone();
            let header = match flow.addresses {
                [IpAddr::V4(src_addr), IpAddr::V4(dst_addr)] => Ipv4Repr {
                    src_addr,
                    dst_addr,
                    protocol: NextHeader::ICMP,
                    tos: 0,
                    ident: u16::from_le_bytes([ident[0], ident[1]]),
                    dont_fragment: false,
                    ttl,
                    payload_len,
                }
                .emit()
                .to_vec(),
                [IpAddr::V6(src_addr), IpAddr::V6(dst_addr)] => Ipv6Repr {
                    src_addr,
                    dst_addr,
                    next_header: NextHeader::ICMPV6,
                    traffic_class: 0,
                    flow_label: 5,
                    hop_limit: ttl,
                    payload_len,
                }
                .emit()
                .to_vec(),
                _ => panic!("one version"),
            };
            // The checksum is the far host's to look at, and there is none.
            echo[2..4].copy_from_slice(&ident[2..4]);
            let mut packet = [header, echo].concat();
            if !v6 {
                Ipv4Packet::new_checked(&mut packet[..]).expect("a packet").fill_checksum();
            }
            packet
        };
        (vec![(VnetHeader::default(), packet(64))], vec![packet(64 - HOPS)])
    }
}

/// Packets of which nothing may be joined, or what is joined ends with them.
impl Host {
    fn odd(&mut self) -> Step {
        let which = self.random.below(self.flows.len());
        let byte = self.random.next_u64().to_le_bytes();
        let flow = &mut self.flows[which];
        flow.payload = (0..usize::from(byte[0]) * 4 + 8).map(|at| at.to_le_bytes()[0]).collect();
        flow.flags = 0x10;
        let packet = flow.clone();
        let (len, ipv6, tcp) = (packet.payload.len(), packet.addresses[0].is_ipv6(), packet.tcp);
        let sent = u32::try_from(len).expect("short");
        flow.sequence = flow.sequence.wrapping_add(sent);
        flow.ident = flow.ident.wrapping_add(1);
        let whole = packet.packet();
        let transport = if ipv6 { 40 } else { 20 };
        let checksum = transport + if tcp { 16 } else { 6 };
        match self.random.below(12) {
            // Options of IPv4, up to the most; of IPv6 options for the far end, or for each hop.
            0 => raw(&[with_options(&whole, byte[1])]),
            // RFC 1858 §3: a fragment of TCP that begins at 8 is dropped, and is to be.
            1 => {
                let least = if tcp { 16 } else { 8 };
                raw(&fragments(&whole, least + usize::from(byte[1] & 0x38), byte[2]))
            }
            // A checksum that is wrong is not made right.
            2 => raw(&[changed(&whole, checksum, byte[1] | 1)]),
            3 => raw(&[changed(&whole, whole.len() - 1, byte[1] | 1)]),
            // RFC 768: none. Over IPv6 that is an error which is not ours to mend.
            4 if !tcp => raw(&[with_checksum(&whole, checksum, [0, 0])]),
            // RFC 768: a sum of zero is sent as ones, and ones elsewhere are as good as zero.
            4 | 5 => raw(&zero_sum(packet, checksum)),
            // RFC 9868: what follows the datagram.
            6 if !tcp => raw(&[with_surplus(&whole)]),
            6 => self.reserved(&whole, byte[1]),
            7 => raw(&[other_protocol(&whole, byte[1])]),
            // Sent again: the same, and more than the same.
            8 => {
                let overlap = HostPacket {
                    sequence: packet.sequence.wrapping_add(sent / 2),
                    ident: packet.ident.wrapping_add(7),
                    ..packet.clone()
                };
                one_by_one(&[packet.clone(), packet, overlap])
            }
            9 => one_by_one(&[HostPacket { flags: byte[1], urgent: byte[2].into(), ..packet }]),
            10 => self.disturbed(which, byte),
            _ => self.tiny(which, byte[1]),
        }
    }

    /// A run in which one differs in one thing.
    fn disturbed(&mut self, which: usize, byte: [u8; 8]) -> Step {
        let flow = &mut self.flows[which];
        flow.payload = vec![byte[0]; 1100];
        let mut segments = flow.segments(100);
        flow.sequence = flow.sequence.wrapping_add(1100);
        flow.ident = flow.ident.wrapping_add(11);
        let one = &mut segments[usize::from(byte[1] % 11)];
        match byte[2] % 12 {
            0 => one.traffic_class ^= 3,
            1 => one.traffic_class ^= 0x20,
            2 => one.ttl -= 1,
            3 => one.ident ^= 0x100,
            4 => one.dont_fragment = !one.dont_fragment,
            5 => one.flow_label ^= 1,
            6 => one.window ^= 1,
            7 => one.flags ^= 1 << (byte[3] % 8),
            8 => one.acknowledgment ^= 1,
            9 => one.sequence ^= 1 << (byte[3] % 32),
            10 => one.urgent ^= 1,
            // SACK and its padding: a header that is longer.
            _ => one.options.extend(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
        }
        one.options.truncate(40);
        one_by_one(&segments)
    }

    /// A byte at a time.
    fn tiny(&mut self, which: usize, count: u8) -> Step {
        let flow = &mut self.flows[which];
        let count = usize::from(count % 60) + 2;
        flow.payload = vec![7; count];
        let packet = flow.clone();
        let segments = packet.segments(1);
        flow.sequence = flow.sequence.wrapping_add(u32::try_from(count).expect("few"));
        flow.ident = flow.ident.wrapping_add(u16::try_from(count).expect("few"));
        if self.random.chance(50) {
            let expected = segments.iter().map(arrived).collect();
            return (vec![(packet.vnet(1), packet.unfinished())], expected);
        }
        one_by_one(&segments)
    }

    /// Bits of the TCP header that are reserved, or of an ECN that counts (RFC 9768), on each of a pair that follow each other.
    fn reserved(&self, whole: &[u8], bits: u8) -> Step {
        let at = if whole[0] >> 4 == 6 { 52 } else { 32 };
        raw(&[changed(whole, at, bits & 15 | 1)])
    }
}

fn changed(packet: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at] ^= bits;
    packet
}

fn with_checksum(packet: &[u8], at: usize, checksum: [u8; 2]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + 2].copy_from_slice(&checksum);
    packet
}

/// A packet whose checksum is zero, and the same with ones in its place.
fn zero_sum(mut packet: HostPacket, checksum: usize) -> Vec<Vec<u8>> {
    packet.payload[..2].fill(0);
    let sum = packet.packet()[checksum..checksum + 2].to_vec();
    packet.payload[..2].copy_from_slice(&sum);
    let whole = packet.packet();
    vec![with_checksum(&whole, checksum, [0xff, 0xff]), whole]
}

/// Without the sum over the header, which is made when it is sent.
fn set_len(packet: &mut [u8]) {
    let len = u16::try_from(packet.len()).expect("short");
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
    } else {
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

fn with_options(packet: &[u8], kind: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        let next = packet[6];
        packet[6] = if kind & 1 == 0 { 60 } else { 0 };
        // PadN over all of it.
        packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
    } else {
        let words = kind % 10 + 1;
        packet[0] += words;
        packet.splice(20..20, vec![1; usize::from(words) * 4]);
    }
    set_len(&mut packet);
    packet
}

/// Cut at `at` bytes behind the IP header, a multiple of eight.
fn fragments(packet: &[u8], at: usize, ident: u8) -> Vec<Vec<u8>> {
    let ipv6 = packet[0] >> 4 == 6;
    let header_len = if ipv6 { 40 } else { 20 };
    let (header, data) = packet.split_at(header_len);
    let cut = at.min((data.len() - 1) / 8 * 8);
    let parts = [(0, &data[..cut]), (cut, &data[cut..])];
    let piece = |(start, part): (usize, &[u8])| {
        let more = u16::from(start == 0 && cut > 0);
        let offset = u16::try_from(start).expect("short");
        let mut piece = header.to_vec();
        if ipv6 {
            let [high, low] = (offset | more).to_be_bytes();
            piece.extend([header[6], 0, high, low, 0, 0, 0, ident]);
            piece[6] = 44;
        } else {
            piece[6..8].copy_from_slice(&((offset / 8) | (more << 13)).to_be_bytes());
        }
        piece.extend(part);
        set_len(&mut piece);
        piece
    };
    parts.into_iter().filter(|(_, part)| !part.is_empty()).map(piece).collect()
}

/// A datagram that ends before the packet does.
fn with_surplus(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.extend([1, 2, 3, 4]);
    set_len(&mut packet);
    packet
}

/// GRE, SCTP, UDP-Lite, one for experiments, and one that nobody has.
fn other_protocol(packet: &[u8], which: u8) -> Vec<u8> {
    let protocol = [47, 132, 136, 253, 200][usize::from(which) % 5];
    let mut packet = packet.to_vec();
    let at = if packet[0] >> 4 == 6 { 6 } else { 9 };
    packet[at] = protocol;
    packet
}

/// Sent as they are but for the sum over the header of IPv4, and their like at the other end.
fn raw(packets: &[Vec<u8>]) -> Step {
    let summed = |packet: &[u8], hops: u8| {
        let mut packet = packet.to_vec();
        let at = if packet[0] >> 4 == 6 { 7 } else { 8 };
        packet[at] -= hops;
        if packet[0] >> 4 == 4 {
            Ipv4Packet::new_checked(&mut packet[..]).expect("a packet").fill_checksum();
        }
        packet
    };
    let sent = packets.iter().map(|packet| (VnetHeader::default(), summed(packet, 0)));
    (sent.collect(), packets.iter().map(|packet| summed(packet, HOPS)).collect())
}

fn one_by_one(packets: &[HostPacket]) -> Step {
    let sent = packets.iter().map(|packet| (VnetHeader::default(), packet.packet()));
    (sent.collect(), packets.iter().map(arrived).collect())
}

/// The same packet at the other end.
fn arrived(packet: &HostPacket) -> Vec<u8> {
    HostPacket { ttl: packet.ttl - HOPS, ..packet.clone() }.packet()
}
