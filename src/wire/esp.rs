//! ESP: the header in clear and the trailer inside the ciphertext (RFC 4303 §2).
//!
//! IV and ICV have the lengths of the transform, which is not known here.

use super::field::u32_at;
use super::ip::NextHeader;
use super::{Malformed, ParseError};

/// A view of an ESP packet (RFC 4303 §2).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
/// |               Security Parameters Index (SPI)                 | ^Int.
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |Cov-
/// |                      Sequence Number                          | |ered
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ | ----
/// |                    Payload Data* (variable)                   | |   ^
/// ~                                                               ~ |   |
/// |                                                               | |Conf.
/// +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |Cov-
/// |               |     Padding (0-255 bytes)                     | |ered*
/// +-+-+-+-+-+-+-+-+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |   |
/// |                               |  Pad Length   | Next Header   | v   v
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ------
/// |         Integrity Check Value-ICV   (variable)                |
/// ~                                                               ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug)]
pub struct EspPacket<T> {
    buffer: T,
}

mod field {
    use core::ops::Range;

    pub(super) const SPI: Range<usize> = 0..4;
    pub(super) const SEQUENCE: Range<usize> = 4..8;
    pub(super) const PAYLOAD: usize = 8;
}

impl<T: AsRef<[u8]>> EspPacket<T> {
    /// A view of a packet of unknown origin.
    ///
    /// # Errors
    /// When it is shorter than the header.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, ParseError> {
        let available = buffer.as_ref().len();
        if available < EspHeader::LEN {
            let why = Malformed::Truncated { needed: EspHeader::LEN, available };
            return Err(ParseError { what: "ESP packet", offset: 0, why });
        }
        Ok(Self { buffer })
    }

    /// Security Parameters Index.
    #[must_use]
    #[inline]
    pub fn spi(&self) -> u32 {
        u32_at(self.buffer.as_ref(), field::SPI)
    }

    /// Sequence Number; with ESN its low 32 bits.
    #[must_use]
    #[inline]
    pub fn sequence(&self) -> u32 {
        u32_at(self.buffer.as_ref(), field::SEQUENCE)
    }

    /// IV, ciphertext and ICV.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[field::PAYLOAD..]
    }
}

/// The header of an ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// Security Parameters Index.
    pub spi: u32,
    /// Sequence Number; with ESN its low 32 bits.
    pub sequence: u32,
}

impl EspHeader {
    /// Length of the header in bytes.
    pub const LEN: usize = 8;

    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &EspPacket<T>) -> Self {
        Self { spi: packet.spi(), sequence: packet.sequence() }
    }

    /// The header; without ESN also what the ICV covers before the payload.
    #[must_use]
    #[inline]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let [i0, i1, i2, i3] = self.spi.to_be_bytes();
        let [s0, s1, s2, s3] = self.sequence.to_be_bytes();
        [i0, i1, i2, i3, s0, s1, s2, s3]
    }
}

/// The end of the plaintext: padding, Pad Length, Next Header (RFC 4303 §2.4 to §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspTrailer {
    /// Bytes of padding.
    pub pad_len: u8,
    /// What the payload is.
    pub next_header: NextHeader,
}

impl EspTrailer {
    /// Length of Pad Length and Next Header in bytes.
    pub const FIXED_LEN: usize = 2;

    /// The trailer with the least padding that brings payload and trailer to a multiple of `align`:
    /// the cipher's block size, a power of two of 128 at most, and never less than 4 (RFC 4303 §2.4).
    #[must_use]
    #[inline]
    pub fn aligning(payload_len: usize, align: u8, next_header: NextHeader) -> Self {
        // Blocks are powers of two, and so it takes no division.
        let mask = align.max(4).next_power_of_two().wrapping_sub(1);
        let [.., low] = payload_len.wrapping_add(Self::FIXED_LEN).to_be_bytes();
        Self { pad_len: low.wrapping_neg() & mask, next_header }
    }

    /// Length of padding and trailer in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.pad_len) + Self::FIXED_LEN
    }

    /// A trailer is never empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Reads the trailer at the end of decrypted bytes; what precedes its [`Self::len`] bytes is the
    /// payload.
    ///
    /// # Errors
    /// When there is more padding than bytes, or it is not 1, 2, 3, ... (RFC 4303 §2.4: the receiver
    /// SHOULD inspect it).
    #[inline]
    pub fn parse(plaintext: &[u8]) -> Result<Self, ParseError> {
        let error = |offset, why| Err(ParseError { what: "ESP trailer", offset, why });
        let Some((rest, &[pad_len, next_header])) = plaintext.split_last_chunk() else {
            let available = plaintext.len();
            return error(0, Malformed::Truncated { needed: Self::FIXED_LEN, available });
        };
        let Some(start) = rest.len().checked_sub(pad_len.into()) else {
            return error(rest.len(), Malformed::BadLength(pad_len.into()));
        };
        let mut expected = 0;
        for &byte in &rest[start..] {
            // There are at most 255 of them.
            expected += 1;
            if byte != expected {
                let offset = start + usize::from(expected) - 1;
                return error(offset, Malformed::BadValue(byte.into()));
            }
        }
        Ok(Self { pad_len, next_header: NextHeader(next_header) })
    }

    /// Writes padding and trailer; `out` has [`Self::len`] bytes, and any more are left as they are.
    ///
    /// # Panics
    /// If there are less.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        let (padding, fixed) = out.split_at_mut(self.pad_len.into());
        let mut number = 0;
        for place in padding {
            // There are at most 255 of them.
            number += 1;
            *place = number;
        }
        let fixed = fixed.first_chunk_mut().expect("the trailer has its place");
        *fixed = [self.pad_len, self.next_header.0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 10] = [1, 2, 3, 4, 0, 0, 0, 5, 0xca, 0xfe];
    const HEADER: EspHeader = EspHeader { spi: 0x0102_0304, sequence: 5 };

    #[test]
    fn deconstruct() {
        let packet = EspPacket::new_checked(&PACKET).expect("long enough");
        assert_eq!((packet.spi(), packet.sequence()), (0x0102_0304, 5));
        assert_eq!(packet.payload(), [0xca, 0xfe]);
    }

    #[test]
    fn construct() {
        let mut bytes = HEADER.emit().to_vec();
        bytes.extend_from_slice(&[0xca, 0xfe]);
        assert_eq!(bytes, PACKET);
    }

    #[test]
    fn check_len() {
        for len in 0..8 {
            assert!(EspPacket::new_checked(&PACKET[..len]).is_err(), "{len}");
        }
        assert!(EspPacket::new_checked(&PACKET[..8]).expect("only a header").payload().is_empty());
    }

    #[test]
    fn parse() {
        assert_eq!(EspHeader::parse(&EspPacket::new_checked(&PACKET).expect("well")), HEADER);
        let trailer = EspTrailer { pad_len: 3, next_header: NextHeader::IPV4 };
        assert_eq!(EspTrailer::parse(&[9, 9, 1, 2, 3, 3, 4]), Ok(trailer));
        let bare = EspTrailer { pad_len: 0, next_header: NextHeader::NONE };
        assert_eq!(EspTrailer::parse(&[0, 59]), Ok(bare));
    }

    #[test]
    fn emit() {
        let mut out = [7; 6];
        EspTrailer { pad_len: 3, next_header: NextHeader::IPV6 }.emit(&mut out);
        assert_eq!(out, [1, 2, 3, 3, 41, 7]);
    }

    #[test]
    fn length() {
        assert_eq!(EspTrailer { pad_len: 255, next_header: NextHeader::IPV4 }.len(), 257);
        for align in [1_u8, 4, 8, 16] {
            for payload_len in 0..70 {
                let trailer = EspTrailer::aligning(payload_len, align, NextHeader::IPV4);
                assert_eq!((payload_len + trailer.len()) % usize::from(align.max(4)), 0);
                assert!(trailer.pad_len < align.max(4), "least padding");
            }
        }
    }

    #[test]
    fn a_trailer_that_cannot_be_is_rejected() {
        for plaintext in [&[][..], &[4], &[2, 2, 4], &[9, 2, 2, 4], &[0, 1, 4], &[1, 3, 3, 3, 4]] {
            assert!(EspTrailer::parse(plaintext).is_err(), "{plaintext:?}");
        }
    }

    #[test]
    fn the_longest_padding_is_255_bytes() {
        let trailer = EspTrailer { pad_len: 255, next_header: NextHeader::UDP };
        let mut bytes = vec![0; trailer.len()];
        trailer.emit(&mut bytes);
        assert_eq!(EspTrailer::parse(&bytes), Ok(trailer));
        assert!(EspTrailer::parse(&bytes[1..]).is_err());
    }
}
