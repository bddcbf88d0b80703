//! `[auth]`: how both sides prove who they are: by a key that both have, by signatures, with certificates or without, or by EAP.

mod eap;
mod ppk;
mod signature;

use core::ops::Range;

use super::check::require;
use super::diagnostic::Report;
use super::raw::{Raw, Text, WrittenKey};
use super::secret::{self, SecretSource};
use crate::ipsec::pad::{Auth, Identity, LocalAuth, PeerAuth};

pub(super) use ppk::ppk;

/// How a side proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Certificate,
    Eap,
    Psk,
    PublicKey,
}

/// The words of `local` and `peer`.
const WORDS: [(&str, How); 4] = [
    ("cert", How::Certificate),
    ("eap", How::Eap),
    ("psk", How::Psk),
    ("public-key", How::PublicKey),
];

/// `[auth]`, checked against who we are.
pub(super) fn auth(
    raw: &Raw<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    local_id: Option<&Identity>,
    report: &mut Report,
) -> Option<Auth> {
    let auth = &raw.auth;
    let local = word(auth.local.as_ref(), "local", "we prove who we are", report);
    let peer = word(auth.peer.as_ref(), "peer", "the peer proves who it is", report);
    let (local, peer) = (local?, peer?);
    let local = local.unwrap_or(match (&auth.cert, &auth.key) {
        // A key by itself is taken for a raw one only where raw ones are spoken of: the certificate may have been forgotten.
        (None, Some(_)) if auth.public_key.is_some() => How::PublicKey,
        (None, None) => How::Psk,
        _ => How::Certificate,
    });
    let peer = peer.unwrap_or(match (&auth.ca, &auth.public_key) {
        (Some(_), _) => How::Certificate,
        (None, Some(_)) => How::PublicKey,
        (None, None) => How::Psk,
    });
    belongs_together(raw, local, peer, report);
    // All of it is read, so that everything that is wrong is said at once.
    let psk = auth.psk.as_ref().map(|psk| secret::load(psk, mode, secrets, report));
    let local = match (local, &auth.cert, &auth.key) {
        (How::Certificate, Some(certs), Some(keys)) => {
            signature::credentials(raw, certs, keys, mode, secrets, local_id, report)
                .map(|found| LocalAuth::Signature(found.into()))
        }
        (How::PublicKey, None, Some(keys)) => signature::raw_keys(raw, keys, mode, secrets, report)
            .map(|found| LocalAuth::Signature(found.into())),
        (How::Certificate | How::PublicKey, _, _) => None,
        (How::Eap, _, _) => eap::client(raw, mode, secrets, local_id, report)
            .map(|found| LocalAuth::Eap(found.into())),
        (How::Psk, _, _) => psk.clone().flatten().map(LocalAuth::Psk),
    };
    let peer = match peer {
        How::Certificate | How::PublicKey if auth.ca.is_some() || auth.public_key.is_some() => {
            signature::authority(raw, secrets, report)
                .map(|found| PeerAuth::Signature(found.into()))
        }
        How::Certificate | How::PublicKey => None,
        How::Eap => {
            eap::server(raw, mode, secrets, report).map(|found| PeerAuth::Eap(found.into()))
        }
        How::Psk => psk.flatten().map(PeerAuth::Psk),
    };
    Some(Auth { local: local?, peer: peer? })
}

/// `local` or `peer`: `Some(None)` if it is not there.
fn word(
    written: Option<&Text<'_>>,
    key: &str,
    what: &str,
    report: &mut Report,
) -> Option<Option<How>> {
    let Some(written) = written else { return Some(None) };
    let found = WORDS.iter().find(|(word, _)| word == written.get_ref());
    if found.is_none() {
        let shown = written.get_ref().escape_debug();
        report
            .error(written.span(), format!("[auth] {key}: unknown word `{shown}`"))
            .help(format!("\"cert\", \"eap\", \"psk\" or \"public-key\": how {what}"));
    }
    found.map(|(_, how)| Some(*how))
}

/// Reports what is missing for what is there, and what is there for nothing.
fn belongs_together(raw: &Raw<'_>, local: How, peer: How, report: &mut Report) {
    if report.has_syntax_errors() {
        return;
    }
    ours(raw, local, report);
    theirs(raw, peer, local, report);
    by_eap(raw, local, peer, report);
    let auth = &raw.auth;
    if let Some(psk) = auth.psk.as_ref().filter(|_| local != How::Psk && peer != How::Psk) {
        let message = "[auth] psk: nobody uses it, as neither side is to prove itself with it";
        report
            .error(psk.span(), message)
            .help("leave it out; or say peer = \"psk\" if the peer proves itself with it");
    }
    if auth.psk.is_none() {
        psk_missing(raw, local, peer, report);
    }
}

/// What we prove ourselves with.
fn ours(raw: &Raw<'_>, local: How, report: &mut Report) {
    let auth = &raw.auth;
    let mut wrong = |span: Range<usize>, message: &str, help: &str| {
        report.error(span, message.to_owned()).help(help.to_owned());
    };
    let key = auth.key.as_ref().and_then(|keys| keys.first());
    match (local, &auth.cert, key) {
        (How::Certificate, Some(cert), None) if !raw.excused("auth", "key") => {
            let (message, help) = ("the private key is missing", "add key = \"a.key\"");
            wrong(cert.span.clone(), &format!("[auth] cert: {message}"), help);
        }
        (How::Certificate, None, Some(key)) if !raw.excused("auth", "cert") => wrong(
            key.span(),
            "[auth] key: the certificate is missing",
            "add cert = \"a.pem\"; or local = \"public-key\" if the peer knows the public key; a key \
             that both sides have is written psk = …",
        ),
        (How::PublicKey, Some(cert), _) => wrong(
            cert.span.clone(),
            "[auth] cert: our key goes without a certificate",
            "leave it out, or leave out local = \"public-key\"",
        ),
        (How::Psk, Some(cert), _) => wrong(
            cert.span.clone(),
            "[auth] cert: we prove ourselves by the psk",
            "leave it out, or leave out local = \"psk\"",
        ),
        (How::Psk, None, Some(key)) => wrong(
            key.span(),
            "[auth] key: we prove ourselves by the psk",
            "leave it out, or leave out local = \"psk\"",
        ),
        _ => {}
    }
    if let Some(word) = auth.local.as_ref().filter(|_| key.is_none() && auth.cert.is_none())
        && matches!(local, How::Certificate | How::PublicKey)
        && !raw.excused("auth", "key")
    {
        wrong(
            word.span(),
            "[auth] local: the private key is missing that we prove ourselves with",
            "add key = \"a.key\"",
        );
    }
    if let Some(ocsp) = auth.ocsp.as_ref().filter(|_| auth.cert.is_none()) {
        wrong(
            ocsp.span.clone(),
            "[auth] ocsp: there is no certificate of ours that it is for",
            "leave it out: of the peer's certificate, the peer sends it",
        );
    }
    if let Some(passphrase) = auth.passphrase.as_ref().filter(|_| auth.key.is_none()) {
        wrong(
            passphrase.span(),
            "[auth] passphrase: there is no key that it is for",
            "add key = \"a.key\"",
        );
    }
}

/// What the peer proves itself with.
fn theirs(raw: &Raw<'_>, peer: How, local: How, report: &mut Report) {
    let auth = &raw.auth;
    let missing = match peer {
        How::Certificate if auth.ca.is_none() => Some((
            "ca",
            "[auth] peer: the CAs are missing whose certificates the peer may have",
            "add ca = [\"ca.pem\"]",
        )),
        How::PublicKey if auth.public_key.is_none() => Some((
            "public-key",
            "[auth] peer: the public key is missing that the peer has",
            "add public-key = \"b.pub\"",
        )),
        How::Certificate | How::Eap | How::PublicKey | How::Psk => None,
    };
    if let (Some(word), Some((key, message, help))) = (&auth.peer, missing)
        && !raw.excused("auth", key)
    {
        report.error(word.span(), message.to_owned()).help(help.to_owned());
    }
    let by_psk = "leave it out; or give its CAs, ca = [\"ca.pem\"], without peer = \"psk\"";
    let useless = [
        ("ca", auth.ca.as_ref().map(|list| list.span.clone())),
        ("crl", auth.crl.as_ref().map(|list| list.span.clone())),
        ("revocation", auth.revocation.as_ref().map(Text::span)),
        ("public-key", auth.public_key.as_ref().map(|list| list.span.clone())),
        ("extended-key-usage", auth.extended_key_usage.as_ref().map(Text::span)),
        ("allow-sha1", auth.allow_sha_1.as_ref().map(toml::Spanned::span)),
    ];
    for (key, span) in useless {
        let Some(span) = span else { continue };
        if peer == How::Psk {
            let message = format!("[auth] {key}: the peer proves itself by the psk");
            report.error(span, message).help(by_psk);
        } else if peer == How::Eap && matches!(key, "public-key" | "allow-sha1") {
            report
                .error(span, format!("[auth] {key}: the peer proves itself by EAP"))
                .help("leave it out");
        } else if auth.ca.is_none() && matches!(key, "crl" | "extended-key-usage" | "revocation") {
            report
                .error(span, format!("[auth] {key}: the peer proves itself without a certificate"))
                .help("leave it out; or give its CAs, ca = [\"ca.pem\"]");
        }
    }
    let is_silent = auth.peer.is_none() && auth.ca.is_none() && auth.public_key.is_none();
    if is_silent && local != How::Psk && auth.psk.is_none() && !raw.excused("auth", "ca") {
        let speaks = local != How::Certificate || auth.cert.is_some();
        if speaks {
            let why = ", whose certificates the peer may have; or peer = \"psk\" and a psk";
            let (key, why) = if local != How::PublicKey {
                ("ca", why)
            } else {
                ("public-key", ", which the peer has; or ca, or peer = \"psk\" and a psk")
            };
            require(raw, "auth", auth.span.as_ref(), key, why, report);
        }
    }
}

/// RFC 7296 §2.16: EAP is for the initiator, and the other side has a signature; what is there for EAP is used.
fn by_eap(raw: &Raw<'_>, local: How, peer: How, report: &mut Report) {
    let auth = &raw.auth;
    let signs = |how| matches!(how, How::Certificate | How::PublicKey);
    let help =
        "with EAP, the responder proves itself by a certificate or a public key (RFC 7296 §2.16)";
    let span = |word: &Option<Text<'_>>| word.as_ref().or(auth.local.as_ref()).map(Text::span);
    if local == How::Eap && !signs(peer) && (auth.peer.is_some() || auth.psk.is_some()) {
        let span = span(&auth.peer).unwrap_or(0..0);
        report.error(span, "[auth] peer: towards EAP it needs a certificate").help(help);
    }
    if peer == How::Eap && !signs(local) && local != How::Eap {
        let span = span(&auth.peer).unwrap_or(0..0);
        report.error(span, "[auth] peer: by EAP, if we have a certificate").help(help);
    }
    let places = [
        ("eap-password", auth.eap_password.as_ref().map(WrittenKey::span), local == How::Eap),
        ("eap-identity", auth.eap_identity.as_ref().map(Text::span), local == How::Eap),
        ("eap-user", auth.eap_users.first().map(|user| user.span.clone()), peer == How::Eap),
        (
            "eap-methods",
            auth.eap_methods.as_ref().map(|list| list.span.clone()),
            local == How::Eap || peer == How::Eap,
        ),
    ];
    for (key, span, used) in places {
        if let Some(span) = span.filter(|_| !used) {
            let side = if key == "eap-user" { "peer" } else { "local" };
            report
                .error(span, format!("[auth] {key}: nobody proves itself by EAP here"))
                .help(format!("leave it out, or add {side} = \"eap\""));
        }
    }
}

/// There is no psk: reports where one is needed.
fn psk_missing(raw: &Raw<'_>, local: How, peer: How, report: &mut Report) {
    let auth = &raw.auth;
    match &auth.peer {
        Some(word) if peer == How::Psk && !raw.excused("auth", "psk") => {
            report
                .error(
                    word.span(),
                    "[auth] peer: the psk is missing that the peer proves itself with",
                )
                .help("add psk = { file = \"b.psk\" }");
        }
        Some(_) if local == How::Psk => {
            let why = ", for us to prove who we are with; or cert and key";
            require(raw, "auth", auth.span.as_ref(), "psk", why, report);
        }
        None if local == How::Psk => {
            let why = if peer == How::Psk {
                "; or cert, key and ca"
            } else {
                ", for us to prove who we are with; or cert and key"
            };
            require(raw, "auth", auth.span.as_ref(), "psk", why, report);
        }
        Some(_) | None => {}
    }
}
