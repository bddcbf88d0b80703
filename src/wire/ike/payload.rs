//! [`Payload`]: one of the payloads of IKEv2 (RFC 7296 §3.2), each in its own file.

use core::fmt;

pub use super::auth::Auth;
pub use super::cert::{Cert, CertReq};
pub use super::cp::{CfgAttribute, Cp};
pub use super::delete::Delete;
pub use super::eap::{Eap, EapCode};
pub use super::id::Id;
pub use super::ke::Ke;
pub use super::nonce::Nonce;
pub use super::notify::Notify;
use super::numbers::PayloadType;
pub use super::sa::{Proposal, Sa, Transform};
pub use super::sk::Sk;
pub use super::skf::Skf;
pub use super::ts::{TrafficSelector, Ts};
pub use super::vendor::Vendor;
use crate::wire::{ParseError, Reader};

/// A payload. Variants in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// SA: Security Association.
    Sa(Sa),
    /// KE: Key Exchange.
    Ke(Ke),
    /// IDi: identification of the initiator.
    IdI(Id),
    /// IDr: identification of the responder.
    IdR(Id),
    /// CERT: Certificate.
    Cert(Cert),
    /// CERTREQ: Certificate Request.
    CertReq(CertReq),
    /// AUTH: Authentication.
    Auth(Auth),
    /// Ni or Nr: Nonce.
    Nonce(Nonce),
    /// N: Notify.
    Notify(Notify),
    /// D: Delete.
    Delete(Delete),
    /// V: Vendor ID.
    Vendor(Vendor),
    /// TSi: Traffic Selectors of the initiator's side.
    TsI(Ts),
    /// TSr: Traffic Selectors of the responder's side.
    TsR(Ts),
    /// SK: Encrypted and Authenticated.
    Sk(Sk),
    /// CP: Configuration.
    Cp(Cp),
    /// EAP: Extensible Authentication.
    Eap(Eap),
    /// SKF: Encrypted and Authenticated Fragment.
    Skf(Skf),
    /// A payload of a type that is not understood here.
    Unknown {
        /// Its type.
        payload_type: PayloadType,
        /// Whether the sender wants the message rejected for it (RFC 7296 §2.5).
        critical: bool,
        /// The bytes after the generic payload header.
        body: Vec<u8>,
    },
}

impl Payload {
    /// The payload's number.
    #[must_use]
    pub const fn payload_type(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke(_) => PayloadType::KE,
            Self::IdI(_) => PayloadType::ID_I,
            Self::IdR(_) => PayloadType::ID_R,
            Self::Cert(_) => PayloadType::CERT,
            Self::CertReq(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::Vendor(_) => PayloadType::VENDOR,
            Self::TsI(_) => PayloadType::TS_I,
            Self::TsR(_) => PayloadType::TS_R,
            Self::Sk(_) => PayloadType::SK,
            Self::Cp(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Skf(_) => PayloadType::SKF,
            Self::Unknown { payload_type, .. } => *payload_type,
        }
    }

    /// Whether the critical bit is sent. RFC 7296 §3.2: never for the payload types of that document.
    pub(super) const fn is_critical(&self) -> bool {
        matches!(self, Self::Unknown { critical: true, .. })
    }

    /// For SK and SKF, what stands in the Next Payload field of their generic header.
    pub(super) const fn protected_first(&self) -> Option<PayloadType> {
        match self {
            Self::Sk(sk) => Some(sk.first),
            Self::Skf(skf) => Some(skf.first),
            Self::Sa(_)
            | Self::Ke(_)
            | Self::IdI(_)
            | Self::IdR(_)
            | Self::Cert(_)
            | Self::CertReq(_)
            | Self::Auth(_)
            | Self::Nonce(_)
            | Self::Notify(_)
            | Self::Delete(_)
            | Self::Vendor(_)
            | Self::TsI(_)
            | Self::TsR(_)
            | Self::Cp(_)
            | Self::Eap(_)
            | Self::Unknown { .. } => None,
        }
    }

    /// What the payload of this type is called in errors.
    pub(super) const fn what(payload_type: PayloadType) -> &'static str {
        match payload_type {
            PayloadType::SA => "SA payload",
            PayloadType::KE => "KE payload",
            PayloadType::ID_I => "IDi payload",
            PayloadType::ID_R => "IDr payload",
            PayloadType::CERT => "CERT payload",
            PayloadType::CERTREQ => "CERTREQ payload",
            PayloadType::AUTH => "AUTH payload",
            PayloadType::NONCE => "Nonce payload",
            PayloadType::NOTIFY => "Notify payload",
            PayloadType::DELETE => "Delete payload",
            PayloadType::VENDOR => "Vendor ID payload",
            PayloadType::TS_I => "TSi payload",
            PayloadType::TS_R => "TSr payload",
            PayloadType::SK => "SK payload",
            PayloadType::CP => "CP payload",
            PayloadType::EAP => "EAP payload",
            PayloadType::SKF => "SKF payload",
            _ => "unknown payload",
        }
    }

    /// Reads what follows the generic payload header; the caller checks that all was read.
    pub(super) fn parse_body(
        payload_type: PayloadType,
        critical: bool,
        next: PayloadType,
        body: &mut Reader<'_>,
    ) -> Result<Self, ParseError> {
        Ok(match payload_type {
            PayloadType::SA => Self::Sa(Sa::parse(body)?),
            PayloadType::KE => Self::Ke(Ke::parse(body)?),
            PayloadType::ID_I => Self::IdI(Id::parse(body)?),
            PayloadType::ID_R => Self::IdR(Id::parse(body)?),
            PayloadType::CERT => Self::Cert(Cert::parse(body)?),
            PayloadType::CERTREQ => Self::CertReq(CertReq::parse(body)?),
            PayloadType::AUTH => Self::Auth(Auth::parse(body)?),
            PayloadType::NONCE => Self::Nonce(Nonce::parse(body)?),
            PayloadType::NOTIFY => Self::Notify(Notify::parse(body)?),
            PayloadType::DELETE => Self::Delete(Delete::parse(body)?),
            PayloadType::VENDOR => Self::Vendor(Vendor::parse(body)?),
            PayloadType::TS_I => Self::TsI(Ts::parse(body)?),
            PayloadType::TS_R => Self::TsR(Ts::parse(body)?),
            PayloadType::SK => Self::Sk(Sk::parse(next, body)?),
            PayloadType::CP => Self::Cp(Cp::parse(body)?),
            PayloadType::EAP => Self::Eap(Eap::parse(body)?),
            PayloadType::SKF => Self::Skf(Skf::parse(next, body)?),
            _ => Self::Unknown { payload_type, critical, body: body.rest().to_vec() },
        })
    }

    /// Appends what follows the generic payload header.
    pub(super) fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(sa) => sa.emit(out),
            Self::Ke(ke) => ke.emit(out),
            Self::IdI(id) | Self::IdR(id) => id.emit(out),
            Self::Cert(cert) => cert.emit(out),
            Self::CertReq(certreq) => certreq.emit(out),
            Self::Auth(auth) => auth.emit(out),
            Self::Nonce(nonce) => nonce.emit(out),
            Self::Notify(notify) => notify.emit(out),
            Self::Delete(delete) => delete.emit(out),
            Self::Vendor(vendor) => vendor.emit(out),
            Self::TsI(ts) | Self::TsR(ts) => ts.emit(out),
            Self::Sk(sk) => sk.emit(out),
            Self::Cp(cp) => cp.emit(out),
            Self::Eap(eap) => eap.emit(out),
            Self::Skf(skf) => skf.emit(out),
            Self::Unknown { body, .. } => out.extend_from_slice(body),
        }
    }
}

/// The payload's type, with the message type for Notify: what a log line needs.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Notify(notify) = self {
            return write!(f, "N({})", notify.notify_type);
        }
        write!(f, "{}", self.payload_type())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ike::numbers::NotifyType;

    #[test]
    fn notifies_print_their_message_type() {
        let notify = Payload::Notify(Notify::new(NotifyType::COOKIE, vec![]));
        assert_eq!(notify.to_string(), "N(COOKIE)");
        assert_eq!(Payload::Vendor(Vendor { data: vec![] }).to_string(), "VENDOR");
    }
}
