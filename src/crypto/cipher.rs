//! Encryption without integrity: AES-CBC (RFC 3602) and AES-CTR (RFC 3686). It goes with an
//! [`Integ`](crate::crypto::integ::Integ), which is verified before anything is decrypted.

use core::fmt;

use aes::cipher::consts::U16;
use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt,
    BlockSizeUser, InnerIvInit, StreamCipherCore,
};
use ctr::CtrCore;
use ctr::flavors::Ctr32BE;
use zeroize::Zeroizing;

use super::block::{Aes, with_aes};
use crate::crypto::Encr;
use crate::wire::ike::numbers::EncrId;

/// AES-CBC with its key, for both directions.
#[derive(Clone)]
pub struct Cbc(Aes);

impl Cbc {
    /// Block and IV length in bytes (RFC 3602 §2.4, §3).
    pub const BLOCK_LEN: usize = Aes::BLOCK_LEN;

    /// `None` for an algorithm that is not CBC or not ours, or a key of another length than
    /// [`Cbc::key_len`].
    #[must_use]
    pub fn new(encr: Encr, key: &[u8]) -> Option<Self> {
        if Self::key_len(encr) != Some(key.len()) {
            return None;
        }
        Aes::new(key).map(Self)
    }

    /// Length of the key in bytes; `None` for what is not CBC or not ours.
    #[must_use]
    pub const fn key_len(encr: Encr) -> Option<usize> {
        match encr.id {
            EncrId::ENCR_AES_CBC => encr.keymat_len(),
            _ => None,
        }
    }

    /// Encrypts in place. `data` should be a multiple of 16 bytes long: what stands beyond the last
    /// whole block is left as it is.
    pub fn encrypt(&self, iv: &[u8; 16], data: &mut [u8]) {
        with_aes!(&self.0, aes => encrypt(&**aes, iv, data));
    }

    /// Decrypts in place. `data` should be a multiple of 16 bytes long: what stands beyond the last
    /// whole block is left as it is.
    pub fn decrypt(&self, iv: &[u8; 16], data: &mut [u8]) {
        with_aes!(&self.0, aes => decrypt(&**aes, iv, data));
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

/// AES-CTR with its key and its nonce.
#[derive(Clone)]
pub struct Ctr {
    aes: Aes,
    nonce: Zeroizing<[u8; NONCE_LEN]>,
}

impl Ctr {
    /// Length of the IV in bytes (RFC 3686 §3.1).
    pub const IV_LEN: usize = 8;

    /// `None` for an algorithm that is not CTR or not ours, or a key of another length than
    /// [`Ctr::key_len`]. The nonce follows the key, as it does in the keying material (RFC 3686
    /// §5.1).
    #[must_use]
    pub fn new(encr: Encr, key_and_nonce: &[u8]) -> Option<Self> {
        if Self::key_len(encr) != Some(key_and_nonce.len()) {
            return None;
        }
        let (key, nonce) = key_and_nonce.split_last_chunk()?;
        Some(Self { aes: Aes::new(key)?, nonce: Zeroizing::new(*nonce) })
    }

    /// Length in bytes of key and nonce together; `None` for what is not CTR or not ours.
    #[must_use]
    pub const fn key_len(encr: Encr) -> Option<usize> {
        match encr.id {
            EncrId::ENCR_AES_CTR => encr.keymat_len(),
            _ => None,
        }
    }

    /// Encrypts or decrypts in place, which is the same.
    ///
    /// An `iv` must never be used twice for encryption under one key: the two plaintexts are lost
    /// then (RFC 3686 §7).
    ///
    /// # Panics
    /// When `data` is longer than 2³² blocks. No packet is.
    pub fn apply(&self, iv: &[u8; 8], data: &mut [u8]) {
        // RFC 3686 §4: nonce, IV, and a counter that begins with one.
        let mut block = [0; Aes::BLOCK_LEN];
        block[..NONCE_LEN].copy_from_slice(&*self.nonce);
        block[NONCE_LEN..NONCE_LEN + 8].copy_from_slice(iv);
        block[15] = 1;
        with_aes!(&self.aes, aes => {
            CtrCore::<_, Ctr32BE>::inner_iv_init(&**aes, &Array(block))
                .apply_keystream_partial(data.into());
        });
    }
}

impl fmt::Debug for Ctr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ctr([redacted])")
    }
}

/// RFC 3686 §5.1: four octets.
const NONCE_LEN: usize = 4;

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

    const fn ctr(bits: u16) -> Encr {
        Encr { id: EncrId::ENCR_AES_CTR, key_bits: Some(bits) }
    }

    #[test]
    fn ctr_decrypts_what_it_encrypted_at_every_key_and_data_length() {
        for bits in [128, 192, 256] {
            let ctr = Ctr::new(ctr(bits), &vec![3; usize::from(bits) / 8 + 4]).unwrap();
            for len in [1, 15, 16, 17, 100] {
                let mut data = vec![5; len];
                ctr.apply(&[9; 8], &mut data);
                assert_ne!(data, vec![5; len], "{bits} {len}");
                ctr.apply(&[9; 8], &mut data);
                assert_eq!(data, vec![5; len], "{bits} {len}");
            }
        }
    }

    #[test]
    fn ctr_key_has_a_nonce_at_its_end() {
        assert!(Ctr::new(ctr(128), &[3; 16]).is_none());
        assert!(Ctr::new(ctr(256), &[3; 20]).is_none());
        assert!(Ctr::new(aes(128), &[3; 20]).is_none());
        let encrypt = |key: &[u8]| {
            let mut data = [0; 32];
            Ctr::new(ctr(128), key).unwrap().apply(&[0; 8], &mut data);
            data
        };
        let mut key = [3; 20];
        let first = encrypt(&key);
        key[19] ^= 1;
        assert_ne!(encrypt(&key), first);
    }

    #[test]
    fn debug_output_has_no_key() {
        let cbc = Cbc::new(aes(128), &[3; 16]).unwrap();
        let ctr = Ctr::new(ctr(128), &[3; 20]).unwrap();
        assert_eq!(format!("{cbc:?} {ctr:?}"), "Cbc([redacted]) Ctr([redacted])");
    }
}
