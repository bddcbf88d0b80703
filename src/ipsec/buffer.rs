//! [`PacketBuf`]: one packet with room before and after it, so that sealing and opening happen in place.

use core::fmt;
use core::ops::{Deref, DerefMut};

/// One packet in a buffer that has room for the largest header before it and the largest trailer after it.
///
/// Dereferences to the packet. Allocates only when made; it is meant to be reused.
#[derive(Clone, Default)]
pub struct PacketBuf {
    storage: Box<[u8]>,
    /// Where the headroom begins.
    base: usize,
    start: usize,
    end: usize,
}

impl PacketBuf {
    /// Bytes before a packet read with [`space_mut`](Self::space_mut): an IPv6 header, an AH with the longest ICV and an
    /// ESP header with the longest IV need 112. The rest is for the IPv6 extension headers of packets that come without
    /// them, and keeps the packet aligned.
    pub const HEADROOM: usize = 256;

    /// Bytes after the longest packet: 15 of padding, 2 of ESP trailer and an ICV of 32 need 49.
    pub const TAILROOM: usize = 64;

    /// Of a cache.
    const LINE: usize = 64;
    /// ESP header and IV as nearly every packet has them.
    const FRONT: usize = 16;

    /// An empty buffer for packets of up to `max_len` bytes.
    #[must_use]
    pub fn new(max_len: usize) -> Self {
        let len = Self::HEADROOM + max_len + Self::TAILROOM;
        let mut storage = vec![0; Self::LINE + len];
        // What is read begins before the end of a line of the cache: of an inner packet the first bytes then lie in the line
        // into which header and IV come, which is in the cache, and behind those of an ESP packet begins another, which is
        // quicker to decrypt. Nothing but time depends on it.
        let begin = Self::LINE - Self::FRONT;
        let base = begin.wrapping_sub(storage.as_ptr().addr() + Self::HEADROOM) % Self::LINE;
        storage.truncate(base + len);
        let start = base + Self::HEADROOM;
        Self { storage: storage.into_boxed_slice(), base, start, end: start }
    }

    /// A buffer that holds a copy of `packet`.
    #[must_use]
    pub fn copy_of(packet: &[u8]) -> Self {
        let mut buf = Self::new(packet.len());
        buf.space_mut().copy_from_slice(packet);
        buf.set_len(packet.len());
        buf
    }

    /// The longest packet that fits without using head- or tailroom.
    #[must_use]
    #[inline]
    pub fn max_len(&self) -> usize {
        self.storage.len().saturating_sub(self.base + Self::HEADROOM + Self::TAILROOM)
    }

    /// Empties the buffer and restores its headroom.
    #[inline]
    pub fn clear(&mut self) {
        self.start = (self.base + Self::HEADROOM).min(self.storage.len());
        self.end = self.start;
    }

    /// Empties the buffer and gives the `max_len` bytes into which a packet is to be read; then say with
    /// [`set_len`](Self::set_len) how long it is.
    pub fn space_mut(&mut self) -> &mut [u8] {
        self.clear();
        let end = self.start + self.max_len();
        &mut self.storage[self.start..end]
    }

    /// Makes the packet `len` bytes long, at most as many as there are to the end of the buffer.
    pub fn set_len(&mut self, len: usize) {
        self.end = self.start + len.min(self.storage.len() - self.start);
    }

    /// Replaces the contents. `false`, and nothing changed, if it does not fit.
    #[must_use]
    pub fn fill_from(&mut self, packet: &[u8]) -> bool {
        if packet.len() > self.max_len() {
            return false;
        }
        self.space_mut()[..packet.len()].copy_from_slice(packet);
        self.set_len(packet.len());
        true
    }

    /// Makes the packet `n` bytes longer at its front. The new bytes are whatever was there before.
    #[must_use]
    #[inline]
    pub fn push_front(&mut self, n: usize) -> bool {
        let fits = n <= self.headroom();
        if fits {
            self.start -= n;
        }
        fits
    }

    /// Makes the packet `n` bytes longer at its end. The new bytes are whatever was there before.
    #[must_use]
    #[inline]
    pub fn push_back(&mut self, n: usize) -> bool {
        match self.end.checked_add(n) {
            Some(end) if end <= self.storage.len() => {
                self.end = end;
                true
            }
            _ => false,
        }
    }

    /// Makes the packet `front` bytes longer at its front and `back` at its end, and gives the whole of it. The new bytes are
    /// whatever was there before. `None`, and nothing changed, if there is no room.
    #[inline]
    pub fn grow(&mut self, front: usize, back: usize) -> Option<&mut [u8]> {
        if front > self.headroom() {
            return None;
        }
        let (start, end) = (self.start - front, self.end.checked_add(back)?);
        let packet = self.storage.get_mut(start..end)?;
        (self.start, self.end) = (start, end);
        Some(packet)
    }

    /// Changes places with another.
    #[inline]
    pub fn swap(&mut self, other: &mut Self) {
        // By fields, of which each goes through registers.
        core::mem::swap(&mut self.storage, &mut other.storage);
        core::mem::swap(&mut self.base, &mut other.base);
        core::mem::swap(&mut self.start, &mut other.start);
        core::mem::swap(&mut self.end, &mut other.end);
    }

    /// Bytes free before the packet.
    #[must_use]
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start - self.base
    }

    /// Bytes free after the packet.
    #[must_use]
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.storage.len() - self.end
    }

    /// Takes up to `n` bytes away from the front.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        self.start += n.min(self.len());
    }

    /// Shortens the packet to `len` bytes, if it is longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.end = self.start + len.min(self.len());
    }
}

impl Deref for PacketBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }
}

impl DerefMut for PacketBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }
}

/// The length alone: packets in clear do not belong into logs.
impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketBuf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_into_its_rooms_and_no_further() {
        let mut buf = PacketBuf::copy_of(&[7; 10]);
        assert!(buf.push_front(PacketBuf::HEADROOM));
        assert!(!buf.push_front(1));
        assert!(buf.push_back(PacketBuf::TAILROOM));
        assert!(!buf.push_back(1));
        assert!(!buf.push_back(usize::MAX), "no overflow");
        assert_eq!(buf.len(), PacketBuf::HEADROOM + 10 + PacketBuf::TAILROOM);
        assert!(buf.grow(1, 0).is_none() && buf.grow(0, 1).is_none());
        assert!(buf.grow(0, usize::MAX).is_none(), "no overflow");
        buf.trim_front(PacketBuf::HEADROOM);
        buf.truncate(10);
        assert_eq!(&*buf, [7; 10]);
        assert_eq!(buf.grow(3, 4).map(|packet| packet.len()), Some(17));
        assert_eq!(buf[3..13], [7; 10]);
    }

    #[test]
    fn header_and_iv_come_into_the_line_in_which_the_packet_begins() {
        for max_len in [0, 1, 100, 2048, 65_535] {
            let buf = PacketBuf::new(max_len);
            assert_eq!(buf.max_len(), max_len);
            assert_eq!((buf.headroom(), buf.tailroom()), (256, max_len + 64));
            // If making the storage shorter moved it, that is no mistake; it does not here.
            assert_eq!(buf.as_ptr().addr() % 64, 48);
        }
    }

    #[test]
    fn clearing_restores_the_headroom() {
        let mut buf = PacketBuf::copy_of(&[7; 10]);
        buf.trim_front(4);
        buf.clear();
        assert!(buf.is_empty());
        assert_eq!(buf.headroom(), PacketBuf::HEADROOM);
        assert_eq!(buf.space_mut().len(), 10);
    }

    #[test]
    fn a_packet_that_is_too_long_is_refused_whole() {
        let mut buf = PacketBuf::copy_of(&[7; 10]);
        assert!(!buf.fill_from(&[8; 11]));
        assert_eq!(&*buf, [7; 10]);
        assert!(buf.fill_from(&[8; 3]));
        assert_eq!(&*buf, [8; 3]);
    }

    #[test]
    fn a_default_buffer_is_empty_and_harmless() {
        let mut buf = PacketBuf::default();
        assert_eq!((buf.len(), buf.max_len(), buf.headroom(), buf.tailroom()), (0, 0, 0, 0));
        assert!(buf.space_mut().is_empty());
        buf.set_len(5);
        buf.trim_front(5);
        buf.truncate(5);
        assert!(!buf.push_front(1));
        assert!(!buf.push_back(1));
    }

    #[test]
    fn debug_output_has_no_contents() {
        assert_eq!(format!("{:?}", PacketBuf::copy_of(b"secret")), "PacketBuf(6 bytes)");
    }
}
