//! Digital signatures, as IKE_AUTH and certificates have them: RSA (RFC 8017), ECDSA on P-256, P-384 and P-521
//! (RFC 4754, RFC 5758), Ed25519 (RFC 8032).
//!
//! A [`Scheme`] says how a message is signed, and knows its AlgorithmIdentifier (RFC 7427 Appendix A). [`PublicKey`]
//! verifies. Whatever holds a private key is a [`Signer`], so that the key may live in another process or in hardware;
//! [`PrivateKey`] is the one that has it in memory. Certificates are in [`x509`](super::x509).

mod private;
mod public;

use core::fmt;

pub use private::{PrivateKey, PrivateKeyError};
pub(super) use public::verify_ecdsa;
pub use public::{KeyKind, PublicKey, PublicKeyError};

use crate::crypto::{SecureRandom, sha};
use crate::wire::ike::numbers::HashId;

/// A hash function under a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1: for signatures of old peers alone, and never for ours.
    Sha1,
    /// SHA2-256.
    Sha256,
    /// SHA2-384.
    Sha384,
    /// SHA2-512.
    Sha512,
}

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA, the signature in the ASN.1 form (RFC 5758).
    Ecdsa(Hash),
    /// ECDSA, the signature as the two numbers one after the other (RFC 4754 §7).
    EcdsaConcat(Hash),
    /// Ed25519, which hashes by itself.
    Ed25519,
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PSS; MGF1 has the same hash, the salt its length.
    RsaPss(Hash),
}

/// Something that holds a private key and signs with it.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public key that belongs to it.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message, which is hashed as the scheme says.
    ///
    /// # Errors
    /// When the key cannot sign so, or whatever holds it does not.
    fn sign(
        &self,
        rng: &mut dyn SecureRandom,
        scheme: Scheme,
        message: &[u8],
    ) -> Result<Vec<u8>, SignError>;
}

/// No signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is of another kind than the scheme.
    #[error("the key cannot sign with {0}")]
    Scheme(Scheme),
    /// The library, or what holds the key, failed.
    #[error("signing failed")]
    Failed,
}

impl Hash {
    /// Its number in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
    #[must_use]
    pub const fn id(self) -> HashId {
        match self {
            Self::Sha1 => HashId::SHA1,
            Self::Sha256 => HashId::SHA2_256,
            Self::Sha384 => HashId::SHA2_384,
            Self::Sha512 => HashId::SHA2_512,
        }
    }

    /// The hash of a message, which is public.
    pub(super) fn of(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => sha::sha1(&[message]).to_vec(),
            Self::Sha256 => sha::sha256(&[message]).to_vec(),
            Self::Sha384 => sha::sha384(message).to_vec(),
            Self::Sha512 => sha::sha512(message).to_vec(),
        }
    }

    /// `hashAlgorithm` of RFC 8017, without the NULL that may follow.
    const fn oid(self) -> &'static [u8] {
        match self {
            Self::Sha1 => &[0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a],
            Self::Sha256 => &[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
            Self::Sha384 => &[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
            Self::Sha512 => &[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
        }
    }

    const fn len(self) -> u8 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl Scheme {
    /// The hash that the verifier must have announced (RFC 7427 §4, RFC 8420 §2).
    #[must_use]
    pub const fn hash_id(self) -> HashId {
        match self {
            Self::Ecdsa(hash)
            | Self::EcdsaConcat(hash)
            | Self::RsaPkcs1(hash)
            | Self::RsaPss(hash) => hash.id(),
            Self::Ed25519 => HashId::IDENTITY,
        }
    }

    /// The scheme to sign with, for a verifier that has announced these hashes: the hash that goes with the strength
    /// of the key first, then stronger ones, then weaker ones. `None` if there is none in common.
    #[must_use]
    pub fn choose(key: KeyKind, announced: &[HashId]) -> Option<Self> {
        Self::ways(key)
            .filter(|scheme| !matches!(scheme, Self::RsaPkcs1(_)))
            .find(|scheme| announced.contains(&scheme.hash_id()))
    }

    /// Every scheme in which a key of this kind signs with method 14 (RFC 7427), the preferred first: as [`choose`](Self::choose) has
    /// them, and for RSA also those of PKCS #1 v1.5, which it never takes by itself.
    pub fn ways(key: KeyKind) -> impl Iterator<Item = Self> + Clone {
        use Hash::{Sha256, Sha384, Sha512};
        let (first, second, third) = match key {
            // SP 800-57 part 1, table 2: 3072 bits are worth 128, 7680 are worth 192.
            KeyKind::EcdsaP256 | KeyKind::Ed25519 | KeyKind::Rsa { bits: ..=3072 } => {
                (Sha256, Sha384, Sha512)
            }
            KeyKind::EcdsaP384 | KeyKind::Rsa { bits: ..=7680 } => (Sha384, Sha512, Sha256),
            KeyKind::EcdsaP521 | KeyKind::Rsa { .. } => (Sha512, Sha384, Sha256),
        };
        let hashes = [first, second, third];
        let ways: Vec<Self> = match key {
            KeyKind::Ed25519 => vec![Self::Ed25519],
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                hashes.map(Self::Ecdsa).to_vec()
            }
            KeyKind::Rsa { .. } => [hashes.map(Self::RsaPss), hashes.map(Self::RsaPkcs1)].concat(),
        };
        ways.into_iter()
    }

    /// Every scheme of a signature by method 14 that is verified, the better first.
    pub fn verified() -> impl Iterator<Item = Self> + Clone {
        let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
        let by_hash = [Self::Ecdsa, Self::RsaPss, Self::RsaPkcs1];
        let by_hash = by_hash.into_iter().flat_map(move |of| hashes.map(of));
        core::iter::once(Self::Ed25519).chain(by_hash)
    }

    /// The DER of its AlgorithmIdentifier (RFC 7427 Appendix A), which method 14 puts before the signature. `None` where a
    /// method of its own says the scheme (RFC 4754), and for SHA-1.
    #[must_use]
    pub fn algorithm_identifier(self) -> Option<Vec<u8>> {
        match self {
            Self::Ecdsa(hash) => {
                let mut out = vec![0x30, 0x0a, 0x06, 0x08];
                // ecdsa-with-SHA2 (RFC 5758 §3.2); parameters are absent.
                out.extend([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, arc(hash, 2, 3, 4)?]);
                Some(out)
            }
            // RFC 8420 Appendix A.1.
            Self::Ed25519 => Some(vec![0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70]),
            Self::RsaPkcs1(hash) => {
                // RFC 4055 §5: parameters are NULL.
                let mut out = vec![0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7];
                out.extend([0x0d, 0x01, 0x01, arc(hash, 11, 12, 13)?, 0x05, 0x00]);
                Some(out)
            }
            Self::RsaPss(hash) => {
                arc(hash, 0, 0, 0)?;
                // RFC 7427 §A.4.3 has the trailer field, too. DER leaves out what has its default (RFC 8017 §A.2.3), and
                // libreswan takes no other form.
                Some(pss(hash, PssForm { hash_null: true, mgf_null: true, trailer: false }))
            }
            Self::EcdsaConcat(_) => None,
        }
    }

    /// The scheme of an AlgorithmIdentifier. `None` if it is not one of ours; SHA-1 is not.
    #[must_use]
    pub fn of_algorithm_identifier(der: &[u8]) -> Option<Self> {
        const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
        let plain = HASHES.into_iter().flat_map(|h| [Self::Ecdsa(h), Self::RsaPkcs1(h)]);
        let plain = plain.chain([Self::Ed25519]);
        if let Some(found) =
            { plain }.find(|scheme| scheme.algorithm_identifier().as_deref() == Some(der))
        {
            return Some(found);
        }
        // RFC 4055 §2.1 lets NULL be absent; DER leaves out what has its default, and not all heed that.
        let forms = (0..8_u8).map(|bits| PssForm {
            hash_null: bits & 1 == 0,
            mgf_null: bits & 2 == 0,
            trailer: bits & 4 == 0,
        });
        HASHES
            .into_iter()
            .find(|hash| forms.clone().any(|form| pss(*hash, form) == der))
            .map(Self::RsaPss)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hash) = match self {
            Self::Ecdsa(hash) | Self::EcdsaConcat(hash) => ("ECDSA", hash),
            Self::Ed25519 => return f.write_str("Ed25519"),
            Self::RsaPkcs1(hash) => ("RSASSA-PKCS1-v1_5", hash),
            Self::RsaPss(hash) => ("RSASSA-PSS", hash),
        };
        write!(f, "{name} with {}", hash.id())
    }
}

/// The last arc of an object identifier that has one for each SHA-2.
fn arc(hash: Hash, sha256: u8, sha384: u8, sha512: u8) -> Option<u8> {
    match hash {
        Hash::Sha1 => None,
        Hash::Sha256 => Some(sha256),
        Hash::Sha384 => Some(sha384),
        Hash::Sha512 => Some(sha512),
    }
}

/// What an encoder of RSASSA-PSS parameters may do or leave.
#[derive(Clone, Copy)]
struct PssForm {
    hash_null: bool,
    mgf_null: bool,
    trailer: bool,
}

/// id-RSASSA-PSS with its parameters (RFC 4055 §3.1).
fn pss(hash: Hash, form: PssForm) -> Vec<u8> {
    let hash_algorithm =
        |null: bool| tlv(0x30, &[hash.oid(), if null { &[0x05, 0x00][..] } else { &[] }].concat());
    let mgf1: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
    let mgf = tlv(0x30, &[mgf1, &hash_algorithm(form.mgf_null)].concat());
    let mut parameters = tlv(0xa0, &hash_algorithm(form.hash_null));
    parameters.extend(tlv(0xa1, &mgf));
    parameters.extend(tlv(0xa2, &[0x02, 0x01, hash.len()]));
    if form.trailer {
        parameters.extend(tlv(0xa3, &[0x02, 0x01, 0x01]));
    }
    let pss: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    tlv(0x30, &[pss, &tlv(0x30, &parameters)].concat())
}

/// DER of a tag and a value of less than 128 bytes.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    debug_assert!(value.len() < 128, "no AlgorithmIdentifier is longer");
    let mut out = vec![tag, u8::try_from(value.len()).unwrap_or(127)];
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests;
