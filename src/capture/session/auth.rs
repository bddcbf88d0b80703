//! AUTH payloads computed or verified again (RFC 7296 §2.15; RFC 7427; RFC 8784 §3).

use super::json::Proof;
use super::{Mismatch, same};
use crate::crypto::Secret;
use crate::crypto::prf::Prf;
use crate::crypto::sign::{Hash, Scheme};
use crate::crypto::x509::Certificate;
use crate::wire::ike::numbers::{AuthMethod, CertEncoding, NotifyType};
use crate::wire::ike::payload::Payload;

/// An AUTH payload, or a NO_PPK_AUTH notify, as it came.
pub(super) struct Shown<'a> {
    pub(super) message_id: u32,
    pub(super) method: Option<AuthMethod>,
    pub(super) value: &'a [u8],
}

/// What a side says of itself in the messages of IKE_AUTH.
#[derive(Default)]
pub(super) struct Said<'a> {
    /// Body of the ID payload.
    pub(super) id: Option<Vec<u8>>,
    pub(super) certificate: Option<&'a [u8]>,
    pub(super) shown: Vec<Shown<'a>>,
}

impl<'a> Said<'a> {
    pub(super) fn add(&mut self, message_id: u32, initiator: bool, payloads: &'a [Payload]) {
        for payload in payloads {
            if let Payload::IdI(id) = payload
                && initiator
            {
                self.id.get_or_insert_with(|| id.body());
            } else if let Payload::IdR(id) = payload
                && !initiator
            {
                self.id.get_or_insert_with(|| id.body());
            } else if let Payload::Cert(cert) = payload
                && cert.encoding == CertEncoding::X509_SIGNATURE
            {
                // RFC 7296 §3.6: the first one has the key.
                self.certificate.get_or_insert(&cert.data);
            } else if let Payload::Auth(auth) = payload {
                let (method, value) = (Some(auth.method), auth.data.as_slice());
                self.shown.push(Shown { message_id, method, value });
            } else if let Payload::Notify(notify) = payload
                && notify.notify_type == NotifyType::NO_PPK_AUTH
            {
                self.shown.push(Shown { message_id, method: None, value: &notify.data });
            }
        }
    }
}

/// What goes into the octets that a side signs, besides its ID.
pub(super) struct Signed<'a> {
    /// Its IKE_SA_INIT message.
    pub(super) message: &'a [u8],
    /// The other side's nonce.
    pub(super) nonce: &'a [u8],
    /// What may be its SK_p.
    pub(super) keys: Vec<Secret>,
    /// IntAuth and the Message ID, if there was an IKE_INTERMEDIATE.
    pub(super) int_auth: &'a [u8],
}

/// What was signed is what was noted, made with one of these SK_p, and proved. `false`: there is no key to prove it with, or none of an
/// algorithm that is ours.
pub(super) fn check(
    prf: Prf,
    said: &Said<'_>,
    shown: &Shown<'_>,
    noted: &Proof,
    signed: &Signed<'_>,
) -> Result<bool, Mismatch> {
    same("its value", shown.value, noted.value.bytes())?;
    if noted.message_id.is_some_and(|id| id != shown.message_id) {
        return Err(Mismatch::new("it came in another message"));
    }
    if shown.method.is_some_and(|method| method.0 != noted.method) {
        return Err(Mismatch::new("it is of another method"));
    }
    let id = said.id.as_deref().ok_or_else(|| Mismatch::new("no ID payload came"))?;
    let Signed { message, nonce, keys, int_auth } = signed;
    let octets = keys
        .iter()
        .map(|sk_p| [message, nonce, prf.compute(sk_p.expose(), &[id]).expose(), int_auth].concat())
        .find(|octets| octets == noted.signed_octets.bytes())
        .ok_or_else(|| Mismatch::new("the signed octets are others"))?;
    let method = AuthMethod(noted.method);
    if method == AuthMethod::SHARED_KEY_MIC {
        let Some(secret) = &noted.secret else { return Ok(false) };
        let key = prf.compute(secret.bytes(), &[b"Key Pad for IKEv2"]);
        same(
            "what the secret makes of it",
            prf.compute(key.expose(), &[&octets]).expose(),
            shown.value,
        )?;
        return Ok(true);
    }
    let Some(certificate) = said.certificate else { return Ok(false) };
    // A key, or a signature, of an algorithm that is not ours (Ed448, say) proves nothing here.
    let Ok(certificate) = Certificate::parse(certificate) else { return Ok(false) };
    let Some((schemes, signature)) = schemes(method, shown.value) else { return Ok(false) };
    let verified =
        schemes.iter().any(|scheme| certificate.public_key().verify(*scheme, &octets, signature));
    if verified { Ok(true) } else { Err(Mismatch::new("the signature does not verify")) }
}

fn schemes(method: AuthMethod, value: &[u8]) -> Option<(Vec<Scheme>, &[u8])> {
    Some(match method {
        AuthMethod::DIGITAL_SIGNATURE => {
            let (len, rest) = value.split_first()?;
            let (identifier, signature) = rest.split_at_checked(usize::from(*len))?;
            (vec![Scheme::of_algorithm_identifier(identifier)?], signature)
        }
        AuthMethod::RSA_DIGITAL_SIGNATURE => {
            let hashes = [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512];
            (hashes.map(Scheme::RsaPkcs1).to_vec(), value)
        }
        AuthMethod::ECDSA_SHA256_P256 => (vec![Scheme::EcdsaConcat(Hash::Sha256)], value),
        AuthMethod::ECDSA_SHA384_P384 => (vec![Scheme::EcdsaConcat(Hash::Sha384)], value),
        AuthMethod::ECDSA_SHA512_P521 => (vec![Scheme::EcdsaConcat(Hash::Sha512)], value),
        _ => return None,
    })
}
