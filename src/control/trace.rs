//! What `trace` is told, part of the [protocol](super::protocol).

use serde::{Deserialize, Serialize};

/// Some packets of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// They, in the order in which a worker met them.
    pub packets: Vec<Packet>,
    /// How many matched since the last such line and were left out, because they came faster than they were taken.
    pub left_out: u64,
}

/// A packet, or a piece that the host handed over to be cut, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// `protect`, `bypass`, `drop`, `wait`, `reassemble`, `deliver`, `ike` or `keepalive`.
    pub verdict: String,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `10.1.0.5:1234 > 10.2.0.9:443/tcp`; of an inbound packet only once it is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<String>,
    /// Length of the inner packet in bytes, 0 if it is not known.
    pub size: usize,
    /// The peer, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The child policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// The SPI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spi: Option<String>,
    /// Our end of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// The peer's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// In how many packets it is on the wire.
    pub wire_packets: usize,
    /// Their length in bytes, from the outer IP header on.
    pub wire_bytes: usize,
}
