//! [`Inner`]: what the datapath needs to know of an IP packet, read once and checked once: its selector fields
//! (RFC 4301 §4.4.1.1), how long it is, and whether it is a fragment (§7). The formats are in `wire`.

use super::Flow;
use crate::wire::ip::{Fragment, IpPacket, NextHeader, Plain};

/// An IPv4 or IPv6 packet, looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its selector fields.
    pub flow: Flow,
    /// Its length as its header says: what follows is padding.
    pub len: usize,
    /// TOS or Traffic Class.
    pub traffic_class: u8,
    /// Whether it must not be fragmented on the way: DF, or IPv6.
    pub dont_fragment: bool,
    /// Where it lies in the packet that it is a fragment of; `None` if it is none.
    pub fragment: Option<Fragment>,
    /// Where the header after the IP headers begins; in a later fragment: where the data begins.
    pub transport: usize,
}

impl Inner {
    /// `None` if it is not a well-formed IPv4 or IPv6 packet, as far as the fields above need it.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match Plain::of(packet) {
            Some(plain) => Some(Self::of_plain(&plain)),
            None => Self::parse_any(packet),
        }
    }

    fn of_plain(plain: &Plain) -> Self {
        let flow = &plain.flow;
        let [b0, b1, b2, b3] = flow.start();
        let ports = match flow.protocol {
            NextHeader::ICMP | NextHeader::ICMPV6 => (b0.into(), b1.into()),
            _ => (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3])),
        };
        Self {
            flow: Flow {
                src: flow.src_addr(),
                dst: flow.dst_addr(),
                protocol: flow.protocol.0,
                ports: Some(ports),
            },
            len: plain.total_len,
            traffic_class: plain.traffic_class,
            dont_fragment: plain.dont_fragment,
            fragment: None,
            transport: flow.header_len(),
        }
    }

    /// As [`parse`](Self::parse), of packets of every form.
    #[inline(never)]
    fn parse_any(packet: &[u8]) -> Option<Self> {
        let ip = IpPacket::new_checked(packet).ok()?;
        let upper = ip.upper_layer().ok()?;
        let len = ip.total_len();
        let data = packet.get(upper.offset..len)?;
        let protocol = upper.protocol;

        let later = upper.fragment.filter(|fragment| fragment.offset > 0);
        let ports = match later {
            // RFC 4301 §7: OPAQUE.
            Some(fragment) => {
                if hides_something(protocol, fragment, data) {
                    return None;
                }
                None
            }
            None => ports(protocol, data, upper.fragment.is_some())?,
        };
        Some(Self {
            flow: Flow { src: ip.src_addr(), dst: ip.dst_addr(), protocol: protocol.0, ports },
            len,
            traffic_class: ip.traffic_class(),
            dont_fragment: match &ip {
                IpPacket::V4(ip) => ip.dont_fragment(),
                IpPacket::V6(_) => true,
            },
            fragment: upper.fragment,
            transport: upper.offset,
        })
    }

    /// Whether it is an IPv6 packet.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.flow.src.is_ipv6()
    }

    /// Whether it is a fragment without the transport header.
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }
}

/// Later fragments that serve no good purpose: they reach beyond the longest packet, or over the TCP flags of the first
/// one (RFC 1858 §3, RFC 4301 §7.2).
fn hides_something(protocol: NextHeader, fragment: Fragment, data: &[u8]) -> bool {
    usize::from(fragment.offset) + data.len() > usize::from(u16::MAX)
        || protocol == NextHeader::TCP && fragment.offset == 8
}

/// Ports, or type and code (RFC 4301 §4.4.1.1), of `data`, which begins with a header of `protocol`. The outer `None`: too
/// short to have them, so that what it is cannot be told.
#[expect(clippy::option_option, reason = "malformed and without ports are different things")]
fn ports(protocol: NextHeader, data: &[u8], is_fragment: bool) -> Option<Option<(u16, u16)>> {
    // The shortest header of each protocol; a first fragment may cut it.
    let least = match protocol {
        NextHeader::TCP => 20,
        NextHeader::UDP | NextHeader::UDP_LITE | NextHeader::ICMP | NextHeader::ICMPV6 => 8,
        DCCP | NextHeader::SCTP => 12,
        NextHeader::MOBILITY => 6,
        _ => return Some(None),
    };
    let &[b0, b1, b2, b3, ..] = data else { return None };
    if data.len() < least && !is_fragment {
        return None;
    }
    Some(Some(match protocol {
        NextHeader::ICMP | NextHeader::ICMPV6 => (b0.into(), b1.into()),
        // RFC 6275 §6.1.1: MH Type follows Payload Proto and Header Len.
        NextHeader::MOBILITY => (b2.into(), 0),
        _ => (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3])),
    }))
}

/// RFC 4340 §5.1.
const DCCP: NextHeader = NextHeader(33);

#[cfg(test)]
mod tests;
