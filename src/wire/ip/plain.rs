//! [`Plain`]: the form that nearly every packet has, read in a few steps. The views of this module read every form, and agree.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NextHeader;

/// A whole TCP, UDP, ICMP or ICMPv6 packet with nothing between that header and an IP header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// What is the same in all packets of its flow.
    pub flow: PlainFlow,
    /// Length of the packet by its header, in bytes; the buffer may be longer.
    pub total_len: usize,
    /// IPv4 TOS, IPv6 Traffic Class.
    pub traffic_class: u8,
    /// IPv4: the DF flag. IPv6: always.
    pub dont_fragment: bool,
}

/// Addresses, protocol, and the first bytes of its header, as they lie in the packet: in a form that is compared fast. Packets
/// of ICMP differ in their checksum, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainFlow {
    /// Whether it is of IPv6.
    pub is_ipv6: bool,
    /// What follows the IP header.
    pub protocol: NextHeader,
    start: u32,
    /// Source and destination; of IPv4 in the first.
    addresses: [u64; 4],
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
        let header = packet.first_chunk::<24>()?;
        let (fields, rest) = header.split_first_chunk::<12>()?;
        let (addresses, start) = rest.split_first_chunk()?;
        let &[_, traffic_class, l0, l1, _, _, f0, f1, _, protocol, _, _] = fields;
        let total_len = usize::from(u16::from_be_bytes([l0, l1]));
        let fragment = u16::from_be_bytes([f0, f1]);
        // MF, and the offset.
        if fragment & 0x3fff != 0 || !is_whole(protocol, total_len, 20, packet.len()) {
            return None;
        }
        let flow = PlainFlow {
            is_ipv6: false,
            protocol: NextHeader(protocol),
            start: u32::from_ne_bytes(*start.first_chunk()?),
            addresses: [u64::from_ne_bytes(*addresses), 0, 0, 0],
        };
        Some(Self { flow, total_len, traffic_class, dont_fragment: fragment & 0x4000 != 0 })
    }

    #[inline]
    fn of_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<44>()?;
        let (fields, rest) = header.split_first_chunk::<8>()?;
        let (addresses, start) = rest.split_first_chunk::<32>()?;
        let &[b0, b1, _, _, l0, l1, protocol, _] = fields;
        let total_len = 40 + usize::from(u16::from_be_bytes([l0, l1]));
        if !is_whole(protocol, total_len, 40, packet.len()) {
            return None;
        }
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(addresses.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let flow = PlainFlow {
            is_ipv6: true,
            protocol: NextHeader(protocol),
            start: u32::from_ne_bytes(*start.first_chunk()?),
            addresses: words,
        };
        Some(Self { flow, total_len, traffic_class: b0 << 4 | b1 >> 4, dont_fragment: true })
    }

    /// Whether it opens a TCP connection. `packet` is what it is a view of.
    #[must_use]
    #[inline]
    pub fn is_syn(&self, packet: &[u8]) -> bool {
        self.flow.is_syn(packet)
    }
}

/// What may differ in the packets of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainRest {
    /// See [`Plain::total_len`].
    pub total_len: usize,
    /// See [`Plain::traffic_class`].
    pub traffic_class: u8,
    /// See [`Plain::dont_fragment`].
    pub dont_fragment: bool,
}

impl PlainFlow {
    /// What [`Plain::of`] says of a packet, if it is of this flow.
    #[must_use]
    #[inline(always)]
    pub fn rest_of(&self, packet: &[u8]) -> Option<PlainRest> {
        let rest = if self.is_ipv6 { self.rest_of_v6(packet)? } else { self.rest_of_v4(packet)? };
        is_whole(self.protocol.0, rest.total_len, self.header_len(), packet.len()).then_some(rest)
    }

    #[inline]
    fn rest_of_v4(&self, packet: &[u8]) -> Option<PlainRest> {
        let header = packet.first_chunk::<24>()?;
        let (fields, rest) = header.split_first_chunk::<12>()?;
        let (addresses, start) = rest.split_first_chunk()?;
        let &[version, traffic_class, l0, l1, _, _, f0, f1, _, protocol, _, _] = fields;
        let fragment = u16::from_be_bytes([f0, f1]);
        let is_it = version == 0x45
            && protocol == self.protocol.0
            && u64::from_ne_bytes(*addresses) == self.addresses[0]
            && u32::from_ne_bytes(*start.first_chunk()?) == self.start
            && fragment & 0x3fff == 0;
        is_it.then_some(PlainRest {
            total_len: usize::from(u16::from_be_bytes([l0, l1])),
            traffic_class,
            dont_fragment: fragment & 0x4000 != 0,
        })
    }

    #[inline]
    fn rest_of_v6(&self, packet: &[u8]) -> Option<PlainRest> {
        let header = packet.first_chunk::<44>()?;
        let (fields, rest) = header.split_first_chunk::<8>()?;
        let (addresses, start) = rest.split_first_chunk::<32>()?;
        let &[b0, b1, _, _, l0, l1, protocol, _] = fields;
        let mut same = addresses.as_chunks().0.iter().zip(&self.addresses);
        let is_it = b0 >> 4 == 6
            && protocol == self.protocol.0
            && same.all(|(bytes, word)| u64::from_ne_bytes(*bytes) == *word)
            && u32::from_ne_bytes(*start.first_chunk()?) == self.start;
        is_it.then_some(PlainRest {
            total_len: 40 + usize::from(u16::from_be_bytes([l0, l1])),
            traffic_class: b0 << 4 | b1 >> 4,
            dont_fragment: true,
        })
    }

    /// Whether a packet of this flow opens a TCP connection.
    #[must_use]
    #[inline]
    pub fn is_syn(&self, packet: &[u8]) -> bool {
        self.protocol == NextHeader::TCP
            && packet.get(self.header_len() + 13).is_none_or(|flags| flags & 0x02 != 0)
    }

    /// Source address.
    #[must_use]
    pub fn src_addr(&self) -> IpAddr {
        if self.is_ipv6 { self.v6(0) } else { self.v4()[0] }
    }

    /// Destination address.
    #[must_use]
    pub fn dst_addr(&self) -> IpAddr {
        if self.is_ipv6 { self.v6(2) } else { self.v4()[1] }
    }

    /// The first bytes after the IP header: ports, or type, code and checksum.
    #[must_use]
    pub const fn start(&self) -> [u8; 4] {
        self.start.to_ne_bytes()
    }

    /// Length of the IP header in bytes.
    #[must_use]
    #[inline]
    pub const fn header_len(&self) -> usize {
        if self.is_ipv6 { 40 } else { 20 }
    }

    fn v4(&self) -> [IpAddr; 2] {
        let [s0, s1, s2, s3, d0, d1, d2, d3] = self.addresses[0].to_ne_bytes();
        [Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into()]
    }

    fn v6(&self, at: usize) -> IpAddr {
        let mut bytes = [0; 16];
        for (half, word) in bytes.as_chunks_mut().0.iter_mut().zip(&self.addresses[at..]) {
            *half = word.to_ne_bytes();
        }
        Ipv6Addr::from(bytes).into()
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
                let flow = plain.flow;
                let ip = IpPacket::new_checked(&packet[..]).expect("a packet");
                let upper = ip.upper_layer().expect("a packet");
                assert_eq!((flow.src_addr(), flow.dst_addr()), (ip.src_addr(), ip.dst_addr()));
                assert_eq!((flow.protocol, flow.header_len()), (upper.protocol, upper.offset));
                assert_eq!(flow.is_ipv6, flow.src_addr().is_ipv6());
                assert_eq!(plain.total_len, ip.total_len());
                assert_eq!(plain.traffic_class, ip.traffic_class());
                assert!(plain.dont_fragment);
                assert_eq!(flow.start(), [1; 4]);
            }
        }
    }

    #[test]
    fn a_flow_is_another_if_any_of_it_is() {
        for whole in [v4(NextHeader::UDP, &[1; 20]), v6(NextHeader::UDP, &[1; 20])] {
            let flow = |packet: &[u8]| Plain::of(packet).expect("plain").flow;
            let transport = flow(&whole).header_len();
            let addresses = if transport == 20 { 12..20 } else { 8..40 };
            for at in addresses.chain(transport..transport + 4) {
                let mut other = whole.clone();
                other[at] ^= 0x10;
                assert_ne!(flow(&other), flow(&whole), "byte {at}");
            }
            let mut other = whole.clone();
            other[transport + 4] ^= 1;
            assert_eq!(flow(&other), flow(&whole));
        }
    }

    #[test]
    fn the_rest_of_a_packet_is_read_if_it_is_of_the_flow() {
        let payload: Vec<u8> = (1..=20).collect();
        for protocol in [NextHeader::TCP, NextHeader::UDP, NextHeader::ICMP, NextHeader::ICMPV6] {
            for whole in [v4(protocol, &payload), v6(protocol, &payload)] {
                let flow = Plain::of(&whole).expect("plain").flow;
                let mut taken = 0;
                let mut check = |packet: &[u8]| {
                    let plain = Plain::of(packet).filter(|plain| plain.flow == flow);
                    let rest = plain.map(|plain| {
                        let Plain { total_len, traffic_class, dont_fragment, .. } = plain;
                        PlainRest { total_len, traffic_class, dont_fragment }
                    });
                    assert_eq!(flow.rest_of(packet), rest, "{packet:?}");
                    taken += usize::from(rest.is_some());
                };
                for at in 0..whole.len() {
                    check(&whole[..at]);
                    for byte in 0..=u8::MAX {
                        let mut changed = whole.clone();
                        changed[at] = byte;
                        check(&changed);
                    }
                }
                assert!(taken > 5000, "{taken} of {} are of the flow", 256 * whole.len());
            }
        }
    }

    #[test]
    fn a_syn_is_found() {
        for packet in [v4(NextHeader::TCP, &[0; 20]), v6(NextHeader::TCP, &[0; 20])] {
            let plain = Plain::of(&packet).expect("plain");
            assert!(!plain.is_syn(&packet));
            let mut syn = packet.clone();
            syn[plain.flow.header_len() + 13] = 0x12;
            assert!(plain.is_syn(&syn));
        }
        let udp = v4(NextHeader::UDP, &[0xff; 20]);
        assert!(!Plain::of(&udp).expect("plain").is_syn(&udp));
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
