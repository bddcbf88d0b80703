//! Encryption without integrity: AES-CBC (RFC 3602). It goes with an
//! [`Integ`](crate::crypto::integ::Integ), which is verified before anything is decrypted.

use core::fmt;

use aes::cipher::consts::U16;
use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, KeyInit,
};
use aes::{Aes128, Aes192, Aes256};

use crate::crypto::Encr;
use crate::wire::ike::numbers::EncrId;

/// AES-CBC with its key, for both directions.
#[derive(Clone)]
pub struct Cbc(Keyed);

// Boxed: a key schedule is about a kilobyte.
#[derive(Clone)]
enum Keyed {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

impl Cbc {
    /// Block and IV length in bytes (RFC 3602 §2.4, §3).
    pub const BLOCK_LEN: usize = 16;

    /// `None` for an algorithm that is not CBC or not ours, or a key of another length than
    /// [`Cbc::key_len`].
    #[must_use]
    pub fn new(encr: Encr, key: &[u8]) -> Option<Self> {
        if Self::key_len(encr) != Some(key.len()) {
            return None;
        }
        Some(Self(match key.len() {
            16 => Keyed::Aes128(Box::new(Aes128::new_from_slice(key).ok()?)),
            24 => Keyed::Aes192(Box::new(Aes192::new_from_slice(key).ok()?)),
            _ => Keyed::Aes256(Box::new(Aes256::new_from_slice(key).ok()?)),
        }))
    }

    /// Length of the key in bytes; `None` for what is not CBC or not ours.
    #[must_use]
    pub const fn key_len(encr: Encr) -> Option<usize> {
        match (encr.id, encr.key_bits) {
            (EncrId::ENCR_AES_CBC, Some(128)) => Some(16),
            (EncrId::ENCR_AES_CBC, Some(192)) => Some(24),
            (EncrId::ENCR_AES_CBC, Some(256)) => Some(32),
            _ => None,
        }
    }

    /// Encrypts in place. `data` should be a multiple of 16 bytes long: what stands beyond the last
    /// whole block is left as it is.
    pub fn encrypt(&self, iv: &[u8; 16], data: &mut [u8]) {
        match &self.0 {
            Keyed::Aes128(aes) => encrypt(&**aes, iv, data),
            Keyed::Aes192(aes) => encrypt(&**aes, iv, data),
            Keyed::Aes256(aes) => encrypt(&**aes, iv, data),
        }
    }

    /// Decrypts in place. `data` should be a multiple of 16 bytes long: what stands beyond the last
    /// whole block is left as it is.
    pub fn decrypt(&self, iv: &[u8; 16], data: &mut [u8]) {
        match &self.0 {
            Keyed::Aes128(aes) => decrypt(&**aes, iv, data),
            Keyed::Aes192(aes) => decrypt(&**aes, iv, data),
            Keyed::Aes256(aes) => decrypt(&**aes, iv, data),
        }
    }
}

impl fmt::Debug for Cbc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cbc([redacted])")
    }
}

fn encrypt<C>(aes: &C, iv: &[u8; 16], data: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let (blocks, _) = Array::slice_as_chunks_mut(data);
    cbc::Encryptor::inner_iv_init(aes, &Array(*iv)).encrypt_blocks(blocks);
}

fn decrypt<C>(aes: &C, iv: &[u8; 16], data: &mut [u8])
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    let (blocks, _) = Array::slice_as_chunks_mut(data);
    cbc::Decryptor::inner_iv_init(aes, &Array(*iv)).decrypt_blocks(blocks);
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn aes(bits: u16) -> Encr {
        Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(bits) }
    }

    #[test]
    fn decrypts_what_it_encrypted_at_every_key_length() {
        for bits in [128, 192, 256] {
            let key = vec![3; usize::from(bits) / 8];
            let cbc = Cbc::new(aes(bits), &key).unwrap();
            let mut data = *b"two whole blocks of sixteen byte";
            cbc.encrypt(&[9; 16], &mut data);
            assert_ne!(&data, b"two whole blocks of sixteen byte");
            cbc.decrypt(&[9; 16], &mut data);
            assert_eq!(&data, b"two whole blocks of sixteen byte");
        }
    }

    #[test]
    fn part_of_a_block_is_left_alone() {
        let cbc = Cbc::new(aes(128), &[3; 16]).unwrap();
        let mut data = [5; 23];
        cbc.decrypt(&[0; 16], &mut data);
        assert_ne!(data[..16], [5; 16]);
        assert_eq!(data[16..], [5; 7]);
        cbc.decrypt(&[0; 16], &mut []);
    }

    #[test]
    fn key_must_have_the_length_of_the_transform() {
        assert!(Cbc::new(aes(128), &[3; 32]).is_none());
        assert!(Cbc::new(aes(136), &[3; 17]).is_none());
        let none = Encr { id: EncrId::ENCR_AES_CBC, key_bits: None };
        assert!(Cbc::new(none, &[3; 16]).is_none(), "RFC 3602 §5.3: the attribute is required");
        let gcm = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(128) };
        assert!(Cbc::new(gcm, &[3; 16]).is_none());
    }
}
