//! OpenPGP (RFC 9580) around the text of a bundle. The only place that names `pgp`.
//!
//! Written is what every OpenPGP program reads: AES-256 with MDC under the recipient's public key, ZLIB, a binary signature with
//! SHA-512. Read is what any of them writes, within bounds: nothing is believed before the end of the text has been verified.

use core::fmt;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use pgp::composed::{
    ArmorOptions, Deserializable, InnerRingResult, Message, MessageBuilder, SignedKeyDetails,
    SignedPublicKey, SignedSecretKey, TheRing,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureType};
use pgp::types::{
    CompressionAlgorithm, EncryptionKey, KeyDetails, Password, SigningKey, VerifyingKey,
};
use rand_core_06::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::crypto::random::SecureRandom;

/// The longest text, in bytes: what is compressed may claim to be more.
pub const MAX_TEXT: usize = 1 << 20;

/// How often a message may be compressed within itself.
const MAX_LAYERS: usize = 3;

/// Why a message, or a key, is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenPgpError {
    /// It is no key, or its own signatures are wrong.
    #[error("it is no OpenPGP {0}: {1}")]
    BadKey(&'static str, String),
    /// There is no part of it that this can be done with.
    #[error("key {0} has no part that can {1}: it is expired, revoked, or made for something else")]
    Useless(String, &'static str),
    /// The passphrase does not open it.
    #[error("the passphrase does not open key {0}")]
    Locked(String),
    /// It is encrypted to others.
    #[error("it is not for key {0}: whoever sent it has encrypted it to another")]
    NotForUs(String),
    /// It is no message, or not a whole one.
    #[error("it is no OpenPGP message, or was changed on its way: {0}")]
    BadMessage(String),
    /// It is in the clear.
    #[error("it is not encrypted")]
    NotEncrypted,
    /// It has no signature.
    #[error("nobody has signed it")]
    NotSigned,
    /// Its signature is not that of who was named.
    #[error("it is not signed by key {0}, or was changed on its way")]
    WronglySigned(String),
    /// What is in it is larger than any bundle.
    #[error("what is in it is larger than {MAX_TEXT} bytes")]
    TooLong,
}

/// A public key, with what it says of itself verified.
pub struct Certificate(SignedPublicKey);

/// A private key, with what it says of itself verified.
pub struct PrivateKey {
    key: SignedSecretKey,
    passphrase: Zeroizing<String>,
}

impl Certificate {
    /// Reads one, armoured or not.
    ///
    /// # Errors
    /// If it is none, or a signature of its own is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, OpenPgpError> {
        let bad = |error: pgp::errors::Error| OpenPgpError::BadKey("public key", error.to_string());
        let (key, _) = SignedPublicKey::from_reader_single(bytes).map_err(bad)?;
        key.verify_bindings().map_err(bad)?;
        Ok(Self(key))
    }

    /// Its fingerprint, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.primary_key.fingerprint().to_string().to_uppercase()
    }

    /// The name that stands in it; nothing proves that.
    #[must_use]
    pub fn user(&self) -> String {
        user(&self.0.details)
    }

    /// The keys with which it signs, for now.
    fn verifiers(&self, now: SystemTime) -> Vec<&dyn VerifyingKey> {
        let mut found: Vec<&dyn VerifyingKey> = Vec::new();
        let Some(flags) = primary(&self.0.details, &self.0.primary_key, now) else { return found };
        if flags.sign() {
            found.push(&self.0.primary_key);
        }
        for subkey in &self.0.public_subkeys {
            if sub(&subkey.signatures, &subkey.key, now).is_some_and(|flags| flags.sign()) {
                found.push(&subkey.key);
            }
        }
        found
    }
}

impl PrivateKey {
    /// Reads one, armoured or not, that `passphrase` opens; it is empty for one that is open.
    ///
    /// # Errors
    /// If it is none, or a signature of its own is wrong.
    pub fn read(bytes: &[u8], passphrase: Zeroizing<String>) -> Result<Self, OpenPgpError> {
        let bad =
            |error: pgp::errors::Error| OpenPgpError::BadKey("private key", error.to_string());
        let (key, _) = SignedSecretKey::from_reader_single(bytes).map_err(bad)?;
        key.verify_bindings().map_err(bad)?;
        Ok(Self { key, passphrase })
    }

    /// Its fingerprint, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.primary_key.fingerprint().to_string().to_uppercase()
    }

    fn signer(&self, now: SystemTime) -> Option<&dyn SigningKey> {
        let flags = primary(&self.key.details, &self.key.primary_key, now)?;
        for subkey in &self.key.secret_subkeys {
            if sub(&subkey.signatures, &subkey.key, now).is_some_and(|flags| flags.sign()) {
                return Some(&subkey.key);
            }
        }
        flags.sign().then_some(&self.key.primary_key as &dyn SigningKey)
    }

    fn password(&self) -> Password {
        self.passphrase.as_str().into()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.fingerprint())
    }
}

/// Signs, compresses and encrypts a text; armoured.
///
/// # Errors
/// If a key is of no use for that, or the passphrase does not open it.
pub fn seal(
    text: &str,
    to: &Certificate,
    by: &PrivateKey,
    now: SystemTime,
    rng: &mut dyn SecureRandom,
) -> Result<String, OpenPgpError> {
    let rng = &mut Rng(rng);
    let failed = |error: pgp::errors::Error| OpenPgpError::BadMessage(error.to_string());
    let signer = by.signer(now).ok_or_else(|| OpenPgpError::Useless(by.fingerprint(), "sign"))?;
    let useless = || OpenPgpError::Useless(to.fingerprint(), "be encrypted to");
    let flags = primary(&to.0.details, &to.0.primary_key, now).ok_or_else(useless)?;
    let bytes = Zeroizing::new(text.as_bytes().to_vec());
    let mut builder = MessageBuilder::from_bytes("", bytes.to_vec())
        .seipd_v1(&mut *rng, SymmetricKeyAlgorithm::AES256);
    let encrypts = |flags: &KeyFlags| flags.encrypt_comms() || flags.encrypt_storage();
    let mut recipients = 0;
    for subkey in &to.0.public_subkeys {
        let fits = sub(&subkey.signatures, &subkey.key, now).is_some_and(|flags| encrypts(&flags));
        if fits && subkey.key.algorithm().can_encrypt() {
            encrypt(&mut builder, &subkey.key, rng)?;
            recipients += 1;
        }
    }
    if recipients == 0 && encrypts(&flags) && to.0.primary_key.algorithm().can_encrypt() {
        encrypt(&mut builder, &to.0.primary_key, rng)?;
        recipients += 1;
    }
    if recipients == 0 {
        return Err(useless());
    }
    builder.compression(CompressionAlgorithm::ZLIB);
    builder.sign(signer, by.password(), HashAlgorithm::Sha512);
    let locked = |error: pgp::errors::Error| match error {
        pgp::errors::Error::MissingKey => OpenPgpError::Locked(by.fingerprint()),
        other if other.to_string().to_lowercase().contains("password") => {
            OpenPgpError::Locked(by.fingerprint())
        }
        other => failed(other),
    };
    builder.to_armored_string(&mut *rng, ArmorOptions::default()).map_err(locked)
}

type Encrypting<'a> =
    MessageBuilder<'a, pgp::composed::DummyReader, pgp::composed::EncryptionSeipdV1>;

fn encrypt<R: RngCore + CryptoRng>(
    builder: &mut Encrypting<'_>,
    key: &impl EncryptionKey,
    rng: &mut R,
) -> Result<(), OpenPgpError> {
    let done = builder.encrypt_to_key(&mut *rng, key);
    done.map(drop).map_err(|error| OpenPgpError::BadMessage(error.to_string()))
}

/// Opens what is for `key`, and verifies that `from` has signed it.
///
/// # Errors
/// Why it is refused.
pub fn open(
    armoured: &[u8],
    key: &PrivateKey,
    from: &Certificate,
    now: SystemTime,
) -> Result<Zeroizing<String>, OpenPgpError> {
    let bad = |error: pgp::errors::Error| OpenPgpError::BadMessage(error.to_string());
    let (message, _) = Message::from_armor(armoured).map_err(bad)?;
    if !message.is_encrypted() {
        return Err(OpenPgpError::NotEncrypted);
    }
    let password = key.password();
    let ring = TheRing {
        secret_keys: vec![&key.key],
        key_passwords: vec![&password],
        ..TheRing::default()
    };
    let mut message = match message.decrypt_the_ring(ring, false) {
        Ok((message, found)) => match found.secret_keys.first() {
            Some(InnerRingResult::Ok) => message,
            Some(InnerRingResult::InvalidPassword) => {
                return Err(OpenPgpError::Locked(key.fingerprint()));
            }
            Some(_) | None => return Err(OpenPgpError::NotForUs(key.fingerprint())),
        },
        Err(pgp::errors::Error::MissingKey) => {
            return Err(OpenPgpError::NotForUs(key.fingerprint()));
        }
        Err(error) => return Err(bad(error)),
    };
    for _ in 0..MAX_LAYERS {
        if message.is_compressed() {
            message = message.decompress().map_err(bad)?;
        }
    }
    if !message.is_signed() && !message.is_one_pass_signed() {
        return Err(OpenPgpError::NotSigned);
    }
    // To the end, which is where the signature and the proof of integrity stand.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TEXT + 1));
    let length = (&mut message).take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes);
    length.map_err(|error| OpenPgpError::BadMessage(error.to_string()))?;
    if bytes.len() > MAX_TEXT {
        return Err(OpenPgpError::TooLong);
    }
    let keys = from.verifiers(now);
    if keys.is_empty() {
        return Err(OpenPgpError::Useless(from.fingerprint(), "sign"));
    }
    let verified = message.verify_nested(&keys).map_err(bad)?;
    let is_valid = |found: &pgp::composed::VerificationResult| match found {
        pgp::composed::VerificationResult::Valid(signature) => is_in_date(signature, now),
        pgp::composed::VerificationResult::Invalid => false,
    };
    if !verified.iter().any(is_valid) {
        return Err(OpenPgpError::WronglySigned(from.fingerprint()));
    }
    match core::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(OpenPgpError::BadMessage("it is no text".to_owned())),
    }
}

/// A signature of data: of a document, made with a hash that stands, and not out of date.
fn is_in_date(signature: &Signature, now: SystemTime) -> bool {
    let document = matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text));
    let weak = matches!(
        signature.hash_alg(),
        None | Some(HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160)
    );
    let made = signature.created().map(|time| u64::from(time.as_secs()));
    let life = signature.signature_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
    let ends = made.map(|made| if life == 0 { u64::MAX } else { made.saturating_add(life) });
    document && !weak && ends.is_some_and(|ends| seconds(now) < ends)
}

/// What the primary key may be used for, unless it is revoked or expired.
fn primary(details: &SignedKeyDetails, key: &impl KeyDetails, now: SystemTime) -> Option<KeyFlags> {
    if !details.revocation_signatures.is_empty() {
        return None;
    }
    let own =
        details.users.iter().flat_map(|user| &user.signatures).chain(&details.direct_signatures);
    let newest = own
        .filter(|it| it.typ() != Some(SignatureType::CertRevocation))
        .max_by_key(|it| it.created())?;
    is_alive(newest, key, now).then(|| newest.key_flags())
}

/// What a subkey may be used for, unless it is revoked or expired.
fn sub(signatures: &[Signature], key: &impl KeyDetails, now: SystemTime) -> Option<KeyFlags> {
    if signatures.iter().any(|it| it.typ() == Some(SignatureType::SubkeyRevocation)) {
        return None;
    }
    let newest = signatures.iter().max_by_key(|it| it.created())?;
    is_alive(newest, key, now).then(|| newest.key_flags())
}

fn is_alive(binding: &Signature, key: &impl KeyDetails, now: SystemTime) -> bool {
    let made = u64::from(key.created_at().as_secs());
    let life = binding.key_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
    made <= seconds(now) && (life == 0 || seconds(now) < made.saturating_add(life))
}

/// Our random numbers for a library that wants those of another version of `rand_core`.
struct Rng<'a>(&'a mut dyn SecureRandom);

impl RngCore for Rng<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoRng for Rng<'_> {}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn user(details: &SignedKeyDetails) -> String {
    let first =
        details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    // It is for a terminal, and anybody's text.
    first.unwrap_or_default().escape_debug().to_string()
}
