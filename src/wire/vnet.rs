//! The virtio network header, which stands before each packet of a TUN with offloads (VIRTIO 1.2 §5.1.6, and Linux's
//! `virtio_net.h`): whether a checksum is still to be made, and into which segments a packet is to be cut.
//!
//! Fields are little-endian, which the TUN has to be asked for. UFO, which makes fragments, is not asked for and not known.

use super::{Malformed, ParseError};

/// How a packet that is longer than the link takes is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gso {
    /// Not at all.
    #[default]
    None,
    /// Into TCP segments over IPv4.
    TcpV4,
    /// Into TCP segments over IPv6.
    TcpV6,
    /// Into UDP datagrams, over either.
    Udp,
}

/// What may come in one piece, besides packets whose checksum is still to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP, over IPv4 and IPv6.
    pub tcp: bool,
    /// UDP, over IPv4 and IPv6.
    pub udp: bool,
}

impl Offloads {
    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { tcp: self.tcp && other.tcp, udp: self.udp && other.udp }
    }
}

/// A checksum that covers all from `start` to the end of the packet, whose field holds the sum of the pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where what it covers begins: the TCP or UDP header.
    pub start: u16,
    /// Where its field is, from there.
    pub offset: u16,
}

/// The header.
///
/// ```text
/// +-------+----------+---------+----------+------------+-------------+
/// | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
/// |  u8   |    u8    |  le16   |   le16   |    le16    |    le16     |
/// +-------+----------+---------+----------+------------+-------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum that is to be made.
    pub checksum: Option<PartialChecksum>,
    /// How to cut it.
    pub gso: Gso,
    /// TCP: the first segment has CWR, and the others are not to have it.
    pub ecn: bool,
    /// Length of the headers that each segment has. A hint: what the headers themselves say counts.
    pub header_len: u16,
    /// Bytes of payload in each segment but the last.
    pub segment_len: u16,
}

/// Bits of `flags`.
const NEEDS_CSUM: u8 = 1;

/// Values of `gso_type`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A bit beside the value.
const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// Length in bytes, without the fields that only virtio's own rings have.
    pub const LEN: usize = 10;

    /// Reads the header.
    ///
    /// # Errors
    /// When it wants a way of cutting that we do not know, or segments of no length.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, ParseError> {
        let &[flags, kind, h0, h1, s0, s1, cs0, cs1, co0, co1] = bytes;
        let error = |offset, why| ParseError { what: "virtio network header", offset, why };
        let gso = match kind & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return Err(error(1, Malformed::BadValue(kind.into()))),
        };
        let segment_len = u16::from_le_bytes([s0, s1]);
        if gso != Gso::None && segment_len == 0 {
            return Err(error(4, Malformed::BadLength(0)));
        }
        let checksum = (flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
            start: u16::from_le_bytes([cs0, cs1]),
            offset: u16::from_le_bytes([co0, co1]),
        });
        let header_len = u16::from_le_bytes([h0, h1]);
        Ok(Self { checksum, gso, ecn: kind & GSO_ECN != 0, header_len, segment_len })
    }

    /// The bytes of the header.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let kind = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let [h0, h1] = self.header_len.to_le_bytes();
        let [s0, s1] = self.segment_len.to_le_bytes();
        let (flags, checksum) = match self.checksum {
            Some(checksum) => (NEEDS_CSUM, checksum),
            None => (0, PartialChecksum { start: 0, offset: 0 }),
        };
        let [cs0, cs1] = checksum.start.to_le_bytes();
        let [co0, co1] = checksum.offset.to_le_bytes();
        let kind = if self.ecn { kind | GSO_ECN } else { kind };
        [flags, kind, h0, h1, s0, s1, cs0, cs1, co0, co1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 10] = [1, 0x81, 66, 0, 0xa8, 5, 34, 0, 16, 0];
    const HEADER: VnetHeader = VnetHeader {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        gso: Gso::TcpV4,
        ecn: true,
        header_len: 66,
        segment_len: 1448,
    };

    #[test]
    fn parse() {
        assert_eq!(VnetHeader::parse(&BYTES), Ok(HEADER));
        assert_eq!(VnetHeader::parse(&[0; 10]), Ok(VnetHeader::default()));
    }

    #[test]
    fn emit() {
        assert_eq!(HEADER.emit(), BYTES);
        assert_eq!(VnetHeader::default().emit(), [0; 10]);
    }

    #[test]
    fn every_kind_comes_back() {
        for (gso, kind) in [(Gso::None, 0), (Gso::TcpV4, 1), (Gso::TcpV6, 4), (Gso::Udp, 5)] {
            let header = VnetHeader { gso, segment_len: 1, ..VnetHeader::default() };
            assert_eq!(header.emit()[1], kind);
            assert_eq!(VnetHeader::parse(&header.emit()), Ok(header));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        // 3 is UFO.
        for kind in [2, 3, 6, 0x7f] {
            let error = VnetHeader::parse(&[0, kind, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap_err();
            assert_eq!((error.offset, error.why), (1, Malformed::BadValue(kind.into())));
        }
        let error = VnetHeader::parse(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!((error.offset, error.why), (4, Malformed::BadLength(0)));
    }
}
