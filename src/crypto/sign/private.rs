//! [`PrivateKey`]: a private key in memory, read from PEM.

use core::fmt;

use p256::ecdsa::signature::hazmat::RandomizedPrehashSigner;
use p256::elliptic_curve::Generate;
use pkcs8::der::Decode;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::{EncodePrivateKey, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::rand::SystemRandom;
use ring::signature::{self as alg, Ed25519KeyPair, KeyPair, RsaKeyPair};

use super::public::{OID_EC, OID_ED25519, OID_RSA, OID_RSA_PSS, PublicKey, at_least};
use super::{Hash, KeyKind, PublicKeyError, Scheme, SignError, Signer};
use zeroize::Zeroizing;

use crate::crypto::pem::{self, Block};
use crate::crypto::random::RandCore;
use crate::crypto::{Secret, SecureRandom};

/// A private key in this process' memory. ECDSA keys are wiped on drop; what `ring` holds (RSA, Ed25519) is not.
pub struct PrivateKey {
    key: Key,
    public: PublicKey,
}

enum Key {
    P256(Box<p256::ecdsa::SigningKey>),
    P384(Box<p384::ecdsa::SigningKey>),
    P521(Box<p521::ecdsa::SigningKey>),
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// Why no private key was read. Nothing of the key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// Encrypted in the way of OpenSSL before PKCS #8.
    #[error("it is encrypted in OpenSSL's old form: convert it with openssl pkcs8 -topk8")]
    OldEncryption,
    /// Encrypted, and a passphrase was not given.
    #[error("it is encrypted, and no passphrase is given")]
    PassphraseMissing,
    /// The passphrase does not fit, or the encryption is not ours.
    #[error("the passphrase does not open it (or it is not encrypted with PBES2 and AES)")]
    Passphrase,
    /// There is no key in the file.
    #[error("there is no PEM block with a private key in it")]
    NoKey,
    /// Several keys are in the file.
    #[error("there are several private keys in it")]
    Several,
    /// Not a key that we can use.
    #[error("{0}")]
    Public(#[from] PublicKeyError),
    /// The key is malformed or inconsistent.
    #[error("the key in it is malformed")]
    Malformed,
    /// RSA of a size that the library does not sign with.
    #[error("the RSA key is refused ({0}): 2048 to 4096 bits can sign here")]
    Rsa(String),
}

impl PrivateKey {
    /// Reads the private key in a PEM file: PKCS #8 (RFC 5958), with a passphrase or without; PKCS #1 (`RSA PRIVATE KEY`);
    /// SEC 1 (`EC PRIVATE KEY`, RFC 5915). Other blocks, such as certificates, are passed over.
    ///
    /// # Errors
    /// When there is none, several, or one that cannot be used.
    pub fn from_pem(text: &[u8], passphrase: Option<&Secret>) -> Result<Self, PrivateKeyError> {
        let mut keys = pem::blocks(text).filter(|block| block.label.ends_with("PRIVATE KEY"));
        let block = keys.next().ok_or(PrivateKeyError::NoKey)?;
        if keys.next().is_some() {
            return Err(PrivateKeyError::Several);
        }
        Self::from_block(&block, passphrase)
    }

    fn from_block(block: &Block, passphrase: Option<&Secret>) -> Result<Self, PrivateKeyError> {
        if block.has_headers {
            return Err(PrivateKeyError::OldEncryption);
        }
        let der = block.der.as_ref().ok_or(PrivateKeyError::Malformed)?.expose();
        match block.label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(der),
            "ENCRYPTED PRIVATE KEY" => {
                let passphrase = passphrase.ok_or(PrivateKeyError::PassphraseMissing)?;
                let info = EncryptedPrivateKeyInfoRef::try_from(der)
                    .map_err(|_| PrivateKeyError::Malformed)?;
                let opened =
                    info.decrypt(passphrase.expose()).map_err(|_| PrivateKeyError::Passphrase)?;
                // What a wrong passphrase opens has no form.
                let key = Self::from_pkcs8(opened.as_bytes());
                if key.as_ref().err() == Some(&PrivateKeyError::Malformed) {
                    return Err(PrivateKeyError::Passphrase);
                }
                key
            }
            "RSA PRIVATE KEY" => Self::from_rsa(der),
            "EC PRIVATE KEY" => Self::from_sec1(der),
            _ => Err(PrivateKeyError::NoKey),
        }
    }

    /// Reads a PrivateKeyInfo (RFC 5958 §2).
    ///
    /// # Errors
    /// When it is malformed or cannot be used.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| PrivateKeyError::Malformed)?;
        let key = info.private_key.as_bytes();
        match info.algorithm.oid.to_string().as_str() {
            OID_RSA | OID_RSA_PSS => Self::from_rsa(key),
            OID_ED25519 => {
                // RFC 8410 §7: an OCTET STRING in the OCTET STRING.
                let seed = <&OctetStringRef>::from_der(key)
                    .map_err(|_| PrivateKeyError::Malformed)?
                    .as_bytes();
                let pair = Ed25519KeyPair::from_seed_unchecked(seed)
                    .map_err(|_| PrivateKeyError::Malformed)?;
                let public = PublicKey::of_ed25519(pair.public_key().as_ref());
                Ok(Self { key: Key::Ed25519(Box::new(pair)), public })
            }
            // The curve stands outside; the key inside need not repeat it.
            OID_EC => {
                if let Ok(key) = p256::SecretKey::try_from(info.clone()) {
                    return Self::from_p256(&key);
                }
                if let Ok(key) = p384::SecretKey::try_from(info.clone()) {
                    return Self::from_p384(&key);
                }
                match p521::SecretKey::try_from(info) {
                    Ok(key) => Self::from_p521(&key),
                    Err(_) => Err(PublicKeyError::Kind.into()),
                }
            }
            _ => Err(PublicKeyError::Kind.into()),
        }
    }

    /// Makes a new key, and the DER of its PrivateKeyInfo. RSA keys are not made here: there is no reason for a new one.
    ///
    /// # Errors
    /// For RSA.
    pub fn generate(
        kind: KeyKind,
        rng: &mut dyn SecureRandom,
    ) -> Result<(Self, Secret), PrivateKeyError> {
        /// PrivateKeyInfo of Ed25519 (RFC 8410 §7) up to the seed.
        const ED25519: [u8; 16] =
            [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        macro_rules! generate {
            ($curve:ident) => {{
                let key = $curve::SecretKey::generate_from_rng(&mut RandCore(rng));
                let der = key.to_pkcs8_der().map_err(|_| PrivateKeyError::Malformed)?;
                Secret::copy_of(der.as_bytes())
            }};
        }
        let der = match kind {
            KeyKind::EcdsaP256 => generate!(p256),
            KeyKind::EcdsaP384 => generate!(p384),
            KeyKind::EcdsaP521 => generate!(p521),
            KeyKind::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                rng.fill(&mut *seed);
                Secret::new([&ED25519[..], &*seed].concat())
            }
            KeyKind::Rsa { .. } => return Err(PublicKeyError::Kind.into()),
        };
        Ok((Self::from_pkcs8(der.expose())?, der))
    }

    fn from_rsa(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let pair =
            RsaKeyPair::from_der(der).map_err(|error| PrivateKeyError::Rsa(error.to_string()))?;
        let public = PublicKey::of_rsa_key(pair.public_key().as_ref())?;
        Ok(Self { key: Key::Rsa(Box::new(pair)), public })
    }

    fn from_sec1(der: &[u8]) -> Result<Self, PrivateKeyError> {
        // The library compares the named curve, if there is one, and the length.
        if let Ok(key) = p256::SecretKey::from_sec1_der(der) {
            return Self::from_p256(&key);
        }
        if let Ok(key) = p384::SecretKey::from_sec1_der(der) {
            return Self::from_p384(&key);
        }
        match p521::SecretKey::from_sec1_der(der) {
            Ok(key) => Self::from_p521(&key),
            Err(_) => Err(PublicKeyError::Kind.into()),
        }
    }
}

macro_rules! from_ecdsa {
    ($name:ident, $curve:ident, $variant:ident) => {
        impl PrivateKey {
            fn $name(key: &$curve::SecretKey) -> Result<Self, PrivateKeyError> {
                use pkcs8::EncodePublicKey;
                let spki =
                    key.public_key().to_public_key_der().map_err(|_| PrivateKeyError::Malformed)?;
                let public = PublicKey::of_spki(spki.as_bytes())?;
                let key = Key::$variant(Box::new($curve::ecdsa::SigningKey::from(key)));
                Ok(Self { key, public })
            }
        }
    };
}

from_ecdsa!(from_p256, p256, P256);
from_ecdsa!(from_p384, p384, P384);
from_ecdsa!(from_p521, p521, P521);

macro_rules! sign_ecdsa {
    ($curve:ident, $bytes:literal, $key:expr, $rng:expr, $hash:expr, $concat:expr, $message:expr) => {{
        let hash = at_least($hash.of($message), $bytes);
        // RFC 6979 §3.6: the nonce comes from key, hash and fresh randomness, so that it is safe if the last is not.
        let signature: $curve::ecdsa::Signature = $key
            .sign_prehash_with_rng(&mut RandCore($rng), &hash)
            .map_err(|_| SignError::Failed)?;
        if $concat {
            signature.to_bytes().to_vec()
        } else {
            signature.to_der().as_bytes().to_vec()
        }
    }};
}

impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// RSA takes its salt and its blinding from the operating system: `ring` has them from nobody else.
    fn sign(
        &self,
        rng: &mut dyn SecureRandom,
        scheme: Scheme,
        message: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        let (hash, concat) = match scheme {
            Scheme::Ecdsa(hash) => (hash, false),
            Scheme::EcdsaConcat(hash) => (hash, true),
            Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => (hash, false),
            Scheme::Ed25519 => {
                let Key::Ed25519(pair) = &self.key else { return Err(SignError::Scheme(scheme)) };
                return Ok(pair.sign(message).as_ref().to_vec());
            }
        };
        if hash == Hash::Sha1 {
            return Err(SignError::Scheme(scheme));
        }
        let is_ecdsa = matches!(scheme, Scheme::Ecdsa(_) | Scheme::EcdsaConcat(_));
        match &self.key {
            Key::P256(key) if is_ecdsa => {
                Ok(sign_ecdsa!(p256, 32, key, rng, hash, concat, message))
            }
            Key::P384(key) if is_ecdsa => {
                Ok(sign_ecdsa!(p384, 48, key, rng, hash, concat, message))
            }
            Key::P521(key) if is_ecdsa => {
                Ok(sign_ecdsa!(p521, 66, key, rng, hash, concat, message))
            }
            Key::Rsa(pair) if !is_ecdsa => {
                let padding: &'static dyn alg::RsaEncoding =
                    match (matches!(scheme, Scheme::RsaPss(_)), hash) {
                        (_, Hash::Sha1) => return Err(SignError::Scheme(scheme)),
                        (true, Hash::Sha256) => &alg::RSA_PSS_SHA256,
                        (true, Hash::Sha384) => &alg::RSA_PSS_SHA384,
                        (true, Hash::Sha512) => &alg::RSA_PSS_SHA512,
                        (false, Hash::Sha256) => &alg::RSA_PKCS1_SHA256,
                        (false, Hash::Sha384) => &alg::RSA_PKCS1_SHA384,
                        (false, Hash::Sha512) => &alg::RSA_PKCS1_SHA512,
                    };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| SignError::Failed)?;
                Ok(signature)
            }
            Key::P256(_) | Key::P384(_) | Key::P521(_) | Key::Ed25519(_) | Key::Rsa(_) => {
                Err(SignError::Scheme(scheme))
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("key", &"[redacted]").finish_non_exhaustive()
    }
}
