//! TLS 1.2 and 1.3 by `rustls`, without sockets: what EAP-TLS needs (RFC 5216, RFC 9190). Both sides show certificates.
//!
//! Who is trusted is asked of the caller; signatures are made by a [`Signer`] and verified by [`PublicKey`], so that all that is
//! true of keys and certificates in IKE is true here. No session is resumed. The randomness of TLS is the operating system's,
//! since `rustls` takes no other.

use core::fmt;
use core::time::Duration;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{self, CertifiedKey, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    DistinguishedName, Error, ProtocolVersion, ServerConfig, ServerConnection, SignatureAlgorithm,
    SignatureScheme,
};

use super::Secret;
use super::random::SecureRandom;
use super::sign::{Hash, KeyKind, Scheme, Signer};
use super::x509::{CertError, Certificate};

/// Says of the other side's certificate, with those sent beside it, whether it is trusted.
pub type Judge = Arc<dyn Fn(&Certificate, &[Vec<u8>]) -> Result<(), CertError> + Send + Sync>;

/// What this side of a TLS connection has.
#[derive(Clone)]
pub struct Party {
    /// The certificate, then those above it. Never empty.
    pub chain: Vec<Certificate>,
    /// The private key of the first.
    pub signer: Arc<dyn Signer>,
    /// Whom it trusts.
    pub judge: Judge,
    /// The time since 1970.
    pub now: Duration,
}

/// One TLS connection from the first handshake message on.
pub struct Tls {
    connection: Box<Connection>,
}

/// Why a TLS connection ended. Nothing secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The other side's certificate is not trusted.
    #[error("the certificate is not accepted: {0}")]
    Certificate(CertError),
    /// All else, in the words of the library.
    #[error("{0}")]
    Other(String),
}

impl Tls {
    /// The side that begins.
    ///
    /// # Errors
    /// When the library takes no such configuration.
    pub fn client(party: Party) -> Result<Self, TlsError> {
        let shared = Arc::new(Shared(party));
        let mut config = ClientConfig::builder_with_details(crypto(), shared.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(of_rustls)?
            .dangerous()
            .with_custom_certificate_verifier(shared.clone())
            .with_client_cert_resolver(shared);
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // Nobody reads it: no name goes out, and who the server is gets judged by its certificate.
        let name = ServerName::try_from("eap.invalid").map_err(|_| other("no server name"))?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(of_rustls)?;
        Ok(Self { connection: Box::new(connection.into()) })
    }

    /// The side that waits. It wants a certificate of the other.
    ///
    /// # Errors
    /// When the library takes no such configuration.
    pub fn server(party: Party) -> Result<Self, TlsError> {
        let shared = Arc::new(Shared(party));
        let mut config = ServerConfig::builder_with_details(crypto(), shared.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(of_rustls)?
            .with_client_cert_verifier(shared.clone())
            .with_cert_resolver(shared);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let connection = ServerConnection::new(Arc::new(config)).map_err(of_rustls)?;
        Ok(Self { connection: Box::new(connection.into()) })
    }

    /// Takes in records of the other side.
    ///
    /// # Errors
    /// What is wrong with them, or with the certificate in them. An alert may be left to send.
    pub fn take(&mut self, mut records: &[u8]) -> Result<(), TlsError> {
        while !records.is_empty() {
            let before = records.len();
            self.connection.read_tls(&mut records).map_err(|error| other(&error.to_string()))?;
            self.connection.process_new_packets().map_err(of_rustls)?;
            // After a close_notify nothing is read any more.
            if records.len() == before {
                return Err(other("there is something after the end"));
            }
        }
        Ok(())
    }

    /// The records that are to be sent.
    pub fn give(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.connection.wants_write() {
            // A vector takes all there is.
            if self.connection.write_tls(&mut records).is_err() {
                break;
            }
        }
        records
    }

    /// Whether the handshake is not yet over.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether it is TLS 1.3, once that is agreed.
    #[must_use]
    pub fn is_1_3(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Has `data` sent as application data.
    ///
    /// # Errors
    /// When the library does not take it.
    pub fn write(&mut self, data: &[u8]) -> Result<(), TlsError> {
        self.connection.writer().write_all(data).map_err(|error| other(&error.to_string()))
    }

    /// Application data that has come, at most `limit` bytes.
    #[must_use]
    pub fn read(&mut self, limit: u64) -> Vec<u8> {
        let mut data = Vec::new();
        // That nothing more has come is an error to the library, after what there was.
        let _would_block = self.connection.reader().take(limit).read_to_end(&mut data);
        data
    }

    /// The other side's certificate, once it has shown one that is trusted.
    #[must_use]
    pub fn peer(&self) -> Option<Certificate> {
        Certificate::parse(self.connection.peer_certificates()?.first()?).ok()
    }

    /// Keying material (RFC 5705; RFC 8446 §7.5). Without `context` there is none in TLS 1.2, which makes the output that of the PRF
    /// alone.
    ///
    /// # Errors
    /// When the handshake is not over.
    pub fn export(
        &self,
        label: &[u8],
        context: Option<&[u8]>,
        len: usize,
    ) -> Result<Secret, TlsError> {
        let out = zeroize::Zeroizing::new(vec![0; len]);
        let out = self.connection.export_keying_material(Exported(out), label, context);
        out.map(|out| Secret::copy_of(&out.0)).map_err(of_rustls)
    }
}

/// Wiped on drop, and of the form that the library fills.
struct Exported(zeroize::Zeroizing<Vec<u8>>);

impl AsMut<[u8]> for Exported {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn other(text: &str) -> TlsError {
    // It may have words of the other side in it.
    TlsError::Other(text.chars().take(200).flat_map(char::escape_debug).collect())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds to its errors")]
fn of_rustls(error: Error) -> TlsError {
    match &error {
        Error::InvalidCertificate(CertificateError::Other(inner)) => {
            inner.0.downcast_ref::<CertError>().map_or_else(
                || other(&error.to_string()),
                |inner| TlsError::Certificate(inner.clone()),
            )
        }
        _ => other(&error.to_string()),
    }
}

fn judged(error: CertError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(error))))
}

/// A [`Party`] in all the roles that the library asks for.
struct Shared(Party);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl TimeProvider for Shared {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.now))
    }
}

impl Shared {
    fn judge(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let leaf = Certificate::parse(leaf).map_err(judged)?;
        let others: Vec<_> = others.iter().map(|other| other.to_vec()).collect();
        (self.0.judge)(&leaf, &others).map_err(judged)
    }

    fn verify(
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_1_3: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Certificate::parse(leaf).map_err(judged)?.public_key().clone();
        let scheme = scheme(signed.scheme, key.kind(), is_1_3);
        match scheme {
            Some(scheme) if key.verify(scheme, message, signed.signature()) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            _ => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
        }
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let chain = self.0.chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
        Arc::new(CertifiedKey::new(chain, Arc::new(Key(Arc::clone(&self.0.signer)))))
    }
}

impl ServerCertVerifier for Shared {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, leaf, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, leaf, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.iter().map(|(scheme, _)| *scheme).collect()
    }
}

impl ClientCertVerifier for Shared {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, leaf, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify(message, leaf, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.iter().map(|(scheme, _)| *scheme).collect()
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl rustls::client::ResolvesClientCert for Shared {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The schemes of TLS that are ours, the preferred first (RFC 8446 §4.2.3).
const SCHEMES: [(SignatureScheme, Scheme); 10] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, Scheme::Ecdsa(Hash::Sha256)),
    (SignatureScheme::ECDSA_NISTP384_SHA384, Scheme::Ecdsa(Hash::Sha384)),
    (SignatureScheme::ECDSA_NISTP521_SHA512, Scheme::Ecdsa(Hash::Sha512)),
    (SignatureScheme::ED25519, Scheme::Ed25519),
    (SignatureScheme::RSA_PSS_SHA256, Scheme::RsaPss(Hash::Sha256)),
    (SignatureScheme::RSA_PSS_SHA384, Scheme::RsaPss(Hash::Sha384)),
    (SignatureScheme::RSA_PSS_SHA512, Scheme::RsaPss(Hash::Sha512)),
    (SignatureScheme::RSA_PKCS1_SHA256, Scheme::RsaPkcs1(Hash::Sha256)),
    (SignatureScheme::RSA_PKCS1_SHA384, Scheme::RsaPkcs1(Hash::Sha384)),
    (SignatureScheme::RSA_PKCS1_SHA512, Scheme::RsaPkcs1(Hash::Sha512)),
];

/// Our name of a scheme, if it goes with the kind of key. In TLS 1.2 the curve is not part of it, and PKCS #1 v1.5 is left to it
/// (RFC 8446 §4.2.3).
fn scheme(of_tls: SignatureScheme, kind: KeyKind, is_1_3: bool) -> Option<Scheme> {
    let (_, scheme) = SCHEMES.into_iter().find(|(found, _)| *found == of_tls)?;
    let fits = match (scheme, kind) {
        (Scheme::Ecdsa(hash), KeyKind::EcdsaP256) => !is_1_3 || hash == Hash::Sha256,
        (Scheme::Ecdsa(hash), KeyKind::EcdsaP384) => !is_1_3 || hash == Hash::Sha384,
        (Scheme::Ecdsa(hash), KeyKind::EcdsaP521) => !is_1_3 || hash == Hash::Sha512,
        (Scheme::Ed25519, KeyKind::Ed25519) | (Scheme::RsaPss(_), KeyKind::Rsa { .. }) => true,
        (Scheme::RsaPkcs1(_), KeyKind::Rsa { .. }) => !is_1_3,
        _ => false,
    };
    fits.then_some(scheme)
}

/// A [`Signer`] as the library wants it.
#[derive(Debug)]
struct Key(Arc<dyn Signer>);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let kind = self.0.public_key().kind();
        // Those that both versions have first: the library does not say which it is.
        let (of_tls, scheme) = [true, false].into_iter().find_map(|is_1_3| {
            SCHEMES.iter().find_map(|(of_tls, _)| {
                let scheme = scheme(*of_tls, kind, is_1_3)?;
                offered.contains(of_tls).then_some((*of_tls, scheme))
            })
        })?;
        Some(Box::new(Signing { key: Arc::clone(&self.0), of_tls, scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.public_key().kind() {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                SignatureAlgorithm::ECDSA
            }
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
            KeyKind::Rsa { .. } => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct Signing {
    key: Arc<dyn Signer>,
    of_tls: SignatureScheme,
    scheme: Scheme,
}

impl sign::Signer for Signing {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::General("the private key failed".to_owned());
        self.key.sign(&mut System, self.scheme, message).map_err(failed)
    }

    fn scheme(&self) -> SignatureScheme {
        self.of_tls
    }
}

/// The operating system's randomness, by way of `ring`.
struct System;

impl SecureRandom for System {
    fn fill(&mut self, buf: &mut [u8]) {
        use ring::rand::SecureRandom as _;
        // It fails only where the system has no randomness at all, and then no key was made either.
        let filled = ring::rand::SystemRandom::new().fill(buf);
        assert!(filled.is_ok(), "the operating system has randomness");
    }
}
