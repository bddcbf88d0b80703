//! The Internet checksum (RFC 1071), whole and mended (RFC 1624).

use core::net::IpAddr;

/// A sum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd number only at the end.
    #[must_use]
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let pairs = pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum::<u64>();
        let rest = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
        Self(self.0 + pairs + rest)
    }

    /// Adds the pseudo-header of IPv6 (RFC 8200 §8.1), which is that of IPv4 but for the width of its fields.
    #[must_use]
    pub(super) fn add_pseudo(self, src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let add_addr = |sum: Self, addr: IpAddr| match addr {
            IpAddr::V4(addr) => sum.add(&addr.octets()),
            IpAddr::V6(addr) => sum.add(&addr.octets()),
        };
        let sum = add_addr(add_addr(self, src), dst);
        Self(sum.0 + u64::from(protocol) + len as u64)
    }

    /// What goes into the checksum field.
    #[must_use]
    pub(super) fn finish(self) -> u16 {
        !fold(self.0)
    }
}

/// A checksum field after a 16-bit word under it has changed (RFC 1624 §3, equation 3).
#[must_use]
pub(super) fn mend(checksum: u16, before: u16, after: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!before) + u64::from(after))
}

#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
const fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn example_of_rfc_1071() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(!sum.finish(), 0xddf2);
    }

    #[test]
    fn example_of_rfc_1624() {
        assert_eq!(mend(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn mending_is_summing_again(mut data in proptest::collection::vec(any::<u8>(), 20), word: u16) {
            // Never all zero, as no IP header is: there the two forms of zero would differ.
            data[0] |= 0x40;
            let before = Sum::default().add(&data).finish();
            let old = u16::from_be_bytes([data[4], data[5]]);
            data[4..6].copy_from_slice(&word.to_be_bytes());
            prop_assert_eq!(mend(before, old, word), Sum::default().add(&data).finish());
        }
    }
}
