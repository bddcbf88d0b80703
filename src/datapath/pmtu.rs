//! "Too big", said to the sender of a packet that does not fit into the tunnel (RFC 4301 §8.2): ICMP Fragmentation Needed
//! (RFC 1191 §4) and ICMPv6 Packet Too Big (RFC 4443 §3.2), written to go back into the TUN.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ipsec::PacketBuf;
use crate::ipsec::inner::{Inner, protocol};

use super::Options;
use super::checksum::Sum;

/// What every IPv6 link carries (RFC 8200 §5).
pub(super) const IPV6_MIN_MTU: usize = 1280;

/// RFC 1812 §4.3.2.3: an ICMP message is no longer than this.
const ICMP_MAX: usize = 576;
/// RFC 4443 §2.4 (c).
const ICMPV6_MAX: usize = IPV6_MIN_MTU;
/// RFC 1812 §4.3.2.5: precedence 6, as errors have it.
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// Writes into `reply` what tells the sender of `packet` that `mtu` is the most that fits. `false` if it must not be told
/// (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)), or `reply` is too small.
pub(super) fn too_big(
    packet: &[u8],
    inner: &Inner,
    mtu: usize,
    options: &Options,
    reply: &mut PacketBuf,
) -> bool {
    if !may_be_answered(packet, inner) {
        return false;
    }
    match (inner.flow.src, inner.flow.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let from = options.icmp_source_v4.unwrap_or(dst);
            !from.is_multicast() && !from.is_broadcast() && write_v4(packet, from, src, mtu, reply)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let from = options.icmp_source_v6.unwrap_or(dst);
            !from.is_multicast() && write_v6(packet, from, src, mtu, reply)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// No answer to an error, a later fragment, or what has no single sender.
fn may_be_answered(packet: &[u8], inner: &Inner) -> bool {
    let kind = packet.get(inner.transport).copied();
    let is_error = match (inner.flow.protocol, kind) {
        // Destination Unreachable, Source Quench, Redirect, Time Exceeded, Parameter Problem.
        (protocol::ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // RFC 4443 §2.1: errors have the high bit clear; Redirect is 137.
        (protocol::ICMPV6, Some(kind)) => kind < 128 || kind == 137,
        _ => false,
    };
    let has_single_sender = match inner.flow.src {
        IpAddr::V4(src) => {
            !src.is_unspecified()
                && !src.is_multicast()
                && !src.is_broadcast()
                && !src.is_loopback()
        }
        IpAddr::V6(src) => !src.is_unspecified() && !src.is_multicast() && !src.is_loopback(),
    };
    !is_error && has_single_sender && !inner.is_later_fragment()
}

fn write_v4(
    packet: &[u8],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    mtu: usize,
    reply: &mut PacketBuf,
) -> bool {
    let quoted = &packet[..packet.len().min(ICMP_MAX - 28)];
    let total = 28 + quoted.len();
    let Some(out) = reply.space_mut().get_mut(..total) else { return false };
    let (ip, icmp) = out.split_at_mut(20);

    // An atomic datagram: DF, and so no identification (RFC 6864 §4.1).
    let length = u16::try_from(total).unwrap_or(u16::MAX).to_be_bytes();
    ip[..12].copy_from_slice(&[
        0x45,
        INTERNETWORK_CONTROL,
        length[0],
        length[1],
        0,
        0,
        0x40,
        0,
        64,
        protocol::ICMP,
        0,
        0,
    ]);
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..].copy_from_slice(&dst.octets());
    let checksum = Sum::default().add(ip).finish();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    // Destination Unreachable, fragmentation needed and DF set; Next-Hop MTU in the low half of the unused word.
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    icmp[..8].copy_from_slice(&[3, 4, 0, 0, 0, 0, mtu[0], mtu[1]]);
    icmp[8..].copy_from_slice(quoted);
    let checksum = Sum::default().add(icmp).finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    reply.set_len(total);
    true
}

fn write_v6(
    packet: &[u8],
    src: Ipv6Addr,
    dst: Ipv6Addr,
    mtu: usize,
    reply: &mut PacketBuf,
) -> bool {
    let quoted = &packet[..packet.len().min(ICMPV6_MAX - 48)];
    let payload = 8 + quoted.len();
    let Some(out) = reply.space_mut().get_mut(..40 + payload) else { return false };
    let (ip, icmp) = out.split_at_mut(40);

    let length = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], protocol::ICMPV6, 64]);
    ip[8..24].copy_from_slice(&src.octets());
    ip[24..].copy_from_slice(&dst.octets());

    icmp[..4].copy_from_slice(&[2, 0, 0, 0]);
    icmp[4..8].copy_from_slice(&u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes());
    icmp[8..].copy_from_slice(quoted);
    let sum = Sum::default().add_pseudo(src.into(), dst.into(), protocol::ICMPV6, payload);
    let checksum = sum.add(icmp).finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    reply.set_len(40 + payload);
    true
}

#[cfg(test)]
mod tests;
