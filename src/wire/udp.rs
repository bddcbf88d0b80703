//! UDP datagrams (RFC 768).

use core::net::IpAddr;

use super::field::{put, u16_at};
use super::ip::NextHeader;
use super::{Malformed, ParseError, checksum};

/// A view of a UDP datagram (RFC 768).
///
/// ```text
///  0      7 8     15 16    23 24    31
/// +--------+--------+--------+--------+
/// |     Source      |   Destination   |
/// |      Port       |      Port       |
/// +--------+--------+--------+--------+
/// |                 |                 |
/// |     Length      |    Checksum     |
/// +--------+--------+--------+--------+
/// |
/// |          data octets ...
/// +---------------- ...
/// ```
#[derive(Clone, Debug)]
pub struct UdpPacket<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const SRC_PORT: Range<usize> = 0..2;
    pub(super) const DST_PORT: Range<usize> = 2..4;
    pub(super) const LENGTH: Range<usize> = 4..6;
    pub(super) const CHECKSUM: Range<usize> = 6..8;
    pub(super) const PAYLOAD: usize = 8;
}

impl<T: AsRef<[u8]>> UdpPacket<T> {
    /// Length of the header in bytes.
    pub const HEADER_LEN: usize = field::PAYLOAD;

    /// A view of a datagram of unknown origin.
    ///
    /// # Errors
    /// When the Length field is less than the header or more than the buffer, which may be longer than
    /// the datagram. The checksum is not looked at.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let packet = Self { buffer };
        let error = |offset, why| Err(ParseError { what: "UDP datagram", offset, why });
        let available = packet.buffer.as_ref().len();
        if available < Self::HEADER_LEN {
            return error(0, Malformed::Truncated { needed: Self::HEADER_LEN, available });
        }
        let length = usize::from(packet.length());
        if length < Self::HEADER_LEN || length > available {
            return error(field::LENGTH.start, Malformed::BadLength(length));
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

    /// Length of the datagram with its header, in bytes.
    #[must_use]
    pub fn length(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::LENGTH)
    }

    /// Checksum; zero if the sender computed none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// The data.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[field::PAYLOAD..usize::from(self.length())]
    }

    /// Whether the checksum is right for these addresses: over IPv4 also if there is none, over IPv6
    /// only if there is one (RFC 8200 §8.1). Addresses of two versions have no checksum.
    #[must_use]
    pub fn verify_checksum(&self, src: IpAddr, dst: IpAddr) -> bool {
        if self.checksum() == 0 {
            return src.is_ipv4() && dst.is_ipv4();
        }
        self.sum(src, dst) == Some(!0)
    }

    fn sum(&self, src: IpAddr, dst: IpAddr) -> Option<u16> {
        let pseudo = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                checksum::pseudo_v4(src, dst, NextHeader::UDP, self.length())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                checksum::pseudo_v6(src, dst, NextHeader::UDP, self.length().into())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let data = checksum::data(&self.buffer.as_ref()[..usize::from(self.length())]);
        Some(checksum::combine(&[pseudo, data]))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> UdpPacket<T> {
    /// Sets the source port; the checksum is not touched.
    pub fn set_src_port(&mut self, port: u16) {
        put(self.buffer.as_mut(), field::SRC_PORT, &port.to_be_bytes());
    }

    /// Sets the destination port; the checksum is not touched.
    pub fn set_dst_port(&mut self, port: u16) {
        put(self.buffer.as_mut(), field::DST_PORT, &port.to_be_bytes());
    }

    /// Computes the checksum for these addresses, of one IP version.
    pub fn fill_checksum(&mut self, src: IpAddr, dst: IpAddr) {
        put(self.buffer.as_mut(), field::CHECKSUM, &[0, 0]);
        // RFC 768: a computed zero is sent as all ones, since zero says that there is none.
        let sum = match self.sum(src, dst).map(checksum::finish) {
            Some(0) => 0xffff,
            Some(sum) => sum,
            None => 0,
        };
        put(self.buffer.as_mut(), field::CHECKSUM, &sum.to_be_bytes());
    }
}

/// The header of a datagram that we make, without checksum: RFC 3948 §2.1 wants none on
/// UDP-encapsulated ESP over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpRepr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of the data in bytes, at most 65,527.
    pub payload_len: u16,
}

impl UdpRepr {
    /// Length of the header in bytes.
    pub const LEN: usize = 8;

    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &UdpPacket<T>) -> Self {
        Self {
            src_port: packet.src_port(),
            dst_port: packet.dst_port(),
            payload_len: u16::try_from(packet.payload().len()).unwrap_or(u16::MAX),
        }
    }

    /// The header. A payload that is too long has no header: the length saturates.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut header = [0; Self::LEN];
        put(&mut header, field::SRC_PORT, &self.src_port.to_be_bytes());
        put(&mut header, field::DST_PORT, &self.dst_port.to_be_bytes());
        put(&mut header, field::LENGTH, &self.payload_len.saturating_add(8).to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 12] = [0x11, 0x94, 0x01, 0xf4, 0, 12, 0x12, 0x4d, 0xaa, 0, 0, 0xff];

    fn v4() -> (IpAddr, IpAddr) {
        ([192, 168, 1, 1].into(), [192, 168, 1, 2].into())
    }

    fn v6() -> (IpAddr, IpAddr) {
        ("fd0a::1".parse().expect("an address"), "fd0b::1".parse().expect("an address"))
    }

    #[test]
    fn deconstruct() {
        let packet = UdpPacket::new_checked(&DATAGRAM).expect("well-formed");
        assert_eq!((packet.src_port(), packet.dst_port()), (4500, 500));
        assert_eq!((packet.length(), packet.checksum()), (12, 0x124d));
        assert_eq!(packet.payload(), [0xaa, 0, 0, 0xff]);
    }

    #[test]
    fn construct() {
        for (src, dst) in [v4(), v6()] {
            let mut bytes = DATAGRAM;
            let mut packet = UdpPacket::new_checked(&mut bytes).expect("well-formed");
            packet.set_src_port(1);
            packet.set_dst_port(2);
            packet.fill_checksum(src, dst);
            assert!(packet.verify_checksum(src, dst));
            assert_eq!((packet.src_port(), packet.dst_port()), (1, 2));
            packet.set_dst_port(3);
            assert!(!packet.verify_checksum(src, dst));
        }
    }

    #[test]
    fn check_len() {
        for len in 0..DATAGRAM.len() {
            assert!(UdpPacket::new_checked(&DATAGRAM[..len]).is_err(), "{len}");
        }
        for length in [7, 13] {
            let mut bytes = DATAGRAM;
            bytes[5] = length;
            assert!(UdpPacket::new_checked(bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn parse() {
        let packet = UdpPacket::new_checked(&DATAGRAM).expect("well-formed");
        let repr = UdpRepr { src_port: 4500, dst_port: 500, payload_len: 4 };
        assert_eq!(UdpRepr::parse(&packet), repr);
    }

    #[test]
    fn emit() {
        let repr = UdpRepr { src_port: 4500, dst_port: 500, payload_len: 4 };
        assert_eq!(repr.emit(), [0x11, 0x94, 0x01, 0xf4, 0, 12, 0, 0]);
    }

    #[test]
    fn length() {
        let repr = UdpRepr { src_port: 1, dst_port: 2, payload_len: u16::MAX };
        assert_eq!(repr.emit().len(), UdpRepr::LEN);
        assert_eq!(repr.emit()[4..6], [0xff, 0xff]);
    }

    #[test]
    fn a_missing_checksum_is_right_over_ipv4_only() {
        let mut bytes = DATAGRAM;
        bytes[6..8].fill(0);
        let packet = UdpPacket::new_checked(bytes).expect("well-formed");
        assert!(packet.verify_checksum(v4().0, v4().1));
        assert!(!packet.verify_checksum(v6().0, v6().1));
        assert!(!packet.verify_checksum(v4().0, v6().1));
    }

    #[test]
    fn a_computed_zero_is_sent_as_all_ones() {
        let (src, dst) = v4();
        let mut bytes = DATAGRAM;
        let mut packet = UdpPacket::new_checked(&mut bytes).expect("well-formed");
        packet.fill_checksum(src, dst);
        // The checksum as a word of the data brings the sum to all ones.
        let sum = packet.checksum();
        bytes[8..10].copy_from_slice(&(0xaa00_u16).to_be_bytes());
        bytes[10..12].copy_from_slice(&checksum::combine(&[0x00ff, sum]).to_be_bytes());
        let mut packet = UdpPacket::new_checked(&mut bytes).expect("well-formed");
        packet.fill_checksum(src, dst);
        assert_eq!(packet.checksum(), 0xffff);
        assert!(packet.verify_checksum(src, dst));
    }
}
