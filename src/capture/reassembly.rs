//! [`Reassembler`]: whole IP packets of captured fragments (RFC 791 §3.2, RFC 8200 §4.5), as a receiver makes them before
//! IPsec sees them (RFC 4303 §3.4.1).
//!
//! Bounded in number, length and time. Fragments that overlap make their packet vanish (RFC 5722, also for IPv4).

use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::wire::ip::{IpPacket, Ipv4Packet, NextHeader};

/// A packet that was in fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassembled {
    /// The packet, without any trace of fragmentation.
    pub packet: Vec<u8>,
    /// Indexes of the frames that it came in, in the order of their arrival.
    pub frames: Vec<usize>,
}

/// What became of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was the last one missing.
    Whole(Reassembled),
    /// Others are still missing.
    Waiting,
    /// Malformed, or it contradicts others, which are forgotten with it.
    Dropped(&'static str),
}

/// Fragments that wait for the rest of their packets.
#[derive(Debug, Default)]
pub struct Reassembler {
    waiting: BTreeMap<Key, Partial>,
}

/// RFC 791 §3.2, RFC 8200 §4.5: what fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    /// Of IPv4 alone.
    protocol: u8,
    ident: u32,
}

#[derive(Debug)]
struct Partial {
    began: u64,
    frames: Vec<usize>,
    /// Headers of the first fragment: what the whole packet begins with.
    header: Option<Vec<u8>>,
    /// Of any fragment: the bits of CE (RFC 3168 §5.3).
    ce: bool,
    /// By offset.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Known from the last fragment.
    total: Option<usize>,
}

/// A fragment, taken apart.
struct Piece<'a> {
    key: Key,
    header: Vec<u8>,
    offset: usize,
    more: bool,
    data: &'a [u8],
}

impl Reassembler {
    /// Packets that may wait at a time; then the oldest goes.
    pub const MAX_PACKETS: usize = 256;
    /// Fragments of one packet: the longest packet in pieces of the shortest MTU.
    pub const MAX_FRAGMENTS: usize = 1024;
    /// How long a packet may wait for its rest, in nanoseconds (RFC 8200 §4.5).
    pub const TIMEOUT: u64 = 60_000_000_000;

    /// Takes one fragment, an IP packet that is whole by its own length; `time` in nanoseconds, `frame` its index.
    pub fn take(&mut self, time: u64, frame: usize, packet: &[u8]) -> Fate {
        let Some(piece) = Piece::of(packet) else { return Fate::Dropped("malformed fragment") };
        self.waiting.retain(|_, partial| time.saturating_sub(partial.began) <= Self::TIMEOUT);
        if !self.waiting.contains_key(&piece.key) && self.waiting.len() >= Self::MAX_PACKETS {
            let oldest = self.waiting.iter().min_by_key(|(_, partial)| partial.began);
            if let Some((&key, _)) = oldest {
                self.waiting.remove(&key);
            }
        }
        let key = piece.key;
        let partial = self.waiting.entry(key).or_insert_with(|| Partial::new(time));
        match partial.add(piece, frame, packet) {
            Ok(false) => Fate::Waiting,
            Ok(true) => match self.waiting.remove(&key).and_then(Partial::finish) {
                Some(whole) => Fate::Whole(whole),
                None => Fate::Dropped("fragments of no packet"),
            },
            Err(why) => {
                self.waiting.remove(&key);
                Fate::Dropped(why)
            }
        }
    }
}

impl Piece<'_> {
    fn of(packet: &[u8]) -> Option<Piece<'_>> {
        let ip = IpPacket::new_checked(packet).ok()?;
        let (src, dst) = (ip.src_addr(), ip.dst_addr());
        match ip {
            IpPacket::V4(ip) => {
                let fragment = ip.fragment()?;
                let mut header = packet.get(..ip.header_len())?.to_vec();
                // No offset, no MF; DF stays as it was.
                header[6] &= 0x40;
                header[7] = 0;
                let key = Key { src, dst, protocol: ip.protocol().0, ident: ip.ident().into() };
                let data = packet.get(ip.header_len()..ip.total_len().into())?;
                Some(Piece {
                    key,
                    header,
                    offset: fragment.offset.into(),
                    more: fragment.more,
                    data,
                })
            }
            IpPacket::V6(ip) => {
                let at = FragmentHeader::find(packet)?;
                let fragment = ip.upper_layer().ok()?.fragment?;
                let mut header = packet.get(..at.offset)?.to_vec();
                *header.get_mut(at.named_at)? = packet.get(at.offset).copied()?;
                let key = Key { src, dst, protocol: 0, ident: fragment.ident };
                let data = packet.get(at.offset + 8..ip.total_len())?;
                Some(Piece {
                    key,
                    header,
                    offset: fragment.offset.into(),
                    more: fragment.more,
                    data,
                })
            }
        }
    }
}

/// Where the Fragment header of an IPv6 packet stands, and the byte that names it.
struct FragmentHeader {
    offset: usize,
    named_at: usize,
}

impl FragmentHeader {
    fn find(packet: &[u8]) -> Option<Self> {
        let (mut named_at, mut offset) = (6, 40);
        for _ in 0..=crate::wire::ip::MAX_EXTENSION_HEADERS {
            match NextHeader(*packet.get(named_at)?) {
                NextHeader::FRAGMENT => return Some(Self { offset, named_at }),
                NextHeader::HOP_BY_HOP | NextHeader::DESTINATION_OPTIONS | NextHeader::ROUTING => {
                    named_at = offset;
                    offset += 8 + 8 * usize::from(*packet.get(offset + 1)?);
                }
                _ => return None,
            }
        }
        None
    }
}

impl Partial {
    fn new(began: u64) -> Self {
        Self {
            began,
            frames: Vec::new(),
            header: None,
            ce: false,
            pieces: BTreeMap::new(),
            total: None,
        }
    }

    /// Whether that made it whole.
    fn add(&mut self, piece: Piece<'_>, frame: usize, packet: &[u8]) -> Result<bool, &'static str> {
        let Piece { header, offset, more, data, .. } = piece;
        let end = offset + data.len();
        if data.is_empty() || more && data.len() % 8 != 0 {
            return Err("fragment of an impossible length");
        }
        if end > usize::from(u16::MAX) || self.pieces.len() >= Reassembler::MAX_FRAGMENTS {
            return Err("fragments of a packet that is too long");
        }
        if self.pieces.get(&offset).is_some_and(|known| known == data) {
            // Captured twice.
            return Ok(false);
        }
        let before = self.pieces.range(..end).next_back();
        if before.is_some_and(|(&start, known)| start + known.len() > offset) {
            return Err("overlapping fragments");
        }
        if !more && self.total.replace(end).is_some_and(|total| total != end) {
            return Err("fragments that disagree about the length");
        }
        if self.total.is_some_and(|total| end > total) {
            return Err("fragments that disagree about the length");
        }
        let class = IpPacket::new_checked(packet).map_or(0, |ip| ip.traffic_class());
        self.ce |= class & 3 == 3;
        if offset == 0 {
            self.header = Some(header);
        }
        self.frames.push(frame);
        self.pieces.insert(offset, data.to_vec());
        Ok(self.header.is_some() && self.total == Some(self.pieces.values().map(Vec::len).sum()))
    }

    fn finish(self) -> Option<Reassembled> {
        let mut packet = self.header?;
        let header_len = packet.len();
        for piece in self.pieces.values() {
            packet.extend(piece);
        }
        let len = u16::try_from(packet.len()).ok()?;
        if packet.first()? >> 4 == 4 {
            packet.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
            if self.ce {
                *packet.get_mut(1)? |= 3;
            }
            Ipv4Packet::new_checked(&mut packet[..]).ok()?.fill_checksum();
        } else {
            debug_assert!(header_len >= 40, "an IPv6 header");
            packet.get_mut(4..6)?.copy_from_slice(&len.checked_sub(40)?.to_be_bytes());
            if self.ce {
                *packet.get_mut(1)? |= 0x30;
            }
        }
        Some(Reassembled { packet, frames: self.frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ident: u16, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + data.len()).unwrap().to_be_bytes();
        let place = u16::try_from(offset / 8).unwrap() | if more { 0x2000 } else { 0 };
        let (ident, place) = (ident.to_be_bytes(), place.to_be_bytes());
        let mut packet =
            vec![0x45, 0, len[0], len[1], ident[0], ident[1], place[0], place[1], 64, 50, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(data);
        Ipv4Packet::new_checked(&mut packet[..]).unwrap().fill_checksum();
        packet
    }

    fn v6(ident: u32, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(16 + data.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], 0, 64];
        packet.extend([[0xfd; 16], [0xfe; 16]].concat());
        // Hop-by-hop options that pad, then the Fragment header.
        packet.extend([44, 0, 1, 4, 0, 0, 0, 0]);
        let place = u16::try_from(offset).unwrap() | u16::from(more);
        packet.extend([50, 0]);
        packet.extend(place.to_be_bytes());
        packet.extend(ident.to_be_bytes());
        packet.extend(data);
        packet
    }

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    /// Fragments of 64 bytes, in the given order.
    fn run(
        order: &[usize],
        make: impl Fn(usize, bool, &[u8]) -> Vec<u8>,
    ) -> (Option<Reassembled>, Vec<u8>) {
        let whole = data(200);
        let pieces: Vec<_> =
            whole.chunks(64).enumerate().map(|(i, piece)| make(i * 64, i < 3, piece)).collect();
        let mut reassembler = Reassembler::default();
        let mut found = None;
        for &at in order {
            match reassembler.take(0, at, &pieces[at]) {
                Fate::Whole(whole) => assert!(found.replace(whole).is_none()),
                Fate::Waiting => {}
                Fate::Dropped(why) => panic!("{why}"),
            }
        }
        (found, whole)
    }

    #[test]
    fn fragments_in_any_order_make_the_packet() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let (found, whole) = run(&order, |offset, more, data| v4(7, offset, more, data));
            let found = found.unwrap();
            assert_eq!(found.packet, v4(7, 0, false, &whole));
            assert_eq!(found.frames, order);
            let (found, whole) = run(&order, |offset, more, data| v6(7, offset, more, data));
            let packet = found.unwrap().packet;
            let ip = IpPacket::new_checked(&packet[..]).unwrap();
            let upper = ip.upper_layer().unwrap();
            assert_eq!((upper.protocol, upper.fragment), (NextHeader::ESP, None));
            assert_eq!(packet[upper.offset..], whole);
            assert_eq!(ip.total_len(), packet.len());
        }
        assert!(run(&[0, 1, 3], |offset, more, data| v4(7, offset, more, data)).0.is_none());
        assert!(run(&[1, 2, 3], |offset, more, data| v6(7, offset, more, data)).0.is_none());
        assert!(run(&[0, 0, 1, 1, 3, 3, 2], |o, more, data| v4(7, o, more, data)).0.is_some());
    }

    #[test]
    fn congestion_of_any_fragment_is_congestion_of_the_packet() {
        let mut reassembler = Reassembler::default();
        let mut second = v4(1, 8, false, &[2; 8]);
        Ipv4Packet::new_checked(&mut second[..]).unwrap().set_ecn(3);
        assert_eq!(reassembler.take(0, 0, &v4(1, 0, true, &[1; 8])), Fate::Waiting);
        let Fate::Whole(whole) = reassembler.take(0, 1, &second) else { panic!() };
        let ip = Ipv4Packet::new_checked(&whole.packet[..]).unwrap();
        assert!(ip.ecn() == 3 && ip.verify_checksum());
    }

    #[test]
    fn contradictions_make_the_packet_vanish() {
        let first = v4(1, 0, true, &[1; 16]);
        for bad in [
            v4(1, 8, true, &[2; 16]),
            v4(1, 0, true, &[2; 16]),
            v4(1, 16, true, &[2; 15]),
            v4(1, 65_528, false, &[2; 16]),
        ] {
            let mut reassembler = Reassembler::default();
            assert_eq!(reassembler.take(0, 0, &first), Fate::Waiting);
            assert!(matches!(reassembler.take(0, 1, &bad), Fate::Dropped(_)));
            assert!(reassembler.waiting.is_empty());
        }
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.take(0, 0, &v4(1, 64, false, &[1; 16])), Fate::Waiting);
        assert!(matches!(reassembler.take(0, 1, &v4(1, 96, true, &[1; 16])), Fate::Dropped(_)));
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_time() {
        let mut reassembler = Reassembler::default();
        for ident in 0..2000 {
            let fate = reassembler.take(ident.into(), 0, &v4(ident, 0, true, &[1; 8]));
            assert_eq!(fate, Fate::Waiting);
        }
        assert_eq!(reassembler.waiting.len(), Reassembler::MAX_PACKETS);
        // The newest are those that stayed.
        assert!(matches!(reassembler.take(2000, 1, &v4(1999, 8, false, &[1])), Fate::Whole(_)));
        let late = Reassembler::TIMEOUT + 2001;
        assert_eq!(reassembler.take(late, 1, &v4(1998, 8, false, &[1])), Fate::Waiting);
        assert_eq!(reassembler.waiting.len(), 1);
    }
}
