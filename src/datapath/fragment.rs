//! Packets that are longer than a path takes, in pieces (RFC 791 §3.2, RFC 8200 §4.5): inner IPv4 packets without DF before
//! they are sealed in tunnel mode (RFC 4301 §8.2.1), so that the far end has nothing to reassemble, and whole packets that
//! were sealed (RFC 4303 §3.3.4, RFC 4302 §3.3.4).

use crate::ipsec::{PacketBuf, Place};
use crate::wire::ip::{Ipv4Packet, Ipv6Packet, NextHeader};

/// The fragments of a packet, one at a time.
pub(super) enum Fragments<'a> {
    V4(V4<'a>),
    V6(V6<'a>),
}

impl<'a> Fragments<'a> {
    /// Of an IPv4 packet, which may be a fragment itself. `None` if it is not IPv4, or `mtu` has no room for a header and
    /// 8 bytes.
    pub(super) fn of_ipv4(packet: &'a [u8], mtu: usize) -> Option<Self> {
        V4::new(packet, mtu).map(Self::V4)
    }

    /// Of a packet with ESP or AH, whole and of either version.
    pub(super) fn of_sealed(packet: &'a [u8], mtu: usize) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_ipv4(packet, mtu),
            _ => V6::new(packet, mtu).map(Self::V6),
        }
    }

    /// Writes the next fragment into `buf`; `false` if there is none, or it does not fit.
    pub(super) fn next_into(&mut self, buf: &mut PacketBuf) -> bool {
        match self {
            Self::V4(fragments) => fragments.next_into(buf),
            Self::V6(fragments) => fragments.next_into(buf),
        }
    }
}

/// Longest IPv4 header.
const MAX_HEADER: usize = 60;

/// The fragments of an IPv4 packet.
pub(super) struct V4<'a> {
    payload: &'a [u8],
    /// What each fragment begins with; after the first only the options that are to be copied.
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// Place of `payload` in the whole packet.
    offset: usize,
    /// Whether the packet is itself a fragment that others follow.
    more: bool,
    mtu: usize,
}

impl<'a> V4<'a> {
    fn new(packet: &'a [u8], mtu: usize) -> Option<Self> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let (offset, more) = (ip.fragment_offset().into(), ip.more_fragments());
        let (original, payload) =
            packet.get(..ip.total_len().into())?.split_at_checked(ip.header_len())?;
        let mut header = [0; MAX_HEADER];
        header.get_mut(..original.len())?.copy_from_slice(original);
        let header_len = original.len();
        (mtu >= header_len + 8).then_some(Self { payload, header, header_len, offset, more, mtu })
    }

    fn next_into(&mut self, buf: &mut PacketBuf) -> bool {
        if self.payload.is_empty() {
            return false;
        }
        let room = self.mtu - self.header_len;
        let last = self.payload.len() <= room;
        let len = if last { self.payload.len() } else { room - room % 8 };
        let (data, rest) = self.payload.split_at(len);
        let total = self.header_len + len;
        let Some(packet) = buf.space_mut().get_mut(..total) else { return false };

        let (header, body) = packet.split_at_mut(self.header_len);
        header.copy_from_slice(&self.header[..self.header_len]);
        body.copy_from_slice(data);
        write_place(header, total, self.offset, !last || self.more);
        if let Ok(mut ip) = Ipv4Packet::new_checked(packet) {
            ip.fill_checksum();
        }
        buf.set_len(total);

        self.payload = rest;
        self.offset += len;
        self.keep_copied_options();
        true
    }

    /// RFC 791 §3.1: options with the copied flag go into every fragment, the others into the first only.
    fn keep_copied_options(&mut self) {
        let mut kept = [0; MAX_HEADER];
        let mut len = 20;
        kept[..20].copy_from_slice(&self.header[..20]);
        let mut options = &self.header[20..self.header_len];
        while let Some(&kind) = options.first() {
            let option_len = match kind {
                0 => break,
                1 => 1,
                _ => options.get(1).copied().map_or(0, usize::from),
            };
            if option_len == 0 || kind > 1 && option_len < 2 {
                break;
            }
            let Some((option, rest)) = options.split_at_checked(option_len) else { break };
            if kind & 0x80 != 0 {
                kept[len..len + option_len].copy_from_slice(option);
                len += option_len;
            }
            options = rest;
        }
        // What is left of the last word is zero: end of options.
        self.header = kept;
        self.header_len = len.next_multiple_of(4);
    }
}

/// The fragments of an IPv6 packet, by its source.
pub(super) struct V6<'a> {
    /// What each fragment begins with: what routers on the way read, up to the IPsec header.
    headers: &'a [u8],
    /// Where in it the Fragment header is named.
    named_at: usize,
    payload: &'a [u8],
    /// What `payload` begins with.
    next_header: NextHeader,
    ident: [u8; 4],
    /// Place of `payload` in the whole packet.
    offset: usize,
    mtu: usize,
}

/// Length of a Fragment header (RFC 8200 §4.5).
const FRAGMENT_HEADER: usize = 8;

impl<'a> V6<'a> {
    fn new(packet: &'a [u8], mtu: usize) -> Option<Self> {
        let of = |protocol| Place::of(packet, protocol).map(|place| (protocol, place));
        let (next_header, place) = of(NextHeader::ESP).or_else(|| of(NextHeader::AH))?;
        let (headers, payload) = packet.split_at_checked(place.at)?;
        // RFC 8200 §4.5 wants an identification of its own for each packet, RFC 7739 one that nobody else can foretell: a
        // part of the ICV is both.
        let ident = match next_header {
            NextHeader::AH => *payload.get(AH_ICV..)?.first_chunk()?,
            _ => *payload.last_chunk()?,
        };
        let named_at = place.next_header_at;
        (mtu >= headers.len() + FRAGMENT_HEADER + 8).then_some(Self {
            headers,
            named_at,
            payload,
            next_header,
            ident,
            offset: 0,
            mtu,
        })
    }

    fn next_into(&mut self, buf: &mut PacketBuf) -> bool {
        if self.payload.is_empty() {
            return false;
        }
        let front = self.headers.len() + FRAGMENT_HEADER;
        let room = self.mtu - front;
        let last = self.payload.len() <= room;
        let len = if last { self.payload.len() } else { room - room % 8 };
        let (data, rest) = self.payload.split_at(len);
        let total = front + len;
        let Some(packet) = buf.space_mut().get_mut(..total) else { return false };

        let (headers, body) = packet.split_at_mut(self.headers.len());
        headers.copy_from_slice(self.headers);
        headers[self.named_at] = NextHeader::FRAGMENT.0;
        let (fragment, body) = body.split_at_mut(FRAGMENT_HEADER);
        let place = u16::try_from(self.offset).expect("within a packet") | u16::from(!last);
        fragment[..2].copy_from_slice(&[self.next_header.0, 0]);
        fragment[2..4].copy_from_slice(&place.to_be_bytes());
        fragment[4..].copy_from_slice(&self.ident);
        body.copy_from_slice(data);
        if Ipv6Packet::new_resized(packet).is_err() {
            return false;
        }
        buf.set_len(total);

        self.payload = rest;
        self.offset += len;
        true
    }
}

/// Where the ICV of AH begins (RFC 4302 §2).
const AH_ICV: usize = 12;

/// Header length, total length and fragment field.
fn write_place(header: &mut [u8], total: usize, offset: usize, more: bool) {
    let words = u8::try_from(header.len() / 4).expect("at most 15 words");
    let total = u16::try_from(total).expect("no longer than the packet that it is a part of");
    let place = u16::try_from(offset / 8).expect("within a packet") | if more { 0x2000 } else { 0 };
    header[0] = 0x40 | words;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..8].copy_from_slice(&place.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(options: &[u8], payload: usize, flags: u16) -> Vec<u8> {
        let header_len = 20 + options.len();
        let total = u16::try_from(header_len + payload).unwrap().to_be_bytes();
        let flags = flags.to_be_bytes();
        let words = u8::try_from(header_len / 4).unwrap();
        let mut packet = vec![0x40 | words, 0, total[0], total[1], 0xab, 0xcd, flags[0], flags[1]];
        packet.extend([64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
        packet.extend(options);
        packet.extend((0..payload).map(|i| u8::try_from(i % 251).unwrap()));
        packet
    }

    fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut buf = PacketBuf::new(mtu);
        let mut fragments = Fragments::of_ipv4(packet, mtu).unwrap();
        core::iter::from_fn(|| fragments.next_into(&mut buf).then(|| buf.to_vec())).collect()
    }

    /// Puts fragments together again: offset of the first, payload, and whether more follow.
    fn reassemble(fragments: &[Vec<u8>], mtu: usize) -> (usize, Vec<u8>, bool) {
        let mut payload = Vec::new();
        let mut start = None;
        let mut more = true;
        for fragment in fragments {
            assert!(fragment.len() <= mtu);
            assert!(more, "nothing follows the last");
            let ip = Ipv4Packet::new_checked(fragment).unwrap();
            assert_eq!(usize::from(ip.total_len()), fragment.len());
            assert!(ip.verify_checksum());
            assert_eq!(ip.ident(), 0xabcd, "one identification");
            let offset = usize::from(ip.fragment_offset());
            assert_eq!(offset, *start.get_or_insert(offset) + payload.len());
            payload.extend(ip.payload());
            more = ip.more_fragments();
        }
        (start.unwrap(), payload, more)
    }

    #[test]
    fn options_with_the_copied_flag_are_in_every_fragment_and_others_in_the_first() {
        // Record route (not copied), router alert (copied), end.
        let options = [7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0];
        let parts = fragments(&packet(&options, 100, 0), 80);
        assert_eq!(parts[0][20..32], options);
        assert_eq!(parts[1][0], 0x46);
        assert_eq!(parts[1][20..24], [0x94, 4, 0, 0]);
        assert_eq!(reassemble(&parts, 80).1.len(), 100);
    }

    #[test]
    fn an_mtu_without_room_for_a_fragment_is_refused() {
        let packet = packet(&[], 100, 0);
        assert!(Fragments::of_ipv4(&packet, 27).is_none());
        assert!(Fragments::of_ipv4(&packet, 28).is_some());
    }

    proptest! {
        #[test]
        fn fragments_make_the_packet_again(
            payload in 24_usize..3000, mtu in 68_usize..1500, offset in 0_u16..4000, more: bool,
            options in prop::sample::select(vec![&[][..], &[1, 1, 1, 0], &[0x94, 4, 0, 0], &[0x80, 0, 0, 0]]),
        ) {
            let payload = if more { payload - payload % 8 } else { payload };
            let packet = packet(options, payload, offset | if more { 0x2000 } else { 0 });
            let parts = fragments(&packet, mtu);
            let whole = packet[20 + options.len()..].to_vec();
            prop_assert_eq!(reassemble(&parts, mtu), (usize::from(offset) * 8, whole, more));
        }
    }
}
