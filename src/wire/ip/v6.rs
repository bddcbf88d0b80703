//! IPv6 packets (RFC 8200) and what is above their extension headers.

use core::net::Ipv6Addr;

use super::{ExtensionHeaders, NextHeader, UpperLayer};
use crate::wire::field::{get, put, u16_at, u32_at};
use crate::wire::{Malformed, ParseError};

/// A view of an IPv6 packet (RFC 8200 §3).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version| Traffic Class |           Flow Label                  |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +                         Source Address                        +
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +                      Destination Address                      +
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug)]
pub struct Ipv6Packet<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const VER_TC_FLOW: Range<usize> = 0..4;
    pub(super) const PAYLOAD_LEN: Range<usize> = 4..6;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SRC_ADDR: Range<usize> = 8..24;
    pub(super) const DST_ADDR: Range<usize> = 24..40;
}

/// Where in a larger packet a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in the fragmentable part, in bytes.
    pub offset: u16,
    /// Whether fragments follow this one.
    pub more: bool,
    /// Identification.
    pub ident: u32,
}

impl<T: AsRef<[u8]>> Ipv6Packet<T> {
    /// Length of the fixed header in bytes.
    pub const HEADER_LEN: usize = 40;

    /// Offset of the Next Header field.
    pub const NEXT_HEADER_AT: usize = field::NEXT_HEADER;

    /// A view of a packet of unknown origin.
    ///
    /// # Errors
    /// When the version is not 6 or the packet is cut. The buffer may be longer than the packet.
    /// Extension headers are not looked at.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let packet = Self { buffer };
        packet.check_len()?;
        Ok(packet)
    }

    fn check_len(&self) -> Result<(), ParseError> {
        self.check_header()?;
        if self.total_len() > self.buffer.as_ref().len() {
            let payload_len = usize::from(self.payload_len());
            return Err(error(field::PAYLOAD_LEN.start, Malformed::BadLength(payload_len)));
        }
        Ok(())
    }

    fn check_header(&self) -> Result<(), ParseError> {
        let data = self.buffer.as_ref();
        if data.len() < Self::HEADER_LEN {
            let needed = Self::HEADER_LEN;
            return Err(error(0, Malformed::Truncated { needed, available: data.len() }));
        }
        let version = data[0] >> 4;
        if version != 6 {
            return Err(error(0, Malformed::BadValue(version.into())));
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
        &self.buffer.as_ref()[..self.total_len()]
    }

    fn ver_tc_flow(&self) -> u32 {
        u32_at(self.buffer.as_ref(), field::VER_TC_FLOW)
    }

    /// Traffic Class: DSCP and ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        let [high, low] = get(self.buffer.as_ref(), 0..2);
        high << 4 | low >> 4
    }

    /// Differentiated Services Code Point, 6 bits.
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.traffic_class() >> 2
    }

    /// Explicit Congestion Notification, 2 bits.
    #[must_use]
    pub fn ecn(&self) -> u8 {
        self.traffic_class() & 0x03
    }

    /// Flow Label, 20 bits.
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.ver_tc_flow() & 0x000f_ffff
    }

    /// Length of what follows the fixed header, in bytes.
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::PAYLOAD_LEN)
    }

    /// Length of the packet in bytes.
    #[must_use]
    pub fn total_len(&self) -> usize {
        Self::HEADER_LEN + usize::from(self.payload_len())
    }

    /// Type of the header after the fixed one.
    #[must_use]
    pub fn next_header(&self) -> NextHeader {
        NextHeader(self.buffer.as_ref()[field::NEXT_HEADER])
    }

    /// Hop Limit.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.buffer.as_ref()[field::HOP_LIMIT]
    }

    /// Source address.
    #[must_use]
    pub fn src_addr(&self) -> Ipv6Addr {
        get::<16>(self.buffer.as_ref(), field::SRC_ADDR).into()
    }

    /// Destination address.
    #[must_use]
    pub fn dst_addr(&self) -> Ipv6Addr {
        get::<16>(self.buffer.as_ref(), field::DST_ADDR).into()
    }

    /// What follows the fixed header, to the end of the packet.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[Self::HEADER_LEN..self.total_len()]
    }

    /// The extension headers after the fixed one (RFC 8200 §4).
    #[must_use]
    pub fn extension_headers(&self) -> ExtensionHeaders<'_> {
        ExtensionHeaders::new(self.as_bytes(), Self::HEADER_LEN, field::NEXT_HEADER)
    }

    /// Walks over the extension headers to the protocol above IP (RFC 8200 §4).
    ///
    /// ESP, AH and the Mobility Header count as such protocols (RFC 4301 §4.4.1.1). In a fragment past
    /// the first, the walk ends with the Fragment header: what it names is the protocol or an extension
    /// header, and not there.
    ///
    /// # Errors
    /// When an extension header is cut, a Hop-by-Hop Options header is not the first, or there are more
    /// than [`MAX_EXTENSION_HEADERS`](super::MAX_EXTENSION_HEADERS).
    pub fn upper_layer(&self) -> Result<UpperLayer, ParseError> {
        let mut headers = self.extension_headers();
        let mut fragment = None;
        while let Some(header) = headers.next().transpose()? {
            fragment = header.fragment.or(fragment);
        }
        Ok(UpperLayer { protocol: headers.next_header(), offset: headers.offset(), fragment })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6Packet<T> {
    /// A view of a buffer that is one packet from end to end, of which bytes were put in or taken out: its header is
    /// given the length of the buffer.
    ///
    /// # Errors
    /// As [`Self::new_checked`], and when a header cannot say that length. Then nothing has changed.
    pub fn new_resized(buffer: T) -> Result<Self, ParseError> {
        let mut packet = Self { buffer };
        packet.check_header()?;
        let len = packet.buffer.as_ref().len() - Self::HEADER_LEN;
        let Ok(payload_len) = u16::try_from(len) else {
            return Err(error(field::PAYLOAD_LEN.start, Malformed::BadLength(len)));
        };
        packet.set_payload_len(payload_len);
        Ok(packet)
    }

    /// Sets the Traffic Class.
    pub fn set_traffic_class(&mut self, traffic_class: u8) {
        let word = self.ver_tc_flow() & 0xf00f_ffff | u32::from(traffic_class) << 20;
        put(self.buffer.as_mut(), field::VER_TC_FLOW, &word.to_be_bytes());
    }

    /// Sets the ECN field.
    pub fn set_ecn(&mut self, ecn: u8) {
        self.set_traffic_class(self.traffic_class() & !0x03 | ecn & 0x03);
    }

    /// Sets the DSCP.
    pub fn set_dscp(&mut self, dscp: u8) {
        self.set_traffic_class(dscp << 2 | self.ecn());
    }

    /// Sets the Hop Limit.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[field::HOP_LIMIT] = hop_limit;
    }

    /// Sets the length of what follows the fixed header.
    pub fn set_payload_len(&mut self, payload_len: u16) {
        put(self.buffer.as_mut(), field::PAYLOAD_LEN, &payload_len.to_be_bytes());
    }

    /// What follows the fixed header, to the end of the packet.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = Self::HEADER_LEN..self.total_len();
        &mut self.buffer.as_mut()[range]
    }
}

const fn error(offset: usize, why: Malformed) -> ParseError {
    ParseError { what: "IPv6 packet", offset, why }
}

/// The fixed header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// Source address.
    pub src_addr: Ipv6Addr,
    /// Destination address.
    pub dst_addr: Ipv6Addr,
    /// Type of the header after this one.
    pub next_header: NextHeader,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow Label; the low 20 bits count.
    pub flow_label: u32,
    /// Hop Limit.
    pub hop_limit: u8,
    /// Length of what follows, in bytes.
    pub payload_len: u16,
}

impl Ipv6Repr {
    /// Length of the header in bytes.
    pub const LEN: usize = 40;

    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Ipv6Packet<T>) -> Self {
        Self {
            src_addr: packet.src_addr(),
            dst_addr: packet.dst_addr(),
            next_header: packet.next_header(),
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            hop_limit: packet.hop_limit(),
            payload_len: packet.payload_len(),
        }
    }

    /// The header.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut header = [0; Self::LEN];
        let word =
            0x6000_0000 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        put(&mut header, field::VER_TC_FLOW, &word.to_be_bytes());
        put(&mut header, field::PAYLOAD_LEN, &self.payload_len.to_be_bytes());
        header[field::NEXT_HEADER] = self.next_header.0;
        header[field::HOP_LIMIT] = self.hop_limit;
        put(&mut header, field::SRC_ADDR, &self.src_addr.octets());
        put(&mut header, field::DST_ADDR, &self.dst_addr.octets());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::MAX_EXTENSION_HEADERS;

    fn repr() -> Ipv6Repr {
        Ipv6Repr {
            src_addr: "fd0a::1".parse().expect("an address"),
            dst_addr: "fd0b::2".parse().expect("an address"),
            next_header: NextHeader::UDP,
            traffic_class: 0xb9,
            flow_label: 0x1_2345,
            hop_limit: 63,
            payload_len: 4,
        }
    }

    const HEADER: [u8; 40] = [
        0x6b, 0x91, 0x23, 0x45, 0, 4, 17, 63, //
        0xfd, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
        0xfd, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    ];

    fn packet(next_header: NextHeader, payload: &[u8]) -> Vec<u8> {
        let payload_len = u16::try_from(payload.len()).expect("short");
        let mut bytes = Ipv6Repr { next_header, payload_len, ..repr() }.emit().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn upper_layer(next_header: u8, payload: &[u8]) -> Result<UpperLayer, Malformed> {
        let packet = Ipv6Packet::new_checked(packet(NextHeader(next_header), payload));
        packet.expect("well-formed").upper_layer().map_err(|error| error.why)
    }

    #[test]
    fn deconstruct() {
        let packet = Ipv6Packet::new_checked(packet(NextHeader::UDP, &[1, 2, 3, 4]));
        let packet = packet.expect("well-formed");
        assert_eq!((packet.traffic_class(), packet.dscp(), packet.ecn()), (0xb9, 46, 1));
        assert_eq!(packet.flow_label(), 0x1_2345);
        assert_eq!((packet.payload_len(), packet.total_len()), (4, 44));
        assert_eq!((packet.next_header(), packet.hop_limit()), (NextHeader::UDP, 63));
        assert_eq!((packet.src_addr(), packet.dst_addr()), (repr().src_addr, repr().dst_addr));
        assert_eq!(packet.payload(), [1, 2, 3, 4]);
    }

    #[test]
    fn construct() {
        let bytes = Ipv6Repr { traffic_class: 0, hop_limit: 0, payload_len: 0, ..repr() }.emit();
        let mut packet = Ipv6Packet::new_checked(bytes).expect("well-formed");
        packet.set_dscp(46);
        packet.set_ecn(1);
        packet.set_hop_limit(63);
        assert!(packet.payload_mut().is_empty());
        packet.set_payload_len(9);
        assert_eq!(packet.payload_len(), 9);
        packet.set_payload_len(0);
        let parsed = Ipv6Repr::parse(&packet);
        assert_eq!(parsed, Ipv6Repr { payload_len: 0, ..repr() });
    }

    #[test]
    fn check_len() {
        let bytes = packet(NextHeader::UDP, &[1, 2, 3, 4]);
        for len in 0..bytes.len() {
            assert!(Ipv6Packet::new_checked(&bytes[..len]).is_err(), "{len}");
        }
        let mut four = bytes.clone();
        four[0] = 0x45;
        assert!(Ipv6Packet::new_checked(four).is_err());
        let mut long = bytes;
        long.push(0);
        assert_eq!(Ipv6Packet::new_checked(long).expect("padding").payload().len(), 4);
    }

    #[test]
    fn a_resized_packet_has_the_length_of_its_buffer() {
        let mut bytes = HEADER.to_vec();
        for len in [40, 41, 65_575] {
            bytes.resize(len, 0);
            let packet = Ipv6Packet::new_resized(&mut bytes[..]).expect("a whole header");
            assert_eq!(packet.total_len(), len);
        }
        for len in [0, 39, 65_576] {
            bytes.resize(len, 0);
            assert!(Ipv6Packet::new_resized(&mut bytes[..]).is_err(), "{len}");
        }
    }

    #[test]
    fn parse() {
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        let packet = Ipv6Packet::new_checked(bytes).expect("well-formed");
        assert_eq!(Ipv6Repr::parse(&packet), repr());
    }

    #[test]
    fn emit() {
        assert_eq!(repr().emit(), HEADER);
    }

    #[test]
    fn length() {
        assert_eq!(repr().emit().len(), Ipv6Repr::LEN);
        let packet = Ipv6Packet { buffer: repr().emit() };
        assert_eq!(packet.total_len(), 44);
    }

    #[test]
    fn without_extension_headers_the_upper_layer_follows() {
        let upper = upper_layer(58, &[128, 0]).expect("ICMPv6");
        assert_eq!(upper, UpperLayer { protocol: NextHeader::ICMPV6, offset: 40, fragment: None });
    }

    #[test]
    fn extension_headers_are_walked_over() {
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0]; // Hop-by-Hop Options
        payload.extend_from_slice(&[43, 1]); // Destination Options, 16 bytes
        payload.extend_from_slice(&[0; 14]);
        payload.extend_from_slice(&[6, 0, 4, 0, 0, 0, 0, 0]); // Routing
        let upper = upper_layer(0, &payload).expect("TCP");
        assert_eq!(upper, UpperLayer { protocol: NextHeader::TCP, offset: 72, fragment: None });
    }

    #[test]
    fn a_first_fragment_shows_its_protocol() {
        let upper = upper_layer(44, &[60, 0, 0, 1, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0]);
        let upper = upper.expect("UDP after Destination Options");
        let fragment = Some(Fragment { offset: 0, more: true, ident: 9 });
        assert_eq!(upper, UpperLayer { protocol: NextHeader::UDP, offset: 56, fragment });
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        let upper = upper_layer(44, &[60, 0, 0, 16, 0, 0, 0, 9]).expect("a fragment");
        let fragment = Some(Fragment { offset: 16, more: false, ident: 9 });
        let protocol = NextHeader::DESTINATION_OPTIONS;
        assert_eq!(upper, UpperLayer { protocol, offset: 48, fragment });
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let upper = upper_layer(44, &[17, 0, 0, 0, 0, 0, 0, 9]).expect("UDP");
        assert_eq!(upper, UpperLayer { protocol: NextHeader::UDP, offset: 48, fragment: None });
    }

    #[test]
    fn a_cut_or_misplaced_extension_header_is_an_error() {
        for payload in [&[][..], &[6], &[6, 0, 0, 0, 0, 0, 0], &[6, 1, 0, 0, 0, 0, 0, 0]] {
            assert!(upper_layer(60, payload).is_err(), "{payload:?}");
        }
        let twice = [0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(upper_layer(0, &twice), Err(Malformed::BadValue(0)));
    }

    #[test]
    fn the_walk_is_bounded() {
        let chain = |n: usize| [60, 0, 1, 4, 0, 0, 0, 0].repeat(n);
        let most = [chain(MAX_EXTENSION_HEADERS - 1), vec![6, 0, 1, 4, 0, 0, 0, 0]].concat();
        assert_eq!(upper_layer(60, &most).map(|upper| upper.protocol), Ok(NextHeader::TCP));
        assert_eq!(
            upper_layer(60, &chain(MAX_EXTENSION_HEADERS + 1)),
            Err(Malformed::TooMany(MAX_EXTENSION_HEADERS))
        );
    }
}
