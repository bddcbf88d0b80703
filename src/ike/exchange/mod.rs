//! The exchanges of IKEv2, one file each, both roles beside each other.

pub(super) mod auth;
pub(super) mod configuration;
pub(super) mod create_child;
pub(super) mod delete;
pub(super) mod eap;
pub(super) mod followup;
pub(super) mod informational;
pub(super) mod intermediate;
pub(super) mod mobike;
mod offer;
pub(super) mod ppk;
pub(super) mod reauth;
pub(super) mod rekey;
mod resource;
pub(super) mod sa_init;

use crate::wire::ike::cp::Cp;
use crate::wire::ike::eap::Eap;
use crate::wire::ike::numbers::NotifyType;
use crate::wire::ike::payload::{Auth, Cert, CertReq, Id, Ke, Nonce, Notify, Payload, Sa, Ts};

/// The payloads of a message by name. A message has one at most of each that is an `Option` (see `rules`).
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) sa: Option<&'a Sa>,
    pub(super) ke: Option<&'a Ke>,
    pub(super) nonce: Option<&'a Nonce>,
    pub(super) id_i: Option<&'a Id>,
    pub(super) id_r: Option<&'a Id>,
    pub(super) auth: Option<&'a Auth>,
    pub(super) cp: Option<&'a Cp>,
    pub(super) eap: Option<&'a Eap>,
    pub(super) ts_i: Option<&'a Ts>,
    pub(super) ts_r: Option<&'a Ts>,
    pub(super) certs: Vec<&'a Cert>,
    pub(super) cert_requests: Vec<&'a CertReq>,
    pub(super) notifies: Vec<&'a Notify>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(payloads: &'a [Payload]) -> Self {
        let mut parts = Self::default();
        for payload in payloads {
            match payload {
                Payload::Sa(sa) => parts.sa = Some(sa),
                Payload::Ke(ke) => parts.ke = Some(ke),
                Payload::Nonce(nonce) => parts.nonce = Some(nonce),
                Payload::IdI(id) => parts.id_i = Some(id),
                Payload::IdR(id) => parts.id_r = Some(id),
                Payload::Auth(auth) => parts.auth = Some(auth),
                Payload::Cp(cp) if parts.cp.is_none() => parts.cp = Some(cp),
                Payload::Eap(eap) => parts.eap = Some(eap),
                Payload::TsI(ts) => parts.ts_i = Some(ts),
                Payload::TsR(ts) => parts.ts_r = Some(ts),
                Payload::Notify(notify) => parts.notifies.push(notify),
                Payload::Cert(cert) => parts.certs.push(cert),
                Payload::CertReq(request) => parts.cert_requests.push(request),
                Payload::Delete(_)
                | Payload::Vendor(_)
                | Payload::Sk(_)
                | Payload::Cp(_)
                | Payload::Skf(_)
                | Payload::Unknown { .. } => {}
            }
        }
        parts
    }

    pub(super) fn notify(&self, wanted: NotifyType) -> Option<&'a Notify> {
        self.notifies.iter().find(|notify| notify.notify_type == wanted).copied()
    }

    /// The first notify that reports an error.
    pub(super) fn error(&self) -> Option<&'a Notify> {
        self.notifies.iter().find(|notify| notify.notify_type.is_error()).copied()
    }
}

/// The group in an INVALID_KE_PAYLOAD notify (RFC 7296 §1.3).
pub(super) fn wanted_group(notify: &Notify) -> Option<crate::wire::ike::numbers::KeId> {
    <[u8; 2]>::try_from(notify.data.as_slice())
        .ok()
        .map(|bytes| crate::wire::ike::numbers::KeId(u16::from_be_bytes(bytes)))
}

/// One notify as a payload.
pub(super) fn notify(notify_type: NotifyType, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(notify_type, data))
}
