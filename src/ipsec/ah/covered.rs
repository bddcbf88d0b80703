//! [`Covered`]: what the ICV covers of the headers before AH (RFC 4302 §3.3.3.1 and Appendix A): everything, with the
//! fields that change on the way as zero, and those that change in a way known to the sender as the receiver sees them.

use super::super::Place;
use crate::wire::ip::{
    ExtensionHeader, IpPacket, Ipv4OptionType, Ipv4Options, Ipv4Packet, Ipv6Options, Ipv6Packet,
    NextHeader,
};

/// The longest headers before AH that are taken, in bytes. That of IPv4 has at most 60; that of IPv6 has 40, and no
/// legitimate packet more than 500 of extension headers. The bound keeps them on the stack.
pub const MAX_LEN: usize = 576;

/// Who computes the ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The sender, who predicts what the receiver will see.
    Sender,
    /// The receiver, at the final destination.
    Receiver,
}

/// The headers before AH as the ICV covers them.
pub(super) struct Covered {
    bytes: [u8; MAX_LEN],
    len: usize,
}

mod v4 {
    use core::ops::Range;

    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LEN: Range<usize> = 2..4;
    pub(super) const FLAGS_OFFSET: Range<usize> = 6..8;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: Range<usize> = 10..12;
    pub(super) const DST_ADDR: Range<usize> = 16..20;
    pub(super) const OPTIONS: usize = 20;
}

mod v6 {
    use core::ops::Range;

    pub(super) const VER_TC_FLOW: Range<usize> = 0..4;
    pub(super) const PAYLOAD_LEN: Range<usize> = 4..6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const DST_ADDR: Range<usize> = 24..40;
}

impl Covered {
    /// Of a whole packet, to the place where AH stands or will stand. `None` if its headers are malformed, end elsewhere,
    /// or are longer than [`MAX_LEN`]; or if it is not for its receiver: a fragment, or with a route still before it.
    pub(super) fn of(packet: &[u8], place: Place, side: Side) -> Option<Self> {
        let front = packet.get(..place.at)?;
        let mut covered = Self { bytes: [0; MAX_LEN], len: front.len() };
        covered.bytes.get_mut(..front.len())?.copy_from_slice(front);
        match IpPacket::new_checked(packet).ok()? {
            IpPacket::V4(packet) => covered.mute_v4(&packet, side)?,
            IpPacket::V6(packet) => covered.mute_v6(&packet, side)?,
        }
        Some(covered)
    }

    /// The same in a packet of `len` bytes in which AH stands at `place`. `None` if no packet is so long.
    pub(super) fn with_ah(mut self, place: Place, len: usize) -> Option<Self> {
        if self.bytes[0] >> 4 == 4 {
            self.bytes[v4::TOTAL_LEN].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
            self.bytes[v4::PROTOCOL] = NextHeader::AH.0;
        } else {
            let payload_len = len.checked_sub(Ipv6Packet::<&[u8]>::HEADER_LEN)?;
            let payload_len = u16::try_from(payload_len).ok()?;
            self.bytes[v6::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
            *self.bytes.get_mut(place.next_header_at)? = NextHeader::AH.0;
        }
        Some(self)
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// RFC 4302 §3.3.3.1.1 and Appendix A1.
    fn mute_v4(&mut self, packet: &Ipv4Packet<&[u8]>, side: Side) -> Option<()> {
        if packet.header_len() != self.len || packet.fragment().is_some() {
            return None;
        }
        self.bytes[v4::TOS] = 0;
        self.bytes[v4::FLAGS_OFFSET].fill(0);
        self.bytes[v4::TTL] = 0;
        self.bytes[v4::CHECKSUM].fill(0);
        for option in Ipv4Options::new(packet.options()) {
            let option = option.ok()?;
            if option.kind.is_immutable() {
                continue;
            }
            if option.kind.is_source_route()
                && side == Side::Sender
                && let Some(destination) = final_destination(option.kind, option.bytes)?
            {
                self.bytes[v4::DST_ADDR].copy_from_slice(&destination);
            }
            // §3.3.3.1.1.2: the entire option is a unit; one that is not known is zeroed by its length (§3.3.3.1).
            let at = v4::OPTIONS + option.at;
            self.bytes[at..at + option.bytes.len()].fill(0);
        }
        Some(())
    }

    /// RFC 4302 §3.3.3.1.2 and Appendix A2.
    fn mute_v6(&mut self, packet: &Ipv6Packet<&[u8]>, side: Side) -> Option<()> {
        self.bytes[v6::VER_TC_FLOW].copy_from_slice(&[0x60, 0, 0, 0]);
        self.bytes[v6::HOP_LIMIT] = 0;
        let mut headers = packet.extension_headers();
        let mut atomic = None;
        while headers.offset() < self.len {
            let header = headers.next()?.ok()?;
            if headers.offset() > self.len || header.fragment.is_some() {
                return None;
            }
            let range = header.at..header.end();
            if header.kind == NextHeader::ROUTING {
                self.predict_route(header, side)?;
            } else if header.kind == NextHeader::FRAGMENT {
                // The sender has taken it out; nothing has two.
                if side == Side::Sender || atomic.replace(header).is_some() {
                    return None;
                }
            } else {
                for option in Ipv6Options::new(packet.as_bytes().get(range)?) {
                    let option = option.ok()?;
                    if option.kind.may_change() {
                        // §3.3.3.1.2.2: type and length are covered.
                        let at = header.at + option.data_at;
                        self.bytes[at..at + option.data.len()].fill(0);
                    }
                }
            }
        }
        if headers.offset() != self.len {
            return None;
        }
        if let Some(header) = atomic {
            self.leave_out(header)?;
        }
        Some(())
    }

    /// A routing header as the receiver sees it, with nothing left of the route.
    fn predict_route(&mut self, header: ExtensionHeader, side: Side) -> Option<()> {
        let (front, rest) = self.bytes.split_at_mut(header.at);
        let (fixed, addresses) = rest[..header.len].split_at_mut(routing::FIXED_LEN);
        let left = usize::from(fixed[routing::SEGMENTS_LEFT]);
        if left == 0 {
            return Some(());
        }
        // With segments left the receiver is not the one to look at AH. And how another type than 0 changes is not known
        // (RFC 4302 Appendix A2).
        if side == Side::Receiver || fixed[routing::TYPE] != 0 {
            return None;
        }
        // RFC 2460 §4.4: at each node the next address and the destination change places.
        fixed[routing::SEGMENTS_LEFT] = 0;
        let (addresses, []) = addresses.as_chunks_mut::<16>() else { return None };
        let first = addresses.len().checked_sub(left)?;
        let destination = front.get_mut(v6::DST_ADDR)?;
        for address in &mut addresses[first..] {
            address.swap_with_slice(destination);
        }
        Some(())
    }

    /// Appendix A2: the header of an atomic fragment is as if it were not there.
    fn leave_out(&mut self, header: ExtensionHeader) -> Option<()> {
        self.bytes[header.named_at] = self.bytes[header.at];
        self.bytes.copy_within(header.end()..self.len, header.at);
        self.len -= header.len;
        let [high, low] =
            [self.bytes[v6::PAYLOAD_LEN.start], self.bytes[v6::PAYLOAD_LEN.start + 1]];
        let payload_len =
            u16::from_be_bytes([high, low]).checked_sub(u16::try_from(header.len).ok()?)?;
        self.bytes[v6::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
        Some(())
    }
}

mod routing {
    pub(super) const TYPE: usize = 2;
    pub(super) const SEGMENTS_LEFT: usize = 3;
    /// Of type 0: the fields before the addresses (RFC 2460 §4.4).
    pub(super) const FIXED_LEN: usize = 8;
}

/// The last address of a source route, unless the packet has passed them all (RFC 791 §3.1). `None` if the option is
/// malformed.
fn final_destination(kind: Ipv4OptionType, option: &[u8]) -> Option<Option<[u8; 4]>> {
    debug_assert!(kind.is_source_route());
    let &[_, len, pointer, ref route @ ..] = option else { return None };
    if pointer < 4 {
        return None;
    }
    let (addresses, []) = route.as_chunks::<4>() else { return None };
    Some(addresses.last().copied().filter(|_| pointer <= len))
}

#[cfg(test)]
mod tests;
