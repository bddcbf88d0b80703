//! [`Protector`]: seals and opens the SK and SKF payloads of messages in one direction of an IKE SA (RFC
//! 7296 §3.14; RFC 5282 with an AEAD; RFC 7383 §2.5).
//!
//! Nothing in a message is believed before its ICV has been verified. Fragments are put together by
//! `ike::frag`.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::aead::Aead;
use crate::crypto::cipher::Cbc;
use crate::crypto::integ::Integ;
use crate::crypto::{Secret, SecureRandom};
use crate::ipsec::suite::IkeSuite;
use crate::wire::ike::header::Header;
use crate::wire::ike::message::{Message, emit_chain, parse_chain};
use crate::wire::ike::numbers::{IntegId, PayloadType};
use crate::wire::ike::payload::Payload;
use crate::wire::{Malformed, ParseError};

/// The keys of one direction of an IKE SA: SK_ei and SK_ai, or SK_er and SK_ar.
pub struct Protector {
    method: Method,
}

enum Method {
    Aead {
        aead: Aead,
        /// The IV of the next message sealed. RFC 5282 §3.1: never the same twice under one key, so
        /// a `Protector` cannot be cloned.
        next_iv: AtomicU64,
    },
    Cbc {
        cbc: Cbc,
        integ: Box<Integ>,
        icv_len: usize,
    },
}

/// Why a message gave no payloads.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// Forged, damaged, or protected with other keys. Says nothing about the peer: ignore it.
    #[error("integrity check of the encrypted payload failed")]
    BadIcv,
    /// Not a message that ends in an SK payload. Says nothing about the peer either.
    #[error("no encrypted payload")]
    NotProtected,
    /// The ICV was right, so the peer itself sent this.
    #[error(transparent)]
    Parse(ParseError),
}

/// What an encrypted payload protects: a chain of payloads, however the message travels.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// Type of the first payload.
    pub first: PayloadType,
    /// The payloads, without padding.
    pub plain: Zeroizing<Vec<u8>>,
}

impl Content {
    /// These payloads.
    #[must_use]
    pub fn of(payloads: &[Payload]) -> Self {
        let mut plain = Zeroizing::new(Vec::new());
        let first = emit_chain(payloads, &mut plain);
        Self { first, plain }
    }

    /// The payloads.
    ///
    /// # Errors
    /// When they are malformed: who sealed them is to blame.
    pub fn payloads(&self) -> Result<Vec<Payload>, ParseError> {
        parse_chain(self.first, &self.plain)
    }
}

/// What was in the encrypted payload of one datagram, which may be a fragment of a message.
#[derive(Clone)]
pub struct Part {
    /// Number and total, of a fragment.
    pub fragment: Option<(u16, u16)>,
    /// What it protects. Of fragments, only the first says the type of the first payload.
    pub content: Content,
    /// Unknown critical payloads that stood before it. They are covered by the ICV but protected from no one's
    /// eyes, and no exchange has any: these alone matter, since RFC 7296 §2.5 has the message rejected for them.
    pub critical: Vec<Payload>,
}

impl Part {
    /// Whether a request that comes once more has its answer sent again. RFC 7383 §2.6.1: of one in fragments, the first asks for it.
    pub(super) fn asks_for_the_answer_again(&self) -> bool {
        self.fragment.is_none_or(|(number, _)| number == 1)
    }
}

impl Protector {
    /// `None` if an algorithm of the suite is not ours, or a key does not have its length.
    #[must_use]
    pub fn new(suite: IkeSuite, sk_e: &Secret, sk_a: &Secret) -> Option<Self> {
        let method = if let Some(aead) = Aead::new(suite.encr, sk_e.expose()) {
            if suite.integ != IntegId::NONE || !sk_a.is_empty() {
                return None;
            }
            Method::Aead { aead, next_iv: AtomicU64::new(0) }
        } else if Integ::iv_len(suite.integ) > 0 {
            // RFC 4543 §4: GMAC is AH's, and nobody would make its IV here.
            return None;
        } else {
            Method::Cbc {
                cbc: Cbc::new(suite.encr, sk_e.expose())?,
                integ: Box::new(Integ::new(suite.integ, sk_a.expose())?),
                icv_len: Integ::icv_len(suite.integ)?,
            }
        };
        Some(Self { method })
    }

    /// The message with `header` and, in its SK payload, `inner`. Next Payload and Length of the
    /// header are filled in.
    ///
    /// To send a message again, keep the bytes: sealing it once more gives another IV.
    #[must_use]
    pub fn seal(&self, header: Header, inner: &[Payload], rng: &mut dyn SecureRandom) -> Vec<u8> {
        let Content { first, plain } = Content::of(inner);
        self.seal_part(header, first, None, plain, rng)
    }

    /// The same, in several messages if one would be longer than `max_len` bytes (RFC 7383 §2.5).
    #[must_use]
    pub fn seal_to_fit(
        &self,
        header: Header,
        content: &Content,
        max_len: usize,
        rng: &mut dyn SecureRandom,
    ) -> Vec<Vec<u8>> {
        let Content { first, plain } = content;
        if self.sealed_len(plain.len()) <= max_len {
            return vec![self.seal_part(header, *first, None, plain.clone(), rng)];
        }
        let room = self.fragment_room(max_len);
        let Ok(total) = u16::try_from(plain.len().div_ceil(room)) else { return Vec::new() };
        let chunks = (1..=total).zip(plain.chunks(room));
        chunks
            .map(|(number, chunk)| {
                let first = if number == 1 { *first } else { PayloadType::NONE };
                let plain = Zeroizing::new(chunk.to_vec());
                self.seal_part(header, first, Some((number, total)), plain, rng)
            })
            .collect()
    }

    /// Bytes of the whole message when `len` bytes are sealed in its SK payload.
    fn sealed_len(&self, len: usize) -> usize {
        Header::LEN + GENERIC_HEADER_LEN + self.body_len(len)
    }

    /// IV, `len` bytes, padding, Pad Length, ICV.
    fn body_len(&self, len: usize) -> usize {
        match &self.method {
            Method::Aead { aead, .. } => Aead::IV_LEN + len + 1 + aead.icv_len(),
            Method::Cbc { icv_len, .. } => {
                Cbc::BLOCK_LEN + (len + 1).next_multiple_of(Cbc::BLOCK_LEN) + icv_len
            }
        }
    }

    /// Bytes that a fragment of `max_len` bytes has room for; at least one.
    fn fragment_room(&self, max_len: usize) -> usize {
        let rest = max_len.saturating_sub(Header::LEN + GENERIC_HEADER_LEN + FRAGMENT_HEADER_LEN);
        let room = match &self.method {
            Method::Aead { .. } => rest.saturating_sub(self.body_len(0)),
            Method::Cbc { icv_len, .. } => {
                let blocks = rest.saturating_sub(Cbc::BLOCK_LEN + icv_len) / Cbc::BLOCK_LEN;
                (blocks * Cbc::BLOCK_LEN).saturating_sub(1)
            }
        };
        room.max(1)
    }

    /// One datagram; of a fragment, number and total are given.
    fn seal_part(
        &self,
        header: Header,
        first: PayloadType,
        fragment: Option<(u16, u16)>,
        mut plain: Zeroizing<Vec<u8>>,
        rng: &mut dyn SecureRandom,
    ) -> Vec<u8> {
        let mut out = start(header, first, fragment, self.body_len(plain.len()));
        match &self.method {
            Method::Aead { aead, next_iv } => {
                // RFC 5282 §3: no alignment is asked for, so no padding; its length is always
                // there.
                plain.push(0);
                let iv = next_iv.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                let mut icv = [0; Aead::MAX_ICV_LEN];
                let icv = &mut icv[..aead.icv_len()];
                aead.seal(&iv, &out, &mut plain, icv);
                out.extend_from_slice(&iv);
                out.extend_from_slice(&plain);
                out.extend_from_slice(icv);
            }
            Method::Cbc { cbc, integ, icv_len } => {
                let pad = Cbc::BLOCK_LEN - 1 - plain.len() % Cbc::BLOCK_LEN;
                let padded_len = plain.len() + pad;
                plain.resize(padded_len, 0);
                plain.push(u8::try_from(pad).expect("less than a block"));
                // RFC 7296 §3.14: a new unpredictable IV for every message.
                let mut iv = [0; Cbc::BLOCK_LEN];
                rng.fill(&mut iv);
                cbc.encrypt(&iv, &mut plain);
                out.extend_from_slice(&iv);
                out.extend_from_slice(&plain);
                // RFC 7296 §3.14: over the entire message, from the header through the Pad Length,
                // as encrypted.
                let mut icv = vec![0; *icv_len];
                integ.sign(&[&out], &mut icv);
                out.extend_from_slice(&icv);
            }
        }
        out
    }

    /// The payloads inside the SK payload of `datagram` (without the non-ESP marker), whose ICV is
    /// verified first; unknown critical ones that stood before it in front.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, datagram: &[u8]) -> Result<Vec<Payload>, OpenError> {
        let part = self.open_part(datagram)?;
        if part.fragment.is_some() {
            return Err(OpenError::NotProtected);
        }
        let mut payloads = part.critical;
        payloads.extend(part.content.payloads().map_err(OpenError::Parse)?);
        Ok(payloads)
    }

    /// What is in the SK or SKF payload of `datagram` (without the non-ESP marker), whose ICV is verified
    /// first. Of a fragment it is a part of a chain of payloads (RFC 7383 §2.5), so it is not parsed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_part(&self, datagram: &[u8]) -> Result<Part, OpenError> {
        open_part_by(datagram, |body_at, body| self.decrypt(datagram, body_at, body))
    }

    /// Verifies and decrypts in place. What comes back are payloads, padding and Pad Length.
    fn decrypt<'a>(
        &self,
        datagram: &[u8],
        body_at: usize,
        body: &'a mut [u8],
    ) -> Result<&'a [u8], OpenError> {
        match &self.method {
            Method::Aead { aead, .. } => {
                // RFC 5282 §5.1: associated data is all up to and including the generic header of
                // SK.
                let aad = datagram.get(..body_at).ok_or(OpenError::BadIcv)?;
                let (iv, rest) = body.split_first_chunk_mut().ok_or(OpenError::BadIcv)?;
                let data_len = rest.len().checked_sub(aead.icv_len()).ok_or(OpenError::BadIcv)?;
                let (data, icv) = rest.split_at_mut_checked(data_len).ok_or(OpenError::BadIcv)?;
                aead.open(iv, aad, data, icv).map_err(|_| OpenError::BadIcv)?;
                Ok(data)
            }
            Method::Cbc { cbc, integ, icv_len } => {
                let (iv, rest) = body.split_first_chunk_mut().ok_or(OpenError::BadIcv)?;
                let data_len = rest.len().checked_sub(*icv_len).ok_or(OpenError::BadIcv)?;
                let (data, icv) = rest.split_at_mut_checked(data_len).ok_or(OpenError::BadIcv)?;
                let signed_len = datagram.len().saturating_sub(*icv_len);
                let signed = datagram.get(..signed_len).ok_or(OpenError::BadIcv)?;
                if !integ.verify(&[signed], icv) {
                    return Err(OpenError::BadIcv);
                }
                if !data.len().is_multiple_of(Cbc::BLOCK_LEN) {
                    return Err(malformed(body_at, Malformed::BadLength(data.len())));
                }
                cbc.decrypt(iv, data);
                Ok(data)
            }
        }
    }
}

/// What is in the SK or SKF payload of `datagram` if `decrypt` says what is in its body (IV to ICV), which begins at the place that it is
/// told: payloads, padding and Pad Length.
pub(crate) fn open_part_by(
    datagram: &[u8],
    decrypt: impl for<'a> FnOnce(usize, &'a mut [u8]) -> Result<&'a [u8], OpenError>,
) -> Result<Part, OpenError> {
    // Nothing is authenticated yet: whatever is malformed now is nobody's fault that we could
    // name.
    let mut message = Message::parse(datagram).map_err(|_| OpenError::NotProtected)?;
    let (first, fragment, body) = match message.payloads.pop() {
        Some(Payload::Sk(sk)) => (sk.first, None, sk.body),
        // RFC 7383 §2.5: Fragment Number and Total Fragments belong to the associated data.
        Some(Payload::Skf(skf)) => (skf.first, Some((skf.number, skf.total)), skf.body),
        _ => return Err(OpenError::NotProtected),
    };
    let body_at = datagram.len().checked_sub(body.len()).ok_or(OpenError::NotProtected)?;
    let mut body = Zeroizing::new(body);
    let plain = decrypt(body_at, &mut body)?;
    let plain = Zeroizing::new(unpad(plain, body_at)?.to_vec());
    let is_critical =
        |payload: &Payload| matches!(payload, Payload::Unknown { critical: true, .. });
    let mut critical = message.payloads;
    critical.retain(is_critical);
    Ok(Part { fragment, content: Content { first, plain }, critical })
}

/// The length alone: IKE payloads do not belong into logs.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.plain.len())
    }
}

/// The same.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({:?}, {:?})", self.fragment, self.content)
    }
}

impl fmt::Debug for Protector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protector([redacted])")
    }
}

/// The header and the generic header of an SK or SKF payload whose body will have `body_len` bytes. What
/// is too long for the length fields never fits a datagram; it is for the sender to see to.
fn start(
    header: Header,
    first: PayloadType,
    fragment: Option<(u16, u16)>,
    body_len: usize,
) -> Vec<u8> {
    let (next_payload, numbers_len) = match fragment {
        None => (PayloadType::SK, 0),
        Some(_) => (PayloadType::SKF, FRAGMENT_HEADER_LEN),
    };
    let payload_len = GENERIC_HEADER_LEN + numbers_len + body_len;
    let total_len = Header::LEN + payload_len;
    let mut out = Vec::with_capacity(total_len);
    let length = u32::try_from(total_len).unwrap_or(u32::MAX);
    Header { next_payload, length, ..header }.emit(&mut out);
    out.extend_from_slice(&[first.0, 0]);
    out.extend_from_slice(&u16::try_from(payload_len).unwrap_or(u16::MAX).to_be_bytes());
    if let Some((number, total)) = fragment {
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&total.to_be_bytes());
    }
    out
}

/// Takes padding and Pad Length off: RFC 7296 §3.14, any padding is accepted, of whatever bytes.
fn unpad(plain: &[u8], body_at: usize) -> Result<&[u8], OpenError> {
    let Some((pad_len, rest)) = plain.split_last() else {
        return Err(malformed(body_at, Malformed::Truncated { needed: 1, available: 0 }));
    };
    let pad_len = usize::from(*pad_len);
    rest.len()
        .checked_sub(pad_len)
        .and_then(|len| rest.get(..len))
        .ok_or_else(|| malformed(body_at, Malformed::BadLength(pad_len)))
}

const fn malformed(offset: usize, why: Malformed) -> OpenError {
    OpenError::Parse(ParseError { what: "SK payload", offset, why })
}

const GENERIC_HEADER_LEN: usize = 4;
/// Fragment Number and Total Fragments.
const FRAGMENT_HEADER_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Encr;
    use crate::crypto::random::testing::Fixed;
    use crate::ipsec::suite::AddKe;
    use crate::wire::ike::header::{Flags, IkeSpi};
    use crate::wire::ike::numbers::{EncrId, ExchangeType, KeId, NotifyType, PrfId};
    use crate::wire::ike::payload::{Notify, Sk, Vendor};

    const fn suite(encr: EncrId, key_bits: u16, integ: IntegId) -> IkeSuite {
        IkeSuite {
            encr: Encr { id: encr, key_bits: Some(key_bits) },
            integ,
            prf: PrfId::PRF_HMAC_SHA2_256,
            ke: KeId::CURVE25519,
            addke: AddKe::NONE,
        }
    }

    const SUITES: [IkeSuite; 6] = [
        suite(EncrId::ENCR_AES_GCM_16, 128, IntegId::NONE),
        suite(EncrId::ENCR_AES_GCM_16, 192, IntegId::NONE),
        suite(EncrId::ENCR_AES_GCM_16, 256, IntegId::NONE),
        suite(EncrId::ENCR_AES_CBC, 128, IntegId::AUTH_HMAC_SHA2_256_128),
        suite(EncrId::ENCR_AES_CBC, 192, IntegId::AUTH_HMAC_SHA2_384_192),
        suite(EncrId::ENCR_AES_CBC, 256, IntegId::AUTH_HMAC_SHA2_512_256),
    ];

    fn keys(suite: IkeSuite) -> (Secret, Secret) {
        let encr = Aead::key_len(suite.encr).or(Cbc::key_len(suite.encr)).unwrap();
        let integ = Integ::key_len(suite.integ).unwrap_or(0);
        (Secret::new(vec![3; encr]), Secret::new(vec![4; integ]))
    }

    fn protector(suite: IkeSuite) -> Protector {
        let (sk_e, sk_a) = keys(suite);
        Protector::new(suite, &sk_e, &sk_a).unwrap()
    }

    fn rng() -> Fixed {
        Fixed::new(&[9, 8, 7, 6, 5, 4, 3])
    }

    fn header() -> Header {
        let flags = Flags::new(true, false);
        Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::INFORMATIONAL, flags, 7)
    }

    fn vendor(len: usize) -> Payload {
        Payload::Vendor(Vendor { data: vec![0xaa; len] })
    }

    #[test]
    fn opens_what_it_sealed_whatever_the_length() {
        for suite in SUITES {
            let protector = protector(suite);
            for len in 0..40 {
                let inner =
                    vec![vendor(len), Payload::Notify(Notify::new(NotifyType::COOKIE, vec![1]))];
                let datagram = protector.seal(header(), &inner, &mut rng());
                assert_eq!(protector.open(&datagram), Ok(inner), "{suite:?} {len}");
            }
            let empty = protector.seal(header(), &[], &mut rng());
            assert_eq!(protector.open(&empty), Ok(vec![]), "{suite:?}: no payload at all");
        }
    }

    #[test]
    fn fragments_carry_the_content_in_order_and_open_like_the_whole() {
        for suite in SUITES {
            let protector = protector(suite);
            let inner = vec![vendor(700), vendor(90)];
            let content = Content::of(&inner);
            for max_len in 100..400 {
                let sealed = protector.seal_to_fit(header(), &content, max_len, &mut rng());
                let total = u16::try_from(sealed.len()).unwrap();
                let mut plain = Vec::new();
                for (number, datagram) in (1..).zip(&sealed) {
                    assert!(datagram.len() <= max_len, "{suite:?} {max_len}: {}", datagram.len());
                    let message = Message::parse(datagram).unwrap();
                    let length = u32::try_from(datagram.len()).unwrap();
                    let expected = Header { next_payload: PayloadType::SKF, length, ..header() };
                    assert_eq!(message.header, expected);
                    let [Payload::Skf(skf)] = message.payloads.as_slice() else { panic!("SKF") };
                    assert_eq!((skf.number, skf.total), (number, total));
                    let first = if number == 1 { PayloadType::VENDOR } else { PayloadType::NONE };
                    assert_eq!(skf.first, first);
                    assert_eq!(protector.open(datagram), Err(OpenError::NotProtected));
                    let part = protector.open_part(datagram).unwrap();
                    assert_eq!(part.content.first, first);
                    plain.extend_from_slice(&part.content.plain);
                }
                assert!(total > 1);
                assert_eq!(parse_chain(PayloadType::VENDOR, &plain).unwrap(), inner);
            }
        }
    }

    #[test]
    fn sealed_message_is_well_formed_outside() {
        for suite in SUITES {
            let datagram = protector(suite).seal(header(), &[vendor(5)], &mut rng());
            let message = Message::parse(&datagram).unwrap();
            assert_eq!(message.header.message_id, 7);
            let [Payload::Sk(sk)] = message.payloads.as_slice() else { panic!("one SK payload") };
            assert_eq!(sk.first, PayloadType::VENDOR);
        }
    }

    #[test]
    fn change_of_any_byte_is_noticed() {
        for suite in SUITES {
            let protector = protector(suite);
            let datagram = protector.seal(header(), &[vendor(20)], &mut rng());
            for i in 0..datagram.len() {
                let mut changed = datagram.clone();
                changed[i] ^= 0x40;
                // Lengths and payload types at the front make it no SK message at all.
                let error = protector.open(&changed).expect_err("changed");
                assert!(
                    matches!(error, OpenError::BadIcv | OpenError::NotProtected),
                    "{suite:?} byte {i}: {error:?}"
                );
            }
            for len in 0..datagram.len() {
                assert!(protector.open(&datagram[..len]).is_err(), "{suite:?}: {len} bytes");
            }
        }
    }

    #[test]
    fn body_too_short_for_iv_and_icv_fails_the_check() {
        for suite in SUITES {
            for len in 0..80 {
                let sk = Payload::Sk(Sk { first: PayloadType::NONE, body: vec![0; len] });
                let datagram = Message { header: header(), payloads: vec![sk] }.emit();
                assert_eq!(protector(suite).open(&datagram), Err(OpenError::BadIcv), "{len}");
            }
        }
    }

    #[test]
    fn message_without_sk_is_not_protected() {
        let datagram = Message { header: header(), payloads: vec![vendor(3)] }.emit();
        for suite in SUITES {
            assert_eq!(protector(suite).open(&datagram), Err(OpenError::NotProtected));
            assert_eq!(protector(suite).open(&[]), Err(OpenError::NotProtected));
        }
    }

    #[test]
    fn aead_ivs_differ_from_message_to_message() {
        let protector = protector(SUITES[0]);
        let iv = |datagram: &[u8]| datagram[32..40].to_vec();
        let mut seen = Vec::new();
        for _ in 0..100 {
            // The random source repeats itself, which must not matter.
            seen.push(iv(&protector.seal(header(), &[], &mut Fixed::new(&[1]))));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn cbc_iv_is_what_the_random_source_gives() {
        let protector = protector(SUITES[3]);
        let datagram = protector.seal(header(), &[], &mut Fixed::new(&[0xd7]));
        assert_eq!(datagram[32..48], [0xd7; 16]);
    }

    /// A message with the right ICV around any plaintext, as a broken peer could send it.
    fn sealed_raw(
        suite: IkeSuite,
        first: PayloadType,
        before: &[Payload],
        plain: &[u8],
    ) -> Vec<u8> {
        let (sk_e, sk_a) = keys(suite);
        let mut data = plain.to_vec();
        let aead_icv_len = Aead::icv_len_of(suite.encr.id);
        let icv_len = aead_icv_len.or(Integ::icv_len(suite.integ)).unwrap();
        let iv_len = if suite.encr.id.is_aead() { 8 } else { 16 };
        let body_len = iv_len + plain.len() + icv_len;
        let mut payloads = before.to_vec();
        payloads.push(Payload::Sk(Sk { first, body: vec![0; body_len] }));
        let mut out = Message { header: header(), payloads }.emit();
        let body_at = out.len() - body_len;
        if let Some(aead) = Aead::new(suite.encr, sk_e.expose()) {
            let mut icv = vec![0; icv_len];
            aead.seal(&[0; 8], &out[..body_at], &mut data, &mut icv);
            out[body_at + 8..body_at + 8 + data.len()].copy_from_slice(&data);
            let icv_at = out.len() - icv_len;
            out[icv_at..].copy_from_slice(&icv);
        } else {
            Cbc::new(suite.encr, sk_e.expose()).unwrap().encrypt(&[0; 16], &mut data);
            out[body_at + 16..body_at + 16 + data.len()].copy_from_slice(&data);
            let icv_at = out.len() - icv_len;
            let (signed, icv) = out.split_at_mut(icv_at);
            Integ::new(suite.integ, sk_a.expose()).unwrap().sign(&[signed], icv);
        }
        out
    }

    fn chain(payloads: &[Payload]) -> Vec<u8> {
        let mut out = Vec::new();
        emit_chain(payloads, &mut out);
        out
    }

    #[test]
    fn any_padding_up_to_255_bytes_is_accepted() {
        for suite in SUITES {
            // 8 bytes of payload, then padding to whole blocks.
            for pad in [7u8, 23, 247] {
                let mut plain = chain(&[vendor(4)]);
                plain.resize(plain.len() + usize::from(pad), 0x5a);
                plain.push(pad);
                let datagram = sealed_raw(suite, PayloadType::VENDOR, &[], &plain);
                assert_eq!(
                    protector(suite).open(&datagram),
                    Ok(vec![vendor(4)]),
                    "{suite:?} {pad}"
                );
            }
        }
        let mut plain = chain(&[vendor(4)]);
        plain.resize(plain.len() + 255, 0);
        plain.push(255);
        let datagram = sealed_raw(SUITES[0], PayloadType::VENDOR, &[], &plain);
        assert_eq!(protector(SUITES[0]).open(&datagram), Ok(vec![vendor(4)]));
    }

    #[test]
    fn malformed_inside_a_right_icv_is_the_peers_fault() {
        for suite in SUITES {
            let open =
                |first, plain: &[u8]| protector(suite).open(&sealed_raw(suite, first, &[], plain));
            let mut plain = [0; 16];
            plain[15] = 16;
            let error = open(PayloadType::NONE, &plain);
            assert!(
                matches!(error, Err(OpenError::Parse(_))),
                "padding longer than all: {error:?}"
            );
            let error = open(PayloadType::NONE, &[]);
            assert!(matches!(error, Err(OpenError::Parse(_))), "no Pad Length: {error:?}");
            let error = open(PayloadType::VENDOR, &[0; 16]);
            assert!(matches!(error, Err(OpenError::Parse(_))), "length 0: {error:?}");
        }
        let error =
            protector(SUITES[3]).open(&sealed_raw(SUITES[3], PayloadType::NONE, &[], &[0; 15]));
        assert!(matches!(error, Err(OpenError::Parse(_))), "not whole blocks: {error:?}");
    }

    #[test]
    fn of_payloads_before_sk_only_unknown_critical_ones_are_handed_on() {
        let unknown = |critical| Payload::Unknown {
            payload_type: PayloadType(200),
            critical,
            body: vec![1, 2],
        };
        for suite in SUITES {
            let mut plain = vec![0; 16];
            plain[15] = 15;
            let before = [vendor(3), unknown(false), unknown(true)];
            let datagram = sealed_raw(suite, PayloadType::NONE, &before, &plain);
            assert_eq!(protector(suite).open(&datagram), Ok(vec![unknown(true)]), "{suite:?}");
        }
    }

    #[test]
    fn keys_must_fit_the_suite() {
        for suite in SUITES {
            let (sk_e, sk_a) = keys(suite);
            let longer = Secret::new(vec![3; sk_e.len() + 1]);
            assert!(Protector::new(suite, &longer, &sk_a).is_none());
            let longer = Secret::new(vec![4; sk_a.len() + 1]);
            assert!(Protector::new(suite, &sk_e, &longer).is_none());
        }
    }
}
