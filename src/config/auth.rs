//! `[auth]`: how both sides prove who they are, by keys that both have or by certificates.

use core::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::check::require;
use super::diagnostic::Report;
use super::identity::render;
use super::raw::{List, Raw, Text, WrittenKey};
use super::secret::{self, SecretSource};
use crate::crypto::Secret;
use crate::crypto::pem;
use crate::crypto::sign::{PrivateKey, PrivateKeyError};
use crate::crypto::x509::{CertError, Certificate, ExtendedKeyUsage, Trust};
use crate::ipsec::pad::{Auth, Authority, Credential, Identity, LocalAuth, PeerAuth};

/// The most certificates that we send: peers look at no more than a few.
const MAX_CHAIN: usize = 5;

/// `[auth]`, checked against who we are.
pub(super) fn auth(
    raw: &Raw<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    local_id: Option<&Identity>,
    report: &mut Report,
) -> Option<Auth> {
    let auth = &raw.auth;
    let by_certificate = peer_word(raw, report)?;
    belongs_together(raw, by_certificate, report);
    // All of it is read, so that everything that is wrong is said at once.
    let psk = auth.psk.as_ref().map(|psk| secret::load(psk, mode, secrets, report));
    let local = match (&auth.cert, &auth.key) {
        (Some(cert), Some(key)) => {
            credential(raw, cert, key, mode, secrets, local_id, report).map(LocalAuth::Certificate)
        }
        (Some(_), None) | (None, Some(_)) => None,
        (None, None) => psk.clone().flatten().map(LocalAuth::Psk),
    };
    let peer = match (by_certificate, &auth.ca) {
        (true, Some(ca)) => {
            authority(raw, ca, secrets, report).map(Arc::new).map(PeerAuth::Certificate)
        }
        (true, None) => None,
        (false, _) => psk.flatten().map(PeerAuth::Psk),
    };
    Some(Auth { local: local?, peer: peer? })
}

/// `peer`: whether the peer has to have a certificate.
fn peer_word(raw: &Raw<'_>, report: &mut Report) -> Option<bool> {
    let Some(word) = &raw.auth.peer else { return Some(raw.auth.ca.is_some()) };
    match *word.get_ref() {
        "cert" => Some(true),
        "psk" => Some(false),
        other => {
            report
                .error(word.span(), format!("[auth] peer: unknown word `{}`", other.escape_debug()))
                .help("\"cert\" or \"psk\": how the peer proves who it is");
            None
        }
    }
}

/// Reports what is missing for what is there, and what is there for nothing.
fn belongs_together(raw: &Raw<'_>, by_certificate: bool, report: &mut Report) {
    let auth = &raw.auth;
    let mut wrong = |span: Range<usize>, message: &str, help: &str| {
        if !report.has_syntax_errors() {
            report.error(span, message.to_owned()).help(help.to_owned());
        }
    };
    match (&auth.cert, &auth.key) {
        (Some(cert), None) if !raw.excused("auth", "key") => {
            wrong(cert.span(), "[auth] cert: the private key is missing", "add key = \"a.key\"")
        }
        (None, Some(key)) if !raw.excused("auth", "cert") => wrong(
            key.span(),
            "[auth] key: the certificate is missing",
            "add cert = \"a.pem\"; a key that both sides have is written psk = …",
        ),
        _ => {}
    }
    if let Some(passphrase) = auth.passphrase.as_ref().filter(|_| auth.key.is_none()) {
        wrong(
            passphrase.span(),
            "[auth] passphrase: there is no key that it is for",
            "add key = \"a.key\"",
        );
    }
    let ours_by_psk = auth.cert.is_none() && auth.key.is_none();
    if let Some(psk) = auth.psk.as_ref().filter(|_| by_certificate && !ours_by_psk) {
        wrong(
            psk.span(),
            "[auth] psk: nobody uses it, as both sides have certificates",
            "leave it out; or say peer = \"psk\" if the peer proves itself with it",
        );
    }
    if by_certificate {
        if let Some(peer) = auth.peer.as_ref().filter(|_| auth.ca.is_none())
            && !raw.excused("auth", "ca")
        {
            wrong(
                peer.span(),
                "[auth] peer: the CAs are missing whose certificates the peer may have",
                "add ca = [\"ca.pem\"]",
            );
        }
    } else {
        let useless = [
            ("ca", auth.ca.as_ref().map(|list| list.span.clone())),
            ("crl", auth.crl.as_ref().map(|list| list.span.clone())),
            ("extended-key-usage", auth.extended_key_usage.as_ref().map(Text::span)),
            ("allow-sha1", auth.allow_sha_1.as_ref().map(toml::Spanned::span)),
        ];
        for (key, span) in useless {
            if let Some(span) = span {
                wrong(
                    span,
                    &format!("[auth] {key}: the peer proves itself by the psk"),
                    "leave it out; or give its CAs, ca = [\"ca.pem\"], without peer = \"psk\"",
                );
            }
        }
    }
    if auth.psk.is_none() {
        match &auth.peer {
            Some(peer) if !by_certificate && !raw.excused("auth", "psk") => wrong(
                peer.span(),
                "[auth] peer: the psk is missing that the peer proves itself with",
                "add psk = { file = \"b.psk\" }",
            ),
            Some(_) => {}
            None if ours_by_psk && !by_certificate => {
                require(raw, "auth", auth.span.as_ref(), "psk", "; or cert, key and ca", report);
            }
            None if ours_by_psk => {
                let why = ", for us to prove who we are with; or cert and key";
                require(raw, "auth", auth.span.as_ref(), "psk", why, report);
            }
            None if !by_certificate && auth.cert.is_some() && !raw.excused("auth", "ca") => {
                let why = ", whose certificates the peer may have; or peer = \"psk\" and a psk";
                require(raw, "auth", auth.span.as_ref(), "ca", why, report);
            }
            None => {}
        }
    }
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
) -> Option<Arc<Credential>> {
    let chain = chain(cert, secrets, report);
    let private = private_key(raw, key, mode, secrets, report);
    let (chain, private) = (chain?, private?);
    let leaf = chain.first()?;
    if let Some(id) = local_id.filter(|id| !id.is_in(leaf)) {
        let names: Vec<_> = Identity::of_certificate(leaf).map(|name| render(&name)).collect();
        let names = names.join(", ");
        report
            .error(cert.span(), format!("[auth] cert: our id {} is not in it", render(id)))
            .help(format!("[local] id can be one of: {names}"));
        return None;
    }
    let credential = Credential::new(chain, Arc::new(private));
    if credential.is_none() {
        report
            .error(key.span(), "[auth] key: it is not the key of the certificate")
            .related(cert.span(), "the certificate")
            .help("give the key with which this certificate was asked for");
    }
    credential.map(Arc::new)
}

fn chain(
    cert: &Text<'_>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<Certificate>> {
    let mut chain = certificates(cert, "cert", secrets, report)?;
    // A CA that has issued its own certificate is one that the peer trusts or does not: sending it changes nothing.
    let mut first = true;
    chain.retain(|c| core::mem::take(&mut first) || c.subject() != c.issuer());
    if chain.len() > MAX_CHAIN {
        report
            .error(cert.span(), format!("[auth] cert: {} certificates are in it", chain.len()))
            .help(format!("ours, and those of the CAs above it: at most {MAX_CHAIN}"));
        return None;
    }
    Some(chain)
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

/// The DER of every block with this label in a file; at least one.
fn blocks(
    name: &Text<'_>,
    key: &str,
    label: &str,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Vec<Vec<u8>>> {
    let path = report.file().parent().unwrap_or_else(|| Path::new("")).join(name.get_ref());
    let found = match secrets.read(&path) {
        Ok(found) => found,
        Err(error) => {
            let shown = name.get_ref().escape_debug();
            report
                .error(name.span(), format!("cannot read the {key} file `{shown}`: {error}"))
                .help(format!("looked for it at {}", path.display()));
            return None;
        }
    };
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
                | PrivateKeyError::Several => {
                    "a PEM file with one key: RSA, ECDSA on P-256, P-384 or P-521, or Ed25519"
                }
            };
            report.error(found.span, format!("{} cannot be used: {error}", found.what)).help(help);
            None
        }
    }
}

/// The CAs whose certificates the peer may have, and their CRLs.
fn authority(
    raw: &Raw<'_>,
    ca: &List<'_>,
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
    if ca.items.is_empty() {
        report
            .error(ca.span.clone(), "[auth] ca: the list is empty")
            .help("name the file of at least one CA: ca = [\"ca.pem\"]");
    }
    let mut cas = Vec::new();
    let mut fine = !ca.items.is_empty();
    for name in &ca.items {
        match certificates(name, "ca", secrets, report) {
            Some(found) => cas.extend(found.into_iter().map(|c| c.der().to_vec())),
            None => fine = false,
        }
    }
    let mut trust = match Trust::new(&cas) {
        Ok(trust) => trust,
        Err((_, error)) => {
            report
                .error(ca.span.clone(), format!("[auth] ca: one cannot be used: {error}"))
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
    let allow_sha_1 = raw.auth.allow_sha_1.as_ref().is_some_and(|allow| *allow.get_ref());
    fine.then_some(Authority { trust: trust.with_extended_key_usage(usage?), allow_sha_1 })
}
