//! What passes between IKE and the datapath: [`SadUpdate`] one way, [`Notice`] the other. Neither side knows the other.

use core::net::IpAddr;

use super::{Path, PolicyId, SaParams, Spi};

/// A change of the SAD, in the order in which it must be applied.
///
/// A rekey emits `AddInbound`, later `AddOutbound`, later `RemoveOutbound` and `RemoveInbound` of the old SA
/// (RFC 7296 §2.8), so that no packet meets a missing SA.
#[derive(Clone, Debug)]
pub enum SadUpdate {
    /// Packets with this SPI are accepted from here on.
    AddInbound(Box<SaParams>),
    /// Packets of its policy leave through this SA from here on.
    AddOutbound(Box<SaParams>),
    /// Inbound and outbound SA travel on another path from here on (both named by our inbound SPI).
    MovePath {
        /// SPI of the inbound SA.
        spi: Spi,
        /// The path.
        path: Path,
    },
    /// The inbound SA with our SPI is no more.
    RemoveInbound(Spi),
    /// The outbound SA is no more: named by the policy and the SPIs of both sides, since two peers may choose the same, also under
    /// one policy.
    RemoveOutbound {
        /// SPD entry of the SA.
        policy: PolicyId,
        /// The peer's SPI.
        spi: Spi,
        /// Our SPI of the pair.
        other_spi: Spi,
    },
}

/// What the datapath tells IKE. Rate-limited at its source.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A packet met a PROTECT policy that has no SA (RFC 4301 §5.1).
    Acquire {
        /// The SPD entry.
        policy: PolicyId,
        /// The packet that asked.
        flow: Flow,
    },
    /// An SA reached a limit of bytes, packets or sequence numbers.
    Expire {
        /// The inbound SPI of the pair.
        spi: Spi,
        /// True: it has ended. False: it is time to replace it.
        hard: bool,
    },
    /// ESP came for an SPI that we do not have (RFC 7296 §1.5).
    NoSa {
        /// The SPI.
        spi: Spi,
        /// Where from and to.
        path: Path,
    },
    /// An authenticated packet came from another address or port (RFC 7296 §2.23).
    PeerMoved {
        /// SPI of the inbound SA.
        spi: Spi,
        /// The new path.
        path: Path,
    },
    /// A genuine packet came on an SA that may not carry it (RFC 4301 §5.2, step 5).
    Mismatch {
        /// SPI of the inbound SA.
        spi: Spi,
        /// The start of the packet that was protected: its headers.
        start: Vec<u8>,
    },
    /// Authenticated packets have come on this inbound SA since the last such notice: a proof of life (RFC 7296 §2.4).
    Alive {
        /// SPI of the inbound SA.
        spi: Spi,
    },
}

/// The selector fields of one packet (RFC 4301 §4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol after extension headers.
    pub protocol: u8,
    /// Source and destination port; ICMP type and code; `None` where the packet has none (OPAQUE, later fragments).
    pub ports: Option<(u16, u16)>,
}
