//! AH for one packet (RFC 4302): [`Ah::seal`], [`Ah::open`] and [`strip`], in place and without allocation.
//!
//! A packet is here always a whole IP packet: in transport mode the original one, in tunnel mode with its outer header
//! in front. Owns the header, its padding and what of the packet the ICV covers. Owns neither sequence number nor
//! window, which are the SA's.

mod covered;

use super::replay::IcvVerified;
use super::{DropReason, PacketBuf, Place, Spi};
use crate::crypto::integ::Integ;
use crate::wire::ah::{AhHeader, AhPacket};
use crate::wire::ike::numbers::IntegId;
use crate::wire::ip::{ExtensionHeader, IpPacket, Ipv6Packet, NextHeader};
use covered::{Covered, Side};

pub use covered::MAX_LEN as MAX_COVERED_LEN;

/// To what the header is padded in an IPv4 packet. In IPv6 it is always 8 bytes (RFC 4302 §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// 4 bytes, as RFC 4302 §2.6 has it.
    #[default]
    Four,
    /// 8 bytes: what Linux does, and insists on when it receives, if its state has no `align4`.
    Eight,
}

impl Align {
    /// By its number of bytes.
    #[must_use]
    pub const fn of(bytes: u8) -> Option<Self> {
        match bytes {
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }
}

/// The integrity algorithm of an SA, and how its ICV stands in the header.
#[derive(Clone, Debug)]
pub struct Ah {
    integ: Integ,
    icv_len: usize,
    iv_len: usize,
    align: Align,
}

impl Ah {
    /// `None` if the algorithm, or a key of that length, is not one that we have.
    #[must_use]
    pub fn new(id: IntegId, key: &[u8], align: Align) -> Option<Self> {
        let (icv_len, iv_len) = (Integ::icv_len(id)?, Integ::iv_len(id));
        Some(Self { integ: Integ::new(id, key)?, icv_len, iv_len, align })
    }

    /// Length of the header with ICV and padding in a packet of IPv6, or else IPv4: by so much sealing makes it longer.
    #[must_use]
    pub const fn header_len(&self, v6: bool) -> usize {
        padded_len(self.icv_len, self.align, v6)
    }

    /// Puts AH into a packet at `place`, which is that of [`Place::for_insertion`]. The header of an atomic fragment before
    /// it is taken out: what the ICV covers is without it (RFC 4302 Appendix A2).
    ///
    /// # Errors
    /// [`DropReason::NoRoom`], [`DropReason::TooBig`], and [`DropReason::OutboundMalformed`] if the headers before `place`
    /// are such that the receiver could not tell what of them is covered; then the packet means what it did.
    pub fn seal(
        &self,
        packet: &mut PacketBuf,
        place: Place,
        spi: Spi,
        sequence: u64,
        esn: bool,
    ) -> Result<(), DropReason> {
        let place = take_out_atomic_fragment(packet, place).ok_or(DropReason::OutboundMalformed)?;
        let Place { at, next_header_at } = place;
        let covered = Covered::of(packet, place, Side::Sender);
        let (Some(covered), true) = (covered, next_header_at < at && is_one_packet(packet)) else {
            return Err(DropReason::OutboundMalformed);
        };
        let next_header = NextHeader(packet[next_header_at]);
        let header_len = self.header_len(is_v6(packet));
        let payload_len = AhHeader::payload_len_for(header_len).ok_or(DropReason::NoRoom)?;
        let len = packet.len() + header_len;
        let covered = covered.with_ah(place, len).ok_or(DropReason::TooBig)?;
        if !packet.push_front(header_len) {
            return Err(DropReason::NoRoom);
        }

        packet.copy_within(header_len..header_len + at, 0);
        place.mend(packet, NextHeader::AH).ok_or(DropReason::OutboundMalformed)?;
        let [high @ .., s4, s5, s6, s7] = sequence.to_be_bytes();
        let header = AhHeader {
            next_header,
            payload_len,
            spi: spi.get(),
            sequence: u32::from_be_bytes([s4, s5, s6, s7]),
        };
        let ah = &mut packet[at..at + header_len];
        ah[..AhHeader::FIXED_LEN].copy_from_slice(&header.emit());
        // The ICV is zero for its own computation (RFC 4302 §3.3.3); padding may be anything.
        ah[AhHeader::FIXED_LEN..].fill(0);
        let mut icv = [0; Integ::MAX_ICV_LEN];
        let icv = &mut icv[..self.icv_len];
        // RFC 4543 §3.1: never the same under one key, which the sequence number is not.
        for (to, from) in icv[..self.iv_len].iter_mut().zip(sequence.to_be_bytes()) {
            *to = from;
        }
        let high: &[u8] = if esn { &high } else { &[] };
        self.integ.sign(&[covered.as_slice(), &packet[at..], high], icv);
        packet[at + AhHeader::FIXED_LEN..][..self.icv_len].copy_from_slice(icv);
        Ok(())
    }

    /// Verifies the ICV of a packet in which AH stands at `place`, which is that of [`Place::of`]; `sequence` is the whole
    /// number that [`ReplayWindow::check`](super::replay::ReplayWindow::check) gave. The packet stays as it is.
    ///
    /// On IPv4 the padding may be that of either [`Align`]: it is covered, so only the sender can have chosen it.
    ///
    /// # Errors
    /// [`DropReason::AhMalformed`], [`DropReason::AhFragment`] and [`DropReason::IcvMismatch`].
    pub fn open(
        &self,
        packet: &[u8],
        place: Place,
        sequence: u64,
        esn: bool,
    ) -> Result<IcvVerified, DropReason> {
        let ip = IpPacket::new_checked(packet).map_err(|_| DropReason::AhMalformed)?;
        // RFC 4302 §3.4.1: what appears to be a fragment is discarded.
        if ip.upper_layer().map_err(|_| DropReason::AhMalformed)?.fragment.is_some() {
            return Err(DropReason::AhFragment);
        }
        let (front, ah) = packet.split_at_checked(place.at).ok_or(DropReason::AhMalformed)?;
        let header_len =
            AhPacket::new_checked(ah).map_err(|_| DropReason::AhMalformed)?.header_len();
        let either =
            [Align::Four, Align::Eight].map(|align| padded_len(self.icv_len, align, is_v6(front)));
        if !either.contains(&header_len) || !is_one_packet(packet) {
            return Err(DropReason::AhMalformed);
        }
        let covered = Covered::of(packet, place, Side::Receiver).ok_or(DropReason::AhMalformed)?;
        let (fixed, rest) = ah.split_at(AhHeader::FIXED_LEN);
        // What stands in the padding is covered as it came (RFC 4302 §3.3.3.2.1).
        let (icv, rest) = rest.split_at(self.icv_len);
        let [high @ .., _, _, _, _] = sequence.to_be_bytes();
        let high: &[u8] = if esn { &high } else { &[] };
        let zero = &[0; Integ::MAX_ICV_LEN][..self.icv_len];
        if self.integ.verify(&[covered.as_slice(), fixed, zero, rest, high], icv) {
            Ok(IcvVerified::new())
        } else {
            Err(DropReason::IcvMismatch)
        }
    }
}

/// The SPI of an AH header; `None` if it is too short to be one, or the SPI is reserved.
#[must_use]
pub fn peek_spi(header: &[u8]) -> Option<Spi> {
    Spi::new(AhPacket::new_checked(header).ok()?.spi())
}

/// Length of the header with the ICV of an algorithm, in a packet of IPv6, or else IPv4; `None` for an algorithm that we
/// do not have.
#[must_use]
pub fn header_len(id: IntegId, align: Align, v6: bool) -> Option<usize> {
    Some(padded_len(Integ::icv_len(id)?, align, v6))
}

/// Takes AH out of a packet in which it stands at `place`; tells what followed it. To be called once the ICV is verified.
///
/// # Errors
/// [`DropReason::AhMalformed`] if there is no AH; then the packet is as it was.
pub fn strip(packet: &mut PacketBuf, place: Place) -> Result<NextHeader, DropReason> {
    let malformed = DropReason::AhMalformed;
    if Place::of(packet, NextHeader::AH) != Some(place) || !is_one_packet(packet) {
        return Err(malformed);
    }
    let ah = AhPacket::new_checked(&packet[place.at..]).map_err(|_| malformed)?;
    let (next_header, header_len) = (ah.next_header(), ah.header_len());
    packet.copy_within(..place.at, header_len);
    packet.trim_front(header_len);
    place.mend(packet, next_header).ok_or(malformed)?;
    Ok(next_header)
}

/// RFC 4302 §3.3.3.2.1: as much padding as the alignment needs, and no more.
const fn padded_len(icv_len: usize, align: Align, v6: bool) -> usize {
    let align = match align {
        Align::Four if !v6 => 4,
        Align::Four | Align::Eight => 8,
    };
    (AhHeader::FIXED_LEN + icv_len).next_multiple_of(align)
}

fn is_v6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 6)
}

/// Whether the buffer is a packet from end to end.
fn is_one_packet(packet: &[u8]) -> bool {
    IpPacket::new_checked(packet).is_ok_and(|ip| ip.total_len() == packet.len())
}

/// Takes the header of an atomic fragment out that is before `place`; tells where that place is then. `None`, and nothing
/// changed, if it is no packet.
fn take_out_atomic_fragment(packet: &mut PacketBuf, place: Place) -> Option<Place> {
    if !is_v6(packet) {
        return Some(place);
    }
    let ip = Ipv6Packet::new_checked(&packet[..]).ok()?;
    let mut headers = ip.extension_headers();
    let header = loop {
        match headers.next().transpose().ok()? {
            Some(header) if header.at >= place.at => return Some(place),
            Some(header) if header.kind == NextHeader::FRAGMENT => break header,
            Some(_) => {}
            None => return Some(place),
        }
    };
    if header.fragment.is_some() || header.end() > place.at || ip.total_len() != packet.len() {
        return None;
    }
    let ExtensionHeader { at, named_at, len, .. } = header;
    let next_header_at = if place.next_header_at == at {
        named_at
    } else {
        place.next_header_at.checked_sub(len)?
    };
    packet[named_at] = packet[at];
    packet.copy_within(..at, len);
    packet.trim_front(len);
    Ipv6Packet::new_resized(&mut packet[..]).ok()?;
    Some(Place { at: place.at - len, next_header_at })
}

#[cfg(test)]
mod tests;
