//! [`Plain`]: the form that nearly every packet has, read in a few steps. The views of this module read every form, and agree.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NextHeader;

/// A whole TCP, UDP, ICMP or ICMPv6 packet with nothing between that header and an IP header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source address.
    pub src_addr: IpAddr,
    /// Destination address.
    pub dst_addr: IpAddr,
    /// What follows the IP header.
    pub protocol: NextHeader,
    /// Length of the packet by its header, in bytes; the buffer may be longer.
    pub total_len: usize,
    /// IPv4 TOS, IPv6 Traffic Class.
    pub traffic_class: u8,
    /// IPv4: the DF flag. IPv6: always.
    pub dont_fragment: bool,
    /// Length of the IP header in bytes.
    pub header_len: usize,
    /// The first bytes after the IP header: ports, or type, code and checksum.
    pub start: [u8; 4],
}

impl Plain {
    /// `None` for packets of any other form, well-formed or not.
    #[must_use]
    #[inline]
    pub fn of(packet: &[u8]) -> Option<Self> {
        match *packet.first()? {
            // Without options.
            0x45 => Self::of_v4(packet),
            0x60..=0x6f => Self::of_v6(packet),
            _ => None,
        }
    }

    #[inline]
    fn of_v4(packet: &[u8]) -> Option<Self> {
        let &[
            _,
            traffic_class,
            l0,
            l1,
            _,
            _,
            f0,
            f1,
            _,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
            ref start @ ..,
        ] = packet.first_chunk::<24>()?;
        let total_len = usize::from(u16::from_be_bytes([l0, l1]));
        let fragment = u16::from_be_bytes([f0, f1]);
        // MF, and the offset.
        if fragment & 0x3fff != 0 || !is_whole(protocol, total_len, 20, packet.len()) {
            return None;
        }
        Some(Self {
            src_addr: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
            dst_addr: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
            protocol: NextHeader(protocol),
            total_len,
            traffic_class,
            dont_fragment: fragment & 0x4000 != 0,
            header_len: 20,
            start: *start,
        })
    }

    #[inline]
    fn of_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<44>()?;
        let &[b0, b1, _, _, l0, l1, protocol, _, ref rest @ ..] = header;
        let (src, rest) = rest.split_first_chunk::<16>()?;
        let (dst, start) = rest.split_first_chunk::<16>()?;
        let total_len = 40 + usize::from(u16::from_be_bytes([l0, l1]));
        if !is_whole(protocol, total_len, 40, packet.len()) {
            return None;
        }
        Some(Self {
            src_addr: IpAddr::V6(Ipv6Addr::from_octets(*src)),
            dst_addr: IpAddr::V6(Ipv6Addr::from_octets(*dst)),
            protocol: NextHeader(protocol),
            total_len,
            traffic_class: b0 << 4 | b1 >> 4,
            dont_fragment: true,
            header_len: 40,
            start: *start.first_chunk()?,
        })
    }
}

/// Whether the packet has a whole header of one of these protocols, and the buffer the whole packet.
#[inline]
fn is_whole(protocol: u8, total_len: usize, header_len: usize, available: usize) -> bool {
    let shortest = match NextHeader(protocol) {
        NextHeader::UDP | NextHeader::ICMP | NextHeader::ICMPV6 => 8,
        NextHeader::TCP => 20,
        _ => return false,
    };
    header_len + shortest <= total_len && total_len <= available
}

#[cfg(test)]
mod tests {
    use super::super::{IpPacket, Ipv4Repr, Ipv6Repr};
    use super::*;

    fn v4(protocol: NextHeader, payload: &[u8]) -> Vec<u8> {
        let header = Ipv4Repr {
            src_addr: [10, 1, 0, 1].into(),
            dst_addr: [10, 2, 0, 1].into(),
            protocol,
            tos: 0xb9,
            ident: 7,
            dont_fragment: true,
            ttl: 64,
            payload_len: u16::try_from(payload.len()).expect("short"),
        };
        [&header.emit(), payload].concat()
    }

    fn v6(next_header: NextHeader, payload: &[u8]) -> Vec<u8> {
        let header = Ipv6Repr {
            src_addr: "fd01::1".parse().expect("an address"),
            dst_addr: "fd02::1".parse().expect("an address"),
            next_header,
            traffic_class: 0xb9,
            flow_label: 0xf_ffff,
            hop_limit: 64,
            payload_len: u16::try_from(payload.len()).expect("short"),
        };
        [&header.emit(), payload].concat()
    }

    #[test]
    fn says_what_the_views_say() {
        for protocol in [NextHeader::TCP, NextHeader::UDP, NextHeader::ICMP, NextHeader::ICMPV6] {
            for packet in [v4(protocol, &[1; 20]), v6(protocol, &[1; 20])] {
                let plain = Plain::of(&packet).expect("plain");
                let ip = IpPacket::new_checked(&packet[..]).expect("a packet");
                let upper = ip.upper_layer().expect("a packet");
                assert_eq!((plain.src_addr, plain.dst_addr), (ip.src_addr(), ip.dst_addr()));
                assert_eq!((plain.protocol, plain.header_len), (upper.protocol, upper.offset));
                assert_eq!(plain.total_len, ip.total_len());
                assert_eq!(plain.traffic_class, ip.traffic_class());
                assert!(plain.dont_fragment);
                assert_eq!(plain.start, [1; 4]);
            }
        }
    }

    #[test]
    fn knows_no_other_form() {
        let whole = v4(NextHeader::UDP, &[1; 20]);
        let changed = |at: usize, byte: u8| {
            let mut packet = whole.clone();
            packet[at] = byte;
            packet
        };
        for packet in [
            changed(0, 0x46),            // options
            changed(0, 0x55),            // version
            changed(6, 0x20),            // a first fragment
            changed(7, 1),               // a later one
            changed(9, 50),              // another protocol
            changed(3, 27),              // no room for a UDP header
            changed(3, 41),              // cut
            v6(NextHeader(0), &[1; 20]), // an extension header
            v4(NextHeader::TCP, &[1; 19]),
            v6(NextHeader::UDP, &[1; 7]),
            v6(NextHeader::UDP, &[1; 20])[..59].to_vec(),
            vec![],
            vec![0x45],
        ] {
            assert_eq!(Plain::of(&packet), None, "{packet:?}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(Plain::of(&longer), Plain::of(&whole), "padding");
    }
}
