//! OpenPGP keys (RFC 9580 §10.1): what they say of themselves, and what may be done with them now.
//!
//! Only what the primary key itself has signed counts; what others have signed about it is passed over. So are self-signatures
//! that are wrong: whoever carried the key may have put them there.

use core::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::{PublicOrSecret, SignedPublicKey, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PublicKey, PublicSubkey, SecretKey, SecretSubkey, Signature, SignatureType,
    SubpacketData,
};
use pgp::types::{
    DecryptionKey, KeyDetails, KeyVersion, Password, S2kParams, SecretParams, SigningKey,
    StringToKey, Tag, VerifyingKey,
};
use zeroize::Zeroizing;

use super::{OpenPgpError, said};

/// How far the clocks of two hosts may be apart: what was made later is from the future.
pub(super) const SKEW: u64 = 3600;

/// What a key is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Encrypting to it.
    Encrypt,
    /// Signing with it.
    Sign,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypt => "be encrypted to",
            Self::Sign => "sign",
        })
    }
}

/// Why a key is of no use for something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Useless {
    /// Its time is over.
    #[error("it expired on {0}")]
    Expired(String),
    /// Its time has not come.
    #[error("it was made on {0}, which is yet to come: compare the clocks")]
    Future(String),
    /// It was made for something else.
    #[error("no part of it was made for that")]
    NoPart,
    /// Its owner has taken it back.
    #[error("it was revoked")]
    Revoked,
    /// It has no signature of its own.
    #[error("it has no valid signature of its own")]
    Unbound,
}

/// A public key.
pub struct Certificate(pub(super) SignedPublicKey);

/// A private key.
pub struct PrivateKey {
    key: SignedSecretKey,
    public: SignedPublicKey,
}

/// A part of a public key.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Primary(&'a PublicKey),
    Sub(&'a PublicSubkey),
}

impl<'a> Part<'a> {
    pub(super) fn verifier(self) -> &'a dyn VerifyingKey {
        match self {
            Self::Primary(key) => key,
            Self::Sub(key) => key,
        }
    }

    pub(super) fn fingerprint(self) -> String {
        match self {
            Self::Primary(key) => hex(key),
            Self::Sub(key) => hex(key),
        }
    }

    pub(super) fn made(self) -> u64 {
        match self {
            Self::Primary(key) => made(key),
            Self::Sub(key) => made(key),
        }
    }
}

/// A part of a private key that decrypts.
#[derive(Clone, Copy)]
pub(super) enum Opener<'a> {
    Primary(&'a SecretKey),
    Sub(&'a SecretSubkey),
}

impl Certificate {
    /// Reads one, armoured or not.
    ///
    /// # Errors
    /// If it is none, or several.
    pub fn read(bytes: &[u8]) -> Result<Self, OpenPgpError> {
        match single(bytes)? {
            PublicOrSecret::Public(key) => Ok(Self(key)),
            PublicOrSecret::Secret(_) => Err(OpenPgpError::WrongKind(
                "it is a private key, which stays where it is: gpg --armor --export writes the public one",
            )),
        }
    }

    /// Its fingerprint, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&self.0.primary_key)
    }

    /// The name that stands in it, for a terminal; nothing proves that.
    #[must_use]
    pub fn user(&self) -> String {
        let ids = self.0.details.users.iter();
        let first = ids.map(|user| String::from_utf8_lossy(user.id.id()).into_owned()).next();
        first.unwrap_or_default().escape_debug().take(200).collect()
    }

    /// The parts that are good for `purpose` now, those that were made for it first.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn parts(
        &self,
        purpose: Purpose,
        now: SystemTime,
    ) -> Result<Vec<Part<'_>>, OpenPgpError> {
        parts(&self.0, purpose, now)
    }

    /// Whether a part of it, good or not, has this key ID or fingerprint.
    pub(super) fn has(&self, id: &str) -> bool {
        let subs = self.0.public_subkeys.iter().map(|it| hex(&it.key));
        core::iter::once(self.fingerprint()).chain(subs).any(|it| it == id || key_id(&it) == id)
    }
}

impl PrivateKey {
    /// Reads one, armoured or not. What a passphrase protects stays locked until [`Self::unlock`].
    ///
    /// # Errors
    /// If it is none, or several.
    pub fn read(bytes: &[u8]) -> Result<Self, OpenPgpError> {
        match single(bytes)? {
            PublicOrSecret::Secret(key) => Ok(Self { public: key.to_public_key(), key }),
            PublicOrSecret::Public(_) => Err(OpenPgpError::WrongKind(
                "it is a public key: gpg --armor --export-secret-keys writes the private one",
            )),
        }
    }

    /// Its fingerprint, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&self.key.primary_key)
    }

    /// Whether a passphrase is needed before it can be used.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        is_locked(self.key.primary_key.secret_params())
            || self.key.secret_subkeys.iter().any(|it| is_locked(it.key.secret_params()))
    }

    /// Takes the protection off all parts that the passphrase opens.
    ///
    /// # Errors
    /// If it opens none.
    pub fn unlock(&mut self, passphrase: &Zeroizing<String>) -> Result<(), OpenPgpError> {
        let password = Password::from(passphrase.as_str());
        let mut opened = false;
        if is_locked(self.key.primary_key.secret_params()) {
            opened |= self.key.primary_key.remove_password(&password).is_ok();
        }
        for sub in &mut self.key.secret_subkeys {
            if is_locked(sub.key.secret_params()) {
                opened |= sub.key.remove_password(&password).is_ok();
            }
        }
        if opened { Ok(()) } else { Err(OpenPgpError::Locked(self.fingerprint())) }
    }

    /// The part that signs now.
    pub(super) fn signer(&self, now: SystemTime) -> Result<&dyn SigningKey, OpenPgpError> {
        let mut why = OpenPgpError::NoSecret(self.fingerprint(), Purpose::Sign);
        for part in parts(&self.public, Purpose::Sign, now)? {
            let wanted = part.fingerprint();
            let primary = Some(&self.key.primary_key).filter(|it| hex(*it) == wanted);
            let sub = self.key.secret_subkeys.iter().find(|it| hex(&it.key) == wanted);
            let found = match (primary, sub) {
                (Some(key), _) => Some((key as &dyn SigningKey, key.secret_params())),
                (None, Some(sub)) => Some((&sub.key as &dyn SigningKey, sub.key.secret_params())),
                (None, None) => None,
            };
            match found {
                Some((key, SecretParams::Plain(_))) => return Ok(key),
                Some((_, params)) if is_locked(params) => {
                    why = OpenPgpError::Locked(self.fingerprint());
                }
                Some(_) | None => {}
            }
        }
        Err(why)
    }

    /// All parts, locked or not. One that has expired since still opens what was sent before.
    pub(super) fn openers(&self) -> Vec<Opener<'_>> {
        let subs = self.key.secret_subkeys.iter().map(|it| Opener::Sub(&it.key));
        subs.chain([Opener::Primary(&self.key.primary_key)]).collect()
    }
}

impl<'a> Opener<'a> {
    /// It, if it is at hand.
    pub(super) fn ready(self, whole: &PrivateKey) -> Result<&'a dyn DecryptionKey, OpenPgpError> {
        let (key, params) = match self {
            Self::Primary(key) => (key as &dyn DecryptionKey, key.secret_params()),
            Self::Sub(key) => (key as &dyn DecryptionKey, key.secret_params()),
        };
        match params {
            SecretParams::Plain(_) => Ok(key),
            locked if is_locked(locked) => Err(OpenPgpError::Locked(whole.fingerprint())),
            SecretParams::Encrypted(_) => {
                Err(OpenPgpError::NoSecret(whole.fingerprint(), Purpose::Encrypt))
            }
        }
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

fn single(bytes: &[u8]) -> Result<PublicOrSecret, OpenPgpError> {
    let bad = |error: pgp::errors::Error| OpenPgpError::BadKey(said(&error));
    let several = || {
        OpenPgpError::WrongKind(
            "there are several keys in it: gpg --armor --export FINGERPRINT writes one",
        )
    };
    let begin = b"-----BEGIN PGP ";
    if bytes.windows(begin.len()).filter(|it| it == begin).count() > 1 {
        return Err(several());
    }
    let (mut keys, _) = PublicOrSecret::from_reader_many(bytes).map_err(bad)?;
    let none = || OpenPgpError::BadKey("there is none in it".to_owned());
    let first = keys.next().ok_or_else(none)?.map_err(bad)?;
    match keys.next() {
        None => Ok(first),
        Some(Ok(_)) => Err(several()),
        Some(Err(error)) => Err(bad(error)),
    }
}

/// Whether there is a secret behind a passphrase: not so in the stub that gpg leaves of a key that is on a card or elsewhere.
fn is_locked(params: &SecretParams) -> bool {
    let SecretParams::Encrypted(params) = params else { return false };
    match params.string_to_key_params() {
        S2kParams::Aead { s2k, .. }
        | S2kParams::Cfb { s2k, .. }
        | S2kParams::MalleableCfb { s2k, .. } => !matches!(s2k, StringToKey::Private { .. }),
        S2kParams::LegacyCfb { .. } | S2kParams::Unprotected => true,
    }
}

fn parts(
    key: &SignedPublicKey,
    purpose: Purpose,
    now: SystemTime,
) -> Result<Vec<Part<'_>>, OpenPgpError> {
    let now = seconds(now);
    let useless = |why| OpenPgpError::Useless(hex(&key.primary_key), purpose, why);
    let flags = primary(key, now).map_err(useless)?;
    let mut found = Vec::new();
    let mut why = Useless::NoPart;
    for sub in &key.public_subkeys {
        let newest = newest(
            sub.signatures.iter().filter(|it| {
                it.typ() == Some(SignatureType::SubkeyBinding)
                    && is_sound(it)
                    && it.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
            }),
            now,
        );
        let Some(newest) = newest else { continue };
        let fits = fits(flags_of(newest).as_ref(), sub.key.algorithm(), purpose);
        if !fits || (purpose == Purpose::Sign && !signs_back(newest, &sub.key, &key.primary_key)) {
            continue;
        }
        let revoked = sub.signatures.iter().any(|it| {
            it.typ() == Some(SignatureType::SubkeyRevocation)
                && it.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
        });
        match if revoked { Err(Useless::Revoked) } else { alive(newest, made(&sub.key), now) } {
            Ok(()) => found.push(Part::Sub(&sub.key)),
            Err(reason) => why = reason,
        }
    }
    // Whoever has a part for encryption wants that to be used.
    let wanted = purpose == Purpose::Sign || found.is_empty();
    if wanted && fits(flags.as_ref(), key.primary_key.algorithm(), purpose) {
        found.push(Part::Primary(&key.primary_key));
    }
    if found.is_empty() { Err(useless(why)) } else { Ok(found) }
}

/// What the primary key may be used for; nothing said is anything.
fn primary(key: &SignedPublicKey, now: u64) -> Result<Option<KeyFlags>, Useless> {
    let (details, primary) = (&key.details, &key.primary_key);
    if details.revocation_signatures.iter().any(|it| it.verify_key(primary).is_ok()) {
        return Err(Useless::Revoked);
    }
    let direct = details.direct_signatures.iter().filter(|it| {
        it.typ() == Some(SignatureType::Key) && is_sound(it) && it.verify_key(primary).is_ok()
    });
    let direct = newest(direct, now);
    let of_users = details.users.iter().filter_map(|user| {
        let own = user.signatures.iter().filter(|it| {
            is_sound(it) && it.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        });
        newest(own, now).filter(|it| it.typ() != Some(SignatureType::CertRevocation))
    });
    let of_users = newest(of_users, now);
    // RFC 9580 §10.1.1: of version 6 what the direct key signature says counts. Before, that often says nothing.
    let binding = if primary.version() == KeyVersion::V6 { direct } else { of_users.or(direct) };
    let binding = binding.ok_or(Useless::Unbound)?;
    alive(binding, made(primary), now)?;
    Ok(flags_of(binding))
}

/// RFC 9580 §5.2.1.10: a part that signs says itself that it belongs to the primary key; else anybody's could be claimed.
fn signs_back(binding: &Signature, sub: &PublicSubkey, primary: &PublicKey) -> bool {
    binding
        .embedded_signature()
        .is_some_and(|back| is_sound(back) && back.verify_primary_key_binding(sub, primary).is_ok())
}

fn newest<'a>(all: impl Iterator<Item = &'a Signature>, now: u64) -> Option<&'a Signature> {
    all.filter(|it| it.created().is_some_and(|at| u64::from(at.as_secs()) <= now + SKEW))
        .max_by_key(|it| it.created())
}

fn alive(binding: &Signature, made: u64, now: u64) -> Result<(), Useless> {
    if made > now + SKEW {
        return Err(Useless::Future(date(made)));
    }
    let bound = binding.created().map_or(made, |at| u64::from(at.as_secs()));
    let ends =
        [(made, binding.key_expiration_time()), (bound, binding.signature_expiration_time())];
    for (start, life) in ends {
        // RFC 9580 §5.2.3.13, §5.2.3.18: none, or zero, is for ever.
        let life = life.map_or(0, |it| u64::from(it.as_secs()));
        let end = start.saturating_add(life);
        if life != 0 && end <= now {
            return Err(Useless::Expired(date(end)));
        }
    }
    Ok(())
}

fn flags_of(binding: &Signature) -> Option<KeyFlags> {
    let mut all = binding.config()?.hashed_subpackets();
    all.any(|it| matches!(it.data, SubpacketData::KeyFlags(_))).then(|| binding.key_flags())
}

fn fits(flags: Option<&KeyFlags>, algorithm: PublicKeyAlgorithm, purpose: Purpose) -> bool {
    let able = match purpose {
        Purpose::Encrypt => algorithm.can_encrypt(),
        Purpose::Sign => algorithm.can_sign(),
    };
    able && flags.is_none_or(|it| match purpose {
        Purpose::Encrypt => it.encrypt_comms() || it.encrypt_storage(),
        Purpose::Sign => it.sign(),
    })
}

/// Whether nothing in it is critical and unknown (RFC 9580 §5.2.3.7), and its hash is none that was broken for what its maker
/// alone chooses. SHA-1 is not, in keys; its collisions are recognised.
fn is_sound(signature: &Signature) -> bool {
    let broken = [None, Some(HashAlgorithm::Md5), Some(HashAlgorithm::Ripemd160)];
    !has_unknown(signature) && !broken.contains(&signature.hash_alg())
}

pub(super) fn has_unknown(signature: &Signature) -> bool {
    let Some(config) = signature.config() else { return true };
    config.hashed_subpackets().any(|it| {
        let unknown = matches!(
            it.data,
            SubpacketData::Experimental(..) | SubpacketData::Notation(_) | SubpacketData::Other(..)
        );
        it.is_critical && unknown
    })
}

pub(super) fn hex(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// The key ID in a fingerprint: its end, or from version 6 on its beginning.
fn key_id(fingerprint: &str) -> &str {
    let digits =
        if fingerprint.len() == 40 { fingerprint.get(24..) } else { fingerprint.get(..16) };
    digits.unwrap_or(fingerprint)
}

fn made(key: &impl KeyDetails) -> u64 {
    u64::from(key.created_at().as_secs())
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) fn date(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
