//! Patterns of addresses and SPIs, as Wireshark's `esp_sa` has them: `*`, prefixes, `10.*.*.1`, `0x1234****`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses an SA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddrPattern {
    /// Every address.
    Any,
    /// Every IPv4 address whose bits under the mask are these.
    V4 {
        /// The bits.
        bits: u32,
        /// Which of them count.
        mask: u32,
    },
    /// Every IPv6 address whose bits under the mask are these.
    V6 {
        /// The bits.
        bits: u128,
        /// Which of them count.
        mask: u128,
    },
}

impl AddrPattern {
    /// One address.
    #[must_use]
    pub const fn exactly(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::V4 { bits: addr.to_bits(), mask: u32::MAX },
            IpAddr::V6(addr) => Self::V6 { bits: addr.to_bits(), mask: u128::MAX },
        }
    }

    /// Every address of one IP version.
    #[must_use]
    pub const fn any_of(ipv6: bool) -> Self {
        if ipv6 { Self::V6 { bits: 0, mask: 0 } } else { Self::V4 { bits: 0, mask: 0 } }
    }

    /// Whether it takes this one.
    #[must_use]
    pub const fn matches(&self, addr: IpAddr) -> bool {
        match (*self, addr) {
            (Self::Any, _) => true,
            (Self::V4 { bits, mask }, IpAddr::V4(addr)) => addr.to_bits() & mask == bits & mask,
            (Self::V6 { bits, mask }, IpAddr::V6(addr)) => addr.to_bits() & mask == bits & mask,
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }

    /// Reads one of the given version.
    pub(super) fn parse(text: &str, ipv6: bool) -> Option<Self> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len.parse::<u8>().ok()?)),
            None => (text, None),
        };
        if addr == "*" {
            return Some(Self::any_of(ipv6));
        }
        if ipv6 {
            let (bits, mask) = v6(addr)?;
            let prefix = match len {
                Some(len @ 0..=128) => u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0),
                Some(_) => return None,
                None => u128::MAX,
            };
            Some(Self::V6 { bits, mask: mask & prefix })
        } else {
            let (bits, mask) = v4(addr)?;
            let prefix = match len {
                Some(len @ 0..=32) => u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0),
                Some(_) => return None,
                None => u32::MAX,
            };
            Some(Self::V4 { bits, mask: mask & prefix })
        }
    }
}

/// Bits and mask; `*` stands for an octet.
fn v4(text: &str) -> Option<(u32, u32)> {
    let (mut bits, mut mask) = ([0; 4], [0; 4]);
    let mut parts = text.split('.');
    for (bits, mask) in bits.iter_mut().zip(&mut mask) {
        match parts.next()? {
            "*" => {}
            part => {
                *bits = part.parse::<u8>().ok()?;
                *mask = u8::MAX;
            }
        }
    }
    parts.next().is_none().then_some((u32::from_be_bytes(bits), u32::from_be_bytes(mask)))
}

/// Bits and mask; `*` stands for a group of 16 bits.
fn v6(text: &str) -> Option<(u128, u128)> {
    if !text.contains('*') {
        return Some((text.parse::<Ipv6Addr>().ok()?.to_bits(), u128::MAX));
    }
    // Where the wildcards stand shows when they are zeros in one copy and ones in another.
    let zeros = text.replace('*', "0").parse::<Ipv6Addr>().ok()?.to_bits();
    let ones = text.replace('*', "ffff").parse::<Ipv6Addr>().ok()?.to_bits();
    Some((zeros, !(zeros ^ ones)))
}

/// As a table has it.
impl fmt::Display for AddrPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any | Self::V4 { mask: 0, .. } | Self::V6 { mask: 0, .. } => f.write_str("*"),
            Self::V4 { bits, mask } if mask.leading_ones() + mask.trailing_zeros() == 32 => {
                fmt::Display::fmt(&Ipv4Addr::from_bits(bits), f)?;
                if mask == u32::MAX { Ok(()) } else { write!(f, "/{}", mask.leading_ones()) }
            }
            Self::V4 { bits, mask } => {
                for (i, (bits, mask)) in
                    bits.to_be_bytes().into_iter().zip(mask.to_be_bytes()).enumerate()
                {
                    let dot = if i == 0 { "" } else { "." };
                    if mask == 0 { write!(f, "{dot}*")? } else { write!(f, "{dot}{bits}")? }
                }
                Ok(())
            }
            Self::V6 { bits, mask } if mask.leading_ones() + mask.trailing_zeros() == 128 => {
                fmt::Display::fmt(&Ipv6Addr::from_bits(bits), f)?;
                if mask == u128::MAX { Ok(()) } else { write!(f, "/{}", mask.leading_ones()) }
            }
            Self::V6 { bits, mask } => {
                let groups = Ipv6Addr::from_bits(bits).segments();
                let masks = Ipv6Addr::from_bits(mask).segments();
                for (i, (bits, mask)) in groups.into_iter().zip(masks).enumerate() {
                    let colon = if i == 0 { "" } else { ":" };
                    if mask == 0 { write!(f, "{colon}*")? } else { write!(f, "{colon}{bits:x}")? }
                }
                Ok(())
            }
        }
    }
}

/// Which SPIs an SA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpiPattern {
    bits: u32,
    mask: u32,
}

impl SpiPattern {
    /// Every SPI.
    pub const ANY: Self = Self { bits: 0, mask: 0 };

    /// One SPI.
    #[must_use]
    pub const fn exactly(spi: u32) -> Self {
        Self { bits: spi, mask: u32::MAX }
    }

    /// Whether it takes this one.
    #[must_use]
    pub const fn matches(&self, spi: u32) -> bool {
        spi & self.mask == self.bits & self.mask
    }

    /// Whether it takes one alone.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.mask == u32::MAX
    }

    /// `*`, a number in decimal or hex, hex digits some of which are `*`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::ANY);
        }
        let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) else {
            return text.parse().ok().map(Self::exactly);
        };
        if digits.is_empty() || digits.len() > 8 {
            return None;
        }
        // Digits that are not written are zeros.
        let unwritten = u32::MAX.checked_shl(4 * u32::try_from(digits.len()).ok()?).unwrap_or(0);
        let (mut bits, mut mask) = (0, 0);
        for c in digits.chars() {
            let (digit, counts) = if c == '*' { (0, 0) } else { (c.to_digit(16)?, 15) };
            bits = bits << 4 | digit;
            mask = mask << 4 | counts;
        }
        Some(Self { bits, mask: mask | unwritten })
    }
}

/// As a table has it.
impl fmt::Display for SpiPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mask == 0 {
            return f.write_str("*");
        }
        f.write_str("0x")?;
        for shift in (0..8).rev().map(|digit| digit * 4) {
            match self.mask >> shift & 15 {
                0 => f.write_str("*")?,
                _ => write!(f, "{:x}", self.bits >> shift & 15)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_match_by_prefix_or_wildcard() {
        for (pattern, ipv6, yes, no) in [
            ("*", false, "10.0.0.1", "fd00::1"),
            ("*", true, "fd00::1", "10.0.0.1"),
            ("10.1.2.3", false, "10.1.2.3", "10.1.2.4"),
            ("10.1.0.0/16", false, "10.1.255.4", "10.2.0.1"),
            ("10.*.*.1", false, "10.7.8.1", "10.7.8.2"),
            ("0.0.0.0/0", false, "10.7.8.1", "fd00::1"),
            ("fd00::1", true, "fd00::1", "fd00::2"),
            ("fd00::/64", true, "fd00::2:0", "fd00:0:0:1::"),
            ("fd00::*", true, "fd00::77", "fd00::1:77"),
        ] {
            let read = AddrPattern::parse(pattern, ipv6).unwrap();
            assert!(read.matches(addr(yes)), "{pattern}");
            assert!(!read.matches(addr(no)), "{pattern}");
            assert_eq!(AddrPattern::parse(&read.to_string(), ipv6), Some(read), "{pattern}");
        }
        for bad in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0.0", "x"] {
            assert_eq!(AddrPattern::parse(bad, false), None, "{bad}");
        }
        for bad in ["", "fd00::1/129", "10.0.0.1", "fd00:*"] {
            assert_eq!(AddrPattern::parse(bad, true), None, "{bad}");
        }
    }

    #[test]
    fn spis_are_numbers_or_have_wildcards() {
        for (pattern, yes, no) in [
            ("*", 0x1234_5678, None),
            ("0x12345678", 0x1234_5678, Some(0x1234_5679)),
            ("0xff00", 0xff00, Some(0x1_ff00)),
            ("65280", 0xff00, Some(0xff01)),
            ("0x1234****", 0x1234_9999, Some(0x1235_9999)),
            ("0x***4", 0xabc4, Some(0x1_abc4)),
        ] {
            let read = SpiPattern::parse(pattern).unwrap();
            assert!(read.matches(yes), "{pattern}");
            assert!(no.is_none_or(|no| !read.matches(no)), "{pattern}");
            assert_eq!(SpiPattern::parse(&read.to_string()), Some(read), "{pattern}");
        }
        for bad in ["", "0x", "0x123456789", "12x", "-1", "4294967296"] {
            assert_eq!(SpiPattern::parse(bad), None, "{bad}");
        }
    }
}
