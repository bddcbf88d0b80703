//! Pseudorandom functions (RFC 7296 §3.3.2, transform type 2) and prf+ (§2.13): HMAC-SHA2 of RFC
//! 4868, HMAC-SHA1 of RFC 2104, AES-XCBC and AES-CMAC of RFC 4434 and RFC 4615.

use aes::Aes128;
use cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroize;

use super::xcbc::Xcbc;
use crate::crypto::Secret;
use crate::wire::ike::numbers::PrfId;

/// A pseudorandom function that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prf(Hash);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    AesCmac,
    AesXcbc,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Prf {
    /// prf+ counts its blocks in one byte (RFC 7296 §2.13), from 1.
    const MAX_BLOCKS: usize = 255;

    /// `None` for a function that we do not have.
    #[must_use]
    pub const fn new(id: PrfId) -> Option<Self> {
        match id {
            PrfId::PRF_AES128_CMAC => Some(Self(Hash::AesCmac)),
            PrfId::PRF_AES128_XCBC => Some(Self(Hash::AesXcbc)),
            PrfId::PRF_HMAC_SHA1 => Some(Self(Hash::Sha1)),
            PrfId::PRF_HMAC_SHA2_256 => Some(Self(Hash::Sha256)),
            PrfId::PRF_HMAC_SHA2_384 => Some(Self(Hash::Sha384)),
            PrfId::PRF_HMAC_SHA2_512 => Some(Self(Hash::Sha512)),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn id(self) -> PrfId {
        match self.0 {
            Hash::AesCmac => PrfId::PRF_AES128_CMAC,
            Hash::AesXcbc => PrfId::PRF_AES128_XCBC,
            Hash::Sha1 => PrfId::PRF_HMAC_SHA1,
            Hash::Sha256 => PrfId::PRF_HMAC_SHA2_256,
            Hash::Sha384 => PrfId::PRF_HMAC_SHA2_384,
            Hash::Sha512 => PrfId::PRF_HMAC_SHA2_512,
        }
    }

    /// Length of its output in bytes, which is its preferred key length too (RFC 4868 §2.1.2).
    /// Never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of an output, never zero")]
    pub const fn len(self) -> usize {
        match self.0 {
            Hash::AesCmac | Hash::AesXcbc => 16,
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// `prf(key, parts[0] | parts[1] | ..)`. The key may have any length (RFC 2104).
    #[must_use]
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        match self.0 {
            Hash::AesCmac => Secret::copy_of(&cmac(key, parts)),
            Hash::AesXcbc => Secret::copy_of(&xcbc(key, parts)),
            Hash::Sha1 => hmac::<Hmac<Sha1>>(key, parts),
            Hash::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
            Hash::Sha384 => hmac::<Hmac<Sha384>>(key, parts),
            Hash::Sha512 => hmac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// The key that SKEYSEED of a first IKE SA is made with (RFC 7296 §2.14): both nonces, or, of a function whose key has a
    /// fixed length, the first 64 bits of each.
    #[must_use]
    pub fn nonce_key(self, nonce_i: &[u8], nonce_r: &[u8]) -> Vec<u8> {
        let half = match self.0 {
            Hash::AesCmac | Hash::AesXcbc => 8,
            Hash::Sha1 | Hash::Sha256 | Hash::Sha384 | Hash::Sha512 => usize::MAX,
        };
        let part = |nonce: &[u8]| nonce[..nonce.len().min(half)].to_vec();
        [part(nonce_i), part(nonce_r)].concat()
    }

    /// The first `len` bytes of `prf+(key, parts[0] | parts[1] | ..)` (RFC 7296 §2.13).
    ///
    /// # Panics
    /// When `len` is above 255 outputs, which prf+ cannot give. No suite needs a tenth of that.
    #[must_use]
    pub fn plus(self, key: &[u8], parts: &[&[u8]], len: usize) -> Secret {
        assert!(len <= Self::MAX_BLOCKS * self.len(), "prf+ gives at most 255 blocks");
        let mut out = Vec::with_capacity(len);
        let mut block = Secret::empty();
        let mut number = 0u8;
        while out.len() < len {
            number += 1;
            // T1 = prf (K, S | 0x01), T2 = prf (K, T1 | S | 0x02), ..
            let counter = [number];
            let mut input = Vec::with_capacity(parts.len() + 2);
            input.push(block.expose());
            input.extend_from_slice(parts);
            input.push(&counter);
            let next = self.compute(key, &input);
            out.extend_from_slice(&next.expose()[..next.len().min(len - out.len())]);
            block = next;
        }
        Secret::new(out)
    }
}

/// RFC 4615 §3: a key of another length is put through the function first, with a key of zeros.
fn cmac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let key = <[u8; 16]>::try_from(key).unwrap_or_else(|_| cmac(&[0; 16], &[key]));
    let mut mac = Cmac::<Aes128>::new(&key.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// RFC 4434 §2: a shorter key gets zeros at its end, a longer one is put through the function first, with a key of zeros.
fn xcbc(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut fixed = [0; 16];
    match fixed.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => fixed = xcbc(&[0; 16], &[key]),
    }
    Xcbc::new(&fixed).expect("a key of 16 bytes").mac(parts)
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    let mut out = mac.finalize().into_bytes();
    let secret = Secret::copy_of(&out);
    out.as_mut_slice().zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [PrfId; 3] =
        [PrfId::PRF_HMAC_SHA2_256, PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_512];

    #[test]
    fn prf_plus_chains_blocks_as_the_rfc_writes_them() {
        for id in ALL {
            let prf = Prf::new(id).unwrap();
            let t1 = prf.compute(b"key", &[b"seed", &[1]]);
            let t2 = prf.compute(b"key", &[t1.expose(), b"seed", &[2]]);
            let t3 = prf.compute(b"key", &[t2.expose(), b"seed", &[3]]);
            let all = [t1.expose(), t2.expose(), t3.expose()].concat();
            for len in [0, 1, prf.len() - 1, prf.len(), prf.len() + 1, 3 * prf.len()] {
                let out = prf.plus(b"key", &[b"se", b"ed"], len);
                assert_eq!(out.expose(), &all[..len], "{id} {len}");
            }
        }
    }

    #[test]
    fn prf_plus_reaches_its_255th_block() {
        let prf = Prf::new(PrfId::PRF_HMAC_SHA2_256).unwrap();
        assert_eq!(prf.plus(b"k", &[b"s"], 255 * 32).len(), 255 * 32);
    }

    #[test]
    fn number_and_length_agree_with_the_output() {
        for id in ALL {
            let prf = Prf::new(id).unwrap();
            assert_eq!(prf.id(), id);
            assert_eq!(prf.compute(b"", &[]).len(), prf.len());
        }
        assert_eq!(Prf::new(PrfId::PRF_HMAC_MD5), None);
    }
}
