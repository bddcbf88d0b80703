//! Integrity algorithms (RFC 7296 §3.3.2, transform type 3): HMAC-SHA2 (RFC 4868 §2.3), HMAC-SHA1
//! (RFC 2404), AES-XCBC (RFC 3566), AES-CMAC (RFC 4494) and AES-GMAC (RFC 4543 §4), all but the
//! last truncated.
//!
//! An [`Integ`] is keyed once; a packet costs a copy of the keyed state, not a key setup.

use core::fmt;

use aes::Aes128;
use cmac::Cmac;
use hmac::digest::Output;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::gmac::Gmac;
use super::xcbc::Xcbc;
use crate::wire::ike::numbers::IntegId;

/// An integrity algorithm with its key.
#[derive(Clone)]
pub struct Integ {
    keyed: Keyed,
    icv_len: usize,
}

#[derive(Clone)]
enum Keyed {
    Cmac(Box<Cmac<Aes128>>),
    Gmac(Box<Gmac>),
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Xcbc(Box<Xcbc>),
}

impl Integ {
    /// Length in bytes of the longest ICV.
    pub const MAX_ICV_LEN: usize = 32;

    /// `None` for an algorithm that we do not have, or a key of another length than
    /// [`Integ::key_len`] (RFC 2404 §3, RFC 3566 §4.1, RFC 4868 §2.1.1: no other length may be
    /// used).
    #[must_use]
    pub fn new(id: IntegId, key: &[u8]) -> Option<Self> {
        if Self::key_len(id) != Some(key.len()) {
            return None;
        }
        let keyed = match id {
            IntegId::AUTH_AES_CMAC_96 => Keyed::Cmac(Box::new(keyed(key)?)),
            IntegId::AUTH_AES_128_GMAC
            | IntegId::AUTH_AES_192_GMAC
            | IntegId::AUTH_AES_256_GMAC => Keyed::Gmac(Box::new(Gmac::new(key)?)),
            IntegId::AUTH_AES_XCBC_96 => Keyed::Xcbc(Box::new(Xcbc::new(key.try_into().ok()?)?)),
            IntegId::AUTH_HMAC_SHA1_96 => Keyed::Sha1(keyed(key)?),
            IntegId::AUTH_HMAC_SHA2_256_128 | IntegId::AUTH_HMAC_SHA2_256_96 => {
                Keyed::Sha256(keyed(key)?)
            }
            IntegId::AUTH_HMAC_SHA2_384_192 => Keyed::Sha384(keyed(key)?),
            IntegId::AUTH_HMAC_SHA2_512_256 => Keyed::Sha512(keyed(key)?),
            _ => return None,
        };
        Some(Self { keyed, icv_len: Self::icv_len(id)? })
    }

    /// Length of the key in bytes, a salt at its end included; `None` for an algorithm that we do
    /// not have.
    #[must_use]
    pub const fn key_len(id: IntegId) -> Option<usize> {
        match id {
            IntegId::AUTH_AES_CMAC_96 | IntegId::AUTH_AES_XCBC_96 => Some(16),
            IntegId::AUTH_AES_128_GMAC | IntegId::AUTH_HMAC_SHA1_96 => Some(20),
            IntegId::AUTH_AES_192_GMAC => Some(28),
            IntegId::AUTH_AES_256_GMAC => Some(36),
            IntegId::AUTH_HMAC_SHA2_256_128 | IntegId::AUTH_HMAC_SHA2_256_96 => Some(32),
            IntegId::AUTH_HMAC_SHA2_384_192 => Some(48),
            IntegId::AUTH_HMAC_SHA2_512_256 => Some(64),
            _ => None,
        }
    }

    /// Length of the ICV in bytes, an IV at its beginning included; `None` for an algorithm that we
    /// do not have.
    #[must_use]
    pub const fn icv_len(id: IntegId) -> Option<usize> {
        match id {
            IntegId::AUTH_AES_CMAC_96
            | IntegId::AUTH_AES_XCBC_96
            | IntegId::AUTH_HMAC_SHA1_96
            | IntegId::AUTH_HMAC_SHA2_256_96 => Some(12),
            IntegId::AUTH_HMAC_SHA2_256_128 => Some(16),
            IntegId::AUTH_AES_128_GMAC
            | IntegId::AUTH_AES_192_GMAC
            | IntegId::AUTH_AES_256_GMAC
            | IntegId::AUTH_HMAC_SHA2_384_192 => Some(24),
            IntegId::AUTH_HMAC_SHA2_512_256 => Some(32),
            _ => None,
        }
    }

    /// Length in bytes of the IV with which the ICV begins: GMAC has one, of which AH is to make a
    /// new one for every packet (RFC 4543 §4), no other algorithm has.
    #[must_use]
    pub const fn iv_len(id: IntegId) -> usize {
        match id {
            IntegId::AUTH_AES_128_GMAC
            | IntegId::AUTH_AES_192_GMAC
            | IntegId::AUTH_AES_256_GMAC => Gmac::IV_LEN,
            _ => 0,
        }
    }

    /// Writes the ICV of the concatenation of `parts`. If the algorithm has an
    /// [IV](Self::iv_len), `icv` begins with it; it must never be used twice under one key.
    ///
    /// # Panics
    /// When `icv` has another length than [`Integ::icv_len`] says.
    pub fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        assert_eq!(icv.len(), self.icv_len, "the ICV has the length of the algorithm");
        match &self.keyed {
            Keyed::Cmac(mac) => put(icv, &finish(&**mac, parts)),
            Keyed::Gmac(gmac) => {
                let (iv, tag) = icv.split_first_chunk_mut().expect("24 bytes");
                tag.copy_from_slice(&gmac.tag(iv, parts));
            }
            Keyed::Sha1(mac) => put(icv, &finish(mac, parts)),
            Keyed::Sha256(mac) => put(icv, &finish(mac, parts)),
            Keyed::Sha384(mac) => put(icv, &finish(mac, parts)),
            Keyed::Sha512(mac) => put(icv, &finish(mac, parts)),
            Keyed::Xcbc(mac) => put(icv, &mac.mac(parts)),
        }
    }

    /// Whether `icv` is the ICV of the concatenation of `parts`, compared in constant time. An ICV
    /// of any other length is wrong.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        if icv.len() != self.icv_len {
            return false;
        }
        let mut expected = [0; Self::MAX_ICV_LEN];
        let expected = &mut expected[..self.icv_len];
        if matches!(self.keyed, Keyed::Gmac(_)) {
            expected[..Gmac::IV_LEN].copy_from_slice(&icv[..Gmac::IV_LEN]);
        }
        self.sign(parts, expected);
        (*expected).ct_eq(icv).into()
    }
}

impl fmt::Debug for Integ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Integ([redacted])")
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> Option<M> {
    M::new_from_slice(key).ok()
}

fn finish<M: Mac + Clone>(keyed: &M, parts: &[&[u8]]) -> Output<M> {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

/// RFC 4868 §2.3 and the others: the first bytes.
fn put(icv: &mut [u8], mac: &[u8]) {
    icv.copy_from_slice(&mac[..icv.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [IntegId; 10] = [
        IntegId::AUTH_AES_128_GMAC,
        IntegId::AUTH_AES_192_GMAC,
        IntegId::AUTH_AES_256_GMAC,
        IntegId::AUTH_AES_CMAC_96,
        IntegId::AUTH_AES_XCBC_96,
        IntegId::AUTH_HMAC_SHA1_96,
        IntegId::AUTH_HMAC_SHA2_256_128,
        IntegId::AUTH_HMAC_SHA2_256_96,
        IntegId::AUTH_HMAC_SHA2_384_192,
        IntegId::AUTH_HMAC_SHA2_512_256,
    ];

    #[test]
    fn icv_verifies_and_no_other_does() {
        for id in ALL {
            let key = vec![7; Integ::key_len(id).unwrap()];
            let integ = Integ::new(id, &key).unwrap();
            let mut icv = vec![0; Integ::icv_len(id).unwrap()];
            integ.sign(&[b"packet"], &mut icv);
            assert!(integ.verify(&[b"pac", b"ket"], &icv), "{id}: parts are one message");
            assert!(!integ.verify(&[b"packe!"], &icv), "{id}");
            assert!(!integ.verify(&[b"packet"], &icv[1..]), "{id}: short");
            assert!(!integ.verify(&[b"packet"], &[]), "{id}: none");
            for i in 0..icv.len() {
                icv[i] ^= 1;
                assert!(!integ.verify(&[b"packet"], &icv), "{id}: byte {i}");
                icv[i] ^= 1;
            }
        }
    }

    #[test]
    fn key_of_another_length_is_refused() {
        for id in ALL {
            let len = Integ::key_len(id).unwrap();
            assert!(Integ::new(id, &vec![7; len - 1]).is_none());
            assert!(Integ::new(id, &vec![7; len + 1]).is_none());
        }
        assert!(Integ::new(IntegId::NONE, &[]).is_none());
    }

    #[test]
    fn debug_output_has_no_key() {
        let integ = Integ::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32]).unwrap();
        assert_eq!(format!("{integ:?}"), "Integ([redacted])");
    }

    #[test]
    fn iv_of_gmac_is_kept_and_counts() {
        let id = IntegId::AUTH_AES_128_GMAC;
        let integ = Integ::new(id, &[7; 20]).unwrap();
        let mut icv = [5; 24];
        integ.sign(&[b"packet"], &mut icv);
        assert_eq!(icv[..Integ::iv_len(id)], [5; 8]);
        assert_ne!(icv[8..], [5; 16]);
        let mut other = [0; 24];
        integ.sign(&[b"packet"], &mut other);
        assert_ne!(icv[8..], other[8..]);
    }

    #[test]
    fn ninety_six_bits_of_sha256_are_the_beginning_of_the_others() {
        let mut short = [0; 12];
        let mut long = [0; 16];
        let sign = |id, icv: &mut [u8]| {
            Integ::new(id, &[7; 32]).unwrap().sign(&[b"packet"], icv);
        };
        sign(IntegId::AUTH_HMAC_SHA2_256_96, &mut short);
        sign(IntegId::AUTH_HMAC_SHA2_256_128, &mut long);
        assert_eq!(short, long[..12]);
    }
}
