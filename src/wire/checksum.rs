//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept folded to 16 bits and not complemented until [`finish`].

use core::net::{Ipv4Addr, Ipv6Addr};

use super::ip::NextHeader;

/// The one's complement sum of `data`, padded with a zero byte to even length (RFC 1071 §1).
#[must_use]
pub fn data(data: &[u8]) -> u16 {
    // RFC 1071 §2 (B), (C): in any byte order, and in words of any length, since 2^16 ≡ 1 (mod 2^16 - 1). Eight sums side by
    // side are what a processor adds at a time. Without iterators that are put together: where one of their functions is not
    // inlined, which depends on how a crate is divided for its compiler, this takes ten times as long.
    let (blocks, rest) = data.as_chunks::<64>();
    let mut sums = [0; 8];
    for block in blocks {
        let words = block.as_chunks::<4>().0;
        for lane in 0..8 {
            sums[lane] += word(words[lane]) + word(words[lane + 8]);
        }
    }
    let mut sum: u64 = 0;
    for lane in sums {
        sum += lane;
    }
    let (words, rest) = rest.as_chunks();
    for &one in words {
        sum += word(one);
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    u16::from_be(fold(sum + word(last)))
}

#[inline]
fn word(bytes: [u8; 4]) -> u64 {
    u32::from_ne_bytes(bytes).into()
}

/// The sum of sums. Every part but the last must have had an even number of bytes.
#[must_use]
pub fn combine(sums: &[u16]) -> u16 {
    fold(sums.iter().map(|&sum| u64::from(sum)).sum())
}

/// The value for the checksum field of what was summed.
#[must_use]
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// Sum of the IPv4 pseudo-header (RFC 768, RFC 9293 §3.1).
#[must_use]
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: NextHeader, len: u16) -> u16 {
    combine(&[data(&src.octets()), data(&dst.octets()), protocol.0.into(), len])
}

/// Sum of the IPv6 pseudo-header (RFC 8200 §8.1).
#[must_use]
pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, next_header: NextHeader, len: u32) -> u16 {
    let len = data(&len.to_be_bytes());
    combine(&[data(&src.octets()), data(&dst.octets()), len, next_header.0.into()])
}

/// The checksum field after a 16-bit word changed from `old` to `new` (RFC 1624 §3, equation 3). A wrong
/// checksum stays as wrong as it was.
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !combine(&[!checksum, !old, new])
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §3's example.
    const EXAMPLE: [u8; 8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];

    #[test]
    fn sum_is_that_of_rfc_1071() {
        assert_eq!(data(&EXAMPLE), 0xddf2);
        assert_eq!(finish(data(&EXAMPLE)), 0x220d);
    }

    #[test]
    fn odd_length_is_padded_with_zero() {
        assert_eq!(data(&[0xab]), 0xab00);
        assert_eq!(data(&[0x12, 0x34, 0x56]), 0x6834);
        assert_eq!(data(&[]), 0);
    }

    #[test]
    fn any_length_is_summed_as_by_two_bytes_a_step() {
        let bytes: Vec<u8> = (0..=255).cycle().skip(100).take(200).collect();
        for len in 0..bytes.len() {
            let pairs = bytes[..len].chunks(2);
            let words =
                pairs.map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| b.into()));
            assert_eq!(data(&bytes[..len]), fold(words.sum()), "{len} bytes");
        }
    }

    #[test]
    fn parts_of_even_length_combine() {
        assert_eq!(combine(&[data(&EXAMPLE[..2]), data(&EXAMPLE[2..])]), data(&EXAMPLE));
    }

    #[test]
    fn the_longest_datagram_does_not_overflow() {
        assert_eq!(data(&vec![0xff; 65_535]), 0xff00);
    }

    /// RFC 1624 §4: equation 3 gives 0x0000 where equation 2 gave 0xffff.
    #[test]
    fn update_is_that_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn update_agrees_with_summing_anew() {
        let mut bytes = EXAMPLE;
        let before = finish(data(&bytes));
        bytes[2..4].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(update(before, 0xf203, 0x1234), finish(data(&bytes)));
    }

    #[test]
    fn pseudo_headers_sum_their_fields() {
        let sum = pseudo_v4([1, 2, 3, 4].into(), [5, 6, 7, 8].into(), NextHeader::UDP, 9);
        assert_eq!(sum, 0x0102 + 0x0304 + 0x0506 + 0x0708 + 17 + 9);
        let sum = pseudo_v6(1_u128.into(), 2_u128.into(), NextHeader::TCP, 0x0001_0002);
        assert_eq!(sum, 1 + 2 + 6 + 1 + 2);
    }
}
