//! Encryption with integrity: AES-GCM with a 16-byte ICV, for ESP (RFC 4106) and IKE (RFC 5282).
//!
//! `ring` has the 128- and 256-bit keys of the datapath; `aes-gcm` has the 192-bit keys that `ring`
//! lacks.

use core::fmt;

use aes::Aes192;
use aes::cipher::Array;
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::Encr;
use crate::wire::ike::numbers::EncrId;

/// The ICV does not belong to these bytes under this key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("integrity check value does not match")]
pub struct IcvMismatch;

/// AES-GCM with its key, expanded once, and its salt.
pub struct Aead {
    key: Keyed,
    salt: Zeroizing<[u8; SALT_LEN]>,
}

enum Keyed {
    Ring(Box<LessSafeKey>),
    Aes192(Box<AesGcm<Aes192, U12>>),
}

impl Aead {
    /// Length in bytes of the IV that goes with each packet (RFC 4106 §3.1, RFC 5282 §3.1).
    pub const IV_LEN: usize = 8;
    /// Length in bytes of the ICV.
    pub const ICV_LEN: usize = 16;

    /// `None` for an algorithm that is not an AEAD of ours, or a key of another length than
    /// [`Aead::key_len`]. The salt follows the key, as it does in the keying material (RFC 4106
    /// §8.1).
    #[must_use]
    pub fn new(encr: Encr, key_and_salt: &[u8]) -> Option<Self> {
        if Self::key_len(encr) != Some(key_and_salt.len()) {
            return None;
        }
        let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>()?;
        let key = match key.len() {
            16 => ring_key(&AES_128_GCM, key)?,
            24 => Keyed::Aes192(Box::new(AesGcm::new_from_slice(key).ok()?)),
            _ => ring_key(&AES_256_GCM, key)?,
        };
        Some(Self { key, salt: Zeroizing::new(*salt) })
    }

    /// Length in bytes of key and salt together; `None` for what is not an AEAD of ours.
    #[must_use]
    pub const fn key_len(encr: Encr) -> Option<usize> {
        match (encr.id, encr.key_bits) {
            (EncrId::ENCR_AES_GCM_16, Some(128)) => Some(16 + SALT_LEN),
            (EncrId::ENCR_AES_GCM_16, Some(192)) => Some(24 + SALT_LEN),
            (EncrId::ENCR_AES_GCM_16, Some(256)) => Some(32 + SALT_LEN),
            _ => None,
        }
    }

    /// Encrypts `data` in place and returns the ICV over `aad` and it.
    ///
    /// An `iv` must never be used twice under one key: GCM gives up the authentication key then
    /// (RFC 4106 §10).
    ///
    /// # Panics
    /// When `data` is longer than GCM allows, 2³⁶ - 32 bytes. No packet is.
    #[must_use]
    pub fn seal(&self, iv: &[u8; 8], aad: &[u8], data: &mut [u8]) -> [u8; 16] {
        let nonce = self.nonce(iv);
        let mut icv = [0; Self::ICV_LEN];
        match &self.key {
            Keyed::Ring(key) => icv.copy_from_slice(
                key.seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(aad),
                    data,
                )
                .expect("shorter than GCM's limit")
                .as_ref(),
            ),
            Keyed::Aes192(key) => icv.copy_from_slice(
                &key.encrypt_inout_detached(&Array(nonce), aad, data.into())
                    .expect("shorter than GCM's limit"),
            ),
        }
        icv
    }

    /// Decrypts `data` in place if `icv` is right. Otherwise what `data` then holds is unspecified,
    /// and must not be used.
    ///
    /// # Errors
    /// [`IcvMismatch`] when `icv` is not that of `aad` and `data` under this key and `iv`.
    pub fn open(
        &self,
        iv: &[u8; 8],
        aad: &[u8],
        data: &mut [u8],
        icv: &[u8; 16],
    ) -> Result<(), IcvMismatch> {
        let nonce = self.nonce(iv);
        match &self.key {
            Keyed::Ring(key) => key
                .open_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(aad),
                    Tag::from(*icv),
                    data,
                    0..,
                )
                .map(|_| ())
                .map_err(|_| IcvMismatch),
            Keyed::Aes192(key) => key
                .decrypt_inout_detached(&Array(nonce), aad, data.into(), &Array(*icv))
                .map_err(|_| IcvMismatch),
        }
    }

    /// Salt, then IV (RFC 4106 §4, RFC 5282 §4).
    fn nonce(&self, iv: &[u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        let (salt, rest) = nonce.split_at_mut(SALT_LEN);
        salt.copy_from_slice(&*self.salt);
        rest.copy_from_slice(iv);
        nonce
    }
}

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aead([redacted])")
    }
}

fn ring_key(algorithm: &'static ring::aead::Algorithm, key: &[u8]) -> Option<Keyed> {
    let key = UnboundKey::new(algorithm, key).ok()?;
    Some(Keyed::Ring(Box::new(LessSafeKey::new(key))))
}

/// RFC 4106 §4, RFC 5282 §4: four octets.
const SALT_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const fn gcm(bits: u16) -> Encr {
        Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) }
    }

    fn aead(bits: u16) -> Aead {
        Aead::new(gcm(bits), &vec![7; Aead::key_len(gcm(bits)).unwrap()]).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_at_every_key_length() {
        for bits in [128, 192, 256] {
            let aead = aead(bits);
            for len in [0, 1, 15, 16, 17, 100] {
                let mut data = vec![5; len];
                let icv = aead.seal(&[1; 8], b"aad", &mut data);
                aead.open(&[1; 8], b"aad", &mut data, &icv).unwrap();
                assert_eq!(data, vec![5; len], "{bits} {len}");
            }
        }
    }

    #[test]
    fn any_change_is_an_icv_mismatch() {
        for bits in [128, 192, 256] {
            let aead = aead(bits);
            let mut sealed = *b"payload";
            let icv = aead.seal(&[1; 8], b"aad", &mut sealed);
            let open = |iv: &[u8; 8], aad: &[u8], mut data: Vec<u8>, icv: &[u8; 16]| {
                aead.open(iv, aad, &mut data, icv)
            };
            assert_eq!(open(&[1; 8], b"aad", sealed.to_vec(), &icv), Ok(()));
            assert_eq!(open(&[2; 8], b"aad", sealed.to_vec(), &icv), Err(IcvMismatch));
            assert_eq!(open(&[1; 8], b"aae", sealed.to_vec(), &icv), Err(IcvMismatch));
            assert_eq!(open(&[1; 8], b"aad", sealed[1..].to_vec(), &icv), Err(IcvMismatch));
            for i in 0..icv.len() {
                let mut wrong = icv;
                wrong[i] ^= 0x80;
                assert_eq!(open(&[1; 8], b"aad", sealed.to_vec(), &wrong), Err(IcvMismatch));
            }
        }
    }

    #[test]
    fn salt_is_part_of_the_nonce() {
        for bits in [128, 192, 256] {
            let mut key = vec![7; Aead::key_len(gcm(bits)).unwrap()];
            *key.last_mut().unwrap() ^= 1;
            let other_salt = Aead::new(gcm(bits), &key).unwrap();
            let mut data = [0; 32];
            let icv = aead(bits).seal(&[1; 8], b"", &mut data);
            assert_eq!(other_salt.open(&[1; 8], b"", &mut data, &icv), Err(IcvMismatch));
        }
    }

    #[test]
    fn key_must_have_the_length_of_the_transform() {
        assert!(Aead::new(gcm(128), &[7; 16]).is_none(), "no salt");
        assert!(Aead::new(gcm(128), &[7; 36]).is_none());
        assert!(
            Aead::new(Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: None }, &[7; 20]).is_none()
        );
        assert!(
            Aead::new(Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(128) }, &[7; 20]).is_none()
        );
    }
}
