//! IPv4 packets (RFC 791; DSCP RFC 2474, ECN RFC 3168).

use core::net::Ipv4Addr;

use super::{Fragment, NextHeader, UpperLayer};
use crate::wire::field::{get, put, u16_at};
use crate::wire::{Malformed, ParseError, checksum};

/// A view of an IPv4 packet (RFC 791 §3.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version|  IHL  |Type of Service|          Total Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Identification        |Flags|      Fragment Offset    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       Source Address                          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Destination Address                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Options                    |    Padding    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug)]
pub struct Ipv4Packet<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const VER_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LEN: Range<usize> = 2..4;
    pub(super) const IDENT: Range<usize> = 4..6;
    pub(super) const FLAGS_OFFSET: Range<usize> = 6..8;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: Range<usize> = 10..12;
    pub(super) const SRC_ADDR: Range<usize> = 12..16;
    pub(super) const DST_ADDR: Range<usize> = 16..20;
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

impl<T: AsRef<[u8]>> Ipv4Packet<T> {
    /// Length of a header without options, in bytes.
    pub const MIN_HEADER_LEN: usize = 20;

    /// Offset of the byte that names the protocol of the payload.
    pub const PROTOCOL_AT: usize = field::PROTOCOL;

    /// A view of a packet of unknown origin.
    ///
    /// # Errors
    /// When version, header length or total length are wrong. The buffer may be longer than the packet.
    /// The checksum is not looked at.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let packet = Self { buffer };
        packet.check_len()?;
        Ok(packet)
    }

    fn check_len(&self) -> Result<(), ParseError> {
        self.check_header()?;
        let total_len = usize::from(self.total_len());
        if total_len < self.header_len() || total_len > self.buffer.as_ref().len() {
            return Err(error(field::TOTAL_LEN.start, Malformed::BadLength(total_len)));
        }
        Ok(())
    }

    fn check_header(&self) -> Result<(), ParseError> {
        let data = self.buffer.as_ref();
        if data.len() < Self::MIN_HEADER_LEN {
            let needed = Self::MIN_HEADER_LEN;
            return Err(error(0, Malformed::Truncated { needed, available: data.len() }));
        }
        let version = data[field::VER_IHL] >> 4;
        if version != 4 {
            return Err(error(0, Malformed::BadValue(version.into())));
        }
        if self.header_len() < Self::MIN_HEADER_LEN {
            return Err(error(0, Malformed::BadLength(self.header_len())));
        }
        Ok(())
    }

    /// The buffer, for who wants its bytes.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// The packet from its first to its last byte; the buffer may be longer.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer.as_ref()[..usize::from(self.total_len())]
    }

    /// Length of the header with options, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::VER_IHL] & 0x0f) * 4
    }

    /// The Type of Service byte: DSCP and ECN.
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.buffer.as_ref()[field::TOS]
    }

    /// Differentiated Services Code Point, 6 bits.
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.tos() >> 2
    }

    /// Explicit Congestion Notification, 2 bits.
    #[must_use]
    pub fn ecn(&self) -> u8 {
        self.tos() & 0x03
    }

    /// Length of the packet in bytes.
    #[must_use]
    pub fn total_len(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::TOTAL_LEN)
    }

    /// Identification.
    #[must_use]
    pub fn ident(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::IDENT)
    }

    /// The DF flag.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset() & DONT_FRAGMENT != 0
    }

    /// The MF flag.
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset() & MORE_FRAGMENTS != 0
    }

    /// Fragment Offset in bytes.
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_offset() & OFFSET_MASK) << 3
    }

    /// Where in a larger packet this fragment belongs; `None` for a whole packet.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        let fragment = Fragment {
            offset: self.fragment_offset(),
            more: self.more_fragments(),
            ident: self.ident().into(),
        };
        (fragment.more || fragment.offset != 0).then_some(fragment)
    }

    fn flags_offset(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::FLAGS_OFFSET)
    }

    /// Time to Live.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.buffer.as_ref()[field::TTL]
    }

    /// Protocol of the payload.
    #[must_use]
    pub fn protocol(&self) -> NextHeader {
        NextHeader(self.buffer.as_ref()[field::PROTOCOL])
    }

    /// Header Checksum.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Whether the header checksum is right.
    #[must_use]
    pub fn verify_checksum(&self) -> bool {
        checksum::data(&self.buffer.as_ref()[..self.header_len()]) == !0
    }

    /// Source address.
    #[must_use]
    pub fn src_addr(&self) -> Ipv4Addr {
        get::<4>(self.buffer.as_ref(), field::SRC_ADDR).into()
    }

    /// Destination address.
    #[must_use]
    pub fn dst_addr(&self) -> Ipv4Addr {
        get::<4>(self.buffer.as_ref(), field::DST_ADDR).into()
    }

    /// Options with their padding.
    #[must_use]
    pub fn options(&self) -> &[u8] {
        &self.buffer.as_ref()[Self::MIN_HEADER_LEN..self.header_len()]
    }

    /// What follows the header, to the end of the packet.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..usize::from(self.total_len())]
    }

    /// The protocol of the payload and where it begins.
    #[must_use]
    pub fn upper_layer(&self) -> UpperLayer {
        UpperLayer {
            protocol: self.protocol(),
            offset: self.header_len(),
            fragment: self.fragment(),
        }
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4Packet<T> {
    /// A view of a buffer that is one packet from end to end, of which bytes were put in or taken out: its header is
    /// given the length of the buffer, with the checksum as [`Self::set_tos`].
    ///
    /// # Errors
    /// As [`Self::new_checked`], and when a header cannot say that length. Then nothing has changed.
    pub fn new_resized(buffer: T) -> Result<Self, ParseError> {
        let mut packet = Self { buffer };
        packet.check_header()?;
        let len = packet.buffer.as_ref().len();
        match u16::try_from(len) {
            Ok(total_len) if len >= packet.header_len() => packet.set_total_len(total_len),
            _ => return Err(error(field::TOTAL_LEN.start, Malformed::BadLength(len))),
        }
        Ok(packet)
    }

    /// Sets the TOS byte and brings the checksum up to date (RFC 1624); one that was wrong stays wrong.
    pub fn set_tos(&mut self, tos: u8) {
        self.set_byte(field::TOS, tos);
    }

    /// Sets the ECN field, as [`Self::set_tos`].
    pub fn set_ecn(&mut self, ecn: u8) {
        self.set_tos(self.tos() & !0x03 | ecn & 0x03);
    }

    /// Sets the DSCP, as [`Self::set_tos`].
    pub fn set_dscp(&mut self, dscp: u8) {
        self.set_tos(dscp << 2 | self.ecn());
    }

    /// Sets the Time to Live, with the checksum as [`Self::set_tos`].
    pub fn set_ttl(&mut self, ttl: u8) {
        self.set_byte(field::TTL, ttl);
    }

    /// Sets or clears DF, with the checksum as [`Self::set_tos`].
    pub fn set_dont_fragment(&mut self, dont_fragment: bool) {
        let flags = self.flags_offset() & !DONT_FRAGMENT;
        let flags = if dont_fragment { flags | DONT_FRAGMENT } else { flags };
        self.set_word(field::FLAGS_OFFSET.start, flags);
    }

    /// Sets the Identification, with the checksum as [`Self::set_tos`].
    pub fn set_ident(&mut self, ident: u16) {
        self.set_word(field::IDENT.start, ident);
    }

    /// Sets the length of the packet, with the checksum as [`Self::set_tos`].
    pub fn set_total_len(&mut self, total_len: u16) {
        self.set_word(field::TOTAL_LEN.start, total_len);
    }

    /// Sets the protocol of the payload, with the checksum as [`Self::set_tos`].
    pub fn set_protocol(&mut self, protocol: NextHeader) {
        self.set_byte(field::PROTOCOL, protocol.0);
    }

    /// Computes the header checksum anew.
    pub fn fill_checksum(&mut self) {
        let header_len = self.header_len();
        let data = self.buffer.as_mut();
        put(data, field::CHECKSUM, &[0, 0]);
        let sum = checksum::finish(checksum::data(&data[..header_len]));
        put(data, field::CHECKSUM, &sum.to_be_bytes());
    }

    /// What follows the header, to the end of the packet.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = self.header_len()..usize::from(self.total_len());
        &mut self.buffer.as_mut()[range]
    }

    fn set_byte(&mut self, at: usize, value: u8) {
        let word = at & !1;
        let mut bytes = get::<2>(self.buffer.as_ref(), word..word + 2);
        bytes[at & 1] = value;
        self.set_word(word, u16::from_be_bytes(bytes));
    }

    fn set_word(&mut self, at: usize, value: u16) {
        let old = u16_at(self.buffer.as_ref(), at..at + 2);
        let sum = checksum::update(self.checksum(), old, value);
        let data = self.buffer.as_mut();
        put(data, at..at + 2, &value.to_be_bytes());
        put(data, field::CHECKSUM, &sum.to_be_bytes());
    }
}

const fn error(offset: usize, why: Malformed) -> ParseError {
    ParseError { what: "IPv4 packet", offset, why }
}

/// The header of a packet that we make: whole, without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Source address.
    pub src_addr: Ipv4Addr,
    /// Destination address.
    pub dst_addr: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: NextHeader,
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification. RFC 6864 §4.1: without meaning where DF is set.
    pub ident: u16,
    /// The DF flag.
    pub dont_fragment: bool,
    /// Time to Live.
    pub ttl: u8,
    /// Length of the payload in bytes, at most 65,515.
    pub payload_len: u16,
}

impl Ipv4Repr {
    /// Length of the header in bytes.
    pub const LEN: usize = 20;

    /// The header's fields; `None` if it has options or is a fragment's, which have no such form.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Ipv4Packet<T>) -> Option<Self> {
        if packet.header_len() != Self::LEN || packet.fragment().is_some() {
            return None;
        }
        Some(Self {
            src_addr: packet.src_addr(),
            dst_addr: packet.dst_addr(),
            protocol: packet.protocol(),
            tos: packet.tos(),
            ident: packet.ident(),
            dont_fragment: packet.dont_fragment(),
            ttl: packet.ttl(),
            payload_len: u16::try_from(packet.payload().len()).unwrap_or(u16::MAX),
        })
    }

    /// The header with its checksum. A payload that is too long has no header: the length saturates.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut header = [0; Self::LEN];
        header[field::VER_IHL] = 0x45;
        header[field::TOS] = self.tos;
        let total_len = self.payload_len.saturating_add(20);
        put(&mut header, field::TOTAL_LEN, &total_len.to_be_bytes());
        put(&mut header, field::IDENT, &self.ident.to_be_bytes());
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        put(&mut header, field::FLAGS_OFFSET, &flags.to_be_bytes());
        header[field::TTL] = self.ttl;
        header[field::PROTOCOL] = self.protocol.0;
        put(&mut header, field::SRC_ADDR, &self.src_addr.octets());
        put(&mut header, field::DST_ADDR, &self.dst_addr.octets());
        let sum = checksum::finish(checksum::data(&header));
        put(&mut header, field::CHECKSUM, &sum.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment with one option (router alert) and four bytes of payload.
    const PACKET: [u8; 28] = [
        0x46, 0xb9, 0x00, 0x1c, 0x12, 0x34, 0x20, 0x03, 0x40, 0x11, 0x97, 0xcf, 10, 1, 2, 3, 10, 4,
        5, 6, 0x94, 0x04, 0, 0, 0xde, 0xad, 0xbe, 0xef,
    ];

    fn repr() -> Ipv4Repr {
        Ipv4Repr {
            src_addr: [192, 0, 2, 1].into(),
            dst_addr: [192, 0, 2, 2].into(),
            protocol: NextHeader::ESP,
            tos: 0x02,
            ident: 7,
            dont_fragment: true,
            ttl: 63,
            payload_len: 4,
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Ipv4Packet::new_checked(&PACKET).expect("well-formed");
        assert_eq!(packet.header_len(), 24);
        assert_eq!((packet.tos(), packet.dscp(), packet.ecn()), (0xb9, 46, 1));
        assert_eq!(packet.total_len(), 28);
        assert_eq!(packet.ident(), 0x1234);
        assert!(!packet.dont_fragment());
        assert!(packet.more_fragments());
        assert_eq!(packet.fragment_offset(), 24);
        assert_eq!(packet.fragment(), Some(Fragment { offset: 24, more: true, ident: 0x1234 }));
        assert_eq!(packet.ttl(), 64);
        assert_eq!(packet.protocol(), NextHeader::UDP);
        assert!(packet.verify_checksum());
        assert_eq!(packet.src_addr(), Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(packet.dst_addr(), Ipv4Addr::new(10, 4, 5, 6));
        assert_eq!(packet.options(), [0x94, 0x04, 0, 0]);
        assert_eq!(packet.payload(), [0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(packet.upper_layer().offset, 24);
    }

    #[test]
    fn construct() {
        let mut bytes = PACKET;
        bytes[1] = 0;
        bytes[4..11].fill(0);
        let mut packet = Ipv4Packet::new_checked(&mut bytes).expect("well-formed");
        packet.fill_checksum();
        packet.set_dscp(46);
        packet.set_ecn(1);
        packet.set_ident(0x1234);
        packet.set_ttl(64);
        packet.set_dont_fragment(true);
        packet.payload_mut()[0] = 1;
        packet.set_protocol(NextHeader::AH);
        packet.set_total_len(25);
        assert!(packet.verify_checksum());
        assert_eq!((packet.dscp(), packet.ecn(), packet.ident()), (46, 1, 0x1234));
        assert_eq!((packet.ttl(), packet.dont_fragment()), (64, true));
        assert_eq!((packet.protocol(), packet.total_len()), (NextHeader::AH, 25));
        packet.set_dont_fragment(false);
        assert!(!packet.dont_fragment());
        assert!(packet.verify_checksum());
        assert_eq!(bytes[24], 1);
    }

    #[test]
    fn check_len() {
        for len in 0..PACKET.len() {
            assert!(Ipv4Packet::new_checked(&PACKET[..len]).is_err(), "{len}");
        }
        // Version, IHL, total length shorter than the header, longer than the buffer.
        for (index, value) in [(0, 0x66), (0, 0x44), (0, 0x48), (3, 23), (3, 29)] {
            let mut bytes = PACKET;
            bytes[index] = value;
            assert!(Ipv4Packet::new_checked(bytes).is_err(), "{index}");
        }
    }

    #[test]
    fn a_resized_packet_has_the_length_of_its_buffer() {
        let mut bytes = PACKET.to_vec();
        let mut packet = Ipv4Packet::new_checked(&mut bytes[..]).expect("well-formed");
        packet.fill_checksum();
        for len in [24, 27, 65_535] {
            bytes.resize(len, 0);
            let packet = Ipv4Packet::new_resized(&mut bytes[..]).expect("a whole header");
            assert_eq!(usize::from(packet.total_len()), len);
            assert!(packet.verify_checksum());
        }
        for len in [0, 19, 23, 65_536] {
            bytes.resize(len, 0);
            assert!(Ipv4Packet::new_resized(&mut bytes[..]).is_err(), "{len}");
        }
    }

    #[test]
    fn bytes_after_the_packet_are_not_payload() {
        let mut long = PACKET.to_vec();
        long.extend_from_slice(&[1, 2, 3]);
        let packet = Ipv4Packet::new_checked(long).expect("padding is no error");
        assert_eq!(packet.payload().len(), 4);
        assert_eq!(packet.into_inner().len(), 31);
    }

    #[test]
    fn parse() {
        let mut bytes = repr().emit().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        let packet = Ipv4Packet::new_checked(&bytes).expect("well-formed");
        assert_eq!(Ipv4Repr::parse(&packet), Some(repr()));
        let fragment = Ipv4Packet::new_checked(&PACKET).expect("well-formed");
        assert_eq!(Ipv4Repr::parse(&fragment), None);
    }

    #[test]
    fn emit() {
        assert_eq!(
            repr().emit(),
            [0x45, 0x02, 0, 24, 0, 7, 0x40, 0, 63, 50, 0xb7, 0xa7, 192, 0, 2, 1, 192, 0, 2, 2]
        );
    }

    #[test]
    fn length() {
        let packet = Ipv4Packet { buffer: repr().emit() };
        assert_eq!(packet.header_len(), Ipv4Repr::LEN);
        assert_eq!(packet.total_len(), 24);
        let long = Ipv4Repr { payload_len: u16::MAX, ..repr() };
        assert!(Ipv4Packet::new_checked(long.emit()).is_err());
    }

    #[test]
    fn a_wrong_checksum_stays_wrong_when_a_field_changes() {
        let mut bytes = PACKET;
        bytes[11] ^= 1;
        let mut packet = Ipv4Packet::new_checked(bytes).expect("the checksum is not looked at");
        assert!(!packet.verify_checksum());
        packet.set_tos(0);
        assert!(!packet.verify_checksum());
    }
}
