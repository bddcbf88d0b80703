//! DES-CBC (RFC 2405) and 3DES-CBC (RFC 2451): decryption alone, of what others have recorded. No SA is made with them (RFC 8221 §5).

use core::fmt;

use des::cipher::consts::U8;
use des::cipher::{
    Array, BlockCipherDecrypt, BlockModeDecrypt, BlockSizeUser, InnerIvInit, KeyInit,
};
use des::{Des, TdesEde3};

/// DES or 3DES with its key.
#[derive(Clone)]
pub struct DesCbc(Cipher);

#[derive(Clone)]
enum Cipher {
    Single(Box<Des>),
    Triple(Box<TdesEde3>),
}

impl DesCbc {
    /// Block and IV length in bytes.
    pub const BLOCK_LEN: usize = 8;
    /// Length of the key of DES in bytes, parity included.
    pub const DES_KEY_LEN: usize = 8;
    /// Length of the three keys of 3DES in bytes, parity included.
    pub const TRIPLE_KEY_LEN: usize = 24;

    /// Of which of the two a key is shows its length; `None` for any other.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        let cipher = match key.len() {
            Self::DES_KEY_LEN => Cipher::Single(Box::new(Des::new_from_slice(key).ok()?)),
            Self::TRIPLE_KEY_LEN => Cipher::Triple(Box::new(TdesEde3::new_from_slice(key).ok()?)),
            _ => return None,
        };
        Some(Self(cipher))
    }

    /// Decrypts in place. `data` should be a multiple of 8 bytes long: what stands beyond the last whole block is left as it is.
    pub fn decrypt(&self, iv: &[u8; 8], data: &mut [u8]) {
        match &self.0 {
            Cipher::Single(des) => decrypt(&**des, iv, data),
            Cipher::Triple(des) => decrypt(&**des, iv, data),
        }
    }
}

impl fmt::Debug for DesCbc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DesCbc([redacted])")
    }
}

fn decrypt<C>(des: &C, iv: &[u8; 8], data: &mut [u8])
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U8>,
{
    let (blocks, _) = Array::slice_as_chunks_mut(data);
    cbc::Decryptor::inner_iv_init(des, &Array(*iv)).decrypt_blocks(blocks);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SP 800-67 appendix B.1 (three keys, ECB); FIPS 81 table C1 (one key, CBC).
    #[test]
    fn decrypts_what_nist_has_published() {
        let three = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x23\x45\x67\x89\xab\xcd\xef\x01\x45\x67\x89\xab\xcd\xef\x01\x23";
        let ecb = *b"\xa8\x26\xfd\x8c\xe5\x3b\x85\x5f\xcc\xe2\x1c\x81\x12\x25\x6f\xe6\x68\xd5\xc0\x5d\xd9\xb6\xb9\x00";
        let mut data = ecb;
        DesCbc::new(&three).unwrap().decrypt(&[0; 8], &mut data);
        // ECB: what CBC has added is taken off again.
        for (at, before) in (8..24).zip(ecb) {
            data[at] ^= before;
        }
        assert_eq!(&data, b"The qufck brown fox jump");
        let mut data = *b"\xe5\xc7\xcd\xde\x87\x2b\xf2\x7c\x43\xe9\x34\x00\x8c\x38\x9c\x0f\x68\x37\x88\x49\x9a\x7c\x05\xf6";
        let iv = 0x1234_5678_90ab_cdef_u64.to_be_bytes();
        DesCbc::new(&three[..8]).unwrap().decrypt(&iv, &mut data);
        assert_eq!(&data, b"Now is the time for all ");
    }

    #[test]
    fn no_other_key_is_taken() {
        for len in (0..64).filter(|len| ![8, 24].contains(len)) {
            assert!(DesCbc::new(&vec![1; len]).is_none(), "{len}");
        }
    }
}
