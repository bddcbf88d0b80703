//! [`Place`]: where in an IP packet the AH or ESP header stands, or will stand (RFC 4302 §3.1.1, RFC 4303 §3.1.1).
//!
//! Owns the lengths and the Next Header byte that change when one is put in or taken out. Knows nothing of what is in
//! either header.

use crate::wire::ip::{ExtensionHeader, IpPacket, Ipv4Packet, Ipv6Packet, NextHeader};

/// Where the IPsec header stands in a whole IP packet, or will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of its first byte from the start of the packet.
    pub at: usize,
    /// Offset of the Protocol or Next Header byte that names it.
    pub next_header_at: usize,
}

impl Place {
    /// Where in `packet` an IPsec header is to be put in transport mode, or behind an outer header in tunnel mode.
    ///
    /// In IPv4 after header and options. In IPv6 in the order of RFC 8200 §4.1: after hop-by-hop options, a routing
    /// header with the destination options that are before it, and the header of an atomic fragment. Destination
    /// options for the final destination alone stay behind, and so are protected, which RFC 4303 §3.1.1 calls desirable
    /// (Linux leaves them before: the receiver of either finds its header). Other IPsec headers stay behind as well.
    ///
    /// `None` if it is no well-formed IP packet, or a fragment: IPsec is applied to whole packets (RFC 4302 §3.3.4, RFC
    /// 4303 §3.3.4).
    #[must_use]
    pub fn for_insertion(packet: &[u8]) -> Option<Self> {
        match IpPacket::new_checked(packet).ok()? {
            IpPacket::V4(packet) => Self::after_v4_header(&packet),
            IpPacket::V6(packet) => {
                let mut headers = packet.extension_headers();
                let mut place = Self { at: headers.offset(), next_header_at: headers.named_at() };
                while let Some(header) = headers.next().transpose().ok()? {
                    let ExtensionHeader { kind, at, fragment, .. } = header;
                    if fragment.is_some() {
                        return None;
                    }
                    if kind != NextHeader::DESTINATION_OPTIONS {
                        place = Self { at: header.end(), next_header_at: at };
                    }
                }
                Some(place)
            }
        }
    }

    /// Where in `packet` the first header of `protocol` stands, which is ESP or AH.
    ///
    /// `None` if there is none, if it is no well-formed IP packet, or a fragment: those are put together before (RFC 4302
    /// §3.4.1, RFC 4303 §3.4.1).
    #[must_use]
    pub fn of(packet: &[u8], protocol: NextHeader) -> Option<Self> {
        match IpPacket::new_checked(packet).ok()? {
            IpPacket::V4(packet) => {
                Self::after_v4_header(&packet).filter(|_| packet.protocol() == protocol)
            }
            IpPacket::V6(packet) => {
                let mut headers = packet.extension_headers();
                while let Some(header) = headers.next().transpose().ok()? {
                    if header.fragment.is_some() {
                        return None;
                    }
                }
                let place = Self { at: headers.offset(), next_header_at: headers.named_at() };
                (headers.next_header() == protocol).then_some(place)
            }
        }
    }

    /// After bytes were put in or taken out at this place: gives the IP header the length that `packet` has, and names
    /// `protocol` as what stands here. The checksum of an IPv4 header is brought up to date; one that was wrong stays wrong.
    ///
    /// `None`, and nothing changed, if a header cannot say that length, or the packet does not reach to this place.
    #[must_use]
    pub fn mend(self, packet: &mut [u8], protocol: NextHeader) -> Option<()> {
        if self.at > packet.len() || self.next_header_at >= self.at {
            return None;
        }
        if packet.first()? >> 4 == 4 {
            Ipv4Packet::new_resized(packet).ok()?.set_protocol(protocol);
        } else {
            Ipv6Packet::new_resized(&mut *packet).ok()?;
            *packet.get_mut(self.next_header_at)? = protocol.0;
        }
        Some(())
    }

    fn after_v4_header(packet: &Ipv4Packet<&[u8]>) -> Option<Self> {
        let place =
            Self { at: packet.header_len(), next_header_at: Ipv4Packet::<&[u8]>::PROTOCOL_AT };
        packet.fragment().is_none().then_some(place)
    }
}

#[cfg(test)]
mod tests;
