//! [`PublicKey`]: what a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) has in it, and verifying with it.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use pkcs8::der::asn1::UintRef;
use pkcs8::der::{Decode, Reader, SliceReader};
use pkcs8::spki::SubjectPublicKeyInfoRef;
use ring::signature::{self as alg, UnparsedPublicKey, VerificationAlgorithm};

use super::{Hash, Scheme};
use crate::crypto::sha;

/// A public key of a kind that we know. Two are equal if the keys are, however they were written.
#[derive(Clone, Debug)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: KeyKind,
    /// RSAPublicKey (RFC 8017 §A.1.1), the uncompressed point, or the 32 bytes of Ed25519.
    key: Vec<u8>,
}

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa {
        /// Bits of the modulus, 2048 to 8192.
        bits: usize,
    },
}

/// Not a public key that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Of another algorithm, or on another curve.
    #[error("the key is not RSA, ECDSA on P-256, P-384 or P-521, or Ed25519")]
    Kind,
    /// Not well-formed.
    #[error("the public key is malformed")]
    Malformed,
    /// RSA with a modulus that is too short to be safe or too long to be verified in reasonable time.
    #[error("the RSA key has {0} bits, and 2048 to 8192 are accepted")]
    RsaBits(usize),
}

pub(super) const OID_RSA: &str = "1.2.840.113549.1.1.1";
pub(super) const OID_RSA_PSS: &str = "1.2.840.113549.1.1.10";
pub(super) const OID_EC: &str = "1.2.840.10045.2.1";
pub(super) const OID_ED25519: &str = "1.3.101.112";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_P521: &str = "1.3.132.0.35";

/// Before the bytes of an Ed25519 key (RFC 8410 §4).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it is malformed, or of a kind that is not ours.
    pub fn of_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| PublicKeyError::Malformed)?;
        let key = info.subject_public_key.as_bytes().ok_or(PublicKeyError::Malformed)?;
        let curve = || {
            let parameters = info.algorithm.parameters?;
            Some(parameters.decode_as::<pkcs8::ObjectIdentifier>().ok()?.to_string())
        };
        let (kind, key) = match info.algorithm.oid.to_string().as_str() {
            OID_RSA | OID_RSA_PSS => return Self::of_rsa(der.to_vec(), key),
            OID_ED25519 if key.len() == 32 => (KeyKind::Ed25519, key.to_vec()),
            OID_EC => {
                let bad = |_| PublicKeyError::Malformed;
                // The library checks that the point is on the curve, and takes a compressed one, too (RFC 5480 §2.2).
                match curve().as_deref() {
                    Some(OID_P256) => {
                        let point = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(bad)?;
                        (KeyKind::EcdsaP256, point.to_sec1_point(false).as_bytes().to_vec())
                    }
                    Some(OID_P384) => {
                        let point = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(bad)?;
                        (KeyKind::EcdsaP384, point.to_sec1_point(false).as_bytes().to_vec())
                    }
                    Some(OID_P521) => {
                        let point = p521::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(bad)?;
                        (KeyKind::EcdsaP521, point.to_sec1_point(false).as_bytes().to_vec())
                    }
                    _ => return Err(PublicKeyError::Kind),
                }
            }
            OID_ED25519 => return Err(PublicKeyError::Malformed),
            _ => return Err(PublicKeyError::Kind),
        };
        Ok(Self { spki: der.to_vec(), kind, key })
    }

    fn of_rsa(spki: Vec<u8>, key: &[u8]) -> Result<Self, PublicKeyError> {
        let bits = modulus_bits(key).ok_or(PublicKeyError::Malformed)?;
        if !(2048..=8192).contains(&bits) {
            return Err(PublicKeyError::RsaBits(bits));
        }
        Ok(Self { spki, kind: KeyKind::Rsa { bits }, key: key.to_vec() })
    }

    /// From an RSAPublicKey (RFC 8017 §A.1.1).
    pub(super) fn of_rsa_key(key: &[u8]) -> Result<Self, PublicKeyError> {
        use pkcs8::der::Encode;
        let info = SubjectPublicKeyInfoRef {
            algorithm: pkcs8::AlgorithmIdentifierRef {
                oid: pkcs8::ObjectIdentifier::new_unwrap(OID_RSA),
                parameters: Some(pkcs8::der::asn1::AnyRef::NULL),
            },
            subject_public_key: pkcs8::der::asn1::BitStringRef::from_bytes(key)
                .map_err(|_| PublicKeyError::Malformed)?,
        };
        let spki = info.to_der().map_err(|_| PublicKeyError::Malformed)?;
        Self::of_rsa(spki, key)
    }

    pub(super) fn of_ed25519(key: &[u8]) -> Self {
        let spki = [&ED25519_SPKI, key].concat();
        Self { spki, kind: KeyKind::Ed25519, key: key.to_vec() }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The DER of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-1 of the SubjectPublicKeyInfo: what names a CA in a CERTREQ payload (RFC 7296 §3.7).
    #[must_use]
    pub fn certreq_hash(&self) -> [u8; 20] {
        sha::sha1(&[&self.spki])
    }

    /// Whether this is a signature of the message by the private key. A scheme of another kind of key has none.
    #[must_use]
    pub fn verify(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        let ring: &'static dyn VerificationAlgorithm = match (self.kind, scheme) {
            (KeyKind::Ed25519, Scheme::Ed25519) => &alg::ED25519,
            (KeyKind::Rsa { .. }, Scheme::RsaPkcs1(hash)) => match hash {
                Hash::Sha1 => &alg::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                Hash::Sha256 => &alg::RSA_PKCS1_2048_8192_SHA256,
                Hash::Sha384 => &alg::RSA_PKCS1_2048_8192_SHA384,
                Hash::Sha512 => &alg::RSA_PKCS1_2048_8192_SHA512,
            },
            (KeyKind::Rsa { .. }, Scheme::RsaPss(hash)) => match hash {
                Hash::Sha1 => return false,
                Hash::Sha256 => &alg::RSA_PSS_2048_8192_SHA256,
                Hash::Sha384 => &alg::RSA_PSS_2048_8192_SHA384,
                Hash::Sha512 => &alg::RSA_PSS_2048_8192_SHA512,
            },
            (KeyKind::EcdsaP256, Scheme::Ecdsa(Hash::Sha256)) => &alg::ECDSA_P256_SHA256_ASN1,
            (KeyKind::EcdsaP256, Scheme::Ecdsa(Hash::Sha384)) => &alg::ECDSA_P256_SHA384_ASN1,
            (KeyKind::EcdsaP384, Scheme::Ecdsa(Hash::Sha256)) => &alg::ECDSA_P384_SHA256_ASN1,
            (KeyKind::EcdsaP384, Scheme::Ecdsa(Hash::Sha384)) => &alg::ECDSA_P384_SHA384_ASN1,
            (KeyKind::EcdsaP256, Scheme::EcdsaConcat(Hash::Sha256)) => {
                &alg::ECDSA_P256_SHA256_FIXED
            }
            (KeyKind::EcdsaP384, Scheme::EcdsaConcat(Hash::Sha384)) => {
                &alg::ECDSA_P384_SHA384_FIXED
            }
            // What `ring` does not have.
            (
                KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521,
                Scheme::Ecdsa(_) | Scheme::EcdsaConcat(_),
            ) => return verify_ecdsa(self.kind, &self.key, scheme, message, signature),
            (
                KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521,
                Scheme::Ed25519 | Scheme::RsaPkcs1(_) | Scheme::RsaPss(_),
            )
            | (
                KeyKind::Ed25519,
                Scheme::Ecdsa(_) | Scheme::EcdsaConcat(_) | Scheme::RsaPkcs1(_) | Scheme::RsaPss(_),
            )
            | (KeyKind::Rsa { .. }, Scheme::Ecdsa(_) | Scheme::EcdsaConcat(_) | Scheme::Ed25519) => {
                return false;
            }
        };
        UnparsedPublicKey::new(ring, &self.key).verify(message, signature).is_ok()
    }
}

/// ECDSA by the libraries that have every curve with every hash; `ring` has not.
pub(in crate::crypto) fn verify_ecdsa(
    kind: KeyKind,
    point: &[u8],
    scheme: Scheme,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let (hash, concat) = match scheme {
        Scheme::Ecdsa(hash) if hash != Hash::Sha1 => (hash.of(message), false),
        Scheme::EcdsaConcat(hash) if hash != Hash::Sha1 => (hash.of(message), true),
        Scheme::Ecdsa(_)
        | Scheme::EcdsaConcat(_)
        | Scheme::Ed25519
        | Scheme::RsaPkcs1(_)
        | Scheme::RsaPss(_) => return false,
    };
    macro_rules! verify {
        ($curve:ident, $bytes:literal) => {{
            let Ok(key) = $curve::ecdsa::VerifyingKey::from_sec1_bytes(point) else {
                return false;
            };
            let signature = if concat {
                $curve::ecdsa::Signature::from_slice(signature)
            } else {
                $curve::ecdsa::Signature::from_der(signature)
            };
            let hash = at_least(hash, $bytes);
            signature.is_ok_and(|signature| key.verify_prehash(&hash, &signature).is_ok())
        }};
    }
    match kind {
        KeyKind::EcdsaP256 => verify!(p256, 32),
        KeyKind::EcdsaP384 => verify!(p384, 48),
        KeyKind::EcdsaP521 => verify!(p521, 66),
        KeyKind::Ed25519 | KeyKind::Rsa { .. } => false,
    }
}

/// The hash as a number of `len` bytes: the libraries take none that is much shorter than the group's order, though
/// FIPS 186-5 §6.4.1 does.
pub(super) fn at_least(hash: Vec<u8>, len: usize) -> Vec<u8> {
    let mut padded = vec![0; len.saturating_sub(hash.len())];
    padded.extend(hash);
    padded
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.key == other.key
    }
}

impl Eq for PublicKey {}

/// Bits of the modulus of an RSAPublicKey.
fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let bits = reader
        .sequence(|reader: &mut SliceReader<'_>| {
            let modulus = UintRef::decode(reader)?;
            let _exponent = UintRef::decode(reader)?;
            let bytes = modulus.as_bytes();
            let first = bytes.first().copied().unwrap_or(0);
            let zeros = usize::try_from(first.leading_zeros()).unwrap_or(8);
            Ok::<_, pkcs8::der::Error>((bytes.len() * 8).saturating_sub(zeros))
        })
        .ok()?;
    reader.is_finished().then_some(bits)
}
