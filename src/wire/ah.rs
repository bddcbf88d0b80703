//! AH: the Authentication Header (RFC 4302 §2).
//!
//! How long the ICV is, and which of its last bytes are padding, is of the algorithm, which is not known here.

use super::field::{put, u16_at, u32_at};
use super::ip::NextHeader;
use super::{Malformed, ParseError};

/// A view of an Authentication Header and what follows it (RFC 4302 §2).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Header   |  Payload Len  |          RESERVED             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                 Security Parameters Index (SPI)               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Sequence Number Field                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                Integrity Check Value-ICV (variable)           |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug)]
pub struct AhPacket<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const NEXT_HEADER: usize = 0;
    pub(super) const PAYLOAD_LEN: usize = 1;
    pub(super) const RESERVED: Range<usize> = 2..4;
    pub(super) const SPI: Range<usize> = 4..8;
    pub(super) const SEQUENCE: Range<usize> = 8..12;
    pub(super) const ICV: usize = 12;
}

impl<T: AsRef<[u8]>> AhPacket<T> {
    /// A view of a header of unknown origin, and of what follows it.
    ///
    /// # Errors
    /// When it is cut, or too short for its fixed fields.
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let packet = Self { buffer };
        packet.check_len()?;
        Ok(packet)
    }

    fn check_len(&self) -> Result<(), ParseError> {
        let error = |offset, why| Err(ParseError { what: "AH", offset, why });
        let available = self.buffer.as_ref().len();
        if available < AhHeader::FIXED_LEN {
            return error(0, Malformed::Truncated { needed: AhHeader::FIXED_LEN, available });
        }
        let needed = self.header_len();
        if needed < AhHeader::FIXED_LEN {
            return error(field::PAYLOAD_LEN, Malformed::BadLength(needed));
        }
        if available < needed {
            return error(0, Malformed::Truncated { needed, available });
        }
        Ok(())
    }

    /// The protocol of what follows.
    #[must_use]
    pub fn next_header(&self) -> NextHeader {
        NextHeader(self.buffer.as_ref()[field::NEXT_HEADER])
    }

    /// Length of the header with ICV and padding, in bytes: Payload Len says it in words of 4, minus 2.
    #[must_use]
    pub fn header_len(&self) -> usize {
        (usize::from(self.buffer.as_ref()[field::PAYLOAD_LEN]) + 2) * 4
    }

    /// RESERVED: covered by the ICV, and else ignored.
    #[must_use]
    pub fn reserved(&self) -> u16 {
        u16_at(self.buffer.as_ref(), field::RESERVED)
    }

    /// Security Parameters Index.
    #[must_use]
    pub fn spi(&self) -> u32 {
        u32_at(self.buffer.as_ref(), field::SPI)
    }

    /// Sequence Number; with ESN its low 32 bits.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32_at(self.buffer.as_ref(), field::SEQUENCE)
    }

    /// ICV and its padding.
    #[must_use]
    pub fn icv(&self) -> &[u8] {
        &self.buffer.as_ref()[field::ICV..self.header_len()]
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[self.header_len()..]
    }
}

/// The fields of an Authentication Header, without the ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AhHeader {
    /// The protocol of what follows.
    pub next_header: NextHeader,
    /// Payload Len: length of the header in words of 4 bytes, minus 2.
    pub payload_len: u8,
    /// Security Parameters Index.
    pub spi: u32,
    /// Sequence Number; with ESN its low 32 bits.
    pub sequence: u32,
}

impl AhHeader {
    /// Length of the fields before the ICV in bytes.
    pub const FIXED_LEN: usize = field::ICV;

    /// The header's fields; RESERVED is not one of them.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &AhPacket<T>) -> Self {
        Self {
            next_header: packet.next_header(),
            payload_len: packet.buffer.as_ref()[field::PAYLOAD_LEN],
            spi: packet.spi(),
            sequence: packet.sequence(),
        }
    }

    /// Payload Len of a header of `header_len` bytes; `None` if there is none that is so long, or not in whole words.
    #[must_use]
    pub fn payload_len_for(header_len: usize) -> Option<u8> {
        if header_len < Self::FIXED_LEN || !header_len.is_multiple_of(4) {
            return None;
        }
        u8::try_from(header_len / 4 - 2).ok()
    }

    /// The fields before the ICV. RESERVED is zero.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::FIXED_LEN] {
        let mut header = [0; Self::FIXED_LEN];
        header[field::NEXT_HEADER] = self.next_header.0;
        header[field::PAYLOAD_LEN] = self.payload_len;
        put(&mut header, field::SPI, &self.spi.to_be_bytes());
        put(&mut header, field::SEQUENCE, &self.sequence.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP after an ICV of 4 bytes, and two bytes of payload.
    const PACKET: [u8; 18] = [17, 2, 0, 0, 1, 2, 3, 4, 0, 0, 0, 5, 0xca, 0xfe, 0xba, 0xbe, 8, 9];
    const HEADER: AhHeader =
        AhHeader { next_header: NextHeader::UDP, payload_len: 2, spi: 0x0102_0304, sequence: 5 };

    #[test]
    fn deconstruct() {
        let packet = AhPacket::new_checked(&PACKET).expect("long enough");
        assert_eq!((packet.next_header(), packet.header_len()), (NextHeader::UDP, 16));
        assert_eq!((packet.reserved(), packet.spi(), packet.sequence()), (0, 0x0102_0304, 5));
        assert_eq!(packet.icv(), [0xca, 0xfe, 0xba, 0xbe]);
        assert_eq!(packet.payload(), [8, 9]);
    }

    #[test]
    fn construct() {
        let bytes = [&HEADER.emit()[..], &[0xca, 0xfe, 0xba, 0xbe], &[8, 9]].concat();
        assert_eq!(bytes, PACKET);
    }

    #[test]
    fn check_len() {
        for len in 0..16 {
            assert!(AhPacket::new_checked(&PACKET[..len]).is_err(), "{len}");
        }
        assert!(AhPacket::new_checked(&PACKET[..16]).expect("a header").payload().is_empty());
        for (payload_len, well) in [(0, false), (1, true), (3, false), (255, false)] {
            let mut bytes = PACKET;
            bytes[1] = payload_len;
            assert_eq!(AhPacket::new_checked(bytes).is_ok(), well, "{payload_len}");
        }
    }

    #[test]
    fn parse() {
        assert_eq!(AhHeader::parse(&AhPacket::new_checked(&PACKET).expect("well")), HEADER);
        let mut reserved = PACKET;
        reserved[3] = 7;
        let packet = AhPacket::new_checked(&reserved).expect("well");
        assert_eq!((AhHeader::parse(&packet), packet.reserved()), (HEADER, 7));
    }

    #[test]
    fn emit() {
        assert_eq!(HEADER.emit(), PACKET[..12]);
    }

    #[test]
    fn length() {
        // RFC 4302 §2.2: 4 for an ICV of 96 bits.
        assert_eq!(AhHeader::payload_len_for(12 + 12), Some(4));
        assert_eq!(AhHeader::payload_len_for(12), Some(1));
        assert_eq!(AhHeader::payload_len_for(257 * 4), Some(255));
        for none in [0, 8, 11, 13, 26, 258 * 4] {
            assert_eq!(AhHeader::payload_len_for(none), None, "{none}");
        }
    }
}
