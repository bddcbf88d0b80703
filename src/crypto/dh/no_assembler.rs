//! `assembler` for processors for which there is none.

use super::{BadPublicValue, X25519_LEN, mlkem};
use crate::crypto::Secret;

pub(super) fn x25519_public(_private: &[u8; X25519_LEN]) -> Option<[u8; X25519_LEN]> {
    None
}

pub(super) fn x25519_agree(
    _private: &[u8; X25519_LEN],
    _peer: &[u8; X25519_LEN],
) -> Option<Result<Secret, BadPublicValue>> {
    None
}

pub(super) fn mlkem768_public(_seed: &mlkem::Seed) -> Option<[u8; mlkem::PUBLIC_768_LEN]> {
    None
}

pub(super) fn mlkem768_encapsulate(
    _public: &[u8; mlkem::PUBLIC_768_LEN],
    _message: [u8; mlkem::MESSAGE_LEN],
) -> Option<Result<(Vec<u8>, Secret), BadPublicValue>> {
    None
}

pub(super) fn mlkem768_decapsulate(
    _seed: &mlkem::Seed,
    _ciphertext: &[u8; mlkem::CIPHERTEXT_768_LEN],
) -> Option<Secret> {
    None
}
