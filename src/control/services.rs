//! What `services` is told, part of the [protocol](super::protocol).

use serde::{Deserialize, Serialize};

/// An SA, and which services it gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaServices {
    /// The peer.
    pub peer: String,
    /// The child policy.
    pub child: Option<String>,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Its SPI.
    pub spi: String,
    /// Algorithms; of a bundle those of ESP, and of the AH around it.
    pub suite: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// Every service, given or not, in the order of RFC 4301 §3.1.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// In the words of RFC 4301 §3.1.
    pub service: String,
    /// Whether the SA gives it.
    pub given: bool,
    /// By what, or why not.
    pub why: String,
}
