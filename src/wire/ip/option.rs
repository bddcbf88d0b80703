//! Options: of the IPv4 header (RFC 791 §3.1), and of the IPv6 options headers (RFC 8200 §4.2).

use core::fmt;

use crate::wire::{Malformed, ParseError, Reader};

/// An option of an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Option<'a> {
    /// What it is.
    pub kind: Ipv4OptionType,
    /// Offset of its first byte from the start of the options.
    pub at: usize,
    /// The whole option, with type and length.
    pub bytes: &'a [u8],
}

/// The options of an IPv4 header, to the End of Options List, which is not one of them. After an error there are no more.
///
/// ```text
/// +--------+--------+--------//--------+
/// |  type  | length |      data        |
/// +--------+--------+--------//--------+
/// ```
///
/// The length counts type and length. No Operation is a type alone.
#[derive(Clone, Debug)]
pub struct Ipv4Options<'a> {
    reader: Reader<'a>,
}

impl<'a> Ipv4Options<'a> {
    /// The options in `bytes`, which are those after the fixed header.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new("IPv4 options", bytes) }
    }

    fn take(&mut self) -> Result<Option<Ipv4Option<'a>>, ParseError> {
        let at = self.reader.offset();
        let mut ahead = self.reader.clone();
        let kind = Ipv4OptionType(ahead.u8()?);
        let len = match kind {
            Ipv4OptionType::END => return Ok(None),
            Ipv4OptionType::NO_OPERATION => 1,
            _ => usize::from(ahead.u8()?),
        };
        if len < 2 && kind != Ipv4OptionType::NO_OPERATION {
            return Err(self.reader.error(Malformed::BadLength(len)));
        }
        Ok(Some(Ipv4Option { kind, at, bytes: self.reader.take(len)? }))
    }
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Result<Ipv4Option<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let option = self.take().transpose();
        if !matches!(option, Some(Ok(_))) {
            self.reader.rest();
        }
        option
    }
}

/// The type of an IPv4 option: copied flag, class and number in one byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4OptionType(pub u8);

impl Ipv4OptionType {
    /// End of Options List.
    pub const END: Self = Self(0);
    /// No Operation.
    pub const NO_OPERATION: Self = Self(1);
    /// Record Route.
    pub const RECORD_ROUTE: Self = Self(7);
    /// Time Stamp.
    pub const TIME_STAMP: Self = Self(68);
    /// Security (RFC 1108).
    pub const SECURITY: Self = Self(130);
    /// Loose Source Route.
    pub const LOOSE_SOURCE_ROUTE: Self = Self(131);
    /// Extended Security (RFC 1108).
    pub const EXTENDED_SECURITY: Self = Self(133);
    /// Commercial Security.
    pub const COMMERCIAL_SECURITY: Self = Self(134);
    /// Strict Source Route.
    pub const STRICT_SOURCE_ROUTE: Self = Self(137);
    /// Router Alert (RFC 2113).
    pub const ROUTER_ALERT: Self = Self(148);
    /// Sender Directed Multi-Destination Delivery (RFC 1770).
    pub const SENDER_DIRECTED_DELIVERY: Self = Self(149);

    /// Whether it stays as it is on its way (RFC 4302 Appendix A1). Of what is not known there, that is not known either.
    #[must_use]
    pub const fn is_immutable(self) -> bool {
        matches!(
            self,
            Self::END
                | Self::NO_OPERATION
                | Self::SECURITY
                | Self::EXTENDED_SECURITY
                | Self::COMMERCIAL_SECURITY
                | Self::ROUTER_ALERT
                | Self::SENDER_DIRECTED_DELIVERY
        )
    }

    /// Whether it names addresses through which the packet goes, the last of them its destination.
    #[must_use]
    pub const fn is_source_route(self) -> bool {
        matches!(self, Self::LOOSE_SOURCE_ROUTE | Self::STRICT_SOURCE_ROUTE)
    }
}

impl fmt::Debug for Ipv4OptionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ipv4OptionType({})", self.0)
    }
}

/// An option of an IPv6 options header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Option<'a> {
    /// What it is.
    pub kind: Ipv6OptionType,
    /// Offset of its data from the start of the options header.
    pub data_at: usize,
    /// Its data, without type and length.
    pub data: &'a [u8],
}

/// The options in a Hop-by-Hop or Destination Options header. After an error there are no more.
///
/// ```text
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+- - - - - - - - -
/// |  Option Type  |  Opt Data Len |  Option Data
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+- - - - - - - - -
/// ```
///
/// Pad1 is a type alone.
#[derive(Clone, Debug)]
pub struct Ipv6Options<'a> {
    reader: Reader<'a>,
}

impl<'a> Ipv6Options<'a> {
    /// The options in `header`, which is a whole options header.
    #[must_use]
    pub fn new(header: &'a [u8]) -> Self {
        let mut reader = Reader::new("IPv6 options header", header);
        // Next Header and Hdr Ext Len. Without them there are no options either.
        if reader.take(2).is_err() {
            reader.rest();
        }
        Self { reader }
    }

    fn take(&mut self) -> Result<Ipv6Option<'a>, ParseError> {
        let kind = Ipv6OptionType(self.reader.u8()?);
        let len = match kind {
            Ipv6OptionType::PAD1 => 0,
            _ => usize::from(self.reader.u8()?),
        };
        let data_at = self.reader.offset();
        Ok(Ipv6Option { kind, data_at, data: self.reader.take(len)? })
    }
}

impl<'a> Iterator for Ipv6Options<'a> {
    type Item = Result<Ipv6Option<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let option = self.take();
        if option.is_err() {
            self.reader.rest();
        }
        Some(option)
    }
}

/// The type of an IPv6 option, whose high bits say what a node does with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6OptionType(pub u8);

impl Ipv6OptionType {
    /// One byte of padding.
    pub const PAD1: Self = Self(0);
    /// Two or more bytes of padding.
    pub const PAD_N: Self = Self(1);

    /// Whether its data may change on its way (RFC 8200 §4.2).
    #[must_use]
    pub const fn may_change(self) -> bool {
        self.0 & 0x20 != 0
    }
}

impl fmt::Debug for Ipv6OptionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ipv6OptionType({:#04x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(bytes: &[u8]) -> Result<Vec<(u8, usize, usize)>, Malformed> {
        Ipv4Options::new(bytes)
            .map(|option| option.map(|option| (option.kind.0, option.at, option.bytes.len())))
            .collect::<Result<_, _>>()
            .map_err(|error| error.why)
    }

    fn v6(header: &[u8]) -> Result<Vec<(u8, usize, usize)>, Malformed> {
        Ipv6Options::new(header)
            .map(|option| option.map(|option| (option.kind.0, option.data_at, option.data.len())))
            .collect::<Result<_, _>>()
            .map_err(|error| error.why)
    }

    #[test]
    fn ipv4_options_are_read_to_the_end_of_their_list() {
        let bytes = [1, 148, 4, 0, 0, 7, 3, 4, 0, 148, 9, 9];
        assert_eq!(v4(&bytes), Ok(vec![(1, 0, 1), (148, 1, 4), (7, 5, 3)]));
        assert_eq!(v4(&[]), Ok(vec![]));
    }

    #[test]
    fn an_ipv4_option_of_impossible_length_is_an_error() {
        assert_eq!(v4(&[148, 1, 0, 0]), Err(Malformed::BadLength(1)));
        assert_eq!(v4(&[148, 0, 0, 0]), Err(Malformed::BadLength(0)));
        for bytes in [&[1, 1, 1, 148][..], &[148, 5, 0, 0]] {
            assert!(matches!(v4(bytes), Err(Malformed::Truncated { .. })), "{bytes:?}");
        }
        let mut options = Ipv4Options::new(&[148, 1, 1, 1]);
        assert!(options.next().is_some_and(|option| option.is_err()));
        assert_eq!(options.next(), None, "nothing is read after an error");
    }

    #[test]
    fn ipv6_options_are_read_to_the_end_of_the_header() {
        let header = [59, 1, 0, 1, 1, 0, 0x3e, 4, 1, 2, 3, 4, 0x1e, 2, 5, 6];
        assert_eq!(v6(&header), Ok(vec![(0, 3, 0), (1, 5, 1), (0x3e, 8, 4), (0x1e, 14, 2)]));
        assert_eq!(v6(&[59, 0]), Ok(vec![]));
        assert_eq!(v6(&[59]), Ok(vec![]));
    }

    #[test]
    fn an_ipv6_option_that_is_cut_is_an_error() {
        for header in [&[59, 0, 1][..], &[59, 0, 1, 5, 0, 0, 0, 0], &[59, 0, 0, 0, 0, 0, 0, 5]] {
            assert!(matches!(v6(header), Err(Malformed::Truncated { .. })), "{header:?}");
        }
        let mut options = Ipv6Options::new(&[59, 0, 1, 9, 0, 0]);
        assert!(options.next().is_some_and(|option| option.is_err()));
        assert_eq!(options.next(), None, "nothing is read after an error");
    }

    #[test]
    fn immutable_ipv4_options_are_those_of_rfc_4302_appendix_a1() {
        let byte = |copied: u8, class: u8, number: u8| copied << 7 | class << 5 | number;
        let table = [(0, 0, 0), (0, 0, 1), (1, 0, 2), (1, 0, 5), (1, 0, 6), (1, 0, 20), (1, 0, 21)];
        let table = table.map(|(copied, class, number)| byte(copied, class, number));
        for kind in 0..=u8::MAX {
            assert_eq!(Ipv4OptionType(kind).is_immutable(), table.contains(&kind), "{kind}");
        }
        let routes: Vec<_> =
            (0..=u8::MAX).filter(|&k| Ipv4OptionType(k).is_source_route()).collect();
        assert_eq!(routes, [byte(1, 0, 3), byte(1, 0, 9)]);
        assert_eq!(Ipv4OptionType::TIME_STAMP.0, byte(0, 2, 4));
        assert_eq!(Ipv4OptionType::RECORD_ROUTE.0, byte(0, 0, 7));
    }

    #[test]
    fn the_third_bit_of_an_ipv6_option_says_that_it_may_change() {
        for kind in 0..=u8::MAX {
            assert_eq!(Ipv6OptionType(kind).may_change(), kind >> 5 & 1 == 1, "{kind:#x}");
        }
    }
}
