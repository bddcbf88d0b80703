//! Private keys and certificates of ours, CAs and public keys of the peer's.

use std::path::Path;
use std::sync::Arc;

use super::super::diagnostic::Report;
use super::super::identity::render;
use super::super::policy::choice;
use super::super::raw::{List, Raw, Text, WrittenKey};
use super::super::secret::{self, SecretFile, SecretSource};
use crate::crypto::Secret;
use crate::crypto::pem;
use crate::crypto::sign::{PrivateKey, PrivateKeyError, PublicKey};
use crate::crypto::x509::ocsp::OcspResponse;
use crate::crypto::x509::{CertError, Certificate, ExtendedKeyUsage, Revocation, Trust};
use crate::ipsec::pad::{Authority, Credential, Identity};

/// The most certificates that we send: peers look at no more than a few.
const MAX_CHAIN: usize = 5;

/// The most public keys of a peer: each is tried where it sends none.
const MAX_RAW_KEYS: usize = 4;

const KINDS: &str = "a PEM file with one key: RSA, ECDSA on P-256, P-384 or P-521, or Ed25519";

/// Our private keys, each with its certificate and what is above it.
pub(super) fn credentials(
    raw: &Raw<'_>,
    certs: &List<'_>,
    keys: &[WrittenKey<'_>],
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    local_id: Option<&Identity>,
    report: &mut Report,
) -> Option<Vec<Credential>> {
    if certs.items.len() != keys.len() {
        let numbers = (certs.items.len(), keys.len());
        report
            .error(
                certs.span.clone(),
                format!("[auth] cert: {} files, and key: {}", numbers.0, numbers.1),
            )
            .help("a key for each certificate, in the same order");
        return None;
    }
    let responses = raw.auth.ocsp.as_ref();
    if let Some(list) = responses.filter(|list| list.items.len() != certs.items.len()) {
        let numbers = (list.items.len(), certs.items.len());
        report
            .error(
                list.span.clone(),
                format!("[auth] ocsp: {} files, and cert: {}", numbers.0, numbers.1),
            )
            .help("one for each certificate, in the same order");
        return None;
    }
    let found: Vec<_> = certs
        .items
        .iter()
        .zip(keys)
        .enumerate()
        .map(|(number, (cert, key))| {
            let made = credential(raw, cert, key, mode, secrets, local_id, report);
            match responses.and_then(|list| list.items.get(number)) {
                Some(name) => {
                    let response = ocsp_response(name, secrets, report);
                    Some(made?.with_ocsp(Some(response?)))
                }
                None => made,
            }
        })
        .collect();
    found.into_iter().collect()
}

/// Our private keys, which peers know without certificates (RFC 7670).
pub(super) fn raw_keys(
    raw: &Raw<'_>,
    keys: &[WrittenKey<'_>],
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<Credential>> {
    let found: Vec<_> =
        keys.iter().map(|key| private_key(raw, key, mode, secrets, report)).collect();
    found.into_iter().map(|key| Some(Credential::raw(Arc::new(key?)))).collect()
}

/// Our certificate, what is above it, and the private key.
fn credential(
    raw: &Raw<'_>,
    cert: &Text<'_>,
    key: &WrittenKey<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    local_id: Option<&Identity>,
    report: &mut Report,
) -> Option<Credential> {
    let chain = chain(cert, secrets, report);
    let private = private_key(raw, key, mode, secrets, report);
    let ((chain, roots), private) = (chain?, private?);
    let leaf = chain.first()?;
    if let Some(id) = local_id.filter(|id| !id.is_in(leaf)) {
        let names: Vec<_> = Identity::of_certificate(leaf).map(|name| render(&name)).collect();
        let names = names.join(", ");
        report
            .error(cert.span(), format!("[auth] cert: our id {} is not in it", render(id)))
            .help(format!("[local] id can be one of: {names}"));
        return None;
    }
    let issuer = chain.last()?.issuer().to_vec();
    let credential = Credential::new(chain, Arc::new(private));
    if credential.is_none() {
        report
            .error(key.span(), "[auth] key: it is not the key of the certificate")
            .related(cert.span(), "the certificate")
            .help("give the key with which this certificate was asked for");
    }
    // The CA that we trust is mostly the one that has issued ours, too: what the peer's CERTREQ names can be compared with it.
    let ours = raw.auth.ca.iter().flat_map(|ca| &ca.items).flat_map(|name| {
        let mut quiet = Report::new(report.file(), "".into());
        certificates(name, "ca", secrets, &mut quiet).unwrap_or_default()
    });
    let roots = roots.into_iter().chain(ours).filter(|ca| ca.subject() == issuer);
    let roots = roots.map(|ca| ca.public_key().certreq_hash()).collect();
    credential.map(|credential| credential.with_roots(roots))
}

/// What a responder has said of our certificate, in DER as `openssl ocsp -respout` has it.
fn ocsp_response(
    name: &Text<'_>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<u8>> {
    let found = read(name, "ocsp", secrets, report)?;
    let der = found.bytes.expose();
    if let Err(error) = OcspResponse::parse(der) {
        let shown = name.get_ref().escape_debug();
        report
            .error(name.span(), format!("[auth] ocsp: `{shown}` cannot be used: {error}"))
            .help("a good OCSP response in DER: openssl ocsp -respin FILE -resp_text");
        return None;
    }
    Some(der.to_vec())
}

/// The certificates to send, and those of CAs that have issued their own.
fn chain(
    cert: &Text<'_>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<(Vec<Certificate>, Vec<Certificate>)> {
    let found = certificates(cert, "cert", secrets, report)?;
    // A CA that has issued its own certificate is one that the peer trusts or does not: sending it changes nothing.
    let mut first = true;
    let (chain, roots): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|c| core::mem::take(&mut first) || c.subject() != c.issuer());
    if chain.len() > MAX_CHAIN {
        report
            .error(cert.span(), format!("[auth] cert: {} certificates are in it", chain.len()))
            .help(format!("ours, and those of the CAs above it: at most {MAX_CHAIN}"));
        return None;
    }
    Some((chain, roots))
}

/// Every certificate in a file; at least one.
fn certificates(
    name: &Text<'_>,
    key: &str,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<Certificate>> {
    let ders = blocks(name, key, "CERTIFICATE", secrets, report)?;
    let mut found = Vec::new();
    for (number, der) in ders.iter().enumerate() {
        match Certificate::parse(der) {
            Ok(certificate) => found.push(certificate),
            Err(error) => {
                unusable(name, key, number, &error, report);
                return None;
            }
        }
    }
    Some(found)
}

/// A file that is no secret.
fn read(
    name: &Text<'_>,
    key: &str,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<SecretFile> {
    let path = report.file().parent().unwrap_or_else(|| Path::new("")).join(name.get_ref());
    match secrets.read(&path) {
        Ok(found) => Some(found),
        Err(error) => {
            let shown = name.get_ref().escape_debug();
            report
                .error(name.span(), format!("cannot read the {key} file `{shown}`: {error}"))
                .help(format!("looked for it at {}", path.display()));
            None
        }
    }
}

/// The DER of every block with this label in a file; at least one.
fn blocks(
    name: &Text<'_>,
    key: &str,
    label: &str,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<Vec<u8>>> {
    let found = read(name, key, secrets, report)?;
    let blocks = pem::blocks(found.bytes.expose()).filter(|block| block.label == label);
    let ders: Option<Vec<Vec<u8>>> =
        blocks.map(|block| block.der.map(|der| der.expose().to_vec())).collect();
    let ders = ders.filter(|ders| !ders.is_empty());
    if ders.is_none() {
        let shown = name.get_ref().escape_debug();
        report
            .error(name.span(), format!("[auth] {key}: there is no {label} in `{shown}`"))
            .help(format!("a PEM file: it has a line -----BEGIN {label}-----"));
    }
    ders
}

fn unusable(name: &Text<'_>, key: &str, number: usize, error: &CertError, report: &mut Report) {
    let shown = name.get_ref().escape_debug();
    let which = if number == 0 { String::new() } else { format!(", number {}", number + 1) };
    report
        .error(name.span(), format!("[auth] {key}: `{shown}`{which} cannot be used: {error}"))
        .help("look at it with: openssl x509 -text -in FILE, or openssl crl");
}

fn private_key(
    raw: &Raw<'_>,
    key: &WrittenKey<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<PrivateKey> {
    // Unlike a psk, a private key cannot stand in the file itself: a text is the name of one. (Only with `cert` do we get here:
    // without, it may be a psk in the wrong place, and must not be shown.)
    let key = match key {
        WrittenKey::Inline(name) => &WrittenKey::File(name.clone()),
        WrittenKey::File(_) | WrittenKey::Credential(_) => key,
    };
    let looked = |at: &str| format!("looked for it at {at}");
    let passphrase: Option<Option<Secret>> = raw.auth.passphrase.as_ref().map(|passphrase| {
        secret::fetch(passphrase, "passphrase", &looked, mode, secrets, report)
            .map(|found| found.bytes)
    });
    let passphrase = match passphrase {
        Some(found) => Some(found?),
        None => None,
    };
    let found = secret::fetch(key, "key", &looked, mode, secrets, report)?;
    match PrivateKey::from_pem(found.bytes.expose(), passphrase.as_ref()) {
        Ok(key) => Some(key),
        Err(error) => {
            let help = match error {
                PrivateKeyError::PassphraseMissing => "add passphrase = { file = \"a.pass\" }",
                PrivateKeyError::Passphrase => "compare [auth] passphrase with the key's",
                PrivateKeyError::OldEncryption
                | PrivateKeyError::Malformed
                | PrivateKeyError::NoKey
                | PrivateKeyError::Public(_)
                | PrivateKeyError::Rsa(_)
                | PrivateKeyError::Several => KINDS,
            };
            report.error(found.span, format!("{} cannot be used: {error}", found.what)).help(help);
            None
        }
    }
}

/// The CAs whose certificates the peer may have, with their CRLs, and the public keys that it may have without.
pub(super) fn authority(
    raw: &Raw<'_>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Authority> {
    let usage = match raw.auth.extended_key_usage.as_ref().map(|word| (word, *word.get_ref())) {
        None | Some((_, "authentication")) => Some(ExtendedKeyUsage::Authentication),
        Some((_, "ipsec")) => Some(ExtendedKeyUsage::Ipsec),
        Some((_, "any")) => Some(ExtendedKeyUsage::Any),
        Some((word, other)) => {
            let shown = other.escape_debug();
            report
                .error(word.span(), format!("[auth] extended-key-usage: unknown word `{shown}`"))
                .help("one of \"authentication\", \"ipsec\", \"any\"");
            None
        }
    };
    let revocation = match &raw.auth.revocation {
        None => Some(Revocation::default()),
        Some(word) => {
            let choices = &[
                ("strict", Revocation::Strict),
                ("ifuri", Revocation::IfUri),
                ("relaxed", Revocation::Relaxed),
            ];
            choice(word, "[auth] revocation", choices, report)
        }
    };
    let mut fine = true;
    for (key, list, help) in [
        ("ca", &raw.auth.ca, "name the file of at least one CA: ca = [\"ca.pem\"]"),
        ("public-key", &raw.auth.public_key, "name at least one file: public-key = \"b.pub\""),
    ] {
        if let Some(list) = list.as_ref().filter(|list| list.items.is_empty()) {
            let message = format!("[auth] {key}: the list is empty");
            report.error(list.span.clone(), message).help(help);
            fine = false;
        }
    }
    let mut cas = Vec::new();
    for name in raw.auth.ca.iter().flat_map(|list| &list.items) {
        match certificates(name, "ca", secrets, report) {
            Some(found) => cas.extend(found.into_iter().map(|c| c.der().to_vec())),
            None => fine = false,
        }
    }
    let mut trust = match Trust::new(&cas) {
        Ok(trust) => trust,
        Err((_, error)) => {
            let span = raw.auth.ca.as_ref().map_or(0..0, |list| list.span.clone());
            report
                .error(span, format!("[auth] ca: one cannot be used: {error}"))
                .help("look at them with: openssl x509 -text -in FILE");
            return None;
        }
    };
    for name in raw.auth.crl.iter().flat_map(|list| &list.items) {
        let Some(ders) = blocks(name, "crl", "X509 CRL", secrets, report) else {
            fine = false;
            continue;
        };
        match trust.with_crls(&ders) {
            Ok(more) => trust = more,
            Err((number, error)) => {
                unusable(name, "crl", number, &error, report);
                return None;
            }
        }
    }
    let mut keys: Vec<PublicKey> = Vec::new();
    for name in raw.auth.public_key.iter().flat_map(|list| &list.items) {
        match public_keys(name, secrets, report) {
            Some(found) => keys.extend(found),
            None => fine = false,
        }
    }
    if keys.len() > MAX_RAW_KEYS {
        let span = raw.auth.public_key.as_ref().map_or(0..0, |list| list.span.clone());
        report
            .error(span, format!("[auth] public-key: {} keys are in these files", keys.len()))
            .help(format!("at most {MAX_RAW_KEYS}: those of this one peer"));
        fine = false;
    }
    let allow_sha_1 = raw.auth.allow_sha_1.as_ref().is_some_and(|allow| *allow.get_ref());
    let trust = trust.with_extended_key_usage(usage?).with_revocation(revocation?);
    fine.then_some(Authority { trust, keys, allow_sha_1 })
}

/// Every public key in a file: of PEM blocks PUBLIC KEY, or of certificates, whose other contents do not matter then.
fn public_keys(
    name: &Text<'_>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<PublicKey>> {
    let found = read(name, "public-key", secrets, report)?;
    let shown = name.get_ref().escape_debug();
    let blocks = pem::blocks(found.bytes.expose());
    let keys = blocks.filter_map(|block| {
        let der = block.der?;
        match block.label.as_str() {
            "PUBLIC KEY" => Some(PublicKey::of_spki(der.expose()).map_err(|e| e.to_string())),
            "CERTIFICATE" => Some(
                Certificate::parse(der.expose())
                    .map(|certificate| certificate.public_key().clone())
                    .map_err(|error| error.to_string()),
            ),
            _ => None,
        }
    });
    let keys = match keys.collect::<Result<Vec<_>, String>>() {
        Ok(keys) => keys,
        Err(error) => {
            let message = format!("[auth] public-key: `{shown}` cannot be used: {error}");
            report.error(name.span(), message).help(KINDS);
            return None;
        }
    };
    if keys.is_empty() {
        report
            .error(name.span(), format!("[auth] public-key: there is no public key in `{shown}`"))
            .help(
                "a PEM file with a line -----BEGIN PUBLIC KEY-----: ipsecd pki --raw makes one, and \
                 openssl pkey -in b.key -pubout",
            );
        return None;
    }
    Some(keys)
}
