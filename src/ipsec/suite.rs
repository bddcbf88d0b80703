//! The algorithms of an SA, as negotiated: [`EspSuite`] and [`IkeSuite`], and the proposals they are chosen from.

use core::fmt;

pub use crate::crypto::Encr;
use crate::wire::ike::numbers::{EsnId, IntegId, KeId, PrfId};

/// The algorithms of one ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EspSuite {
    /// Encryption.
    pub encr: Encr,
    /// Integrity; [`IntegId::NONE`] with an AEAD.
    pub integ: IntegId,
    /// Whether sequence numbers have 64 bits (RFC 4303 §2.2.1).
    pub esn: EsnId,
}

/// The algorithms of one IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IkeSuite {
    /// Encryption of SK payloads.
    pub encr: Encr,
    /// Integrity of SK payloads; [`IntegId::NONE`] with an AEAD.
    pub integ: IntegId,
    /// Key derivation and PSK authentication.
    pub prf: PrfId,
    /// Key exchange.
    pub ke: KeId,
}

/// One proposal for an IKE SA, as configured: for each transform type what is acceptable, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Encryption; all AEAD or none of them (RFC 7296 §3.3: they do not mix in one proposal).
    pub encr: Vec<Encr>,
    /// Integrity; empty with AEAD.
    pub integ: Vec<IntegId>,
    /// PRF, never empty.
    pub prf: Vec<PrfId>,
    /// Key exchange, never empty.
    pub ke: Vec<KeId>,
}

/// One proposal for an ESP SA, as configured: for each transform type what is acceptable, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// Encryption; all AEAD or none of them.
    pub encr: Vec<Encr>,
    /// Integrity; empty with AEAD.
    pub integ: Vec<IntegId>,
    /// Key exchange on rekey (PFS); empty for none. Left out in IKE_AUTH (RFC 7296 §1.2).
    pub ke: Vec<KeId>,
    /// Extended sequence numbers, never empty.
    pub esn: Vec<EsnId>,
}

/// `AES_GCM_16-256`, in the words that a log line uses.
impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.encr, f)?;
        if self.integ != IntegId::NONE {
            write!(f, "/{}", self.integ)?;
        }
        if self.esn == EsnId::ESN {
            f.write_str("/ESN")?;
        }
        Ok(())
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.encr, f)?;
        if self.integ != IntegId::NONE {
            write!(f, "/{}", self.integ)?;
        }
        write!(f, "/{}/{}", self.prf, self.ke)
    }
}
