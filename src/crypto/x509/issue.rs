//! Making certificates and requests for them (RFC 5280, RFC 2986), as `ipsecd pki` does.

use core::time::Duration;

use p256::ecdsa::signature::Keypair;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder, Error};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, Ia5String, ObjectIdentifier};
use x509_cert::der::{Decode, Document, Encode, Tag};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::request::RequestBuilder;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey,
    SubjectPublicKeyInfo, SubjectPublicKeyInfoRef,
};
use x509_cert::time::{Time, Validity};

use super::{Certificate, SubjectName};
use crate::crypto::SecureRandom;
use crate::crypto::sign::{Hash, KeyKind, PublicKey, Scheme, Signer};

/// From when to when a certificate is valid, each since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// notBefore.
    pub begin: Duration,
    /// notAfter.
    pub end: Duration,
}

/// The library could not make it: a name has letters that it cannot have, or the key did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IssueError(String);

impl From<Error> for IssueError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl From<x509_cert::der::Error> for IssueError {
    fn from(error: x509_cert::der::Error) -> Self {
        Self(error.to_string())
    }
}

/// The DER of a CA's certificate, by its own key.
///
/// # Errors
/// When it cannot be made.
pub fn ca(
    rng: &mut dyn SecureRandom,
    key: &dyn Signer,
    common_name: &str,
    period: Period,
) -> Result<Vec<u8>, IssueError> {
    let profile = Profile { subject: name(common_name)?, issuer: None, names: Vec::new() };
    certificate(rng, key, key.public_key(), profile, period)
}

/// The DER of a host's certificate by a CA. It says what strongSwan and others look for: subjectAltName, and extended key
/// usage for IKE and, for Windows, serverAuth.
///
/// # Errors
/// When it cannot be made.
pub fn host(
    rng: &mut dyn SecureRandom,
    ca: (&Certificate, &dyn Signer),
    key: &PublicKey,
    common_name: &str,
    names: &[SubjectName],
    period: Period,
) -> Result<Vec<u8>, IssueError> {
    let issuer = Some(Name::from_der(ca.0.subject())?);
    let profile = Profile { subject: name(common_name)?, issuer, names: names.to_vec() };
    certificate(rng, ca.1, key, profile, period)
}

/// The DER of a request for a certificate (PKCS #10), to be brought to some other CA.
///
/// # Errors
/// When it cannot be made.
pub fn request(
    rng: &mut dyn SecureRandom,
    key: &dyn Signer,
    common_name: &str,
    names: &[SubjectName],
) -> Result<Vec<u8>, IssueError> {
    let mut builder = RequestBuilder::new(name(common_name)?)?;
    builder.add_extension(&subject_alt_name(names)?)?;
    let signer = Key(key);
    let signature = signer.sign(rng, &builder.finalize(&signer)?)?;
    Ok(builder.assemble(signature, &signer)?.to_der()?)
}

fn certificate(
    rng: &mut dyn SecureRandom,
    issuer: &dyn Signer,
    subject: &PublicKey,
    profile: Profile,
    period: Period,
) -> Result<Vec<u8>, IssueError> {
    let mut serial = [0; 16];
    rng.fill(&mut serial);
    // RFC 5280 §4.1.2.2: positive and not zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let time = |at| GeneralizedTime::from_unix_duration(at).map(Time::GeneralTime);
    let validity = Validity::new(time(period.begin)?, time(period.end)?);
    let spki = SubjectPublicKeyInfo::from_der(subject.spki())?;
    let mut builder =
        CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, spki)?;
    let signer = Key(issuer);
    let signature = signer.sign(rng, &builder.finalize(&signer)?)?;
    Ok(builder.assemble(signature, &signer)?.to_der()?)
}

/// A subject with a common name alone.
fn name(common_name: &str) -> Result<Name, IssueError> {
    const CN: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let value = Any::new(Tag::Utf8String, common_name.as_bytes())?;
    let rdn = RelativeDistinguishedName::try_from(vec![AttributeTypeAndValue { oid: CN, value }])?;
    Ok(Name::from_der(&RdnSequence::from(vec![rdn]).to_der()?)?)
}

fn subject_alt_name(names: &[SubjectName]) -> Result<SubjectAltName, x509_cert::der::Error> {
    let names = names.iter().map(|name| match name {
        SubjectName::Dns(name) => Ia5String::new(name).map(GeneralName::DnsName),
        SubjectName::Email(name) => Ia5String::new(name).map(GeneralName::Rfc822Name),
        SubjectName::Ip(addr) => Ok(GeneralName::from(*addr)),
    });
    Ok(SubjectAltName(names.collect::<Result<_, _>>()?))
}

/// What stands in a certificate.
struct Profile {
    subject: Name,
    /// `None`: a CA, by its own key.
    issuer: Option<Name>,
    names: Vec<SubjectName>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        self.issuer.clone().unwrap_or_else(|| subject.clone())
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer_key: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        const IPSEC_IKE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.17");
        const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
        let is_ca = self.issuer.is_none();
        let usage = if is_ca {
            KeyUsages::KeyCertSign | KeyUsages::CRLSign
        } else {
            KeyUsages::DigitalSignature.into()
        };
        let mut all: Vec<Extension> = Vec::new();
        let constraints = BasicConstraints { ca: is_ca, path_len_constraint: None };
        all.push((true, &constraints).to_extension(&self.subject, &all)?);
        all.push((true, &KeyUsage(usage)).to_extension(&self.subject, &all)?);
        let key_id = SubjectKeyIdentifier::try_from(key)?;
        all.push((false, &key_id).to_extension(&self.subject, &all)?);
        let issuer_id = AuthorityKeyIdentifier {
            key_identifier: Some(SubjectKeyIdentifier::try_from(issuer_key)?.0),
            ..AuthorityKeyIdentifier::default()
        };
        all.push((false, &issuer_id).to_extension(&self.subject, &all)?);
        if !is_ca {
            let usage = ExtendedKeyUsage(vec![IPSEC_IKE, SERVER_AUTH]);
            all.push((false, &usage).to_extension(&self.subject, &all)?);
            let names = subject_alt_name(&self.names)?;
            all.push((false, &names).to_extension(&self.subject, &all)?);
        }
        Ok(all)
    }
}

/// A [`Signer`] under the traits that the builders ask for.
struct Key<'a>(&'a dyn Signer);

#[derive(Clone)]
struct Public(Vec<u8>);

impl Key<'_> {
    /// With what all who read certificates can verify.
    fn scheme(&self) -> Scheme {
        match self.0.public_key().kind() {
            KeyKind::EcdsaP256 => Scheme::Ecdsa(Hash::Sha256),
            KeyKind::EcdsaP384 => Scheme::Ecdsa(Hash::Sha384),
            KeyKind::EcdsaP521 => Scheme::Ecdsa(Hash::Sha512),
            KeyKind::Ed25519 => Scheme::Ed25519,
            KeyKind::Rsa { .. } => Scheme::RsaPkcs1(Hash::Sha256),
        }
    }

    fn sign(&self, rng: &mut dyn SecureRandom, message: &[u8]) -> Result<BitString, IssueError> {
        let signature = self
            .0
            .sign(rng, self.scheme(), message)
            .map_err(|error| IssueError(error.to_string()))?;
        Ok(BitString::from_bytes(&signature)?)
    }
}

impl Keypair for Key<'_> {
    type VerifyingKey = Public;

    fn verifying_key(&self) -> Public {
        Public(self.0.public_key().spki().to_vec())
    }
}

impl EncodePublicKey for Public {
    fn to_public_key_der(&self) -> x509_cert::spki::Result<Document> {
        Ok(Document::try_from(self.0.as_slice())?)
    }
}

impl DynSignatureAlgorithmIdentifier for Key<'_> {
    fn signature_algorithm_identifier(&self) -> x509_cert::spki::Result<AlgorithmIdentifierOwned> {
        let der = self.scheme().algorithm_identifier().unwrap_or_default();
        Ok(AlgorithmIdentifierOwned::from_der(&der)?)
    }
}
