//! ML-KEM (FIPS 203) as a key exchange (draft-ietf-ipsecme-ikev2-mlkem §2): the initiator's value is an encapsulation key, the
//! responder's a ciphertext made for it.
//!
//! Both values have a fixed length for each parameter set, and an encapsulation key is checked as FIPS 203 §7.2 asks before
//! anything is done with it. A ciphertext cannot be checked: of one that was not made for our key comes another secret
//! (implicit rejection, FIPS 203 §7.3), and what is authenticated with it fails.

use ml_kem::kem::{Ciphertext, Decapsulate, Encapsulate, Kem, KeyExport, TryKeyInit};
use ml_kem::{MlKem512, MlKem768, MlKem1024};
use zeroize::Zeroize;

use super::BadPublicValue;
use crate::crypto::random::RandCore;
use crate::crypto::{Secret, SecureRandom};
use crate::wire::ike::numbers::KeId;

/// The initiator's half: a decapsulation key, wiped when dropped.
pub(super) enum Private {
    MlKem512(Box<<MlKem512 as Kem>::DecapsulationKey>),
    MlKem768(Box<<MlKem768 as Kem>::DecapsulationKey>),
    MlKem1024(Box<<MlKem1024 as Kem>::DecapsulationKey>),
}

impl Private {
    /// A new key and its encapsulation key. `None` if `method` is not a parameter set of ML-KEM.
    pub(super) fn generate(method: KeId, rng: &mut dyn SecureRandom) -> Option<(Self, Vec<u8>)> {
        Some(match method {
            KeId::ML_KEM_512 => {
                let (key, public) = generate::<MlKem512>(rng);
                (Self::MlKem512(key), public)
            }
            KeId::ML_KEM_768 => {
                let (key, public) = generate::<MlKem768>(rng);
                (Self::MlKem768(key), public)
            }
            KeId::ML_KEM_1024 => {
                let (key, public) = generate::<MlKem1024>(rng);
                (Self::MlKem1024(key), public)
            }
            _ => return None,
        })
    }

    /// The shared secret in the responder's ciphertext.
    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, BadPublicValue> {
        match self {
            Self::MlKem512(key) => decapsulate::<MlKem512>(key, ciphertext),
            Self::MlKem768(key) => decapsulate::<MlKem768>(key, ciphertext),
            Self::MlKem1024(key) => decapsulate::<MlKem1024>(key, ciphertext),
        }
    }
}

/// The responder's half: a ciphertext for the initiator's encapsulation key, and the shared secret in it. `None` if `method` is not a
/// parameter set of ML-KEM.
pub(super) fn encapsulate(
    method: KeId,
    peer_public: &[u8],
    rng: &mut dyn SecureRandom,
) -> Option<Result<(Vec<u8>, Secret), BadPublicValue>> {
    Some(match method {
        KeId::ML_KEM_512 => encapsulate_for::<MlKem512>(peer_public, rng),
        KeId::ML_KEM_768 => encapsulate_for::<MlKem768>(peer_public, rng),
        KeId::ML_KEM_1024 => encapsulate_for::<MlKem1024>(peer_public, rng),
        _ => return None,
    })
}

fn generate<K: Kem>(rng: &mut dyn SecureRandom) -> (Box<K::DecapsulationKey>, Vec<u8>) {
    let (key, public) = K::generate_keypair_from_rng(&mut RandCore(rng));
    (Box::new(key), public.to_bytes().to_vec())
}

fn encapsulate_for<K>(
    peer_public: &[u8],
    rng: &mut dyn SecureRandom,
) -> Result<(Vec<u8>, Secret), BadPublicValue>
where
    K: Kem,
    K::EncapsulationKey: Encapsulate<Kem = K>,
{
    let encoded = peer_public.try_into().map_err(|_| BadPublicValue::Length {
        expected: ml_kem::Key::<K::EncapsulationKey>::default().len(),
        got: peer_public.len(),
    })?;
    let key = K::EncapsulationKey::new(encoded).map_err(|_| BadPublicValue::NotReduced)?;
    let (ciphertext, mut shared) = key.encapsulate_with_rng(&mut RandCore(rng));
    let secret = Secret::copy_of(&shared);
    shared.zeroize();
    Ok((ciphertext.to_vec(), secret))
}

fn decapsulate<K>(key: &K::DecapsulationKey, ciphertext: &[u8]) -> Result<Secret, BadPublicValue>
where
    K: Kem,
    K::DecapsulationKey: Decapsulate<Kem = K>,
{
    let encoded = ciphertext.try_into().map_err(|_| BadPublicValue::Length {
        expected: Ciphertext::<K>::default().len(),
        got: ciphertext.len(),
    })?;
    let mut shared = key.decapsulate(encoded);
    let secret = Secret::copy_of(&shared);
    shared.zeroize();
    Ok(secret)
}
