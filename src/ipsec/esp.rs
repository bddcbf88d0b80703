//! ESP for one packet (RFC 4303), in place: [`EspLayout`] says how long it is, `Esp` makes and opens it.
//!
//! Owns the ESP header, the IV, the trailer and the ICV. Owns neither sequence number nor window, which are the SA's, and
//! knows nothing of what the payload is, nor of what stands before the ESP packet.

mod common;
mod transform;

use super::replay::IcvVerified;
use super::{DropReason, PacketBuf, Spi, suite::EspSuite};
use crate::crypto::Secret;
use crate::wire::esp::{EspHeader, EspPacket, EspTrailer};
use crate::wire::ip::NextHeader;
pub(super) use common::Common;
use transform::Transform;

/// Where in a packet of a suite what stands, and so how much longer sealing makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspLayout {
    /// Length of the IV.
    pub iv_len: usize,
    /// What payload and trailer together are a multiple of: the block of the cipher, at least 4 (RFC 4303 §2.4).
    pub align: u8,
    /// Length of the ICV.
    pub icv_len: usize,
}

impl EspLayout {
    /// `None` for a suite that the datapath does not have.
    #[must_use]
    pub fn of(suite: EspSuite) -> Option<Self> {
        Transform::layout(suite)
    }

    /// Length of the ESP packet around an inner packet of `inner` bytes.
    #[must_use]
    pub const fn sealed_len(&self, inner: usize) -> usize {
        EspHeader::LEN
            + self.iv_len
            + (inner + EspTrailer::FIXED_LEN).next_multiple_of(self.align as usize)
            + self.icv_len
    }

    /// Length of the longest inner packet in an ESP packet of at most `sealed` bytes; `None` if not even an empty one
    /// fits.
    #[must_use]
    pub const fn max_inner_len(&self, sealed: usize) -> Option<usize> {
        let Some(encrypted) = sealed.checked_sub(EspHeader::LEN + self.iv_len + self.icv_len)
        else {
            return None;
        };
        (encrypted - encrypted % self.align as usize).checked_sub(EspTrailer::FIXED_LEN)
    }
}

/// The transform of an SA: it makes ESP packets of payloads, and the reverse, at a place in a packet.
#[derive(Debug)]
pub(super) struct Esp {
    transform: Transform,
}

impl Esp {
    /// `None` if the suite, or a key of that length, is not one that we have.
    pub(super) fn new(suite: EspSuite, encr_key: &Secret, integ_key: &Secret) -> Option<Self> {
        Some(Self { transform: Transform::new(suite, encr_key, integ_key)? })
    }

    /// The transform with what is known of an SA, if its packets are of the common form.
    pub(super) fn common(&self, spi: Spi, esn: bool) -> Option<Common<'_>> {
        Some(Common::new(self.transform.common()?, spi, esn))
    }

    /// What is to be done to a payload of this length; nothing changes yet, so that no sequence number is used up by a
    /// packet without room.
    #[inline]
    pub(super) fn sealing(&self, payload_len: usize, next_header: NextHeader) -> Sealing {
        let layout = self.transform.own_layout();
        let trailer = EspTrailer::aligning(payload_len, layout.align, next_header);
        Sealing {
            front: EspHeader::LEN + layout.iv_len,
            back: trailer.len() + layout.icv_len,
            trailer,
            payload_len,
        }
    }

    /// Makes an ESP packet of `packet`, which is as long as `sealing` says and has the payload in its place.
    ///
    /// # Panics
    /// If it has another length.
    #[inline]
    pub(super) fn seal_whole(
        &self,
        packet: &mut [u8],
        sealing: Sealing,
        spi: Spi,
        sequence: u64,
        esn: bool,
    ) {
        let Sealing { trailer, payload_len, .. } = sealing;
        let layout = self.transform.own_layout();
        let (header, rest) = packet.split_first_chunk_mut().expect("its header is in its length");
        let [.., s4, s5, s6, s7] = sequence.to_be_bytes();
        let low = u32::from_be_bytes([s4, s5, s6, s7]);
        *header = EspHeader { spi: spi.get(), sequence: low }.emit();
        let (iv, rest) = rest.split_at_mut(layout.iv_len);
        let (data, icv) = rest.split_at_mut(rest.len() - layout.icv_len);
        trailer.emit(&mut data[payload_len..]);
        self.transform.seal(header, esn, sequence, iv, data, icv);
    }

    /// The parts of an ESP packet under this transform.
    ///
    /// # Errors
    /// [`DropReason::EspMalformed`].
    #[inline]
    pub(super) fn parts<'a>(&self, packet: &'a mut [u8]) -> Result<Parts<'a>, DropReason> {
        let layout = self.transform.own_layout();
        let encrypted = packet
            .len()
            .checked_sub(EspHeader::LEN + layout.iv_len + layout.icv_len)
            .filter(|&len| len >= EspTrailer::FIXED_LEN && self.transform.takes(len))
            .ok_or(DropReason::EspMalformed)?;
        let (header, rest) = packet.split_first_chunk_mut().ok_or(DropReason::EspMalformed)?;
        let fields = EspPacket::new_checked(&*header).map_err(|_| DropReason::EspMalformed)?;
        let sequence = fields.sequence();
        let (iv, rest) = rest.split_at_mut(layout.iv_len);
        let (data, icv) = rest.split_at_mut(encrypted);
        Ok(Parts { sequence, header, iv, data, icv })
    }

    /// Verifies the ICV, of a packet with this whole sequence number.
    ///
    /// # Errors
    /// [`DropReason::IcvMismatch`].
    #[inline]
    pub(super) fn verify(
        &self,
        parts: &mut Parts<'_>,
        esn: bool,
        sequence: u64,
    ) -> Result<IcvVerified, DropReason> {
        let Parts { header, iv, data, icv, .. } = parts;
        self.transform.open(header, esn, sequence, iv, data, icv)
    }

    /// After the ICV is verified: decrypts. Where the payload begins in the ESP packet, how long it is, and what.
    ///
    /// # Errors
    /// [`DropReason::BadPadding`].
    #[inline]
    pub(super) fn decrypt(&self, parts: Parts<'_>) -> Result<Payload, DropReason> {
        let Parts { header, iv, data, .. } = parts;
        self.transform.decrypt(iv, data);
        let trailer = EspTrailer::parse(data).map_err(|_| DropReason::BadPadding)?;
        Ok(Payload {
            at: header.len() + iv.len(),
            len: data.len() - trailer.len(),
            next_header: trailer.next_header,
        })
    }
}

/// How much longer sealing makes a packet, and with which trailer.
#[derive(Clone, Copy, Debug)]
pub struct Sealing {
    front: usize,
    back: usize,
    trailer: EspTrailer,
    payload_len: usize,
}

impl Sealing {
    /// Length in bytes of the ESP packet.
    #[must_use]
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.front + self.payload_len + self.back
    }

    /// Where in the ESP packet its payload is.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> core::ops::Range<usize> {
        self.front..self.front + self.payload_len
    }

    /// Makes room for header, IV, trailer and ICV around the packet; `None`, and nothing changed, if there is none.
    #[inline]
    pub(super) fn grow<'a>(&self, packet: &'a mut PacketBuf) -> Option<&'a mut [u8]> {
        packet.grow(self.front, self.back)
    }

    /// Takes that room away again.
    pub(super) fn shrink(&self, packet: &mut PacketBuf) {
        packet.trim_front(self.front);
        packet.truncate(packet.len() - self.back);
    }

    /// In the whole that there is room in: the `at` bytes that stay before the ESP packet go to its front.
    pub(super) fn move_before(&self, whole: &mut [u8], at: usize) {
        whole.copy_within(self.front..self.front + at, 0);
    }
}

/// An ESP packet, taken apart.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// Its sequence number, of which these are the low bits with ESN.
    pub(super) sequence: u32,
    header: &'a mut [u8; EspHeader::LEN],
    iv: &'a mut [u8],
    data: &'a mut [u8],
    icv: &'a mut [u8],
}

/// Where the payload lies in an ESP packet that was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) next_header: NextHeader,
}

/// The SPI of an ESP packet; `None` if it is too short to be one, or the SPI is reserved.
#[must_use]
#[inline]
pub fn peek_spi(packet: &[u8]) -> Option<Spi> {
    Spi::new(EspPacket::new_checked(packet).ok()?.spi())
}

#[cfg(test)]
mod tests;
