//! AES-GMAC (RFC 4543; NIST SP 800-38D): GCM with nothing but additional authenticated data, which
//! may be in parts.
//!
//! The AEADs of `ring` and `aes-gcm` want that data in one piece, and neither ESP with extended
//! sequence numbers nor AH has it in one. So the tag is made here from the library's GHASH and AES.

use core::fmt;

use aes::cipher::Array;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::block::Aes;

/// AES-GMAC with its key, expanded once, and its salt.
#[derive(Clone)]
pub struct Gmac {
    aes: Aes,
    /// Keyed, and nothing hashed yet.
    ghash: GHash,
    salt: Zeroizing<[u8; SALT_LEN]>,
}

impl Gmac {
    /// Length in bytes of the IV (RFC 4543 §3.1).
    pub const IV_LEN: usize = 8;
    /// Length in bytes of the tag, which is never truncated (RFC 4543 §3.4).
    pub const TAG_LEN: usize = 16;

    /// `None` for a key that is not 16, 24 or 32 bytes and the salt (RFC 4543 §5.4).
    #[must_use]
    pub fn new(key_and_salt: &[u8]) -> Option<Self> {
        let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>()?;
        let aes = Aes::new(key)?;
        // SP 800-38D §7.1: the hash subkey is the encrypted zero block.
        let mut subkey = Zeroizing::new([0; Aes::BLOCK_LEN]);
        aes.encrypt_block(&mut subkey);
        let ghash = <GHash as ghash::universal_hash::KeyInit>::new((&*subkey).into());
        Some(Self { aes, ghash, salt: Zeroizing::new(*salt) })
    }

    /// The tag over the concatenation of `parts`.
    ///
    /// An `iv` must never be used twice under one key: the authentication key is lost then (RFC
    /// 4543 §3.1).
    #[must_use]
    pub fn tag(&self, iv: &[u8; 8], parts: &[&[u8]]) -> [u8; 16] {
        let mut ghash = self.ghash.clone();
        let mut carry = [0; Aes::BLOCK_LEN];
        let mut carried = 0;
        let mut len = 0_u64;
        for mut part in parts.iter().copied() {
            len += part.len() as u64;
            if carried > 0 {
                let (head, rest) = part.split_at(part.len().min(carry.len() - carried));
                carry[carried..carried + head.len()].copy_from_slice(head);
                carried += head.len();
                part = rest;
                if carried < carry.len() {
                    continue;
                }
                ghash.update(&[Array(carry)]);
            }
            let (blocks, rest) = Array::slice_as_chunks(part);
            ghash.update(blocks);
            carry[..rest.len()].copy_from_slice(rest);
            carried = rest.len();
        }
        ghash.update_padded(&carry[..carried]);
        // SP 800-38D §7.1: the lengths in bits, that of the ciphertext being zero.
        let mut lengths = [0; Aes::BLOCK_LEN];
        lengths[..8].copy_from_slice(&(len * 8).to_be_bytes());
        ghash.update(&[Array(lengths)]);

        // RFC 4543 §3.2: salt and IV are the nonce, and with a counter of one the block that
        // encrypts the hash.
        let mut tag = [0; Self::TAG_LEN];
        tag[..SALT_LEN].copy_from_slice(&*self.salt);
        tag[SALT_LEN..SALT_LEN + 8].copy_from_slice(iv);
        tag[15] = 1;
        self.aes.encrypt_block(&mut tag);
        for (tag, hash) in tag.iter_mut().zip(ghash.finalize()) {
            *tag ^= hash;
        }
        tag
    }

    /// Whether `tag` is the tag over the concatenation of `parts`, compared in constant time. A tag
    /// of any other length is wrong.
    #[must_use]
    pub fn verify(&self, iv: &[u8; 8], parts: &[&[u8]], tag: &[u8]) -> bool {
        self.tag(iv, parts).ct_eq(tag).into()
    }
}

impl fmt::Debug for Gmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gmac([redacted])")
    }
}

/// RFC 4543 §3.2: four octets.
const SALT_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::*;

    /// The same by `ring`.
    fn by_ring(key_and_salt: &[u8], iv: [u8; 8], data: &[u8]) -> [u8; 16] {
        let (key, salt) = key_and_salt.split_last_chunk::<4>().unwrap();
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        let nonce = [&salt[..], &iv].concat().try_into().unwrap();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(data), &mut []).unwrap();
        tag.as_ref().try_into().unwrap()
    }

    #[test]
    fn is_gcm_without_plaintext_however_the_data_is_cut() {
        let data: Vec<u8> = (0..100).collect();
        for key_len in [20, 36] {
            let key: Vec<u8> = (0..key_len).collect();
            let gmac = Gmac::new(&key).unwrap();
            for len in 0..data.len() {
                let data = &data[..len];
                let whole = by_ring(&key, [3; 8], data);
                for first in 0..=len {
                    let (a, rest) = data.split_at(first);
                    let (b, c) = rest.split_at(rest.len() / 3);
                    assert_eq!(gmac.tag(&[3; 8], &[a, b, &[], c]), whole, "{len} {first}");
                }
            }
        }
    }

    #[test]
    fn key_is_one_of_aes_and_a_salt() {
        for len in 0..50 {
            let fits = [20, 28, 36].contains(&len);
            assert_eq!(Gmac::new(&vec![7; len]).is_some(), fits, "{len}");
        }
    }

    #[test]
    fn key_salt_and_iv_decide_the_tag() {
        let tag = |key: &[u8], iv| Gmac::new(key).unwrap().tag(&iv, &[b"data"]);
        let first = tag(&[7; 28], [0; 8]);
        for i in 0..28 {
            let mut key = [7; 28];
            key[i] ^= 1;
            assert_ne!(tag(&key, [0; 8]), first);
        }
        for i in 0..8 {
            let mut iv = [0; 8];
            iv[i] = 1;
            assert_ne!(tag(&[7; 28], iv), first);
        }
    }

    #[test]
    fn debug_output_has_no_key() {
        assert_eq!(format!("{:?}", Gmac::new(&[7; 20]).unwrap()), "Gmac([redacted])");
    }
}
