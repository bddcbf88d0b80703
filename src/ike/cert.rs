//! Authentication by signature (RFC 7296 §2.15): certificates in CERT and CERTREQ payloads, and the methods of RFC 7427,
//! RFC 8420 and RFC 4754. Which identity a certificate may stand for is said in `ipsec::identity`.

use core::time::Duration;

use thiserror::Error;

use super::exchange::{Parts, notify};
use super::limits;
use crate::crypto::SecureRandom;
use crate::crypto::sign::{Hash, KeyKind, Scheme};
use crate::crypto::x509::{CertError, Certificate};
use crate::ipsec::pad::{Authority, Credential, Identity, PeerAuth};
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
    /// The CAs in the CERTREQ payloads of the responder.
    pub(super) asked: Asked,
}

/// SHA-1 hashes of the public keys of CAs that a peer trusts.
pub(super) struct Asked(Vec<[u8; 20]>);

impl Terms {
    pub(super) fn agreed(ours: bool, parts: &Parts<'_>) -> Self {
        let theirs = parts.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).map(|notify| {
            let ids = notify.data.chunks_exact(2).take(limits::MAX_HASHES);
            ids.filter_map(|id| Some(HashId(u16::from_be_bytes(id.try_into().ok()?)))).collect()
        });
        Self { ours, theirs, asked: Asked::of(&parts.cert_requests) }
    }
}

impl Asked {
    pub(super) fn of(requests: &[&CertReq]) -> Self {
        let requests =
            requests.iter().filter(|request| request.encoding == CertEncoding::X509_SIGNATURE);
        let hashes = requests.flat_map(|request| request.authority.chunks_exact(20));
        // As many as a CERTREQ of a message may have; only a few of them are compared with each.
        Self(hashes.filter_map(|hash| hash.try_into().ok()).take(256).collect())
    }
}

/// SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
pub(super) fn hash_algorithms() -> Payload {
    let data: Vec<u8> = HASHES.iter().flat_map(|hash| hash.0.to_be_bytes()).collect();
    notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &data)
}

/// CERTREQ (RFC 7296 §3.7) for what these peers may prove themselves with; none, where none has a certificate.
pub(super) fn request<'a>(peers: impl Iterator<Item = &'a PeerAuth>) -> Option<Payload> {
    let mut hashes: Vec<[u8; 20]> = Vec::new();
    for peer in peers {
        let PeerAuth::Certificate(authority) = peer else { continue };
        for hash in authority.trust.certreq_hashes() {
            if hashes.len() < limits::MAX_CERTREQ_CAS && !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
    }
    (!hashes.is_empty()).then(|| {
        Payload::CertReq(CertReq {
            encoding: CertEncoding::X509_SIGNATURE,
            authority: hashes.concat(),
        })
    })
}

/// Our certificate, and those above it up to one that the peer says to have.
///
/// RFC 7296 §3.6: certificates SHOULD be included if available, so also where none was asked for; a CERTREQ that names none
/// of our CAs is no reason to send none (§3.7).
pub(super) fn payloads<'a>(
    credential: &'a Credential,
    asked: &'a Asked,
) -> impl Iterator<Item = Payload> + 'a {
    let chain = credential.chain();
    let above = chain.iter().skip(1);
    let above = above.take_while(|ca| !asked.0.contains(&ca.public_key().certreq_hash()));
    chain.iter().take(1).chain(above).map(|certificate| {
        Payload::Cert(Cert {
            encoding: CertEncoding::X509_SIGNATURE,
            data: certificate.der().to_vec(),
        })
    })
}

/// Our AUTH payload over these signed octets (RFC 7296 §2.15).
///
/// # Errors
/// What keeps us from signing, in words.
pub(super) fn sign(
    terms: &Terms,
    credential: &Credential,
    rng: &mut dyn SecureRandom,
    octets: &[u8],
) -> Result<Auth, &'static str> {
    let signer = credential.signer();
    let kind = signer.public_key().kind();
    let (method, scheme) = match &terms.theirs {
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
    };
    let signature = signer.sign(rng, scheme, octets).map_err(|_| "the private key failed")?;
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

/// A certificate whose private key a peer has proved to hold. Whether anybody vouches for it is another question:
/// [`Shown::accept`].
pub(super) struct Shown {
    leaf: Certificate,
    others: Vec<Vec<u8>>,
    is_sha_1: bool,
}

impl Shown {
    /// Verifies the signature of an AUTH payload: the one public-key operation that depends on nothing but the message.
    pub(super) fn verify(
        terms: &Terms,
        parts: &Parts<'_>,
        auth: &Auth,
        octets: &[u8],
    ) -> Result<Self, CertFault> {
        if parts.certs.len() > limits::MAX_CERTS {
            return Err(CertFault::TooMany);
        }
        let certs = parts.certs.iter().filter(|c| c.encoding == CertEncoding::X509_SIGNATURE);
        let mut certs = certs.map(|cert| cert.data.as_slice());
        // RFC 7296 §3.6: the first is the one whose key verifies AUTH.
        let leaf = Certificate::parse(certs.next().ok_or(CertFault::Missing)?)?;
        let others = certs.map(<[u8]>::to_vec).collect();
        let (schemes, signature) = schemes(terms, auth)?;
        let scheme = schemes
            .iter()
            .find(|scheme| leaf.public_key().verify(**scheme, octets, signature))
            .ok_or(CertFault::Signature)?;
        Ok(Self { leaf, others, is_sha_1: *scheme == Scheme::RsaPkcs1(Hash::Sha1) })
    }

    /// Whether a CA of this authority vouches that the certificate is in force at this time, and that it is `id`'s.
    pub(super) fn accept(
        &self,
        authority: &Authority,
        id: &Identity,
        now: Duration,
    ) -> Result<(), CertFault> {
        if self.is_sha_1 && !authority.allow_sha_1 {
            return Err(CertFault::Sha1);
        }
        authority.trust.verify(&self.leaf, &self.others, now)?;
        if id.is_in(&self.leaf) { Ok(()) } else { Err(CertFault::Name(id.clone())) }
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
