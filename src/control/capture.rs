//! What `capture` asks and is told, part of the [protocol](super::protocol).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which packets are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// As that of a trace; empty: all.
    #[serde(default)]
    pub filter: String,
    /// Inner packets.
    #[serde(default)]
    pub inner: bool,
    /// Outer packets.
    #[serde(default)]
    pub outer: bool,
    /// So many; without it, without end.
    #[serde(default)]
    pub count: Option<u64>,
}

/// Some packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// They, in the order in which a worker met them.
    pub frames: Vec<Frame>,
    /// How many since the last such line were left out, because they came faster than they were taken.
    pub left_out: u64,
    /// Where the daemon writes the keys of every SA, if it does; in the first line only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keylog: Option<PathBuf>,
}

/// A packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// An outer packet, else an inner one.
    pub outer: bool,
    /// What became of it.
    pub comment: String,
    /// The packet from its IP header on, in Base64 (RFC 4648 §4).
    pub data: String,
}
