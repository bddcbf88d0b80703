//! ML-KEM (FIPS 203) as a key exchange (draft-ietf-ipsecme-ikev2-mlkem §2): the initiator's value is an encapsulation key, the
//! responder's a ciphertext made for it.
//!
//! Both values have a fixed length for each parameter set, and an encapsulation key is checked as FIPS 203 §7.2 asks before
//! anything is done with it. A ciphertext cannot be checked: of one that was not made for our key comes another secret
//! (implicit rejection, FIPS 203 §7.3), and what is authenticated with it fails.

use ml_kem::array::typenum::U64;
use ml_kem::kem::{
    Ciphertext, Decapsulate, Decapsulator, Encapsulate, Kem, KeyExport, KeyInit, KeySizeUser,
    TryKeyInit,
};
use ml_kem::{MlKem512, MlKem768, MlKem1024};
use zeroize::{Zeroize, Zeroizing};

use super::{BadPublicValue, assembler};
use crate::crypto::random::RandCore;
use crate::crypto::{Secret, SecureRandom};
use crate::wire::ike::numbers::KeId;

/// `d` and `z` of FIPS 203 §7.1, of which a key is made.
pub(super) type Seed = [u8; 64];

/// Bytes of an encapsulation key of ML-KEM-768, and of a ciphertext for it (FIPS 203 §8).
pub(super) const PUBLIC_768_LEN: usize = 1184;
pub(super) const CIPHERTEXT_768_LEN: usize = 1088;
/// `m` of FIPS 203 §7.2.
pub(super) const MESSAGE_LEN: usize = 32;

/// The initiator's half: the seed of a decapsulation key, wiped when dropped.
pub(super) struct Private {
    method: KeId,
    seed: Zeroizing<Seed>,
}

impl Private {
    /// A new key and its encapsulation key. `None` if `method` is not a parameter set of ML-KEM.
    pub(super) fn generate(method: KeId, rng: &mut dyn SecureRandom) -> Option<(Self, Vec<u8>)> {
        let mut seed = Zeroizing::new([0; 64]);
        rng.fill(&mut *seed);
        let public = match method {
            KeId::ML_KEM_512 => public::<MlKem512>(&seed),
            KeId::ML_KEM_768 => match assembler::mlkem768_public(&seed) {
                Some(public) => public.to_vec(),
                None => public::<MlKem768>(&seed),
            },
            KeId::ML_KEM_1024 => public::<MlKem1024>(&seed),
            _ => return None,
        };
        Some((Self { method, seed }, public))
    }

    /// The shared secret in the responder's ciphertext.
    pub(super) fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, BadPublicValue> {
        match self.method {
            KeId::ML_KEM_512 => decapsulate::<MlKem512>(&self.seed, ciphertext),
            KeId::ML_KEM_1024 => decapsulate::<MlKem1024>(&self.seed, ciphertext),
            _ => {
                let quick = ciphertext.try_into().ok();
                let quick = quick.and_then(|it| assembler::mlkem768_decapsulate(&self.seed, it));
                quick.map_or_else(|| decapsulate::<MlKem768>(&self.seed, ciphertext), Ok)
            }
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
    let mut message = Zeroizing::new([0; MESSAGE_LEN]);
    rng.fill(&mut *message);
    Some(match method {
        KeId::ML_KEM_512 => encapsulate_for::<MlKem512>(peer_public, &message),
        KeId::ML_KEM_768 => {
            let quick = peer_public.try_into().ok();
            let quick = quick.and_then(|it| assembler::mlkem768_encapsulate(it, *message));
            quick.unwrap_or_else(|| encapsulate_for::<MlKem768>(peer_public, &message))
        }
        KeId::ML_KEM_1024 => encapsulate_for::<MlKem1024>(peer_public, &message),
        _ => return None,
    })
}

fn public<K>(seed: &Seed) -> Vec<u8>
where
    K: Kem,
    K::DecapsulationKey: KeyInit + KeySizeUser<KeySize = U64> + Decapsulator<Kem = K>,
{
    K::DecapsulationKey::new(seed.into()).encapsulation_key().to_bytes().to_vec()
}

fn encapsulate_for<K>(
    peer_public: &[u8],
    message: &[u8; MESSAGE_LEN],
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
    let (ciphertext, mut shared) = key.encapsulate_with_rng(&mut RandCore(&mut Given(message)));
    let secret = Secret::copy_of(&shared);
    shared.zeroize();
    Ok((ciphertext.to_vec(), secret))
}

/// The one thing that is drawn: the library does not take it as an argument.
struct Given<'a>(&'a [u8; MESSAGE_LEN]);

impl SecureRandom for Given<'_> {
    fn fill(&mut self, buf: &mut [u8]) {
        buf.copy_from_slice(self.0);
    }
}

fn decapsulate<K>(seed: &Seed, ciphertext: &[u8]) -> Result<Secret, BadPublicValue>
where
    K: Kem,
    K::DecapsulationKey: KeyInit + KeySizeUser<KeySize = U64> + Decapsulate<Kem = K>,
{
    let encoded = ciphertext.try_into().map_err(|_| BadPublicValue::Length {
        expected: Ciphertext::<K>::default().len(),
        got: ciphertext.len(),
    })?;
    let mut shared = K::DecapsulationKey::new(seed.into()).decapsulate(encoded);
    let secret = Secret::copy_of(&shared);
    shared.zeroize();
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn both_libraries_agree(d: [u8; 32], z: [u8; 32], message: [u8; MESSAGE_LEN], at: usize) {
            let seed: Seed = [d, z].concat().try_into().unwrap();
            let public = public::<MlKem768>(&seed);
            let (ciphertext, secret) = encapsulate_for::<MlKem768>(&public, &message).unwrap();
            prop_assert_eq!(&decapsulate::<MlKem768>(&seed, &ciphertext).unwrap(), &secret);
            let mut spoiled: [u8; CIPHERTEXT_768_LEN] = ciphertext.clone().try_into().unwrap();
            spoiled[at % CIPHERTEXT_768_LEN] ^= 1 << (at % 8);
            let rejected = decapsulate::<MlKem768>(&seed, &spoiled).unwrap();
            let Some(quick) = assembler::mlkem768_public(&seed) else { return Ok(()) };
            prop_assert_eq!(&quick[..], &public[..]);
            let made = assembler::mlkem768_encapsulate(&quick, message).unwrap().unwrap();
            prop_assert_eq!((&made.0, &made.1), (&ciphertext, &secret));
            let again = assembler::mlkem768_decapsulate(&seed, &ciphertext.try_into().unwrap());
            prop_assert_eq!(again.unwrap(), secret);
            prop_assert_eq!(assembler::mlkem768_decapsulate(&seed, &spoiled).unwrap(), rejected);
        }

        /// FIPS 203 §7.2: a coefficient of 12 bits that is not below q.
        #[test]
        fn both_libraries_refuse_the_same(d: [u8; 32], at in 0..PUBLIC_768_LEN, byte: u8) {
            let seed: Seed = [d, [0; 32]].concat().try_into().unwrap();
            let mut public = public::<MlKem768>(&seed);
            public[at] = byte;
            let portable = encapsulate_for::<MlKem768>(&public, &[1; MESSAGE_LEN]);
            let Ok(public) = public.try_into() else { unreachable!("its length") };
            if let Some(quick) = assembler::mlkem768_encapsulate(&public, [1; MESSAGE_LEN]) {
                prop_assert_eq!(quick, portable);
            }
        }
    }
}
