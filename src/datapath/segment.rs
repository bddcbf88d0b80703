//! [`Segments`]: a packet that is longer than the link takes, cut into those that the host would have sent one by one, as a
//! network card with TSO or USO does it; and [`complete`], the checksum that the host left to the card.
//!
//! All of a segment but its length, sequence number, identification and flags is that of the others, so of the checksums
//! only the payload's share is summed for each.

use crate::wire::checksum;
use crate::wire::ip::{IpPacket, NextHeader};
use crate::wire::tcp::TcpPacket;
use crate::wire::udp::UdpPacket;
use crate::wire::vnet::{Gso, PartialChecksum, VnetHeader};

/// The segments of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// IP and TCP or UDP header.
    header: &'a [u8],
    payload: &'a [u8],
    /// Where the TCP or UDP header begins.
    transport: usize,
    /// Bytes of payload in each but the last.
    segment_len: usize,
    is_ipv6: bool,
    is_tcp: bool,
    /// Whether there is a checksum: over IPv4 UDP may do without.
    summed: bool,
    /// Sum of the IPv4 header without what differs.
    ip_sum: u16,
    /// Sum of pseudo-header and TCP or UDP header without what differs.
    transport_sum: u16,
}

mod field {
    use core::ops::Range;

    pub(super) const IPV4_TOTAL_LEN: Range<usize> = 2..4;
    pub(super) const IPV4_IDENT: Range<usize> = 4..6;
    pub(super) const IPV4_CHECKSUM: Range<usize> = 10..12;
    pub(super) const IPV6_PAYLOAD_LEN: Range<usize> = 4..6;
    pub(super) const TCP_SEQUENCE: Range<usize> = 4..8;
    /// Data offset and flags.
    pub(super) const TCP_FLAGS: Range<usize> = 12..14;
    pub(super) const TCP_CHECKSUM: Range<usize> = 16..18;
    pub(super) const UDP_LENGTH: Range<usize> = 4..6;
    pub(super) const UDP_CHECKSUM: Range<usize> = 6..8;
}

/// RFC 9293 §3.1, RFC 3168 §6.1.
const FIN: u16 = 0x01;
const SYN: u16 = 0x02;
const PSH: u16 = 0x08;
const CWR: u16 = 0x80;

const IPV6_HEADER: usize = 40;

impl<'a> Segments<'a> {
    /// `None` if the packet is not what its virtio header says, or it says nothing of segments.
    #[must_use]
    pub fn new(packet: &'a [u8], vnet: &VnetHeader) -> Option<Self> {
        let ip = IpPacket::new_checked(packet).ok()?;
        let packet = packet.get(..ip.total_len())?;
        let upper = ip.upper_layer().ok()?;
        let is_ipv6 = matches!(ip, IpPacket::V6(_));
        let is_tcp = upper.protocol == NextHeader::TCP;
        let meant = match vnet.gso {
            Gso::None => false,
            Gso::TcpV4 => is_tcp && !is_ipv6,
            Gso::TcpV6 => is_tcp && is_ipv6,
            Gso::Udp => upper.protocol == NextHeader::UDP,
        };
        if !meant || upper.fragment.is_some() || vnet.segment_len == 0 {
            return None;
        }
        let transport = upper.offset;
        let data = packet.get(transport..)?;
        let transport_len = if is_tcp {
            TcpPacket::new_checked(data).ok()?.header_len()
        } else {
            UdpPacket::<&[u8]>::HEADER_LEN
        };
        let (header, payload) = packet.split_at_checked(transport + transport_len)?;
        let (ip_header, transport_header) = header.split_at(transport);
        let udp_checksum = transport_header.get(field::UDP_CHECKSUM)?;
        let summed = is_tcp || vnet.checksum.is_some() || udp_checksum != [0, 0];
        let ip_sum = if is_ipv6 {
            0
        } else {
            without(ip_header, &[field::IPV4_TOTAL_LEN, field::IPV4_IDENT, field::IPV4_CHECKSUM])
        };
        let transport_sum = {
            let differs: &[_] = if is_tcp {
                &[field::TCP_SEQUENCE, field::TCP_FLAGS, field::TCP_CHECKSUM]
            } else {
                &[field::UDP_LENGTH, field::UDP_CHECKSUM]
            };
            let pseudo = match &ip {
                IpPacket::V4(ip) => {
                    checksum::pseudo_v4(ip.src_addr(), ip.dst_addr(), upper.protocol, 0)
                }
                IpPacket::V6(ip) => {
                    checksum::pseudo_v6(ip.src_addr(), ip.dst_addr(), upper.protocol, 0)
                }
            };
            checksum::combine(&[pseudo, without(transport_header, differs)])
        };
        let segment_len = vnet.segment_len.into();
        Some(Self {
            header,
            payload,
            transport,
            segment_len,
            is_ipv6,
            is_tcp,
            summed,
            ip_sum,
            transport_sum,
        })
    }

    /// How many there are, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.payload.len().div_ceil(self.segment_len).max(1)
    }

    /// Length in bytes of the IP packet that is segment `index`; all but the last are as long as the first.
    #[must_use]
    pub fn len_of(&self, index: usize) -> usize {
        self.header.len() + self.payload_of(index).len()
    }

    /// Length in bytes of all of them.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.len() * self.header.len() + self.payload.len()
    }

    /// Whether it opens a connection.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.is_tcp && u16_at(&self.header[self.transport..], field::TCP_FLAGS) & SYN != 0
    }

    /// Writes segment `index` into `out`, which is [`len_of`](Self::len_of) it long.
    ///
    /// # Panics
    /// If `out` has another length, or there is no such segment.
    pub fn write(&self, index: usize, out: &mut [u8]) {
        let payload = self.payload_of(index);
        let (header, data) = out.split_at_mut(self.header.len());
        header.copy_from_slice(self.header);
        data.copy_from_slice(payload);
        let (ip, transport) = header.split_at_mut(self.transport);
        // No packet is longer than 65535 bytes, from which `new` made it.
        let length = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        let transport_len = length(transport.len() + payload.len());
        if self.is_ipv6 {
            let payload_len = length(ip.len() - IPV6_HEADER + usize::from(transport_len));
            ip[field::IPV6_PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
        } else {
            let total_len = length(ip.len() + usize::from(transport_len));
            // RFC 791 §3.2, RFC 6864 §4: as if they had been sent one after the other.
            let ident = u16_at(self.header, field::IPV4_IDENT).wrapping_add(length(index));
            let sum = checksum::combine(&[self.ip_sum, total_len, ident]);
            ip[field::IPV4_TOTAL_LEN].copy_from_slice(&total_len.to_be_bytes());
            ip[field::IPV4_IDENT].copy_from_slice(&ident.to_be_bytes());
            ip[field::IPV4_CHECKSUM].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        }
        let payload_sum = checksum::data(payload);
        if self.is_tcp {
            let offset = u32::try_from(index * self.segment_len).unwrap_or(u32::MAX);
            let sequence = u32_at(transport, field::TCP_SEQUENCE).wrapping_add(offset);
            let mut flags = u16_at(transport, field::TCP_FLAGS);
            if index > 0 {
                // RFC 3168 §6.1.2: once for a reduction of the window.
                flags &= !CWR;
            }
            if index + 1 < self.len() {
                flags &= !(FIN | PSH);
            }
            let [s0, s1, s2, s3] = sequence.to_be_bytes();
            let sum = checksum::combine(&[
                self.transport_sum,
                transport_len,
                u16::from_be_bytes([s0, s1]),
                u16::from_be_bytes([s2, s3]),
                flags,
                payload_sum,
            ]);
            transport[field::TCP_SEQUENCE].copy_from_slice(&[s0, s1, s2, s3]);
            transport[field::TCP_FLAGS].copy_from_slice(&flags.to_be_bytes());
            transport[field::TCP_CHECKSUM].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        } else {
            // The length counts twice: in the pseudo-header and in the header (RFC 768).
            let sum =
                checksum::combine(&[self.transport_sum, transport_len, transport_len, payload_sum]);
            let sum = if self.summed { udp_checksum(sum) } else { 0 };
            transport[field::UDP_LENGTH].copy_from_slice(&transport_len.to_be_bytes());
            transport[field::UDP_CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        }
    }

    fn payload_of(&self, index: usize) -> &'a [u8] {
        let start = (index * self.segment_len).min(self.payload.len());
        let end = (start + self.segment_len).min(self.payload.len());
        &self.payload[start..end]
    }
}

/// Makes the checksum that was left to the card. `false`, and the packet is as it was, if its place is not in the packet.
#[must_use]
pub fn complete(packet: &mut [u8], partial: PartialChecksum) -> bool {
    let (start, offset) = (usize::from(partial.start), usize::from(partial.offset));
    let Some(covered) = packet.get_mut(start..) else { return false };
    if covered.get(offset..offset + 2).is_none() {
        return false;
    }
    // The field holds the sum of the pseudo-header, and so adds it. What it belongs to is told by where it stands.
    let sum = checksum::data(covered);
    let is_udp = offset == field::UDP_CHECKSUM.start;
    let sum = if is_udp { udp_checksum(sum) } else { checksum::finish(sum) };
    covered[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// RFC 768: zero is for no checksum.
const fn udp_checksum(sum: u16) -> u16 {
    match checksum::finish(sum) {
        0 => 0xffff,
        sum => sum,
    }
}

/// The sum of a header without these fields, which lie at even places.
fn without(header: &[u8], fields: &[core::ops::Range<usize>]) -> u16 {
    let mut sums = [0; 5];
    let (mut at, mut count) = (0, 0);
    for field in fields {
        sums[count] = checksum::data(&header[at..field.start]);
        (at, count) = (field.end, count + 1);
    }
    sums[count] = checksum::data(&header[at..]);
    checksum::combine(&sums)
}

fn u16_at(data: &[u8], field: core::ops::Range<usize>) -> u16 {
    data[field].first_chunk().map_or(0, |&bytes| u16::from_be_bytes(bytes))
}

fn u32_at(data: &[u8], field: core::ops::Range<usize>) -> u32 {
    data[field].first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}
