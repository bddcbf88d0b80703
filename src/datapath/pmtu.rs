//! "Too big", said to the sender of a packet that does not fit into the tunnel (RFC 4301 §8.2), by a packet that goes back
//! into the TUN.

use crate::ipsec::PacketBuf;
use crate::wire::icmp::{ErrorPacket, fragmentation_needed, packet_too_big};
use crate::wire::ip::IpPacket;

use super::Options;

/// What every IPv6 link carries (RFC 8200 §5).
pub(super) const IPV6_MIN_MTU: usize = 1280;

/// Writes into `reply` what tells the sender of `packet` that `mtu` is the most that fits. `false` if it must not be told,
/// or `reply` is too small.
pub(super) fn too_big(packet: &[u8], mtu: usize, options: &Options, reply: &mut PacketBuf) -> bool {
    error(packet, mtu, options).is_some_and(|error| reply.fill_from(&error))
}

fn error(packet: &[u8], mtu: usize, options: &Options) -> Option<ErrorPacket> {
    match IpPacket::new_checked(packet).ok()? {
        IpPacket::V4(ip) => {
            // Seen from the sender, it is the destination's side that cannot take it.
            let from = options.icmp_source_v4.unwrap_or(ip.dst_addr());
            fragmentation_needed(&ip, from, u16::try_from(mtu).unwrap_or(u16::MAX))
        }
        IpPacket::V6(ip) => {
            let from = options.icmp_source_v6.unwrap_or(ip.dst_addr());
            // To a multicast address it may be said (RFC 4443 §2.4 (e)), but not from one.
            let may = !from.is_multicast();
            may.then(|| packet_too_big(&ip, from, u32::try_from(mtu).unwrap_or(u32::MAX)))?
        }
    }
}
