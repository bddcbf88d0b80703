//! OCSP responses (RFC 6960) that were made before they are asked for, as IKE carries them (RFC 4806). Nothing here asks a responder.
//!
//! They are read by `x509-ocsp`. Who may sign them (RFC 6960 §4.2.2.2) is decided here: the CA that issued the certificate, or whom
//! that CA has issued a certificate for it.

use core::time::Duration;

use der_for_ocsp::asn1::ObjectIdentifier;
use der_for_ocsp::{Decode, Encode};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponseStatus, SingleResponse};

use super::{ALGORITHMS, Certificate};
use crate::crypto::sha;
use crate::crypto::sign::Scheme;

/// The longest response that is looked at, in bytes.
pub const MAX_OCSP_RESPONSE: usize = 8192;

/// Certificates in a response that are looked at, of which one may have signed it.
const MAX_SIGNERS: usize = 2;

/// Certificates that one response may tell of.
const MAX_SINGLES: usize = 16;

/// How far our clock and that of a responder may be apart.
const SKEW: Duration = Duration::from_secs(300);

/// How long a response is good that does not say so.
const WITHOUT_NEXT_UPDATE: Duration = Duration::from_secs(24 * 3600);

/// Why an OCSP response says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// It is not well-formed, or too long, or says that it could not be made.
    #[error("it cannot be read")]
    Malformed,
    /// None of those that may sign it has.
    #[error("nobody has signed it who may")]
    Signature,
    /// It is for another certificate.
    #[error("it is for another certificate")]
    OtherCertificate,
    /// It is out of date, or from the future.
    #[error("it is not of this time")]
    Time,
    /// The responder does not know the certificate.
    #[error("its responder does not know the certificate")]
    Unknown,
}

/// What an OCSP response says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspStatus {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
}

/// An OCSP response; nothing in it is to be believed before [`OcspResponse::status`].
pub struct OcspResponse {
    basic: BasicOcspResponse,
}

impl OcspResponse {
    /// Reads the DER of an OCSPResponse.
    ///
    /// # Errors
    /// When it is malformed, longer than [`MAX_OCSP_RESPONSE`], or an error of the responder.
    pub fn parse(der: &[u8]) -> Result<Self, OcspError> {
        const ID_PKIX_OCSP_BASIC: ObjectIdentifier =
            ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
        if der.len() > MAX_OCSP_RESPONSE {
            return Err(OcspError::Malformed);
        }
        let response = x509_ocsp::OcspResponse::from_der(der).map_err(|_| OcspError::Malformed)?;
        let bytes = response.response_bytes.ok_or(OcspError::Malformed)?;
        if response.response_status != OcspResponseStatus::Successful
            || bytes.response_type != ID_PKIX_OCSP_BASIC
        {
            return Err(OcspError::Malformed);
        }
        let basic = BasicOcspResponse::from_der(bytes.response.as_bytes());
        let basic = basic.map_err(|_| OcspError::Malformed)?;
        if basic.tbs_response_data.responses.len() > MAX_SINGLES {
            return Err(OcspError::Malformed);
        }
        Ok(Self { basic })
    }

    /// What it says of `leaf`, which `issuer` has issued, at this time since 1970.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn status(
        &self,
        leaf: &Certificate,
        issuer: &Certificate,
        now: Duration,
    ) -> Result<OcspStatus, OcspError> {
        let responses = &self.basic.tbs_response_data.responses;
        let single = responses.iter().find(|single| is_about(single, leaf, issuer));
        let single = single.ok_or(OcspError::OtherCertificate)?;
        if !self.is_signed(issuer, now) {
            return Err(OcspError::Signature);
        }
        let from = single.this_update.0.to_unix_duration();
        let until = single
            .next_update
            .as_ref()
            .map_or(from + WITHOUT_NEXT_UPDATE, |next| next.0.to_unix_duration());
        if now + SKEW < from || until + SKEW < now {
            return Err(OcspError::Time);
        }
        match single.cert_status {
            CertStatus::Good(_) => Ok(OcspStatus::Good),
            CertStatus::Revoked(_) => Ok(OcspStatus::Revoked),
            CertStatus::Unknown(_) => Err(OcspError::Unknown),
        }
    }

    fn is_signed(&self, issuer: &Certificate, now: Duration) -> bool {
        let basic = &self.basic;
        let (Ok(tbs), Ok(algorithm)) =
            (basic.tbs_response_data.to_der(), basic.signature_algorithm.to_der())
        else {
            return false;
        };
        let (Some(scheme), Some(signature)) =
            (Scheme::of_algorithm_identifier(&algorithm), basic.signature.as_bytes())
        else {
            return false;
        };
        // SHA-1 signs nothing that is to be believed.
        if scheme == Scheme::RsaPkcs1(crate::crypto::sign::Hash::Sha1) {
            return false;
        }
        let by = |signer: &Certificate| signer.public_key().verify(scheme, &tbs, signature);
        if by(issuer) {
            return true;
        }
        let certs = basic.certs.iter().flatten().take(MAX_SIGNERS);
        certs
            .filter_map(|certificate| certificate.to_der().ok())
            .filter(|der| is_responder(der, issuer, now))
            .filter_map(|der| Certificate::parse(&der).ok())
            .any(|signer| by(&signer))
    }
}

/// Whether this certificate is one that `issuer` itself has issued for signing OCSP responses (RFC 6960 §4.2.2.2).
fn is_responder(der: &[u8], issuer: &Certificate, now: Duration) -> bool {
    /// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9.
    const OCSP_SIGNING: &[u8] = &super::purpose(9);
    let (der, issuer) = (CertificateDer::from(der), CertificateDer::from(issuer.der()));
    let Ok(anchor) = webpki::anchor_from_trusted_cert(&issuer) else { return false };
    let Ok(certificate) = EndEntityCert::try_from(&der) else { return false };
    let usage = KeyUsage::required(OCSP_SIGNING);
    let now = UnixTime::since_unix_epoch(now);
    certificate.verify_for_usage(ALGORITHMS, &[anchor], &[], now, usage, None, None).is_ok()
}

/// CertID (RFC 6960 §4.1.1): hashes of the issuer's name and key, and the serial number.
fn is_about(single: &SingleResponse, leaf: &Certificate, issuer: &Certificate) -> bool {
    const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
    const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
    let id = &single.cert_id;
    let hash = |data: &[u8]| match id.hash_algorithm.oid {
        SHA_1 => Some(sha::sha1(&[data]).to_vec()),
        SHA_256 => Some(sha::sha256(&[data]).to_vec()),
        _ => None,
    };
    let Ok(spki) = SubjectPublicKeyInfoRef::from_der(issuer.public_key().spki()) else {
        return false;
    };
    id.serial_number.as_bytes() == leaf.serial()
        && hash(issuer.subject()).is_some_and(|hash| hash == id.issuer_name_hash.as_bytes())
        && hash(spki.subject_public_key.raw_bytes())
            .is_some_and(|hash| hash == id.issuer_key_hash.as_bytes())
}
