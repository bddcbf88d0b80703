//! TCP headers, as far as a gateway looks at them: ports, flags, and the MSS option (RFC 9293 §3).

use core::net::IpAddr;

use super::field::{put, u16_at};
use super::ip::{IpPacket, NextHeader};
use super::{Malformed, ParseError, checksum};

/// A view of a TCP segment (RFC 9293 §3.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |          Source Port          |       Destination Port        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                        Sequence Number                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Acknowledgment Number                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Data |       |C|E|U|A|P|R|S|F|                               |
/// | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
/// |       |       |R|E|G|K|H|T|N|N|                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Checksum            |         Urgent Pointer        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                           [Options]                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               :
/// :                             Data                              :
/// :                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug)]
pub struct TcpPacket<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const SRC_PORT: Range<usize> = 0..2;
    pub(super) const DST_PORT: Range<usize> = 2..4;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const CHECKSUM: Range<usize> = 16..18;
}

const SYN: u8 = 0x02;

impl<T: AsRef<[u8]>> TcpPacket<T> {
    /// Length of a header without options, in bytes.
    pub const MIN_HEADER_LEN: usize = 20;

    /// A view of a segment of unknown origin.
    ///
    /// # Errors
    /// When the header is cut or its length is wrong. Options and checksum are not looked at.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let packet = Self { buffer };
        let error = |offset, why| Err(ParseError { what: "TCP segment", offset, why });
        let available = packet.buffer.as_ref().len();
        if available < Self::MIN_HEADER_LEN {
            return error(0, Malformed::Truncated { needed: Self::MIN_HEADER_LEN, available });
        }
        let header_len = packet.header_len();
        if header_len < Self::MIN_HEADER_LEN || header_len > available {
            return error(field::DATA_OFFSET, Malformed::BadLength(header_len));
        }
        Ok(packet)
    }

    /// Source port.
    #[must_use]
    pub fn src_port(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::SRC_PORT)
    }

    /// Destination port.
    #[must_use]
    pub fn dst_port(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::DST_PORT)
    }

    /// Length of the header with options, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// Whether SYN is set.
    #[must_use]
    pub fn syn(&self) -> bool {
        self.buffer.as_ref()[field::FLAGS] & SYN != 0
    }

    /// Checksum.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// The options, one by one.
    #[must_use]
    pub fn options(&self) -> Options<'_> {
        let bytes = &self.buffer.as_ref()[..self.header_len()];
        Options { header: bytes, at: Self::MIN_HEADER_LEN }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..]
    }

    /// The Maximum Segment Size option, in bytes (RFC 9293 §3.7.1).
    #[must_use]
    pub fn mss(&self) -> Option<u16> {
        self.mss_at().map(|at| u16_at(self.buffer.as_ref(), at..at + 2))
    }

    /// Offset of the MSS option's value.
    fn mss_at(&self) -> Option<usize> {
        self.options().find(|o| o.kind == TcpOption::MSS && o.data.len() == 2).map(|o| o.offset)
    }

    /// Whether the checksum is right for these addresses. The buffer ends where the segment ends.
    #[must_use]
    pub fn verify_checksum(&self, src: IpAddr, dst: IpAddr) -> bool {
        self.sum(src, dst) == Some(!0)
    }

    fn sum(&self, src: IpAddr, dst: IpAddr) -> Option<u16> {
        let data = self.buffer.as_ref();
        let pseudo = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = u16::try_from(data.len()).ok()?;
                checksum::pseudo_v4(src, dst, NextHeader::TCP, len)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let len = u32::try_from(data.len()).ok()?;
                checksum::pseudo_v6(src, dst, NextHeader::TCP, len)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        Some(checksum::combine(&[pseudo, checksum::data(data)]))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> TcpPacket<T> {
    /// Lowers the MSS option of a SYN to `max` and brings the checksum up to date (RFC 1624). Returns
    /// whether anything changed: not without SYN, without the option, or if it is low enough.
    pub fn clamp_mss(&mut self, max: u16) -> bool {
        let Some(at) = self.mss_at().filter(|_| self.syn()) else { return false };
        let old = u16_at(self.buffer.as_ref(), at..at + 2);
        if old <= max {
            return false;
        }
        // At an odd offset the value's bytes lie in two words, each in the other half.
        let weigh = |value: u16| if at % 2 == 0 { value } else { value.swap_bytes() };
        let sum = checksum::update(self.checksum(), weigh(old), weigh(max));
        let data = self.buffer.as_mut();
        put(data, at..at + 2, &max.to_be_bytes());
        put(data, field::CHECKSUM, &sum.to_be_bytes());
        true
    }

    /// Computes the checksum for these addresses, of one IP version.
    pub fn fill_checksum(&mut self, src: IpAddr, dst: IpAddr) {
        put(self.buffer.as_mut(), field::CHECKSUM, &[0, 0]);
        let sum = self.sum(src, dst).map_or(0, checksum::finish);
        put(self.buffer.as_mut(), field::CHECKSUM, &sum.to_be_bytes());
    }
}

/// A TCP option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption<'a> {
    /// Kind.
    pub kind: u8,
    /// Offset of `data` from the start of the TCP header.
    pub offset: usize,
    /// What follows kind and length; empty for No-Operation.
    pub data: &'a [u8],
}

impl TcpOption<'_> {
    /// End of Option List.
    pub const END: u8 = 0;
    /// No-Operation.
    pub const NOP: u8 = 1;
    /// Maximum Segment Size.
    pub const MSS: u8 = 2;
}

/// The options of a TCP header. Ends at End of Option List, and before an option whose length is wrong.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        let &kind = self.header.get(self.at)?;
        let (start, end) = match kind {
            TcpOption::END => return None,
            TcpOption::NOP => (self.at + 1, self.at + 1),
            _ => (self.at + 2, self.at + usize::from(*self.header.get(self.at + 1)?)),
        };
        let data = self.header.get(start..end)?;
        self.at = end;
        Some(TcpOption { kind, offset: start, data })
    }
}

/// Lowers the MSS of a TCP SYN in a whole IP packet so that segments fit into `mtu` bytes, without IP
/// options or extension headers. Anything else is left alone. Returns whether the packet changed.
pub fn clamp_mss(packet: &mut [u8], mtu: usize) -> bool {
    let Ok(ip) = IpPacket::new_checked(&*packet) else { return false };
    let ip_header_len = match ip {
        IpPacket::V4(_) => 20,
        IpPacket::V6(_) => 40,
    };
    let Ok(upper) = ip.upper_layer() else { return false };
    let end = ip.total_len();
    if upper.protocol != NextHeader::TCP || upper.fragment.is_some_and(|f| f.offset != 0) {
        return false;
    }
    let max = mtu.saturating_sub(ip_header_len + TcpPacket::<&[u8]>::MIN_HEADER_LEN);
    let max = u16::try_from(max).unwrap_or(u16::MAX);
    let Some(segment) = packet.get_mut(upper.offset..end) else { return false };
    TcpPacket::new_checked(segment).is_ok_and(|mut tcp| tcp.clamp_mss(max))
}

#[cfg(test)]
mod tests {
    use super::super::ip::{Ipv4Repr, Ipv6Repr};
    use super::*;

    /// A SYN with NOP, MSS 1460 (at an odd offset), NOP, window scale, End, and one byte of data.
    const SYN_SEGMENT: [u8; 33] = [
        0x80, 0x00, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0x80, 0x02, 0xff, 0xff, 0, 0, 0, 0, //
        1, 2, 4, 0x05, 0xb4, 1, 3, 3, 7, 0, 2, 4, 0x61,
    ];

    fn v4() -> (IpAddr, IpAddr) {
        ([10, 1, 0, 1].into(), [10, 2, 0, 1].into())
    }

    fn v6() -> (IpAddr, IpAddr) {
        ("fd0a::1".parse().expect("an address"), "fd0b::1".parse().expect("an address"))
    }

    fn with_options(options: &[u8]) -> Vec<u8> {
        assert_eq!(options.len() % 4, 0);
        let mut bytes = SYN_SEGMENT[..20].to_vec();
        bytes[12] = u8::try_from(20 + options.len()).expect("short") << 2;
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn deconstruct() {
        let packet = TcpPacket::new_checked(&SYN_SEGMENT).expect("well-formed");
        assert_eq!((packet.src_port(), packet.dst_port()), (0x8000, 80));
        assert_eq!((packet.header_len(), packet.syn()), (32, true));
        assert_eq!(packet.checksum(), 0);
        assert_eq!(packet.mss(), Some(1460));
        assert_eq!(packet.payload(), [0x61]);
        let kinds: Vec<_> = packet.options().map(|o| (o.kind, o.offset, o.data.len())).collect();
        assert_eq!(kinds, [(1, 21, 0), (2, 23, 2), (1, 26, 0), (3, 28, 1)]);
    }

    #[test]
    fn construct() {
        for (src, dst) in [v4(), v6()] {
            let mut bytes = SYN_SEGMENT;
            let mut packet = TcpPacket::new_checked(&mut bytes).expect("well-formed");
            packet.fill_checksum(src, dst);
            assert!(packet.verify_checksum(src, dst));
            bytes[32] ^= 1;
            let packet = TcpPacket::new_checked(&bytes).expect("well-formed");
            assert!(!packet.verify_checksum(src, dst));
        }
    }

    #[test]
    fn check_len() {
        for len in 0..32 {
            assert!(TcpPacket::new_checked(&SYN_SEGMENT[..len]).is_err(), "{len}");
        }
        for data_offset in [0x00, 0x40, 0x90] {
            let mut bytes = SYN_SEGMENT;
            bytes[12] = data_offset;
            assert!(TcpPacket::new_checked(bytes).is_err(), "{data_offset:#x}");
        }
    }

    #[test]
    fn malformed_options_end_the_walk() {
        for (options, count) in [
            (&[3, 0, 0, 0][..], 0), // length less than kind and length
            (&[3, 1, 0, 0], 0),
            (&[3, 5, 0, 0], 0), // longer than the header
            (&[1, 1, 1, 3], 3), // no length
            (&[0, 2, 4, 5], 0), // after End
        ] {
            let bytes = with_options(options);
            let packet = TcpPacket::new_checked(&bytes).expect("well-formed");
            assert_eq!(packet.options().count(), count, "{options:?}");
            assert_eq!(packet.mss(), None);
        }
    }

    #[test]
    fn an_mss_option_of_wrong_length_is_none() {
        let bytes = with_options(&[2, 3, 5, 1]);
        assert_eq!(TcpPacket::new_checked(&bytes).expect("well-formed").mss(), None);
    }

    #[test]
    fn clamping_keeps_the_checksum_right_at_odd_and_even_offsets() {
        let (src, dst) = v4();
        for mut bytes in [SYN_SEGMENT.to_vec(), with_options(&[2, 4, 0x05, 0xb4])] {
            let mut packet = TcpPacket::new_checked(&mut bytes).expect("well-formed");
            packet.fill_checksum(src, dst);
            assert!(packet.clamp_mss(1360));
            assert_eq!(packet.mss(), Some(1360));
            assert!(packet.verify_checksum(src, dst));
            assert!(!packet.clamp_mss(1360), "low enough");
        }
    }

    #[test]
    fn only_a_syn_is_clamped() {
        let mut bytes = SYN_SEGMENT;
        bytes[13] = 0x10;
        let mut packet = TcpPacket::new_checked(&mut bytes).expect("well-formed");
        assert!(!packet.clamp_mss(500));
        assert_eq!(packet.mss(), Some(1460));
        assert!(!TcpPacket::new_checked(with_options(&[])).expect("well-formed").clamp_mss(5));
    }

    #[test]
    fn the_mss_of_a_whole_packet_fits_the_mtu() {
        let payload_len = u16::try_from(SYN_SEGMENT.len()).expect("short");
        let (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) = v6() else { panic!("IPv6") };
        let v6 = Ipv6Repr {
            src_addr,
            dst_addr,
            next_header: NextHeader::TCP,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            payload_len,
        };
        let mut packet = [&v6.emit()[..], &SYN_SEGMENT].concat();
        assert!(clamp_mss(&mut packet, 1400));
        assert_eq!(packet[63..65], (1340_u16).to_be_bytes());

        let v4 = Ipv4Repr {
            src_addr: [10, 1, 0, 1].into(),
            dst_addr: [10, 2, 0, 1].into(),
            protocol: NextHeader::TCP,
            tos: 0,
            ident: 0,
            dont_fragment: true,
            ttl: 64,
            payload_len,
        };
        let mut packet = [&v4.emit()[..], &SYN_SEGMENT].concat();
        assert!(clamp_mss(&mut packet, 1400));
        assert_eq!(packet[43..45], (1360_u16).to_be_bytes());
        assert!(!clamp_mss(&mut packet, 1400));
        packet[9] = NextHeader::UDP.0;
        assert!(!clamp_mss(&mut packet, 100), "not TCP");
        packet[9] = NextHeader::TCP.0;
        packet[7] = 1;
        assert!(!clamp_mss(&mut packet, 100), "not a first fragment");
        assert!(!clamp_mss(&mut [], 100));
    }
}
