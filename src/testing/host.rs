//! [`HostPacket`]: what a host sends, built field by field, and the packets that it would send in its place one by one.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::checksum;
use crate::wire::ip::{Ipv4Packet, Ipv4Repr, Ipv6Repr, NextHeader};
use crate::wire::tcp::TcpPacket;
use crate::wire::udp::UdpPacket;
use crate::wire::vnet::{Gso, PartialChecksum, VnetHeader};

/// A TCP or UDP packet, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPacket {
    /// Source and destination, of one version.
    pub addresses: [IpAddr; 2],
    /// TCP, not UDP.
    pub tcp: bool,
    /// Source port.
    pub port: u16,
    /// TOS or Traffic Class.
    pub traffic_class: u8,
    /// TTL or Hop Limit.
    pub ttl: u8,
    /// Identification of IPv4.
    pub ident: u16,
    /// DF of IPv4.
    pub dont_fragment: bool,
    /// Flow Label of IPv6.
    pub flow_label: u32,
    /// TCP's, as all that follow.
    pub sequence: u32,
    /// Of what is received.
    pub acknowledgment: u32,
    /// CWR to FIN.
    pub flags: u8,
    /// As it is in the header.
    pub window: u16,
    /// Urgent Pointer.
    pub urgent: u16,
    /// A multiple of four bytes, at most 40.
    pub options: Vec<u8>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Default for HostPacket {
    fn default() -> Self {
        Self {
            addresses: [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)].map(IpAddr::V4),
            tcp: true,
            port: 40_000,
            traffic_class: 0,
            ttl: 64,
            ident: 7,
            dont_fragment: true,
            flow_label: 0x12345,
            sequence: u32::MAX - 3000,
            acknowledgment: 9,
            flags: 0x10,
            window: 501,
            urgent: 0,
            // Timestamps, as Linux puts them.
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: vec![7; 1000],
        }
    }
}

impl HostPacket {
    /// From 10.1.0.1 to 10.2.0.1, or from fd01::1 to fd02::1.
    #[must_use]
    pub fn new(v6: bool) -> Self {
        let host = |site: u8| match v6 {
            true => Ipv6Addr::new(0xfd00 | u16::from(site), 0, 0, 0, 0, 0, 0, 1).into(),
            false => Ipv4Addr::new(10, site, 0, 1).into(),
        };
        Self { addresses: [1, 2].map(host), ..Self::default() }
    }

    const fn is_ipv6(&self) -> bool {
        self.addresses[0].is_ipv6()
    }

    /// The packet, its checksums made one by one.
    ///
    /// # Panics
    /// If it is longer than a packet can be, or the addresses are not of one version.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let [src, dst] = self.addresses;
        let mut data = Vec::new();
        data.extend(self.port.to_be_bytes());
        data.extend(5201_u16.to_be_bytes());
        if self.tcp {
            data.extend(self.sequence.to_be_bytes());
            data.extend(self.acknowledgment.to_be_bytes());
            let words = u8::try_from(5 + self.options.len() / 4).expect("no longer than a packet");
            data.extend([words << 4, self.flags]);
            data.extend(self.window.to_be_bytes());
            data.extend([0, 0]);
            data.extend(self.urgent.to_be_bytes());
            data.extend(&self.options);
            data.extend(&self.payload);
            TcpPacket::new_checked(&mut data[..])
                .expect("no longer than a packet")
                .fill_checksum(src, dst);
        } else {
            data.extend(
                u16::try_from(8 + self.payload.len())
                    .expect("no longer than a packet")
                    .to_be_bytes(),
            );
            data.extend([0, 0]);
            data.extend(&self.payload);
            UdpPacket::new_checked(&mut data[..])
                .expect("no longer than a packet")
                .fill_checksum(src, dst);
        }
        let payload_len = u16::try_from(data.len()).expect("no longer than a packet");
        let protocol = if self.tcp { NextHeader::TCP } else { NextHeader::UDP };
        let mut packet = match (src, dst) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => Ipv4Repr {
                src_addr,
                dst_addr,
                protocol,
                tos: self.traffic_class,
                ident: self.ident,
                dont_fragment: self.dont_fragment,
                ttl: self.ttl,
                payload_len,
            }
            .emit()
            .to_vec(),
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: protocol,
                traffic_class: self.traffic_class,
                flow_label: self.flow_label,
                hop_limit: self.ttl,
                payload_len,
            }
            .emit()
            .to_vec(),
            _ => panic!("addresses of one version"),
        };
        packet.extend(data);
        if !self.is_ipv6() {
            Ipv4Packet::new_checked(&mut packet[..])
                .expect("no longer than a packet")
                .fill_checksum();
        }
        packet
    }

    /// The packets that a host makes of it, each built by itself.
    #[must_use]
    pub fn segments(&self, segment_len: usize) -> Vec<Self> {
        let count = self.payload.len().div_ceil(segment_len).max(1);
        (0..count)
            .map(|nth| {
                let start = nth * segment_len;
                let end = (start + segment_len).min(self.payload.len());
                let mut flags = self.flags;
                if nth > 0 {
                    flags &= !0x80;
                }
                if nth + 1 < count {
                    flags &= !0x09;
                }
                Self {
                    ident: self
                        .ident
                        .wrapping_add(u16::try_from(nth).expect("no longer than a packet")),
                    sequence: self
                        .sequence
                        .wrapping_add(u32::try_from(start).expect("no longer than a packet")),
                    flags,
                    payload: self.payload[start..end].to_vec(),
                    ..self.clone()
                }
            })
            .collect()
    }

    /// The packet as a kernel hands it over to be cut: its checksum is the sum of the pseudo-header.
    ///
    /// # Panics
    /// As [`packet`](Self::packet).
    #[must_use]
    pub fn unfinished(&self) -> Vec<u8> {
        let mut packet = self.packet();
        let start = if self.is_ipv6() { 40 } else { 20 };
        let len = u16::try_from(packet.len() - start).expect("no longer than a packet");
        let protocol = if self.tcp { NextHeader::TCP } else { NextHeader::UDP };
        let sum = match self.addresses {
            [IpAddr::V4(src), IpAddr::V4(dst)] => checksum::pseudo_v4(src, dst, protocol, len),
            [IpAddr::V6(src), IpAddr::V6(dst)] => {
                checksum::pseudo_v6(src, dst, protocol, len.into())
            }
            _ => panic!("addresses of one version"),
        };
        let field = start + if self.tcp { 16 } else { 6 };
        packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Length in bytes of IP and TCP or UDP header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        let ip = if self.is_ipv6() { 40 } else { 20 };
        ip + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    /// As a kernel would say that it is to be cut. The checksum field has the sum of the pseudo-header, which a cut
    /// does not look at.
    #[must_use]
    pub fn vnet(&self, segment_len: usize) -> VnetHeader {
        let start = if self.is_ipv6() { 40 } else { 20 };
        VnetHeader {
            checksum: Some(PartialChecksum { start, offset: if self.tcp { 16 } else { 6 } }),
            gso: match (self.tcp, self.is_ipv6()) {
                (true, false) => Gso::TcpV4,
                (true, true) => Gso::TcpV6,
                (false, _) => Gso::Udp,
            },
            ecn: self.flags & 0x80 != 0,
            header_len: u16::try_from(self.header_len()).expect("no longer than a packet"),
            segment_len: u16::try_from(segment_len).expect("no longer than a packet"),
        }
    }
}
