//! ICMP for both IP versions: a view, and the errors that path MTU discovery needs
//! (RFC 792, RFC 1191, RFC 4443).

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Deref;

use super::field::{put, u16_at, u32_at};
use super::ip::{Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NextHeader};
use super::{Malformed, ParseError, checksum};

/// A view of an ICMP or ICMPv6 message (RFC 792, RFC 4443 §2.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |    of the type: identifier and sequence number, or MTU, ...   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |    of the type: data, or the packet that the error is about   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
/// ```
#[derive(Clone, Debug)]
pub struct IcmpPacket<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: Range<usize> = 2..4;
    pub(super) const REST: Range<usize> = 4..8;
    pub(super) const IDENT: Range<usize> = 4..6;
    pub(super) const SEQUENCE: Range<usize> = 6..8;
    pub(super) const PAYLOAD: usize = 8;
}

/// Types and codes of ICMP for IPv4 (RFC 792) that are named here.
pub mod v4 {
    /// Echo Reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination Unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of Destination Unreachable: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Source Quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo.
    pub const ECHO: u8 = 8;
    /// Time Exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter Problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Types of ICMPv6 (RFC 4443) that are named here.
pub mod v6 {
    /// Packet Too Big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// The first type that is informational; those below are errors.
    pub const FIRST_INFORMATIONAL: u8 = 128;
    /// Echo Request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo Reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Redirect (RFC 4861).
    pub const REDIRECT: u8 = 137;
}

impl<T: AsRef<[u8]>> IcmpPacket<T> {
    /// Length of what all messages have, in bytes.
    pub const HEADER_LEN: usize = field::PAYLOAD;

    /// A view of a message of unknown origin.
    ///
    /// # Errors
    /// When it is shorter than 8 bytes. The checksum is not looked at.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let available = buffer.as_ref().len();
        if available < Self::HEADER_LEN {
            let why = Malformed::Truncated { needed: Self::HEADER_LEN, available };
            return Err(ParseError { what: "ICMP message", offset: 0, why });
        }
        Ok(Self { buffer })
    }

    /// Type: see [`v4`] and [`v6`].
    #[must_use]
    pub fn message_type(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE]
    }

    /// Code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[field::CODE]
    }

    /// Checksum.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Identifier of an echo.
    #[must_use]
    pub fn echo_ident(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::IDENT)
    }

    /// Sequence number of an echo.
    #[must_use]
    pub fn echo_sequence(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::SEQUENCE)
    }

    /// Next-hop MTU of a "fragmentation needed" of ICMP for IPv4, in bytes; `None` from a router that
    /// does not say it (RFC 1191 §4).
    #[must_use]
    pub fn next_hop_mtu_v4(&self) -> Option<u16> {
        let is_it =
            self.message_type() == v4::UNREACHABLE && self.code() == v4::FRAGMENTATION_NEEDED;
        Some(u16_at(self.buffer.as_ref(), field::SEQUENCE)).filter(|&mtu| is_it && mtu != 0)
    }

    /// MTU of a Packet Too Big of ICMPv6, in bytes.
    #[must_use]
    pub fn mtu_v6(&self) -> Option<u32> {
        let is_it = self.message_type() == v6::PACKET_TOO_BIG;
        is_it.then(|| u32_at(self.buffer.as_ref(), field::REST))
    }

    /// What follows the 8 bytes: echo data, or the start of the packet that an error is about.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[field::PAYLOAD..]
    }

    /// Whether the checksum of a message of ICMP for IPv4 is right. The buffer ends where it ends.
    #[must_use]
    pub fn verify_checksum_v4(&self) -> bool {
        checksum::data(self.buffer.as_ref()) == !0
    }

    /// Whether the checksum of an ICMPv6 message is right. The buffer ends where it ends.
    #[must_use]
    pub fn verify_checksum_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        sum_v6(self.buffer.as_ref(), src, dst) == !0
    }
}

fn sum_v6(message: &[u8], src: Ipv6Addr, dst: Ipv6Addr) -> u16 {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo = checksum::pseudo_v6(src, dst, NextHeader::ICMPV6, len);
    checksum::combine(&[pseudo, checksum::data(message)])
}

/// A whole IP packet with an ICMP error in it.
#[derive(Clone)]
pub struct ErrorPacket {
    bytes: [u8; Self::MAX_LEN],
    len: usize,
}

impl ErrorPacket {
    /// Length of the longest, in bytes: RFC 4443 §2.4 (c), the minimum MTU of IPv6.
    pub const MAX_LEN: usize = 1280;
    /// Length of the longest over IPv4, in bytes: RFC 1812 §4.3.2.3.
    pub const MAX_LEN_V4: usize = 576;

    /// Puts the parts together, cutting the last where the packet gets longer than `max`.
    fn new(max: usize, parts: [&[u8]; 3]) -> Self {
        let mut packet = Self { bytes: [0; Self::MAX_LEN], len: 0 };
        let places = packet.bytes[..max].iter_mut();
        for (place, byte) in places.zip(parts.into_iter().flatten()) {
            *place = *byte;
            packet.len += 1;
        }
        packet
    }
}

impl Deref for ErrorPacket {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl core::fmt::Debug for ErrorPacket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("ErrorPacket").field(&&**self).finish()
    }
}

/// Destination Unreachable, "fragmentation needed and DF set", with the MTU of the next hop
/// (RFC 792, RFC 1191 §4), to the source of `original`. Quotes as much as fits (RFC 1812 §4.3.2.3).
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Type = 3    |   Code = 4    |           Checksum            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           unused = 0          |         Next-Hop MTU          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |      Internet Header + as much of the data as fits            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
///
/// `None` where no error may be sent (RFC 1122 §3.2.2): about an ICMP error, a fragment past the first,
/// or a packet that is not from one host to one host. Whether DF was set is for the caller to look at.
#[must_use]
pub fn fragmentation_needed<T: AsRef<[u8]>>(
    original: &Ipv4Packet<T>,
    from: Ipv4Addr,
    mtu: u16,
) -> Option<ErrorPacket> {
    let (src, dst) = (original.src_addr(), original.dst_addr());
    let no_host = |a: Ipv4Addr| a.is_multicast() || a.is_broadcast();
    if src.is_unspecified() || no_host(src) || src.is_loopback() || no_host(dst) {
        return None;
    }
    if original.fragment_offset() != 0 {
        return None;
    }
    if original.protocol() == NextHeader::ICMP {
        // Of a message too short for its type nothing is known; it might be an error.
        let message_type = *original.payload().first()?;
        if matches!(
            message_type,
            v4::UNREACHABLE
                | v4::SOURCE_QUENCH
                | v4::REDIRECT
                | v4::TIME_EXCEEDED
                | v4::PARAMETER_PROBLEM
        ) {
            return None;
        }
    }
    let whole = original.as_bytes();
    let room = ErrorPacket::MAX_LEN_V4 - Ipv4Repr::LEN - field::PAYLOAD;
    let quote = &whole[..whole.len().min(room)];
    let mut header = [v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, 0, 0, 0, 0, 0, 0];
    put(&mut header, field::SEQUENCE, &mtu.to_be_bytes());
    let sum = checksum::combine(&[checksum::data(&header), checksum::data(quote)]);
    put(&mut header, field::CHECKSUM, &checksum::finish(sum).to_be_bytes());
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: src,
        protocol: NextHeader::ICMP,
        tos: INTERNETWORK_CONTROL,
        // RFC 6864 §4.1: with DF set, any value.
        ident: 0,
        dont_fragment: true,
        ttl: HOPS,
        payload_len: u16::try_from(header.len() + quote.len()).ok()?,
    };
    Some(ErrorPacket::new(ErrorPacket::MAX_LEN_V4, [&ip.emit(), &header, quote]))
}

/// Packet Too Big (RFC 4443 §3.2) to the source of `original`. Quotes as much as fits into the minimum
/// MTU.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                             MTU                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    As much of invoking packet                 |
/// +               as possible without the ICMPv6 packet           +
/// |               exceeding the minimum IPv6 MTU [IPv6]           |
/// ```
///
/// `None` where no error may be sent (RFC 4443 §2.4 (e)): about an ICMPv6 error or redirect, or where
/// the source is no single node. A multicast destination is no hindrance.
#[must_use]
pub fn packet_too_big<T: AsRef<[u8]>>(
    original: &Ipv6Packet<T>,
    from: Ipv6Addr,
    mtu: u32,
) -> Option<ErrorPacket> {
    let src = original.src_addr();
    if src.is_unspecified() || src.is_multicast() || src.is_loopback() {
        return None;
    }
    let whole = original.as_bytes();
    let upper = original.upper_layer().ok()?;
    let first = upper.fragment.is_none_or(|fragment| fragment.offset == 0);
    if upper.protocol == NextHeader::ICMPV6 && first {
        let message_type = *whole.get(upper.offset)?;
        if message_type < v6::FIRST_INFORMATIONAL || message_type == v6::REDIRECT {
            return None;
        }
    }
    let room = ErrorPacket::MAX_LEN - Ipv6Repr::LEN - field::PAYLOAD;
    let quote = &whole[..whole.len().min(room)];
    let mut header = [v6::PACKET_TOO_BIG, 0, 0, 0, 0, 0, 0, 0];
    put(&mut header, field::REST, &mtu.to_be_bytes());
    let message_len = header.len() + quote.len();
    let pseudo =
        checksum::pseudo_v6(from, src, NextHeader::ICMPV6, u32::try_from(message_len).ok()?);
    let sum = checksum::combine(&[pseudo, checksum::data(&header), checksum::data(quote)]);
    put(&mut header, field::CHECKSUM, &checksum::finish(sum).to_be_bytes());
    let ip = Ipv6Repr {
        src_addr: from,
        dst_addr: src,
        next_header: NextHeader::ICMPV6,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: HOPS,
        payload_len: u16::try_from(message_len).ok()?,
    };
    Some(ErrorPacket::new(ErrorPacket::MAX_LEN, [&ip.emit(), &header, quote]))
}

/// TOS of ICMP errors over IPv4: precedence 6 (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// Time to Live and Hop Limit of what we send on our own account.
const HOPS: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);

    fn repr_v4(protocol: NextHeader, payload_len: u16) -> Ipv4Repr {
        Ipv4Repr {
            src_addr: [10, 1, 0, 1].into(),
            dst_addr: [10, 2, 0, 1].into(),
            protocol,
            tos: 0,
            ident: 1,
            dont_fragment: true,
            ttl: 64,
            payload_len,
        }
    }

    fn packet_v4(repr: Ipv4Repr, payload: &[u8]) -> Ipv4Packet<Vec<u8>> {
        let mut bytes = repr.emit().to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(20 + usize::from(repr.payload_len), 0x55);
        Ipv4Packet::new_checked(bytes).expect("well-formed")
    }

    fn gateway_v6() -> Ipv6Addr {
        "fd0a::ff".parse().expect("an address")
    }

    fn repr_v6(next_header: NextHeader, payload_len: u16) -> Ipv6Repr {
        Ipv6Repr {
            src_addr: "fd0a::1".parse().expect("an address"),
            dst_addr: "fd0b::1".parse().expect("an address"),
            next_header,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            payload_len,
        }
    }

    fn packet_v6(repr: Ipv6Repr, payload: &[u8]) -> Ipv6Packet<Vec<u8>> {
        let mut bytes = repr.emit().to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(40 + usize::from(repr.payload_len), 0x55);
        Ipv6Packet::new_checked(bytes).expect("well-formed")
    }

    /// An echo of ICMP for IPv4.
    const ECHO: [u8; 10] = [8, 0, 0x94, 0x9a, 0x12, 0x34, 0, 5, 0x51, 0x2c];

    #[test]
    fn deconstruct() {
        let echo = IcmpPacket::new_checked(&ECHO).expect("well-formed");
        assert_eq!((echo.message_type(), echo.code()), (v4::ECHO, 0));
        assert_eq!((echo.echo_ident(), echo.echo_sequence()), (0x1234, 5));
        assert_eq!((echo.checksum(), echo.payload()), (0x949a, &[0x51, 0x2c][..]));
        assert_eq!((echo.next_hop_mtu_v4(), echo.mtu_v6()), (None, None));
    }

    #[test]
    fn construct() {
        let mut message = ECHO;
        message[2..4].fill(0);
        let sum = checksum::finish(checksum::data(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert!(IcmpPacket::new_checked(message).expect("well-formed").verify_checksum_v4());
        message[9] ^= 1;
        assert!(!IcmpPacket::new_checked(message).expect("well-formed").verify_checksum_v4());
    }

    #[test]
    fn check_len() {
        for len in 0..8 {
            assert!(IcmpPacket::new_checked(&ECHO[..len]).is_err(), "{len}");
        }
        assert!(IcmpPacket::new_checked(&ECHO[..8]).is_ok());
    }

    #[test]
    fn a_router_that_does_not_say_the_mtu_gives_none() {
        let silent = IcmpPacket::new_checked([3, 4, 0, 0, 0, 0, 0, 0]).expect("well-formed");
        assert_eq!(silent.next_hop_mtu_v4(), None);
    }

    #[test]
    fn fragmentation_needed_quotes_up_to_576_bytes_and_verifies() {
        for payload_len in [8, 529, 2000] {
            let original = packet_v4(repr_v4(NextHeader::UDP, payload_len), &[]);
            let error = fragmentation_needed(&original, GATEWAY_V4, 1400).expect("may be sent");
            let total = 28 + 20 + usize::from(payload_len);
            assert_eq!(error.len(), total.min(576));
            let ip = Ipv4Packet::new_checked(&*error).expect("well-formed");
            assert!(ip.verify_checksum());
            assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY_V4, original.src_addr()));
            let icmp = IcmpPacket::new_checked(ip.payload()).expect("well-formed");
            assert!(icmp.verify_checksum_v4());
            assert_eq!(icmp.next_hop_mtu_v4(), Some(1400));
            assert!(original.as_bytes().starts_with(icmp.payload()));
        }
    }

    #[test]
    fn packet_too_big_quotes_up_to_1280_bytes_and_verifies() {
        for payload_len in [8, 1201, 2000] {
            let original = packet_v6(repr_v6(NextHeader::UDP, payload_len), &[]);
            let error = packet_too_big(&original, gateway_v6(), 1400).expect("may be sent");
            let total = 48 + 40 + usize::from(payload_len);
            assert_eq!(error.len(), total.min(1280));
            let ip = Ipv6Packet::new_checked(&*error).expect("well-formed");
            assert_eq!((ip.src_addr(), ip.dst_addr()), (gateway_v6(), original.src_addr()));
            let icmp = IcmpPacket::new_checked(ip.payload()).expect("well-formed");
            assert!(icmp.verify_checksum_v6(ip.src_addr(), ip.dst_addr()));
            assert_eq!(icmp.mtu_v6(), Some(1400));
            assert!(original.as_bytes().starts_with(icmp.payload()));
        }
    }

    #[test]
    fn no_error_is_sent_about_an_icmp_error() {
        for (message_type, sent) in [(3, false), (4, false), (5, false), (11, false), (12, false)]
            .into_iter()
            .chain([(8, true), (0, true), (13, true)])
        {
            let original = packet_v4(repr_v4(NextHeader::ICMP, 8), &[message_type]);
            let error = fragmentation_needed(&original, GATEWAY_V4, 1400);
            assert_eq!(error.is_some(), sent, "type {message_type}");
        }
        assert!(
            fragmentation_needed(&packet_v4(repr_v4(NextHeader::ICMP, 0), &[]), GATEWAY_V4, 1400)
                .is_none()
        );
        for (message_type, sent) in
            [(1, false), (2, false), (127, false), (128, true), (137, false)]
        {
            let original = packet_v6(repr_v6(NextHeader::ICMPV6, 8), &[message_type]);
            let error = packet_too_big(&original, gateway_v6(), 1400);
            assert_eq!(error.is_some(), sent, "type {message_type}");
        }
    }

    #[test]
    fn no_error_is_sent_about_a_later_fragment_of_ipv4() {
        let mut bytes = packet_v4(repr_v4(NextHeader::UDP, 8), &[]).into_inner();
        bytes[7] = 1;
        let original = Ipv4Packet::new_checked(bytes).expect("well-formed");
        assert!(fragmentation_needed(&original, GATEWAY_V4, 1400).is_none());
    }

    #[test]
    fn no_error_is_sent_unless_source_and_destination_are_hosts() {
        for src in [[0, 0, 0, 0], [224, 0, 0, 1], [255; 4], [127, 0, 0, 1]] {
            let repr = Ipv4Repr { src_addr: src.into(), ..repr_v4(NextHeader::UDP, 8) };
            assert!(fragmentation_needed(&packet_v4(repr, &[]), GATEWAY_V4, 1400).is_none());
        }
        for dst in [[224, 0, 0, 1], [255; 4]] {
            let repr = Ipv4Repr { dst_addr: dst.into(), ..repr_v4(NextHeader::UDP, 8) };
            assert!(fragmentation_needed(&packet_v4(repr, &[]), GATEWAY_V4, 1400).is_none());
        }
        for src in ["::", "ff02::1", "::1"] {
            let src_addr = src.parse().expect("an address");
            let repr = Ipv6Repr { src_addr, ..repr_v6(NextHeader::UDP, 8) };
            assert!(packet_too_big(&packet_v6(repr, &[]), gateway_v6(), 1400).is_none(), "{src}");
        }
        // RFC 4443 §2.4 (e.3): the exception for Packet Too Big.
        let dst_addr = "ff0e::1".parse().expect("an address");
        let repr = Ipv6Repr { dst_addr, ..repr_v6(NextHeader::UDP, 8) };
        assert!(packet_too_big(&packet_v6(repr, &[]), gateway_v6(), 1400).is_some());
    }
}
