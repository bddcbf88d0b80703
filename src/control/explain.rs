//! What `explain` asks and is told, part of the [protocol](super::protocol).

use serde::{Deserialize, Serialize};

/// A packet that might be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// As `10.1.0.5:1234 > 10.2.0.9:443/tcp`.
    pub packet: String,
    /// It comes from a peer; else it is to go to one.
    #[serde(default)]
    pub inbound: bool,
    /// Its length in bytes, IP header included.
    pub size: usize,
    /// It may be fragmented on the way: IPv4 without DF.
    #[serde(default)]
    pub may_fragment: bool,
}

/// What would become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet, everything written out.
    pub packet: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Its length in bytes.
    pub size: usize,
    /// The way that the kernel would send it; `null` if it was not asked.
    pub route: Option<Route>,
    /// Outbound: the SPD entry that decides; `null` if none matches.
    pub policy: Option<Policy>,
    /// Outbound: SPD entries that come near, and why they do not decide; the nearest first.
    #[serde(default)]
    pub near: Vec<NearPolicy>,
    /// Outbound: the SA. Inbound: those under which the peer may send it.
    #[serde(default)]
    pub sas: Vec<Sa>,
    /// Inbound: SAs under which it would be dropped, and why.
    #[serde(default)]
    pub refusing_sas: Vec<RefusingSa>,
    /// How it goes with the size.
    pub length: Option<Length>,
    /// `protect`, `bypass`, `drop`, `wait` (an SA is asked for), `reassemble`, `deliver`; `elsewhere` if the kernel would
    /// not hand it to us at all.
    pub verdict: String,
    /// Why it is dropped: one of the drop reasons.
    #[serde(default)]
    pub reason: Option<String>,
    /// The verdict for people, in one sentence.
    pub text: String,
}

/// The way that the kernel would send it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// As in ip-route(8): `unicast`, `local` and so on; `null` if it is refused.
    pub kind: Option<String>,
    /// The interface on which it comes in; `null` if this host itself sends it.
    pub input: Option<String>,
    /// The interface by which it leaves.
    pub interface: Option<String>,
    /// The next hop.
    pub gateway: Option<String>,
    /// The routing table.
    pub table: Option<u32>,
    /// The MTU of the route, if it has one of its own.
    pub mtu: Option<u32>,
    /// The interface is a TUN of ours.
    pub into_tun: bool,
    /// Why there is none.
    pub refused: Option<String>,
}

/// An SPD entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its place in the SPD; the first is 1.
    pub number: usize,
    /// PEER/CHILD; `null` of one that no peer has.
    pub name: Option<String>,
    /// `PROTECT`, `BYPASS` or `DISCARD`.
    pub action: String,
    /// Selectors of our side.
    pub ts_local: Vec<String>,
    /// Selectors of the peer's side.
    pub ts_peer: Vec<String>,
}

/// An SPD entry that does not decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearPolicy {
    /// It.
    #[serde(flatten)]
    pub policy: Policy,
    /// Why not, for people.
    pub why: String,
}

/// An SA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sa {
    /// The peer.
    pub peer: String,
    /// The child policy.
    pub child: Option<String>,
    /// Its SPI.
    pub spi: String,
    /// Of a bundle, the SPI of the AH around it.
    pub spi_around: Option<String>,
    /// Algorithms.
    pub suite: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// `esp`, `udp` or `ah`.
    pub encap: String,
    /// Our end: address, and port if in UDP.
    pub local: String,
    /// The peer's end.
    pub remote: String,
    /// Outbound: the last sequence number used. Inbound: the highest received.
    pub sequence: u64,
}

/// An SA under which the packet would be dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusingSa {
    /// It.
    #[serde(flatten)]
    pub sa: Sa,
    /// Why, for people.
    pub why: String,
}

/// How a packet goes with its size. All in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// Longest packet that goes under the SA without fragmentation.
    pub mtu: Option<usize>,
    /// What the path takes, as far as it is known.
    pub path_mtu: usize,
    /// In how many packets it leaves.
    pub packets: usize,
    /// Their length on the wire, from the outer IP header on.
    pub wire: usize,
    /// The outer packet is longer than the path takes, and is fragmented itself.
    pub outer_fragments: bool,
}
