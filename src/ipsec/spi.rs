//! [`Spi`]: the Security Parameters Index of an ESP or AH SA (RFC 4303 §2.1, RFC 4302 §2.4).

use core::fmt;

/// The SPI of an ESP or AH SA: never 0–255, which are reserved (RFC 4303 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(u32);

impl Spi {
    /// The smallest SPI that may be used.
    pub const MIN: u32 = 256;

    /// `None` for the reserved values 0–255.
    #[must_use]
    #[inline]
    pub const fn new(value: u32) -> Option<Self> {
        if value < Self::MIN { None } else { Some(Self(value)) }
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The bytes as they stand on the wire.
    #[must_use]
    #[inline]
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_values_are_not_an_spi() {
        assert_eq!(Spi::new(0), None);
        assert_eq!(Spi::new(255), None);
        assert_eq!(Spi::new(256).map(Spi::get), Some(256));
    }

    #[test]
    fn prints_as_eight_hex_digits() {
        assert_eq!(Spi(0x00c0_ffee).to_string(), "0x00c0ffee");
    }
}
