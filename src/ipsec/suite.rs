//! The algorithms of an SA, as negotiated: [`Suite`] and [`IkeSuite`], and the proposals they are chosen from.

use core::fmt;

pub use crate::crypto::Encr;
use crate::wire::ike::numbers::{EsnId, IntegId, KeId, PrfId, ProtocolId};

/// The algorithms of one SA of the SAD, and with them its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Of AH (RFC 4302).
    Ah(AhSuite),
    /// Of ESP (RFC 4303).
    Esp(EspSuite),
}

/// The security protocol of an SA (RFC 4301 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Authentication Header, IP protocol 51.
    Ah,
    /// Encapsulating Security Payload, IP protocol 50.
    Esp,
}

/// The algorithms of one AH SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AhSuite {
    /// Integrity, never [`IntegId::NONE`].
    pub integ: IntegId,
    /// Whether sequence numbers have 64 bits (RFC 4302 §2.5.1).
    pub esn: EsnId,
}

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
    /// Key exchanges after that one.
    pub addke: AddKe,
}

/// How many additional key exchanges an SA can have (RFC 9370 §2.2.1).
pub const ADDKES: usize = 7;

/// Additional key exchanges of an SA (RFC 9370): the methods of ADDKE1 to ADDKE7, [`KeId::NONE`] where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddKe(pub [KeId; ADDKES]);

impl AddKe {
    /// None at all.
    pub const NONE: Self = Self([KeId::NONE; ADDKES]);

    /// The methods, in the order in which they are carried out.
    pub fn methods(self) -> impl Iterator<Item = KeId> {
        self.0.into_iter().filter(|method| *method != KeId::NONE)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
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
    /// Additional key exchanges: for each of ADDKE1 to ADDKE7 what is acceptable, [`KeId::NONE`] if it may be left out; empty for
    /// none.
    pub addke: [Vec<KeId>; ADDKES],
}

/// One proposal for a CHILD_SA, as configured: for each transform type what is acceptable, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildProposal {
    /// ESP or AH.
    pub protocol: Protocol,
    /// Encryption; all AEAD or none of them. Empty for AH.
    pub encr: Vec<Encr>,
    /// Integrity; empty with AEAD, never for AH.
    pub integ: Vec<IntegId>,
    /// Key exchange on rekey (PFS); empty for none. Left out in IKE_AUTH (RFC 7296 §1.2).
    pub ke: Vec<KeId>,
    /// Additional key exchanges beside that one, as with IKE.
    pub addke: [Vec<KeId>; ADDKES],
    /// Extended sequence numbers, never empty.
    pub esn: Vec<EsnId>,
}

impl Protocol {
    /// Its number in IKE (RFC 7296 §3.3.1).
    #[must_use]
    pub const fn id(self) -> ProtocolId {
        match self {
            Self::Ah => ProtocolId::AH,
            Self::Esp => ProtocolId::ESP,
        }
    }
}

impl Suite {
    /// What the suite is for.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Ah(_) => Protocol::Ah,
            Self::Esp(_) => Protocol::Esp,
        }
    }

    /// Whether sequence numbers have 64 bits.
    #[must_use]
    pub fn esn(self) -> bool {
        match self {
            Self::Ah(suite) => suite.esn == EsnId::ESN,
            Self::Esp(suite) => suite.esn == EsnId::ESN,
        }
    }

    /// Its ESP suite.
    #[must_use]
    pub const fn esp(self) -> Option<EspSuite> {
        match self {
            Self::Ah(_) => None,
            Self::Esp(suite) => Some(suite),
        }
    }
}

impl From<AhSuite> for Suite {
    fn from(suite: AhSuite) -> Self {
        Self::Ah(suite)
    }
}

impl From<EspSuite> for Suite {
    fn from(suite: EspSuite) -> Self {
        Self::Esp(suite)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ah => "AH",
            Self::Esp => "ESP",
        })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ah(suite) => fmt::Display::fmt(suite, f),
            Self::Esp(suite) => fmt::Display::fmt(suite, f),
        }
    }
}

/// `AUTH_HMAC_SHA2_256_128`, in the words that a log line uses.
impl fmt::Display for AhSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.integ, f)?;
        if self.esn == EsnId::ESN {
            f.write_str("/ESN")?;
        }
        Ok(())
    }
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
        write!(f, "/{}/{}", self.prf, self.ke)?;
        fmt::Display::fmt(&self.addke, f)
    }
}

/// `/KE1_ML_KEM_768`, in strongSwan's words; nothing for none.
impl fmt::Display for AddKe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, method) in (1..).zip(self.0).filter(|(_, method)| *method != KeId::NONE) {
            write!(f, "/KE{number}_{method}")?;
        }
        Ok(())
    }
}
