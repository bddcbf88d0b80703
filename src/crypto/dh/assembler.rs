//! x25519 and ML-KEM-768 by `graviola`, whose assembler takes less than a half and a tenth of the time that the portable libraries need.
//!
//! It is there for x86-64 and AArch64, and wants a processor with certain instructions: everything here is `None` where it cannot be used,
//! and then those libraries do it, with the same result.

use graviola::key_agreement::{mlkem768, x25519};
use graviola::util::is_cpu_supported;

use super::{BadPublicValue, X25519_LEN, mlkem};
use crate::crypto::Secret;

/// As [`super::x25519::portable_public`].
pub(super) fn x25519_public(private: &[u8; X25519_LEN]) -> Option<[u8; X25519_LEN]> {
    is_cpu_supported()
        .then(|| x25519::StaticPrivateKey::from_array(private).public_key().as_bytes())
}

/// As [`super::x25519::portable_agree`].
pub(super) fn x25519_agree(
    private: &[u8; X25519_LEN],
    peer: &[u8; X25519_LEN],
) -> Option<Result<Secret, BadPublicValue>> {
    is_cpu_supported().then(|| {
        let peer = x25519::PublicKey::from_array(peer);
        let agreed = x25519::StaticPrivateKey::from_array(private).diffie_hellman(&peer);
        agreed.map(|shared| Secret::copy_of(&shared.0)).map_err(|_| BadPublicValue::SmallOrder)
    })
}

/// The encapsulation key of a seed (FIPS 203 §7.1).
pub(super) fn mlkem768_public(seed: &mlkem::Seed) -> Option<[u8; mlkem::PUBLIC_768_LEN]> {
    is_cpu_supported()
        .then(|| mlkem768::DecapKey::keygen_internal(seed).encapsulation_key().as_bytes())
}

/// A ciphertext for an encapsulation key, and the secret in it, made of `message` (FIPS 203 §6.2).
pub(super) fn mlkem768_encapsulate(
    public: &[u8; mlkem::PUBLIC_768_LEN],
    message: [u8; mlkem::MESSAGE_LEN],
) -> Option<Result<(Vec<u8>, Secret), BadPublicValue>> {
    let message = mlkem768::Message(message);
    is_cpu_supported().then(|| {
        let key = mlkem768::EncapKey::from_bytes(public).map_err(|_| BadPublicValue::NotReduced)?;
        let (shared, ciphertext) = key.encaps_internal(message);
        Ok((ciphertext.as_ref().to_vec(), Secret::copy_of(shared.as_ref())))
    })
}

/// The secret in a ciphertext for the key of a seed (FIPS 203 §7.3).
pub(super) fn mlkem768_decapsulate(
    seed: &mlkem::Seed,
    ciphertext: &[u8; mlkem::CIPHERTEXT_768_LEN],
) -> Option<Secret> {
    is_cpu_supported().then(|| {
        let key = mlkem768::DecapKey::keygen_internal(seed);
        Secret::copy_of(key.decaps_internal(&(*ciphertext).into()).as_ref())
    })
}
