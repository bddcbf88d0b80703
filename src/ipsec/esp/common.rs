//! [`Common`]: the form that ESP has under nearly every SA, made and read in a few steps. `Esp` makes and reads every form, and
//! agrees.

use super::super::replay::IcvVerified;
use super::super::{DropReason, Spi};
use super::Payload;
use crate::crypto::aead::{Aead, WholeAead};
use crate::wire::esp::{EspHeader, EspTrailer};
use crate::wire::ip::NextHeader;

/// An AEAD whose IV of 8 bytes is sent and whose ICV has 16, for payloads that are aligned to 4: AES-GCM with keys of 128 and
/// 256 bits, and ChaCha20-Poly1305 (RFC 4106, RFC 7634).
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Common<'a> {
    aead: WholeAead<'a>,
    spi: Spi,
    esn: bool,
}

/// ESP header and IV.
const FRONT: usize = EspHeader::LEN + Aead::IV_LEN;
const ICV: usize = Aead::MAX_ICV_LEN;

impl<'a> Common<'a> {
    pub(super) const fn new(aead: WholeAead<'a>, spi: Spi, esn: bool) -> Self {
        Self { aead, spi, esn }
    }

    /// As [`WholeAead::fetch`].
    #[inline]
    pub(in super::super) fn fetch(&self) {
        self.aead.fetch();
    }

    /// How many bytes have to be made room for before a payload of this length, and how many after it.
    #[inline]
    pub(in super::super) fn around(payload_len: usize) -> (usize, usize) {
        (FRONT, padding(payload_len) + EspTrailer::FIXED_LEN + ICV)
    }

    /// Makes an ESP packet of `packet`, which has the payload and, [around](Self::around) it, room.
    #[inline]
    pub(in super::super) fn seal(
        &self,
        packet: &mut [u8],
        payload_len: usize,
        next_header: NextHeader,
        sequence: u64,
    ) {
        let (front, rest) = packet.split_first_chunk_mut::<FRONT>().expect("room was made");
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sequence.to_be_bytes();
        let [i0, i1, i2, i3] = self.spi.to_be_bytes();
        // RFC 4106 §3.1, RFC 7634 §2: the IV is unique for each packet under a key, which the sequence number is.
        *front = [i0, i1, i2, i3, s4, s5, s6, s7, s0, s1, s2, s3, s4, s5, s6, s7];
        // RFC 4303 §2.4 to §2.6, in one piece, of which what is too long lies where the ICV comes.
        let trailer = rest[payload_len..].first_chunk_mut().expect("the ICV alone is longer");
        *trailer = trailer_of(padding(payload_len), next_header);
        let (data, icv) = rest.split_last_chunk_mut::<ICV>().expect("room was made");
        let covered = self.covered([i0, i1, i2, i3], sequence);
        *icv = self.aead.seal(sequence.to_be_bytes(), covered.of(self.esn), data);
    }

    /// The sequence number in a packet, of which these are the low bits with ESN. `None`: it is too short to be one.
    #[inline]
    pub(in super::super) fn sequence(packet: &[u8]) -> Option<u32> {
        if packet.len() < FRONT + EspTrailer::FIXED_LEN + ICV {
            return None;
        }
        let &[_, _, _, _, s0, s1, s2, s3] = packet.first_chunk::<{ EspHeader::LEN }>()?;
        Some(u32::from_be_bytes([s0, s1, s2, s3]))
    }

    /// Verifies the ICV of a packet with this whole sequence number, and decrypts it.
    ///
    /// # Errors
    /// [`DropReason::EspMalformed`], [`DropReason::IcvMismatch`].
    #[inline]
    pub(in super::super) fn verify<'p>(
        &self,
        packet: &'p mut [u8],
        sequence: u64,
    ) -> Result<(IcvVerified, Decrypted<'p>), DropReason> {
        let (front, rest) =
            packet.split_first_chunk_mut::<FRONT>().ok_or(DropReason::EspMalformed)?;
        let (data, icv) = rest.split_last_chunk_mut::<ICV>().ok_or(DropReason::EspMalformed)?;
        let &mut [i0, i1, i2, i3, _, _, _, _, v0, v1, v2, v3, v4, v5, v6, v7] = front;
        let iv = [v0, v1, v2, v3, v4, v5, v6, v7];
        let covered = self.covered([i0, i1, i2, i3], sequence);
        match self.aead.open(iv, covered.of(self.esn), data, *icv) {
            Ok(()) => Ok((IcvVerified::new(), Decrypted(data))),
            Err(_) => Err(DropReason::IcvMismatch),
        }
    }

    /// RFC 4106 §5, RFC 7634 §2.1: SPI and sequence number, which has 64 bits if it is extended. By words: they are read so.
    #[inline]
    fn covered(&self, spi: [u8; 4], sequence: u64) -> Covered {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sequence.to_be_bytes();
        let high = u128::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let low = u128::from(u32::from_le_bytes([s4, s5, s6, s7]));
        let number = if self.esn { high | low << 32 } else { low };
        Covered((u128::from(u32::from_le_bytes(spi)) | number << 32).to_le_bytes())
    }
}

/// What stands between IV and ICV, decrypted.
pub(in super::super) struct Decrypted<'p>(&'p [u8]);

impl Decrypted<'_> {
    /// Where the payload lies in the packet.
    ///
    /// # Errors
    /// [`DropReason::BadPadding`].
    #[inline]
    pub(in super::super) fn payload(&self) -> Result<Payload, DropReason> {
        let Self(data) = *self;
        let trailer = EspTrailer::parse(data).map_err(|_| DropReason::BadPadding)?;
        Ok(Payload { at: FRONT, len: data.len() - trailer.len(), next_header: trailer.next_header })
    }
}

struct Covered([u8; 16]);

impl Covered {
    #[inline]
    fn of(&self, esn: bool) -> &[u8] {
        let Self(bytes) = self;
        &bytes[..if esn { EspHeader::LEN + 4 } else { EspHeader::LEN }]
    }
}

/// RFC 4303 §2.4: so many bytes, 3 at most, bring payload and trailer to a multiple of four.
#[inline]
const fn padding(payload_len: usize) -> usize {
    payload_len.wrapping_add(EspTrailer::FIXED_LEN).wrapping_neg() & 3
}

/// Padding, Pad Length, Next Header, and zeros.
#[inline]
fn trailer_of(padding: usize, next_header: NextHeader) -> [u8; 8] {
    const NUMBERED: u64 = 0x0003_0201;
    let bits = 8 * padding;
    let fixed = padding as u64 | u64::from(next_header.0) << 8;
    (NUMBERED & !(u64::MAX << bits) | fixed << bits).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailer_is_that_of_every_form() {
        for payload_len in 0..40 {
            let of_any = EspTrailer::aligning(payload_len, 4, NextHeader::IPV6);
            let mut expected = [0; 8];
            of_any.emit(&mut expected);
            let padding = padding(payload_len);
            assert_eq!(padding, usize::from(of_any.pad_len));
            assert_eq!(trailer_of(padding, NextHeader::IPV6), expected, "{payload_len}");
        }
    }
}
