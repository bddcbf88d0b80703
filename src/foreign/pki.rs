//! Certificates and private keys that a configuration of strongSwan uses: found where it has them, and copied.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::secrets::Passphrase;
use super::{At, Files, Import};
use crate::crypto::Secret;
use crate::crypto::pem;
use crate::crypto::sign::{PrivateKey, PublicKey, Signer};
use crate::crypto::x509::Certificate;

/// The folders of one program's files.
pub(super) struct Places {
    pub(super) certs: Vec<PathBuf>,
    pub(super) cas: Vec<PathBuf>,
    pub(super) crls: Vec<PathBuf>,
    pub(super) keys: Vec<PathBuf>,
    pub(super) public_keys: Vec<PathBuf>,
}

/// A certificate of ours, or a public key, with its file.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) text: Zeroizing<String>,
    pub(super) certificate: Option<Certificate>,
    pub(super) public: PublicKey,
}

pub(super) struct Pki<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) places: Places,
}

impl Pki<'_> {
    /// The certificate or public key that is called so.
    pub(super) fn find(&self, name: &str, public_key: bool) -> Option<Found> {
        let dirs = if public_key { &self.places.public_keys } else { &self.places.certs };
        let paths = dirs.iter().map(|dir| dir.join(name));
        paths.into_iter().find_map(|path| self.load(&path))
    }

    fn load(&self, path: &Path) -> Option<Found> {
        let bytes = self.files.read(path).ok()?;
        let name = path.file_name()?.to_str()?.to_owned();
        let mut blocks = pem::blocks(&bytes);
        let (label, der) = match blocks.next() {
            Some(block) => (block.label.clone(), block.der?.expose().to_vec()),
            None if Certificate::parse(&bytes).is_ok() => {
                ("CERTIFICATE".to_owned(), bytes.to_vec())
            }
            None => ("PUBLIC KEY".to_owned(), bytes.to_vec()),
        };
        let is_pem = core::str::from_utf8(&bytes).is_ok_and(|text| text.contains("-----BEGIN"));
        let text = if is_pem {
            Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())
        } else {
            pem::encode(&label, &der)
        };
        if label == "CERTIFICATE" {
            let certificate = Certificate::parse(&der).ok()?;
            let public = certificate.public_key().clone();
            return Some(Found { name, text, certificate: Some(certificate), public });
        }
        let public = PublicKey::of_spki(&der).ok()?;
        Some(Found { name, text, certificate: None, public })
    }

    /// Every certificate of a peer or of ours that there is.
    pub(super) fn certificates(&self) -> Vec<Found> {
        let dirs = self.places.certs.iter();
        let paths =
            dirs.flat_map(|dir| self.files.list(dir).into_iter().map(|name| dir.join(name)));
        paths.filter_map(|path| self.load(&path)).collect()
    }

    /// The private key to a public one, with the passphrase that opens it.
    pub(super) fn private(
        &self,
        public: &PublicKey,
        passphrases: &[Passphrase],
    ) -> Option<(String, Zeroizing<String>, Option<Zeroizing<String>>)> {
        for dir in &self.places.keys {
            for name in self.files.list(dir) {
                let Ok(bytes) = self.files.read(&dir.join(&name)) else { continue };
                let mut candidates: Vec<Zeroizing<String>> = Vec::new();
                match core::str::from_utf8(&bytes) {
                    Ok(text) if text.contains("-----BEGIN") => {
                        candidates.push(Zeroizing::new(text.to_owned()));
                    }
                    _ => {
                        let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
                        candidates.extend(labels.map(|label| pem::encode(label, &bytes)));
                    }
                }
                let is_for = |file: &str| {
                    file.is_empty() || Path::new(file).file_name() == Path::new(&name).file_name()
                };
                let phrases = passphrases.iter().filter(|phrase| is_for(&phrase.file));
                let phrases: Vec<_> =
                    core::iter::once(None).chain(phrases.map(|it| Some(&it.secret))).collect();
                for text in &candidates {
                    for phrase in &phrases {
                        let secret = phrase.map(|phrase| Secret::copy_of(phrase.as_bytes()));
                        let key = PrivateKey::from_pem(text.as_bytes(), secret.as_ref());
                        if key.is_ok_and(|key| key.public_key() == public) {
                            return Some((name, text.clone(), phrase.cloned()));
                        }
                    }
                }
            }
        }
        None
    }

    /// The CAs that are called so, or all of them; their names in `import`.
    pub(super) fn cas(&self, names: &[String], at: &At, import: &mut Import) -> Vec<String> {
        let mut paths = Vec::new();
        if names.is_empty() {
            for dir in &self.places.cas {
                paths.extend(self.files.list(dir).into_iter().map(|name| dir.join(name)));
            }
        }
        let mut found = Vec::new();
        for name in names {
            let at_home =
                self.places.cas.iter().chain(&self.places.certs).map(|dir| dir.join(name));
            match at_home.into_iter().find(|path| self.files.read(path).is_ok()) {
                Some(path) => paths.push(path),
                None => {
                    import.note(
                        at,
                        format!("CA `{name}`"),
                        "there is no such file: put it beside the new one",
                    );
                    found.push(super::file_name(base(name)));
                }
            }
        }
        for path in paths {
            if let Some(ca) = self.load(&path).filter(|ca| ca.certificate.is_some()) {
                found.push(import.add(&ca.name, ca.text, false));
            }
        }
        found
    }

    /// The CRLs that there are.
    pub(super) fn crls(&self, import: &mut Import) -> Vec<String> {
        let mut found = Vec::new();
        for dir in &self.places.crls {
            for name in self.files.list(dir) {
                let Ok(bytes) = self.files.read(&dir.join(&name)) else { continue };
                let text = match core::str::from_utf8(&bytes) {
                    Ok(text) if text.contains("-----BEGIN") => Zeroizing::new(text.to_owned()),
                    _ => pem::encode("X509 CRL", &bytes),
                };
                found.push(import.add(&name, text, false));
            }
        }
        found
    }
}

/// The last part of a path.
pub(super) fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
