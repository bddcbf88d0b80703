//! EAP (RFC 3748) as it goes on in IKE_AUTH (RFC 7296 §2.16): [`Client`] for the initiator, [`Server`] for the responder, and a
//! file for each method. Both are fed one EAP message and say the next; IKE delivers them in order and once.
//!
//! Every method here makes an MSK, with which both sides make their last AUTH payloads. One that makes none is declined.

mod client;
mod mschapv2;
mod server;
mod tls;

use core::fmt;

use thiserror::Error;

pub(super) use client::{Client, ClientStep};
pub(super) use server::{Server, ServerStep};

use crate::crypto::tls::TlsError;
use crate::ipsec::pad::{EapMethod, Identity};

/// The type of an EAP request or response (RFC 3748 §5).
#[derive(Clone, Copy, PartialEq, Eq)]
struct EapType(u8);

impl EapType {
    const IDENTITY: Self = Self(1);
    const NOTIFICATION: Self = Self(2);
    const NAK: Self = Self(3);
    const TLS: Self = Self(13);
    const MSCHAPV2: Self = Self(26);

    const fn of(method: EapMethod) -> Self {
        match method {
            EapMethod::MsChapV2 => Self::MSCHAPV2,
            EapMethod::Tls => Self::TLS,
        }
    }
}

/// Why EAP came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EapFault {
    /// The peer's message has no form, or does not belong there.
    #[error("the peer broke EAP: {0}")]
    Malformed(&'static str),
    /// The two have no method in common.
    #[error("no EAP method is common to both")]
    Method,
    /// The name, or the certificate, is not that of the identity.
    #[error("the certificate of EAP-TLS is not {0}'s")]
    Name(Identity),
    /// Wrong password, or no such user.
    #[error("{0} is not known, or has another password")]
    Password(UserName),
    /// The peer, as server, sent EAP-Failure.
    #[error("the peer refused our EAP identity or what we proved it with")]
    Refused,
    /// The peer, as server, does not know the password that it has asked for.
    #[error("the peer did not prove to know the password")]
    ServerProof,
    /// We have nothing to take part with.
    #[error("we have no {0}")]
    Setup(&'static str),
    /// TLS ended.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The peer left AUTH out, and is not to use EAP.
    #[error("the peer wants to prove itself by EAP, which it is not to")]
    Unwanted,
    /// More messages, or longer ones, than we take.
    #[error("the peer sent more EAP messages than are taken")]
    TooMany,
}

/// A name that a peer has sent: bytes, mostly UTF-8, of which people see what is safe to show.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Vec<u8>);

impl UserName {
    /// The longest that is kept: an NAI may have 253 octets (RFC 7542 §2.3).
    const MAX: usize = 253;

    fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= Self::MAX).then(|| Self(bytes.to_vec()))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
