//! X.509 certificates (RFC 5280): what is in one, and whether a chain leads from it to a CA that is trusted.
//!
//! Paths are built and checked by `rustls-webpki`: signatures, validity, basic constraints, path lengths, name
//! constraints, unknown critical extensions, CRLs, each with a bound on the work. What IPsec has rules of its own for
//! (RFC 4945 §5.1.3: key usage, extended key usage) is added here. Which certificate may stand for which identity is
//! decided in `ike`.

#[cfg(feature = "daemon")]
pub mod issue;
pub mod ocsp;

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
    TrustAnchor, UnixTime, alg_id,
};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy,
    ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, RequiredEkuNotFoundContext,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::Any;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::rfc5912::ID_AD_OCSP;
use x509_cert::der::{DateTime, Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, CrlDistributionPoints, IssuingDistributionPoint, KeyUsage,
    SubjectAltName,
};
use x509_cert::name::{Name, RdnSequence};

use self::ocsp::{OcspError, OcspResponse, OcspStatus};
use super::sign::{Hash, KeyKind, PublicKey, PublicKeyError, Scheme, verify_ecdsa};

/// The longest certificate that is looked at, in bytes.
pub const MAX_CERTIFICATE: usize = 8192;

/// A certificate that has been read; nothing in it is to be believed before [`Trust::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    names: Vec<SubjectName>,
    serial: Vec<u8>,
    key: PublicKey,
    may_sign: bool,
    /// Whether it says where its status can be asked for: CRL distribution points, or an OCSP responder.
    has_status_uri: bool,
}

/// A name in the subjectAltName of a certificate, of a kind that an IKE identity can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// dNSName.
    Dns(String),
    /// rfc822Name.
    Email(String),
    /// iPAddress.
    Ip(IpAddr),
}

/// What is wrong with a certificate, a chain or a CRL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// It is a CA's.
    #[error("it is the certificate of a CA, not of a host")]
    CaCertificate,
    /// The CRL for it is out of date.
    #[error("the CRL that could say whether it is revoked is out of date since {0}")]
    CrlExpired(Time),
    /// The CRL does not hold.
    #[error("the CRL that could say whether it is revoked is not signed by its issuer")]
    CrlSignature,
    /// Its time is over, or that of a CA above it.
    #[error("it, or a CA's above it, expired {0}")]
    Expired(Time),
    /// The extended key usage does not allow IKE (RFC 4945 §5.1.3.12).
    #[error("its extended key usage, or that of a CA above it, does not allow IKE")]
    ExtendedKeyUsage,
    /// Its key is none of ours.
    #[error("{0}")]
    Key(#[from] PublicKeyError),
    /// The key usage does not allow signatures (RFC 4945 §5.1.3.2).
    #[error("its key usage allows no signatures")]
    KeyUsage,
    /// Not well-formed, or with a critical extension that nobody knows.
    #[error("it cannot be read: {0}")]
    Malformed(&'static str),
    /// A CA above it may not issue for such names.
    #[error("a CA above it may not issue certificates with its names (name constraints)")]
    NameConstraints,
    /// Its time is to come, or that of a CA above it.
    #[error("it, or a CA's above it, is not valid before {0}")]
    NotYetValid(Time),
    /// Other than the above: basic constraints, path lengths.
    #[error("its chain breaks a rule of RFC 5280: {0}")]
    Path(String),
    /// It is in its issuer's CRL.
    #[error("it, or a CA's above it, is revoked")]
    Revoked,
    /// Nothing says whether it is revoked, and something has to.
    #[error(
        "nothing says whether it, or a CA's above it, is revoked: there is no CRL of its issuer{0}"
    )]
    StatusUnknown(OcspNote),
    /// It is signed in a way that is not ours, such as with SHA-1.
    #[error("it, or a CA's above it, is signed with an algorithm that is not accepted")]
    SignatureAlgorithm,
    /// Longer than we look at.
    #[error("it is longer than {MAX_CERTIFICATE} bytes")]
    TooLong,
    /// No CA that is trusted has issued it.
    #[error("no CA that is trusted here has issued it; it says that its issuer is {0}")]
    UnknownIssuer(String),
}

/// What was wrong with the OCSP response, where one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OcspNote(pub Option<OcspError>);

impl fmt::Display for OcspNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => write!(f, ", and its OCSP response does not help: {error}"),
            None => f.write_str(", and no OCSP response came"),
        }
    }
}

/// A point in time, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(u64);

impl Certificate {
    /// Reads the DER of a certificate.
    ///
    /// # Errors
    /// When it is malformed, too long, or its key is not of our kinds.
    pub fn parse(der: &[u8]) -> Result<Self, CertError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertError::TooLong);
        }
        let malformed = |_| CertError::Malformed("it is no X.509 certificate");
        let read = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = read.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let names = tbs
            .get_extension::<SubjectAltName>()
            .map_err(|_| CertError::Malformed("its subjectAltName is broken"))?
            .map_or_else(Vec::new, |(_critical, names)| {
                names.0.iter().filter_map(subject_name).collect()
            });
        let may_sign = tbs
            .get_extension::<KeyUsage>()
            .map_err(|_| CertError::Malformed("its keyUsage is broken"))?
            .is_none_or(|(_critical, usage)| usage.digital_signature() || usage.non_repudiation());
        let has_status_uri = tbs.extensions().is_some_and(|extensions| {
            let responder = ID_AD_OCSP.as_bytes();
            extensions.iter().any(|extension| {
                extension.extn_id == CrlDistributionPoints::OID
                    || (extension.extn_id == AuthorityInfoAccessSyntax::OID
                        && extension
                            .extn_value
                            .as_bytes()
                            .windows(responder.len())
                            .any(|bytes| bytes == responder))
            })
        });
        Ok(Self {
            serial: tbs.serial_number().as_bytes().to_vec(),
            has_status_uri,
            subject: tbs.subject().to_der().map_err(malformed)?,
            issuer: tbs.issuer().to_der().map_err(malformed)?,
            key: PublicKey::of_spki(&spki)?,
            der: der.to_vec(),
            names,
            may_sign,
        })
    }

    /// Its DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The DER of its subject, a distinguished name.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The DER of its issuer's name.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Its serial number, as the contents of a DER INTEGER.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The names in its subjectAltName.
    #[must_use]
    pub fn names(&self) -> &[SubjectName] {
        &self.names
    }

    /// From when to when it is in force, since 1970.
    #[must_use]
    pub fn validity(&self) -> Option<(Duration, Duration)> {
        let read = x509_cert::Certificate::from_der(&self.der).ok()?;
        let validity = read.tbs_certificate().validity();
        Some((validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration()))
    }

    /// Its public key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.key
    }
}

fn subject_name(name: &GeneralName) -> Option<SubjectName> {
    match name {
        GeneralName::DnsName(name) => Some(SubjectName::Dns(name.as_str().to_owned())),
        GeneralName::Rfc822Name(name) => Some(SubjectName::Email(name.as_str().to_owned())),
        GeneralName::IpAddress(bytes) => {
            if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_bytes()) {
                return Some(SubjectName::Ip(v4.into()));
            }
            <[u8; 16]>::try_from(bytes.as_bytes()).ok().map(|v6| SubjectName::Ip(v6.into()))
        }
        GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::OtherName(_)
        | GeneralName::RegisteredId(_)
        | GeneralName::UniformResourceIdentifier(_) => None,
    }
}

/// Which extended key usage lets a certificate authenticate an IKE peer. One without the extension may always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtendedKeyUsage {
    /// Whatever it says, as RFC 4945 §5.1.3.12 lets an operator tell.
    Any,
    /// Those of `Ipsec`, iKEIntermediate, serverAuth and clientAuth.
    ///
    /// Deviates from RFC 4945 §5.1.3.12, which wants the others refused: certificates of gateways have these, because
    /// Windows wants them and strongSwan's `pki` is told so by every manual.
    #[default]
    Authentication,
    /// ipsecIKE or anyExtendedKeyUsage (RFC 4945 §5.1.3.12).
    Ipsec,
}

/// Of which certificates something must say that they are not revoked. What is known to be revoked is refused in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revocation {
    /// Those that say where it can be asked.
    IfUri,
    /// None.
    #[default]
    Relaxed,
    /// All, but for the CAs that are trusted.
    Strict,
}

/// The CAs that are trusted, and what they have revoked.
pub struct Trust {
    cas: Vec<Ca>,
    usage: ExtendedKeyUsage,
    revocation: Revocation,
    crls: Vec<Crl>,
}

struct Crl {
    der: Vec<u8>,
    read: CertRevocationList<'static>,
    /// Whose it is, if it is about all that this CA has issued.
    complete_of: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Ca {
    der: Vec<u8>,
    subject: Vec<u8>,
    anchor: TrustAnchor<'static>,
    hash: [u8; 20],
}

impl Trust {
    /// These CAs, by the DER of their certificates. Their validity and constraints do not matter, as RFC 5280 §6.1.1 has it for trust
    /// anchors; their name constraints do.
    ///
    /// # Errors
    /// The first that cannot be used, by its number.
    pub fn new(cas: &[Vec<u8>]) -> Result<Self, (usize, CertError)> {
        let ca = |der: &Vec<u8>| {
            let read = Certificate::parse(der)?;
            let der = CertificateDer::from(der.clone());
            let anchor =
                webpki::anchor_from_trusted_cert(&der).map_err(|error| of_webpki(error, &[]))?;
            Ok(Ca {
                anchor: anchor.to_owned(),
                hash: read.key.certreq_hash(),
                subject: read.subject,
                der: read.der,
            })
        };
        let cas = cas.iter().enumerate().map(|(i, der)| ca(der).map_err(|error| (i, error)));
        Ok(Self {
            cas: cas.collect::<Result<_, _>>()?,
            usage: ExtendedKeyUsage::default(),
            revocation: Revocation::default(),
            crls: Vec::new(),
        })
    }

    /// Adds CRLs, by their DER. They are looked at where their issuer is in a chain, and must be in date then.
    ///
    /// # Errors
    /// The first that cannot be used, by its number.
    pub fn with_crls(mut self, crls: &[Vec<u8>]) -> Result<Self, (usize, CertError)> {
        for (i, der) in crls.iter().enumerate() {
            let crl = BorrowedCertRevocationList::from_der(der)
                .and_then(|crl| crl.to_owned())
                .map_err(|error| (i, of_webpki(error, &[])))?;
            let read = CertRevocationList::from(crl);
            self.crls.push(Crl { der: der.clone(), read, complete_of: complete_of(der) });
        }
        Ok(self)
    }

    /// The same CAs and rules with other CRLs.
    ///
    /// # Errors
    /// The first that cannot be used, by its number.
    pub fn with_other_crls(&self, crls: &[Vec<u8>]) -> Result<Self, (usize, CertError)> {
        let (cas, usage, revocation) = (self.cas.clone(), self.usage, self.revocation);
        Self { cas, usage, revocation, crls: Vec::new() }.with_crls(crls)
    }

    /// Says of which certificates something must say that they are not revoked.
    #[must_use]
    pub fn with_revocation(mut self, revocation: Revocation) -> Self {
        self.revocation = revocation;
        self
    }

    /// Whether an OCSP response is of use (RFC 4806): where not all is taken that nothing is known of.
    #[must_use]
    pub fn wants_ocsp(&self) -> bool {
        self.revocation != Revocation::Relaxed && !self.cas.is_empty()
    }

    /// Whether the CAs and rules are the same, whatever the CRLs.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.cas.iter().map(|ca| &ca.der).eq(other.cas.iter().map(|ca| &ca.der))
            && self.usage == other.usage
            && self.revocation == other.revocation
    }

    /// Says which extended key usage a certificate must have, if it has one.
    #[must_use]
    pub fn with_extended_key_usage(mut self, usage: ExtendedKeyUsage) -> Self {
        self.usage = usage;
        self
    }

    /// SHA-1 of each CA's public key: the contents of a CERTREQ payload (RFC 7296 §3.7).
    pub fn certreq_hashes(&self) -> impl Iterator<Item = [u8; 20]> + '_ {
        self.cas.iter().map(|ca| ca.hash)
    }

    /// The subjects of the CAs, for people.
    #[must_use]
    pub fn ca_names(&self) -> Vec<String> {
        self.cas.iter().map(|ca| name_text(&ca.subject)).collect()
    }

    /// Whether a chain leads from a certificate, by these others where they are needed, to one of the CAs; whether all of it
    /// is in force `now` (since 1970), and may sign for IKE. Proves nothing about who holds the key.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(
        &self,
        leaf: &Certificate,
        others: &[Vec<u8>],
        now: Duration,
    ) -> Result<(), CertError> {
        self.verify_with_ocsp(leaf, others, &[], now)
    }

    /// The same with OCSP responses that came with it (RFC 4806).
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify_with_ocsp(
        &self,
        leaf: &Certificate,
        others: &[Vec<u8>],
        ocsp: &[Vec<u8>],
        now: Duration,
    ) -> Result<(), CertError> {
        let der = CertificateDer::from(leaf.der.as_slice());
        let others: Vec<_> =
            others.iter().map(|other| CertificateDer::from(other.as_slice())).collect();
        let anchors: Vec<_> = self.cas.iter().map(|ca| ca.anchor.clone()).collect();
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().map(|crl| &crl.read).collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                // Where there is no CRL of an issuer, it says nothing; where there is one, it must be current.
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let wrong = |error| of_webpki(error, &leaf.issuer);
        let end_entity = EndEntityCert::try_from(&der).map_err(wrong)?;
        let path = end_entity
            .verify_for_usage(
                ALGORITHMS,
                &anchors,
                &others,
                UnixTime::since_unix_epoch(now),
                IkeUsage(self.usage),
                revocation,
                None,
            )
            .map_err(wrong)?;
        // RFC 4945 §5.1.3.2: one of the two, if there is a key usage at all.
        if !leaf.may_sign {
            return Err(CertError::KeyUsage);
        }
        let above: Vec<_> =
            path.intermediate_certificates().map(|ca| Certificate::parse(&ca.der())).collect();
        let above = above.into_iter().collect::<Result<Vec<_>, _>>()?;
        let by_ocsp = self.ocsp_status(leaf, above.first(), path.anchor(), ocsp, now);
        if by_ocsp == Ok(OcspStatus::Revoked) {
            return Err(CertError::Revoked);
        }
        let note = OcspNote(by_ocsp.err().filter(|_| !ocsp.is_empty()));
        let has_status = |certificate: &Certificate| {
            (by_ocsp == Ok(OcspStatus::Good) && certificate == leaf)
                || self
                    .crls
                    .iter()
                    .any(|crl| crl.complete_of.as_deref() == Some(&certificate.issuer))
        };
        let needs_status = |certificate: &Certificate| match self.revocation {
            Revocation::IfUri => certificate.has_status_uri,
            Revocation::Relaxed => false,
            Revocation::Strict => true,
        };
        let is_missing =
            |certificate: &&Certificate| needs_status(certificate) && !has_status(certificate);
        let unknown = core::iter::once(leaf).chain(&above).find(is_missing);
        unknown.map_or(Ok(()), |_| Err(CertError::StatusUnknown(note)))
    }

    /// What the first of these responses says that says anything; why the last does not, if none does.
    fn ocsp_status(
        &self,
        leaf: &Certificate,
        above: Option<&Certificate>,
        anchor: &TrustAnchor<'_>,
        responses: &[Vec<u8>],
        now: Duration,
    ) -> Result<OcspStatus, OcspError> {
        let of_anchor = || {
            let ca = self.cas.iter().find(|ca| {
                ca.anchor.subject == anchor.subject
                    && ca.anchor.subject_public_key_info == anchor.subject_public_key_info
            });
            ca.and_then(|ca| Certificate::parse(&ca.der).ok())
        };
        let issuer = above.cloned().or_else(of_anchor).ok_or(OcspError::OtherCertificate)?;
        let mut last = Err(OcspError::OtherCertificate);
        for der in responses {
            last = OcspResponse::parse(der).and_then(|found| found.status(leaf, &issuer, now));
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// The issuer of a CRL without issuingDistributionPoint, which would say that it is about some certificates alone (RFC 5280 §5.2.5).
fn complete_of(der: &[u8]) -> Option<Vec<u8>> {
    let list = CertificateList::<Rfc5280>::from_der(der).ok()?.tbs_cert_list;
    let of_some =
        |extension: &x509_cert::ext::Extension| extension.extn_id == IssuingDistributionPoint::OID;
    let is_partial = list.crl_extensions.iter().flatten().any(of_some);
    if is_partial { None } else { list.issuer.to_der().ok() }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.is_like(other)
            && self.crls.iter().map(|crl| &crl.der).eq(other.crls.iter().map(|crl| &crl.der))
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("cas", &self.ca_names())
            .field("crls", &self.crls.len())
            .finish()
    }
}

/// Whether two distinguished names are the same one: the same attributes in the same order, the same letters in them. In which type of
/// string they are written does not matter, as certificates and configurations differ in it (RFC 5280 §7.1).
#[must_use]
pub fn same_name(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (RdnSequence::from_der(a), RdnSequence::from_der(b)) else { return false };
    let same_value = |a: &Any, b: &Any| {
        a == b || (is_text(a.tag()) && is_text(b.tag()) && a.value() == b.value())
    };
    a.len() == b.len()
        && a.iter().zip(b.iter()).all(|(a, b)| {
            a.len() == b.len()
                && a.iter()
                    .all(|a| b.iter().any(|b| a.oid == b.oid && same_value(&a.value, &b.value)))
        })
}

fn is_text(tag: Tag) -> bool {
    matches!(tag, Tag::PrintableString | Tag::Utf8String | Tag::Ia5String | Tag::TeletexString)
}

/// A distinguished name for people; it comes from the network, so that control characters are escaped and it is cut.
fn name_text(der: &[u8]) -> String {
    let text = Name::from_der(der).map(|name| name.to_string()).unwrap_or_default();
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(time) => fmt::Display::fmt(&time, f),
            Err(_) => write!(f, "{} seconds after 1970", self.0),
        }
    }
}

struct IkeUsage(ExtendedKeyUsage);

/// 1.3.6.1.5.5.7.3, the arc of id-kp-ipsecIKE (17), id-kp-serverAuth (1), id-kp-clientAuth (2).
const fn purpose(arc: u8) -> [u8; 8] {
    [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, arc]
}

const IPSEC_IKE: &[u8] = &purpose(17);
/// anyExtendedKeyUsage, 2.5.29.37.0.
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// What says nearly the same: iKEIntermediate (1.3.6.1.5.5.8.2.2), which came before ipsecIKE, and the two for TLS.
const AUTHENTICATION: [&[u8]; 3] =
    [&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x08, 0x02, 0x02], &purpose(1), &purpose(2)];

impl ExtendedKeyUsageValidator for IkeUsage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let good: &[&[u8]] = match self.0 {
            ExtendedKeyUsage::Any => return Ok(()),
            ExtendedKeyUsage::Authentication => &AUTHENTICATION,
            ExtendedKeyUsage::Ipsec => &[],
        };
        let mut present = Vec::new();
        for usage in usages {
            let usage = usage?;
            let is = |oid: &&[u8]| usage == KeyPurposeId::new(oid);
            if is(&IPSEC_IKE) || is(&ANY_USAGE) || good.iter().any(is) {
                return Ok(());
            }
            present.push(usage.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
            required: webpki::KeyUsage::required_if_present(IPSEC_IKE),
            present,
        }))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds to its errors")]
fn of_webpki(error: webpki::Error, issuer: &[u8]) -> CertError {
    use webpki::Error;
    match error {
        Error::CaUsedAsEndEntity => CertError::CaCertificate,
        Error::CertExpired { not_after, .. } => CertError::Expired(Time(not_after.as_secs())),
        Error::CertNotValidYet { not_before, .. } => {
            CertError::NotYetValid(Time(not_before.as_secs()))
        }
        Error::CertRevoked => CertError::Revoked,
        Error::CrlExpired { next_update, .. } => CertError::CrlExpired(Time(next_update.as_secs())),
        Error::InvalidCrlSignatureForPublicKey | Error::IssuerNotCrlSigner => {
            CertError::CrlSignature
        }
        Error::NameConstraintViolation => CertError::NameConstraints,
        Error::EmptyEkuExtension | Error::RequiredEkuNotFoundContext(_) => {
            CertError::ExtendedKeyUsage
        }
        Error::UnsupportedCriticalExtension => {
            CertError::Malformed("it has a critical extension that is not known here")
        }
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            CertError::SignatureAlgorithm
        }
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => {
            CertError::Malformed("its DER is broken")
        }
        // A chain that a CA of the same name but another key would have to begin.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
            CertError::UnknownIssuer(name_text(issuer))
        }
        other => CertError::Path(other.to_string()),
    }
}

/// Every algorithm with which a certificate or CRL may be signed: RSA of 2048 bits and more, ECDSA, Ed25519, with SHA-2.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    &Ecdsa { kind: KeyKind::EcdsaP256, hash: Hash::Sha512 },
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    &Ecdsa { kind: KeyKind::EcdsaP384, hash: Hash::Sha512 },
    &Ecdsa { kind: KeyKind::EcdsaP521, hash: Hash::Sha256 },
    &Ecdsa { kind: KeyKind::EcdsaP521, hash: Hash::Sha384 },
    &Ecdsa { kind: KeyKind::EcdsaP521, hash: Hash::Sha512 },
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// ECDSA where `ring` does not have it.
#[derive(Debug)]
struct Ecdsa {
    kind: KeyKind,
    hash: Hash,
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let scheme = Scheme::Ecdsa(self.hash);
        let good = verify_ecdsa(self.kind, public_key, scheme, message, signature);
        if good { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.kind {
            KeyKind::EcdsaP256 => alg_id::ECDSA_P256,
            KeyKind::EcdsaP384 => alg_id::ECDSA_P384,
            KeyKind::EcdsaP521 | KeyKind::Ed25519 | KeyKind::Rsa { .. } => alg_id::ECDSA_P521,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.hash {
            Hash::Sha1 | Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
            Hash::Sha512 => alg_id::ECDSA_SHA512,
        }
    }
}

#[cfg(test)]
mod tests;
