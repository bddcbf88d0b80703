//! [`Inner`]: what the datapath needs to know of an IP packet, read once and checked once: its selector fields
//! (RFC 4301 §4.4.1.1), how long it is, and whether it is a fragment (§7).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Flow;

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

/// The place of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// In bytes.
    pub offset: usize,
    /// Whether more follow.
    pub more: bool,
}

/// Numbers of protocols and extension headers.
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const DCCP: u8 = 33;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const DESTINATION: u8 = 60;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const UDP_LITE: u8 = 136;
}

impl Inner {
    /// More extension headers than any sender has a use for.
    const MAX_EXTENSIONS: usize = 16;

    /// `None` if it is not a well-formed IPv4 or IPv6 packet, as far as the fields above need it.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
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

    /// RFC 791 §3.1.
    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let packet = packet.get(..len)?;
        if header_len < header.len() || header_len > len {
            return None;
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let offset = usize::from(flags & 0x1fff) * 8;
        let more = flags & 0x2000 != 0;
        let payload = len - header_len;
        let protocol = header[9];
        let fragment = (offset > 0 || more).then_some(Fragment { offset, more });
        // Fragments that reach beyond the longest packet, or hide the TCP flags of the first one (RFC 1858 §3, RFC 4301
        // §7.2), serve no good purpose.
        if header_len + offset + payload > usize::from(u16::MAX)
            || protocol == protocol::TCP && offset == 8
        {
            return None;
        }
        let ports = if offset > 0 { None } else { ports(protocol, packet, header_len, more)? };
        Some(Self {
            flow: Flow { src: v4(header, 12), dst: v4(header, 16), protocol, ports },
            len,
            traffic_class: header[1],
            dont_fragment: flags & 0x4000 != 0,
            fragment,
            transport: header_len,
        })
    }

    /// RFC 8200 §3 and §4.
    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 40] = packet.first_chunk()?;
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let len = header.len() + payload;
        let packet = packet.get(..len)?;

        let mut protocol = header[6];
        // Payload Length 0 and a hop-by-hop header: a jumbogram, which no tunnel takes (RFC 2675).
        if payload == 0 && protocol == protocol::HOP_BY_HOP {
            return None;
        }
        let mut transport = header.len();
        let mut fragment = None;
        for _ in 0..Self::MAX_EXTENSIONS {
            let extension_len = match protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                    8 + usize::from(*packet.get(transport + 1)?) * 8
                }
                protocol::FRAGMENT => {
                    let &[_, _, high, low, ..] = packet.get(transport..transport + 8)? else {
                        return None;
                    };
                    let bits = u16::from_be_bytes([high, low]);
                    let offset = usize::from(bits & 0xfff8);
                    let more = bits & 1 != 0;
                    // One that is alone is whole (RFC 6946).
                    if fragment.is_none() && (offset > 0 || more) {
                        fragment = Some(Fragment { offset, more });
                    }
                    8
                }
                _ => break,
            };
            // A header may end where the packet ends only if another does not have to follow; a fragment may cut it.
            let next = *packet.get(transport)?;
            transport += extension_len;
            if transport > len {
                return None;
            }
            protocol = next;
            // RFC 4301 §7: what follows in a later fragment is data, whatever the header's number.
            if fragment.is_some_and(|Fragment { offset, .. }| offset > 0) {
                break;
            }
        }
        let later = fragment.is_some_and(|fragment| fragment.offset > 0);
        if !later && is_extension(protocol) {
            return None;
        }
        if let Some(Fragment { offset, .. }) = fragment
            && offset + (len - transport) > usize::from(u16::MAX)
        {
            return None;
        }
        let more = fragment.is_some_and(|fragment| fragment.more);
        let ports = if later { None } else { ports(protocol, packet, transport, more)? };
        let [first, second, ..] = *header;
        Some(Self {
            flow: Flow { src: v6(header, 8), dst: v6(header, 24), protocol, ports },
            len,
            traffic_class: first << 4 | second >> 4,
            dont_fragment: true,
            fragment,
            transport,
        })
    }
}

const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION | protocol::FRAGMENT
    )
}

/// Ports, or type and code (RFC 4301 §4.4.1.1), of a packet that begins with its transport header. The outer `None`: too
/// short to have them. A first fragment without them cannot be told from one that hides them.
#[expect(clippy::option_option, reason = "malformed and without ports are different things")]
fn ports(protocol: u8, packet: &[u8], transport: usize, more: bool) -> Option<Option<(u16, u16)>> {
    let data = packet.get(transport..)?;
    // What a whole header of the protocol has at least.
    let least = match protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::UDP_LITE | protocol::ICMPV6 | protocol::ICMP => 8,
        protocol::DCCP | protocol::SCTP => 12,
        protocol::MOBILITY => 6,
        _ => return Some(None),
    };
    // ICMP has no type of less than 8 bytes, but nothing here needs more than 4 of a fragment.
    let least = if more { 4 } else { least };
    if data.len() < least {
        return None;
    }
    let &[b0, b1, b2, b3, ..] = data else { return None };
    Some(Some(match protocol {
        protocol::ICMP | protocol::ICMPV6 => (b0.into(), b1.into()),
        // RFC 6275 §6.1.1: MH Type follows Payload Proto and Header Len.
        protocol::MOBILITY => (b2.into(), 0),
        _ => (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3])),
    }))
}

fn v4(header: &[u8; 20], at: usize) -> IpAddr {
    let mut octets = [0; 4];
    octets.copy_from_slice(&header[at..at + 4]);
    Ipv4Addr::from(octets).into()
}

fn v6(header: &[u8; 40], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets).into()
}

#[cfg(test)]
mod tests;
