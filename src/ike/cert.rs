//! Authentication by signature (RFC 7296 §2.15): certificates and raw public keys (RFC 7670) in CERT and CERTREQ payloads, and
//! the methods of RFC 7427, RFC 8420 and RFC 4754. Which identity a certificate may stand for is said in `ipsec::identity`.

use core::time::Duration;

use thiserror::Error;

use super::announce::Announced;
use super::exchange::{Parts, notify};
use super::limits;
use crate::crypto::SecureRandom;
use crate::crypto::sign::{Hash, KeyKind, PublicKey, PublicKeyError, Scheme};
use crate::crypto::x509::{CertError, Certificate};
use crate::ipsec::pad::{Authority, Credential, Identity, LocalAuth, PeerAuth, Presented};
use crate::wire::ike::numbers::{AuthMethod, CertEncoding, HashId, NotifyType};
use crate::wire::ike::payload::{Auth, Cert, CertReq, Payload};

/// Why a peer's certificate or signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertFault {
    /// What is in the certificate, or above it, is wrong.
    #[error("{0}")]
    Certificate(#[from] CertError),
    /// AUTH has one of the methods of before RFC 7427, though both sides have that.
    #[error("its signature is by {0}, though both sides have RFC 7427")]
    Downgrade(AuthMethod),
    /// The raw public key that it sent is none that can be used.
    #[error("its raw public key cannot be used: {0}")]
    Key(#[from] PublicKeyError),
    /// There is none.
    #[error("it sent none")]
    Missing,
    /// The identity is not in it.
    #[error("{0} is not one of its names")]
    Name(Identity),
    /// The AUTH payload says an algorithm that is not ours.
    #[error("its signature is by an algorithm that is not known here")]
    Scheme,
    /// RSA with SHA-1, which is not allowed.
    #[error("its signature is by RSA with SHA-1, as the peer does not know RFC 7427")]
    Sha1,
    /// The signature in the AUTH payload does not fit.
    #[error("its signature is not by the certificate's key")]
    Signature,
    /// More CERT payloads than are looked at.
    #[error("it sent more than {} certificates", limits::MAX_CERTS)]
    TooMany,
    /// A raw public key, or the one that has signed without a CERT payload, is not among those of the peer.
    #[error("its raw public key is not one of those that are configured for it")]
    UnknownKey,
}

/// The hashes that we verify signatures with: SHA-1 is none of them.
const HASHES: [HashId; 4] =
    [HashId::SHA2_256, HashId::SHA2_384, HashId::SHA2_512, HashId::IDENTITY];

/// What was agreed in IKE_SA_INIT about signatures.
pub(super) struct Terms {
    /// Whether we have sent SIGNATURE_HASH_ALGORITHMS.
    ours: bool,
    /// The peer's, if it has sent them.
    theirs: Option<Vec<HashId>>,
    /// What the responder takes.
    pub(super) asked: Asked,
    /// Whether the responder knows of SUPPORTED_AUTH_METHODS (RFC 9593).
    pub(super) announces: bool,
}

/// What a peer has said that it takes, in CERTREQ payloads and in SUPPORTED_AUTH_METHODS.
#[derive(Default)]
pub(super) struct Asked {
    /// SHA-1 hashes of the public keys of CAs that it trusts.
    cas: Vec<[u8; 20]>,
    /// Whether it takes raw public keys (RFC 7670).
    raw: bool,
    /// Whether it wants an OCSP response (RFC 4806).
    ocsp: bool,
    /// Methods and algorithms (RFC 9593); none, if it has not said so.
    announced: Option<Announced>,
}

impl Terms {
    pub(super) fn agreed(ours: bool, parts: &Parts<'_>) -> Self {
        let theirs = parts.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).map(|notify| {
            let ids = notify.data.chunks_exact(2).take(limits::MAX_HASHES);
            ids.filter_map(|id| Some(HashId(u16::from_be_bytes(id.try_into().ok()?)))).collect()
        });
        let announces = parts.notify(NotifyType::SUPPORTED_AUTH_METHODS).is_some();
        Self { ours, theirs, asked: Asked::in_message(parts), announces }
    }
}

impl Asked {
    pub(super) fn of(requests: &[&CertReq]) -> Self {
        let of = |encoding| requests.iter().filter(move |request| request.encoding == encoding);
        let hashes =
            of(CertEncoding::X509_SIGNATURE).flat_map(|request| request.authority.chunks_exact(20));
        Self {
            // As many as a CERTREQ of a message may have; only a few of them are compared with each.
            cas: hashes.filter_map(|hash| hash.try_into().ok()).take(256).collect(),
            raw: of(CertEncoding::RAW_PUBLIC_KEY).next().is_some(),
            ocsp: of(CertEncoding::OCSP_CONTENT).next().is_some(),
            announced: None,
        }
    }

    pub(super) fn in_message(parts: &Parts<'_>) -> Self {
        Self { announced: Announced::of(parts), ..Self::of(&parts.cert_requests) }
    }

    /// What comes in IKE_INTERMEDIATE instead of IKE_SA_INIT (RFC 9593 §3.1); the CAs, to which it may point, once more with it.
    pub(super) fn hear(&mut self, parts: &Parts<'_>) {
        let later = Self::in_message(parts);
        if later.announced.is_some() {
            self.announced = later.announced;
            if !later.cas.is_empty() {
                self.cas = later.cas;
            }
        }
    }

    /// Whether nothing is announced, or a method by which we can prove who we are.
    pub(super) fn may_take(&self, terms: &Terms, local: &LocalAuth) -> bool {
        let Some(announced) = &self.announced else { return true };
        match local {
            LocalAuth::Eap(_) => true,
            LocalAuth::Psk(_) => announced.takes_psk(),
            LocalAuth::Signature(credentials) => credentials
                .iter()
                .any(|credential| announced_scheme(terms, self, credential).is_some()),
        }
    }

    /// Whether what is shown of a key is below the CA of this number.
    fn is_above(&self, number: usize, credential: &Credential) -> bool {
        let ca = number.checked_sub(1).and_then(|at| self.cas.get(at));
        ca.is_some_and(|ca| above(credential).any(|hash| hash == *ca))
    }

    /// Whether it has named the CA with this hash.
    fn names(&self, hash: &[u8; 20]) -> bool {
        self.cas.contains(hash)
    }
}

/// SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
pub(super) fn hash_algorithms() -> Payload {
    let data: Vec<u8> = HASHES.iter().flat_map(|hash| hash.0.to_be_bytes()).collect();
    notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &data)
}

/// CERTREQ payloads (RFC 7296 §3.7) for what these peers may prove themselves with; none, where none has a signature.
pub(super) fn request<'a>(peers: impl Iterator<Item = &'a PeerAuth>) -> Vec<Payload> {
    let mut hashes: Vec<[u8; 20]> = Vec::new();
    let (mut raw, mut ocsp) = (false, false);
    for peer in peers {
        let PeerAuth::Signature(authority) = peer else { continue };
        raw |= !authority.keys.is_empty();
        ocsp |= authority.trust.wants_ocsp();
        for hash in authority.trust.certreq_hashes() {
            if hashes.len() < limits::MAX_CERTREQ_CAS && !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
    }
    let ask = |encoding, authority| Payload::CertReq(CertReq { encoding, authority });
    let x509 = (!hashes.is_empty()).then(|| ask(CertEncoding::X509_SIGNATURE, hashes.concat()));
    // RFC 7670 §3: no CA goes with it.
    let raw = raw.then(|| ask(CertEncoding::RAW_PUBLIC_KEY, Vec::new()));
    // RFC 4806 §4.1: no responder is named, as it is the issuer, or whom that has designated.
    let ocsp = ocsp.then(|| ask(CertEncoding::OCSP_CONTENT, Vec::new()));
    x509.into_iter().chain(raw).chain(ocsp).collect()
}

/// Which of our credentials this peer gets: the first that is by a CA which it has named, or a raw key if it has asked for one,
/// and with which we can sign for it; else the first with which we can sign; else the first. Those whose signature it has announced
/// (RFC 9593) go before all others.
pub(super) fn choose<'c>(
    terms: &Terms,
    credentials: &'c [Credential],
    asked: &Asked,
) -> Option<&'c Credential> {
    let signs = |credential: &&Credential| scheme(terms, asked, credential).is_ok();
    let is_asked = |credential: &&Credential| match credential.presented() {
        Presented::RawKey => asked.raw,
        Presented::Chain(_) => above(credential).any(|hash| asked.names(&hash)),
    };
    let is_announced =
        |credential: &&Credential| announced_scheme(terms, asked, credential).is_some();
    let mut usable = credentials.iter().filter(signs);
    let mut announced = usable.clone().filter(is_announced);
    announced
        .clone()
        .find(is_asked)
        .or_else(|| announced.next())
        .or_else(|| usable.clone().find(is_asked))
        .or_else(|| usable.next())
        .or_else(|| credentials.first())
}

/// The CAs above a certificate of ours, as CERTREQ payloads name them.
fn above(credential: &Credential) -> impl Iterator<Item = [u8; 20]> + '_ {
    let chain = credential.chain().iter().skip(1).map(|ca| ca.public_key().certreq_hash());
    chain.chain(credential.roots().iter().copied())
}

/// Our certificate, and those above it up to one that the peer says to have; or our public key alone (RFC 7670 §3).
///
/// RFC 7296 §3.6: certificates SHOULD be included if available, so also where none was asked for; a CERTREQ that names none
/// of our CAs is no reason to send none (§3.7).
pub(super) fn payloads(credential: &Credential, asked: &Asked) -> Vec<Payload> {
    let cert = |encoding, data: &[u8]| Payload::Cert(Cert { encoding, data: data.to_vec() });
    match credential.presented() {
        Presented::RawKey => {
            vec![cert(CertEncoding::RAW_PUBLIC_KEY, credential.signer().public_key().spki())]
        }
        Presented::Chain(chain) => {
            let above = chain.iter().skip(1);
            let above = above.take_while(|ca| !asked.names(&ca.public_key().certreq_hash()));
            let sent = chain.iter().take(1).chain(above);
            // RFC 4806 §4.2: a CERT payload of its own.
            let ocsp = credential.ocsp().filter(|_| asked.ocsp);
            sent.map(|certificate| cert(CertEncoding::X509_SIGNATURE, certificate.der()))
                .chain(ocsp.map(|der| cert(CertEncoding::OCSP_CONTENT, der)))
                .collect()
        }
    }
}

/// Our AUTH payload over these signed octets (RFC 7296 §2.15).
///
/// # Errors
/// What keeps us from signing, in words.
pub(super) fn sign(
    terms: &Terms,
    asked: &Asked,
    credential: &Credential,
    rng: &mut dyn SecureRandom,
    octets: &[u8],
) -> Result<Auth, &'static str> {
    let (method, scheme) = scheme(terms, asked, credential)?;
    let signature =
        credential.signer().sign(rng, scheme, octets).map_err(|_| "the private key failed")?;
    let data = if method == AuthMethod::DIGITAL_SIGNATURE {
        let identifier = scheme.algorithm_identifier().unwrap_or_default();
        // RFC 7427 §3: one byte for the length of the ASN.1.
        let len = u8::try_from(identifier.len()).unwrap_or(u8::MAX);
        [&[len], identifier.as_slice(), &signature].concat()
    } else {
        signature
    };
    Ok(Auth { method, data })
}

/// How we sign with this credential for this peer.
fn scheme(
    terms: &Terms,
    asked: &Asked,
    credential: &Credential,
) -> Result<(AuthMethod, Scheme), &'static str> {
    let kind = credential.signer().public_key().kind();
    if let Some(found) = announced_scheme(terms, asked, credential) {
        return Ok(found);
    }
    Ok(match &terms.theirs {
        // RFC 7427 §3: where both have sent hashes, this method MUST be used.
        Some(theirs) => (
            AuthMethod::DIGITAL_SIGNATURE,
            Scheme::choose(kind, theirs).ok_or("the peer takes no hash that goes with our key")?,
        ),
        None => match kind {
            KeyKind::EcdsaP256 => {
                (AuthMethod::ECDSA_SHA256_P256, Scheme::EcdsaConcat(Hash::Sha256))
            }
            KeyKind::EcdsaP384 => {
                (AuthMethod::ECDSA_SHA384_P384, Scheme::EcdsaConcat(Hash::Sha384))
            }
            KeyKind::EcdsaP521 => {
                (AuthMethod::ECDSA_SHA512_P521, Scheme::EcdsaConcat(Hash::Sha512))
            }
            // RFC 7296 §2.15 lets the hash be another than SHA-1, with which we do not sign (RFC 8247 §3.2).
            KeyKind::Rsa { .. } => {
                (AuthMethod::RSA_DIGITAL_SIGNATURE, Scheme::RsaPkcs1(Hash::Sha256))
            }
            // RFC 8420 §2.
            KeyKind::Ed25519 => return Err("the peer has no RFC 7427, which Ed25519 needs"),
        },
    })
}

/// How we sign with this credential by what the peer has announced: never by a method of before RFC 7427 where both have that, nor with
/// a hash that it has not named.
fn announced_scheme(
    terms: &Terms,
    asked: &Asked,
    credential: &Credential,
) -> Option<(AuthMethod, Scheme)> {
    let announced = asked.announced.as_ref()?;
    let is_below = |number| asked.is_above(number, credential);
    match &terms.theirs {
        Some(theirs) => {
            let method = AuthMethod::DIGITAL_SIGNATURE;
            let mut ways = Scheme::ways(credential.signer().public_key().kind())
                .filter(|way| theirs.contains(&way.hash_id()));
            ways.find(|way| announced.takes(method, *way, is_below)).map(|way| (method, way))
        }
        None => {
            let old = Asked::default();
            let (method, way) = scheme(terms, &old, credential).ok()?;
            announced.takes(method, way, is_below).then_some((method, way))
        }
    }
}

/// A certificate, or a key, whose private key a peer has proved to hold. Whether anybody vouches for it is another question:
/// [`Shown::accept`].
pub(super) struct Shown {
    leaf: Leaf,
    others: Vec<Vec<u8>>,
    ocsp: Vec<Vec<u8>>,
    is_sha_1: bool,
}

/// What the key that signed comes from.
enum Leaf {
    Certificate(Box<Certificate>),
    RawKey(PublicKey),
}

impl Leaf {
    fn key(&self) -> &PublicKey {
        match self {
            Self::Certificate(certificate) => certificate.public_key(),
            Self::RawKey(key) => key,
        }
    }
}

impl Shown {
    /// Verifies the signature of an AUTH payload: the one public-key operation that depends on nothing but the message. `known`
    /// are the raw public keys that are tried, [`limits::MAX_RAW_KEYS`] of them, where there is no CERT payload.
    pub(super) fn verify<'k>(
        terms: &Terms,
        parts: &Parts<'_>,
        auth: &Auth,
        octets: &[u8],
        known: impl Iterator<Item = &'k PublicKey>,
    ) -> Result<Self, CertFault> {
        if parts.certs.len() > limits::MAX_CERTS {
            return Err(CertFault::TooMany);
        }
        let (schemes, signature) = schemes(terms, auth)?;
        let by = |key: &PublicKey| {
            schemes.iter().find(|scheme| key.verify(**scheme, octets, signature)).copied()
        };
        let is_leaf = |cert: &&&Cert| {
            matches!(cert.encoding, CertEncoding::X509_SIGNATURE | CertEncoding::RAW_PUBLIC_KEY)
        };
        let mut certs = parts.certs.iter();
        // RFC 7296 §3.6: the first is the one whose key verifies AUTH.
        let leaf = match certs.by_ref().find(is_leaf) {
            Some(cert) if cert.encoding == CertEncoding::RAW_PUBLIC_KEY => {
                Leaf::RawKey(PublicKey::of_spki(&cert.data)?)
            }
            Some(cert) => Leaf::Certificate(Box::new(Certificate::parse(&cert.data)?)),
            None => {
                let mut known = known.take(limits::MAX_RAW_KEYS).peekable();
                known.peek().ok_or(CertFault::Missing)?;
                let found = known.find_map(|key| Some((key, by(key)?)));
                let (key, scheme) = found.ok_or(CertFault::UnknownKey)?;
                return Ok(Self::by(Leaf::RawKey(key.clone()), Vec::new(), Vec::new(), scheme));
            }
        };
        let others = certs.filter(|cert| cert.encoding == CertEncoding::X509_SIGNATURE);
        let others = others.map(|cert| cert.data.clone()).collect();
        // RFC 4806 §3.2: for which certificate it is stands in it.
        let ocsp = parts.certs.iter().filter(|cert| cert.encoding == CertEncoding::OCSP_CONTENT);
        let ocsp = ocsp.take(limits::MAX_OCSP).map(|cert| cert.data.clone()).collect();
        let scheme = by(leaf.key()).ok_or(CertFault::Signature)?;
        Ok(Self::by(leaf, others, ocsp, scheme))
    }

    fn by(leaf: Leaf, others: Vec<Vec<u8>>, ocsp: Vec<Vec<u8>>, scheme: Scheme) -> Self {
        Self { leaf, others, ocsp, is_sha_1: scheme == Scheme::RsaPkcs1(Hash::Sha1) }
    }

    /// Whether a CA of this authority vouches that the certificate is in force at this time, and that it is `id`'s; or whether
    /// the key is one of those that the authority has, whatever the identity.
    pub(super) fn accept(
        &self,
        authority: &Authority,
        id: &Identity,
        now: Duration,
    ) -> Result<(), CertFault> {
        if self.is_sha_1 && !authority.allow_sha_1 {
            return Err(CertFault::Sha1);
        }
        // RFC 7670 §1: the key itself is the identity; a certificate around it takes nothing from that.
        if authority.keys.contains(self.leaf.key()) {
            return Ok(());
        }
        let Leaf::Certificate(leaf) = &self.leaf else { return Err(CertFault::UnknownKey) };
        authority.trust.verify_with_ocsp(leaf, &self.others, &self.ocsp, now)?;
        if id.is_in(leaf) { Ok(()) } else { Err(CertFault::Name(id.clone())) }
    }
}

/// What an AUTH payload may be a signature by, in the order in which it is tried, and the signature.
fn schemes<'a>(terms: &Terms, auth: &'a Auth) -> Result<(Vec<Scheme>, &'a [u8]), CertFault> {
    // RFC 7427 §3: if both have sent hashes, this method MUST be used. The lists are in what both sign, so that nobody can have
    // taken them out without being noticed.
    if auth.method != AuthMethod::DIGITAL_SIGNATURE && terms.ours && terms.theirs.is_some() {
        return Err(CertFault::Downgrade(auth.method));
    }
    let data = auth.data.as_slice();
    match auth.method {
        AuthMethod::DIGITAL_SIGNATURE => {
            let (len, rest) = data.split_first().ok_or(CertFault::Scheme)?;
            let (identifier, signature) =
                rest.split_at_checked(usize::from(*len)).ok_or(CertFault::Scheme)?;
            let scheme = Scheme::of_algorithm_identifier(identifier).ok_or(CertFault::Scheme)?;
            Ok((vec![scheme], signature))
        }
        AuthMethod::ECDSA_SHA256_P256 => Ok((vec![Scheme::EcdsaConcat(Hash::Sha256)], data)),
        AuthMethod::ECDSA_SHA384_P384 => Ok((vec![Scheme::EcdsaConcat(Hash::Sha384)], data)),
        AuthMethod::ECDSA_SHA512_P521 => Ok((vec![Scheme::EcdsaConcat(Hash::Sha512)], data)),
        // RFC 7296 §2.15: SHA-1 is the default there, but any hash may be.
        AuthMethod::RSA_DIGITAL_SIGNATURE => Ok((
            vec![
                Scheme::RsaPkcs1(Hash::Sha256),
                Scheme::RsaPkcs1(Hash::Sha384),
                Scheme::RsaPkcs1(Hash::Sha512),
                Scheme::RsaPkcs1(Hash::Sha1),
            ],
            data,
        )),
        _ => Err(CertFault::Scheme),
    }
}

#[cfg(test)]
mod tests;
