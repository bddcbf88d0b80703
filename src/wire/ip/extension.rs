//! The chain of IPv6 extension headers (RFC 8200 §4), walked from its first header on.

use super::{Fragment, NextHeader};
use crate::wire::{Malformed, ParseError, Reader};

/// Extension headers walked in one packet. RFC 8200 §4.1 has at most seven, in an order of which no
/// legitimate packet needs all.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// One extension header: Hop-by-Hop Options, Destination Options, Routing or Fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionHeader {
    /// What it is.
    pub kind: NextHeader,
    /// Offset of the byte that says so, from the start of the packet.
    pub named_at: usize,
    /// Offset of its first byte, which is its own Next Header field, from the start of the packet.
    pub at: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Where in a larger packet this one belongs by it; `None` if it is no Fragment header, or that of an atomic
    /// fragment, which is a whole packet (RFC 6946).
    pub fragment: Option<Fragment>,
}

impl ExtensionHeader {
    /// Offset of the byte after it.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.at + self.len
    }
}

/// An iterator over the extension headers of a packet, at most [`MAX_EXTENSION_HEADERS`] of them.
///
/// ESP, AH and the Mobility Header end the chain as any protocol above IP does (RFC 4301 §4.4.1.1). So does the Fragment
/// header of a fragment past the first: what it names is not there. After an error there are no more.
#[derive(Clone, Debug)]
pub struct ExtensionHeaders<'a> {
    reader: Reader<'a>,
    next: NextHeader,
    named_at: usize,
    walked: usize,
    ended: bool,
}

impl<'a> ExtensionHeaders<'a> {
    /// The chain in `packet`, which begins with a whole fixed header.
    pub(super) fn new(packet: &'a [u8], fixed_len: usize, named_at: usize) -> Self {
        let mut reader = Reader::new("IPv6 extension header", packet);
        // Both are checked by the packet's own constructor; a packet without either has no chain.
        let ended = reader.take(fixed_len).is_err();
        let next = NextHeader(packet.get(named_at).copied().unwrap_or(NextHeader::NONE.0));
        Self { reader, next, named_at, walked: 0, ended }
    }

    /// What follows the headers walked so far: after the last one, the protocol above IP.
    #[must_use]
    pub const fn next_header(&self) -> NextHeader {
        self.next
    }

    /// Offset of what follows the headers walked so far, from the start of the packet.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.reader.offset()
    }

    /// Offset of the byte that names what follows the headers walked so far.
    #[must_use]
    pub const fn named_at(&self) -> usize {
        self.named_at
    }

    fn take(&mut self) -> Result<Option<ExtensionHeader>, ParseError> {
        match self.next {
            // RFC 8200 §4.1: only immediately after the IPv6 header.
            NextHeader::HOP_BY_HOP if self.walked > 0 => {
                return Err(self.reader.error(Malformed::BadValue(self.next.0.into())));
            }
            NextHeader::HOP_BY_HOP
            | NextHeader::DESTINATION_OPTIONS
            | NextHeader::ROUTING
            | NextHeader::FRAGMENT => {}
            _ => return Ok(None),
        }
        if self.walked == MAX_EXTENSION_HEADERS {
            return Err(self.reader.error(Malformed::TooMany(MAX_EXTENSION_HEADERS)));
        }
        let (kind, named_at, at) = (self.next, self.named_at, self.reader.offset());
        let next = NextHeader(self.reader.u8()?);
        let mut fragment = None;
        if kind == NextHeader::FRAGMENT {
            let _reserved = self.reader.u8()?;
            let offset_flags = self.reader.u16()?;
            let this = Fragment {
                offset: offset_flags & 0xfff8,
                more: offset_flags & 1 != 0,
                ident: self.reader.u32()?,
            };
            fragment = (this.more || this.offset != 0).then_some(this);
            self.ended = this.offset != 0;
        } else {
            // In units of 8 bytes, not counting the first.
            let length = usize::from(self.reader.u8()?);
            self.reader.take(length * 8 + 6)?;
        }
        (self.next, self.named_at) = (next, at);
        self.walked += 1;
        let len = self.reader.offset() - at;
        Ok(Some(ExtensionHeader { kind, named_at, at, len, fragment }))
    }
}

impl Iterator for ExtensionHeaders<'_> {
    type Item = Result<ExtensionHeader, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let header = self.take().transpose();
        self.ended |= matches!(header, Some(Err(_)));
        header
    }
}
