//! AES-XCBC-MAC (RFC 3566 §4): a CBC-MAC whose last block is masked, so that messages may have any
//! length.
//!
//! No kept library has it; it is the RFC's chain around the library's AES.

use zeroize::Zeroizing;

use super::block::Aes;

/// AES-XCBC-MAC with its keys.
#[derive(Clone)]
pub(super) struct Xcbc {
    /// Under K1.
    aes: Aes,
    /// K2, for a last block that is whole.
    whole: Zeroizing<[u8; Aes::BLOCK_LEN]>,
    /// K3, for one that is padded.
    padded: Zeroizing<[u8; Aes::BLOCK_LEN]>,
}

impl Xcbc {
    pub(super) fn new(key: &[u8; 16]) -> Option<Self> {
        let aes = Aes::new(key)?;
        let derive = |constant: u8| {
            let mut key = Zeroizing::new([constant; Aes::BLOCK_LEN]);
            aes.encrypt_block(&mut key);
            key
        };
        Some(Self { aes: Aes::new(&*derive(1))?, whole: derive(2), padded: derive(3) })
    }

    /// The MAC of the concatenation of `parts`, not truncated.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> [u8; Aes::BLOCK_LEN] {
        // `chain` is E[i - 1] with the first `filled` bytes of M[i] in it. A block that is whole
        // waits for more to come, since the last one is treated otherwise.
        let mut chain = [0; Aes::BLOCK_LEN];
        let mut filled = 0;
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                if filled == chain.len() {
                    self.aes.encrypt_block(&mut chain);
                    filled = 0;
                }
                let (head, rest) = part.split_at(part.len().min(chain.len() - filled));
                xor(&mut chain[filled..], head);
                filled += head.len();
                part = rest;
            }
        }
        if filled == chain.len() {
            xor(&mut chain, &*self.whole);
        } else {
            // RFC 3566 §4 (4)(b): a single 1 bit, then zeros.
            chain[filled] ^= 0x80;
            xor(&mut chain, &*self.padded);
        }
        self.aes.encrypt_block(&mut chain);
        chain
    }
}

fn xor(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_one_message_however_it_is_cut() {
        let xcbc = Xcbc::new(&[7; 16]).unwrap();
        let data: Vec<u8> = (0..70).collect();
        for len in 0..data.len() {
            let data = &data[..len];
            let whole = xcbc.mac(&[data]);
            for first in 0..=len {
                let (a, rest) = data.split_at(first);
                let (b, c) = rest.split_at(rest.len() / 2);
                assert_eq!(xcbc.mac(&[a, &[], b, c]), whole, "{len} {first}");
            }
        }
    }

    #[test]
    fn padding_is_not_mistaken_for_data() {
        let xcbc = Xcbc::new(&[7; 16]).unwrap();
        let mut padded = [0; 16];
        padded[15] = 0x80;
        assert_ne!(xcbc.mac(&[&padded]), xcbc.mac(&[&padded[..15]]));
        assert_ne!(xcbc.mac(&[]), xcbc.mac(&[&[0]]));
    }
}
