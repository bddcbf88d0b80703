//! How both sides of a PAD entry prove who they are (RFC 4301 §4.4.3.2, RFC 7296 §2.15).

use std::sync::Arc;

use super::{EapClient, EapServer};
use crate::crypto::Secret;
use crate::crypto::sign::{PublicKey, Signer};
use crate::crypto::x509::{CertError, Certificate, Trust};

/// How the sides prove who they are, each in its own way (RFC 7296 §2.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// What we prove it with.
    pub local: LocalAuth,
    /// What the peer has to prove it with.
    pub peer: PeerAuth,
}

/// What we prove with who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAuth {
    /// By EAP, as initiator alone (RFC 7296 §2.16).
    Eap(Arc<EapClient>),
    /// A key that both have.
    Psk(Secret),
    /// Private keys, each with what says whose it is. Of several the first is used that the peer can verify. Never empty.
    Signature(Arc<[Credential]>),
}

/// What a peer has to prove with who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAuth {
    /// By EAP, as initiator alone (RFC 7296 §2.16).
    Eap(Arc<EapServer>),
    /// A key that both have.
    Psk(Secret),
    /// A private key, and a certificate from a CA that is trusted, or a public key that is known.
    Signature(Arc<Authority>),
}

/// A private key, and what is shown of it.
#[derive(Clone, Debug)]
pub struct Credential {
    presented: Presented,
    roots: Vec<[u8; 20]>,
    ocsp: Option<Vec<u8>>,
    signer: Arc<dyn Signer>,
}

/// What goes into CERT payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// The certificate of the key, then those of the CAs between it and one that peers trust.
    Chain(Vec<Certificate>),
    /// The public key by itself (RFC 7670), which peers have to know.
    RawKey,
}

/// Whose signatures are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Authority {
    /// The CAs and their CRLs; none if only `keys` count.
    pub trust: Trust,
    /// Public keys that are the peer's, without a certificate (RFC 7670).
    pub keys: Vec<PublicKey>,
    /// Whether RSA with SHA-1 is taken from a peer that has nothing better: AUTH method 1 without RFC 7427.
    pub allow_sha_1: bool,
}

impl Authority {
    fn is_like(&self, other: &Self) -> bool {
        self.trust.is_like(&other.trust)
            && self.keys == other.keys
            && self.allow_sha_1 == other.allow_sha_1
    }

    /// The same with other CRLs.
    ///
    /// # Errors
    /// The first that cannot be used, by its number.
    pub fn with_other_crls(&self, crls: &[Vec<u8>]) -> Result<Self, (usize, CertError)> {
        let trust = self.trust.with_other_crls(crls)?;
        Ok(Self { trust, keys: self.keys.clone(), allow_sha_1: self.allow_sha_1 })
    }
}

impl Auth {
    /// Both sides by the same key.
    #[must_use]
    pub fn psk(key: Secret) -> Self {
        Self { local: LocalAuth::Psk(key.clone()), peer: PeerAuth::Psk(key) }
    }

    /// Whether who proved itself by the one has done so by the other: they differ in CRLs and OCSP responses at most.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.local == other.local
            && match (&self.peer, &other.peer) {
                (PeerAuth::Signature(a), PeerAuth::Signature(b)) => a.is_like(b),
                (PeerAuth::Eap(a), PeerAuth::Eap(b)) => {
                    a.methods == b.methods
                        && a.users == b.users
                        && match (&a.authority, &b.authority) {
                            (Some(a), Some(b)) => a.is_like(b),
                            (a, b) => a.is_none() && b.is_none(),
                        }
                }
                (a, b) => a == b,
            }
    }

    /// Whether a signature is made or wanted.
    #[must_use]
    pub const fn has_signature(&self) -> bool {
        matches!(self.local, LocalAuth::Signature(_)) || matches!(self.peer, PeerAuth::Signature(_))
    }
}

impl Credential {
    /// The certificate of the key that `signer` holds, then those of the CAs between it and one that peers trust. `None` if the
    /// first is missing or another key's.
    #[must_use]
    pub fn new(chain: Vec<Certificate>, signer: Arc<dyn Signer>) -> Option<Self> {
        (chain.first()?.public_key() == signer.public_key()).then_some(Self {
            presented: Presented::Chain(chain),
            roots: Vec::new(),
            ocsp: None,
            signer,
        })
    }

    /// Says which CAs above the chain are known, by the hash that names them in a CERTREQ payload (RFC 7296 §3.7).
    #[must_use]
    pub fn with_roots(mut self, roots: Vec<[u8; 20]>) -> Self {
        self.roots = roots;
        self
    }

    /// Says what a responder has said of the certificate: the DER of an OCSPResponse, for peers that ask for it (RFC 4806).
    #[must_use]
    pub fn with_ocsp(mut self, der: Option<Vec<u8>>) -> Self {
        self.ocsp = der;
        self
    }

    /// The OCSP response for the certificate.
    #[must_use]
    pub fn ocsp(&self) -> Option<&[u8]> {
        self.ocsp.as_deref()
    }

    /// The key that `signer` holds, without a certificate (RFC 7670).
    #[must_use]
    pub fn raw(signer: Arc<dyn Signer>) -> Self {
        Self { presented: Presented::RawKey, roots: Vec::new(), ocsp: None, signer }
    }

    /// What goes into CERT payloads.
    #[must_use]
    pub const fn presented(&self) -> &Presented {
        &self.presented
    }

    /// The certificates; the first is ours. None, if the key goes without.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        match &self.presented {
            Presented::Chain(chain) => chain,
            Presented::RawKey => &[],
        }
    }

    /// The CAs above the chain, by their hashes in CERTREQ payloads.
    #[must_use]
    pub fn roots(&self) -> &[[u8; 20]] {
        &self.roots
    }

    /// What holds the private key.
    #[must_use]
    pub fn signer(&self) -> &dyn Signer {
        &*self.signer
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_signer(&self) -> Arc<dyn Signer> {
        Arc::clone(&self.signer)
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.presented == other.presented && self.signer.public_key() == other.signer.public_key()
    }
}

impl Eq for Credential {}
