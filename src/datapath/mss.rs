//! The MSS option of TCP SYNs, lowered to what fits into the tunnel: for hosts whose path MTU discovery does not work.

use crate::ipsec::inner::Inner;
use crate::wire::ip::NextHeader;
use crate::wire::tcp::TcpPacket;

/// Lengths of the fixed headers that the MSS leaves room for, options not counted (RFC 6691 §2).
const IPV4_AND_TCP: usize = 20 + 20;
const IPV6_AND_TCP: usize = 40 + 20;

/// Lowers the MSS in `packet`, if it is a SYN that has the option, so that segments fit into `mtu`.
#[inline]
pub(super) fn clamp(packet: &mut [u8], inner: &Inner, mtu: usize) {
    if inner.flow.protocol == NextHeader::TCP.0 && !inner.is_later_fragment() {
        clamp_tcp(packet, inner, mtu);
    }
}

fn clamp_tcp(packet: &mut [u8], inner: &Inner, mtu: usize) {
    let headers = if inner.is_ipv6() { IPV6_AND_TCP } else { IPV4_AND_TCP };
    let Ok(most) = u16::try_from(mtu.saturating_sub(headers)) else { return };
    let Some(segment) = packet.get_mut(inner.transport..inner.len) else { return };
    if let Ok(mut tcp) = TcpPacket::new_checked(segment)
        && tcp.syn()
    {
        tcp.clamp_mss(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN with these options and a right checksum.
    fn syn(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        let tcp_len = 20 + options.len();
        let total = u16::try_from(tcp_len + if v6 { 0 } else { 20 }).unwrap().to_be_bytes();
        let mut packet = if v6 {
            let mut header = vec![0x60, 0, 0, 0, total[0], total[1], 6, 64];
            header.extend([0xfd; 16]);
            header.extend([0xfe; 16]);
            header
        } else {
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
            header.extend([10, 1, 0, 1, 10, 2, 0, 1]);
            header
        };
        let transport = packet.len();
        packet.extend([0x12, 0x34, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0]);
        packet.extend([u8::try_from(tcp_len / 4).unwrap() << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(options);
        let inner = Inner::parse(&packet).unwrap();
        let mut tcp = TcpPacket::new_checked(&mut packet[transport..]).unwrap();
        tcp.fill_checksum(inner.flow.src, inner.flow.dst);
        packet
    }

    fn clamped(mut packet: Vec<u8>, mtu: usize) -> Vec<u8> {
        let inner = Inner::parse(&packet).unwrap();
        clamp(&mut packet, &inner, mtu);
        let tcp = TcpPacket::new_checked(&packet[inner.transport..]).unwrap();
        assert!(tcp.verify_checksum(inner.flow.src, inner.flow.dst));
        packet
    }

    #[test]
    fn mss_is_lowered_to_what_fits_and_the_checksum_mended() {
        for (v6, flags, mss) in [(false, 0x02, 1360), (false, 0x12, 1360), (true, 0x02, 1340)] {
            let packet = clamped(syn(v6, flags, &[2, 4, 0x05, 0xb4]), 1400);
            let at = packet.len() - 2;
            assert_eq!(u16::from_be_bytes([packet[at], packet[at + 1]]), mss);
        }
    }

    #[test]
    fn mss_at_an_odd_place_is_found_and_mended() {
        let packet = clamped(syn(false, 0x02, &[1, 2, 4, 0x05, 0xb4, 1, 1, 0]), 1400);
        assert_eq!(packet[43..45], 1360_u16.to_be_bytes());
        let packet = clamped(
            syn(false, 0x02, &[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0x23, 0x00]),
            1400,
        );
        assert_eq!(packet[54..56], 1360_u16.to_be_bytes());
    }

    #[test]
    fn nothing_else_is_touched() {
        let options: [&[u8]; 7] = [
            &[2, 4, 0x05, 0x50],             // small enough
            &[],                             // no option
            &[0, 2, 4, 0xff, 0xff, 0, 0, 0], // behind the end of the list
            &[2, 3, 0xff, 0xff],             // wrong length
            &[2, 0, 0xff, 0xff],             // impossible length
            &[1, 1, 1, 2],                   // cut off
            &[3, 9, 0xff, 0xff],             // longer than the list
        ];
        for options in options {
            let packet = syn(false, 0x02, options);
            assert_eq!(clamped(packet.clone(), 1400), packet, "{options:?}");
        }
        let ack = syn(false, 0x10, &[2, 4, 0x05, 0xb4]);
        assert_eq!(clamped(ack.clone(), 1400), ack, "no SYN");
    }

    #[test]
    fn a_data_offset_beyond_the_packet_is_left_alone() {
        let mut packet = syn(false, 0x02, &[2, 4, 0x05, 0xb4]);
        packet[32] = 0xf0;
        let inner = Inner::parse(&packet).unwrap();
        let before = packet.clone();
        clamp(&mut packet, &inner, 1400);
        assert_eq!(packet, before);
    }
}
