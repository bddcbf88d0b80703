//! IP headers that we make: the outer one of tunnel mode where no socket makes it, and the one of a packet that came
//! through UDP in transport mode, whose own stayed behind.

use core::net::IpAddr;

use crate::ipsec::{PacketBuf, Place};
use crate::wire::ip::{Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NextHeader};

/// RFC 4301 §5.1.2: constructed. The value that IANA recommends (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// What a header says; source and destination are of one IP version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: NextHeader,
    pub(super) traffic_class: u8,
    /// IPv4 only.
    pub(super) dont_fragment: bool,
    /// IPv4 only.
    pub(super) ident: u16,
}

impl Outer {
    /// Puts the header before what the buffer holds; tells where what it names begins. `None`, and the packet is as it was,
    /// if there is no room, or it would be too long for an IP packet.
    pub(super) fn put_before(&self, packet: &mut PacketBuf) -> Option<Place> {
        let payload_len = u16::try_from(packet.len()).ok()?;
        match (self.src, self.dst) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                let header = Ipv4Repr {
                    src_addr,
                    dst_addr,
                    protocol: self.protocol,
                    tos: self.traffic_class,
                    ident: self.ident,
                    dont_fragment: self.dont_fragment,
                    ttl: HOP_LIMIT,
                    payload_len: (payload_len <= MAX_IPV4_PAYLOAD).then_some(payload_len)?,
                };
                put(packet, &header.emit())?;
                let next_header_at = Ipv4Packet::<&[u8]>::PROTOCOL_AT;
                Some(Place { at: Ipv4Repr::LEN, next_header_at })
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                let header = Ipv6Repr {
                    src_addr,
                    dst_addr,
                    next_header: self.protocol,
                    traffic_class: self.traffic_class,
                    flow_label: 0,
                    hop_limit: HOP_LIMIT,
                    payload_len,
                };
                put(packet, &header.emit())?;
                let next_header_at = Ipv6Packet::<&[u8]>::NEXT_HEADER_AT;
                Some(Place { at: Ipv6Repr::LEN, next_header_at })
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

/// The Total Length of IPv4 counts its header too.
const MAX_IPV4_PAYLOAD: u16 = u16::MAX - 20;

fn put(packet: &mut PacketBuf, header: &[u8]) -> Option<()> {
    packet.push_front(header.len()).then_some(())?;
    packet.get_mut(..header.len())?.copy_from_slice(header);
    Some(())
}
