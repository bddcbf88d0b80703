//! Key exchange (RFC 7296 §3.3.2, transform type 4): x25519 (RFC 8031), P-256, P-384 and P-521 (RFC 5903), MODP (RFC 3526),
//! ML-KEM (draft-ietf-ipsecme-ikev2-mlkem).
//!
//! The initiator makes a [`KeyPair`] and sends its public value; the responder answers that one with [`respond`]; the initiator
//! agrees with the answer. With Diffie-Hellman both do the same, with a KEM they do not, so who is who matters.
//!
//! Owns the encodings and the checks of the peer's public value that RFC 6989 and RFC 7748 ask for.
//! Shared secrets have a constant length, leading zeros kept (RFC 7296 §2.14).

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod assembler;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "no_assembler.rs"]
mod assembler;
mod mlkem;
mod modp;
mod x25519;

use core::fmt;

use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use thiserror::Error;

use crate::crypto::random::RandCore;
use crate::crypto::{Secret, SecureRandom};
use crate::wire::ike::numbers::KeId;

/// A public value of the peer with which no key may be agreed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadPublicValue {
    /// Its length is not that of the group.
    #[error("public value of {got} bytes where the group has {expected}")]
    Length {
        /// Bytes that a public value of the group has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// Not a point on the curve (RFC 6989 §2.3).
    #[error("public value is not a point on the curve")]
    NotOnCurve,
    /// Not the encoding of integers modulo q (FIPS 203 §7.2).
    #[error("encapsulation key has coefficients that are out of range")]
    NotReduced,
    /// Not between 1 and p - 1, exclusive (RFC 6989 §2.1).
    #[error("public value is out of range")]
    OutOfRange,
    /// Of small order: the shared secret would be all zero (RFC 7748 §6.1).
    #[error("public value is of small order")]
    SmallOrder,
}

/// What [`respond`] made of the initiator's public value.
pub struct Response {
    /// Our public value, as the KE payload carries it; of a KEM, the ciphertext.
    pub public: Vec<u8>,
    /// The shared secret.
    pub shared: Secret,
}

/// The responder's half of a key exchange. `None` for a method that we do not have.
///
/// # Errors
/// [`BadPublicValue`] when the initiator's value fails the checks of RFC 6989, RFC 7748 or FIPS 203 §7.2.
#[must_use]
pub fn respond(
    method: KeId,
    peer_public: &[u8],
    rng: &mut dyn SecureRandom,
) -> Option<Result<Response, BadPublicValue>> {
    if let Some(result) = mlkem::encapsulate(method, peer_public, rng) {
        return Some(result.map(|(public, shared)| Response { public, shared }));
    }
    let pair = KeyPair::generate(method, rng)?;
    Some(pair.agree(peer_public).map(|shared| Response { public: pair.public, shared }))
}

/// The initiator's private and public value of one key exchange; with Diffie-Hellman anybody's.
pub struct KeyPair {
    group: KeId,
    private: Private,
    public: Vec<u8>,
}

enum Private {
    Ecp256(Box<p256::ecdh::EphemeralSecret>),
    Ecp384(Box<p384::ecdh::EphemeralSecret>),
    Ecp521(Box<p521::ecdh::EphemeralSecret>),
    MlKem(mlkem::Private),
    Modp2048(modp::Exponent<{ modp::MODP_2048_EXPONENT_LIMBS }>),
    Modp3072(modp::Exponent<{ modp::MODP_3072_EXPONENT_LIMBS }>),
    Modp4096(modp::Exponent<{ modp::MODP_4096_EXPONENT_LIMBS }>),
    Modp6144(modp::Exponent<{ modp::MODP_6144_EXPONENT_LIMBS }>),
    Modp8192(modp::Exponent<{ modp::MODP_8192_EXPONENT_LIMBS }>),
    X25519(x25519::Private),
}

impl KeyPair {
    /// Makes a new private value. `None` for a group that we do not have.
    #[must_use]
    pub fn generate(group: KeId, rng: &mut dyn SecureRandom) -> Option<Self> {
        let (private, public) = match group {
            KeId::CURVE25519 => {
                let private = x25519::Private::generate(rng);
                let public = private.public().to_vec();
                (Private::X25519(private), public)
            }
            KeId::ECP_256 => {
                let private = p256::ecdh::EphemeralSecret::generate_from_rng(&mut RandCore(rng));
                let public =
                    without_point_form(private.public_key().to_sec1_point(false).as_bytes());
                (Private::Ecp256(Box::new(private)), public)
            }
            KeId::ECP_384 => {
                let private = p384::ecdh::EphemeralSecret::generate_from_rng(&mut RandCore(rng));
                let public =
                    without_point_form(private.public_key().to_sec1_point(false).as_bytes());
                (Private::Ecp384(Box::new(private)), public)
            }
            KeId::ECP_521 => {
                let mut rng = Bits521(rng);
                let mut rng = RandCore(&mut rng);
                let private = p521::ecdh::EphemeralSecret::generate_from_rng(&mut rng);
                let public =
                    without_point_form(private.public_key().to_sec1_point(false).as_bytes());
                (Private::Ecp521(Box::new(private)), public)
            }
            KeId::ML_KEM_512 | KeId::ML_KEM_768 | KeId::ML_KEM_1024 => {
                let (private, public) = mlkem::Private::generate(group, rng)?;
                (Private::MlKem(private), public)
            }
            KeId::MODP_2048 => {
                let private = modp::Exponent::generate(rng);
                let public = modp::MODP_2048.public(&private);
                (Private::Modp2048(private), public)
            }
            KeId::MODP_3072 => {
                let private = modp::Exponent::generate(rng);
                let public = modp::MODP_3072.public(&private);
                (Private::Modp3072(private), public)
            }
            KeId::MODP_4096 => {
                let private = modp::Exponent::generate(rng);
                let public = modp::MODP_4096.public(&private);
                (Private::Modp4096(private), public)
            }
            KeId::MODP_6144 => {
                let private = modp::Exponent::generate(rng);
                let public = modp::MODP_6144.public(&private);
                (Private::Modp6144(private), public)
            }
            KeId::MODP_8192 => {
                let private = modp::Exponent::generate(rng);
                let public = modp::MODP_8192.public(&private);
                (Private::Modp8192(private), public)
            }
            _ => return None,
        };
        Some(Self { group, private, public })
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> KeId {
        self.group
    }

    /// Our public value, as the KE payload carries it.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret: g^ir, or what a KEM's ciphertext holds.
    ///
    /// # Errors
    /// [`BadPublicValue`] when the peer's value fails the checks of RFC 6989 or RFC 7748.
    pub fn agree(&self, peer_public: &[u8]) -> Result<Secret, BadPublicValue> {
        // A KEM's ciphertext has a length of its own.
        let is_kem = matches!(self.private, Private::MlKem(_));
        if !is_kem && peer_public.len() != self.public.len() {
            return Err(BadPublicValue::Length {
                expected: self.public.len(),
                got: peer_public.len(),
            });
        }
        match &self.private {
            Private::X25519(private) => private.agree(peer_public),
            // RFC 5903 §7: the shared secret is the x coordinate alone.
            Private::Ecp256(private) => {
                let point = p256::PublicKey::from_sec1_bytes(&with_point_form(peer_public))
                    .map_err(|_| BadPublicValue::NotOnCurve)?;
                Ok(Secret::copy_of(private.diffie_hellman(&point).raw_secret_bytes()))
            }
            Private::Ecp384(private) => {
                let point = p384::PublicKey::from_sec1_bytes(&with_point_form(peer_public))
                    .map_err(|_| BadPublicValue::NotOnCurve)?;
                Ok(Secret::copy_of(private.diffie_hellman(&point).raw_secret_bytes()))
            }
            Private::Ecp521(private) => {
                let point = p521::PublicKey::from_sec1_bytes(&with_point_form(peer_public))
                    .map_err(|_| BadPublicValue::NotOnCurve)?;
                Ok(Secret::copy_of(private.diffie_hellman(&point).raw_secret_bytes()))
            }
            Private::MlKem(private) => private.decapsulate(peer_public),
            Private::Modp2048(private) => modp::MODP_2048.agree(private, peer_public),
            Private::Modp3072(private) => modp::MODP_3072.agree(private, peer_public),
            Private::Modp4096(private) => modp::MODP_4096.agree(private, peer_public),
            Private::Modp6144(private) => modp::MODP_6144.agree(private, peer_public),
            Private::Modp8192(private) => modp::MODP_8192.agree(private, peer_public),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, [redacted])", self.group)
    }
}

/// Whether [`KeyPair::generate`] has the group.
#[must_use]
pub fn supported(group: KeId) -> bool {
    SUPPORTED.contains(&group)
}

/// The groups that we have.
pub const SUPPORTED: [KeId; 12] = [
    KeId::CURVE25519,
    KeId::ECP_256,
    KeId::ECP_384,
    KeId::ECP_521,
    KeId::ML_KEM_512,
    KeId::ML_KEM_768,
    KeId::ML_KEM_1024,
    KeId::MODP_2048,
    KeId::MODP_3072,
    KeId::MODP_4096,
    KeId::MODP_6144,
    KeId::MODP_8192,
];

/// Random numbers of 521 bits in 66 bytes, where the library would draw 528 and throw 127 of 128 away.
struct Bits521<'a>(&'a mut dyn SecureRandom);

impl SecureRandom for Bits521<'_> {
    fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill(buf);
        if let Some(first) = buf.first_mut() {
            *first &= 1;
        }
    }
}

const X25519_LEN: usize = 32;

/// The public key of a private one of X25519 (RFC 7748 §5).
#[must_use]
pub fn x25519_public(private: &[u8; 32]) -> [u8; 32] {
    x25519::public(private)
}

/// SEC 1 §2.3.3: 4 says that both coordinates follow. RFC 5903 §7 has the coordinates only.
const UNCOMPRESSED: u8 = 4;

fn without_point_form(sec1: &[u8]) -> Vec<u8> {
    sec1.split_first().map(|(_, coordinates)| coordinates.to_vec()).unwrap_or_default()
}

fn with_point_form(coordinates: &[u8]) -> Vec<u8> {
    [&[UNCOMPRESSED], coordinates].concat()
}

#[cfg(test)]
mod tests;
