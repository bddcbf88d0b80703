//! [`Coalescer`]: packets of a batch that follow each other in one flow, joined into one that the host takes in one piece,
//! as the kernel's GRO does it.
//!
//! The rule is stricter than the kernel's: what is joined is what cutting it again makes, to the last bit of every header
//! ([`Segments`](super::segment::Segments)). So ECN, options, window, TTL, flow label and every flag but PSH and FIN are the
//! same in all, and IPv4 identifications are consecutive. A checksum that is wrong is passed on alone, as wrong as it is.
//!
//! Nothing waits: what a batch has not joined goes as it came.

use crate::wire::checksum;
use crate::wire::ip::{IpPacket, NextHeader};
use crate::wire::tcp::TcpPacket;
use crate::wire::udp::UdpPacket;
use crate::wire::vnet::{Gso, Offloads, PartialChecksum, VnetHeader};

/// Joins the packets of a batch. Keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// For each packet the next one of its group.
    next: Vec<Option<usize>>,
    /// Groups that may still grow, the latest last: one a flow.
    open: Vec<usize>,
}

/// Flows of a batch that are looked at for a packet. More than this many at a time are seldom worth the search.
const MAX_OPEN: usize = 16;
/// Linux takes no more UDP segments in one (`UDP_MAX_SEGMENTS` of older versions).
const MAX_DATAGRAMS: usize = 64;
/// Longest packet joined: the longest of IPv4, of which that is what its header can say.
const MAX_LEN: usize = 65_535;

/// Packets that are joined, or one alone.
#[derive(Clone, Debug)]
struct Group {
    first: usize,
    last: usize,
    shape: Option<Shape>,
    /// Bytes of payload in all of them.
    payload_len: usize,
    count: usize,
    /// PSH and FIN of the last.
    last_flags: u8,
    /// Whether the checksums of the first have been looked at.
    verified: bool,
    /// Headers of the whole, if there is more than one.
    header: [u8; MAX_HEADER],
}

/// IPv6 and TCP with the most options.
const MAX_HEADER: usize = 40 + 60;

/// Where in a TCP or UDP packet what is.
#[derive(Clone, Copy, Debug)]
struct Shape {
    is_ipv6: bool,
    is_tcp: bool,
    transport: usize,
    header_len: usize,
    payload_len: usize,
    /// Whether others of its flow may join it.
    joins: bool,
}

mod field {
    use core::ops::Range;

    /// Version, header length, TOS.
    pub(super) const IPV4_START: Range<usize> = 0..2;
    pub(super) const IPV4_TOTAL_LEN: Range<usize> = 2..4;
    pub(super) const IPV4_IDENT: Range<usize> = 4..6;
    pub(super) const IPV4_FRAGMENT: Range<usize> = 6..8;
    /// DF, fragment offset, TTL, protocol.
    pub(super) const IPV4_MIDDLE: Range<usize> = 6..10;
    pub(super) const IPV4_PROTOCOL: usize = 9;
    pub(super) const IPV4_CHECKSUM: Range<usize> = 10..12;
    pub(super) const IPV4_ADDRESSES: Range<usize> = 12..20;
    /// Version, traffic class, flow label.
    pub(super) const IPV6_START: Range<usize> = 0..4;
    pub(super) const IPV6_PAYLOAD_LEN: Range<usize> = 4..6;
    pub(super) const IPV6_NEXT_HEADER: usize = 6;
    pub(super) const IPV6_HOP_LIMIT: usize = 7;
    pub(super) const IPV6_ADDRESSES: Range<usize> = 8..40;
    pub(super) const PORTS: Range<usize> = 0..4;
    pub(super) const TCP_SEQUENCE: Range<usize> = 4..8;
    pub(super) const TCP_ACKNOWLEDGMENT: Range<usize> = 8..12;
    pub(super) const TCP_DATA_OFFSET: usize = 12;
    pub(super) const TCP_FLAGS: usize = 13;
    pub(super) const TCP_WINDOW: Range<usize> = 14..16;
    pub(super) const TCP_CHECKSUM: Range<usize> = 16..18;
    /// Urgent pointer and options.
    pub(super) const TCP_END: usize = 18;
    pub(super) const UDP_LENGTH: Range<usize> = 4..6;
    pub(super) const UDP_CHECKSUM: Range<usize> = 6..8;
}

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// What is to be written in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// What the TUN has to be told of it.
    pub vnet: VnetHeader,
    /// The headers of the whole. Empty for a packet alone, which has its own.
    pub header: &'a [u8],
    coalescer: &'a Coalescer,
    first: usize,
    header_len: usize,
}

impl Joined<'_> {
    /// Whether there is more than one packet in it.
    #[must_use]
    pub const fn is_joined(&self) -> bool {
        !self.header.is_empty()
    }

    /// The first of the packets in it.
    #[must_use]
    pub const fn first(&self) -> usize {
        self.first
    }

    /// What follows the header: which packet, and how many of its bytes are left out.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let next = |&at: &usize| self.coalescer.next[at];
        core::iter::successors(Some(self.first), next).map(|at| (at, self.header_len))
    }
}

impl Coalescer {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Arranges the packets of a batch, in their order, for a TUN that takes this; what was arranged before is forgotten.
    pub fn arrange<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>, takes: Offloads)
    where
        Self: 'a,
    {
        let packets: smallvec::SmallVec<[&[u8]; 64]> = packets.into_iter().collect();
        self.groups.clear();
        self.next.clear();
        self.next.resize(packets.len(), None);
        self.open.clear();
        for at in 0..packets.len() {
            self.add(at, &packets, takes);
        }
        for at in 0..self.groups.len() {
            let group = &mut self.groups[at];
            if group.count > 1 {
                group.write_header(packets[group.first]);
            }
        }
    }

    /// What there is to write, in the order in which each began.
    pub fn joined(&self) -> impl Iterator<Item = Joined<'_>> {
        self.groups.iter().map(move |group| {
            let (vnet, header): (_, &[u8]) = match &group.shape {
                Some(shape) if group.count > 1 => (shape.vnet(), &group.header[..shape.header_len]),
                _ => (VnetHeader::default(), &[]),
            };
            Joined { vnet, header, coalescer: self, first: group.first, header_len: header.len() }
        })
    }

    fn add(&mut self, at: usize, packets: &[&[u8]], takes: Offloads) {
        let packet = packets[at];
        let shape =
            Shape::of(packet).filter(|shape| if shape.is_tcp { takes.tcp } else { takes.udp });
        let mut may_grow = false;
        if let Some(shape) = &shape {
            let found = self.open.iter().rposition(|&group| {
                let group = &self.groups[group];
                let same = |other: &Shape| shape.is_same_flow(packet, other, packets[group.first]);
                group.shape.as_ref().is_some_and(same)
            });
            if let Some(place) = found {
                let number = self.open[place];
                let group = &mut self.groups[number];
                if group.takes(packets[group.first], shape, packet) {
                    self.next[group.last] = Some(at);
                    if !group.grow(at, shape, packet) {
                        self.open.remove(place);
                    }
                    return;
                }
                // What comes later must not overtake this one.
                self.open.remove(place);
            }
            may_grow = shape.joins && shape.flags(packet) & (PSH | FIN) == 0;
        } else if !self.open.is_empty()
            && let Some(addresses) = hidden(packet)
        {
            // Of whatever flow between these hosts it is.
            self.open.retain(|&group| {
                let first = packets[self.groups[group].first];
                first[0] >> 4 != packet[0] >> 4
                    || first[addresses.clone()] != packet[addresses.clone()]
            });
        }
        if may_grow {
            if self.open.len() == MAX_OPEN {
                self.open.remove(0);
            }
            self.open.push(self.groups.len());
        }
        self.groups.push(Group {
            first: at,
            last: at,
            shape,
            payload_len: shape.map_or(0, |shape| shape.payload_len),
            count: 1,
            last_flags: 0,
            verified: false,
            header: [0; MAX_HEADER],
        });
    }
}

impl Group {
    /// Whether `packet`, of the same flow, is what follows.
    fn takes(&mut self, first: &[u8], shape: &Shape, packet: &[u8]) -> bool {
        let Some(mine) = self.shape else { return false };
        let fits = shape.payload_len <= mine.payload_len
            && mine.header_len + self.payload_len + shape.payload_len <= MAX_LEN
            && (mine.is_tcp || self.count < MAX_DATAGRAMS);
        if !shape.joins || !fits || !mine.is_alike(first, shape, packet) {
            return false;
        }
        let ident = |packet: &[u8]| u16_at(packet, field::IPV4_IDENT);
        // A group has at most as many packets as bytes.
        let nth = u16::try_from(self.count).unwrap_or(u16::MAX);
        if !mine.is_ipv6 && ident(packet) != ident(first).wrapping_add(nth) {
            return false;
        }
        if mine.is_tcp {
            let sequence = |packet: &[u8]| u32_at(&packet[mine.transport..], field::TCP_SEQUENCE);
            let sent = u32::try_from(self.payload_len).unwrap_or(u32::MAX);
            if sequence(packet) != sequence(first).wrapping_add(sent) {
                return false;
            }
        }
        self.verified = self.verified || mine.is_genuine(first);
        self.verified && shape.is_genuine(packet)
    }

    /// Takes it in. Tells whether others may follow.
    fn grow(&mut self, at: usize, shape: &Shape, packet: &[u8]) -> bool {
        self.last = at;
        self.count += 1;
        self.payload_len += shape.payload_len;
        self.last_flags = shape.flags(packet) & (PSH | FIN);
        let full = self.shape.is_some_and(|mine| mine.payload_len == shape.payload_len);
        full && self.last_flags == 0
    }

    fn write_header(&mut self, first: &[u8]) {
        let Some(shape) = self.shape else { return };
        let header = &mut self.header[..shape.header_len];
        header.copy_from_slice(&first[..shape.header_len]);
        let (ip, transport) = header.split_at_mut(shape.transport);
        let transport_len = transport.len() + self.payload_len;
        // `takes` has seen to it that it fits.
        let length = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        if shape.is_ipv6 {
            ip[field::IPV6_PAYLOAD_LEN].copy_from_slice(&length(transport_len).to_be_bytes());
        } else {
            let total_len = length(IPV4_HEADER + transport_len);
            ip[field::IPV4_TOTAL_LEN].copy_from_slice(&total_len.to_be_bytes());
            ip[field::IPV4_CHECKSUM].fill(0);
            let sum = checksum::finish(checksum::data(ip));
            ip[field::IPV4_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        }
        // What the host makes of it needs the sum of the pseudo-header alone.
        let pseudo = pseudo_sum(first, &shape, length(transport_len));
        if shape.is_tcp {
            transport[field::TCP_FLAGS] |= self.last_flags;
            transport[field::TCP_CHECKSUM].copy_from_slice(&pseudo.to_be_bytes());
        } else {
            transport[field::UDP_LENGTH].copy_from_slice(&length(transport_len).to_be_bytes());
            transport[field::UDP_CHECKSUM].copy_from_slice(&pseudo.to_be_bytes());
        }
    }
}

impl Shape {
    /// `None` if it is neither TCP nor UDP, or something stands between IP header and it.
    fn of(packet: &[u8]) -> Option<Self> {
        let first = packet.first()?;
        let is_ipv6 = first >> 4 == 6;
        let (transport, protocol) = if is_ipv6 {
            let payload_len = u16_at(packet.get(..IPV6_HEADER)?, field::IPV6_PAYLOAD_LEN);
            if IPV6_HEADER + usize::from(payload_len) != packet.len() {
                return None;
            }
            (IPV6_HEADER, packet[field::IPV6_NEXT_HEADER])
        } else {
            let header = packet.get(..IPV4_HEADER)?;
            let total_len = usize::from(u16_at(header, field::IPV4_TOTAL_LEN));
            let is_fragment = u16_at(header, field::IPV4_FRAGMENT) & 0x3fff != 0;
            if first >> 4 != 4 || total_len != packet.len() || is_fragment {
                return None;
            }
            (usize::from(first & 15) * 4, packet[field::IPV4_PROTOCOL])
        };
        let data = packet.get(transport..)?;
        let no_options = is_ipv6 || transport == IPV4_HEADER;
        match NextHeader(protocol) {
            NextHeader::TCP => {
                let offset = data.get(..20)?[field::TCP_DATA_OFFSET];
                let header_len = usize::from(offset >> 4) * 4;
                let payload_len = data.len().checked_sub(header_len.max(20))?;
                // RFC 3168 §6.1.2: CWR is of one segment, and which one would not be told. The rest of that byte is
                // reserved, or of an ECN that counts.
                let flags = data[field::TCP_FLAGS];
                let plain = flags & ACK != 0 && flags & !(ACK | PSH | FIN | ECE) == 0;
                let joins =
                    no_options && plain && offset & 15 == 0 && header_len >= 20 && payload_len > 0;
                let header_len = transport + header_len;
                Some(Self { is_ipv6, is_tcp: true, transport, header_len, payload_len, joins })
            }
            NextHeader::UDP => {
                let header = data.get(..8)?;
                let payload_len = data.len() - 8;
                let joins = no_options
                    && usize::from(u16_at(header, field::UDP_LENGTH)) == data.len()
                    && u16_at(header, field::UDP_CHECKSUM) != 0
                    && payload_len > 0;
                let header_len = transport + 8;
                Some(Self { is_ipv6, is_tcp: false, transport, header_len, payload_len, joins })
            }
            _ => None,
        }
    }

    fn is_same_flow(&self, packet: &[u8], other: &Self, of: &[u8]) -> bool {
        let addresses = if self.is_ipv6 { field::IPV6_ADDRESSES } else { field::IPV4_ADDRESSES };
        self.is_ipv6 == other.is_ipv6
            && self.is_tcp == other.is_tcp
            && packet[self.transport..][field::PORTS] == of[other.transport..][field::PORTS]
            && packet[addresses.clone()] == of[addresses]
    }

    /// Whether a packet of the same flow, which may be joined as well, differs in nothing but in what it may.
    fn is_alike(&self, mine: &[u8], other: &Self, packet: &[u8]) -> bool {
        let same = |range: core::ops::Range<usize>| mine[range.clone()] == packet[range];
        let ip = if self.is_ipv6 {
            same(field::IPV6_START) && mine[field::IPV6_HOP_LIMIT] == packet[field::IPV6_HOP_LIMIT]
        } else {
            same(field::IPV4_START) && same(field::IPV4_MIDDLE)
        };
        if !ip || self.header_len != other.header_len {
            return false;
        }
        if !self.is_tcp {
            return true;
        }
        let (mine, packet) =
            (&mine[self.transport..self.header_len], &packet[self.transport..self.header_len]);
        mine[field::TCP_ACKNOWLEDGMENT] == packet[field::TCP_ACKNOWLEDGMENT]
            && (mine[field::TCP_FLAGS] ^ packet[field::TCP_FLAGS]) & !(PSH | FIN) == 0
            && mine[field::TCP_WINDOW] == packet[field::TCP_WINDOW]
            && mine[field::TCP_END..] == packet[field::TCP_END..]
    }

    /// Whether its checksums are right, and those that are made anew.
    fn is_genuine(&self, packet: &[u8]) -> bool {
        // As right is 0xffff where 0 is made, which is everywhere but in UDP; that it stood there would be lost.
        let is_other = |data: &[u8], field| u16_at(data, field) == u16::MAX;
        if !self.is_ipv6 && is_other(packet, field::IPV4_CHECKSUM)
            || self.is_tcp && is_other(&packet[self.transport..], field::TCP_CHECKSUM)
        {
            return false;
        }
        let (ip_is_right, src, dst) = match IpPacket::new_checked(packet) {
            Ok(IpPacket::V4(ip)) => {
                (ip.verify_checksum(), ip.src_addr().into(), ip.dst_addr().into())
            }
            Ok(IpPacket::V6(ip)) => (true, ip.src_addr().into(), ip.dst_addr().into()),
            Err(_) => return false,
        };
        let data = &packet[self.transport..];
        ip_is_right
            && if self.is_tcp {
                TcpPacket::new_checked(data).is_ok_and(|tcp| tcp.verify_checksum(src, dst))
            } else {
                UdpPacket::new_checked(data).is_ok_and(|udp| udp.verify_checksum(src, dst))
            }
    }

    /// TCP's; UDP has none.
    fn flags(&self, packet: &[u8]) -> u8 {
        if self.is_tcp { packet[self.transport + field::TCP_FLAGS] } else { 0 }
    }

    /// Of several packets like it.
    fn vnet(&self) -> VnetHeader {
        // All of these are lengths within a packet.
        let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        let (gso, checksum) = match (self.is_tcp, self.is_ipv6) {
            (true, false) => (Gso::TcpV4, field::TCP_CHECKSUM),
            (true, true) => (Gso::TcpV6, field::TCP_CHECKSUM),
            (false, _) => (Gso::Udp, field::UDP_CHECKSUM),
        };
        let (start, offset) = (short(self.transport), short(checksum.start));
        VnetHeader {
            checksum: Some(PartialChecksum { start, offset }),
            gso,
            ecn: false,
            header_len: short(self.header_len),
            segment_len: short(self.payload_len),
        }
    }
}

/// Where the addresses are of a packet that may be of a flow of TCP or UDP, which it does not say where others do: of a fragment, and
/// of IPv6 with extension headers.
fn hidden(packet: &[u8]) -> Option<core::ops::Range<usize>> {
    match packet.first()? >> 4 {
        4 => {
            let is_fragment =
                u16_at(packet.get(..IPV4_HEADER)?, field::IPV4_FRAGMENT) & 0x3fff != 0;
            is_fragment.then_some(field::IPV4_ADDRESSES)
        }
        6 => {
            let next_header = NextHeader(packet.get(..IPV6_HEADER)?[field::IPV6_NEXT_HEADER]);
            let may_hide = matches!(
                next_header,
                NextHeader::HOP_BY_HOP
                    | NextHeader::ROUTING
                    | NextHeader::FRAGMENT
                    | NextHeader::DESTINATION_OPTIONS
            );
            may_hide.then_some(field::IPV6_ADDRESSES)
        }
        _ => None,
    }
}

/// The sum of the pseudo-header of `packet`, if it were so long.
fn pseudo_sum(packet: &[u8], shape: &Shape, transport_len: u16) -> u16 {
    let protocol = if shape.is_tcp { NextHeader::TCP } else { NextHeader::UDP };
    match IpPacket::new_checked(packet) {
        Ok(IpPacket::V4(ip)) => {
            checksum::pseudo_v4(ip.src_addr(), ip.dst_addr(), protocol, transport_len)
        }
        Ok(IpPacket::V6(ip)) => {
            checksum::pseudo_v6(ip.src_addr(), ip.dst_addr(), protocol, transport_len.into())
        }
        Err(_) => 0,
    }
}

fn u16_at(data: &[u8], field: core::ops::Range<usize>) -> u16 {
    data[field].first_chunk().map_or(0, |&bytes| u16::from_be_bytes(bytes))
}

fn u32_at(data: &[u8], field: core::ops::Range<usize>) -> u32 {
    data[field].first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}
