//! IP headers: the numbers both versions share, and a view that is either.

mod extension;
mod option;
mod plain;
mod v4;
mod v6;

use core::fmt;
use core::net::IpAddr;

pub use extension::{ExtensionHeader, ExtensionHeaders, MAX_EXTENSION_HEADERS};
pub use option::{
    Ipv4Option, Ipv4OptionType, Ipv4Options, Ipv6Option, Ipv6OptionType, Ipv6Options,
};
pub use plain::{Plain, PlainFlow, PlainRest};
pub use v4::{Ipv4Packet, Ipv4Repr};
pub use v6::{Fragment, Ipv6Packet, Ipv6Repr};

use super::{Malformed, ParseError};

/// The protocol after a header: IPv4 Protocol, IPv6 Next Header, ESP Next Header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHeader(pub u8);

impl NextHeader {
    /// IPv6 Hop-by-Hop Options.
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IPv4 in a tunnel.
    pub const IPV4: Self = Self(4);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// IPv6 in a tunnel.
    pub const IPV6: Self = Self(41);
    /// IPv6 Routing header.
    pub const ROUTING: Self = Self(43);
    /// IPv6 Fragment header.
    pub const FRAGMENT: Self = Self(44);
    /// ESP.
    pub const ESP: Self = Self(50);
    /// AH.
    pub const AH: Self = Self(51);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// No next header; in ESP a dummy packet (RFC 4303 §2.6).
    pub const NONE: Self = Self(59);
    /// IPv6 Destination Options.
    pub const DESTINATION_OPTIONS: Self = Self(60);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// IPv6 Mobility Header.
    pub const MOBILITY: Self = Self(135);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// IANA's keyword, where the number is known here.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::HOP_BY_HOP => "HOPOPT",
            Self::ICMP => "ICMP",
            Self::IPV4 => "IPv4",
            Self::TCP => "TCP",
            Self::UDP => "UDP",
            Self::IPV6 => "IPv6",
            Self::ROUTING => "IPv6-Route",
            Self::FRAGMENT => "IPv6-Frag",
            Self::ESP => "ESP",
            Self::AH => "AH",
            Self::ICMPV6 => "IPv6-ICMP",
            Self::NONE => "IPv6-NoNxt",
            Self::DESTINATION_OPTIONS => "IPv6-Opts",
            Self::SCTP => "SCTP",
            Self::MOBILITY => "Mobility Header",
            Self::UDP_LITE => "UDPLite",
            _ => return None,
        })
    }
}

impl fmt::Display for NextHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "NextHeader({})", self.0),
        }
    }
}

impl fmt::Debug for NextHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A packet of either IP version.
#[derive(Clone, Debug)]
pub enum IpPacket<T> {
    /// IPv4.
    V4(Ipv4Packet<T>),
    /// IPv6.
    V6(Ipv6Packet<T>),
}

/// Where the protocol above IP begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// The protocol.
    pub protocol: NextHeader,
    /// Offset of its first byte from the start of the IP packet.
    pub offset: usize,
    /// Where the packet is a fragment of a larger one. Past the first fragment there is no header of
    /// `protocol` at `offset`.
    pub fragment: Option<Fragment>,
}

impl<T: AsRef<[u8]>> IpPacket<T> {
    /// A view of `buffer` by the version in its first four bits.
    ///
    /// # Errors
    /// When it is neither a well-formed IPv4 nor IPv6 header, or the packet is cut.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        match buffer.as_ref().first().map(|byte| byte >> 4) {
            Some(4) => Ipv4Packet::new_checked(buffer).map(Self::V4),
            Some(6) => Ipv6Packet::new_checked(buffer).map(Self::V6),
            Some(version) => Err(error(0, Malformed::BadValue(version.into()))),
            None => Err(error(0, Malformed::Truncated { needed: 1, available: 0 })),
        }
    }

    /// Source address.
    #[must_use]
    pub fn src_addr(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.src_addr().into(),
            Self::V6(packet) => packet.src_addr().into(),
        }
    }

    /// Destination address.
    #[must_use]
    pub fn dst_addr(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.dst_addr().into(),
            Self::V6(packet) => packet.dst_addr().into(),
        }
    }

    /// Length of the packet by its header, in bytes; the buffer may be longer.
    #[must_use]
    pub fn total_len(&self) -> usize {
        match self {
            Self::V4(packet) => packet.total_len().into(),
            Self::V6(packet) => packet.total_len(),
        }
    }

    /// DSCP and ECN in one byte: IPv4 TOS, IPv6 Traffic Class.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.tos(),
            Self::V6(packet) => packet.traffic_class(),
        }
    }

    /// The protocol above IP, past all extension headers.
    ///
    /// # Errors
    /// When an IPv6 extension header is cut or misplaced, or there are too many.
    pub fn upper_layer(&self) -> Result<UpperLayer, ParseError> {
        match self {
            Self::V4(packet) => Ok(packet.upper_layer()),
            Self::V6(packet) => packet.upper_layer(),
        }
    }
}

const fn error(offset: usize, why: Malformed) -> ParseError {
    ParseError { what: "IP packet", offset, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_the_view() {
        let v4 = Ipv4Repr {
            src_addr: [10, 0, 0, 1].into(),
            dst_addr: [10, 0, 0, 2].into(),
            protocol: NextHeader::UDP,
            tos: 0xb8,
            ident: 0,
            dont_fragment: true,
            ttl: 64,
            payload_len: 0,
        };
        let packet = IpPacket::new_checked(v4.emit()).expect("IPv4");
        assert!(matches!(packet, IpPacket::V4(_)));
        assert_eq!((packet.total_len(), packet.traffic_class()), (20, 0xb8));

        let v6 = Ipv6Repr {
            src_addr: 1_u128.into(),
            dst_addr: 2_u128.into(),
            next_header: NextHeader::TCP,
            traffic_class: 3,
            flow_label: 0,
            hop_limit: 64,
            payload_len: 0,
        };
        let packet = IpPacket::new_checked(v6.emit()).expect("IPv6");
        assert!(matches!(packet, IpPacket::V6(_)));
        assert_eq!((packet.total_len(), packet.traffic_class()), (40, 3));
        assert_eq!(packet.dst_addr(), IpAddr::V6(2_u128.into()));
    }

    #[test]
    fn another_version_is_rejected() {
        for buffer in [&[][..], &[0x50; 40]] {
            assert!(IpPacket::new_checked(buffer).is_err());
        }
    }

    #[test]
    fn known_protocols_print_their_keyword() {
        assert_eq!(NextHeader::TCP.to_string(), "TCP");
        assert_eq!(format!("{:?}", NextHeader(253)), "NextHeader(253)");
    }
}
