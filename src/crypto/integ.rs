//! Integrity algorithms (RFC 7296 §3.3.2, transform type 3): HMAC-SHA2 with truncation (RFC 4868
//! §2.3).
//!
//! An [`Integ`] is keyed once; a packet costs a copy of the keyed state, not a key setup.

use core::fmt;

use hmac::digest::Output;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::wire::ike::numbers::IntegId;

/// An integrity algorithm with its key.
#[derive(Clone)]
pub struct Integ(Keyed);

#[derive(Clone)]
enum Keyed {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Integ {
    /// `None` for an algorithm that we do not have, or a key of another length than
    /// [`Integ::key_len`] (RFC 4868 §2.1.1: no other length may be used).
    #[must_use]
    pub fn new(id: IntegId, key: &[u8]) -> Option<Self> {
        if Self::key_len(id) != Some(key.len()) {
            return None;
        }
        Some(Self(match id {
            IntegId::AUTH_HMAC_SHA2_256_128 => Keyed::Sha256(keyed(key)),
            IntegId::AUTH_HMAC_SHA2_384_192 => Keyed::Sha384(keyed(key)),
            IntegId::AUTH_HMAC_SHA2_512_256 => Keyed::Sha512(keyed(key)),
            _ => return None,
        }))
    }

    /// Length of the key in bytes; `None` for an algorithm that we do not have.
    #[must_use]
    pub const fn key_len(id: IntegId) -> Option<usize> {
        match id {
            IntegId::AUTH_HMAC_SHA2_256_128 => Some(32),
            IntegId::AUTH_HMAC_SHA2_384_192 => Some(48),
            IntegId::AUTH_HMAC_SHA2_512_256 => Some(64),
            _ => None,
        }
    }

    /// Length of the ICV in bytes; `None` for an algorithm that we do not have.
    #[must_use]
    pub const fn icv_len(id: IntegId) -> Option<usize> {
        match id {
            IntegId::AUTH_HMAC_SHA2_256_128 => Some(16),
            IntegId::AUTH_HMAC_SHA2_384_192 => Some(24),
            IntegId::AUTH_HMAC_SHA2_512_256 => Some(32),
            _ => None,
        }
    }

    /// Writes the ICV of the concatenation of `parts`.
    ///
    /// # Panics
    /// When `icv` has another length than [`Integ::icv_len`] says.
    pub fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        match &self.0 {
            Keyed::Sha256(mac) => icv.copy_from_slice(&finish(mac, parts)[..16]),
            Keyed::Sha384(mac) => icv.copy_from_slice(&finish(mac, parts)[..24]),
            Keyed::Sha512(mac) => icv.copy_from_slice(&finish(mac, parts)[..32]),
        }
    }

    /// Whether `icv` is the ICV of the concatenation of `parts`, compared in constant time. An ICV
    /// of any other length is wrong.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        match &self.0 {
            Keyed::Sha256(mac) => finish(mac, parts)[..16].ct_eq(icv).into(),
            Keyed::Sha384(mac) => finish(mac, parts)[..24].ct_eq(icv).into(),
            Keyed::Sha512(mac) => finish(mac, parts)[..32].ct_eq(icv).into(),
        }
    }
}

impl fmt::Debug for Integ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Integ([redacted])")
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn finish<M: Mac + Clone>(keyed: &M, parts: &[&[u8]]) -> Output<M> {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [IntegId; 3] = [
        IntegId::AUTH_HMAC_SHA2_256_128,
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
}
