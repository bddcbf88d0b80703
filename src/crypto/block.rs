//! AES as a block cipher with its key, for the modes of this crate: [`cipher`](super::cipher),
//! [`gmac`](super::gmac) and [`xcbc`](super::xcbc).

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};

/// AES with a key of any of its lengths. Wiped on drop.
// Boxed: a key schedule is about a kilobyte.
#[derive(Clone)]
pub(super) enum Aes {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

impl Aes {
    /// Length of a block in bytes.
    pub(super) const BLOCK_LEN: usize = 16;

    /// `None` for a key of a length that AES does not have.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Some(Self::Aes128(Box::new(Aes128::new_from_slice(key).ok()?))),
            24 => Some(Self::Aes192(Box::new(Aes192::new_from_slice(key).ok()?))),
            32 => Some(Self::Aes256(Box::new(Aes256::new_from_slice(key).ok()?))),
            _ => None,
        }
    }

    pub(super) fn encrypt_block(&self, block: &mut [u8; Self::BLOCK_LEN]) {
        let block = <&mut Array<u8, _>>::from(block);
        match self {
            Self::Aes128(aes) => aes.encrypt_block(block),
            Self::Aes192(aes) => aes.encrypt_block(block),
            Self::Aes256(aes) => aes.encrypt_block(block),
        }
    }
}

/// `$body` with the cipher of whichever key length as `$aes`.
macro_rules! with_aes {
    ($keyed:expr, $aes:ident => $body:expr) => {
        match $keyed {
            $crate::crypto::block::Aes::Aes128($aes) => $body,
            $crate::crypto::block::Aes::Aes192($aes) => $body,
            $crate::crypto::block::Aes::Aes256($aes) => $body,
        }
    };
}
pub(super) use with_aes;
