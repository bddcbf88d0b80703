//! OpenPGP (RFC 9580) around the text of a bundle. The only place that names `pgp`.
//!
//! Written is what every OpenPGP program reads: AES-256 with a proof of integrity (SEIPD version 1) under the recipients' public
//! keys, ZLIB, a binary signature with SHA-512. Read is what any of them writes, within bounds, a layer at a time: armour,
//! encryption, compression, signature. Nothing is believed, and nothing may follow, before a layer's end has been verified.

mod key;

pub use key::{Certificate, PrivateKey, Purpose, Useless};

use std::io::{BufRead, Read};
use std::time::SystemTime;

use pgp::armor::{ArmorCrc24Status, Dearmor, DearmorOptions};
use pgp::composed::{
    ArmorOptions, DecryptionOptions, DummyReader, Edata, EncryptionSeipdV1, Esk, Message,
    MessageBuilder, PlainSessionKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{
    DataMode, LiteralDataHeader, PacketTrait, PublicKeyEncryptedSessionKey, Signature,
    SignatureType,
};
use pgp::types::{
    CompressionAlgorithm, EncryptionKey, EskType, Password, PkeskBytes, PkeskVersion,
};
use rand_core_06::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::crypto::random::SecureRandom;
use key::{Opener, Part, SKEW, date, has_unknown, seconds};

/// The longest text, in bytes: what is compressed may claim to be more.
pub const MAX_TEXT: usize = 1 << 20;

/// What stands around the text: headers and signatures.
const MAX_AROUND: usize = 1 << 16;

/// How often a message may be compressed within itself.
const MAX_LAYERS: usize = 2;

/// How many keys it may be encrypted to.
const MAX_RECIPIENTS: usize = 64;

/// How many signatures it may have.
const MAX_SIGNATURES: usize = 16;

const BEGIN: &str = "-----BEGIN PGP MESSAGE-----";
const END: &str = "-----END PGP MESSAGE-----";

/// Why a message, or a key, is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenPgpError {
    /// It is no key.
    #[error("it is no OpenPGP key: {0}")]
    BadKey(String),
    /// It is no message, or not a whole one.
    #[error("it is no OpenPGP message, or was changed on its way: {0}")]
    BadMessage(String),
    /// It says that a key has signed it, and the signature is wrong.
    #[error("its signature by key {0} is wrong: it was changed on its way")]
    Forged(String),
    /// The passphrase does not open it, or there was none.
    #[error("key {0} is protected, and the passphrase does not open it")]
    Locked(String),
    /// The secret is elsewhere.
    #[error("the part of key {0} that can {1} is not in the file, only a reference to it")]
    NoSecret(String, Purpose),
    /// It is in the clear.
    #[error("it is not encrypted")]
    NotEncrypted,
    /// It is encrypted to others.
    #[error("it is not for key {0}: it is encrypted to {1}")]
    NotForUs(String, String),
    /// It has no signature.
    #[error("nobody has signed it")]
    NotSigned,
    /// It was signed, but not so that it counts.
    #[error("its signature by key {0} does not count: {1}")]
    SignedBadly(String, String),
    /// What is in it is larger than any bundle.
    #[error("what is in it is larger than {MAX_TEXT} bytes")]
    TooLong,
    /// There is no part of a key that this can be done with.
    #[error("key {0} cannot {1}: {2}")]
    Useless(String, Purpose, Useless),
    /// It is a key, and not the one that is wanted.
    #[error("{0}")]
    WrongKind(&'static str),
    /// It is signed by another.
    #[error("it is not signed by {0}: its signature is that of {1}")]
    WronglySigned(String, String),
}

/// What was opened.
pub struct Opened {
    /// The text.
    pub text: Zeroizing<String>,
    /// Which of the keys has signed it.
    pub signer: usize,
}

/// Signs, compresses and encrypts a text; armoured.
///
/// # Errors
/// If a key is of no use for that.
pub fn seal(
    text: &str,
    to: &[Certificate],
    by: &PrivateKey,
    now: SystemTime,
    rng: &mut dyn SecureRandom,
) -> Result<String, OpenPgpError> {
    let rng = &mut Rng(rng);
    let signer = by.signer(now)?;
    let mut builder = MessageBuilder::from_bytes("", text.as_bytes().to_vec())
        .seipd_v1(&mut *rng, SymmetricKeyAlgorithm::AES256);
    for certificate in to {
        for part in certificate.parts(Purpose::Encrypt, now)? {
            match part {
                Part::Primary(key) => encrypt(&mut builder, key, rng)?,
                Part::Sub(key) => encrypt(&mut builder, key, rng)?,
            }
        }
    }
    builder.compression(CompressionAlgorithm::ZLIB);
    builder.sign(signer, Password::empty(), HashAlgorithm::Sha512);
    builder.to_armored_string(&mut *rng, ArmorOptions::default()).map_err(|error| bad(&error))
}

type Encrypting<'a> = MessageBuilder<'a, DummyReader, EncryptionSeipdV1>;

fn encrypt<R: RngCore + CryptoRng>(
    builder: &mut Encrypting<'_>,
    key: &impl EncryptionKey,
    rng: &mut R,
) -> Result<(), OpenPgpError> {
    builder.encrypt_to_key(&mut *rng, key).map(drop).map_err(|error| bad(&error))
}

/// Opens what is for `key`, armoured or not, and verifies that one of `from` has signed it.
///
/// # Errors
/// Why it is refused.
pub fn open(
    message: &[u8],
    key: &PrivateKey,
    from: &[Certificate],
    now: SystemTime,
) -> Result<Opened, OpenPgpError> {
    // Of keys that are all of no use the first one says why, whatever the message is.
    let useless = from.iter().map(|it| it.parts(Purpose::Sign, now).err());
    if let Some(errors) = useless.collect::<Option<Vec<_>>>() {
        return Err(errors.into_iter().next().unwrap_or(OpenPgpError::NotSigned));
    }
    let binary = dearmour(message)?;
    let signed = decompress(decrypt(&binary, key)?)?;
    verify(&signed, from, now)
}

/// The message without armour. That is to be as it was made: what the armour leaves open, such as bytes around it, would be
/// changed without anybody's noticing.
fn dearmour(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenPgpError> {
    let wrong = |why: &str| OpenPgpError::BadMessage(why.to_owned());
    // RFC 9580 §4.2: the first bit of a packet is set.
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return Ok(Zeroizing::new(bytes.to_vec()));
    }
    let is_text = |b: &u8| (0x20..0x7f).contains(b) || matches!(b, b'\n' | b'\r' | b'\t');
    if let Some(at) = bytes.iter().position(|b| !is_text(b)) {
        return Err(OpenPgpError::BadMessage(format!("byte {at} is none of a text's")));
    }
    let text = core::str::from_utf8(bytes).map_err(|_| wrong("it is no text"))?.trim();
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
        return Err(OpenPgpError::NotEncrypted);
    }
    if !text.starts_with(BEGIN) {
        return Err(if text.contains(BEGIN) {
            wrong("there is something before its begin: save the message alone")
        } else if text.starts_with("-----BEGIN PGP ") {
            wrong("it is another kind of armour: a message begins with -----BEGIN PGP MESSAGE-----")
        } else {
            wrong("it does not begin with -----BEGIN PGP MESSAGE-----")
        });
    }
    if !text.ends_with(END) {
        return Err(if text.contains(END) {
            wrong("there is something after its end: save the message alone")
        } else {
            wrong("its end is missing")
        });
    }
    if text.matches("-----").count() != 4 {
        return Err(wrong("there are several in it: save one message alone"));
    }
    let mut inner = Zeroizing::new(Vec::with_capacity(text.len()));
    let options = DearmorOptions::default().set_limit(2 * MAX_TEXT);
    let mut dearmor = Dearmor::with_options(text.as_bytes(), options);
    dearmor.read_to_end(&mut inner).map_err(|error| wrong(&printable(&error.to_string())))?;
    // The library can check it as well, but does not count what it reads (0.21.0).
    if let ArmorCrc24Status::Unchecked { footer_crc } = dearmor.crc24_status()
        && footer_crc != crc24(&inner)
    {
        return Err(wrong("its checksum is another"));
    }
    Ok(inner)
}

/// RFC 9580 §6.1.1.
fn crc24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x00b7_04ce, |crc, byte| {
        (0..8).fold(crc ^ (u32::from(*byte) << 16), |crc, _| {
            let next = crc << 1;
            if next & 0x0100_0000 == 0 { next } else { next ^ 0x0186_4cfb }
        })
    })
}

/// The packets that are encrypted.
fn decrypt(bytes: &[u8], key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>, OpenPgpError> {
    let wrong = |why: &str| OpenPgpError::BadMessage(why.to_owned());
    let Message::Encrypted { esk, mut edata, .. } =
        Message::from_bytes(bytes).map_err(|error| bad(&error))?
    else {
        return Err(OpenPgpError::NotEncrypted);
    };
    if matches!(edata, Edata::SymEncryptedData { .. }) {
        // RFC 9580 §13.7: anybody could have changed it.
        return Err(wrong("it is encrypted without a proof of integrity"));
    }
    let session = session_key(&esk, key)?;
    if !is_usual(bytes, &esk) {
        return Err(wrong("its beginning is not as it is written"));
    }
    let options = DecryptionOptions::new().enable_gnupg_aead();
    edata.decrypt_with_options(&session, options).map_err(|error| bad(&error))?;
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len()));
    edata.read_to_end(&mut plain).map_err(|error| wrong(&printable(&error.to_string())))?;
    nothing_after(edata.get_mut().get_mut())?;
    Ok(plain)
}

fn session_key(all: &[Esk], key: &PrivateKey) -> Result<PlainSessionKey, OpenPgpError> {
    if all.len() > MAX_RECIPIENTS {
        let why = format!("it is encrypted to {} keys, {MAX_RECIPIENTS} are the most", all.len());
        return Err(OpenPgpError::BadMessage(why));
    }
    let mut others = Vec::new();
    let mut why = None;
    for esk in all {
        let Esk::PublicKeyEncryptedSessionKey(esk) = esk else {
            others.push("a passphrase".to_owned());
            continue;
        };
        for opener in key.openers() {
            let is_it = match opener {
                Opener::Primary(it) => esk.match_identity(it.public_key()),
                Opener::Sub(it) => esk.match_identity(it.public_key()),
            };
            if !is_it {
                continue;
            }
            match opener.ready(key).and_then(|opener| {
                let (values, version) = session_values(esk)?;
                let opened = opener.decrypt(&Password::empty(), values, version);
                opened.and_then(|it| it).map_err(|error| bad(&error))
            }) {
                Ok(session) => return Ok(session),
                // Whom it does not name it may not be for.
                Err(OpenPgpError::BadMessage(_)) if is_unnamed(esk) => {}
                Err(error) => why = Some(error),
            }
        }
        others.push(match esk.id() {
            Ok(id) if !is_unnamed(esk) => id.to_string().to_uppercase(),
            Ok(_) | Err(_) => "somebody unnamed".to_owned(),
        });
    }
    Err(why.unwrap_or_else(|| {
        others.dedup();
        OpenPgpError::NotForUs(key.fingerprint(), others.join(", "))
    }))
}

/// No proof of integrity covers the encrypted session keys. They are to be written in the one usual way, so that a change which
/// does not matter to the mathematics is noticed as well.
fn is_usual(bytes: &[u8], all: &[Esk]) -> bool {
    let mut written = Vec::new();
    let is_usual = all.iter().all(|esk| match esk {
        Esk::PublicKeyEncryptedSessionKey(esk) => {
            let point = match esk.values() {
                Ok(PkeskBytes::Ecdh { public_point, .. }) => public_point.as_ref(),
                Ok(PkeskBytes::X25519 { ephemeral, .. }) => &ephemeral[..],
                Ok(_) | Err(_) => &[],
            };
            // RFC 9580 §11.2: 0x40 before a point of Curve25519. RFC 7748 §5: its last bit is passed over.
            let is_usual = match point {
                [first, .., last] if point.len() == 33 => *first == 0x40 && last & 0x80 == 0,
                [.., last] if point.len() == 32 => last & 0x80 == 0,
                _ => true,
            };
            is_usual && esk.to_writer_with_header(&mut written).is_ok()
        }
        Esk::SymKeyEncryptedSessionKey(esk) => esk.to_writer_with_header(&mut written).is_ok(),
    });
    is_usual && bytes.starts_with(&written)
}

fn is_unnamed(esk: &PublicKeyEncryptedSessionKey) -> bool {
    esk.id().is_ok_and(|id| id.is_wildcard())
}

fn session_values(
    esk: &PublicKeyEncryptedSessionKey,
) -> Result<(&PkeskBytes, EskType), OpenPgpError> {
    let version = if esk.version() == PkeskVersion::V6 { EskType::V6 } else { EskType::V3_4 };
    Ok((esk.values().map_err(|error| bad(&error))?, version))
}

/// The packets without compression: nothing that is kept is longer than a bundle may be.
fn decompress(mut plain: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, OpenPgpError> {
    for _ in 0..MAX_LAYERS {
        let inner = {
            let message = Message::from_bytes(&plain[..]).map_err(|error| bad(&error))?;
            let Message::Compressed { reader, .. } = message else { break };
            let wrong =
                |error: std::io::Error| OpenPgpError::BadMessage(printable(&error.to_string()));
            let mut reader = reader.decompress().map_err(wrong)?;
            let room = MAX_TEXT + MAX_AROUND;
            let mut inner = Zeroizing::new(Vec::with_capacity(room + 1));
            (&mut reader).take(room as u64 + 1).read_to_end(&mut inner).map_err(wrong)?;
            if inner.len() > room {
                return Err(OpenPgpError::TooLong);
            }
            nothing_after(reader.get_mut().get_mut())?;
            inner
        };
        plain = inner;
    }
    Ok(plain)
}

fn nothing_after(reader: &mut impl BufRead) -> Result<(), OpenPgpError> {
    match reader.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(OpenPgpError::BadMessage("there is something after its end".to_owned())),
        Err(error) => Err(OpenPgpError::BadMessage(printable(&error.to_string()))),
    }
}

fn verify(signed: &[u8], from: &[Certificate], now: SystemTime) -> Result<Opened, OpenPgpError> {
    let wrong = |why: &str| OpenPgpError::BadMessage(why.to_owned());
    let mut message = Message::from_bytes(signed).map_err(|error| bad(&error))?;
    match &message {
        Message::Signed { reader, .. } => {
            if reader.num_signatures() > MAX_SIGNATURES {
                return Err(wrong("it has too many signatures"));
            }
            if !reader.get_ref().is_literal() {
                return Err(wrong("what is signed is no text"));
            }
        }
        Message::Literal { .. } => return Err(OpenPgpError::NotSigned),
        Message::Compressed { .. } => return Err(wrong("it is compressed too often")),
        Message::Encrypted { .. } => return Err(wrong("it is encrypted twice")),
    }
    // To the end, which is where the signatures stand.
    let mut bytes = Zeroizing::new(Vec::with_capacity(signed.len()));
    message.read_to_end(&mut bytes).map_err(|error| wrong(&printable(&error.to_string())))?;
    nothing_after(message.get_mut().get_mut())?;
    // RFC 9580 §5.9: the lines of a text end in CR and LF on their way.
    let mode = message.literal_data_header().map(LiteralDataHeader::mode);
    let is_lines = matches!(mode, Some(DataMode::Text | DataMode::Utf8));
    let Message::Signed { reader, .. } = &message else { return Err(OpenPgpError::NotSigned) };
    let mut why = None;
    let mut others = Vec::new();
    for index in 0..reader.num_signatures() {
        let Some(signature) = reader.signature(index) else { continue };
        let issuers = issuers(signature);
        let mut is_known = false;
        for (signer, certificate) in from.iter().enumerate() {
            let claimed = issuers.iter().any(|id| certificate.has(id));
            is_known |= claimed;
            match verify_by(&message, index, signature, certificate, &issuers, now) {
                Ok(()) => {
                    let text = core::str::from_utf8(&bytes)
                        .map_err(|_| wrong("what is signed is no text"))?;
                    let text = if is_lines { text.replace("\r\n", "\n") } else { text.to_owned() };
                    return Ok(Opened { text: Zeroizing::new(text), signer });
                }
                Err(error) if claimed => why = Some(error),
                Err(_) => {}
            }
        }
        if !is_known {
            others.push(issuers.first().map_or("somebody unnamed".to_owned(), Clone::clone));
        }
    }
    Err(why.unwrap_or_else(|| {
        let wanted: Vec<String> =
            from.iter().map(|it| format!("key {}", it.fingerprint())).collect();
        OpenPgpError::WronglySigned(wanted.join(" or "), format!("key {}", others.join(", ")))
    }))
}

/// Whether it is a signature of `certificate` that counts.
fn verify_by(
    message: &Message<'_>,
    index: usize,
    signature: &Signature,
    certificate: &Certificate,
    issuers: &[String],
    now: SystemTime,
) -> Result<(), OpenPgpError> {
    let parts = certificate.parts(Purpose::Sign, now)?;
    for part in parts {
        if message.verify_nested_explicit(index, part.verifier()).is_ok() {
            let fault = fault(signature, part, seconds(now));
            return fault.map_or(Ok(()), |why| {
                Err(OpenPgpError::SignedBadly(certificate.fingerprint(), why))
            });
        }
    }
    let by = issuers.iter().find(|id| certificate.has(id)).cloned().unwrap_or_default();
    let is_good = certificate
        .parts(Purpose::Sign, now)?
        .iter()
        .any(|part| part.fingerprint() == by || part.fingerprint().ends_with(&by));
    Err(if is_good {
        OpenPgpError::Forged(certificate.fingerprint())
    } else {
        let why = format!("its part {by} is expired, revoked, or was not made for signing");
        OpenPgpError::SignedBadly(certificate.fingerprint(), why)
    })
}

/// Who says to have made a signature: fingerprints, or else key IDs.
fn issuers(signature: &Signature) -> Vec<String> {
    let whole = signature.issuer_fingerprint().into_iter().map(|it| format!("{it:X}"));
    let ids = signature.issuer_key_id().into_iter().map(|it| it.to_string().to_uppercase());
    whole.chain(ids).collect()
}

/// What is wrong with a signature whose mathematics is right.
fn fault(signature: &Signature, part: Part<'_>, now: u64) -> Option<String> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Some("it is not one of a document".to_owned());
    }
    let weak = [HashAlgorithm::Md5, HashAlgorithm::Sha1, HashAlgorithm::Ripemd160];
    match signature.hash_alg() {
        Some(hash) if !weak.contains(&hash) => {}
        other => {
            let name = other.map_or("an unknown hash".to_owned(), |it| it.to_string());
            return Some(format!("it is made with {name}, which is broken"));
        }
    }
    if has_unknown(signature) {
        return Some("something critical in it is not known".to_owned());
    }
    let Some(made) = signature.created().map(|it| u64::from(it.as_secs())) else {
        return Some("it says not when it was made".to_owned());
    };
    if made > now + SKEW {
        return Some(format!(
            "it was made on {}, which is yet to come: compare the clocks",
            date(made)
        ));
    }
    if made < part.made() {
        return Some("it is older than its key".to_owned());
    }
    let life = signature.signature_expiration_time().map_or(0, |it| u64::from(it.as_secs()));
    let end = made.saturating_add(life);
    (life != 0 && end <= now).then(|| format!("it expired on {}", date(end)))
}

fn bad(error: &pgp::errors::Error) -> OpenPgpError {
    OpenPgpError::BadMessage(said(error))
}

/// What the library says, which may repeat what it read.
fn said(error: &pgp::errors::Error) -> String {
    printable(&error.to_string())
}

fn printable(text: &str) -> String {
    text.escape_debug().take(200).collect()
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
